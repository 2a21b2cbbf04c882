"""The grid on a user's own file: the guide's examples, files and report, and mistakes in one line."""

import csv
import json
import os
import re
import shlex
from pathlib import Path

import forks
import numpy as np
import pytest
from absl.testing import flagsaver
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments import grid, report
from experiments.cli import experiment, flags
from experiments.cli.launch import parse_flags
from experiments.cli.source import open_source
from experiments.runner.errors import UsageError
from linear_cifar import memory
from linear_cifar.data.dataset import DataError, Split, make_dataset
from linear_cifar.data.division import divide
from linear_cifar.data.formats import read_features
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.readers import READERS
from linear_cifar.fitting import fit
from linear_cifar.standardizer import standardize

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "experiments" / "FEATURES.md").read_text(encoding="utf-8")


def find_block(marker):
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", GUIDE, re.S)[1]


def run_grid(*flags, cwd, program=("-m", "experiments.grid")):
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": str(cwd / "caches")}
    process = forks.Process([*program, *flags], cwd=cwd, env=env)
    output, errors = process.communicate()
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The folder of the guide's example and what its command printed, the names of its program added."""
    folder = tmp_path_factory.mktemp("probe")
    names = {}
    before = os.getcwd()
    try:
        os.chdir(folder)
        exec(find_block("probe"), names)
        words = shlex.split(find_block("sweep").replace("\\\n", ""))
        code, output, errors = run_grid(*words[3:], cwd=folder)
        assert code == 0, errors
        exec(find_block("weights"), names)
    finally:
        os.chdir(before)
    return folder, output, errors, names


def test_the_example_ends_in_a_ranked_table_with_deviations(example):
    _, output, errors, _ = example
    lines = output.splitlines()
    assert re.match(r"digits.npz [0-9a-f]{8} \(95 % intervals over seeds 0-9 and ", lines[0])
    assert re.search(r"^ +1 .* ± .* \(.* to .*\) .* may be the best$", output, re.M)
    assert "note: digits.npz has no x_val: 360 of its 1,437 training examples, drawn at random" in errors
    # The guide shows what the command prints, but for some columns and the rounding of other machines.
    shown = re.search(r"^digits.npz [0-9a-f]{8} \(95 %.*?(?=\n…)", GUIDE, re.M | re.S)[0].splitlines()
    assert shown[0][19:] == lines[0][19:]  # but for the fingerprint, which another version might change
    shown = [line.split("  …")[0] for line in shown]
    assert lines[1].startswith(shown[1])
    for row in shown[2:]:
        numbers = [float(number) for number in re.findall(r"[0-9.]+", row)]
        (same,) = [
            found
            for line in lines[2:11]
            if (found := [float(number) for number in re.findall(r"[0-9.]+", line)])[1:4] == numbers[1:4]
        ]
        assert same[4:9] == pytest.approx(numbers[4:9], abs=0.5)


def test_the_files_name_the_data_and_have_every_run(example):
    folder = example[0] / "digits"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dataset = read_features(example[0] / "digits.npz")
    assert config["dataset"] == {
        "name": "digits.npz", "origin": "digits.npz", "verified": False, "user_file": True,
        "image_shape": None, "fingerprint": dataset.fingerprint,
    }  # fmt: skip
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"digits.npz"}
    assert len(rows) == 90
    assert (folder / "confusion.svg").exists()
    assert not (folder / "weights.svg").exists()


def test_the_weights_predict_as_the_run_did_in_scikit_learn(example):
    folder, names = example[0] / "digits", example[3]
    accuracy = np.mean(names["predicted"] == names["y_test"])
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [
            row
            for row in csv.DictReader(file)
            if all(float(row[name]) == names["best"][name] for name in ("eta", "lam", "seed"))
        ]
    assert accuracy == pytest.approx(float(row["test_acc"]), abs=1e-6)
    by_class = balanced_accuracy_score(names["y_test"], names["predicted"])
    assert by_class == pytest.approx(float(row["test_class_acc"]), abs=1e-6)


def test_the_report_has_a_page_on_own_data_alone(example, capsys):
    with flagsaver.flagsaver():
        report.define_flags()
        parse_flags(["report", f"--results={example[0]}"])
        report.main()
    page = (example[0] / "report.html").read_text(encoding="utf-8")
    assert "The grid on digits.npz " in page
    assert "own file, SHA-256" in page
    assert "CIFAR-10" not in page
    assert "Verdicts" not in page


def test_the_weights_predict_the_same_in_pytorch(example):
    pytest.importorskip("torch")
    names = dict(example[3])
    exec(find_block("torch"), names)
    np.testing.assert_array_equal(names["predicted"].numpy(), example[3]["predicted"])


def test_the_example_with_words_trains_and_names_its_classes(example, monkeypatch):
    folder, names = example[0], dict(example[3])
    monkeypatch.chdir(folder)
    exec(find_block("words"), names)
    words = shlex.split(find_block("words sweep"))[3:]
    code, output, errors = run_grid(*words, cwd=folder, program=[str(ROOT / "tests" / "small_grid.py")])
    assert code == 0, errors
    best = np.load(folder / "words" / "best_params.npz")
    assert best["classes"].tolist() == sorted(names["words"])
    predicted = best["classes"][np.argmax(names["x_test"] @ best["W_raw"].T + best["b_raw"], axis=1)]
    assert np.mean(predicted == names["words"][names["y_test"]]) > 0.93
    assert output.startswith("words.parquet ")


ENDINGS = re.findall(r"^\| (none|`\.\w+`).*?\| `(.*?\))`", GUIDE, re.M)


@pytest.mark.parametrize(("ending", "program"), ENDINGS, ids=[ending for ending, _ in ENDINGS])
def test_each_kind_of_file_leads_to_a_table(ending, program, example, tmp_path, monkeypatch):
    if ending == "`.pt`":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names = {name: example[3][name] for name in ("np", "x", "y", "x_test", "y_test")}
    exec(program, names)
    path = "own" if ending == "none" else f"own{ending.strip('`')}"
    exec(find_block("library").replace("words.parquet", path), names)
    dataset = names["data"].dataset
    np.testing.assert_array_equal(dataset.splits["train"].features, names["x"])
    np.testing.assert_array_equal(np.array(dataset.classes, int)[dataset.splits["train"].labels], names["y"])
    assert names["result"].to_frame().val_acc.min() > 0.9
    assert np.mean(names["named"] == names["y_test"].astype(str)) > 0.9


def test_the_example_in_python_prints_the_table_that_the_guide_shows(example, monkeypatch, capsys):
    monkeypatch.chdir(example[0])
    names = dict(example[3])
    exec(find_block("words"), names)
    exec(find_block("library"), names)
    printed, shown = capsys.readouterr().out, re.search(r"^ +eta .*?(?=\n```)", GUIDE, re.M | re.S)[0]
    assert printed.split()[:4] == shown.split()[:4]
    for row, expected in zip(printed.splitlines()[1:], shown.splitlines()[1:], strict=True):
        assert [*map(float, row.split())] == pytest.approx([*map(float, expected.split())], abs=0.005)
    assert np.mean(names["named"] == names["words"][names["y_test"]]) > 0.93


def test_the_table_has_every_kind_of_file():
    assert {"" if ending == "none" else ending.strip("`") for ending, _ in ENDINGS} == {*READERS}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with small files: features without a test split, and images."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 12)).astype(np.float32), np.arange(60) % 3
    np.savez(folder / "plain.npz", x_train=x + y[:, None].astype(np.float32), y_train=y)
    np.savez(folder / "images.npz", x_train=(50 + 9 * x).astype(np.uint8).reshape(60, 2, 2, 3), y_train=y)
    return folder


QUICK = ("--val_size=12", "--epochs=2", "--batch=10", "--eta=0.1", "--lam=0,0.01")


def test_without_a_test_split_nothing_is_reported_as_test(small):
    words = ["--data=plain.npz", *QUICK, "--seeds=2", "--out=plain", "--standardize=unit"]
    without_figures = [str(ROOT / "tests" / "small_grid.py")]
    code, output, errors = run_grid(*words, cwd=small, program=without_figures)
    assert code == 0, errors
    assert "test" not in output
    assert "plain.npz has no x_test: nothing is reported as test" in errors
    with (small / "plain" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["test_acc"] + row["test_loss"] + row["test_class_acc"] for row in rows} == {""}
    # The same data under another name are the same run, and other data are refused.
    np.savez_compressed(small / "again.npz", **np.load(small / "plain.npz"))
    code, output, errors = run_grid("--data=again.npz", *words[1:], cwd=small, program=without_figures)
    assert code == 0, errors
    assert "finished already" in errors
    code, output, errors = run_grid("--data=images.npz", *words[1:], cwd=small, program=without_figures)
    assert code == 2
    assert "holds runs with other data: training examples" in errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=plain.npz", "--flip"], "--flip is for images, and plain.npz holds features"),
        (["--data=plain.npz", "--shift=1"], "--shift is for images"),
        (["--data=plain.npz", "--image_shape=3,3,2"], "does not hold images of image_shape 3,3,2"),
        (["--data=images.npz", "--image_shape=3,2"], "image_shape"),
        (["--data=plain.npz", "--evaluate=test"], "--evaluate=test: plain.npz has no x_test"),
        (["--data=plain.npz", "--train=batch1"], "plain.npz has no batch files"),
        (["--data=plain.npz", "--batch=49"], "the training set holds 48 examples"),
        (["--data=plain.npz", "--val_size=58", "--batch=1"], "val_size is 58: give 1 to 57"),
        (["--data=plain.npz", "--val_size=60"], "--val_size=60: give less than the 60 training examples"),
        (["--data=~nobody_of_this_name/x.npz"], "there is no home folder of that name"),
        (["--data=plain.npz", "--dataset=synthetic"], "--data and --dataset cannot be combined"),
        (["--data=plain.npz", "--recipe=best"], "--recipe=best is for CIFAR-10"),
        (["--data=missing.npz"], "missing.npz does not exist"),
        (["--data=plain.npz", "--seed=4294967295", "--seeds=2"], "the largest seed is 4294967295"),
        (["--data=plain.npz", "--seed=4294967296"], "seed"),
        (["--data=plain.npz", "--standardize=zca"], "standardize"),
        (["--data=plain.npz", "--columns=x=emb"], "plain.npz has no emb; it has 'x_train', 'y_train'"),
        (
            ["--data=plain.npz", "--columns=emb"],
            "expected ARRAY=NAME once for each, where ARRAY is one of x, y, group, ",
        ),
        (["--columns=x=emb"], "--columns: it is for --data only"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(small, monkeypatch, flags, message):
    monkeypatch.chdir(small)
    with flagsaver.flagsaver(), pytest.raises((UsageError, DataError), match=re.escape(message)) as raised:
        grid.define_flags()
        parse_flags(["grid", *QUICK, *flags])
        (sizes, prepare), sweep = open_source(), grid.make_sweep()
        experiment.check_sweep(sweep, sizes)
        prepare(sweep.settings)
    assert len(str(raised.value).splitlines()) == 1


def fit_defaults(path, *words):
    """Return the sweep and the data of a grid on a file, with the defaults that follow from it."""
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", f"--data={path}", *words])
        sizes, prepare = open_source()
        sweep = grid.make_sweep()
        experiment.check_sweep(sweep, sizes)
        return sweep, prepare(sweep.settings), len(flags.stages_from_flags(sweep))


# Folds, rows that validate, batch and epochs, by the number of rows and the flags.
DEFAULTS = [
    (10, [], (5, 2, 1, 100)),
    (300, [], (5, 60, 4, 100)),
    (300, ["--folds=2"], (2, 150, 4, 100)),
    (300, ["--val_size=20"], (0, 20, 8, 100)),
    (300, ["--evaluate=test"], (0, 60, 4, 100)),
    (300, ["--batch=7", "--epochs=3"], (5, 60, 7, 3)),
    (1_100, [], (5, 220, 16, 100)),
    (3_000, [], (5, 600, 64, 100)),
    (5_000, [], (0, 1_000, 64, 40)),
    (80_000, [], (0, 10_000, 256, 40)),
]
CASES = [(n, words, expected, K) for n, words, expected in DEFAULTS for K in (2, 10, 100) if n >= 5 * K]


@pytest.mark.parametrize(("n", "words", "expected", "K"), CASES)
def test_the_defaults_fit_any_file_with_five_rows_per_class(n, words, expected, K, tmp_path):
    random = np.random.default_rng(0)
    y = random.permutation(np.append(np.repeat(np.arange(K), 5), random.integers(K, size=n - 5 * K)))
    np.savez(tmp_path / "own.npz", x_train=random.random((n, 2)), y_train=y, x_test=[[1.0, 2]], y_test=[0])
    sweep, data, stages = fit_defaults(tmp_path / "own.npz", *words)
    (batch,) = {config.batch for config in sweep.configs}
    assert (len(data.folds), data.size("val"), batch, sweep.settings.epochs) == expected
    assert stages == 1 + (expected[0] > 0)
    assert len(sweep.configs) == 40
    assert not sweep.settings.flip


def test_the_best_of_the_default_grid_is_as_good_as_scikit_learns(tmp_path):
    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "own.npz", x_train=x[:300].astype(np.float32), y_train=y[:300])
    sweep, data, _ = fit_defaults(tmp_path / "own.npz")
    result = fit(**sweep.fit_arguments(data))
    best = result.values("val", result.best("val").index)[0]
    accuracy = []
    for C in np.logspace(-4, 3, 8):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1_000))
        pairs = [(fold.rows, fold.evaluation_rows["val"]) for fold in data.folds]
        accuracy.append(cross_val_score(model, x[:300], y[:300], cv=pairs).mean())
    assert best.mean() > max(accuracy) - 0.01
    assert min(accuracy) < max(accuracy) - 0.02


def test_images_that_float32_cannot_tell_apart_are_not_flipped(small, monkeypatch):
    monkeypatch.chdir(small)
    images = dict(np.load("images.npz"))
    images["x_train"] = images["x_train"].astype(np.float64) + 1e12
    np.savez("far.npz", x_train=images["x_train"], y_train=images["y_train"])
    with (
        flagsaver.flagsaver(),
        pytest.raises(UsageError, match=r"--flip: feature 0 goes from .* cannot tell apart"),
    ):
        grid.define_flags()
        parse_flags(["grid", *QUICK, "--data=far.npz", "--flip"])
        open_source()[1](grid.make_sweep().settings)


def read_changed(path, change):
    """Read a file, and return it with its training features changed."""
    dataset = read_features(path)
    features, labels, _ = dataset.splits["train"]
    changed = {"train": Split(change(features), labels)}
    return make_dataset(dataset.name, dataset.classes, changed, dataset.origin, user_file=True)


def test_a_constant_feature_is_0_where_it_is_only_centred(small):
    dataset = read_changed(small / "plain.npz", lambda x: x * (np.arange(12) != 3).astype(x.dtype))
    data = prepare_data(dataset, val_size=12, standardize="center")
    np.testing.assert_array_equal(data.standardizer.std, np.where(np.arange(12) == 3, np.inf, 1))


def test_flips_are_off_for_own_data_and_work_for_images(small, monkeypatch):
    monkeypatch.chdir(small)
    for words, expected in (([], None), (["--flip", "--shift=1"], (3, 2, 2))):
        with flagsaver.flagsaver():
            grid.define_flags()
            parse_flags(["grid", *QUICK, "--data=images.npz", *words])
            (_, prepare), settings = open_source(), grid.make_sweep().settings
            augment = settings.fit_options(prepare(settings).dataset.image_shape)["augment"]
        shape = None if augment is None else augment.keywords["augmentations"][0].keywords["shape"]
        assert shape == expected


def test_the_scale_of_the_features_is_what_the_flag_says(small):
    dataset = read_features(small / "plain.npz")
    scaled = {}
    for mode in ("standard", "center", "unit", "none"):
        data = prepare_data(dataset, val_size=12, standardize=mode)
        scaled[mode] = np.asarray(standardize(data.standardizer, data.sets["train"].features))
    x = divide(dataset, val_size=12)["train"].features
    np.testing.assert_allclose(scaled["standard"], (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-5)
    np.testing.assert_allclose(scaled["center"], x - x.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(scaled["unit"], x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(scaled["none"], x)
    centred = prepare_data(dataset, val_size=12, standardize="center").standardizer
    np.testing.assert_allclose(centred.mean, x.mean(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(centred.std, 1)


def at_1e9(x):
    """Move feature 3 to where float32 has no digits left."""
    return x + 1e9 * (np.arange(12) == 3)


def tiny(x):
    """Scale feature 5 to where float32 has no digits left."""
    return x * np.where(np.arange(12) == 5, 1e-42, 1)


@pytest.mark.parametrize("change", [at_1e9, tiny])
@pytest.mark.parametrize("mode", ["standard", "none"])
def test_float64_features_lose_no_digits_in_float32(small, change, mode):
    dataset = read_changed(small / "plain.npz", lambda x: change(x.astype(np.float64)))
    options = {"val_size": 12, "standardize": mode}
    x = divide(dataset, val_size=12)["train"].features
    prepare_data(dataset, dtype="float64", **options)
    if mode == "none" and change is at_1e9:
        with pytest.raises(
            DataError, match=r"feature 3 goes from 99999.* cannot tell apart: give a standardizer"
        ):
            prepare_data(dataset, **options)
        return
    data = prepare_data(dataset, **options)
    prepared = np.asarray(standardize(data.standardizer, data.sets["train"].features))
    expected = (x - x.mean(axis=0)) / x.std(axis=0) if mode == "standard" else x
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared, expected, atol=1e-6)


def test_more_data_than_the_memory_holds_are_refused(small, monkeypatch):
    dataset = read_features(small / "plain.npz")
    needed = 60 * (2 * 12 * 4 + 4)  # loaded, and copied as rows that are drawn
    monkeypatch.setattr(memory, "process_memory", lambda: needed)
    prepare_data(dataset, val_size=12)
    monkeypatch.setattr(memory, "process_memory", lambda: needed - 1)
    with pytest.raises(DataError, match=r"\(60 examples of 12 features\) needs 6e-06 GB, and there are"):
        prepare_data(dataset, val_size=12)


def test_features_of_float64_stay_so_until_they_are_used(small):
    dataset = read_changed(small / "plain.npz", lambda x: x.astype(np.float64))
    for dtype in ("float32", "float64"):
        data = prepare_data(dataset, val_size=12, standardize="none", dtype=dtype)
        assert data.sets["train"].features.dtype == np.float64


def test_balanced_classes_weigh_alike_in_training_only(small):
    dataset = read_features(small / "plain.npz")
    data = prepare_data(dataset, val_size=12, class_weight="balanced")
    train, plain = data.sets["train"], prepare_data(dataset, val_size=12).sets["train"]
    sums = np.bincount(data.labels("train"), weights=train.weights)
    np.testing.assert_allclose(sums, len(train) / len(sums), rtol=1e-6)
    assert plain.weights is data.sets["val"].weights is None
    assert train.digest == f"{plain.digest}, class_weight balanced"
