"""What every training experiment does around its settings and figures: checks, data, sweep, files."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from experiments import provenance, results, table
from experiments.files import CONFIG, folder_for_run, write_json
from experiments.flags import PRECISIONS
from experiments.progress import download_bar
from experiments.run import Run, run
from experiments.shell import UsageError
from linear_cifar.augment import Augmentation, horizontal_flip, in_turn, random_shift
from linear_cifar.config import Config, check
from linear_cifar.dataset import Dataset, train_size
from linear_cifar.load import load
from linear_cifar.losses import get_loss
from linear_cifar.schedules import SCHEDULES
from linear_cifar.training import Recipe

FLAGS = flags.FLAGS


def conduct(experiment: str, configs: Sequence[Config], draw: Callable[[Path, Run, Dataset], None]) -> None:
    """Trains the configurations as the flags say, writes the run's files and prints its table.

    Args:
      experiment: name of the experiment's module.
      configs: what to train.
      draw: adds the experiment's own figures to the folder.

    Raises:
      UsageError: if the flags don't go together, or the folder can't be used; before anything is loaded.
      DataError: if there is no usable data.
    """
    n = train_size(FLAGS.train, FLAGS.val_size)
    for config in configs:
        try:
            check(config, n)
        except ValueError as error:
            raise UsageError(str(error)) from None
    out = Path(FLAGS.out or f"results/{experiment}/{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    with folder_for_run(out) as folder:
        data_dir = None if FLAGS.data_dir is None else Path(FLAGS.data_dir).expanduser()
        with download_bar("CIFAR-10") as report:
            dataset = load(FLAGS.dataset, data_dir, FLAGS.train, FLAGS.val_size, _tell, report)
        recipe = Recipe(
            get_loss(FLAGS.loss),
            augment=in_turn(_augmentations()),
            precision=PRECISIONS[FLAGS.precision],
        )
        schedule = SCHEDULES[FLAGS.schedule](FLAGS.epochs)
        done = run(configs, dataset, recipe, FLAGS.epochs, FLAGS.seed, schedule)
        results.write(folder, done, dataset)
        draw(folder, done, dataset)
        write_json(folder / CONFIG, provenance.describe(experiment, _settings(), dataset, len(configs)))
    print(table.render(done, dataset.name))
    print(f"files: {folder}")


def _augmentations() -> list[Augmentation]:
    """Those that the flags ask for."""
    flip = [horizontal_flip] if FLAGS.flip else []
    return [*flip, partial(random_shift, pixels=FLAGS.shift)] if FLAGS.shift else [*flip]


def _settings() -> dict[str, Any]:
    """The experiment's flags, those left at their defaults too."""
    return {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
