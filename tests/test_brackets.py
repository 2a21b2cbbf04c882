"""Brackets of a search with halving: their results, parts, programs, and how they are resumed."""

import contextlib
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import make_sweep, small_data

from experiments.runner import brackets, training
from experiments.runner.blocks import Block
from experiments.runner.brackets import average_epochs, train_bracket
from experiments.runner.checkpoints import Checkpoints
from experiments.runner.training import Task, train_sweep, train_tasks
from linear_cifar.sampling import Range, draw_configs
from linear_cifar.training import train_epoch

AXES = {
    "eta": Range(1e-4, 0.01, log=True),
    "batch": (25, 50),
    "lam": Range(1e-4, 0.1, log=True),
    "momentum": Range(0.0, 0.9, zeros=0.5),
}
POINTS = draw_configs(AXES, 16)
# All that a state holds: velocities, averages that begin before the last rung, and a schedule.
SETTINGS = {
    "dtype": "float64", "epochs": 3, "schedule": "cosine", "average": 2,
    "halving": 2, "rungs": (1, 2), "bracket": 8,
}  # fmt: skip
BRACKET, OTHER = (make_sweep(points, (3, 4), **SETTINGS) for points in (POINTS[:8], POINTS[8:]))


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def plain(data):
    """All runs of the bracket, trained to the end."""
    settings = BRACKET.settings._replace(halving=0, rungs=())
    return train_sweep(BRACKET._replace(settings=settings), data)


@pytest.fixture(scope="module")
def halved(data):
    compiled = train_epoch._cache_size()
    result = train_bracket(BRACKET, data, max_runs=lambda _: 1_000)
    assert train_epoch._cache_size() == compiled + 3  # three legs are three programs
    return result


def expected_stops(result):
    """Decide at each rung by hand, from runs that were all trained to the end."""
    accuracy, loss = (values.mean(axis=1) for values in result.history.evaluated["val"][::-1])
    alive, stops = list(range(len(result.configs))), {}
    for rung in SETTINGS["rungs"]:
        kept = []
        for size in (25, 50):
            members = [c for c in alive if result.configs[c].batch == size]
            members.sort(key=lambda c, rung=rung: (-accuracy[rung - 1, c], loss[rung - 1, c]))
            kept += members[: (len(members) + 1) // 2]
        stops |= dict.fromkeys({*alive} - {*kept}, rung)
        alive = kept
    return [stops.get(c, 0) for c in range(len(result.configs))]


def test_each_rung_keeps_the_best_half_of_each_batch_size(plain, halved):
    expected = expected_stops(plain)
    assert {1, 2, 0} == {*expected}
    np.testing.assert_array_equal(halved.stopped, [expected, expected])
    finished = [c for c, stop in enumerate(expected) if stop == 0]
    assert sorted(halved.ranking) == finished
    assert halved.complete


def test_a_run_that_reaches_the_end_equals_that_of_a_plain_sweep(plain, halved):
    finished = sorted(halved.ranking)
    ours, theirs = halved.take(finished), plain.take(finished)
    assert ours.configs == theirs.configs
    fields = ("history", "final", "class_accuracy", "correct", "params")
    for name in fields:
        for found, expected in zip(*(jax.tree.leaves(getattr(r, name)) for r in (ours, theirs)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_run_that_is_stopped_has_what_was_measured_before(plain, halved):
    for c, stop in enumerate(expected_stops(plain)):
        if stop == 0:
            continue
        for found, expected in zip(*map(jax.tree.leaves, (halved.history, plain.history)), strict=True):
            np.testing.assert_allclose(found[:stop, :, c], expected[:stop, :, c], rtol=1e-9)
            assert found.dtype == bool or np.isnan(found[stop:, :, c]).all()
        assert halved.history.finite[:, :, c].all()
        np.testing.assert_allclose(
            halved.final["val"].accuracy[:, c], plain.history.evaluated["val"].accuracy[stop - 1, :, c]
        )
        assert np.isnan(halved.final["test"].accuracy[:, c]).all()
        assert halved.saved.find(0, c) is None


def assert_close(result, expected):
    for found, wanted in zip(
        *(jax.tree.leaves((r.history, r.final, r.correct, r.saved)) for r in (result, expected)), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_another_bracket_needs_no_other_program(data, halved):
    compiled = train_epoch._cache_size()
    other = train_bracket(OTHER, data, max_runs=lambda _: 1_000)
    assert train_epoch._cache_size() == compiled
    assert other.configs != halved.configs


def test_diverged_runs_are_dropped_and_one_stays_where_all_diverge(data):
    high = [config._replace(eta=1e200 * config.eta, lam=1.0) for config in POINTS[:8]]
    mixed = BRACKET._replace(configs=(*high[:3], *POINTS[3:8]))
    result = train_bracket(mixed, data, max_runs=lambda _: 1_000)
    assert result.stayed_finite[result.ranking].all()
    assert all(result.diverged(0, c) for c in range(3))
    all_high = train_bracket(BRACKET._replace(configs=tuple(high)), data, max_runs=lambda _: 1_000)
    assert len(all_high.ranking) == 1
    assert not all_high.stayed_finite.any()


def test_the_bar_counts_the_epochs_of_all_slots(data):
    epochs = []
    train_bracket(BRACKET, data, max_runs=lambda _: 6, on_epoch=lambda share, _: epochs.append(share))
    assert sum(epochs) == pytest.approx(average_epochs(BRACKET))
    # At most 4 + 2 of each batch size, then half of them, rounded up.
    assert average_epochs(BRACKET) == pytest.approx((12 + 6 + 4) / 8)


class Killed(BaseException):
    """Ends the training as SIGKILL would: nothing handles it."""


@pytest.fixture
def train(data, tmp_path):
    """Train the bracket in a folder, or resume it; return its result, or None if it is stopped."""

    def train(name, sweep=BRACKET, stopped=lambda: False):
        folder: Path = tmp_path / name
        folder.mkdir(exist_ok=True)

        @contextlib.contextmanager
        def open_bar(total, title):
            yield type("Bar", (), {"advance": lambda *_: 0, "skip": lambda *_: 0, "log": lambda *_: 0})

        return train_tasks([Task(sweep, data, Block(sweep), folder)], stopped, open_bar, 1).get(folder)

    return train


def assert_same_bits(result, expected):
    for found, wanted in zip(*(jax.tree.leaves(r[2:]) for r in (result, expected)), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_killed_after_any_save_it_resumes_to_the_same_bits(train, monkeypatch, tmp_path):
    expected = train("undisturbed")
    saves = []
    save = Checkpoints.save_state
    monkeypatch.setattr(Checkpoints, "save_state", lambda self, state: (save(self, state), saves.append(0)))
    train("counted")
    total = len(saves)
    assert total >= 3

    def kill_after(count):
        saves = []

        def save_state(self, state):
            save(self, state)
            saves.append(state)
            if len(saves) == count:
                raise Killed

        monkeypatch.setattr(Checkpoints, "save_state", save_state)

    for count in range(1, total + 1):
        kill_after(count)
        with pytest.raises(Killed):
            train("killed")
        # Killed again after one more save.
        kill_after(1)
        with contextlib.suppress(Killed):
            train("killed")
        monkeypatch.setattr(Checkpoints, "save_state", save)
        assert_same_bits(train("killed"), expected)
        assert not list(tmp_path.glob(f"killed/{brackets.LEGS}"))
        for path in tmp_path.glob("killed/*"):
            path.unlink()


def test_with_less_memory_it_trains_the_same_block_after_block(train, monkeypatch):
    expected = train("undisturbed")
    save = Checkpoints.save_state

    def save_state(self, state):
        save(self, state)
        if state.snapshot.number == 2:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save_state", save_state)
    with pytest.raises(Killed):
        train("killed")
    monkeypatch.setattr(Checkpoints, "save_state", save)
    monkeypatch.setattr(training, "_max_runs", lambda *_: 6)
    assert_close(train("killed"), expected)


def test_killed_before_its_result_is_saved_it_trains_nothing_again(train, monkeypatch):
    expected = train("undisturbed")

    def die(*_):
        raise Killed

    monkeypatch.setattr(Checkpoints, "save_result", die)
    with pytest.raises(Killed):
        train("killed")
    monkeypatch.undo()
    monkeypatch.setattr(Checkpoints, "save_state", die)
    assert_same_bits(train("killed"), expected)


def test_killed_before_its_legs_are_removed_it_removes_them_later(train, monkeypatch, tmp_path):
    def die(folder):
        raise Killed

    monkeypatch.setattr(training, "remove_legs", die)
    with pytest.raises(Killed):
        train("killed")
    assert list(tmp_path.glob(f"killed/{brackets.LEGS}"))
    monkeypatch.undo()
    train("killed")
    assert [path.name for path in tmp_path.glob("killed/*")] == ["metrics-3.npz"]


def test_stopped_between_rungs_it_has_no_results_yet_and_resumes(train):
    expected = train("undisturbed")
    answers = iter([False] * 2)
    assert train("stopped", stopped=lambda: next(answers, True)) is None
    assert_same_bits(train("stopped"), expected)
