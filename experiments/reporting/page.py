"""The report as text: one HTML file that needs nothing else."""

import base64
import os
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.artifacts.reader import ReadError
from experiments.reporting.claims import RULE
from experiments.reporting.sections import Report

HERE = Path(__file__).parent


def render_html(report: Report, folder: Path) -> str:
    """Return the report as an HTML page, to be written into the folder.

    Styles, script, figures and data are in the page.

    Raises:
      ReadError: if a figure cannot be read.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    environment.filters["relative"] = relative
    # Percent-encoded text has no character that HTML treats specially.
    environment.filters["url"] = lambda path: Markup(quote(os.fsencode(relative(path))))
    environment.filters["data_url"] = _data_url
    environment.globals["asset"] = lambda name: Markup((HERE / "assets" / name).read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(rule=RULE, **report._asdict())


def _data_url(path: Path) -> str:
    """Return a figure as a data URL: the SVG, or the PNG where that is far smaller or alone."""
    kinds = {"svg+xml": path.with_suffix(".svg"), "png": path.with_suffix(".png")}
    try:
        found = {kind: file.read_bytes() for kind, file in kinds.items() if file.exists()}
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error}") from None
    if not found:
        raise ReadError(f"{path}.svg is missing: run the command again with --formats=png,svg")
    kind, content = min(found.items(), key=lambda item: len(item[1]) * (4 if item[0] == "png" else 1))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
