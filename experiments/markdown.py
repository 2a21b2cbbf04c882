"""The report as Markdown; figures and runs are linked, relative to where it is written."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from experiments.archive import Archive
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


def render(title: str, sections: Sequence[Section], folder: Path) -> str:
    """The whole document, to be written into the folder."""
    parts = [f"# {title}"]
    for section in sections:
        shown = [text for block in section.blocks if (text := _block(block, folder))]
        if shown:
            parts += [f"## {section.title}", *shown]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: Path) -> str:
    match block:
        case Paragraph(text, warning):
            return f"**{_escape(text)}**" if warning else _escape(text)
        case TableOf(table, archive):
            title = _credited(f"**{_escape(table.title.rstrip(':'))}**", archive, folder)
            note = f"\n\n{_escape(table.note)}" if table.note else ""
            return f"{title}\n\n{_rows(table.columns, table.rows)}{note}"
        case Figure():
            image = target(block.path.with_suffix(".png"), folder)
            caption = _escape(block.caption)
            return f"![{caption}]({image})\n\n{_credited(caption, block.archive, folder)}"
        case Verdicts(findings):
            columns, rows = verdict_rows(findings)
            links = [_link(one.archive, folder) for one in findings]
            cells = [[*map(_escape, row), link] for row, link in zip(rows, links, strict=True)]
            return _table([*columns, "run"], cells)
        case Sources(archives):
            return _rows(*source_rows(archives))
        case Explorer():
            return ""


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _table(columns, [[_escape(cell) for cell in row] for row in rows])


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *cells])


def _link(archive: Archive | None, folder: Path) -> str:
    if archive is None:
        return ""
    where = target(archive.folder, folder)
    return f"[{_escape(unquote(where))}]({where})"


def _credited(text: str, archive: Archive | None, folder: Path) -> str:
    """With a link to the run that it is from."""
    return f"{text} ({_link(archive, folder)})" if archive else text


def _escape(text: str) -> str:
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text
