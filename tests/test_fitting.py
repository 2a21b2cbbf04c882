import inspect

import jax
import numpy as np
import problems
import pytest
import small_sweep
from small_sweep import CONFIGS, SEEDS, TRAIN, VAL, D, K, N

import linear_cifar as lc
from linear_cifar import fitting

# W grows by |1 − 2 η λ| = 1e30 per update, five updates per epoch: beyond 1e308 in the third.
DIVERGING = lc.Config(1.0, 8, 1e30 / 2)


def fit(configs=(*CONFIGS, DIVERGING), epochs=3, evaluation_sets=None, **options):
    """Fit in one block, or with `memory_bytes=1` in a block for each run."""
    sets = {"val": VAL} if evaluation_sets is None else evaluation_sets
    options = {"seeds": SEEDS, "init": small_sweep.init, **options}
    return lc.fit(configs, TRAIN, sets, epochs=epochs, **options)


@pytest.fixture(scope="module")
def epochs():
    return small_sweep.run((*CONFIGS, DIVERGING))


@pytest.fixture(scope="module")
def result():
    return fit()


@pytest.fixture(scope="module")
def in_blocks():
    return fit(memory_bytes=1)


@pytest.mark.parametrize("name", ["result", "in_blocks"])
def test_fit_equals_a_sweep_in_one_block_and_in_several(name, epochs, request):
    fitted = request.getfixturevalue(name)
    runs = np.s_[:, : len(CONFIGS)]  # without the one that diverges
    for number, epoch in enumerate(epochs):
        for ours, expected in zip(
            jax.tree.leaves(jax.tree.map(lambda values, e=number: values[e], fitted.history)),
            jax.tree.leaves(epoch.metrics),
            strict=True,
        ):
            assert ours.shape == (len(SEEDS), len(CONFIGS) + 1)
            assert ours.dtype == expected.dtype
            np.testing.assert_allclose(ours[runs], expected[runs], rtol=1e-9)
    W, b = epochs[-1].params()
    for s, seed in enumerate(SEEDS):
        for c in range(len(CONFIGS)):
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).W, W[s, c], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).b, b[s, c], rtol=1e-9, atol=1e-12)


def test_fit_equals_a_plain_loop():
    fitted = fit(CONFIGS, epochs=2, shuffle=False, loss="bce", memory_bytes=1)
    x, y = (np.asarray(array) for array in TRAIN)
    x_val, y_val = (np.asarray(array) for array in VAL)
    for s, seed in enumerate(SEEDS):
        initial = [np.asarray(leaf) for leaf in small_sweep.init(seed)]
        for c, (eta, batch, lam, *_) in enumerate(CONFIGS):
            W, b = problems.train_by_loop(*initial, x, y, eta, batch, lam, "bce", epochs=2)
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).W, W, rtol=1e-9, atol=1e-12)
            logits = x_val @ W.T + b
            loss, accuracy = (values[s, c] for values in fitted.metrics["val"])
            np.testing.assert_allclose(loss, problems.reference_loss("bce", logits, y_val).mean(), rtol=1e-9)
            assert accuracy == (logits.argmax(axis=1) == y_val.argmax(axis=1)).mean()
            np.testing.assert_allclose(fitted.history.norm[-1, s, c], np.linalg.norm(W), rtol=1e-9)


def test_memory_decides_the_number_of_blocks(monkeypatch):
    blocks = []

    def count_blocks(configs, *args, seeds, **options):
        blocks.append((len(seeds), len(configs)))
        return lc.sweep(configs, *args, seeds=seeds, **options)

    monkeypatch.setattr(fitting, "sweep", count_blocks)
    fit(epochs=1)
    assert blocks == [(2, 5)]
    blocks.clear()
    fit(epochs=1, memory_bytes=1)
    assert blocks == [(1, 1)] * 10


@pytest.mark.parametrize("name", ["result", "in_blocks"])
def test_measurements_are_nan_from_the_epoch_of_divergence(name, epochs, request):
    history = request.getfixturevalue(name).history
    assert [bool(epoch.metrics.finite[0, -1]) for epoch in epochs] == [True, True, False]
    np.testing.assert_array_equal(history.finite[..., :-1], True)
    np.testing.assert_array_equal(history.finite[..., -1], [[True, True], [True, True], [False, False]])
    measured = (*history.running, *history.evaluated["val"], history.norm)
    for values in measured:
        np.testing.assert_array_equal(np.isnan(values), ~history.finite)


def test_the_best_configuration_is_that_of_the_highest_mean_accuracy(result):
    best = result.best("val")
    accuracy = result.metrics["val"].accuracy
    means = accuracy.mean(axis=0)
    assert np.isnan(means[-1])
    assert best.mean == means[:-1].max() == means[best.index]
    assert best.config == CONFIGS[best.index]
    first, second = accuracy[:, best.index]
    assert first != second
    np.testing.assert_allclose(best.stderr, abs(first - second) / 2)
    with pytest.raises(KeyError, match="test"):
        result.best("test")


def test_one_replicate_has_no_standard_error():
    assert np.isnan(fit(CONFIGS[:1], epochs=1, seeds=[0]).best("val").stderr)


@pytest.mark.parametrize("memory_bytes", [None, 1])
def test_the_best_run_of_each_configuration_is_kept(memory_bytes, result):
    fitted = fit(keep_params="best", memory_bytes=memory_bytes)
    accuracy = fitted.metrics["val"].accuracy
    assert {0, 1} == set(accuracy[:, :-1].argmax(axis=0))  # not the same replicate everywhere
    for c in range(len(CONFIGS)):
        best = accuracy[:, c].argmax()
        expected = result.params(config=c, seed=SEEDS[best])
        np.testing.assert_allclose(fitted.params(config=c, seed=SEEDS[best]).W, expected.W, rtol=1e-9)
        other = SEEDS[1 - best]
        message = f"configuration {c}, seed {other} were not kept: use keep_params='all'"
        with pytest.raises(KeyError, match=message):
            fitted.params(config=c, seed=other)
    assert len(fitted.saved.configs) == len(CONFIGS) + 1


def test_by_default_all_weights_are_kept_where_they_are_small(monkeypatch):
    kept_bytes = len(SEEDS) * (len(CONFIGS) + 1) * (D + 1) * K * 8
    for limit, kept in ((kept_bytes, 10), (kept_bytes - 1, 5)):
        monkeypatch.setattr(fitting, "KEPT_BYTES", limit)
        assert len(fit(epochs=1).saved.configs) == kept
        assert len(fit(epochs=1, keep_params="all").saved.configs) == 10
    # Without an evaluation set there is no best replicate.
    assert len(fit(epochs=1, evaluation_sets={}).saved.configs) == 10


def test_a_run_is_named_by_its_seed_and_fold(epochs, result):
    W = epochs[-1].params().W
    assert SEEDS == (7, 3)
    np.testing.assert_allclose(result.params(config=1, seed=3).W, W[1, 1], rtol=1e-9)
    for config, seed, fold in ((1, 0, None), (1, 3, 0), (5, 3, None), (-1, 3, None)):
        with pytest.raises(KeyError, match=f"no run of configuration {config} and seed {seed}"):
            result.params(config=config, seed=seed, fold=fold)

    rows = np.arange(N).reshape(2, -1)
    folds = fit(CONFIGS, seeds=[lc.Replicate(3, fold, rows[fold]) for fold in (1, 0)])
    found = [folds.params(config=1, seed=3, fold=fold).W for fold in (1, 0)]
    np.testing.assert_array_equal(found, folds.saved.params.W.reshape(2, len(CONFIGS), K, D)[:, 1])
    assert not np.allclose(*found, rtol=1e-3)


def test_a_mistake_in_the_last_block_is_found_before_the_first_one_is_trained():
    traced = []

    def augment(key, features):
        traced.append(features)
        return features

    with pytest.raises(ValueError, match="batch is 41"):
        fit([*CONFIGS, lc.Config(0.1, N + 1, 0.0)], augment=augment, memory_bytes=1)
    assert traced == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_params": "some"}, "keep_params is 'some': choose one of all, best"),
        ({"keep_params": "best", "evaluation_sets": {}}, "keep_params='best' needs an evaluation set"),
    ],
)
def test_wrong_choices_of_weights_are_named(options, message):
    # Unwrapped, since the tests' type checks would refuse other strings themselves.
    arguments = {"evaluation_sets": {"val": VAL}, "epochs": 1, **options}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lc.fit)(CONFIGS, TRAIN, **arguments)
