"""Named recipes: sets of flags that `--recipe` gives, each of which may still be given otherwise."""

from collections.abc import Sequence
from typing import Any

from absl import flags

_BEYOND = {
    "train": "full", "flip": True, "shift": 1, "schedule": "cosine", "epochs": 200, "seeds": 5,
}  # fmt: skip
# The flag belongs to the experiment that calls for it.
flags.disclaim_key_flags()

RECIPES: dict[str, dict[str, Any]] = {
    # Every flag as its experiment has it.
    "report": {},
    # What plain NumPy code of the course does: its generator, the files' order, float64.
    "reference": {
        "init": "numpy", "seed": 42, "seeds": 1, "shuffle": False, "flip": False, "dtype": "float64",
    },
    # The highest accuracies found for each loss; see the README for what they give.
    "best": _BEYOND | {"eta": (0.1,), "batch": (200,), "lam": (0.00003, 0.0001), "q": (0.7,)},
    "best-softmax": _BEYOND | {"eta": (0.01, 0.03), "batch": (100,), "lam": (0.001,)},
    "best-bce": _BEYOND | {
        "loss": "bce", "eta": (0.1, 0.3), "batch": (100,), "lam": (0.00003,), "q": (0.4,),
    },
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
