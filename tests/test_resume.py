"""A run that is stopped, killed, extended and disturbed, as a user meets it: in processes of their own."""

import csv
import json
import re
import shutil
import signal

import kills
import pytest

from experiments.artifacts.reader import ExperimentFolder
from experiments.runner.folder import HISTORY, RESULTS, SCHEMA
from linear_cifar.folders import locked_folder


def wait_for_end(process, code):
    """Wait for the end with this exit code, and return the lines of stderr without progress bars."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    return [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]


def wait_for_training(process, out):
    """Wait until the process starts to train."""
    before = kills.training_starts(out)
    started = kills.wait_for(process, lambda: kills.training_starts(out) != before)
    assert started, process.communicate()


def read_rows(out, name):
    with (out / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_keys(rows):
    return [(float(row["eta"]), int(row["seed"])) for row in rows]


def read_blocks(out):
    return [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("blocks/grid/*/block.json")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an undisturbed run in `reference`."""
    folder = tmp_path_factory.mktemp("resume")
    kills.finish(kills.start(folder / "reference", folder / "caches", "--save_every=1"))
    return folder


def training_programs(caches):
    """Return the compiled programs that train, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in caches.glob("linear_cifar/*train_epoch*-cache")}


def test_a_stopped_and_killed_run_ends_like_an_undisturbed_one(folder):
    out, caches = folder / "out", folder / "caches"
    compiled = training_programs(caches)
    assert compiled
    process = kills.start(out, caches, "--save_every=1")
    assert kills.wait_for(process, lambda: kills.saved_states(out))
    process.send_signal(signal.SIGINT)
    *_, line = wait_for_end(process, 130)
    assert line.startswith("stopped after epoch ")
    assert " to resume: python -m experiments.grid --" in line
    assert line.endswith(f" {' '.join(kills.FLAGS)} --out={out} --save_every=1")
    assert not ExperimentFolder(out).complete
    results = read_rows(out, RESULTS)
    (done,) = {int(row["epochs"]) for row in results}
    assert 1 <= done < kills.EPOCHS
    epochs = [int(row["epoch"]) for row in read_rows(out, HISTORY)]
    assert epochs == [*range(1, done + 1)] * len(results)
    assert done in kills.saved_states(out).values()
    for phase in ("saving", "writing"):
        process = kills.start(out, caches, "--save_every=1")
        assert kills.reach(process, out, phase)
        process.kill()
        process.communicate()
    kills.finish(kills.start(out, caches))
    assert not kills.differing(out, folder / "reference")
    assert ExperimentFolder(out).complete
    assert not kills.saved_states(out)
    assert not list(out.rglob("*partial*"))
    assert training_programs(caches) == compiled


def test_a_finished_run_is_left_as_it_is(folder):
    times = {path: path.stat().st_mtime_ns for path in (folder / "reference").rglob("*") if path.is_file()}
    *_, line, seconds = wait_for_end(kills.start(folder / "reference", folder / "caches"), 0)
    assert "finished already" in line
    assert seconds.startswith("time: ")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_second_run_into_the_same_folder_is_refused(folder):
    process = kills.start(folder / "twice", folder / "caches")
    wait_for_training(process, folder / "twice")
    process.send_signal(signal.SIGSTOP)
    (line,) = wait_for_end(kills.start(folder / "twice", folder / "caches"), 2)
    assert line.startswith(f"error: --out={folder / 'twice'}: another process is writing there")
    process.kill()
    process.communicate()
    # The lock dies with its process.
    with locked_folder(folder / "twice"):
        pass


def test_a_setting_that_would_give_other_results_is_refused(folder):
    reference = folder / "reference"
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    *_, line = wait_for_end(kills.start(reference, folder / "caches", "--loss=bce"), 2)
    assert line.startswith(f"error: --out={reference}: holds runs with loss softmax, not bce: give the same")
    assert {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()} == before


def test_a_run_of_an_older_version_is_refused_in_one_line(folder):
    old = folder / "old"
    shutil.copytree(folder / "reference", old)
    text = (old / "config.json").read_text(encoding="utf-8")
    (old / "config.json").write_text(text.replace(f'"schema": {SCHEMA}', '"schema": 3'), encoding="utf-8")
    (line,) = wait_for_end(kills.start(old, folder / "caches"), 2)
    assert line.startswith(f"error: --out={old}: holds an experiment that cannot be resumed: ")
    assert f"was written by another version (schema 3, not {SCHEMA})" in line
    assert "choose another folder" in line


def test_a_run_is_extended_by_values_seeds_and_epochs(folder):
    out, caches = folder / "extended", folder / "caches"
    plain = ("--schedule=constant", "--average=1", "--momentum=0")
    kills.finish(kills.start(out, caches, *plain, "--eta=0.001", "--seeds=1", "--epochs=2"))
    before = read_rows(out, HISTORY)
    assert len(before) == 2
    extended = ("--eta=0.01,0.001", "--seeds=2", "--epochs=3")
    process = kills.start(out, caches, *plain, *extended)
    wait_for_training(process, out)
    process.send_signal(signal.SIGTERM)
    *_, line = wait_for_end(process, 143)
    # No epoch is named where the signal comes between two blocks.
    assert re.match(r"stopped( after epoch [12] of 3 of grid)?: state saved, ", line)
    # What was finished before is still there, whichever block was being trained.
    (key,) = {*run_keys(before)}
    assert key in run_keys(read_rows(out, RESULTS))
    announced, *lines, _ = wait_for_end(kills.start(out, caches, *plain, *extended), 0)
    assert announced == f"grid: 2 configurations x 2 seeds for 3 epochs, to {out}"
    assert lines[0].startswith("reused: grid, 1 configuration, the first ")
    assert all(line.startswith("reused: ") for line in lines)
    assert run_keys(read_rows(out, RESULTS)) == [(0.01, 0), (0.001, 0), (0.01, 1), (0.001, 1)]
    in_both = [row for row in read_rows(out, HISTORY) if run_keys([row]) == [key]]
    assert in_both[:2] == before
    assert len(in_both) == 3


def test_a_broken_state_or_a_full_disk_costs_no_more_than_the_last_epoch(folder):
    out = folder / "broken"
    process = kills.start(out, folder / "caches", "--save_every=1")
    assert kills.wait_for(process, lambda: max(kills.saved_states(out).values(), default=0) >= 3)
    process.send_signal(signal.SIGINT)
    wait_for_end(process, 130)
    states = kills.saved_states(out)
    assert len(states) == 2
    newest = max(states, key=states.__getitem__)
    epoch = states[newest]
    newest.write_bytes(newest.read_bytes()[:-1])
    # Where no file may be larger than 64 kB, writing fails half way, as on a full disk.
    process = kills.start(out, folder / "caches", "--save_every=1", LARGEST_FILE="64000")
    *_, note, reused, error = wait_for_end(process, 1)
    assert note.startswith(f"note: the state after epoch {epoch} cannot be used")
    assert reused.endswith(f"the first {epoch - 1} of {kills.EPOCHS} epochs")
    assert error.startswith(f"error: the state after epoch {epoch} cannot be saved in {out}")
    assert ": File too large; what was saved before stands; to resume: python -m experiments.grid " in error
    assert list(kills.saved_states(out).values()) == [epoch - 1]
    assert not list(out.rglob("*partial*"))
    kills.finish(kills.start(out, folder / "caches"))
    assert not kills.differing(out, folder / "reference")


def test_a_run_in_which_everything_diverges_ends_properly(folder):
    out = folder / "diverged"
    process = kills.start(out, folder / "caches", "--max_loss=1e-6")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "every configuration diverged" in output
    assert {row["diverged"] for row in read_rows(out, RESULTS)} == {"1"}
    assert {row["running_loss"] for row in read_rows(out, HISTORY)} == {"nan"}
    assert not (out / "best_params.npz").exists()


def test_blocks_that_train_one_after_another_leave_their_best_weights(folder):
    out, caches = folder / "blocks", folder / "caches"
    small_blocks = ("--block_runs=1", "--save_every=1")
    process = kills.start(out, caches, *small_blocks, KEPT_BYTES="0")
    assert kills.wait_for(process, lambda: len(list(out.glob("blocks/grid/*/result-*.npz"))) == 2)
    process.kill()
    process.communicate()
    process = kills.start(out, caches, *small_blocks, KEPT_BYTES="0")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors.count(f"the first {kills.EPOCHS} of {kills.EPOCHS} epochs") == 2
    bars = [line for line in errors.replace("\r", "\n").splitlines() if "%|" in line]
    assert f"| {kills.EPOCHS}/{kills.EPOCHS} [" in bars[-1]
    assert not kills.saved_states(out)
    assert len(list(out.glob("blocks/grid/*/result-*.npz"))) == 4
    reference = folder / "reference"
    devices = [{len(block["environment"]["devices"]) for block in read_blocks(f)} for f in (out, reference)]
    assert devices == [{1}, {2}]
    assert run_keys(read_rows(out, RESULTS)) == run_keys(read_rows(reference, RESULTS))
    for row, expected in zip(read_rows(out, HISTORY), read_rows(reference, HISTORY), strict=True):
        if row["eta"] == "0.001":
            cells, wanted = (
                [float(value) for name, value in cells.items() if name not in {"sweep", "dataset"} and value]
                for cells in (row, expected)
            )
            assert cells == pytest.approx(wanted, rel=1e-4)
    # A finished block cannot be trained for longer, but the run can have more configurations.
    _, *lines, _ = wait_for_end(kills.start(out, caches, "--eta=0.001,0.1,0.01", KEPT_BYTES="0"), 0)
    assert len(lines) == 4
    assert len(read_rows(out, RESULTS)) == 6
