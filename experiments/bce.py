"""Table 2: sigmoid with multiple binary cross-entropy against softmax, and Figure 6.

    python -m experiments.bce

trains both losses on data_batch_1 under the report's (η, λ), batch 100, 40 epochs, five seeds, and under a
small grid, of which each loss's best by validation is shown too: 4 minutes on 2 cores, 2.6 GB.

Writes to --out: config.json, results.csv, history.csv, measures.csv (confidence, calibration, labels by
threshold), best_params.npz, tables.json; histograms (Figure 6), reliability and gap (training and test
accuracy per epoch), at the report's settings and, with _best, at each loss's best; each as .png and .svg.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import measures, plots, table
from experiments.conduct import conduct
from experiments.flags import define_grid, define_pairs, define_run, grid_of_flags
from experiments.measures import THRESHOLD
from experiments.run import Run
from experiments.settings import Variant, from_flags
from experiments.shell import launch
from experiments.table import Table, percent
from linear_cifar.config import Config

FLAGS = flags.FLAGS

# Measures in the tables, and their heads.
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
    """Defines the flags of this command."""
    define_grid(eta=(0.001, 0.003, 0.01, 0.03, 0.1), batch=(100,), lam=(0.0, 0.001, 0.01, 0.1))
    define_pairs("softmax_at", ((0.01, 0.1),), "the report's η:λ for softmax")
    define_pairs("bce_at", ((0.01, 0.01),), "the report's η:λ for binary cross-entropy")
    define_run(epochs=40, train="batch1", flip=False, seeds=5, recipes=("report",), fixed=("loss", "watch"))


def main() -> None:
    """Trains both losses."""
    variants = []
    for loss, pairs in (("softmax", FLAGS.softmax_at), ("bce", FLAGS.bce_at)):
        at = tuple(Config(eta, FLAGS.batch[0], lam) for eta, lam in pairs)
        configs = tuple(dict.fromkeys(at + grid_of_flags()))
        variants.append(Variant(loss, from_flags(loss=loss, watch=("train", "test")), configs))
    conduct("bce", variants, present, needs_all=True)


def present(folder: Path, runs: Sequence[Run]) -> list[Table]:
    """Table 2 by argmax and by threshold, Figure 6, the reliability diagram and the gaps."""
    predicted = [measures.predictions(run) for run in runs]
    measured = [measures.measure_all(run, its) for run, its in zip(runs, predicted, strict=True)]
    measures.write(folder, list(zip(runs, measured, strict=True)))
    heading = table.heading(runs[0])
    by_argmax, confidence, by_threshold = [], [], []
    for where, suffix in (("report's", ""), ("own best", "_best")):
        chosen = []
        for run, its, of in zip(runs, predicted, measured, strict=True):
            # The report's configuration is the first.
            c = run.ranking[0] if suffix else 0
            chosen.append((run, c, its))
            row = [run.variant.name, where, table.name_of(run, c)]
            by_argmax.append([*row, *table.accuracies(run, c)])
            confidence.append([*row, *(percent(getattr(of, name)[:, c]) for name in CONFIDENCE)])
            by_threshold.append([*row, *(percent(getattr(of, name)[:, c]) for name in LABELS)])
        plots.histograms(folder / f"histograms{suffix}", chosen)
        plots.reliabilities(folder / f"reliability{suffix}", chosen)
        plots.gaps(folder / f"gap{suffix}", chosen)
    columns = ["loss", "settings", ""]
    return [
        Table(
            "table2",
            f"Table 2: {heading}, accuracy by argmax in %:",
            [*columns, "train", "val", "test"],
            by_argmax,
        ),
        Table(
            "confidence",
            f"{heading}, test images: probability of the predicted class, expected calibration error, wrong "
            f"predictions from {THRESHOLD:g} on, probability of the true class on right and on wrong images, "
            "probability of the second class, all in %:",
            [*columns, *CONFIDENCE.values()],
            confidence,
        ),
        Table(
            "threshold",
            f"{heading}, test images: labels of probability {THRESHOLD:g} and more; images with no label and "
            "with several, all in %:",
            [*columns, *LABELS.values()],
            by_threshold,
        ),
    ]


if __name__ == "__main__":
    launch(define_flags, main)
