import os
import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager

from experiments import checkpoints
from experiments.checkpoints import Checkpoints, SaveError


def state(epoch, n=3):
    rng = np.random.default_rng(epoch)
    return {
        "W": rng.normal(size=(2, n)),
        "b": rng.normal(size=n).astype(np.float32),
        "number": np.asarray(epoch, np.int64),
        "finite": rng.random((epoch, n)) > 0.5,
    }


def template(epoch):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(epoch))


def opened(folder, tell=pytest.fail, **more):
    return Checkpoints(folder, template, tell, **more)


def same(one, other):
    return jax.tree.all(
        jax.tree.map(lambda a, b: a.dtype == b.dtype and a.tobytes() == b.tobytes(), one, other)
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two states, of epochs 3 and 5."""
    folder = tmp_path_factory.mktemp("states")
    states = opened(folder)
    for epoch in (3, 5):
        states.save(epoch, state(epoch))
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_state_comes_back_bit_for_bit_and_the_last_two_are_kept(tmp_path):
    states = opened(tmp_path / "new" / "folder")
    assert states.newest() is None
    for epoch in (1, 2, 7):
        states.save(epoch, state(epoch))
        assert same(states.newest(), state(epoch))
    assert same(opened(tmp_path / "new" / "folder").newest(), state(7))
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["2", "7"]


def test_when_a_state_is_due(tmp_path, monkeypatch):
    every = opened(tmp_path, every=3)
    assert [epoch for epoch in range(1, 10) if every.due(epoch)] == [3, 6, 9]
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    states = opened(tmp_path)

    def save_taking(seconds):
        def save(*arguments, **more):
            CheckpointManager.save(states._manager, *arguments, **more)
            now[0] += seconds

        monkeypatch.setattr(states._manager, "save", save)
        states.save(1, state(1))

    now[0] = 50 * checkpoints.SECONDS - 0.1
    assert not states.due(1)
    now[0] += 0.2
    assert states.due(1)
    save_taking(2)
    now[0] += 99
    assert not states.due(2)
    now[0] += 2
    assert states.due(2)


def damages(folder):
    """What may have become of each of the last state's files."""
    for path in sorted(path for path in (folder / "5").rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield path, content[: len(content) // 2]
        yield path, content[:-1] + bytes([content[-1] ^ 1]) if content else b"?"
        yield path, None


def test_of_a_damaged_state_nothing_wrong_is_ever_read(copy, tmp_path):
    told = 0
    for i, (path, content) in enumerate(damages(copy)):
        folder = shutil.copytree(copy, tmp_path / str(i))
        damaged = folder / path.relative_to(copy)
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        lines = []
        found = opened(folder, lines.append).newest()
        if path.name == checkpoints.DIGEST and content is None:
            # As a save leaves it that did not come to its end.
            assert same(found, state(3))
            assert not lines
            continue
        assert same(found, state(3 if lines else 5)), path
        if lines:
            told += 1
            assert lines[0].startswith(
                f"note: the state after epoch 5 is unusable, now {folder / 'broken-5'}: "
            )
            assert len(lines) == 1
            assert "\n" not in lines[0]
            # Its place is free for the state that is trained again.
            again = opened(folder)
            again.save(5, state(5))
            assert same(again.newest(), state(5))
    assert told > 20


def test_where_no_state_is_whole_there_is_none(copy):
    for epoch in ("3", "5"):
        shutil.rmtree(copy / epoch / "default")
    lines = []
    assert opened(copy, lines.append).newest() is None
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda epoch: state(epoch, n=4), "is of another shape or type"),
        (lambda epoch: {"W": state(epoch)["W"]}, "it holds other arrays"),
        (lambda epoch: state(epoch) | {"b": np.zeros(3)}, "b is of another shape or type"),
    ],
)
def test_a_state_of_something_else_is_refused(copy, other, words):
    lines = []
    wanted = Checkpoints(copy, lambda epoch: jax.eval_shape(lambda: other(epoch)), lines.append)
    assert wanted.newest() is None
    assert words in lines[0]


def test_a_state_too_large_to_be_ours_is_not_read(copy):
    with (copy / "5" / "default" / "manifest.ocdbt").open("ab") as file:
        file.truncate(10**12)  # takes no room on disk
    lines = []
    assert same(opened(copy, lines.append).newest(), state(3))
    assert "it takes 1,000,00" in lines[0]


def test_arrays_stored_in_large_pieces_are_not_read(copy):
    """A piece is read whole: one of a terabyte would be, of an array of three numbers."""
    import tensorstore as ts

    store = f"file://{copy / '5' / 'default'}/|ocdbt:"
    spec = {
        "driver": "zarr",
        "kvstore": store + "b/",
        "metadata": {"shape": [3], "chunks": [2**38], "dtype": "<f4", "compressor": None},
    }
    ts.open(spec, create=True, delete_existing=True).result()
    (copy / "5" / checkpoints.DIGEST).write_text(checkpoints._digest(copy / "5"))
    lines = []
    assert same(opened(copy, lines.append).newest(), state(3))
    assert "b is stored in pieces larger than itself" in lines[0]


def test_what_a_save_left_half_written_is_removed(copy):
    (copy / "7.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    shutil.copytree(copy / "5", copy / "7")
    (copy / "7" / checkpoints.DIGEST).unlink()
    assert same(opened(copy).newest(), state(5))
    assert sorted(os.listdir(copy)) == ["3", "5"]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("Failed to write 9 bytes [os_error_code='28']"), "No space left on device"),
        (RuntimeError("many\nlines"), "many lines"),
    ],
)
def test_what_cannot_be_saved_is_said_in_one_line(copy, monkeypatch, raised, reason):
    states = opened(copy)

    def fail(epoch, args):
        (copy / "7.orbax-checkpoint-tmp").mkdir()
        raise raised

    monkeypatch.setattr(states._manager, "save", fail)
    with pytest.raises(SaveError, match=f"after epoch 7 can't be saved in {copy}: {reason}; what was saved"):
        states.save(7, state(7))
    assert sorted(os.listdir(copy)) == ["3", "5"]
    assert same(opened(copy).newest(), state(5))
