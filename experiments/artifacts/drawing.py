"""The style that all figures share: colours that any colour vision can distinguish, readable in print."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linear_cifar.files import atomic_write

SUFFIXES = (".png", ".svg")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "svg.hashsalt": "linear_cifar",  # equal figures are equal files
    "text.parse_math": False,  # a $ in the name of a class or a file is a $
}
# Okabe and Ito's colours and cividis can be distinguished with any colour vision.
SEQUENTIAL = "cividis"
ORANGE, BLUE, SKY, GREEN = "#D55E00", "#0072B2", "#56B4E9", "#009E73"
# Longest side of a .png in pixels; matplotlib refuses more than twice as many.
MAX_PIXELS = 30_000


@contextmanager
def draw_figure(path: Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """Yield a figure of this size in inches, and save it with each suffix once the block has drawn it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure.suptitle(title)
        yield figure
        # The layout is computed once, and not again for each file.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix in SUFFIXES:
            with atomic_write(path.with_suffix(suffix)) as partial:
                dpi = min(STYLE["savefig.dpi"], MAX_PIXELS / max(size))
                figure.savefig(partial, dpi=dpi, metadata={"Date": None} if suffix == ".svg" else None)


def add_legend(figure: Figure, *panels: Axes, columns: int = 5) -> None:
    """Draw one legend for these panels below the figure; a label that curves share appears once."""
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
