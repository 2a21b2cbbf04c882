import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import linear_cifar as lc

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, size=(9, 4)).astype(np.uint8)
STANDARDIZER = lc.Standardizer(RNG.uniform(90, 150, 4), RNG.uniform(40, 80, 4))


@pytest.mark.parametrize("runs", [(), (2,), (2, 3)])
def test_folded_parameters_give_the_logits_of_standardised_features_on_raw_ones(runs):
    params = lc.Params(RNG.normal(size=(*runs, 3, 4)), RNG.normal(size=(*runs, 3)))
    folded = lc.fold_standardizer(params, STANDARDIZER)
    assert (folded.W.shape, folded.b.shape) == (params.W.shape, params.b.shape)
    for run in np.ndindex(*runs):
        for x in PIXELS.astype(np.float64):
            direct = params.W[run] @ ((x - STANDARDIZER.mean) / STANDARDIZER.std) + params.b[run]
            np.testing.assert_allclose(folded.W[run] @ x + folded.b[run], direct, rtol=1e-10, atol=1e-12)


def test_parameters_in_float32_are_folded_in_float64():
    params = lc.init_params(jax.random.key(0), d=4, K=3, scale=1.0)
    assert params.W.dtype == jnp.float32
    folded = lc.fold_standardizer(params, STANDARDIZER)
    assert folded.W.dtype == folded.b.dtype == np.float64
    direct = lc.compute_logits(params, lc.standardize(STANDARDIZER, jnp.asarray(PIXELS)))
    np.testing.assert_allclose(PIXELS @ folded.W.T + folded.b, direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "standardizer",
    [
        lc.Standardizer(np.zeros(5), np.ones(5)),
        lc.Standardizer(np.zeros((3, 4)), np.ones((3, 4))),  # of three replicates
        lc.Standardizer(np.zeros(4), np.ones(1)),
    ],
)
def test_a_standardiser_of_another_shape_is_refused(standardizer):
    params = lc.Params(np.zeros((3, 3, 4)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"give both as \(4,\)"):
        lc.fold_standardizer(params, standardizer)


def test_two_classes_have_one_row_in_scikit_learn():
    x = RNG.normal(size=(50, 4))
    params = lc.Params(RNG.normal(size=(2, 4)), RNG.normal(size=2))
    W, b = lc.fold_standardizer(params, lc.Standardizer(x.mean(axis=0), x.std(axis=0)))
    model = LogisticRegression()
    model.coef_, model.intercept_, model.classes_ = W[1:] - W[:1], b[1:] - b[:1], np.arange(2)
    np.testing.assert_allclose(
        model.predict_proba(x), lc.softmax_probabilities(jnp.asarray(x @ W.T + b)), rtol=1e-9
    )


def test_a_constant_feature_gets_no_weight():
    params = lc.Params(np.ones((3, 4)), np.ones(3))
    folded = lc.fold_standardizer(params, STANDARDIZER._replace(std=np.array([1.0, 2.0, np.inf, 4.0])))
    np.testing.assert_array_equal(folded.W, [[1, 0.5, 0, 0.25]] * 3)
