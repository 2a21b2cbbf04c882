"""Execute `experiments/tour.ipynb` in a fresh kernel: no cell fails, and all cells print what is stored.

    python tests/tour.py

takes about half a minute on 2 cores. It compares the printed text without its numbers, because their last
digits differ between machines, and without "yes" and "no". `tests/test_tour.py` checks the stored file
without executing it.

    python tests/tour.py --write

stores the new outputs in the notebook.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "experiments" / "tour.ipynb"
TIME_LIMIT = 120  # seconds for one cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Numbers, and answers that depend on their digits.
NUMBER = re.compile(r"[-+−]?\d[\d.,]*(e[-+]?\d+)?|\b(yes|no)\b")


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook with new outputs, and without metadata that differ from run to run.

    Raises:
      CellExecutionError: if a cell raises an exception.
    """
    executed = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as profile:
        client = nbclient.NotebookClient(
            executed,
            kernel_name=METADATA["kernelspec"]["name"],
            timeout=TIME_LIMIT,
            # Without its note that a kernel talks over a local port.
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            coalesce_streams=True,
            # A folder of its own: the notebook does not depend on where it lies.
            resources={"metadata": {"path": profile}},
        )
        # A profile of its own, so that no startup file of the user runs in the kernel.
        fixed = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "IPYTHONDIR": profile}
        client.execute(env=os.environ | fixed)
    executed.metadata = nbformat.from_dict(METADATA)
    for cell in executed.cells:
        cell.metadata = nbformat.from_dict({})
    return executed


def output_structure(cell: nbformat.NotebookNode) -> list[str]:
    """Return the outputs of a cell as text, without spacing and what depends on digits."""
    structure = []
    for output in cell.outputs:
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain", "")
        text = NUMBER.sub("#", text)
        kinds = [output.output_type, output.get("name", ""), *sorted(data)]
        structure.append(" ".join([*kinds, *text.split()]))
    return structure


def find_differences(stored: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> list[str]:
    """Return a message for each cell whose new outputs differ in structure from the stored ones."""
    messages = []
    for old, new in zip(stored.cells, executed.cells, strict=True):
        if new.cell_type != "code":
            continue
        if any(output.get("name") == "stderr" for output in new.outputs):
            messages.append(f"cell {new.id} writes to stderr: {output_structure(new)}")
        elif output_structure(old) != output_structure(new):
            messages.append(
                f"cell {new.id} prints\n  {output_structure(new)}\nand the stored output is\n"
                f"  {output_structure(old)}"
            )
    return messages


def main() -> None:
    """Execute the notebook, and compare or store its outputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="store the new outputs in the notebook")
    arguments = parser.parse_args()
    stored = nbformat.read(NOTEBOOK, as_version=4)
    start = time.monotonic()
    executed = execute(stored)
    seconds = time.monotonic() - start
    messages = find_differences(executed if arguments.write else stored, executed)
    if messages:
        sys.exit("\n".join([*messages, "store the new outputs with: python tests/tour.py --write"]))
    if arguments.write:
        nbformat.write(executed, NOTEBOOK)
    outcome = "stored" if arguments.write else "as stored"
    print(f"{NOTEBOOK.name} ran in {seconds:.0f} s; its outputs are {outcome}")


if __name__ == "__main__":
    main()
