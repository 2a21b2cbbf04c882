"""States of a block on disk, through orbax: each is there whole or not at all, and is checked when read."""

import hashlib
import logging
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from experiments.files import whole

Tree = TypeVar("Tree")

# Without `every`, the share of the time that saving may take,
SHARE = 0.02
# by what the last save took; and before the first one by these, measured on a laptop's disk.
SECONDS, BYTES_PER_SECOND = 0.15, 100e6
# What a checkpoint may take on disk beside its arrays.
OVERHEAD_BYTES = 4 * 1024**2

# In a state's folder, written once all else is: SHA-256 of its files. Without it a state is not whole.
DIGEST = "sha256"
# The names that orbax gives to states, and to those that it is writing.
_STATE = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")


def saved_epochs(folder: Path) -> list[int]:
    """After which epochs there are states in a folder; they are not read."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal() and path.is_dir())


def remove_states(folder: Path) -> None:
    """Removes all states in a folder."""
    for epoch in saved_epochs(folder):
        shutil.rmtree(folder / str(epoch))


class SaveError(OSError):
    """A state could not be saved; the message is one line for the user. What was saved before stands."""


class Checkpoints(Generic[Tree]):
    """The states of one block by their epoch; the last two are kept."""

    def __init__(
        self,
        folder: Path,
        template: Callable[[int], Tree],
        tell: Callable[[str], None],
        every: int | None = None,
    ) -> None:
        """Opens a folder, or makes it.

        Args:
          folder: of this block alone.
          template: shapes and types of the arrays that the state after an epoch consists of, a pytree.
          tell: gets a line about each state that can't be read.
          every: epochs from one save to the next; by default so that saving takes `SHARE` of the time.
        """
        # Here, since its import takes a second.
        import orbax.checkpoint as ocp

        self._folder, self._template, self._tell, self._every = folder.absolute(), template, tell, every
        self._remove_unfinished()
        # Where several processes share a run, each saves blocks of its own and waits for none.
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            create=False,
            should_save_fn=lambda *_: True,
            multiprocessing_options=alone,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        with _orbax():
            handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handler)
        self._save_args, self._restore_args = ocp.args.StandardSave, ocp.args.StandardRestore
        self._cost = SECONDS + _size(_by_name(template(1))) / BYTES_PER_SECOND
        self._since = time.monotonic()

    def due(self, epoch: int) -> bool:
        """Whether the state after this epoch is to be saved."""
        if self._every:
            return epoch % self._every == 0
        return SHARE * (time.monotonic() - self._since) >= self._cost

    def save(self, epoch: int, state: Tree) -> None:
        """Saves the state after an epoch, NumPy arrays in the template's shapes.

        Raises:
          SaveError: if it can't be written; the states that were there are untouched.
        """
        started = time.monotonic()
        arrays = _by_name(state)
        try:
            with _orbax():
                self._manager.save(epoch, args=self._save_args(arrays))
            folder = self._folder / str(epoch)
            with whole(folder / DIGEST) as partial:
                partial.write_text(_digest(folder))
        except Exception as error:  # whatever its parts raise: OSError, ValueError, ...
            # After one array has failed, tensorstore goes on with the others, and makes their folder anew.
            for _ in range(25):
                self._remove_unfinished()
                time.sleep(0.02)
            raise SaveError(
                f"the state after epoch {epoch} can't be saved in {self._folder}: {_reason(error)}; what was "
                "saved before stands"
            ) from None
        self._since = time.monotonic()
        self._cost = self._since - started

    def newest(self) -> Tree | None:
        """The last state that is whole; those after it are put aside, and told of. None: there is none."""
        with _orbax():
            epochs = sorted(self._manager.all_steps(), reverse=True)
        for epoch in epochs:
            try:
                return self._read(epoch)
            except (PermissionError, MemoryError):  # nothing is wrong with the state
                raise
            except Exception as error:  # a broken file may bring about any
                aside = self._folder / f"broken-{epoch}"
                self._tell(f"note: the state after epoch {epoch} is unusable, now {aside}: {_reason(error)}")
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(self._folder / str(epoch), aside)
                self._manager.reload()
        return None

    def close(self) -> None:
        """Frees what the manager holds."""
        self._manager.close()

    def _read(self, epoch: int) -> Tree:
        """A state; nothing larger than the template is ever taken into memory."""
        template = self._template(epoch)
        expected = _by_name(template)
        folder = self._folder / str(epoch)
        on_disk = sum(path.lstat().st_size for path in folder.rglob("*"))
        if on_disk > 2 * _size(expected) + OVERHEAD_BYTES:
            raise ValueError(f"it takes {on_disk:,} bytes")
        # First of all, as what reads the arrays reports on broken ones at length.
        if (folder / DIGEST).read_text() != _digest(folder):
            raise ValueError("its files are not what was saved")
        with _orbax():
            stored = dict(self._manager.item_metadata(epoch).items())
            if stored.keys() != expected.keys():
                raise ValueError("it holds other arrays than this sweep's")
            for name, array in expected.items():
                chunk = math.prod(stored[name].storage.chunk_shape)
                if (stored[name].shape, stored[name].dtype) != (array.shape, array.dtype):
                    raise ValueError(f"{name} is of another shape or type")
                if chunk > max(1, math.prod(array.shape)):
                    raise ValueError(f"{name} is stored in pieces larger than itself")
            arrays = self._manager.restore(epoch, args=self._restore_args(expected))
        leaves = [arrays[name] for name in _by_name(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _remove_unfinished(self) -> None:
        """What a save left that did not come to its end."""
        for path in self._folder.glob("*"):
            if _STATE.fullmatch(path.name) and not (path / DIGEST).exists():
                shutil.rmtree(path, ignore_errors=True)


def _by_name(tree: Any) -> dict[str, Any]:
    """The leaves by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _size(arrays: dict[str, Any]) -> int:
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays.values())


def _digest(folder: Path) -> str:
    """SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGEST):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """In a few words; tensorstore hides the system's own in a long text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 160 else line[:159] + "…"


@contextmanager
def _orbax() -> Iterator[None]:
    """Has orbax be quiet, and take this process for the only one.

    What goes wrong is raised; orbax logs it too, with a traceback, and of several arrays several times. NumPy
    arrays it would write in JAX's first process only, whatever its options say.
    """
    # Here, since its import takes a second; it is not public.
    from orbax.checkpoint._src.multihost import multihost

    index, multihost.process_index = multihost.process_index, lambda: 0
    absl, asyncio = logging.getLogger("absl"), logging.getLogger("asyncio")
    before = absl.disabled, asyncio.disabled, sys.unraisablehook
    absl.disabled, asyncio.disabled, sys.unraisablehook = True, True, _not_of_closed_loops
    try:
        yield
        _, asyncio.disabled, sys.unraisablehook = before  # else further arrays are still to fail
    finally:
        absl.disabled = before[0]
        multihost.process_index = index


def _not_of_closed_loops(report: Any) -> None:
    """Leaves out that nobody waits any more for the other arrays, after one has failed."""
    if "Event loop is closed" not in str(report.exc_value):
        sys.__unraisablehook__(report)
