"""Snapshots of a sweep: all that is needed to resume it, as NumPy arrays, in memory and on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from linear_cifar.arguments import describe
from linear_cifar.identity import Identity, parse_identity
from linear_cifar.npz import expect, parse_npz, write_npz
from linear_cifar.params import Params

# Measurements by name, such as "val_acc": [S, C], or with a leading axis of epochs.
Columns = dict[str, np.ndarray]
# Measurements of the training batches and the weights in every epoch.
RUNNING = ("running_loss", "running_acc", "W_norm")
# Measurements of the solver, those of the last epoch also among a result's final ones.
SOLVED = ("objective", "gradient_norm", "evaluations", "converged", "separable", "stalled")


class Snapshot(NamedTuple):
    """State of a sweep's S × C runs after an epoch: all that is needed to resume it.

    The order of the axes is that of `identity`. There is no random state, because the keys of an epoch follow
    from the seed and the number of the epoch. `averaged` are the parameters to evaluate: those of the last
    epoch, or their mean over the last epochs with `average`. Configurations that halving has stopped have a
    history only; the states are those of the A others.
    """

    identity: Identity  # its epochs are those so far
    history: Columns  # [E, S, C]; NaN from the epoch in which a run diverged, and after it was stopped
    diverged: Int[np.ndarray, "S C"]  # epoch in which a run diverged; 0: it did not
    stopped: Int[np.ndarray, "S C"]  # epoch after which halving stopped a run; 0: it did not
    params: Params  # W [S, A, K, d], b [S, A, K]
    opt_state: tuple[Shaped[np.ndarray, "S A ..."], ...]  # leaves of the optimizer's state
    averaged: Params

    @property
    def number(self) -> int:
        """The number of epochs done."""
        return len(self.identity.epochs)

    @property
    def epochs(self) -> Int[np.ndarray, "S C"]:
        """The number of epochs that each run was trained."""
        return np.where(self.stopped > 0, self.stopped, self.number)

    @property
    def alive(self) -> list[int]:
        """The indices of the A configurations that halving has not stopped."""
        return np.flatnonzero(~self.stopped.any(axis=0)).tolist()

    def take(
        self, replicates: Sequence[int] | None = None, configs: Sequence[int] | None = None
    ) -> "Snapshot":
        """Return a snapshot that a sweep of some replicates and configurations resumes.

        They are given by their indices, in their new order; None takes all.

        Raises:
          IndexError: if there is no such replicate or configuration.
          ValueError: if these are no indices.
        """
        S, C = self.identity.size
        rows, columns = as_indices("replicates", replicates, S), as_indices("configs", configs, C)
        places = {c: place for place, c in enumerate(self.alive)}
        runs, states = np.ix_(rows, columns), np.ix_(rows, [places[c] for c in columns if c in places])
        return Snapshot(
            self.identity.take(rows, columns),
            {name: values[:, runs[0], runs[1]] for name, values in self.history.items()},
            self.diverged[runs],
            self.stopped[runs],
            *jax.tree.map(lambda leaf: leaf[states], self[4:]),
        )

    def stop(self, configs: Sequence[int]) -> "Snapshot":
        """Return a snapshot in which these configurations, by their indices, are stopped after this epoch."""
        kept = [place for place, c in enumerate(self.alive) if c not in {*configs}]
        stopped = self.stopped.copy()
        stopped[:, list(configs)] = self.number
        return Snapshot(*self[:3], stopped, *jax.tree.map(lambda leaf: leaf[:, kept], self[4:]))

    def restore(self, expected: Any, name: str) -> Any:
        """Return the optimizer's state as a tree whose leaves have the shapes and types of `expected`.

        Raises:
          ValueError: if it is of another optimizer than that of this name.
        """
        leaves, structure = jax.tree.flatten(expected)
        shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        if shapes != [(leaf.shape, leaf.dtype) for leaf in self.opt_state]:
            names = f"{self.identity.settings.get('optimizer', 'the solver')}, not {name}"
            raise ValueError(f"the snapshot is of another sweep: it has another optimizer's state ({names})")
        return jax.tree.unflatten(structure, self.opt_state)

    def save(self, path: str | Path) -> None:
        """Write the snapshot to an `.npz` file, which appears whole or not at all, see `write_npz`."""
        named = {f"history.{name}": values for name, values in self.history.items()}
        named |= {"diverged": self.diverged, "stopped": self.stopped}
        named |= {f"params.{name}": leaf for name, leaf in self.params._asdict().items()}
        named |= {f"averaged.{name}": leaf for name, leaf in self.averaged._asdict().items()}
        named |= {f"opt_state.{i}": leaf for i, leaf in enumerate(self.opt_state)}
        # The npy format has no name for types such as bfloat16, whose bits are stored instead.
        arrays = {name: np.asarray(leaf) for name, leaf in named.items()}
        arrays = {
            name: leaf.view(f"u{leaf.itemsize}") if leaf.dtype.kind == "V" else leaf
            for name, leaf in arrays.items()
        }
        dtypes = [str(np.asarray(leaf).dtype) for leaf in self.opt_state]
        write_npz(Path(path), arrays, {"opt_state": dtypes, "identity": self.identity.to_json()})


def as_indices(name: str, indices: Any, count: int) -> list[int]:
    """Return indices as Python's, all for None; raise ValueError for a mask, IndexError beyond `count`."""
    array = np.arange(count) if indices is None else np.asarray(indices)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} is {describe(array)}: give a list of indices")
    if array.size and not -count <= array.min() <= array.max() < count:
        raise IndexError(f"{name} holds {array.min()} to {array.max()}: there are {count}")
    return (array % count).tolist() if array.size else []


def join_snapshots(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Join snapshots that share their replicates or their configurations, and differ in the others.

    Args:
      snapshots: snapshots after the same epoch: of other configurations in the same replicates, or of the
        same configurations in other replicates.

    Returns:
      A snapshot of all their runs, in the order of the arguments. A sweep with its configurations and
      replicates resumes it.

    Raises:
      ValueError: if there are none, they have some runs in common, or they differ in anything else.
    """
    listed = isinstance(snapshots, Sequence) and not isinstance(snapshots, Snapshot)
    if not listed or not all(isinstance(member, Snapshot) for member in snapshots):
        raise ValueError(f"snapshots is {describe(snapshots)}: give a list of snapshots")
    if not snapshots:
        raise ValueError("there are no snapshots to join")
    identities = [snapshot.identity for snapshot in snapshots]
    first = identities[0]
    if all(identity.configs == first.configs for identity in identities):
        axis, joined = 0, "replicates"
    elif all(identity.replicates == first.replicates for identity in identities):
        axis, joined = 1, "configs"
    else:
        raise ValueError("the snapshots share neither their replicates nor their configurations")
    nothing: dict[str, Any] = {joined: ()}
    if any(identity._replace(**nothing) != first._replace(**nothing) for identity in identities):
        raise ValueError("the snapshots are of different sweeps or epochs")
    members = [member for identity in identities for member in getattr(identity, joined)]
    if len(set(members)) < len(members):
        raise ValueError(f"the snapshots have some {joined} in common")
    history = {
        name: np.concatenate([snapshot.history[name] for snapshot in snapshots], axis + 1)
        for name in snapshots[0].history
    }
    states = [snapshot[2:] for snapshot in snapshots]
    arrays = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *states)
    everything: dict[str, Any] = {joined: tuple(members)}
    return Snapshot(first._replace(**everything), history, *arrays)


def load_snapshot(path: str | Path) -> Snapshot:
    """Read a snapshot that `Snapshot.save` wrote. No code in the file can run.

    Raises:
      ValueError: if the file is damaged or holds something else; the message names the file.
      OSError: if it cannot be opened.
    """
    return parse_npz(Path(path), "a snapshot", _parse)


def take_columns(arrays: dict[str, np.ndarray], prefix: str) -> Columns:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def take_history(arrays: dict[str, np.ndarray], identity: Identity) -> Columns:
    """Return the history in a file; raise ValueError if it is not that of an identity."""
    history = take_columns(arrays, "history.")
    per_epoch = identity.settings["per_epoch"]
    measured = (*SOLVED, "W_norm") if identity.is_exact else RUNNING
    if set(history) != {*measured, *(f"{name}_{metric}" for name in per_epoch for metric in ("loss", "acc"))}:
        raise ValueError("its history has other columns")
    for name, values in history.items():
        expect(name, values, (len(identity.epochs), *identity.size), identity.settings["dtype"])
    return history


def _parse(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> Snapshot:
    """Return the snapshot that the content of a file describes; raise an error if it does not fit."""
    identity = parse_identity(description["identity"])
    dtypes = [jnp.dtype(name) for name in description["opt_state"]]
    count = sum(name.startswith("opt_state.") for name in arrays)
    if count != len(dtypes) or any(dtype.hasobject for dtype in dtypes):
        raise ValueError("its optimizer's state is not as described")
    for name in ("diverged", "stopped"):
        expect(name, arrays[name], identity.size, np.int64)
    snapshot = Snapshot(
        identity,
        take_history(arrays, identity),
        arrays["diverged"],
        arrays["stopped"],
        Params(arrays["params.W"], arrays["params.b"]),
        tuple(arrays[f"opt_state.{i}"].view(dtype) for i, dtype in enumerate(dtypes)),
        Params(arrays["averaged.W"], arrays["averaged.b"]),
    )
    runs, settings = (identity.size[0], len(snapshot.alive)), identity.settings
    for params in (snapshot.params, snapshot.averaged):
        expect("W", params.W, (*runs, settings["K"], settings["d"]), settings["dtype"])
        expect("b", params.b, (*runs, settings["K"]), settings["dtype"])
    if any(leaf.shape[:2] != runs for leaf in snapshot.opt_state):
        raise ValueError("the optimizer's state is of other runs")
    return snapshot
