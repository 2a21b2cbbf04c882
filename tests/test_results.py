import csv
import struct

import jax
import numpy as np
import problems
import pytest

from experiments import measures, plots, results, table
from experiments.run import Run, run
from experiments.settings import Settings, Variant
from linear_cifar.config import Config, grid
from linear_cifar.dataset import Dataset, divide
from linear_cifar.evaluation import Metrics
from linear_cifar.synthetic import synthetic

EPOCHS, SEEDS = 2, (3, 4)
SETTINGS = Settings(
    train="full", val_size=50, loss="softmax", flip=True, shift=0, epochs=EPOCHS, schedule="constant",
    average=1, shuffle=True, init="jax", dtype="float32", precision="float32", seeds=(3,), watch=("val",),
    max_loss=None,
)  # fmt: skip


def variant(configs, **settings):
    return Variant("one", SETTINGS._replace(**settings), tuple(configs))


# The last one grows by |1 - 2 eta lam| ≈ 2e10 per update: beyond float32 within the first epoch.
CONFIGS = (*grid([0.001, 0.01], [20, 64], [0.0, 0.1]), Config(1.0, 20, 1e10))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return divide(synthetic(n_train=300, n_test=100), val_size=50)


@pytest.fixture(scope="module")
def done(dataset) -> Run:
    return run(variant(CONFIGS, seeds=SEEDS), dataset)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def config_of(row):
    return Config(*(float(row[name]) if name != "batch" else int(row[name]) for name in Config._fields))


def test_results_csv(tmp_path, done):
    results.write(tmp_path, [done])
    rows = read(tmp_path / "results.csv")
    assert [config_of(row) for row in rows] == [*CONFIGS] * 2
    assert [row["seed"] for row in rows] == ["3"] * 9 + ["4"] * 9
    assert {(row["variant"], row["dataset"]) for row in rows} == {("one", "synthetic")}
    assert [row["diverged"] for row in rows] == ([""] * 8 + ["1"]) * 2
    for split, images in (("train", 250), ("val", 50), ("test", 100)):
        loss, accuracy = (values.reshape(-1) for values in done.final[split])
        for i, row in enumerate(rows):
            if row["diverged"]:
                assert row[f"{split}_loss"] == row[f"{split}_acc"] == "nan"
                continue
            assert np.float32(row[f"{split}_loss"]) == loss[i]
            # A share of whole images, to the last digit.
            count = round(float(row[f"{split}_acc"]) * images)
            assert np.float32(row[f"{split}_acc"]) == np.float32(count / images) == accuracy[i]


def test_history_csv(tmp_path, done):
    results.write(tmp_path, [done])
    rows = read(tmp_path / "history.csv")
    assert [(int(r["epoch"]), float(r["lam"])) for r in rows[:3]] == [(1, 0.0), (2, 0.0), (1, 0.1)]
    assert len(rows) == EPOCHS * len(CONFIGS) * len(SEEDS)
    final = read(tmp_path / "results.csv")
    for last, result in zip(rows[EPOCHS - 1 :: EPOCHS], final, strict=True):
        assert last["val_loss"] == result["val_loss"]
        assert last["val_acc"] == result["val_acc"]
        assert last["train_loss"] == last["test_acc"] == ""
        assert last["running_loss"] != result["train_loss"] or result["diverged"]
    norms = np.linalg.norm(done.params.W.reshape(2, 9, -1), axis=-1).reshape(-1)
    written = np.array([float(row["W_norm"]) for row in rows[EPOCHS - 1 :: EPOCHS]])
    np.testing.assert_allclose(written[:8], norms[:8], rtol=1e-5)
    assert np.isnan(written[8])


def test_what_is_watched_is_measured_after_every_epoch(dataset, tmp_path):
    one = run(variant(CONFIGS[:1], watch=("train", "val", "test")), dataset)
    results.write(tmp_path, [one])
    rows = read(tmp_path / "history.csv")
    assert all(row[f"{split}_acc"] for row in rows for split in ("train", "val", "test"))
    unwatched = run(variant(CONFIGS[:1]), dataset)
    for split in ("train", "val", "test"):
        assert one.history.watched[split].accuracy[-1] == one.final[split].accuracy
        np.testing.assert_allclose(unwatched.final[split].accuracy, one.final[split].accuracy)
    assert one.history.watched["train"].loss[0] != one.history.running.loss[0]


def test_best_params_reproduce_the_best_row(tmp_path, done, dataset):
    results.write(tmp_path, [done])
    with np.load(tmp_path / "best_params.npz", allow_pickle=False) as best:
        x = (dataset.test.images - best["mean"]) / best["std"]
        scores = x @ best["W"].T + best["b"]
        config = Config(**{name: best[name].item() for name in Config._fields})
        assert str(best["dataset"]) == "synthetic"
        assert str(best["loss"]) == "softmax"
        assert str(best["fingerprint"]) == dataset.fingerprint
        s = SEEDS.index(int(best["seed"]))
    c = CONFIGS.index(config)
    assert c == done.ranking[0]
    assert (scores.argmax(axis=1) == dataset.test.labels).mean() == pytest.approx(
        done.final["test"].accuracy[s, c]
    )
    assert done.final["val"].accuracy[:, c].mean() == np.nanmax(done.final["val"].accuracy.mean(axis=0))
    assert done.final["val"].accuracy[s, c] == done.final["val"].accuracy[:, c].max()
    predicted = measures.predictions(done).of(s, c)
    np.testing.assert_allclose(predicted.probabilities, problems.softmax(scores), rtol=1e-4)
    np.testing.assert_array_equal(predicted.right, scores.argmax(axis=1) == dataset.test.labels)
    np.testing.assert_allclose(predicted.predicted, predicted.probabilities.max(axis=1))
    of = measures.measure_all(done, measures.predictions(done))
    assert of.accuracy[s, c] == pytest.approx(done.final["test"].accuracy[s, c])
    assert of.true_right[s, c] == pytest.approx(predicted.predicted[predicted.right].mean())
    assert np.isnan(of.ece[:, 8]).all()


def test_ranking_is_by_mean_validation_accuracy_then_loss_with_diverged_last(done):
    accuracy = np.array([[0.2, 0.4, np.nan, 0.3], [0.4, 0.4, 0.9, 0.5]], np.float32)
    loss = np.array([[1.0, 2.0, np.nan, 1.5], [1.0, 2.0, 1.0, 1.5]], np.float32)
    assert done._replace(final={"val": Metrics(loss, accuracy)}).ranking == [3, 1, 0, 2]


def test_table_names_the_data_the_seeds_and_what_diverged(done):
    text = str(table.ranking(done))
    lines = text.splitlines()
    assert len(lines) == len(CONFIGS) + 4
    assert lines[0].startswith("synthetic (mean ± standard deviation over seeds 3-4)")
    assert "diverged in epoch 1" in lines[-3]
    assert lines[-2].startswith("synthetic, best:")
    assert f"{table.UNTOLD}: " in lines[-1]


def test_table_compares_with_the_best_by_seed(done):
    # The second is as far below the first in both seeds; the third above it in one.
    val = np.array([[0.60, 0.50, 0.61, np.nan], [0.70, 0.60, 0.60, 0.1]], np.float32)
    test = np.array([[0.40, 0.50, 0.43, 0.9], [0.60, 0.20, 0.30, 0.9]], np.float32)
    final = {"train": Metrics(val, val), "val": Metrics(1 - val, val), "test": Metrics(test, test)}
    history = done.history._replace(finite=np.isfinite(val)[None])
    some = Variant("one", SETTINGS._replace(seeds=SEEDS), CONFIGS[:4])
    compared = table.ranking(done._replace(variant=some, history=history, final=final))
    assert compared.columns[-3:] == ["val − best", "won", ""]
    assert [row[-3:] for row in compared.rows] == [
        ["", "", ""],
        ["-4.50 ± 5.50", "1/2", table.UNTOLD],
        ["-10.00 ± 0.00", "0/2", ""],
        ["-", "0/2", "diverged in epoch 1"],
    ]
    # Seed 3 alone would choose the third, seed 4 the first.
    assert "test 50.00 ± 14.14; each seed's own best: test 51.50 ± 12.02." in compared.note


def test_one_seed_is_compared_with_nothing(dataset):
    alone = table.ranking(run(variant(CONFIGS[:2]), dataset))
    assert alone.columns[-2:] == ["val loss", ""]
    assert {len(row) for row in alone.rows} == {len(alone.columns)}
    assert table.UNTOLD not in str(alone)
    assert "each seed" not in str(alone)
    assert "±" not in str(alone)


def test_percent_is_mean_and_sample_deviation():
    assert table.percent(0.25) == "25.00"
    assert table.percent([0.25, 0.27]) == "26.00 ± 1.41"
    assert table.percent([0.25, np.nan]) == "-"


@pytest.mark.parametrize("chosen", [slice(0, 9, 4), slice(8, 9)], ids=["some", "diverged"])
def test_figures_are_drawn_whatever_was_run(tmp_path, dataset, chosen):
    one = run(variant(CONFIGS[chosen], loss="bce", epochs=1, watch=("train", "val", "test")), dataset)
    predicted = measures.predictions(one)
    chosen = [(one, 0, predicted), (one, one.ranking[0], predicted)]
    drawn = {
        "heatmap": lambda path: plots.heatmap(path, one),
        "curves": lambda path: plots.curves(path, one),
        "costs": lambda path: plots.costs(path, one),
        "samples": lambda path: plots.samples(path, dataset),
        "weights": lambda path: plots.weights(path, one),
        "histograms": lambda path: plots.histograms(path, chosen),
        "reliability": lambda path: plots.reliabilities(path, chosen),
        "gap": lambda path: plots.gaps(path, chosen),
        "progress": lambda path: plots.progress(path, one, 0),
        "steps": lambda path: plots.steps(
            path, ["a", "b"], [np.array([0.3, 0.4]), np.array([np.nan])], "made up"
        ),
    }
    for name, draw in drawn.items():
        draw(tmp_path / name)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert "<svg" in (tmp_path / f"{name}.svg").read_text(), name
    results.write(tmp_path, [one])
    diverged = not one.ended.any()
    assert (tmp_path / "best_params.npz").exists() is not diverged
    assert ("every configuration diverged" in str(table.ranking(one))) is diverged


def test_of_very_many_configurations_the_best_are_shown(tmp_path, done):
    configs = grid([0.001 * i for i in range(1, 31)], [20, 64], [0.01 * i for i in range(50)])
    first = [0] * len(configs)
    rng = np.random.default_rng(0)
    accuracy = rng.random((2, len(configs))).astype(np.float32)
    final = {split: Metrics(3 - accuracy, accuracy) for split in results.SPLITS}
    history = jax.tree.map(lambda values: values[:, :, first], done.history)
    many = done._replace(variant=variant(configs, seeds=SEEDS), history=history, final=final)

    lines = str(table.ranking(many)).splitlines()
    assert len(table.ranking(many).rows) == 3000
    assert len(lines) == 1 + 1 + 100 + 1 + 2
    assert lines[102] == "and 2900 more, see tables.json"

    plots.heatmap(tmp_path / "heatmap", many)
    plots.curves(tmp_path / "curves", many)
    heatmap, curves = ((tmp_path / f"{name}.svg").read_text() for name in ("heatmap", "curves"))
    assert "the best 12 of 50 λ" in heatmap
    assert heatmap.count("<!-- λ = ") == 12
    assert f"<!-- λ = {configs[many.ranking[0]].lam:g} -->" in heatmap
    assert "loss of 200 configurations, " in curves
    assert " less accurate" in curves
    assert curves.count("<!-- η = ") <= 12
    for name in ("heatmap", "curves"):
        width, height = struct.unpack(">II", (tmp_path / f"{name}.png").read_bytes()[16:24])
        assert max(width, height) <= plots.PIXELS


def test_a_figure_too_large_is_drawn_coarser(tmp_path):
    with plots._figure(tmp_path / "tall", (1.0, 1000.0), "tall"):
        pass
    assert struct.unpack(">II", (tmp_path / "tall.png").read_bytes()[16:24]) == (30, 30_000)


def test_the_best_has_a_band_of_several_seeds(tmp_path, done, dataset):
    plots.curves(tmp_path / "several", done)
    plots.curves(tmp_path / "one", run(variant(CONFIGS[:1]), dataset))
    bands = {
        name: (tmp_path / f"{name}.svg").read_text().count('id="FillBetween') for name in ("several", "one")
    }
    assert bands == {"several": 2, "one": 0}  # a panel each


def test_a_run_that_left_the_finite_stays_marked(monkeypatch, dataset):
    from experiments import run as module
    from linear_cifar.sweep import sweep

    def losing(*arguments, **more):
        for epoch in sweep(*arguments, **more):
            finite = np.array([[True, epoch.number != 2]])
            yield epoch._replace(record=epoch.record._replace(finite=finite))

    monkeypatch.setattr(module, "sweep", losing)
    one = run(variant(CONFIGS[:2], epochs=3), dataset)
    assert [one.diverged(0, 0), one.diverged(0, 1)] == [None, 2]
    assert one.ranking == [0, 1]
    assert np.isnan(one.history.watched["val"].loss[:, 0, 1]).tolist() == [False, True, True]
