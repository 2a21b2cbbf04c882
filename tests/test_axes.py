"""Axes that the library does not have: a focal loss's γ, and Adam's β₁."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_sweep

import linear_cifar as lc

GAMMAS, BETAS = (0.0, 0.5, 2.0), (0.5, 0.9)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Let optax's Adam mix types, which it does by itself."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def focal_at(gamma, logits, y):
    """Compute the focal loss of one example (Lin et al. 2017)."""
    log_p = jnp.sum(y * jax.nn.log_softmax(logits))
    return -((1 - jnp.exp(log_p)) ** gamma) * log_p


def focal(logits, y, hyperparams):
    return focal_at(hyperparams.gamma, logits, y)


def adam(hyperparams):
    return optax.adam(hyperparams.eta, b1=hyperparams.beta)


FOCAL = lc.Loss.from_value("focal", focal, gamma=0.0)
CONFIGS = lc.grid(eta=[0.1], batch=[8, 40], lam=[0.1], gamma=GAMMAS, beta=BETAS)


def fit(configs=CONFIGS, **options):
    options = {"loss": FOCAL, "optimizer": adam, "epochs": 3, "seeds": (7,), "shuffle": False, **options}
    return lc.fit(configs, small_sweep.TRAIN, {"val": small_sweep.VAL}, init=small_sweep.init, **options)


def test_a_sweep_of_further_axes_equals_separate_runs_of_fixed_values():
    whole = fit()
    for gamma in GAMMAS:
        loss = lc.Loss.from_value("fixed focal", partial(focal_at, gamma))
        for beta in BETAS:
            plain = [lc.Config(0.1, batch, 0.1) for batch in (8, 40)]
            alone = fit(plain, loss=loss, optimizer=lambda h, beta=beta: optax.adam(h.eta, b1=beta))
            for c, config in enumerate(plain):
                place = CONFIGS.index(config.replace(gamma=gamma, beta=beta))
                expected = alone.params(c, seed=7)
                for ours, reference in zip(whole.params(place, seed=7), expected, strict=True):
                    np.testing.assert_allclose(ours, reference, rtol=1e-9, atol=1e-12)
    best = whole.best("val").config
    assert best.gamma in GAMMAS
    assert best.beta in BETAS


def test_other_values_compile_nothing_again():
    fit()
    compiled = lc.train_epoch._cache_size()
    fit([config.replace(gamma=config.gamma + 0.3, beta=config.beta - 0.1) for config in CONFIGS])
    assert lc.train_epoch._cache_size() == compiled


def test_the_loss_is_reported_where_it_says():
    ours = fit()
    expected = lc.evaluate(ours.params(3, seed=7), small_sweep.VAL, "softmax")
    np.testing.assert_allclose(ours.final["val_loss"][0, 3], expected.loss, rtol=1e-12)
    assert lc.objective(ours.params(3, seed=7), *small_sweep.TRAIN, FOCAL, gamma=2.0, lam=0.1) < lc.objective(
        ours.params(3, seed=7), *small_sweep.TRAIN, FOCAL, lam=0.1
    )


def test_a_snapshot_of_further_axes_is_resumed(tmp_path):
    straight = small_sweep.run(CONFIGS, loss=FOCAL, optimizer=adam)
    straight[0].snapshot().save(tmp_path / "probe.npz")
    loaded = lc.load_snapshot(tmp_path / "probe.npz")
    assert loaded.identity.configs == CONFIGS
    resumed = small_sweep.run(CONFIGS, loss=FOCAL, optimizer=adam, resume_from=loaded)
    for ours, expected in zip(resumed[-1].params(), straight[-1].params(), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_points_of_further_axes_can_be_drawn():
    configs = lc.draw_configs(8, eta=lc.Range(0.01, 0.1), batch=[8], gamma=lc.Range(0, 2), beta=[0.9])
    assert fit(configs, epochs=1).best("val").config in configs


@pytest.mark.parametrize("name", ["seed", "fold", "epoch", "epochs", "bracket", "replace", "_beta", "a b"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ValueError, match=f"an axis has the name '{name}': give another name"):
        lc.Config(0.1, 10, **{name: 1.0})
