"""Table 2: sigmoid with binary cross-entropy (BCE) against softmax, and Figure 6.

    python -m experiments.bce

trains both losses on data_batch_1 for 40 epochs with batches of 100 and five seeds: 4 minutes and 2.6 GB on
2 cores. Each loss is trained with the report's η and λ and on a small grid, whose best configuration by
validation accuracy is shown too.

It writes to --out:

- config.json, results.csv, history.csv, best_params.npz, tables.json
- measures.csv: confidence, calibration, and labels by threshold; values.npz: some of them per test image
- histograms (Figure 6), reliability and gap (training and test accuracy per epoch), as figures, for
  the report's configurations; the names of those for the best configurations end in _best
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from experiments.artifacts import measures, tables
from experiments.artifacts.measures import THRESHOLD
from experiments.artifacts.tables import Cell, Table, percent, split_cells
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.flags import (
    define_axes,
    define_pairs,
    define_settings,
    grid_from_flags,
    sweep_from_flags,
)
from experiments.cli.launch import launch
from experiments.runner.stages import fixed_stage
from linear_cifar.config import Config
from linear_cifar.data.prepare import Data
from linear_cifar.result import ALL, Result

FLAGS = flags.FLAGS

# The measures in two of the tables, and their column heads.
CONFIDENCE = {
    "confidence": "predicted",
    "ece": "ECE",
    "overconfident": "overconfident",
    "true_right": "true, right",
    "true_wrong": "true, wrong",
    "second": "second",
}
LABELS = {"precision": "precision", "recall": "recall", "none": "no label", "several": "several"}


def define_flags() -> None:
    """Define the flags of this command."""
    define_axes(eta=(0.001, 0.003, 0.01, 0.03, 0.1), batch=(100,), lam=(0.0, 0.001, 0.01, 0.1))
    define_pairs("softmax_at", ((0.01, 0.1),), "the report's pair η:λ for softmax")
    define_pairs("bce_at", ((0.01, 0.01),), "the report's pair η:λ for binary cross-entropy")
    define_settings(
        epochs=40, train="batch1", flip=False, seeds=5, recipes=("report",), omit=("loss", "evaluate")
    )


def main() -> None:
    """Train both losses."""
    sweeps = []
    for loss, pairs in (("softmax", FLAGS.softmax_at), ("bce", FLAGS.bce_at)):
        reported = tuple(Config(eta, FLAGS.batch[0], lam) for eta, lam in pairs)
        configs = tuple(dict.fromkeys(reported + grid_from_flags()))
        sweeps.append(sweep_from_flags(loss, configs, loss=loss, evaluate=("train", "test")))
    run_experiment("bce", lambda: [fixed_stage(sweeps)], render, ALL)


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data]) -> Rendered:
    """Draw the figures and return Table 2, the confidences and the labels by threshold."""
    from experiments.artifacts import figures

    predictions = [measures.predict(result, data[result.about["sweep"]]) for result in results]
    labels = next(iter(data.values())).labels("test")
    measured = [measures.measure_all(predicted, labels) for predicted in predictions]
    measures.write_measures(folder, results, predictions, measured)
    drawn, by_argmax, confidence, by_threshold = {}, [], [], []
    for label, suffix in (("report's", ""), ("own best", "_best")):
        chosen = []
        for result, predicted, measure in zip(results, predictions, measured, strict=True):
            # The report's configuration is the first one.
            c = result.ranking()[0] if suffix else 0
            chosen.append((result, c, predicted))
            row = [Cell(result.about["sweep"]), Cell(label), Cell(tables.configuration_name(result, c))]
            by_argmax.append([*row, *tables.accuracies(result, c)])
            confidence.append([*row, *(percent(measure[name][:, c]) for name in CONFIDENCE)])
            by_threshold.append([*row, *(percent(measure[name][:, c]) for name in LABELS)])
        drawn[f"histograms{suffix}"] = figures.plot_histograms(chosen)
        drawn[f"reliability{suffix}"] = figures.plot_reliability_diagram(chosen)
        drawn[f"gap{suffix}"] = figures.plot_gaps(chosen)
    heading, columns = tables.heading(results[0]), ["loss", "choice", "configuration"]
    return drawn, [
        Table(
            "table2",
            f"Table 2: {tables.interval_heading(results[0])}, accuracy by argmax in %:",
            [*columns, "train", "val", "test"],
            *split_cells(by_argmax),
            optional=["train"],
        ),
        Table(
            "confidence",
            f"{heading}, test images: probability of the predicted class, expected calibration error, wrong "
            f"predictions of probability ≥ {THRESHOLD:g}, probability of the true class on right and on "
            "wrong images, probability of the second class, all in %:",
            [*columns, *CONFIDENCE.values()],
            *split_cells(confidence),
            optional=[*CONFIDENCE.values()][:1:-1],
        ),
        Table(
            "threshold",
            f"{heading}, test images: labels of probability ≥ {THRESHOLD:g}; images with no label and with "
            "several, all in %:",
            [*columns, *LABELS.values()],
            *split_cells(by_threshold),
            optional=[*LABELS.values()][:1:-1],
        ),
    ]


if __name__ == "__main__":
    launch(define_flags, main)
