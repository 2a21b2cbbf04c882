"""The origin of a result: data, versions, devices, precision, seeds and the command."""

import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from experiments.runner.data import PreparedData
from experiments.runner.files import SCHEMA
from experiments.runner.sweeps import Sweep
from linear_cifar.data.dataset import Dataset
from linear_cifar.layout import mesh_shape

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "matplotlib", "tensorflow-datasets")
# Packages whose version may change the last digits of a result.
NUMERICS = ("jax", "jaxlib", "optax", "numpy")


def command_line(experiment: str) -> str:
    """Return the command that started this run, as a user would type it."""
    return shlex.join(["python", "-m", f"experiments.{experiment}", *sys.argv[1:]])


def resume_command(experiment: str, out: Path) -> str:
    """Return the command that resumes the run in the folder `out`."""
    names_out = any(word.lstrip("-").partition("=")[0] == "out" for word in sys.argv[1:])
    return command_line(experiment) + ("" if names_out else f" --out={shlex.quote(str(out))}")


def describe_run(
    experiment: str,
    flags: Mapping[str, Any],
    sweeps: Sequence[tuple[Sweep, PreparedData]],
    environment: Mapping[str, Any],
    complete: bool,
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
      experiment: name of the experiment's module.
      flags: values of all flags.
      sweeps: sweeps of the run and their prepared data, at least one.
      environment: see `describe_environment`.
      complete: whether all runs are trained to their end.
    """
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "complete": complete,
        "command": command_line(experiment),
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": dict(flags),
        "dataset": describe_dataset(sweeps[0][1].dataset),
        "sweeps": {sweep.name: describe_sweep(sweep, data) for sweep, data in sweeps},
        **environment,
    }


def describe_sweep(sweep: Sweep, data: PreparedData) -> dict[str, Any]:
    """Return what all runs of a sweep share, and its seeds; the numbers of examples are those of a run."""
    sizes = {f"{name}_examples": data.size(name) for name in data.splits}
    return {"configurations": len(sweep.configs), "seeds": sweep.seeds, **sweep.settings._asdict(), **sizes}


def describe_environment() -> dict[str, Any]:
    """Return the versions of the code and its packages, and the kind of machine."""
    return {
        "git": _describe_git(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def describe_use(sizes: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Return the devices of the block that uses the most, from the size of each (`Sweep.size`)."""
    return {"devices": max((describe_devices(*size) for size in sizes), key=len)}


def describe_devices(replicates: int, configs: int) -> list[str]:
    """Name the devices that train a block of this size, which may be fewer than there are."""
    local = jax.local_devices()
    used = math.prod(mesh_shape(replicates, configs, len(local)))
    return [f"{device.platform}: {device.device_kind}" for device in local[:used]]


def numerics_environment(environment: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return the part of the environment that may change the last digits of a block of this size."""
    versions = {name: environment["versions"][name] for name in NUMERICS}
    return {"versions": versions, "devices": describe_devices(*size)}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return which data set it is, where it was found, and its fingerprint."""
    return {
        "name": dataset.name,
        "origin": dataset.origin,
        "verified": dataset.verified,
        "fingerprint": dataset.fingerprint,
        "user_file": dataset.user_file,
        "image_shape": dataset.image_shape,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _describe_git() -> dict[str, Any] | None:
    """Return the revision of the code, and whether it was changed since; None outside a checkout."""
    folder = Path(__file__).parent
    # In a hook or a script, these variables may lead to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def ask_git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # git may name files in any encoding
            env=environment,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {"revision": ask_git("rev-parse", "HEAD"), "modified": bool(ask_git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
