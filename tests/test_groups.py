"""Groups of examples: no division cuts one, and intervals are about other groups."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simulations
from absl.testing import flagsaver
from scipy import stats
from sklearn.model_selection import StratifiedGroupKFold
from test_readers import DIVIDED, ROWS, X, Y, assert_refused, read, write

import linear_cifar as lc
from experiments import grid
from experiments.artifacts import figures
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli.launch import parse_flags
from linear_cifar.data.dataset import DataError, Split, make_dataset
from linear_cifar.data.division import assign_groups, draw_folds, draw_groups
from linear_cifar.data.prepare import prepare_data
from linear_cifar.uncertainty import select_best


def draw_grouped(seed, n=300, K=4, G=30):
    """Return labels and groups; the groups differ in size and in their shares of the classes."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(G, n, p=rng.dirichlet(np.ones(G)))
    favourite = rng.integers(K, size=G)
    return np.where(rng.random(n) < 0.6, favourite[groups], rng.integers(K, size=n)), groups


# ---- division


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("K", [2, 3, 10])
def test_folds_of_groups_are_those_of_scikit_learn(K, folds):
    for seed in range(3):
        labels, groups = draw_grouped(seed, K=K)
        fold_of = assign_groups(labels, groups, folds)
        expected = StratifiedGroupKFold(folds).split(labels, labels, groups)
        for fold, (_, rows) in enumerate(expected):
            np.testing.assert_array_equal(np.flatnonzero(fold_of == fold), rows)


def test_folds_are_cut_to_the_smallest_and_keep_the_shares_of_the_classes():
    labels, groups = draw_grouped(1, n=600, G=60)
    fold_of = assign_groups(labels, groups, 4)
    cut = draw_folds(labels, 4, groups)
    assert cut.shape == (4, np.bincount(fold_of).min())
    assert not np.array_equal(cut, draw_folds(labels, 4, groups, seed=1))
    for fold, rows in enumerate(cut):
        assert (fold_of[rows] == fold).all()
        assert (np.diff(rows) > 0).all()
        whole = labels[fold_of == fold]
        kept, expected = np.bincount(labels[rows]), np.bincount(whole) * len(rows) / len(whole)
        assert np.abs(kept - expected).max() <= 1


def test_a_validation_split_has_whole_groups_and_about_the_size_asked_for():
    labels, groups = draw_grouped(2, n=2_000, G=200)
    for size in (10, 100, 400, 5_000):
        rows = draw_groups(labels, groups, size)
        assert not {*groups[rows]} & {*np.delete(groups, rows)}
        assert len(rows) == pytest.approx(min(max(size, 2_000 / 50), 1_000), rel=0.2)
    shares = np.bincount(labels[draw_groups(labels, groups, 400)]) / np.bincount(labels)
    assert np.abs(shares - 0.2).max() < 0.03
    # The largest group is the only one with class 1, and no fold may take it.
    labels, groups = np.repeat([1, 0, 0, 0], [30, 10, 10, 10]), np.repeat([7, 1, 2, 3], [30, 10, 10, 10])
    assert {*labels[draw_groups(labels, groups, 30)]} == {0}


@pytest.mark.parametrize(
    ("labels", "groups", "folds", "message"),
    [
        ([0, 0, 1, 1], [5, 5, 9, 9], 3, "give at most 2 folds, the number of groups"),
        ([0, 0, 1, 1], [5, 9, 9, 9], 2, "class 1 has 2 of 4 rows, too few to divide without dividing groups"),
        ([0, 0, 1, 1], [5, 9, 5, 9], 1, "folds is 1: give at least 2"),
    ],
)
def test_what_cannot_be_divided_is_refused(labels, groups, folds, message):
    with pytest.raises(ValueError, match=message):
        draw_folds(np.array(labels), folds, np.array(groups))


def test_a_class_in_one_group_cannot_be_validated_and_trained_on():
    with pytest.raises(ValueError, match="no two whole groups or more leave rows of every class"):
        draw_groups(np.array([0, 0, 1, 1]), np.array([5, 5, 9, 9]), 2)
    split = Split(X, np.repeat([0, 1], 6), np.repeat([0, 1], 6))
    dataset = make_dataset("own.npz", tuple("ab"), {"train": split}, "", user_file=True)
    with pytest.raises(DataError, match=r"own\.npz has no x_val to validate on, and val_size is 5: no two"):
        prepare_data(dataset, val_size=5)


# ---- files

GROUPS = np.array(["ann", "bob", "ann", "cy"] * 3)


@pytest.mark.parametrize("kind", [".npz", "", ".parquet"])
@pytest.mark.parametrize(
    "convert", [np.asarray, lambda words: np.char.encode(words, "ascii"), np.char.str_len]
)
def test_groups_are_read_as_labels_are(kind, convert, tmp_path):
    words = np.array(["a", "bbb", "a", "cc"] * 3)
    groups = convert(words)
    plain = read(write(tmp_path, kind, x=X, y=Y))
    dataset = read(write(tmp_path, kind, x=X, y=Y, group=groups.tolist() if kind == ".parquet" else groups))
    np.testing.assert_array_equal(dataset.splits["train"].groups, np.unique(groups, return_inverse=True)[1])
    assert plain.splits["train"].groups is None
    assert plain.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_the_groups_of_splits_have_one_encoding(kind, tmp_path):
    split = np.array(["train", "test", "train", "val"] * 3)
    whole = read(write(tmp_path, kind, x=X, y=Y, split=split, group=GROUPS))
    assert {name: {*part.groups.tolist()} for name, part in whole.splits.items()} == {
        "train": {0}, "val": {2}, "test": {1},
    }  # fmt: skip
    arrays = DIVIDED | {f"group_{name}": GROUPS[rows] for name, rows in ROWS.items()}
    assert read(write(tmp_path, ".npz", **arrays)).fingerprint == whole.fingerprint


def test_wrong_groups_are_refused(tmp_path):
    arrays = DIVIDED | {f"group_{name}": GROUPS[rows] for name, rows in ROWS.items()}
    changed = {"group_test": np.array(["bob", "cy", "bob"])}
    assert_refused(r"group 'cy' is in val and test: give", write(tmp_path, ".npz", **arrays | changed))
    changed = {"group_test": np.array(["bob", "bob"])}
    assert_refused(r"group_test is \[2\], .* give \[n\] labels", write(tmp_path, ".npz", **arrays | changed))
    changed = {"group_test": np.array([0.5, 1, 1])}
    assert_refused("group_test is float64: give whole numbers", write(tmp_path, ".npz", **arrays | changed))
    del arrays["group_test"]
    assert_refused("has no group_test", write(tmp_path, ".npz", **arrays))
    assert_refused("has no x_val", write(tmp_path, ".npz", x_train=X, y_train=Y, group_train=Y, group_val=Y))
    np.savez(tmp_path / "own.npz", x=X, y=Y, group=np.array([None] * 12, object))
    assert_refused("group cannot be read: .* holds Python objects", tmp_path / "own.npz")


# ---- intervals


def marks(seeds=3, num_groups=20, accuracies=(0.9, 0.85), seed=0, regime=simulations.GROUPED[1]):
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(0.1, num_groups)
    groups = rng.permutation(np.repeat(np.arange(num_groups), sizes))
    thetas = stats.norm.ppf(accuracies)
    correct = simulations.draw_correct(rng, thetas, regime, seeds, len(groups), groups=groups)
    return correct, groups


def test_the_standard_error_is_the_cluster_robust_one():
    correct, groups = marks(seeds=1)
    y = correct[0, 0].astype(float)
    n, G = len(y), groups.max() + 1
    sums = np.array([(y - y.mean())[groups == g].sum() for g in range(G)])
    estimate = lc.estimate_accuracy(correct[:, 0], groups)
    assert estimate.mean == pytest.approx(y.mean(), abs=1e-12)
    # Liang and Zeger's sandwich for a mean, with G / (G - 1).
    assert estimate.stderr == pytest.approx(np.sqrt(G / (G - 1) * (sums**2).sum()) / n)
    # Clopper and Pearson's limits for the effective number of examples.
    sizes, p = np.bincount(groups), y.mean()
    effective = n**2 / (sizes**2).sum()
    t, variance = stats.t.ppf(0.975, [effective - 1, n - 1]), p * (1 - p)
    g = (1 / n + G * estimate.stderr**2) / (1 / n + variance)
    square = (estimate.stderr * t[0] / t[1]) ** 2 * (G - 1) / G
    count = (variance + g / effective) / (square + (g / effective) ** 2)
    low = stats.beta.ppf(0.025, p * count, (1 - p) * count + 1)
    high = stats.beta.ppf(0.975, p * count + 1, (1 - p) * count)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    words = np.array([f"patient {g}" for g in groups])
    for same in (words, groups[None]):
        assert lc.estimate_accuracy(correct[:, 0], same)[:4] == pytest.approx(estimate[:4])


def test_groups_of_one_example_change_nothing():
    correct, groups = marks()
    alone = np.random.default_rng(0).permutation(len(groups))
    first, second = correct[:, 0], correct[:, 1]
    assert lc.estimate_accuracy(first, alone) == pytest.approx(lc.estimate_accuracy(first))
    assert lc.estimate_difference(first, second, alone) == pytest.approx(
        lc.estimate_difference(first, second)
    )


def test_groups_that_agree_count_as_one_example_each():
    once = np.random.default_rng(0).random((1, 40)) < 0.8
    groups = np.repeat(np.arange(40), 25)
    alone, grouped = lc.estimate_accuracy(once), lc.estimate_accuracy(once[:, groups], groups)
    assert grouped[:4] == pytest.approx(alone[:4], rel=0.05)
    assert grouped.low < alone.low < alone.high < grouped.high
    assert np.ptp(lc.estimate_accuracy(once[:, groups])[1:3]) < 0.25 * np.ptp(alone[1:3])
    perfect = lc.estimate_accuracy(np.ones((1, 1_000), bool), groups)
    assert (perfect.low, perfect.high) == pytest.approx((0.025 ** (1 / 40), 1))


def test_a_set_by_groups_is_that_of_the_pairs_and_larger(monkeypatch):
    correct, groups = marks(accuracies=np.linspace(0.95, 0.4, 9), regime=simulations.GROUPED[2])
    chosen = lc.confidence_set(correct, groups=groups)
    assert lc.confidence_set(correct).sum() < chosen.sum() < 9
    # Each of 8 rivals is tested at 5 % / 8, one-sided.
    monkeypatch.setattr("linear_cifar.uncertainty.CONFIDENCE", 1 - 2 * 0.05 / 8)
    members = [correct[:, c] for c in range(9)]
    by_pairs = [
        all(lc.estimate_difference(one, other, groups).high >= 0 for other in members if other is not one)
        for one in members
    ]
    assert chosen.tolist() == by_pairs
    # With one rival the limits are those of a two-sided interval of 90 %.
    monkeypatch.undo()
    found = select_best(correct[:, :2], 0, np.ones(2, bool), groups=groups).difference[1]
    monkeypatch.setattr("linear_cifar.uncertainty.CONFIDENCE", 0.9)
    assert found[:3] == pytest.approx(lc.estimate_difference(members[1], members[0], groups)[:3])
    for wrong, message in (
        (groups[1:], r"groups is \(\d+,\): give \[\d+\], one for each example"),
        (np.full(len(groups), np.nan), "groups cannot be sorted, or hold NaN"),
        (np.zeros(len(groups)), "3 seeds and 1 groups: give at least one seed and two groups"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.confidence_set(correct, groups=wrong)


@pytest.mark.parametrize(("accuracy", "equal"), [(0.7, True), (0.7, False), (0.98, True), (0.98, False)])
def test_intervals_cover_the_truth_and_plain_ones_do_not(accuracy, equal):
    measured = simulations.measure_coverage(
        simulations.GROUPED[2], 1, 600, 300, (accuracy,), num_groups=30, equal=equal
    )
    assert measured.seeds_and_examples > 0.92
    assert measured.without_groups < 0.7


# ---- results and commands


def test_examples_carry_their_groups():
    groups = np.array(["b", "a", "b", "c"] * 3)
    made = lc.make_examples(X, Y, 3, groups=groups)
    for examples in (made, lc.Examples(X, np.eye(3)[Y], groups=groups)):
        np.testing.assert_array_equal(examples.groups, [1, 0, 1, 2] * 3)
        np.testing.assert_array_equal(examples.take(np.array([3, 0])).groups, [2, 1])
        np.testing.assert_array_equal(examples.replace_features(X).groups, examples.groups)
    with pytest.raises(ValueError, match=r"groups is \(11,\): give \[12\], one for each example"):
        lc.make_examples(X, Y, 3, groups=groups[1:])
    with pytest.raises(ValueError, match="groups cannot be sorted"):
        lc.make_examples(X, Y, 3, groups=[None, *groups[1:]])


def grouped_data(n=120, num_groups=24, **division):
    rng = np.random.default_rng(0)
    groups = rng.integers(num_groups, size=n)
    labels = (rng.integers(3, size=num_groups)[groups] + (rng.random(n) < 0.3)) % 3
    features = rng.normal(size=(num_groups, 5))[groups] + 0.5 * np.eye(3, 5)[labels] * rng.normal(size=(n, 1))
    split = Split(features.astype(np.float32), labels.astype(np.int32), groups.astype(np.int32))
    dataset = make_dataset("own.npz", ("a", "b", "c"), {"train": split}, "", user_file=True)
    return prepare_data(dataset, **division)


@pytest.mark.parametrize("division", [{"folds": 4}, {"val_size": 30}])
def test_a_result_knows_the_groups_of_its_marks(division, tmp_path):
    data = grouped_data(**division)
    replicates = data.replicates([0, 1])
    configs = lc.grid(eta=[0.1, 0.01], batch=[10], lam=[0.0])
    test = lc.make_examples(np.ones((7, 5), np.float32), [0, 1, 2, 0, 1, 2, 0], 3, groups=[*"abacdde"])
    fitted = lc.fit(configs, data.sets["train"], data.sets | {"test": test}, epochs=1, seeds=replicates)
    fitted.save(tmp_path / "result.npz")
    reversed_parts = [fitted.take(replicates=[s]) for s in range(len(replicates))][::-1]
    for result in (
        fitted,
        lc.Result.load(tmp_path / "result.npz"),
        lc.Result.join(reversed_parts, fitted.identity),
        fitted.take(replicates=range(len(replicates))[::-1]),
    ):
        groups, correct = result.groups_of("val"), result.values("val", 0)
        rows = (
            [np.concatenate([r.evaluation_rows["val"] for r in data.folds])] if data.folds else [slice(None)]
        )
        np.testing.assert_array_equal(groups, [np.asarray(data.sets["val"].groups)[rows[0]]] * 2)
        assert groups.shape == correct.shape
        assert result.interval("val", 0) == lc.estimate_accuracy(correct, groups)
        assert result.groups_of("train") is None
        np.testing.assert_array_equal(result.groups_of("test"), [[0, 1, 0, 2, 3, 3, 4]] * 2)
        selection = result.selection()
        worse = 1 - result.best().index
        difference = lc.estimate_difference(*(result.values("val", c) for c in (worse, 1 - worse)), groups)
        assert selection.difference[worse].mean == pytest.approx(difference.mean)
        assert selection.parts == (4 if data.folds else 5)


def test_other_groups_are_other_data():
    examples = [lc.make_examples(X, Y, 3, groups=groups) for groups in (None, Y, 1 - Y % 2)]
    digests = [
        lc.fit(lc.grid(eta=[0.1], batch=[4], lam=[0.0]), examples[0], {"val": val}, epochs=1).identity.data[
            "val"
        ]
        for val in examples
    ]
    assert len({*digests}) == 3


@pytest.mark.parametrize(
    ("flag", "note"),
    [
        ("--folds=4", r"has 24 groups of training examples, and no fold divides one"),
        ("--val_size=30", r"has no x_val: \d+ of its 120 training examples, \d of 24 groups, stratified by"),
    ],
)
def test_a_command_divides_and_measures_by_groups(flag, note, tmp_path, capsys, monkeypatch):
    for plot in ("heatmap", "differences", "curves", "confusion"):
        monkeypatch.setattr(figures, f"plot_{plot}", lambda *_: None)
    split = grouped_data().dataset.splits["train"]
    words, printed, widths = [f"patient {g}" for g in split.groups], {}, {}
    for name, columns in (("groups", {"group": words}), ("plain", {})):
        path = tmp_path / f"{name}.parquet"
        table = {"features": list(split.features), "label": np.array([*"abc"])[split.labels], **columns}
        pq.write_table(pa.table(table), path)
        flags = [f"--data={path}", flag, "--batch=10", "--eta=0.1,0.01", "--lam=0", "--epochs=2"]
        with flagsaver.flagsaver():
            monkeypatch.setattr("sys.argv", ["experiments.grid", *flags])
            grid.define_flags()
            parse_flags(["grid", *flags, f"--out={tmp_path / name}"])
            grid.main()
        printed[name] = capsys.readouterr()
        result = ExperimentFolder(tmp_path / name).result("grid")
        interval = result.interval("val", result.best().index)
        widths[name] = (interval.high - interval.low) * np.sqrt(result.sizes["val"])
    assert re.search(note, printed["groups"].err)
    assert "(95 % intervals over groups, for these weights)" in printed["groups"].out
    assert "other groups, for these weights," in printed["groups"].out
    assert (
        "group" not in printed["plain"].out.replace(str(tmp_path), "") + printed["plain"].err.split(" to ")[0]
    )
    assert widths["groups"] > 1.2 * widths["plain"]
