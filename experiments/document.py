"""The report as sections of blocks, whichever format it is written in."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from experiments.archive import Archive
from experiments.claims import Finding
from experiments.table import Table


class Paragraph(NamedTuple):
    """Plain text; a warning stands out."""

    text: str
    warning: bool = False


class TableOf(NamedTuple):
    """A table, and the run it is from, if it is from one."""

    table: Table
    archive: Archive | None = None


class Figure(NamedTuple):
    """A figure of a run, by its file's name without suffix."""

    archive: Archive
    name: str
    caption: str

    @property
    def path(self) -> Path:
        """Of the figure, without suffix."""
        return self.archive.folder / self.name


class Verdicts(NamedTuple):
    """The claims, what was measured and the verdicts."""

    findings: Sequence[Finding]


class Explorer(NamedTuple):
    """Every configuration of some runs, to sort, filter and look at the curves of; where that can be done."""

    archives: Sequence[Archive]


class Sources(NamedTuple):
    """What each run was made from and with."""

    archives: Sequence[Archive]


Block = Paragraph | TableOf | Figure | Verdicts | Explorer | Sources


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


def target(path: Path, folder: Path) -> str:
    """A path as a link from a file in the folder."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


Rows = tuple[Sequence[str], Sequence[Sequence[str]]]


def verdict_rows(findings: Sequence[Finding]) -> Rows:
    """Columns and rows of the verdicts."""
    return ("claim", "verdict", "report", "measured"), [
        (one.claim.text, one.verdict, one.claim.reported, one.measured) for one in findings
    ]


def source_rows(archives: Sequence[Archive]) -> Rows:
    """Columns and rows of what the runs were made from and with."""
    return (
        ("command", "data", "seeds", "device", "arithmetic", "versions", "code", "finished"),
        [_source(archive.config) for archive in archives],
    )


def _source(config: dict[str, Any]) -> list[str]:
    data, versions, git = (config[name] for name in ("dataset", "versions", "git"))
    settings = next(iter(config["variants"].values()))
    published = {"synthetic": "made up"}.get(
        data["name"], "published" if data["published"] else "not shown to be the published images"
    )
    device, count = config["devices"][0], len(config["devices"])
    return [
        config["command"],
        f"{data['name']}, {published}, SHA-256 {data['fingerprint'][:16]}…",
        ", ".join(map(str, settings["seeds"])),
        f"{count} x {device}, {config['machine']}",
        f"{settings['dtype']}, products in {settings['precision']}",
        ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "numpy", "optax")),
        f"{git['revision'][:10]}{', modified' if git['modified'] else ''}" if git else "no git checkout",
        config["written"],
    ]
