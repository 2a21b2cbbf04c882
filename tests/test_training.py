import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest

from linear_cifar import layout, training
from linear_cifar.config import Config, stack_hyperparams
from linear_cifar.evaluation import mean_metrics
from linear_cifar.examples import Examples
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, make_layout
from linear_cifar.losses import LOSSES, get_loss
from linear_cifar.optimizers import heavy_ball
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateData
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import TrainSpec, init_state, train_epoch

IN_ORDER = TrainSpec(get_loss("softmax"), shuffle=False)


def train(arrays, configs, spec=IN_ORDER, epochs=1, dtype=jnp.float64, standardizer=None, devices=None):
    """Train one replicate; return the parameters, the metrics and whether the runs are finite, [C]."""
    W, b, x, y = (a if a.dtype == np.uint8 else jnp.array(a, dtype) for a in arrays)
    sizes = [config.batch for config in configs]
    layout = make_layout(sizes, 1, devices or jax.local_devices(), W.nbytes)
    hyperparams = layout.shard(stack_hyperparams([configs[c] for c in layout.configs], dtype), BY_CONFIG)
    state = layout.shard(init_state(Params(W[None], b[None]), hyperparams, spec.optimizer), BY_RUN)
    examples, standardizer = layout.broadcast((Examples(jnp.array(x), y), standardizer))
    for epoch in range(epochs):
        replicates = layout.shard(ReplicateData(jax.random.key(epoch)[None]), BY_REPLICATE)
        state, sums, finite = train_epoch(
            state, hyperparams, examples, standardizer, replicates, layout, spec
        )
    results = layout.from_slots((state.params, mean_metrics(sums, len(x)), finite))
    return jax.tree.map(lambda leaf: leaf[0], results)


@pytest.mark.parametrize("loss", LOSSES)
def test_matches_a_plain_loop_with_partial_last_batches(loss):
    arrays = problems.problem(n=23, d=5, K=3)
    configs = [
        Config(0.1, 5, 0.0), Config(0.05, 23, 0.2), Config(0.1, 8, 0.1, q=0.7), Config(0.2, 5, 0.3, q=1.0),
        Config(0.1, 5, 0.0, momentum=0.9), Config(0.1, 5, 0.1, q=0.5, momentum=0.5),
        Config(0.1, 8, 0.1, smoothing=0.1), Config(0.1, 5, 0.1, q=0.5, momentum=0.5, smoothing=0.9),
    ]  # fmt: skip
    spec = TrainSpec(get_loss(loss), heavy_ball, shuffle=False)
    params, _, finite = train(arrays, configs, spec, epochs=3)
    assert finite.all()
    for c, config in enumerate(configs):
        W, b = problems.train_by_loop(*arrays, loss=loss, epochs=3, **config)
        np.testing.assert_allclose(params.W[c], W, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(params.b[c], b, rtol=1e-12, atol=1e-13)


def test_the_size_of_the_chunks_changes_nothing(monkeypatch):
    # In chunks of 12, sizes 3 and 4 share a pass. Size 29, the whole training set, has a pass of its own.
    arrays = problems.problem(n=29, d=5, K=3)
    configs = [Config(0.1, size, 0.1) for size in (4, 29, 3)]
    trained = []
    for chunk in (1, 12):
        monkeypatch.setattr(layout, "CPU_CHUNK", chunk)

        def noise(key, x):  # a new function each time, so that JAX compiles a new program
            return x + jax.random.normal(key, x.shape, x.dtype)

        trained.append(train(arrays, configs, TrainSpec(get_loss("softmax"), augment=noise)))
    (singly, metrics_singly, _), (together, metrics_together, _) = trained
    np.testing.assert_allclose(together.W, singly.W, rtol=1e-11)
    np.testing.assert_allclose(metrics_together.loss, metrics_singly.loss, rtol=1e-11)


@pytest.mark.parametrize(("devices", "width"), [(1, 2), (2, 1), (2, 2), (2, 100)])
def test_devices_and_the_vmap_width_change_nothing(devices, width, monkeypatch):
    arrays = W, *_ = problems.problem(n=23, d=5, K=3)
    configs = [Config(eta, batch, 0.1) for batch in (5, 8) for eta in (0.1, 0.2, 0.3)] + [
        Config(0.1, 23, 0.0)
    ]
    monkeypatch.setattr(layout, "CPU_CACHE_BYTES", width * W.nbytes)
    params, _, _ = train(arrays, configs, devices=jax.local_devices()[:devices])
    for c, config in enumerate(configs):
        expected, _ = problems.train_by_loop(*arrays, loss="softmax", epochs=1, **config)
        np.testing.assert_allclose(params.W[c], expected, rtol=1e-12, atol=1e-13)


def test_metrics_are_of_each_batch_before_its_update():
    arrays = W, b, x, y = problems.problem(n=10, d=4, K=3)
    _, metrics, _ = train(arrays, [Config(0.1, 4, 0.0), Config(0.0, 3, 0.0)])
    frozen = x @ W.T + b
    np.testing.assert_allclose(metrics.loss[1], problems.reference_loss("softmax", frozen, y).mean())
    np.testing.assert_allclose(metrics.accuracy[1], (frozen.argmax(1) == y.argmax(1)).mean())
    total = 0.0
    for start in (0, 4, 8):
        batch = slice(start, start + 4)
        total += problems.reference_loss("softmax", x[batch] @ W.T + b, y[batch]).sum()
        W, b = problems.train_by_loop(W, b, x[batch], y[batch], 0.1, 4, 0.0, "softmax", epochs=1)
    np.testing.assert_allclose(metrics.loss[0], total / 10)


def test_shuffling_is_a_permutation_decided_by_the_key():
    arrays = problems.problem(n=12, d=4, K=3)
    shuffled = TrainSpec(get_loss("softmax"), shuffle=True)
    whole, small = Config(0.1, 12, 0.0), Config(0.1, 3, 0.0)
    in_order, _, _ = train(arrays, [whole, small])
    anew, _, _ = train(arrays, [whole, small], shuffled)
    again, _, _ = train(arrays, [whole, small], shuffled)
    # A batch of all examples is the same in any order; smaller ones are not.
    np.testing.assert_allclose(in_order.W[0], anew.W[0], rtol=1e-12)
    assert not np.allclose(in_order.W[1], anew.W[1], rtol=1e-6)
    np.testing.assert_array_equal(anew.W, again.W)


def test_augmentation_sees_raw_features_and_its_own_key():
    seen = []

    def augment(key, image):
        seen.append((image.dtype, image.shape))
        return image + jnp.uint8(1)

    x = np.random.default_rng(0).integers(0, 9, size=(6, 4), dtype=np.uint8)
    W, b, _, y = problems.problem(n=6, d=4, K=3)
    standardizer = Standardizer(np.full(4, 2.0), np.full(4, 3.0))
    spec = IN_ORDER._replace(augment=augment)
    params, _, _ = train((W, b, x, y), [Config(0.1, 6, 0.0)], spec, standardizer=standardizer)
    assert set(seen) == {(jnp.dtype("uint8"), (4,))}
    expected, _ = problems.train_by_loop(W, b, (x + 1.0 - 2) / 3, y, 0.1, 6, 0.0, "softmax", epochs=1)
    np.testing.assert_allclose(params.W[0], expected, rtol=1e-12)


def test_any_optax_transformation_of_the_traced_hyperparameters_trains():
    def momentum(hyperparams):
        return optax.sgd(hyperparams.eta, momentum=0.9)

    arrays = W, b, x, y = problems.problem(n=8, d=4, K=3)
    spec = IN_ORDER._replace(optimizer=momentum)
    params, _, _ = train(arrays, [Config(0.1, 4, 0.0), Config(0.2, 4, 0.0)], spec)
    velocity = np.zeros_like(W)
    for batch in (slice(0, 4), slice(4, 8)):
        stepped, b_next = problems.train_by_loop(W, b, x[batch], y[batch], 1.0, 4, 0.0, "softmax", 1)
        velocity = 0.9 * velocity + (W - stepped)
        W = W - 0.1 * velocity
        b = b - 0.1 * (b - b_next) if batch.start == 0 else b
    np.testing.assert_allclose(params.W[0], W, rtol=1e-3)


def test_other_hyperparameters_do_not_compile_again():
    arrays = problems.problem(n=9, d=4, K=3)
    train(arrays, [Config(0.1, 4, 0.0), Config(0.1, 9, 0.0)])
    compiled = train_epoch._cache_size()
    train(arrays, [Config(0.7, 4, 0.3), Config(0.01, 9, 2.0)])
    assert train_epoch._cache_size() == compiled


def test_all_batch_sizes_and_epochs_are_one_program(caplog):
    arrays = problems.problem(n=11, d=4, K=3)
    with jax.log_compiles():
        train(arrays, [Config(0.1, size, 0.0) for size in (1, 2, 3, 5, 11)], epochs=2)
    assert len(re.findall(r"Finished XLA compilation of jit\(train_epoch\)", caplog.text)) == 1


@pytest.mark.parametrize(
    ("precision", "dtype", "rtol"),
    [("float32", jnp.float64, 1e-12), ("float32", jnp.float32, 1e-5), ("bfloat16", jnp.float32, 1e-2)],
)
def test_the_shortcut_for_plain_gradient_descent_equals_the_general_way(precision, dtype, rtol):
    def sgd_by_optax(hyperparams):
        return optax.sgd(hyperparams.eta)

    arrays = problems.problem(n=23, d=5, K=3)
    configs = [Config(eta, batch, lam) for eta in (0.01, 0.2) for batch in (5, 23) for lam in (0.0, 0.3)]
    spec = IN_ORDER._replace(precision=precision)
    shortcut = train(arrays, configs, spec, epochs=3, dtype=dtype)
    general = train(arrays, configs, spec._replace(optimizer=sgd_by_optax), epochs=3, dtype=dtype)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=rtol / 10), shortcut, general)


def test_a_small_penalty_is_not_rounded_away():
    # 1 - 2ηλ is 1 - 2e-7; the float32 next to it is 11 % away from that.
    W = np.random.default_rng(0).normal(size=(3, 500)).astype(np.float32)
    hyperparams = training.Hyperparams(eta=jnp.float32(1e-3), lam=jnp.float32(1e-4))
    params, no_loss = Params(jnp.array(W), jnp.zeros(3, jnp.float32)), jnp.zeros((4, 3), jnp.float32)
    for _ in range(1_000):
        params = training.descend(params, jnp.ones((4, 500), jnp.float32), no_loss, hyperparams, "float32")
    np.testing.assert_allclose(np.mean(np.asarray(params.W, np.float64) / W), 1 - 2e-4, atol=1e-5)


def test_devices_with_unequal_shares_train_their_own(monkeypatch):
    arrays = problems.problem(n=23, d=5, K=3)
    configs = [Config(0.1, size, 0.1) for size in (5, 8, 8, 23, 23)]
    expected = train(arrays, configs, devices=jax.local_devices()[:1])
    monkeypatch.setattr(layout, "deal_configs", layout.deal_steps)
    made = layout.make_layout([config.batch for config in configs], 1, jax.local_devices(), 1)
    assert made.batches_per_column == [(5,), (8, 8, 23, 23)]
    assert len(made.configs) == 8
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), train(arrays, configs), expected)


def test_unrolled_loops_change_nothing(monkeypatch):
    arrays = problems.problem(n=29, d=5, K=3)
    configs = [Config(0.1, size, 0.1) for size in (4, 29, 3)]
    expected = train(arrays, configs)
    monkeypatch.setattr(layout, "choose_loops", lambda *_: layout.Loops(vmap_width=0, chunk=12, unroll=8))
    unrolled = train(arrays, configs)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), unrolled, expected)


def test_a_step_tells_the_loss_and_success_of_each_example():
    W, b, x, y = problems.problem(n=6, d=4, K=3)
    params = Params(jnp.array(W), jnp.array(b))
    hyperparams = jax.tree.map(lambda leaf: leaf[0], stack_hyperparams([Config(0.1, 6, 0.0)], jnp.float64))
    state = training.RunState(params, training.sgd(hyperparams).init(params))
    _, measured = training.train_step(state, hyperparams, jnp.array(x), jnp.array(y), IN_ORDER)
    logits = x @ W.T + b
    np.testing.assert_allclose(measured.loss, problems.reference_loss("softmax", logits, y))
    np.testing.assert_array_equal(measured.accuracy, logits.argmax(1) == y.argmax(1))


def test_float32_stays_float32():
    params, metrics, _ = train(problems.problem(n=9), [Config(0.1, 4, 0.1)], dtype=jnp.float32)
    assert {a.dtype for a in (*params, *metrics)} == {jnp.dtype("float32")}
