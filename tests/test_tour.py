"""The notebook is stored with clean outputs; `tests/tour.py` executes it."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

import linear_cifar as lc

NOTEBOOK = Path(__file__).parent.parent / "experiments" / "tour.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CELLS = CONTENT["cells"]
CODE_CELLS = [cell for cell in CELLS if cell["cell_type"] == "code"]
OUTPUTS = [output for cell in CODE_CELLS for output in cell["outputs"]]
ALLOWED_MODULES = {
    "linear_cifar", "jax", "jax.numpy", "numpy", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets",
    "sklearn.model_selection",
}  # fmt: skip
MAX_BYTES = 1_000_000
# A path from the root of a file system or from a home folder, as text of a program or a traceback has it.
ABSOLUTE_PATH = re.compile(r"(?<![\w./:})$])/[a-z][\w.-]*/[\w.-]|~/|\b[A-Za-z]:\\\w|\bfile://")


def texts():
    """Return all text of the notebook: sources, and outputs without images."""
    sources = ["".join(cell["source"]) for cell in CELLS]
    plain = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in OUTPUTS]
    return [*sources, *("".join(lines) for lines in plain)]


def test_every_code_cell_was_executed_in_order_and_has_outputs():
    assert [cell["execution_count"] for cell in CODE_CELLS] == list(range(1, len(CODE_CELLS) + 1))
    assert all(cell["outputs"] for cell in CODE_CELLS)


def test_no_cell_failed_or_wrote_to_stderr():
    assert {output["output_type"] for output in OUTPUTS} <= {"stream", "display_data", "execute_result"}
    assert {output["name"] for output in OUTPUTS if output["output_type"] == "stream"} == {"stdout"}


def test_figures_are_stored_as_png():
    kinds = {kind for output in OUTPUTS for kind in output.get("data", {})}
    assert kinds == {"image/png", "text/plain"}


def test_the_file_is_small():
    assert NOTEBOOK.stat().st_size < MAX_BYTES


def test_the_metadata_say_nothing_of_the_machine_or_the_time():
    assert CONTENT["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell["metadata"] == {} for cell in CELLS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/tmp/abc/digits.npz", True),
        ("saved in '/home/me/x'", True),
        ("~/data", True),
        (r"C:\Users", True),
        (r"\partial J / \partial W", False),
        ("../linear_cifar/README.md", False),
        ("https://example.org/a/b", False),
        ("4/20", False),
    ],
)
def test_absolute_paths_are_recognised(text, found):
    assert bool(ABSOLUTE_PATH.search(text)) == found


def test_no_text_holds_an_absolute_path():
    for text in texts():
        assert not ABSOLUTE_PATH.search(text), text
        assert str(Path.home()) not in text


def test_cells_use_only_what_a_user_would_write():
    for cell in CODE_CELLS:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= ALLOWED_MODULES
            elif isinstance(node, ast.ImportFrom):
                assert node.module in ALLOWED_MODULES - {"linear_cifar"}
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")
                assert ast.unparse(node.value) != "lc" or node.attr in lc.__all__


def test_sentences_state_no_measured_number():
    """A sentence about results would be wrong after another run: the code prints the numbers."""
    outputs = {number for text in texts()[len(CELLS) :] for number in re.findall(r"\d+\.\d+", text)}
    given = {number for cell in CODE_CELLS for number in re.findall(r"\d+\.\d+", "".join(cell["source"]))}
    prose = "".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    assert not set(re.findall(r"\d+\.\d+", prose)) & (outputs - given)


def test_the_extra_that_the_notebook_names_installs_no_linter():
    assert "pip install -e '.[tour]'" in "".join(CELLS[0]["source"])
    extras = tomllib.loads((NOTEBOOK.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    names = {re.match(r"\w+", entry)[0] for entry in extras["project"]["optional-dependencies"]["tour"]}
    assert names == {"linear_cifar", "ipykernel", "jupyterlab", "scikit"}


def test_links_lead_to_files():
    text = "".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        assert (NOTEBOOK.parent / link).is_file(), link
