import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import small_sweep
from absl.testing import flagsaver

import linear_cifar as lc
from experiments import grid
from experiments.cli.launch import parse_flags
from experiments.runner.errors import UsageError
from linear_cifar import descent, memory
from linear_cifar.data.formats import read_features
from linear_cifar.data.prepare import prepare_data
from linear_cifar.memory import PROCESS_BYTES, USABLE_SHARE, max_runs, replicate_bytes, run_bytes

COPIES = Path(__file__).parent / "copies.py"

WEIGHTS = 4 * 3073 * 10


def max_cifar_runs(memory_bytes, configs=48):
    sizes = {"n": 60_000, "d": 3072, "K": 10, "dtype": "float32", "largest_batch": 400}
    return max_runs(jax.devices()[:1], memory_bytes, num_configs=configs, **sizes)


def test_runs_grow_with_the_memory_and_never_need_more():
    assert max_cifar_runs(10**9) == 1
    counts = [max_cifar_runs(gigabytes * 10**9) for gigabytes in (4, 8, 16, 32)]
    assert counts == sorted(set(counts))
    for gigabytes, runs in zip((4, 8, 16, 32), counts, strict=True):
        nbytes = PROCESS_BYTES + 2 * 60_000 * (3072 + 4 * 10) + runs * 8 * WEIGHTS
        assert nbytes <= USABLE_SHARE * gigabytes * 10**9


def test_a_run_takes_its_weights_and_a_batch():
    logits = 4 * 1_000 * 10  # of the examples that are evaluated at a time
    assert run_bytes(3072, 10, "float32", 100) == 8 * WEIGHTS + 4 * logits
    assert run_bytes(3072, 10, "float64", 100) == 16 * WEIGHTS + 8 * logits
    assert run_bytes(3072, 10, "float32", 5_000) == 8 * WEIGHTS + 5 * 4 * logits
    # A head of 1,536 features and 1,000 classes: 55 MB were measured.
    assert 55e6 < run_bytes(1536, 1000, "float32", 256) < 70e6
    assert replicate_bytes(3072, 1, "float32", 100, chunk=1_600) == 3072 * (1600 + 800)
    assert max_cifar_runs(8 * 10**9, configs=1) < max_cifar_runs(8 * 10**9, configs=48)


@pytest.mark.parametrize(
    ("group", "path"),
    [
        ("0::/", "memory.max"),
        ("0::/slurm/job_1/step_0", "slurm/job_1/memory.max"),
        ("0::/seen/from/outside", "memory.max"),
        ("5:devices:/a\n4:cpu,memory:/slurm/job_1\n0::/", "memory/slurm/memory.limit_in_bytes"),
    ],
)
@pytest.mark.parametrize("limit", ["2000000000", "max"])
def test_the_limit_of_a_container_or_a_job_counts(tmp_path, monkeypatch, group, path, limit):
    (tmp_path / "own").write_text(group + "\n", encoding="utf-8")
    (tmp_path / "groups" / path).parent.mkdir(parents=True)
    (tmp_path / "groups" / path).write_text(limit + "\n", encoding="utf-8")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_ALL_GROUPS", tmp_path / "groups")
    assert (memory.process_memory() == 2 * 10**9) == (limit != "max")
    assert memory.device_memory(jax.local_devices()) == memory.process_memory()


def test_a_machine_too_small_for_one_run_is_refused_with_the_numbers():
    run = run_bytes(3072, 10, "float32", 400) + replicate_bytes(3072, 1, "float32", 400, chunk=1_600)
    needed = PROCESS_BYTES + 60_000 * (3072 + 4 + memory.ORDER_BYTES) + run
    assert max_cifar_runs(needed) == 1
    with pytest.raises(
        ValueError,
        match=r"^training \(60,000 examples take 0\.185 GB, and one run 0\.0207 GB\) needs 0\.905\d* GB, "
        r"and there are 0\.905\d* GB: give more memory, fewer examples, .* type such as float16$",
    ):
        max_cifar_runs(needed - 1)


@pytest.mark.parametrize(("feature_bytes", "gigabytes"), [(1, 0.51), (2, 1.02), (4, 2.04), (8, 2.04)])
def test_an_accelerator_holds_the_examples_once_and_never_wider_than_the_weights(
    feature_bytes, gigabytes, monkeypatch
):
    # Checks of types would refuse the device.
    monkeypatch.setattr(memory, "device_memory", inspect.unwrap(memory.device_memory))
    monkeypatch.setattr(memory, "on_cpu", inspect.unwrap(memory.on_cpu))

    def count(limit, memory_bytes=None):
        device = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": limit})
        sizes = {"n": 10**6, "d": 500, "K": 10, "dtype": "float32", "largest_batch": 100, "num_configs": 1}
        return inspect.unwrap(max_runs)([device], memory_bytes, feature_bytes=feature_bytes, **sizes)

    enough = int((gigabytes + 0.1) * 1e9)
    assert count(enough) == count(10**6, enough) == 1
    with pytest.raises(ValueError, match=r"^training \(1,000,000 examples .* needs"):
        count(int((gigabytes - 0.1) * 1e9))
    with pytest.raises(ValueError, match=r"and there are 0\.001 GB"):
        count(enough, 10**6)


def test_fit_and_the_command_refuse_what_the_memory_does_not_hold(tmp_path, monkeypatch):
    problem = {"epochs": 1, "init": small_sweep.init}
    with pytest.raises(
        ValueError, match=r"^training .* one run .* needs 0\.7.* GB, and there are 0\.5 GB: give"
    ):
        lc.fit(small_sweep.CONFIGS, small_sweep.TRAIN, memory_bytes=5 * 10**8, **problem)
    monkeypatch.setattr(memory, "process_memory", lambda: 5 * 10**8)
    lc.fit(small_sweep.CONFIGS, small_sweep.TRAIN, memory_bytes=10**9, **problem)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(90, 4)).astype("f4"), y=np.arange(90) % 3)
    with flagsaver.flagsaver():
        grid.define_flags()
        parse_flags(["grid", f"--data={tmp_path / 'own.npz'}", f"--out={tmp_path / 'out'}", "--val_size=9",
                     "--batch=9"])  # fmt: skip
        with pytest.raises(UsageError, match=r"^training \(90 examples .* needs 0\.7.* there are 0\.5 GB"):
            grid.main()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what a process takes")
def test_one_copy_of_the_features_is_in_memory_and_none_of_a_mapped_file(tmp_path):
    rng, n, d = np.random.default_rng(0), 50_000, 1024

    def write(name, **sizes):
        (tmp_path / name).mkdir()
        arrays = {}
        for split, rows in sizes.items():
            bits = rng.integers(0, 15_000, (rows, d), np.uint16)  # finite and positive as float16
            arrays |= {f"x_{split}": bits.view(np.float16), f"y_{split}": np.arange(rows) % 10}
        for array, values in arrays.items():
            np.save(tmp_path / name / f"{array}.npy", values)
        return arrays

    arrays = write("mapped", train=n, val=100)
    np.savez(tmp_path / "loaded.npz", **arrays)
    write("drawn", train=n + 100)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", COPIES, "mapped", "mapped", "loaded.npz", "drawn"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(COPIES.parent.parent), "JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    mapped, loaded, drawn = np.array(process.stdout.split(), float) / arrays["x_train"].nbytes
    assert mapped < 0.6  # a part that does not grow with n
    assert 0.9 < loaded < 1.4
    assert 0.9 < drawn < 1.4


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, ml_dtypes.bfloat16])
def test_features_keep_their_type_from_the_file_to_the_step(dtype, tmp_path, monkeypatch):
    n, m, d = 600, 60, 64
    rng, arrays = np.random.default_rng(0), {}
    for split, rows in {"train": n, "val": m}.items():
        arrays[f"x_{split}"] = rng.integers(0, 200, (rows, d)).astype(dtype)
        arrays[f"y_{split}"] = np.arange(rows) % 3
    safetensors.numpy.save_file(arrays, tmp_path / "own.safetensors")
    programs, compile_programs = [], descent.compile_programs

    def keep_programs(lowered):
        programs.extend(lowered)
        compile_programs(programs)

    monkeypatch.setattr(descent, "compile_programs", keep_programs)
    data = prepare_data(read_features(tmp_path / "own.safetensors"))
    lc.fit([lc.Config(0.1, 20)], data.sets["train"], data.sets, epochs=1, standardizer=data.standardizer,
           devices=jax.local_devices()[:1])  # fmt: skip
    epoch, *metrics = programs
    assert len(metrics) == 2
    features = [leaf.dtype for program in programs for leaf in jax.tree.leaves(program.args_info)
                if leaf.shape in ((n, d), (m, d))]  # fmt: skip
    assert features == [np.dtype(dtype)] * 3
    held = n * (d * np.dtype(dtype).itemsize + 4)
    assert held < epoch.compile().memory_analysis().argument_size_in_bytes < held + 4 * d * (3 + 2) + 1_000
