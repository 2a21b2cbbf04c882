import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
from jax.test_util import check_grads

from linear_cifar.config import Hyperparams
from linear_cifar.losses import LOSSES, get_loss

OPTAX = {
    "softmax": optax.softmax_cross_entropy,
    "bce": lambda s, y: optax.sigmoid_binary_cross_entropy(s, y).mean(axis=-1),
}
PLAIN = Hyperparams()
SHAPES = [(1, 2), (4, 10)]

# Each is compiled as a whole, which is faster than one operation after another.
COMPILED = [
    loss._replace(value=jax.jit(loss.value), gradient=jax.jit(loss.gradient)) for loss in LOSSES.values()
]

each_loss = pytest.mark.parametrize("loss", COMPILED, ids=LOSSES)
each_power = pytest.mark.parametrize("q", [0.0, 1e-6, 0.7, 1.0])
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def logits_and_targets(shape, multi_hot=False):
    *_, y = problems.problem(n=shape[0], K=shape[1], multi_hot=multi_hot)
    return jnp.array(np.random.default_rng(1).normal(scale=3, size=shape)), jnp.array(y)


@each_loss
@each_shape
def test_value_matches_the_formula_and_optax(loss, shape):
    s, y = logits_and_targets(shape)
    np.testing.assert_allclose(
        loss.value(s, y, PLAIN), problems.reference_loss(loss.name, np.array(s), np.array(y))
    )
    np.testing.assert_allclose(loss.value(s, y, PLAIN), OPTAX[loss.name](s, y), rtol=1e-12)


@each_loss
@each_power
def test_the_generalised_loss_and_its_gradient_match_the_formulas(loss, q):
    s, y = logits_and_targets((5, 3))
    arrays = np.array(s), np.array(y)
    # (1 - p^q)/q in NumPy loses digits to cancellation as q goes to 0.
    tolerance = 1e-8 if q == 1e-6 else 1e-12
    np.testing.assert_allclose(
        loss.value(s, y, Hyperparams(q=q)), problems.reference_loss(loss.name, *arrays, q), rtol=tolerance
    )
    np.testing.assert_allclose(
        loss.gradient(s, y, Hyperparams(q=q)), problems.reference_dlogits(loss.name, *arrays, q)
    )


@each_loss
@each_power
@pytest.mark.parametrize("multi_hot", [False, True])
def test_the_generalised_gradient_matches_autodiff_also_for_traced_powers(loss, q, multi_hot):
    s, y = logits_and_targets((5, 3), multi_hot)
    powers = jnp.array([q, 0.5])
    by_autodiff = jax.jit(
        jax.vmap(lambda q: jax.grad(lambda s: loss.value(s, y, Hyperparams(q=q)).sum())(s))
    )(powers)
    by_hand = jax.jit(jax.vmap(lambda q: loss.gradient(s, y, Hyperparams(q=q))))(powers)
    np.testing.assert_allclose(by_hand, by_autodiff, rtol=1e-9, atol=1e-12)


@each_loss
def test_the_extreme_powers_are_cross_entropy_and_absolute_error(loss):
    s, y = logits_and_targets((5, 3))
    np.testing.assert_array_equal(loss.value(s, y, Hyperparams(q=0.0)), loss.value(s, y, PLAIN))
    np.testing.assert_allclose(loss.value(s, y, Hyperparams(q=1e-9)), loss.value(s, y, PLAIN), rtol=1e-7)
    # |p - y| summed over the classes is twice 1 - p_y; with sigmoid it is the mean over the classes.
    error = jnp.abs(loss.probabilities(s) - y).sum(axis=1) / {"softmax": 2, "bce": 3}[loss.name]
    np.testing.assert_allclose(loss.value(s, y, Hyperparams(q=1.0)), error, rtol=1e-12)


@each_loss
@each_shape
@pytest.mark.parametrize("multi_hot", [False, True])
def test_gradient_matches_autodiff_of_its_value_and_of_optax(loss, shape, multi_hot):
    s, y = logits_and_targets(shape, multi_hot)
    for value in (lambda s, y: loss.value(s, y, PLAIN), OPTAX[loss.name]):
        by_autodiff = jax.jit(jax.grad(lambda s, value=value: value(s, y).sum()))(s)
        np.testing.assert_allclose(loss.gradient(s, y, PLAIN), by_autodiff, rtol=1e-10, atol=1e-12)


@each_loss
def test_gradient_is_p_minus_y_for_one_hot_targets(loss):
    s, y = logits_and_targets((6, 4))
    scale = {"softmax": 1, "bce": 4}[loss.name]
    np.testing.assert_allclose(scale * loss.gradient(s, y, PLAIN), loss.probabilities(s) - y, atol=1e-14)


@each_loss
@each_shape
def test_manual_gradient_passes_check_grads(loss, shape):
    s, y = logits_and_targets(shape)

    @jax.custom_vjp
    def value(s):
        return loss.value(jnp.asarray(s), y, PLAIN)

    value.defvjp(lambda s: (value(s), s), lambda s, g: (g[:, None] * loss.gradient(s, y, PLAIN),))
    check_grads(value, (s,), order=1, modes=["rev"])


@each_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("q", [1e-3, 0.7, 1.0])
def test_extreme_logits_stay_finite_with_every_power(loss, dtype, q):
    s = jnp.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4]], dtype)
    y = jnp.array([[1, 0]] * 4, dtype)
    value, gradient = loss.value(s, y, Hyperparams(q=q)), loss.gradient(s, y, Hyperparams(q=q))
    assert value.dtype == gradient.dtype == dtype
    by_autodiff = jax.jit(jax.grad(lambda s: loss.value(s, y, Hyperparams(q=q)).sum()))(s)
    np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-5, atol=1e-7)
    assert jnp.isfinite(value).all()
    assert (value <= 1 / q + 1e-3).all()


@each_loss
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_extreme_logits_stay_finite_and_exact(loss, dtype):
    s = jnp.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4]], dtype)
    y = jnp.array([[1, 0]] * 4, dtype)
    value, gradient = loss.value(s, y, PLAIN), loss.gradient(s, y, PLAIN)
    assert value.dtype == gradient.dtype == dtype
    if loss.name == "softmax":
        np.testing.assert_allclose(value, [0, 2e4, np.log(2), np.log(2)], rtol=1e-6)
        np.testing.assert_allclose(gradient, [[0, 0], [-1, 1], [-0.5, 0.5], [-0.5, 0.5]])
    else:
        np.testing.assert_allclose(value, [0, 1e4, 5e3, 5e3])
        np.testing.assert_allclose(gradient, [[0, 0], [-0.5, 0.5], [0, 0.5], [-0.5, 0]])


def test_unknown_loss_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"'hinge'.*softmax, bce"):
        get_loss("hinge")


@each_loss
@each_power
@each_smoothing
@pytest.mark.parametrize("multi_hot", [False, True])
def test_the_gradient_of_smoothed_targets_matches_autodiff_and_central_differences(
    loss, q, smoothing, multi_hot
):
    s, y = logits_and_targets((5, 3), multi_hot)
    values = jnp.array([[q, smoothing], [0.5, 0.3]])

    def differentiate(q, smoothing):
        hyperparams = Hyperparams(q=q, smoothing=smoothing)
        by_autodiff = jax.grad(lambda s: loss.value(s, y, hyperparams).sum())(s)
        return loss.gradient(s, y, hyperparams), by_autodiff

    by_hand, by_autodiff = jax.jit(jax.vmap(differentiate))(*values.T)
    np.testing.assert_allclose(by_hand, by_autodiff, rtol=1e-9, atol=1e-12)
    if not multi_hot and q != 1e-6:
        mixed = problems.smooth(loss.name, np.array(y), smoothing)
        numerical = [
            (
                problems.reference_loss(loss.name, np.array(s) + step, mixed, q)
                - problems.reference_loss(loss.name, np.array(s) - step, mixed, q)
            )
            / 2e-6
            for step in 1e-6 * np.eye(3)
        ]
        np.testing.assert_allclose(by_hand[0], np.transpose(numerical), rtol=1e-6, atol=1e-8)


@each_loss
@each_smoothing
def test_smoothing_mixes_the_loss_with_that_of_every_class(loss, smoothing):
    s, y = logits_and_targets((5, 4))
    hyperparams = Hyperparams(smoothing=smoothing)
    if loss.name == "softmax":
        every = [problems.reference_loss("softmax", np.array(s), np.tile(row, (5, 1))) for row in np.eye(4)]
    else:
        every = [problems.reference_loss("bce", np.array(s), np.full((5, 4), k)) for k in (0.0, 1.0)]
    plain = problems.reference_loss(loss.name, np.array(s), np.array(y))
    expected = (1 - smoothing) * plain + smoothing * np.mean(every, axis=0)
    np.testing.assert_allclose(loss.value(s, y, hyperparams), expected, rtol=1e-12)
    if smoothing == 0:
        for function in (loss.value, loss.gradient):
            np.testing.assert_array_equal(function(s, y, hyperparams), function(s, y, PLAIN))


@each_smoothing
def test_smoothing_is_pytorchs(smoothing):
    torch = pytest.importorskip("torch")
    s, y = logits_and_targets((5, 4))
    logits, targets = (torch.tensor(np.array(array), requires_grad=array is s) for array in (s, y))
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    loss.backward()
    hyperparams = Hyperparams(smoothing=smoothing)
    softmax = get_loss("softmax")
    np.testing.assert_allclose(softmax.value(s, y, hyperparams).sum(), loss.item(), rtol=1e-12)
    np.testing.assert_allclose(softmax.gradient(s, y, hyperparams), logits.grad.numpy(), rtol=1e-10)
