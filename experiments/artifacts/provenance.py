"""The origin of a result: data, versions, devices, precision, seeds and the command."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from experiments.runner.folder import SCHEMA
from experiments.runner.stages import Sweep
from linear_cifar.data.dataset import Dataset
from linear_cifar.data.prepare import Data
from linear_cifar.layout import count_devices
from linear_cifar.result import Result

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "matplotlib", "tensorflow-datasets")


def command_line(experiment: str) -> str:
    """Return the command that started this experiment, as a user would type it."""
    return shlex.join(["python", "-m", f"experiments.{experiment}", *sys.argv[1:]])


def resume_command(experiment: str, out: Path) -> str:
    """Return the command that resumes the experiment in the folder `out`."""
    names_out = any(word.lstrip("-").partition("=")[0] == "out" for word in sys.argv[1:])
    return command_line(experiment) + ("" if names_out else f" --out={shlex.quote(str(out))}")


def describe_experiment(
    experiment: str,
    flags: Mapping[str, Any],
    sweeps: Sequence[Sweep],
    data: Mapping[str, Data],
    results: Mapping[str, Result],
    complete: bool,
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
      experiment: name of the experiment's module.
      flags: values of all flags.
      sweeps: sweeps of the experiment, at least one.
      data: their data by the name of the sweep.
      results: results by the name of the sweep, of those that are trained.
      complete: whether all sweeps are trained to their end.
    """
    sizes = [(len(data[sweep.name].replicates(sweep.seeds)), len(sweep.configs)) for sweep in sweeps]
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "complete": complete,
        "command": command_line(experiment),
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": dict(flags),
        "dataset": describe_dataset(data[sweeps[0].name].dataset),
        "sweeps": {
            sweep.name: describe_sweep(sweep, data[sweep.name], results.get(sweep.name)) for sweep in sweeps
        },
        **describe_environment(),
        **describe_use(sizes),
    }


def describe_sweep(sweep: Sweep, data: Data, result: Result | None) -> dict[str, Any]:
    """Return what all runs of a sweep share, its seeds, and the hash of its identity once it is trained.

    The numbers of examples are those of a run.
    """
    sizes = {f"{name}_examples": data.size(name) for name in data.sets}
    content = {
        "configurations": len(sweep.configs),
        "seeds": sweep.seeds,
        **sweep.settings.describe(),
        **sizes,
        "dataset": describe_dataset(data.dataset),
    }
    return content if result is None else content | {"identity": result.identity.hash()}


@cache
def describe_environment() -> dict[str, Any]:
    """Return the versions of the code and its packages, and the kind of machine."""
    return {
        "git": _describe_git(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
    }


def describe_use(sizes: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Return the devices of the sweep that uses the most, given each one's replicates and configurations."""
    local = jax.local_devices()
    used = max(count_devices(*size, len(local)) for size in sizes)
    return {"devices": [f"{device.platform}: {device.device_kind}" for device in local[:used]]}


def describe_workers(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the workers of a cluster, and their devices in place of this machine's."""
    devices = {device for worker in workers for device in worker["devices"]}
    return {"workers": [*workers], "devices": sorted(devices)}


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
