"""An experiment of several stages: each is planned from the results of those before it."""

import pytest
from absl.testing import flagsaver

from experiments import grid
from experiments.artifacts.reader import RunResult
from experiments.cli import data as cli_data
from experiments.cli import experiment
from experiments.cli.launch import parse_flags
from experiments.runner.errors import FolderError, Stopped
from experiments.runner.stages import Stage, fixed_stage
from linear_cifar.data.synthetic import make_synthetic

FLAGS = ("--dataset=synthetic", "--val_size=50", "--epochs=2", "--eta=0.001,0.01", "--batch=50", "--lam=0")


def refit_best(results):
    """Plan a longer run of the best configuration so far; nothing if it is planned already."""
    (first,) = results
    settings = first.settings._replace(epochs=3)
    return [first.sweep._replace(name="refit", settings=settings, configs=(first.configs[first.ranking[0]],))]


@pytest.fixture
def run_stages(tmp_path, monkeypatch):
    """Run the stages after the grid of the flags, and return the run's folder."""
    monkeypatch.setattr("sys.argv", ["experiments.grid", *FLAGS])
    monkeypatch.setattr(cli_data, "find_dataset", lambda *_: make_synthetic(n_train=300, n_test=100))

    def run(*later, name="run"):
        with flagsaver.flagsaver():
            grid.define_flags()
            parse_flags(["grid", *FLAGS, f"--out={tmp_path / name}"])
            stages = [fixed_stage([grid.make_sweep()]), *later]
            experiment.run_experiment("grid", stages, lambda folder, results: [])
        return tmp_path / name

    return run


def test_a_second_stage_trains_what_the_first_results_suggest(run_stages, capsys):
    refit = Stage(("refit",), refit_best)
    run = RunResult(run_stages(refit))
    assert run.complete
    assert list(run.sweeps) == ["grid", "refit"]
    assert [(row.sweep, row.cells["epochs"]) for row in run.results] == [
        ("grid", 2),
        ("grid", 2),
        ("refit", 3),
    ]
    assert run.configs("refit") == (run.best("grid"),)
    # The same data order, weights and flips: the refit repeats the first two epochs of the grid.
    best = [row.cells["running_loss"] for row in run.history if row.config == run.best("grid")]
    assert best[2:4] == pytest.approx(best[:2], rel=1e-5)
    run_stages(refit)
    assert "finished already" in capsys.readouterr().err


def test_a_stage_without_sweeps_ends_the_experiment(run_stages):
    run = RunResult(run_stages(Stage((), lambda results: []), Stage(("never",), lambda results: 1 / 0)))
    assert run.complete
    assert list(run.sweeps) == ["grid"]


def test_blocks_of_a_stage_that_the_command_lacks_are_refused(run_stages, tmp_path):
    folder = run_stages(Stage(("refit",), refit_best))
    (folder / "config.json").unlink()
    with pytest.raises(FolderError, match="the sweep 'refit', which this command leaves out"):
        run_stages()


def test_a_stop_ends_the_experiment_before_the_next_stage_is_planned(run_stages, monkeypatch):
    monkeypatch.setattr(experiment, "run_interruptible", lambda work, log: (work(lambda: True), 15))
    with pytest.raises(Stopped, match="stopped; to resume: "):
        run_stages(Stage(("never",), lambda results: 1 / 0))
