import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from linear_cifar.standardizer import ROWS_AT_ONCE, fit_standardizer, standardize


@pytest.mark.parametrize("n", [1, 7, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_matches_scikit_learn_on_pixels(n):
    pixels = np.random.default_rng(0).integers(0, 256, size=(n, 4), dtype=np.uint8)
    scaler = StandardScaler().fit(pixels.astype(np.float64))
    fitted = fit_standardizer(pixels)
    np.testing.assert_allclose(fitted.mean, scaler.mean_)
    np.testing.assert_allclose(fitted.std, scaler.scale_)
    standardised = standardize(fitted, jnp.array(pixels), jnp.float64)
    np.testing.assert_allclose(standardised, scaler.transform(pixels.astype(np.float64)), atol=1e-12)


def test_a_large_mean_costs_no_digits():
    values = 1e8 + np.random.default_rng(0).normal(size=(5_000, 2))
    np.testing.assert_allclose(fit_standardizer(values).std, values.std(axis=0), rtol=1e-9)


def test_a_constant_feature_becomes_zero():
    features = np.full((10, 2), 0.1)
    features[:, 1] = np.arange(10)
    fitted = fit_standardizer(features)
    assert fitted.std[0] == 1
    standardised = standardize(fitted, jnp.array(features), jnp.float32)
    np.testing.assert_allclose(standardised[:, 0], 0, atol=1e-12)
    assert standardised.dtype == jnp.float32
