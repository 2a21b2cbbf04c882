"""Optimizers from hyperparameters: which of them an update depends on, and the penalty that it applies."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import small_sweep
from small_sweep import TRAIN

import linear_cifar as lc
from linear_cifar.optimizers import find_dependencies
from linear_cifar.schedules import epoch_factors

LAM = 0.1


@pytest.fixture(autouse=True)
def standard_promotion():
    """Let optax's Adam mix types, which it does by itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def own_adamw(hyperparams):
    return optax.adamw(hyperparams.eta, weight_decay=hyperparams.lam)


def decayed_sgd(hyperparams):
    decay = optax.add_decayed_weights(2 * hyperparams.lam, mask=lc.Params(W=True, b=False))
    return optax.chain(decay, optax.sgd(hyperparams.eta))


def adam(hyperparams):
    return optax.adam(hyperparams.eta)


def stateful(hyperparams, update):
    """Return an optimizer that keeps λ in its state."""
    return optax.GradientTransformation(lambda params: (hyperparams.lam, 0 * hyperparams.lam), update)


def keeps_lam(hyperparams):
    return stateful(
        hyperparams, lambda g, state, params: (jax.tree.map(lambda g: -hyperparams.eta * g, g), state)
    )


def uses_lam_later(hyperparams):
    def update(gradients, state, params):
        lam, previous = state
        return jax.tree.map(lambda g: -hyperparams.eta * g - previous, gradients), (lam, lam)

    return stateful(hyperparams, update)


@jax.jit
def descend(gradients, hyperparams):
    return jax.tree.map(lambda g: -hyperparams.eta * g, gradients)


def within_a_program(hyperparams):
    return optax.stateless(lambda gradients, params: descend(gradients, hyperparams))


def injected(hyperparams):
    return optax.inject_hyperparams(optax.adamw)(hyperparams.eta, weight_decay=hyperparams.lam)


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (lc.sgd, {"eta"}),
        (lc.heavy_ball, {"eta", "momentum"}),
        (lc.adamw, {"eta", "lam"}),
        (own_adamw, {"eta", "lam"}),
        (decayed_sgd, {"eta", "lam"}),
        (injected, {"eta", "lam"}),
        (adam, {"eta"}),
        (lambda h: optax.adam(h.eta * (1 - h.momentum)), {"eta", "momentum"}),
        (lambda h: [2 * h.lam, optax.adam(h.eta)][1], {"eta"}),  # it computes with λ, and does not use it
        (lambda h: optax.sgd(0.1), set()),
        (within_a_program, {"eta"}),
        (keeps_lam, {"eta"}),
        (uses_lam_later, {"eta", "lam"}),
    ],
)
def test_what_an_update_depends_on_is_found(optimizer, names):
    found = find_dependencies(optimizer, ("eta", "lam", "q", "momentum"), 3, 4, jnp.float32)
    assert found[0] == names
    # What the state keeps is of the start.
    assert found[1] == {injected: set(), uses_lam_later: {"eta"}}.get(optimizer, names)


def train_by_hand(W, b, x, y, eta, lam, batch, epochs, decay_b):
    """Train softmax regression by AdamW as PyTorch defines it, in NumPy, batch after batch in order."""
    leaves, moments = [W.copy(), b.copy()], [[np.zeros_like(leaf) for leaf in (W, b)] for _ in range(2)]
    step = 0
    for _ in range(epochs):
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            p = problems.softmax(x[rows] @ leaves[0].T + leaves[1])
            G = (p - y[rows]) / len(y[rows])
            step += 1
            for i, gradient in enumerate((G.T @ x[rows], G.sum(axis=0))):
                leaves[i] *= 1 - eta * lam * (i == 0 or decay_b)
                moments[0][i] = 0.9 * moments[0][i] + 0.1 * gradient
                moments[1][i] = 0.999 * moments[1][i] + 0.001 * gradient**2
                first, second = moments[0][i] / (1 - 0.9**step), moments[1][i] / (1 - 0.999**step)
                leaves[i] -= eta * first / (np.sqrt(second) + 1e-8)
    return leaves


def train_by_torch(W, b, x, y, eta, lam, batch, epochs, decay_b):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(*W.shape[::-1], dtype=torch.float64)
    layer.load_state_dict({"weight": torch.tensor(W), "bias": torch.tensor(b)})
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": lam * decay_b}]
    optimizer = torch.optim.AdamW(groups, lr=eta, weight_decay=lam)
    for _ in range(epochs):
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(torch.tensor(x[rows])), torch.tensor(y[rows])).backward()
            optimizer.step()
    return [leaf.detach().numpy() for leaf in (layer.weight, layer.bias)]


@pytest.mark.parametrize("reference", [train_by_hand, train_by_torch])
@pytest.mark.parametrize(("optimizer", "decay_b"), [("adamw", False), (own_adamw, True)])
def test_adamw_decays_once(optimizer, decay_b, reference):
    configs = lc.grid(eta=[0.05], batch=[8], lam=[0.0, LAM, 1.0])
    epochs = small_sweep.run(configs, seeds=[7], optimizer=optimizer, shuffle=False)
    W, b = epochs[-1].params()
    initial = [np.asarray(leaf) for leaf in small_sweep.init(7)]
    for c, config in enumerate(configs):
        x, y = (np.asarray(array) for array in TRAIN)
        expected = reference(*initial, x, y, 0.05, config.lam, 8, 3, decay_b)
        np.testing.assert_allclose(W[0, c], expected[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(b[0, c], expected[1], rtol=1e-9, atol=1e-12)


def test_adamw_gives_what_pytorch_gave():
    """Compare with weights that `train_by_torch` has returned, of PyTorch 2.14.1, for where it is missing."""
    configs = [lc.Config(0.05, 8, LAM)]
    W, b = small_sweep.run(configs, seeds=[7], optimizer="adamw", shuffle=False)[-1].params()
    expected = [0.3204296002742053, -0.2557602715719888, 0.15719021872982453]
    expected += [-0.5427862632683389, -0.728872817328714, 0.03828007574433237]
    np.testing.assert_allclose(W[0, 0, 0], expected, rtol=1e-9)
    np.testing.assert_allclose(
        b[0, 0], [-0.30891003413085677, -0.36379982096277197, 0.3974191768119936], rtol=1e-9
    )


def test_an_optimizer_that_decays_by_itself_gets_no_penalty_in_the_gradient():
    plain, decayed = (
        small_sweep.run(optimizer=optimizer)[-1].params() for optimizer in (lc.sgd, decayed_sgd)
    )
    np.testing.assert_allclose(plain.W, decayed.W, rtol=1e-9, atol=1e-12)


def test_names_stand_for_optimizers_losses_and_schedules():
    assert lc.TrainSpec("bce", "heavy_ball") == lc.TrainSpec(lc.LOSSES["bce"], lc.heavy_ball)
    for name, schedule in lc.SCHEDULES.items():
        assert epoch_factors(name, 7, np.float32) == epoch_factors(schedule, 7, np.float32)


def test_a_schedule_that_an_optimizer_would_not_follow_is_refused():
    with pytest.raises(ValueError, match=r"schedule changes eta, which optimizer.*keeps from its start"):
        small_sweep.start(optimizer=injected, schedule="cosine")
