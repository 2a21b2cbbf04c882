"""The style that all figures share, and how they are written.

A figure is as wide as a column of a two-column paper, or as both, and no text in it is smaller than 7 pt. Its
title is left out on request, so what a reader needs stands at an axis, a colour bar or in the legend.
"""

import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.artifacts.fonts import FAMILY, UNKNOWN, find_fallbacks, missing_characters, shorten
from experiments.artifacts.plotting import Axes, Figure, Text, quiet, style
from experiments.runner.folder import FORMATS
from linear_cifar.atomic import atomic_write

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",  # what an .svg falls back to
    "font.sans-serif": [FAMILY],
    "font.size": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 7.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "grid.color": "0.92",
    "figure.titlesize": 8,
    "figure.dpi": 200,
    "pdf.fonttype": 42,  # text stays text, in TrueType
    "svg.fonttype": "none",
    "svg.hashsalt": "linear_cifar",  # equal figures are equal files
    "text.parse_math": False,  # a $ in the name of a class or a file is a $
}
# Okabe and Ito's colours and cividis can be distinguished with any colour vision.
SEQUENTIAL = "cividis"
ORANGE, BLUE, SKY, GREEN, PURPLE = "#D55E00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7"
# Widths of a figure in inches: a column, and both, of a two-column paper.
COLUMN, PAGE = 3.5, 7.2
# Inches of a character of a label at most, of a legend's handle with its space, and of a title's line.
CHARACTER, HANDLE, LINE = 0.06, 0.5, 0.14
WITHOUT_DATE: dict[str, Any] = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
# Longest side of a .png in pixels; matplotlib refuses more than twice as many.
MAX_PIXELS = 30_000
# Narrowest line of a title, and longest word of one that is too wide, in columns.
NARROWEST, LONGEST_WORD = 16, 24


@contextmanager
def _styled() -> Iterator[None]:
    """Use the style of the figures, whatever the user's matplotlibrc says."""
    with quiet(), style.context(["default", STYLE]):
        yield


@contextmanager
def draw_figure(size: tuple[float, float], title: str) -> Iterator[Figure]:
    """Yield a figure of this size in inches, to be drawn in the style of all figures."""
    with _styled():
        # Text is not equally wide at each resolution, so the layout is computed at that of the .png.
        dpi = min(STYLE["figure.dpi"], MAX_PIXELS / max(size))
        figure = Figure(figsize=size, dpi=dpi, layout="constrained")
        figure.suptitle(title)
        yield figure


def finish(figure: Figure, titles: bool = True) -> None:
    """Fit the texts of a figure, without its title if so asked, and compute its layout for all formats."""
    with _styled():
        heading = figure.suptitle(figure.get_suptitle() if titles else "")
        _fit_characters(figure)
        _fit_width(heading, 0.97 * figure.bbox.width)
        further_lines = heading.get_text().count("\n") if titles else -1
        figure.set_figheight(figure.get_figheight() + LINE * further_lines)
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine(None)  # with another one, each format would draw the figure twice


def save_figures(
    folder: Path, figures: Mapping[str, Figure | None], formats: Collection[str], titles: bool = True
) -> None:
    """Write figures by the names of their files in each of the formats; None is a figure that does not apply.

    Remove files of these figures in other formats, and of figures that do not apply.
    """
    for name, figure in figures.items():
        if figure is not None:
            finish(figure, titles)
        for suffix in FORMATS:
            path = folder / f"{name}.{suffix}"
            if figure is None or suffix not in formats:
                path.unlink(missing_ok=True)
                continue
            with _styled(), atomic_write(path) as partial:
                figure.savefig(partial, format=suffix, metadata=WITHOUT_DATE[suffix])


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
            " ".join(shorten(word, min(columns, LONGEST_WORD)) for word in line.split(" ")) for line in lines
        ]
        title.set_text("\n".join(textwrap.fill(line, columns, break_on_hyphens=False) for line in words))


def fit_text(text: str, width: float) -> str:
    """Break a text into lines of at most `width` inches, but no word."""
    columns = max(NARROWEST, int(width / CHARACTER))
    return "\n".join(textwrap.fill(line, columns, break_long_words=False) for line in text.split("\n"))


def add_legend(figure: Figure, *panels: Axes, note: str = "") -> None:
    """Draw a note and one legend for panels below the figure; a label that curves share appears once."""
    entries: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    width = figure.get_figwidth()
    labels = [fit_text(label, width - HANDLE) for label in entries]
    if entries or note:
        longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
        figure.legend(
            list(entries.values()),
            labels,
            loc="outside lower center",
            ncols=max(1, min(len(entries), int(width / (HANDLE + CHARACTER * longest)))),
            title=fit_text(note, width),
        )
