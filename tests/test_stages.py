"""An experiment of several stages: each is planned from the results of those before it."""

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import grid
from experiments.artifacts.plotting import Figure
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli import experiment, source
from experiments.cli.launch import parse_flags
from experiments.runner.errors import Stopped
from experiments.runner.settings import default_settings
from experiments.runner.stages import Stage, Sweep, fixed_stage
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.folders import FolderError

FLAGS = ("--dataset=synthetic", "--val_size=50", "--epochs=2", "--eta=0.001,0.01", "--batch=50", "--lam=0")


def refit_best(results):
    """Plan a longer run of the best configuration so far."""
    (first,) = results
    settings = default_settings(val_size=50, epochs=3, evaluate=("val",), flip=True)
    return [Sweep("refit", settings, first.seeds, (first.best().config,))]


@pytest.fixture
def run_stages(tmp_path, monkeypatch):
    """Run the stages after the grid of the flags, and return the run's folder."""
    monkeypatch.setattr("sys.argv", ["experiments.grid", *FLAGS])
    monkeypatch.setattr(source, "find_dataset", lambda *_: make_synthetic(n_train=300, n_test=100))

    def run(*later, name="run", flags=()):
        with flagsaver.flagsaver():
            grid.define_flags()
            parse_flags(["grid", *FLAGS, f"--out={tmp_path / name}", *flags])
            stages = [fixed_stage([grid.make_sweep()]), *later]
            experiment.run_experiment("grid", lambda: stages, lambda folder, results, data: ({}, []))
        return tmp_path / name

    return run


def test_a_second_stage_trains_what_the_first_results_suggest(run_stages, capsys):
    refit = Stage(("refit",), refit_best)
    experiment = ExperimentFolder(run_stages(refit))
    assert experiment.complete
    assert list(experiment.sweeps) == ["grid", "refit"]
    first, second = (experiment.result(name) for name in experiment.sweeps)
    assert (first.epochs.tolist(), second.epochs.tolist()) == ([[2, 2]], [[3]])
    best = first.best()
    assert second.configs == (best.config,)
    # The same data order, weights and flips: the refit repeats the first two epochs of the grid.
    losses = [result.history["running_loss"] for result in (first, second)]
    np.testing.assert_allclose(losses[1][:2, 0, 0], losses[0][:, 0, best.index], rtol=1e-5)
    run_stages(refit)
    assert "finished already" in capsys.readouterr().err


def test_a_drawing_that_ends_early_is_drawn_again(run_stages, monkeypatch, capsys):
    folder = run_stages()
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stages(flags=["--formats=pdf"])
    assert not ExperimentFolder(folder).complete
    assert run_stages() == folder
    assert "finished already" not in capsys.readouterr().err
    assert {path.suffix for path in folder.glob("confusion.*")} == {".png", ".svg"}


def test_a_stage_without_sweeps_ends_the_experiment(run_stages):
    stages = (Stage((), lambda results: []), Stage(("never",), lambda results: 1 / 0))
    experiment = ExperimentFolder(run_stages(*stages))
    assert experiment.complete
    assert list(experiment.sweeps) == ["grid"]


def test_blocks_of_a_stage_that_the_command_lacks_are_refused(run_stages, tmp_path):
    folder = run_stages(Stage(("refit",), refit_best))
    (folder / "config.json").unlink()
    with pytest.raises(FolderError, match="the sweep 'refit', which this command leaves out"):
        run_stages()


def test_a_stop_ends_the_experiment_before_the_next_stage_is_planned(run_stages, monkeypatch):
    monkeypatch.setattr(experiment, "run_interruptible", lambda work, log: (work(lambda: True), 15))
    with pytest.raises(Stopped, match="stopped; to resume: "):
        run_stages(Stage(("never",), lambda results: 1 / 0))
