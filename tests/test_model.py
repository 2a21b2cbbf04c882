import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar import model
from linear_cifar.params import Params, init_params


def test_logits_are_w_x_plus_b():
    W, b, x, _ = problems.problem()
    expected = np.array([[sum(W[k] * row) + b[k] for k in range(3)] for row in x])
    np.testing.assert_allclose(
        model.compute_logits(Params(jnp.array(W), jnp.array(b)), jnp.array(x)), expected
    )


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
def test_products_on_a_cpu_are_not_rounded(precision):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 40), (40, 5)))
    product = model.multiply(jnp.array(a), jnp.array(b), precision)
    np.testing.assert_allclose(product, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)


def test_bfloat16_rounds_the_operands_and_not_the_sum():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4_000), (4_000, 5)))
    product = model.multiply(jnp.array(a), jnp.array(b), model.BFLOAT16)
    assert product.dtype == jnp.float32
    rounded = [array.astype(jnp.bfloat16).astype(np.float64) for array in (a, b)]
    np.testing.assert_allclose(product, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-3)
    assert np.abs(np.asarray(product) - a.astype(np.float64) @ b).max() > 0.01
    doubles = model.multiply(jnp.array(a, jnp.float64), jnp.array(b, jnp.float64), model.BFLOAT16)
    np.testing.assert_allclose(doubles, a.astype(np.float64) @ b.astype(np.float64), rtol=1e-12)


def test_probabilities_match_numpy():
    logits = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_allclose(model.softmax_probabilities(jnp.array(logits)), problems.softmax(logits))
    np.testing.assert_allclose(model.sigmoid_probabilities(jnp.array(logits)), problems.sigmoid(logits))


def test_predictions():
    logits = jnp.array([[0.0, 2.0, 1.0], [3.0, -1.0, 0.5], [-1.0, -2.0, -3.0]])
    assert model.predict_class(logits).tolist() == [1, 0, 0]
    labels = model.predict_labels(model.sigmoid_probabilities(logits))
    assert labels.tolist() == [[True, True, True], [True, False, True], [False, False, False]]
    labels = model.predict_labels(model.sigmoid_probabilities(logits), threshold=0.9)
    assert labels.tolist() == [[False, False, False], [True, False, False], [False, False, False]]


def test_of_equal_logits_the_first_counts_as_the_highest():
    logits = jnp.array([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0], [3.0, 0.0, jnp.inf], [jnp.nan, 1.0, 0.0]])
    y = jnp.eye(3)[jnp.array([1, 2, 2, 1])]
    assert model.is_correct(logits, y, 1).tolist() == [True, False, True, False]
    assert model.is_correct(logits, y, 2).tolist() == [True, True, True, True]


def test_initial_parameters():
    params = init_params(jax.random.key(0), d=2_000, K=50)
    assert params.W.shape == (50, 2_000)
    assert params.W.dtype == jnp.float32
    assert abs(float(params.W.std()) - 0.01) < 1e-4
    assert abs(float(params.W.mean())) < 1e-4
    assert not params.b.any()
