"""The baselines of the benchmark do train, and its probe prints its measurements."""

import inspect
import json
import math
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import linear_cifar as lc
from experiments import bench
from experiments.benchmark import baselines, linear_probes, paths, probe, searching, timing
from experiments.benchmark.baselines import Baseline, BenchData, make_configs
from experiments.benchmark.probing import epochs_per_second
from experiments.benchmark.timing import Timing, time_cases
from experiments.runner.errors import UsageError
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.examples import make_examples
from linear_cifar.standardizer import Standardizer


def make_data(n=200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n + 50).astype(np.uint8)
    # The class shows in each image's brightness, which a flip does not change.
    pixels = np.clip(rng.normal(60 + 60 * labels[:, None], 40, (n + 50, 3072)), 0, 255).astype(np.uint8)
    train, val = make_examples(pixels[:n], labels[:n], 3), make_examples(pixels[n:], labels[n:], 3)
    return BenchData(train, val, Standardizer(np.full(3072, 120.0), np.full(3072, 64.0)))


def test_numpy_baseline_trains():
    data = make_data()
    baseline = baselines.make_numpy_loop(data, 50)
    for _ in range(20):
        baseline.train_epoch()
    W = inspect.getclosurevars(baseline.train_epoch).nonlocals["W"]
    fitted = LogisticRegression().fit(data.x, data.labels)
    assert np.mean((data.x @ W.T).argmax(axis=1) == fitted.predict(data.x)) > 0.9


def test_sweep_baseline_trains_the_next_epoch_at_each_call():
    baseline = baselines.make_sweep(make_data(), make_configs(12)[:1])
    first, second = baseline.train_epoch(), baseline.train_epoch()
    assert (first.number, second.number) == (1, 2)
    assert second.metrics["val_loss"] < first.metrics["val_loss"]


@pytest.mark.parametrize("count", [12, 48, 120])
def test_make_configs_returns_as_many_as_asked_for(count):
    configs = make_configs(count)
    assert len(set(configs)) == count
    assert {config.batch for config in configs} == {50, 100, 200, 400}


def test_baselines_are_timed_in_turn_and_those_of_a_case_are_added_up():
    calls = []
    single = [Baseline(1, lambda: calls.append("a")), Baseline(1, lambda: calls.append("b"))]
    timed = time_cases({"one at a time": single, 48: [Baseline(48, lambda: calls.append("c"))]}, repeats=1)
    assert calls == ["a", "b", "c", "a", "b", "c"]
    assert {name: case.num_configs for name, case in timed.items()} == {"one at a time": 2, 48: 48}
    assert timed[48].s_per_config == timed[48].epoch_s / 48


def test_time_of_a_share_of_an_epoch_is_scaled_up(monkeypatch):
    seconds = iter([9.0, 9.0, 1.0, 1.0, 3.0, 1.0, 2.0, 1.0])
    monkeypatch.setattr(timing, "time_call", lambda _: next(seconds))
    half = Baseline(2, lambda: None, share=0.5)
    timed = time_cases({"half": [half], "whole": [half._replace(share=1.0)]}, repeats=3)
    assert timed == {"half": Timing(2, 9.0, 4.0), "whole": Timing(2, 9.0, 1.0)}


def test_linear_probes_are_measured_on_features():
    rows = linear_probes.measure_linear_probes(n=256, repeats=1, sizes=[(3, 10)], d=8)
    assert {"plain matrix product", "linear_cifar"} <= {row["baseline"] for row in rows}
    assert all(row["epoch_s"] > 0 and (row["K"], row["heads"]) == (3, 10) for row in rows)
    timed = {row["baseline"]: row["timed"] for row in rows}
    assert timed["linear_cifar"] == "all"
    assert timed["LogisticRegression, to the optimum"] == "2 of 10 heads"


def test_heads_have_one_batch_size_and_each_its_own_eta_and_lam():
    heads = linear_probes.make_heads(200)
    assert len({(head.eta, head.lam) for head in heads}) == 200
    assert {head.batch for head in heads} == {256}


def test_epochs_count_only_while_all_processes_train():
    assert epochs_per_second([[10, 12, 14, 16]]) == pytest.approx(1 / 2)
    # From 11 to 14: one and a half epochs of the first process, three of the second.
    assert epochs_per_second([[10, 12, 14], [11, 12, 13, 14, 15]]) == pytest.approx(4.5 / 3)
    with pytest.raises(RuntimeError, match="did not train at the same time"):
        epochs_per_second([[1, 2], [2, 3]])


@pytest.mark.parametrize(
    ("options", "epochs"),
    [([], 2), (["--seeds=2", "--images=1000", "--epochs=3"], 3)],
    ids=["data set", "random bytes"],
)
def test_probe_prints_its_measurements(monkeypatch, capsys, options, epochs):
    dataset = make_synthetic(n_train=2_000, n_test=100)
    monkeypatch.setattr(probe, "find_dataset", lambda *_: dataset)
    with flagsaver.flagsaver():  # forgets the flags that the probe defines
        probe.define_flags()
        flags.FLAGS(["probe", "--configs=12", *options])
        probe.main()
    measured = json.loads(capsys.readouterr().out)
    assert measured["configs"] == 12
    assert measured["to_first_epoch_s"] > measured["first_epoch_s"] > 0
    assert len(measured["ends"]) == epochs
    assert measured["peak_bytes"] > dataset.splits["train"].features.nbytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quick", "--scale"], "--quick and --scale cannot be combined"),
        (["--quick", "--probes", "--scale"], "--quick and --scale cannot be combined"),
        (["--probes", "--scale"], "--probes and --scale cannot be combined"),
        (["--path", "--search"], "--path and --search cannot be combined"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(options, message):
    with flagsaver.flagsaver():
        bench.define_flags()
        flags.FLAGS(["bench", *options])
        with pytest.raises(UsageError, match=message):
            bench.main()


def make_outcome(best, seconds=(1.0, 2.0, 4.0), correct=(True, False, True)):
    """Return a search with these best accuracies so far, at the end of three epochs."""
    return searching.Outcome([*zip(seconds, best, strict=True)], 5.0, 3, best[1], np.array(correct))


def test_a_search_tells_when_it_was_how_good():
    outcome = make_outcome((0.2, 0.3, 0.4))
    assert [outcome.best_after(seconds) for seconds in (1, 3.9, 100)] == [0.2, 0.3, 0.4]
    assert math.isnan(outcome.best_after(0.5))
    assert [outcome.seconds_to(accuracy) for accuracy in (0.1, 0.3, 0.35, 0.5)] == [1, 2, 4, math.inf]


@pytest.mark.parametrize(
    ("halving", "epochs"), [(None, 8 * 4), (lc.Halving(rungs=(1,), bracket=8), 8 + 4 * 3)]
)
def test_a_search_trains_all_its_points_or_halves_them(halving, epochs):
    data = prepare_data(make_synthetic(n_train=3_000, n_test=100))
    configs = lc.draw_configs(8, eta=searching.ETA, batch=[50, 100], lam=searching.LAM)
    outcome = searching.search_points(data, 4, configs, 0, halving)
    assert outcome.epochs == epochs
    best = [accuracy for _, accuracy in outcome.trace]
    assert len(best) == 4
    assert best == sorted(best)
    assert best[-1] >= outcome.val > 0.15
    assert outcome.correct.shape == (100,)


def test_searches_are_compared_with_the_grid_and_with_optuna(monkeypatch):
    ended = {
        "sooner": make_outcome((0.3, 0.45, 0.5)),
        "never": make_outcome((0.2, 0.2, 0.2)),
        searching.REPORT_GRID: make_outcome((0.2, 0.3, 0.4), correct=(False, False, True)),
        searching.OPTUNA: make_outcome((0.2, 0.3, 0.4), seconds=(10.0, 20.0, 40.0)),
    }
    outcomes = {name: [outcome] * 3 for name, outcome in ended.items()}
    rows = {name: searching.make_row(name, outcomes) for name in outcomes}
    assert rows["sooner"]["times_sooner"] == 20 / 1  # Optuna chooses 0.3
    assert rows["sooner"]["s_to_optunas"] == 1
    assert (rows["never"]["times_sooner"], rows["never"]["s_to_optunas"]) == (0, None)
    assert rows["sooner"]["test_minus_grid"] == pytest.approx(100 / 3)
    assert rows["sooner"]["of_grid"] == 1
    assert rows[searching.OPTUNA]["5s"] is None


def solve_exactly(lams, train, *, replicates, standardizer, dtype, tolerance):
    """Return what `lc.solve` does, by scikit-learn in float64 and without compiling."""
    fits = []
    for rows in [replicate.rows for replicate in replicates]:
        x, labels = np.float64(train.features)[rows], np.asarray(train.classes)[rows]
        options = {"solver": "newton-cholesky", "tol": 1e-12}
        fits += [LogisticRegression(C=1 / (2 * len(x) * lam), **options).fit(x, labels) for lam in lams]
    params = lc.Params(np.stack([fit.coef_ for fit in fits]), np.stack([fit.intercept_ for fit in fits]))
    final = {"evaluations": np.full((len(replicates), len(lams)), 6)}
    return SimpleNamespace(weights=SimpleNamespace(params=params), final=final)


def test_programs_reach_the_minimum_and_are_timed(monkeypatch):
    lams = (1e-3, 1e-2)
    monkeypatch.setattr(lc, "solve", solve_exactly)
    monkeypatch.setattr(paths, "MANY_LAMS", lams)
    monkeypatch.setattr(paths, "TOLERANCES", (1e-5,))
    make_data = partial(paths.make_gaussian_classes, 300, 4, 0.5, correlated=True)
    # The surroundings of the command, since optax is not written for the strict ones of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False), threadpool_limits(1):
        rows = {row["program"]: row for row in paths.measure_path(make_data, lams, folds=2, repeats=1)}
    assert [row["timed"] for row in rows.values()] == [4, 2, *[2] * bool(find_spec("torch")), 4, 1]
    for name, row in rows.items():
        assert row["problems"] == 4
        assert -1e-9 < row["gap"] < paths.GAP, name
        assert 4 * 3 < row["evaluations"] < 4 * 40, name
        assert row["s"] > 0
    assert rows["linear_cifar"]["evaluations"] == 24


def test_the_loosest_tolerance_that_reaches_the_minimum_is_taken():
    x, labels = np.eye(10, dtype=np.float32), np.arange(10)
    W, calls = np.zeros((1, 10, 10)), []

    def solve(tolerance):
        calls.append(tolerance)
        return W, np.full((1, 10), 10 * tolerance * np.arange(10)), 7

    # With equal logits the loss is log 10, and its minimum over b.
    row = paths.try_tolerances(solve, [(0.1, x, labels)], np.array([np.log(10)]))
    assert calls == [1e-2, 1e-3, 1e-4, 1e-5][: len(calls)]
    logits = 10 * row["tolerance"] * np.arange(10)
    expected = (np.log(np.exp(logits).sum()) - logits.mean()) / np.log(10) - 1
    assert row["gap"] == pytest.approx(expected, rel=1e-6)
    assert 0 < row["gap"] <= paths.GAP < 100 * row["gap"]
