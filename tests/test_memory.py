import jax
import pytest

from linear_cifar import memory
from linear_cifar.memory import PROCESS_BYTES, USABLE_SHARE, max_runs, replicate_bytes, run_bytes

WEIGHTS = 4 * 3073 * 10


def max_cifar_runs(memory_bytes, configs=48):
    sizes = {"n": 60_000, "d": 3072, "K": 10, "dtype": "float32", "largest_batch": 400}
    return max_runs(jax.devices()[:1], memory_bytes, num_configs=configs, **sizes)


def test_runs_grow_with_the_memory_and_never_need_more():
    assert [max_cifar_runs(0), max_cifar_runs(10**9)] == [1, 1]
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
