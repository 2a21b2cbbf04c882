"""The identity of a sweep: all that decides its numbers, in words, and its hash.

Snapshots, blocks and experiments on disk hold an identity. `Identity.difference` alone decides whether they
belong to a sweep.
"""

import hashlib
import inspect
import json
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from types import CodeType
from typing import Any, NamedTuple

import jax
import numpy as np

from linear_cifar.config import Config
from linear_cifar.examples import Examples
from linear_cifar.losses import LOSSES, MADE_FROM, Loss
from linear_cifar.replicates import Replicate, ReplicateId, digest_arrays, identify_replicate
from linear_cifar.standardizer import Standardizer

# Version of what snapshots and blocks hold, see experiments/FILES.md.
FORMAT = 1
_PACKAGE = f"{__name__.split('.')[0]}."
_SHA256 = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
# Settings that are functions, whose names must show which function it was.
FUNCTIONS = ("loss", "optimizer", "augment", "init")
# The setting that names the method where it is not gradient descent.
METHOD = "method"


class Identity(NamedTuple):
    """All that decides the numbers of S replicates × C configurations, and the order of their axes.

    `settings` and `data` hold what JSON can hold. `epochs` has the factor of η, and the number of epochs
    averaged, of every epoch. A sweep of more epochs can resume an earlier one if its own epochs begin in the
    same way. So a constant η can be extended, and a cosine cannot.
    """

    configs: tuple[Config, ...]
    replicates: tuple[ReplicateId, ...]
    settings: dict[str, Any]  # names of functions, shapes, precision, what is measured
    data: dict[str, str]  # digest of each set of examples and of the shared standardiser
    epochs: tuple[tuple[float, int], ...]

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of replicates S and configurations C."""
        return len(self.replicates), len(self.configs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distinct seeds, in order."""
        return tuple(dict.fromkeys(replicate.seed for replicate in self.replicates))

    @property
    def is_exact(self) -> bool:
        """True if the runs are exact minima, see `solve`."""
        return METHOD in self.settings

    def hash(self) -> str:
        """Return 16 hexadecimal digits of all but the epochs."""
        content = self.to_json()
        del content["epochs"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def take(self, replicates: Iterable[int], configs: Iterable[int]) -> "Identity":
        """Return the identity of some replicates and configurations, by their indices."""
        return self._replace(
            replicates=tuple(self.replicates[s] for s in replicates),
            configs=tuple(self.configs[c] for c in configs),
        )

    def difference(self, whole: "Identity", subset: bool = False) -> str | None:
        """Say in words what this identity has that a sweep does not have; None if it is a part of the sweep.

        A part has the same settings and data, epochs with which those of the sweep begin, and no
        configurations or replicates that the sweep does not have.

        Args:
          whole: identity of the sweep.
          subset: whether this identity may have configurations that the sweep does not have.
        """
        names = {METHOD, *self.settings, *whole.settings}
        for name in sorted(names, key=lambda name: (name != METHOD, name)):
            default = "gradient descent" if name == METHOD else None
            theirs, ours = (settings.get(name, default) for settings in (self.settings, whole.settings))
            if theirs != ours:
                return f"{name} {_say(theirs)}, not {_say(ours)}"
        for name in (*whole.data, *self.data):
            theirs, ours = self.data.get(name), whole.data.get(name)
            if theirs != ours:
                return f"other data: {name} {_say(theirs)}, not {_say(ours)}"
        shown = [] if subset else list(self.configs[0])
        axes: list[tuple[str, Iterable[Any], Iterable[Any]]] = [
            (name, [config[name] for config in self.configs], [config.get(name) for config in whole.configs])
            for name in shown
        ]
        axes += [("the configuration", self.configs, whole.configs)] * (not subset)
        axes.append(("seed", self.seeds, whole.seeds))
        axes.append(("the replicate", self.replicates, whole.replicates))
        for name, theirs, ours in axes:
            kept = set(ours)
            for value in theirs:
                if value not in kept:
                    return f"{name} {_say(value)}, which is left out here"
        if len(self.epochs) > len(whole.epochs):
            return f"epochs {len(self.epochs)}, not {len(whole.epochs)}"
        if self.epochs != whole.epochs[: len(self.epochs)]:
            return "another schedule or averaging of its epochs (both may depend on the number of epochs)"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the content that JSON can hold, see `parse_identity`."""
        return {
            "format": FORMAT,
            "axes": list(self.configs[0]),
            "configs": [list(config.values()) for config in self.configs],
            "replicates": [list(replicate) for replicate in self.replicates],
            "settings": self.settings,
            "data": self.data,
            "epochs": [list(epoch) for epoch in self.epochs],
        }


def parse_identity(content: Mapping[str, Any]) -> Identity:
    """Return the identity that JSON holds.

    Raises:
      ValueError: if it is of another version of this format, or a value is out of its range.
      KeyError, TypeError, AttributeError: if it is something else.
    """
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']!r:.20}, and this version reads {FORMAT}")
    axes = content["axes"]
    configs = tuple(Config(**dict(zip(axes, values, strict=True))) for values in content["configs"])
    replicates = [ReplicateId(*values) for values in content["replicates"]]
    for replicate in replicates:
        operator.index(replicate.seed if replicate.fold is None else replicate.seed + replicate.fold)
    if not configs or not replicates:
        raise ValueError("it has no runs")
    epochs = tuple((float(factor), operator.index(averaged)) for factor, averaged in content["epochs"])
    return Identity(configs, tuple(replicates), dict(content["settings"]), dict(content["data"]), epochs)


def identify(
    configs: Sequence[Config],
    replicates: Sequence[Replicate],
    sets: Mapping[str, Examples],
    standardizer: Standardizer | None,
    settings: Mapping[str, Any],
    epochs: Sequence[tuple[float, int]],
) -> Identity:
    """Return the identity of a sweep, in which a digest stands for each array.

    Args:
      sets: training and evaluation examples by name.
      standardizer: the standardiser that replicates share; None: there is none.
      configs, replicates, settings, epochs: as in `Identity`.
    """
    data = {name: digest_examples(examples) for name, examples in sets.items()}
    if standardizer is not None:
        data["standardizer"] = digest_arrays(list(standardizer))
    identities = tuple(map(identify_replicate, replicates))
    return Identity(tuple(configs), identities, dict(settings), data, tuple(epochs))


def digest_examples(examples: Examples) -> str:
    """Return words that tell the examples from others: those of their maker, or a digest of their values."""
    if examples.digest is None:
        examples.digest = f"{examples.kind} {digest_arrays(jax.tree.leaves(examples))}"
    return examples.digest


def _say(value: Any) -> str:
    """Return a value as text, in which digests are cut to their first digits."""
    if isinstance(value, Config):
        return " ".join(f"{name}={number:g}" for name, number in value.items())
    if isinstance(value, ReplicateId):
        return f"seed {value.seed}" + ("" if value.fold is None else f", fold {value.fold}") + ", other rows"
    return _SHA256.sub(r"\1…", "none" if value is None else str(value))


def name_loss(loss: Loss) -> str:
    """Return a loss's name, followed by the names of its functions unless the loss is built in."""
    if loss == LOSSES.get(loss.name):
        return loss.name
    made_from = getattr(loss.value, MADE_FROM, None)
    functions = [made_from] if made_from else [loss.value, loss.gradient]
    return f"{loss.name}({', '.join(map(name_function, [*functions, loss.probabilities]))})"


def name_function(function: Callable[..., Any] | None) -> str:
    """Return a name for an optimizer or augmentation that stays the same from process to process.

    A function is named by its module (omitted for this package) and its qualified name; a `partial` also by
    its arguments. If looking up that name does not return the function, the name gets a "<": several
    functions may share it, such as lambdas, functions within functions, or objects. A function of the main
    program, which a notebook may define again, is also named by its code.
    """
    if function is None:
        return "none"
    if isinstance(function, partial):
        arguments = [*map(_name_argument, function.args)]
        arguments += [f"{key}={_name_argument(value)}" for key, value in sorted(function.keywords.items())]
        return f"{name_function(function.func)}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", f"<{type(function).__qualname__}>")
    module = str(getattr(function, "__module__", None))
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return f"<{module}.{name}>"
    if module.startswith(_PACKAGE):
        return name
    code = getattr(inspect.unwrap(function), "__code__", None)
    digest = f"[{_digest_code(code)}]" if module == "__main__" and code else ""
    return f"{module}.{name}{digest}"


def _digest_code(code: CodeType) -> str:
    """Return a digest of a function's bytecode, names and constants, but not of its file and line."""
    constants = [
        _digest_code(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    content = repr((code.co_code, code.co_names, code.co_varnames, constants))
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _name_argument(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_name_argument, value))})"
    if isinstance(value, np.ndarray | jax.Array):
        return digest_arrays([value])  # its text leaves out most of a large array
    if callable(value):
        return name_function(value)
    if isinstance(value, np.generic):
        value = value.item()
    # `repr` shows numbers, text and None in full; other objects may hold more than it shows.
    return (
        repr(value) if value is None or isinstance(value, Real | str | bytes) else f"<{type(value).__name__}>"
    )


def check_names(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the settings do not show which function an argument was; the message names it."""
    for argument in FUNCTIONS:
        if "<" in settings.get(argument, ""):
            raise ValueError(
                f"{argument} is {settings[argument]}, which cannot be told from another function of that "
                "name when training is resumed: define it at the top level of a module, not as a lambda or "
                "within a function"
            )
