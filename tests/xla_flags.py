"""Compiler flags of the tests: they compile quickly, because the small programs run only briefly."""

import mmap
from pathlib import Path

import jaxlib


def _known(flag: str) -> bool:
    """Tell whether XLA knows a flag; an unknown one would end the process."""
    # As a string of its own: the names of removed flags still occur within other ones.
    name = b"\0" + flag.lstrip("-").partition("=")[0].encode() + b"\0"
    for library in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name) >= 0
    return False


# For XLA_FLAGS, before JAX's first use. The second flag halves the time of compiling.
FLAGS = " ".join(
    filter(_known, ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"])
)
