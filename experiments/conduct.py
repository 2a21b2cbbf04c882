"""What every training experiment does around its settings and figures: checks, data, sweeps, files."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from absl import flags

from experiments import archive, blocks, files, interruption, provenance, results
from experiments.archive import Archive, ArchiveError
from experiments.blocks import BlockError, Held
from experiments.files import folder_for_run, write_json
from experiments.hosts import Hosts
from experiments.interruption import interruptible
from experiments.progress import download_bar, tell
from experiments.run import Run
from experiments.settings import Variant
from experiments.shell import Stopped, UsageError
from experiments.table import Table
from experiments.trainer import deal, tasks_of, train
from experiments.work import Work, states_are_few
from linear_cifar.config import check
from linear_cifar.dataset import Source, divide, train_size
from linear_cifar.load import find

FLAGS = flags.FLAGS

# Draws an experiment's figures into the folder, and gives its tables.
Present = Callable[[Path, Sequence[Run]], Sequence[Table]]

# Flags that decide nothing that is measured.
INDIFFERENT = (
    "out", "save_every", "data_dir", "dataset", "block_runs",
    "coordinator", "processes", "process", "cluster",
)  # fmt: skip


def conduct(experiment: str, variants: Sequence[Variant], present: Present, needs_all: bool = False) -> None:
    """Trains the variants, writes the run's files and prints its tables.

    What the folder holds of the same run is gone on with: finished blocks are not trained again.

    Args:
      experiment: name of the experiment's module.
      variants: what to train, one sweep after the other.
      present: the experiment's own figures and tables.
      needs_all: whether it needs the parameters of every run; else those of the best are kept of very many.

    Raises:
      UsageError: if the flags don't go together, or the folder can't be used or holds something else; nothing
        in it is touched.
      DataError: if there is no usable data.
      Stopped: after Ctrl+C or SIGTERM; the state is saved.
      SaveError: if the state can't be saved.
      HostError: if another process failed; its state is saved.
    """
    for variant in variants:
        _check(variant)
    hosts = Hosts()
    try:
        if hosts.index == 0:
            _lead(experiment, variants, present, needs_all, hosts)
        else:
            _follow(experiment, variants, needs_all, hosts)
    except BaseException as error:
        hosts.fail(str(error) or type(error).__name__)
        raise


def _lead(
    experiment: str, variants: Sequence[Variant], present: Present, needs_all: bool, hosts: Hosts
) -> None:
    """What process 0 does: all but the training that it leaves to the others."""
    out = Path(FLAGS.out or f"results/{experiment}/{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    again = provenance.command_to_go_on(experiment, out)
    with folder_for_run(out) as folder, _stopping_by(again):
        before = _before(folder, experiment)
        work = _work(experiment, variants, folder, needs_all, hosts)
        held = _held(work, before)
        if before and before.complete and _same(before, work) and _all_written(folder):
            tell(f"finished already, {before.written}: nothing to do")
            hosts.say("shares", "null")
            tables: Sequence[Table] = list(before.tables.values())
        else:
            tables = _carry_out(work, held, present, again, hosts)
    print("\n\n".join(map(str, tables)))
    print(f"files: {folder}")


def _follow(experiment: str, variants: Sequence[Variant], needs_all: bool, hosts: Hosts) -> None:
    """What the other processes do: they train their share of the blocks."""
    shares = json.loads(hosts.hear("shares") or "null")
    if shares is None:
        return
    folder = Path(shares["folder"])
    with _stopping_by(provenance.command_to_go_on(experiment, folder)):
        work = _work(experiment, variants, folder, needs_all, hosts)
        fingerprint = work.variants[0][1].fingerprint
        if fingerprint != shares["fingerprint"]:
            raise UsageError(
                f"these images ({fingerprint[:8]}…) are not process 0's ({shares['fingerprint'][:8]}…)"
            )
        own = shares["blocks"][hosts.index]
        tasks = [one for one in tasks_of(work, _held(work, None), 1) if one.folder.name in own]
        if len(tasks) < len(own):
            raise UsageError(
                f"blocks are missing in {folder}: --out is to name a folder that all processes share"
            )
        _, number = interruptible(lambda stopped: train(work, tasks, _or_failed(stopped, hosts), True), _note)
        if number is not None:
            raise Stopped("stopped, its state is saved", number)
        hosts.check()
        hosts.say(f"done/{hosts.index}", "")
        hosts.hear("finished")
        tell(f"{hosts} trained {len(tasks)} block" + "s" * (len(tasks) != 1))


def write(work: Work, runs: Sequence[Run], present: Present) -> Sequence[Table]:
    """Writes all files of an experiment that was run. Gives its tables."""
    interruption.check()
    results.write(work.folder, runs)
    tables = present(work.folder, runs)
    write_json(work.folder / files.TABLES, {"tables": [table._asdict() for table in tables]})
    write_json(work.folder / files.CONFIG, work.description(complete=True))
    return tables


def _work(experiment: str, variants: Sequence[Variant], folder: Path, needs_all: bool, hosts: Hosts) -> Work:
    """The run that the flags say, with its data."""
    source = _source()
    how = {(variant.settings.train, variant.settings.val_size) for variant in variants}
    divided = {one: divide(source, *one) for one in how}
    pairs = [(one, divided[one.settings.train, one.settings.val_size]) for one in variants]
    environment = provenance.describe_environment() | {"processes": hosts.count}
    return Work(experiment, _flags(), pairs, environment, folder, needs_all or states_are_few(pairs))


def _carry_out(
    work: Work, held: Sequence[Held], present: Present, again: str, hosts: Hosts
) -> Sequence[Table]:
    """Has all trained that is yet to be trained, and writes the files."""
    tasks = tasks_of(work, held, hosts.count)
    environment = work.environment | provenance.describe_use(one.block.part.size for one in tasks)
    work = work._replace(environment=environment)
    shares = deal(tasks, hosts.count)
    plan = {
        "folder": str(work.folder.absolute()),
        "fingerprint": work.variants[0][1].fingerprint,
        "blocks": [[one.folder.name for one in share] for share in shares],
    }

    def trained(stopped: Callable[[], bool]) -> dict[Path, Run]:
        write_json(work.folder / files.CONFIG, work.description(complete=False))
        for one in tasks:
            blocks.write(work.folder, one.block, one.dataset, work.decisive(one.block.part.size))
        hosts.say("shares", json.dumps(plan))
        runs = train(work, shares[0], _or_failed(stopped, hosts))
        for index in range(1, hosts.count):
            hosts.hear(f"done/{index}", stopped)
        if not stopped():
            runs |= train(work, [one for share in shares[1:] for one in share], stopped, quiet=True)
        return runs

    runs, number = interruptible(trained, _note)
    parts = [
        [runs[one.folder] for one in tasks if one.variant is variant and one.folder in runs]
        for variant, _ in work.variants
    ]
    pairs = [(variant, its) for (variant, _), its in zip(work.variants, parts, strict=True)]
    if all(blocks.are_whole(*pair) for pair in pairs):
        tables = write(work, [blocks.join(*pair) for pair in pairs], present)
        hosts.say("finished", "")
        return tables
    assert number is not None, "only a signal stops a run before its end"
    every = [part for its in parts for part in its]
    if not every:
        raise Stopped(f"stopped; to go on: {again}", number)
    results.write(work.folder, every)
    last = next((part for part in every if not part.complete), every[-1])
    raise Stopped(
        f"stopped after epoch {last.epochs} of {last.settings.epochs} of {last.variant.name}: state saved, "
        f"{work.folder} holds what there is, marked incomplete; to go on: {again}",
        number,
    )


def _or_failed(stopped: Callable[[], bool], hosts: Hosts) -> Callable[[], bool]:
    """Whether to stop, also because another process failed."""
    return lambda: stopped() or hosts.failed is not None


def _note(number: int) -> None:
    tell(f"\n{signal.Signals(number).name}: finishing this epoch and saving; a second one stops at once")


def _before(folder: Path, experiment: str) -> Archive | None:
    """The run that the folder holds, if any.

    Raises:
      UsageError: if what it holds is another experiment's, another version's or no run's.
    """
    if not (folder / files.CONFIG).exists():
        others = any((folder / name).exists() for name in (files.RESULTS, files.HISTORY, files.BEST))
        if others and not (folder / files.BLOCKS).exists():
            raise UsageError(f"--out={folder} holds another run's files: name another folder, or remove them")
        return None
    try:
        before = archive.read(folder)
    except ArchiveError as error:
        raise UsageError(
            f"--out={folder} can't be gone on with: {error}; name another folder, or remove "
            f"{files.CONFIG}, and it is written anew from {files.BLOCKS}"
        ) from None
    if before.experiment != experiment:
        raise UsageError(f"--out={folder} holds a run of {before.experiment}: name another folder")
    return before


def _held(work: Work, before: Archive | None) -> list[Held]:
    """The blocks in the folder.

    Raises:
      UsageError: if they are broken, or this run would not have the same ones.
    """
    wanted = {variant.name: variant for variant, _ in work.variants}
    try:
        held = blocks.read(work.folder)
    except BlockError as error:
        raise UsageError(str(error)) from None
    for one in held:
        different = blocks.disagreement(one, wanted, work.variants[0][1])
        if different:
            raise UsageError(
                f"--out={work.folder} holds runs with {different}: give the same, or name another folder"
            )
    if before and before.complete and not held and not _same(before, work):
        raise UsageError(
            f"--out={work.folder} holds a finished run with other settings, whose states are gone: "
            "name another folder"
        )
    if any(one.environment != work.decisive(one.size) for one in held):
        tell("note: begun with other versions or devices, see block.json: results agree up to rounding")
    return held


def _all_written(folder: Path) -> bool:
    return all((folder / name).exists() for name in (files.RESULTS, files.HISTORY, files.TABLES))


def _same(before: Archive, work: Work) -> bool:
    """Whether a run had the same settings and flags, but for indifferent ones, and the same images."""

    def deciding(config: Mapping[str, Any]) -> Any:
        flags = {name: value for name, value in config["settings"].items() if name not in INDIFFERENT}
        return flags, config["variants"], config["dataset"]["fingerprint"]

    return deciding(before.config) == deciding(json.loads(json.dumps(work.description(complete=True))))


@contextmanager
def _stopping_by(again: str) -> Iterator[None]:
    """Says how to go on, where a signal comes while nothing is trained, or the machine refuses."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        raise Stopped(f"stopped; to go on: {again}", number) from None
    except OSError as error:
        raise OSError(f"{error}; to go on: {again}") from None


def _check(variant: Variant) -> None:
    settings = variant.settings
    if settings.average > settings.epochs:
        raise UsageError(f"average is {settings.average}: the run has {settings.epochs} epochs")
    n = train_size(settings.train, settings.val_size)
    for config in variant.configs:
        try:
            check(config, n)
        except ValueError as error:
            raise UsageError(str(error)) from None


def _source() -> Source:
    data_dir = None if FLAGS.data_dir is None else Path(FLAGS.data_dir).expanduser()
    with download_bar("CIFAR-10") as report:
        return find(FLAGS.dataset, data_dir, tell, report)


def _flags() -> dict[str, Any]:
    """The experiment's flags, those left at their defaults too."""
    return {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
