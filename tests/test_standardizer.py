import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import linear_cifar as lc
from linear_cifar.replicates import stack_standardizers
from linear_cifar.standardizer import ROWS_AT_ONCE, fit_standardizer, prepare_features, standardize

RNG = np.random.default_rng(0)
LABELS = np.arange(300) % 3
SIGNAL = RNG.normal(size=(300, 4)) + 2 * np.eye(4)[LABELS]
CONFIGS = lc.grid(eta=[0.3], batch=[10], lam=[0.0])


@pytest.mark.parametrize("n", [1, 7, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_matches_scikit_learn_on_pixels(n):
    pixels = np.random.default_rng(0).integers(0, 256, size=(n, 4), dtype=np.uint8)
    scaler = StandardScaler().fit(pixels.astype(np.float64))
    fitted = fit_standardizer(pixels)
    np.testing.assert_allclose(fitted.mean, scaler.mean_)
    # A single row is constant: scikit-learn divides by 1, this project by infinity, and 0 is the result.
    np.testing.assert_allclose(fitted.std, scaler.scale_ if n > 1 else np.inf)
    standardised = standardize(fitted, jnp.array(pixels), jnp.float64)
    np.testing.assert_allclose(standardised, scaler.transform(pixels.astype(np.float64)), atol=1e-12)


def test_a_large_mean_costs_no_digits():
    values = 1e8 + np.random.default_rng(0).normal(size=(5_000, 2))
    np.testing.assert_allclose(fit_standardizer(values).std, values.std(axis=0), rtol=1e-9)


def test_a_constant_feature_becomes_zero():
    features = np.full((10, 2), 0.1)
    features[:, 1] = np.arange(10)
    fitted = fit_standardizer(features)
    assert fitted.std[0] == np.inf
    standardised = standardize(fitted, jnp.array(features), jnp.float32)
    np.testing.assert_allclose(standardised[:, 0], 0, atol=1e-12)
    assert standardised.dtype == jnp.float32


@pytest.mark.parametrize("values", [[0.3, 0.1 + 0.2], [1 / 3, 1 - 2 / 3], [1e9 + 2e-7, 1e9]])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_feature_that_is_constant_up_to_rounding_is_constant(values, dtype):
    features = np.column_stack((np.resize(values, 10), np.arange(10.0))).astype(dtype)
    np.testing.assert_array_equal(np.isinf(fit_standardizer(features).std), [True, False])


@pytest.mark.parametrize(
    "column",
    [
        np.array([256, 257], np.float16),
        np.array([2**31, 2**31 + 1], np.int64),
        np.array([1e9, 1e9 + 1e-3]),
        np.array([0, 1e-150]),
        np.array([0, 255], np.uint8),
        np.array([-1e150, 1e150]),
    ],
    ids=str,
)
def test_a_feature_that_varies_is_not_constant(column):
    assert np.isfinite(fit_standardizer(np.resize(column, 10)[:, None]).std).all()


@pytest.mark.parametrize("size", [1e-300, 1e200, 1e308])
def test_a_feature_whose_squares_are_beyond_float64_is_named(size):
    features = np.column_stack((np.arange(10.0), size * (np.arange(10) / 9)))
    with pytest.raises(ValueError, match=r"feature 1 goes from 0 to .*: scale it"):
        fit_standardizer(features)


def test_a_feature_that_is_constant_in_training_is_0_everywhere():
    train = np.column_stack((SIGNAL, np.full(300, 3.0), np.zeros(300)))
    other = np.column_stack((SIGNAL, RNG.normal(3, 1e3, size=(300, 2))))
    standardizer = fit_standardizer(train)
    examples = lc.make_examples(other, LABELS, 3)
    result = lc.fit(
        CONFIGS, lc.make_examples(train, LABELS, 3), {"test": examples}, epochs=5, standardizer=standardizer
    )
    scaler = StandardScaler().fit(train)
    probe = LogisticRegression(C=1e4).fit(scaler.transform(train), LABELS)
    expected = (probe.predict(scaler.transform(train)) == LABELS).mean()
    assert abs(result.best("test").mean - expected) < 0.02
    W, b = lc.fold_standardizer(result.params(0, 0), standardizer)
    np.testing.assert_array_equal(W[:, 4:], 0)
    assert ((other @ W.T + b).argmax(axis=1) == LABELS).mean() == pytest.approx(result.best("test").mean)
    np.testing.assert_array_equal(standardize(standardizer, jnp.asarray(other, jnp.float32))[:, 4:], 0)


@pytest.fixture
def jax_of_a_user():
    """Set JAX up as it is by itself, where float64 and int64 become narrower types."""
    with jax.enable_x64(False):
        yield


def milliseconds(x):
    """Return times around the year 2020, which differ by seconds."""
    return (1_577_836_800_000 + 1_000 * x).astype(np.int64)


@pytest.mark.parametrize(
    ("change", "folds"),
    [
        (milliseconds, False),
        (milliseconds, True),
        (lambda x: 1e9 + x, False),
        (lambda x: x * 1e-42, True),
        (lambda x: (x * 1e37).astype("f4"), False),
        (lambda x: (1e6 + 100 * x).astype("f4"), True),
    ],
)
@pytest.mark.usefixtures("jax_of_a_user")
def test_wide_features_are_trained_as_scikit_learn_standardises_them(change, folds):
    x = change(SIGNAL)
    rows = [np.arange(200), np.arange(100, 300)]
    seeds, standardizer = [0, 1], fit_standardizer(x)
    if folds:
        seeds = [lc.Replicate(0, f, rows[f], fit_standardizer(x[rows[f]])) for f in (0, 1)]
        standardizer = None
    examples = lc.make_examples(x, LABELS, 3)
    result = lc.fit(CONFIGS, examples, {"train": examples}, epochs=3, seeds=seeds, standardizer=standardizer)
    for s in (0, 1):
        own = x[rows[s]] if folds else x
        scaler = StandardScaler().fit(own.astype(np.float64) - float(own[0, 0]))
        scaled = scaler.transform(x.astype(np.float64) - float(own[0, 0])).astype(np.float32)
        replicate = [lc.Replicate(0, s, rows[s])] if folds else [s]
        expected = lc.fit(CONFIGS, lc.make_examples(scaled, LABELS, 3), {}, epochs=3, seeds=replicate)
        params = result.params(0, 0 if folds else s, s if folds else None)
        np.testing.assert_allclose(params.W, expected.params().W[0, 0], rtol=2e-3, atol=2e-4)
    params = result.params()
    shared = standardizer or stack_standardizers(seeds)
    measured = lc.evaluate(params, examples, "softmax", shared)
    np.testing.assert_allclose(measured.accuracy, result.final["train_acc"], atol=1e-6)
    marks = lc.mark_correct_of_runs(CONFIGS, params, examples, seeds=seeds, standardizer=standardizer)
    np.testing.assert_allclose(marks.mean(axis=-1), measured.accuracy, atol=1e-6)


def test_features_of_narrow_types_stay_as_they_are():
    for dtype in (np.uint8, np.int16, np.float16, np.float32):
        features = np.ones((3, 2), dtype)
        (kept,), standardizer = prepare_features([features], None, np.float32)
        assert kept is features
        assert standardizer is None


@pytest.mark.usefixtures("jax_of_a_user")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_weights_in_numpy_lose_no_digits(dtype):
    x = milliseconds(SIGNAL)
    examples, standardizer = lc.make_examples(x, LABELS, 3), fit_standardizer(x)
    params = lc.Params(np.eye(3, 4).astype(dtype), np.zeros(3, dtype))
    expected = ((x - standardizer.mean) / standardizer.std)[:, :3].argmax(axis=1) == LABELS
    assert lc.evaluate(params, examples, "softmax", standardizer).accuracy == pytest.approx(expected.mean())
    np.testing.assert_array_equal(lc.mark_correct(params, examples, standardizer), expected)
    scaled = standardize(standardizer, x, dtype)
    np.testing.assert_allclose(scaled, (x - standardizer.mean) / standardizer.std, atol=1e-6)
    folded = lc.fold_standardizer(params, standardizer)
    for call in (
        lambda: lc.evaluate(folded, examples, "softmax"),
        lambda: lc.compute_logits(folded, x),
        lambda: lc.objective(folded, x, np.eye(3)[LABELS], "softmax", lam=0.0),
        lambda: lc.fit(
            CONFIGS,
            lc.make_examples(SIGNAL, LABELS, 3),
            {"val": lc.make_examples(x[:, :4], LABELS, 3)},
            epochs=1,
        ),
        lambda: standardize(None, x),
    ):
        with pytest.raises(ValueError, match="which float32 cannot tell apart: give a standardizer"):
            call()


@pytest.mark.usefixtures("jax_of_a_user")
@pytest.mark.parametrize("with_standardizer", [True, False])
def test_whole_numbers_of_64_bits_are_not_cut_to_32(with_standardizer):
    x = (2.0**33 * SIGNAL).astype(np.int64)
    standardizer = fit_standardizer(x) if with_standardizer else None
    scaled = (x - standardizer.mean) / standardizer.std if standardizer else x.astype(np.float64)
    np.testing.assert_allclose(standardize(standardizer, x, np.float64), scaled, rtol=1e-5, atol=1e-6)
    params = lc.Params(np.eye(3, 4), np.zeros(3))
    right = scaled[:, :3].argmax(axis=1) == LABELS
    np.testing.assert_array_equal(
        lc.mark_correct(params, lc.make_examples(x, LABELS, 3), standardizer), right
    )
    np.testing.assert_allclose(lc.compute_logits(params, x), x[:, :3], rtol=1e-5)


@pytest.mark.usefixtures("jax_of_a_user")
def test_an_augmentation_gets_features_in_their_own_units():
    x = 5_000 + 1_000 * SIGNAL
    options = {
        "epochs": 2,
        "standardizer": fit_standardizer(x),
        "augment": lambda key, features: features + 1_000,
    }
    wide, narrow = (
        lc.fit(CONFIGS, lc.make_examples(x.astype(dtype), LABELS, 3), {}, **options).params().W
        for dtype in (np.float64, np.float32)
    )
    np.testing.assert_allclose(wide, narrow, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="cannot tell apart: give a standardizer and no augmentation"):
        lc.fit(CONFIGS, lc.make_examples(milliseconds(SIGNAL), LABELS, 3), {}, **options)


def test_an_example_of_weight_two_counts_as_two():
    rng = np.random.default_rng(0)
    features, weights = rng.integers(0, 256, (2_500, 3)), rng.integers(0, 3, 2_500)
    features[:, 2] = 7 + 90 * (weights == 0)
    weighted, repeated = (
        fit_standardizer(features, weights),
        fit_standardizer(features.repeat(weights, axis=0)),
    )
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.std, repeated.std, rtol=1e-12)
    assert weighted.std[2] == np.inf
    with pytest.raises(ValueError, match=r"weights is int64\(3,\): give \[n\], one for each of the 2500"):
        fit_standardizer(features, [1, 1, 1])
