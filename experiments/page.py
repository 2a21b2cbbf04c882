"""The report as one HTML file that needs nothing else: styles, script, figures and data are in it."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from experiments.archive import Archive, ArchiveError
from experiments.claims import IN_DOUBT, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from experiments.document import (
    Block,
    Explorer,
    Figure,
    Paragraph,
    Section,
    Sources,
    TableOf,
    Verdicts,
    source_rows,
    target,
    verdict_rows,
)
from experiments.table import percent
from linear_cifar.config import Config

ASSETS = Path(__file__).parent / "assets"
# Told apart by their signs too, not by colour alone.
SIGNS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", IN_DOUBT: "?", NOT_RUN: "–"}
# The curves in the explorer, and the digits that a screen can show.
CURVES = {"val_acc": "validation accuracy, %", "val_loss": "validation loss", "running_loss": "training loss"}
DIGITS = 4


def render(title: str, sections: Sequence[Section], folder: Path) -> str:
    """The whole page, to be written into the folder."""
    anchors = [f"s{i}" for i in range(len(sections))]
    contents = "".join(
        f'<a href="#{anchor}">{escape(section.title)}</a>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section id="{anchor}"><h2>{escape(section.title)}</h2>'
        + "".join(_block(block, folder) for block in section.blocks)
        + "</section>"
        for anchor, section in zip(anchors, sections, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{(ASSETS / 'page.css').read_text()}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><nav>{contents}</nav></header><main>{body}</main>"
        f"<script>{(ASSETS / 'page.js').read_text()}</script></body></html>\n"
    )


def _block(block: Block, folder: Path) -> str:
    match block:
        case Paragraph(text, warning):
            return f"<p{' class=warning' if warning else ''}>{escape(text)}</p>"
        case TableOf(table, archive):
            note = f"<p>{escape(table.note)}</p>" if table.note else ""
            title = _credited(escape(table.title.rstrip(":")), archive, folder)
            return _table(table.columns, [map(escape, row) for row in table.rows], title) + note
        case Figure():
            caption = _credited(escape(block.caption), block.archive, folder)
            return (
                f'<figure><img src="{_embedded(block.path)}" alt="{escape(block.caption)}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        case Verdicts(findings):
            columns, rows = verdict_rows(findings)
            cells = [
                [escape(claim), _badge(verdict), *map(escape, rest), _link(one.archive, folder)]
                for (claim, verdict, *rest), one in zip(rows, findings, strict=True)
            ]
            return _table([*columns, "run"], cells, "", "verdicts")
        case Sources(archives):
            columns, rows = source_rows(archives)
            cells = [
                [_link(one, folder), f"<code>{escape(row[0])}</code>", *map(escape, row[1:])]
                for one, row in zip(archives, rows, strict=True)
            ]
            return _table(["run", *columns], cells)
        case Explorer(archives):
            return _explorer(archives)


def _table(columns: Sequence[str], rows: Sequence[Any], title: str = "", kind: str = "") -> str:
    """Cells are HTML already."""
    caption = f"<caption>{title}</caption>" if title else ""
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<div class="wide" tabindex="0"><table{classes}>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict.replace(" ", "-")}">{SIGNS[verdict]} {escape(verdict)}</span>'


def _link(archive: Archive | None, folder: Path) -> str:
    if archive is None:
        return ""
    where = target(archive.folder, folder)
    return f'<a href="{where}/">{escape(unquote(where))}</a>'


def _credited(text: str, archive: Archive | None, folder: Path) -> str:
    """With a link to the run that it is from."""
    return f"{text} ({_link(archive, folder)})" if archive else text


def _embedded(path: Path) -> str:
    """A figure as a data URL: the vector one, or the other where that is the smaller by far."""
    kinds = {".svg": "image/svg+xml", ".png": "image/png"}
    try:
        bytes_of = {suffix: path.with_suffix(suffix).read_bytes() for suffix in kinds}
    except OSError as error:
        raise ArchiveError(f"{path} can't be read: {error}") from None
    suffix = ".svg" if len(bytes_of[".svg"]) < 4 * len(bytes_of[".png"]) else ".png"
    return f"data:{kinds[suffix]};base64,{base64.b64encode(bytes_of[suffix]).decode()}"


def _explorer(archives: Sequence[Archive]) -> str:
    """An empty table with its data, which the script fills and makes sortable."""
    columns = ["experiment", "variant", *Config._fields]
    rows = [row for archive in archives for row in _explored(archive)]
    data = {"curves": CURVES, "columns": columns, "rows": rows}
    # No "</script>" can end the element early.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        "<p>Means over the seeds, accuracies in %. A column's head sorts, the boxes filter. Point at a row, "
        "or go to it with tab and arrow keys, to see its curves; click it or press Enter to keep them.</p>"
        '<noscript><p class="warning">This table needs JavaScript.</p></noscript>'
        f'<div id="explorer"></div><script id="explorer-data" type="application/json">{text}</script>'
    )


def _explored(archive: Archive) -> list[dict[str, Any]]:
    """A row per configuration: its keys, its final figures and its curves."""
    grouped: dict[tuple[str, Config], dict[int, list[list[float]]]] = {}
    for row in archive.history:
        cells = [np.nan if row.cells[name] is None else row.cells[name] for name in CURVES]
        grouped.setdefault((row.variant, row.config), {}).setdefault(row.seed, []).append(cells)
    rows = []
    for (variant, config), seeds in grouped.items():
        curves = np.asarray(list(seeds.values())).mean(axis=0).T
        final = {split: archive.values(f"{split}_acc", variant, config) for split in ("train", "val", "test")}
        rows.append(
            {
                "key": [archive.experiment, variant, *config],
                **{split: _number(100 * values.mean()) for split, values in final.items()},
                "text": {split: percent(values) for split, values in final.items()},
                "curves": {
                    name: [_number(value * (100 if name.endswith("acc") else 1)) for value in curve]
                    for name, curve in zip(CURVES, curves, strict=True)
                },
            }
        )
    return rows


def _number(value: float) -> float | None:
    """Few digits; none of what is not finite."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
