"""The command that compares files of features: its files, what it trains, and mistakes in one line."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from small_runs import draw_result, make_sweep, small_data

from experiments import compare, report
from experiments.artifacts import figures
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli.files import expand_pattern, name_files, read_factors
from experiments.cli.launch import parse_flags
from experiments.runner.errors import UsageError
from linear_cifar.comparison import compare as compare_results
from linear_cifar.config import Config
from linear_cifar.data.dataset import DataError

FLAGS = ("--data=f/*.npz", "--epochs=3", "--eta=0.1,1", "--lam=0", "--batch=8")
CONFIGS = (Config(0.01, 20, 0.0), Config(1.0, 20, 0.0))
NAMES = "--names={backbone}_{layer}.npz"


def write_files(folder, **changes):
    """Write three files of the same examples, of which the second is the best."""
    (folder / "f").mkdir()
    rng, y = np.random.default_rng(0), np.arange(90) % 3
    for signal, name in ((0.0, "a_l1"), (3.0, "a_l10"), (0.6, "b_l1")):
        x = rng.normal(size=(90, 6)).astype(np.float32)
        x[:, :3] += signal * np.eye(3, dtype=np.float32)[y]
        arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
        np.savez(folder / "f" / f"{name}.npz", **arrays | changes.get(name, {}))


def run(*words):
    """Run the command with these flags."""
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["experiments.compare", *words])
        compare.define_flags()
        parse_flags(["compare", *words])
        compare.main()


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files, and two experiments: one with a validation split, and one with folds."""
    folder = tmp_path_factory.mktemp("compare")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(*FLAGS, NAMES, "--val_size=15", "--out=split")
        run(*FLAGS, "--folds=3", "--seeds=2", "--formats=png", "--out=folds")
    return folder


@pytest.mark.parametrize(("name", "on", "size"), [("split", "test", 45), ("folds", "val", 40)])
def test_the_table_and_compare_csv_are_those_of_the_library(folder, name, on, size):
    experiment = ExperimentFolder(folder / name)
    results = {sweep: experiment.result(sweep) for sweep in ("a_l1", "a_l10", "b_l1")}
    expected = compare_results(results)
    assert expected.on == on
    rows = read_rows(folder / name / "compare.csv")
    assert [row["name"] for row in rows] == ["a_l10", "b_l1", "a_l1"]
    table = experiment.tables["compare"]
    for row, cells, values in zip(rows, table.rows, table.values, strict=True):
        i = expected.names.index(row["name"])
        numbers = [float(row[column]) for column in ("accuracy", "low", "high", "difference")]
        assert numbers == [*expected.accuracy[i][:3], expected.selection.difference[i].mean]
        assert row["may_be_best"] == str(bool(expected.selection.may_be_best[i]))
        assert (cells[-1] == "may be the best") == expected.selection.may_be_best[i]
        assert int(row["size"]) == size
        assert {axis: float(row[axis]) for axis in expected.configs[i]} == dict(expected.configs[i])
        mean, low, high = (100 * value for value in expected.accuracy[i][:3])
        assert values[table.columns.index(f"{on} acc")] == {"mean": mean, "low": low, "high": high}
    assert "of 3 files may be the best" in table.note
    assert ("folds" in table.note) == (name == "folds")


def test_training_sizes_and_further_test_sets_have_their_rows_and_columns(tmp_path, monkeypatch):
    fog = {"x_test_fog": np.ones((9, 6), np.float32), "y_test_fog": np.arange(9) % 3}
    write_files(tmp_path, **dict.fromkeys(("a_l1", "a_l10", "b_l1"), fog))
    monkeypatch.chdir(tmp_path)
    run(
        *FLAGS,
        "--val_size=15",
        "--train_sizes=30,6",
        "--seeds=2",
        "--batch=3",
        "--formats=png",
        "--out=sizes",
    )
    experiment = ExperimentFolder("sizes")
    for size in (6, 30):
        results = {name: experiment.result(f"{name}-{size}") for name in ("a_l1", "a_l10", "b_l1")}
        expected = compare_results(results)
        rows = [row for row in read_rows(Path("sizes/compare.csv")) if row["size"] == str(size)]
        accuracies = {row["name"]: float(row["accuracy"]) for row in rows}
        assert accuracies == dict(zip(expected.names, (mean for mean, *_ in expected.accuracy), strict=True))
        (cells,) = (row for row in experiment.tables["sizes"].rows if row[0] == str(size))
        assert cells[1] == expected.names[expected.best]
    table, best = experiment.tables["compare"], results["a_l10"].ranking()[0]
    shown = table.values[0][table.columns.index("test_fog acc")]
    assert shown["mean"] == pytest.approx(100 * results["a_l10"].interval("test_fog", best).mean)
    assert Path("sizes/sizes.png").exists()


def test_factors_are_columns_and_two_of_them_a_heat_map(folder):
    split, folds = (ExperimentFolder(folder / name).tables["compare"] for name in ("split", "folds"))
    assert split.columns[1:5] == ["backbone", "layer", "eta", "batch"]
    assert split.rows[0][1:3] == ["a", "l10"]
    assert folds.columns[1] == "file"
    assert [row["layer"] for row in read_rows(folder / "split" / "compare.csv")] == ["l10", "l1", "l1"]
    for name in ("compare", "heatmap", "confusion"):
        assert (folder / "split" / f"{name}.svg").exists()
    assert sorted(path.name for path in (folder / "folds").glob("*.png")) == ["compare.png", "confusion.png"]
    assert r"\label{tab:compare}" in (folder / "split" / "tables.tex").read_text(encoding="utf-8")


def test_the_files_name_the_data_of_each_sweep(folder):
    config = json.loads((folder / "split" / "config.json").read_text(encoding="utf-8"))
    names = {sweep: described["dataset"]["name"] for sweep, described in config["sweeps"].items()}
    assert names == {"a_l1": "a_l1.npz", "a_l10": "a_l10.npz", "b_l1": "b_l1.npz"}
    assert len({described["dataset"]["fingerprint"] for described in config["sweeps"].values()}) == 3
    rows = read_rows(folder / "split" / "results.csv")
    assert [(row["sweep"], row["dataset"]) for row in rows[::2]] == [*names.items()]
    for name in ("split", "folds"):
        best = np.load(folder / name / "best_params.npz")
        assert (best["sweep"], best["dataset"]) == ("a_l10", "a_l10.npz")


def test_the_report_has_a_section_with_the_table_and_the_figures(folder, capsys):
    with flagsaver.flagsaver():
        report.define_flags()
        parse_flags(["report", f"--results={folder / 'split'}"])
        report.main()
    page = (folder / "split" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"Which features are best: a_l1.npz [0-9a-f]{8} and 2 more", page)
    assert page.count("<figure") == 3
    assert "3 files (95 % intervals over examples, for these weights)" in page


def test_the_same_command_is_finished_already_and_other_names_make_another_table(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = (*FLAGS, "--folds=3", "--seeds=2", "--formats=png", "--out=folds")
    run(*words)
    assert "finished already" in capsys.readouterr().err
    run(*words, "--names={file}")
    shown = capsys.readouterr()
    assert "finished already" not in shown.err
    assert "a_l10.npz" in shown.out


def test_files_of_one_shape_share_the_compiled_programs(folder, monkeypatch, caplog, request):
    monkeypatch.chdir(folder)
    # Not by its context manager, which is for the thread that enters it.
    request.addfinalizer(lambda: jax.config.update("jax_log_compiles", False))
    jax.config.update("jax_log_compiles", True)
    compiled = []
    for file in ("b_l1", "a_l10"):
        caplog.clear()
        run(*FLAGS, f"--data=f/{file}.npz", "--val_size=13", "--formats=png", f"--out={file}")
        messages = [record.getMessage() for record in caplog.records]
        compiled.append([message for message in messages if message.startswith("Compiling")])
    assert sum("train_epoch" in message for message in compiled[0]) == 1
    assert compiled[1] == []


def test_a_file_that_only_diverges_comes_last(tmp_path, monkeypatch):
    data = small_data()
    results = []
    for name, diverged in (("lost", (0, 1)), ("good", (1,))):
        result = draw_result(make_sweep(CONFIGS), data, diverged)
        results.append(replace(result, about=result.about | {"sweep": name, "file": name}))
    for name in ("comparison", "factors"):
        monkeypatch.setattr(figures, f"plot_{name}", lambda *_: None)
    _, (table,) = compare.render(tmp_path, results, dict.fromkeys(("lost", "good"), data))
    assert [row[1] for row in table.rows] == ["good", "lost"]
    assert table.rows[1][-1] == "diverged"
    assert [row["name"] for row in read_rows(tmp_path / "compare.csv")] == ["good"]
    with pytest.raises(UsageError, match="every configuration of every file diverged: give lower values"):
        compare.render(tmp_path, results[:1], {"lost": data})


Y = np.arange(60) % 3
GROUPS = {"group_train": np.arange(60) % 20, "group_test": np.arange(30) % 20 + 20}


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, ["--data="], "name files to compare, such as"),
        ({}, ["--data=g/*.npz"], "--data=g/*.npz: this pattern matches no file"),
        ({}, ["--data=f/a_l1.npz,f/none.npz"], "f/none.npz does not exist"),
        ({}, ["--names={backbone}-{layer}.npz"], "a_l1.npz is not named like this"),
        ({}, ["--names=a.npz"], "name factors in braces, such as {backbone}_{layer}.npz"),
        ({}, ["--names={eta}_{layer}.npz"], "each once and not as another column"),
        ({}, ["--names={a}_{a}.npz"], "each once"),
        ({}, ["--names={1}_{a}.npz"], "name factors in braces"),
        (
            {"b_l1": {"x_test": np.ones((29, 6), np.float32), "y_test": Y[:29]}},
            [],
            "f/b_l1.npz has 60 train, 29 test examples, and f/a_l1.npz 60 train, 30 test: give",
        ),
        (
            {"a_l10": {"y_train": np.where(np.arange(60) == 17, 0, Y)}},
            [],
            "train example 17 (from 0) has another label in f/a_l10.npz than in f/a_l1.npz",
        ),
        ({"a_l10": {"y_train": Y + 1, "y_test": Y[:30] + 1}}, [], "f/a_l10.npz has other classes than"),
        ({"a_l10": GROUPS}, [], "only one of f/a_l1.npz and f/a_l10.npz has groups"),
        (
            {"a_l1": GROUPS, "b_l1": GROUPS | {"group_train": (np.arange(60) + 1) % 20}, "a_l10": GROUPS},
            [],
            "train example 0 (from 0) has another group in f/b_l1.npz",
        ),
        ({}, ["--train_sizes=6", "--shots=1"], "--train_sizes and --shots cannot be combined"),
        ({}, ["--flip"], "--flip is for images"),
        ({}, ["--train=batch1"], "train"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_is_trained(changes, words, message, tmp_path, monkeypatch):
    write_files(tmp_path, **changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError), match=re.escape(message)) as raised:
        run(*FLAGS, "--out=out", *words)
    assert len(str(raised.value).splitlines()) == 1
    assert not [*tmp_path.glob("out/blocks/*")]


def test_other_rows_with_the_same_labels_are_other_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels, split = np.repeat([0, 1, 2], 20), np.array(["train", "train", "test", "train"] * 15)
    for name, words in (("a", split), ("b", np.roll(split, 1))):
        np.savez(f"{name}.npz", x=np.ones((60, 2), np.float32), y=labels, split=words)
    with pytest.raises(
        DataError, match=r"row 2 is train in only one of a\.npz and b\.npz: give files of the same"
    ):
        run("--data=a.npz,b.npz", "--val_size=9", "--out=out")


def test_a_pattern_takes_layer_2_before_layer_10(tmp_path):
    for name in ("l10.npz", "l2.npz", "l2b.npz", "x", "l[1].npz"):
        (tmp_path / name).touch()
    found = expand_pattern(f"{tmp_path}/l*.npz")
    assert [path.name for path in found] == ["l2.npz", "l2b.npz", "l10.npz", "l[1].npz"]
    assert expand_pattern(f"{tmp_path}/l[1].npz") == [tmp_path / "l[1].npz"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["f/a.npz", "f/b.npz"], ["a", "b"]),
        (["f/a.npz", "f/../f/a.npz"], ["a"]),
        (["f/a.npz", "g/a.npz", "g/b.npz"], ["f_a", "g_a", "g_b"]),
        (["f/a.npz", "f/a.parquet"], ["a.npz", "a.parquet"]),
        (["x/f/a.npz", "y/f/a.npz"], ["x_f_a", "y_f_a"]),
        (["layer.4", "a\nb.npz"], ["layer.4", "a_b"]),
    ],
)
def test_sweeps_have_the_shortest_names_that_tell_files_apart(paths, names):
    assert [*name_files([*map(Path, paths)])] == names


def test_a_pattern_of_names_may_have_folders():
    files = {"one": Path("dino_v2/l1.npz"), "two": Path("clip/l1.npz")}
    factors = read_factors(files, "{backbone}/l{layer}.npz")
    assert factors["one"] == {"backbone": "dino_v2", "layer": "1"}
    with pytest.raises(
        UsageError, match=r"clip/l1.npz has the same factors .* as in \{folder\}/\{layer\}.npz"
    ):
        read_factors(files, "{layer}.npz")
    assert read_factors({"x": Path("dino_v2_l1.npz")}, "{a}_{b}.npz")["x"] == {"a": "dino_v2", "b": "l1"}
