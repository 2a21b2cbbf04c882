"""`solve` beside scikit-learn and closed forms; data without a minimum; folders and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import smooth, softmax
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from test_fit_folder import assert_same

import linear_cifar as lc
from linear_cifar import layout, solver

RNG = np.random.default_rng(0)
SQUARED = lc.Loss.from_value("squared", lambda s, y: jnp.sum((s - y) ** 2))
HINGE = lc.Loss.from_value("squared hinge", lambda s, y: jnp.sum(jnp.maximum(0, 1 - (2 * y - 1) * s) ** 2))
# Above 700 the gradient is NaN and the value is not: both branches of `where` have a gradient.
OVERFLOWING = lc.Loss.from_value(
    "overflowing", lambda s, y: 1e5 * jnp.sum(jnp.where(s > 700, s, jnp.log1p(jnp.exp(s))) - y * s)
)
STEEP = lc.Loss.from_value("steep", lambda s, y: jnp.sum(jnp.exp(-300 * (2 * y - 1) * s)))
# 60 points in 8 dimensions: classes that a linear model separates, and others by chance.
POINTS = RNG.normal(size=(60, 8))
SEPARABLE, RANDOM = POINTS[:, :3].argmax(axis=1), RNG.integers(0, 3, 60)


def read(load, n):
    """Return standardised features and labels of some examples of scikit-learn."""
    X, labels = (array[:n] for array in load(return_X_y=True))
    std = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(std == 0, 1, std), labels


def solve(lams, train, loss="softmax", **options):
    """Solve in float64, for which the tests' references are."""
    return lc.solve(lams, train, loss=loss, **{"dtype": "float64", **options})


def read_params(result, s=0, c=0):
    """Return W and b of a run in float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), result.params_at(s, c))


def objective(W, b, X, Y, lam, weights=1.0):
    """Return J of the softmax loss, for moderate logits."""
    return np.mean(weights * -(Y * np.log(softmax(X @ W.T + b))).sum(axis=1)) + lam * np.sum(W**2)


def fit_logistic(X, labels, lam, weights=None, n=None):
    """Return scikit-learn's W and b; a binary problem's are those of its one logit."""
    model = LogisticRegression(
        C=1 / (2 * (n or len(X)) * lam), solver="newton-cholesky", tol=1e-10, max_iter=1000
    )
    model.fit(X, labels, sample_weight=weights)
    return model.coef_, model.intercept_


def assert_minimum(result, s, c, W, b, expected):
    """Compare a run with a reference's parameters, of which the biases may all be shifted."""
    found, final = read_params(result, s, c), result.final
    assert final["objective"][s, c] <= expected * (1 + 1e-9)
    assert final["converged"][s, c] == 1
    np.testing.assert_allclose(found.W, W, atol=1e-4)
    np.testing.assert_allclose(found.b - found.b.mean(), b - b.mean(), atol=1e-4)


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_minima_are_those_of_scikit_learn(load):
    X, labels = read(load, 2000)
    K, lams = len(np.unique(labels)), [1e-4, 1e-2, 1.0]
    result = solve(lams, lc.make_examples(X, labels, K))
    for c, lam in enumerate(lams):
        # Of two classes scikit-learn has the difference of both weights, whose penalty is half as large.
        W, b = fit_logistic(X, labels, lam / 2 if K == 2 else lam)
        if K == 2:
            W, b = np.concatenate([-W, W]) / 2, np.append(-b, b) / 2
        assert_minimum(result, 0, c, W, b, objective(W, b, X, np.eye(K)[labels], lam))


def test_weighted_folds_have_the_minima_of_scikit_learn():
    X, labels = read(load_digits, 150)
    X = 3 + 2 * X[:, 18:38]
    Y, weights, rows = np.eye(10)[labels], RNG.uniform(0.5, 5, 150).astype(np.float32), np.arange(150)
    folds = [
        lc.Replicate(
            0, fold, rows[rows % 3 != fold], lc.Standardizer(np.full(20, 2.0 + fold), np.full(20, 1.5))
        )
        for fold in (0, 1)
    ]
    lams = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 1e3]  # 60 columns, which go through the examples in two tiles
    result = solve(lams, lc.make_examples(X, labels, 10, weights=weights), replicates=folds)
    for s, fold in enumerate(folds):
        x, y, w = (X[fold.rows] - 2 - s) / 1.5, labels[fold.rows], weights[fold.rows]
        for c, lam in enumerate(lams):
            W, b = fit_logistic(x, y, lam, w)
            assert_minimum(result, s, c, W, b, objective(W, b, x, Y[fold.rows], lam, w))


def test_labels_are_binary_problems_of_scikit_learn():
    X, labels = read(load_breast_cancer, 200)
    Y = np.stack([labels, X[:, 0] + RNG.normal(size=200) > 0.5], axis=1).astype(float)
    for K in (1, 2):  # the mean over labels halves each one's loss
        lams = [1e-4, 1e-2, 1.0]
        result = solve(lams, lc.Examples(X, Y[:, :K], kind="labels"), "bce")
        for c, lam in enumerate(lams):
            for k in range(K):
                W, b = fit_logistic(X, Y[:, k], K * lam)
                found = read_params(result, 0, c)
                np.testing.assert_allclose(found.W[k], W[0], atol=1e-4)
                np.testing.assert_allclose(found.b[k], b[0], atol=1e-4)
        assert result.final["converged"].all()


def test_soft_and_smoothed_targets_are_examples_of_every_class_by_their_share():
    Y = softmax(RNG.normal(size=(60, 3)))
    configs = [lc.Config(lam=0.01), lc.Config(lam=0.01, smoothing=0.3)]
    result = solve(configs, lc.Examples(POINTS, Y))
    for c, config in enumerate(configs):
        shares = smooth("softmax", Y, config.smoothing)
        X, classes = np.repeat(POINTS, 3, axis=0), np.tile(range(3), 60)
        W, b = fit_logistic(X, classes, config.lam, shares.ravel(), n=60)
        assert_minimum(result, 0, c, W, b, objective(W, b, POINTS, shares, config.lam))


def test_a_squared_loss_is_ridge_regression():
    Y = np.eye(3)[SEPARABLE]
    centred = POINTS - POINTS.mean(axis=0)
    lams = [0.0, 1e-3, 1.0]
    result = solve(lams, lc.make_examples(POINTS, SEPARABLE, 3), SQUARED)
    for c, lam in enumerate(lams):
        W = np.linalg.solve(centred.T @ centred + 60 * lam * np.eye(8), centred.T @ (Y - Y.mean(axis=0))).T
        b = Y.mean(axis=0) - W @ POINTS.mean(axis=0)
        expected = np.mean(np.sum((POINTS @ W.T + b - Y) ** 2, axis=1)) + lam * np.sum(W**2)
        assert_minimum(result, 0, c, W, b, expected)


def test_an_objective_that_falls_to_nothing_has_converged():
    result = solve([0.0], lc.make_examples(POINTS[:6], SEPARABLE[:6], 3), SQUARED)
    assert result.final["objective"] < 1e-20
    assert result.final["converged"].all()
    assert result.final["evaluations"] < 20


@pytest.mark.parametrize("kind", ["moderate", "raw", "small", "constant", "large"])
def test_float32_reaches_the_minimum_for_features_of_any_kind(kind):
    X = RNG.normal(size=(40, 60))
    X, lams = {
        "moderate": (X, [1e-2, 1.0, 1e6]),
        "raw": (1e3 + 10 * X, [1.0, 1e2, 1e3]),
        "small": (1e-3 * X, [1e-8, 1e-6, 1.0]),
        "constant": (np.where(np.arange(60) < 5, 100.3, X), [1e-2, 1.0, 1e3]),
        "large": (1e4 * X, [1e6, 1e8, 1e9]),
    }[kind]
    X, labels = X.astype(np.float32), RNG.integers(0, 3, 40)
    result = lc.solve(lams, lc.make_examples(X, labels, 3))
    assert result.final["converged"].all()
    X = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    for c, lam in enumerate(lams):
        W, b = fit_logistic(X, labels, lam)
        expected = objective(W, b, X, np.eye(3)[labels], lam)
        np.testing.assert_allclose(result.final["objective"][0, c], expected, rtol=1e-6)


def test_separable_examples_without_a_penalty_are_said_to_be_so_at_once():
    lams = [0.0, 1e-3]
    for labels, separable in ((SEPARABLE, 1), (RANDOM, 0)):
        final = solve(lams, lc.make_examples(POINTS, labels, 3)).final
        assert final["separable"].tolist() == [[separable, 0]]
        assert final["converged"].tolist() == [[1 - separable, 1]]
        assert final["evaluations"][0, 0] < 40


def test_one_label_that_is_separable_leaves_no_minimum():
    labels = np.stack([RANDOM == 0, POINTS[:, 0] > 0.3], axis=1).astype(float)
    configs = [lc.Config(lam=0.0), lc.Config(lam=0.0, smoothing=0.1), lc.Config(lam=0.01)]
    final = solve(configs, lc.Examples(POINTS, labels, kind="labels"), "bce").final
    assert final["separable"].tolist() == [[1, 0, 0]]
    assert final["converged"].tolist() == [[0, 1, 1]]
    final = solve(configs, lc.Examples(POINTS, labels[:, [0, 0]], kind="labels"), "bce").final
    assert final["converged"].tolist() == [[1, 1, 1]]


def test_a_class_without_examples_gets_no_probability():
    labels = np.minimum(RANDOM, 1)
    result = solve([1e-2, 1e3], lc.make_examples(POINTS, labels, 3))
    for c, lam in enumerate([1e-2, 1e3]):
        W, b = fit_logistic(POINTS, labels, lam / 2)
        W, b = np.concatenate([-W, W]) / 2, np.append(-b, b) / 2
        expected = objective(W, b, POINTS, np.eye(2)[labels], lam)
        np.testing.assert_allclose(result.final["objective"][0, c], expected, rtol=1e-9)
    assert result.final["converged"].all()
    assert result.final["evaluations"].max() < 300


def test_a_single_class_has_no_minimum_but_an_end():
    final = solve([1e-2, 1e3], lc.make_examples(POINTS, np.zeros(60, int), 3)).final
    assert final["objective"].max() < 1e-10
    assert final["evaluations"].max() < 200


def test_a_minimum_at_the_start_is_found_there():
    features = np.where(np.arange(8) % 2, 1000.3, 0) * np.ones((60, 1))
    final = solve([0.0, 1e-3], lc.make_examples(features, np.arange(60) % 3, 3)).final
    assert final["converged"].all()
    assert final["evaluations"].max() == 1


def test_the_mean_of_the_weights_is_a_factor_of_the_loss():
    alike = [
        solve([factor * 1e-2], lc.make_examples(5 + POINTS, RANDOM, 3, weights=np.full(60, factor)))
        for factor in (1.0, 128.0)
    ]
    assert alike[0].final["evaluations"] == alike[1].final["evaluations"]
    np.testing.assert_allclose(read_params(alike[0]).W, read_params(alike[1]).W, rtol=1e-6)


@pytest.mark.parametrize("loss", [OVERFLOWING, STEEP])
def test_a_step_too_far_is_shortened(loss):
    features, labels = POINTS, RANDOM
    if loss is OVERFLOWING:  # the first step puts all examples on their side, at logits above 700
        labels = np.arange(60) % 3
        features = 0.1 * POINTS + np.eye(3, 8)[labels]
    result = solve([0.01], lc.make_examples(features, labels, 3), loss)
    assert result.final["converged"].all()
    nothing, Y = lc.Params(np.zeros((3, 8)), np.zeros(3)), np.eye(3)[labels]
    gradient, start = (
        lc.gradients(params, features, Y, loss, lam=0.01).W for params in (read_params(result), nothing)
    )
    assert np.linalg.norm(gradient) < 1e-8 * np.linalg.norm(start)


def test_a_loss_of_ones_own_may_have_a_minimum_where_classes_are_separable():
    final = solve([0.0], lc.make_examples(POINTS, SEPARABLE, 3), HINGE).final
    assert (final["converged"], final["separable"]) == (1, 0)
    assert final["objective"] > 0.1


# ---- many runs

LAMS = (0.0, 1.0, 1e-2)
# Half of the classes follow the points, so that a run without a penalty takes longer than the others.
TRAIN = lc.make_examples(3 + POINTS, np.where(np.arange(60) % 5, SEPARABLE, RANDOM), 3)
FOLDS = [lc.Replicate(0, fold, np.arange(60)[np.arange(60) % 4 != fold]) for fold in (0, 1)]


def solve_folds(folder=None, lams=LAMS, **options):
    return solve(lams, TRAIN, evaluation_sets={"train": TRAIN}, replicates=FOLDS, folder=folder, **options)


@pytest.fixture(scope="module")
def expected():
    return solve_folds()


def assert_same_minima(result, expected):
    """Compare runs that rounding may part by an evaluation."""
    for found, wanted in zip(*(jax.tree.leaves(r.weights.params) for r in (result, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-7)
    np.testing.assert_allclose(result.final["objective"], expected.final["objective"], rtol=1e-12)
    np.testing.assert_allclose(result.final["evaluations"], expected.final["evaluations"], rtol=0.05, atol=1)
    assert result.final["converged"].all()


def test_a_run_depends_on_itself_alone(expected):
    options = {"block_runs": 1, "devices": jax.local_devices()[:1]}
    assert_same_minima(solve_folds(lams=LAMS[::-1], **options).take([2, 1, 0]), expected)


def test_the_way_of_accelerators_has_the_same_minima(expected, monkeypatch):
    choose = layout.choose_loops
    monkeypatch.setattr(layout, "choose_loops", lambda *args: choose(*args)._replace(vmap_width=0))
    assert_same_minima(solve_folds(), expected)


@pytest.mark.parametrize(
    "changes", [{"CPU_COLUMNS": 3, "CHUNK": 40}, {"LARGEST_COVARIANCE": 2}], ids=["tiles", "variances"]
)
def test_other_widths_and_scales_have_the_same_minima(changes, expected, monkeypatch):
    for name, value in changes.items():
        monkeypatch.setattr(solver, name, value)
    jax.clear_caches()
    result = solve_folds(devices=jax.local_devices()[:1])
    jax.clear_caches()
    np.testing.assert_allclose(result.weights.params.W, expected.weights.params.W, atol=1e-6)
    assert result.final["converged"].all()


def test_a_folder_resumes_the_same_bits(expected, tmp_path):
    assert expected.final["evaluations"].max() > 20
    answers = iter([False] * 3)
    stopped = solve_folds(tmp_path, should_stop=lambda: next(answers, True))
    assert 10 <= stopped.history["evaluations"][~np.isnan(stopped.history["evaluations"])].max() < 40
    assert not stopped.complete
    assert_same(solve_folds(tmp_path), expected, rtol=0)
    assert_same(lc.load_result(tmp_path), expected, rtol=0)
    with pytest.raises(lc.FolderError, match=r"tolerance 1e-10, not 0\.01: give the same, or choose another"):
        solve_folds(tmp_path, tolerance=0.01)


def test_more_evaluations_extend_a_folder(expected, tmp_path):
    result = solve_folds(tmp_path / "folder", max_evaluations=10)
    assert result.final["converged"].tolist() == [[0, 1, 0]] * 2
    result = solve_folds(tmp_path / "folder")
    assert_same(result, expected, rtol=0)
    result.save(tmp_path / "result.npz")
    assert_same(lc.Result.load(tmp_path / "result.npz"), expected, rtol=0)


# ---- the real images


def test_the_real_images(cifar10):
    """Float32 agrees with float64, whose gradient is 0; means of 16 pixels keep it short."""
    pixels, labels, _ = cifar10.splits["train"]
    images = np.reshape(pixels[:5000], (-1, 3, 8, 4, 8, 4)).mean(axis=(3, 5)).reshape(5000, -1)
    train = lc.make_examples(images, labels[:5000], 10)
    standardizer = lc.fit_standardizer(images)
    lams = [1e-2, 0.1]
    exact = solve(lams, train, standardizer=standardizer)
    result = lc.solve(lams, train, standardizer=standardizer)
    np.testing.assert_allclose(result.final["objective"], exact.final["objective"], rtol=1e-6)
    assert exact.final["converged"].all()
    assert result.final["converged"].all()
    x = (images - np.asarray(standardizer.mean)) / np.asarray(standardizer.std)
    for c, lam in enumerate(lams):
        gradient = lc.gradients(read_params(exact, 0, c), x, np.eye(10)[labels[:5000]], lam=lam)
        assert np.linalg.norm(gradient.W) < 1e-8
