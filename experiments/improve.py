"""Steps that lift the test accuracy of a single-layer classifier: the report's and further ones; Figure 4.

    python -m experiments.improve

trains each step from five seeds, selects its configuration by mean validation accuracy, and measures that one
on the test images: 45 minutes on 2 cores. --steps='flips; grid' trains only these and the steps they are
compared with.

It writes to --out:

- config.json, results.csv, history.csv, best_params.npz, tables.json
- steps (test accuracy of each step), as figures
- curves (Figure 4: loss and accuracy per epoch of the best configuration), as figures
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.artifacts import tables
from experiments.artifacts.exports import best_result
from experiments.artifacts.tables import Cell, Table, split_cells
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.flags import define_settings, sweep_from_flags
from experiments.cli.launch import launch
from experiments.cli.recipes import RECIPES
from experiments.runner.errors import UsageError
from experiments.runner.settings import Settings
from experiments.runner.stages import fixed_stage
from linear_cifar.config import AXES, Config, grid
from linear_cifar.data.prepare import Data
from linear_cifar.result import Result
from linear_cifar.uncertainty import DIVERGED, estimate_difference

FLAGS = flags.FLAGS


class _Step(NamedTuple):
    """A way of training.

    `_Step("flips", "data_batch_1", {"train": "batch1", "flip": True}, configs)` trains on data_batch_1 with
    flips, and is compared with the step "data_batch_1".
    """

    name: str
    base: str | None  # the step it is compared with
    changes: Mapping[str, Any]  # settings that replace those of the flags
    configs: tuple[Config, ...]


def _step_of_recipe(name: str, base: str, recipe: str) -> _Step:
    """Return a step with the settings and the grid of a recipe."""
    values = RECIPES[recipe]
    changes = {field: values[field] for field in Settings._fields if field in values}
    return _Step(name, base, changes, grid(**{axis: values[axis] for axis in AXES if axis in values}))


# The best row of Table 1.
TABLE1_BEST = (Config(0.001, 100, 0.1),)
# The report's grid.
REPORT_GRID = grid(eta=(0.001, 0.01, 0.1, 1.0), batch=(50, 100, 200, 400), lam=(0.0, 0.1, 1.0))
# A finer grid for the steps beyond the report.
FINE_GRID = grid(eta=(0.003, 0.01, 0.03), batch=(100,), lam=(0.0, 0.003))
# Smaller η for momentum 0.9, which makes steps 10 times as long.
MOMENTUM_GRID = grid(eta=(0.0003, 0.001, 0.003), batch=(100,), lam=(0.0, 0.003), momentum=(0.9,))
# Larger η for the bounded losses L_q, whose gradients are smaller.
LQ_GRID = grid(eta=(0.03, 0.1), batch=(100,), lam=(0.0001, 0.001), q=(0.5, 0.7))

# The settings that steps change, which therefore have no flags.
PLAIN = {"loss": "softmax", "train": "full", "flip": False, "shift": 0, "schedule": "constant", "average": 1}
BATCH1, FULL = {"train": "batch1", "flip": False}, {"train": "full", "flip": False}
FLIPS = {"train": "full", "flip": True}
COSINE_SHIFT = FLIPS | {"schedule": "cosine", "shift": 1}

STEPS = (
    _Step("data_batch_1", None, BATCH1, TABLE1_BEST),
    _Step("full data", "data_batch_1", FULL, TABLE1_BEST),
    _Step("flips", "data_batch_1", BATCH1 | {"flip": True}, TABLE1_BEST),
    _Step("grid", "data_batch_1", BATCH1, REPORT_GRID),
    _Step("full data, flips", "full data", FLIPS, TABLE1_BEST),
    _Step("full data, flips, grid", "full data, flips", FLIPS, REPORT_GRID),
    _Step("finer grid", "full data, flips, grid", FLIPS, FINE_GRID),
    _Step("finer grid, step decay", "finer grid", FLIPS | {"schedule": "step"}, FINE_GRID),
    _Step("finer grid, cosine decay", "finer grid", FLIPS | {"schedule": "cosine"}, FINE_GRID),
    _Step("finer grid, momentum", "finer grid", FLIPS, MOMENTUM_GRID),
    _Step("finer grid, averaging", "finer grid", FLIPS | {"average": 20}, FINE_GRID),
    _Step("finer grid, shift 1", "finer grid", FLIPS | {"shift": 1}, FINE_GRID),
    _Step("finer grid, shift 2", "finer grid", FLIPS | {"shift": 2}, FINE_GRID),
    _Step("finer grid, L_q", "finer grid", FLIPS, LQ_GRID),
    _Step("cosine, shift 1", "finer grid, cosine decay", COSINE_SHIFT, FINE_GRID),
    _Step("cosine, shift 1, L_q", "cosine, shift 1", COSINE_SHIFT, LQ_GRID),
    _step_of_recipe("best cross-entropy", "cosine, shift 1", "best-softmax"),
    _step_of_recipe("best BCE", "best cross-entropy", "best-bce"),
    _step_of_recipe("best L_q", "cosine, shift 1, L_q", "best"),
)  # fmt: skip


def define_flags() -> None:
    """Define the flags of this command."""
    define_settings(epochs=40, seeds=5, recipes=("report",), omit=tuple(PLAIN))
    flags.DEFINE_string("steps", "", "names of the steps to train, separated by semicolons (default: all)")


def main() -> None:
    """Train the steps."""
    sweeps = []
    for step in select_steps(FLAGS.steps):
        fixed = {**PLAIN, **step.changes}
        if FLAGS["epochs"].present:  # --epochs overrides the epochs of a recipe
            fixed["epochs"] = FLAGS.epochs
        fixed["average"] = min(fixed["average"], fixed.get("epochs", FLAGS.epochs))
        sweeps.append(sweep_from_flags(step.name, step.configs, **fixed))
    run_experiment("improve", lambda: [fixed_stage(sweeps)], render)


def select_steps(names: str) -> list[_Step]:
    """Return the named steps and the steps they are compared with, in the order of `STEPS`.

    Args:
      names: names of steps, separated by semicolons; empty: all steps.

    Raises:
      UsageError: if there is no step of a name.
    """
    steps = {step.name: step for step in STEPS}
    selected = [name.strip() for name in names.split(";")] if names else list(steps)
    for name in selected:
        if name not in steps:
            raise UsageError(f"--steps: there is no step {name!r}; the steps are: {'; '.join(steps)}")
    for name in selected:
        base = steps[name].base
        if base and base not in selected:
            selected.append(base)  # which this loop reaches in turn
    return [step for step in STEPS if step.name in selected]


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw the steps and Figure 4, and return the table of each step's selected configuration."""
    from experiments.artifacts import figures

    by_name = {result.about["sweep"]: result for result in results}
    bases = {step.name: step.base for step in STEPS}
    rows = []
    for name, result in by_name.items():
        c = result.ranking()[0]
        base = by_name.get(bases[name] or "")
        gain = [_gain(result, base), Cell(base.about["sweep"])] if base else [Cell("")] * 2
        step, epochs = [Cell(name), Cell(tables.configuration_name(result, c))], len(result.identity.epochs)
        rows.append([*step, tables.number_cell(epochs), *tables.accuracies(result, c), *gain])
    heading = tables.interval_heading(results[0])
    choices = [(result, result.ranking()[0]) for result in results]
    steps = figures.plot_steps(
        list(by_name),
        [np.asarray(result.final["test_acc"][:, c]) for result, c in choices],
        [result.interval("test", c) for result, c in choices],
        f"{tables.interval_heading(results[0], with_train=False)}: test accuracy",
    )
    best = best_result(results)
    curves = figures.plot_learning_curves(best, best.ranking()[0])
    return {"steps": steps, "curves": curves}, [
        Table(
            "improve",
            f"{heading}, accuracy in % of each step's best configuration by validation; gains in points of "
            "test accuracy, paired by seed and example:",
            ["step", "selected", "epochs", "train", "val", "test", "gain", "over"],
            *split_cells(rows),
            optional=["epochs", "train", "over", "selected"],
        )
    ]


def _gain(result: Result, base: Result) -> Cell:
    """Return the gain in test accuracy of the selected configurations, in points and with its interval."""
    pair = [(member, member.ranking()[0]) for member in (result, base)]
    finite = all(member.stayed_finite[c] for member, c in pair)
    values = (member.values("test", c) for member, c in pair)
    return tables.interval_cell(
        estimate_difference(*values) if finite else DIVERGED, tables.format_difference
    )


if __name__ == "__main__":
    launch(define_flags, main)
