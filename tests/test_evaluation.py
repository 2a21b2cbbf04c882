import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar.evaluation import CHUNK, Examples, evaluate, examples
from linear_cifar.losses import LOSSES
from linear_cifar.params import Params
from linear_cifar.standardizer import fit_standardizer


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("n", [7, CHUNK, 2 * CHUNK + 3])
def test_matches_numpy_for_every_configuration(loss, n):
    rng = np.random.default_rng(0)
    runs, d, K = (2, 3), 5, 4
    W, b = rng.normal(size=(*runs, K, d)), rng.normal(size=(*runs, K))
    pixels, y = rng.integers(0, 256, size=(n, d), dtype=np.uint8), np.eye(K)[rng.integers(0, K, n)]
    standardizer = fit_standardizer(pixels)
    measured = evaluate(
        Params(jnp.array(W), jnp.array(b)), Examples(jnp.array(pixels), jnp.array(y)), standardizer, loss
    )
    x = (pixels - standardizer.mean) / standardizer.std
    assert measured.loss.shape == measured.accuracy.shape == runs
    for c in np.ndindex(runs):
        scores = x @ W[c].T + b[c]
        np.testing.assert_allclose(measured.loss[c], problems.reference_loss(loss.name, scores, y).mean())
        np.testing.assert_allclose(measured.accuracy[c], (scores.argmax(1) == y.argmax(1)).mean())


def test_examples_are_one_hot():
    made = examples(jnp.zeros((3, 2)), jnp.array([2, 0, 1]), K=3)
    assert made.targets.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert isinstance(made.features, jax.Array)
