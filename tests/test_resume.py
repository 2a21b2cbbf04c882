"""A sweep that is stopped, killed, extended and disturbed, as a user meets it: in processes of their own."""

import shutil
import signal

import kills
import pytest

from experiments import archive
from experiments.files import folder_for_run


def end(process, code):
    """The lines that it wrote to stderr, without its bars."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    return [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]


def training(process, out):
    """Waits until it begins to train, or goes on."""
    before = kills.begun(out)
    assert kills.wait_for(process, lambda: kills.begun(out) != before), process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With an undisturbed run."""
    folder = tmp_path_factory.mktemp("resume")
    kills.finish(kills.start(folder / "reference", folder / "caches", "--save_every=1"))
    return folder


def programs(caches):
    """The compiled ones that train, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in caches.glob("linear_cifar/*train_epoch*-cache")}


def test_stopped_and_killed_it_ends_as_if_nothing_had_been(folder):
    out, caches = folder / "out", folder / "caches"
    compiled = programs(caches)
    assert compiled
    process = kills.start(out, caches, "--save_every=1")
    assert kills.wait_for(process, lambda: kills.saved(out))
    process.send_signal(signal.SIGINT)
    *_, line = end(process, 130)
    assert line.startswith("stopped after epoch ")
    assert " to go on: python -m experiments.grid --" in line
    assert line.endswith(f" {' '.join(kills.FLAGS)} --out={out} --save_every=1")
    run = archive.read(out)
    assert not run.complete
    (done,) = {row.cells["epochs"] for row in run.results}
    assert 1 <= done < kills.EPOCHS
    assert [row.cells["epoch"] for row in run.history] == [*range(1, done + 1)] * len(run.results)
    assert str(done) in {path.name for path in kills.saved(out)}
    for phase in ("saving", "writing"):
        process = kills.start(out, caches, "--save_every=1")
        assert kills.reach(process, out, phase)
        process.kill()
        process.communicate()
    kills.finish(kills.start(out, caches))
    assert not kills.differing(out, folder / "reference")
    assert archive.read(out).complete
    assert programs(caches) == compiled


def test_a_finished_run_says_so_and_is_not_touched(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "reference").rglob("*") if path.is_file()}
    assert "finished already" in end(kills.start(folder / "reference", folder / "caches"), 0)[-1]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_second_run_into_the_same_folder_is_told_so(folder):
    process = kills.start(folder / "twice", folder / "caches")
    training(process, folder / "twice")
    process.send_signal(signal.SIGSTOP)
    (line,) = end(kills.start(folder / "twice", folder / "caches"), 2)
    assert line.startswith(f"error: --out={folder / 'twice'}: another run is writing there")
    process.kill()
    process.communicate()
    # The lock dies with its process.
    with folder_for_run(folder / "twice"):
        pass


def test_a_setting_that_would_give_other_results_is_refused(folder):
    reference = folder / "reference"
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    *_, line = end(kills.start(reference, folder / "caches", "--loss=bce"), 2)
    assert line.startswith(f"error: --out={reference} holds runs with loss softmax, not bce: give the same")
    assert {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()} == before


def test_a_run_is_extended_by_values_seeds_and_epochs(folder):
    out, caches = folder / "extended", folder / "caches"
    plain = ("--schedule=constant", "--average=1", "--momentum=0")
    kills.finish(kills.start(out, caches, *plain, "--eta=0.001", "--seeds=1", "--epochs=2"))
    before = archive.read(out).history
    assert len(before) == 2
    large = ("--eta=0.01,0.001", "--seeds=2", "--epochs=3")
    process = kills.start(out, caches, *plain, *large)
    training(process, out)
    process.send_signal(signal.SIGTERM)
    assert end(process, 143)[-1].startswith("stopped after epoch ")
    # What was finished before is still there, whichever block was being trained.
    assert before[0][:3] in [row[:3] for row in archive.read(out).results]
    lines = end(kills.start(out, caches, *plain, *large), 0)
    assert lines[0].startswith("reused: grid, 1 configuration, the first ")
    assert all(line.startswith("reused: ") for line in lines)
    after = archive.read(out)
    assert [(row.config.eta, row.seed) for row in after.results] == [
        (0.01, 0),
        (0.001, 0),
        (0.01, 1),
        (0.001, 1),
    ]
    of_both = [row for row in after.history if row[:3] == before[0][:3]]
    assert of_both[:2] == before
    assert len(of_both) == 3


def test_neither_a_broken_state_nor_a_full_disk_costs_more_than_the_last_epoch(folder):
    out = folder / "broken"
    shutil.copytree(folder / "reference", out)
    (out / "config.json").write_text((out / "config.json").read_text().replace("true", "false", 1))
    for path in (max(kills.saved(out)) / "default" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    # Where no file may be larger than 64 kB, as on a full disk, writing fails half way.
    *_, note, reused, error = end(kills.start(out, folder / "caches", LARGEST_FILE="64000"), 1)
    assert note.startswith(f"note: the state after epoch {kills.EPOCHS} is unusable")
    assert reused.endswith(f"the first {kills.EPOCHS - 1} of {kills.EPOCHS} epochs")
    assert error.startswith(f"error: the state after epoch {kills.EPOCHS} can't be saved in {out}")
    assert ": File too large; what was saved before stands; to go on: python -m experiments.grid " in error
    assert [path.name for path in kills.saved(out)] == [str(kills.EPOCHS - 1)]
    assert not list(out.rglob("*tmp*"))
    kills.finish(kills.start(out, folder / "caches"))
    assert not kills.differing(out, folder / "reference")


def test_where_everything_diverges_the_run_ends_properly(folder):
    out = folder / "diverged"
    process = kills.start(out, folder / "caches", "--max_loss=1e-6")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "every configuration diverged" in output
    run = archive.read(out)
    assert {row.cells["diverged"] for row in run.results} == {1}
    assert all(row.cells["running_loss"] != row.cells["running_loss"] for row in run.history)
    assert not (out / "best_params.npz").exists()


def test_what_the_memory_does_not_hold_is_trained_in_turn_and_leaves_its_best_weights(folder):
    out = folder / "in turn"
    in_turn = ("--block_runs=1", "--save_every=1")
    process = kills.start(out, folder / "caches", *in_turn, KEEP_BYTES="0")
    assert kills.wait_for(process, lambda: len(list(out.glob("blocks/*/outcome/*/sha256"))) == 2)
    process.kill()
    process.communicate()
    process = kills.start(out, folder / "caches", *in_turn, KEEP_BYTES="0")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert errors.count(f"the first {kills.EPOCHS} of {kills.EPOCHS} epochs") == 2
    bars = [line for line in errors.replace("\r", "\n").splitlines() if "%|" in line]
    assert f"| {kills.EPOCHS}/{kills.EPOCHS} [" in bars[-1]
    assert not kills.saved(out)
    assert len(list(out.glob("blocks/*/outcome/*/sha256"))) == 4
    ours, theirs = (archive.read(path) for path in (out, folder / "reference"))
    assert [len(one.config["devices"]) for one in (ours, theirs)] == [1, 2]
    assert [row[:3] for row in ours.results] == [row[:3] for row in theirs.results]
    for one, other in zip(ours.history, theirs.history, strict=True):
        if one.config.eta == 0.001:
            measured = [[value for value in row.cells.values() if value is not None] for row in (one, other)]
            assert measured[0] == pytest.approx(measured[1], rel=1e-4)
    # Finished, it can't be trained for longer, but for more configurations.
    lines = end(kills.start(out, folder / "caches", "--eta=0.001,0.1,0.01", KEEP_BYTES="0"), 0)
    assert len(lines) == 4
    assert len(archive.read(out).results) == 6
