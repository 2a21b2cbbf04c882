"""The replicates of a sweep: seeds, each with its own rows and its own standardiser."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Integer, Key

from linear_cifar.arguments import as_seed, as_whole, describe
from linear_cifar.standardizer import Standardizer, as_standardizer


class Replicate(NamedTuple):
    """One seed of initial weights, order and augmentation, and the data it sees.

    A fold of a cross-validation is a replicate that trains on some rows, is evaluated on the others, and has
    a standardiser of its own. Where a sweep takes seeds, an int stands for `Replicate(seed)`.
    """

    seed: int
    fold: int | None = None  # name of the fold, if it is one
    rows: Integer[np.ndarray, " m"] | None = None  # indices of its training examples; None: all
    standardizer: Standardizer | None = None  # mean and std [d]; None: the sweep's
    # Indices of the examples that it is evaluated on, by the name of the evaluation set; None: all.
    evaluation_rows: Mapping[str, Integer[np.ndarray, " m"]] | None = None


class ReplicateData(NamedTuple):
    """Arrays with a leading axis R of all that differs between R replicates within an epoch.

    None for rows: every replicate trains on all examples. None for the standardiser: all share the sweep's.
    """

    keys: Key[Array, " R"]
    rows: Integer[Array | np.ndarray, "R m"] | None = None
    standardizer: Standardizer | None = None


class ReplicateId(NamedTuple):
    """Name of a replicate in a snapshot, and a digest of its rows and standardiser ("" where it has none)."""

    seed: int
    fold: int | None
    data: str


def as_replicates(seeds: Iterable[int | Replicate]) -> tuple[Replicate, ...]:
    """Turn seeds into replicates.

    Raises:
      ValueError: if there are none, a seed is no whole number from 0 to 2³² − 1, two have the same seed and
        fold, rows are not indices, they have unequally many rows, or only some of them have rows, a
        standardiser or rows of an evaluation set.
    """
    try:
        if isinstance(seeds, Replicate | str | bytes | dict):
            raise TypeError
        listed = list(seeds)
    except TypeError:
        raise ValueError(f"seeds is {describe(seeds)}: give a list, such as [0] or range(10)") from None
    replicates = tuple(map(_as_replicate, listed))
    if not replicates:
        raise ValueError("a sweep needs at least one seed")
    for replicate in replicates:
        for rows in map(np.asarray, all_rows(replicate).values()):
            # A mask would be taken for the indices 0 and 1.
            if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
                raise ValueError(
                    f"the rows of seed {replicate.seed} are {rows.dtype}{rows.shape}: give indices [m]"
                )
    if len({None if replicate.rows is None else len(replicate.rows) for replicate in replicates}) > 1:
        raise ValueError("replicates need equally many training rows, so that they train in step")
    if len({replicate.standardizer is None for replicate in replicates}) > 1:
        raise ValueError("give every replicate a standardiser of its own, or none of them")
    sizes = [{name: len(rows) for name, rows in all_rows(replicate).items()} for replicate in replicates]
    if any(size != sizes[0] for size in sizes):
        raise ValueError("replicates need equally many rows of each evaluation set")
    identities = [identify_replicate(replicate) for replicate in replicates]
    names = [(name.seed, name.fold) for name in identities]
    for keys, words in (
        (names, "have the same seed and fold"),
        ([(name.seed, name.data) for name in identities], "train the same run"),
    ):
        counts = Counter(keys)
        repeated = [name for name, key in zip(names, keys, strict=True) if counts[key] > 1]
        if repeated:
            raise ValueError(f"two replicates {words}, {repeated[0]}: give other seeds, or rows of their own")
    return replicates


def all_rows(replicate: Replicate) -> dict[str | None, np.ndarray]:
    """Return a replicate's own rows by the name of the evaluation set, and its training rows under None."""
    rows: dict[str | None, np.ndarray] = {} if replicate.rows is None else {None: replicate.rows}
    rows.update(replicate.evaluation_rows or {})
    return rows


def _as_replicate(seed: int | Replicate) -> Replicate:
    """Return a replicate whose seed and fold are Python's ints, so that they can be saved as JSON."""
    replicate = seed if isinstance(seed, Replicate) else Replicate(seed)
    if not isinstance(replicate.evaluation_rows, Mapping | None):
        found = describe(replicate.evaluation_rows)
        raise ValueError(
            f'evaluation_rows is {found}: give indices by evaluation set, such as {{"val": rows}}'
        )
    fold = None if replicate.fold is None else as_whole("fold", replicate.fold, 0)
    standardizer = as_standardizer(replicate.standardizer)
    return replicate._replace(seed=as_seed(replicate.seed), fold=fold, standardizer=standardizer)


def stack_rows(
    replicates: Sequence[Replicate], evaluation_set: str | None = None
) -> Integer[np.ndarray, "R m"] | None:
    """Stack the replicates' rows of an evaluation set, or their training rows; None if they have none."""
    if evaluation_set not in all_rows(replicates[0]):
        return None
    return np.stack([np.asarray(all_rows(replicate)[evaluation_set], np.int32) for replicate in replicates])


def stack_standardizers(replicates: Sequence[Replicate]) -> Standardizer | None:
    """Stack the replicates' own standardisers to [R, d]; None if they have none."""
    if replicates[0].standardizer is None:
        return None
    standardizers = [replicate.standardizer for replicate in replicates]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *standardizers)


def replace_standardizers(
    replicates: Sequence[Replicate], standardizer: Standardizer
) -> tuple[Replicate, ...]:
    """Return the replicates with standardisers of their own, from a stack of them [R, d]."""
    pairs = zip(replicates, *standardizer, strict=True)
    return tuple(replicate._replace(standardizer=Standardizer(mean, std)) for replicate, mean, std in pairs)


def identify_replicate(replicate: Replicate) -> ReplicateId:
    """Return the replicate's name and the digest of its own data."""
    rows = {str(name): np.asarray(rows, np.int64) for name, rows in all_rows(replicate).items()}
    arrays = jax.tree.leaves((rows, replicate.standardizer))
    return ReplicateId(replicate.seed, replicate.fold, digest_arrays(arrays) if arrays else "")


def digest_arrays(arrays: Sequence[Array | np.ndarray]) -> str:
    """Return the SHA-256 (hex) of the shapes, types and values of arrays."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
