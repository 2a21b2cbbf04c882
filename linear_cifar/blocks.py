"""Blocks of a sweep: runs that train together, each with a folder and checkpoints of its own.

A block is some of the configurations and replicates of a sweep. Its folder is named by the hash of its
identity and holds block.json beside its checkpoints. A sweep that is extended adds blocks to those it has.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from linear_cifar.arguments import one_line
from linear_cifar.checkpoints import RESULT, STATE, epochs_on_disk
from linear_cifar.config import Config
from linear_cifar.folders import FolderError, read_json, write_json
from linear_cifar.halving import Halving, split_brackets
from linear_cifar.identity import Identity, parse_identity
from linear_cifar.layout import count_devices
from linear_cifar.replicates import Replicate, ReplicateId
from linear_cifar.result import ALL, BEST, KEEP, PER_CONFIG, Result
from linear_cifar.standardizer import Standardizer

T = TypeVar("T")

MANIFEST, SWEEP = "block.json", "sweep.json"
# With this many configurations it hardly counts that the examples of each replicate are shuffled too.
WIDE = 96
# Packages whose version may change the last digits of a result.
NUMERICS = ("jax", "jaxlib", "optax", "numpy")


class Block(NamedTuple):
    """Runs that train together: what they are, their replicates with rows, and the weights that are kept."""

    identity: Identity
    replicates: tuple[Replicate, ...]
    keep: str = ALL
    standardizer: Standardizer | None = None  # of the raw features, which the result holds


class SavedBlock(NamedTuple):
    """The content of block.json, and the epoch of the block's newest checkpoint."""

    identity: Identity
    keep: str
    environment: dict[str, Any]  # versions and devices with which it was begun
    epochs: int
    extendable: bool  # whether its newest state is there


def block_folder(folder: Path, identity: Identity) -> Path:
    """Return a block's folder within that of its sweep."""
    return folder / identity.hash()


def write_block(folder: Path, block: Block, devices: Sequence[str]) -> None:
    """Make the folder of a block that is trained on these devices, with its block.json, unless it exists."""
    path = block_folder(folder, block.identity)
    path.mkdir(parents=True, exist_ok=True)
    if not (path / MANIFEST).exists():
        environment = describe_numerics(block.identity, devices)
        content = {"identity": block.identity.to_json(), "keep": block.keep, "environment": environment}
        write_json(path / MANIFEST, content)


def write_sweep(folder: Path, whole: Identity) -> None:
    """Write the identity of a sweep to its folder, unless it is there already."""
    content = {"identity": whole.to_json()}
    with suppress(OSError, ValueError):
        if read_json(folder / SWEEP) == content:
            return
    write_json(folder / SWEEP, content)


def read_blocks(folder: Path) -> list[SavedBlock]:
    """Read the block.json of all blocks in a folder that have a checkpoint.

    Raises:
      FolderError: if one is broken, or two have a run in common.
    """
    paths = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}")) if any(path.parent.rglob("*.npz"))]
    blocks = [_read_block(folder, path) for path in paths]
    runs = [
        run
        for block in blocks
        for run in itertools.product(block.identity.replicates, block.identity.configs)
    ]
    if len(set(runs)) < len(runs):
        raise FolderError(folder, "holds the same configuration and seed twice: remove one of the two blocks")
    return blocks


def _read_block(folder: Path, path: Path) -> SavedBlock:
    try:
        content = read_json(path / MANIFEST)
        identity = parse_identity(content["identity"])
        if path.name != identity.hash():
            raise ValueError("its folder belongs to another block")
        states, results = (epochs_on_disk(path, kind) for kind in (STATE, RESULT))
        epochs = max((*states, *results), default=0)
        keep, environment = KEEP[KEEP.index(content["keep"])], dict(content["environment"])
        return SavedBlock(identity, keep, environment, epochs, epochs in states)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise FolderError(
            folder,
            f"holds a block that cannot be resumed, {path.name}/{MANIFEST} ({error}): remove the block's "
            "folder to train its runs again, or choose another folder",
        ) from None


def load_result(folder: str | Path, weights: bool = True) -> Result:
    """Read the result of a sweep from the folder that `fit` has written to.

    Args:
      folder: the sweep's folder.
      weights: whether to read the weights, which take most of the memory.

    Raises:
      ValueError: if a file is damaged or holds something else; the message names the folder or the file.
      OSError: if a file cannot be read.
    """
    folder = Path(folder)
    try:
        whole = parse_identity(read_json(folder / SWEEP)["identity"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder / SWEEP} cannot be read: {one_line(error)}") from None
    paths = sorted(folder.glob(f"*/{RESULT}-{len(whole.epochs)}.npz"))
    parts = [part for part in (Result.load(path, weights) for path in paths) if _share_runs(part, whole)]
    if not parts:
        raise ValueError(f"{folder} holds no finished block")
    return Result.join(parts, whole)


def _share_runs(part: Result, whole: Identity) -> bool:
    """Tell whether a block has runs of a sweep; it may be of configurations that the sweep leaves out."""
    return (
        not {*part.configs}.isdisjoint(whole.configs) and part.identity.difference(whole, subset=True) is None
    )


def find_difference(
    saved: SavedBlock,
    whole: Identity,
    halving: Halving | None = None,
    subset: bool = False,
    keep: str | None = None,
) -> str | None:
    """Say in words what a block on disk has that a sweep does not have; None if the sweep can use it.

    The sweep may have more configurations and seeds than the block, but with halving only more brackets. It
    may have more epochs where the first ones do not depend on their number and the block's state is there.

    Args:
      saved: the block.
      whole: identity of the sweep.
      halving: how the sweep stops runs.
      subset: whether the block may have configurations that the sweep does not have.
      keep: weights that the sweep asks for; None: as many as are kept.
    """
    identity, epochs = saved.identity, len(whole.epochs)
    begun = identity._replace(epochs=identity.epochs[: saved.epochs])
    if halving is not None and (identity.settings, identity.data) == (whole.settings, whole.data):
        if {*identity.replicates} != {*whole.replicates}:
            return f"seeds {','.join(map(str, identity.seeds))}, by which halving has chosen"
        brackets = [{*bracket} for bracket in split_brackets(whole.configs, halving.bracket)]
        if {*identity.configs} <= {*whole.configs} and {*identity.configs} not in brackets:
            return f"a bracket of {len(identity.configs)} points, which halving cannot extend"
    difference = begun.difference(whole, subset)
    if difference is not None:
        return difference
    if 0 < saved.epochs < epochs and not saved.extendable:
        return f"epochs {saved.epochs}, not {epochs}"
    if keep is not None and KEEP.index(keep) < KEEP.index(saved.keep):
        return f"the weights {saved.keep!r} only, not {keep!r}"
    if saved.keep == BEST and len(whole.replicates) > len(identity.replicates):
        return f"seeds {','.join(map(str, identity.seeds))} only (it keeps the best weights only)"
    return None


def plan_blocks(
    whole: Identity,
    saved: Sequence[SavedBlock],
    at_once: Callable[[], int],
    halving: Halving | None = None,
    keep: str = ALL,
) -> Iterator[tuple[Identity, str]]:
    """Yield the identity of each block of a sweep, and which weights it keeps.

    Blocks on disk come first, then new ones of the runs that are missing. With halving, a block is a bracket,
    however many runs that is.

    Args:
      whole: identity of the sweep.
      saved: blocks on disk that the sweep can use; they may have further configurations.
      at_once: returns the largest number of runs in a new block; asked only where there is one.
      halving: how the sweep stops runs.
      keep: which weights the sweep keeps.
    """
    wanted, trained = {*whole.configs}, set()
    for block in saved:
        if not wanted.isdisjoint(block.identity.configs):
            yield block.identity._replace(epochs=whole.epochs), block.keep
            trained |= {*itertools.product(block.identity.replicates, block.identity.configs)}
    missing: dict[tuple[Config, ...], list[ReplicateId]] = {}
    for replicate in whole.replicates:
        configs = tuple(config for config in whole.configs if (replicate, config) not in trained)
        if configs:
            missing.setdefault(configs, []).append(replicate)
    for configs, replicates in missing.items():
        if halving is not None:
            # The configurations of a batch size are neighbours, so that all brackets have the same layout.
            # Blocks on disk are whole brackets, so the missing configurations are whole ones too.
            brackets = split_brackets(configs, halving.bracket)
            parts: Sequence[Any] = [
                (replicates, sorted(part, key=lambda config: config.batch)) for part in brackets
            ]
        else:
            parts = split_runs(replicates, configs, at_once())
        for rows, columns in parts:
            has_all = len(rows) == len(whole.replicates)
            kept = keep if has_all or keep != BEST else PER_CONFIG
            yield whole._replace(configs=tuple(columns), replicates=tuple(rows)), kept


def split_runs(
    replicates: Sequence[Any], configs: Sequence[Any], max_runs: int
) -> list[tuple[Sequence[Any], Sequence[Any]]]:
    """Divide replicates × configurations into parts that train one after another.

    A part has all replicates where possible, as a finished block then knows its best configuration. It has no
    fewer than `WIDE` configurations where there are as many, since those of a replicate share its examples.

    Args:
      replicates, configs: these, or their indices.
      max_runs: largest number of runs in a part, at least 1.

    Returns:
      Replicates and configurations of each part.
    """
    width = min(max_runs, max(WIDE, max_runs // len(replicates)))
    groups = _split_evenly(configs, -(-len(configs) // width))
    height = max(1, max_runs // max(map(len, groups)))
    return list(itertools.product(_split_evenly(replicates, -(-len(replicates) // height)), groups))


def _split_evenly(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Split the items into parts of about equal length, in order."""
    ends = [len(items) * i // parts for i in range(parts + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def describe_devices(devices: Sequence[jax.Device]) -> list[str]:
    """Return the platform and kind of each device."""
    return [f"{device.platform}: {device.device_kind}" for device in devices]


def describe_numerics(identity: Identity, devices: Sequence[str]) -> dict[str, Any]:
    """Return the versions and devices that may change the last digits of a block."""
    return {
        "versions": {name: version(name) for name in NUMERICS},
        "devices": [*devices[: count_devices(*identity.size, len(devices))]],
    }
