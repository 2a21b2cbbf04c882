import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from jax.test_util import check_grads

from linear_cifar.losses import LOSSES
from linear_cifar.objectives import gradients, objective
from linear_cifar.params import Params

# Each is compiled as a whole, which is faster than one operation after another.
compiled_objective = jax.jit(objective, static_argnames="loss")
manual_gradients = jax.jit(gradients, static_argnames="loss")
autodiff_gradients = jax.jit(jax.grad(objective), static_argnames="loss")

BOTH = (manual_gradients, autodiff_gradients)

each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_lam = pytest.mark.parametrize("lam", [0.0, 0.3])
each_size = pytest.mark.parametrize("size", [(1, 1, 2), (7, 5, 3), (4, 13, 10)], ids=str)


def arrays(size, scale=1.0, multi_hot=False):
    n, d, K = size
    W, b, x, y = problems.problem(n=n, d=d, K=K, scale=scale, multi_hot=multi_hot)
    return Params(jnp.array(W), jnp.array(b)), jnp.array(x), jnp.array(y)


@each_loss
@each_lam
def test_objective_is_mean_loss_plus_unpenalised_bias(loss, lam):
    params, x, y = arrays((7, 5, 3))
    logits = np.array(x) @ np.array(params.W).T + np.array(params.b)
    expected = problems.reference_loss(loss.name, logits, np.array(y)).mean() + lam * (params.W**2).sum()
    np.testing.assert_allclose(compiled_objective(params, x, y, loss, lam=lam), expected)


@each_loss
@each_lam
@each_size
@pytest.mark.parametrize("q", [0.0, 0.7])
@pytest.mark.parametrize("multi_hot", [False, True])
def test_manual_gradients_match_autodiff(loss, lam, size, q, multi_hot):
    params, x, y = arrays(size, multi_hot=multi_hot)
    manual, expected = (gradient(params, x, y, loss, lam=lam, q=q) for gradient in BOTH)
    np.testing.assert_allclose(manual.W, expected.W, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(manual.b, expected.b, rtol=1e-10, atol=1e-13)


@each_loss
@each_lam
@each_size
def test_manual_gradients_match_central_differences_elementwise(loss, lam, size):
    params, x, y = arrays(size)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    step = 1e-6 * jnp.eye(flat.size)
    value = jax.jit(jax.vmap(lambda p: objective(unravel(p), x, y, loss, lam=lam)))
    numerical = (value(flat[None, :] + step) - value(flat[None, :] - step)) / 2e-6
    manual, _ = jax.flatten_util.ravel_pytree(manual_gradients(params, x, y, loss, lam=lam))
    np.testing.assert_allclose(manual, numerical, rtol=1e-7, atol=1e-8)


@each_loss
@each_lam
@each_size
def test_manual_gradients_pass_check_grads(loss, lam, size):
    params, x, y = arrays(size)

    @jax.custom_vjp
    def value(params):
        return compiled_objective(Params(*map(jnp.asarray, params)), x, y, loss, lam=lam)

    def backward(params, g):
        return (jax.tree.map(lambda leaf: g * leaf, manual_gradients(params, x, y, loss, lam=lam)),)

    value.defvjp(lambda params: (value(params), params), backward)
    check_grads(value, (params,), order=1, modes=["rev"])


@each_loss
@each_lam
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_extreme_logits_give_finite_objective_and_gradients(loss, lam, dtype):
    x, y = jnp.eye(2, dtype=dtype), jnp.array([[0, 1], [1, 0]], dtype)
    params = Params(jnp.array([[1e4, -1e4], [-1e4, 1e4]], dtype), jnp.zeros(2, dtype))
    manual, expected = (gradient(params, x, y, loss, lam=lam) for gradient in BOTH)
    assert jnp.isfinite(compiled_objective(params, x, y, loss, lam=lam))
    for actual, wanted in zip(manual, expected, strict=True):
        assert jnp.isfinite(actual).all()
        np.testing.assert_allclose(actual, wanted, rtol=1e-5)
