import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3, -1], "row 2 has label 3: give numbers from 0 to 2"),
        ([0, -1, 3, 2], "row 1 has label -1: give numbers from 0 to 2"),
        ([0.0, 1.0, 2.0, 2.0], "labels are float64: give whole numbers from 0 to 2"),
        ([0.5, 1.0, 2.0, 2.0], "labels are float64"),
        ([True, False, True, False], "labels are bool"),
        (["a", "b", "c", "d"], "labels are <U1"),
        ([0, 1, 2], r"features \(4, 3\) and labels \(3,\) do not fit"),
        ([[0], [1], [2], [2]], r"labels \(4, 1\) do not fit"),
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
    with pytest.raises(ValueError, match="row 2 of the features holds NaN or infinity"):
        lc.make_examples(convert(features), LABELS, num_classes=3)


def test_a_value_too_large_for_float32_is_named():
    features = np.ones((4, 3))
    features[1, 2] = 1e300
    lc.make_examples(features, LABELS, num_classes=3)
    with (
        jax.enable_x64(False),
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="row 1 of the features holds NaN or infinity"),
    ):
        lc.make_examples(features, LABELS, num_classes=3)


@pytest.mark.parametrize(
    ("features", "num_classes", "message"),
    [
        (FEATURES[0], 3, r"features \(3,\) and labels \(4,\) do not fit: give \[n, d\] and \[n\]"),
        (FEATURES[:, :, None], 3, r"features \(4, 3, 1\)"),
        (FEATURES, 1, "num_classes is 1: a classifier needs at least two classes"),
    ],
)
def test_wrong_shapes_are_named(features, num_classes, message):
    with pytest.raises(ValueError, match=message):
        lc.make_examples(features, LABELS * 0, num_classes)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="there are no examples"):
        lc.make_examples(FEATURES[:0], LABELS[:0], num_classes=3)
