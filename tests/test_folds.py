"""Cross-validation: the division into folds, runs without a fold, and the refit of the best."""

import csv
import re

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import grid
from experiments.artifacts import figures
from experiments.artifacts.reader import ExperimentFolder, ReadError
from experiments.cli import experiment, flags, source
from experiments.cli.launch import parse_flags
from experiments.cli.source import open_source
from experiments.runner import stages
from experiments.runner.errors import Stopped, UsageError
from experiments.runner.stages import REFIT
from linear_cifar import fitting
from linear_cifar.data.cifar10 import SIZES
from linear_cifar.data.dataset import DataError, Split, make_dataset
from linear_cifar.data.division import divide, draw_folds, find_folds, train_size
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.examples import TRAINING


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_disjoint_equal_and_stratified(folds):
    labels = np.random.default_rng(0).choice(4, size=103, p=[0.5, 0.3, 0.15, 0.05])
    rows = draw_folds(labels, folds)
    assert rows.shape == (folds, 103 // folds)
    assert len(np.unique(rows)) == rows.size
    assert (np.diff(rows, axis=1) > 0).all()
    counts = np.array([np.bincount(labels[fold], minlength=4) for fold in rows])
    assert np.ptp(counts, axis=0).max() <= 1
    # The rows left over are of the largest class.
    left_over = np.setdiff1d(np.arange(103), rows)
    assert len(left_over) == 103 % folds
    assert set(labels[left_over]) <= {0}
    np.testing.assert_array_equal(draw_folds(labels, folds), rows)
    assert not np.array_equal(draw_folds(labels, folds, seed=1), rows)


def test_a_class_is_trained_on_in_every_fold():
    labels = np.array([0] * 9 + [1] * 2)
    for fold in draw_folds(labels, 5):
        assert set(np.delete(labels, fold)) == {0, 1}
    for folds, classes, message in ((5, [1], "class 1 has 1 of 10 rows"), (1, [1, 1], "give at least 2")):
        with pytest.raises(ValueError, match=message):
            draw_folds(np.array([0] * 9 + classes), folds)


def test_five_folds_of_the_published_images_are_the_batch_files():
    labels = (np.arange(50_000) % 10).astype(np.uint8)
    split = Split(np.arange(50_000)[:, None].astype(np.uint16), labels)
    raw = make_dataset("cifar10", tuple("abcdefghij"), {"train": split, "test": split}, "")
    np.testing.assert_array_equal(find_folds(raw, labels, 5), np.arange(50_000).reshape(5, 10_000))
    assert [*divide(raw, folds=5)] == ["train"]
    assert find_folds(raw, labels, 4).shape == (4, 12_500)
    assert find_folds(raw, divide(raw, "batch1", folds=5)["train"].labels, 5).shape == (5, 2_000)
    divisions = [("full", 1_000, 5), ("full", 1_000, 7), ("batch1", 0, 5)]
    assert [train_size(SIZES, *division) for division in divisions] == [40_000, 6 * 7_142, 8_000]
    whole = divide(raw, val_size=0)
    assert {name: len(split.labels) for name, split in whole.items()} == {"train": 50_000, "test": 50_000}


def user_file(path, **arrays):
    rng = np.random.default_rng(0)
    y = np.arange(41) % 3
    x = (rng.normal(size=(41, 4)) + y[:, None]).astype(np.float32)
    np.savez(path, x_train=x, y_train=y, **arrays)
    return path


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_validation_examples_of_a_file_join_the_folds(in_folder, capsys):
    user_file("own.npz", x_val=np.ones((5, 4), np.float32), y_val=np.array([0, 1, 2, 0, 1]))
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", "--data=own.npz", "--folds=4"])
        (sizes, prepare), settings = open_source(), grid.make_sweep().settings
        data = prepare(settings)
        refit = prepare(settings._replace(folds=0, val_size=0))
    assert train_size(sizes, settings.train, settings.val_size, settings.folds) == 33
    assert (data.size("train"), data.size("val"), len(data.sets["val"])) == (33, 11, 46)
    assert refit.size("train") == 46
    lines = capsys.readouterr().err.splitlines()
    assert "note: own.npz has x_val: its examples join the training examples, 46 in all" in lines
    assert "note: own.npz has 46 training examples: 2 are in no fold, so that each has 11" in lines


def test_a_file_is_opened_and_read_once_for_the_grid_and_the_refit(in_folder):
    user_file("own.npz")
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", "--data=own.npz", "--folds=4"])
        (_, prepare), settings = open_source(), grid.make_sweep().settings
        (in_folder / "own.npz").unlink()
        refit = prepare(settings._replace(folds=0, val_size=0))
        assert prepare(settings).dataset is refit.dataset


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds=1"], "--folds=1: give at least 2 folds, or 0 for none"),
        (["--folds=100"], "--folds=100: there are fewer training examples"),
        (["--folds=20"], "own.npz cannot be divided into 20 folds: class "),
        (["--folds=4", "--batch=31"], "batch is 31: the training set holds 30"),
        (["--folds=4", "--evaluate=test"], "--evaluate=test: with --folds only the refitted"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(in_folder, flags, message):
    y = np.array([0] * 39 + [1, 2])
    np.savez("own.npz", x_train=np.ones((41, 4), np.float32), y_train=y)
    if flags != ["--folds=20"]:
        user_file("own.npz", x_test=np.ones((1, 4), np.float32), y_test=np.array([0]))
    with flagsaver.flagsaver(), pytest.raises((UsageError, DataError), match=re.escape(message)) as raised:
        grid.define_flags()
        parse_flags(["grid", "--data=own.npz", "--batch=10", *flags])
        (sizes, prepare), sweep = open_source(), grid.make_sweep()
        experiment.check_sweep(sweep, sizes)
        prepare(sweep.settings)
    assert len(str(raised.value).splitlines()) == 1


def test_each_fold_has_the_standardiser_of_its_own_training_rows():
    raw = make_synthetic(n_train=83, n_test=10)
    data = prepare_data(raw, folds=4)
    replicates = data.replicates([7, 8])
    assert [replicate[:2] for replicate in replicates] == [
        (seed, fold) for seed in (7, 8) for fold in range(4)
    ]
    folds = find_folds(raw, raw.splits["train"].labels, 4)
    for replicate, left_out in zip(replicates, [*folds, *folds], strict=True):
        rows = sorted(set(folds.flat) - set(left_out))
        np.testing.assert_array_equal(replicate.rows, rows)
        np.testing.assert_array_equal(replicate.evaluation_rows["train"], rows)
        np.testing.assert_array_equal(replicate.evaluation_rows["val"], left_out)
        features = raw.splits["train"].features[rows].astype(np.float64)
        np.testing.assert_allclose(replicate.standardizer.mean, features.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(replicate.standardizer.std, features.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize("folds", [0, 3])
def test_fit_takes_the_data_with_and_without_folds(folds):
    import linear_cifar as lc

    data = prepare_data(make_synthetic(n_train=123, n_test=12), val_size=20, folds=folds)
    configs, replicates = lc.grid(eta=[0.01], batch=[10], lam=[0.0]), data.replicates([0, 1])
    result = lc.fit(
        configs,
        data.sets["train"],
        data.sets,
        epochs=1,
        seeds=replicates,
        standardizer=data.standardizer,
    )
    assert {*result.sizes} == {*data.sets} == ({"train", "val"} if folds else {"train", "val", "test"})
    assert result.final["val_acc"].shape == (2 * max(folds, 1), 1)
    for r, replicate in enumerate(replicates):
        for name in result.sizes:
            rows = (replicate.evaluation_rows or {}).get(name, range(data.size(name)))
            measured = lc.evaluate(
                result.params(0, replicate.seed, replicate.fold),
                data.sets[name].take(np.asarray(rows)),
                "softmax",
                standardizer=replicate.standardizer or data.standardizer,
            )
            assert result.final[f"{name}_loss"][r, 0] == pytest.approx(float(measured.loss), rel=1e-5)


def test_a_snapshot_names_the_division_and_refuses_another():
    import linear_cifar as lc

    raw = make_synthetic(n_train=63, n_test=12)

    def train(data, snapshot=None):
        configs = lc.grid(eta=[0.01], batch=[10], lam=[0.0])
        options = {"standardizer": data.standardizer, "resume_from": snapshot}
        return lc.sweep(configs, data.sets["train"], {}, epochs=2, **options)

    snapshot = next(train(prepare_data(raw, val_size=20))).snapshot()
    words = f"train of data {raw.fingerprint}, train full, val_size 20"
    assert snapshot.identity.data[TRAINING] == words
    assert len([*train(prepare_data(raw, val_size=20), snapshot)]) == 1
    with pytest.raises(ValueError, match="of another sweep: it has other data: training examples"):
        train(prepare_data(raw, val_size=13), snapshot)


FLAGS = ("--dataset=synthetic", "--val_size=50", "--epochs=2", "--batch=40", "--lam=0", "--dtype=float64")
NUM_TRAIN, NUM_TEST, FOLDS = 123, 60, 3


@pytest.fixture(scope="module")
def run_grid(tmp_path_factory):
    """Run the grid on synthetic images, and return its folder."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, *words, eta="0.001,0.01"):
        with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["experiments.grid", *FLAGS])
            patch.setattr(
                source, "find_dataset", lambda *_: make_synthetic(n_train=NUM_TRAIN, n_test=NUM_TEST)
            )
            for plot in ("heatmap", "differences", "curves", "best_weights", "confusion"):
                patch.setattr(figures, f"plot_{plot}", lambda *_: None)
            grid.define_flags()
            parse_flags(["grid", *FLAGS, f"--eta={eta}", f"--out={root / name}", *words])
            grid.main()
        return root / name

    return run


def read_rows(folder, sweep):
    """Return the rows of a sweep as numbers, by η, seed and fold."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sweep"] == sweep]
    return {(float(row["eta"]), int(row["seed"]), row["fold"]): row for row in rows}


def assert_same(row, expected):
    """Compare the losses of a run that was trained beside others."""
    for name in ("train_loss", "val_loss", "test_loss"):
        assert (row[name] == "") == (expected[name] == "")
        if row[name]:
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-9)


@pytest.fixture(scope="module")
def folded(run_grid):
    return run_grid("folded", f"--folds={FOLDS}", "--seeds=2", "--refit=2")


def test_a_run_without_a_fold_is_a_sweep_on_the_other_images(folded):
    import linear_cifar as lc

    raw = make_synthetic(n_train=NUM_TRAIN, n_test=NUM_TEST)
    rows = read_rows(folded, "grid")
    assert len(rows) == 2 * 2 * FOLDS
    experiment = ExperimentFolder(folded)
    results = [experiment.result(name) for name in ("grid", REFIT)]
    assert [{name: result.sizes[name] for name in result.marks} for result in results] == [
        {"val": 41},
        {"test": NUM_TEST},
    ]
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", *FLAGS])
        options = grid.make_sweep().settings.fit_options(raw.image_shape)
    for name in ("per_epoch", "halving"):
        del options[name]
    features, labels, _ = raw.splits["train"]
    folds = find_folds(raw, labels, FOLDS)
    for fold, left_out in enumerate(folds):
        kept = np.setdiff1d(folds, left_out)
        train, val = (lc.make_examples(features[i], labels[i], 10) for i in (kept, left_out))
        standardizer = lc.fit_standardizer(features[kept])
        *_, last = lc.sweep(
            lc.grid(eta=[0.001, 0.01], batch=[40], lam=[0.0]),
            train,
            {"val": val, "train": train},
            seeds=[1],
            standardizer=standardizer,
            **options,
        )
        marks = lc.mark_correct(last.params(), val, standardizer)
        for c, eta in enumerate((0.001, 0.01)):
            row = rows[eta, 1, str(fold)]
            for split in ("train", "val"):
                loss, accuracy = (last.metrics[f"{split}_{name}"][0, c] for name in ("loss", "acc"))
                assert float(row[f"{split}_loss"]) == pytest.approx(loss, rel=1e-9)
                assert float(row[f"{split}_acc"]) == pytest.approx(accuracy, rel=1e-12)
            assert row["test_acc"] == ""
            by_fold = results[0].values("val", c)[1].reshape(FOLDS, 41)
            np.testing.assert_array_equal(by_fold[fold], marks[0, c])


def test_the_best_are_trained_again_on_all_images_and_tested(folded):
    by_eta = {}
    for (eta, _, _), row in read_rows(folded, "grid").items():
        by_eta.setdefault(eta, []).append(float(row["val_acc"]))
    best = max(by_eta, key=lambda eta: np.mean(by_eta[eta]))
    refits = read_rows(folded, REFIT)
    assert next(iter(refits))[0] == best
    assert sorted(refits) == [(eta, seed, "") for eta in (0.001, 0.01) for seed in (0, 1)]
    assert all(row["val_acc"] == "" and row["test_acc"] for row in refits.values())
    with np.load(folded / "best_params.npz") as saved:
        assert saved["eta"] == best
        x, b = make_synthetic(n_train=NUM_TRAIN, n_test=NUM_TEST).splits["test"], saved["b_raw"]
        predicted = (x.features @ saved["W_raw"].T + b).argmax(axis=1)
    assert np.mean(predicted == x.labels) == pytest.approx(float(refits[best, 0, ""]["test_acc"]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], 0), (["--folds=5"], 1), (["--folds=5", "--refit=0"], 0), (["--refit=3"], 3)],
)
def test_with_folds_one_configuration_is_trained_again_by_default(words, expected, monkeypatch):
    monkeypatch.setattr(flags, "refit_stage", lambda sweep, count: count)
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", *words])
        assert flags.stages_from_flags(grid.make_sweep())[1:] == [expected] * (expected > 0)
        parse_flags(["grid", "--folds=0", "--refit=1", "--train=batch1"])
        with pytest.raises(UsageError, match="--train=batch1 trains on all of data_batch_1 already"):
            flags.stages_from_flags(grid.make_sweep())


def test_a_run_extended_by_seeds_and_in_blocks_is_the_run_at_once(folded, run_grid, capsys):
    words = (f"--folds={FOLDS}", "--block_runs=6", "--refit=0")
    run_grid("extended", *words)
    extended = run_grid("extended", *words, "--seeds=2")
    assert "reused: grid, 2 configurations x 3 folds" in capsys.readouterr().err
    expected, found = read_rows(folded, "grid"), read_rows(extended, "grid")
    assert list(found) == list(expected)
    for key, row in expected.items():
        assert_same(found[key], row)
    ours, theirs = (ExperimentFolder(folder).result("grid").marks["val"] for folder in (folded, extended))
    np.testing.assert_array_equal(theirs, ours)


def test_more_epochs_extend_the_grid_and_the_refit(run_grid):
    words = (f"--folds={FOLDS}", "--max_loss=1e9")
    extended = run_grid("longer", *words, eta="0.01")
    extended = run_grid("longer", *words, "--epochs=3", eta="0.01")
    at_once = run_grid("three", *words, "--epochs=3", eta="0.01")
    for sweep in ("grid", REFIT):
        found = read_rows(extended, sweep)
        for key, row in read_rows(at_once, sweep).items():
            assert_same(found[key], row)


def test_a_stop_in_the_refit_keeps_the_best_weights_of_the_grid(run_grid, monkeypatch):
    grid_alone = run_grid("alone", f"--folds={FOLDS}", "--refit=0")
    asked = []  # the sweep of each question whether to stop

    def fit(*args, about, should_stop, **options):
        def stop():
            asked.append(about["sweep"])
            return asked.count(REFIT) > 2  # before the block, at its start, after its first epoch

        return fitting.fit(*args, about=about, should_stop=stop, **options)

    monkeypatch.setattr(experiment, "run_interruptible", lambda work, on_signal: (work(lambda: False), 15))
    monkeypatch.setattr(stages, "fit", fit)
    with pytest.raises(Stopped, match="stopped after epoch 1 of 2 of refit"):
        run_grid("stopped", f"--folds={FOLDS}")
    folder = grid_alone.with_name("stopped")
    assert {row["epochs"] for row in read_rows(folder, REFIT).values()} == {"1"}
    with np.load(folder / "best_params.npz") as found, np.load(grid_alone / "best_params.npz") as expected:
        assert found["fold"] == expected["fold"]
        np.testing.assert_allclose(found["W"], expected["W"], rtol=1e-9)
    with pytest.raises(ReadError, match="is incomplete: to resume it, run its command"):
        ExperimentFolder(folder).result("grid")
    monkeypatch.undo()
    run_grid("stopped", f"--folds={FOLDS}")
    assert {row["epochs"] for row in read_rows(folder, REFIT).values()} == {"2"}


def test_a_refit_that_is_no_longer_the_best_stays_on_disk_and_is_left_out(run_grid):
    words = (f"--folds={FOLDS}", "--refit=1")
    first = run_grid("changing", *words, eta="1.0")
    assert {eta for eta, *_ in read_rows(first, REFIT)} == {1.0}
    second = run_grid("changing", *words, eta="1.0,0.01")
    assert {eta for eta, *_ in read_rows(second, REFIT)} == {0.01}
    assert [len(list(second.glob(f"blocks/{sweep}/*/block.json"))) for sweep in ("grid", REFIT)] == [2, 2]
