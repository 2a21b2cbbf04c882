"""How many labels are enough: the accuracy of files of features with each training size."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.artifacts.drawing import CHARACTER, COLUMN, HANDLE, LINE, ORANGE, add_legend, draw_figure
from experiments.artifacts.figures import FEW_COLORS, LINE_STYLES
from experiments.artifacts.fonts import label_classes
from experiments.artifacts.plotting import Figure
from experiments.artifacts.tables import (
    MAY_BE_BEST,
    Cell,
    Table,
    format_difference,
    interval_cell,
    number_cell,
    split_cells,
)
from linear_cifar.comparison import Comparison
from linear_cifar.uncertainty import CONFIDENCE

# What a training size counts.
EXAMPLES, SHOTS = "training examples", "training examples of each class"
COLORS = (ORANGE, *FEW_COLORS)
# Columns of a name in the legend, and inches of the axis of sizes.
NAME, AXIS = 45, COLUMN - 0.8


def plot_sizes(comparisons: Mapping[int, Comparison], title: str, unit: str = EXAMPLES) -> Figure:
    """Draw each file's accuracy and its interval against the training size, on a logarithmic axis.

    Args:
      comparisons: comparison of the same files with each training size.
      title: title of the figure.
      unit: what a size counts.
    """
    sizes, comparison = np.array(sorted(comparisons)), next(iter(comparisons.values()))
    labels, note = label_classes(comparison.names, NAME)
    logs, columns = np.log(sizes), max(1, int(COLUMN / (HANDLE + CHARACTER * max(map(len, labels)))))
    with draw_figure((COLUMN, 2.4 + LINE * -(-len(labels) // columns)), title) as figure:
        panel = figure.subplots()
        for i, label in enumerate(labels):
            ends = [comparisons[size].accuracy[i][:3] for size in sizes]
            mean, low, high = 100 * np.array(ends).T
            # The files of a size stand side by side, so that no interval hides another.
            shift = (i / max(1, len(labels) - 1) - 0.5) * np.diff(logs).min(initial=1) / 3
            style: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 1.5, "linewidth": 1}
            style |= {"color": COLORS[i % len(COLORS)], "linestyle": LINE_STYLES[i // len(COLORS) % 4]}
            panel.errorbar(np.exp(logs + shift), mean, [mean - low, high - mean], label=label, **style)
        panel.set_xscale("log")
        ticks, end = [], -np.inf
        for size, place in zip(sizes, AXIS * (logs - logs[0]) / (np.ptp(logs) or 1), strict=True):
            half = CHARACTER * len(f"{size:,}") / 2
            ticks.append(f"{size:,}" * bool(place - half > end))
            end = place + half if ticks[-1] else end
        panel.set_xticks(sizes, ticks)
        panel.set_xticks([], minor=True)
        panel.set(xlabel=unit, ylabel=f"{comparison.on} accuracy, %")
        panel.grid(axis="y")
        add_legend(figure, panel, note=note)
    return figure


def sizes_table(comparisons: Mapping[int, Comparison], title: str, unit: str = EXAMPLES) -> Table:
    """Return which file is the best with each training size, and from which size on others are below it.

    The arguments are those of `plot_sizes`.
    """
    sizes, rows = sorted(comparisons), []
    below: dict[int, int] = {}  # the size from which on a file is left out
    for size in sizes:
        shown = comparisons[size]
        names, best, difference = shown.names, shown.best, shown.selection.difference
        second = sorted(range(len(names)), key=lambda i: (i != best, -shown.accuracy[i].mean))[1:2]
        behind = [Cell(names[i]) for i in second] or [Cell("")]
        behind += [interval_cell(difference[i], format_difference) for i in second] or [Cell("")]
        count = Cell(f"{shown.selection.may_be_best.sum()} of {len(names)}")
        rows.append(
            [number_cell(size), Cell(names[best]), interval_cell(shown.accuracy[best]), *behind, count]
        )
        left_out = np.flatnonzero(~shown.selection.may_be_best).tolist()
        below = {i: below.get(i, size) for i in left_out}
    note = [
        f"From {size:,} {unit} on significantly below a better file: {', '.join(found)}."
        for size in sizes
        if (found := [names[i] for i, since in below.items() if since == size])
    ]
    others = ", ".join(name for i, name in enumerate(names) if i not in below)
    note.append(f"With {size:,} {MAY_BE_BEST}, with {100 * CONFIDENCE:.0f} % confidence: {others}.")
    columns = [unit, "best", f"{shown.on} acc", "next", "next − best, simultaneous", MAY_BE_BEST]
    return Table("sizes", f"{title} (%):", columns, *split_cells(rows), "\n".join(note))
