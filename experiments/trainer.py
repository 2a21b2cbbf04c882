"""Trains a run's variants, block after block, each gone on with from what is there of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

import jax

from experiments import blocks, files, memory
from experiments.blocks import Block, Held
from experiments.checkpoints import Checkpoints, remove_states, saved_epochs
from experiments.files import write_json
from experiments.progress import EpochsBar, tell
from experiments.run import Outcome, Run, condense, outcome_of, recall, run, size_of, standing_of
from experiments.settings import Variant
from experiments.work import Work
from linear_cifar.dataset import Dataset
from linear_cifar.layout import on_cpu
from linear_cifar.memory import runs_that_fit


def train(work: Work, held: Sequence[Held], stopped: Callable[[], bool]) -> list[list[Run]]:
    """The runs of each variant's blocks; once it is stopped, of those that have a state, as they stand."""
    write_json(work.folder / files.CONFIG, work.description(complete=False))
    parts: list[list[Run]] = []
    for variant, dataset in work.variants:
        parts.append([])
        with EpochsBar(variant.settings.epochs, f"{dataset.name}, {variant.name}: {size_of(variant)}") as bar:
            at_most = work.flags["block_runs"] or _at_most(variant, dataset)
            for block in blocks.plan(variant, held, at_most, work.keep_states):
                folder = blocks.folder_of(work.folder, block, dataset.fingerprint)
                if not stopped() or saved_epochs(folder) or saved_epochs(blocks.outcome_of(folder)):
                    with jax.enable_x64(block.part.settings.dtype == "float64"):
                        share = block.part.runs / variant.runs
                        parts[-1].append(_train_block(work, block, dataset, stopped, bar, share))
    return parts


def _train_block(
    work: Work, block: Block, dataset: Dataset, stopped: Callable[[], bool], bar: EpochsBar, share: float
) -> Run:
    """The run of a block, that share of all runs, gone on with from what is there of it."""
    part = block.part
    folder = blocks.folder_of(work.folder, block, dataset.fingerprint)
    known = folder.exists()
    blocks.write(work.folder, block, dataset, work.decisive(part.size))
    d, K = dataset.train.images.shape[1], len(dataset.classes)

    def reused(epochs: int) -> None:
        bar.skip(epochs * share)
        if not stopped():
            tell(f"reused: {part.name}, {size_of(part)}, the first {epochs} of {part.settings.epochs} epochs")

    with ExitStack() as opened:
        if block.keeps != blocks.STATE:
            number = len(part.configs) if block.keeps == blocks.CONFIGURATIONS else 1
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
        elif known:
            tell(f"note: {folder} holds no state: {size_of(part)} of {part.name} from the start")
        trained = run(
            part,
            dataset,
            saved,
            lambda standing: states.save(int(standing.snapshot.number), standing),
            states.due,
            stopped,
            partial(bar.advance, share),
        )
        if block.keeps != blocks.STATE and trained.complete:
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
