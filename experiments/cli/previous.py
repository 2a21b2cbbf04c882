"""Earlier runs in a run's folder: reading them, and refusing those that a command cannot resume."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.artifacts.reader import ReadError, RunResult
from experiments.runner.blocks import BlockManifest, find_incompatibility, read_manifests
from experiments.runner.errors import FolderError
from experiments.runner.files import BEST, BLOCKS, CONFIG, CORRECT, HISTORY, RESULTS, TABLES
from experiments.runner.sweeps import Sweep
from linear_cifar.data.dataset import Dataset

# Flags that decide nothing that is measured.
NEUTRAL_FLAGS = ("out", "save_every", "data_dir", "dataset", "data", "block_runs")


def read_previous_run(folder: Path, experiment: str) -> RunResult | None:
    """Return the run that the folder holds; None if there is none.

    Raises:
      FolderError: if the folder holds another experiment's run, another version's, or files of none.
    """
    if not (folder / CONFIG).exists():
        if not (folder / BLOCKS).exists() and any(
            (folder / name).exists() for name in (RESULTS, HISTORY, BEST)
        ):
            raise FolderError(folder, "holds another run's files: choose another folder, or remove them")
        return None
    try:
        previous = RunResult(folder)
    except ReadError as error:
        raise FolderError(
            folder,
            f"holds a run that cannot be resumed: {error}; choose another folder, or remove {CONFIG} if "
            f"{BLOCKS} is of this version",
        ) from None
    if previous.experiment != experiment:
        raise FolderError(folder, f"holds a run of {previous.experiment}: choose another folder")
    return previous


def read_usable_manifests(
    folder: Path,
    sweeps: Iterable[Sweep],
    later_names: Sequence[str],
    dataset: Dataset,
    configs_follow: bool = False,
) -> list[BlockManifest]:
    """Return the manifests of the blocks in the folder, all of which a run of these sweeps can use.

    Args:
      folder: the run's folder.
      sweeps: sweeps that the run trains now.
      later_names: names of sweeps that later stages may train, whose blocks are not checked yet.
      dataset: the run's data.
      configs_follow: whether the sweeps' configurations follow from earlier results, so that the folder may
        hold runs of others.

    Raises:
      FolderError: if a block cannot be used.
      BlockError: if a block is broken or of another version.
    """
    by_name = {sweep.name: sweep for sweep in sweeps}
    manifests = read_manifests(folder)
    for manifest in manifests:
        if manifest.sweep in later_names and manifest.sweep not in by_name:
            continue
        difference = find_incompatibility(manifest, by_name, dataset, configs_follow)
        if difference:
            raise FolderError(
                folder, f"holds runs with {difference}: give the same, or choose another folder"
            )
    return manifests


def check_finished_run(previous: RunResult | None, manifests: Sequence[BlockManifest], same: bool) -> None:
    """Raise FolderError if the folder holds a finished run of other settings that has no blocks."""
    if previous and previous.complete and not manifests and not same:
        raise FolderError(
            previous.folder,
            "holds a finished run with other settings, whose states are gone: choose another folder",
        )


def is_same_run(previous: RunResult, description: Mapping[str, Any]) -> bool:
    """Tell whether a run had the same settings, images and sweeps as one of this description."""
    # As JSON gives it back.
    config = json.loads(json.dumps(description))

    def deciding(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        flags = {name: value for name, value in config["settings"].items() if name not in NEUTRAL_FLAGS}
        return flags, config["dataset"]["fingerprint"]

    return (
        deciding(previous.config) == deciding(config) and config["sweeps"].items() <= previous.sweeps.items()
    )


def has_all_files(folder: Path) -> bool:
    """Tell whether the files that every finished run writes are there."""
    return all((folder / name).exists() for name in (RESULTS, HISTORY, CORRECT, TABLES))
