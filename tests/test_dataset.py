import inspect

import numpy as np
import pytest

from linear_cifar.data.cifar10 import SIZES
from linear_cifar.data.dataset import BATCH_FILE_SIZE, DataError, Split, make_dataset
from linear_cifar.data.division import divide, draw_folds, draw_stratified, train_size


def raw(n=50, n_test=3):
    def split(n, start):
        values = np.arange(start, start + n, dtype=np.uint16)
        return Split(
            np.stack([values % 256, values // 256], axis=1).astype(np.uint8), (values % 10).astype(np.uint8)
        )

    classes = tuple("abcdefghij")
    splits = {"train": split(n, 0), "test": split(n_test, 60_000)}
    return make_dataset("tiny", classes, splits, "nowhere")


def test_full_takes_the_validation_split_from_the_end():
    whole = raw()
    divided = divide(whole, "full", val_size=20)
    np.testing.assert_array_equal(divided["train"].features, whole.splits["train"].features[:30])
    np.testing.assert_array_equal(divided["val"].features, whole.splits["train"].features[30:])
    np.testing.assert_array_equal(divided["val"].labels, whole.splits["train"].labels[30:])
    np.testing.assert_array_equal(divided["test"].features, whole.splits["test"].features)
    assert len(divided["train"].labels) == train_size({"train": 50}, "full", 20)


def test_batch1_trains_on_the_first_file_and_validates_on_the_second():
    whole = raw(n=50_000)
    divided = divide(whole, "batch1")
    np.testing.assert_array_equal(divided["train"].labels, whole.splits["train"].labels[:BATCH_FILE_SIZE])
    np.testing.assert_array_equal(
        divided["val"].features, whole.splits["train"].features[BATCH_FILE_SIZE : 2 * BATCH_FILE_SIZE]
    )
    assert len(divided["train"].labels) == train_size(SIZES, "batch1", 1_000)


@pytest.mark.parametrize(("train", "val_size"), [("full", 50), ("full", 51), ("batch1", 1), ("batch1", 0)])
def test_too_few_images_is_one_clear_line(train, val_size):
    with pytest.raises(DataError, match="tiny has 50 training images"):
        divide(raw(), train, val_size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("half", 20), "train is 'half': choose one of full, batch1"),
        (("full", 20.0), "val_size is 20.0: give a whole number"),
        (("full", -1), "val_size is -1: give at least 0"),
        (("full", "20"), "val_size is '20'"),
        (("full", 0, 2.5), "folds is 2.5"),
        (("full", 0, -2), "folds is -2"),
        (("full", 0, 1), "folds is 1: give at least 2, or 0 for none"),
        (("full", 0, True), "folds is True"),
    ],
)
def test_no_other_division_is_taken_for_one_of_these(arguments, message):
    # Without the tests' check of types.
    for function, first in ((train_size, SIZES), (divide, raw())):
        with pytest.raises(ValueError, match=message):
            inspect.unwrap(function)(first, *arguments)


@pytest.mark.parametrize(("draw", "name"), [(draw_folds, "folds"), (draw_stratified, "size")])
def test_half_a_row_is_not_drawn(draw, name):
    with pytest.raises(ValueError, match=f"{name} is 2.5: give a whole number"):
        inspect.unwrap(draw)(np.arange(20) % 2, 2.5)


def test_fingerprint_is_of_the_content_in_its_order():
    whole = raw()
    train, test = whole.splits["train"], whole.splits["test"]

    def fingerprint(train, test, origin="nowhere"):
        return make_dataset("tiny", whole.classes, {"test": test, "train": train}, origin).fingerprint

    assert fingerprint(train, test, "elsewhere") == whole.fingerprint
    for changed in (
        (test, train),
        (Split(train.features[::-1], train.labels), test),
        (Split(train.features, train.labels[::-1]), test),
    ):
        assert fingerprint(*changed) != whole.fingerprint
