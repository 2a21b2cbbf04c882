"""What a result says of itself: data, versions, devices, precision, seed and the command."""

import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from experiments.files import SCHEMA
from experiments.settings import Variant
from linear_cifar.dataset import Dataset
from linear_cifar.layout import shape

PACKAGES = ("jax", "jaxlib", "optax", "orbax-checkpoint", "numpy", "matplotlib", "tensorflow-datasets")


def command(experiment: str) -> str:
    """The command line that started this run, as a user would type it."""
    return shlex.join(["python", "-m", f"experiments.{experiment}", *sys.argv[1:]])


def command_to_go_on(experiment: str, out: Path) -> str:
    """The one that goes on with the run in that folder."""
    given = any(word.lstrip("-").partition("=")[0] == "out" for word in sys.argv[1:])
    return command(experiment) + ("" if given else f" --out={shlex.quote(str(out))}")


def describe(
    experiment: str,
    flags: dict[str, Any],
    variants: Sequence[tuple[Variant, Dataset]],
    environment: dict[str, Any],
    complete: bool,
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "complete": complete,
        "command": command(experiment),
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": flags,
        "dataset": describe_dataset(variants[0][1]),
        "variants": {variant.name: describe_variant(variant, dataset) for variant, dataset in variants},
    } | environment


def describe_variant(variant: Variant, dataset: Dataset) -> dict[str, Any]:
    """What its runs share."""
    images = {f"{split}_images": len(getattr(dataset, split).labels) for split in ("train", "val", "test")}
    return {"configurations": len(variant.configs), **variant.settings._asdict(), **images}


def describe_environment() -> dict[str, Any]:
    """What is run on, and with."""
    return {
        "git": _git(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def describe_use(sizes: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Of the devices, the most that one after the other of so many (seeds, configurations) uses."""
    return {"devices": max((describe_devices(*size) for size in sizes), key=len)}


def describe_devices(seeds: int, configs: int) -> list[str]:
    """Those among which so many seeds × configurations are divided: they need not be all that there are."""
    local = jax.local_devices()
    used = math.prod(shape(seeds, configs, len(local)))
    return [f"{device.platform}: {device.device_kind}" for device in local[:used]]


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Which data."""
    return {
        "name": dataset.name,
        "origin": dataset.origin,
        "published": dataset.published,
        "fingerprint": dataset.fingerprint,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The revision of the code, and whether it was changed since; None outside a checkout."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"revision": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
