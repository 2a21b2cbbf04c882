"""Training of any number of runs to their end, in blocks that the memory holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple, Unpack

import jax
import numpy as np
from jaxtyping import Float, Integer

from linear_cifar.arguments import as_whole, check_choice, describe
from linear_cifar.checks import SweepOptions, check_arguments
from linear_cifar.comparison import rank, standard_error
from linear_cifar.config import Config, as_configs
from linear_cifar.engine import EpochMetrics, mask_diverged, prepare_sets, sweep
from linear_cifar.evaluation import Metrics
from linear_cifar.examples import Examples
from linear_cifar.memory import device_memory, max_runs
from linear_cifar.params import Params
from linear_cifar.planning import join_blocks, plan_blocks
from linear_cifar.replicates import Replicate, as_replicates

# Weights of all runs are kept where together they take no more bytes.
KEPT_BYTES = 1024**3


class SavedParams(NamedTuple):
    """The final parameters of R of the S × C runs, as NumPy arrays."""

    replicates: Integer[np.ndarray, " R"]  # indices
    configs: Integer[np.ndarray, " R"]  # indices
    params: Params  # W [R, K, d], b [R, K]

    def find(self, replicate: int, config: int) -> Params | None:
        """Return the parameters of one run, W [K, d] and b [K]; None if they are not saved."""
        places = np.flatnonzero((self.replicates == replicate) & (self.configs == config))
        return jax.tree.map(lambda leaf: leaf[places[0]], self.params) if len(places) else None


@dataclass(frozen=True)
class Best:
    """The best configuration by mean accuracy."""

    index: int
    config: Config
    mean: float  # accuracy, mean over replicates
    stderr: float  # standard error of the mean; NaN for one replicate


class FitResult(NamedTuple):
    """Measurements and parameters of S replicates × C configurations, trained to their end.

    All that was measured of a run is NaN from the epoch in which it diverged.
    """

    configs: tuple[Config, ...]
    replicates: tuple[Replicate, ...]
    history: EpochMetrics  # [E, S, C]
    saved: SavedParams

    @property
    def metrics(self) -> dict[str, Metrics]:
        """The metrics [S, C] of each evaluation set after the last epoch."""
        return jax.tree.map(lambda values: values[-1], self.history.evaluated)

    def best(self, name: str) -> Best:
        """Return the configuration with the best mean accuracy on an evaluation set, see `rank`.

        Raises:
          KeyError: if there is no such evaluation set.
        """
        if not isinstance(name, str) or name not in self.metrics:
            names = ", ".join(self.metrics) or "none, because the sweep had none"
            raise KeyError(f"there is no evaluation set {name!r}: give one of {names}")
        loss, accuracy = self.metrics[name]
        index = rank(loss, accuracy)[0]
        values: Float[np.ndarray, " S"] = np.asarray(accuracy[:, index], np.float64)
        return Best(index, self.configs[index], float(values.mean()), float(standard_error(values)))

    def params(self, config: int, seed: int, fold: int | None = None) -> Params:
        """Return the final W [K, d] and b [K] of one run.

        Args:
          config: index of the configuration.
          seed: seed of the replicate (not its index).
          fold: fold of the replicate, if it is one.

        Raises:
          KeyError: if there is no such run, or its weights were not kept.
        """
        names = [(replicate.seed, replicate.fold) for replicate in self.replicates]
        if (
            not isinstance(config, Integral)
            or (seed, fold) not in names
            or not 0 <= config < len(self.configs)
        ):
            raise KeyError(f"there is no run of configuration {describe(config)} and seed {describe(seed)}")
        found = self.saved.find(names.index((seed, fold)), config)
        if found is None:
            raise KeyError(
                f"the weights of configuration {config}, seed {seed} were not kept: use keep_params='all'"
            )
        return found


def fit(
    configs: Sequence[Config],
    train: Examples,
    evaluation_sets: Mapping[str, Examples],
    *,
    epochs: int,
    seeds: Sequence[int | Replicate] = (0,),
    keep_params: Literal["all", "best"] | None = None,
    memory_bytes: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    **options: Unpack[SweepOptions],
) -> FitResult:
    """Train every configuration from every seed to its end, as many runs at a time as the memory holds.

    Args:
      configs, train, evaluation_sets, epochs, seeds, devices: as for `sweep`.
      keep_params: "all" keeps the weights of every run. "best" keeps, of each configuration, those of the
        replicate with the highest accuracy on the first evaluation set. None: all if they take at most 1 GB,
        else the best.
      memory_bytes: memory to plan with; by default that of the devices.
      options: `loss`, `standardizer`, `optimizer`, `augment`, `shuffle`, `precision`, `schedule`, `average`
        and `init`, as for `sweep`.

    Returns:
      Measurements [S, C] and the weights that were kept.

    Raises:
      ValueError: if an argument is out of range, see `sweep`.
      TypeError: if there is no such option; a snapshot is for `sweep`.
    """
    unknown = [name for name in options if name not in SweepOptions.__annotations__]
    if unknown:
        advice = "to resume a snapshot, use lc.sweep" if unknown == ["resume_from"] else "see its docstring"
        raise TypeError(f"fit has no option {unknown[0]!r}: {advice}")
    configs, replicates = as_configs(configs), as_replicates(seeds)
    # Before the first block is trained, and not when the turn of a later one comes.
    checked = check_arguments(configs, train, evaluation_sets, replicates, epochs, options, devices=devices)
    check_choice("keep_params", keep_params, ("all", "best", None))
    if keep_params == "best" and not evaluation_sets:
        raise ValueError("keep_params='best' needs an evaluation set")
    if memory_bytes is not None:
        as_whole("memory_bytes", memory_bytes, 1)
    local = list(devices or jax.local_devices())
    n, d = train.features.shape
    K, dtype = train.targets.shape[1], checked.dtype
    if keep_params is None:
        kept_bytes = len(replicates) * len(configs) * (d + 1) * K * dtype.itemsize
        keep_params = "all" if kept_bytes <= KEPT_BYTES or not evaluation_sets else "best"
    at_once = max_runs(
        local,
        device_memory(local) if memory_bytes is None else memory_bytes,
        n=n + sum(len(examples.features) for examples in evaluation_sets.values()),
        d=d,
        K=K,
        dtype=dtype,
        largest_batch=max(config.batch for config in configs),
        num_configs=len(configs),
        feature_bytes=train.features.dtype.itemsize,
    )
    # Once for all blocks.
    train, evaluation_sets, standardizer, prepared = prepare_sets(
        train,
        evaluation_sets,
        options.get("standardizer"),
        replicates,
        dtype,
        options.get("augment"),
    )
    options = {**options, "standardizer": standardizer}
    places = plan_blocks(range(len(replicates)), range(len(configs)), at_once)
    histories, saved = [], []
    for rows, columns in places:
        epochs_of_block = sweep(
            [configs[c] for c in columns],
            train,
            evaluation_sets,
            epochs=epochs,
            seeds=[prepared[s] for s in rows],
            devices=local,
            **options,
        )
        measured = []
        for epoch in epochs_of_block:
            measured.append(epoch.metrics)
        history = mask_diverged(jax.tree.map(lambda *values: np.stack(values), *measured))
        chosen = select_all(len(rows), len(columns))
        if keep_params == "best":
            chosen = select_best(np.asarray(next(iter(history.evaluated.values())).accuracy[-1]))
        params = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], epoch.params())
        saved.append(SavedParams(np.asarray(rows)[chosen[0]], np.asarray(columns)[chosen[1]], params))
        histories.append(history)
    joined = join_blocks((len(replicates), len(configs)), places, histories, leading=1)
    kept = jax.tree.map(lambda *leaves: np.concatenate(leaves), *saved)
    if keep_params == "best":
        kept = _keep_best(kept, np.asarray(next(iter(joined.evaluated.values())).accuracy[-1]))
    return FitResult(configs, replicates, joined, kept)


def select_all(num_replicates: int, num_configs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of replicate and configuration of every run."""
    rows, columns = np.indices((num_replicates, num_configs))
    return rows.reshape(-1), columns.reshape(-1)


def select_best(accuracy: Float[np.ndarray, "S C"]) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each configuration, the indices of its most accurate replicate and of itself."""
    return np.nan_to_num(accuracy, nan=-1).argmax(axis=0), np.arange(accuracy.shape[1])


def _keep_best(saved: SavedParams, accuracy: Float[np.ndarray, "S C"]) -> SavedParams:
    """Keep one run of each configuration, where blocks of some replicates have kept one each."""
    best = set(zip(*(index.tolist() for index in select_best(accuracy)), strict=True))
    runs = zip(saved.replicates.tolist(), saved.configs.tolist(), strict=True)
    keep = np.array([run in best for run in runs])
    return jax.tree.map(lambda leaf: leaf[keep], saved)
