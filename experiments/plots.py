"""The figures, in one look: colour-blind-safe, readable in print, the data set named on each.

Each is saved as .png and as .svg. Bands and ± are one standard deviation over the seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from experiments import table
from experiments.files import whole
from experiments.measures import Predictions
from experiments.run import Run
from linear_cifar.calibration import expected_calibration_error, reliability
from linear_cifar.dataset import Dataset

# A sweep, the index of one of its configurations, and the sweep's predictions.
Chosen = tuple[Run, int, Predictions]

SUFFIXES = (".png", ".svg")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "svg.hashsalt": "linear_cifar",  # the same figure is the same file
}
# Okabe and Ito's colours and cividis can be told apart with any colour vision.
SEQUENTIAL = "cividis"
ORANGE, BLUE, SKY, GREEN = "#D55E00", "#0072B2", "#56B4E9", "#009E73"
SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}
IMAGE_SHAPE = (3, 32, 32)
# Of many configurations so many are drawn: panels, cells along an axis that have a number, lines, colours
# that have a name; and pixels along a side, of which matplotlib makes no more than twice as many.
PANELS, NUMBERS, LINES, NAMES, PIXELS = 12, 24, 200, 12, 30_000


@contextmanager
def _figure(path: Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """A figure of this size in inches, saved under the path and each suffix once the block has drawn it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure.suptitle(title)
        yield figure
        # Laid out once, and not again for each of the files.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix in SUFFIXES:
            with whole(path.with_suffix(suffix)) as partial:
                dpi = min(STYLE["savefig.dpi"], PIXELS / max(size))
                figure.savefig(partial, dpi=dpi, metadata={"Date": None} if suffix == ".svg" else None)


def heatmap(path: Path, run: Run) -> None:
    """Final validation accuracy over η (rows) and batch size (columns), a panel per λ.

    Of configurations that differ in something else only, the best one's. Cells of configurations that were
    not run are blank, of diverged ones marked ✕. Of very many λ those of the best configurations.
    """
    etas, batches, every = (sorted({config[axis] for config in run.configs}) for axis in range(3))
    lams = sorted([*dict.fromkeys(run.configs[c].lam for c in run.ranking)][:PANELS])
    numbered = len(etas) <= NUMBERS and len(batches) <= NUMBERS
    values = 100 * run.final["val"].accuracy.mean(axis=0)
    # Best first, so the first of a cell is its best.
    accuracy: dict[tuple[float, float, float], float] = {}
    for c in run.ranking:
        accuracy.setdefault(run.configs[c][:3], float(values[c]))
    finite = [value for value in accuracy.values() if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0, 1)
    best = run.configs[run.ranking[0]][:3]
    columns, rows = min(len(batches), NUMBERS), min(len(etas), NUMBERS)
    size = (max(4.8, 1.1 + len(lams) * (0.9 + 0.62 * columns)), 1.5 + 0.5 * rows)
    of_many = f", the best {len(lams)} of {len(every)} λ" * (len(lams) < len(every))
    with _figure(path, size, f"{table.heading(run, 'mean')}: validation accuracy, %{of_many}") as figure:
        panels = figure.subplots(1, len(lams), squeeze=False, sharey=True)[0]
        for panel, lam in zip(panels, lams, strict=True):
            cells = np.array([[accuracy.get((e, b, lam), np.nan) for b in batches] for e in etas])
            image = panel.imshow(cells, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto", origin="lower")
            panel.set_title(f"λ = {lam:g}")
            _name(panel.set_xticks, batches)
            _name(panel.set_yticks, etas)
            panel.set_xlabel("batch size")
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
                    if key == best:
                        box = Rectangle((column - 0.5, row - 0.5), 1, 1)
                        box.set(fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False)
                        panel.add_patch(box)
        panels[0].set_ylabel("learning rate η")
        figure.colorbar(image, ax=list(panels), label="%").outline.set_visible(False)


def curves(path: Path, run: Run) -> None:
    """Training and validation loss per epoch, a colour per η, the best configuration marked.

    Means over the seeds; only the best has its band, as those of many would hide each other. Only of the
    configurations that end within half as much again as the lowest validation loss, since the others would
    set the scale, and of very many only of the best; the title counts those left out, and the diverged.
    """
    best = run.ranking[0]
    ended = run.ended
    shown = [c for c in run.ranking if ended[c]]
    last = run.final["val"].loss.mean(axis=0)
    lowest = min((last[c] for c in shown), default=np.nan)
    within = [c for c in shown if c == best or last[c] <= 1.5 * lowest]
    near = sorted(within[:LINES])
    title = (
        table.heading(run)
        + (":\n" if len(run.settings.seeds) > 1 else ": ")
        + f"loss of {len(near)} configurations"
        + f", {len(within) - len(near)} less accurate" * (len(near) < len(within))
        + f", {len(shown) - len(within)} far above" * (len(within) < len(shown))
        + f", {len(run.configs) - len(shown)} diverged" * (len(shown) < len(run.configs))
    )
    etas = sorted({run.configs[c].eta for c in near})
    named = etas[:: -(-len(etas) // NAMES) or 1]
    colors = dict(zip(etas, matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(etas))), strict=True))
    panels_of = {
        "training (mean over each epoch's batches)": run.history.running.loss,
        "validation": run.history.watched["val"].loss,
    }
    with _figure(path, (7.5, 3.8), title) as figure:
        panels = figure.subplots(1, len(panels_of), sharey=True)
        for panel, (split, losses) in zip(panels, panels_of.items(), strict=True):
            means = losses.mean(axis=1)
            for c in near:
                eta = run.configs[c].eta
                label = f"η = {eta:g}" if eta in named else None
                _line(panel, means[:, c], color=colors[eta], linewidth=0.9, label=label)
            if best in near:
                label = f"best: {table.name_of(run, best)}"
                _band(panel, losses[:, :, best], ORANGE, label, linewidth=2.2)
            panel.set_title(split)
            _epochs(panel)
        panels[0].set_ylabel("loss, without the penalty")
        _legend(figure, panels[0], columns=4)


def costs(path: Path, run: Run) -> None:
    """Training and validation loss and cost (with the penalty) per epoch, a panel per configuration."""
    columns = min(len(run.configs), 2)
    rows = -(-len(run.configs) // columns)
    title = f"{table.heading(run)}: loss, and cost with the penalty"
    with _figure(path, (7.5, 1.0 + 2.4 * rows), title) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for c, (config, panel) in enumerate(zip(run.configs, panels, strict=False)):
            penalty = config.lam * run.history.norm[:, :, c] ** 2
            for split, metrics in run.history.watched.items():
                loss, color = metrics.loss[:, :, c], SPLIT_COLORS[split]
                _band(panel, loss, color, f"{split} loss")
                _band(panel, loss + penalty, color, f"{split} cost", linestyle="--")
            panel.set_title(f"η = {config.eta:g}, λ = {config.lam:g}, batch {config.batch}")
            panel.set_ylabel("loss, cost" if c % columns == 0 else "")
            _epochs(panel)
        for panel in panels:  # those left over
            panel.set_visible(False)
        _legend(figure, figure.axes[0])


def samples(path: Path, dataset: Dataset, columns: int = 12) -> None:
    """The first training images of each class, a row per class."""
    K = len(dataset.classes)
    with _figure(path, (6.4, 0.45 * K + 0.4), f"{dataset.name}: training images") as figure:
        figure.set_layout_engine("none")
        for k, name in enumerate(dataset.classes):
            chosen = np.flatnonzero(dataset.train.labels == k)[:columns]
            strip = np.full((IMAGE_SHAPE[1], columns * (IMAGE_SHAPE[2] + 2), 3), 255, np.uint8)
            for column, i in enumerate(chosen):
                start = column * (IMAGE_SHAPE[2] + 2)
                strip[:, start : start + IMAGE_SHAPE[2]] = _image(dataset.train.images[i])
            panel = figure.add_axes((0.16, 0.93 - (k + 1) * 0.92 / K, 0.83, 0.92 / K * 0.94))
            panel.imshow(strip, interpolation="nearest", aspect="auto")
            panel.set_axis_off()
            panel.text(-0.015, 0.5, name, transform=panel.transAxes, ha="right", va="center")


def weights(path: Path, run: Run) -> None:
    """The weights of each class as an image scaled to its own range; a row per configuration, first seed."""
    C, classes = len(run.configs), run.dataset.classes
    title = f"{run.dataset.name}: weights of each class, seed {run.settings.seeds[0]}, each scaled by itself"
    with _figure(path, (0.72 * len(classes) + 0.9, 0.78 * C + 0.8), title) as figure:
        panels = figure.subplots(C, len(classes), squeeze=False)
        for c, config in enumerate(run.configs):
            for k, name in enumerate(classes):
                panel, W = panels[c, k], np.asarray(run.params.W[0, c, k])
                if np.isfinite(W).all():
                    spread = np.ptp(W)
                    panel.imshow(_image((W - W.min()) / (spread or 1)), interpolation="nearest")
                else:
                    _mark_diverged(panel)
                panel.set_xticks([], [])
                panel.set_yticks([], [])
                panel.spines[:].set_visible(False)
                if c == 0:
                    panel.set_title(name, fontsize=8)
            label = f"η {config.eta:g}\nλ {config.lam:g}"
            panels[c, 0].set_ylabel(label, rotation=0, ha="right", va="center")


def histograms(path: Path, chosen: Sequence[Chosen]) -> None:
    """The true class's probability on right and wrong test images, a panel for each; of the first seed."""
    title = f"{chosen[0][0].dataset.name}, test images: probability of the true class"
    with _figure(path, (3.6 * len(chosen) + 0.2, 3.2), title) as figure:
        panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        edges = np.linspace(0, 1, 41)
        for panel, (run, c, predicted) in zip(panels, chosen, strict=True):
            panel.set_title(f"{run.variant.name}: {table.name_of(run, c)}", fontsize=9)
            panel.set_xlabel("probability of the true class")
            panel.set_xlim(0, 1)
            if run.diverged(0, c):
                _mark_diverged(panel)
                continue
            of = predicted.of(0, c)
            for which, color, label in ((~of.right, ORANGE, "wrong"), (of.right, BLUE, "right")):
                panel.hist(of.true[which], edges, color=color, alpha=0.6, label=f"classified {label}")
        panels[0].set_ylabel("test images")
        _legend(figure, panels[0])


def reliabilities(path: Path, chosen: Sequence[Chosen]) -> None:
    """Share of right predictions over the probability of the predicted class; the diagonal is perfect.

    Points are as large as their share of the test images; first seed.
    """
    title = f"{chosen[0][0].dataset.name}, test images: reliability"
    with _figure(path, (4.6, 4.9), title) as figure:
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        for (run, c, predicted), color, marker in zip(
            chosen, (BLUE, ORANGE, GREEN, SKY), "osD^", strict=False
        ):
            if run.diverged(0, c):
                continue
            of = predicted.of(0, c)
            binned = reliability(of.predicted, of.right)
            error = expected_calibration_error(binned)
            label = f"{run.variant.name}, {table.name_of(run, c)}: ECE {error:.3f}"
            seen = binned.counts > 0
            x, y, share = binned.confidence[seen], binned.accuracy[seen], binned.counts[seen] / len(of.right)
            panel.plot(x, y, color=color, linewidth=1)
            panel.scatter(x, y, s=8 + 400 * share, color=color, marker=marker, alpha=0.8, label=label)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.set_xlabel("probability of the predicted class")
        panel.set_ylabel("share of right predictions")
        _legend(figure, panel, columns=1)


def gaps(path: Path, chosen: Sequence[Chosen]) -> None:
    """Accuracy on training and test images per epoch, a panel for each; in the last one, their gaps."""
    title = f"{table.heading(chosen[0][0])}: training and test accuracy"
    with _figure(path, (2.8 * (len(chosen) + 1) + 0.2, 3.4), title) as figure:
        *panels, last = figure.subplots(1, len(chosen) + 1)
        for panel, (run, c, _), color in zip(panels, chosen, (SKY, "#CC79A7"), strict=False):
            train, test = (100 * run.history.watched[name].accuracy[:, :, c] for name in ("train", "test"))
            _band(panel, train, SPLIT_COLORS["train"], "train")
            _band(panel, test, SPLIT_COLORS["test"], "test")
            _band(last, train - test, color, f"{run.variant.name}: train − test")
            panel.set_title(f"{run.variant.name}\n{table.name_of(run, c)}", fontsize=9)
            panel.sharey(panels[0])
            _epochs(panel)
        last.set_title("gap, points", fontsize=9)
        _epochs(last)
        panels[0].set_ylabel("accuracy, %")
        _legend(figure, panels[0], last)


def progress(path: Path, run: Run, config: int) -> None:
    """Loss and accuracy of one configuration per epoch."""
    title = f"{table.heading(run)}: {table.name_of(run, config)}"
    with _figure(path, (7.5, 3.2), title) as figure:
        loss_panel, accuracy_panel = figure.subplots(1, 2)
        for split, metrics in {"running": run.history.running, **run.history.watched}.items():
            color = SPLIT_COLORS.get(split, SKY)
            label = "training, mean over each epoch's batches" if split == "running" else split
            _band(loss_panel, metrics.loss[:, :, config], color, label)
            _band(accuracy_panel, 100 * metrics.accuracy[:, :, config], color, label)
        loss_panel.set_ylabel("cross-entropy")
        accuracy_panel.set_ylabel("accuracy, %")
        for panel in (loss_panel, accuracy_panel):
            _epochs(panel)
        _legend(figure, loss_panel)


def steps(
    path: Path, names: Sequence[str], accuracies: Sequence[Float[np.ndarray, " S"]], title: str
) -> None:
    """Test accuracy of one step after another, a dot per seed and a bar from mean − to mean + deviation."""
    with _figure(path, (6.4, 0.9 + 0.3 * len(names)), title) as figure:
        panel = figure.subplots()
        for row, values in enumerate(100 * np.asarray(one) for one in accuracies):
            if np.isnan(values).any():
                continue
            deviation = values.std(ddof=1) if len(values) > 1 else 0
            panel.plot(values, np.full(len(values), row), ".", color=SKY, markersize=5)
            panel.errorbar(values.mean(), row, xerr=deviation, fmt="D", color=BLUE, markersize=5, capsize=3)
            panel.annotate(
                f"{values.mean():.2f}", (values.max(), row), (6, 0), textcoords="offset points", va="center"
            )
        panel.set_yticks(range(len(names)), names)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.grid(axis="x", color="0.9")
        panel.set_xlabel("test accuracy, %")


def _line(panel: Axes, values: ArrayLike, **style: Any) -> None:
    """A curve [E] over the epochs; of a single epoch a point."""
    values = np.asarray(values)
    panel.plot(np.arange(1, len(values) + 1), values, marker="o" if len(values) == 1 else None, **style)


def _band(
    panel: Axes, values: ArrayLike, color: str, label: str, linestyle: str = "-", linewidth: float = 1.3
) -> None:
    """The mean over seeds per epoch, of [E, S], within ± one standard deviation."""
    values = np.asarray(values)
    mean = values.mean(axis=1)
    _line(panel, mean, color=color, label=label, linestyle=linestyle, linewidth=linewidth)
    if values.shape[1] > 1:
        deviation = values.std(axis=1, ddof=1)
        epochs = np.arange(1, len(values) + 1)
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.18, linewidth=0)


def _mark_diverged(panel: Axes) -> None:
    """In place of a curve that there is not."""
    panel.text(0.5, 0.5, "diverged", transform=panel.transAxes, ha="center", va="center")


def _epochs(panel: Axes) -> None:
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _name(ticks: Callable[[Sequence[int], Sequence[str]], Any], values: Sequence[float]) -> None:
    """Names the places along an axis, of very many every so many-th."""
    places = range(0, len(values), -(-len(values) // NUMBERS))
    ticks(places, [f"{values[place]:g}" for place in places])


def _legend(figure: Figure, *panels: Axes, columns: int = 5) -> None:
    """One legend below, of these panels; a label that several curves share stands once."""
    entries: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            frameon=False,
            ncols=min(len(entries), columns),
        )


def _image(features: ArrayLike) -> np.ndarray:
    """Channel-major features [d] as rows × columns × colours."""
    return np.asarray(features).reshape(IMAGE_SHAPE).transpose(1, 2, 0)
