"""The report as text: one HTML file that needs nothing else, and Markdown with links to the runs' files."""

import base64
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.artifacts.reader import ReadError
from experiments.reporting.claims import RULE
from experiments.reporting.sections import Report, Source

HERE = Path(__file__).parent


def render_html(report: Report, folder: Path) -> str:
    """Return the report as an HTML page, to be written into the folder.

    Styles, script, figures and data are in the page.

    Raises:
      ReadError: if a figure cannot be read.
    """
    return _render("report.html.j2", report, folder)


def render_markdown(report: Report, folder: Path) -> str:
    """Return the report as Markdown, to be written into the folder, with links to the figures."""
    return _render("report.md.j2", report, folder, finalize=escape_markdown)


def _render(template: str, report: Report, folder: Path, **options: Any) -> str:
    # Every expression in a template is escaped: as HTML, or before that by `finalize` as Markdown.
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    environment.filters["relative"] = relative
    # Percent-encoded text has no character that HTML or Markdown treats specially.
    environment.filters["url"] = lambda path: Markup(quote(os.fsencode(relative(path))))
    environment.filters["data_url"] = _data_url
    environment.globals["asset"] = lambda name: Markup((HERE / "assets" / name).read_text(encoding="utf-8"))
    columns = Source._fields
    return environment.get_template(template).render(rule=RULE, source_columns=columns, **report._asdict())


def escape_markdown(value: object) -> Markup:
    """Escape what Markdown would format; leave `Markup` as it is."""
    return value if isinstance(value, Markup) else Markup(re.sub(r"([\\`*_\[\]<>|])", r"\\\1", str(value)))


def _data_url(path: Path) -> str:
    """Return a figure as a data URL: the SVG, or the PNG where that is far smaller."""
    try:
        svg, png = (path.with_suffix(suffix).read_bytes() for suffix in (".svg", ".png"))
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error}") from None
    kind, content = ("svg+xml", svg) if len(svg) < 4 * len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
