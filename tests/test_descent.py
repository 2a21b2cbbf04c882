import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar import descent
from linear_cifar.augment import horizontal_flip, random_shift
from linear_cifar.config import Config, grid
from linear_cifar.descent import evaluate_runs, sweep
from linear_cifar.examples import Examples
from linear_cifar.layout import make_layout
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import heavy_ball, sgd
from linear_cifar.params import EPOCH, Params, derive_key
from linear_cifar.standardizer import fit_standardizer
from linear_cifar.training import train_epoch

SHAPE = (3, 2, 4)


def flip(key, image):
    return horizontal_flip(key, image, shape=SHAPE)


def make_splits(n=60, n_val=20, K=3):
    rng = np.random.default_rng(0)
    d = int(np.prod(SHAPE))
    labels = rng.integers(0, K, n + n_val)
    pixels = np.clip(rng.normal(100 + 20 * labels[:, None], 40, size=(n + n_val, d)), 0, 255).astype(np.uint8)
    x, y = jnp.array(pixels), jnp.array(np.eye(K)[labels])
    return Examples(x[:n], y[:n]), Examples(x[n:], y[n:]), fit_standardizer(pixels[:n])


def initial_params(dtype=jnp.float64):
    W, b, _, _ = problems.problem(d=int(np.prod(SHAPE)), K=3, scale=0.01)
    return Params(jnp.array(W, dtype), jnp.array(b, dtype))


def start(seed):
    return initial_params()


def run(configs, epochs=2, **options):
    """Train a sweep in float64 with flips, and return its epochs."""
    train, val, standardizer = make_splits()
    defaults = {"standardizer": standardizer, "augment": flip, "init": start}
    return list(sweep(configs, train, {"val": val}, epochs=epochs, **defaults | options))


def weights(epoch):
    return epoch.params().W


GRID = grid(eta=[0.001, 0.01], batch=[7, 60], lam=[0.0, 0.1])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sweep_equals_its_configurations_trained_alone(loss):
    together = run(GRID, loss=loss)
    for c in (0, 6) if loss == "softmax" else (7,):
        for alone, beside in zip(run([GRID[c]], loss=loss), together, strict=True):
            np.testing.assert_allclose(weights(alone)[0, 0], weights(beside)[0, c], rtol=1e-9, atol=1e-12)
            b, expected = alone.params().b[0, 0], beside.params().b[0, c]
            np.testing.assert_allclose(b, expected, rtol=1e-9, atol=1e-12)
            for name in ("running", "val"):
                found, expected = (epoch.metrics[f"{name}_loss"] for epoch in (alone, beside))
                np.testing.assert_allclose(found[0, 0], expected[0, c], rtol=1e-9)
                found, expected = (epoch.metrics[f"{name}_acc"] for epoch in (alone, beside))
                assert found[0, 0] == expected[0, c]


@pytest.mark.parametrize(("seeds", "count", "width"), [((5, 3), 4, 9), ((3, 4, 5), 8, 0)])
def test_seeds_together_equal_each_seed_alone(seeds, count, width, monkeypatch):
    # Two seeds are divided over the two devices. With three seeds the configurations are. A width of 0, as on
    # accelerators, vmaps the seeds.
    def make_layout_of_width(*arguments):
        made = make_layout(*arguments)
        return made._replace(loops=made.loops._replace(vmap_width=width))

    monkeypatch.setattr(descent, "make_layout", make_layout_of_width)
    together = run(GRID[:count], seeds=seeds, init="jax")[-1]
    assert weights(together).shape[:2] == (len(seeds), count)
    for s, seed in enumerate(seeds):
        alone = run([GRID[3]], seeds=[seed], init="jax")[-1]
        np.testing.assert_allclose(weights(together)[s, 3], weights(alone)[0, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            together.metrics["val_loss"][s, 3], alone.metrics["val_loss"][0, 0], rtol=1e-5
        )
    assert not np.allclose(weights(together)[0], weights(together)[1], atol=1e-3)


def test_parameters_are_averaged_over_the_last_epochs():
    plain, averaged = run(GRID[:2], epochs=4), run(GRID[:2], epochs=4, average=3)
    for first in (0, 1):
        np.testing.assert_array_equal(weights(averaged[first]), weights(plain[first]))
    for last in (2, 3):
        mean = np.mean([weights(epoch) for epoch in plain[1 : last + 1]], axis=0)
        np.testing.assert_allclose(weights(averaged[last]), mean, rtol=1e-12)
        norms = np.linalg.norm(mean.reshape(1, 2, -1), axis=-1)
        np.testing.assert_allclose(averaged[last].metrics["W_norm"], norms, rtol=1e-12)
    np.testing.assert_array_equal(averaged[3].state.params.W, plain[3].state.params.W)
    assert not np.array_equal(averaged[3].metrics["val_loss"], plain[3].metrics["val_loss"])


@pytest.mark.parametrize("chosen", [[7, 0, 5], [3, 3, 2], list(reversed(range(8)))])
def test_any_subset_in_any_order_gives_the_same(chosen):
    together, some = run(GRID)[-1], run([GRID[i] for i in chosen])[-1]
    np.testing.assert_allclose(weights(some), weights(together)[:, chosen], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(some.metrics["val_loss"], together.metrics["val_loss"][:, chosen], rtol=1e-9)


def test_the_same_program_gives_the_same_bits_even_at_a_high_learning_rate():
    configs = grid(eta=[1.0], batch=[7, 60], lam=[0.0, 0.1])
    for first, second in zip(run(configs), run(configs), strict=True):
        np.testing.assert_array_equal(weights(first), weights(second))


@pytest.mark.parametrize(("optimizer", "momentum", "average"), [(sgd, 0.0, 1), (heavy_ball, 0.9, 4)])
def test_resuming_gives_the_same_bits_even_at_a_high_learning_rate(optimizer, momentum, average):
    configs = grid(eta=[1.0], batch=[7, 60], lam=[0.0, 0.1], momentum=[momentum])
    options = {"optimizer": optimizer, "seeds": [3, 1, 2], "average": average}
    uninterrupted = run(configs, 5, **options)
    for number in (1, 3):
        snapshot = uninterrupted[number - 1].snapshot()
        assert snapshot.number == number
        assert snapshot.params.W.shape[:2] == (3, 4)
        resumed = run(configs, 5, resume_from=snapshot, **options)
        for epoch, expected in zip(resumed, uninterrupted[number:], strict=True):
            assert epoch.number == expected.number
            pairs = ((epoch.metrics, expected.metrics), (epoch.state, expected.state))
            for actual, wanted in (*pairs, (epoch.params(), expected.params())):
                for leaf, other in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
                    np.testing.assert_array_equal(leaf, other)
    assert not run(configs, 5, resume_from=uninterrupted[-1].snapshot(), **options)


def test_runs_are_evaluated_as_in_the_sweep():
    configs = grid(eta=[0.01], batch=[7, 60, 20], lam=[0.0])
    *_, last = run(configs, seeds=[0, 1])
    _, validation, standardizer = make_splits()
    evaluated = evaluate_runs(configs, last.params(), validation, seeds=[0, 1], standardizer=standardizer)
    np.testing.assert_array_equal(evaluated.loss, last.metrics["val_loss"])
    np.testing.assert_array_equal(evaluated.accuracy, last.metrics["val_acc"])


def test_the_seed_decides_weights_order_and_augmentation():
    def train(seed, init="jax"):
        (epoch,) = run([Config(0.01, 7, 0.0)], 1, seeds=[seed], init=init)
        return np.array(weights(epoch))

    np.testing.assert_array_equal(train(0), train(0))
    assert train(0).dtype == np.float32
    assert not np.allclose(train(0), train(1), atol=1e-3)
    same_start = [train(seed, start) for seed in (0, 1)]
    assert not np.allclose(*same_start, rtol=1e-6)


def test_every_epoch_has_its_own_order():
    configs = [Config(0.1, 7, 0.0)]
    first, second = run(configs, augment=None)
    after_first = jax.tree.map(lambda leaf: jnp.array(leaf[0, 0]), first.params())
    first_order_twice, _ = run(configs, augment=None, init=lambda seed: after_first)
    assert not np.allclose(weights(second), weights(first_order_twice), rtol=1e-6)


def test_a_diverging_configuration_is_marked_and_changes_nothing_in_the_others():
    good = grid(eta=[0.001], batch=[7, 20], lam=[0.0, 0.1])
    # W grows by |1 - 2 eta lam| = 1e30 per update, three updates per epoch: beyond 1e308 in the fourth.
    bad = [Config(1.0, 20, 1e30 / 2)]
    alone, beside = run(good, epochs=5), run([*good[:2], *bad, *good[2:]], epochs=5)
    keep = [0, 1, 3, 4]
    for without, with_bad in zip(alone, beside, strict=True):
        np.testing.assert_allclose(weights(without), weights(with_bad)[:, keep], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            without.metrics["val_loss"], with_bad.metrics["val_loss"][:, keep], rtol=1e-9
        )
        assert not with_bad.diverged[:, keep].any()
    assert [int(epoch.diverged[0, 2]) for epoch in beside] == [0, 0, 0, 4, 4]
    for number, epoch in enumerate(beside, 1):
        for values in epoch.metrics.values():
            assert np.isnan(values[0, 2]) == (number >= 4)


def test_a_run_whose_loss_was_above_the_limit_stays_diverged():
    configs = grid(eta=[0.001, 5.0], batch=[7], lam=[0.0])
    losses = np.stack([epoch.metrics["running_loss"][0] for epoch in run(configs, 6)])
    # At the high η the loss rises and falls from epoch to epoch.
    limit = losses[:, 1].max() - 1e-6
    first = int(losses[:, 1].argmax()) + 1
    assert 1 < first < 6
    assert losses[:, 0].max() < limit
    for number, epoch in enumerate(run(configs, 6, max_loss=float(limit)), 1):
        assert epoch.diverged.tolist() == [[0, first if number >= first else 0]]
        np.testing.assert_array_equal(np.isnan(epoch.metrics["val_acc"]), [[False, number >= first]])
        np.testing.assert_array_equal(
            np.isnan(epoch.history()["W_norm"][:, 0, 1]), np.arange(1, number + 1) >= first
        )


def test_a_schedule_is_eta_by_epoch_and_compiles_nothing_again():
    configs, options = grid(eta=[0.1, 0.3], batch=[7], lam=[0.1]), {"shuffle": False, "augment": None}
    first, second = run(configs, schedule=lambda epochs: lambda done: [1.0, 0.5][done], **options)
    compiled = train_epoch._cache_size()
    np.testing.assert_allclose(weights(first), weights(run(configs, 1, **options)[0]), rtol=1e-12)
    halved = [config.replace(eta=config.eta / 2) for config in configs]
    for c in range(2):
        after_first = jax.tree.map(lambda leaf, c=c: jnp.array(leaf[0, c]), first.params())
        (expected,) = run(halved, 1, init=lambda seed, params=after_first: params, **options)
        np.testing.assert_allclose(weights(second)[0, c], weights(expected)[0, c], rtol=1e-10)
    assert train_epoch._cache_size() == compiled


def test_mistakes_are_named():
    for configs, message in [
        ([], "at least one configuration"),
        ([Config(0.1, 61, 0.0)], "batch is 61: the training set holds 60"),
        ([Config(eta=0.1)], "batch is missing"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(configs)
    for average in (0, 3):
        with pytest.raises(ValueError, match=f"average is {average}: give 1 to 2"):
            run([Config(0.1, 6, 0.0)], average=average)


@pytest.mark.parametrize("name", ["training examples", "standardizer", "running", "val_class"])
def test_names_that_a_sweep_uses_itself_are_refused(name):
    train, validation, _ = make_splits()
    with pytest.raises(ValueError, match=f"an evaluation set is named '{name}', which means something else"):
        sweep(GRID, train, {name: validation}, epochs=1)


def move(key, image):
    return random_shift(key, horizontal_flip(key, image, shape=SHAPE), shape=SHAPE)


def noise(key, image):
    return move(key, image).astype(jnp.float32) + jax.random.normal(key, image.shape)


def test_results_do_not_depend_on_how_jax_is_set_up():
    options = {"seeds": [0, 2**32 - 1], "augment": noise, "init": "jax", "optimizer": "adamw"}
    with jax.numpy_dtype_promotion("standard"):
        expected = run(GRID, **options)[-1]
        with (
            jax.threefry_partitionable(False),
            jax.default_prng_impl("rbg"),
            jax.enable_x64(False),
            jax.default_matmul_precision("bfloat16"),
        ):
            epoch = run(GRID, **options)[-1]
    assert epoch.params().W.dtype == np.float32
    for leaves in ((epoch.params(), expected.params()), (epoch.metrics, expected.metrics)):
        jax.tree.map(np.testing.assert_array_equal, *leaves)


def test_seeds_that_differ_have_other_random_numbers():
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    keys = [jax.random.key_data(derive_key(seed, EPOCH)).tobytes() for seed in seeds]
    assert len(set(keys)) == len(seeds)
    words = jax.random.key_data(jax.random.fold_in(jax.random.key(2**31), EPOCH))
    assert words.tobytes() == keys[3]


def test_weights_drawn_in_float64_are_those_of_float32_where_jax_has_no_other():
    train, _, _ = make_splits()
    features = np.asarray(train.features, np.float64) + 1e9
    examples, standardizer = Examples(features, train.targets), fit_standardizer(features)

    def draw(dtype):
        return lambda seed: Params(*(np.asarray(leaf, dtype) for leaf in initial_params(jnp.float32)))

    with jax.enable_x64(False):
        single, double = (
            [*sweep(GRID, examples, {}, epochs=1, standardizer=standardizer, init=draw(dtype))][-1].params().W
            for dtype in (np.float32, np.float64)
        )
    np.testing.assert_array_equal(single, double)
