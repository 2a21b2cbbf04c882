"""A sweep in a process of its own: how soon it trains, and how much memory it takes.

    python -m experiments.benchmark.probe --configs=48 --dataset=synthetic

prints one line of JSON:

- to_first_epoch_s: seconds from --started, or from the first import, to the end of the first epoch
- loading_s: seconds from the same moment until the images are loaded
- first_epoch_s, second_epoch_s: seconds of these epochs; their difference is about the time of compiling
- ends: the time at which each epoch ended, in seconds since 1970
- peak_bytes: the most memory that the process held

With --images=N it trains on N images of random bytes instead of a data set.
"""

import json
import re
import resource
import sys
import time
from pathlib import Path

from absl import flags

from experiments.benchmark.baselines import BenchData, make_configs, random_data, start_sweep
from experiments.cli.flags import define_data
from experiments.cli.launch import launch
from linear_cifar.data.find import find_dataset
from linear_cifar.data.prepare import prepare_data

FLAGS = flags.FLAGS
_IMPORTED = time.time()


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_integer("configs", 48, "number of configurations, a multiple of 12", lower_bound=12)
    flags.DEFINE_integer("seeds", 1, "number of seeds", lower_bound=1)
    flags.DEFINE_integer("epochs", 2, "number of passes over the training images", lower_bound=2)
    flags.DEFINE_integer(
        "images",
        None,
        "number of training images of random bytes (default: train on --dataset)",
        lower_bound=400,
    )
    flags.DEFINE_float(
        "started",
        None,
        "time at which the process was started, in seconds since 1970 (default: its first import)",
    )
    define_data("synthetic")


def main() -> None:
    """Train and print the measurements."""
    data = _load_data()
    loaded = time.time()
    configs, seeds = make_configs(FLAGS.configs), range(FLAGS.seeds)
    ends = [time.time() for _ in start_sweep(configs, data, epochs=FLAGS.epochs, seeds=seeds)]
    started = FLAGS.started or _IMPORTED
    measured = {
        "configs": FLAGS.configs,
        "to_first_epoch_s": ends[0] - started,
        "loading_s": loaded - started,
        "first_epoch_s": ends[0] - loaded,
        "second_epoch_s": ends[1] - ends[0],
        "ends": ends,
        "peak_bytes": measure_peak_bytes(),
    }
    print(json.dumps(measured))


def measure_peak_bytes() -> int:
    """Return the most memory that this process has held."""
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8")) if status.exists() else None
    if peak:
        # On Linux, `getrusage` would return the parent's peak if that was higher.
        return 1024 * int(peak[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _load_data() -> BenchData:
    """Return the examples that the flags ask for."""
    if FLAGS.images is not None:
        return random_data(FLAGS.images)
    data = prepare_data(find_dataset(FLAGS.dataset, FLAGS.data_dir))
    return BenchData(data.sets["train"], data.sets["val"], data.standardizer)


if __name__ == "__main__":
    launch(define_flags, main)
