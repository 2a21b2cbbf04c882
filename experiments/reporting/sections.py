"""The contents of the report: what it shows of the runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.artifacts.reader import RunResult
from experiments.artifacts.tables import Table, format_interval
from experiments.reporting.claims import Finding, judge_claims
from linear_cifar.config import Config
from linear_cifar.data.dataset import SPLITS

TITLE = "Single-layer classifiers on CIFAR-10: a report and its reproduction"
USER_TITLE = "Single-layer classifiers on your own data"
# The report's own tables.
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
# Curves in the explorer, and the significant digits that a screen can show.
CURVES = {"val_acc": "validation accuracy, %", "val_loss": "validation loss", "running_loss": "training loss"}
DIGITS = 4


# Figures that not every run has: not all data are images, and every configuration may have diverged.
OPTIONAL = {
    "weights": "Weights of each class as an image, each scaled to its range.",
    "differences": "Validation accuracy of each configuration minus that of the best, with 95 % intervals.",
    "confusion": "Which classes the best configuration takes for which.",
}


class Section(NamedTuple):
    """The section of an experiment: a paragraph, the report's table, the run's tables, and figures.

    `captions` has a caption for each figure, by the name of its file without suffix.
    """

    title: str
    text: str
    reported: Table | None
    captions: Mapping[str, str]


TABLE1_CAPTIONS = {
    "samples": "Figure 1. Training images of each class.",
    "curves": "Figure 2. Loss and cost (with the penalty) after every epoch, full passes.",
    "weights": "Figure 3. Weights of each class as an image, each scaled to its range.",
}
# Name of Table 1 by the reference recipe, among the names of the experiments.
REFERENCE = "reference"
SECTIONS = {
    "table1": Section("Table 1: learning rate and L2 strength", "", TABLE1, TABLE1_CAPTIONS),
    REFERENCE: Section(
        "Table 1 by the reference recipe",
        "Initial weights from NumPy's generator, images in the order of the files, float64.",
        TABLE1,
        TABLE1_CAPTIONS,
    ),
    "grid": Section(
        "The grid: learning rate, batch size and L2 strength",
        "The report's best: η 0.01, batch 400, λ 0.1, test accuracy 43.20 %.",
        None,
        {
            "heatmap": "Validation accuracy after the last epoch; what may be the best is framed.",
            "curves": "Loss per epoch of the configurations whose loss stays low.",
        },
    ),
    "search": Section(
        "The search: ranges in place of a grid",
        "",
        None,
        {
            "axes": "Validation accuracy along each hyperparameter; colours show the epoch reached.",
            "effort": "The best validation accuracy so far against the epochs that all runs have trained.",
        },
    ),
    "bce": Section(
        "Table 2: sigmoid with multiple binary cross-entropy against softmax",
        "",
        TABLE2,
        {
            "histograms": "Figure 6. Probability of the true class, at the report's settings.",
            "histograms_best": "The same at each loss's best settings.",
            "reliability": "How often predictions of a probability are right, at the report's settings.",
            "reliability_best": "The same at each loss's best settings.",
            "gap": "Training and test accuracy per epoch, at the report's settings.",
            "gap_best": "The same at each loss's best settings.",
        },
    ),
    "improve": Section(
        "What lifts the accuracy of one linear layer",
        "",
        None,
        {
            "steps": "Test accuracy of each step: a dot per seed, and the mean with its 95 % interval.",
            "curves": "Figure 4. The best configuration, epoch by epoch.",
        },
    ),
}


class Report(NamedTuple):
    """All that the page shows. Without a run on CIFAR-10's shapes there are no findings on the report.

    `explorer` is for page.js: every configuration with its final accuracies and its curves.
    """

    title: str
    warnings: Sequence[str]
    findings: Sequence[Finding]
    sections: Sequence[tuple[RunResult, Section]]
    explorer: Mapping[str, Any]
    sources: Sequence[tuple[RunResult, Mapping[str, str]]]


def gather_report(runs: Mapping[str, RunResult]) -> Report:
    """Gather what the report shows, from runs by the names of their sections.

    A run whose name is not in `SECTIONS` gets a section by its experiment and data, after the others.

    Raises:
      ReadError: if a file of a run is broken.
    """
    sections = {name: _make_section(name, runs[name]) for name in {**SECTIONS, **runs} if name in runs}
    if {"table1", REFERENCE} <= runs.keys():  # their figures resemble one another
        sections[REFERENCE] = sections[REFERENCE]._replace(captions={})
    shown = [(runs[name], section) for name, section in sections.items()]
    explored = [run for name, run in runs.items() if name != REFERENCE]
    explorer = {
        "curves": CURVES,
        "columns": ["experiment", "sweep", *Config._fields],
        "splits": [split for split in SPLITS if any(_has_split(run, split) for run in explored)],
        "rows": [row for run in explored for row in _explorer_rows(run)],
    }
    sources = [(run, _describe_source(run)) for run in runs.values()]
    on_images = {name: run for name, run in runs.items() if not run.user_file}
    title, findings = (TITLE, judge_claims(on_images)) if on_images else (USER_TITLE, [])
    return Report(title, _warnings([*on_images.values()]), findings, shown, explorer, sources)


def _make_section(name: str, run: RunResult) -> Section:
    """Return the section that shows a run: that of its name, or one by its experiment and its data.

    It has captions for the experiment's figures, and for the optional figures that the run has.
    """
    known = SECTIONS.get(run.experiment)
    captions = known.captions if known else {}
    section = SECTIONS.get(name) or Section(f"The {run.experiment} on {run.label}", "", None, captions)
    found = {
        name: caption
        for name, caption in OPTIONAL.items()
        if name not in section.captions and (run.folder / f"{name}.svg").exists()
    }
    return section._replace(captions={**section.captions, **found})


def _has_split(run: RunResult, split: str) -> bool:
    """Tell whether a sweep of the run was measured on a split."""
    return any(f"{split}_examples" in sweep for sweep in run.sweeps.values())


def _warnings(runs: Sequence[RunResult]) -> list[str]:
    """Return warnings about images that are not, or may not be, the original CIFAR-10."""
    warnings = []
    synthetic = dict.fromkeys(run.experiment for run in runs if run.dataset == "synthetic")
    if synthetic:
        warnings.append(f"Synthetic images, not CIFAR-10: all results of {', '.join(synthetic)}.")
    if any(not run.config["dataset"]["verified"] for run in runs if run.dataset != "synthetic"):
        warnings.append(
            "No checksum shows that these images are the original CIFAR-10. They may be a copy that was "
            "changed, for example by compression. Their fingerprint is under Sources."
        )
    return warnings


def _describe_source(run: RunResult) -> dict[str, str]:
    """Return the command of a run, and the data and software behind its numbers, by columns of a table."""
    config = run.config
    data, versions, git = (config[name] for name in ("dataset", "versions", "git"))
    settings = next(iter(run.sweeps.values()))
    verified = "checksum verified" if data["verified"] else "checksum not verified"
    checked = "own file" if run.user_file else "generated" if run.dataset == "synthetic" else verified
    revision = git and f"{git['revision'][:10]}{', modified' if git['modified'] else ''}"
    return {
        "command": run.command,
        "data": f"{run.dataset}, {checked}, SHA-256 {run.fingerprint[:16]}…",
        "seeds": ", ".join(map(str, settings["seeds"])),
        "device": f"{len(config['devices'])} x {config['devices'][0]}, {config['machine']}",
        "arithmetic": f"{settings['dtype']}, products in {settings['precision']}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "numpy", "optax")),
        "code": revision or "no git checkout",
        "finished": run.written,
    }


def _explorer_rows(run: RunResult) -> list[dict[str, Any]]:
    """Return a row per configuration: its name, its final accuracies as intervals, and its mean curves.

    Configurations that halving stopped are left out.
    """
    measured: dict[tuple[str, Config], dict[tuple[int, int | None], list[list[float]]]] = {}
    finished = {sweep: {*run.configs(sweep)} for sweep in run.sweeps}
    for row in run.history:
        if row.config not in finished[row.sweep]:
            continue
        values = [np.nan if row.cells[name] is None else row.cells[name] for name in CURVES]
        by_replicate = measured.setdefault((row.sweep, row.config), {})
        by_replicate.setdefault((row.seed, row.fold), []).append(values)
    rows = []
    for (sweep, config), by_replicate in measured.items():
        curves = np.asarray(list(by_replicate.values())).mean(axis=0).T
        present = [split for split in SPLITS if f"{split}_examples" in run.sweeps[sweep]]
        final = {split: run.interval(split, sweep, config) for split in present}
        rows.append(
            {
                "key": [
                    f"{run.experiment}, {run.label}" if run.user_file else run.experiment,
                    sweep,
                    *config,
                ],
                **{split: _round(100 * interval.mean) for split, interval in final.items()},
                "text": {split: format_interval(interval) for split, interval in final.items()},
                "curves": {
                    name: [_round(value * (100 if name.endswith("acc") else 1)) for value in curve]
                    for name, curve in zip(CURVES, curves, strict=True)
                },
            }
        )
    return rows


def _round(value: float) -> float | None:
    """Round to a few significant digits; return None for a value that is not finite."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
