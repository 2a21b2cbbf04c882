"""The files of an experiment that hold its measurements: results.csv, history.csv and best_params.npz."""

import csv
import itertools
from dataclasses import replace

import numpy as np
import pytest
from small_runs import make_sweep, small_data, train_sweep

from experiments.artifacts.exports import best_result, write_results
from linear_cifar import training
from linear_cifar.config import AXES, Config, grid
from linear_cifar.training import train_epoch

EPOCHS, SEEDS = 2, (3, 4)
# The last one grows by |1 - 2 eta lam| ≈ 2e10 per update: beyond float32 within the first epoch.
CONFIGS = (*grid(eta=[0.001, 0.01], batch=[20, 64], lam=[0.0, 0.1]), Config(1.0, 20, 1e10))


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def result(data):
    return train_sweep(make_sweep(CONFIGS, seeds=SEEDS), data)


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def config_of(row):
    return Config(**{name: int(row[name]) if AXES[name].whole else float(row[name]) for name in AXES})


def test_results_csv(tmp_path, result):
    write_results(tmp_path, [result])
    rows = read_rows(tmp_path / "results.csv")
    assert [config_of(row) for row in rows] == [*CONFIGS] * 2
    assert [row["seed"] for row in rows] == ["3"] * 9 + ["4"] * 9
    assert {(row["sweep"], row["dataset"]) for row in rows} == {("small", "synthetic")}
    assert [row["diverged"] for row in rows] == ([""] * 8 + ["1"]) * 2
    for split, images in (("train", 250), ("val", 50), ("test", 100)):
        loss, accuracy = (result.final[f"{split}_{name}"].reshape(-1) for name in ("loss", "acc"))
        for i, row in enumerate(rows):
            if row["diverged"]:
                assert row[f"{split}_loss"] == row[f"{split}_acc"] == "nan"
                continue
            assert np.float32(row[f"{split}_loss"]) == loss[i]
            # A share of whole images, to the last digit.
            count = round(float(row[f"{split}_acc"]) * images)
            assert np.float32(row[f"{split}_acc"]) == np.float32(count / images) == accuracy[i]


def test_results_csv_has_top_5_accuracies_where_they_are_measured(tmp_path, result):
    write_results(tmp_path, [result])
    before = read_rows(tmp_path / "results.csv")
    measured = replace(result, final=result.final | {"test_top5": result.final["test_acc"] / 2})
    write_results(tmp_path, [measured, result])
    after = read_rows(tmp_path / "results.csv")
    assert {*after[0]} - {*before[0]} == {"test_top5"}
    halves = np.float32([row["test_top5"] for row in after[: len(before)]])
    np.testing.assert_array_equal(halves, measured.final["test_top5"].reshape(-1))
    assert [row for row in after[len(before) :] if row.pop("test_top5") == ""] == before


def test_history_csv(tmp_path, result):
    write_results(tmp_path, [result])
    rows = read_rows(tmp_path / "history.csv")
    assert [(int(r["epoch"]), float(r["lam"])) for r in rows[:3]] == [(1, 0.0), (2, 0.0), (1, 0.1)]
    assert len(rows) == EPOCHS * len(CONFIGS) * len(SEEDS)
    final = read_rows(tmp_path / "results.csv")
    for last, row in zip(rows[EPOCHS - 1 :: EPOCHS], final, strict=True):
        assert last["val_loss"] == row["val_loss"]
        assert last["val_acc"] == row["val_acc"]
        assert last["train_loss"] == last["test_acc"] == ""
        assert last["running_loss"] != row["train_loss"] or row["diverged"]
    norms = np.linalg.norm(result.params().W.reshape(2, 9, -1), axis=-1).reshape(-1)
    written = np.array([float(row["W_norm"]) for row in rows[EPOCHS - 1 :: EPOCHS]])
    np.testing.assert_allclose(written[:8], norms[:8], rtol=1e-5)
    assert np.isnan(written[8])


def test_evaluation_sets_are_measured_after_every_epoch(data, tmp_path):
    splits = ("train", "val", "test")
    evaluated = train_sweep(make_sweep(CONFIGS[:1], evaluate=splits), data)
    write_results(tmp_path, [evaluated])
    rows = read_rows(tmp_path / "history.csv")
    assert all(row[f"{split}_acc"] for row in rows for split in splits)
    plain = train_sweep(make_sweep(CONFIGS[:1]), data)
    for split in splits:
        assert evaluated.history[f"{split}_acc"][-1] == evaluated.final[f"{split}_acc"]
        np.testing.assert_allclose(plain.final[f"{split}_acc"], evaluated.final[f"{split}_acc"])
    assert evaluated.history["train_loss"][0] != evaluated.history["running_loss"][0]


def test_best_params_reproduce_the_best_row(tmp_path, result, data):
    write_results(tmp_path, [result])
    with np.load(tmp_path / "best_params.npz", allow_pickle=False) as best:
        x = (data.dataset.splits["test"].features - best["mean"]) / best["std"]
        logits = x @ best["W"].T + best["b"]
        config = Config(**{name: best[name].item() for name in AXES})
        assert str(best["dataset"]) == "synthetic"
        assert str(best["loss"]) == "softmax"
        assert str(best["fingerprint"]) == data.dataset.fingerprint
        s = SEEDS.index(int(best["seed"]))
    c = CONFIGS.index(config)
    assert c == result.ranking()[0]
    assert (logits.argmax(axis=1) == data.dataset.splits["test"].labels).mean() == pytest.approx(
        result.final["test_acc"][s, c]
    )
    assert result.final["val_acc"][:, c].mean() == np.nanmax(result.final["val_acc"].mean(axis=0))
    assert result.final["val_acc"][s, c] == result.final["val_acc"][:, c].max()


def test_without_a_finite_configuration_there_are_no_best_parameters(tmp_path, data):
    diverged = train_sweep(make_sweep(CONFIGS[8:]), data)
    (tmp_path / "best_params.npz").write_bytes(b"of an earlier run")
    write_results(tmp_path, [diverged])
    assert not (tmp_path / "best_params.npz").exists()


def test_a_diverged_run_stays_marked(monkeypatch, tmp_path, data):
    numbers = itertools.count(1)

    def lose_second_epoch(*arguments):
        state, sums, finite = train_epoch(*arguments)
        layout = arguments[5]
        lost = (next(numbers) == 2) & (np.array(layout.configs) == 1)
        return state, sums, finite & ~lost[None]

    lose_second_epoch.lower = train_epoch.lower
    monkeypatch.setattr(training, "train_epoch", lose_second_epoch)
    result = train_sweep(make_sweep(CONFIGS[:2], epochs=3), data)
    assert result.diverged.tolist() == [[0, 2]]
    assert result.ranking() == [0, 1]
    for values in result.history.values():
        assert np.isnan(values[:, 0]).tolist() == [[False, False], [False, True], [False, True]]
    write_results(tmp_path, [result])
    assert [row["diverged"] for row in read_rows(tmp_path / "results.csv")] == ["", "2"]
    written = [row["val_acc"] == "nan" for row in read_rows(tmp_path / "history.csv")]
    assert written == [False] * 4 + [True] * 2


def test_the_best_sweep_is_among_those_validated_on_the_same_images(result):
    def with_accuracy(accuracy, val="classes 1"):
        final = result.final | {"val_acc": np.full((2, 9), accuracy)}
        identity = result.identity._replace(data=result.identity.data | {"val": val})
        return replace(result, identity=identity, final=final)

    other_images = with_accuracy(0.9, val="classes 2")
    low, high = with_accuracy(0.3), with_accuracy(0.4)
    assert best_result([other_images, high, low]) is high
