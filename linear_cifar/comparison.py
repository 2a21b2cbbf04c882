"""Comparison of feature sets, such as those of several networks, by each one's best configuration."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from linear_cifar.arguments import describe
from linear_cifar.config import Config
from linear_cifar.result import TEST, Result
from linear_cifar.uncertainty import (
    Estimate,
    Groups,
    Selection,
    assign_parts,
    choose_without_part,
    estimate_accuracy,
    select_best,
)

# Values of each configuration, or whether its predictions are right, by seed and example.
Values = Bool[np.ndarray, "S C n"] | Float[np.ndarray, "S C n"]


class Comparison(NamedTuple):
    """Feature sets compared by the accuracy of each one's best configuration."""

    names: tuple[str, ...]  # of the feature sets
    on: str  # name of the evaluation set that compares them
    configs: tuple[Config, ...]  # the best of each, by all examples that choose
    accuracy: tuple[Estimate, ...]  # of each, chosen without the examples that measure it
    selection: Selection  # differences from the best, which may be the best, what choosing it reaches
    best: int  # index of the one that the others are compared with


def compare(results: Mapping[str, Result], on: str | None = None) -> Comparison:
    """Compare feature sets by each one's best configuration, paired by seed and by example.

    The results are of sweeps on the same examples in the same order, from the same seeds and in the same
    folds. No example that measures a feature set has chosen its configuration. On a test set each has its
    best by validation. Without one, each fold is measured with the choice of the other folds, and each fifth
    of a validation set with that of the other fifths, see `cross_validate_selection`.

    Choices follow one another on the same examples then, so that intervals of their differences would be too
    short. Therefore all configurations of all feature sets are compared at once, see `confidence_set`: a
    feature set may be the best if one of its configurations may be, and its difference is that of its best.
    The luck of the seeds with a chosen configuration stays in all numbers.

    Args:
      results: results by the name of the feature set.
      on: name of the evaluation set; None: the first test set that all have, or else the validation set.

    Raises:
      ValueError: if there are no results, or they have other seeds, folds, numbers of examples or groups, if
        every configuration of one diverged, or none of the other examples has chosen.
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
        on = on or first.chosen_by
        if on is None:
            raise ValueError("there is no test or validation set that all results have")
    groups = first.groups_of(on)
    for name, result in results.items():
        for what, describe_examples in (
            ("seeds", lambda result: result.seeds),
            ("folds", lambda result: result.folds),
            ("numbers of examples", lambda result: result.values(on, 0).shape[1]),
            ("groups", lambda result: np.asarray(result.groups_of(on)).tolist()),
        ):
            if describe_examples(result) != describe_examples(first):
                raise ValueError(f"{name} and {first_name} have other {what}: compare results of the same")
        if not result.stayed_finite.any():
            raise ValueError(f"every configuration of {name} diverged: leave it out")
    folds = first.folds if on in first.own_rows else 0
    candidates = [_candidates(name, result, on) for name, result in results.items()]
    correct = [
        np.stack([result.values(on, c) for c in chosen], axis=1)
        for result, chosen in zip(results.values(), candidates, strict=True)
    ]
    values, selection = compare_values(correct, groups, folds)
    return Comparison(
        tuple(results),
        on,
        tuple(result.configs[result.ranking()[0]] for result in results.values()),
        tuple(estimate_accuracy(measured, groups) for measured in values),
        selection,
        int(np.argmax([difference.mean for difference in selection.difference])),
    )


def compare_values(
    correct: Sequence[Values], groups: Groups = None, folds: int = 0
) -> tuple[list[Shaped[np.ndarray, "S n"]], Selection]:
    """Compare feature sets by whether the predictions of their configurations are right.

    Args:
      correct: [S, C, n] of each feature set, on the same examples; C may differ.
      groups: see `estimate_accuracy`.
      folds: number of folds, one after another among the examples; 0: there are none.

    Returns:
      The values of each feature set's best, which other examples have chosen, and the selection among the
      feature sets, see `compare`.
    """
    counts = [values.shape[1] for values in correct]
    finite = np.ones(sum(counts), bool)
    part_of = assign_parts(correct[0].shape[2], folds, groups)
    if max(counts) > 1 and not part_of.any():
        raise ValueError("one example, or one group, cannot choose and measure: give more")
    measured = [
        values[:, 0] if C == 1 else choose_without_part(values, part_of, finite[:C])
        for values, C in zip(correct, counts, strict=True)
    ]
    joined, ends = np.concatenate(correct, axis=1), np.cumsum(counts)[:-1]
    best = int(joined.mean(axis=(0, 2), dtype=np.float64).argmax())
    whole = select_best(joined, best, finite, groups=groups, folds=folds)
    table = np.array([estimate[:3] for estimate in whole.difference])
    difference = [Estimate(*part.max(axis=0).tolist()) for part in np.split(table, ends)]
    may_be_best = np.array([part.any() for part in np.split(whole.may_be_best, ends)])
    return measured, whole._replace(difference=difference, may_be_best=may_be_best)


def _candidates(name: str, result: Result, on: str) -> list[int]:
    """Return the configurations to compare: the best one, or all finite ones where these examples choose."""
    if on != result.chosen_by:
        if result.chosen_by is None and len(result.configs) > 1:
            raise ValueError(
                f"{name} has no validation set to choose among {len(result.configs)} configurations"
            )
        return result.ranking()[:1]
    if result.halved:
        raise ValueError(f"halving has chosen among {name} by the examples of {on}: give a test set")
    return np.flatnonzero(result.stayed_finite).tolist()
