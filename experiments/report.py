"""Write one page with the report's tables and figures beside ours, and a verdict on each of its claims.

    python -m experiments.report

finds a run of each experiment under --results (default: results) and writes report.html (one file, which
needs no network) there, in seconds. Where there are several runs of an experiment, it prefers real images to
synthetic ones, then the report's settings, then more configurations, then the newest run.
"""

from collections.abc import Sequence

from absl import flags

from experiments.artifacts.reader import ReadError, RunResult, find_runs
from experiments.cli.flags import expand_path
from experiments.cli.launch import launch
from experiments.cli.progress import log
from experiments.cli.recipes import RECIPES
from experiments.reporting.claims import find_deviation
from experiments.reporting.rendering import render_html
from experiments.reporting.sections import REFERENCE, SECTIONS, gather_report
from experiments.runner.errors import UsageError
from linear_cifar.files import atomic_text

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string(
        "results", "results", "read runs from this folder, at any depth, and write the report there"
    )


def main() -> None:
    """Write the report, and print the verdicts."""
    folder = expand_path(FLAGS.results)
    found = find_runs(folder, log)
    names = dict.fromkeys([*SECTIONS, *map(name_section, found)])
    runs = {name: run for name in names if (run := choose_run(found, name))}
    if not runs:
        raise UsageError(
            f"--results={folder} holds no finished run: python -m experiments.table1 makes one "
            "(so do grid, search, bce and improve)"
        )
    try:
        report = gather_report(runs)
        text = render_html(report, folder)
        with atomic_text(folder / "report.html") as file:
            file.write(text)
    except ReadError as error:
        raise UsageError(str(error)) from None
    for finding in report.findings:
        print(f"{finding.verdict:>14}  {finding.claim.text}: {finding.measured}")
    print(f"files: {folder / 'report.html'}")


def choose_run(runs: Sequence[RunResult], name: str) -> RunResult | None:
    """Return the run that says most in a section of the page, or None if there is none for it.

    Runs on real images come first, then those with the report's settings, those with more configurations, and
    newer ones.
    """

    def merit(run: RunResult) -> tuple[bool, bool, int, str]:
        size = sum(settings["configurations"] for settings in run.sweeps.values())
        return run.dataset != "synthetic", find_deviation(run) is None, size, run.written

    return max((run for run in runs if name_section(run) == name), key=merit, default=None)


def name_section(run: RunResult) -> str:
    """Return the name of the section that shows a run.

    It is the experiment, on a user's own data set if there is one, or the reference recipe of Table 1.
    """
    if run.user_file:
        return f"{run.experiment} on {run.label}"
    recipe = {name: RECIPES["reference"][name] for name in ("init", "shuffle", "dtype")}
    by_recipe = all(recipe.items() <= settings.items() for settings in run.sweeps.values())
    return REFERENCE if run.experiment == "table1" and by_recipe else run.experiment


if __name__ == "__main__":
    launch(define_flags, main)
