"""The course of a training command: checks, data, stages of training, and the files of the experiment."""

import importlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments.artifacts import provenance
from experiments.artifacts.confusion import render_confusion
from experiments.artifacts.exports import best_result, write_results
from experiments.artifacts.latex import format_latex
from experiments.artifacts.probabilities import write_probabilities
from experiments.artifacts.reader import ExperimentFolder, ReadError
from experiments.artifacts.tables import Table
from experiments.cli.clock import Clock
from experiments.cli.flags import expand_path
from experiments.cli.launch import check_devices
from experiments.cli.progress import EpochsBar, describe_size, log
from experiments.cli.signals import check_signals, run_interruptible
from experiments.cli.source import Prepare, open_source
from experiments.cli.streams import terminal_width
from experiments.runner.errors import Stopped, UsageError
from experiments.runner.folder import BEST, BLOCKS, CONFIG, HISTORY, LATEX, PROBABILITIES, RESULTS, TABLES
from experiments.runner.settings import PATH, SGD
from experiments.runner.stages import Stage, Sweep
from linear_cifar.atomic import atomic_text
from linear_cifar.cluster import Cluster, ClusterError
from linear_cifar.config import Range, check_configs
from linear_cifar.data.dataset import DataError
from linear_cifar.data.division import train_size
from linear_cifar.data.local import import_extra
from linear_cifar.data.prepare import Data
from linear_cifar.fitting import NothingTrained
from linear_cifar.folders import FolderError, locked_folder, write_json
from linear_cifar.result import ALL, Result

FLAGS = flags.FLAGS
# Characters of the data set's name that a bar shows.
TITLE = 24

# Figures by the names of their files (None: there is none), and tables. Other files go to the folder.
Rendered = tuple[Mapping[str, Any], Sequence[Table]]
Render = Callable[[Path, Sequence[Result], Mapping[str, Data]], Rendered]


class _Experiment(NamedTuple):
    """A training command: what to train and show, its folder and its data."""

    name: str
    stages: Sequence[Stage]
    render: Render
    keep: str | None  # which weights `render` needs, see `fit`
    folder: Path
    prepare: Prepare
    cluster: Cluster | None  # that trains in place of this process
    previous: ExperimentFolder | None  # what the folder held before
    clock: Clock

    @property
    def resume_command(self) -> str:
        """The command that resumes this experiment."""
        return provenance.resume_command(self.name, self.folder)

    def data(self, sweeps: Sequence[Sweep]) -> dict[str, Data]:
        """Return the data of each sweep, by its name."""
        return {sweep.name: self.prepare(sweep.settings, sweep.file) for sweep in sweeps}

    def describe(self, sweeps: Sequence[Sweep], results: Sequence[Result], complete: bool) -> dict[str, Any]:
        """Return the content of config.json; `results` are those of the first sweeps."""
        data = self.data(sweeps)
        described = provenance.describe_experiment(
            self.name,
            _flag_values(),
            sweeps,
            data,
            {result.about["sweep"]: result for result in results},
            complete,
        )
        return described | (provenance.describe_workers(self.cluster.describe()) if self.cluster else {})


def run_experiment(
    name: str, make_stages: Callable[[], Sequence[Stage]], render: Render, keep: str | None = None
) -> None:
    """Train the stages, write the experiment's files and print its tables.

    If the folder holds the same experiment, it is resumed: finished blocks are not trained again.

    Args:
      name: name of the experiment's module.
      make_stages: returns the stages of the experiment, once the defaults of flags that follow from the data
        are set. The first does not depend on results.
      render: draws the experiment's own figures and makes its tables.
      keep: which weights `render` needs, see `fit`; None: as many as are small enough.

    Raises:
      UsageError: if the flags do not go together.
      FolderError: if the folder cannot be used or holds something else; nothing in it is touched.
      DataError: if there is no usable data.
      Stopped: after Ctrl+C or SIGTERM; the state is saved.
      OSError: if the machine refuses something; what was saved before stands.
    """
    clock = Clock()
    sizes, prepare = open_source()
    stages = make_stages()
    sweeps = stages[0].choose(())
    for sweep in sweeps:
        check_sweep(sweep, sizes)
    check_devices()
    if getattr(FLAGS, "save_probabilities", False):
        keep = ALL
        try:
            import_extra("pyarrow.parquet", "pip install 'linear_cifar[parquet]'")
        except DataError as error:
            raise UsageError(f"--save_probabilities {error}") from None
    folder = expand_path(FLAGS.out or f"results/{name}/{datetime.now():%Y%m%d-%H%M%S}")
    resume_command = provenance.resume_command(name, folder)
    with _explain_resuming(resume_command), locked_folder(folder):
        names = [sweep_name for stage in stages for sweep_name in stage.sweep_names]
        previous = _read_previous(folder, name, names)
        log(f"{name}: {_describe_sweeps(sweeps)}, to {folder}")
        with _open_cluster() as cluster:
            experiment = _Experiment(name, stages, render, keep, folder, prepare, cluster, previous, clock)
            tables = _train_and_write(experiment)
    print("\n\n".join(table.format(terminal_width(sys.stdout)) for table in tables))
    print(f"files: {folder}")
    log(f"time: {clock}")


def _describe_sweeps(sweeps: Sequence[Sweep]) -> str:
    """Return the size of the training in words."""
    if len(sweeps) > 1:
        runs = sum(len(sweep.configs) * len(sweep.seeds) * max(1, sweep.settings.folds) for sweep in sweeps)
        return f"{runs:,} runs in {len(sweeps)} sweeps"
    (sweep,) = sweeps
    size = describe_size(len(sweep.configs), len(sweep.seeds), sweep.settings.folds)
    if sweep.settings.solver == PATH:
        return f"{size} to the minimum"
    return f"{size} for {sweep.settings.epochs} epoch" + "s" * (sweep.settings.epochs > 1)


def _open_cluster() -> AbstractContextManager[Cluster | None]:
    """Connect to the cluster that the flags name, if they name one.

    Raises:
      ClusterError: if it cannot be reached.
    """
    if FLAGS.scheduler is None:
        return nullcontext()
    cluster = Cluster(FLAGS.scheduler, log)
    log(f"training on the workers of {cluster.address}; dashboard: {cluster.dashboard}")
    if not cluster.address.startswith("tls:"):
        log("note: a Dask cluster runs any code that it is sent: keep it in a private network, or use TLS")
    return cluster


def check_sweep(sweep: Sweep, sizes: Mapping[str, int]) -> None:
    """Raise UsageError if a sweep's settings do not go together, or not with splits of these sizes."""
    settings = sweep.settings
    if settings.folds == 1:
        raise UsageError("--folds=1: give at least 2 folds, or 0 for none")
    num_training = train_size(sizes, settings.train, settings.val_size, settings.folds)
    if settings.folds and num_training < 1:
        raise UsageError(f"--folds={settings.folds}: there are fewer training examples")
    if num_training < 1:
        n = num_training + settings.val_size
        raise UsageError(f"--val_size={settings.val_size}: give less than the {n:,} training examples")
    if settings.average > settings.epochs:
        raise UsageError(f"--average={settings.average}: give at most --epochs={settings.epochs}")
    try:
        if settings.solver == SGD:
            check_configs(sweep.configs, num_training, settings.dtype)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _read_previous(folder: Path, name: str, sweep_names: Sequence[str]) -> ExperimentFolder | None:
    """Return the experiment that the folder holds; None if there is none.

    Raises:
      FolderError: if the folder holds another experiment, another version's, other sweeps, or files of none.
    """
    blocks, previous = folder / BLOCKS, None
    if (folder / CONFIG).exists():
        try:
            previous = ExperimentFolder(folder)
        except ReadError as error:
            raise FolderError(
                folder, f"holds an experiment that cannot be resumed: {error}; choose another folder"
            ) from None
        if previous.name != name:
            raise FolderError(folder, f"holds an experiment of {previous.name}: choose another folder")
        if previous.complete and not blocks.exists():
            raise FolderError(
                folder, "holds a finished experiment whose blocks are gone: choose another folder"
            )
    elif not blocks.exists() and any((folder / file).exists() for file in (RESULTS, HISTORY, BEST)):
        raise FolderError(folder, "holds another experiment's files: choose another folder, or remove them")
    for path in sorted(blocks.glob("*")):
        if path.name not in sweep_names:
            reason = f"holds runs with the sweep {path.name!r}, which this command leaves out"
            raise FolderError(folder, f"{reason}: give the same, or choose another folder")
    return previous


def _train_and_write(experiment: _Experiment) -> Sequence[Table]:
    """Train what is missing, write the files, and return the tables.

    Raises:
      Stopped: if a signal ended the training; the files hold what was trained until then.
    """
    folder = experiment.folder
    (sweeps, results), number = run_interruptible(
        lambda stopped: _train_stages(experiment, stopped), _log_signal
    )
    if len(results) == len(sweeps) and all(result.complete for result in results):
        description = experiment.describe(sweeps, results, complete=True)
        previous = experiment.previous
        shown = ("formats", "titles", "names", "save_probabilities")
        drawn = {
            name: FLAGS[name].value for name in shown if name in FLAGS and FLAGS[name].value is not False
        }.items()
        if previous and drawn <= previous.settings.items() and previous.has_results(description["sweeps"]):
            log(f"finished already, {previous.written}: nothing to do")
            return list(previous.tables.values())
        check_signals()
        # Until all files are written, so that a process that ends before draws the figures again.
        write_json(folder / CONFIG, description | {"complete": False})
        write_results(folder, results)
        (folder / PROBABILITIES).unlink(missing_ok=True)  # it may be of fewer configurations
        if ("save_probabilities", True) in drawn:
            write_probabilities(folder / PROBABILITIES, sweeps, results, experiment.data(sweeps))
        experiment.clock.count("writing")
        # Imported here, because most mistakes are found before Matplotlib is there.
        from experiments.artifacts.drawing import save_figures

        figures, own_tables = experiment.render(folder, results, experiment.data(sweeps))
        confusion, pairs = render_confusion(best_result(results), experiment.data(sweeps))
        tables = [*own_tables, *pairs]
        save_figures(folder, {**figures, "confusion": confusion}, FLAGS.formats, FLAGS.titles == "yes")
        experiment.clock.count("figures")
        with atomic_text(folder / LATEX) as file:
            names = {sweep["dataset"]["name"]: None for sweep in description["sweeps"].values()}
            file.write(format_latex(tables, f"{', '.join(names)}: {description['command']}"))
        write_json(folder / TABLES, {"tables": [vars(table) for table in tables]})
        experiment.clock.count("writing")
        write_json(folder / CONFIG, description | {"seconds": experiment.clock.seconds})
        return tables
    if results:
        write_results(folder, results, complete=False)
    if number is None:
        raise ClusterError(
            f"blocks were given up, see above; {folder} holds what the others have, incomplete"
        )
    if not results:
        raise Stopped(f"stopped; to resume: {experiment.resume_command}", number)
    last, total = results[-1], len(results[-1].identity.epochs)
    unfinished = (last.epochs > 0) & (last.epochs < total) & (last.stopped == 0)
    epoch = ""
    if unfinished.any():
        step = "round" if last.identity.is_exact else "epoch"
        epoch = f" after {step} {last.epochs[unfinished].max()} of {total} of {last.about['sweep']}"
    raise Stopped(
        f"stopped{epoch}: state saved, {folder} holds the results until then, marked incomplete; "
        f"to resume: {experiment.resume_command}",
        number,
    )


def _train_stages(experiment: _Experiment, stopped: Callable[[], bool]) -> tuple[list[Sweep], list[Result]]:
    """Train stage after stage until one has no sweeps or is stopped; return the sweeps and their results."""
    sweeps: list[Sweep] = []
    results: list[Result] = []

    def begin() -> None:
        """Say on disk that the results are not complete, before a new epoch is saved."""
        # Matplotlib takes half a second, in which this thread waits for the compiler and the first epoch.
        threading.Thread(target=importlib.import_module, args=["experiments.artifacts.figures"]).start()
        write_json(experiment.folder / CONFIG, experiment.describe(sweeps, results, complete=False))

    for number, stage in enumerate(experiment.stages):
        chosen = list(stage.choose(results))
        if not chosen:
            break
        sweeps += chosen
        if experiment.previous is None:
            begin()
        for sweep in chosen:
            result = _train_sweep(experiment, sweep, stopped, begin, subset=number > 0)
            if result is not None:
                results.append(result)
            if result is None or not result.complete:
                return sweeps, results
    return sweeps, results


def _train_sweep(
    experiment: _Experiment,
    sweep: Sweep,
    stopped: Callable[[], bool],
    begin: Callable[[], None],
    subset: bool,
) -> Result | None:
    """Train a sweep, or read what is trained already; return None if it was stopped before its first result.

    Raises:
      FolderError: if the folder holds something else.
    """
    data = experiment.prepare(sweep.settings, sweep.file)
    experiment.clock.count("data")
    title = f"{data.dataset.name[:TITLE]}, {sweep.name}"
    try:
        with EpochsBar(sweep.name, title, experiment.clock, begin) as bar:
            result = sweep.train(
                data,
                keep=experiment.keep,
                folder=experiment.folder / BLOCKS / sweep.name,
                save_every=FLAGS.save_every,
                block_runs=FLAGS.block_runs,
                cluster=experiment.cluster,
                on_epoch=bar.show,
                should_stop=stopped,
                subset=subset,
                log=log,
            )
            if result.complete and "val" in result.sizes:
                bar.finish(result.interval("val", result.ranking()[0]).mean)
            experiment.clock.count("evaluation")
            return result
    except NothingTrained:
        return None
    except FolderError as error:
        raise FolderError(experiment.folder, error.reason) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def _log_signal(number: int) -> None:
    name = signal.Signals(number).name
    log(f"\n{name}: finishing this epoch or round and saving; a second one stops at once")


@contextmanager
def _explain_resuming(resume_command: str) -> Iterator[None]:
    """Add the command that resumes the experiment to the message of a signal or of a failing machine."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        raise Stopped(f"stopped; to resume: {resume_command}", number) from None
    except OSError as error:
        raise OSError(f"{error}; to resume: {resume_command}") from None


def _flag_values() -> dict[str, Any]:
    """Return the values of all flags of the command, including defaults; ranges are text."""
    values = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
    return {name: str(value) if isinstance(value, Range) else value for name, value in values.items()}
