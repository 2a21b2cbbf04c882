"""The best validation accuracy against time: searches, the grid, and Optuna's trials one at a time.

All programs train for as many epochs, on the same images, with the same cores. The searches and Optuna draw
from the same ranges. A repeat has its own seed, for the runs, the points and Optuna's sampler. The searches
and the grid measure all runs that reach the end on all splits, as the commands do; Optuna's trials are
measured on the test images only.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from experiments.artifacts.search_figures import trace_effort
from experiments.benchmark.baselines import BATCHES, LAMS, jax_device
from experiments.benchmark.measurements import ETAS, Row
from experiments.runner.brackets import train_bracket
from experiments.runner.data import PreparedData
from experiments.runner.settings import Settings
from experiments.runner.sweeps import Sweep, SweepResult, name_replicates
from experiments.runner.training import train_sweep
from linear_cifar.config import Config, grid
from linear_cifar.engine import mark_correct_of_runs, sweep
from linear_cifar.halving import default_rungs
from linear_cifar.sampling import Axis, Range, draw_configs
from linear_cifar.uncertainty import estimate_accuracy, estimate_difference, unpack_correct

FACTOR = 3
# The ranges hold the report's grid, but for λ = 0.
ETA, LAM = Range(0.001, 1.0, log=True), Range(1e-4, 1.0, log=True)
RANGES: dict[str, Axis] = {"eta": ETA, "batch": BATCHES, "lam": LAM}
# Seconds after which the best validation accuracy so far is told.
MOMENTS = (5, 10, 20, 40, 80)
REPORT_GRID, OPTUNA = "grid", "Optuna, TPE and successive halving"


class Outcome(NamedTuple):
    """A search that has ended: the best validation accuracy so far after each epoch, and what it chose."""

    seconds: Sequence[float]  # since the start, at the end of each epoch
    best: Sequence[float]
    total_s: float
    epochs: int  # trained, over all runs
    val: float  # accuracy of the chosen run at its end
    correct: Bool[np.ndarray, " n"]  # the test examples that it predicts right

    def best_after(self, seconds: float) -> float:
        """Return the best validation accuracy after so many seconds; NaN before the first epoch has ended."""
        reached = [best for s, best in zip(self.seconds, self.best, strict=True) if s <= seconds]
        return reached[-1] if reached else math.nan

    def seconds_to(self, accuracy: float) -> float:
        """Return after how many seconds the best validation accuracy was as high; infinity if never."""
        return next(
            (s for s, best in zip(self.seconds, self.best, strict=True) if best >= accuracy), math.inf
        )


def search_points(data: PreparedData, settings: Settings, configs: Sequence[Config], seed: int) -> Outcome:
    """Train configurations side by side, with or without halving."""
    whole = Sweep("search", settings, name_replicates([seed], folds=0), tuple(configs))
    seconds: list[float] = []
    start = time.perf_counter()

    def note_time() -> None:
        seconds.append(time.perf_counter() - start)

    result: SweepResult | None
    if settings.halving:
        result = train_bracket(
            whole,
            data,
            max_runs=lambda num_configs: 2 * num_configs,
            on_epoch=lambda share, remark: note_time(),
        )
    else:
        result = train_sweep(whole, data, on_epoch=lambda remark: note_time())
    assert result is not None, "nothing stops it"
    work, best, _ = trace_effort(result)
    chosen = result.ranking[0]
    return Outcome(
        seconds,
        best.tolist(),
        time.perf_counter() - start,
        int(work[-1]),
        float(result.final["val"].accuracy[0, chosen]),
        unpack_correct(result.correct["test"][0, chosen], data.size("test")),
    )


def search_with_optuna(data: PreparedData, settings: Settings, trials: int, seed: int) -> Outcome:
    """Train one run after another, as Optuna chooses, by this project's sweep of one configuration.

    That is the fastest way to train a single run, see the table "alone" of the benchmark. Of 40 epochs
    Optuna's rungs are the search's: 2, 6 and 18.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rungs = default_rungs(settings.epochs)
    spec = settings.train_spec([Config(0.1, 1, 0.0)], data.dataset.image_shape)
    seconds: list[float] = []
    best: list[float] = []
    correct: dict[int, Bool[np.ndarray, " n"]] = {}  # of each trial that reached the end
    start = time.perf_counter()

    def train(trial: optuna.Trial) -> float:
        config = Config(
            trial.suggest_float("eta", ETA.low, ETA.high, log=True),
            trial.suggest_categorical("batch", BATCHES),
            trial.suggest_float("lam", LAM.low, LAM.high, log=True),
        )
        for epoch in sweep(
            [config],
            data.splits["train"],
            {"val": data.splits["val"]},
            epochs=settings.epochs,
            seeds=[seed],
            standardizer=data.standardizer,
            **spec._asdict(),
        ):
            accuracy = float(np.nan_to_num(epoch.metrics.evaluated["val"].accuracy[0, 0]))
            best.append(max([accuracy, *best[-1:]]))
            seconds.append(time.perf_counter() - start)
            trial.report(accuracy, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned
        marks = mark_correct_of_runs(
            [config], epoch.params(), data.splits["test"], seeds=[seed], standardizer=data.standardizer
        )
        correct[trial.number] = marks[0, 0]
        return accuracy

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=FACTOR),
    )
    study.optimize(train, n_trials=trials)
    total_s = time.perf_counter() - start
    chosen = study.best_trial.number
    return Outcome(seconds, best, total_s, len(best), study.best_value, correct[chosen])


def measure_searches(
    data: PreparedData, settings: Settings, points: Sequence[int], repeats: int
) -> list[Row]:
    """Run each program `repeats` times in turn, and compare it with the grid and with Optuna.

    `s` is the median, `first_s` the first time, which compiles. `val` and `test` are accuracies of the chosen
    runs in %, and `test_minus_grid` is the difference from the grid's, with half of its 95 % interval over
    seeds and images. `5s` is the best validation accuracy of any configuration after any epoch of the first 5
    seconds. `times_sooner` compares when it is as high as that of Optuna's choice, here and there.

    Args:
      data: the images.
      settings: settings of all runs, without halving.
      points: numbers of points to search with halving, powers of two; the last one also without, and as many
        trials of Optuna.
      repeats: number of repeats, each from a seed of its own.
    """

    def search(count: int, halving: bool, seed: int) -> Outcome:
        changed = settings._replace(halving=FACTOR, rungs=default_rungs(settings.epochs), bracket=count)
        configs = draw_configs(RANGES, count, seed)
        return search_points(data, changed if halving else settings, configs, seed)

    most = points[-1]
    programs: dict[str, Callable[[int], Outcome]] = {
        f"search, {count} points, halving": partial(search, count, True) for count in points
    }
    programs[f"search, {most} points"] = partial(search, most, False)
    programs[REPORT_GRID] = lambda seed: search_points(data, settings, grid(ETAS, BATCHES, LAMS), seed)
    if find_spec("optuna"):
        programs[OPTUNA] = lambda seed: search_with_optuna(data, settings, most, seed)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in programs}
    for seed in range(repeats):
        for name, run in programs.items():
            outcomes[name].append(run(seed))
    return [make_row(name, outcomes) for name in outcomes]


def make_row(name: str, outcomes: dict[str, list[Outcome]]) -> Row:
    """Return the row of a program, from the outcomes of all programs with the same seeds."""
    ended = outcomes[name]
    seconds = median(outcome.total_s for outcome in ended)
    correct = np.stack([outcome.correct for outcome in ended])
    of_grid = np.stack([outcome.correct for outcome in outcomes[REPORT_GRID]])
    difference = estimate_difference(correct, of_grid)
    row: Row = {
        "program": name,
        "first_s": ended[0].total_s,
        "s": seconds,
        "of_grid": seconds / median(outcome.total_s for outcome in outcomes[REPORT_GRID]),
        "epochs": int(median(outcome.epochs for outcome in ended)),
        "best_val": 100 * median(outcome.best[-1] for outcome in ended),
        "val": 100 * median(outcome.val for outcome in ended),
        "test": 100 * estimate_accuracy(correct).mean,
        "test_minus_grid": 100 * difference.mean,
        "plus_minus": 100 * difference.half_width,
    }
    for moment in MOMENTS:
        best = median(outcome.best_after(moment) for outcome in ended)
        row[f"{moment}s"] = None if math.isnan(best) else 100 * best
    if OPTUNA in outcomes:
        # Until any configuration, after any epoch, is as accurate as what Optuna chooses in the end.
        reached = [
            (ours.seconds_to(theirs.val), theirs.seconds_to(theirs.val))
            for ours, theirs in zip(ended, outcomes[OPTUNA], strict=True)
        ]
        soonest = median(ours for ours, _ in reached)
        row["s_to_optunas"] = soonest if math.isfinite(soonest) else None
        row["times_sooner"] = median(theirs / ours for ours, theirs in reached)
    row["device"] = jax_device()
    return row
