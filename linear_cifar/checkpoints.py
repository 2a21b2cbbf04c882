"""The checkpoints of a block on disk; each file is whole or absent, and is checked when it is read.

While a block trains, its folder holds `state-N.npz` of the last two saved epochs N. Once it is finished, the
folder holds `result-N.npz`, and the newest state where the block can still be trained for longer.
"""

import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from linear_cifar.folders import SaveError
from linear_cifar.identity import Identity
from linear_cifar.result import Result
from linear_cifar.snapshots import Snapshot, load_snapshot

T = TypeVar("T")

STATE, RESULT = "state", "result"
# Share of the time that saving may take by default.
SHARE = 0.02
# Expected cost of the first save, measured on a laptop's disk; later ones cost what the last one took.
SECONDS, BYTES_PER_SECOND = 0.15, 100e6

_FILE = re.compile(r"(state|result)-(\d{1,9})\.npz")


def epochs_on_disk(folder: Path, kind: str | None = None) -> list[int]:
    """Return the epochs of the checkpoints in a folder, from their names; `kind` is "state" or "result"."""
    names = [_FILE.fullmatch(path.name) for path in folder.glob("*.npz")]
    return sorted(int(name[2]) for name in names if name and kind in (None, name[1]))


class Checkpoints:
    """The checkpoints of one block."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        log: Callable[[str], None],
        save_every: int | None = None,
        state_bytes: int = 0,
    ) -> None:
        """Prepare to save and read.

        Args:
          folder: the block's folder.
          identity: identity of the block, of which the checkpoints must be.
          log: gets a line about each file that cannot be used.
          save_every: epochs from one save to the next; by default so that saving takes `SHARE` of the time.
          state_bytes: bytes of a state, about.
        """
        self._folder, self._identity, self._log, self._save_every = folder, identity, log, save_every
        self._cost = SECONDS + state_bytes / BYTES_PER_SECOND
        self._since = time.monotonic()

    def should_save(self, epoch: int) -> bool:
        """Tell whether to save the state after this epoch."""
        if self._save_every:
            return epoch % self._save_every == 0
        return SHARE * (time.monotonic() - self._since) >= self._cost

    def save_state(self, snapshot: Snapshot) -> None:
        """Save a state; the one before it is kept too, and older ones are removed.

        Raises:
          SaveError: if it cannot be written; the states on disk are untouched.
        """
        started = time.monotonic()
        self._write(STATE, snapshot.number, snapshot)
        self._remove(STATE, epochs_on_disk(self._folder, STATE)[:-2])
        self._since = time.monotonic()
        self._cost = self._since - started

    def newest_state(self, accept: Callable[[Snapshot], T]) -> T | None:
        """Return what `accept` makes of the newest state it takes; None if there is none.

        A state that cannot be read, or for which `accept` raises ValueError, is set aside with a note.
        """
        for epoch in reversed(epochs_on_disk(self._folder, STATE)):
            path = self._path(STATE, epoch)
            try:
                snapshot = load_snapshot(path)
                self._check(path, epoch, snapshot.identity)
                return accept(snapshot)
            except (ValueError, FileNotFoundError) as error:
                self._set_aside(path, f"the state after epoch {epoch}", error)
        return None

    def save_result(self, result: Result, keep_state: bool) -> None:
        """Save the result of the finished block, and remove its states where they are no longer needed.

        Raises:
          SaveError: if it cannot be written; the files on disk are untouched.
        """
        epochs = len(result.identity.epochs)
        self._write(RESULT, epochs, result)
        self._remove(RESULT, {*epochs_on_disk(self._folder, RESULT)} - {epochs})
        self._remove(STATE, epochs_on_disk(self._folder, STATE)[: -1 if keep_state else None])

    def result(self) -> Result | None:
        """Read the result of the block if it is finished; None if it is not."""
        epochs = len(self._identity.epochs)
        path = self._path(RESULT, epochs)
        if not path.exists():
            return None
        try:
            result = Result.load(path)
            self._check(path, epochs, result.identity)
        except (ValueError, FileNotFoundError) as error:
            self._set_aside(path, "the finished block", error)
            return None
        return result

    def remove_states(self) -> None:
        """Remove all states."""
        self._remove(STATE, epochs_on_disk(self._folder, STATE))

    def _check(self, path: Path, epochs: int, identity: Identity) -> None:
        """Raise ValueError if a checkpoint is not of this block and this number of epochs."""
        if len(identity.epochs) != epochs:
            raise ValueError(f"{path} is of epoch {len(identity.epochs)}")
        difference = identity.difference(self._identity)
        if difference or (identity.replicates, identity.configs) != self._identity[1::-1]:
            raise ValueError(f"{path} is of another block" + (f": it has {difference}" if difference else ""))

    def _path(self, kind: str, epoch: int) -> Path:
        return self._folder / f"{kind}-{epoch}.npz"

    def _remove(self, kind: str, epochs: Iterable[int]) -> None:
        for epoch in epochs:
            self._path(kind, epoch).unlink(missing_ok=True)

    def _write(self, kind: str, epoch: int, content: Snapshot | Result) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            content.save(self._path(kind, epoch))
        except OSError as error:
            raise SaveError(
                f"the {kind} after epoch {epoch} cannot be saved in {self._folder}: "
                f"{error.strerror or error}; what was saved before stands"
            ) from None

    def _set_aside(self, path: Path, what: str, error: Exception) -> None:
        aside = path.with_name(f"broken-{path.name}")
        try:
            os.replace(path, aside)
            moved = f", moved to {aside}"
        except FileNotFoundError:  # somebody has removed it since its name was read
            moved = ""
        self._log(f"note: {what} cannot be used{moved}: {error}")
