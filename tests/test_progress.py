import pytest

from experiments.cli.clock import Clock
from experiments.cli.progress import EpochsBar, describe_size
from linear_cifar.config import Config
from linear_cifar.fitting import Progress
from linear_cifar.identity import Identity
from linear_cifar.replicates import ReplicateId

RUNS = Identity((Config(0.1, 10, 0.0),), (ReplicateId(0, None, ""),), {}, {}, ((1.0, 1),) * 49)


def step(advance, total, epoch=1, resumed=False, accuracy=0.25):
    return Progress(advance, total, epoch, resumed, RUNS, None if resumed else accuracy)


def test_shares_of_epochs_fill_the_bar_and_never_more(capsys):
    with EpochsBar("grid", "title", Clock()) as bar:
        bar.show(step(2 / 49, 2, resumed=True))
        for _ in range(2 * 49):  # one more than are left
            bar.show(step(1 / 49 + 1e-12, 2))
    errors = capsys.readouterr().err
    assert "| 2/2 [" in errors
    assert "best val acc 25.00%" in errors
    assert "reused: grid, 1 configuration, the first 1 of 49 epochs" in errors


def test_without_training_there_is_no_bar_and_nothing_begins(capsys):
    with EpochsBar("grid", "title", Clock(), pytest.fail) as bar:
        bar.show(step(49, 49, epoch=49, resumed=True))
    assert capsys.readouterr().err == ""


def test_the_bar_appears_before_the_first_epoch(capsys):
    begun = []
    with EpochsBar("grid", "title", Clock(), lambda: begun.append(True)) as bar:
        bar.show(step(0, 49, epoch=0, resumed=True))
        assert begun
        assert "title:   0%|" in capsys.readouterr().err


def test_a_file_gets_few_lines_of_progress(capsys):
    with EpochsBar("grid", "title", Clock()) as bar:
        for _ in range(1_000):
            bar.show(step(1, 1_000))
    assert capsys.readouterr().err.count("%|") <= 3


def test_the_bar_ends_with_the_accuracy_of_the_result(capsys, monkeypatch):
    monkeypatch.setattr("experiments.cli.progress.LOGGED_UPDATE", 0.0)
    with EpochsBar("grid", "title", Clock()) as bar:
        bar.show(step(1, 4, accuracy=0.5))
        bar.show(step(1, 4, accuracy=0.3))  # the best of an earlier epoch does not stay
        bar.finish(0.375)
    shown = [line for line in capsys.readouterr().err.split("\r") if "acc" in line]
    assert ["50.00%" in shown[0], "30.00%" in shown[1], "37.50%" in shown[-1]] == [True] * 3


def test_the_bar_fits_into_80_columns_and_counts_whole_epochs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with EpochsBar("grid", "a data set of some name, grid", Clock()) as bar:
        bar.show(step(1.4, 5.969))
        bar.finish(0.5)
    line = capsys.readouterr().err.split("\r")[-1].rstrip("\n")
    assert len(line) <= 80
    assert "| 1/6 [" in line
    assert "best val acc 50.00%]" in line


def test_the_time_left_is_told_after_the_first_epoch(capsys, monkeypatch):
    monkeypatch.setattr("experiments.cli.progress.TOLD", 0.0)
    with EpochsBar("grid", "title", Clock()) as bar:
        for _ in range(3):
            bar.show(step(1, 3))
    assert capsys.readouterr().err.count("grid: about 00:00 left on this machine") == 1


def test_the_size_is_told_in_words():
    assert describe_size(1, 1, 0) == "1 configuration"
    assert describe_size(48, 2, 2, 4) == "48 configurations x 2 seeds x 2 folds"
    assert describe_size(48, 2, 2, 3) == "48 configurations x 3 of the folds"
