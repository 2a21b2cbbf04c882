"""The protocol that gradient descent and the solver follow, by which `train_epochs` advances a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Key

from linear_cifar.augment import Augmentation
from linear_cifar.config import Config, Hyperparams
from linear_cifar.examples import Examples
from linear_cifar.layout import Layout
from linear_cifar.losses import Loss
from linear_cifar.params import Params
from linear_cifar.replicates import Replicate, ReplicateData
from linear_cifar.snapshots import Snapshot
from linear_cifar.standardizer import Standardizer


class RunState(NamedTuple):
    """All that an update changes. In a sweep every leaf has leading axes of replicates and configurations."""

    params: Params
    opt_state: optax.OptState


class Placed(NamedTuple):
    """The runs of a sweep in the slots of their layout, and their data on the devices."""

    layout: Layout
    replicates: Sequence[Replicate]  # of the slots
    keys: Key[Array, " S"]
    per_replicate: ReplicateData  # keys, rows and standardisers on the devices
    hyperparams: Hyperparams  # NumPy arrays [C]
    train: Examples
    standardizer: Standardizer | None
    each_epoch: Sequence[tuple[float, int]]  # see `Identity`

    @property
    def n(self) -> int:
        """The number of examples that each run is trained on."""
        rows = self.per_replicate.rows
        return self.train.features.shape[0] if rows is None else rows.shape[1]


class Outcome(NamedTuple):
    """A sweep after an epoch, with arrays of its slots [S, C, ...]."""

    state: RunState
    averaged: Params  # the parameters to evaluate
    measured: Mapping[str, Any]
    finite: Bool[Array | np.ndarray, "S C"]
    finished: bool = False  # whether further epochs would change nothing


@runtime_checkable
class Spec(Protocol):
    """The settings that are part of a compiled program."""

    @property
    def loss(self) -> Loss: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102


@runtime_checkable
class Method(Protocol):
    """A way to train runs: options that all runs share, and the steps of an epoch."""

    @property
    def epochs(self) -> int:
        """The largest number of epochs."""

    @property
    def spec(self) -> Spec:
        """The settings that are part of the compiled program."""

    @property
    def dtype(self) -> str:
        """The name of the type of all arithmetic, unless initial parameters of one's own decide."""

    @property
    def augment(self) -> Augmentation | None:
        """The random change of training examples, where there is one."""

    def extends(self, dtype: DTypeLike) -> bool:
        """Tell whether more epochs would begin with the same ones."""

    def check(
        self,
        configs: Sequence[Config],
        train: Examples,
        replicates: Sequence[Replicate],
        snapshot: Snapshot | None,
    ) -> np.dtype:
        """Return the type of the weights; raise ValueError if options, configurations and data do not fit."""

    def describe(self) -> dict[str, Any]:
        """Return the settings of an identity that only this method has."""

    def describe_epochs(self, dtype: DTypeLike) -> tuple[tuple[float, int], ...]:
        """Return what decides each epoch, see `Identity`."""

    def fit_to(self, configs: Sequence[Config]) -> "Method":
        """Return the method with the state that these configurations need."""

    def describe_needs(self, configs: Sequence[Config], d: int) -> dict[str, int]:
        """Return the arguments of `max_runs` that depend on the method."""

    def start(
        self,
        configs: Sequence[Config],
        replicates: Sequence[Replicate],
        shape: tuple[int, int],
        snapshot: Snapshot | None,
    ) -> RunState:
        """Return the state [S, A, ...] of the runs that train on, K × d weights each.

        Raises:
          ValueError: if the snapshot holds another state.
        """

    def prepare(self, placed: Placed) -> Any:
        """Return what all epochs use beside what is placed."""

    def program(
        self, placed: Placed, prepared: Any, number: int, state: RunState
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the compiled function of an epoch and its arguments."""

    def read(self, placed: Placed, prepared: Any, number: int, output: Any, averaged: Params) -> Outcome:
        """Return what an epoch's function has returned, measured."""


@jax.jit
def compute_norm(W: Array) -> Array:
    """Return the Frobenius norm of weights [..., K, d]."""
    return jnp.sqrt(jnp.sum(W**2, axis=(-2, -1)))
