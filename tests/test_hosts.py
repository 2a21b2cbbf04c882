"""Several processes on loopback that share a run; results are compared with one process's at small η."""

import json
import signal
import socket

import kills
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import archive
from experiments.hosts import Hosts, define_hosts
from experiments.shell import UsageError
from experiments.trainer import deal

FLAGS = ("--eta=0.001,0.003", "--seeds=4", "--save_every=1")


def start(out, caches, count, *more, of=None, **environment):
    """That many processes; `of` gives further environment for each by its index."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = [] if count == 1 else [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"]
    return [
        kills.start(
            out,
            caches,
            *FLAGS,
            *own,
            *([f"--process={index}"] if own else []),
            *more,
            **{"JAX_NUM_CPU_DEVICES": "1", "HEARTBEAT": "10"} | environment | (of or {}).get(index, {}),
        )
        for index in range(count)
    ]


def end(processes):
    """Exit codes, and what each wrote to stderr."""
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], errors


def assert_same(one, other):
    ours, theirs = archive.read(one), archive.read(other)
    assert [row[:3] for row in ours.results] == [row[:3] for row in theirs.results]
    for rows in ((ours.results, theirs.results), (ours.history, theirs.history)):
        for row, expected in zip(*rows, strict=True):
            cells = [[value for value in its.cells.values() if value is not None] for its in (row, expected)]
            assert cells[0] == pytest.approx(cells[1], rel=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With one process's run."""
    folder = tmp_path_factory.mktemp("hosts")
    assert end(start(folder / "reference", folder / "caches", 1))[0] == [0]
    return folder


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_give_what_one_gives(folder, count):
    out = folder / str(count)
    codes, errors = end(start(out, folder / "caches", count))
    assert codes == [0] * count, errors
    assert_same(out, folder / "reference")
    run = archive.read(out)
    assert run.complete
    assert run.config["processes"] == count
    assert len(list(out.glob("blocks/*"))) == count
    for index in range(1, count):
        assert errors[index].splitlines()[-1] == f"process {index} of {count} trained 1 block"


def test_when_one_is_killed_the_others_end_and_fewer_go_on(folder):
    out = folder / "killed"
    first, second = start(out, folder / "caches", 2, "--epochs=100000", "--schedule=constant", "--average=1")
    assert kills.wait_for(
        first, lambda: len({path.parent for path in kills.saved(out) if path.name != "1"}) == 2
    )
    second.send_signal(signal.SIGKILL)
    (code, killed), (errors, _) = end([first, second])
    assert code not in (0, killed)
    assert "The following tasks are unhealthy" in errors
    done = max(int(path.name) for path in kills.saved(out))
    more = (f"--epochs={done + 1}", "--schedule=constant", "--average=1")
    (code,), (errors,) = end(start(out, folder / "caches", 1, *more))
    assert code == 0, errors
    assert errors.count("reused: ") == 2
    run = archive.read(out)
    assert len(run.results) == 8
    assert {row.cells["epochs"] for row in run.results} == {done + 1}


def test_when_one_fails_the_others_end_and_say_so(folder):
    out = folder / "failed"
    codes, errors = end(start(out, folder / "caches", 2, of={1: {"TEST_IMAGES": "100"}}))
    assert codes == [1, 2]
    assert errors[1].splitlines()[-1].startswith("error: these images (")
    last = errors[0].splitlines()[-1]
    assert "error: process 0 of 2 stops, since another one did: process 1 of 2: these images (" in last
    assert "; to go on: python -m experiments.grid " in last


def test_what_is_finished_is_the_first_one_s_to_read():
    class Task:
        def __init__(self, name, done):
            self.name, self.done, self.block = name, done, self
            self.part = self.settings = self
            self.epochs = 3

    a, b, c, d, e = tasks = [Task(*one) for one in (("a", 0), ("b", 3), ("c", 1), ("d", 0), ("e", 0))]
    assert deal(tasks, 1) == [tasks]
    assert deal(tasks, 2) == [[a, b, d], [c, e]]
    assert deal([a], 3) == [[a], [], []]


@pytest.mark.parametrize(
    "given", [["--processes=2"], ["--cluster", "--process=0"], ["--coordinator=a:1", "--process=1"]], ids=str
)
def test_flags_that_do_not_go_together_are_refused(given):
    with flagsaver.flagsaver():
        define_hosts()
        flags.FLAGS(["grid", *given])
        with pytest.raises(UsageError, match="coordinator, processes, process: give all three"):
            Hosts()


def test_alone_it_hears_itself():
    with flagsaver.flagsaver():
        define_hosts()
        flags.FLAGS(["grid"])
        alone = Hosts()
    assert (alone.index, alone.count, alone.failed) == (0, 1, None)
    alone.say("word", json.dumps([1]))
    assert alone.hear("word") == "[1]"
