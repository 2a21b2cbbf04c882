"""Several test sets, and the probabilities of all held-out examples, from files to tables."""

import csv
import hashlib
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver
from test_readers import as_column, assert_refused, read, write

from experiments import grid
from experiments.artifacts import figures
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli.launch import parse_flags
from experiments.runner import stages
from experiments.runner.errors import UsageError
from experiments.runner.stages import REFIT
from linear_cifar.blocks import load_result
from linear_cifar.data.dataset import Split, make_dataset
from linear_cifar.data.division import number_rows
from linear_cifar.data.prepare import prepare_data
from linear_cifar.result import choose_set

RNG = np.random.default_rng(0)
SPLIT = RNG.permutation(["train"] * 60 + ["val"] * 30 + ["test"] * 15 + ["test_b-2"] * 12 + ["test_Far"] * 9)
Y = RNG.permutation(np.arange(len(SPLIT)) % 3)
X = np.round(Y[:, None] + RNG.normal(size=(len(Y), 4)), 3)
WORDS = np.array(["cat", "ant", "dog"])[Y]
ROWS = {split: np.flatnonzero(split == SPLIT) for split in dict.fromkeys(SPLIT)}
SETS = ["train", "val", "test", "test_Far", "test_b-2"]
DIVIDED = {f"{axis}_{split}": a[rows] for split, rows in ROWS.items() for axis, a in (("x", X), ("y", Y))}
FLAGS = ("--eta=0.01,0.3", "--batch=8", "--lam=0", "--epochs=2", "--seeds=2")


def run_grid(folder, *words):
    """Run the grid in a folder, without figures, to `out`."""
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["experiments.grid", *FLAGS])
        for plot in ("heatmap", "differences", "curves", "best_weights", "confusion"):
            patch.setattr(figures, f"plot_{plot}", lambda *_: None)
        grid.define_flags()
        parse_flags(["grid", *FLAGS, *words, "--out=out"])
        grid.main()
    return folder / "out"


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """The grid with folds and a refit on a table of words, and its probabilities."""
    folder = tmp_path_factory.mktemp("folded")
    table = {"features": as_column(X), "label": WORDS, "split": SPLIT}
    pq.write_table(pa.table(table), folder / "own.parquet")
    return run_grid(folder, "--data=own.parquet", "--folds=3", "--save_probabilities")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The grid on a file without a validation split, run again for its probabilities."""
    folder = tmp_path_factory.mktemp("drawn")
    arrays = {name: array for name, array in DIVIDED.items() if "val" not in name}
    np.savez(folder / "own.npz", **arrays)
    words = ("--data=own.npz", "--val_size=20", "--evaluate=test_Far")
    out = run_grid(folder, *words)
    assert not (out / "probabilities.parquet").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linear_cifar.legs.Trainer.train_here", lambda self, blocks: map(pytest.fail, blocks))
        return run_grid(folder, *words, "--save_probabilities")


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def softmax(result, config, replicate, x):
    """Compute probabilities from a run's saved weights, in float64."""
    params, standardizer = result.params_at(replicate, config), result.standardizer_of(replicate)
    logits = (x - standardizer.mean) / standardizer.std @ params.W.T.astype(float) + params.b
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# ---- several test sets


@pytest.mark.parametrize("kind", [".npz", ""])
def test_test_sets_are_read_from_arrays_and_from_words(kind, tmp_path):
    dataset = read(write(tmp_path, kind, **dict(reversed(DIVIDED.items()))))
    whole = read(write(tmp_path, kind, x=X, y=Y, split=SPLIT)) if kind else dataset
    table = read(write(tmp_path, ".parquet", x=X, y=Y, split=SPLIT))
    assert [*dataset.splits] == [*whole.splits] == [*table.splits] == SETS
    assert dataset.fingerprint == whole.fingerprint == table.fingerprint
    for split, rows in ROWS.items():
        np.testing.assert_array_equal(dataset.splits[split].features, X[rows])
        np.testing.assert_array_equal(table.rows[split], rows)
    renamed = {name.replace("Far", "Fat"): array for name, array in DIVIDED.items()}
    assert read(write(tmp_path, kind, **renamed)).fingerprint != dataset.fingerprint


def test_the_fingerprint_without_further_test_sets_is_that_of_labels_features_and_classes(tmp_path):
    arrays = {name: array for name, array in DIVIDED.items() if "test_" not in name}
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        digest.update(arrays[f"y_{split}"].astype(np.int32).tobytes() + arrays[f"x_{split}"].tobytes())
    digest.update(b"0\n1\n2")
    assert read(write(tmp_path, ".npz", **arrays)).fingerprint == digest.hexdigest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test_a.b": X, "y_test_a.b": Y}, "the split 'test_a.b': call it train, val, test, or test_"),
        ({"x_test_": X, "y_test_": Y}, "array of the split 'test_': call it"),
        ({"x_test_my_class": X, "y_test_my_class": Y}, "'test_my_class': call it .* without _class at"),
        ({"x_test_c": X}, "has no y_test_c"),
        ({"y_test_c": Y}, "has no x_test_c"),
        ({"x_test_c": X[:, :3], "y_test_c": Y}, "x_test_c is .* only the number of rows may differ"),
        ({"x_test_c": X, "y_test_c": Y + 1}, "class 3 has no row to train on"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_in_a_test_set_is_one_line(changes, message, tmp_path):
    assert_refused(message, write(tmp_path, ".npz", **DIVIDED, **changes))


def test_a_wrong_word_for_a_split_is_one_line(tmp_path):
    split = np.where(np.arange(len(Y)) == 7, "test b", SPLIT)
    assert_refused(
        "row 7 of split is 'test b': give train, .*", write(tmp_path, ".npz", x=X, y=Y, split=split)
    )


def test_two_test_sets_may_share_groups(tmp_path):
    arrays = {f"group_{split}": np.full(len(rows), split[:4]) for split, rows in ROWS.items()}
    groups = read(write(tmp_path, ".npz", **DIVIDED, **arrays)).splits["test_Far"].groups
    assert {*groups} == {0}  # test, of test, train and val
    arrays["group_test_Far"][3] = "train"
    assert_refused("group 'trai' is in train and test_Far", write(tmp_path, ".npz", **DIVIDED, **arrays))


def test_every_test_set_has_its_columns_after_those_of_test(folded, drawn):
    refit = [row for row in read_rows(folded / "results.csv") if row["sweep"] == REFIT]
    measured = [name for name in refit[0] if name.endswith(("_loss", "_acc"))]
    by_split = [f"{split}_{metric}" for split in SETS for metric in ("loss", "acc")]
    assert measured == by_split + [f"{split}_class_acc" for split in SETS[1:]]
    result = load_result(folded / "blocks" / REFIT)
    for split in SETS[2:]:
        right = softmax(result, 0, 1, X[ROWS[split]]).argmax(axis=1) == np.argsort([1, 0, 2])[Y[ROWS[split]]]
        assert float(refit[1][f"{split}_acc"]) == pytest.approx(right.mean())
        assert result.sizes[split] == len(ROWS[split])
    config = json.loads((folded / "config.json").read_text(encoding="utf-8"))
    assert config["sweeps"][REFIT]["test_b-2_examples"] == 12
    history = read_rows(drawn / "history.csv")
    assert all(row["test_Far_acc"] and not row["test_acc"] + row["test_b-2_acc"] for row in history)


def test_a_narrow_terminal_leaves_further_test_sets_out_first(folded, drawn):
    for folder, name, columns in ((folded, "refit", 1), (drawn, "ranking", 0)):
        table = ExperimentFolder(folder).tables[name]
        accuracies = [column for column in table.columns if column.endswith(" acc")]
        assert accuracies[-3:] == ["test acc", "test_Far acc", "test_b-2 acc"]
        assert all("low" in table.values[0][table.columns.index(name)] for name in accuracies[-3:])
        by_class = [f"{split} by class" for split in ("test_b-2", "test_Far")] * columns
        further = [*by_class, "test_b-2 acc", "test_Far acc"]
        assert [*table.optional[: len(further)]] == further
        width = max(map(len, table.format().splitlines()[1:3])) - 1
        assert not any(further[0] in line for line in table.format(width).splitlines()[1:3])
        assert "test acc" in table.format(width)


def test_no_test_set_chooses(drawn):
    assert choose_set(["test_Far", "train", "test", "val"]) == "val"
    assert choose_set(["train", "test", "test_Far"]) is None
    result = ExperimentFolder(drawn).result("grid")
    assert [*result.sizes] == SETS
    assert result.chosen_by == "val"
    accuracy = result.final["val_acc"].mean(axis=0)
    assert accuracy[result.ranking()[0]] == accuracy.max()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--evaluate=test_c"], "--evaluate=test_c: own.npz has no x_test_c"),
        (["--evaluate=test_Far", "--folds=2"], "--evaluate=test_Far: with --folds only"),
    ],
)
def test_a_missing_test_set_cannot_be_evaluated(words, message, tmp_path):
    np.savez(tmp_path / "own.npz", **DIVIDED)
    with pytest.raises(UsageError, match=message):
        run_grid(tmp_path, "--data=own.npz", *words)


def test_a_name_of_no_split_cannot_be_evaluated(tmp_path):
    with pytest.raises((UsageError, absl_flags.IllegalFlagValueError), match="expected train, val, test, or"):
        run_grid(tmp_path, "--evaluate=dev")


# ---- probabilities


def read_probabilities(folder):
    """Return the columns of the file, and what its schema says beside."""
    table = pq.read_table(folder / "probabilities.parquet")
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    assert table.schema.field("probabilities").type == pa.list_(pa.float32(), 3)
    return columns, {
        name.decode(): json.loads(text) for name, text in table.schema.metadata.items() if name[:4] != b"pand"
    }


def test_rows_and_labels_join_the_users_table(folded):
    columns, described = read_probabilities(folded)
    assert described["classes"] == ["ant", "cat", "dog"]
    np.testing.assert_array_equal(columns["label"], WORDS[columns["row"]])
    np.testing.assert_array_equal(columns["split"], SPLIT[columns["row"]])
    expected = {"val": {*ROWS["train"], *ROWS["val"]}} | {split: {*ROWS[split]} for split in SETS[2:]}
    assert [*dict.fromkeys(columns["set"])] == SETS[1:]
    for name, rows in expected.items():
        found = columns["row"][columns["set"] == name]
        assert ({*found}, len(found)) == (rows, len(rows))


def test_probabilities_are_those_of_the_runs_without_the_examples_fold(folded):
    columns, described = read_probabilities(folded)
    result = load_result(folded / "blocks" / "grid")
    best = int(result.final["val_acc"].mean(axis=0).argmax())
    assert described["configuration"] == dict(result.configs[best])
    joined = np.concatenate([ROWS["train"], ROWS["val"]])
    data = prepare_data(read(folded.parent / "own.parquet"), folds=3)
    for fold in data.folds:
        assert not {*fold.rows} & {*fold.evaluation_rows["val"]}
        rows = joined[fold.evaluation_rows["val"]]
        members = [s for s, replicate in enumerate(result.identity.replicates) if replicate.fold == fold.fold]
        assert len(members) == 2
        means = np.mean([softmax(result, best, s, X[rows]) for s in members], axis=0)
        place = [int(np.flatnonzero((columns["set"] == "val") & (columns["row"] == row))[0]) for row in rows]
        np.testing.assert_allclose(columns["probabilities"][place], means, atol=2e-6)


@pytest.mark.parametrize("name", ["folded", "drawn"])
def test_probabilities_of_test_sets_are_means_over_the_seeds(name, request):
    folder = request.getfixturevalue(name)
    columns, described = read_probabilities(folder)
    result = load_result(folder / "blocks" / (REFIT if name == "folded" else "grid"))
    best = [dict(config) for config in result.configs].index(described["configuration"])
    for split in SETS[2:]:
        chosen = columns["set"] == split
        rows = columns["row"][chosen]
        x = X[rows] if name == "folded" else DIVIDED[f"x_{split}"][rows]
        means = np.mean([softmax(result, best, s, x) for s in range(2)], axis=0)
        np.testing.assert_allclose(columns["probabilities"][chosen], means, atol=2e-6)


def test_rows_that_validate_instead_are_those_of_the_training_array(drawn):
    columns, _ = read_probabilities(drawn)
    val = columns["set"] == "val"
    rows = columns["row"][val]
    assert {*columns["split"][val]} == {"train"}
    data = prepare_data(read(drawn.parent / "own.npz"), val_size=20)
    np.testing.assert_array_equal(DIVIDED["x_train"][rows], data.sets["val"].features)
    np.testing.assert_array_equal(columns["label"][val], DIVIDED["y_train"][rows].astype(str))


def test_rows_of_published_images_are_numbered_through_the_batch_files():
    train, test = (Split(np.zeros((n, 1), np.uint8), np.arange(n) % 10) for n in (30_000, 10))
    dataset = make_dataset("cifar10", tuple("abcdefghij"), {"train": train, "test": test}, "")
    rows = number_rows(dataset, train="batch1", val_size=1_000, folds=0)
    assert {name: (values[:, 0].min(), values[0, 1], values[-1, 1]) for name, values in rows.items()} == {
        "train": (0, 0, 9_999), "val": (0, 10_000, 19_999), "test": (1, 0, 9),
    }  # fmt: skip


def test_parts_and_a_diverged_best(folded, monkeypatch, tmp_path):
    from experiments.artifacts import probabilities
    from experiments.runner.settings import default_settings
    from experiments.runner.stages import Sweep

    result = load_result(folded / "blocks" / "grid")
    data = {"grid": prepare_data(read(folded.parent / "own.parquet"), folds=3)}
    sweep = Sweep("grid", default_settings(folds=3), result.seeds, result.configs)
    monkeypatch.setattr(probabilities, "AT_ONCE", 3 * 7)  # seven examples
    path = tmp_path / "probabilities.parquet"
    probabilities.write_probabilities(path, [sweep], [result], data)
    columns, _ = read_probabilities(tmp_path)
    expected, _ = read_probabilities(folded)
    for name, values in columns.items():
        np.testing.assert_allclose(values, expected[name][:90], atol=1e-6) if name == "probabilities" else (
            np.testing.assert_array_equal(values, expected[name][:90])
        )
    result.diverged[0] = 1
    path.unlink()
    probabilities.write_probabilities(path, [sweep], [result], data)
    assert not path.exists()


def test_a_missing_pyarrow_is_refused_before_training(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", **DIVIDED)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setattr(stages, "fit", lambda **_: pytest.fail("it trained"))
    message = r"^--save_probabilities needs pyarrow\.parquet, .*: pip install 'linear_cifar\[parquet\]'$"
    with pytest.raises(UsageError, match=message):
        run_grid(tmp_path, "--data=own.npz", "--save_probabilities")
    assert not (tmp_path / "out").exists()
