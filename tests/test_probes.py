"""Linear probes on real features, scikit-learn's digits, against scikit-learn."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score
from sklearn.model_selection import train_test_split

import linear_cifar as lc


@pytest.fixture(scope="module")
def digits():
    """Training, validation and test rows (1,077, 360 and 360), each as features and labels."""
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    return {"train": (x, y), "val": (x_val, y_val), "test": (x_test, y_test)}


def test_the_minimum_is_that_of_logistic_regression(digits):
    (x, y), lams = digits["train"], (1e-3, 1e-2)
    standardizer = lc.fit_standardizer(x)
    z = (x - standardizer.mean) / standardizer.std
    pair = jnp.asarray(z), jax.nn.one_hot(y, 10)
    train = lc.Examples(*pair)
    result = lc.fit(
        [lc.Config(1.0, len(y), lam, momentum=0.95) for lam in lams],
        train,
        {},
        epochs=400,
        optimizer="heavy_ball",
        shuffle=False,
        init=lambda seed: lc.init_params(jax.random.key(seed), 64, 10, dtype=jnp.float64),
    )
    loss = lc.get_loss("softmax")
    for c, lam in enumerate(lams):
        params = result.params(c, seed=0)
        model = LogisticRegression(C=1 / (2 * len(y) * lam), tol=1e-8, max_iter=2_000).fit(z, y)
        expected = lc.Params(jnp.asarray(model.coef_), jnp.asarray(model.intercept_))
        lowest = lc.objective(expected, *pair, lam=lam, loss=loss)
        reached = lc.objective(lc.Params(*map(jnp.asarray, params)), *pair, lam=lam, loss=loss)
        assert lowest - 1e-9 <= reached <= lowest * (1 + 1e-6)
        distance = np.linalg.norm(params.W - expected.W) / np.linalg.norm(expected.W)
        assert distance < 1e-3, distance


def test_the_best_probe_is_as_good_as_scikit_learns(digits):
    standardizer = lc.fit_standardizer(digits["train"][0])
    examples = {name: lc.make_examples(x.astype(np.float32), y, 10) for name, (x, y) in digits.items()}
    train = examples.pop("train")
    result = lc.fit(
        lc.grid(eta=[0.03, 0.1, 0.3], batch=[16], lam=[1e-4, 1e-3, 1e-2]),
        train,
        examples,
        epochs=30,
        seeds=range(10),
        standardizer=standardizer,
        schedule="cosine",
    )
    chosen = result.best("val").index
    ours = result.final["test_acc"][:, chosen].mean()
    scaled = {name: (x - standardizer.mean) / standardizer.std for name, (x, _) in digits.items()}
    models = [
        LogisticRegression(C=C, max_iter=2_000).fit(scaled["train"], digits["train"][1])
        for C in (0.01, 0.1, 1, 10)
    ]
    theirs = max(model.score(scaled["test"], digits["test"][1]) for model in models)
    assert theirs - 0.01 <= ours <= 1
    assert ours > 0.94


def test_accuracy_per_class_and_confusions_are_those_of_scikit_learn(digits):
    x, y = digits["test"]
    keep = (y > 2) | (np.arange(len(y)) % 5 == 0)  # classes 0 to 2 have few examples
    keep &= y != 9  # and the last one none
    x, y = x[keep].astype(np.float32), y[keep]
    rng = np.random.default_rng(0)
    params = lc.Params(rng.normal(size=(2, 3, 10, 64)).astype(np.float32), np.zeros((2, 3, 10), np.float32))
    examples = lc.make_examples(x, y, 10)
    marks, counts = lc.mark_correct(params, examples), lc.confusion_matrix(params, examples)
    by_class = lc.mean_class_accuracy(marks, y)
    accuracy = lc.evaluate(params, examples, lc.get_loss("softmax")).accuracy
    for run in np.ndindex(2, 3):
        predicted = (x @ params.W[run].T).argmax(axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class is predicted that has no example
            assert by_class[run] == pytest.approx(balanced_accuracy_score(y, predicted), rel=1e-12)
        np.testing.assert_array_equal(counts[run], confusion_matrix(y, predicted, labels=range(10)))
        assert np.trace(counts[run]) / len(y) == pytest.approx(accuracy[run])
    configs = [lc.Config(0.1, batch, 0.0) for batch in (5, 7, 5)]  # not in the order of the devices
    of_runs = lc.mark_correct_of_runs(configs, params, examples, seeds=(0, 1))
    np.testing.assert_array_equal(of_runs, marks)
    # Each replicate has examples of its own.
    half = len(y) // 2
    halves = np.stack([marks[0, :, :half], marks[1, :, half : 2 * half]])
    expected = [lc.mean_class_accuracy(marks[0, :, :half], y[:half])]
    expected.append(lc.mean_class_accuracy(marks[1, :, half : 2 * half], y[half : 2 * half]))
    np.testing.assert_array_equal(lc.mean_class_accuracy(halves, y[: 2 * half].reshape(2, -1)), expected)


@pytest.mark.parametrize("kind", ["classes", "soft"])
@pytest.mark.parametrize("top", [1, 2, 5])
def test_top_accuracy_is_that_of_scikit_learn(kind, top):
    rng = np.random.default_rng(0)
    y, x = rng.integers(25, size=80), rng.integers(-2, 3, size=(80, 3)).astype(np.float32)
    params = lc.Params(rng.integers(-1, 2, size=(4, 25, 3)).astype(np.float32), np.zeros((4, 25), np.float32))
    params.W[3, 7] = np.inf
    examples = lc.Examples(x, 0.9 * np.eye(25)[y] + 0.1 / 25 if kind == "soft" else np.eye(25)[y])
    marks = lc.mark_correct(params, examples, top=top)
    for run in range(3):
        logits = x @ params.W[run].T
        # Of many equal logits scikit-learn counts the last one as the highest.
        assert len(np.unique(logits[0])) < 12
        expected = top_k_accuracy_score(24 - y, logits[:, ::-1], k=top, labels=range(25))
        assert marks[run].mean() == pytest.approx(expected, rel=1e-12)
    assert not marks[3].any()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64"])
def test_rows_are_scaled_to_unit_length(dtype):
    x = np.random.default_rng(0).uniform(0, 255, size=(2_500, 4)).astype(dtype)
    x[7] = 0
    scaled = lc.scale_to_unit_length(x)
    lengths = np.linalg.norm(scaled, axis=1)
    np.testing.assert_allclose(np.delete(lengths, 7), 1, atol=1e-6)
    assert lengths[7] == 0
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[0] / scaled[0, 0], x[0].astype(float) / float(x[0, 0]), rtol=1e-5)


def test_the_length_of_extreme_rows_is_finite():
    x = np.array([[3e200, 4e200], [3e-200, -4e-200]])
    np.testing.assert_allclose(lc.scale_to_unit_length(x, np.float64), [[0.6, 0.8], [0.6, -0.8]])
