"""The best validation accuracy against time: searches, the grid, and Optuna's trials one at a time.

All programs train for as many epochs, on the same images, with the same cores. The searches and Optuna draw
from the same ranges. A repeat has its own seed, for the runs, the points and Optuna's sampler. The searches
and the grid measure all runs that reach the end on all splits, as the commands do; Optuna's trials are
measured on the validation and test images only.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

import linear_cifar as lc
from experiments.benchmark.baselines import BATCHES, LAMS, SPEC, jax_device
from experiments.benchmark.measurements import ETAS, Row
from linear_cifar.data.prepare import Data

FACTOR = 3
# The ranges hold the report's grid, but for λ = 0.
ETA, LAM = lc.Range(0.001, 1.0), lc.Range(1e-4, 1.0)
# Seconds after which the best validation accuracy so far is told.
MOMENTS = (5, 10, 20, 40, 80)
REPORT_GRID, OPTUNA = "grid", "Optuna, TPE and successive halving"


# Pairs of the seconds since the start and the best validation accuracy so far, at the end of each epoch.
Trace = list[tuple[float, float]]


class Outcome(NamedTuple):
    """A search that has ended, and the run that it chose."""

    trace: Trace
    total_s: float
    epochs: int  # trained, over all runs
    val: float  # accuracy of the chosen run at its end
    correct: Bool[np.ndarray, " n"]  # the test examples that it predicts right

    def best_after(self, seconds: float) -> float:
        """Return the best validation accuracy after so many seconds; NaN before the first epoch has ended."""
        return max((best for s, best in self.trace if s <= seconds), default=math.nan)

    def seconds_to(self, accuracy: float) -> float:
        """Return after how many seconds the best validation accuracy was as high; infinity if never."""
        return next((s for s, best in self.trace if best >= accuracy), math.inf)


def note_epoch(trace: Trace, start: float, progress: lc.Progress) -> None:
    """Add the end of an epoch to the trace of a search that began at `start`."""
    if progress.resumed:  # a block starts
        return
    best = max([progress.accuracy or 0.0, *(best for _, best in trace[-1:])])
    trace.append((time.perf_counter() - start, best))


def train(
    configs: Sequence[lc.Config],
    data: Data,
    sets: Iterable[str],
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[lc.Progress], None],
    halving: lc.Halving | None = None,
) -> lc.Result:
    """Train configurations side by side, and measure them on these sets at the end."""
    return lc.fit(
        configs,
        data.sets["train"],
        {name: data.sets[name] for name in sets},
        epochs=epochs,
        seeds=[seed],
        standardizer=data.standardizer,
        per_epoch=["val"],
        halving=halving,
        block_runs=len(configs),
        on_epoch=on_epoch,
        **SPEC._asdict(),
    )


def search_points(
    data: Data, epochs: int, configs: Sequence[lc.Config], seed: int, halving: lc.Halving | None = None
) -> Outcome:
    """Train configurations side by side, with or without halving."""
    trace: Trace = []
    on_epoch = partial(note_epoch, trace, start := time.perf_counter())
    result = train(configs, data, data.sets, epochs=epochs, seed=seed, on_epoch=on_epoch, halving=halving)
    chosen = result.ranking()[0]
    val, (correct,) = float(result.final["val_acc"][0, chosen]), result.values("test", chosen)
    return Outcome(trace, time.perf_counter() - start, int(result.epochs.sum()), val, correct)


def search_with_optuna(data: Data, epochs: int, trials: int, seed: int) -> Outcome:
    """Train one run after another, as Optuna chooses, by this project's sweep of one configuration.

    That is the fastest way to train a single run, see the table "alone" of the benchmark. Of 40 epochs
    Optuna's rungs are the search's: 2, 6 and 18.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trace: Trace = []
    results: dict[int, lc.Result] = {}  # of each trial that reached the end
    start = time.perf_counter()

    def train_trial(trial: optuna.Trial) -> float:
        def report(progress: lc.Progress) -> None:
            if progress.resumed:  # it starts
                return
            note_epoch(trace, start, progress)
            trial.report(progress.accuracy, progress.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        config = lc.Config(
            trial.suggest_float("eta", ETA.low, ETA.high, log=True),
            trial.suggest_categorical("batch", BATCHES),
            trial.suggest_float("lam", LAM.low, LAM.high, log=True),
        )
        result = train([config], data, ("val", "test"), epochs=epochs, seed=seed, on_epoch=report)
        results[trial.number] = result
        return float(np.nan_to_num(result.final["val_acc"][0, 0]))

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=lc.default_rungs(epochs)[0], reduction_factor=FACTOR
        ),
    )
    study.optimize(train_trial, n_trials=trials)
    (correct,) = results[study.best_trial.number].values("test", 0)
    return Outcome(trace, time.perf_counter() - start, len(trace), study.best_value, correct)


def measure_searches(data: Data, epochs: int, points: Sequence[int], repeats: int) -> list[Row]:
    """Run each program `repeats` times in turn, and compare it with the grid and with Optuna.

    `s` is the median, `first_s` the first time, which compiles. `val` and `test` are accuracies of the chosen
    runs in %, and `test_minus_grid` is the difference from the grid's, with the ends of its 95 % interval
    over seeds and images. `5s` is the best validation accuracy of any configuration after any epoch of the
    first 5 seconds. `times_sooner` compares when it is as high as that of Optuna's choice, here and there.

    Args:
      data: the images.
      epochs: number of epochs of a run that reaches the end.
      points: numbers of points to search with halving, powers of two; the last one also without, and as many
        trials of Optuna.
      repeats: number of repeats, each from a seed of its own.
    """

    def search(count: int, halving: lc.Halving | None, seed: int) -> Outcome:
        configs = lc.draw_configs(count, seed=seed, eta=ETA, batch=BATCHES, lam=LAM)
        return search_points(data, epochs, configs, seed, halving)

    most = points[-1]
    programs: dict[str, Callable[[int], Outcome]] = {
        f"search, {count} points, halving": partial(search, count, lc.Halving(FACTOR, bracket=count))
        for count in points
    }
    programs[f"search, {most} points"] = partial(search, most, None)
    report_grid = lc.grid(eta=ETAS, batch=BATCHES, lam=LAMS)
    programs[REPORT_GRID] = partial(search_points, data, epochs, report_grid)
    if find_spec("optuna"):
        programs[OPTUNA] = partial(search_with_optuna, data, epochs, most)
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
    difference = lc.estimate_difference(correct, of_grid)
    row: Row = {
        "program": name,
        "first_s": ended[0].total_s,
        "s": seconds,
        "of_grid": seconds / median(outcome.total_s for outcome in outcomes[REPORT_GRID]),
        "epochs": int(median(outcome.epochs for outcome in ended)),
        "best_val": 100 * median(outcome.trace[-1][1] for outcome in ended),
        "val": 100 * median(outcome.val for outcome in ended),
        "test": 100 * lc.estimate_accuracy(correct).mean,
        "test_minus_grid": 100 * difference.mean,
        "test_minus_grid_low": 100 * difference.low,
        "test_minus_grid_high": 100 * difference.high,
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
