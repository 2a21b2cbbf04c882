"""Named recipes: sets of flags that `--recipe` gives. Each flag can be overridden on the command line."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.runner.errors import UsageError

# The flag belongs to the command that calls for it.
flags.disclaim_key_flags()

_FULL_DATA = {"train": "full", "flip": True, "shift": 1, "schedule": "cosine", "batch": (100,), "seeds": 5}

RECIPES: dict[str, dict[str, Any]] = {
    # The defaults of each command, which are the report's settings.
    "report": {},
    # The choices of the course's plain NumPy code: its random numbers, the order of the files, float64.
    "reference": {
        "init": "numpy", "seed": 42, "seeds": 1, "shuffle": False, "flip": False, "dtype": "float64",
    },
    # The highest accuracies found, by searches with 5,000 training images held out; see the README.
    "best": _FULL_DATA | {"epochs": 200, "eta": (0.1,), "batch": (200,), "lam": (0.0001,), "q": (0.7,)},
    "best-softmax": _FULL_DATA | {"epochs": 100, "eta": (0.01, 0.03), "lam": (0.001,)},
    "best-bce": _FULL_DATA | {"epochs": 100, "loss": "bce", "eta": (0.3,), "lam": (0.00003,), "q": (0.4,)},
}  # fmt: skip

# Defaults with --data, which need not be images, and where a mirror image may be of another class.
USER_FILE_DEFAULTS = {"flip": False}


def define_recipe(names: Sequence[str]) -> None:
    """Define the flag for a command that has the flags of these recipes."""
    flags.DEFINE_enum(
        "recipe",
        "report",
        list(names),
        "set of defaults for other flags. " + "; ".join(f"{name}: {_describe(name)}" for name in names),
    )


def apply_recipe() -> None:
    """Give the recipe's value to each of its flags that is not on the command line.

    Raises:
      UsageError: if a recipe, all of which were found on CIFAR-10, is given with other data.
    """
    if "recipe" not in flags.FLAGS:
        return
    values = RECIPES[flags.FLAGS.recipe]
    if "data" in flags.FLAGS and flags.FLAGS.data is not None:
        if values:
            raise UsageError(
                f"--recipe={flags.FLAGS.recipe} is for CIFAR-10: with --data give its flags one by one"
            )
        values = USER_FILE_DEFAULTS
    for name, value in values.items():
        flags.FLAGS.set_default(name, value)


def _describe(name: str) -> str:
    words = [
        f"--{flag}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for flag, value in RECIPES[name].items()
    ]
    return " ".join(words) or "the command's own"
