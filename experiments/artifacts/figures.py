"""The figures, each saved as .png and as .svg.

All have the same style: colours that any colour vision can distinguish, readable in print, with the data set
named. Bands are one standard deviation over the replicates, and bars are 95 % intervals.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from experiments.artifacts.drawing import BLUE, GREEN, ORANGE, SEQUENTIAL, SKY, add_legend, draw_figure
from experiments.artifacts.fonts import label_classes
from experiments.artifacts.measures import Predictions
from experiments.artifacts.plotting import (
    Axes,
    MaxNLocator,
    Rectangle,
    ScalarFormatter,
    Transform,
    matplotlib,
)
from experiments.artifacts.tables import (
    DIFFERENCE,
    MAY_BE_BEST,
    configuration_name,
    configuration_symbols,
    heading,
    interval_heading,
    replicate_name,
)
from linear_cifar.calibration import expected_calibration_error, reliability
from linear_cifar.config import AXES
from linear_cifar.data.dataset import Dataset, ImageShape
from linear_cifar.data.formats import CHANNELS
from linear_cifar.result import Result
from linear_cifar.uncertainty import Estimate, Selection

# A sweep, the index of one of its configurations, and the sweep's predictions.
Shown = tuple[Result, int, Predictions]

SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}
# Limits for figures of very many configurations: panels of a heat map, cells along an axis that show their
# number, lines of a panel, colours that a legend names, and rows of a figure.
MAX_PANELS, MAX_NUMBERS, MAX_LINES, MAX_NAMES, MAX_DIFFERENCES = 12, 24, 200, 12, 40
# Classes whose weights are drawn, and columns of a class's label above its weights and beside its images.
MAX_CLASSES, WEIGHTS_LABEL, SAMPLES_LABEL = 20, 11, 12


def plot_heatmap(path: Path, result: Result, selection: Selection) -> None:
    """Draw the final validation accuracy over η (rows) and batch size (columns), with a panel per λ.

    A cell shows its best configuration, where several differ in further axes. It is blank if it was not
    trained, and marked ✕ if it diverged. The best is framed, and so are, with thin frames, those that may be
    the best. Among very many λ, only those of the best configurations are drawn.
    """
    axes = [AXES[name] for name in ("eta", "batch", "lam")]
    cells_of = [tuple(config[axis.name] for axis in axes) for config in result.configs]
    etas, batches, all_lams = (sorted(set(values)) for values in zip(*cells_of, strict=True))
    lams = sorted([*dict.fromkeys(result.configs[c].lam for c in result.ranking())][:MAX_PANELS])
    numbered = len(etas) <= MAX_NUMBERS and len(batches) <= MAX_NUMBERS
    values = 100 * result.final["val_acc"].mean(axis=0)
    # The ranking begins with the best, so the first configuration of a cell is its best.
    accuracy: dict[tuple[float, ...], float] = {}
    for c in result.ranking():
        accuracy.setdefault(cells_of[c], float(values[c]))
    may_be_best = {cells_of[c] for c in np.flatnonzero(selection.may_be_best)}
    finite = [value for value in accuracy.values() if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0, 1)
    best = cells_of[result.ranking()[0]] if finite else None
    columns, rows = min(len(batches), MAX_NUMBERS), min(len(etas), MAX_NUMBERS)
    size = (max(4.8, 1.1 + len(lams) * (0.9 + 0.62 * columns)), 1.7 + 0.5 * rows)
    selected = f", the best {len(lams)} of {len(all_lams)} {axes[2].symbol}" * (len(lams) < len(all_lams))
    title = f"{heading(result, 'mean')}: validation accuracy, %{selected}"
    frames = "\nthick frame: the best; thin frames: may be the best" * (len(may_be_best) > 1)
    with draw_figure(path, size, title + frames) as figure:
        panels = figure.subplots(1, len(lams), squeeze=False, sharey=True)[0]
        for panel, lam in zip(panels, lams, strict=True):
            cells = np.array([[accuracy.get((e, b, lam), np.nan) for b in batches] for e in etas])
            image = panel.imshow(cells, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto", origin="lower")
            panel.set_title(f"{axes[2].symbol} = {lam:g}")
            _label_ticks(panel.set_xticks, batches)
            _label_ticks(panel.set_yticks, etas)
            panel.set_xlabel(axes[1].label)
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
            for row, eta in enumerate(etas):
                for column, batch in enumerate(batches):
                    key = (eta, batch, lam)
                    if key in accuracy and numbered:
                        value = accuracy[key]
                        dark = np.isnan(value) or value > (low + high) / 2
                        panel.text(
                            column,
                            row,
                            "✕" if np.isnan(value) else f"{value:.1f}",
                            ha="center",
                            va="center",
                            color="black" if dark else "white",
                            weight="bold" if key == best else "normal",
                        )
                    if key in may_be_best:
                        box = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92)
                        width = 3.0 if key == best else 1.2
                        box.set(fill=False, edgecolor=ORANGE, linewidth=width, clip_on=False)
                        panel.add_patch(box)
        panels[0].set_ylabel(axes[0].label)
        figure.colorbar(image, ax=list(panels), label="%").outline.set_visible(False)


def plot_differences(path: Path, result: Result, selection: Selection) -> None:
    """Draw how far each configuration's validation accuracy is below the best one's, with its interval.

    The intervals are simultaneous, see `Selection`: a configuration whose interval reaches 0 may be the best.
    The best is at the top. Of very many configurations only the first are drawn, and none that diverged.
    """
    finite = [c for c in result.ranking() if result.stayed_finite[c]]
    drawn = finite[:MAX_DIFFERENCES]
    selected = f", the first {len(drawn)} of {len(result.configs)}" * (len(drawn) < len(result.configs))
    title = f"{interval_heading(result, with_train=False)}:\n{DIFFERENCE}{selected}"
    with draw_figure(path, (7.2, 1.4 + 0.2 * len(drawn)), title) as figure:
        panel = figure.subplots()
        for in_set, color, marker, label in (
            (True, ORANGE, "D", MAY_BE_BEST),
            (False, BLUE, "o", "not in the set of the best"),
        ):
            rows = [row for row, c in enumerate(drawn) if selection.may_be_best[c] == in_set]
            if rows:
                intervals = [selection.difference[drawn[row]] for row in rows]
                style: dict[str, Any] = {"color": color, "markersize": 4, "capsize": 2, "label": label}
                _draw_intervals(panel, intervals, rows, fmt=marker, **style)
        panel.axvline(0, color="0.6", linewidth=1, linestyle=":")
        panel.set_yticks(range(len(drawn)), [configuration_name(result, c) for c in drawn], fontsize=7)
        panel.set_ylim(max(1, len(drawn)) - 0.5, -0.5)
        panel.grid(axis="x", color="0.9")
        # The best differ by tenths of a point, and the worst by tens.
        panel.set_xscale("symlog", linthresh=1)
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.set_xlabel("points; logarithmic beyond ±1")
        if not drawn:
            _mark_diverged(panel)
        add_legend(figure, panel)


def plot_curves(path: Path, result: Result) -> None:
    """Draw training and validation loss per epoch as means over the seeds, with a colour per η.

    Only the best configuration has a band, because bands of many would hide one another. Configurations whose
    final loss is above 1.5 times the lowest are left out, because they would set the scale. Among very many,
    only the best are drawn. The title counts those left out and those that diverged.
    """
    best = result.ranking()[0]
    finite = [c for c in result.ranking() if result.stayed_finite[c]]
    final_loss = result.final["val_loss"].mean(axis=0)
    lowest = min((final_loss[c] for c in finite), default=np.nan)
    low = [c for c in finite if c == best or final_loss[c] <= 1.5 * lowest]
    drawn = sorted(low[:MAX_LINES])
    title = (
        heading(result)
        + (":\n" if len(result.seeds) > 1 else ": ")
        + f"loss of {len(drawn)} configurations"
        + f", {len(low) - len(drawn)} less accurate" * (len(drawn) < len(low))
        + f", {len(finite) - len(low)} far above" * (len(low) < len(finite))
        + f", {len(result.configs) - len(finite)} diverged" * (len(finite) < len(result.configs))
    )
    etas = sorted({result.configs[c].eta for c in drawn})
    named = etas[:: -(-len(etas) // MAX_NAMES) or 1]
    colors = dict(zip(etas, matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(etas))), strict=True))
    losses_by_split = {
        "training (mean over each epoch's batches)": result.history["running_loss"],
        "validation": result.history["val_loss"],
    }
    with draw_figure(path, (7.5, 3.8), title) as figure:
        panels = figure.subplots(1, len(losses_by_split), sharey=True)
        for panel, (split, losses) in zip(panels, losses_by_split.items(), strict=True):
            means = losses.mean(axis=1)
            for c in drawn:
                eta = result.configs[c].eta
                label = f"{AXES['eta'].symbol} = {eta:g}" if eta in named else None
                _line(panel, means[:, c], color=colors[eta], linewidth=0.9, label=label)
            if best in drawn:
                label = f"best: {configuration_name(result, best)}"
                _band(panel, losses[:, :, best], ORANGE, label, linewidth=2.2)
            panel.set_title(split)
            _label_epochs(panel)
        panels[0].set_ylabel("loss, without the penalty")
        add_legend(figure, panels[0], columns=4)


def plot_costs(path: Path, result: Result) -> None:
    """Draw training and validation loss and cost (with the penalty) per epoch, a panel per configuration."""
    columns = min(len(result.configs), 2)
    rows = -(-len(result.configs) // columns)
    title = f"{heading(result)}: loss, and cost with the penalty"
    with draw_figure(path, (7.5, 1.0 + 2.4 * rows), title) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for c, (config, panel) in enumerate(zip(result.configs, panels, strict=False)):
            penalty = config.lam * result.history["W_norm"][:, :, c] ** 2
            for split in result.per_epoch:
                loss, color = result.history[f"{split}_loss"][:, :, c], SPLIT_COLORS[split]
                _band(panel, loss, color, f"{split} loss")
                _band(panel, loss + penalty, color, f"{split} cost", linestyle="--")
            panel.set_title(", ".join(configuration_symbols(result, c)))
            panel.set_ylabel("loss, cost" if c % columns == 0 else "")
            _label_epochs(panel)
        for panel in panels:  # panels without a configuration
            panel.set_visible(False)
        add_legend(figure, figure.axes[0])


def plot_samples(path: Path, dataset: Dataset, columns: int = 12) -> None:
    """Draw the first training images of each class, a row per class; the data set is of coloured images."""
    K, shape = len(dataset.classes), dataset.image_shape
    assert shape is not None, "only images can be drawn"
    _, height, width = shape
    images, classes = dataset.splits["train"]
    labels, note = label_classes(dataset.classes, SAMPLES_LABEL)
    with draw_figure(path, (6.4, 0.45 * K + 0.4), f"{dataset.label}: training images{note}") as figure:
        figure.set_layout_engine("none")
        for k, label in enumerate(labels):
            members = np.flatnonzero(classes == k)[:columns]
            strip = np.full((height, columns * (width + 2), 3), 255, np.uint8)
            for column, i in enumerate(members):
                start = column * (width + 2)
                strip[:, start : start + width] = _image(images[i], shape)
            panel = figure.add_axes((0.16, 0.93 - (k + 1) * 0.92 / K, 0.83, 0.92 / K * 0.94))
            panel.imshow(strip, interpolation="nearest", aspect="auto")
            panel.set_axis_off()
            panel.text(-0.015, 0.5, label, transform=panel.transAxes, ha="right", va="center")


def plot_weights(path: Path, result: Result, configs: Sequence[int], replicate: int = 0) -> None:
    """Draw the weights of each class as an image, a row per configuration.

    Each image is scaled to its own range. Of very many classes only the first are drawn.

    Args:
      path: file to draw, without its suffix.
      result: a sweep on images, grey or in three colours, whose weights of these runs are saved.
      configs: indices of the configurations to draw.
      replicate: index of the replicate to draw.
    """
    shape, K = result.about["image_shape"], len(result.about["classes"])
    assert shape is not None, "only images can be drawn"
    classes = result.about["classes"][:MAX_CLASSES]
    selected = f"the first {len(classes)} of {K} classes" if len(classes) < K else "each class"
    heading = f"{result.about['label']}: weights of {selected}, {replicate_name(result, replicate)}"
    size = (0.72 * max(len(classes), 8) + 0.9, 0.78 * len(configs) + 0.8)
    labels, note = label_classes(classes, WEIGHTS_LABEL)
    with draw_figure(path, size, f"{heading}, each scaled by itself{note}") as figure:
        panels = figure.subplots(len(configs), len(classes), squeeze=False)
        for row, c in enumerate(configs):
            weights = np.asarray(result.params_at(replicate, c).W)
            for panel, label, W in zip(panels[row], labels, weights, strict=False):
                if np.isfinite(W).all():
                    spread = np.ptp(W)
                    scaled = _image((W - W.min()) / (spread or 1), shape)
                    panel.imshow(scaled, interpolation="nearest", vmin=0, vmax=1, cmap="gray")
                else:
                    _mark_diverged(panel)
                panel.set_xticks([], [])
                panel.set_yticks([], [])
                panel.spines[:].set_visible(False)
                if row == 0:
                    panel.set_title(label, fontsize=8)
            row_label = "\n".join(configuration_symbols(result, c))
            panels[row, 0].set_ylabel(row_label, rotation=0, ha="right", va="center")


def plot_best_weights(path: Path, result: Result) -> None:
    """Draw the weights of the best configuration, unless it diverged or the data are not images."""
    best, shape = result.ranking()[0], result.about["image_shape"]
    if result.stayed_finite[best] and shape and shape[0] in CHANNELS:
        plot_weights(path, result, [best], result.best_replicate(best))


def plot_confusion(
    path: Path, counts: Float[np.ndarray, "K K"], classes: Sequence[str], title: str, numbered: bool
) -> None:
    """Draw how many examples of each true class (rows) are predicted to be of each class (columns), in %.

    Args:
      path: file to draw, without its suffix.
      counts: numbers of examples; a class without examples has an empty row.
      classes: names of the K classes.
      title: title of the figure.
      numbered: whether to write the numbers into the cells, and the name at each row.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
    side = max(4.8, 1.6 + 0.52 * len(classes)) if numbered else 6.4
    labels, note = label_classes(classes)
    with draw_figure(path, (side + 0.8, side), title + note) as figure:
        panel = figure.subplots()
        image = panel.imshow(shares, cmap=SEQUENTIAL, vmin=0, vmax=100)
        panel.set_xlabel("predicted class")
        panel.set_ylabel("true class")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        places = range(0, len(classes), -(-len(classes) // MAX_NUMBERS))
        shown = [labels[place] for place in places]
        panel.set_xticks(places, shown, rotation=90 if max(map(len, shown)) > 2 else 0)
        panel.set_yticks(places, shown)
        if numbered:
            for (row, column), share in np.ndenumerate(shares):
                if np.isfinite(share):
                    color = "black" if share > 50 else "white"
                    panel.text(column, row, f"{share:.0f}", ha="center", va="center", color=color, fontsize=8)
        figure.colorbar(image, ax=panel, label="% of the true class").outline.set_visible(False)


def plot_histograms(path: Path, shown: Sequence[Shown]) -> None:
    """Draw the first seed's probability of the true class on right and wrong test images, a panel each."""
    title = f"{shown[0][0].about['label']}, test images: probability of the true class"
    with draw_figure(path, (3.6 * len(shown) + 0.2, 3.2), title) as figure:
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        edges = np.linspace(0, 1, 41)
        for panel, (result, c, predictions) in zip(panels, shown, strict=True):
            panel.set_title(f"{result.about['sweep']}: {configuration_name(result, c)}", fontsize=9)
            panel.set_xlabel("probability of the true class")
            panel.set_xlim(0, 1)
            if result.diverged[0, c]:
                _mark_diverged(panel)
                continue
            first_seed = predictions.of_run(0, c)
            for mask, color, label in (
                (~first_seed.correct, ORANGE, "wrong"),
                (first_seed.correct, BLUE, "right"),
            ):
                panel.hist(
                    first_seed.of_true_class[mask], edges, color=color, alpha=0.6, label=f"classified {label}"
                )
        panels[0].set_ylabel("test images")
        add_legend(figure, *panels)


def plot_reliability_diagram(path: Path, shown: Sequence[Shown]) -> None:
    """Draw the share of right predictions over the probability of the predicted class, for the first seed.

    The diagonal is perfect calibration. A point's area is proportional to its share of the test images.
    """
    title = f"{shown[0][0].about['label']}, test images: reliability"
    with draw_figure(path, (4.6, 4.9), title) as figure:
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        for (result, c, predictions), color, marker in zip(
            shown, (BLUE, ORANGE, GREEN, SKY), "osD^", strict=False
        ):
            name = f"{result.about['sweep']}, {configuration_name(result, c)}"
            if result.diverged[0, c]:
                panel.scatter([], [], color=color, marker=marker, alpha=0.8, label=f"{name}: diverged")
                continue
            first_seed = predictions.of_run(0, c)
            binned = reliability(first_seed.of_predicted_class, first_seed.correct)
            label = f"{name}: ECE {expected_calibration_error(binned):.3f}"
            seen = binned.counts > 0
            x, y, share = (
                binned.confidence[seen],
                binned.accuracy[seen],
                binned.counts[seen] / len(first_seed.correct),
            )
            panel.plot(x, y, color=color, linewidth=1)
            panel.scatter(x, y, s=8 + 400 * share, color=color, marker=marker, alpha=0.8, label=label)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.set_xlabel("probability of the predicted class")
        panel.set_ylabel("share of right predictions")
        add_legend(figure, panel, columns=1)


def plot_gaps(path: Path, shown: Sequence[Shown]) -> None:
    """Draw training and test accuracy per epoch, a panel per selection, and their gaps in the last panel."""
    title = f"{heading(shown[0][0])}: training and test accuracy"
    with draw_figure(path, (2.8 * (len(shown) + 1) + 0.2, 3.4), title) as figure:
        *panels, last = figure.subplots(1, len(shown) + 1)
        for panel, (result, c, _), color in zip(panels, shown, (SKY, "#CC79A7"), strict=False):
            train, test = (100 * result.history[f"{name}_acc"][:, :, c] for name in ("train", "test"))
            _band(panel, train, SPLIT_COLORS["train"], "train")
            _band(panel, test, SPLIT_COLORS["test"], "test")
            _band(last, train - test, color, f"{result.about['sweep']}: train − test")
            panel.set_title(f"{result.about['sweep']}\n{configuration_name(result, c)}", fontsize=9)
            panel.sharey(panels[0])
            _label_epochs(panel)
        last.set_title("gap, points", fontsize=9)
        _label_epochs(last)
        panels[0].set_ylabel("accuracy, %")
        add_legend(figure, panels[0], last)


def plot_learning_curves(path: Path, result: Result, config: int) -> None:
    """Draw loss and accuracy of one configuration per epoch."""
    title = f"{heading(result)}: {configuration_name(result, config)}"
    with draw_figure(path, (7.5, 3.2), title) as figure:
        loss_panel, accuracy_panel = figure.subplots(1, 2)
        for split in ("running", *result.per_epoch):
            color = SPLIT_COLORS.get(split, SKY)
            label = "training, mean over each epoch's batches" if split == "running" else split
            _band(loss_panel, result.history[f"{split}_loss"][:, :, config], color, label)
            _band(accuracy_panel, 100 * result.history[f"{split}_acc"][:, :, config], color, label)
        loss_panel.set_ylabel("loss, without the penalty")
        accuracy_panel.set_ylabel("accuracy, %")
        for panel in (loss_panel, accuracy_panel):
            _label_epochs(panel)
        add_legend(figure, loss_panel)


def plot_steps(
    path: Path,
    names: Sequence[str],
    accuracies: Sequence[Float[np.ndarray, " S"]],
    intervals: Sequence[Estimate],
    title: str,
) -> None:
    """Draw the test accuracy of each step: a dot per seed, and a bar of the mean with its interval.

    Args:
      path: file to draw, without its suffix.
      names: names of the steps.
      accuracies: test accuracy of each step with each seed.
      intervals: mean test accuracy of each step, with its interval.
      title: title of the figure.
    """
    with draw_figure(path, (6.4, 0.9 + 0.3 * len(names)), title) as figure:
        panel = figure.subplots()
        for row, (shares, interval) in enumerate(zip(accuracies, intervals, strict=True)):
            if np.isnan(interval.mean):
                _mark_diverged(panel, row, panel.get_yaxis_transform())
                continue
            _draw_intervals(panel, [interval], [row], fmt="D", color=BLUE, markersize=5, capsize=3)
            panel.plot(100 * shares, np.full(len(shares), row), ".", color=SKY, markersize=5)
            label, end = f"{100 * interval.mean:.2f}", 100 * np.nanmax(interval[:3])
            panel.annotate(label, (end, row), (6, 0), textcoords="offset points", va="center")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)  # the first step is at the top
        panel.margins(x=0.12)
        panel.grid(axis="x", color="0.9")
        panel.set_xlabel("test accuracy, %")


def _draw_intervals(panel: Axes, intervals: Sequence[Estimate], rows: Sequence[int], **style: Any) -> None:
    """Draw a mean and its interval, in percent, in each row."""
    means, low, high = 100 * np.array([interval[:3] for interval in intervals]).T
    panel.errorbar(means, rows, xerr=[means - low, high - means], **style)


def _line(panel: Axes, values: ArrayLike, **style: Any) -> None:
    """Draw values [E] over the epochs as a curve; a single epoch is a point."""
    values = np.asarray(values)
    panel.plot(np.arange(1, len(values) + 1), values, marker="o" if len(values) == 1 else None, **style)


def _band(
    panel: Axes, values: ArrayLike, color: str, label: str, linestyle: str = "-", linewidth: float = 1.3
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


def _label_ticks(set_ticks: Callable[[Sequence[int], Sequence[str]], Any], values: Sequence[float]) -> None:
    """Label the cells along an axis with their values; if there are very many, only some of them."""
    places = range(0, len(values), -(-len(values) // MAX_NUMBERS))
    set_ticks(places, [f"{values[place]:g}" for place in places])


def _image(features: ArrayLike, shape: ImageShape) -> np.ndarray:
    """Return channel-major features [d] as rows × columns × colours, or rows × columns of a grey image."""
    image = np.asarray(features).reshape(shape).transpose(1, 2, 0)
    return image[..., 0] if shape[0] == 1 else image
