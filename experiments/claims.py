"""The report's claims, what was measured of them, and a verdict on each by one rule."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from experiments.archive import Archive
from experiments.table import percent
from linear_cifar.config import Config

REPRODUCED, NOT_REPRODUCED, IN_DOUBT, NOT_RUN = "reproduced", "not reproduced", "in doubt", "not run"
# How far a figure may lie from the report's, in points: the images here may be a re-compressed copy.
TOLERANCE = 0.7

RULE = (
    f"A figure is reproduced if the mean over seeds lies within {TOLERANCE} points of the report's, and "
    "in doubt if it lies no further outside than two standard deviations. A comparison is reproduced if "
    "the 95 % confidence interval of its mean over seeds (Student's t, paired by seed) lies above zero, "
    "not reproduced if it lies below, else in doubt. With fewer than three seeds, and on made-up "
    "images, everything is in doubt. ± is one standard deviation over the seeds; which images are "
    "tested on adds about half a point to every accuracy, but little to differences on the same images."
)

Runs = Mapping[str, Archive]


class Claim(NamedTuple):
    """What the report says, the experiment that tests it, and how."""

    text: str
    reported: str
    experiment: str
    judge: Callable[[Archive], tuple[str, str]]  # to what was measured, and the verdict


class Finding(NamedTuple):
    """A claim beside what was measured; `archive` is the run it was measured in."""

    claim: Claim
    measured: str
    verdict: str
    archive: Archive | None


def findings(runs: Runs) -> list[Finding]:
    """A finding for every claim; runs by experiment."""
    return [_finding(claim, runs.get(claim.experiment)) for claim in CLAIMS]


def _finding(claim: Claim, archive: Archive | None) -> Finding:
    if archive is None:
        return Finding(claim, f"python -m experiments.{claim.experiment}", NOT_RUN, None)
    try:
        measured, verdict = claim.judge(archive)
    except KeyError as missing:
        return Finding(claim, f"this run left out {missing}", NOT_RUN, archive)
    return Finding(claim, measured, IN_DOUBT if archive.dataset == "synthetic" else verdict, archive)


def figure_verdict(reported: float, values: Float[np.ndarray, " S"]) -> str:
    """Whether accuracies in [0, 1], one per seed, meet a reported one in percent."""
    if len(values) < 3 or np.isnan(values).any():
        return IN_DOUBT
    off = abs(100 * values.mean() - reported) - TOLERANCE
    return REPRODUCED if off <= 0 else IN_DOUBT if off <= 200 * values.std(ddof=1) else NOT_REPRODUCED


def difference_verdict(differences: Float[np.ndarray, " S"]) -> str:
    """Whether differences, one per seed, are above zero."""
    if len(differences) < 3 or np.isnan(differences).any():
        return IN_DOUBT
    S, mean = len(differences), differences.mean()
    margin = stats.t.ppf(0.975, S - 1) * differences.std(ddof=1) / np.sqrt(S)
    return REPRODUCED if mean > margin else NOT_REPRODUCED if mean < -margin else IN_DOUBT


def worst(verdicts: list[str]) -> str:
    """Of several figures that a claim rests on."""
    return next(one for one in (NOT_REPRODUCED, IN_DOUBT, REPRODUCED) if one in verdicts)


def _signed(differences: Float[np.ndarray, " S"]) -> str:
    text = percent(differences)
    return f"{text if text.startswith('-') else '+' + text} points"


def _test(archive: Archive, variant: str, config: Config) -> Float[np.ndarray, " S"]:
    if config not in archive.configs(variant):
        raise KeyError(f"{variant}: eta {config.eta:g}, batch {config.batch}, lam {config.lam:g}")
    return archive.values("test_acc", variant, config)


def _table1(eta: float, lam: float) -> Callable[[Archive], Float[np.ndarray, " S"]]:
    return lambda archive: _test(archive, "table1", Config(eta, 100, lam))


HIGH, SMALL, HELPED, HARMED = _table1(0.1, 0), _table1(0.001, 0), _table1(0.001, 0.1), _table1(0.001, 1)


def _moves(
    before: Callable[[Archive], Float[np.ndarray, " S"]],
    after: Callable[[Archive], Float[np.ndarray, " S"]],
    sign: int,
) -> Callable[[Archive], tuple[str, str]]:
    """That test accuracy rises (sign 1) or falls (−1) from one row to another."""

    def judge(archive: Archive) -> tuple[str, str]:
        one, other = before(archive), after(archive)
        text = f"{percent(one)} to {percent(other)}: {_signed(other - one)}"
        return text, difference_verdict(sign * (other - one))

    return judge


def _meets(
    rows: Mapping[float, Callable[[Archive], Float[np.ndarray, " S"]]],
) -> Callable[[Archive], tuple[str, str]]:
    """That test accuracies are those reported."""

    def judge(archive: Archive) -> tuple[str, str]:
        values = {reported: row(archive) for reported, row in rows.items()}
        measured = "; ".join(map(percent, values.values()))
        return measured, worst([figure_verdict(reported, its) for reported, its in values.items()])

    return judge


BASE, TRICKS = "data_batch_1", "full data, flips, grid"
CLAIMED_BEST = Config(0.01, 400, 0.1)
TABLE2 = {"softmax": Config(0.01, 100, 0.1), "bce": Config(0.01, 100, 0.01)}


def _step(archive: Archive, name: str) -> Float[np.ndarray, " S"]:
    """Test accuracy of a step's selected configuration."""
    if name not in archive.variants:
        raise KeyError(name)
    return archive.values("test_acc", name, archive.best(name))


def _gains_four(archive: Archive) -> tuple[str, str]:
    gain = _step(archive, TRICKS) - _step(archive, BASE)
    text = f"{percent(_step(archive, BASE))} to {percent(_step(archive, TRICKS))}: {_signed(gain)}"
    return text, figure_verdict(3.9, gain)


def _small_eta_is_best(archive: Archive) -> tuple[str, str]:
    if TRICKS not in archive.variants:
        raise KeyError(TRICKS)
    best: dict[float, Float[np.ndarray, " S"]] = {}
    for config in archive.configs(TRICKS):
        values = archive.values("val_acc", TRICKS, config)
        if config.eta not in best or np.nan_to_num(values, nan=-1).mean() > best[config.eta].mean():
            best[config.eta] = np.nan_to_num(values, nan=-1)
    lowest, *others = sorted(best)
    rival = max(others, key=lambda eta: best[eta].mean())
    text = (
        f"validation: {percent(best[lowest])} at η {lowest:g}, at most {percent(best[rival])} at η {rival:g}"
    )
    return text, difference_verdict(best[lowest] - best[rival])


def _same_best(archive: Archive) -> tuple[str, str]:
    if TRICKS not in archive.variants:
        raise KeyError(TRICKS)
    found = archive.best(TRICKS)
    ours = archive.values("val_acc", TRICKS, found)
    theirs = archive.values("val_acc", TRICKS, CLAIMED_BEST)
    text = (
        f"η {found.eta:g}, batch {found.batch}, λ {found.lam:g}: validation {percent(ours)}; the report's "
        f"{percent(theirs)}"
    )
    if found == CLAIMED_BEST:
        return text, REPRODUCED if len(ours) >= 3 else IN_DOUBT
    # It is not the best if another one is better for sure.
    verdict = difference_verdict(ours - theirs)
    return text, NOT_REPRODUCED if verdict == REPRODUCED else IN_DOUBT


def _best_figure(archive: Archive) -> tuple[str, str]:
    claimed, ours = _test(archive, TRICKS, CLAIMED_BEST), _step(archive, TRICKS)
    text = f"{percent(claimed)} with that configuration; {percent(ours)} with the best by validation"
    return text, worst([figure_verdict(43.2, claimed)])


def _loss_measure(column: str) -> Callable[[Archive, str], Float[np.ndarray, " S"]]:
    return lambda archive, loss: archive.values(column, loss, TABLE2[loss], archive.measures)


def _gap(archive: Archive, loss: str) -> Float[np.ndarray, " S"]:
    train = archive.values("train_acc", loss, TABLE2[loss])
    return train - _test(archive, loss, TABLE2[loss])


def _higher(
    value: Callable[[Archive, str], Float[np.ndarray, " S"]], more: str, less: str
) -> Callable[[Archive], tuple[str, str]]:
    """That something is higher under one loss than under the other, at the report's settings."""

    def judge(archive: Archive) -> tuple[str, str]:
        high, low = value(archive, more), value(archive, less)
        return f"{more} {percent(high)}, {less} {percent(low)}", difference_verdict(high - low)

    return judge


def _tuned(archive: Archive) -> tuple[str, str]:
    softmax, bce = (archive.values("test_acc", loss, archive.best(loss)) for loss in ("softmax", "bce"))
    return f"softmax {percent(softmax)}, bce {percent(bce)}", difference_verdict(softmax - bce)


def _table2(loss: str) -> Callable[[Archive], Any]:
    return lambda archive: _test(archive, loss, TABLE2[loss])


CLAIMS = (
    Claim(
        "A high learning rate hurts (Table 1: η 0.1 against 0.001)",
        "27.00 to 39.21",
        "table1",
        _moves(HIGH, SMALL, 1),
    ),
    Claim(
        "A small learning rate gives the best (the grid: the smallest η)",
        "η = 0.001 in Table 1",
        "improve",
        _small_eta_is_best,
    ),
    Claim("λ = 0.1 helps slightly", "39.21 to 39.30", "table1", _moves(SMALL, HELPED, 1)),
    Claim("λ = 1 harms", "39.21 to 37.55", "table1", _moves(SMALL, HARMED, -1)),
    Claim(
        "Table 1, test accuracy at η 0.001, λ 0; 0.1; 1",
        "39.21; 39.30; 37.55",
        "table1",
        _meets({39.21: SMALL, 39.3: HELPED, 37.55: HARMED}),
    ),
    Claim("Table 1, test accuracy at η 0.1 (chaotic)", "27.00", "table1", _meets({27.0: HIGH})),
    Claim("Full data, flips and the grid gain 4 points", "39.30 to 43.20", "improve", _gains_four),
    Claim("The grid's best is η 0.01, batch 400, λ 0.1", "43.20", "improve", _same_best),
    Claim("Its test accuracy", "43.20", "improve", _best_figure),
    Claim(
        "Softmax beats BCE, at the report's settings",
        "38.88 against 38.10",
        "bce",
        _higher(_loss_measure("accuracy"), "softmax", "bce"),
    ),
    Claim("Softmax beats BCE, each with its own best of a grid", "38.88 against 38.10", "bce", _tuned),
    Claim(
        "Table 2, test accuracy of softmax (η 0.01, λ 0.1) and BCE (η 0.01, λ 0.01)",
        "38.88; 38.10",
        "bce",
        _meets({38.88: _table2("softmax"), 38.1: _table2("bce")}),
    ),
    Claim(
        "BCE gives several classes a high probability (mean of the second class)",
        "Figure 6",
        "bce",
        _higher(_loss_measure("second"), "bce", "softmax"),
    ),
    Claim(
        "Softmax is more confident (mean probability of the predicted class)",
        "Figure 6",
        "bce",
        _higher(_loss_measure("confidence"), "softmax", "bce"),
    ),
    Claim(
        "Softmax makes overconfident mistakes, BCE milder ones (share of wrong ones from 0.5 on)",
        "Figure 6",
        "bce",
        _higher(_loss_measure("overconfident"), "softmax", "bce"),
    ),
    Claim(
        "The same by the true class's mean probability on wrong images (Figure 6 itself)",
        "Figure 6",
        "bce",
        _higher(_loss_measure("true_wrong"), "bce", "softmax"),
    ),
    Claim(
        "BCE regularises (gap from training to test accuracy)",
        "6.58 against 7.54",
        "bce",
        _higher(_gap, "softmax", "bce"),
    ),
)
