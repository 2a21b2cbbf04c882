"""One sweep in a process of its own, for the benchmark: how soon it trains, and what memory it takes.

    python -m experiments.probe --configs=48 --dataset=synthetic

prints a line of JSON: seconds to the end of the first epoch, since --started or the first import; seconds of
the first and of the second epoch, whose difference is about that of compiling; peak memory.
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

from absl import flags

from experiments.contestants import RECIPE, many
from experiments.flags import define_data
from experiments.shell import launch
from linear_cifar.evaluation import examples
from linear_cifar.load import load
from linear_cifar.standardizer import fit_standardizer
from linear_cifar.sweep import sweep

FLAGS = flags.FLAGS
_START = time.time()


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    if found:
        # Linux; its rusage would tell the parent's peak if that was higher.
        return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_integer("configs", 48, "how many, a multiple of 12", lower_bound=12)
    flags.DEFINE_float("started", None, "when the process was started, in seconds since 1970")
    define_data("synthetic")


def main() -> None:
    """Trains for two epochs and prints the measurements."""
    data_dir = None if FLAGS.data_dir is None else Path(FLAGS.data_dir).expanduser()
    dataset = load(FLAGS.dataset, data_dir)
    standardizer = fit_standardizer(dataset.train.images)
    train, val = (examples(*split, len(dataset.classes)) for split in (dataset.train, dataset.val))
    loaded = time.time()
    ends = [
        time.time() for _ in sweep(many(FLAGS.configs), train, {"val": val}, standardizer, RECIPE, epochs=2)
    ]
    start = FLAGS.started or _START
    measured = {
        "configs": FLAGS.configs,
        "to_first_epoch_s": ends[0] - start,
        "loading_s": loaded - start,
        "first_epoch_s": ends[0] - loaded,
        "second_epoch_s": ends[1] - ends[0],
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    launch(define_flags, main)
