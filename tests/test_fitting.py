import inspect

import numpy as np
import problems
import pytest
import small_sweep
from small_sweep import CONFIGS, SEEDS, TRAIN, VAL, D, K, N

import linear_cifar as lc
from linear_cifar import fitting
from linear_cifar.legs import Trainer

PARTS = {"train": slice(30), "val": slice(30, 45), "test": slice(45, 60)}

# W grows by |1 − 2 η λ| = 1e30 per update, five updates per epoch: beyond 1e308 in the third.
DIVERGING = lc.Config(1.0, 8, 1e30 / 2)


def fit(configs=(*CONFIGS, DIVERGING), epochs=3, evaluation_sets=None, **options):
    """Fit in one block, or with `block_runs=1` in a block for each run."""
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
    return fit(block_runs=1)


@pytest.mark.parametrize("name", ["result", "in_blocks"])
def test_fit_equals_a_sweep_in_one_block_and_in_several(name, epochs, request):
    fitted = request.getfixturevalue(name)
    runs = np.s_[:, : len(CONFIGS)]  # without the one that diverges
    for number, epoch in enumerate(epochs):
        assert fitted.history.keys() == epoch.metrics.keys()
        for column, expected in epoch.metrics.items():
            ours = fitted.history[column][number]
            assert ours.shape == (len(SEEDS), len(CONFIGS) + 1)
            assert ours.dtype == expected.dtype
            np.testing.assert_allclose(ours[runs], expected[runs], rtol=1e-9)
    np.testing.assert_array_equal(fitted.diverged, epochs[-1].diverged)
    for column in ("val_loss", "val_acc"):
        np.testing.assert_array_equal(fitted.final[column], fitted.history[column][-1])
    W, b = epochs[-1].params()
    np.testing.assert_allclose(fitted.params().W[runs], W[runs], rtol=1e-9, atol=1e-12)
    for s, seed in enumerate(SEEDS):
        for c in range(len(CONFIGS)):
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).W, W[s, c], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).b, b[s, c], rtol=1e-9, atol=1e-12)


def test_fit_equals_a_plain_loop():
    fitted = fit(CONFIGS, epochs=2, shuffle=False, loss="bce", block_runs=1)
    x, y = (np.asarray(array) for array in TRAIN)
    x_val, y_val = (np.asarray(array) for array in VAL)
    for s, seed in enumerate(SEEDS):
        initial = [np.asarray(leaf) for leaf in small_sweep.init(seed)]
        for c, config in enumerate(CONFIGS):
            W, b = problems.train_by_loop(*initial, x, y, loss="bce", epochs=2, **config)
            np.testing.assert_allclose(fitted.params(config=c, seed=seed).W, W, rtol=1e-9, atol=1e-12)
            logits = x_val @ W.T + b
            expected = problems.reference_loss("bce", logits, y_val).mean()
            np.testing.assert_allclose(fitted.final["val_loss"][s, c], expected, rtol=1e-9)
            correct = logits.argmax(axis=1) == y_val.argmax(axis=1)
            assert fitted.final["val_acc"][s, c] == correct.mean()
            by_class = [correct[y_val[:, k] == 1].mean() for k in range(K)]
            assert fitted.final["val_class_acc"][s, c] == pytest.approx(np.mean(by_class))
            np.testing.assert_array_equal(fitted.values("val", c)[s], correct)
            np.testing.assert_allclose(fitted.history["W_norm"][-1, s, c], np.linalg.norm(W), rtol=1e-9)


def test_top_5_accuracies_are_measured_from_20_classes_on(result):
    assert not any("top" in name for name in result.final)
    y, measured = np.arange(60) % 20, {"val_top5", "test_top5"}
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) + y[:, None] % 7
    sets = {name: lc.make_examples(x[rows], y[rows], 20) for name, rows in PARTS.items()}
    configs = [lc.Config(0.1, 10, 0.0), lc.Config(1.0, 10, 1e30)]  # the second one diverges
    fitted = lc.fit(configs, sets["train"], sets, epochs=2, per_epoch=["val"])
    assert {name for name in fitted.final if "top" in name} == measured
    W, b = fitted.params(config=0, seed=0)
    for name in measured:
        rows, values = PARTS[name.removesuffix("_top5")], fitted.final[name]
        best = (x[rows] @ W.T + b).argsort(axis=1)[:, -5:]
        assert values.dtype == np.float32
        assert values[0, 0] == pytest.approx((best == y[rows, None]).any(axis=1).mean())
        assert np.isnan(values[0, 1])


def test_memory_decides_the_number_of_blocks(monkeypatch):
    blocks = []
    original = Trainer.train_block

    def count_blocks(self, block):
        blocks.append(block.identity.size)
        return original(self, block)

    monkeypatch.setattr(Trainer, "train_block", count_blocks)
    fit(epochs=1)
    assert blocks == [(2, 5)]
    blocks.clear()
    fit(epochs=1, block_runs=1)
    assert blocks == [(1, 1)] * 10


@pytest.mark.parametrize("name", ["result", "in_blocks"])
def test_measurements_are_nan_from_the_epoch_of_divergence(name, request):
    fitted = request.getfixturevalue(name)
    assert fitted.diverged.tolist() == [[0, 0, 0, 0, 3]] * 2
    assert fitted.stayed_finite.tolist() == [True] * 4 + [False]
    diverged = np.zeros((3, 2, 5), bool)
    diverged[2, :, -1] = True
    for values in fitted.history.values():
        np.testing.assert_array_equal(np.isnan(values), diverged)
    for values in fitted.final.values():
        np.testing.assert_array_equal(np.isnan(values), diverged[-1])
    assert fitted.complete


def test_sets_that_are_not_measured_after_every_epoch_are_measured_at_the_end(result):
    fitted = fit(per_epoch=["val"], evaluation_sets={"train": TRAIN, "val": VAL, "test": VAL})
    assert fitted.per_epoch == ("val",)
    assert {name for name in fitted.history if name.startswith(("train", "test"))} == set()
    for metric in ("loss", "acc", "class_acc"):
        np.testing.assert_allclose(fitted.final[f"test_{metric}"], fitted.final[f"val_{metric}"], rtol=1e-12)
    assert "train_acc" in fitted.final
    assert "train_class_acc" not in fitted.final
    np.testing.assert_array_equal(fitted.history["val_loss"], result.history["val_loss"])
    with pytest.raises(ValueError, match="per_epoch has 'other': the evaluation sets are val"):
        fit(per_epoch=["other"])


@pytest.mark.parametrize("block_runs", [None, 1])
def test_the_best_run_of_each_configuration_is_kept(block_runs, result):
    fitted = fit(keep="per_config", block_runs=block_runs)
    accuracy = fitted.final["val_acc"]
    assert {0, 1} == set(accuracy[:, :-1].argmax(axis=0))  # not the same replicate everywhere
    for c in range(len(CONFIGS)):
        best = accuracy[:, c].argmax()
        expected = result.params(config=c, seed=SEEDS[best])
        np.testing.assert_allclose(fitted.params(config=c, seed=SEEDS[best]).W, expected.W, rtol=1e-9)
        other = SEEDS[1 - best]
        message = f"configuration {c}, seed {other} were not kept: use keep='all'"
        with pytest.raises(KeyError, match=message):
            fitted.params(config=c, seed=other)
    assert len(fitted.weights.configs) == len(CONFIGS) + 1
    with pytest.raises(KeyError, match="there are no weights of some runs"):
        fitted.params()


@pytest.mark.parametrize("block_runs", [None, 1])
def test_only_the_best_run_is_kept(block_runs, result):
    fitted = fit(keep="best", block_runs=block_runs)
    (replicate,), (config,) = fitted.weights.replicates.tolist(), fitted.weights.configs.tolist()
    assert config == result.best().index
    assert replicate == result.best_replicate(config)
    expected = result.params_at(replicate, config)
    np.testing.assert_allclose(fitted.weights.params.W[0], expected.W, rtol=1e-9)


def test_by_default_all_weights_are_kept_where_they_are_small(monkeypatch):
    # The weights of a run and their averages.
    nbytes = 2 * (D + 1) * K * 8
    for limit, kept in ((10 * nbytes, 10), (10 * nbytes - 1, 5), (5 * nbytes, 5), (5 * nbytes - 1, 1)):
        monkeypatch.setattr(fitting, "KEPT_BYTES", limit)
        assert len(fit(epochs=1).weights.configs) == kept
    assert len(fit(epochs=1, keep="all").weights.configs) == 10
    # Without an evaluation set there is no best replicate.
    assert len(fit(epochs=1, evaluation_sets={}).weights.configs) == 10


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
    np.testing.assert_array_equal(found, folds.params().W[:, 1])
    assert not np.allclose(*found, rtol=1e-3)


def test_a_mistake_in_the_last_block_is_found_before_the_first_one_is_trained():
    traced = []

    def augment(key, features):
        traced.append(features)
        return features

    with pytest.raises(ValueError, match="batch is 41"):
        fit([*CONFIGS, lc.Config(0.1, N + 1, 0.0)], augment=augment, block_runs=1)
    assert traced == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "some"}, "keep is 'some': choose one of all, per_config, best"),
        ({"keep": "best", "evaluation_sets": {}}, "keep='best' needs an evaluation set"),
        ({"keep": "per_config", "evaluation_sets": {}}, "keep='per_config' needs an evaluation set"),
        ({"save_every": 0}, "save_every is 0"),
        ({"block_runs": 0}, "block_runs is 0"),
        ({"halving": lc.Halving(), "evaluation_sets": {}}, "halving needs an evaluation set"),
        ({"halving": lc.Halving(1), "epochs": 3}, "factor is 1"),
        ({"halving": lc.Halving()}, "epochs is 1: halving needs at least 2"),
    ],
)
def test_wrong_choices_are_named(options, message):
    # Unwrapped, since the tests' type checks would refuse other strings themselves.
    arguments = {"evaluation_sets": {"val": VAL}, "epochs": 1, **options}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lc.fit)(CONFIGS, TRAIN, **arguments)
