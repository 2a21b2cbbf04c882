"""Comparison of feature sets, such as those of several networks, by each one's best configuration."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from linear_cifar.arguments import describe
from linear_cifar.config import Config
from linear_cifar.result import TEST, Result
from linear_cifar.uncertainty import (
    Estimate,
    Selection,
    assign_parts,
    choose_without_part,
    estimate_accuracy,
    select_best,
)


class Comparison(NamedTuple):
    """Feature sets compared by the accuracy of each one's best configuration."""

    names: tuple[str, ...]  # of the feature sets
    on: str  # name of the evaluation set that compares them
    configs: tuple[Config, ...]  # the best of each, by all examples that choose
    accuracy: tuple[Estimate, ...]  # of each
    selection: Selection  # differences from the best, which may be the best, what choosing it reaches
    best: int  # index of the most accurate


def compare(results: Mapping[str, Result], on: str | None = None) -> Comparison:
    """Compare feature sets by each one's best configuration, paired by seed and by example.

    The results are of sweeps on the same examples in the same order, from the same seeds and in the same
    folds. No example that compares the feature sets chooses their configurations. On a test set each has its
    best by validation. Without one the choice is nested: on each fold the other folds choose, and on each
    fifth of a validation set the other fifths, see `cross_validate_selection`.

    Args:
      results: results by the name of the feature set.
      on: name of the evaluation set; None: the first test set that all have, or else the validation set.

    Raises:
      ValueError: if there are no results, or they have other seeds, folds, numbers of examples or groups, if
        every configuration of one diverged, or halving has chosen by the examples that compare.
      KeyError: if one has no such evaluation set.
    """
    if not isinstance(results, Mapping) or not all(isinstance(value, Result) for value in results.values()):
        raise ValueError(f"results is {describe(results)}: give results of fit by name")
    if not results:
        raise ValueError("there are no results to compare")
    first_name, first = next(iter(results.items()))
    if on is None:
        tests = (name for name in first.marks if name.startswith(TEST))
        on = next((name for name in tests if all(name in result.marks for result in results.values())), None)
        on = on or first.chosen_by or ""
    groups = first.groups_of(on)
    for name, result in results.items():
        own = result.groups_of(on)
        for what, one, other in (
            ("seeds", result.seeds, first.seeds),
            ("folds", result.folds, first.folds),
            ("examples", result.values(on, 0).shape[1], first.values(on, 0).shape[1]),
            ("groups", own if own is None else own.tolist(), groups if groups is None else groups.tolist()),
        ):
            if one != other:
                raise ValueError(f"{name} and {first_name} have other {what}: compare results of the same")
        if not result.stayed_finite.any():
            raise ValueError(f"every configuration of {name} diverged: leave it out")
    values = np.stack([_best_values(name, result, on) for name, result in results.items()], axis=1)
    means = values.mean(axis=(0, 2), dtype=np.float64)
    best, finite = int(means.argmax()), np.ones(len(results), bool)
    return Comparison(
        tuple(results),
        on,
        tuple(result.configs[result.ranking()[0]] for result in results.values()),
        tuple(estimate_accuracy(values[:, index], groups) for index in range(len(results))),
        select_best(values, best, finite, groups=groups, folds=_folds(first, on)),
        best,
    )


def _folds(result: Result, name: str) -> int:
    """Return the number of folds that divide the examples of an evaluation set."""
    return result.folds if name in result.own_rows else 0


def _best_values(name: str, result: Result, on: str) -> Bool[np.ndarray, "S n"] | Float[np.ndarray, "S n"]:
    """Return the values of the best configuration, which none of these examples has chosen."""
    if on != result.chosen_by:
        return result.values(on, result.ranking()[0])
    if result.halved:
        raise ValueError(f"halving has chosen among {name} by the examples of {on}: give a test set")
    correct = np.stack([result.values(on, c) for c in range(len(result.configs))], axis=1)
    part_of = assign_parts(correct.shape[2], _folds(result, on), result.groups_of(on))
    return choose_without_part(correct, part_of, result.stayed_finite)
