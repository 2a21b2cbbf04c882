import csv

import numpy as np
import pytest

from experiments import plots, results, table
from experiments.run import Run, run
from linear_cifar.augment import horizontal_flip
from linear_cifar.config import Config, grid
from linear_cifar.dataset import Dataset, divide
from linear_cifar.evaluation import Metrics
from linear_cifar.losses import get_loss
from linear_cifar.synthetic import synthetic
from linear_cifar.training import Recipe

EPOCHS = 2
# The last one grows by |1 - 2 eta lam| ≈ 2e10 per update: beyond float32 within the first epoch.
CONFIGS = (*grid([0.001, 0.01], [20, 64], [0.0, 0.1]), Config(1.0, 20, 1e10))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return divide(synthetic(n_train=300, n_test=100), val_size=50)


@pytest.fixture(scope="module")
def done(dataset) -> Run:
    return run(CONFIGS, dataset, Recipe(get_loss("softmax"), augment=horizontal_flip), EPOCHS, seed=3)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_results_csv(tmp_path, done, dataset):
    results.write(tmp_path, done, dataset)
    rows = read(tmp_path / "results.csv")
    assert [Config(float(r["eta"]), int(r["batch"]), float(r["lam"])) for r in rows] == list(CONFIGS)
    assert {(r["dataset"], r["seed"]) for r in rows} == {("synthetic", "3")}
    assert [r["diverged"] for r in rows] == [""] * 8 + ["1"]
    for split, images in (("train", 250), ("val", 50), ("test", 100)):
        for c, row in enumerate(rows[:-1]):
            metrics: Metrics = getattr(done, split)
            assert np.float32(row[f"{split}_loss"]) == metrics.loss[c]
            # A share of whole images, to the last digit.
            count = round(float(row[f"{split}_acc"]) * images)
            assert np.float32(row[f"{split}_acc"]) == np.float32(count / images)
        assert rows[-1][f"{split}_loss"] == rows[-1][f"{split}_acc"] == "nan"


def test_history_csv(tmp_path, done, dataset):
    results.write(tmp_path, done, dataset)
    rows = read(tmp_path / "history.csv")
    assert [(int(r["epoch"]), float(r["eta"])) for r in rows[:3]] == [(1, 0.001), (2, 0.001), (1, 0.001)]
    assert len(rows) == EPOCHS * len(CONFIGS)
    final = read(tmp_path / "results.csv")
    for last, result in zip(rows[EPOCHS - 1 :: EPOCHS], final, strict=True):
        assert last["val_loss"] == result["val_loss"]
        assert last["val_acc"] == result["val_acc"]
        assert last["train_loss"] != result["train_loss"] or result["diverged"]


def test_best_params_reproduce_the_best_row(tmp_path, done, dataset):
    results.write(tmp_path, done, dataset)
    with np.load(tmp_path / "best_params.npz", allow_pickle=False) as best:
        x = (dataset.test.images - best["mean"]) / best["std"]
        predicted = (x @ best["W"].T + best["b"]).argmax(axis=1)
        config = Config(float(best["eta"]), int(best["batch"]), float(best["lam"]))
        assert str(best["dataset"]) == "synthetic"
        assert str(best["fingerprint"]) == dataset.fingerprint
    index = CONFIGS.index(config)
    assert index == done.ranking[0]
    assert (predicted == dataset.test.labels).mean() == pytest.approx(done.test.accuracy[index])
    assert done.val.accuracy[index] == np.nanmax(done.val.accuracy)


def test_ranking_is_by_validation_accuracy_then_loss_with_diverged_last(done):
    accuracy = np.array([0.3, 0.4, np.nan, 0.4], np.float32)
    loss = np.array([1.0, 2.0, np.nan, 1.5], np.float32)
    assert done._replace(val=Metrics(loss, accuracy)).ranking == [3, 1, 0, 2]


def test_table_names_the_data_and_what_diverged(done):
    text = table.render(done, "synthetic")
    lines = text.splitlines()
    assert len(lines) == len(CONFIGS) + 3
    assert lines[0].startswith("synthetic")
    assert "diverged in epoch 1" in lines[-2]
    assert lines[-1].startswith("synthetic, best:")


@pytest.mark.parametrize("chosen", [slice(None), slice(0, 1), slice(8, 9)], ids=["all", "one", "diverged"])
def test_figures_are_drawn_whatever_was_run(tmp_path, dataset, chosen):
    one = run(CONFIGS[chosen], dataset, Recipe(get_loss("bce")), 1, seed=0)
    plots.heatmap(tmp_path / "heatmap.png", one, "synthetic")
    plots.curves(tmp_path / "curves.png", one, "synthetic")
    assert all(
        (tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("heatmap.png", "curves.png")
    )
    results.write(tmp_path, one, dataset)
    diverged = all(one.diverged)
    assert (tmp_path / "best_params.npz").exists() is not diverged
    assert ("every configuration diverged" in table.render(one, "synthetic")) is diverged


def test_a_configuration_that_left_the_finite_stays_marked(monkeypatch, dataset):
    from experiments import run as module
    from linear_cifar.sweep import sweep

    def losing(*arguments, **more):
        for epoch in sweep(*arguments, **more):
            finite = np.array([True, epoch.number != 2])
            yield epoch._replace(record=epoch.record._replace(finite=finite))

    monkeypatch.setattr(module, "sweep", losing)
    one = run(CONFIGS[:2], dataset, Recipe(get_loss("softmax")), 3, seed=0)
    assert one.diverged == [None, 2]
    assert one.ranking == [0, 1]
    assert np.isnan(one.history.val.loss[:, 1]).tolist() == [False, True, True]
