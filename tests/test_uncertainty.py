"""Intervals over seeds and examples against a loop, closed forms and a short simulation.

`tests/simulations.py` is the long form.
"""

import numpy as np
import pytest
import simulations
from scipy import stats

import linear_cifar as lc
from linear_cifar.uncertainty import best_per_seed, half_width, rank, standard_error


def draw(shape, seed=0, p=0.6):
    return np.random.default_rng(seed).random(shape) < p


def anova(values):
    """Return the mean squares of seeds, examples and the rest, by plain loops."""
    S, n = values.shape
    mean = values.mean()
    seeds = sum(n * (row.mean() - mean) ** 2 for row in values) / (S - 1)
    examples = sum(S * (column.mean() - mean) ** 2 for column in values.T) / (n - 1)
    rest = sum(
        (values[s, i] - values[s].mean() - values[:, i].mean() + mean) ** 2
        for s in range(S)
        for i in range(n)
    ) / ((S - 1) * (n - 1))
    return seeds, examples, rest


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_the_parts_are_those_of_the_analysis_of_variance(shared):
    S, n = 4, 30
    per_example = np.where(draw((1, n), 1, shared), draw((1, n), 2), draw((S, n), 3))
    first, second = per_example, draw((S, n), 4)
    values = first.astype(float) - second
    seeds, examples, rest = anova(values)
    estimate = lc.estimate_difference(first, second)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.from_seeds**2 == pytest.approx(max(seeds - rest, 0) / (S * n), abs=1e-15)
    assert estimate.from_examples**2 == pytest.approx(max(examples - rest, 0) / (S * n), abs=1e-15)
    assert estimate.from_interaction**2 == pytest.approx(rest / (S * n))
    parts = estimate[3:]
    assert estimate.stderr**2 == pytest.approx(sum(part**2 for part in parts))
    variance = sum(part**2 for part in parts) * S * n
    degrees = variance**2 / (seeds**2 / (S - 1) + examples**2 / (n - 1) + rest**2 / ((S - 1) * (n - 1)))
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, max(degrees, S - 1)) * estimate.stderr)


def test_one_seed_gives_the_interval_over_examples():
    correct = draw((1, 200))
    estimate = lc.estimate_accuracy(correct)
    low, high = stats.t.interval(0.95, 199, correct.mean(), stats.sem(correct[0].astype(float)))
    assert (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width) == pytest.approx(
        (low, high)
    )
    assert np.isnan(estimate.from_seeds)
    assert np.isnan(estimate.from_interaction)
    assert estimate.from_examples == estimate.stderr


def test_seeds_that_agree_on_every_example_add_nothing():
    once = draw((1, 100))
    alone, repeated = lc.estimate_accuracy(once), lc.estimate_accuracy(np.repeat(once, 5, axis=0))
    assert repeated.stderr == pytest.approx(alone.stderr)
    assert repeated.from_seeds == repeated.from_interaction == 0
    equal = lc.estimate_difference(once, once)
    assert (equal.mean, equal.stderr, equal.half_width) == (0, 0, 0)


def test_more_seeds_than_examples():
    # Only the examples differ: their number decides the width.
    right = np.array([True, False, True, True])
    estimate = lc.estimate_accuracy(np.repeat(right[None, :], 50, axis=0))
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(right.astype(float)))


def test_only_the_seeds_differ():
    # Each seed is right on all examples or on none: the examples add nothing.
    right = np.array([True, False, True, True])
    estimate = lc.estimate_accuracy(np.repeat(right[:, None], 50, axis=1))
    assert estimate.stderr == pytest.approx(stats.sem(right.astype(float)))
    assert estimate.half_width == pytest.approx(stats.t.ppf(0.975, 3) * estimate.stderr)


def set_by_loop(correct):
    """Return the set by one test for each pair, with plain loops."""
    S, C, n = correct.shape
    kept = np.ones(C, bool)
    for c in range(C):
        for rival in set(range(C)) - {c}:
            values = correct[:, c].astype(float) - correct[:, rival]
            seeds, examples, rest = anova(values)
            total = max(seeds - rest, 0) + max(examples - rest, 0) + rest
            squares = seeds**2 / (S - 1) + examples**2 / (n - 1) + rest**2 / ((S - 1) * (n - 1))
            degrees = max(total**2 / squares, min(S, n) - 1) if squares else 1
            quantile = stats.t.ppf(1 - 0.05 / (C - 1), degrees)
            kept[c] &= values.mean() + quantile * np.sqrt(total / (S * n)) >= 0
    return kept


@pytest.mark.parametrize("C", [2, 6, 14])
def test_the_set_tests_every_pair(C):
    S, n = 4, 40
    rng = np.random.default_rng(C)
    correct = rng.random((S, C, n)) < np.linspace(0.3, 0.8, C)[None, :, None]
    chosen = lc.confidence_set(correct)
    assert chosen.tolist() == set_by_loop(correct).tolist()
    assert 1 <= chosen.sum() < C
    assert chosen[correct.mean(axis=(0, 2)).argmax()]


def test_a_rival_that_is_not_among_the_ten_best_can_leave_a_configuration_out():
    # Eleven that vary much, and then two that are alike but for eight examples on which the second is wrong.
    S, n = 6, 100
    noisy = np.random.default_rng(1).random((S, 11, n)) < 0.5
    alike = np.repeat((np.arange(n) < 47)[None, None], S, axis=0)
    worse = alike.copy()
    worse[:, :, :8] = False
    correct = np.concatenate([noisy, alike, worse], axis=1)
    assert np.argsort(-correct.mean(axis=(0, 2)))[11] == 11
    assert lc.confidence_set(np.concatenate([noisy, worse], axis=1))[11]
    assert not lc.confidence_set(correct)[12]
    assert lc.confidence_set(correct).tolist() == set_by_loop(correct).tolist()


def test_equal_configurations_are_all_kept_and_a_diverged_one_is_not():
    correct = np.repeat(draw((3, 1, 200), p=0.7), 4, axis=1)
    assert lc.confidence_set(correct).all()
    assert lc.confidence_set(correct[:, :1]).tolist() == [True]
    diverged = np.zeros((3, 4), bool)
    diverged[1, 3] = True
    assert lc.confidence_set(correct, diverged).tolist() == [True, True, True, False]
    better = correct.copy()
    better[:, 3] = True
    assert lc.confidence_set(better).tolist() == [False, False, False, True]
    assert lc.confidence_set(better, diverged).tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="no configuration that did not diverge"):
        lc.confidence_set(correct, np.ones((3, 4), bool))


def test_a_winner_by_chance_is_not_praised():
    # All configurations are equally good: the best one is above 0.6 by chance, and the estimate is not.
    rng = np.random.default_rng(0)
    accuracies = rng.binomial(200, 0.6, size=(300, 1, 5, 50)) / 200
    estimates = [lc.cross_validate_selection(accuracy).mean() for accuracy in accuracies]
    winners = accuracies.mean(axis=(1, 2)).max(axis=1)
    assert np.mean(estimates) == pytest.approx(0.6, abs=4 * stats.sem(estimates))
    assert winners.mean() > 0.63


def test_the_selection_is_made_by_the_other_folds():
    # By folds 1 and 2 the first is chosen, by 0 and 2 the second, by 0 and 1 the first; the third diverged.
    accuracy = np.array([[[0.1, 0.6, np.nan], [0.9, 0.2, 0.9], [0.3, 0.5, 0.9]]])
    np.testing.assert_allclose(lc.cross_validate_selection(accuracy), [0.1, 0.2, 0.3])
    for wrong in (accuracy[:, :1], np.full((1, 2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"folds ≥ 2|every configuration diverged"):
            lc.cross_validate_selection(wrong)


@pytest.mark.parametrize("n", [7, 2_300])
def test_right_predictions_are_marked(n):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n)
    examples = lc.make_examples(x, labels, 3)
    W, b = rng.normal(size=(2, 3, 3, 4)).astype(np.float32), rng.normal(size=(2, 3, 3)).astype(np.float32)
    W[1, 2, 0, 0] = np.nan  # a diverged run
    marked = lc.mark_correct(lc.Params(W, b), examples)
    expected = (np.einsum("scki,ni->scnk", W, x) + b[:, :, None]).argmax(axis=-1) == labels
    expected[1, 2] = False
    np.testing.assert_array_equal(marked, expected)
    (single,) = lc.mark_correct(lc.Params(W[:1, 0], b[:1, 0]), examples)
    np.testing.assert_array_equal(single, expected[0, 0])
    scales = lc.Standardizer(rng.normal(size=(2, 4)), rng.uniform(0.5, 2, size=(2, 4)))
    z = (x - scales.mean[:, None]) / scales.std[:, None]  # [2, n, 4]
    expected = (np.einsum("scki,sni->scnk", W, z) + b[:, :, None]).argmax(axis=-1) == labels
    expected[1, 2] = False
    marked_scaled = lc.mark_correct(lc.Params(W, b), examples, scales)
    assert (marked_scaled == expected).mean() > 0.999  # rounding may decide a prediction
    accuracy = lc.evaluate(lc.Params(W[0], b[0]), examples, lc.get_loss("softmax")).accuracy
    np.testing.assert_allclose(marked[0].mean(axis=-1), accuracy, atol=1e-6)


def test_the_interval_of_a_share_is_that_of_a_proportion_of_its_subset():
    # 400 of 1,000 examples are in the subset, 120 of these count.
    denominators = (np.arange(1_000) < 400).astype(float)[None]
    numerators = (np.arange(1_000) < 120).astype(float)[None]
    values = lc.linearize_ratio(numerators, denominators)
    estimate = lc.estimate_accuracy(values)
    assert estimate.mean == pytest.approx(0.3)
    assert estimate.stderr == pytest.approx(np.sqrt(0.3 * 0.7 / 400), rel=0.002)
    # Each seed has a share of its own.
    two = lc.linearize_ratio(np.repeat(numerators, 2, axis=0), np.concatenate([denominators, numerators]))
    np.testing.assert_allclose(two.mean(axis=1), [0.3, 1.0])


@pytest.mark.parametrize("shape", [(0, 5), (3, 1)])
def test_too_few_seeds_or_examples_are_refused(shape):
    with pytest.raises(ValueError, match="at least one seed and two examples"):
        lc.estimate_accuracy(np.zeros(shape, bool))


@pytest.mark.parametrize("confidence", [0.4, 1.0])
def test_a_confidence_that_means_nothing_is_refused(confidence):
    with pytest.raises(ValueError, match=r"give 0.5 to below 1"):
        lc.confidence_set(draw((2, 3, 5)), confidence=confidence)


def test_different_seeds_are_refused():
    with pytest.raises(ValueError, match=r"give one shape \[seeds, examples\]"):
        lc.estimate_difference(draw((2, 5)), draw((3, 5)))


@pytest.mark.parametrize("S", [2, 3, 5, 20])
def test_the_interval_is_scipys(S):
    values = np.random.default_rng(0).normal(0.4, 0.1, (S, 12))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(half_width(values), (high - low) / 2)
    np.testing.assert_allclose(standard_error(values), stats.sem(values))


def test_one_in_twenty_equal_configurations_differs_by_chance():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(4, 4000))
    share = np.mean(np.abs(differences.mean(axis=0)) > half_width(differences))
    assert share == pytest.approx(0.05, abs=0.015)


def test_a_small_case_by_hand():
    # Deviation 1, error 1/√3; the interval is ± 4.303 of these.
    assert half_width(np.array([-1.0, -2.0, -3.0])) == pytest.approx(2.4841, abs=1e-4)
    assert half_width(np.array([0.5, 0.5])) == 0


def test_one_seed_gives_no_interval():
    assert np.isnan(standard_error(np.array([1.0])))
    assert np.isnan(half_width(np.array([1.0])))


def test_there_must_be_something_to_choose_from():
    with pytest.raises(ValueError, match="no configurations"):
        best_per_seed(np.zeros((3, 0)), np.zeros((3, 0)))


def test_each_seed_chooses_as_a_loop_does():
    rng = np.random.default_rng(0)
    accuracy = rng.integers(0, 4, (200, 6)) / 4  # so that many tie
    loss = rng.integers(0, 3, (200, 6)) / 2
    diverged = rng.random((200, 6)) < 0.3
    accuracy[diverged], loss[diverged] = np.nan, np.nan
    for s, chosen in enumerate(best_per_seed(loss.astype(np.float32), accuracy.astype(np.float32))):
        best = 0
        for c in range(6):
            if diverged[s, c]:
                continue
            better = accuracy[s, c] > accuracy[s, best] or (
                accuracy[s, c] == accuracy[s, best] and loss[s, c] < loss[s, best]
            )
            if diverged[s, best] or better:
                best = c
        assert chosen == best


def test_one_seed_chooses_what_ranks_first():
    accuracy = np.array([[0.2, 0.4, np.nan, 0.4]])
    loss = np.array([[1.0, 2.0, np.nan, 1.5]])
    assert rank(loss, accuracy) == [3, 1, 0, 2]
    assert best_per_seed(loss, accuracy).tolist() == [3]


@pytest.mark.parametrize(("seeds", "least", "most"), [(1, 0.93, 1), (3, 0.94, 1), (10, 0.93, 0.985)])
def test_intervals_cover_the_truth(seeds, least, most):
    for regime in simulations.REGIMES:
        coverage = simulations.measure_coverage(regime, seeds, 200, draws=1_000).seeds_and_examples
        # Two standard errors of 1,000 draws are 1.5 points.
        assert least - 0.015 <= coverage <= min(1, most + 0.01), regime


def test_the_set_holds_the_best():
    for ties in (0, 4):
        coverage, size = simulations.measure_sets(5, 10, 200, ties, draws=300)
        assert coverage >= 0.92
        assert size > 4.7 if ties else size < 2
