"""What lifts the accuracy of one linear layer, the report's steps and further ones; Figure 4.

    python -m experiments.improve

trains each step from five seeds, selects its configuration by validation accuracy (mean over the seeds) and
tests that one: 45 minutes on 2 cores. --steps=... takes only some (and those that they are compared with).

Writes to --out: config.json, results.csv, history.csv, best_params.npz, tables.json; steps (test accuracy of
each) and curves (Figure 4: the best configuration's loss and accuracy per epoch), each as .png and .svg.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import plots, results, table
from experiments.conduct import conduct
from experiments.flags import define_run
from experiments.recipes import RECIPES
from experiments.run import Run
from experiments.settings import Settings, Variant, from_flags
from experiments.shell import UsageError, launch
from experiments.table import Table, percent
from linear_cifar.config import Config, grid

FLAGS = flags.FLAGS


class Step(NamedTuple):
    """A way of training, and the one that it is compared with; `settings` are changes of the flags' own."""

    name: str
    base: str | None
    settings: Mapping[str, Any]
    configs: tuple[Config, ...]


def _of_recipe(name: str, base: str, recipe: str) -> Step:
    """A recipe's settings and grid."""
    own = {key: RECIPES[recipe][key] for key in Settings._fields if key in RECIPES[recipe] and key != "seeds"}
    axes = (RECIPES[recipe].get(axis, (0.0,)) for axis in Config._fields)
    return Step(name, base, own, grid(*axes))


# Of Table 1's rows the best; the report's grid; a finer one for what goes beyond the report; larger η for the
# bounded losses, whose gradients are smaller, and smaller ones for momentum, which multiplies them by 10.
ONE = (Config(0.001, 100, 0.1),)
REPORT = grid((0.001, 0.01, 0.1, 1.0), (50, 100, 200, 400), (0.0, 0.1, 1.0))
FINE = grid((0.003, 0.01, 0.03), (100,), (0.0, 0.003))
PUSHED = grid((0.0003, 0.001, 0.003), (100,), (0.0, 0.003), momenta=(0.9,))
BOUNDED = grid((0.03, 0.1), (100,), (0.0001, 0.001), (0.5, 0.7))

# What the steps change.
PLAIN = {"loss": "softmax", "train": "full", "flip": False, "shift": 0, "schedule": "constant", "average": 1}
SMALL, FULL = {"train": "batch1", "flip": False}, {"train": "full", "flip": False}
FLIPS = {"train": "full", "flip": True}

STEPS = (
    Step("data_batch_1", None, SMALL, ONE),
    Step("full data", "data_batch_1", FULL, ONE),
    Step("flips", "data_batch_1", SMALL | {"flip": True}, ONE),
    Step("grid", "data_batch_1", SMALL, REPORT),
    Step("full data, flips", "full data", FLIPS, ONE),
    Step("full data, flips, grid", "full data, flips", FLIPS, REPORT),
    Step("finer grid", "full data, flips, grid", FLIPS, FINE),
    Step("finer grid, step decay", "finer grid", FLIPS | {"schedule": "step"}, FINE),
    Step("finer grid, cosine decay", "finer grid", FLIPS | {"schedule": "cosine"}, FINE),
    Step("finer grid, momentum", "finer grid", FLIPS, PUSHED),
    Step("finer grid, averaging", "finer grid", FLIPS | {"average": 20}, FINE),
    Step("finer grid, shift 1", "finer grid", FLIPS | {"shift": 1}, FINE),
    Step("finer grid, shift 2", "finer grid", FLIPS | {"shift": 2}, FINE),
    Step("finer grid, L_q", "finer grid", FLIPS, BOUNDED),
    Step("cosine, shift 1", "finer grid, cosine decay", FLIPS | {"schedule": "cosine", "shift": 1}, FINE),
    Step("cosine, shift 1, L_q", "cosine, shift 1", FLIPS | {"schedule": "cosine", "shift": 1}, BOUNDED),
    _of_recipe("best cross-entropy", "cosine, shift 1", "best-softmax"),
    _of_recipe("best BCE", "best cross-entropy", "best-bce"),
    _of_recipe("best L_q", "cosine, shift 1, L_q", "best"),
)  # fmt: skip


def define_flags() -> None:
    """Defines the flags of this command."""
    define_run(epochs=40, train="full", flip=True, seeds=5, recipes=("report",), fixed=tuple(PLAIN))
    flags.DEFINE_string("steps", "", "names of steps, separated by semicolons (default: all)")


def main() -> None:
    """Trains the steps."""
    settings = from_flags(**PLAIN)
    variants = []
    for one in _chosen(FLAGS.steps):
        own = dict(one.settings)
        if FLAGS["epochs"].present:  # a recipe's own else
            own["epochs"] = FLAGS.epochs
        its = settings._replace(**own)
        variants.append(Variant(one.name, its._replace(average=min(its.average, its.epochs)), one.configs))
    conduct("improve", variants, present)


def _chosen(names: str) -> list[Step]:
    """The named steps and their bases, in order; all if none is named."""
    steps = {one.name: one for one in STEPS}
    wanted = [name.strip() for name in names.split(";")] if names else list(steps)
    for name in wanted:
        if name not in steps:
            raise UsageError(f"steps: there is no {name!r}; there are: {'; '.join(steps)}")
    for name in wanted:
        base = steps[name].base
        if base and base not in wanted:
            wanted.append(base)
    return [one for one in STEPS if one.name in wanted]


def present(folder: Path, runs: Sequence[Run]) -> list[Table]:
    """Every step's selected configuration on the test images, and Figure 4."""
    by_name = {run.variant.name: run for run in runs}
    bases = {one.name: one.base for one in STEPS}
    rows = []
    for name, run in by_name.items():
        c = run.ranking[0]
        base = by_name.get(bases[name] or "")
        gain = f"{_gain(run, base)} over {base.variant.name}" if base else ""
        rows.append([name, table.name_of(run, c), str(run.settings.epochs), *table.accuracies(run, c), gain])
    tested = [np.asarray(run.final["test"].accuracy[:, run.ranking[0]]) for run in runs]
    heading = table.heading(runs[0])
    plots.steps(folder / "steps", list(by_name), tested, f"{heading}: test accuracy")
    best = results.best(runs)
    plots.progress(folder / "curves", best, best.ranking[0])
    return [
        Table(
            "improve",
            f"{heading}, accuracy in % of each step's best by validation; gains in points of test accuracy, "
            "paired by seed:",
            ["step", "selected", "epochs", "train", "val", "test", "gain"],
            rows,
        )
    ]


def _gain(run: Run, base: Run) -> str:
    """Points of test accuracy between the selected configurations, seed by seed."""
    ours, theirs = (np.asarray(one.final["test"].accuracy[:, one.ranking[0]]) for one in (run, base))
    difference = percent(ours.astype(np.float64) - theirs)
    return difference if difference.startswith("-") else f"+{difference}"


if __name__ == "__main__":
    launch(define_flags, main)
