"""The report's claims, what was measured of them, and a verdict on each by one rule."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.archive import Archive, Missing
from experiments.table import percent
from linear_cifar.comparison import half_width
from linear_cifar.config import Config

REPRODUCED, NOT_REPRODUCED, IN_DOUBT, NOT_RUN = "reproduced", "not reproduced", "in doubt", "not run"
# In points: how far a figure may lie from the report's, as the images here may be a re-compressed copy; and
# what difference the choice of 10,000 test images alone may make between two runs.
TOLERANCE, SAMPLING = 0.7, 0.3

RULE = (
    f"A figure is reproduced if the mean over seeds lies within {TOLERANCE} points of the report's, and "
    "in doubt if it lies no further outside than two standard deviations. A comparison is reproduced if "
    "the 95 % confidence interval of its mean over seeds (Student's t, paired by seed) lies above zero "
    f"and the mean above {SAMPLING} points, which the choice of test images alone may make; not "
    "reproduced if they lie as far below; else in doubt. A configuration is the best if it is by "
    "validation; another one is not reproduced as the best if that one beats it on the test images, by "
    "the rule for comparisons, else in doubt. With fewer than three seeds, and on made-up images, "
    "everything is in doubt. ± is one standard deviation over the seeds, of weights, order and flips; "
    "the choice of images adds about half a point to every accuracy."
)

# How the report trained; a run with other settings says nothing of its claims.
COMMON = {"epochs": 40, "shift": 0, "schedule": "constant", "average": 1, "shuffle": True}
BASE, TRICKS = "data_batch_1", "full data, flips, grid"
SMALL, FULL = {"train": "batch1", "flip": False}, {"train": "full", "flip": True}
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "table1": {"table1": COMMON | SMALL | {"loss": "softmax"}},
    "bce": {"softmax": COMMON | SMALL, "bce": COMMON | SMALL},
    "improve": {BASE: COMMON | SMALL, TRICKS: COMMON | FULL},
}

Values = Float[np.ndarray, " S"]  # of one configuration, by seed
Row = Callable[[Archive], Values]
Judge = Callable[[Archive], tuple[str, str]]


class Claim(NamedTuple):
    """What the report says, the experiment that tests it, and how: to what was measured, and the verdict."""

    text: str
    reported: str
    experiment: str
    judge: Judge


class Finding(NamedTuple):
    """A claim beside what was measured; `archive` is the run it was measured in."""

    claim: Claim
    measured: str
    verdict: str
    archive: Archive | None


def findings(runs: Mapping[str, Archive]) -> list[Finding]:
    """A finding for every claim; runs by experiment."""
    return [_finding(claim, runs.get(claim.experiment)) for claim in CLAIMS]


def _finding(claim: Claim, archive: Archive | None) -> Finding:
    if archive is None:
        return Finding(claim, f"python -m experiments.{claim.experiment}", NOT_RUN, None)
    other = deviation(archive)
    if other:
        return Finding(claim, f"this run has {other}", NOT_RUN, archive)
    try:
        measured, verdict = claim.judge(archive)
    except Missing as missing:
        return Finding(claim, f"this run lacks {missing}", NOT_RUN, archive)
    return Finding(claim, measured, IN_DOUBT if archive.dataset == "synthetic" else verdict, archive)


def deviation(archive: Archive) -> str | None:
    """The first setting in which a run differs from the report's."""
    for variant, expected in SETTINGS.get(archive.experiment, {}).items():
        its = archive.variants.get(variant, expected)
        for name, value in expected.items():
            if its[name] != value:
                return f"{name} {its[name]}, the report {value}"
    return None


def figure_verdict(reported: float, values: Values) -> str:
    """Whether accuracies in [0, 1], one per seed, meet a reported one in percent."""
    if len(values) < 3 or np.isnan(values).any():
        return IN_DOUBT
    off = abs(100 * values.mean() - reported) - TOLERANCE
    return REPRODUCED if off <= 0 else IN_DOUBT if off <= 200 * values.std(ddof=1) else NOT_REPRODUCED


def difference_verdict(differences: Values) -> str:
    """Whether differences of shares in [0, 1], one per seed, are above zero."""
    if len(differences) < 3 or np.isnan(differences).any():
        return IN_DOUBT
    mean, margin = 100 * differences.mean(), max(SAMPLING, 100 * float(half_width(differences)))
    return REPRODUCED if mean > margin else NOT_REPRODUCED if mean < -margin else IN_DOUBT


def worst(verdicts: list[str]) -> str:
    """Of several figures that a claim rests on."""
    return next(one for one in (NOT_REPRODUCED, IN_DOUBT, REPRODUCED) if one in verdicts)


def _signed(differences: Values) -> str:
    text = percent(differences)
    return f"{text if text.startswith('-') else '+' + text} points"


def _test(variant: str, config: Config) -> Row:
    return lambda archive: archive.values("test_acc", variant, config)


def _table1(eta: float, lam: float) -> Row:
    return _test("table1", Config(eta, 100, lam))


def _step(name: str) -> Row:
    """Test accuracy of a step's selected configuration."""
    return lambda archive: archive.values("test_acc", name, archive.best(name))


def _moves(before: Row, after: Row, sign: int) -> Judge:
    """That test accuracy rises (sign 1) or falls (−1) from one row to another."""

    def judge(archive: Archive) -> tuple[str, str]:
        one, other = before(archive), after(archive)
        text = f"{percent(one)} to {percent(other)}: {_signed(other - one)}"
        return text, difference_verdict(sign * (other - one))

    return judge


def _meets(rows: Mapping[float, Row]) -> Judge:
    """That test accuracies are those reported."""

    def judge(archive: Archive) -> tuple[str, str]:
        values = {reported: row(archive) for reported, row in rows.items()}
        measured = "; ".join(map(percent, values.values()))
        return measured, worst([figure_verdict(reported, its) for reported, its in values.items()])

    return judge


def _gains_four(archive: Archive) -> tuple[str, str]:
    before, after = _step(BASE)(archive), _step(TRICKS)(archive)
    text = f"{percent(before)} to {percent(after)}: {_signed(after - before)}"
    return text, figure_verdict(3.9, after - before)


def _small_eta_is_best(archive: Archive) -> tuple[str, str]:
    """The best by validation with the smallest η against the best with another one, on the test images."""
    best = archive.best(TRICKS)
    configs = archive.configs(TRICKS)
    lowest = min(config.eta for config in configs)
    small = archive.best(TRICKS, lambda config: config.eta == lowest)
    other = archive.best(TRICKS, lambda config: config.eta != lowest)
    ours, theirs = (archive.values("test_acc", TRICKS, config) for config in (small, other))
    text = (
        f"best by validation at η {best.eta:g}; test {percent(ours)} at η {lowest:g}, else {percent(theirs)}"
    )
    return text, REPRODUCED if best == small else _unless_beaten(ours, theirs)


def _same_best(archive: Archive) -> tuple[str, str]:
    best = archive.best(TRICKS)
    claimed, ours = (archive.values("test_acc", TRICKS, config) for config in (CLAIMED_BEST, best))
    found = f"η {best.eta:g}, batch {best.batch}, λ {best.lam:g}"
    text = f"{found}: test {percent(ours)}; the report's {percent(claimed)}"
    return text, REPRODUCED if best == CLAIMED_BEST else _unless_beaten(claimed, ours)


def _unless_beaten(claimed: Values, best: Values) -> str:
    """What is not the best by validation may still be as good on the test images."""
    return NOT_REPRODUCED if difference_verdict(best - claimed) == REPRODUCED else IN_DOUBT


def _measure(column: str) -> Callable[[str], Row]:
    """A measure under a loss, at the report's settings."""
    return lambda loss: lambda archive: archive.values(column, loss, TABLE2[loss])


def _gap(loss: str) -> Row:
    return lambda archive: (
        archive.values("train_acc", loss, TABLE2[loss]) - _test(loss, TABLE2[loss])(archive)
    )


def _higher(value: Callable[[str], Row], more: str, less: str) -> Judge:
    """That something is higher under one loss than under the other."""

    def judge(archive: Archive) -> tuple[str, str]:
        high, low = value(more)(archive), value(less)(archive)
        return f"{more} {percent(high)}, {less} {percent(low)}", difference_verdict(high - low)

    return judge


CLAIMED_BEST = Config(0.01, 400, 0.1)
TABLE2 = {"softmax": Config(0.01, 100, 0.1), "bce": Config(0.01, 100, 0.01)}
HIGH_ETA, SMALL_ETA = _table1(0.1, 0), _table1(0.001, 0)
SOME_LAM, HIGH_LAM = _table1(0.001, 0.1), _table1(0.001, 1)

CLAIMS = (
    Claim(
        "A high learning rate hurts (Table 1: η 0.1 against 0.001)",
        "27.00 to 39.21",
        "table1",
        _moves(HIGH_ETA, SMALL_ETA, 1),
    ),
    Claim(
        "A small learning rate gives the best result (the grid: the smallest η)",
        "η 0.001 in Table 1, η 0.01 in the grid",
        "improve",
        _small_eta_is_best,
    ),
    Claim("λ = 0.1 helps slightly", "39.21 to 39.30", "table1", _moves(SMALL_ETA, SOME_LAM, 1)),
    Claim("λ = 1 harms", "39.21 to 37.55", "table1", _moves(SMALL_ETA, HIGH_LAM, -1)),
    Claim(
        "Table 1, test accuracy at η 0.001, λ 0; 0.1; 1",
        "39.21; 39.30; 37.55",
        "table1",
        _meets({39.21: SMALL_ETA, 39.3: SOME_LAM, 37.55: HIGH_LAM}),
    ),
    Claim("Table 1, test accuracy at η 0.1 (chaotic)", "27.00", "table1", _meets({27.0: HIGH_ETA})),
    Claim("Full data, flips and the grid gain 4 points", "39.30 to 43.20", "improve", _gains_four),
    Claim("The grid's best is η 0.01, batch 400, λ 0.1", "43.20", "improve", _same_best),
    Claim("Its test accuracy", "43.20", "improve", _meets({43.2: _test(TRICKS, CLAIMED_BEST)})),
    Claim(
        "Softmax beats BCE, at the report's settings",
        "38.88 against 38.10",
        "bce",
        _higher(_measure("accuracy"), "softmax", "bce"),
    ),
    Claim(
        "Softmax beats BCE, each with its own best of a grid",
        "38.88 against 38.10",
        "bce",
        _higher(_step, "softmax", "bce"),
    ),
    Claim(
        "Table 2, test accuracy of softmax (η 0.01, λ 0.1) and BCE (η 0.01, λ 0.01)",
        "38.88; 38.10",
        "bce",
        _meets({38.88: _test("softmax", TABLE2["softmax"]), 38.1: _test("bce", TABLE2["bce"])}),
    ),
    Claim(
        "BCE gives several classes a high probability (mean of the second class)",
        "Figure 6",
        "bce",
        _higher(_measure("second"), "bce", "softmax"),
    ),
    Claim(
        "Softmax is more confident (mean probability of the predicted class)",
        "Figure 6",
        "bce",
        _higher(_measure("confidence"), "softmax", "bce"),
    ),
    Claim(
        "Softmax makes overconfident mistakes, BCE milder ones (share of wrong ones from 0.5 on)",
        "Figure 6",
        "bce",
        _higher(_measure("overconfident"), "softmax", "bce"),
    ),
    Claim(
        "The same by the true class's mean probability on wrong images (Figure 6 itself)",
        "Figure 6",
        "bce",
        _higher(_measure("true_wrong"), "bce", "softmax"),
    ),
    Claim(
        "BCE regularises: a smaller gap from training to test accuracy",
        "softmax 6.58, bce 7.54: by Table 2 itself a larger one",
        "bce",
        _higher(_gap, "softmax", "bce"),
    ),
)
