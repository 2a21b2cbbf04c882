import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar.evaluation import EXAMPLES_AT_ONCE, evaluate
from linear_cifar.examples import Examples
from linear_cifar.losses import LOSSES
from linear_cifar.params import Params
from linear_cifar.standardizer import Standardizer, fit_standardizer


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("n", [7, EXAMPLES_AT_ONCE, 2 * EXAMPLES_AT_ONCE + 3])
def test_matches_numpy_for_every_configuration(loss, n):
    rng = np.random.default_rng(0)
    runs, d, K = (2, 3), 5, 4
    W, b = rng.normal(size=(*runs, K, d)), rng.normal(size=(*runs, K))
    pixels, y = rng.integers(0, 256, size=(n, d), dtype=np.uint8), np.eye(K)[rng.integers(0, K, n)]
    standardizer = fit_standardizer(pixels)
    params, examples = Params(jnp.array(W), jnp.array(b)), Examples(jnp.array(pixels), jnp.array(y))
    measured = evaluate(params, examples, loss, standardizer)
    x = (pixels - standardizer.mean) / standardizer.std
    assert measured.loss.shape == measured.accuracy.shape == runs
    for c in np.ndindex(runs):
        logits = x @ W[c].T + b[c]
        np.testing.assert_allclose(measured.loss[c], problems.reference_loss(loss.name, logits, y).mean())
        np.testing.assert_allclose(measured.accuracy[c], (logits.argmax(1) == y.argmax(1)).mean())


def test_replicates_are_evaluated_with_standardisers_of_their_own():
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4))
    x, y = rng.normal(size=(9, 5)), np.eye(4)[rng.integers(0, 4, 9)]
    mean, std = rng.normal(size=(2, 5)), rng.random((2, 5)) + 0.5
    params, examples = Params(jnp.array(W), jnp.array(b)), Examples(jnp.array(x), jnp.array(y))
    measured = evaluate(params, examples, LOSSES["softmax"], Standardizer(mean, std))
    for s, c in np.ndindex(2, 3):
        logits = (x - mean[s]) / std[s] @ W[s, c].T + b[s, c]
        expected = problems.reference_loss("softmax", logits, y).mean()
        np.testing.assert_allclose(measured.loss[s, c], expected)


def test_without_a_standardiser_features_are_used_as_they_are():
    W, b, x, y = problems.problem()
    params, examples = Params(jnp.array(W), jnp.array(b)), Examples(jnp.array(x), jnp.array(y))
    measured = evaluate(params, examples, LOSSES["bce"])
    np.testing.assert_allclose(measured.loss, problems.reference_loss("bce", x @ W.T + b, y).mean())


def test_weights_that_are_not_finite_have_no_accuracy():
    examples = Examples(np.ones((4, 2)), np.eye(2)[[0, 1, 0, 1]])
    params = Params(np.array([np.ones((2, 2)), np.full((2, 2), np.nan)]), np.zeros((2, 2)))
    measured = evaluate(params, examples, "softmax")
    np.testing.assert_array_equal(measured.accuracy, [0.5, np.nan])
