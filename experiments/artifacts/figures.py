"""The figures of the commands: each function returns a figure, which `drawing.save_figures` writes.

All have the same style: colours that any colour vision can distinguish, readable in print, with the data set
named in the title. Bands are one standard deviation over the replicates, and bars are 95 % intervals.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from experiments.artifacts import drawing, tables
from experiments.artifacts.drawing import BLUE, COLUMN, GREEN, ORANGE, PAGE, PURPLE, SEQUENTIAL, SKY
from experiments.artifacts.fonts import label_classes
from experiments.artifacts.measures import Predictions
from experiments.artifacts.plotting import Axes, Figure, MaxNLocator, Rectangle, Transform, matplotlib
from linear_cifar.calibration import expected_calibration_error, reliability
from linear_cifar.comparison import Comparison
from linear_cifar.config import AXES
from linear_cifar.data.dataset import Dataset, ImageShape
from linear_cifar.data.formats import CHANNELS
from linear_cifar.result import Result
from linear_cifar.uncertainty import Estimate, Selection

# A sweep, the index of one of its configurations, and the sweep's predictions.
Shown = tuple[Result, int, Predictions]

SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}
LINE_STYLES = ("-", "--", "-.", ":")
FEW_COLORS = (BLUE, GREEN, PURPLE, SKY, "black")
IN_SET, NOT_IN_SET = (ORANGE, "D", tables.MAY_BE_BEST), (BLUE, "o", "not in the set of the best")
# Limits for figures of very many configurations: panels of a heat map, cells along an axis that show their
# number, lines of a panel, colours that a legend names, and rows of a figure.
MAX_PANELS, MAX_NUMBERS, MAX_LINES, MAX_NAMES, MAX_DIFFERENCES = 12, 24, 200, 8, 40
# Classes whose weights are drawn, columns of a class's label, and classes of a matrix that fits in a column.
MAX_CLASSES, LABEL, FEW_CLASSES = 12, 12, 10
# Ticks where differences are on a logarithmic scale, and the points from which they are.
TICKS, WIDE_DIFFERENCES = (-100, -30, -10, -3, -1, 0, 1, 3, 10, 30, 100), 6
# Columns of a file's name.
MAX_NAME = 80
# A reliability diagram leaves out bins of fewer images, whose share of right predictions is mostly chance.
SMALLEST_BIN = 20


def plot_heatmap(result: Result, selection: Selection) -> Figure:
    """Draw the final validation accuracy over η (rows) and batch size (columns), with a panel per λ.

    An axis with one value takes the panels, so that η × λ with one batch size is one panel. A cell shows its
    best configuration, where several differ in further axes. It is blank if it was not trained, and marked ✕
    if it diverged. The best is framed, and so are, with thin frames, those that may be the best. Colours span
    the better half of the cells. Among very many panels, only those of the best configurations are drawn.
    """
    labels = {name: axis_labels(result, name) for name in ("eta", "batch", "lam")}
    names = sorted(labels, key=lambda name: len(labels[name]) == 1)
    texts = AXES[names[0]].label, AXES[names[1]].label, AXES[names[2]].symbol
    axes = [(text, labels[name]) for text, name in zip(texts, names, strict=True)]
    cells: list[tuple[float, ...]] = [tuple(config[name] for name in names) for config in result.configs]
    accuracy, title = result.final["val_acc"].mean(axis=0), tables.heading(result, "mean")
    return _plot_cells(title, "validation", axes, cells, accuracy, result.ranking(), selection)


def _plot_cells(
    title: str,
    on: str,
    axes: Sequence[tuple[str, Mapping[Any, str]]],
    cells_of: Sequence[tuple[Any, ...]],
    shares: ArrayLike,
    ranking: Sequence[int],
    selection: Selection,
) -> Figure:
    """Draw a heat map of accuracies, see `plot_heatmap`.

    Args:
      title: title of the figure, before what is drawn.
      on: name of the examples.
      axes: label of the rows (from below), the columns and the panels, and their values with their texts.
      cells_of: values of each configuration, or file, on the three axes.
      shares: accuracy of each.
      ranking: indices of those to draw, best first.
      selection: which of them may be the best.
    """
    (down, row_texts), (across, column_texts), (symbol, panel_texts) = axes
    rows, columns = [*row_texts], [*column_texts]
    drawn = sorted([*dict.fromkeys(cells_of[i][2] for i in ranking)][:MAX_PANELS])
    numbered = max(len(rows), len(columns)) <= MAX_NUMBERS
    values = 100 * np.asarray(shares)
    # The ranking begins with the best, so the first configuration of a cell is its best.
    accuracy: dict[tuple[Any, ...], float] = {}
    for i in ranking:
        accuracy.setdefault(cells_of[i], float(values[i]))
    may_be_best = {cell for cell, sure in zip(cells_of, selection.may_be_best, strict=True) if sure}
    finite = [value for value in accuracy.values() if np.isfinite(value)]
    low, high = (float(np.median(finite)), max(finite)) if finite else (0, 1)
    best = cells_of[ranking[0]] if finite else None
    in_row = min(len(drawn), 6, max(1, MAX_NUMBERS // len(columns)))
    in_column = -(-len(drawn) // in_row)
    width = COLUMN if in_row * min(len(columns), MAX_NUMBERS) <= 8 else PAGE
    cell_width = (width - 1.3) / in_row / min(len(columns), MAX_NUMBERS)
    longest = drawing.CHARACTER * max(map(len, column_texts.values()))
    height = 1.1 + in_column * (0.6 + 0.22 * min(len(rows), MAX_NUMBERS)) + longest * (longest > cell_width)
    with drawing.draw_figure((width, height), f"{title}: {on} accuracy") as figure:
        panels = figure.subplots(in_column, in_row, squeeze=False, sharex=True, sharey=True)
        for panel in panels.flat[len(drawn) :]:
            panel.set_visible(False)
        for panel, value in zip(panels.flat, drawn, strict=False):
            cells = np.array([[accuracy.get((y, x, value), np.nan) for x in columns] for y in rows])
            image = panel.imshow(cells, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto", origin="lower")
            panel.set_title(f"{symbol} = {panel_texts[value]}" if symbol else "")
            panel.set(xlabel=across, ylabel=down)
            _label_ticks(panel.set_xticks, [*column_texts.values()], cell_width)
            _label_ticks(panel.set_yticks, [*row_texts.values()])
            panel.label_outer()
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
            for (row, column), share in np.ndenumerate(cells):
                key = (rows[row], columns[column], value)
                if key in accuracy and numbered:
                    text = "✕" if np.isnan(share) else f"{share:.1f}"
                    weight = "bold" if key == best else "normal"
                    dark = not share > (low + high) / 2 and not np.isnan(share)
                    _write(panel, column, row, text, dark, weight=weight)
                if key in may_be_best:
                    label, linewidth = ("the best", 2.4) if key == best else (tables.MAY_BE_BEST, 1.0)
                    box = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, clip_on=False)
                    box.set(edgecolor=ORANGE, linewidth=linewidth, label=label)
                    panel.add_patch(box)
        clipped = bool(finite) and min(finite) < low
        label = f"{on} accuracy, %" + "\ncolours from the median up" * clipped
        _add_scale(figure, image, label, "min" * clipped)
        few = f"the best {len(drawn)} of {len(panel_texts)} {symbol}"
        drawing.add_legend(figure, *panels.flat, note=few * (len(drawn) < len(panel_texts)))
    return figure


def plot_differences(result: Result, selection: Selection) -> Figure:
    """Draw how far each configuration's validation accuracy is below the best one's, with its interval.

    The intervals are simultaneous, see `Selection`: a configuration whose interval reaches 0 may be the best.
    The best is at the top. Of very many configurations only the first are drawn, and none that diverged.
    """
    finite = [c for c in result.ranking() if result.stayed_finite[c]]
    drawn = finite[:MAX_DIFFERENCES]
    symbols = [tables.configuration_symbols(result, c) for c in drawn]
    shared = [symbol for symbol in [*symbols, []][0] if all(symbol in other for other in symbols[1:])]
    names = [", ".join(symbol for symbol in each if symbol not in shared) for each in symbols]
    ends = 100 * np.array([selection.difference[c][1:3] for c in drawn] or [(0, 0)])
    low, high = min(-0.1, float(ends.min())), max(0.1, float(ends.max()))
    wide = low < -WIDE_DIFFERENCES  # the best differ by tenths of a point, and the worst by tens
    width = COLUMN if max(map(len, names), default=0) <= 26 else PAGE
    title = f"{tables.interval_heading(result, with_train=False)}: {tables.DIFFERENCE}"
    with drawing.draw_figure((width, 1.25 + 0.14 * len(drawn)), title) as figure:
        panel = figure.subplots()
        _draw_intervals(panel, names, [selection.difference[c] for c in drawn], selection.may_be_best[drawn])
        panel.axvline(0, color="0.6", linewidth=1, linestyle=":")
        if wide:
            panel.set_xscale("symlog", linthresh=1)
            panel.set_xticks([tick for tick in TICKS if low <= tick <= high])
            panel.set_xlim(1.15 * low, high + 0.1)
        else:
            panel.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("validation accuracy − the best one's, points" + "\n(logarithmic beyond ±1)" * wide)
        if shared:
            panel.set_title(drawing.fit_text(", ".join(shared), width / 2))
        if not drawn:
            _mark_diverged(panel)
        selected = f"the first {len(drawn)} of {len(result.configs)} configurations"
        drawing.add_legend(figure, panel, note=selected * (len(drawn) < len(result.configs)))
    return figure


def plot_comparison(comparison: Comparison, factors: Mapping[str, Mapping[str, str]], title: str) -> Figure:
    """Draw the accuracy of each file with its interval, the best at the top; of very many only the first.

    Args:
      comparison: the files.
      factors: see `tables.comparison_table`.
      title: title of the figure.
    """
    drawn = tables.order_files(comparison)[:MAX_DIFFERENCES]
    names, note = label_classes([", ".join(factors[comparison.names[i]].values()) for i in drawn], MAX_NAME)
    width = COLUMN if max(map(len, names)) <= 26 else PAGE
    with drawing.draw_figure(
        (width, 1.0 + 0.14 * len(drawn)), f"{title}: {comparison.on} accuracy{note}"
    ) as figure:
        panel = figure.subplots()
        intervals = [comparison.accuracy[i] for i in drawn]
        _draw_intervals(panel, names, intervals, comparison.selection.may_be_best[drawn])
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.set_xlabel(f"{comparison.on} accuracy, %")
        selected = f"the first {len(drawn)} of {len(comparison.names)} files"
        drawing.add_legend(figure, panel, note=selected * (len(drawn) < len(comparison.names)))
    return figure


def plot_factors(
    comparison: Comparison, factors: Mapping[str, Mapping[str, str]], title: str
) -> Figure | None:
    """Draw a heat map of files over the two factors that tell them apart; None if there are not two."""
    names = [*factors[comparison.names[0]]]
    if len(names) != 2:
        return None
    cells = [(*factors[name].values(), "") for name in comparison.names]
    rows, columns = ([*dict.fromkeys(values)] for values in [*zip(*cells, strict=True)][:2])
    rows.reverse()  # the first is at the top
    (row_labels, note), (column_labels, _) = label_classes(rows), label_classes(columns)
    axes: list[tuple[str, Mapping[str, str]]] = [
        (names[0], dict(zip(rows, row_labels, strict=True))),
        (names[1], dict(zip(columns, column_labels, strict=True))),
        ("", {"": ""}),
    ]
    accuracy = np.array([estimate.mean for estimate in comparison.accuracy])
    ranking = tables.order_files(comparison)
    return _plot_cells(f"{title}{note}", comparison.on, axes, cells, accuracy, ranking, comparison.selection)


def plot_sizes(comparisons: Mapping[int, Comparison], title: str, unit: str = tables.EXAMPLES) -> Figure:
    """Draw accuracies against the training size, from a comparison of the same files with each size.

    The axis of sizes is logarithmic; `unit` says what they count. Bars are the intervals of the comparison.
    """
    sizes, shown = np.array(sorted(comparisons)), next(iter(comparisons.values()))
    labels, note = label_classes(shown.names, 45)
    logs, ticks, end = np.log(sizes), [], -np.inf
    in_row = max(1, int(COLUMN / (drawing.HANDLE + drawing.CHARACTER * max(map(len, labels)))))
    with drawing.draw_figure((COLUMN, 2.4 + drawing.LINE * -(-len(labels) // in_row)), title) as figure:
        panel = figure.subplots()
        panel.set_xscale("log")
        panel.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
        for i, label in enumerate(labels):
            mean, low, high = 100 * np.array([comparisons[size].accuracy[i][:3] for size in sizes]).T
            # The files of a size stand side by side, so that no interval hides another.
            shift = ((i + 0.5) / len(labels) - 0.5) * np.diff(logs).min(initial=1) / 4
            style: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 1.5, "linewidth": 1}
            style |= {"color": (ORANGE, *FEW_COLORS)[i % 6], "linestyle": LINE_STYLES[i // 6 % 4]}
            panel.errorbar(np.exp(logs + shift), mean, [mean - low, high - mean], label=label, **style)
        for size, place in zip(sizes, (COLUMN - 0.8) * (logs - logs[0]) / (np.ptp(logs) or 1), strict=True):
            half = drawing.CHARACTER * len(f"{size:,}") / 2
            ticks.append(f"{size:,}" * bool(place - half > end))  # no label where it would hide the last
            end = place + half if ticks[-1] else end
        panel.set_xticks(sizes, ticks)
        panel.set_xticks([], minor=True)
        panel.set(xlabel=unit, ylabel=f"{shown.on} accuracy, %")
        panel.grid(axis="y")
        drawing.add_legend(figure, panel, note=note)
    return figure


def plot_curves(result: Result) -> Figure:
    """Draw training and validation loss per epoch as means over the seeds.

    Colours show η, line styles the batch size and rows of panels λ, where they have few values. Only the best
    configuration has a band, because bands of many would hide one another. The better half by validation
    accuracy sets the limits of the loss; the legend counts those that leave them. Among very many, only the
    best are drawn.
    """
    ranking = result.ranking()
    best, finite = ranking[0], [c for c in ranking if result.stayed_finite[c]]
    drawn = sorted(finite[:MAX_LINES])
    losses = {
        "training loss (mean over each epoch's batches)": result.history["running_loss"],
        "validation loss": result.history["val_loss"],
    }
    means = np.stack([values.mean(axis=1) for values in losses.values()])
    better = means[:, :, finite[: (len(finite) + 1) // 2]]
    low, high = (better.min(), better.max()) if finite else (0, 1)
    above = sum(bool((means[:, :, c] > high).any()) for c in drawn)
    diverged = len(result.configs) - len(finite)
    etas, batches, lams = (axis_labels(result, name, drawn) for name in ("eta", "batch", "lam"))
    few = len(batches) <= len(LINE_STYLES)
    note = (
        "the best " * (len(drawn) < len(finite))
        + f"{len(drawn)} of {len(result.configs)} configurations, losses without the penalty"
        + f"; {above} partly or wholly above the axis" * (above > 0)
        + f"; {diverged} diverged" * (diverged > 0)
        + "; all batch sizes share a line style" * (not few)
        + f"\nthe best: {', '.join(tables.configuration_symbols(result, best))}" * bool(finite)
    )
    spectrum = matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(etas)))
    colors = dict(zip(etas, FEW_COLORS if len(etas) <= len(FEW_COLORS) else spectrum, strict=False))
    styles = dict(zip(batches, LINE_STYLES if few else "-" * len(batches), strict=False))
    by_lam = 0 < len(lams) <= len(LINE_STYLES)
    rows = [*lams] if by_lam else [0.0]
    with drawing.draw_figure((PAGE, 1.1 + 1.5 * len(rows)), f"{tables.heading(result)}: loss") as figure:
        panels = figure.subplots(len(rows), len(losses), squeeze=False, sharex=True, sharey=True)
        first = panels[0, 0]
        for eta, text in [*etas.items()][:: -(-len(etas) // MAX_NAMES) or 1]:
            first.plot([], [], color=colors[eta], label=f"{AXES['eta'].symbol} = {text}")
        for batch, text in batches.items() if few and len(batches) > 1 else ():
            first.plot([], [], color="0.4", linestyle=styles[batch], label=f"{AXES['batch'].symbol} = {text}")
        rows_of = {c: rows.index(result.configs[c].lam) if by_lam else 0 for c in drawn}
        for c in drawn:
            style = {"color": colors[result.configs[c].eta], "linestyle": styles[result.configs[c].batch]}
            for panel, mean in zip(panels[rows_of[c]], means, strict=True):
                _line(panel, mean[:, c], linewidth=0.9, **style)
        for panel, values in zip(panels[rows_of[best]], losses.values(), strict=True) if finite else ():
            _band(panel, values[:, :, best], ORANGE, "the best", styles[result.configs[best].batch], 1.8)
        for panel, title in zip(panels[0], losses, strict=True):
            panel.set_title(title)
        for lam, panel in zip(rows, panels[:, 0], strict=True):
            panel.set_ylabel(f"{AXES['lam'].symbol} = {lams[lam]}\nloss" if by_lam else "loss")
        for panel in panels.flat:
            _label_epochs(panel)
            panel.label_outer()
        first.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) + 1e-9)
        drawing.add_legend(figure, *panels.flat, note=note)
    return figure


def plot_costs(result: Result) -> Figure:
    """Draw training and validation loss and cost (with the penalty) per epoch, a panel per configuration."""
    panels = []
    for c, config in enumerate(result.configs):
        penalty = config.lam * result.history["W_norm"][:, :, c] ** 2
        curves: list[Any] = []
        for split in result.per_epoch:
            loss, color = result.history[f"{split}_loss"][:, :, c], SPLIT_COLORS[split]
            curves += [(loss, color, f"{split} loss"), (loss + penalty, color, f"{split} cost", "--")]
        panels.append((_name(result, c, 3), "" if c % 2 else "loss, cost", curves))
    title = f"{tables.heading(result)}: loss, and cost with the penalty"
    return _plot_epochs(title, panels, min(len(panels), 2))


def plot_gaps(shown: Sequence[Shown]) -> Figure:
    """Draw training and test accuracy per epoch, a panel per selection, and their gaps in the last panel."""
    panels: list[tuple[str, str, Sequence[Any]]] = []
    gaps = []
    for (result, c, _), color in zip(shown, (SKY, PURPLE), strict=False):
        train, test = (100 * result.history[f"{name}_acc"][:, :, c] for name in ("train", "test"))
        curves = [(train, SPLIT_COLORS["train"], "train"), (test, SPLIT_COLORS["test"], "test")]
        label = "" if panels else "accuracy, %"
        panels.append((f"{result.about['sweep']}\n{_name(result, c, 2)}", label, curves))
        gaps.append((train - test, color, f"{result.about['sweep']}: train − test"))
    title = f"{tables.heading(shown[0][0])}: training and test accuracy"
    figure = _plot_epochs(title, [*panels, ("gap, points", "", gaps)], len(panels) + 1)
    for panel in figure.axes[1:-1]:
        panel.sharey(figure.axes[0])
    return figure


def plot_learning_curves(result: Result, config: int) -> Figure:
    """Draw loss and accuracy of one configuration per epoch."""
    running = ("running", SKY, "training, mean over each epoch's batches")
    splits = [running, *((split, SPLIT_COLORS.get(split, PURPLE), split) for split in result.per_epoch)]
    panels = []
    for metric, label, scale in (("loss", "loss, without the penalty", 1), ("acc", "accuracy, %", 100)):
        values = {split: scale * result.history[f"{split}_{metric}"][:, :, config] for split, *_ in splits}
        panels.append(("", label, [(values[split], *style) for split, *style in splits]))
    return _plot_epochs(f"{tables.heading(result)}: {_name(result, config)}", panels, 2)


def _plot_epochs(title: str, panels: Sequence[tuple[str, str, Sequence[Any]]], columns: int) -> Figure:
    """Draw panels of a title, a label of the y axis, and curves: the arguments of `_band`."""
    rows = -(-len(panels) // columns)
    with drawing.draw_figure((PAGE if columns > 1 else COLUMN, 0.9 + 1.7 * rows), title) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for (name, label, curves), panel in zip(panels, axes, strict=False):
            for curve in curves:
                _band(panel, *curve)
            panel.set(title=name, ylabel=label)
            _label_epochs(panel)
        for panel in axes:  # without curves
            panel.set_visible(False)
        drawing.add_legend(figure, *figure.axes)
    return figure


def plot_samples(dataset: Dataset, columns: int = 12) -> Figure:
    """Draw the first training images of each class, a row per class; the data set is of coloured images."""
    shape = dataset.image_shape
    assert shape is not None, "only images can be drawn"
    images, classes, _ = dataset.splits["train"]
    labels, note = label_classes(dataset.classes, LABEL)
    rows = [images[np.flatnonzero(classes == k)[:columns]] for k in range(len(labels))]
    return _plot_images(f"{dataset.label}: training images{note}", shape, rows, labels, [""] * columns)


def plot_weights(result: Result, configs: Sequence[int], replicate: int = 0) -> Figure:
    """Draw the weights of each class as an image, a row per configuration.

    Each image is scaled to its own range, and grey where the run diverged. Of very many classes only the
    first are drawn. The result is of a sweep on images, with the weights of these runs.
    """
    shape, K = result.about["image_shape"], len(result.about["classes"])
    assert shape is not None, "only images can be drawn"
    labels, note = label_classes(result.about["classes"][:MAX_CLASSES], LABEL - 2)
    selected = f"the first {len(labels)} of {K} classes" if len(labels) < K else "each class"
    sheet, names = [], []
    for c in configs:
        weights = np.asarray(result.params_at(replicate, c).W)[: len(labels)]
        finite = bool(np.isfinite(weights).all())
        sheet.append(
            [255 * (W - W.min()) / (np.ptp(W) or 1) if finite else np.full_like(W, 230) for W in weights]
        )
        names.append("\n".join([*tables.configuration_symbols(result, c), *["diverged"] * (not finite)]))
    title = f"{result.about['label']}: weights of {selected}, {tables.replicate_name(result, replicate)}"
    return _plot_images(f"{title}, each scaled by itself{note}", shape, sheet, names, labels)


def _plot_images(
    title: str, shape: ImageShape, images: Sequence[Any], names: Sequence[str], labels: Sequence[str]
) -> Figure:
    """Draw rows of channel-major images, each row with its name, and a label above each column."""
    _, height, width = shape
    sheet = np.full((len(names), height + 2, len(labels), width + 2, 3), 255, np.uint8)
    for row, members in enumerate(images):
        for column, image in enumerate(members):
            sheet[row, 1:-1, column, 1:-1] = np.reshape(image, shape).transpose(1, 2, 0)
    sheet = sheet.reshape(len(names) * (height + 2), len(labels) * (width + 2), 3)
    across = COLUMN if len(labels) <= 5 else PAGE
    inner = across - 0.2 - drawing.CHARACTER * max(len(line) for name in names for line in name.split("\n"))
    longest = drawing.CHARACTER * max(map(len, labels))
    turned = longest > inner / len(labels)
    size = (across, inner * sheet.shape[0] / sheet.shape[1] + (0.4 + longest if turned else 0.5))
    with drawing.draw_figure(size, title) as figure:
        figure.set_layout_engine("compressed")
        panel = figure.subplots()
        panel.imshow(sheet, interpolation="nearest")
        panel.xaxis.tick_top()
        panel.set_xticks((np.arange(len(labels)) + 0.5) * (width + 2), labels, rotation=90 * turned)
        panel.set_yticks((np.arange(len(names)) + 0.5) * (height + 2), names)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    return figure


def plot_best_weights(result: Result) -> Figure | None:
    """Draw the weights of the best configuration, unless it diverged or the data are not images."""
    best, shape = result.ranking()[0], result.about["image_shape"]
    if result.stayed_finite[best] and shape and shape[0] in CHANNELS:
        return plot_weights(result, [best], result.best_replicate(best))
    return None


def plot_confusion(
    counts: Float[np.ndarray, "K K"], classes: Sequence[str], title: str, numbered: bool
) -> Figure:
    """Draw how many examples of each true class (rows) are predicted to be of each class (columns), in %.

    Colours end at the most frequent error, so that errors differ visibly; the diagonal is mostly beyond. A
    class without examples has an empty row. Only if `numbered` are the numbers written into the cells.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
    largest = max(np.nan_to_num(shares * (1 - np.eye(len(classes)))).max(), 1)
    width = COLUMN if len(classes) <= FEW_CLASSES else PAGE
    labels, note = label_classes(classes, LABEL)
    with drawing.draw_figure((width, 0.9 * width), title + note) as figure:
        figure.set_layout_engine("compressed")
        panel = figure.subplots()
        image = panel.imshow(shares, cmap=SEQUENTIAL, vmin=0, vmax=largest)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        step = _label_ticks(panel.set_xticks, labels, (width - 1.6) / min(len(labels), MAX_NUMBERS))
        _label_ticks(panel.set_yticks, labels)
        named = f", one of {step} is named" * (step > 1)
        panel.set_xlabel(f"predicted class{named}")
        panel.set_ylabel(f"true class{named}")
        if numbered:
            for (row, column), share in np.ndenumerate(shares):
                if np.isfinite(share):
                    _write(panel, column, row, f"{share:.0f}", dark=share <= largest / 2)
        clipped = bool(np.nanmax(shares) > largest)
        label = "% of the true class" + "\ncolours up to the largest error" * clipped
        _add_scale(figure, image, label, "max" * clipped)
    return figure


def plot_histograms(shown: Sequence[Shown]) -> Figure:
    """Draw the first seed's probability of the true class on right and wrong test images, a panel each."""
    title = f"{shown[0][0].about['label']}, test images: probability of the true class"
    with drawing.draw_figure((PAGE, 2.4), title) as figure:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        edges = np.linspace(0, 1, 41)
        for panel, (result, c, predictions) in zip(panels, shown, strict=True):
            panel.set_title(f"{result.about['sweep']}: {_name(result, c, (PAGE - 1) / len(shown))}")
            panel.set_xlabel("probability of the true class")
            panel.set_xlim(0, 1)
            if result.diverged[0, c]:
                _mark_diverged(panel)
                continue
            first_seed = predictions.of_run(0, c)
            for right, color, label in ((False, ORANGE, "wrong"), (True, BLUE, "right")):
                values = first_seed.of_true_class[first_seed.correct == right]
                panel.hist(values, edges, color=color, alpha=0.6, label=f"classified {label}")
        panels[0].set_ylabel(f"test images ({tables.replicate_name(shown[0][0], 0)})")
        drawing.add_legend(figure, *panels)
    return figure


def plot_reliability_diagram(shown: Sequence[Shown]) -> Figure:
    """Draw the share of right predictions over the probability of the predicted class, for the first seed.

    The diagonal is perfect calibration. A point's area is proportional to its share of the test images. The
    legend has the calibration error of that seed, and of all seeds as the table has it.
    """
    title = f"{shown[0][0].about['label']}, test images: reliability"
    first = tables.replicate_name(shown[0][0], 0)
    with drawing.draw_figure((COLUMN, 4.2), title) as figure:
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        for (result, c, predictions), color, marker in zip(
            shown, (BLUE, ORANGE, GREEN, SKY), "osD^", strict=False
        ):
            name = f"{result.about['sweep']}: {_name(result, c)}"
            style: dict[str, Any] = {"color": color, "marker": marker, "linewidth": 1, "markersize": 3}
            if result.diverged[0, c]:
                panel.plot([], [], label=f"{name}: diverged", **style)
                continue
            runs = [predictions.of_run(replicate, c) for replicate in range(result.identity.size[0])]
            finite = [run for run, epoch in zip(runs, result.diverged[:, c], strict=True) if epoch == 0]
            binned = [reliability(run.of_predicted_class, run.correct) for run in finite]
            errors = [*map(expected_calibration_error, binned), *[np.nan] * (len(runs) - len(finite))]
            several = f", {tables.percent(np.array(errors)).text} % (all seeds)" * (len(runs) > 1)
            label = f"{name}\nECE {tables.percent(errors[0]).text} % ({first}){several}"
            enough = binned[0].counts >= SMALLEST_BIN
            x, y, counts = binned[0].confidence[enough], binned[0].accuracy[enough], binned[0].counts[enough]
            panel.plot(x, y, label=label, **style)
            panel.scatter(x, y, 250 * counts / len(runs[0].correct), color=color, marker=marker, alpha=0.8)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.set_xlabel(f"probability of the predicted class, bins of ≥ {SMALLEST_BIN} images")
        panel.set_ylabel(f"share of right predictions ({first})")
        drawing.add_legend(figure, panel)
    return figure


def plot_steps(
    names: Sequence[str],
    accuracies: Sequence[Float[np.ndarray, " S"]],
    intervals: Sequence[Estimate],
    title: str,
) -> Figure:
    """Draw the test accuracy of each step: a dot per seed, and a bar of the mean with its interval."""
    with drawing.draw_figure((COLUMN, 0.7 + 0.17 * len(names)), title) as figure:
        panel = figure.subplots()
        for row, (shares, interval) in enumerate(zip(accuracies, intervals, strict=True)):
            if np.isnan(interval.mean):
                _mark_diverged(panel, row, panel.get_yaxis_transform())
                continue
            _draw_interval(panel, interval, row, fmt="D", color=BLUE, markersize=3.5, capsize=2)
            panel.plot(100 * shares, np.full(len(shares), row), ".", color=SKY, markersize=3)
            label, end = f"{100 * interval.mean:.2f}", 100 * np.nanmax(interval[:3])
            panel.annotate(label, (end, row), (3, 0), textcoords="offset points", va="center")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)  # the first step is at the top
        panel.margins(x=0.12)
        panel.grid(axis="x")
        panel.set_xlabel("test accuracy, %")
    return figure


def axis_labels(result: Result, name: str, drawn: Iterable[int] | None = None) -> Mapping[float, str]:
    """Return the values of an axis in rising order, each with its text, of all or some configurations."""
    configs = result.configs if drawn is None else [result.configs[c] for c in drawn]
    return dict(sorted((config[name], tables.number_cell(config[name]).text) for config in configs))


def _name(result: Result, config: int, width: float = PAGE) -> str:
    """Return a configuration's name, in lines of at most `width` inches."""
    return drawing.fit_text(", ".join(tables.configuration_symbols(result, config)), width)


def _write(panel: Axes, x: int, y: int, text: str, dark: bool, **style: Any) -> None:
    """Write into a cell, in a colour that can be read on it."""
    panel.text(x, y, text, ha="center", va="center", color="white" if dark else "black", **style)


def _add_scale(figure: Figure, image: Any, label: str, extend: str) -> None:
    """Draw the scale of the colours; `extend` is the end that values lie beyond, or empty."""
    scale = figure.colorbar(
        image, ax=figure.axes, label=label, extend=extend or "neither", fraction=0.05, pad=0.02
    )
    scale.outline.set_visible(False)


def _draw_interval(panel: Axes, interval: Estimate, row: int, **style: Any) -> None:
    """Draw a mean and its interval, in percent, in a row."""
    mean, low, high = 100 * np.array(interval[:3])
    panel.errorbar(mean, row, xerr=[[mean - low], [high - mean]], **style)


def _draw_intervals(
    panel: Axes, names: Sequence[str], intervals: Sequence[Estimate], may_be_best: Bool[np.ndarray, " rows"]
) -> None:
    """Draw means and their intervals, in percent, in rows with these names, the first at the top."""
    for row, interval in enumerate(intervals):
        color, marker, label = IN_SET if may_be_best[row] else NOT_IN_SET
        style = {"color": color, "markersize": 3, "capsize": 1.5, "linewidth": 1}
        _draw_interval(panel, interval, row, fmt=marker, label=label, **style)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(max(1, len(names)) - 0.5, -0.5)
    panel.grid(axis="x")


def _line(panel: Axes, values: ArrayLike, **style: Any) -> None:
    """Draw values [E] over the epochs as a curve; a single epoch is a point."""
    values = np.asarray(values)
    panel.plot(np.arange(1, len(values) + 1), values, marker="o" if len(values) == 1 else None, **style)


def _band(
    panel: Axes, values: ArrayLike, color: str, label: str, linestyle: str = "-", linewidth: float = 1.2
) -> None:
    """Draw the mean over seeds of values [E, S] per epoch, in a band of ± one standard deviation."""
    values = np.asarray(values)
    mean = values.mean(axis=1)
    _line(panel, mean, color=color, label=label, linestyle=linestyle, linewidth=linewidth)
    if values.shape[1] > 1:
        deviation = values.std(axis=1, ddof=1)
        epochs = np.arange(1, len(values) + 1)
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.18, linewidth=0)


def _mark_diverged(panel: Axes, height: float = 0.5, transform: Transform | None = None) -> None:
    """Draw a note where a curve is missing: in the middle of the panel, or at a height of its y axis."""
    panel.text(0.5, height, "diverged", transform=transform or panel.transAxes, ha="center", va="center")


def _label_epochs(panel: Axes) -> None:
    """Label the axis of epochs, and draw a note if no curve of the panel has a value."""
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if not any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
        _mark_diverged(panel)
        # The ticks are hidden, not removed: other panels may share the axis.
        panel.tick_params(length=0, labelbottom=False, labelleft=False)


def _label_ticks(set_ticks: Callable[..., Any], labels: Sequence[str], space: float | None = None) -> int:
    """Label every n-th of the cells along an axis, of very many only, and return n.

    Labels turn where the longest is wider than `space` inches.
    """
    step = -(-len(labels) // MAX_NUMBERS)
    shown = labels[::step]
    turned = space is not None and max(map(len, shown)) * drawing.CHARACTER > space
    set_ticks(range(0, len(labels), step), shown, rotation=90 if turned else 0)
    return step
