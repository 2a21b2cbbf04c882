"""How the tests compile: quickly, as to compile these small programs well would take longer than it saves."""

import mmap
from pathlib import Path

import jaxlib


def _known(flag: str) -> bool:
    """Whether XLA has such a flag: for one that it doesn't have it ends the process."""
    name = flag.lstrip("-").partition("=")[0].encode()
    for library in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(name) >= 0
    return False


# To be put into XLA_FLAGS before JAX's first use. The second one halves the time that compiling takes.
FLAGS = " ".join(
    filter(_known, ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"])
)
