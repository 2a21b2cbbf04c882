"""The contents of the report: what it shows of the experiments."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.artifacts.reader import ExperimentFolder
from experiments.artifacts.tables import Table, format_interval
from experiments.reporting.claims import Finding, find_deviation, judge_claims
from linear_cifar.config import AXES
from linear_cifar.data.dataset import order_splits

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

# Figures that not every experiment has: not all data are images, and every configuration may have diverged.
OPTIONAL = {
    "weights": "Weights of each class as an image, each scaled to its range.",
    "heatmap": "Accuracy over two factors; what may be the best is framed.",
    "sizes": "Accuracy against the number of training examples, with 95 % intervals.",
    "differences": "Validation accuracy minus that of the best, with simultaneous one-sided 95 % limits.",
    "confusion": "Which classes the best configuration takes for which.",
}


class Section(NamedTuple):
    """The section of an experiment: a paragraph, the report's table, its own tables, and figures.

    `captions` has a caption for each figure, by the name of its file without suffix. `deviation` names
    the settings that are not the report's.
    """

    title: str
    captions: Mapping[str, str]
    text: str = ""
    reported: Table | None = None
    deviation: str = ""


TABLE1_CAPTIONS = {
    "samples": "Figure 1. Training images of each class.",
    "curves": "Figure 2. Loss and cost (with the penalty) after every epoch, full passes.",
    "weights": "Figure 3. Weights of each class as an image, each scaled to its range.",
}
# Name of Table 1 by the reference recipe, among the names of the experiments.
REFERENCE = "reference"
SECTIONS = {
    "table1": Section("Table 1: learning rate and L2 strength", TABLE1_CAPTIONS, reported=TABLE1),
    REFERENCE: Section(
        "Table 1 by the reference recipe",
        TABLE1_CAPTIONS,
        "Initial weights from NumPy's generator, images in the order of the files, float64.",
        TABLE1,
    ),
    "grid": Section(
        "The grid: learning rate, batch size and L2 strength",
        {
            "heatmap": "Validation accuracy after the last epoch; what may be the best is framed.",
            "curves": "Loss per epoch of all configurations, on the scale of the better half.",
        },
        "The report's best: η 0.01, batch 400, λ 0.1, test accuracy 43.20 %.",
    ),
    "search": Section(
        "The search: ranges in place of a grid",
        {
            "axes": "Validation accuracy along each hyperparameter; colours show the epoch reached.",
            "effort": "Validation accuracy of the best so far against the epochs that all runs have trained.",
        },
    ),
    "path": Section(
        "The path: the exact minimum for each L2 strength",
        {"path": "Loss and accuracy of the minimum against λ; what may be the best is shaded."},
    ),
    "compare": Section(
        "Which features are best",
        {"compare": "Accuracy of each file's best configuration, with its 95 % interval."},
    ),
    "bce": Section(
        "Table 2: sigmoid with multiple binary cross-entropy against softmax",
        {
            "histograms": "Figure 6. Probability of the true class, at the report's settings.",
            "histograms_best": "The same at each loss's best settings.",
            "reliability": "Share of right predictions by their probability, at the report's settings.",
            "reliability_best": "The same at each loss's best settings.",
            "gap": "Training and test accuracy per epoch, at the report's settings.",
            "gap_best": "The same at each loss's best settings.",
        },
        reported=TABLE2,
    ),
    "improve": Section(
        "Steps that lift the accuracy of one linear layer",
        {
            "steps": "Test accuracy of each step: a dot per seed, and the mean with its 95 % interval.",
            "curves": "Figure 4. The best configuration, epoch by epoch.",
        },
    ),
}


class Report(NamedTuple):
    """All that the page shows. Where all data are a user's own, there are no findings on the report.

    `explorer` is for page.js: every configuration with its final accuracies and its curves.
    """

    title: str
    warnings: Sequence[str]
    findings: Sequence[Finding]
    sections: Sequence[tuple[ExperimentFolder, Section]]
    explorer: Mapping[str, Any]
    sources: Sequence[tuple[ExperimentFolder, Mapping[str, str]]]


def gather_report(experiments: Mapping[str, ExperimentFolder]) -> Report:
    """Gather what the report shows, from experiments by the names of their sections.

    An experiment whose section is not in `SECTIONS` gets one by its name and data, after the others.

    Raises:
      ReadError: if a file of an experiment is broken.
    """
    order = [name for name in {**SECTIONS, **experiments} if name in experiments]
    sections = {name: _make_section(name, experiments[name]) for name in order}
    if {"table1", REFERENCE} <= experiments.keys():  # their figures resemble one another
        sections[REFERENCE] = sections[REFERENCE]._replace(captions={})
    explored = [experiment for name, experiment in experiments.items() if name != REFERENCE]
    rows = [row for experiment in explored for row in _explorer_rows(experiment)]
    explorer = {
        "curves": CURVES,
        "columns": ["experiment", "sweep", *AXES],
        "splits": order_splits({split for row in rows for split in row["text"]}),
        "rows": rows,
    }
    on_images = {name: experiment for name, experiment in experiments.items() if not experiment.user_file}
    return Report(
        TITLE if on_images else USER_TITLE,
        _warnings([*on_images.values()]),
        judge_claims(on_images) if on_images else [],
        [(experiments[name], section) for name, section in sections.items()],
        explorer,
        [(experiment, _describe_source(experiment)) for experiment in experiments.values()],
    )


def _make_section(name: str, experiment: ExperimentFolder) -> Section:
    """Return the section of this name that shows an experiment, or one by the experiment and its data.

    It has captions for the experiment's figures, and for the optional figures that there are.
    """
    known = SECTIONS.get(experiment.name)
    captions = known.captions if known else {}
    title = f"The {experiment.name} on {experiment.label}"
    if known and experiment.name == "compare":
        title = f"{known.title}: {experiment.label}"
    section = SECTIONS.get(name) or Section(title, captions)
    found = {
        name: caption
        for name, caption in OPTIONAL.items()
        if name not in section.captions and any(experiment.folder.glob(f"{name}.*"))
    }
    return section._replace(captions={**section.captions, **found}, deviation=find_deviation(experiment))


def _warnings(experiments: Sequence[ExperimentFolder]) -> list[str]:
    """Return warnings about images that are not, or may not be, the original CIFAR-10."""
    warnings = []
    synthetic = [experiment for experiment in experiments if experiment.dataset == "synthetic"]
    if synthetic:
        names = ", ".join(dict.fromkeys(experiment.name for experiment in synthetic))
        warnings.append(f"Synthetic images, not CIFAR-10: all results of {names}.")
    real = [experiment for experiment in experiments if experiment not in synthetic]
    if not all(experiment.config["dataset"]["verified"] for experiment in real):
        warnings.append(
            "No checksum shows that these images are the original CIFAR-10. They may be a copy that was "
            "changed, for example by compression. Their fingerprint is under Sources."
        )
    return warnings


def _describe_source(experiment: ExperimentFolder) -> dict[str, str]:
    """Return an experiment's command, and the data and software behind its numbers, by columns of a table."""
    config = experiment.config
    data, versions, git = (config[name] for name in ("dataset", "versions", "git"))
    settings = next(iter(experiment.sweeps.values()))
    verified = "checksum verified" if data["verified"] else "checksum not verified"
    generated = experiment.dataset == "synthetic"
    checked = "own file" if experiment.user_file else "generated" if generated else verified
    revision = git and f"{git['revision'][:10]}{', modified' if git['modified'] else ''}"
    return {
        "command": experiment.command,
        "data": f"{experiment.dataset}, {checked}, SHA-256 {experiment.fingerprint[:16]}…",
        "seeds": ", ".join(map(str, settings["seeds"])),
        "device": f"{len(config['devices'])} x {config['devices'][0]}, {config['machine']}",
        "arithmetic": f"{settings['dtype']}, products in {settings['precision']}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "numpy", "optax")),
        "code": revision or "no git checkout",
        "finished": experiment.written,
    }


def _explorer_rows(experiment: ExperimentFolder) -> Iterator[dict[str, Any]]:
    """Yield a row per configuration: its name, its final accuracies as intervals, and its mean curves.

    Configurations that halving stopped are left out.
    """
    name = f"{experiment.name}, {experiment.label}" if experiment.user_file else experiment.name
    for sweep in experiment.sweeps:
        result = experiment.result(sweep).take_finished()
        nothing = np.full((0, *result.identity.size), np.nan)
        curves = {
            column: result.history.get(column, nothing).mean(axis=1, dtype=np.float64) for column in CURVES
        }
        for c, config in enumerate(result.configs):
            final = {split: result.interval(split, c) for split in result.sizes}
            yield {
                "key": [name, sweep, *map(config.get, AXES)],
                **{split: _round(100 * interval.mean) for split, interval in final.items()},
                "text": {split: format_interval(interval) for split, interval in final.items()},
                "curves": {
                    column: [_round(value * (100 if column.endswith("acc") else 1)) for value in means[:, c]]
                    for column, means in curves.items()
                },
            }


def _round(value: float) -> float | None:
    """Round to a few significant digits; return None for a value that is not finite."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
