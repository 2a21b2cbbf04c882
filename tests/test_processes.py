"""Several processes on loopback that share a run; results are compared with one process's at small η."""

import json
import signal
import socket
import threading
import time

import kills
import pytest
from small_runs import make_sweep, small_data

from experiments.artifacts.reader import RunResult
from experiments.runner import processes as module
from experiments.runner.blocks import Block, block_folder, write_manifest
from experiments.runner.errors import FolderError, ProcessError, UsageError
from experiments.runner.processes import Processes
from experiments.runner.training import Task, assign_tasks
from linear_cifar.config import grid

FLAGS = ("--eta=0.001,0.003", "--seeds=4", "--save_every=1")


def start_group(out, caches, count, *flags, environments=None):
    """Start `count` processes; `environments` has further variables by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(count):
        group = (f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={rank}")
        environment = {"JAX_NUM_CPU_DEVICES": "1", "HEARTBEAT": "5"} | (environments or {}).get(rank, {})
        rank_flags = group if count > 1 else ()
        started.append(kills.start(out, caches, *FLAGS, *rank_flags, *flags, **environment))
    return started


def wait_for_ends(group):
    """Return the exit codes, and what each process wrote to stderr."""
    errors = [process.communicate(timeout=120)[1] for process in group]
    return [process.returncode for process in group], errors


def assert_same_results(out, reference):
    run, expected = RunResult(out), RunResult(reference)
    assert [row[:3] for row in run.results] == [row[:3] for row in expected.results]
    for rows, wanted in ((run.results, expected.results), (run.history, expected.history)):
        for pair in zip(rows, wanted, strict=True):
            cells = [[value for value in row.cells.values() if value is not None] for row in pair]
            assert cells[0] == pytest.approx(cells[1], rel=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run of a single process in `reference`."""
    folder = tmp_path_factory.mktemp("processes")
    assert wait_for_ends(start_group(folder / "reference", folder / "caches", 1))[0] == [0]
    return folder


def test_several_processes_give_the_results_of_one(folder):
    out, count = folder / "three", 3
    codes, errors = wait_for_ends(start_group(out, folder / "caches", count))
    assert codes == [0] * count, errors
    assert_same_results(out, folder / "reference")
    run = RunResult(out)
    assert run.complete
    assert run.config["processes"] == count
    assert len(list(out.glob("blocks/*"))) == count
    assert not (out / "processes").exists()
    for rank in range(1, count):
        assert errors[rank].splitlines()[-1] == f"process {rank} of {count} trained 1 block"


def test_after_a_kill_the_others_end_and_fewer_processes_resume(folder):
    out = folder / "killed"
    plain = ("--schedule=constant", "--average=1")
    first, second = start_group(out, folder / "caches", 2, "--epochs=100000", *plain)

    def both_have_saved():
        return len({path.parent for path, epoch in kills.saved_states(out).items() if epoch > 1}) == 2

    assert kills.wait_for(first, both_have_saved)
    second.send_signal(signal.SIGKILL)
    (code, killed), (errors, _) = wait_for_ends([first, second])
    assert code not in (0, killed)
    assert "The following tasks are unhealthy" in errors
    done = max(kills.saved_states(out).values())
    (code,), (errors,) = wait_for_ends(start_group(out, folder / "caches", 1, f"--epochs={done + 1}", *plain))
    assert code == 0, errors
    assert errors.count("reused: ") == 2
    run = RunResult(out)
    assert len(run.results) == 8
    assert {row.cells["epochs"] for row in run.results} == {done + 1}


def test_when_one_process_fails_the_others_end_and_say_why(folder):
    out = folder / "failed"
    codes, errors = wait_for_ends(
        start_group(out, folder / "caches", 2, environments={1: {"TEST_IMAGES": "100"}})
    )
    assert codes == [1, 2]
    assert errors[1].splitlines()[-1].startswith("error: these data (")
    last = errors[0].splitlines()[-1]
    assert "error: process 0 of 2 stops, since another one failed: process 1 of 2: these data (" in last
    assert "; to resume: python -m experiments.grid " in last


def test_a_signal_to_a_waiting_process_ends_all_at_once(folder):
    out = folder / "signal"
    # Rank 1 has nothing to train, and waits for the end.
    flags = ("--epochs=100000", "--schedule=constant", "--average=1", "--eta=0.001", "--seeds=1")
    first, second = start_group(out, folder / "caches", 2, *flags)
    assert kills.wait_for(first, lambda: kills.saved_states(out))
    start = time.monotonic()
    second.send_signal(signal.SIGTERM)
    codes, errors = wait_for_ends([first, second])
    assert codes == [1, 143], errors
    assert time.monotonic() - start < 30
    assert "process 1 of 2: stopped" in errors[0]


def test_the_first_process_gets_the_finished_blocks(tmp_path):
    data = small_data()
    tasks = []
    for name, finished in zip("abcde", (False, True, False, False, False), strict=True):
        sweep = make_sweep(grid([0.1], [20], [0.0]))._replace(name=name)
        folder = write_manifest(tmp_path, Block(sweep), data.dataset, {})
        assert folder == block_folder(tmp_path, sweep, data.dataset.fingerprint)
        if finished:
            (folder / f"metrics-{sweep.settings.epochs}.npz").touch()
        tasks.append(Task(sweep, data, Block(sweep), folder))
    a, b, c, d, e = tasks
    assert assign_tasks(tasks, 1) == [tasks]
    assert assign_tasks(tasks, 2) == [[a, b, d], [c, e]]
    assert assign_tasks([a], 3) == [[a], [], []]


@pytest.mark.parametrize(
    "arguments", [{"count": 2}, {"cluster": True, "rank": 0}, {"coordinator": "a:1", "rank": 1}], ids=str
)
def test_arguments_that_do_not_go_together_are_refused(arguments):
    with pytest.raises(UsageError, match="coordinator, processes, process: give all three"):
        Processes(**arguments)


def test_a_single_process_talks_to_nobody(tmp_path):
    alone = Processes()
    with alone.meet(tmp_path / "run"):
        alone.say("word", {"a": 1})
        assert (alone.rank, alone.count, alone.failure, alone.has_heard("word")) == (0, 1, None, False)
    assert not list(tmp_path.iterdir())


class Rank(Processes):
    """A process of several that is only a thread."""

    def __init__(self, rank, count):
        super().__init__()
        self.rank, self.count = rank, count


def run_ranks(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_messages_of_an_earlier_attempt_are_not_heard(tmp_path):
    earlier = tmp_path / "processes" / "earlier"
    earlier.mkdir(parents=True)
    (tmp_path / "processes" / "call.json").write_text(json.dumps({"attempt": "earlier"}), encoding="utf-8")
    (earlier / "word.json").write_text(json.dumps({"said": "long ago"}), encoding="utf-8")
    heard = []

    def follow():
        with (rank := Rank(1, 2)).meet(tmp_path):
            heard.append(rank.hear("word"))

    def lead():
        time.sleep(0.5)
        with (rank := Rank(0, 2)).meet(tmp_path):
            rank.say("word", {"said": "now"})

    run_ranks(follow, lead)
    assert heard == [{"said": "now"}]


def test_a_failure_reaches_the_others_and_no_message_is_left(tmp_path):
    caught = []

    def fail():
        with pytest.raises(ValueError, match="broken"), Rank(0, 2).meet(tmp_path / "run"):
            raise ValueError("broken")

    def wait():
        with pytest.raises(ProcessError) as error, (rank := Rank(1, 2)).meet(tmp_path / "run"):
            rank.hear("word")
        caught.append(str(error.value))

    run_ranks(fail, wait)
    assert caught == ["process 1 of 2 stops, since another one failed: process 0 of 2: broken"]
    assert not list(tmp_path.iterdir())


def test_processes_that_do_not_see_the_same_folder_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "START", 0.3)
    with (
        pytest.raises(FolderError, match="name a folder that all processes share"),
        Rank(1, 2).meet(tmp_path),
    ):
        pytest.fail("entered")


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nsuch backend"), AssertionError()], ids=["text", "no text"]
)
def test_a_missing_device_is_one_line_that_names_the_variable(monkeypatch, error):
    def raise_error():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr("jax.local_devices", raise_error)
    reason = "no such backend" if error.args else "there are no such devices"
    with pytest.raises(UsageError, match=f"^JAX_PLATFORMS=cuda: no device can be used: {reason}$"):
        Processes()
