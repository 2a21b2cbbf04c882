"""Write one page with the report's tables and figures beside ours, and a verdict on each of its claims.

    python -m experiments.report

finds finished experiments under --results (default: results) and writes report.html (one file, which needs no
network) there, in seconds. Of several by the same command it shows one: it prefers real images to synthetic
ones, then the report's settings, then more configurations, then the newest.
"""

from collections.abc import Sequence

from absl import flags

from experiments.artifacts.reader import ExperimentFolder, ReadError, find_experiments
from experiments.cli.flags import expand_path
from experiments.cli.launch import launch
from experiments.cli.progress import log
from experiments.cli.recipes import RECIPES
from experiments.reporting.claims import find_deviation
from experiments.reporting.page import render_html
from experiments.reporting.sections import REFERENCE, SECTIONS, gather_report
from experiments.runner.errors import UsageError
from linear_cifar.atomic import atomic_text

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string(
        "results", "results", "read experiments from this folder, at any depth, and write the report there"
    )


def main() -> None:
    """Write the report, and print the verdicts."""
    folder = expand_path(FLAGS.results)
    found = find_experiments(folder, log)
    names = dict.fromkeys([*SECTIONS, *map(name_section, found)])
    shown = {name: chosen for name in names if (chosen := choose_experiment(found, name))}
    if not shown:
        raise UsageError(
            f"--results={folder} holds no finished experiment: python -m experiments.table1 makes one "
            "(so do grid, path, search, compare, bce and improve)"
        )
    try:
        report = gather_report(shown)
        text = render_html(report, folder)
        with atomic_text(folder / "report.html") as file:
            file.write(text)
    except ReadError as error:
        raise UsageError(str(error)) from None
    for finding in report.findings:
        print(f"{finding.verdict:>14}  {finding.claim.text}: {finding.measured}")
    print(f"files: {folder / 'report.html'}")


def choose_experiment(experiments: Sequence[ExperimentFolder], name: str) -> ExperimentFolder | None:
    """Return the experiment that says most in a section of the page, or None if there is none for it.

    Those on real images come first, then those with the report's settings, those with more configurations,
    and newer ones.
    """

    def merit(experiment: ExperimentFolder) -> tuple[bool, bool, int, str]:
        size = sum(settings["configurations"] for settings in experiment.sweeps.values())
        real, as_reported = experiment.dataset != "synthetic", not find_deviation(experiment)
        return real, as_reported, size, experiment.written

    candidates = [experiment for experiment in experiments if name_section(experiment) == name]
    return max(candidates, key=merit, default=None)


def name_section(experiment: ExperimentFolder) -> str:
    """Return the name of the section that shows an experiment.

    It is the experiment's name, with a user's own data set if there is one, or Table 1's reference recipe.
    """
    if experiment.user_file:
        return f"{experiment.name} on {experiment.label}"
    recipe = {name: RECIPES["reference"][name] for name in ("init", "shuffle", "dtype")}
    by_recipe = all(recipe.items() <= settings.items() for settings in experiment.sweeps.values())
    return REFERENCE if experiment.name == "table1" and by_recipe else experiment.name


if __name__ == "__main__":
    launch(define_flags, main)
