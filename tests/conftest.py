"""Strict settings for all tests: shapes checked at run time, no silent broadcasting, two CPU devices."""

import os
import signal
from pathlib import Path

import jax
import jaxtyping
import pytest
import xla_flags

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# For this process alone: the commands that tests start are compiled as a user's are.
users_flags = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{users_flags or ''} {xla_flags.FLAGS}"
jax.devices()  # reads them
if users_flags is None:
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = users_flags

# pytest-xdist gives its processes a width, and the lines of the commands would break there.
os.environ.pop("COLUMNS", None)

# Shells ignore this signal in background jobs, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any test imports the package.
jaxtyping.install_import_hook("linear_cifar", "beartype.beartype")


# The files that take longest, so that no core is left with one of them at the end.
FIRST = (
    "test_resume",
    "test_table1",
    "test_readme",
    "test_descent",
    "test_download",
    "test_report",
    "test_cluster",
)


def pytest_collection_modifyitems(items):
    """Put the files that take longest first."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def cifar10_dir():
    """The folder with the real images unpacked; without CIFAR10_DIR, tests that need it are skipped."""
    if "CIFAR10_DIR" not in os.environ:
        pytest.skip("CIFAR10_DIR does not name a folder with the unpacked CIFAR-10")
    return Path(os.environ["CIFAR10_DIR"])


@pytest.fixture(scope="session")
def cifar10(cifar10_dir):
    """The real images as their makers divide them."""
    from linear_cifar.data.cifar10 import read_cifar10

    return read_cifar10(cifar10_dir)
