"""The figures of a search and of a path: accuracy along axes, and the best accuracy against the work."""

import numpy as np
from jaxtyping import Float, Int

from experiments.artifacts.drawing import BLUE, COLUMN, ORANGE, PAGE, SEQUENTIAL, add_legend, draw_figure
from experiments.artifacts.figures import SPLIT_COLORS, axis_labels
from experiments.artifacts.plotting import Axes, Figure, MaxNLocator, matplotlib
from experiments.artifacts.tables import (
    MAY_BE_BEST,
    ONE_ERROR,
    configuration_symbols,
    find_one_standard_error,
    heading,
    interval_heading,
)
from linear_cifar.config import AXES
from linear_cifar.halving import split_brackets
from linear_cifar.result import Result
from linear_cifar.uncertainty import half_width

# Values of an axis that span a larger factor are drawn on its logarithmic scale.
LARGE_FACTOR = 50


def plot_axes(result: Result) -> Figure:
    """Draw each configuration's validation accuracy after its last epoch against each of its hyperparameters.

    Colours show the epoch that it reached. The legend counts the configurations that diverged.
    """
    accuracy = 100 * result.final["val_acc"].mean(axis=0)
    reached = np.where(result.stopped.any(axis=0), result.stopped.max(axis=0), len(result.identity.epochs))
    finite, best = np.isfinite(accuracy), result.ranking()[0]
    names = [name for name in AXES if len({config[name] for config in result.configs}) > 1] or ["eta"]
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = -(-len(names) // columns)
    epochs = sorted(set(reached[finite]))
    colors = matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.9, len(epochs)))
    title = f"{heading(result, 'mean')}: validation accuracy by hyperparameter"
    with draw_figure((PAGE if columns > 1 else COLUMN, 0.9 + 1.9 * rows), title) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for name, panel in zip(names, panels.flat, strict=False):
            values = _scale_axis(panel, result, name)
            for epoch, color in zip(epochs, colors, strict=True):
                drawn = finite & (reached == epoch)
                label = f"{epoch} epoch" + "s" * bool(epoch > 1)
                size = 5 + 7 * int(epoch == len(result.identity.epochs))
                panel.scatter(values[drawn], accuracy[drawn], s=size, color=color, alpha=0.8, label=label)
            if finite[best]:
                style = {"marker": "*", "s": 70, "linewidths": 0}
                panel.scatter(values[best], accuracy[best], color=ORANGE, zorder=3, label="the best", **style)
            panel.grid()
        for panel in list(panels.flat)[len(names) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel("validation accuracy, %")
        note = f"{len(result.configs):,} configurations" + f", {(~finite).sum()} diverged" * (
            not finite.all()
        )
        symbols = f"\nthe best: {', '.join(configuration_symbols(result, best))}" * bool(finite[best])
        add_legend(figure, panels[0, 0], note=note + symbols)
    return figure


def plot_effort(result: Result) -> Figure:
    """Draw the validation accuracy of the best configuration so far against the epochs that all runs trained.

    See `trace_effort`: it ends at the accuracy of the configuration that the search chooses. With halving the
    brackets follow one another, and a line marks the end of each.
    """
    work, best, ends = trace_effort(result)
    with draw_figure((COLUMN, 2.5), f"{heading(result, 'mean')}: best validation accuracy so far") as figure:
        panel = figure.subplots()
        panel.step(work, 100 * best, where="post", color=BLUE, linewidth=1.2)
        chosen = f"the chosen configuration: {100 * best[-1]:.2f} %"
        panel.plot(work[-1], 100 * best[-1], "o", color=BLUE, markersize=4, label=chosen)
        for i, end in enumerate(ends[:-1]):
            label = "end of a bracket" if i == 0 else None
            panel.axvline(end, color="0.7", linewidth=0.8, linestyle=":", label=label)
        panel.set_xlabel("epochs trained, over all runs")
        panel.set_ylabel("latest validation accuracy, %,\nof the best that was not stopped")
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.grid()
        add_legend(figure, panel)
    return figure


def plot_path(result: Result) -> Figure:
    """Draw loss and accuracy of minima that differ in λ, on the training and the validation examples.

    Bands are 95 % intervals: of the mean loss over the folds, and of the validation accuracy. The λ that may
    be the best are shaded.
    """
    lams, selection = np.array([config.lam for config in result.configs]), result.selection()
    order = np.argsort(lams, kind="stable")
    places = lams[order]
    middle = np.where(places[:-1] > 0, np.sqrt(places[1:] * places[:-1]), places[1:] / 2)
    starts, ends = [places[0], *middle], [*middle, places[-1]]
    lines = {"the best λ": result.ranking()[0], ONE_ERROR: find_one_standard_error(result)}
    title = f"{interval_heading(result, False)}: exact minima"
    with draw_figure((PAGE, 2.6), title) as figure:
        panels = figure.subplots(1, 2)
        for split in [name for name in result.sizes if name in ("train", "val")]:
            style = {
                "color": SPLIT_COLORS[split],
                "marker": "o",
                "markersize": 2,
                "linewidth": 1,
                "label": split,
            }
            band = {"color": SPLIT_COLORS[split], "alpha": 0.18, "linewidth": 0}
            loss = result.final[f"{split}_loss"][:, order].astype(np.float64)
            mean, half = loss.mean(axis=0), np.asarray(half_width(loss))
            panels[0].plot(places, mean, **style)
            panels[0].fill_between(places, mean - half, mean + half, **band)
            mean, low, high = 100 * np.array([result.interval(split, int(c))[:3] for c in order]).T
            panels[1].plot(places, mean, **style)
            panels[1].fill_between(places, low, high, **band)
        of_losses = "loss, without the penalty" + "\n(bands: over the folds)" * (result.folds > 1)
        for panel, label in zip(panels, (of_losses, "accuracy, %"), strict=True):
            _scale_axis(panel, result, "lam")
            for place in np.flatnonzero(selection.may_be_best[order]):
                panel.axvspan(
                    starts[place], ends[place], color="0.5", alpha=0.15, linewidth=0, label=MAY_BE_BEST
                )
            for (name, c), line in zip(lines.items(), ("-.", ":"), strict=True):
                panel.axvline(lams[c], color="0.4", linewidth=1, linestyle=line, label=name)
            panel.set_ylabel(label)
            panel.grid()
        add_legend(figure, *panels)
    return figure


def trace_effort(
    result: Result,
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"], list[int]]:
    """Return the epochs of all runs so far, the best accuracy so far, and the epochs at each bracket's end.

    The best is the highest latest accuracy of the configurations that were not stopped, so that it ends at
    that of the chosen one. It may fall. It is NaN while all runs have diverged.
    """
    accuracy = result.history["val_acc"].mean(axis=1, dtype=np.float64)  # [E, C]
    stopped = result.stopped.max(axis=0)
    work, best, ends, finished = [0], [np.nan], [], np.nan
    size = result.about["bracket"] if result.halved else len(result.configs)
    for places in split_brackets(range(len(result.configs)), size):
        members = np.asarray(places)
        for epoch in range(1, len(result.identity.epochs) + 1):
            alive = members[(stopped[members] == 0) | (stopped[members] >= epoch)]
            work.append(work[-1] + len(alive) * len(result.identity.replicates))
            best.append(np.fmax(finished, np.fmax.reduce(accuracy[epoch - 1, alive])))
        ends.append(work[-1])
        finished = best[-1]
    return np.array(work[1:]), np.array(best[1:]), ends


def _scale_axis(panel: Axes, result: Result, name: str) -> np.ndarray:
    """Label the axis of a hyperparameter, choose its scale, and return the places of the values on it."""
    axis, labels = AXES[name], axis_labels(result, name)
    values = np.array([config[name] for config in result.configs])
    panel.set_xlabel(axis.label)
    if axis.whole:
        # The points of one value are spread out, by the place of each in the sweep.
        spread = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.5
        panel.set_xticks(range(len(labels)), [*labels.values()], rotation=90 if len(labels) > 6 else 0)
        panel.set_xlabel(f"{axis.label}, points of one value side by side")
        return np.searchsorted([*labels], values) + spread
    positive = [value for value in labels if value > 0]
    if axis.log and positive and positive[-1] / positive[0] > LARGE_FACTOR:
        exponents = range(int(np.ceil(np.log10(positive[0]))), int(np.log10(positive[-1]) // 1) + 1)
        ticks = [10.0**exponent for exponent in exponents[:: -(-len(exponents) // 4)]]
        if len(positive) < len(labels):
            panel.set_xscale("symlog", linthresh=positive[0])
            ticks = [0.0, *ticks]
        else:
            panel.set_xscale("log")
        panel.set_xticks(ticks)
        panel.set_xticks([], minor=True)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter("{x:g}")
    return values
