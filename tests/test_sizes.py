"""Training sizes: subsets of the training rows, nested within a seed and drawn anew for each."""

import re
from itertools import pairwise

import numpy as np
import pytest
from absl.testing import flagsaver
from small_runs import SETTINGS, make_sweep

import linear_cifar as lc
from experiments import grid
from experiments.artifacts.tables import SHOTS, sizes_table
from experiments.cli import flags
from experiments.cli.launch import parse_flags
from experiments.cli.source import open_source
from experiments.runner.errors import UsageError
from linear_cifar.comparison import Comparison
from linear_cifar.data.dataset import DataError, Split, make_dataset
from linear_cifar.data.division import draw_subset
from linear_cifar.data.prepare import prepare_data
from linear_cifar.uncertainty import Estimate, Selection

CONFIGS = lc.grid(eta=[0.1], batch=[16], lam=[0.001])


def draw_labels(n=400, shares=(0.5, 0.3, 0.15, 0.05)):
    return np.random.default_rng(0).choice(len(shares), size=n, p=shares)


def make_data(n=120, seed=0, **options):
    """Return three classes of features that differ in scale, with 30 rows to validate on."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n + 30) % 3).astype(np.int32)
    x = (rng.normal(size=(n + 30, 4)) * [1, 10, 100, 1000] + labels[:, None]).astype(np.float32)
    splits = {"train": Split(x[:n], labels[:n]), "val": Split(x[n:], labels[n:])}
    size = {name: options.pop(name) for name in ("train_size", "shots") if name in options}
    data = prepare_data(make_dataset("small", ("a", "b", "c"), splits, "", user_file=True), **options)
    return data.limit(**size) if size else data


@pytest.mark.parametrize("draw", [{"seed": 0}, {"seed": 7, "fold": 3}])
def test_subsets_are_nested_and_have_each_class_in_its_share(draw):
    labels = draw_labels()
    shares = np.bincount(labels) / len(labels)
    sizes = range(4, 401)
    subsets = [draw_subset(labels, size, **draw) for size in sizes]
    assert [len(rows) for rows in subsets] == [*sizes]
    assert all(np.isin(fewer, more).all() for fewer, more in pairwise(subsets))
    assert (np.diff(subsets[200]) > 0).all()
    counts = np.array([np.bincount(labels[rows], minlength=4) for rows in subsets])
    assert np.abs(counts - shares * np.array(sizes)[:, None]).max() < 2


def test_classes_of_one_size_have_equally_many_rows():
    labels = np.arange(200) % 10
    for size in (10, 57, 100):
        counts = np.bincount(labels[draw_subset(labels, size)], minlength=10)
        assert {*counts} <= {size // 10, -(-size // 10)}


def test_a_class_has_its_share_on_average_over_seeds():
    # Of 80 rows a class of 1 % has 0.8: a rule that rounds would give it 1 or none every time.
    labels = np.repeat([0, 1], [990, 10])
    drawn = [np.sum(labels[draw_subset(labels, 80, seed=seed)]) for seed in range(400)]
    assert np.mean(drawn) == pytest.approx(0.8, abs=0.1)


def test_shots_are_nested_and_take_as_many_of_each_class():
    labels = draw_labels()
    subsets = [draw_subset(labels, shots=shots) for shots in (1, 5, 10)]
    for shots, rows in zip((1, 5, 10), subsets, strict=True):
        np.testing.assert_array_equal(np.bincount(labels[rows]), [shots] * 4)
    assert all(np.isin(fewer, more).all() for fewer, more in pairwise(subsets))


def test_each_seed_and_fold_has_a_draw_of_its_own():
    labels = np.zeros(300, int)
    drawn = [draw_subset(labels, 150, seed=seed, fold=fold) for seed in range(4) for fold in range(3)]
    shared = [len(np.intersect1d(first, second)) for first, second in pairwise(drawn)]
    assert min(shared) > 55  # 75 on average
    assert max(shared) < 95
    np.testing.assert_array_equal(drawn[0], draw_subset(labels, 150))


@pytest.mark.parametrize("division", [{"val_size": 10}, {"folds": 3}])
@pytest.mark.parametrize("size", [{"train_size": 25}, {"shots": 7}])
def test_a_replicate_has_its_own_rows_and_standardiser(division, size):
    whole, data = make_data(**division), make_data(**division, **size)
    x, m = np.asarray(whole.sets["train"].features), size.get("train_size", 21)
    assert data.size("train") == m
    assert data.size("val") == whole.size("val")
    assert data.standardizer is None
    replicates, usual = data.replicates((3, 5)), whole.replicates((3, 5))
    assert len(replicates) == 2 * division.get("folds", 1)
    for replicate, other in zip(replicates, usual, strict=True):
        assert (replicate.seed, replicate.fold) == (other.seed, other.fold)
        rows, n = np.unique(replicate.rows), whole.size("train")
        # Every row comes up equally often, and an epoch is no shorter than one of all rows.
        np.testing.assert_array_equal(np.sort(replicate.rows), np.repeat(rows, -(-n // m)))
        assert n <= len(replicate.rows) < n + m
        assert len(rows) == m
        np.testing.assert_array_equal(replicate.evaluation_rows["train"], rows)
        np.testing.assert_array_equal(replicate.standardizer.mean, lc.fit_standardizer(x[rows]).mean)
        np.testing.assert_array_equal(replicate.standardizer.std, lc.fit_standardizer(x[rows]).std)
        if other.fold is not None:
            assert np.isin(rows, other.rows).all()
            np.testing.assert_array_equal(replicate.evaluation_rows["val"], other.evaluation_rows["val"])


def train(data, **options):
    sets = {"val": data.sets["val"], "train": data.sets["train"]}
    seeds = data.replicates((2,))
    return lc.fit(CONFIGS, data.sets["train"], sets, epochs=3, seeds=seeds, **options)


@pytest.mark.parametrize("size", [24, 60])
def test_a_subset_trains_as_examples_of_its_own(size):
    data = make_data(val_size=30, train_size=size)
    (replicate,), result = data.replicates((2,)), train(data)
    examples = data.sets["train"]
    alone = lc.fit(
        CONFIGS,
        examples.take(replicate.rows),
        {"val": data.sets["val"], "train": examples.take(np.unique(replicate.rows))},
        epochs=3,
        seeds=(2,),
        standardizer=replicate.standardizer,
    )
    assert result.final["val_acc"].min() > 0.4
    for name in ("val_acc", "val_loss", "train_acc", "train_loss"):
        np.testing.assert_allclose(result.final[name], alone.final[name], rtol=1e-6)


def test_a_folder_of_another_size_is_not_resumed(tmp_path):
    few, more, shots = (make_data(val_size=30, **size) for size in SIZES)
    assert len({data.division for data in (few, more, shots, make_data(val_size=30))}) == 4
    train(few, folder=tmp_path)
    for other in (more, shots):
        with pytest.raises(lc.FolderError, match="holds runs with"):
            train(other, folder=tmp_path)


SIZES = ({"train_size": 30}, {"train_size": 60}, {"shots": 10})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 121}, "small: train_size is 121: give from 3, the number of classes, to 120 rows"),
        ({"train_size": 2}, "small: train_size is 2: give from 3"),
        ({"train_size": -1}, "small: train_size is -1"),
        ({"train_size": 101, "folds": 3}, "give from 3, the number of classes, to 100 rows"),
        ({"shots": 50}, "small: shots is 50: class "),
        ({"shots": 5, "train_size": 20}, "small: train_size is 20 and shots is 5: give one of them"),
        ({"shots": 5, "class_weight": "balanced"}, "shots is 5: all classes weigh alike already"),
    ],
)
def test_a_size_that_cannot_be_is_one_line(options, message):
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        make_data(**{"val_size": 30} | options)
    assert len(str(raised.value).splitlines()) == 1


def sweeps_from_flags(*words):
    with flagsaver.flagsaver():
        flags.define_settings(selects=True)
        flags.define_sizes()
        parse_flags(["command", *words])
        sweep = flags.sweep_from_flags("small", CONFIGS)
        assert (sweep.settings.train_size, sweep.settings.shots) == (0, 0)
        return sweep, flags.sizes_from_flags(sweep)


def test_each_size_of_the_flags_is_a_sweep():
    sweep, sizes = sweeps_from_flags("--train_sizes=300,100,300")
    assert [each.name for each in sizes] == ["small-100", "small-300"]
    assert sizes[0] == sweep._replace(name="small-100", settings=sweep.settings._replace(train_size=100))
    assert [each.name for each in sweeps_from_flags("--shots=1,5")[1]] == ["small-1shot", "small-5shot"]
    assert [each.settings.shots for each in sweeps_from_flags("--shots=1,5")[1]] == [1, 5]
    sweep, sizes = sweeps_from_flags()
    assert sizes == [sweep]
    for words in (["--train_sizes=100", "--shots=1"], ["--train_sizes=0"], ["--shots=a"]):
        with pytest.raises(UsageError, match=r"train_sizes|shots") as raised:
            sweeps_from_flags(*words)
        assert len(str(raised.value).splitlines()) == 1


def test_sizes_have_no_flag_elsewhere():
    assert (SETTINGS.train_size, SETTINGS.shots) == (0, 0)
    with flagsaver.flagsaver():
        grid.define_flags()
        with pytest.raises(UsageError, match="Unknown command line flag 'shots'"):
            parse_flags(["grid", "--shots=1"])


def test_all_sizes_share_the_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = make_data()
    np.savez("own.npz", x_train=whole.sets["train"].features, y_train=whole.labels("train"))
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", "--data=own.npz"])
        _, prepare = open_source()
        sweep = make_sweep(CONFIGS, val_size=20, flip=False)
        few = prepare(sweep.settings._replace(train_size=30))
        shots = prepare(sweep.settings._replace(shots=2))
        whole = prepare(sweep.settings)
    assert few.sets["train"] is shots.sets["train"] is whole.sets["train"]
    assert (few.size("train"), shots.size("train"), len(few.sets["train"])) == (30, 6, 100)
    assert few is not shots


def compare_files(accuracy, may_be_best, names=("raw", "pca", "random")):
    best = int(np.argmax(accuracy))
    difference = [Estimate(value - accuracy[best], value - accuracy[best] - 0.02, 0.01) for value in accuracy]
    estimates = [Estimate(value, value - 0.01, value + 0.01) for value in accuracy]
    selection = Selection(difference, np.array(may_be_best), np.nan, 0)
    return Comparison(tuple(names), "val", CONFIGS[:1] * len(names), tuple(estimates), selection, best)


def test_the_table_says_from_which_size_on_a_file_is_below_another():
    comparisons = {
        1000: compare_files([0.97, 0.93, 0.96], [True, False, True]),
        30: compare_files([0.70, 0.72, 0.71], [True, True, False]),
        100: compare_files([0.80, 0.78, 0.79], [True, False, True]),
        10: compare_files([0.50, 0.60, 0.40], [True, False, True]),
    }
    table = sizes_table(comparisons, "digits", SHOTS)
    assert table.columns[:3] == [SHOTS, "best", "val acc"]
    assert [row[:2] for row in table.rows] == [["10", "pca"], ["30", "pca"], ["100", "raw"], ["1000", "raw"]]
    assert table.rows[-1][2:] == ["97.00 ± 1.00", "random", "-1.00 (-3.00 to 1.00)", "2 of 3"]
    # pca is left out with 10 too, but not with 30.
    assert table.note.splitlines() == [
        "Significantly below the best file from 100 training examples of each class on: pca.",
        "With 1,000 training examples of each class these may be the best (95 % confidence, each size by "
        "itself): raw, random.",
    ]
    alone = sizes_table({100: compare_files([0.8], [True], ["raw"])}, "digits")
    assert alone.rows == [["100", "raw", "80.00 ± 1.00", "", "", "1 of 1"]]
