import pytest

from experiments.cli.progress import EpochsBar, describe_size
from linear_cifar.config import Config
from linear_cifar.fitting import Progress
from linear_cifar.identity import Identity
from linear_cifar.replicates import ReplicateId

RUNS = Identity((Config(0.1, 10, 0.0),), (ReplicateId(0, None, ""),), {}, {}, ((1.0, 1),) * 49)


def step(advance, total, epoch=1, resumed=False):
    return Progress(advance, total, epoch, resumed, RUNS, None if resumed else 0.25)


def test_shares_of_epochs_fill_the_bar_and_never_more(capsys):
    with EpochsBar("grid", "title") as bar:
        bar.show(step(2 / 49, 2, resumed=True))
        for _ in range(2 * 49):  # one more than are left
            bar.show(step(1 / 49 + 1e-12, 2))
    errors = capsys.readouterr().err
    assert "| 2/2 [" in errors
    assert "best val acc 25.00%" in errors
    assert "reused: grid, 1 configuration, the first 1 of 49 epochs" in errors


def test_without_training_there_is_no_bar_and_nothing_begins(capsys):
    with EpochsBar("grid", "title", pytest.fail) as bar:
        bar.show(step(49, 49, epoch=49, resumed=True))
    assert capsys.readouterr().err == ""


def test_the_bar_appears_before_the_first_epoch(capsys):
    begun = []
    with EpochsBar("grid", "title", lambda: begun.append(True)) as bar:
        bar.show(step(0, 49, epoch=0, resumed=True))
        assert begun
        assert "title:   0%" in capsys.readouterr().err


def test_a_file_gets_few_lines_of_progress(capsys):
    with EpochsBar("grid", "title") as bar:
        for _ in range(1_000):
            bar.show(step(1, 1_000))
    assert capsys.readouterr().err.count("epoch/s") <= 3


def test_the_size_is_told_in_words():
    assert describe_size(1, 1, 0) == "1 configuration"
    assert describe_size(48, 2, 2, 4) == "48 configurations x 2 seeds x 2 folds"
    assert describe_size(48, 2, 2, 3) == "48 configurations x 3 of the folds"
