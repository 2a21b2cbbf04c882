"""Simulate accuracies whose truth is known, and measure how often the intervals and the sets cover it.

    python tests/simulations.py

takes about an hour on 2 cores; `tests/test_uncertainty.py` is the short form. A run predicts an example right
if θ √v + a + b + e > 0, where a is of the seed, b of the example, and e of both. All three are normal, and v
is the sum of their variances, so that the true accuracy is Φ(θ). Two configurations share most of a and b.
Where there are groups, such as patients, an effect of the group is added.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).parent.parent))


class Regime(NamedTuple):
    """Latent variances: of seeds, of examples, of both together, and of groups."""

    name: str
    seeds: float
    examples: float
    interaction: float
    groups: float = 0.0


# A low η: seeds hardly matter. A middle one. A high η: the accuracy jumps from seed to seed.
REGIMES = STABLE, MIDDLE, CHAOTIC = (
    Regime("stable", 0.0005, 0.95, 0.0495),
    Regime("middle", 0.01, 0.6, 0.39),
    Regime("chaotic", 0.15, 0.5, 0.35),
)
# Half a point from seed to seed, as configurations of a low η on CIFAR-10.
MEASURED = Regime("measured", 0.00015, 0.92, 0.07985)
# Examples of a group agree hardly, somewhat or mostly.
GROUPED = tuple(
    Regime(f"{100 * share:g} %", 0.01, 0.6 * (0.99 - share), 0.4 * (0.99 - share), share)
    for share in (0.05, 0.3, 0.8)
)
# Correlation of the effects of two configurations.
SHARED = 0.95
# How the variances between seeds differ among configurations: not at all; they grow as accuracy falls; they
# differ at random; or three are 100 times as large, and in the end the best one's too. Where they differ, the
# effects of the seeds are not shared.
SCATTERS = EVEN, TREND, SCATTERED, OUTLIERS, BEST_TOO = "even", "trend", "scattered", "outliers", "best too"
# True accuracies: all are equal; one is 8 points better than the others; one is half a point better; or five
# are equal, and 2 points better than the others.
TIES, CLEAR, NEAR, FIVE = SHAPES = "ties", "clear", "near", "five"


def draw_correct(
    rng: np.random.Generator,
    thetas: Sequence[float],
    regime: Regime,
    seeds: int,
    examples: int,
    factors: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Return whether C configurations are right, [seeds, C, examples].

    Args:
      rng: source of random numbers.
      thetas: Φ of these are the true accuracies.
      regime: latent variances.
      seeds, examples: their numbers.
      factors: factors of each configuration's variance between seeds; None: all are 1, and the effects of the
        seeds are shared.
      groups: group of each example, whole numbers from 0; None: there are none.
    """

    def draw_effects(*shape: int) -> np.ndarray:
        """Draw effects [C, ...] of variance 1 that the configurations share in part."""
        common, apart = (
            rng.standard_normal(shape, np.float32),
            rng.standard_normal((len(thetas), *shape), np.float32),
        )
        return np.float32(np.sqrt(SHARED)) * common + np.float32(np.sqrt(1 - SHARED)) * apart

    between_seeds = regime.seeds * (np.ones(len(thetas)) if factors is None else factors)
    a = draw_effects(seeds) if factors is None else rng.standard_normal((len(thetas), seeds), np.float32)
    a = np.sqrt(between_seeds).astype(np.float32)[:, None] * a
    b = np.float32(np.sqrt(regime.examples)) * draw_effects(examples)
    if groups is not None:
        b += np.float32(np.sqrt(regime.groups)) * draw_effects(groups.max() + 1)[:, groups]
    total = np.sqrt(between_seeds + regime.examples + regime.interaction + regime.groups)
    scaled = (np.asarray(thetas) * total).astype(np.float32)
    correct = np.empty((seeds, len(thetas), examples), bool)
    for s in range(seeds):
        e = rng.standard_normal((len(thetas), examples), np.float32)
        e *= np.float32(np.sqrt(regime.interaction))
        e += b
        correct[s] = e > -(scaled + a[:, s])[:, None]
    return correct


class Coverage(NamedTuple):
    """The share of intervals that cover the truth, and the mean half width over seeds and examples."""

    seeds_and_examples: float
    seeds_alone: float  # of the interval that takes the examples as given
    half_width: float
    without_groups: float  # of the interval that takes the examples of a group as independent


def measure_coverage(
    regime: Regime,
    seeds: int,
    examples: int,
    draws: int,
    accuracies: Sequence[float] = (0.5, 0.48),
    num_groups: int = 0,
    equal: bool = True,
) -> Coverage:
    """Measure how often the interval of an accuracy, or of the difference of two, covers the true one.

    With one seed the truth is that of its weights: their accuracy over all examples.

    Args:
      regime, seeds, examples: see `draw_correct`.
      draws: number of simulated sweeps.
      accuracies: the true one, or the true two.
      num_groups: number of groups; 0: there are none.
      equal: whether groups are of equal size. If not, sizes scatter as much as their mean.
    """
    from linear_cifar.uncertainty import estimate_accuracy, estimate_difference, half_width

    rng = np.random.default_rng(0)
    covered, covered_by_seeds, covered_without, widths = 0, 0, 0, []
    groups = np.arange(examples) * num_groups // examples if num_groups else None
    for _ in range(draws):
        if not equal:
            shares = rng.dirichlet(np.ones(num_groups))
            sizes = 1 + rng.multinomial(examples - num_groups, shares)
            groups = np.repeat(np.arange(num_groups), sizes)
        thetas, drawn_from = ndtri(np.array(accuracies)), regime
        if seeds == 1:
            effects = np.sqrt(regime.seeds) * rng.standard_normal(len(thetas))
            thetas = (thetas + effects) / np.sqrt(1 - regime.seeds)
            drawn_from = regime._replace(seeds=0.0)
        correct = draw_correct(rng, thetas, drawn_from, seeds, examples, groups=groups)
        members = [correct[:, c] for c in range(len(thetas))]
        measure = estimate_difference if len(members) == 2 else estimate_accuracy
        estimate = measure(*members, groups=groups)
        truth = np.dot(ndtr(thetas), [1, -1][: len(thetas)])
        covered += estimate.low <= truth <= estimate.high
        without = estimate if groups is None else measure(*members)
        covered_without += without.low <= truth <= without.high
        by_seed = np.tensordot([1, -1][: len(thetas)], [member.mean(axis=1) for member in members], 1)
        covered_by_seeds += abs(by_seed.mean() - truth) <= half_width(by_seed)  # NaN with one seed
        widths.append((estimate.high - estimate.low) / 2)
    shares = (count / draws for count in (covered, covered_by_seeds, covered_without))
    covered, covered_by_seeds, covered_without = shares
    return Coverage(covered, covered_by_seeds, float(np.mean(widths)), covered_without)


def draw_factors(rng: np.random.Generator, scatter: str, thetas: np.ndarray) -> np.ndarray | None:
    """Return factors of the variance between seeds, see `SCATTERS`."""
    factors = np.ones(len(thetas))
    if scatter == EVEN:
        return None
    if scatter == TREND:
        return np.exp(-6.4 * thetas)  # 15 times the standard deviation where accuracy is 30 points lower
    if scatter == SCATTERED:
        return np.exp(rng.standard_normal(len(thetas)))
    factors[rng.choice(len(thetas), min(3, len(thetas) // 4), replace=False)] = 100
    if scatter == BEST_TOO:
        factors[0] = 100
    return factors


def measure_sets(
    configs: int,
    seeds: int,
    examples: int,
    shape: str,
    draws: int,
    regime: Regime = MIDDLE,
    scatter: str = EVEN,
) -> tuple[float, float]:
    """Return how often the set holds the best configuration, and its mean size.

    Args:
      configs: number of configurations.
      seeds: number of seeds.
      examples: number of examples.
      shape: true accuracies, see `SHAPES`. Among equally good ones the set must hold a particular one.
      draws: number of simulated sweeps.
      regime: their latent variances.
      scatter: differences of the variances between seeds, see `SCATTERS`.
    """
    from linear_cifar.uncertainty import confidence_set

    rng = np.random.default_rng(0)
    best = {TIES: configs, FIVE: min(5, configs)}.get(shape, 1)
    first, last = {CLEAR: (-0.2, -1.2), NEAR: (-0.01, -0.6), FIVE: (-0.05, -1.2), TIES: (0, 0)}[shape]
    thetas = np.concatenate([np.zeros(best), np.linspace(first, last, configs - best)])
    held, sizes = 0.0, []
    for _ in range(draws):
        factors = draw_factors(rng, scatter, thetas)
        chosen = confidence_set(draw_correct(rng, thetas, regime, seeds, examples, factors))
        # The equally good ones have equal chances, unless the first is an outlier.
        held += chosen[0] if scatter == BEST_TOO else chosen[:best].mean()
        sizes.append(chosen.sum())
    return held / draws, float(np.mean(sizes))


class Choice(NamedTuple):
    """How often the set holds a given one of equally good feature sets, and means above the true accuracy."""

    held: float
    chosen: float  # of what choosing a feature set is expected to reach
    measured: float  # of one feature set, whose configurations other examples have chosen
    naive: float  # of one feature set, whose configuration the same examples have chosen


def measure_choice(
    sets: int, configs: int, seeds: int, examples: int, draws: int, regime: Regime = MIDDLE
) -> tuple[Choice, Choice]:
    """Compare feature sets that are equally good, and so are all their configurations, at 60 %.

    With one seed the configurations are equally good for its weights.

    Args:
      sets: number of feature sets.
      configs: number of configurations of each.
      seeds, examples: see `draw_correct`; there are as many validation examples as test examples.
      draws: number of simulated comparisons.
      regime: latent variances.

    Returns:
      What is found on a test set, and without one.
    """
    from linear_cifar.comparison import compare_values

    rng, rows = np.random.default_rng(0), []
    if seeds == 1:
        regime = regime._replace(seeds=0.0)
    for _ in range(draws):
        drawn = draw_correct(rng, np.full(sets * configs, ndtri(0.6)), regime, seeds, 2 * examples)
        val, test = ([*np.split(half, sets, axis=1)] for half in np.split(drawn, 2, axis=2))
        best = [part.mean(axis=(0, 2)).argmax() for part in val]
        naive = np.mean([part[:, index].mean() for part, index in zip(val, best, strict=True)])
        on_test = compare_values([part[:, [index]] for part, index in zip(test, best, strict=True)])
        for values, selection in (on_test, compare_values(val)):
            found = np.mean(values), selection.expected, naive
            rows.append([selection.may_be_best.mean(), *(np.array(found)[[1, 0, 2]] - 0.6)])
    means = np.array(rows).reshape(draws, 2, 4).mean(axis=0)
    return Choice(*means[0].tolist()), Choice(*means[1].tolist())


def print_accuracies(draws: int) -> None:
    """Print how often intervals of accuracies cover the truth, near 100 % too."""
    print("regime   seeds  examples  accuracy, %  coverage, %  half width, points")
    for regime in (STABLE, CHAOTIC):
        for seeds in (1, 3, 10):
            for examples in (30, 100, 360, 10_000):
                for accuracy in (0.5, 0.9, 0.95, 0.99, 0.995):
                    covered, _, width = measure_coverage(regime, seeds, examples, draws, (accuracy,))
                    cells = f"{100 * accuracy:11}  {100 * covered:11.1f}  {100 * width:18.2f}"
                    print(f"{regime.name:8} {seeds:5}  {examples:8}  {cells}", flush=True)


def print_differences(draws: int) -> None:
    """Print how often intervals of differences cover the truth."""
    print("regime   seeds  examples  accuracies, %  coverage, %  of seeds alone, %  half width, points")
    cases = [(regime, examples, (0.5, 0.48)) for regime in REGIMES for examples in (200, 10_000)]
    cases += [
        (regime, examples, pair)
        for regime in (STABLE, CHAOTIC)
        for examples in (100, 360)
        for pair in ((0.99, 0.99), (0.995, 0.98))
    ]
    for regime, examples, pair in cases:
        for seeds in (1, 3, 10, 50) if pair[0] < 0.9 else (1, 3, 10):
            measured = measure_coverage(regime, seeds, examples, draws, pair)
            by_seeds = "-" if seeds == 1 else f"{100 * measured.seeds_alone:.1f}"
            cells = f"{100 * measured[0]:11.1f}  {by_seeds:>17}  {100 * measured[2]:18.2f}"
            accuracies = f"{100 * pair[0]:g}, {100 * pair[1]:g}"
            print(f"{regime.name:8} {seeds:5}  {examples:8}  {accuracies:>13}  {cells}", flush=True)


def print_groups(draws: int) -> None:
    """Print how often intervals cover the truth where examples agree, 20 to a group in the mean."""
    print(
        "of groups  groups  sizes    seeds  accuracies, %  coverage, %  without groups, %  half width, points"
    )
    for regime in GROUPED:
        for number in (20, 100):
            for equal in (True, False):
                for seeds in (1, 3):
                    for pair in ((0.7,), (0.98,), (0.7, 0.68), (0.98, 0.97)):
                        measured = measure_coverage(regime, seeds, 20 * number, draws, pair, number, equal)
                        accuracies = ", ".join(f"{100 * accuracy:g}" for accuracy in pair)
                        cells = (
                            f"{100 * measured[0]:11.1f}  {100 * measured[3]:17.1f}  {100 * measured[2]:18.2f}"
                        )
                        print(
                            f"{regime.name:>9}  {number:6}  {'equal' if equal else 'unequal':7}  {seeds:5}  "
                            f"{accuracies:>13}  {cells}",
                            flush=True,
                        )


def print_sets(draws: int) -> None:
    """Print how often the sets hold the best, and how large they are."""
    print("regime   scatter       configurations  seeds  examples  shape  held, %  size")
    cases = [(MIDDLE, EVEN, configs, 10, 300) for configs in (5, 48)]
    cases += [(CHAOTIC, EVEN, 48, seeds, 300) for seeds in (2, 3, 5, 10)]
    cases += [(regime, EVEN, 48, 2, 300) for regime in (MEASURED, MIDDLE)]
    cases += [(regime, scatter, 48, 3, 300) for regime in (MEASURED, MIDDLE) for scatter in SCATTERS]
    cases += [(MIDDLE, scatter, 5, 3, 300) for scatter in SCATTERS]
    for regime, scatter, configs, seeds, examples in cases:
        for shape in SHAPES:
            held, size = measure_sets(configs, seeds, examples, shape, draws, regime, scatter)
            cells = f"{configs:14}  {seeds:5}  {examples:8}  {shape:5}  {100 * held:7.1f}  {size:.1f}"
            print(f"{regime.name:8} {scatter:12} {cells}", flush=True)
    for seeds in (3, 10):
        for shape in (TIES, CLEAR):
            held, size = measure_sets(1_000, seeds, 300, shape, draws // 20)
            cells = f"{1_000:14}  {seeds:5}  {300:8}  {shape:5}  {100 * held:7.1f}  {size:.1f}"
            print(f"{MIDDLE.name:8} {EVEN:12} {cells}", flush=True)


def print_choices(draws: int) -> None:
    """Print what comparisons of equally good feature sets find."""
    print("regime   sets  configurations  seeds  examples  on     held, %  chosen  measured  naive (points)")
    for regime in (STABLE, MIDDLE):
        for case in ((2, 24, 1, 300), (12, 24, 1, 300), (12, 24, 3, 300), (12, 24, 3, 1_000)):
            for name, found in zip(("test", "val"), measure_choice(*case, draws, regime), strict=True):
                means = "  ".join(f"{100 * value:6.2f}" for value in found[1:])
                cells = "{:4}  {:14}  {:5}  {:8}".format(*case)
                print(f"{regime.name:8} {cells}  {name:4}  {100 * found.held:8.1f}  {means}", flush=True)


def main() -> None:
    """Print a row for each simulation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2_000, help="draws of each row; sets of 1,000 have 5 %%")
    parser.add_argument(
        "--part",
        choices=("accuracies", "differences", "groups", "sets", "choices"),
        help="print only this part",
    )
    arguments = parser.parse_args()
    for show in (print_accuracies, print_differences, print_groups, print_sets, print_choices):
        if arguments.part in (None, show.__name__.removeprefix("print_")):
            show(arguments.draws)


if __name__ == "__main__":
    main()
