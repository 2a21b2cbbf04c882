"""Absent accelerators, for which XLA can compile."""

import os
from importlib.util import find_spec
from typing import NamedTuple

import jax
from jax.experimental import topologies

from experiments.runner.errors import UsageError


class Accelerator(NamedTuple):
    """A number of devices of one kind.

    `package` is the module of their compiler. `topology` has the arguments of JAX's `get_topology_desc`,
    `options` those of XLA's compiler. `environment` has the variables that the compiler needs.
    """

    platform: str
    package: str
    topology: dict[str, str]
    options: dict[str, bool | str]
    environment: dict[str, str]


# XLA's GpuTargetConfigProto, with facts from the data sheet. With a cub_version, sorting would need a GPU.
H100 = """
gpu_device_info {
  name: "NVIDIA H100 80GB HBM3"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  runtime_version: "13.0.0" driver_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Without a GPU nothing can be tuned by trying. Then Triton's products fail to compile, as does CUB's sort.
GPU_OPTIONS: dict[str, bool | str] = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_deviceless_cub_mode": "DEVICELESS_CUB_DISABLED",
}
# Without these, libtpu asks the cloud which TPU it is on.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}


def _h100s(count: int) -> Accelerator:
    topology = {"topology_name": "h100", "target_config": H100, "topology": f"1x1x{count}"}
    return Accelerator("cuda", "jax_cuda13_plugin", topology, GPU_OPTIONS, {})


def _tpus(topology_name: str) -> Accelerator:
    return Accelerator("tpu", "libtpu", {"topology_name": topology_name}, {}, TPU_ENVIRONMENT)


ACCELERATORS = {
    "h100": _h100s(1),
    "h100x4": _h100s(4),
    "v5e": _tpus("v5e:1x1"),
    "v5e:2x2": _tpus("v5e:2x2"),
}


def make_devices(name: str) -> list[jax.Device]:
    """Return devices to compile for; call it before JAX's first use.

    Raises:
      UsageError: if their compiler is not installed.
    """
    accelerator = ACCELERATORS[name]
    if find_spec(accelerator.package) is None:
        raise UsageError(
            f"--compile={name} needs {accelerator.package}: "
            "pip install '.[compile]' in an environment of its own"
        )
    # JAX would look for the GPU or TPU itself, and not find it.
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(accelerator.environment)
    found = topologies.get_topology_desc(platform=accelerator.platform, **accelerator.topology)
    return list(found.devices)
