"""The blocks of a run: parts of its variants, each trained side by side from a state of its own.

A block is a variant with some of its configurations and seeds. In the run's folder it has a folder of its
own, which holds block.json, what it is, and the checkpoints of its state. So a run that is extended adds
blocks to those that it has.
"""

import hashlib
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from experiments.checkpoints import saved_epochs
from experiments.files import BLOCKS, SCHEMA, read_json, write_json
from experiments.run import Kept, Run
from experiments.settings import Variant
from linear_cifar.config import Config, check
from linear_cifar.dataset import Dataset
from linear_cifar.evaluation import Metrics
from linear_cifar.layout import shape
from linear_cifar.sweep import Record

T = TypeVar("T")

BLOCK = "block.json"


# Configurations beside which it hardly counts that the images of each seed are shuffled and augmented too.
WIDE = 96


class BlockError(Exception):
    """What a folder holds can't be gone on with; the message is one line for the user."""


# What a finished block keeps beside its results: the state, from which it can go on; or the parameters of the
# best seed of each of its configurations; or those of its best configuration only.
STATE, CONFIGURATIONS, BEST = KEEPS = ("state", "configurations", "best")


class Block(NamedTuple):
    """A part of a variant, and what is kept of it."""

    part: Variant
    keeps: str = STATE


class Held(NamedTuple):
    """What a block on disk says of itself; only `disagreement` tells whether it goes with a run."""

    variant: str
    settings: dict[str, Any]
    configs: list[Config]
    seeds: list[int]
    dataset: str
    fingerprint: str
    environment: dict[str, Any]
    keeps: str
    done: int  # epochs of its newest state, or of what is left of it

    @property
    def size(self) -> tuple[int, int]:
        """How many seeds and configurations there are."""
        return len(self.seeds), len(self.configs)


def folder_of(run: Path, block: Block, fingerprint: str) -> Path:
    """A block's own folder, named by what its states depend on."""
    part, settings = block.part, block.part.settings._asdict()
    return run / BLOCKS / _identity(part.name, settings, part.configs, part.settings.seeds, fingerprint)


def outcome_of(folder: Path) -> Path:
    """In a block's folder, that of what is left of it once it is finished."""
    return folder / "outcome"


def _identity(
    variant: str, settings: Mapping[str, Any], configs: Sequence[Any], seeds: Sequence[int], fingerprint: str
) -> str:
    fixed = {name: settings[name] for name in sorted(settings) if name not in ("seeds", "epochs")}
    content = json.dumps([variant, fixed, configs, seeds, fingerprint])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write(run: Path, block: Block, dataset: Dataset, environment: Mapping[str, Any]) -> Path:
    """Makes the block's folder, and says there what it is, unless it is there."""
    folder = folder_of(run, block, dataset.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "variant": block.part.name,
        "settings": block.part.settings._asdict(),
        "configs": block.part.configs,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "environment": environment,
        "keeps": block.keeps,
    }
    if not (folder / BLOCK).exists():
        write_json(folder / BLOCK, content)
    return folder


def read(run: Path) -> list[Held]:
    """The blocks in a run's folder.

    Raises:
      BlockError: if one is broken or of another version.
    """
    held = [_read(path) for path in sorted((run / BLOCKS).glob(f"*/{BLOCK}"))]
    runs = [(one.variant, seed, config) for one in held for seed in one.seeds for config in one.configs]
    if len(set(runs)) < len(runs):
        raise BlockError(f"{run / BLOCKS} holds the same configuration and seed twice: remove one of the two")
    return held


def _read(path: Path) -> Held:
    try:
        content = read_json(path)
        if content.get("schema") != SCHEMA:
            raise BlockError(
                f"{path} is of schema {content.get('schema')}, this version's is {SCHEMA}: go on with the "
                "version that wrote it, or name another folder"
            )
        settings, configs = dict(content["settings"]), content["configs"]
        held = Held(
            str(content["variant"]),
            settings,
            [_config(values) for values in configs],
            [operator.index(seed) for seed in settings["seeds"]],
            str(content["dataset"]),
            str(content["fingerprint"]),
            dict(content["environment"]),
            KEEPS[KEEPS.index(content.get("keeps", STATE))],  # older versions kept it always
            max(saved_epochs(path.parent) + saved_epochs(outcome_of(path.parent)), default=0),
        )
        own = _identity(held.variant, settings, configs, held.seeds, held.fingerprint)
        if path.parent.name != own or not all(held.size):
            raise ValueError("its folder is another block's")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise BlockError(
            f"{path} can't be read ({error}): remove its folder, and what it holds is trained again"
        ) from None
    return held


def _config(values: Iterable[Any]) -> Config:
    config = Config(*values)
    check(config)
    operator.index(config.batch)
    return config


def disagreement(held: Held, variants: Mapping[str, Variant], dataset: Dataset) -> str | None:
    """What keeps a run of these variants from going on with a block: what the block has, in words, or None.

    More configurations and seeds than the block's agree with it; more epochs too, where the first ones are
    the same whatever follows.
    """
    if held.variant not in variants:
        return f"the variant {held.variant!r}, which this command leaves out"
    variant = variants[held.variant]
    if held.fingerprint != dataset.fingerprint:
        theirs, ours = held.fingerprint[:8], dataset.fingerprint[:8]
        return f"the images of {held.dataset} ({theirs}…), not of {dataset.name} ({ours}…)"
    own = json.loads(json.dumps(variant.settings._asdict()))
    for name in own.keys() | held.settings.keys():
        if name not in ("seeds", "epochs") and own.get(name) != held.settings.get(name):
            return f"{name} {held.settings.get(name)}, not {own.get(name)}"
    parts: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
        (name, [one[i] for one in held.configs], [one[i] for one in variant.configs])
        for i, name in enumerate(Config._fields)
    ]
    parts += [
        ("the configuration", held.configs, variant.configs),
        ("seed", held.seeds, variant.settings.seeds),
    ]
    for name, there, here in parts:
        kept = set(here)
        left_out = [value for value in there if value not in kept]
        if left_out:
            return f"{name} {left_out[0]}, which this command leaves out"
    wanted, asked = variant.settings.epochs, held.settings.get("epochs")
    if held.keeps == BEST and len(variant.settings.seeds) > len(held.seeds):
        return f"{len(held.seeds)} seeds, not {len(variant.settings.seeds)} (it keeps the best weights only)"
    if variant.settings.open_ended and held.keeps == STATE:
        return f"epochs {held.done}, not {wanted}" if wanted < held.done else None
    return f"epochs {asked}, not {wanted}" if wanted != asked else None


def plan(
    variant: Variant, held: Iterable[Held], at_most: int, processes: int = 1, keep_states: bool = True
) -> list[Block]:
    """The blocks of a variant: those on disk, which agree with it, and new ones of what they lack.

    Args:
      variant: what is to be trained.
      held: what is on disk.
      at_most: runs in a new block.
      processes: among how many the new ones can be divided evenly.
      keep_states: whether finished ones can be gone on with.
    """
    blocks = [
        Block(_part(variant, one.seeds, one.configs), one.keeps)
        for one in held
        if one.variant == variant.name
    ]
    there = {
        (seed, config) for one in blocks for seed in one.part.settings.seeds for config in one.part.configs
    }
    lacking: dict[tuple[Config, ...], list[int]] = {}
    for seed in variant.settings.seeds:
        configs = tuple(config for config in variant.configs if (seed, config) not in there)
        if configs:
            lacking.setdefault(configs, []).append(seed)
    for configs, seeds in lacking.items():
        rows, columns = shape(len(seeds), len(configs), processes)
        for share in itertools.product(_even(seeds, rows), _even(configs, columns)):
            for its_seeds, its_configs in _cut(*share, at_most):
                alone = len(its_seeds) == len(variant.settings.seeds)
                keeps = STATE if keep_states else BEST if alone else CONFIGURATIONS
                blocks.append(Block(_part(variant, its_seeds, its_configs), keeps))
    return blocks


def _cut(
    seeds: Sequence[int], configs: Sequence[Config], at_most: int
) -> Iterable[tuple[Sequence[int], Sequence[Config]]]:
    """Blocks of at most so many runs.

    They have all these seeds, as a finished block then knows its best configuration; but no fewer than `WIDE`
    configurations where there are so many, since those of a seed share its images.
    """
    width = min(at_most, max(WIDE, at_most // len(seeds)))
    groups = _even(configs, -(-len(configs) // width))
    height = max(1, at_most // max(map(len, groups)))
    return itertools.product(_even(seeds, -(-len(seeds) // height)), groups)


def _even(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """The items in so many parts, about as many in each."""
    ends = [len(items) * i // parts for i in range(parts + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def are_whole(variant: Variant, parts: Sequence[Run]) -> bool:
    """Whether the blocks are all of the variant, each trained to its end."""
    return sum(part.variant.runs for part in parts) == variant.runs and all(part.complete for part in parts)


def join(variant: Variant, parts: Sequence[Run]) -> Run:
    """The run of a variant from those of its blocks."""
    seeds = {seed: i for i, seed in enumerate(variant.settings.seeds)}
    configs = {config: i for i, config in enumerate(variant.configs)}
    places = [
        np.ix_([seeds[seed] for seed in part.settings.seeds], [configs[config] for config in part.configs])
        for part in parts
    ]

    def merge(trees: list[Any], leading: int) -> Any:
        """Trees whose leaves have so many axes before those of seeds and configurations."""

        def fill(*leaves: np.ndarray) -> np.ndarray:
            before, after = leaves[0].shape[:leading], leaves[0].shape[leading + 2 :]
            whole = np.empty((*before, len(seeds), len(configs), *after), leaves[0].dtype)
            for place, leaf in zip(places, leaves, strict=True):
                whole[(slice(None),) * leading + place] = leaf
            return whole

        return jax.tree.map(fill, *trees)

    history: Record = merge([part.history for part in parts], 1)
    final: dict[str, Metrics] = merge([part.final for part in parts], 0)
    kept = Kept(
        np.concatenate(
            [place[0].ravel()[part.kept.seeds] for place, part in zip(places, parts, strict=True)]
        ),
        np.concatenate(
            [place[1].ravel()[part.kept.configs] for place, part in zip(places, parts, strict=True)]
        ),
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part.kept.params for part in parts)),
    )
    return Run(variant, parts[0].dataset, history, final, kept, parts[0].standardizer)


def _part(variant: Variant, seeds: Iterable[int], configs: Iterable[Config]) -> Variant:
    return variant._replace(settings=variant.settings._replace(seeds=tuple(seeds)), configs=tuple(configs))
