"""One sweep in a process of its own, for the benchmark: how soon it trains, and what memory it takes.

    python -m experiments.probe --configs=48 --dataset=synthetic

prints a line of JSON: seconds to the end of the first epoch, since --started or the first import; seconds of
the first and of the second epoch, whose difference is about that of compiling; when each epoch ended, in
seconds since 1970; peak memory. --images=N trains on N images of random bytes instead of a data set.
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

from absl import flags

from experiments.contestants import RECIPE, many, random_arena
from experiments.flags import define_data
from experiments.shell import launch
from linear_cifar.evaluation import Examples, examples
from linear_cifar.load import load
from linear_cifar.standardizer import Standardizer, fit_standardizer
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
    flags.DEFINE_integer("seeds", 1, "how many", lower_bound=1)
    flags.DEFINE_integer("epochs", 2, "how many", lower_bound=2)
    flags.DEFINE_integer("images", None, "of random bytes, at least 400", lower_bound=400)
    flags.DEFINE_float("started", None, "when the process was started, in seconds since 1970")
    define_data("synthetic")


def main() -> None:
    """Trains and prints the measurements."""
    train, val, standardizer = _loaded() if FLAGS.images is None else random_arena(FLAGS.images)[:3]
    loaded = time.time()
    configs, seeds = many(FLAGS.configs), range(FLAGS.seeds)
    epochs = sweep(configs, train, {"val": val}, standardizer, RECIPE, FLAGS.epochs, seeds)
    ends = [time.time() for _ in epochs]
    start = FLAGS.started or _START
    measured = {
        "configs": FLAGS.configs,
        "to_first_epoch_s": ends[0] - start,
        "loading_s": loaded - start,
        "first_epoch_s": ends[0] - loaded,
        "second_epoch_s": ends[1] - ends[0],
        "ends": ends,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(measured))


def _loaded() -> tuple[Examples, Examples, Standardizer]:
    data_dir = None if FLAGS.data_dir is None else Path(FLAGS.data_dir).expanduser()
    dataset = load(FLAGS.dataset, data_dir)
    train, val = (examples(*split, len(dataset.classes)) for split in (dataset.train, dataset.val))
    return train, val, fit_standardizer(dataset.train.images)


if __name__ == "__main__":
    launch(define_flags, main)
