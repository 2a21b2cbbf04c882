"""The style that all figures share: colours that any colour vision can distinguish, readable in print."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.artifacts.fonts import (
    FAMILY,
    LABEL_WIDTH,
    UNKNOWN,
    find_fallbacks,
    missing_characters,
    shorten,
)
from experiments.artifacts.plotting import Axes, Figure, Text, quiet, style
from linear_cifar.atomic import atomic_write

SUFFIXES = (".png", ".svg")
STYLE: dict[Any, Any] = {
    "font.family": FAMILY,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": 160,
    "svg.hashsalt": "linear_cifar",  # equal figures are equal files
    "text.parse_math": False,  # a $ in the name of a class or a file is a $
}
# Okabe and Ito's colours and cividis can be distinguished with any colour vision.
SEQUENTIAL = "cividis"
ORANGE, BLUE, SKY, GREEN = "#D55E00", "#0072B2", "#56B4E9", "#009E73"
# Longest side of a .png in pixels; matplotlib refuses more than twice as many.
MAX_PIXELS = 30_000
# Narrowest line of a title, in columns.
NARROWEST = 16


@contextmanager
def draw_figure(path: Path, size: tuple[float, float], title: str) -> Iterator[Figure]:
    """Yield a figure of this size in inches, and save it with each suffix once the block has drawn it."""
    # The user's matplotlibrc must not change the figures that a command writes.
    with quiet(), style.context(["default", STYLE]):
        # Text is not equally wide at each resolution, so the layout is computed at that of the file.
        figure = Figure(figsize=size, dpi=min(STYLE["figure.dpi"], MAX_PIXELS / max(size)))
        heading = figure.suptitle(title)
        yield figure
        _fit_characters(figure)
        _fit_width(heading, figure.bbox.width)
        # The layout is computed once, and not again for each file.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix in SUFFIXES:
            with atomic_write(path.with_suffix(suffix)) as partial:
                figure.savefig(partial, metadata={"Date": None} if suffix == ".svg" else None)


def _fit_characters(figure: Figure) -> None:
    """Draw characters that the default font lacks in fonts that have them, or else as `UNKNOWN`."""
    lacking = {
        text: missing for text in figure.findobj(Text) if (missing := missing_characters(text.get_text()))
    }
    if lacking:
        families, unknown = find_fallbacks(frozenset().union(*lacking.values()))
        for text in lacking:
            text.set_fontfamily([FAMILY, *families])
            text.set_text(
                "".join(UNKNOWN if character in unknown else character for character in text.get_text())
            )


def _fit_width(title: Text, width: float) -> None:
    """Break the lines of a title, and shorten its words, until it is not wider than `width` pixels."""
    lines = title.get_text().split("\n")
    columns = max(map(len, lines))
    while columns > NARROWEST and title.get_window_extent().width > width:
        columns = int(0.95 * columns)
        words = [
            " ".join(shorten(word, min(columns, LABEL_WIDTH)) for word in line.split(" ")) for line in lines
        ]
        title.set_text("\n".join(textwrap.fill(line, columns, break_on_hyphens=False) for line in words))


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
