"""The figures, in one look: colour-blind-safe, readable in print, the data set named on each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from experiments.files import whole
from experiments.run import Run
from linear_cifar.config import Config

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
}
# Both can be told apart with any colour vision: the scale, and what marks the best on it.
SEQUENTIAL = "cividis"
ORANGE = "#D55E00"


@contextmanager
def _figure(path: Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """A figure of this size in inches, saved under the path once the block has drawn it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure.suptitle(title)
        yield figure
        with whole(path) as partial:
            figure.savefig(partial)


def heatmap(path: Path, run: Run, dataset: str) -> None:
    """Final validation accuracy over η (rows) and batch size (columns), a panel per λ.

    Cells of configurations that were not run are blank, of diverged ones marked ✕.
    """
    etas, batches, lams = (sorted(set(axis)) for axis in zip(*run.configs, strict=True))
    accuracy = dict(zip(run.configs, 100 * run.val.accuracy, strict=True))
    finite = [value for value in accuracy.values() if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0, 1)
    best = run.configs[run.ranking[0]]
    size = (max(4.2, 1.1 + len(lams) * (0.9 + 0.62 * len(batches))), 1.5 + 0.5 * len(etas))
    with _figure(path, size, f"{dataset}: validation accuracy, %") as figure:
        panels = figure.subplots(1, len(lams), squeeze=False, sharey=True)[0]
        for panel, lam in zip(panels, lams, strict=True):
            cells = np.array([[accuracy.get(Config(e, b, lam), np.nan) for b in batches] for e in etas])
            image = panel.imshow(cells, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto", origin="lower")
            panel.set_title(f"λ = {lam:g}")
            panel.set_xticks(range(len(batches)), [str(b) for b in batches])
            panel.set_yticks(range(len(etas)), [f"{e:g}" for e in etas])
            panel.set_xlabel("batch size")
            panel.spines[:].set_visible(False)
            panel.tick_params(length=0)
            for row, eta in enumerate(etas):
                for column, batch in enumerate(batches):
                    config = Config(eta, batch, lam)
                    if config not in accuracy:
                        continue
                    value = accuracy[config]
                    dark = np.isnan(value) or value > (low + high) / 2
                    panel.text(
                        column,
                        row,
                        "✕" if np.isnan(value) else f"{value:.1f}",
                        ha="center",
                        va="center",
                        color="black" if dark else "white",
                        weight="bold" if config == best else "normal",
                    )
                    if config == best:
                        box = Rectangle((column - 0.5, row - 0.5), 1, 1)
                        box.set(fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False)
                        panel.add_patch(box)
        panels[0].set_ylabel("learning rate η")
        figure.colorbar(image, ax=list(panels), label="%").outline.set_visible(False)


def curves(path: Path, run: Run, dataset: str) -> None:
    """Training and validation loss per epoch, a colour per η, the best configuration marked.

    Only of the configurations that end within half as much again as the lowest validation loss, since
    the others would set the scale; the title counts those, and the ones that diverged.
    """
    best = run.ranking[0]
    shown = [i for i, epoch in enumerate(run.diverged) if epoch is None]
    lowest = min((run.val.loss[i] for i in shown), default=np.nan)
    near = [i for i in shown if i == best or run.val.loss[i] <= 1.5 * lowest]
    title = (
        f"{dataset}: loss of {len(near)} configurations"
        + f", {len(shown) - len(near)} far above" * (len(near) < len(shown))
        + f", {len(run.configs) - len(shown)} diverged" * (len(shown) < len(run.configs))
    )
    etas = sorted({run.configs[i].eta for i in near})
    colors = dict(zip(etas, matplotlib.colormaps[SEQUENTIAL](np.linspace(0, 0.85, len(etas))), strict=True))
    losses = (
        ("training (mean over each epoch's batches)", run.history.train.loss),
        ("validation", run.history.val.loss),
    )
    with _figure(path, (7.5, 3.8), title) as figure:
        panels = figure.subplots(1, len(losses), sharey=True)
        for panel, (split, loss) in zip(panels, losses, strict=True):
            epochs = np.arange(1, len(loss) + 1)
            marker = "o" if len(epochs) == 1 else None
            for i in near:
                eta = run.configs[i].eta
                panel.plot(
                    epochs, loss[:, i], color=colors[eta], linewidth=0.9, marker=marker, label=f"η = {eta:g}"
                )
            if best in near:
                eta, batch, lam = run.configs[best]
                label = f"best: η = {eta:g}, batch {batch}, λ = {lam:g}"
                panel.plot(epochs, loss[:, best], color=ORANGE, linewidth=2.2, marker=marker, label=label)
            panel.set_title(split)
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel("loss, without the penalty")
        handles, labels = panels[0].get_legend_handles_labels()
        # Configurations of one learning rate share a colour and a line of the legend.
        entries = dict(zip(labels, handles, strict=True))
        if entries:
            figure.legend(
                entries.values(),
                entries.keys(),
                loc="outside lower center",
                frameon=False,
                ncols=min(len(entries), 5),
            )
