"""Simulate accuracies whose truth is known, and measure how often the intervals and the sets cover it.

    python tests/simulations.py

takes about half an hour on 2 cores; `tests/test_uncertainty.py` is the short form. A run predicts an example
right if θ + a + b + e > 0, where a is of the seed, b of the example, and e of both. All three are normal and
their variances sum to 1, so that the true accuracy is Φ(θ). Two configurations share most of their a and b.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).parent.parent))


class Regime(NamedTuple):
    """Latent variances: of seeds, of examples, and of both together."""

    name: str
    seeds: float
    examples: float
    interaction: float


# A low η: seeds hardly matter. A middle one. A high η: the accuracy jumps from seed to seed.
REGIMES = (
    Regime("stable", 0.0005, 0.95, 0.0495),
    Regime("middle", 0.01, 0.6, 0.39),
    Regime("chaotic", 0.15, 0.5, 0.35),
)
# Correlation of the effects of two configurations.
SHARED = 0.95


def draw_correct(
    rng: np.random.Generator, thetas: Sequence[float], regime: Regime, seeds: int, examples: int
) -> np.ndarray:
    """Return whether C configurations are right, [seeds, C, examples].

    In one regime all configurations have the same spread, and so the one with the highest θ is the best.
    """

    def draw_effects(*shape: int) -> np.ndarray:
        """Draw effects [C, ...] of variance 1 that the configurations share in part."""
        common, apart = (
            rng.standard_normal(shape, np.float32),
            rng.standard_normal((len(thetas), *shape), np.float32),
        )
        return np.float32(np.sqrt(SHARED)) * common + np.float32(np.sqrt(1 - SHARED)) * apart

    a = np.float32(np.sqrt(regime.seeds)) * draw_effects(seeds)
    b = np.float32(np.sqrt(regime.examples)) * draw_effects(examples)
    correct = np.empty((seeds, len(thetas), examples), bool)
    for s in range(seeds):
        e = rng.standard_normal((len(thetas), examples), np.float32)
        e *= np.float32(np.sqrt(regime.interaction))
        e += b
        correct[s] = e > -(np.asarray(thetas, np.float32) + a[:, s])[:, None]
    return correct


class Coverage(NamedTuple):
    """The share of intervals that cover the truth, and the mean half width over seeds and examples."""

    seeds_and_examples: float
    seeds_alone: float  # of the interval that takes the examples as given
    half_width: float


def measure_coverage(regime: Regime, seeds: int, examples: int, draws: int) -> Coverage:
    """Measure how often the intervals of a difference cover the true one.

    With one seed the truth is that of its weights: their accuracy over all examples.
    """
    from linear_cifar.uncertainty import estimate_difference, half_width

    rng = np.random.default_rng(0)
    covered, covered_by_seeds, widths = 0, 0, []
    for _ in range(draws):
        thetas, scale, drawn_from = np.array([0.0, -0.05]), 1.0, regime
        if seeds == 1:
            thetas = thetas + np.sqrt(regime.seeds) * rng.standard_normal(2)
            scale, drawn_from = np.sqrt(1 - regime.seeds), regime._replace(seeds=0.0)
        correct = draw_correct(rng, thetas, drawn_from, seeds, examples)
        first, second = ndtr(thetas / scale)
        estimate = estimate_difference(correct[:, 0], correct[:, 1])
        error = abs(estimate.mean - (first - second))
        covered += error <= estimate.half_width
        by_seed = correct[:, 0].mean(axis=1) - correct[:, 1].mean(axis=1)
        covered_by_seeds += error <= half_width(by_seed)  # NaN with one seed
        widths.append(estimate.half_width)
    return Coverage(covered / draws, covered_by_seeds / draws, float(np.mean(widths)))


def measure_sets(
    configs: int, seeds: int, examples: int, ties: int, draws: int, regime: Regime = REGIMES[1]
) -> tuple[float, float]:
    """Return how often the set holds the best configuration, and its mean size.

    Args:
      configs: number of configurations.
      seeds: number of seeds.
      examples: number of examples.
      ties: number of configurations that are as good as the best. The others are 8 to 38 points worse. The
        set must hold a particular one of the best.
      draws: number of simulated sweeps.
      regime: their latent variances.
    """
    from linear_cifar.uncertainty import confidence_set

    rng = np.random.default_rng(0)
    worse = np.linspace(-0.2, -1.2, configs - 1 - ties)
    thetas = np.concatenate([np.zeros(1 + ties), worse])
    held, sizes = 0, []
    for _ in range(draws):
        chosen = confidence_set(draw_correct(rng, thetas, regime, seeds, examples))
        held += chosen[0]
        sizes.append(chosen.sum())
    return held / draws, float(np.mean(sizes))


def main() -> None:
    """Print a row for each simulation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=4_000, help="draws per interval; sets have half as many")
    draws = parser.parse_args().draws
    print("regime   seeds  examples  coverage, %  of seeds alone, %  half width, points")
    for regime in REGIMES:
        for seeds in (1, 3, 10, 50):
            for examples in (200, 10_000):
                measured = measure_coverage(regime, seeds, examples, draws)
                by_seeds = "-" if seeds == 1 else f"{100 * measured.seeds_alone:.1f}"
                cells = f"{100 * measured[0]:11.1f}  {by_seeds:>17}  {100 * measured[2]:18.2f}"
                print(f"{regime.name:8} {seeds:5}  {examples:8}  {cells}", flush=True)
    print("regime   configurations  seeds  examples  equal best  held, %  size")
    sizes = [(REGIMES[1], configs, seeds, 1_000) for configs in (5, 48) for seeds in (10, 20)]
    sizes += [(REGIMES[2], 48, seeds, 300) for seeds in (3, 5, 10)]
    sizes.append((REGIMES[1], 1_000, 10, 300))
    for regime, configs, seeds, examples in sizes:
        for ties in (0, configs - 1):
            held, size = measure_sets(configs, seeds, examples, ties, draws // 2, regime)
            cells = f"{configs:14}  {seeds:5}  {examples:8}  {1 + ties:10}  {100 * held:7.1f}  {size:.1f}"
            print(f"{regime.name:8} {cells}", flush=True)


if __name__ == "__main__":
    main()
