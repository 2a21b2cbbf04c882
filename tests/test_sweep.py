import sys

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar.augment import horizontal_flip
from linear_cifar.config import Config, grid
from linear_cifar.evaluation import Examples
from linear_cifar.layout import lay_out
from linear_cifar.losses import LOSSES, get_loss
from linear_cifar.params import Params
from linear_cifar.standardizer import fit_standardizer
from linear_cifar.sweep import evaluate_runs, sweep
from linear_cifar.training import Recipe, heavy_ball, sgd, train_epoch

SHAPE = (3, 2, 4)


def flip(key, image):
    return horizontal_flip(key, image, shape=SHAPE)


def splits(n=60, n_val=20, K=3):
    rng = np.random.default_rng(0)
    d = int(np.prod(SHAPE))
    labels = rng.integers(0, K, n + n_val)
    pixels = np.clip(rng.normal(100 + 20 * labels[:, None], 40, size=(n + n_val, d)), 0, 255).astype(np.uint8)
    x, y = jnp.array(pixels), jnp.array(np.eye(K)[labels])
    return Examples(x[:n], y[:n]), Examples(x[n:], y[n:]), fit_standardizer(pixels[:n])


def start(dtype=jnp.float64):
    W, b, _, _ = problems.problem(d=int(np.prod(SHAPE)), K=3, scale=0.01)
    return Params(jnp.array(W, dtype), jnp.array(b, dtype))


def run(configs, epochs=2, recipe=None, params=None, **kwargs):
    recipe = recipe or Recipe(get_loss("softmax"), augment=flip)
    train, val, standardizer = splits()
    init = lambda seed: params or start()  # noqa: E731
    return list(sweep(configs, train, {"val": val}, standardizer, recipe, epochs, init=init, **kwargs))


def val(epoch):
    return epoch.record.watched["val"]


GRID = grid([0.001, 0.01], [7, 60], [0.0, 0.1])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sweep_equals_its_configurations_trained_alone(loss):
    recipe = Recipe(get_loss(loss), augment=flip)
    together = run(GRID, recipe=recipe)
    for c in (0, 6) if loss == "softmax" else (7,):
        config = GRID[c]
        for alone, all_ in zip(run([config], recipe=recipe), together, strict=True):
            np.testing.assert_allclose(alone.params.W[0, 0], all_.params.W[0, c], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(alone.params.b[0, 0], all_.params.b[0, c], rtol=1e-9, atol=1e-12)
            for of in (lambda epoch: epoch.record.running, val):
                np.testing.assert_allclose(of(alone).loss[0, 0], of(all_).loss[0, c], rtol=1e-9)
                assert of(alone).accuracy[0, 0] == of(all_).accuracy[0, c]


@pytest.mark.parametrize(("seeds", "count", "tile"), [((5, 3), 4, 9), ((3, 4, 5), 8, 0)])
def test_seeds_together_equal_each_seed_alone(seeds, count, tile, monkeypatch):
    # Two seeds are divided over the two devices, of three their configurations are; without tiles, as on
    # accelerators, seeds are vmapped.
    module = sys.modules["linear_cifar.sweep"]
    monkeypatch.setattr(module, "lay_out", lambda *one: lay_out(*one)._replace(tile=tile))
    train, validation, standardizer = splits()
    recipe = Recipe(get_loss("softmax"), augment=flip)

    def trained(seeds, configs):
        *_, last = sweep(configs, train, {"val": validation}, standardizer, recipe, 2, seeds)
        return last

    together = trained(seeds, GRID[:count])
    assert together.params.W.shape[:2] == (len(seeds), count)
    for s, seed in enumerate(seeds):
        alone = trained([seed], [GRID[3]])
        np.testing.assert_allclose(together.params.W[s, 3], alone.params.W[0, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(val(together).loss[s, 3], val(alone).loss[0, 0], rtol=1e-5)
    assert not np.allclose(together.params.W[0], together.params.W[1], atol=1e-3)


def test_the_parameters_that_count_are_the_mean_over_the_last_epochs():
    plain, averaged = run(GRID[:2], epochs=4), run(GRID[:2], epochs=4, average=3)
    np.testing.assert_array_equal(averaged[0].params.W, plain[0].params.W)
    np.testing.assert_array_equal(averaged[1].params.W, plain[1].params.W)
    for last in (2, 3):
        mean = np.mean([epoch.params.W for epoch in plain[1 : last + 1]], axis=0)
        np.testing.assert_allclose(averaged[last].params.W, mean, rtol=1e-12)
        norms = np.linalg.norm(mean.reshape(1, 2, -1), axis=-1)
        np.testing.assert_allclose(averaged[last].record.norm, norms, rtol=1e-12)
    np.testing.assert_array_equal(averaged[3].state.params.W, plain[3].state.params.W)
    assert not np.array_equal(val(averaged[3]).loss, val(plain[3]).loss)


@pytest.mark.parametrize("chosen", [[7, 0, 5], [3, 3, 2], list(reversed(range(8)))])
def test_any_subset_in_any_order_gives_the_same(chosen):
    together, some = run(GRID)[-1], run([GRID[i] for i in chosen])[-1]
    np.testing.assert_allclose(some.params.W, together.params.W[:, chosen], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(val(some).loss, val(together).loss[:, chosen], rtol=1e-9)


def test_the_same_program_gives_the_same_bits_even_at_a_high_learning_rate():
    configs = grid([1.0], [7, 60], [0.0, 0.1])
    for first, second in zip(run(configs), run(configs), strict=True):
        np.testing.assert_array_equal(first.params.W, second.params.W)


@pytest.mark.parametrize(("optimizer", "average"), [(sgd, 1), (heavy_ball, 4)])
def test_going_on_from_a_snapshot_gives_the_same_bits_even_at_a_high_learning_rate(optimizer, average):
    configs = grid([1.0], [7, 60], [0.0, 0.1], momenta=[0.9])
    recipe = Recipe(get_loss("softmax"), optimizer, augment=flip)
    more = {"seeds": [3, 1, 2], "average": average}
    straight = run(configs, 5, recipe, **more)
    for number in (1, 3):
        snapshot = straight[number - 1].snapshot
        assert snapshot.number == number
        assert snapshot.state.params.W.shape[:2] == (3, 4)
        rest = run(configs, 5, recipe, start=snapshot, **more)
        for one, other in zip(rest, straight[number:], strict=True):
            assert one.number == other.number
            for a, b in zip(jax.tree.leaves(one[1:-1]), jax.tree.leaves(other[1:-1]), strict=True):
                np.testing.assert_array_equal(a, b)
    assert not run(configs, 5, recipe, start=straight[-1].snapshot, **more)


def test_runs_are_evaluated_as_in_the_sweep():
    configs, recipe = grid([0.01], [7, 60, 20], [0.0]), Recipe(get_loss("softmax"))
    *_, last = run(configs, recipe=recipe, seeds=[0, 1])
    _, validation, standardizer = splits()
    again = evaluate_runs(configs, last.params, validation, standardizer, recipe)
    np.testing.assert_array_equal(again.loss, val(last).loss)
    np.testing.assert_array_equal(again.accuracy, val(last).accuracy)


def test_the_seed_decides_weights_order_and_augmentation():
    def weights(seed, params=None):
        recipe = Recipe(get_loss("softmax"), augment=flip)
        train, _, standardizer = splits()
        init = (lambda seed: params) if params else None
        (epoch,) = sweep([Config(0.01, 7, 0.0)], train, {}, standardizer, recipe, 1, [seed], init)
        return np.array(epoch.params.W)

    np.testing.assert_array_equal(weights(0), weights(0))
    assert weights(0).dtype == np.float32
    assert not np.allclose(weights(0), weights(1), atol=1e-3)
    assert not np.allclose(weights(0, start()), weights(1, start()), rtol=1e-6)


def test_every_epoch_has_its_own_order():
    recipe, configs = Recipe(get_loss("softmax")), [Config(0.1, 7, 0.0)]
    first, second = run(configs, recipe=recipe)
    after_first = Params(jnp.array(first.params.W[0, 0]), jnp.array(first.params.b[0, 0]))
    same_order_again, _ = run(configs, recipe=recipe, params=after_first)
    assert not np.allclose(second.params.W, same_order_again.params.W, rtol=1e-6)


def test_a_diverging_configuration_is_marked_and_changes_nothing_in_the_others():
    good = grid([0.001], [7, 20], [0.0, 0.1])
    # W grows by |1 - 2 eta lam| = 1e30 per update, three updates per epoch: beyond 1e308 in the fourth.
    bad = [Config(1.0, 20, 1e30 / 2)]
    alone, beside = run(good, epochs=5), run([*good[:2], *bad, *good[2:]], epochs=5)
    keep = [0, 1, 3, 4]
    for without, with_ in zip(alone, beside, strict=True):
        np.testing.assert_allclose(without.params.W, with_.params.W[:, keep], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(val(without).loss, val(with_).loss[:, keep], rtol=1e-9)
        assert with_.record.finite[:, keep].all()
    assert [bool(epoch.record.finite[0, 2]) for epoch in beside] == [True, True, True, False, False]


def test_a_schedule_is_eta_by_epoch_and_compiles_nothing_again():
    recipe, configs = Recipe(get_loss("softmax"), shuffle=False), grid([0.1, 0.3], [7], [0.1])
    first, second = run(configs, recipe=recipe, schedule=lambda done: [1.0, 0.5][done])
    compiled = train_epoch._cache_size()
    np.testing.assert_allclose(first.params.W, run(configs, 1, recipe)[0].params.W, rtol=1e-12)
    halved = [config._replace(eta=config.eta / 2) for config in configs]
    for c in range(2):
        after_first = Params(jnp.array(first.params.W[0, c]), jnp.array(first.params.b[0, c]))
        (expected,) = run(halved, 1, recipe, after_first)
        np.testing.assert_allclose(second.params.W[0, c], expected.params.W[0, c], rtol=1e-10)
    assert train_epoch._cache_size() == compiled


def test_mistakes_are_named():
    for configs, message in [
        ([], "at least one configuration"),
        ([Config(0.1, 61, 0.0)], "batch is 61: the training set holds 60"),
        ([Config(-0.1, 6, 0.0)], "eta is -0.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(configs)
    for average in (0, 3):
        with pytest.raises(ValueError, match=f"average is {average}: give a number of epochs from 1 to 2"):
            run([Config(0.1, 6, 0.0)], average=average)
