"""One page of everything: the report's tables and figures beside ours, and a verdict on each of its claims.

    python -m experiments.report

gathers a run of each experiment under --results (default: results), in seconds, and writes there report.html
(one file: it needs no network) and report.md. Of several runs it takes one on real images rather than on
made-up ones, with the report's settings, complete, and new. Made-up images are shown as such.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import archive, claims, markdown, page
from experiments.archive import Archive, ArchiveError
from experiments.document import Block, Explorer, Figure, Paragraph, Section, Sources, TableOf, Verdicts
from experiments.files import whole
from experiments.recipes import RECIPES
from experiments.shell import UsageError, launch
from experiments.table import Table

FLAGS = flags.FLAGS

EXPERIMENTS = ("table1", "grid", "bce", "improve")
# What the report prints, accuracies in percent.
TABLE1 = Table(
    "report's table 1",
    "Table 1 of the report, accuracy in %",
    ["eta", "batch", "lam", "train", "val", "test"],
    [
        ["0.1", "100", "0", "42.95", "26.32", "27.00"],
        ["0.001", "100", "0", "45.57", "38.46", "39.21"],
        ["0.001", "100", "0.1", "44.63", "38.62", "39.30"],
        ["0.001", "100", "1", "39.85", "36.32", "37.55"],
    ],
)
TABLE2 = Table(
    "report's table 2",
    "Table 2 of the report, accuracy in %",
    ["loss", "eta", "lam", "train", "val", "test"],
    [
        ["softmax", "0.01", "0.1", "45.46", "38.42", "38.88"],
        ["bce", "0.01", "0.01", "45.64", "38.17", "38.10"],
    ],
)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "results", "results", "folder with the runs, at any depth; the report is written there"
    )


def main() -> None:
    """Writes both formats."""
    folder = Path(FLAGS.results).expanduser()
    found = archive.find(folder, lambda line: print(line, file=sys.stderr))
    runs = {name: chosen for name in EXPERIMENTS if (chosen := choose(found, name, plain=False))}
    plain = choose(found, "table1", plain=True)
    if not runs and not plain:
        raise UsageError(
            f"--results={folder} holds no finished run: python -m experiments.table1 makes one "
            "(so do grid, bce and improve)"
        )
    try:
        sections = document(runs, plain)
        for name, render in (("report.html", page.render), ("report.md", markdown.render)):
            text = render(
                "Single-layer classifiers on CIFAR-10: a report and its reproduction", sections, folder
            )
            with whole(folder / name) as partial:
                partial.write_text(text)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    for one in claims.findings(runs):
        print(f"{one.verdict:>14}  {one.claim.text}: {one.measured}")
    print(f"files: {folder / 'report.html'}, {folder / 'report.md'}")


def choose(found: Sequence[Archive], experiment: str, plain: bool) -> Archive | None:
    """A run of an experiment, of the plain recipe or not.

    Rather one on real images, with the report's settings, complete, and new, in this order.
    """

    def merit(one: Archive) -> tuple[bool, bool, int, str]:
        size = sum(variant["configurations"] for variant in one.variants.values())
        return one.dataset != "synthetic", claims.deviation(one) is None, size, one.written

    its = [one for one in found if one.experiment == experiment and is_plain(one) is plain]
    return max(its, key=merit, default=None)


def is_plain(one: Archive) -> bool:
    """Whether a run is Table 1 by the reference recipe."""
    expected = {name: RECIPES["reference"][name] for name in ("init", "shuffle", "dtype")}
    return one.experiment == "table1" and all(
        its[name] == value for its in one.variants.values() for name, value in expected.items()
    )


def document(runs: dict[str, Archive], plain: Archive | None) -> list[Section]:
    """The report of these runs, by experiment; `plain` is Table 1 by the reference recipe."""
    every = [*runs.values(), *([plain] if plain else [])]
    sections = [
        Section("Verdicts", [*_about(every), Verdicts(claims.findings(runs)), Paragraph(claims.RULE)])
    ]
    if "table1" in runs or plain:
        sections.append(_table1(runs.get("table1"), plain))
    parts = {"grid": _grid, "bce": _bce, "improve": _improve}
    sections += [part(runs[name]) for name, part in parts.items() if name in runs]
    sections.append(Section("All configurations", [Explorer(list(runs.values()))]))
    sections.append(Section("Sources", [Sources(every)]))
    return sections


def _about(archives: Sequence[Archive]) -> list[Block]:
    """Which images these are."""
    blocks: list[Block] = []
    made_up = [one.experiment for one in archives if one.dataset == "synthetic"]
    if made_up:
        blocks.append(
            Paragraph(f"Made-up images, not CIFAR-10: what stands under {', '.join(made_up)}.", warning=True)
        )
    if any(not one.config["dataset"]["published"] for one in archives if one.dataset != "synthetic"):
        blocks.append(
            Paragraph(
                "No checksum shows these images to be the published CIFAR-10: they may be a copy that was "
                "changed, by compression, say. The fingerprint is under Sources."
            )
        )
    return blocks


def _tables(archive: Archive, *names: str) -> list[Block]:
    """The named tables, or all."""
    return [TableOf(archive.tables[name], archive) for name in names or archive.tables]


def _table1(run: Archive | None, plain: Archive | None) -> Section:
    blocks: list[Block] = [TableOf(TABLE1)]
    if run:
        blocks += _tables(run)
    if plain:
        recipe = "The plain recipe: initial weights of NumPy's generator, the files' order, float64:"
        blocks += [Paragraph(recipe), *_tables(plain)]
    shown = run or plain
    if shown:
        captions = {
            "samples": "Figure 1. Training images of each class.",
            "curves": "Figure 2. Loss and cost (with the penalty) after every epoch, full passes.",
            "weights": "Figure 3. Weights of each class as an image, each scaled to its range.",
        }
        blocks += [Figure(shown, name, caption) for name, caption in captions.items()]
    return Section("Table 1: learning rate and L2 strength", blocks)


def _grid(run: Archive) -> Section:
    return Section(
        "The grid: learning rate, batch size and L2 strength",
        [
            Paragraph("The report's best: η 0.01, batch 400, λ 0.1, test accuracy 43.20 %."),
            Figure(run, "heatmap", "Validation accuracy after the last epoch; the best is framed."),
            Figure(run, "curves", "Loss per epoch of the configurations whose loss stays low."),
            *_tables(run),
        ],
    )


def _bce(run: Archive) -> Section:
    return Section(
        "Table 2: sigmoid with multiple binary cross-entropy against softmax",
        [
            TableOf(TABLE2),
            *_tables(run),
            Figure(run, "histograms", "Figure 6. Probability of the true class, at the report's settings."),
            Figure(run, "histograms_best", "The same at each loss's best settings."),
            Figure(
                run,
                "reliability",
                "How often predictions of a probability are right, at the report's settings.",
            ),
            Figure(run, "reliability_best", "The same at each loss's best settings."),
            Figure(run, "gap", "Training and test accuracy per epoch, at the report's settings."),
            Figure(run, "gap_best", "The same at each loss's best settings."),
        ],
    )


def _improve(run: Archive) -> Section:
    return Section(
        "What lifts the accuracy of one linear layer",
        [
            *_tables(run),
            Figure(run, "steps", "Test accuracy of each step: a dot per seed, mean and standard deviation."),
            Figure(run, "curves", "Figure 4. The best configuration, epoch by epoch."),
        ],
    )


if __name__ == "__main__":
    launch(define_flags, main)
