"""The checkpoints of a block on disk; each file is whole or absent, and is checked when it is read.

While a block trains, its folder holds `state-N.npz` of the last two saved epochs N. Once it is finished, the
folder holds `metrics-N.npz`, and the newest state where the block can still be trained for longer.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from experiments.runner.errors import SaveError
from experiments.runner.sweeps import HELD_OUT, Sweep
from linear_cifar.engine import EpochMetrics
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams
from linear_cifar.npz import read_npz, write_npz
from linear_cifar.params import Params
from linear_cifar.snapshots import Snapshot, parse_snapshot, snapshot_arrays, snapshot_description

T = TypeVar("T")

# Share of the time that saving may take by default.
SHARE = 0.02
# Expected cost of the first save, measured on a laptop's disk; later ones cost what the last one took.
SECONDS, BYTES_PER_SECOND = 0.15, 100e6

_FILE = re.compile(r"(state|metrics)-(\d{1,9})\.npz")


class BlockState(NamedTuple):
    """State of a block after an epoch."""

    snapshot: Snapshot
    history: EpochMetrics  # [E, R, C] of the epochs so far, as measured


class BlockResult(NamedTuple):
    """Results of a finished block: measurements and the parameters that are kept."""

    history: EpochMetrics  # [E, R, C], NaN where a run diverged
    final: dict[str, Metrics]  # of each split [R, C]
    class_accuracy: dict[str, Float[np.ndarray, "R C"]]  # of each split held out
    correct: dict[str, UInt8[np.ndarray, "R C bytes"]]  # of each split held out, packed
    stopped: Int[np.ndarray, "R C"]  # epoch after which halving stopped a run; 0: it did not
    saved: SavedParams


def epochs_on_disk(folder: Path, kind: str | None = None) -> list[int]:
    """Return the epochs of the checkpoints in a folder, from their names; `kind` is "state" or "metrics"."""
    names = [_FILE.fullmatch(path.name) for path in folder.glob("*.npz")]
    return sorted(int(name[2]) for name in names if name and kind in (None, name[1]))


class Checkpoints:
    """The checkpoints of one block."""

    def __init__(
        self,
        folder: Path,
        block: Sweep,
        d: int,
        K: int,
        sizes: Mapping[str, int],
        log: Callable[[str], None],
        save_every: int | None = None,
    ) -> None:
        """Prepare to save and read.

        Args:
          folder: the block's folder.
          block: the block, of which the checkpoints must be.
          d: number of features.
          K: number of classes.
          sizes: number of examples of each split that a run is measured on.
          log: gets a line about each file that cannot be used.
          save_every: epochs from one save to the next; by default so that saving takes `SHARE` of the time.
        """
        self._folder, self._block, self._d, self._K, self._sizes = folder, block, d, K, sizes
        self._log, self._save_every = log, save_every
        for partial in folder.glob(".*.partial.npz"):  # a process was killed while it wrote
            partial.unlink(missing_ok=True)
        nbytes = 2 * block.num_runs * (d + 1) * K * np.dtype(block.settings.dtype).itemsize
        self._cost = SECONDS + nbytes / BYTES_PER_SECOND
        self._since = time.monotonic()

    def should_save(self, epoch: int) -> bool:
        """Tell whether to save the state after this epoch."""
        if self._save_every:
            return epoch % self._save_every == 0
        return SHARE * (time.monotonic() - self._since) >= self._cost

    def save_state(self, state: BlockState) -> None:
        """Save a state; the one before it is kept too, and older ones are removed.

        Raises:
          SaveError: if it cannot be written; the states on disk are untouched.
        """
        started = time.monotonic()
        names = _history_names(self._block)
        arrays = snapshot_arrays(state.snapshot) | _flatten(names, state.history)
        self._write("state", state.snapshot.number, arrays, snapshot_description(state.snapshot))
        self._remove("state", epochs_on_disk(self._folder, "state")[:-2])
        self._since = time.monotonic()
        self._cost = self._since - started

    def newest_state(self, accept: Callable[[BlockState], T]) -> T | None:
        """Return what `accept` makes of the newest state it takes; None if there is none.

        A state that cannot be read, or for which `accept` raises ValueError, is set aside with a note.
        """
        for epoch in reversed(epochs_on_disk(self._folder, "state")):
            path = self._path("state", epoch)
            try:
                return accept(self._read_state(path))
            except (ValueError, FileNotFoundError) as error:
                self._set_aside(path, f"the state after epoch {epoch}", error)
        return None

    def save_result(self, result: BlockResult, keep_state: bool) -> None:
        """Save what remains of the finished block, and remove its states where they are no longer needed.

        Raises:
          SaveError: if it cannot be written; the files on disk are untouched.
        """
        epochs = len(result.history.finite)
        arrays = _flatten(self._result_names(), result)
        self._write("metrics", epochs, arrays, {"block": self._describe()})
        self._remove("metrics", {*epochs_on_disk(self._folder, "metrics")} - {epochs})
        if not keep_state:
            self.remove_states()

    def result(self) -> BlockResult | None:
        """Read what remains of the block if it is finished; None if it is not."""
        epochs = self._block.settings.epochs
        path = self._path("metrics", epochs)
        if not path.exists():
            return None
        try:
            arrays, description = read_npz(path)
            if description.get("block") != self._describe():
                raise ValueError(f"{path} is of another block")
            result: BlockResult = _unflatten(path, self._result_names(), arrays)
            self._check_history(path, result.history, epochs)
            self._check_saved(path, result.saved)
            for leaf in jax.tree.leaves((result.final, result.class_accuracy)):
                _expect(path, leaf, self._block.size, self._dtype)
            _expect(path, result.stopped, self._block.size, np.dtype(np.int64))
            for name, packed in result.correct.items():
                nbytes = -(-self._sizes[name] // 8)
                _expect(path, packed, (*self._block.size, nbytes), np.dtype(np.uint8))
        except (ValueError, FileNotFoundError) as error:
            self._set_aside(path, "the finished block", error)
            return None
        return result

    def remove_states(self) -> None:
        """Remove all states."""
        self._remove("state", epochs_on_disk(self._folder, "state"))

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(self._block.settings.dtype)

    def _path(self, kind: str, epoch: int) -> Path:
        return self._folder / f"{kind}-{epoch}.npz"

    def _describe(self) -> dict[str, Any]:
        """Return what a finished block is of, as JSON gives it back."""
        return {
            "configs": [list(config) for config in self._block.configs],
            "replicates": [list(replicate) for replicate in self._block.replicates],
        }

    def _remove(self, kind: str, epochs: Iterable[int]) -> None:
        for epoch in epochs:
            self._path(kind, epoch).unlink(missing_ok=True)

    def _write(self, kind: str, epoch: int, arrays: dict[str, Any], description: dict[str, Any]) -> None:
        path = self._path(kind, epoch)
        try:
            write_npz(path, arrays, description)
        except OSError as error:
            what = "state" if kind == "state" else "result"
            raise SaveError(
                f"the {what} after epoch {epoch} cannot be saved in {self._folder}: "
                f"{error.strerror or error}; what was saved before stands"
            ) from None

    def _read_state(self, path: Path) -> BlockState:
        arrays, description = read_npz(path)
        names = _history_names(self._block)
        history: EpochMetrics = _unflatten(path, names, arrays)
        of_snapshot = {name: leaf for name, leaf in arrays.items() if not name.startswith("history.")}
        snapshot = parse_snapshot(path, of_snapshot, description)
        if path != self._path("state", snapshot.number):
            raise ValueError(f"{path} is of epoch {snapshot.number}")
        self._check_history(path, history, snapshot.number)
        return BlockState(snapshot, history)

    def _result_names(self) -> BlockResult:
        """Return the names of a finished block's arrays, in their places."""
        final: Any = {
            name: Metrics(*(f"final.{name}.{field}" for field in Metrics._fields))  # type: ignore[arg-type]
            for name in self._sizes
        }
        held_out = [name for name in HELD_OUT if name in self._sizes]
        by_class: Any = {name: f"class_accuracy.{name}" for name in held_out}
        correct: Any = {name: f"correct.{name}" for name in held_out}
        params: Any = Params("params.W", "params.b")  # type: ignore[arg-type]
        saved = SavedParams("replicates", "configs", params)  # type: ignore[arg-type]
        stopped: Any = "stopped"
        return BlockResult(_history_names(self._block), final, by_class, correct, stopped, saved)

    def _check_history(self, path: Path, history: EpochMetrics, epochs: int) -> None:
        shape = (epochs, *self._block.size)
        *measured, finite = jax.tree.leaves(history)
        for leaf in measured:
            _expect(path, leaf, shape, self._dtype)
        _expect(path, finite, shape, np.dtype(bool))

    def _check_saved(self, path: Path, saved: SavedParams) -> None:
        count = saved.replicates.size
        for index, end in zip(saved[:2], self._block.size, strict=True):
            _expect(path, index, (count,), np.dtype(np.int64))
            if count == 0 or index.min() < 0 or index.max() >= end:
                raise ValueError(f"{path} holds weights of other runs")
        _expect(path, saved.params.W, (count, self._K, self._d), self._dtype)
        _expect(path, saved.params.b, (count, self._K), self._dtype)

    def _set_aside(self, path: Path, what: str, error: Exception) -> None:
        aside = path.with_name(f"broken-{path.name}")
        try:
            os.replace(path, aside)
            moved = f", moved to {aside}"
        except FileNotFoundError:  # somebody has removed it since its name was read
            moved = ""
        self._log(f"note: {what} cannot be used{moved}: {error}")


def _history_names(block: Sweep) -> EpochMetrics:
    """Return the names of a history's arrays, in its place."""

    def metrics(prefix: str) -> Any:
        return Metrics(f"history.{prefix}.loss", f"history.{prefix}.accuracy")  # type: ignore[arg-type]

    evaluated = {name: metrics(f"evaluated.{name}") for name in block.settings.evaluate}
    return EpochMetrics(metrics("running"), evaluated, "history.norm", "history.finite")  # type: ignore[arg-type]


def _flatten(names: Any, tree: Any) -> dict[str, np.ndarray]:
    return dict(zip(jax.tree.leaves(names), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def _unflatten(path: Path, names: Any, arrays: dict[str, np.ndarray]) -> Any:
    missing = [name for name in jax.tree.leaves(names) if name not in arrays]
    if missing:
        raise ValueError(f"{path} has no {missing[0]}")
    return jax.tree.map(lambda name: arrays[name], names)


def _expect(path: Path, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{path} holds {array.dtype}{list(array.shape)} in place of {dtype}{list(shape)}")
