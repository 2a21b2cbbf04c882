"""Snapshots of a sweep: all that is needed to resume it, as NumPy arrays, in memory and on disk."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from linear_cifar.arguments import describe
from linear_cifar.config import Config, check_config
from linear_cifar.losses import LOSSES, MADE_FROM, Loss
from linear_cifar.npz import NpzError, read_npz, write_npz
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateId, digest_arrays

SNAPSHOT_SCHEMA = 2
_PACKAGE = f"{__name__.split('.')[0]}."


class SweepIdentity(NamedTuple):
    """Identity of a snapshot: all that decides the numbers that follow from it.

    `plan` has the factor of η, and the number of epochs averaged, for every epoch so far. A sweep of more
    epochs can resume a snapshot if its own plan begins in the same way. So a constant η can be extended, and
    a cosine cannot.
    """

    configs: tuple[Config, ...]
    replicates: tuple[ReplicateId, ...]
    d: int
    K: int
    dtype: str
    data: str  # kind of the targets, and SHA-256 of the training features, targets and shared standardiser
    loss: str
    optimizer: str
    augment: str
    shuffle: bool
    precision: str
    plan: tuple[tuple[float, int], ...]


class Snapshot(NamedTuple):
    """State of a sweep's S × C runs after an epoch: all that is needed to resume it.

    Every array has leading axes [S, C], in the order of `identity`. It holds no random state, because the
    keys of an epoch follow from the seed and the number of the epoch. `averaged` are the parameters that
    count: those of the last epoch, or their mean over the last epochs where that was asked for.
    """

    identity: SweepIdentity
    number: int  # epochs done
    params: Params
    opt_state: tuple[Shaped[np.ndarray, "S C ..."], ...]  # leaves of the optimizer's state
    averaged: Params

    def take(
        self, replicates: Sequence[int] | None = None, configs: Sequence[int] | None = None
    ) -> "Snapshot":
        """Return a snapshot of some replicates and configurations.

        Args:
          replicates: indices of the replicates to take, in their new order; None takes all.
          configs: indices of the configurations to take, in their new order; None takes all.

        Returns:
          A snapshot that a sweep with these replicates and configurations resumes.

        Raises:
          IndexError: if there is no such replicate or configuration.
          ValueError: if these are no indices.
        """
        rows, columns = (
            range(len(members)) if indices is None else _as_indices(name, indices)
            for name, members, indices in (
                ("replicates", self.identity.replicates, replicates),
                ("configs", self.identity.configs, configs),
            )
        )
        identity = self.identity._replace(
            replicates=tuple(self.identity.replicates[s] for s in rows),
            configs=tuple(self.identity.configs[c] for c in columns),
        )
        places = np.ix_(list(rows), list(columns))
        return Snapshot(identity, self.number, *jax.tree.map(lambda leaf: leaf[places], self[2:]))


def _as_indices(name: str, indices: Any) -> list[int]:
    """Return indices as Python's; raise ValueError if they are no list of whole numbers, such as a mask."""
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name} is {describe(array)}: give a list of indices")
    return array.tolist()


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
    first, identities = snapshots[0], [snapshot.identity for snapshot in snapshots]
    if len({identity.configs for identity in identities}) == 1:
        axis, joined = 0, "replicates"
    elif len({identity.replicates for identity in identities}) == 1:
        axis, joined = 1, "configs"
    else:
        raise ValueError("the snapshots share neither their replicates nor their configurations")
    nothing: dict[str, Any] = {joined: ()}
    alike = {(snapshot.number, snapshot.identity._replace(**nothing)) for snapshot in snapshots}
    if len(alike) > 1:
        raise ValueError("the snapshots are of different sweeps or epochs")
    members = [member for identity in identities for member in getattr(identity, joined)]
    if len(set(members)) < len(members):
        raise ValueError(f"the snapshots have some {joined} in common")
    states = [snapshot[2:] for snapshot in snapshots]
    arrays = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *states)
    everything: dict[str, Any] = {joined: tuple(members)}
    return Snapshot(first.identity._replace(**everything), first.number, *arrays)


def save_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Write a snapshot to an `.npz` file, which appears whole or not at all.

    Raises:
      ValueError: if it is no snapshot.
      OSError: if the file cannot be written; an earlier one is untouched.
    """
    if not isinstance(snapshot, Snapshot):
        raise ValueError(f"snapshot is {describe(snapshot)}: give epoch.snapshot()")
    write_npz(Path(path), snapshot_arrays(snapshot), snapshot_description(snapshot))


def load_snapshot(path: str | Path) -> Snapshot:
    """Read a snapshot that `save_snapshot` wrote. No code in the file can run.

    Raises:
      ValueError: if the file is damaged or holds something else; the message names the file.
      OSError: if it cannot be opened.
    """
    path = Path(path)
    return parse_snapshot(path, *read_npz(path))


def snapshot_arrays(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """Return a snapshot's arrays by name."""
    named = {f"params.{name}": leaf for name, leaf in snapshot.params._asdict().items()}
    named |= {f"averaged.{name}": leaf for name, leaf in snapshot.averaged._asdict().items()}
    named |= {f"opt_state.{i}": leaf for i, leaf in enumerate(snapshot.opt_state)}
    # The npy format has no name for types such as bfloat16, whose bits are stored instead.
    arrays = {name: np.asarray(leaf) for name, leaf in named.items()}
    return {
        name: leaf.view(f"u{leaf.itemsize}") if leaf.dtype.kind == "V" else leaf
        for name, leaf in arrays.items()
    }


def snapshot_description(snapshot: Snapshot) -> dict[str, Any]:
    """Return what a snapshot's arrays are of, for JSON."""
    return {
        "snapshot_schema": SNAPSHOT_SCHEMA,
        "number": snapshot.number,
        "opt_state": [str(np.asarray(leaf).dtype) for leaf in snapshot.opt_state],
        "identity": snapshot.identity._asdict(),
    }


def parse_snapshot(path: Path, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> Snapshot:
    """Make a snapshot from the content of a file.

    Raises:
      NpzError: if the content is not a snapshot's, or its shapes do not fit.
    """
    try:
        if description["snapshot_schema"] != SNAPSHOT_SCHEMA:
            raise ValueError(f"its schema is {description['snapshot_schema']}, not {SNAPSHOT_SCHEMA}")
        identity = _parse_identity(description["identity"])
        number = description["number"]
        if type(number) is not int or number != len(identity.plan):
            raise ValueError("its number of epochs is wrong")
        runs = (len(identity.replicates), len(identity.configs))
        shapes = {"W": (*runs, identity.K, identity.d), "b": (*runs, identity.K)}
        params, averaged = (
            Params(*(arrays[f"{kind}.{name}"] for name in Params._fields)) for kind in ("params", "averaged")
        )
        for leaves in (params, averaged):
            for name, leaf in leaves._asdict().items():
                if leaf.shape != shapes[name] or leaf.dtype != identity.dtype:
                    raise ValueError(
                        f"{name} is {leaf.dtype}{leaf.shape}, not {identity.dtype}{shapes[name]}"
                    )
        dtypes = [jnp.dtype(name) for name in description["opt_state"]]
        count = sum(name.startswith("opt_state.") for name in arrays)
        if count != len(dtypes) or any(dtype.hasobject for dtype in dtypes):
            raise ValueError("its optimizer's state is not as described")
        opt_state = tuple(arrays[f"opt_state.{i}"].view(dtype) for i, dtype in enumerate(dtypes))
        if any(leaf.shape[:2] != runs for leaf in opt_state):
            raise ValueError("the optimizer's state is of other runs")
    # Content of the wrong kind may raise any of these.
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NpzError(f"{path} does not hold a snapshot: {' '.join(str(error).split()):.200}") from None
    return Snapshot(identity, number, params, opt_state, averaged)


def _parse_identity(content: dict[str, Any]) -> SweepIdentity:
    identity = SweepIdentity(**content)
    configs = tuple(Config(*values) for values in identity.configs)
    for config in configs:
        check_config(config)
    return identity._replace(
        configs=configs,
        replicates=tuple(ReplicateId(*values) for values in identity.replicates),
        plan=tuple((float(factor), int(averaged)) for factor, averaged in identity.plan),
    )


def describe_difference(snapshot: SweepIdentity, sweep: SweepIdentity) -> str | None:
    """Say in which respect a snapshot is not of this sweep; None if it is."""
    for name in SweepIdentity._fields:
        theirs, ours = getattr(snapshot, name), getattr(sweep, name)
        if name == "plan":
            if len(theirs) > len(ours):
                return f"{len(theirs)} epochs, more than the {len(ours)} of this one"
            if theirs != ours[: len(theirs)]:
                return "another schedule or averaging of its epochs (both may depend on the number of epochs)"
        elif name == "data":
            if theirs != ours:
                return "other training examples or another standardiser"
        elif theirs != ours:
            return f"{name} {theirs}, not {ours}" if isinstance(ours, str | int) else f"other {name}"
    return None


def name_loss(loss: Loss) -> str:
    """Return a loss's name, followed by the names of its functions unless the loss is built in."""
    if loss == LOSSES.get(loss.name):
        return loss.name
    made_from = getattr(loss.value, MADE_FROM, None)
    functions = [made_from] if made_from else [loss.value, loss.gradient]
    return f"{loss.name}({', '.join(map(name_function, [*functions, loss.probabilities]))})"


def name_function(function: Callable[..., Any] | None) -> str:
    """Return a name for an optimizer or augmentation that stays the same from process to process.

    A function is named by its module (omitted for this package) and its qualified name; a `partial` also by
    its arguments. If looking up that name does not return the function, the name gets a "<": several
    functions may share it, such as lambdas, functions within functions, or objects. A function of the main
    program, which a notebook may define again, is also named by its code.
    """
    if function is None:
        return "none"
    if isinstance(function, partial):
        arguments = [*map(_name_argument, function.args)]
        arguments += [f"{key}={_name_argument(value)}" for key, value in sorted(function.keywords.items())]
        return f"{name_function(function.func)}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", f"<{type(function).__qualname__}>")
    module = str(getattr(function, "__module__", None))
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return f"<{module}.{name}>"
    if module.startswith(_PACKAGE):
        return name
    code = getattr(inspect.unwrap(function), "__code__", None)
    digest = f"[{_digest_code(code)}]" if module == "__main__" and code else ""
    return f"{module}.{name}{digest}"


def _digest_code(code: CodeType) -> str:
    """Return a digest of a function's bytecode, names and constants, but not of its file and line."""
    constants = [
        _digest_code(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    content = repr((code.co_code, code.co_names, code.co_varnames, constants))
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _name_argument(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_name_argument, value))})"
    if isinstance(value, np.ndarray | jax.Array):
        return digest_arrays([value])  # its text leaves out most of a large array
    if callable(value):
        return name_function(value)
    if isinstance(value, np.generic):
        value = value.item()
    # `repr` shows numbers, text and None in full; other objects may hold more than it shows.
    return (
        repr(value) if value is None or isinstance(value, Real | str | bytes) else f"<{type(value).__name__}>"
    )


def check_names(identity: SweepIdentity) -> None:
    """Raise ValueError if a snapshot does not show which function an argument was; the message names it."""
    for argument in ("loss", "optimizer", "augment"):
        name = getattr(identity, argument)
        if "<" in name:
            raise ValueError(
                f"a snapshot cannot tell {argument} {name} from another function of that name: define it at "
                "the top level of a module, not as a lambda or within a function"
            )
