"""Blocks on a Dask cluster of real processes: who joins, dies or is refused, and what stands then."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import kills
import numpy as np
import pytest
import small_sweep
from dask_processes import DaskProcesses, count_held
from test_fit_folder import EVERYTHING, assert_same, fit

import linear_cifar as lc
from linear_cifar import cluster as cluster_module
from linear_cifar.blocks import MANIFEST
from linear_cifar.worker import Description, describe_code

# So many epochs that a block is under way for a while.
MANY = 200
DEADLY_SEED = 13


def deadly_init(seed):
    """Return initial weights; one seed kills its worker, as where it takes too much memory."""
    if seed == DEADLY_SEED and "ON_A_WORKER" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return small_sweep.init(seed)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    with DaskProcesses(tmp_path_factory.mktemp("dask"), allowed_failures=1) as processes:
        processes.scheduler()
        processes.worker()
        while not processes.file.exists():
            time.sleep(0.05)
        yield processes


@pytest.fixture
def lines():
    return []


@pytest.fixture
def cluster(processes, lines):
    with lc.Cluster(str(processes.file), lines.append) as cluster:
        yield cluster


def test_a_cluster_trains_the_same_bits(cluster, lines, tmp_path):
    expected = fit(block_runs=1, **EVERYTHING)
    assert_same(fit(tmp_path, block_runs=1, cluster=cluster, **EVERYTHING), expected, rtol=0)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".", "state"))]
    for path in tmp_path.glob(f"*/{MANIFEST}"):
        assert json.loads(path.read_text(encoding="utf-8"))["environment"]["devices"] == ["cpu: cpu"]
    assert lines == []


def test_a_cluster_solves_to_the_same_bits(cluster):
    arguments = [0.01, 1.0], small_sweep.TRAIN, {"val": small_sweep.VAL}
    expected = lc.solve(*arguments, dtype="float64", block_runs=1)
    assert_same(lc.solve(*arguments, dtype="float64", block_runs=1, cluster=cluster), expected, rtol=0)


def test_what_differs_between_replicates_travels_too(cluster):
    """Folds have rows and standardisers of their own, and float64 arrives as it is."""
    N = len(small_sweep.TRAIN)
    rows = np.arange(N)
    folds = [
        lc.Replicate(
            seed, fold, rows[rows % 2 != fold], lc.Standardizer(np.full(6, 0.1 * fold), np.full(6, 1.5)),
            {"val": rows[rows % 2 == fold]},
        )
        for seed in (0, 1)
        for fold in (0, 1)
    ]  # fmt: skip
    arguments = {"configs": lc.grid(eta=[0.1], batch=[8], lam=[0.0, 0.1]), "train": small_sweep.TRAIN}
    arguments |= {"evaluation_sets": {"val": small_sweep.TRAIN}, "epochs": 2, "init": small_sweep.init}
    expected = lc.fit(**arguments, seeds=folds, block_runs=4)
    assert_same(lc.fit(**arguments, seeds=folds, block_runs=4, cluster=cluster), expected, rtol=0)


def test_commands_share_a_worker_which_drops_what_those_that_have_left_sent(processes, cluster, monkeypatch):
    def held():
        (count,) = cluster._client.run(count_held).values()
        return count

    sent = []
    scatter = cluster._client.scatter
    monkeypatch.setattr(
        cluster._client,
        "scatter",
        lambda parts, **options: sent.append(len(parts)) or scatter(parts, **options),
    )
    expected = fit()
    with lc.Cluster(str(processes.file)) as other:
        for connection in (cluster, other, cluster):
            assert_same(fit(cluster=connection, block_runs=4), expected, rtol=0)
        assert held() == 2
    fit(cluster=cluster, block_runs=4, epochs=2)
    assert held() == 1
    # Three sets, the descent and the trainer; then nothing; then another descent and its trainer.
    assert sent == [5, 2]


def test_the_states_of_workers_that_do_not_see_the_folder_come_back(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "_marker", lambda *_: contextlib.nullcontext(tmp_path / "elsewhere"))
    epochs = []
    stopped = fit(
        tmp_path,
        epochs=MANY,
        block_runs=2,
        cluster=cluster,
        on_epoch=lambda progress: epochs.append(progress.epoch),
        should_stop=lambda: len(epochs) > 1,
    )
    assert not stopped.complete
    reached = stopped.epochs.max()
    assert 0 < reached < MANY
    assert [path.name for path in tmp_path.glob("*/state-*")] == [f"state-{reached}.npz"]
    epochs.clear()
    fit(tmp_path, epochs=MANY, block_runs=2, cluster=cluster, on_epoch=epochs.append)
    assert {progress.epoch for progress in epochs if progress.resumed} == {0, reached}
    # The state after the last epoch came back too, and without the cluster it is trained for longer.
    assert_same(fit(tmp_path, epochs=MANY + 1, block_runs=2), fit(epochs=MANY + 1, block_runs=2), rtol=0)


def test_a_killed_workers_block_is_resumed_by_one_that_joins(processes, lines, tmp_path):
    victim = processes.running[-1]
    seen, epochs = [], 3 * MANY

    def kill(progress):
        seen.append(progress)
        if 50 < progress.epoch < epochs and not lines and victim.poll() is None:
            victim.kill()
            processes.worker()

    with lc.Cluster(str(processes.file), lines.append) as cluster:
        options = {"epochs": epochs, "block_runs": 2, "save_every": 20}
        result = fit(tmp_path, cluster=cluster, on_epoch=kill, **options)
        blocks = [worker["blocks"] for worker in cluster.describe()]
    assert_same(result, fit(**options), rtol=0)
    assert len(blocks) == 2
    assert sum(blocks) == 2
    assert len(lines) == 1
    assert lines[0].endswith(" has left")
    assert max(progress.epoch for progress in seen if progress.resumed) >= 40  # from its last checkpoint
    assert sum(progress.advance for progress in seen) == pytest.approx(epochs)
    assert "4/4 runs" in seen[-1].note


def test_a_block_that_kills_its_workers_is_given_up_and_the_others_finish(processes, lines, tmp_path):
    def replace_worker(line):
        lines.append(line)
        if "has left" in line:
            processes.worker()

    options = {"seeds": (DEADLY_SEED, 1, 2), "block_runs": 2, "init": deadly_init}
    with lc.Cluster(str(processes.file), replace_worker) as cluster:
        result = fit(tmp_path, cluster=cluster, log=lines.append, **options)
    given_up = [line for line in lines if "given up" in line]
    assert len(given_up) == 1
    assert "(2 runs) is given up: 2 workers died or failed in training it" in given_up[0]
    assert result.epochs.tolist() == [[0, 0], [3, 3], [3, 3]]
    expected = fit(seeds=(1, 2), block_runs=2)
    np.testing.assert_array_equal(result.history["val_loss"][:, 1:], expected.history["val_loss"])


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ({"code": {**describe_code(), "jax": "0.0"}}, "it has jax 0.0, not "),
        ({"code": {}}, "it has Python unknown, not "),
        ({"runs": 1}, "its memory holds 1 run at a time, not 2: give smaller blocks (block_runs)"),
    ],
)
def test_a_worker_that_does_not_fit_is_left_out_in_one_line(cluster, lines, monkeypatch, described, reason):
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.6)
    check = cluster_module.Cluster._check

    def check_another(self, worker):
        worker.description = worker.description._replace(**described)
        check(self, worker)

    monkeypatch.setattr(cluster_module.Cluster, "_check", check_another)
    with pytest.raises(lc.NothingTrained):
        fit(cluster=cluster, block_runs=2, should_stop=lambda: len(lines) > 1)
    (address,) = cluster._workers
    left_out, waiting = sorted(lines, key=lambda line: line.startswith("waiting for a worker at "))
    assert left_out.startswith(f"worker {address} (")
    assert f") is left out: {reason}" in left_out
    assert waiting.endswith(": each that is there is busy, has not answered, or is left out")


def test_a_finished_sweep_needs_no_worker(cluster, monkeypatch, tmp_path):
    expected = fit(tmp_path)
    monkeypatch.setattr(lc.Cluster, "count_runs", pytest.fail)
    assert_same(fit(tmp_path, cluster=cluster), expected, rtol=0)


@pytest.mark.parametrize(
    ("memory", "num_runs", "largest_block", "at_once"),
    [
        ([1000], 10, None, 24),
        ([1000] * 3, 6400, None, 100),
        ([1000] * 32, 6400, None, 50),
        ([10, 40, 90], 10**6, None, 40),
        ([300, 2000], 4096, 256, 256),
    ],
)
def test_the_size_of_blocks_follows_from_runs_workers_and_memory(
    cluster, monkeypatch, memory, num_runs, largest_block, at_once
):
    workers = [cluster_module._Worker(f"tcp://{i}", "") for i in range(len(memory))]
    for worker, runs in zip(workers, memory, strict=True):
        worker.description = Description(describe_code(), "host", ["cpu: cpu"], runs)
    cluster._workers = {worker.address: worker for worker in workers}
    for name in ("_ask", "_poll"):
        monkeypatch.setattr(lc.Cluster, name, lambda *_: None)
    assert cluster.count_runs({}, num_runs, None, largest_block) == at_once
    assert [worker.fits for worker in workers] == [runs >= at_once for runs in memory]
    cluster._workers.clear()


def test_no_scheduler_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster_module, "CONNECT_TIMEOUT", 0.2)
    broken = tmp_path / "scheduler.json"
    broken.write_text("{}", encoding="utf-8")
    for scheduler in ("tcp://127.0.0.1:1", "nowhere", "http://127.0.0.1:1", "tls://127.0.0.1:1", str(broken)):
        with pytest.raises(lc.ClusterError, match=f"^no Dask scheduler answers at {scheduler}: [^\n]+$"):
            lc.Cluster(scheduler)


def test_dask_is_imported_only_where_there_is_a_scheduler():
    program = "import sys, experiments.grid, linear_cifar; print({'dask', 'distributed'} & {*sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"set()\n"
    )


def test_a_command_trains_on_a_cluster_is_stopped_and_resumes(processes, tmp_path):
    """`tests/cluster_kills.py` compares its files with those of one process."""
    out, more = tmp_path / "out", ("--block_runs=1", "--eta=0.1", f"--scheduler={processes.file}")
    process = kills.start(out, tmp_path, "--save_every=1", *more)
    assert kills.reach(process, out, "training")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "to resume: python -m experiments.grid" in errors
    kills.finish(kills.start(out, tmp_path, *more))
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (worker,) = config["workers"]
    assert worker["devices"] == config["devices"] * 2 == ["cpu: cpu"] * 2
    assert 0 < worker["blocks"] <= 2
    assert config["complete"]
    assert kills.saved_states(out) == {}
