import csv

import numpy as np
import problems
import pytest
from small_runs import make_sweep, small_data, train_sweep

from experiments.artifacts import measures
from experiments.artifacts.measures import THRESHOLD, Predictions
from linear_cifar.config import Config
from linear_cifar.npz import read_npz

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (Config(0.001, 20, 0.0), Config(0.01, 64, 0.1), Config(1.0, 20, 1e10))


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module", params=["softmax", "bce"])
def result(request, data):
    return train_sweep(make_sweep(CONFIGS, seeds=SEEDS, loss=request.param), data)


def test_predictions_equal_a_numpy_reference(result, data):
    test, predicted = data.dataset.splits["test"], measures.predict(result, data)
    x = (test.features - data.standardizer.mean) / data.standardizer.std
    probabilities_of = {"softmax": problems.softmax, "bce": problems.sigmoid}[
        result.identity.settings["loss"]
    ]
    params = result.params()
    for s in range(2):
        for c in range(2):
            logits = x @ params.W[s, c].T + params.b[s, c]
            run = predicted.of_run(s, c)
            np.testing.assert_allclose(run.probabilities, probabilities_of(logits), rtol=1e-4)
            np.testing.assert_array_equal(run.correct, logits.argmax(axis=1) == test.labels)
            np.testing.assert_allclose(run.of_predicted_class, run.probabilities.max(axis=1))
            np.testing.assert_allclose(run.of_true_class, run.probabilities[range(100), test.labels])


def test_measures_of_all_runs_and_their_file(result, data, tmp_path):
    predicted = measures.predict(result, data)
    measured = measures.measure_all(predicted, data.labels("test"))
    assert tuple(measured) == measures.NAMES
    assert all(np.isnan(values[:, 2]).all() for values in measured.values())
    for s in range(2):
        for c in range(2):
            run = predicted.of_run(s, c)
            assert measured["accuracy"][s, c] == pytest.approx(result.final["test_acc"][s, c])
            assert measured["confidence"][s, c] == pytest.approx(run.of_predicted_class.mean())
            assert measured["true_right"][s, c] == pytest.approx(run.of_predicted_class[run.correct].mean())
            assert measured["true_wrong"][s, c] == pytest.approx(run.of_true_class[~run.correct].mean())
    measures.write_measures(tmp_path, [result], [predicted], [measured])
    with (tmp_path / "measures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["eta"]) for row in rows[:4]] == [
        ("3", "0.001"),
        ("3", "0.01"),
        ("3", "1.0"),
        ("4", "0.001"),
    ]
    assert float(rows[4]["second"]) == measured["second"][1, 1]
    arrays, description = read_npz(tmp_path / "values.npz")
    assert description["configs"] == {"small": dict(CONFIGS[0])}
    assert {*arrays} == {f"small.{name}" for name in ("confidence", "second", "overconfident", "true_wrong")}
    for name, values in arrays.items():
        np.testing.assert_allclose(
            values.mean(axis=1), measured[name.removeprefix("small.")][:, 0], rtol=1e-5, atol=1e-6
        )


def test_a_run_is_measured_by_hand():
    # Three images of three classes: right with 0.7, wrong with 0.6 and wrong with 0.4.
    probabilities = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.35, 0.25, 0.4]])
    labels = np.array([0, 1, 0], np.uint8)
    predictions = Predictions(
        probabilities,
        of_true_class=np.array([0.7, 0.3, 0.35]),
        of_predicted_class=np.array([0.7, 0.6, 0.4]),
        correct=np.array([True, False, False]),
    )
    measured = measures.measure(predictions, labels)
    assert THRESHOLD == 0.5
    assert measured["accuracy"] == pytest.approx(1 / 3)
    assert measured["overconfident"] == pytest.approx(1 / 2)
    assert measured["confidence"] == pytest.approx((0.7 + 0.6 + 0.4) / 3)
    # Each image has a bin of its own: right with 0.7, and wrong with 0.6 and 0.4.
    assert measured["ece"] == pytest.approx((0.3 + 0.6 + 0.4) / 3)
    assert measured["true_right"] == pytest.approx(0.7)
    assert measured["true_wrong"] == pytest.approx((0.3 + 0.35) / 2)
    assert measured["second"] == pytest.approx((0.2 + 0.3 + 0.35) / 3)
    assert measured["precision"] == pytest.approx(1 / 2)
    assert measured["recall"] == pytest.approx(1 / 3)
    assert measured["none"] == pytest.approx(1 / 3)
    assert measured["several"] == 0
