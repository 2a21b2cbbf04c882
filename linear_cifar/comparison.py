"""Which of several feature sets is best: compared by each one's best configuration."""

from typing import NamedTuple

from linear_cifar.config import Config
from linear_cifar.uncertainty import Estimate, Selection


class Comparison(NamedTuple):
    """Feature sets compared by the accuracy of each one's best configuration."""

    names: tuple[str, ...]  # of the feature sets
    on: str  # name of the evaluation set that compares them
    configs: tuple[Config, ...]  # the best of each, by all examples that choose
    accuracy: tuple[Estimate, ...]  # of each
    selection: Selection  # differences from the best, which may be the best, what choosing it reaches
    best: int  # index of the most accurate
