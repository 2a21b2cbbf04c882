import numpy as np
import pytest
from scipy import stats

from linear_cifar.comparison import best_per_seed, half_width, rank, standard_error


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
