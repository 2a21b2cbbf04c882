"""Trains a run's variants, block after block, each gone on with from what is there of it."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from experiments import blocks, memory
from experiments.blocks import Block, Held
from experiments.checkpoints import Checkpoints, remove_states, saved_epochs
from experiments.progress import EpochsBar, tell
from experiments.run import Outcome, Run, Standing, condense, outcome_of, recall, run, size_of, standing_of
from experiments.settings import Variant
from experiments.work import Work
from linear_cifar.dataset import Dataset
from linear_cifar.layout import on_cpu
from linear_cifar.memory import runs_that_fit


class Task(NamedTuple):
    """A block of a variant to be trained, and its folder."""

    variant: Variant
    dataset: Dataset
    block: Block
    folder: Path

    @property
    def done(self) -> int:
        """After how many epochs there is something on disk."""
        return max(saved_epochs(self.folder) + saved_epochs(blocks.outcome_of(self.folder)), default=0)


def tasks_of(work: Work, held: Sequence[Held], processes: int) -> list[Task]:
    """All blocks of a run, those on disk and new ones, which so many processes can share evenly."""
    tasks = []
    for variant, dataset in work.variants:
        at_most = work.flags["block_runs"] or _at_most(variant, dataset)
        for block in blocks.plan(variant, held, at_most, processes, work.keep_states):
            folder = blocks.folder_of(work.folder, block, dataset.fingerprint)
            tasks.append(Task(variant, dataset, block, folder))
    return tasks


def deal(tasks: Sequence[Task], processes: int) -> list[list[Task]]:
    """To each process its tasks; what is finished to the first, which only has to read it."""
    shares: list[list[Task]] = [[] for _ in range(processes)]
    left = 0
    for one in tasks:
        finished = one.done == one.block.part.settings.epochs
        shares[0 if finished else left % processes].append(one)
        left += not finished
    return shares


def train(
    work: Work, tasks: Sequence[Task], stopped: Callable[[], bool], quiet: bool = False
) -> dict[Path, Run]:
    """The blocks' runs by their folders; once it is stopped, of those that have a state, as they stand.

    Args:
      work: whose they are.
      tasks: what to train, or to read where it is trained already.
      stopped: asked after every epoch whether to end with that one.
      quiet: without bars, and without saying what is reused.
    """
    trained: dict[Path, Run] = {}
    for name, group in itertools.groupby(tasks, lambda one: one.variant.name):
        its = list(group)
        variant, runs = its[0].variant, sum(one.block.part.runs for one in its)
        title = f"{its[0].dataset.name}, {name}: {size_of(variant)}"
        with EpochsBar(variant.settings.epochs, title, quiet) as bar:
            for one in its:
                if not stopped() or one.done:
                    with jax.enable_x64(one.block.part.settings.dtype == "float64"):
                        share = one.block.part.runs / runs
                        trained[one.folder] = _train_block(work, one, stopped, bar, share)
    return trained


def _train_block(work: Work, task: Task, stopped: Callable[[], bool], bar: EpochsBar, share: float) -> Run:
    """The run of a block, that share of those under the bar, gone on with from what is there of it."""
    _, dataset, (part, keeps), folder = task
    d, K = dataset.train.images.shape[1], len(dataset.classes)

    def reused(epochs: int) -> None:
        bar.skip(epochs * share)
        if not stopped():
            bar.tell(
                f"reused: {part.name}, {size_of(part)}, the first {epochs} of {part.settings.epochs} epochs"
            )

    with ExitStack() as opened:
        if keeps != blocks.STATE:
            number = len(part.configs) if keeps == blocks.CONFIGURATIONS else 1
            template = outcome_of(part, d, K, number)
            outcomes = opened.enter_context(closing(Checkpoints(blocks.outcome_of(folder), template, tell)))
            outcome = outcomes.newest()
            if outcome:
                reused(len(outcome.history.finite))
                remove_states(folder)  # it may have been killed before
                return recall(part, dataset, outcome)
        states = opened.enter_context(
            closing(Checkpoints(folder, standing_of(part, d, K), tell, work.flags["save_every"]))
        )
        saved = states.newest()
        if saved:
            reused(int(saved.snapshot.number))

        def save(standing: Standing) -> None:
            if keeps == blocks.STATE or not standing.finished:
                states.save(int(standing.snapshot.number), standing)

        trained = run(
            part,
            dataset,
            saved,
            save,
            states.due,
            stopped,
            partial(bar.advance, share),
        )
        if keeps != blocks.STATE and trained.complete:
            trained = condense(trained, number)
            outcomes.save(trained.epochs, Outcome(trained.history, trained.final, trained.kept))
            remove_states(folder)
    return trained


def _at_most(variant: Variant, dataset: Dataset) -> int:
    """How many runs the memory of all devices holds."""
    devices, settings = jax.local_devices(), variant.settings
    n = sum(len(split.labels) for split in (dataset.train, dataset.val, dataset.test))
    d, K = dataset.train.images.shape[1], len(dataset.classes)
    largest = max(config.batch for config in variant.configs)
    fit = runs_that_fit(
        memory.of_device(devices), devices[0], n, d, K, settings.dtype, largest, len(variant.configs)
    )
    return fit if on_cpu(devices[0]) else fit * len(devices)
