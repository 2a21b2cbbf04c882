import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from linear_cifar import engine
from linear_cifar.augment import horizontal_flip, random_shift
from linear_cifar.config import Config, grid
from linear_cifar.engine import EpochMetrics, evaluate_runs, mask_diverged, sweep
from linear_cifar.evaluation import Metrics
from linear_cifar.examples import Examples
from linear_cifar.layout import make_layout
from linear_cifar.losses import LOSSES
from linear_cifar.optimizers import heavy_ball, sgd
from linear_cifar.params import Params
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


def run(configs, epochs=2, **options):
    """Train a sweep in float64 with flips, and return its epochs."""
    train, val, standardizer = make_splits()
    defaults = {"standardizer": standardizer, "augment": flip, "init": lambda seed: initial_params()}
    return list(sweep(configs, train, {"val": val}, epochs=epochs, **defaults | options))


def val(epoch):
    return epoch.metrics.evaluated["val"]


def weights(epoch):
    return epoch.params().W


GRID = grid([0.001, 0.01], [7, 60], [0.0, 0.1])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sweep_equals_its_configurations_trained_alone(loss):
    together = run(GRID, loss=loss)
    for c in (0, 6) if loss == "softmax" else (7,):
        for alone, beside in zip(run([GRID[c]], loss=loss), together, strict=True):
            np.testing.assert_allclose(weights(alone)[0, 0], weights(beside)[0, c], rtol=1e-9, atol=1e-12)
            b, expected = alone.params().b[0, 0], beside.params().b[0, c]
            np.testing.assert_allclose(b, expected, rtol=1e-9, atol=1e-12)
            for measured in (lambda epoch: epoch.metrics.running, val):
                np.testing.assert_allclose(measured(alone).loss[0, 0], measured(beside).loss[0, c], rtol=1e-9)
                assert measured(alone).accuracy[0, 0] == measured(beside).accuracy[0, c]


@pytest.mark.parametrize(("seeds", "count", "width"), [((5, 3), 4, 9), ((3, 4, 5), 8, 0)])
def test_seeds_together_equal_each_seed_alone(seeds, count, width, monkeypatch):
    # Two seeds are divided over the two devices. With three seeds the configurations are. A width of 0, as on
    # accelerators, vmaps the seeds.
    def make_layout_of_width(*arguments):
        made = make_layout(*arguments)
        return made._replace(loops=made.loops._replace(vmap_width=width))

    monkeypatch.setattr(engine, "make_layout", make_layout_of_width)
    together = run(GRID[:count], seeds=seeds, init=None)[-1]
    assert weights(together).shape[:2] == (len(seeds), count)
    for s, seed in enumerate(seeds):
        alone = run([GRID[3]], seeds=[seed], init=None)[-1]
        np.testing.assert_allclose(weights(together)[s, 3], weights(alone)[0, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(val(together).loss[s, 3], val(alone).loss[0, 0], rtol=1e-5)
    assert not np.allclose(weights(together)[0], weights(together)[1], atol=1e-3)


def test_parameters_are_averaged_over_the_last_epochs():
    plain, averaged = run(GRID[:2], epochs=4), run(GRID[:2], epochs=4, average=3)
    for first in (0, 1):
        np.testing.assert_array_equal(weights(averaged[first]), weights(plain[first]))
    for last in (2, 3):
        mean = np.mean([weights(epoch) for epoch in plain[1 : last + 1]], axis=0)
        np.testing.assert_allclose(weights(averaged[last]), mean, rtol=1e-12)
        norms = np.linalg.norm(mean.reshape(1, 2, -1), axis=-1)
        np.testing.assert_allclose(averaged[last].metrics.norm, norms, rtol=1e-12)
    np.testing.assert_array_equal(averaged[3].state.params.W, plain[3].state.params.W)
    assert not np.array_equal(val(averaged[3]).loss, val(plain[3]).loss)


@pytest.mark.parametrize("chosen", [[7, 0, 5], [3, 3, 2], list(reversed(range(8)))])
def test_any_subset_in_any_order_gives_the_same(chosen):
    together, some = run(GRID)[-1], run([GRID[i] for i in chosen])[-1]
    np.testing.assert_allclose(weights(some), weights(together)[:, chosen], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(val(some).loss, val(together).loss[:, chosen], rtol=1e-9)


def test_the_same_program_gives_the_same_bits_even_at_a_high_learning_rate():
    configs = grid([1.0], [7, 60], [0.0, 0.1])
    for first, second in zip(run(configs), run(configs), strict=True):
        np.testing.assert_array_equal(weights(first), weights(second))


@pytest.mark.parametrize(("optimizer", "momentum", "average"), [(sgd, 0.0, 1), (heavy_ball, 0.9, 4)])
def test_resuming_gives_the_same_bits_even_at_a_high_learning_rate(optimizer, momentum, average):
    configs = grid([1.0], [7, 60], [0.0, 0.1], momenta=[momentum])
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
    configs = grid([0.01], [7, 60, 20], [0.0])
    *_, last = run(configs, seeds=[0, 1])
    _, validation, standardizer = make_splits()
    evaluated = evaluate_runs(configs, last.params(), validation, seeds=[0, 1], standardizer=standardizer)
    np.testing.assert_array_equal(evaluated.loss, val(last).loss)
    np.testing.assert_array_equal(evaluated.accuracy, val(last).accuracy)


def test_the_seed_decides_weights_order_and_augmentation():
    def train(seed, init=None):
        (epoch,) = run([Config(0.01, 7, 0.0)], 1, seeds=[seed], init=init)
        return np.array(weights(epoch))

    np.testing.assert_array_equal(train(0), train(0))
    assert train(0).dtype == np.float32
    assert not np.allclose(train(0), train(1), atol=1e-3)
    same_start = [train(seed, lambda seed: initial_params()) for seed in (0, 1)]
    assert not np.allclose(*same_start, rtol=1e-6)


def test_every_epoch_has_its_own_order():
    configs = [Config(0.1, 7, 0.0)]
    first, second = run(configs, augment=None)
    after_first = jax.tree.map(lambda leaf: jnp.array(leaf[0, 0]), first.params())
    first_order_twice, _ = run(configs, augment=None, init=lambda seed: after_first)
    assert not np.allclose(weights(second), weights(first_order_twice), rtol=1e-6)


def test_a_diverging_configuration_is_marked_and_changes_nothing_in_the_others():
    good = grid([0.001], [7, 20], [0.0, 0.1])
    # W grows by |1 - 2 eta lam| = 1e30 per update, three updates per epoch: beyond 1e308 in the fourth.
    bad = [Config(1.0, 20, 1e30 / 2)]
    alone, beside = run(good, epochs=5), run([*good[:2], *bad, *good[2:]], epochs=5)
    keep = [0, 1, 3, 4]
    for without, with_bad in zip(alone, beside, strict=True):
        np.testing.assert_allclose(weights(without), weights(with_bad)[:, keep], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(val(without).loss, val(with_bad).loss[:, keep], rtol=1e-9)
        assert with_bad.metrics.finite[:, keep].all()
    assert [bool(epoch.metrics.finite[0, 2]) for epoch in beside] == [True, True, True, False, False]


def test_divergence_is_masked_from_its_epoch_on():
    finite = np.array([[[True, True]], [[True, False]], [[True, True]]])
    values = np.arange(6.0).reshape(3, 1, 2)
    metrics = Metrics(values, values)
    history = EpochMetrics(metrics, {"val": metrics}, values, finite)
    masked = mask_diverged(history)
    assert masked.finite.tolist() == [[[True, True]], [[True, False]], [[True, False]]]
    np.testing.assert_array_equal(masked.evaluated["val"].loss[:, 0, 1], [1, np.nan, np.nan])
    np.testing.assert_array_equal(masked.norm[:, 0, 0], values[:, 0, 0])
    by_loss = mask_diverged(history, max_loss=2.5)
    assert by_loss.finite.tolist() == [[[True, True]], [[True, False]], [[False, False]]]


def test_a_schedule_is_eta_by_epoch_and_compiles_nothing_again():
    configs, options = grid([0.1, 0.3], [7], [0.1]), {"shuffle": False, "augment": None}
    first, second = run(configs, schedule=lambda epochs: lambda done: [1.0, 0.5][done], **options)
    compiled = train_epoch._cache_size()
    np.testing.assert_allclose(weights(first), weights(run(configs, 1, **options)[0]), rtol=1e-12)
    halved = [config._replace(eta=config.eta / 2) for config in configs]
    for c in range(2):
        after_first = jax.tree.map(lambda leaf, c=c: jnp.array(leaf[0, c]), first.params())
        (expected,) = run(halved, 1, init=lambda seed, params=after_first: params, **options)
        np.testing.assert_allclose(weights(second)[0, c], weights(expected)[0, c], rtol=1e-10)
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
        with pytest.raises(ValueError, match=f"average is {average}: give 1 to 2"):
            run([Config(0.1, 6, 0.0)], average=average)


def move(key, image):
    return random_shift(key, horizontal_flip(key, image, shape=SHAPE), shape=SHAPE)


def noise(key, image):
    return move(key, image).astype(jnp.float32) + jax.random.normal(key, image.shape)


def test_results_do_not_depend_on_how_jax_is_set_up():
    options = {"seeds": [0, 2**32 - 1], "augment": noise, "init": None, "optimizer": "adamw"}
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
    keys = [jax.random.key_data(engine.derive_key(seed, engine.KeyUse.EPOCH)).tobytes() for seed in seeds]
    assert len(set(keys)) == len(seeds)
    words = jax.random.key_data(jax.random.fold_in(jax.random.key(2**31), engine.KeyUse.EPOCH))
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
