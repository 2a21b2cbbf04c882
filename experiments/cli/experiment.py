"""The course of a training command: checks, data, stages of training, and the files of the run."""

import itertools
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments.artifacts import provenance
from experiments.artifacts.confusion import render_confusion
from experiments.artifacts.results import best_sweep, write_results
from experiments.artifacts.tables import Table
from experiments.cli.data import source_from_flags
from experiments.cli.flags import expand_path
from experiments.cli.launch import check_devices
from experiments.cli.previous import (
    check_finished_run,
    has_all_files,
    is_same_run,
    read_previous_run,
    read_usable_manifests,
)
from experiments.cli.progress import EpochsBar, log
from experiments.cli.signals import check_signals, run_interruptible
from experiments.runner.blocks import BlockManifest, is_complete, join_results, take_wanted, write_manifest
from experiments.runner.data import PreparedData
from experiments.runner.errors import BlockError, Stopped, UsageError
from experiments.runner.files import CONFIG, TABLES, locked_run_folder, write_json
from experiments.runner.settings import Settings
from experiments.runner.stages import Stage
from experiments.runner.sweeps import Sweep, SweepResult
from experiments.runner.training import Task, plan_tasks, states_are_few, train_tasks
from linear_cifar.config import check_config

FLAGS = flags.FLAGS

# Draws an experiment's figures into the folder, and returns its tables.
Render = Callable[[Path, Sequence[SweepResult]], Sequence[Table]]


class Experiment(NamedTuple):
    """A training command at work: what to train and show, its folder and its data."""

    name: str
    stages: Sequence[Stage]
    render: Render
    needs_all: bool  # whether `render` needs the parameters of all runs, not only of the best
    folder: Path
    prepare: Callable[[Settings], PreparedData]  # divides and prepares the data, once for equal divisions

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        return provenance.resume_command(self.name, self.folder)

    def describe(
        self, sweeps: Sequence[Sweep], environment: dict[str, Any], complete: bool
    ) -> dict[str, Any]:
        """Return the content of config.json."""
        pairs = [(sweep, self.prepare(sweep.settings)) for sweep in sweeps]
        return provenance.describe_run(self.name, _flag_values(), pairs, environment, complete)


class Training(NamedTuple):
    """Results of the stages so far: their sweeps, the results of each sweep's blocks, and the environment."""

    sweeps: list[Sweep]
    parts: list[list[SweepResult]]
    environment: dict[str, Any]

    @property
    def complete(self) -> bool:
        """True if all sweeps are trained to their end."""
        return all(is_complete(*pair) for pair in zip(self.sweeps, self.parts, strict=True))

    def join(self) -> list[SweepResult]:
        """Return the result of each sweep."""
        return [join_results(*pair) for pair in zip(self.sweeps, self.parts, strict=True)]


def run_experiment(name: str, stages: Sequence[Stage], render: Render, needs_all: bool = False) -> None:
    """Train the stages, write the run's files and print its tables.

    If the folder holds the same run, it is resumed: finished blocks are not trained again.

    Args:
      name: name of the experiment's module.
      stages: plan of the experiment; the first stage does not depend on results.
      render: draws the experiment's own figures and returns its tables.
      needs_all: whether `render` needs the parameters of every run. If not, very many runs keep only those of
        the best.

    Raises:
      UsageError: if the flags do not go together.
      FolderError: if the folder cannot be used or holds something else; nothing in it is touched.
      DataError: if there is no usable data.
      Stopped: after Ctrl+C or SIGTERM; the state is saved.
      OSError: if the machine refuses something; what was saved before stands.
    """
    source = source_from_flags()
    first = stages[0].plan(())
    for sweep in first:
        check_sweep(sweep, source.count_training(sweep.settings))
    check_devices()
    folder = expand_path(FLAGS.out or f"results/{name}/{datetime.now():%Y%m%d-%H%M%S}")
    experiment = Experiment(name, stages, render, needs_all, folder, source.prepare)
    with _explain_resuming(experiment):
        with locked_run_folder(folder):
            previous = read_previous_run(folder, name)
            environment = provenance.describe_environment()
            manifests = _read_manifests(experiment, 0, first)
            same = previous is not None and is_same_run(
                previous, experiment.describe(first, environment, True)
            )
            check_finished_run(previous, manifests, same)
            if previous and previous.complete and same and has_all_files(folder):
                log(f"finished already, {previous.written}: nothing to do")
                tables: Sequence[Table] = list(previous.tables.values())
            else:
                _log_other_environment(manifests, environment)
                tables = _train_and_write(experiment, environment)
        print("\n\n".join(map(str, tables)))
        print(f"files: {folder}")


def check_sweep(sweep: Sweep, num_training: int) -> None:
    """Raise UsageError if a sweep's settings do not go together, or not with that many training examples."""
    settings = sweep.settings
    if settings.folds == 1:
        raise UsageError("--folds=1: give at least 2 folds, or 0 for none")
    if settings.folds and num_training < 1:
        raise UsageError(f"--folds={settings.folds}: there are fewer training examples")
    if num_training < 1:
        n = num_training + settings.val_size
        raise UsageError(f"--val_size={settings.val_size}: give less than the {n:,} training examples")
    if settings.average > settings.epochs:
        raise UsageError(f"average is {settings.average}: the run has {settings.epochs} epochs")
    for config in sweep.configs:
        try:
            check_config(config, num_training, settings.dtype)
        except ValueError as error:
            raise UsageError(str(error)) from None


def write_artifacts(
    folder: Path, results: Sequence[SweepResult], render: Render, description: dict[str, Any]
) -> Sequence[Table]:
    """Write all files of a finished run, config.json last, and return its tables."""
    check_signals()
    write_results(folder, results)
    tables = [*render(folder, results), *render_confusion(folder, best_sweep(results))]
    write_json(folder / TABLES, {"tables": [table._asdict() for table in tables]})
    write_json(folder / CONFIG, description)
    return tables


def _train_and_write(experiment: Experiment, environment: dict[str, Any]) -> Sequence[Table]:
    """Train what is missing and write the files.

    Raises:
      Stopped: if a signal ended the training; the files hold what was trained until then.
    """
    training, number = run_interruptible(
        lambda stopped: _train_stages(experiment, environment, stopped), _log_signal
    )
    if training.complete:
        description = experiment.describe(training.sweeps, training.environment, complete=True)
        return write_artifacts(experiment.folder, training.join(), experiment.render, description)
    assert number is not None, "only a signal stops a run before its end"
    trained = [part for parts in training.parts for part in parts]
    if not trained:
        raise Stopped(f"stopped; to resume: {experiment.resume_command}", number)
    write_results(experiment.folder, trained, complete=False)
    last = next((part for part in trained if not part.complete), None)
    moment = f" after epoch {last.epochs} of {last.settings.epochs} of {last.sweep.name}" if last else ""
    raise Stopped(
        f"stopped{moment}: state saved, {experiment.folder} holds the results until then, marked incomplete; "
        f"to resume: {experiment.resume_command}",
        number,
    )


def _train_stages(
    experiment: Experiment, environment: dict[str, Any], stopped: Callable[[], bool]
) -> Training:
    """Train stage after stage until one has no sweeps or is stopped."""
    training = Training([], [], environment)
    sizes: list[tuple[int, int]] = []
    for number, stage in enumerate(experiment.stages):
        sweeps = list(stage.plan(training.join()))
        if not sweeps:
            break
        manifests = _read_manifests(experiment, number, sweeps)
        tasks = _plan_stage(experiment, sweeps, manifests)
        sizes += [task.block.sweep.size for task in tasks]
        training = Training(
            training.sweeps + sweeps, training.parts, environment | provenance.describe_use(sizes)
        )
        description = experiment.describe(training.sweeps, training.environment, complete=False)
        write_json(experiment.folder / CONFIG, description)
        for task in tasks:
            numerics = provenance.numerics_environment(environment, task.block.sweep.size)
            write_manifest(experiment.folder, task.block, task.data.dataset, numerics)
        results = train_tasks(tasks, stopped, EpochsBar, FLAGS.save_every, FLAGS.block_runs)
        training.parts.extend(
            [
                take_wanted(sweep, results[task.folder])
                for task in tasks
                if task.sweep.name == sweep.name and task.folder in results
            ]
            for sweep in sweeps
        )
        if not training.complete:
            break
    return training


def _plan_stage(
    experiment: Experiment, sweeps: Sequence[Sweep], manifests: Sequence[BlockManifest]
) -> list[Task]:
    """Return the blocks of a stage's sweeps."""
    pairs = [(sweep, experiment.prepare(sweep.settings)) for sweep in sweeps]
    keep_all = experiment.needs_all or states_are_few(pairs)
    tasks = (
        plan_tasks(
            experiment.folder,
            sweep,
            data,
            manifests,
            block_runs=FLAGS.block_runs,
            keep_all=keep_all,
        )
        for sweep, data in pairs
    )
    return list(itertools.chain.from_iterable(tasks))


def _read_manifests(experiment: Experiment, number: int, sweeps: Sequence[Sweep]) -> list[BlockManifest]:
    """Return the manifests of the blocks in the folder, before the stage of this number trains these sweeps.

    Raises:
      FolderError: if a block cannot be used by these sweeps.
      UsageError: if a block is broken.
    """
    names = [name for stage in experiment.stages for name in stage.sweep_names]
    dataset = experiment.prepare(sweeps[0].settings).dataset
    try:
        return read_usable_manifests(experiment.folder, sweeps, names, dataset, configs_follow=number > 0)
    except BlockError as error:
        raise UsageError(str(error)) from None


def _log_other_environment(manifests: Sequence[BlockManifest], environment: dict[str, Any]) -> None:
    for manifest in manifests:
        if manifest.environment != provenance.numerics_environment(environment, manifest.size):
            log("note: begun with other versions or devices, see block.json: results agree up to rounding")
            return


def _log_signal(number: int) -> None:
    log(f"\n{signal.Signals(number).name}: finishing this epoch and saving; a second one stops at once")


@contextmanager
def _explain_resuming(experiment: Experiment) -> Iterator[None]:
    """Add the command that resumes the run to the message of a signal or of a failing machine."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        raise Stopped(f"stopped; to resume: {experiment.resume_command}", number) from None
    except OSError as error:
        raise OSError(f"{error}; to resume: {experiment.resume_command}") from None


def _flag_values() -> dict[str, Any]:
    """Return the values of all flags of the command, including defaults."""
    return {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
