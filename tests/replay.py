"""Replay halving on a search that was trained to the end: what would it have lost?

    python -m experiments.search --points=1024 --seeds=6 --q=0:0.9 --batch=50,100,200 --out=whole
    python tests/replay.py whole

The command without --halving trains every run to the end, and its history has what each rung would have
seen. The script decides at the rungs as `choose_survivors` does, for other rungs and by other rules, within
brackets of 256 points or of another number. A trial is a bracket and some of the seeds. In each trial it
compares two choices: the best by validation among all, and among those that reach the end. The standard
errors take trials as independent, although those of a bracket share its test images.
experiments/RESULTS.md has a table.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from experiments.artifacts.reader import ExperimentFolder  # noqa: E402
from experiments.artifacts.tables import align  # noqa: E402
from linear_cifar.halving import choose_survivors, split_brackets  # noqa: E402
from linear_cifar.result import Result  # noqa: E402
from linear_cifar.uncertainty import confidence_set, rank, standard_error  # noqa: E402

# Rungs as shares of the epochs, and the factor; those of 40 epochs are 2, 6, 18 and so on.
RUNGS = (
    ((1 / 20, 3 / 20, 9 / 20), 3),
    ((3 / 20, 9 / 20), 3),
    ((1 / 10, 3 / 10), 3),
    ((1 / 40, 3 / 40, 9 / 40, 27 / 40), 3),
    ((1 / 20, 3 / 20, 9 / 20), 2),
)
RULES = ("by batch size", "all together", "by loss")


class Trial(NamedTuple):
    """The outcome of halving in one bracket, decided by some of the seeds."""

    work: float  # share of the epochs
    lost: bool  # whether the best was stopped
    val: float  # points of validation accuracy that the choice is below the best
    test: float  # points of test accuracy, mean over all seeds
    in_set: bool  # whether the choice may be the best of the bracket, by all seeds


def find_set(whole: Result, members: Sequence[int]) -> set[int]:
    """Return which of a bracket's configurations may be the best, by all seeds."""
    correct = np.stack([whole.values("val", c) for c in members], axis=1)
    in_set = confidence_set(correct, whole.diverged[:, members] > 0)
    return {c for c, member in zip(members, in_set, strict=True) if member}


def replay(
    whole: Result,
    members: Sequence[int],
    may_be_best: set[int],
    seeds: Sequence[int],
    rungs: Sequence[int],
    factor: int,
    rule: str,
) -> Trial:
    """Decide at each rung which of the bracket's configurations train on, and choose at the end."""
    loss, accuracy = whole.history["val_loss"], whole.history["val_acc"]
    alive, begun, work = list(members), 0, 0
    for rung in rungs:
        work += len(alive) * (rung - begun)
        reached = tuple(values[rung - 1][np.ix_(seeds, alive)] for values in (loss, accuracy))
        batches = [whole.configs[c].batch if rule == "by batch size" else 0 for c in alive]
        # As if the accuracy were the loss: the lowest loss is the best.
        judged = -reached[0] if rule == "by loss" else reached[1]
        alive, begun = [alive[c] for c in choose_survivors(reached[0], judged, batches, factor)], rung
    epochs = len(loss)
    work += len(alive) * (epochs - begun)

    def choose(candidates: Sequence[int]) -> int:
        final = (values[-1][np.ix_(seeds, candidates)] for values in (loss, accuracy))
        return candidates[rank(*final)[0]]

    best, chosen = choose(members), choose(alive)
    val, test = accuracy[-1][seeds].mean(axis=0), whole.final["test_acc"].mean(axis=0)
    return Trial(
        work / (len(members) * epochs),
        best not in alive,
        100 * (val[best] - val[chosen]),
        100 * (test[best] - test[chosen]),
        chosen in may_be_best,
    )


def main() -> None:
    """Print a table for each number of seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--bracket", type=int, default=256)
    arguments = parser.parse_args()
    whole = ExperimentFolder(arguments.folder).result("search")
    if whole.halved:
        parser.error(f"{arguments.folder} is a search with halving: give one without")
    epochs, S, C = whole.history["val_loss"].shape
    brackets = split_brackets(range(C), arguments.bracket)
    sets = [find_set(whole, members) for members in brackets]
    print(
        f"configurations that may be the best of each bracket: {', '.join(str(len(found)) for found in sets)}"
    )
    rows = [
        ["seeds", "rungs", "keeps", "rule", "work", "best stopped", "val lost", "test lost", "in set", ""]
    ]
    for count, (shares, factor), rule in itertools.product(arguments.seeds, RUNGS, RULES):
        rungs = [max(1, round(share * epochs)) for share in shares]
        trials = [
            replay(whole, members, found, range(start, start + count), rungs, factor, rule)
            for members, found in zip(brackets, sets, strict=True)
            for start in range(0, S - count + 1, count)
        ]
        work, lost, val, test, in_set = map(np.array, zip(*trials, strict=True))
        rows.append(
            [
                str(count),
                ",".join(map(str, rungs)),
                f"1/{factor}",
                rule,
                f"{100 * work.mean():.0f} %",
                f"{100 * lost.mean():.0f} %",
                f"{val.mean():.2f}",
                f"{test.mean():+.2f} ± {standard_error(test):.2f} (SE)",
                f"{100 * in_set.mean():.0f} %",
                "",
            ]
        )
    print(align(rows))


if __name__ == "__main__":
    main()
