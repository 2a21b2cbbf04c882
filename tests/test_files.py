import ast
import os
from pathlib import Path

import pytest

from linear_cifar import folders
from linear_cifar.atomic import atomic_text, atomic_write, remove_unfinished
from linear_cifar.folders import LOCK, FolderError, locked_folder, write_json

ROOT = Path(__file__).parent.parent


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a.csv"
    with atomic_write(target) as partial:
        partial.write_text("half", encoding="utf-8")
        assert partial.suffix == ".csv"
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "half"
    with pytest.raises(RuntimeError), atomic_write(target) as partial:
        partial.write_text("broken", encoding="utf-8")
        raise RuntimeError
    assert target.read_text(encoding="utf-8") == "half"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_folder_left_empty_is_removed_with_the_parents_made_for_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked_folder(tmp_path / "a" / "b") as folder:
        assert os.listdir(folder) == [LOCK]
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_of_the_user_stays(tmp_path):
    with locked_folder(tmp_path):
        pass
    assert tmp_path.exists()


def test_written_files_stay_when_something_fails_later(tmp_path):
    with pytest.raises(RuntimeError), locked_folder(tmp_path / "a") as folder:
        (folder / "results.csv").touch()
        raise RuntimeError
    assert os.listdir(tmp_path / "a") == ["results.csv"]


def test_a_folder_belongs_to_one_process_until_it_is_done(tmp_path):
    with locked_folder(tmp_path / "a"):
        assert os.listdir(tmp_path / "a") == [LOCK]
        with (
            pytest.raises(FolderError, match="another process is writing there"),
            locked_folder(tmp_path / "a"),
        ):
            pytest.fail("entered")
    with locked_folder(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_files_that_a_killed_process_has_not_finished_are_removed(tmp_path):
    path, below = tmp_path / "results.csv", tmp_path / "block" / "state-1.npz"
    below.parent.mkdir()
    unfinished = []
    for kept in (path, below):
        kept.touch()
        with atomic_write(kept) as partial:
            partial.touch()
        partial.write_bytes(b"half")
        unfinished.append(partial)
    with locked_folder(tmp_path):  # another process may hold the lock of a folder below
        assert [partial.exists() for partial in unfinished] == [False, True]
    remove_unfinished(tmp_path, "*/")
    assert not unfinished[1].exists()
    assert path.exists()
    assert below.exists()


def test_two_processes_may_write_the_same_file(tmp_path):
    path = tmp_path / "state.npz"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["state.npz"]


def test_a_path_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(FolderError, match="cannot be written to"), locked_folder(path):
            pytest.fail("entered")
    assert os.listdir(tmp_path) == ["file"]


def test_files_of_the_user_in_the_folder_are_not_touched(tmp_path):
    for name in ("probe", ".probe.partial", "notes.txt"):
        (tmp_path / name).write_text("kept", encoding="utf-8")
    with locked_folder(tmp_path):
        pass
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"kept"}
    assert len(os.listdir(tmp_path)) == 3


def test_a_json_file_larger_than_any_of_an_experiment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LARGEST_JSON", 20)
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8")
    assert folders.read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": "0123456789abc"}', encoding="utf-8")
    with pytest.raises(ValueError, match="it has 22 bytes"):
        folders.read_json(tmp_path / "a.json")


def test_text_is_utf_8_and_what_no_file_can_hold_becomes_an_escape(tmp_path):
    name = os.fsdecode(b"Gr\xc3\xb6\xff")
    write_json(tmp_path / "a.json", {"out": name, "η": 1})
    content = (tmp_path / "a.json").read_bytes()
    assert content == '{\n  "out": "Grö\\udcff",\n  "η": 1\n}\n'.encode()
    assert folders.read_json(tmp_path / "a.json") == {"out": name, "η": 1}
    with atomic_text(tmp_path / "a.txt") as file:
        file.write(f"{name}\n")
    assert (tmp_path / "a.txt").read_bytes() == b"Gr\xc3\xb6\\udcff\n"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.txt"]


@pytest.mark.parametrize("folder", ["linear_cifar", "experiments", "tests"])
def test_no_text_depends_on_the_locale(folder):
    # Ruff's rule sees a path only where it is made. With `errors` no text is refused.
    for path in (ROOT / folder).rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
        for call in calls:
            if getattr(call.func, "attr", None) in ("read_text", "write_text"):
                assert {"encoding", "errors"} & {key.arg for key in call.keywords}, f"{path}:{call.lineno}"


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a directory or a device"), atomic_write(tmp_path / "pipe"):
        pytest.fail("nothing is written")
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".npz")
    with atomic_write(path) as partial:
        partial.write_bytes(b"content")
    assert path.read_bytes() == b"content"
