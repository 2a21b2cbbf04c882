"""The blocks of a run: runs that train together, with checkpoints of their own.

A block is some of the configurations and replicates of a sweep. It has a folder in the run's folder, which
holds block.json, its manifest, and its checkpoints. A run that is extended adds blocks to those it has.
"""

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.runner.checkpoints import epochs_on_disk
from experiments.runner.data import ReplicateName
from experiments.runner.errors import BlockError
from experiments.runner.files import BLOCKS, SCHEMA, read_json, write_json
from experiments.runner.sweeps import Sweep, SweepResult
from linear_cifar.config import Config, check_config
from linear_cifar.data.dataset import Dataset
from linear_cifar.fitting import SavedParams
from linear_cifar.halving import split_brackets
from linear_cifar.planning import join_blocks, plan_blocks

MANIFEST = "block.json"

# The weights that a finished block keeps: of all its runs, from which it can be extended; of the best
# replicate of each configuration; or of the best configuration only.
ALL, CONFIGURATIONS, BEST = RETENTIONS = ("all", "configurations", "best")


class Block(NamedTuple):
    """A part of a sweep, and the weights that are kept of it."""

    sweep: Sweep
    retention: str = ALL


class BlockManifest(NamedTuple):
    """The content of block.json. Only `find_incompatibility` tells whether a run can use the block."""

    sweep: str
    settings: dict[str, Any]
    configs: list[Config]
    replicates: list[ReplicateName]
    dataset: str
    fingerprint: str
    environment: dict[str, Any]
    retention: str
    epochs_done: int  # of its newest checkpoint

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of replicates and configurations."""
        return len(self.replicates), len(self.configs)


def block_folder(run: Path, sweep: Sweep, fingerprint: str) -> Path:
    """Return a block's folder, which is named by a hash of all that its checkpoints depend on."""
    return run / BLOCKS / hash_sweep(sweep, fingerprint)


def hash_sweep(sweep: Sweep, fingerprint: str) -> str:
    """Return a hash of all that the checkpoints of a sweep on these data depend on."""
    settings = sweep.settings._asdict()
    return _hash(sweep.name, settings, sweep.configs, sweep.replicates, fingerprint)


def _hash(
    sweep: str,
    settings: Mapping[str, Any],
    configs: Sequence[Any],
    replicates: Sequence[ReplicateName],
    fingerprint: str,
) -> str:
    fixed = {name: settings[name] for name in sorted(settings) if name != "epochs"}
    content = json.dumps([sweep, fixed, configs, replicates, fingerprint])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write_manifest(run: Path, block: Block, dataset: Dataset, environment: Mapping[str, Any]) -> Path:
    """Make the block's folder with its manifest, unless it exists, and return it."""
    folder = block_folder(run, block.sweep, dataset.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "sweep": block.sweep.name,
        "settings": block.sweep.settings._asdict(),
        "configs": block.sweep.configs,
        "replicates": block.sweep.replicates,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "environment": environment,
        "retention": block.retention,
    }
    if not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, content)
    return folder


def read_manifests(run: Path) -> list[BlockManifest]:
    """Read the manifests of all blocks in a run's folder.

    Raises:
      BlockError: if one is broken or of another version.
    """
    manifests = [read_manifest(path.parent) for path in sorted((run / BLOCKS).glob(f"*/{MANIFEST}"))]
    runs = [
        (manifest.sweep, replicate, config)
        for manifest in manifests
        for replicate in manifest.replicates
        for config in manifest.configs
    ]
    if len(set(runs)) < len(runs):
        raise BlockError(f"{run / BLOCKS} holds the same configuration and seed twice: remove one of the two")
    return manifests


def read_manifest(folder: Path) -> BlockManifest:
    """Read a block's manifest.

    Raises:
      BlockError: if it is broken or of another version.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path)
        if content.get("schema") != SCHEMA:
            raise BlockError(
                f"{path} has schema {content.get('schema')}, this version writes {SCHEMA}: resume with the "
                "version that wrote it, or choose another folder"
            )
        settings, configs = dict(content["settings"]), content["configs"]
        manifest = BlockManifest(
            str(content["sweep"]),
            settings,
            [_parse_config(values) for values in configs],
            [_parse_replicate(values) for values in content["replicates"]],
            str(content["dataset"]),
            str(content["fingerprint"]),
            dict(content["environment"]),
            RETENTIONS[RETENTIONS.index(content["retention"])],
            max(epochs_on_disk(folder), default=0),
        )
        name = _hash(manifest.sweep, settings, configs, manifest.replicates, manifest.fingerprint)
        if folder.name != name or not all(manifest.size):
            raise ValueError("its folder belongs to another block")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise BlockError(
            f"{path} cannot be read ({error}): remove its folder, and its runs are trained again"
        ) from None
    return manifest


def _parse_config(values: Iterable[Any]) -> Config:
    config = Config(*values)
    check_config(config)
    operator.index(config.batch)
    return config


def _parse_replicate(values: Iterable[Any]) -> ReplicateName:
    seed, fold = values
    return ReplicateName(operator.index(seed), None if fold is None else operator.index(fold))


def find_incompatibility(
    manifest: BlockManifest, sweeps: Mapping[str, Sweep], dataset: Dataset, configs_follow: bool = False
) -> str | None:
    """Say in words what the block has that a run of these sweeps does not; None if the run can use the block.

    The run may have more configurations and seeds than the block, but with halving only more brackets. It may
    have more epochs where the first ones do not depend on their number. It may leave out configurations of
    the block where they follow from the results of earlier sweeps (`configs_follow`), which more seeds may
    change.
    """
    if manifest.sweep not in sweeps:
        return f"the sweep {manifest.sweep!r}, which this command leaves out"
    sweep = sweeps[manifest.sweep]
    if manifest.fingerprint != dataset.fingerprint:
        theirs, ours = manifest.fingerprint[:8], dataset.fingerprint[:8]
        return f"the data of {manifest.dataset} ({theirs}…), not of {dataset.name} ({ours}…)"
    settings = json.loads(json.dumps(sweep.settings._asdict()))
    # Rungs may follow from the number of epochs, so that is told first.
    ignored = () if sweep.settings.halving else ("epochs",)
    for name in sorted(
        settings.keys() | manifest.settings.keys(), key=lambda name: (name != "halving", name)
    ):
        if name not in ignored and settings.get(name) != manifest.settings.get(name):
            return f"{name} {manifest.settings.get(name)}, not {settings.get(name)}"
    if sweep.settings.halving:
        if set(manifest.replicates) != set(sweep.replicates):
            return f"seeds {_describe_seeds(manifest.replicates)}, by which halving has chosen"
        brackets = split_brackets(sweep.configs, sweep.settings.bracket)
        if {*manifest.configs} <= {*sweep.configs} and tuple(manifest.configs) not in map(tuple, brackets):
            return f"a bracket of {len(manifest.configs)} points, which halving cannot extend"
    axes: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
        (name, [config[i] for config in manifest.configs], [config[i] for config in sweep.configs])
        for i, name in enumerate(Config._fields)
    ]
    axes.append(("the configuration", manifest.configs, sweep.configs))
    seeds = ("seed", [replicate.seed for replicate in manifest.replicates], sweep.seeds)
    for name, on_disk, wanted in [seeds] if configs_follow else [*axes, seeds]:
        kept = set(wanted)
        left_out = [value for value in on_disk if value not in kept]
        if left_out:
            return f"{name} {left_out[0]}, which this command leaves out"
    wanted_epochs, epochs = sweep.settings.epochs, manifest.settings.get("epochs")
    if manifest.retention == BEST and len(sweep.replicates) > len(manifest.replicates):
        num_seeds = len({replicate.seed for replicate in manifest.replicates})
        return f"{num_seeds} seeds, not {len(sweep.seeds)} (it keeps the best weights only)"
    if sweep.settings.extendable and manifest.retention == ALL:
        return (
            f"epochs {manifest.epochs_done}, not {wanted_epochs}"
            if wanted_epochs < manifest.epochs_done
            else None
        )
    return f"epochs {epochs}, not {wanted_epochs}" if wanted_epochs != epochs else None


def plan_sweep(
    sweep: Sweep,
    manifests: Iterable[BlockManifest],
    max_runs: int,
    keep_all: bool = True,
) -> list[Block]:
    """Return the blocks of a sweep: those on disk, which it can use, and new ones of what is missing.

    A block on disk may hold more configurations than the sweep, see `find_incompatibility`. With halving, a
    block is a bracket, however many runs that is.

    Args:
      sweep: sweep to train.
      manifests: blocks on disk.
      max_runs: largest number of runs in a new block.
      keep_all: whether a finished block keeps the weights of all its runs.
    """
    blocks = [
        Block(_take_part(sweep, manifest.replicates, manifest.configs), manifest.retention)
        for manifest in manifests
        if manifest.sweep == sweep.name and not set(sweep.configs).isdisjoint(manifest.configs)
    ]
    on_disk = {
        (replicate, config)
        for block in blocks
        for replicate in block.sweep.replicates
        for config in block.sweep.configs
    }
    missing: dict[tuple[Config, ...], list[ReplicateName]] = {}
    for replicate in sweep.replicates:
        configs = tuple(config for config in sweep.configs if (replicate, config) not in on_disk)
        if configs:
            missing.setdefault(configs, []).append(replicate)
    for configs, replicates in missing.items():
        planned: Sequence[tuple[Sequence[ReplicateName], Sequence[Config]]]
        if sweep.settings.halving:
            # The blocks on disk are whole brackets, so the missing configurations are whole ones too.
            planned = [(replicates, part) for part in split_brackets(configs, sweep.settings.bracket)]
        else:
            planned = plan_blocks(replicates, configs, max_runs)
        for block_replicates, block_configs in planned:
            has_all = len(block_replicates) == len(sweep.replicates)
            # Without validation, results of other sweeps decide which configuration is the best.
            knows_best = has_all and sweep.settings.validates
            retention = ALL if keep_all else BEST if knows_best else CONFIGURATIONS
            blocks.append(Block(_take_part(sweep, block_replicates, block_configs), retention))
    return blocks


def _describe_seeds(replicates: Sequence[ReplicateName]) -> str:
    """Return the seeds of replicates, with the number of folds if there are any."""
    seeds = ",".join(map(str, dict.fromkeys(replicate.seed for replicate in replicates)))
    folds = len({replicate.fold for replicate in replicates} - {None})
    return seeds + f" x {folds} folds" * (folds > 0)


def is_complete(sweep: Sweep, parts: Sequence[SweepResult]) -> bool:
    """Tell whether the blocks are all of the sweep, each trained to its end."""
    return sum(part.sweep.num_runs for part in parts) == sweep.num_runs and all(
        part.complete for part in parts
    )


def take_wanted(sweep: Sweep, part: SweepResult) -> SweepResult:
    """Return a block's results without the configurations that the sweep does not have."""
    wanted_configs = set(sweep.configs)
    wanted = [c for c, config in enumerate(part.configs) if config in wanted_configs]
    return part if len(wanted) == len(part.configs) else part.take(wanted)


def join_results(sweep: Sweep, parts: Sequence[SweepResult]) -> SweepResult:
    """Join the results of a sweep's blocks."""
    replicates = {replicate: i for i, replicate in enumerate(sweep.replicates)}
    configs = {config: i for i, config in enumerate(sweep.configs)}
    places = [
        (
            [replicates[replicate] for replicate in part.sweep.replicates],
            [configs[config] for config in part.configs],
        )
        for part in parts
    ]
    saved = [
        SavedParams(
            np.asarray(rows)[part.saved.replicates],
            np.asarray(columns)[part.saved.configs],
            part.saved.params,
        )
        for (rows, columns), part in zip(places, parts, strict=True)
    ]
    return SweepResult(
        sweep,
        parts[0].data,
        join_blocks(sweep.size, places, [part.history for part in parts], leading=1),
        join_blocks(sweep.size, places, [part.final for part in parts]),
        join_blocks(sweep.size, places, [part.class_accuracy for part in parts]),
        join_blocks(sweep.size, places, [part.correct for part in parts]),
        join_blocks(sweep.size, places, [part.stopped for part in parts]),
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *saved),
    )


def _take_part(sweep: Sweep, replicates: Iterable[ReplicateName], configs: Iterable[Config]) -> Sweep:
    return sweep._replace(replicates=tuple(replicates), configs=tuple(configs))
