"""The plan of an experiment: a chain of stages.

A stage looks at the results so far and says what to train next. A grid is one stage. Training the best
configuration again on more data would be a second one, and each rung of a search another.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.runner.sweeps import Sweep, SweepResult


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
