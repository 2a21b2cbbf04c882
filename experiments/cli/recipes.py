"""Named recipes: sets of flags that `--recipe` gives. Each flag can be overridden on the command line."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments.runner.errors import UsageError
from experiments.runner.settings import PATH
from linear_cifar.config import Range

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

# Of a user's own data: below FEW_ROWS training rows, folds validate, and training takes more epochs. Of more
# rows at most MOST_VALIDATING validate. A batch has at most LARGEST_BATCH rows.
FEW_ROWS, MOST_VALIDATING, LARGEST_BATCH = 5_000, 10_000, 256
# Learning rates and L2 strengths for features of mean 0 and standard deviation 1, from 10 to 4,000 of them.
ETAS, LAMS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (0.00001, 0.0001, 0.001, 0.01, 0.1)

# Range of λ for exact minima.
PATH_LAMS = Range(1e-6, 1.0)


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
    if values and "data" in flags.FLAGS and flags.FLAGS.data is not None:
        raise UsageError(
            f"--recipe={flags.FLAGS.recipe} is for CIFAR-10: with --data give its flags one by one"
        )
    set_defaults(values)


def set_defaults(values: Mapping[str, Any]) -> list[str]:
    """Give each flag that is not on the command line its value; return these flags as words."""
    for name, value in values.items():
        flags.FLAGS.set_default(name, value)
    return _words({name: value for name, value in values.items() if not flags.FLAGS[name].present})


def fit_defaults(sizes: Mapping[str, int]) -> list[str]:
    """Set the defaults of flags for a user's own data with splits of these sizes; return them as words.

    Few rows train for more epochs, and validate by five folds, so that each validates once. Of more rows a
    fifth validates. An epoch has at least 32 batches where there are so many rows, and η falls, as features
    that depend on one another need many steps.
    """
    flag_values, n = flags.FLAGS, sizes["train"]
    # A mirror image may be of another class.
    solves = "solver" in flag_values and flag_values.solver == PATH
    values: dict[str, Any] = {}
    if not solves and "epochs" in flag_values:
        values = {"flip": False, "schedule": "cosine"} | ({"epochs": 100} if n < FEW_ROWS else {})
    if "val" not in sizes and not flag_values["val_size"].present and not flag_values["folds"].present:
        tested = any(name.startswith("test") for name in getattr(flag_values, "evaluate", ()))
        by_folds = n < FEW_ROWS and not tested
        values |= {"folds": 5} if by_folds else {"val_size": max(1, min(n // 5, MOST_VALIDATING))}
    if solves:
        values |= {"lam": PATH_LAMS}
    elif "eta" in flag_values and not isinstance(flag_values.eta, Range):  # a grid
        values |= {"eta": ETAS, "lam": LAMS}
    words = set_defaults(values)
    if solves or "batch" not in flag_values:
        return words
    folds, val_size = flag_values.folds, 0 if "val" in sizes else flag_values.val_size
    if folds:
        n += sizes.get("val", 0)
    largest = max(1, min((n - n // folds if folds else n - val_size) // 32, LARGEST_BATCH))
    return words + set_defaults({"batch": (2 ** (largest.bit_length() - 1),)})


def _describe(name: str) -> str:
    return " ".join(_words(RECIPES[name])) or "the command's own"


def _words(values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line that give flags these values."""
    return [
        f"--{flag}={','.join(map(str, value)) if type(value) is tuple else str(value).lower()}"
        for flag, value in values.items()
    ]
