"""Named recipes: sets of flags that `--recipe` gives, each of which may still be given otherwise."""

from collections.abc import Sequence
from typing import Any

from absl import flags

_BEYOND = {"train": "full", "flip": True, "shift": 1, "schedule": "cosine", "batch": (100,), "seeds": 5}
# The flag belongs to the experiment that calls for it.
flags.disclaim_key_flags()

RECIPES: dict[str, dict[str, Any]] = {
    # Every flag as its experiment has it.
    "report": {},
    # What plain NumPy code of the course does: its generator, the files' order, float64.
    "reference": {
        "init": "numpy", "seed": 42, "seeds": 1, "shuffle": False, "flip": False, "dtype": "float64",
    },
    # The highest accuracies found, by searches that held 5,000 training images out; see the README.
    "best": _BEYOND | {"epochs": 200, "eta": (0.1,), "batch": (200,), "lam": (0.0001,), "q": (0.7,)},
    "best-softmax": _BEYOND | {"epochs": 100, "eta": (0.01, 0.03), "lam": (0.001,)},
    "best-bce": _BEYOND | {"epochs": 100, "loss": "bce", "eta": (0.3,), "lam": (0.00003,), "q": (0.4,)},
}  # fmt: skip


def define_recipe(names: Sequence[str]) -> None:
    """Defines the flag for an experiment that has the flags of these recipes."""
    flags.DEFINE_enum(
        "recipe",
        "report",
        list(names),
        "defaults of other flags: " + "; ".join(f"{name}: {_describe(name)}" for name in names),
    )


def apply_recipe() -> None:
    """Gives the recipe's value to every flag that was not given on the command line."""
    if "recipe" in flags.FLAGS:
        for name, value in RECIPES[flags.FLAGS.recipe].items():
            flags.FLAGS.set_default(name, value)


def _describe(name: str) -> str:
    return " ".join(f"--{flag}={value}" for flag, value in RECIPES[name].items()) or "the experiment's own"
