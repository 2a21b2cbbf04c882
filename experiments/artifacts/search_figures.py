"""The figures of a search: accuracy along each axis, and the best accuracy against the work."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from experiments.artifacts.drawing import BLUE, ORANGE, SEQUENTIAL, add_legend, draw_figure
from experiments.artifacts.plotting import Axes, MaxNLocator, matplotlib
from experiments.artifacts.tables import configuration_name, heading
from linear_cifar.config import AXES, Axis
from linear_cifar.halving import split_brackets
from linear_cifar.result import Result

# Values of an axis that span a larger factor are drawn on its logarithmic scale.
LARGE_FACTOR = 50


def plot_axes(path: Path, result: Result) -> None:
    """Draw each configuration's validation accuracy after its last epoch against each of its hyperparameters.

    Colours show the epoch that it reached. The title counts the configurations that diverged.
    """
    accuracy = 100 * result.final["val_acc"].mean(axis=0)
    reached = np.where(result.stopped.any(axis=0), result.stopped.max(axis=0), len(result.identity.epochs))
    finite = np.isfinite(accuracy)
    columns_of = {axis: [config[name] for config in result.configs] for name, axis in AXES.items()}
    axes = [axis for axis, values in columns_of.items() if len(set(values)) > 1] or [AXES["eta"]]
    diverged = f", {(~finite).sum()} diverged" * bool((~finite).any())
    best = result.ranking()[0]
    star = f"\nstar: the best, {configuration_name(result, best)}" * bool(finite[best])
    title = f"{heading(result, 'mean')}: {len(result.configs):,} configurations{diverged}{star}"
    columns = 2 if len(axes) == 4 else min(len(axes), 3)
    rows = -(-len(axes) // columns)
    epochs = sorted(set(reached[finite]))
    colors = matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.9, len(epochs)))
    with draw_figure(path, (max(4.8, 2.9 * columns), 0.9 + 2.6 * rows), title) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axis, panel in zip(axes, panels.flat, strict=False):
            values = _scale_axis(panel, np.array(columns_of[axis]), axis)
            for epoch, color in zip(epochs, colors, strict=True):
                drawn = finite & (reached == epoch)
                label = f"{epoch} epoch" + "s" * bool(epoch > 1)
                size = 8 + 10 * int(epoch == len(result.identity.epochs))
                panel.scatter(values[drawn], accuracy[drawn], s=size, color=color, alpha=0.8, label=label)
            if finite[best]:
                panel.scatter(values[best], accuracy[best], marker="*", s=90, color=ORANGE, zorder=3)
            panel.set_xlabel(axis.label)
            panel.grid(color="0.93")
            panel.set_axisbelow(True)
        for panel in list(panels.flat)[len(axes) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel("validation accuracy, %")
        add_legend(figure, panels[0, 0])


def plot_effort(path: Path, result: Result) -> None:
    """Draw the best validation accuracy so far against the epochs that all runs have trained so far.

    It is the highest mean over the replicates of any configuration after any epoch. With halving the brackets
    follow one another, and a line marks the end of each.
    """
    work, best, ends = trace_effort(result)
    title = f"{heading(result, 'mean')}: best validation accuracy so far"
    with draw_figure(path, (6.0, 3.4), title) as figure:
        panel = figure.subplots()
        panel.step(work, 100 * best, where="post", color=BLUE, linewidth=1.5)
        panel.plot(work[-1], 100 * best[-1], "o", color=BLUE, markersize=5)
        for i, end in enumerate(ends[:-1]):
            label = "end of a bracket" if i == 0 else None
            panel.axvline(end, color="0.7", linewidth=0.8, linestyle=":", label=label)
        panel.set_xlabel("epochs trained, over all runs")
        panel.set_ylabel("validation accuracy, %")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.grid(color="0.93")
        add_legend(figure, panel)


def trace_effort(
    result: Result,
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"], list[int]]:
    """Return the epochs of all runs so far, the best accuracy so far, and the epochs at each bracket's end.

    The accuracy is NaN while all runs have diverged.
    """
    accuracy = result.history["val_acc"].mean(axis=1, dtype=np.float64)  # [E, C]
    stopped = result.stopped.max(axis=0)
    work, best, ends = [0], [np.nan], []
    size = result.about["bracket"] if result.halved else len(result.configs)
    for places in split_brackets(range(len(result.configs)), size):
        members = np.asarray(places)
        for epoch in range(1, len(result.identity.epochs) + 1):
            alive = members[(stopped[members] == 0) | (stopped[members] >= epoch)]
            reached = accuracy[epoch - 1, alive]
            work.append(work[-1] + len(alive) * len(result.identity.replicates))
            best.append(np.fmax(best[-1], np.fmax.reduce(reached)))
        ends.append(work[-1])
    return np.array(work[1:]), np.array(best[1:]), ends


def _scale_axis(panel: Axes, values: np.ndarray, axis: Axis) -> np.ndarray:
    """Choose the scale of an axis, and return the places of the values on it."""
    distinct = sorted(set(values.tolist()))
    if axis.whole:
        # The points of one value are spread out, by the place of each in the sweep.
        spread = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.5
        panel.set_xticks(range(len(distinct)), [f"{value:g}" for value in distinct])
        return np.searchsorted(distinct, values) + spread
    positive = [value for value in distinct if value > 0]
    if axis.log and positive and positive[-1] / positive[0] > LARGE_FACTOR:
        if len(positive) < len(distinct):
            panel.set_xscale("symlog", linthresh=positive[0], linscale=0.4)
        else:
            panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
    return values
