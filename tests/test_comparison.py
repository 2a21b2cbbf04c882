import numpy as np
import pytest
from scipy import stats

from linear_cifar.comparison import best_per_seed, compare, half_width, rank, standard_error


def runs(S=5, C=12):
    """Accuracies whose seeds differ by far more than their configurations."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (S, 1)) + np.linspace(0.4, 0.38, C) + rng.normal(0, 0.01, (S, C))


@pytest.mark.parametrize("S", [2, 3, 5, 20])
def test_matches_scipys_paired_test(S):
    values, best = runs(S), 4
    compared = compare(values, best)
    others = np.arange(12) != best
    test = stats.ttest_rel(values[:, others], values[:, [best]])
    np.testing.assert_allclose(compared.difference[others] / compared.stderr[others], test.statistic)
    np.testing.assert_array_equal(compared.significant[others], test.pvalue < 0.05)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose(half_width(values - values[:, [best]])[others], (high - low) / 2)
    assert compared.wins.tolist() == [sum(row[c] > row[best] for row in values) for c in range(12)]
    assert (compared.difference[best], compared.stderr[best], compared.significant[best]) == (0, 0, False)


def test_some_random_configurations_differ_significantly():
    significant = compare(runs(), 0).significant
    assert 0 < significant.sum() < 11


def test_one_in_twenty_equal_configurations_differs_by_chance():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(4, 4000))
    share = np.mean(np.abs(differences.mean(axis=0)) > half_width(differences))
    assert share == pytest.approx(0.05, abs=0.015)


def test_a_small_case_by_hand():
    # Differences -1, -2, -3: mean -2, deviation 1, error 1/√3; the interval is ± 4.303 of these.
    values = np.array([[4.0, 3.0], [6.0, 4.0], [8.0, 5.0]])
    compared = compare(values, 0)
    np.testing.assert_allclose(compared.difference, [0, -2])
    np.testing.assert_allclose(compared.stderr, [0, 1 / np.sqrt(3)])
    assert compared.wins.tolist() == [0, 0]
    assert not compared.significant[1]  # 4.303 / √3 = 2.48
    assert half_width(np.array([-1.0, -2.0, -3.0])) == pytest.approx(2.4841, abs=1e-4)
    assert compare(values - [0, 1], 0).significant[1]  # -3 is outside


def test_pairing_finds_differences_that_the_scatter_of_seeds_hides():
    seeds = np.array([[0.30], [0.35], [0.40], [0.45]])
    values = seeds + np.array([0, -0.01]) + np.array([[0, 0], [0, 0.001], [0, -0.001], [0, 0]])
    assert stats.ttest_ind(*values.T).pvalue > 0.5
    assert compare(values, 0).significant[1]
    # The same values, paired with other seeds.
    assert not compare(np.stack([values[:, 0], np.roll(values[:, 1], 1)], axis=1), 0).significant[1]


def test_constant_differences_are_significant_unless_zero():
    values = np.array([[0.5, 0.5, 0.25, 0.75], [0.25, 0.25, 0.0, 0.5]], np.float32)
    compared = compare(values, 0)
    assert compared.stderr.tolist() == [0, 0, 0, 0]
    assert compared.difference.tolist() == [0, 0, -0.25, 0.25]
    assert compared.significant.tolist() == [False, False, True, True]
    assert compared.wins.tolist() == [0, 0, 0, 2]  # a tie is not won


def test_a_diverged_configuration_differs_significantly():
    compared = compare(np.array([[0.5, np.nan, 0.4], [0.4, 0.9, 0.6]]), 0)
    np.testing.assert_allclose(compared.difference, [0, np.nan, 0.05])
    assert np.isnan(compared.stderr).tolist() == [False, True, False]
    assert compared.significant.tolist() == [False, True, False]
    assert compared.wins.tolist() == [0, 1, 1]


def test_nothing_is_known_if_the_best_diverged():
    compared = compare(np.array([[np.nan, np.nan], [0.4, 0.9]]), 0)
    assert np.isnan(compared.difference).all()
    assert compared.significant.tolist() == [False, True]


def test_with_one_seed_only_diverged_configurations_differ():
    compared = compare(np.array([[0.5, 0.1, np.nan]]), 0)
    np.testing.assert_allclose(compared.difference, [0, -0.4, np.nan])
    assert np.isnan(compared.stderr).all()
    assert compared.significant.tolist() == [False, False, True]
    assert np.isnan(standard_error(np.array([1.0])))


@pytest.mark.parametrize("best", [-1, 12])
def test_the_best_must_be_an_index(best):
    with pytest.raises(ValueError, match=f"best is {best}: there are 12"):
        compare(runs(), best)


def test_there_must_be_something_to_compare():
    with pytest.raises(ValueError, match="no seeds"):
        compare(np.zeros((0, 3)), 0)
    with pytest.raises(ValueError, match="there are 0 configurations"):
        compare(np.zeros((3, 0)), 0)
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
