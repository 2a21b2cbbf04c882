import os
import shutil

import jax
import numpy as np
import pytest

from linear_cifar import checkpoints, snapshots
from linear_cifar.checkpoints import Checkpoints, epochs_on_disk
from linear_cifar.config import grid
from linear_cifar.folders import SaveError
from linear_cifar.identity import Identity
from linear_cifar.npz import read_npz, write_npz
from linear_cifar.params import Params
from linear_cifar.replicates import ReplicateId
from linear_cifar.result import Result, Weights
from linear_cifar.snapshots import Snapshot

D, K, EPOCHS = 4, 3, 2
CONFIGS = grid(eta=[0.1, 0.2, 0.3], batch=[20], lam=[0.0])
SIZES = {"train": 40, "val": 9, "test": 17}
SHAPE = (2, 3)
COLUMNS = ["running_loss", "running_acc", "W_norm", "val_loss", "val_acc"]
SETTINGS = {
    "loss": "softmax", "optimizer": "sgd", "augment": "none", "init": "jax", "shuffle": True,
    "precision": "float32", "dtype": "float32", "max_loss": None, "d": D, "K": K, "per_epoch": ["val"],
}  # fmt: skip
DATA = {"training examples": "digest", "train": "digest", "val": "digest", "test": "digest"}
REPLICATES = tuple(ReplicateId(seed, None, "") for seed in (0, 1))


def make_identity(epochs=EPOCHS):
    return Identity(CONFIGS, REPLICATES, SETTINGS, DATA, ((1.0, 1),) * epochs)


def make_params(rng, *runs):
    W, b = rng.normal(size=(*runs, K, D)), rng.normal(size=(*runs, K))
    return Params(W.astype(np.float32), b.astype(np.float32))


def make_columns(rng, names, *shape):
    return {name: rng.random(shape).astype(np.float32) for name in names}


def make_state(epoch):
    rng = np.random.default_rng(epoch)
    nothing = np.zeros(SHAPE, np.int64)
    return Snapshot(
        make_identity(epoch), make_columns(rng, COLUMNS, epoch, *SHAPE), nothing, nothing,
        make_params(rng, *SHAPE), (rng.normal(size=SHAPE),), make_params(rng, *SHAPE),
    )  # fmt: skip


def make_result():
    rng = np.random.default_rng(9)
    names = [f"{name}_{metric}" for name in SIZES for metric in ("loss", "acc")]
    names += ["val_class_acc", "test_class_acc"]
    marks = {name: np.packbits(rng.random((*SHAPE, SIZES[name])) < 0.5, axis=-1) for name in ("val", "test")}
    nothing = np.zeros(SHAPE, np.int64)
    return Result(
        make_identity(), make_columns(rng, COLUMNS, EPOCHS, *SHAPE), make_columns(rng, names, *SHAPE),
        np.full(SHAPE, EPOCHS), nothing, nothing, marks, SIZES,
        Weights(np.array([0, 1]), np.array([2, 1]), make_params(rng, 2)),
    )  # fmt: skip


def open_checkpoints(folder, log=pytest.fail, epochs=EPOCHS, **options):
    return Checkpoints(folder, make_identity(epochs), log, **options)


def open_states(folder, log=pytest.fail, **options):
    """Open the checkpoints of a block of ten epochs."""
    return open_checkpoints(folder, log, 10, **options)


def newest(checkpoints):
    return checkpoints.newest_state(lambda state: state)


def assert_equal(actual, expected):
    """Compare all fields, arrays bit for bit."""
    assert type(actual) is type(expected)
    if isinstance(actual, Result):
        actual, expected = (list(vars(member).values()) for member in (actual, expected))
    leaves, structure = jax.tree.flatten(actual)
    wanted, expected_structure = jax.tree.flatten(expected)
    assert structure == expected_structure
    for leaf, other in zip(leaves, wanted, strict=True):
        if isinstance(other, np.ndarray):
            assert leaf.dtype == other.dtype
            assert leaf.tobytes() == other.tobytes()
        else:
            assert leaf == other


@pytest.fixture
def folder(tmp_path):
    """A folder with the states of epochs 3 and 5."""
    folder = tmp_path / "block"
    folder.mkdir()
    for epoch in (3, 5):
        open_states(folder).save_state(make_state(epoch))
    return folder


def test_a_state_comes_back_bit_for_bit_and_the_last_two_are_kept(tmp_path):
    states = open_states(tmp_path)
    assert newest(states) is None
    for epoch in (1, 2, 7):
        states.save_state(make_state(epoch))
        assert_equal(newest(states), make_state(epoch))
    assert_equal(newest(open_states(tmp_path)), make_state(7))
    assert sorted(os.listdir(tmp_path)) == ["state-2.npz", "state-7.npz"]


def test_a_result_comes_back_bit_for_bit_and_takes_the_place_of_the_states(folder):
    assert open_checkpoints(folder).result() is None
    open_checkpoints(folder).save_result(make_result(), keep_state=True)
    assert sorted(os.listdir(folder)) == ["result-2.npz", "state-5.npz"]
    open_checkpoints(folder).save_result(make_result(), keep_state=False)
    assert os.listdir(folder) == ["result-2.npz"]
    assert_equal(open_checkpoints(folder).result(), make_result())
    assert epochs_on_disk(folder) == [2]
    assert open_checkpoints(folder, epochs=3).result() is None


def test_states_are_saved_so_that_saving_takes_little_time(tmp_path, monkeypatch):
    periodic = open_states(tmp_path, save_every=3)
    assert [epoch for epoch in range(1, 10) if periodic.should_save(epoch)] == [3, 6, 9]
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    states = open_states(tmp_path)
    clock[0] = 50 * checkpoints.SECONDS - 0.1
    assert not states.should_save(1)
    clock[0] += 0.2
    assert states.should_save(1)

    def write_slowly(*arguments):
        write_npz(*arguments)
        clock[0] += 2

    monkeypatch.setattr(snapshots, "write_npz", write_slowly)
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
        assert_equal(newest(open_states(folder, lines.append)), expected)
        aside = folder / "broken-state-5.npz"
        (line,) = lines
        assert line.startswith(f"note: the state after epoch 5 cannot be used, moved to {aside}: ")
        assert "\n" not in line
        aside.unlink()
    path.write_bytes(content)
    assert_equal(newest(open_states(folder)), make_state(5))


def test_without_a_whole_state_there_is_none(folder):
    for path in folder.iterdir():
        path.write_bytes(b"?")
    lines = []
    assert newest(open_states(folder, lines.append)) is None
    assert len(lines) == 2


def test_a_state_that_the_caller_refuses_is_set_aside(folder):
    def accept(state):
        if state.number == 5:
            raise ValueError("it is of another sweep")
        return state.number

    lines = []
    assert open_states(folder, lines.append).newest_state(accept) == 3
    assert lines[0].endswith("broken-state-5.npz: it is of another sweep")


def change_file(path, change):
    """Rewrite a file of arrays with a valid digest, after a change of its arrays and description."""
    arrays, description = read_npz(path)
    change(arrays, description)
    write_npz(path, arrays, description)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, _: arrays.pop("history.W_norm"), "its history has other columns"),
        (lambda arrays, _: arrays.update({"history.W_norm": np.zeros(3)}), "W_norm is float64[3], not"),
        (lambda arrays, _: arrays.update({"params.W": np.zeros((2, 3, K, D))}), "W is float64"),
        (lambda _, description: description["identity"].update(format=99), "it has format 99"),
        (
            lambda _, description: description["identity"]["settings"].update(loss="bce"),
            "has loss bce, not softmax",
        ),
        (lambda _, description: description["identity"]["replicates"].reverse(), "is of another block"),
        (lambda _, description: description.pop("identity"), "identity"),
    ],
)
def test_a_whole_file_of_something_else_is_refused(folder, change, message):
    change_file(folder / "state-5.npz", change)
    lines = []
    assert_equal(newest(open_states(folder, lines.append)), make_state(3))
    assert message in lines[0]


def test_a_state_under_the_name_of_another_epoch_is_refused(folder):
    shutil.copy(folder / "state-3.npz", folder / "state-5.npz")
    lines = []
    assert_equal(newest(open_states(folder, lines.append)), make_state(3))
    assert "is of epoch 3" in lines[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, _: arrays.update({"weights.replicates": np.array([0, 7])}), "weights of other runs"),
        (lambda arrays, _: arrays.update({"weights.W": np.zeros((2, K, D))}), "W is float64"),
        (lambda arrays, _: arrays.update({"final.test_loss": np.zeros(3)}), "test_loss is float64"),
        (lambda arrays, _: arrays.update({"marks.val": np.zeros(3)}), "val is float64"),
        (
            lambda _, description: description["identity"]["settings"].update(loss="bce"),
            "has loss bce, not softmax",
        ),
        (lambda _, description: description["identity"]["epochs"].append([1.0, 1]), "not float32[3, 2, 3]"),
    ],
)
def test_a_result_of_something_else_is_refused(folder, change, message):
    open_checkpoints(folder).save_result(make_result(), keep_state=True)
    change_file(folder / "result-2.npz", change)
    lines = []
    assert open_checkpoints(folder, lines.append).result() is None
    assert message in lines[0]


def test_a_failed_save_is_one_line_and_leaves_the_earlier_states(folder, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots, "write_npz", fail)
    message = f"after epoch 7 cannot be saved in {folder}: No space left on device; what was saved before"
    with pytest.raises(SaveError, match=message):
        open_states(folder).save_state(make_state(7))
    assert sorted(os.listdir(folder)) == ["state-3.npz", "state-5.npz"]
    assert_equal(newest(open_states(folder)), make_state(5))


def test_a_state_that_somebody_removes_meanwhile_is_passed_over(folder, monkeypatch):
    load = checkpoints.load_snapshot

    def remove_and_load(path):
        if path.name == "state-5.npz":
            path.unlink()
        return load(path)

    monkeypatch.setattr(checkpoints, "load_snapshot", remove_and_load)
    lines = []
    assert_equal(newest(open_states(folder, lines.append)), make_state(3))
    (line,) = lines
    assert line.startswith("note: the state after epoch 5 cannot be used: ")
    assert not list(folder.glob("broken-*"))


def test_removing_is_no_error_where_somebody_else_has_removed(folder, monkeypatch):
    (folder / "state-5.npz").unlink()
    monkeypatch.setattr(checkpoints, "epochs_on_disk", lambda *_: [3, 5])
    open_states(folder).remove_states()
    assert not list(folder.glob("state-*"))
