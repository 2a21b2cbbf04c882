import os
import shutil

import jax
import numpy as np
import pytest
from small_runs import make_sweep

from experiments.runner import checkpoints
from experiments.runner.checkpoints import BlockResult, BlockState, Checkpoints, epochs_on_disk
from experiments.runner.errors import SaveError
from linear_cifar.config import grid
from linear_cifar.engine import EpochMetrics
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams
from linear_cifar.npz import read_npz, write_npz
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateId
from linear_cifar.snapshots import Snapshot, SweepIdentity
from linear_cifar.uncertainty import pack_correct

D, K = 4, 3
CONFIGS = grid([0.1, 0.2, 0.3], [20], [0.0])
BLOCK = make_sweep(CONFIGS, seeds=(0, 1))
SHAPE = BLOCK.size
SIZES = {"train": 40, "val": 9, "test": 17}


def make_params(rng, *runs):
    W, b = rng.normal(size=(*runs, K, D)), rng.normal(size=(*runs, K))
    return Params(W.astype(np.float32), b.astype(np.float32))


def make_history(rng, epochs):
    def draw():
        return rng.random((epochs, *SHAPE)).astype(np.float32)

    return EpochMetrics(
        Metrics(draw(), draw()), {"val": Metrics(draw(), draw())}, draw(), rng.random((epochs, *SHAPE)) > 0.5
    )


def make_state(epoch):
    rng = np.random.default_rng(epoch)
    replicates = tuple(ReplicateId(seed, None, "") for seed in (0, 1))
    plan = ((1.0, 1),) * epoch
    identity = SweepIdentity(
        CONFIGS, replicates, D, K, "float32", "digest", "softmax", "sgd", "none", True, "float32", plan
    )
    snapshot = Snapshot(
        identity, epoch, make_params(rng, *SHAPE), (rng.normal(size=SHAPE),), make_params(rng, *SHAPE)
    )
    return BlockState(snapshot, make_history(rng, epoch))


def make_result():
    rng = np.random.default_rng(9)
    final = {
        split: Metrics(*rng.random((2, *SHAPE)).astype(np.float32)) for split in ("train", "val", "test")
    }
    saved = SavedParams(np.array([0, 1]), np.array([2, 1]), make_params(rng, 2))
    by_class = {split: rng.random(SHAPE).astype(np.float32) for split in ("val", "test")}
    correct = {split: pack_correct(rng.random((*SHAPE, SIZES[split])) < 0.5) for split in ("val", "test")}
    stopped = np.zeros(SHAPE, np.int64)
    return BlockResult(make_history(rng, BLOCK.settings.epochs), final, by_class, correct, stopped, saved)


def open_checkpoints(folder, log=pytest.fail, block=BLOCK, **options):
    return Checkpoints(folder, block, D, K, SIZES, log, **options)


def newest(checkpoints):
    return checkpoints.newest_state(lambda state: state)


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for leaf, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if isinstance(wanted, np.ndarray):
            assert leaf.dtype == wanted.dtype
            assert leaf.tobytes() == wanted.tobytes()
        else:
            assert leaf == wanted


@pytest.fixture
def folder(tmp_path):
    """A folder with the states of epochs 3 and 5."""
    folder = tmp_path / "block"
    folder.mkdir()
    for epoch in (3, 5):
        open_checkpoints(folder).save_state(make_state(epoch))
    return folder


def test_a_state_comes_back_bit_for_bit_and_the_last_two_are_kept(tmp_path):
    states = open_checkpoints(tmp_path)
    assert newest(states) is None
    for epoch in (1, 2, 7):
        states.save_state(make_state(epoch))
        assert_equal(newest(states), make_state(epoch))
    assert_equal(newest(open_checkpoints(tmp_path)), make_state(7))
    assert sorted(os.listdir(tmp_path)) == ["state-2.npz", "state-7.npz"]


def test_a_result_comes_back_bit_for_bit_and_takes_the_place_of_the_states(folder):
    assert open_checkpoints(folder).result() is None
    open_checkpoints(folder).save_result(make_result(), keep_state=True)
    assert sorted(os.listdir(folder)) == ["metrics-2.npz", "state-3.npz", "state-5.npz"]
    open_checkpoints(folder).save_result(make_result(), keep_state=False)
    assert os.listdir(folder) == ["metrics-2.npz"]
    assert_equal(open_checkpoints(folder).result(), make_result())
    assert epochs_on_disk(folder) == [2]
    longer = BLOCK._replace(settings=BLOCK.settings._replace(epochs=3))
    assert open_checkpoints(folder, block=longer).result() is None


def test_states_are_saved_so_that_saving_takes_little_time(tmp_path, monkeypatch):
    periodic = open_checkpoints(tmp_path, save_every=3)
    assert [epoch for epoch in range(1, 10) if periodic.should_save(epoch)] == [3, 6, 9]
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    states = open_checkpoints(tmp_path)
    clock[0] = 50 * checkpoints.SECONDS - 0.1
    assert not states.should_save(1)
    clock[0] += 0.2
    assert states.should_save(1)

    def write_slowly(*arguments):
        write_npz(*arguments)
        clock[0] += 2

    monkeypatch.setattr(checkpoints, "write_npz", write_slowly)
    states.save_state(make_state(1))
    clock[0] += 99
    assert not states.should_save(2)
    clock[0] += 2
    assert states.should_save(2)


def test_a_damaged_state_is_set_aside_and_the_one_before_it_is_read(folder):
    path, expected = folder / "state-5.npz", make_state(3)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damages = [content[: len(content) // 2], content[:-1], b""]
    places = [0, len(content) - 1, *rng.integers(0, len(content), 30)]
    damages += [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places]
    for damaged in damages:
        path.write_bytes(damaged)
        lines = []
        assert_equal(newest(open_checkpoints(folder, lines.append)), expected)
        aside = folder / "broken-state-5.npz"
        (line,) = lines
        assert line.startswith(f"note: the state after epoch 5 cannot be used, moved to {aside}: ")
        assert "\n" not in line
        aside.unlink()
    path.write_bytes(content)
    assert_equal(newest(open_checkpoints(folder)), make_state(5))


def test_without_a_whole_state_there_is_none(folder):
    for path in folder.iterdir():
        path.write_bytes(b"?")
    lines = []
    assert newest(open_checkpoints(folder, lines.append)) is None
    assert len(lines) == 2


def test_a_state_that_the_caller_refuses_is_set_aside(folder):
    def accept(state):
        if state.snapshot.number == 5:
            raise ValueError("it is of another sweep")
        return state.snapshot.number

    lines = []
    assert open_checkpoints(folder, lines.append).newest_state(accept) == 3
    assert lines[0].endswith("broken-state-5.npz: it is of another sweep")


def change_file(path, change):
    """Rewrite a file of arrays with a valid digest, after a change of its arrays and description."""
    arrays, description = read_npz(path)
    change(arrays, description)
    write_npz(path, arrays, description)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, _: arrays.pop("history.norm"), "has no history.norm"),
        (lambda arrays, _: arrays.update({"history.norm": np.zeros(3)}), "holds float64[3] in place of"),
        (lambda arrays, _: arrays.update({"params.W": np.zeros((2, 3, K, D))}), "W is float64"),
        (lambda _, description: description.update(number=4), "number of epochs"),
        (lambda _, description: description.update(snapshot_schema=99), "schema"),
        (lambda _, description: description.pop("identity"), "identity"),
    ],
)
def test_a_whole_file_of_something_else_is_refused(folder, change, message):
    change_file(folder / "state-5.npz", change)
    lines = []
    assert_equal(newest(open_checkpoints(folder, lines.append)), make_state(3))
    assert message in lines[0]


def test_a_state_under_the_name_of_another_epoch_is_refused(folder):
    shutil.copy(folder / "state-3.npz", folder / "state-5.npz")
    lines = []
    assert_equal(newest(open_checkpoints(folder, lines.append)), make_state(3))
    assert "is of epoch 3" in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, _: arrays.update(replicates=np.array([0, 7])), "holds weights of other runs"),
        (lambda arrays, _: arrays.update({"params.W": np.zeros((2, K, D))}), "in place of float32"),
        (lambda arrays, _: arrays.update({"final.test.loss": np.zeros(3)}), "in place of float32"),
        (lambda arrays, _: arrays.update({"correct.val": np.zeros(3)}), "in place of uint8"),
        (lambda _, description: description.update(block={}), "is of another block"),
    ],
)
def test_a_result_of_something_else_is_refused(folder, change, message):
    open_checkpoints(folder).save_result(make_result(), keep_state=True)
    change_file(folder / "metrics-2.npz", change)
    lines = []
    assert open_checkpoints(folder, lines.append).result() is None
    assert message in lines[0]


def test_partial_files_of_a_killed_process_are_removed(folder):
    (folder / ".state-7.partial.npz").write_bytes(b"half")
    assert_equal(newest(open_checkpoints(folder)), make_state(5))
    assert sorted(os.listdir(folder)) == ["state-3.npz", "state-5.npz"]


def test_a_failed_save_is_one_line_and_leaves_the_earlier_states(folder, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_npz", fail)
    message = f"after epoch 7 cannot be saved in {folder}: No space left on device; what was saved before"
    with pytest.raises(SaveError, match=message):
        open_checkpoints(folder).save_state(make_state(7))
    assert sorted(os.listdir(folder)) == ["state-3.npz", "state-5.npz"]
    assert_equal(newest(open_checkpoints(folder)), make_state(5))


def test_a_state_that_somebody_removes_meanwhile_is_passed_over(folder, monkeypatch):
    read = checkpoints.read_npz

    def remove_and_read(path):
        if path.name == "state-5.npz":
            path.unlink()
        return read(path)

    monkeypatch.setattr(checkpoints, "read_npz", remove_and_read)
    lines = []
    assert_equal(newest(open_checkpoints(folder, lines.append)), make_state(3))
    (line,) = lines
    assert line.startswith("note: the state after epoch 5 cannot be used: ")
    assert not list(folder.glob("broken-*"))


def test_removing_is_no_error_where_somebody_else_has_removed(folder, monkeypatch):
    (folder / "state-5.npz").unlink()
    monkeypatch.setattr(checkpoints, "epochs_on_disk", lambda *_: [3, 5])
    open_checkpoints(folder).remove_states()
    assert not list(folder.glob("state-*"))
