import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

import linear_cifar as lc

FEATURES = np.arange(12, dtype=np.uint8).reshape(4, 3)
LABELS = np.array([2, 0, 1, 2])


def test_labels_become_one_hot_targets_and_features_keep_their_type():
    examples = lc.make_examples(FEATURES, LABELS, num_classes=4)
    expected = np.zeros((4, 4))
    for i, label in enumerate(LABELS):
        expected[i, label] = 1
    np.testing.assert_array_equal(examples.targets, expected)
    np.testing.assert_array_equal(examples.features, FEATURES)
    assert (examples.targets.dtype, examples.features.dtype) == (jnp.float32, jnp.uint8)
    for leaf in examples:
        assert isinstance(leaf, jax.Array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_labels_may_be_integers_of_any_type_and_jax_arrays(dtype):
    expected = lc.make_examples(FEATURES, LABELS, num_classes=3).targets
    np.testing.assert_array_equal(lc.make_examples(FEATURES, LABELS.astype(dtype), 3).targets, expected)
    in_jax = lc.make_examples(jnp.asarray(FEATURES), jnp.asarray(LABELS.astype(dtype)), 3)
    np.testing.assert_array_equal(in_jax.targets, expected)


@pytest.mark.parametrize("labels", [[2.0, 0.0, 1.0, 2.0], [2, 0, 1, 2], np.array([2, 0, 1, 2], object)])
def test_whole_labels_of_other_types_are_converted(labels):
    expected = lc.make_examples(FEATURES, LABELS, num_classes=3).targets
    np.testing.assert_array_equal(lc.make_examples(FEATURES, labels, 3).targets, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3, -1], "row 2 of labels is 3: give whole numbers from 0 to 2"),
        ([0, -1, 3, 2], "row 1 of labels is -1: give whole numbers from 0 to 2"),
        ([0.5, 1.0, 2.0, 2.0], "row 0 of labels is 0.5"),
        ([0, 1, 2], r"features \(4, 3\) and labels \(3,\) do not fit"),
        ([[0], [1], [2], [2]], r"labels is int64\(4, 1\): give whole numbers from 0 to 2, one for each"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message) as raised:
        lc.make_examples(FEATURES, np.array(labels), num_classes=3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_the_first_row_with_a_value_that_is_not_finite_is_named(value, convert):
    features = np.ones((4, 3), np.float32)
    features[2, 1] = features[3, 0] = value
    with pytest.raises(ValueError, match="row 2 of features holds NaN or infinity"):
        lc.make_examples(convert(features), LABELS, num_classes=3)


@pytest.mark.parametrize(
    ("features", "num_classes", "message"),
    [
        (FEATURES[0], 3, r"features is uint8\(3,\): give \[n, d\]"),
        (FEATURES[:, :, None], 3, r"features is uint8\(4, 3, 1\)"),
        (FEATURES, 1, "num_classes is 1: give at least 2"),
    ],
)
def test_wrong_shapes_are_named(features, num_classes, message):
    with pytest.raises(ValueError, match=message):
        lc.make_examples(features, LABELS * 0, num_classes)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="give at least one example"):
        lc.make_examples(FEATURES[:0], LABELS[:0], num_classes=3)


NUMBERS = np.array([[0.5, -2.0], [1.25, 3.0], [0.0, 7.0]])


@pytest.mark.parametrize(
    "features",
    [
        NUMBERS.astype(">f8"),
        NUMBERS.astype(">f4"),
        NUMBERS.astype(np.longdouble),
        NUMBERS.astype(object),
        NUMBERS.astype(np.float16),
        NUMBERS.tolist(),
        np.asfortranarray(NUMBERS),
        pd.DataFrame(NUMBERS, columns=["a", "b"], index=[5, 1, 3]),
        pd.DataFrame(NUMBERS).convert_dtypes(),
        jnp.asarray(NUMBERS, jnp.bfloat16),
    ],
    ids=lambda features: type(features).__name__ + str(getattr(features, "dtype", "")),
)
def test_features_of_any_kind_that_loses_nothing_are_converted(features):
    examples = lc.make_examples(features, [0, 1, 0], 2)
    np.testing.assert_array_equal(np.asarray(examples.features, np.float64), NUMBERS)
    assert examples.features.dtype.isnative
    fitted, expected = lc.fit_standardizer(features), lc.fit_standardizer(NUMBERS)
    np.testing.assert_allclose(fitted.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(fitted.std, expected.std, rtol=1e-12)


def test_booleans_are_0_and_1():
    examples = lc.make_examples(NUMBERS > 0.3, np.array([True, False, True]), 2)
    np.testing.assert_array_equal(examples.features, [[1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(examples.targets, [[0, 1], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        ([[1, 0, 0], [0, 0, 1]], "classes"),
        ([[1, 0, 0], [0.2, 0.3, 0.5]], "soft"),
        ([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]], "soft"),
        ([[1, 0, 0], [0, 1, 1]], "labels"),
        ([[1, 0, 0], [0, 0, 0]], "labels"),
        ([[1], [1]], "labels"),
        ([[0.2], [0.9]], "labels"),
    ],
)
def test_all_rows_together_show_the_kind_of_the_targets(targets, kind):
    assert lc.Examples(FEATURES[:2], targets).kind == kind
    assert lc.Examples(FEATURES[:2], np.array(targets, np.float16)).kind == kind
    assert lc.Examples(FEATURES[:2], targets, kind=kind).kind == kind


def test_one_hot_targets_may_be_labels():
    assert lc.Examples(FEATURES[:2], [[1, 0], [0, 1]], kind="labels").kind == "labels"


def test_examples_pass_through_jax_with_their_kind():
    examples = lc.Examples(FEATURES[:2], [[1.0, 1.0], [0.0, 1.0]])
    doubled = jax.jit(lambda examples: jax.tree.map(lambda leaf: 2 * leaf, examples))(examples)
    assert doubled.kind == "labels"
    np.testing.assert_array_equal(doubled.targets, [[2, 2], [0, 2]])
    features, targets = examples.take(np.array([1]))
    np.testing.assert_array_equal(features, FEATURES[1:2])
    np.testing.assert_array_equal(targets, [[0, 1]])
    assert "kind='labels'" in repr(examples)


def test_classes_are_kept_as_whole_numbers_and_rows_are_made_of_them():
    labels, K = np.array([2, 0, 1, 2]), 1_000
    features = np.arange(8.0, dtype=np.float32).reshape(4, 2)
    for examples in (
        lc.make_examples(features, labels, K),
        lc.Examples(features, np.eye(K)[labels]),
        lc.Examples(features, np.eye(K)[labels], kind="classes").take(np.arange(4)),
    ):
        leaves = jax.tree.leaves(examples)
        assert sum(leaf.nbytes for leaf in leaves) == features.nbytes + 4 * len(labels)
        np.testing.assert_array_equal(examples.classes, labels)
        np.testing.assert_array_equal(examples.targets, np.eye(K)[labels])
        assert (examples.K, examples.targets.dtype) == (K, np.float32)
    soft = lc.Examples(features, np.full((4, 2), 0.5))
    np.testing.assert_array_equal(soft.targets, soft.compact)


def test_labels_train_as_soft_targets_that_are_one_hot_do():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    rows = np.eye(3)[y]
    options = {"epochs": 3, "dtype": "float64", "init": lambda seed: lc.numpy_params(seed, 5, 3, "float64")}
    results = [
        lc.fit(lc.grid(eta=[0.1], batch=[7, 16], lam=[0.01]), train, {"val": train}, **options)
        for train in (lc.make_examples(x, y, 3), lc.Examples(x, rows, kind="soft"))
    ]
    for name, values in results[0].final.items():
        np.testing.assert_allclose(values, results[1].final[name], rtol=1e-12)
    np.testing.assert_allclose(results[0].params().W, results[1].params().W, rtol=1e-9)


@pytest.mark.parametrize("weights", [[1, 2, 3], np.full(4, -1.0), [1, 1, np.nan, 1], [0, 1, 1, 1e39], "same"])
def test_weights_are_checked(weights):
    features = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="weights"):
        lc.make_examples(features, [0, 1, 0, 1], 2, weights=weights)
    if not isinstance(weights, str):
        with pytest.raises(ValueError, match="weights"):
            lc.Examples(features, np.eye(2)[[0, 1, 0, 1]], weights=weights)


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0, 0, 0, 3, 3, 1])
    examples = lc.make_examples(np.zeros((6, 2), np.float32), labels, 5, weights="balanced")
    np.testing.assert_allclose(examples.weights, compute_sample_weight("balanced", labels), rtol=1e-6)
    np.testing.assert_array_equal(
        examples.take(np.array([3, 5])).weights, np.asarray(examples.weights)[[3, 5]]
    )


def test_whole_weights_train_as_repeated_examples_do():
    rng = np.random.default_rng(0)
    x, y, weights = rng.standard_normal((12, 5)), rng.integers(0, 3, 12), rng.integers(0, 3, 12)
    repeated = np.repeat(np.arange(12), weights)
    m = len(repeated)
    options = {"epochs": 4, "shuffle": False, "init": lambda seed: lc.numpy_params(seed, 5, 3, "float64")}
    # A full batch: the mean over 12 weighted examples is m / 12 times that over m repeated ones.
    trained = [
        lc.fit([lc.Config(eta, batch, 0.0)], train, dtype="float64", **options).params().W
        for eta, batch, train in (
            (0.1 * 12 / m, 12, lc.make_examples(x, y, 3, weights=weights)),
            (0.1, m, lc.make_examples(x[repeated], y[repeated], 3)),
        )
    ]
    np.testing.assert_allclose(*trained, rtol=1e-9)


def test_weighted_minimum_is_scikit_learns():
    rng = np.random.default_rng(1)
    y = rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    x = rng.standard_normal((200, 4)) + y[:, None]
    lam = 0.01
    result = lc.fit(
        [lc.Config(0.5, 200, lam, momentum=0.9)],
        lc.make_examples(x, y, 3, weights="balanced"),
        epochs=600,
        optimizer="heavy_ball",
        shuffle=False,
        dtype="float64",
        init=lambda seed: lc.numpy_params(seed, 4, 3, "float64"),
    )
    model = LogisticRegression(C=1 / (2 * 200 * lam), class_weight="balanced", tol=1e-10, max_iter=5_000).fit(
        x, y
    )
    np.testing.assert_allclose(result.params(0, seed=0).W, model.coef_, atol=1e-4)


def test_only_a_read_only_array_is_referred_to():
    buffer = np.zeros(64 * 1024, np.uint8)
    start = -buffer.ctypes.data % 64  # JAX can refer to an array that begins like this one
    features = buffer[start : start + 32_000].reshape(1_000, 32)
    labels = np.arange(1_000) % 2
    examples = lc.make_examples(features, labels, 2)
    features[:] = 7
    assert not np.asarray(examples.features).any()
    features.flags.writeable = False
    examples = lc.make_examples(features, labels, 2)
    assert examples.features.unsafe_buffer_pointer() == features.ctypes.data
