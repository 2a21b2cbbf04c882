"""The plan of an experiment: a chain of stages.

A stage looks at the results so far and says what to train next. A grid is one stage. Training its best
configurations again on more data is a second one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.runner.sweeps import Sweep, SweepResult, name_replicates

# Name of the sweep that trains the best configurations again.
REFIT = "refit"


class Stage(NamedTuple):
    """One stage of an experiment.

    `sweep_names` are the names its sweeps may have, so that a folder with other sweeps is refused before
    anything is trained. `plan` maps the results of the earlier stages to the sweeps to train. If it returns
    none, the experiment ends.
    """

    sweep_names: tuple[str, ...]
    plan: Callable[[Sequence[SweepResult]], Sequence[Sweep]]


def fixed_stage(sweeps: Sequence[Sweep]) -> Stage:
    """Return a stage that trains these sweeps, whatever came before."""
    return Stage(tuple(sweep.name for sweep in sweeps), lambda results: sweeps)


def refit_stage(count: int) -> Stage:
    """Return a stage that trains the best configurations of one sweep again, on all training examples.

    They are trained from every seed of the sweep. There are no folds and no validation split, because the
    configurations are chosen already.

    Args:
      count: number of configurations to train, best first; those that diverged are left out.
    """

    def plan(results: Sequence[SweepResult]) -> list[Sweep]:
        (result,) = results
        chosen = [result.configs[c] for c in result.ranking[:count] if result.stayed_finite[c]]
        evaluate = tuple(name for name in result.settings.evaluate if name != "val")
        settings = result.settings._replace(
            folds=0, val_size=0, evaluate=evaluate, halving=0, rungs=(), bracket=0
        )
        seeds = name_replicates(result.sweep.seeds, folds=0)
        return [Sweep(REFIT, settings, seeds, tuple(chosen))] if chosen else []

    return Stage((REFIT,), plan)
