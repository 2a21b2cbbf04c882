"""The command that finds exact minima along a path of λ: its flags, files, table and figure."""

import csv
import json

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import compare, path
from experiments.artifacts import search_figures
from experiments.artifacts.reader import ExperimentFolder
from experiments.artifacts.tables import ONE_ERROR, describe_path, find_one_standard_error
from experiments.cli import experiment as course
from experiments.cli.launch import parse_flags
from experiments.runner.errors import Stopped, UsageError
from linear_cifar.config import Config
from linear_cifar.folders import FolderError

FLAGS = ("--data=x.npz", "--lam=1e-4:1", "--points=5", "--formats=png")


def run(*words, command=path):
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [command.__name__, *words])
        command.define_flags()
        parse_flags(["path", *words])
        command.main()


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data that noise keeps from being separable, and the path of five folds."""
    folder = tmp_path_factory.mktemp("path")
    rng, y = np.random.default_rng(0), np.arange(120) % 3
    x = rng.normal(size=(120, 4)) + np.eye(3, 4)[y]
    np.savez(folder / "x.npz", x=x.astype(np.float32), y=y)
    np.savez(folder / "apart.npz", x=(x + 30 * np.eye(3, 4)[y]).astype(np.float32), y=y)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(*FLAGS, "--out=folds")
    return folder


def test_the_files_hold_minima(folder):
    rows = read_rows(folder / "folds" / "results.csv")
    path_rows = [row for row in rows if row["sweep"] == "path"]
    assert len(path_rows) == 25
    assert [float(row["lam"]) for row in path_rows[:5]] == [1e-4, 1e-3, 0.01, 0.1, 1.0]
    assert {row["converged"] for row in rows} == {"1"}
    assert {row["eta"] + row["batch"] + row["epochs"] for row in rows} == {""}
    result = ExperimentFolder(folder / "folds").result("path")
    # The objective is the mean loss on the rows of the fold, plus the penalty.
    penalty = result.history["W_norm"][-1] ** 2 * [config.lam for config in result.configs]
    np.testing.assert_allclose(result.final["train_loss"] + penalty, result.final["objective"], rtol=1e-6)
    settings = json.loads((folder / "folds" / "config.json").read_text(encoding="utf-8"))["sweeps"]["path"]
    assert settings["solver"] == "path"
    assert "epochs" not in settings
    assert settings["max_evaluations"] == 1_000


def test_a_finished_path_is_not_solved_again(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run(*FLAGS, "--out=folds")
    assert "finished already" in capsys.readouterr().err
    run(*FLAGS, "--out=folds", "--lam=1e-4:1", "--points=9")  # the five are among them
    assert "reused: path, 5 configurations" in capsys.readouterr().err
    assert len(ExperimentFolder(folder / "folds").result("path").configs) == 9
    with pytest.raises(FolderError, match="which is left out here"):
        run(*FLAGS, "--out=folds")


def test_a_stopped_path_resumes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    options = (
        "--data=x.npz",
        "--lam=1e-6,1e-5",
        "--formats=png",
        "--val_size=20",
        "--folds=0",
        "--out=stopped",
    )
    with monkeypatch.context() as patch:
        patch.setattr(course, "run_interruptible", lambda train, _: (train(lambda: True), 2))
        with pytest.raises(Stopped, match="to resume"):
            run(*options)
    run(*options)
    run(*options[:-1], "--out=whole")
    stopped, whole = (read_rows(folder / name / "results.csv") for name in ("stopped", "whole"))
    assert stopped == whole


def test_the_rule_of_one_standard_error(folder):
    result = ExperimentFolder(folder / "folds").result("path")
    lams = [config.lam for config in result.configs]
    estimates = [result.interval("val", c) for c in range(len(lams))]
    best = max(estimates, key=lambda estimate: estimate.mean)
    expected = max(
        lam for lam, estimate in zip(lams, estimates, strict=True) if estimate.mean >= best.mean - best.stderr
    )
    assert lams[find_one_standard_error(result)] == expected
    assert f"lam={expected:.4g}," in describe_path(result)


def test_the_figure_shows_losses_accuracies_and_both_choices(folder):
    result = ExperimentFolder(folder / "folds").result("path")
    figure = search_figures.plot_path(result)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"train", "val", "the best λ"} <= labels
    assert any(ONE_ERROR.startswith(label.split("\n")[0]) for label in labels)
    order = np.argsort([config.lam for config in result.configs])
    for panel, name, scale in zip(figure.axes, ("loss", "acc"), (1, 100), strict=True):
        for split in ("train", "val"):
            (line,) = [line for line in panel.lines if line.get_label() == split]
            mean = scale * result.final[f"{split}_{name}"].mean(axis=0)[order]
            np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-5)


def test_separable_classes_are_named(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run("--data=apart.npz", "--lam=0,0.1", "--formats=png", "--folds=2", "--refit=0", "--out=apart")
    printed = " ".join(capsys.readouterr().out.split())
    assert "Of 4 runs, 2 with no minimum (λ is 0 and the classes are separable)" in printed
    rows = read_rows(folder / "apart" / "results.csv")
    assert [(row["separable"], row["converged"]) for row in rows] == [("1", "0"), ("0", "1")] * 2
    table = ExperimentFolder(folder / "apart").tables["ranking"]
    assert {row[-1] for row in table.rows} <= {
        "may be the best",
        "may be the best, separable",
        "separable",
        "",
    }
    assert any("separable" in row[-1] for row in table.rows)


def test_files_are_compared_by_their_exact_minima(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = ("--data=x.npz,apart.npz", "--solver=path", "--lam=0.01,0.1", "--formats=png", "--out=compared")
    run(*words, command=compare)
    rows = read_rows(folder / "compared" / "compare.csv")
    assert [row["name"] for row in rows] == ["apart", "x"]
    assert {row["eta"] for row in rows} == {""}
    results = read_rows(folder / "compared" / "results.csv")
    alone = {row["fold"]: row["objective"] for row in read_rows(folder / "folds" / "results.csv")
             if row["sweep"] == "path" and row["lam"] == "0.01"}  # fmt: skip
    ours = {row["fold"]: row["objective"] for row in results if row["sweep"] == "x" and row["lam"] == "0.01"}
    np.testing.assert_allclose([*map(float, ours.values())], [float(alone[fold]) for fold in ours], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lam=1:0.1",), "lam goes from 1 to 0.1"),
        (("--lam=0:1",), "lam goes from 0 on a logarithmic scale"),
        (("--tolerance=2",), "tolerance"),
        (("--eta=0.1",), "eta"),
        (("--seeds=2",), "seeds"),
        (("--points=1",), "points"),
    ],
)
def test_a_wrong_flag_is_one_line(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=message) as raised:
        run("--data=x.npz", "--out=wrong", *words)
    assert "\n" not in str(raised.value)
    assert not (folder / "wrong" / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--solver=path", "--eta=0.1"), "--eta: it is for --solver=sgd"),
        (("--solver=path", "--epochs=3"), "--epochs: it is for --solver=sgd"),
        (("--max_evaluations=30",), "--max_evaluations: it is for --solver=path"),
    ],
)
def test_flags_of_the_other_solver_are_refused(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=message):
        run("--data=x.npz", "--out=wrong", *words, command=compare)


def test_a_range_has_points_evenly_on_its_scale():
    with flagsaver.flagsaver():
        path.define_flags()
        parse_flags(["path", "--lam=1e-6:1", "--points=7"])
        from experiments.cli import flags

        sweep = flags.solver_sweep_from_flags("path")
    assert sweep.configs == tuple(Config(lam=float(f"1e{k}")) for k in range(-6, 1))
    assert not sweep.settings.flip
    assert sweep.settings.solver == "path"
