"""The report's claims, the numbers measured for each, and a verdict on each by one rule."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.artifacts.reader import ExperimentFolder, MissingResult
from experiments.artifacts.tables import format_difference, format_interval
from linear_cifar.config import Config
from linear_cifar.uncertainty import estimate_accuracy, estimate_difference, half_width

REPRODUCED, NOT_REPRODUCED, IN_DOUBT, NOT_RUN = "reproduced", "not reproduced", "in doubt", "not run"
# In points: allows for images that are a re-compressed copy of the report's. Weights trained on the copy
# classify images better in their original form: by 0.01 to 0.46 points for eight configurations.
TOLERANCE = 0.7
MIN_SEEDS = 3

RULE = (
    "± is half of the 95 % interval over seeds and test images, whose ends are in brackets where it is not "
    "symmetric. "
    "A comparison is reproduced if the interval of its difference, paired by seed and by image, lies above "
    "zero. It is not reproduced if the interval lies below zero. Otherwise it is in doubt. "
    f"A reported number is reproduced if the mean over seeds lies within {TOLERANCE} points of it, which "
    "allows for images that are a re-compressed copy. It is in doubt if one more seed may come that near: "
    "the report trained once, and on the same test images, so its number scatters as one seed does (95 % "
    "prediction interval, Student's t). Otherwise it is not reproduced. "
    "A claim about several numbers gets the least favourable of their verdicts. "
    "The claim that a configuration is the best is reproduced if that configuration is the best by "
    "validation. It is not reproduced if another one is, and beats it on the test images by the rule for "
    "comparisons. Otherwise it is in doubt. "
    f"With fewer than {MIN_SEEDS} seeds, and on synthetic images, every claim is in doubt."
)

# Settings of the report. An experiment with other settings does not test its claims.
COMMON = {"epochs": 40, "shift": 0, "schedule": "constant", "average": 1, "shuffle": True}
BASE, TRICKS = "data_batch_1", "full data, flips, grid"
SMALL, FULL = {"train": "batch1", "flip": False}, {"train": "full", "val_size": 1000, "flip": True}
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "table1": {"table1": COMMON | SMALL | {"loss": "softmax"}},
    "grid": {"grid": COMMON | FULL | {"loss": "softmax"}},
    "search": {"search": COMMON | FULL | {"loss": "softmax"}},
    "bce": {"softmax": COMMON | SMALL, "bce": COMMON | SMALL},
    "improve": {BASE: COMMON | SMALL, TRICKS: COMMON | FULL},
}

# Values per test image of a configuration from each seed, whose mean is measured; NaN if it diverged.
Values = Float[np.ndarray, "S n"]
Measurement = Callable[[ExperimentFolder], Values]
Judge = Callable[[ExperimentFolder], tuple[str, str]]


class Claim(NamedTuple):
    """A claim of the report, and the name of the experiment that tests it.

    `judge` takes that experiment and returns the measured numbers as text, and the verdict.
    """

    text: str
    reported: str
    experiment: str
    judge: Judge


class Finding(NamedTuple):
    """A claim beside the measured numbers, and the experiment they are from."""

    claim: Claim
    measured: str
    verdict: str
    experiment: ExperimentFolder | None


def judge_claims(experiments: Mapping[str, ExperimentFolder]) -> list[Finding]:
    """Return a finding for every claim, from experiments by their names."""
    return [_judge_claim(claim, experiments.get(claim.experiment)) for claim in CLAIMS]


def _judge_claim(claim: Claim, experiment: ExperimentFolder | None) -> Finding:
    if experiment is None:
        return Finding(claim, f"python -m experiments.{claim.experiment}", NOT_RUN, None)
    deviation = find_deviation(experiment)
    if deviation:
        return Finding(claim, f"this experiment has {deviation}", NOT_RUN, experiment)
    try:
        measured, verdict = claim.judge(experiment)
    except MissingResult as missing:
        return Finding(claim, f"this experiment has no {missing}", NOT_RUN, experiment)
    return Finding(claim, measured, IN_DOUBT if experiment.dataset == "synthetic" else verdict, experiment)


def find_deviation(experiment: ExperimentFolder) -> str:
    """Return the settings in which an experiment on CIFAR-10 differs from the report, as text."""
    expected_settings = {} if experiment.user_file else SETTINGS.get(experiment.name, {})
    differences = []
    for sweep, expected in expected_settings.items():
        settings = experiment.sweeps.get(sweep, expected)
        for name, value in expected.items():
            setting = f"{settings[name]} epochs" if name == "epochs" else f"{name} {settings[name]}"
            differences += [f"{setting}, the report has {value}"] * (settings[name] != value)
    return "; ".join(dict.fromkeys(differences))


def judge_number(reported: float, values: Values) -> str:
    """Return the verdict on a reported number in percent, given values of shares in [0, 1]."""
    by_seed = 100 * values.mean(axis=1)
    if len(by_seed) < MIN_SEEDS or np.isnan(by_seed).any():
        return IN_DOUBT
    excess = abs(by_seed.mean() - reported) - TOLERANCE
    # The interval of one more seed: t · s · √(1 + 1/S), where that of the mean is t · s / √S.
    of_one_seed = float(half_width(by_seed)) * np.sqrt(len(by_seed) + 1)
    return REPRODUCED if excess <= 0 else IN_DOUBT if excess <= of_one_seed else NOT_REPRODUCED


def judge_difference(differences: Values) -> str:
    """Return the verdict on the claim that the mean of the differences lies above zero."""
    if len(differences) < MIN_SEEDS:
        return IN_DOUBT
    interval = estimate_difference(differences, np.zeros_like(differences))
    return REPRODUCED if interval.low > 0 else NOT_REPRODUCED if interval.high < 0 else IN_DOUBT


def _percent(values: Values) -> str:
    """Return the mean of values in percent, with its interval."""
    return format_interval(estimate_accuracy(values))


def _points(differences: Values) -> str:
    """Return the mean of differences in points, with its interval."""
    return format_difference(estimate_difference(differences, np.zeros_like(differences)))


def _accuracy(experiment: ExperimentFolder, sweep: str, config: Config | None = None) -> Values:
    """Return which test images a configuration predicts right; None: the best by validation."""
    result = experiment.result(sweep)
    config = config or result.best().config
    if config not in result.configs:
        raise MissingResult(f"{sweep} with eta {config.eta:g}, batch {config.batch}, lam {config.lam:g}")
    c = result.configs.index(config)
    return np.where(result.stayed_finite[c], result.values("test", c), np.nan)


def _reported_accuracy(experiment: ExperimentFolder, loss: str) -> Values:
    """Return which test images the report's configuration of a loss predicts right."""
    return _accuracy(experiment, loss, TABLE2[loss])


def _accuracy_gap(experiment: ExperimentFolder, loss: str) -> Values:
    """Return training accuracy minus `_reported_accuracy`."""
    test, result = _reported_accuracy(experiment, loss), experiment.result(loss)
    # The training images are taken as given, so each seed has one training accuracy.
    train = result.final["train_acc"][:, [result.configs.index(TABLE2[loss])]]
    return train.astype(np.float64) - test


def _measure(name: str) -> Callable[[ExperimentFolder, str], Values]:
    """Return a function that gives a measure of the report's configuration of a loss, see values.npz."""
    return lambda experiment, loss: experiment.measured(name, loss, TABLE2[loss])


def _changes(measure_old: Measurement, measure_new: Measurement, sign: int) -> Judge:
    """Judge whether test accuracy rises (sign 1) or falls (sign −1) from one measurement to another."""

    def judge(experiment: ExperimentFolder) -> tuple[str, str]:
        old, new = measure_old(experiment), measure_new(experiment)
        return _describe_change(old, new), judge_difference(sign * (new - old))

    return judge


def _describe_change(old: Values, new: Values) -> str:
    """Return two accuracies and their difference as text."""
    return f"{_percent(old)} to {_percent(new)}: {_points(new - old)} points"


def _equal(measurements: Mapping[float, Measurement]) -> Judge:
    """Judge whether test accuracies are the reported ones, which are the keys."""

    def judge(experiment: ExperimentFolder) -> tuple[str, str]:
        values = {reported: measure(experiment) for reported, measure in measurements.items()}
        verdicts = [judge_number(reported, accuracies) for reported, accuracies in values.items()]
        least_favourable = min(verdicts, key=(NOT_REPRODUCED, IN_DOUBT, REPRODUCED).index)
        return "; ".join(map(_percent, values.values())), least_favourable

    return judge


def _higher(measure: Callable[[ExperimentFolder, str], Values], higher: str, lower: str) -> Judge:
    """Judge whether a measurement is higher for one loss than for the other."""

    def judge(experiment: ExperimentFolder) -> tuple[str, str]:
        high, low = measure(experiment, higher), measure(experiment, lower)
        text = f"{higher} {_percent(high)}, {lower} {_percent(low)}: {_points(high - low)}"
        return text, judge_difference(high - low)

    return judge


def _judge_gain(experiment: ExperimentFolder) -> tuple[str, str]:
    """Judge whether the report's three steps gain what it says."""
    old, new = _accuracy(experiment, BASE), _accuracy(experiment, TRICKS)
    return _describe_change(old, new), judge_number(3.9, new - old)


def _judge_smallest_eta(experiment: ExperimentFolder) -> tuple[str, str]:
    """Compare the best configuration at the smallest η with the best at any other η."""
    result = experiment.result(TRICKS)
    ranked = [result.configs[c] for c in result.ranking()]
    lowest = min(config.eta for config in ranked)
    others = [config for config in ranked if config.eta != lowest]
    if not others:
        raise MissingResult(f"{TRICKS} with another eta than {lowest:g}")
    claimed = next(config for config in ranked if config.eta == lowest)
    ours, theirs = (_accuracy(experiment, TRICKS, config) for config in (claimed, others[0]))
    by_test = f"test {_percent(ours)} at η {lowest:g}, else {_percent(theirs)}"
    text = f"best by validation at η {ranked[0].eta:g}; {by_test}"
    return text, REPRODUCED if ranked[0] == claimed else _judge_rival(ours, theirs)


def _judge_best(experiment: ExperimentFolder) -> tuple[str, str]:
    """Compare the configuration that is best here with the one that is best in the report."""
    best = experiment.result(TRICKS).best().config
    claimed, ours = (_accuracy(experiment, TRICKS, config) for config in (CLAIMED_BEST, best))
    found = f"η {best.eta:g}, batch {best.batch}, λ {best.lam:g}"
    text = f"{found}: test {_percent(ours)}; the report's {_percent(claimed)}"
    return text, REPRODUCED if best == CLAIMED_BEST else _judge_rival(claimed, ours)


def _judge_rival(claimed: Values, rival: Values) -> str:
    """Return the verdict on a claimed best, given that a rival is better by validation."""
    return NOT_REPRODUCED if judge_difference(rival - claimed) == REPRODUCED else IN_DOUBT


CLAIMED_BEST = Config(0.01, 400, 0.1)
TABLE2 = {"softmax": Config(0.01, 100, 0.1), "bce": Config(0.01, 100, 0.01)}
HIGH_ETA, SMALL_ETA, SOME_LAM, HIGH_LAM = (
    partial(_accuracy, sweep="table1", config=Config(eta, 100, lam))
    for eta, lam in ((0.1, 0), (0.001, 0), (0.001, 0.1), (0.001, 1))
)
BEST = partial(_accuracy, sweep=TRICKS, config=CLAIMED_BEST)
SOFTMAX, BCE = (partial(_reported_accuracy, loss=loss) for loss in TABLE2)

CLAIMS = (
    Claim(
        "A high learning rate hurts (Table 1: η 0.1 against 0.001)",
        "27.00 to 39.21",
        "table1",
        _changes(HIGH_ETA, SMALL_ETA, 1),
    ),
    Claim(
        "A small learning rate gives the best result (the grid: the smallest η)",
        "η 0.001 in Table 1, η 0.01 in the grid",
        "improve",
        _judge_smallest_eta,
    ),
    Claim("λ = 0.1 helps slightly", "39.21 to 39.30", "table1", _changes(SMALL_ETA, SOME_LAM, 1)),
    Claim("λ = 1 harms", "39.21 to 37.55", "table1", _changes(SMALL_ETA, HIGH_LAM, -1)),
    Claim(
        "Table 1, test accuracy at η 0.001, λ 0; 0.1; 1",
        "39.21; 39.30; 37.55",
        "table1",
        _equal({39.21: SMALL_ETA, 39.3: SOME_LAM, 37.55: HIGH_LAM}),
    ),
    Claim("Table 1, test accuracy at η 0.1 (chaotic)", "27.00", "table1", _equal({27.0: HIGH_ETA})),
    Claim("Full data, flips and the grid gain 4 points", "39.30 to 43.20", "improve", _judge_gain),
    Claim("The grid's best is η 0.01, batch 400, λ 0.1", "43.20", "improve", _judge_best),
    Claim("Test accuracy at η 0.01, batch 400, λ 0.1", "43.20", "improve", _equal({43.2: BEST})),
    Claim(
        "Softmax beats BCE, at the report's settings",
        "38.88 against 38.10",
        "bce",
        _higher(_reported_accuracy, "softmax", "bce"),
    ),
    Claim(
        "Softmax beats BCE, each at its own best configuration",
        "38.88 against 38.10",
        "bce",
        _higher(_accuracy, "softmax", "bce"),
    ),
    Claim(
        "Table 2, test accuracy of softmax (η 0.01, λ 0.1) and BCE (η 0.01, λ 0.01)",
        "38.88; 38.10",
        "bce",
        _equal({38.88: SOFTMAX, 38.1: BCE}),
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
        "Softmax makes overconfident mistakes, BCE milder ones (share of wrong ones with probability ≥ 0.5)",
        "Figure 6",
        "bce",
        _higher(_measure("overconfident"), "softmax", "bce"),
    ),
    Claim(
        "The same claim by the true class's mean probability on wrong images (Figure 6 itself)",
        "Figure 6",
        "bce",
        _higher(_measure("true_wrong"), "bce", "softmax"),
    ),
    Claim(
        "BCE regularises: a smaller gap from training to test accuracy",
        "softmax 6.58, bce 7.54: by Table 2 itself a larger one",
        "bce",
        _higher(_accuracy_gap, "softmax", "bce"),
    ),
)
