"""Strict settings for all tests: shapes checked at run time, no silent broadcasting, two CPU devices."""

import os
import signal
from pathlib import Path

import compiling
import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Of this process alone: commands are compiled as a user's are.
given = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{given or ''} {compiling.FLAGS}"
jax.devices()  # reads them
if given is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = given

# Of a job in the background shells have it ignored, by the processes that the tests start and interrupt too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any test imports the package.
jaxtyping.install_import_hook("linear_cifar", "beartype.beartype")


# The files that take longest, so that no core is left with one of them at the end.
FIRST = ("test_resume", "test_hosts", "test_table1", "test_sweep", "test_report", "test_download")


def pytest_collection_modifyitems(items):
    """Puts the files that take longest first."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def cifar10_dir():
    """The folder with the real images unpacked; tests that need it are skipped where it is not named."""
    if "CIFAR10_DIR" not in os.environ:
        pytest.skip("CIFAR10_DIR does not name a folder with the unpacked CIFAR-10")
    return Path(os.environ["CIFAR10_DIR"])


@pytest.fixture(scope="session")
def cifar10(cifar10_dir):
    """The real images as their makers divide them."""
    from linear_cifar.cifar10 import read

    return read(cifar10_dir)
