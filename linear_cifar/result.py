"""The result of a sweep: what was measured of all its runs, and the weights that were kept."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from linear_cifar.arguments import describe
from linear_cifar.config import Config
from linear_cifar.examples import TRAINING
from linear_cifar.identity import Identity, parse_identity
from linear_cifar.losses import LOSSES, Loss, get_loss
from linear_cifar.model import compute_logits, predict_class
from linear_cifar.npz import expect, parse_npz, write_npz
from linear_cifar.params import Params
from linear_cifar.snapshots import Columns, as_indices, take_columns, take_history
from linear_cifar.standardizer import Standardizer, standardize
from linear_cifar.uncertainty import (
    DIVERGED,
    Estimate,
    Selection,
    estimate_accuracy,
    interval_over_seeds,
    rank,
    select_best,
    standard_error,
)

if TYPE_CHECKING:
    import pandas

# Sets that no configuration is chosen by: the training examples, and what the name of a test set begins with.
TRAIN, TEST = "train", "test"
# The weights that a result keeps: of all runs; of the best replicate of each configuration; or of the best
# configuration's best replicate only.
ALL, PER_CONFIG, BEST = KEEP = ("all", "per_config", "best")
# The arrays [S, C] of a result that count epochs.
COUNTS = ("epochs", "diverged", "stopped")


class Weights(NamedTuple):
    """The final parameters of R of the S × C runs, in the order of replicates and then configurations."""

    replicates: Integer[np.ndarray, " R"]  # indices
    configs: Integer[np.ndarray, " R"]  # indices
    params: Params  # W [R, K, d], b [R, K]


@dataclass(frozen=True)
class Best:
    """The best configuration by mean accuracy."""

    index: int
    config: Config
    mean: float  # accuracy, mean over replicates
    stderr: float  # standard error of the mean; NaN for one replicate


@dataclass(frozen=True)
class Result:
    """Measurements of S replicates × C configurations, as NumPy arrays, and the weights that were kept.

    Measurements have names. `history` has those of every epoch: `running_loss`, `running_acc`, `W_norm`, and
    for an evaluation set `val` that is measured in every epoch `val_loss` and `val_acc`. `final` has those
    after the last epoch: `val_loss`, `val_acc` and, unless the set is called `train`, the mean accuracy per
    class `val_class_acc`, with 20 classes or more also the top-5 accuracy `val_top5`. Losses are without the
    penalty, accuracies in [0, 1]. All are NaN from the epoch in which a run diverged, after halving stopped
    it, and where it is not trained yet.
    """

    identity: Identity  # names the replicates and configurations of all arrays
    history: Columns  # [E, S, C]
    final: Columns  # [S, C]
    epochs: Int[np.ndarray, "S C"]  # epochs trained; 0: not begun
    diverged: Int[np.ndarray, "S C"]  # epoch in which a run diverged; 0: it did not
    stopped: Int[np.ndarray, "S C"]  # epoch after which halving stopped a run; 0: it did not
    marks: dict[str, np.ndarray]  # of each set but `train`: right predictions as packed bits [S, C, bytes]
    sizes: dict[str, int]  # number of examples of each evaluation set that a run is measured on
    weights: Weights
    standardizer: Standardizer | None = None  # mean and std [d], or [S, d] of replicates with their own
    about: dict[str, Any] = field(default_factory=dict)  # words that the caller gave, for figures and tables
    own_rows: tuple[
        str, ...
    ] = ()  # sets of which each replicate is measured on rows of its own, as folds are
    groups: dict[str, np.ndarray] = field(default_factory=dict)  # of the marked examples, where known [S, n]

    # ---- runs

    @property
    def configs(self) -> tuple[Config, ...]:
        """The C configurations."""
        return self.identity.configs

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distinct seeds, in order."""
        return self.identity.seeds

    @property
    def folds(self) -> int:
        """The number of folds; 0 if there are none."""
        return len({replicate.fold for replicate in self.identity.replicates} - {None})

    @property
    def per_epoch(self) -> tuple[str, ...]:
        """The names of the evaluation sets that were measured after every epoch."""
        return tuple(name for name in self.sizes if f"{name}_loss" in self.history)

    @property
    def halved(self) -> bool:
        """True if halving stopped runs before their end."""
        return "halving" in self.identity.settings

    @property
    def complete(self) -> bool:
        """True if all runs were trained to their end, or stopped by halving."""
        return bool(((self.epochs == len(self.identity.epochs)) | (self.stopped > 0)).all())

    @property
    def stayed_finite(self) -> Bool[np.ndarray, " C"]:
        """For each configuration, True if it diverged in no replicate."""
        return np.logical_not(self.diverged.any(axis=0))

    @property
    def chosen_by(self) -> str | None:
        """The evaluation set that configurations are chosen by: the first that is no training or test set."""
        return choose_set(self.sizes)

    # ---- parts

    def take(self, configs: Sequence[int] | None = None, replicates: Sequence[int] | None = None) -> "Result":
        """Return the result of some configurations and replicates, by their indices.

        Raises:
          IndexError: if there is no such configuration or replicate.
        """
        S, C = self.identity.size
        rows, columns = as_indices("replicates", replicates, S), as_indices("configs", configs, C)
        places = np.ix_(rows, columns)
        standardizer = self.standardizer
        if standardizer is not None and standardizer.mean.ndim == 2:
            standardizer = Standardizer(*(np.asarray(leaf)[rows] for leaf in standardizer))
        return replace(
            self,
            identity=self.identity.take(rows, columns),
            history={name: values[:, places[0], places[1]] for name, values in self.history.items()},
            **{name: getattr(self, name)[places] for name in COUNTS},
            final={name: values[places] for name, values in self.final.items()},
            marks={name: values[places] for name, values in self.marks.items()},
            weights=_take_weights(self.weights, rows, columns),
            standardizer=standardizer,
            groups={name: codes[rows] for name, codes in self.groups.items()},
        )

    def take_finished(self) -> "Result":
        """Return the result of the configurations that halving did not stop."""
        stopped = self.stopped.any(axis=0)
        return self.take(np.flatnonzero(~stopped).tolist()) if stopped.any() else self

    def keep(self, kept: str) -> "Result":
        """Return the result with fewer weights: one of `KEEP`.

        The best replicate and the best configuration are chosen by the set `chosen_by`. Without one they are
        the first that did not diverge.
        """
        if kept == ALL:
            return self
        configs = self.ranking() if kept == PER_CONFIG else self.ranking()[:1]
        chosen = {(self.best_replicate(c), c) for c in configs}
        runs = zip(self.weights.replicates.tolist(), self.weights.configs.tolist(), strict=True)
        keep = np.array([run in chosen for run in runs], bool)
        return replace(self, weights=jax.tree.map(lambda leaf: leaf[keep], self.weights))

    @staticmethod
    def join(parts: Sequence["Result"], whole: Identity) -> "Result":
        """Join results of parts of a sweep; a run that no part has is not begun.

        Args:
          parts: results of the same settings and sets, at least one.
          whole: identity of the sweep, which has the runs of all parts. Other runs of the parts are left out.
        """
        first = parts[0]
        rows = {replicate: s for s, replicate in enumerate(whole.replicates)}
        columns = {config: c for c, config in enumerate(whole.configs)}
        parts = [
            part.take([c for c, config in enumerate(part.configs) if config in columns]) for part in parts
        ]
        places = [
            np.ix_(
                [rows[replicate] for replicate in part.identity.replicates],
                [columns[config] for config in part.configs],
            )
            for part in parts
        ]

        def join(arrays: Sequence[np.ndarray], filler: Any, axis: int = 0) -> np.ndarray:
            """Join arrays whose replicates and configurations lie along `axis` and the next one."""
            shape = arrays[0].shape
            joined = np.full((*shape[:axis], *whole.size, *shape[axis + 2 :]), filler, arrays[0].dtype)
            for values, place in zip(arrays, places, strict=True):
                joined[(slice(None),) * axis + place] = values
            return joined

        counts: dict[str, Any] = {name: join([getattr(part, name) for part in parts], 0) for name in COUNTS}
        return replace(
            first,
            identity=whole,
            history={name: join([part.history[name] for part in parts], np.nan, 1) for name in first.history},
            final={
                name: join([part.final[name] for part in parts], np.nan)
                for name in first.final
                if all(name in part.final for part in parts)  # older versions measured fewer
            },
            marks={name: join([part.marks[name] for part in parts], 0) for name in first.marks},
            **counts,
            weights=_join_weights([part.weights for part in parts], places),
            standardizer=_join_standardizers(parts, places, whole),
            groups={
                name: _join_rows([part.groups[name] for part in parts], places, whole, 0.0)
                for name in first.groups
            },
        )

    # ---- files

    def save(self, path: str | Path) -> None:
        """Write the result to an `.npz` file, which appears whole or not at all, see `write_npz`."""
        arrays = {name: getattr(self, name) for name in COUNTS}
        for kind in ("history", "final", "marks", "groups"):
            arrays |= {f"{kind}.{name}": values for name, values in getattr(self, kind).items()}
        arrays |= {"weights.replicates": self.weights.replicates, "weights.configs": self.weights.configs}
        arrays |= {f"weights.{name}": leaf for name, leaf in self.weights.params._asdict().items()}
        if self.standardizer is not None:
            arrays |= {f"standardizer.{name}": leaf for name, leaf in self.standardizer._asdict().items()}
        description = {
            "identity": self.identity.to_json(),
            "sizes": self.sizes,
            "about": self.about,
            "own_rows": self.own_rows,
        }
        write_npz(Path(path), {name: np.asarray(leaf) for name, leaf in arrays.items()}, description)

    @staticmethod
    def load(path: str | Path, weights: bool = True) -> "Result":
        """Read a result that `save` wrote. No code in the file can run.

        Args:
          path: the file.
          weights: whether to read the weights, which take most of the memory.

        Raises:
          ValueError: if the file is damaged or holds something else; the message names the file.
          OSError: if it cannot be opened.
        """
        return parse_npz(Path(path), "a result", _parse, None if weights else "weights.")

    def to_frame(self, per_epoch: bool = False) -> "pandas.DataFrame":
        """Return a DataFrame with a row per run, or per run and epoch; its columns are named as in the files.

        Runs that are not begun have no rows. pandas must be installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ModuleNotFoundError("pandas is not installed: pip install pandas") from None
        if per_epoch:
            s, c, epoch = np.nonzero(np.arange(len(self.identity.epochs)) < self.epochs[..., None])
            measured = {name: values[epoch, s, c] for name, values in self.history.items()}
            measured = {"epoch": epoch + 1, **measured}
        else:
            s, c = np.nonzero(self.epochs)
            columns = {"epochs": self.epochs, **self.final}
            columns |= {"diverged": self.diverged, "stopped": self.stopped}
            measured = {name: values[s, c] for name, values in columns.items()}
        keys = [self.key(*run) for run in zip(s.tolist(), c.tolist(), strict=True)]
        named = {name: [key[i] for key in keys] for i, name in enumerate(self.keys)}
        return pandas.DataFrame(named | measured)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the columns that tell a run from others: its hyperparameters, seed and fold."""
        return (*self.configs[0], "seed", "fold")

    def key(self, replicate: int, config: int) -> tuple[Any, ...]:
        """Return the values of `keys` of a run, by the indices of its replicate and configuration."""
        name = self.identity.replicates[replicate]
        return (*self.configs[config].values(), name.seed, name.fold)

    # ---- choice, and its uncertainty

    def ranking(self, name: str | None = None) -> list[int]:
        """Return the indices of the configurations, best first by mean accuracy on an evaluation set.

        See `rank`. Those that halving stopped are left out. Without a set to choose by, the order is that of
        the configurations, and those that diverged come last.

        Args:
          name: name of the evaluation set; None: `chosen_by`.
        """
        name = name or self.chosen_by
        if name is None:
            order = np.argsort(self.diverged.any(axis=0), kind="stable").tolist()
        else:
            self._check_set(name)
            order = rank(self.final[f"{name}_loss"], self.final[f"{name}_acc"])
        stopped = {*np.flatnonzero(self.stopped.any(axis=0)).tolist()}
        return [c for c in order if c not in stopped]

    def best(self, name: str | None = None) -> Best:
        """Return the configuration with the best mean accuracy on an evaluation set, see `rank`.

        Raises:
          KeyError: if there is no such evaluation set.
        """
        name = self._check_set(name or self.chosen_by)
        index = self.ranking(name)[0]
        values: Float[np.ndarray, " S"] = np.asarray(self.final[f"{name}_acc"][:, index], np.float64)
        return Best(index, self.configs[index], float(values.mean()), float(standard_error(values)))

    def best_replicate(self, config: int) -> int:
        """Return the index of the replicate in which a configuration has the best accuracy by `chosen_by`.

        Without a set to choose by it is the first one that did not diverge.
        """
        if self.chosen_by is None:
            return int((self.diverged[:, config] == 0).argmax())
        accuracy = self.final[f"{self.chosen_by}_acc"][:, config]
        return int(np.nan_to_num(accuracy, nan=-1).argmax())

    def order_replicates(self) -> list[int]:
        """Return the indices of the replicates, seed after seed, and of each seed fold after fold.

        Raises:
          KeyError: if a seed lacks a fold that another has.
        """
        places = {(member.seed, member.fold): s for s, member in enumerate(self.identity.replicates)}
        folds: list[int | None] = [*sorted({fold for _, fold in places if fold is not None})] or [None]
        names = [(seed, fold) for seed in self.seeds for fold in folds]
        missing = [name for name in names if name not in places]
        if missing or len(places) != len(names):
            raise KeyError(f"the seeds do not all have the folds {folds}: take replicates that do")
        return [places[name] for name in names]

    def values(
        self, name: str, config: int
    ) -> Bool[np.ndarray, "seeds units"] | Float[np.ndarray, "seeds units"]:
        """Return which examples of an evaluation set a configuration predicts right, for each seed.

        With folds, the examples are those of all folds, each predicted by the run that was trained without
        its fold; of a set that is not divided by folds, it is the share of the folds that predict an example
        right. For targets of the kind `labels` it is the share of each example's labels. The functions of
        `linear_cifar.uncertainty` take them with `groups_of`.

        Raises:
          KeyError: if there is no such evaluation set, halving has stopped the configuration, it is not
            trained in all replicates yet, or a seed lacks a fold.
        """
        if name not in self.marks:
            raise KeyError(f"there are no marks of {name!r}: give one of {', '.join(self.marks) or 'none'}")
        if self.stopped[:, config].any():
            raise KeyError(f"configuration {config} was stopped by halving: there are no marks of it")
        if not self.epochs[:, config].all():
            raise KeyError(f"configuration {config} is not trained in every replicate yet: resume the sweep")
        marks = self.marks[name][self.order_replicates(), config]
        if marks.dtype == np.uint8:
            marks = np.unpackbits(marks, axis=-1, count=self.sizes[name]).astype(bool)
        if self.folds and name not in self.own_rows:
            return marks.reshape(len(self.seeds), self.folds, -1).mean(axis=1)
        return marks.reshape(len(self.seeds), -1)

    def groups_of(self, name: str) -> Int[np.ndarray, "seeds examples"] | None:
        """Return the groups of the examples in `values`; None if there are none."""
        if name not in self.groups:
            return None
        codes = self.groups[name][self.order_replicates()]
        if self.folds and name not in self.own_rows:
            codes = codes[:: self.folds]
        return codes.reshape(len(self.seeds), -1)

    def interval(self, name: str, config: int) -> Estimate:
        """Return the mean accuracy of a configuration on an evaluation set, with its 95 % interval.

        It is over seeds and examples, or groups of them, see `estimate_accuracy`. The training examples are
        taken as given: on them it is over the seeds, by Student's t.
        """
        if not self.stayed_finite[config]:
            return DIVERGED
        if name in self.marks:
            return estimate_accuracy(self.values(name, config), self.groups_of(name))
        self._check_set(name)
        accuracy = np.asarray(self.final[f"{name}_acc"][self.order_replicates(), config], np.float64)
        return interval_over_seeds(accuracy.reshape(len(self.seeds), -1))

    def selection(self, name: str | None = None) -> Selection:
        """Compare all configurations with the best, and estimate what choosing the best reaches.

        See `select_best`. With halving, call `result.take_finished().selection()`; there is no estimate.
        """
        name = self._check_set(name or self.chosen_by)
        correct = np.stack([self.values(name, c) for c in range(len(self.configs))], axis=1)
        return select_best(
            correct,
            self.ranking(name)[0],
            self.stayed_finite,
            groups=self.groups_of(name),
            folds=self.folds,
            estimate=not self.halved,
        )

    # ---- weights

    def params(self, config: int | None = None, seed: int | None = None, fold: int | None = None) -> Params:
        """Return the final W [K, d] and b [K] of one run, or W [S, C, K, d] and b [S, C, K] of all.

        Args:
          config: index of the configuration; None: all runs.
          seed: seed of the replicate (not its index); None: the first.
          fold: fold of the replicate, if it is one.

        Raises:
          KeyError: if there is no such run, or its weights were not kept.
        """
        S, C = self.identity.size
        if config is None:
            if len(self.weights.replicates) < S * C:
                raise KeyError(
                    "there are no weights of some runs: use keep='all', and of a halved sweep "
                    "take_finished().params()"
                )
            return jax.tree.map(lambda leaf: leaf.reshape(S, C, *leaf.shape[1:]), self.weights.params)
        names = [(replicate.seed, replicate.fold) for replicate in self.identity.replicates]
        seed = names[0][0] if seed is None else seed
        if not isinstance(config, Integral) or (seed, fold) not in names or not 0 <= config < C:
            raise KeyError(f"there is no run of configuration {describe(config)} and seed {describe(seed)}")
        return self.params_at(names.index((seed, fold)), int(config))

    def params_at(self, replicate: int, config: int) -> Params:
        """Return the final W [K, d] and b [K] of a run, by the indices of its replicate and configuration.

        Raises:
          KeyError: if its weights were not kept.
        """
        weights = self.weights
        places = np.flatnonzero((weights.replicates == replicate) & (weights.configs == config))
        if not len(places):
            seed = self.identity.replicates[replicate].seed
            raise KeyError(
                f"the weights of configuration {config}, seed {seed} were not kept: use keep='all'"
            )
        return jax.tree.map(lambda leaf: leaf[places[0]], weights.params)

    def standardizer_of(self, replicate: int) -> Standardizer | None:
        """Return the standardiser of a replicate, mean and std [d], by its index."""
        if self.standardizer is None or self.standardizer.mean.ndim == 1:
            return self.standardizer
        return Standardizer(*(leaf[replicate] for leaf in self.standardizer))

    def predict(
        self, features: Num[Any, "n d"], config: int | None = None, replicate: int | None = None
    ) -> Int[np.ndarray, " n"]:
        """Predict the class of examples from their raw features, by the run with these indices.

        Args:
          features: raw features [n, d].
          config: index of the configuration; None: the best.
          replicate: index of the replicate; None: the configuration's best.

        Raises:
          KeyError: if the weights of the run were not kept.
        """
        return np.asarray(predict_class(self._logits(features, config, replicate)))

    def predict_proba(
        self,
        features: Num[Any, "n d"],
        config: int | None = None,
        replicate: int | None = None,
        loss: Loss | None = None,
    ) -> Float[np.ndarray, "n K"]:
        """Return the probabilities of K classes or labels; arguments and errors are those of `predict`.

        Give your own loss again: a result knows only its name.
        """
        name = self.identity.settings["loss"]
        if loss is None and name not in LOSSES:
            raise ValueError(f"the loss is {name}: give it as loss=")
        return np.asarray(get_loss(loss or name).probabilities(self._logits(features, config, replicate)))

    def _logits(self, features: Any, config: int | None, replicate: int | None) -> jax.Array:
        config = self.ranking()[0] if config is None else config
        replicate = self.best_replicate(config) if replicate is None else replicate
        params = self.params_at(replicate, config)
        with jax.enable_x64(True) if params.W.dtype == np.float64 else nullcontext():
            x = standardize(self.standardizer_of(replicate), features, params.W.dtype)
            return compute_logits(params, x, self.identity.settings["precision"])

    def _check_set(self, name: str | None) -> str:
        """Return the name of an evaluation set; raise KeyError if there is none of this name."""
        if not isinstance(name, str) or name not in self.sizes:
            names = ", ".join(self.sizes) or "none, because the sweep had none"
            raise KeyError(f"there is no evaluation set {name!r}: give one of {names}")
        return name


def choose_set(names: Iterable[str]) -> str | None:
    """Return the first name that is none of a training or test set, to choose configurations by, or None."""
    return next((name for name in names if name not in (TRAIN, TRAINING) and not name.startswith(TEST)), None)


def _take_weights(weights: Weights, rows: Sequence[int], columns: Sequence[int]) -> Weights:
    """Return the weights of some runs, by the indices of their replicates and configurations, in order."""
    runs = zip(weights.replicates.tolist(), weights.configs.tolist(), strict=True)
    old = {run: place for place, run in enumerate(runs)}
    found = [(i, j, old[s, c]) for i, s in enumerate(rows) for j, c in enumerate(columns) if (s, c) in old]
    replicates, configs, places = np.array(found, np.int64).reshape(-1, 3).T
    return Weights(replicates, configs, jax.tree.map(lambda leaf: leaf[places], weights.params))


def _join_weights(parts: Sequence[Weights], places: Sequence[tuple[np.ndarray, ...]]) -> Weights:
    """Join the weights of parts, whose replicates and configurations have these places in the whole."""
    moved = [
        Weights(rows.reshape(-1)[part.replicates], columns.reshape(-1)[part.configs], part.params)
        for part, (rows, columns) in zip(parts, places, strict=True)
    ]
    joined: Weights = (
        moved[0] if len(moved) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *moved)
    )
    order = np.lexsort((joined.configs, joined.replicates))
    if (order == np.arange(len(order))).all():
        return joined
    return jax.tree.map(lambda leaf: leaf[order], joined)


def _join_standardizers(
    parts: Sequence[Result], places: Sequence[tuple[np.ndarray, ...]], whole: Identity
) -> Standardizer | None:
    """Join the replicates' own standardisers to [S, d]; NaN for those of no part."""
    first = parts[0].standardizer
    if first is None or first.mean.ndim == 1:
        return first
    leaves = zip(*(part.standardizer or () for part in parts), strict=True)
    return Standardizer(*(_join_rows(leaf, places, whole, np.nan) for leaf in leaves))


def _join_rows(
    parts: Sequence[np.ndarray], places: Sequence[tuple[np.ndarray, ...]], whole: Identity, filler: float
) -> np.ndarray:
    """Join arrays with a row for each replicate of a part to one with a row for each of the whole."""
    joined = np.full((whole.size[0], parts[0].shape[1]), filler, parts[0].dtype)
    for values, (rows, _) in zip(parts, places, strict=True):
        joined[rows.reshape(-1)] = values
    return joined


def _parse(arrays: dict[str, np.ndarray], description: Mapping[str, Any]) -> Result:
    """Return the result that the content of a file describes; raise an error if it does not fit."""
    identity = parse_identity(description["identity"])
    (S, C), settings = identity.size, identity.settings
    dtype, K, d = np.dtype(settings["dtype"]), settings["K"], settings["d"]
    history = take_history(arrays, identity)
    final, marks, groups = (take_columns(arrays, f"{kind}.") for kind in ("final", "marks", "groups"))
    sizes = {str(name): int(size) for name, size in description["sizes"].items()}
    own = {name: arrays.get(f"standardizer.{name}") for name in Standardizer._fields}
    nothing = np.zeros(0, np.int64)
    weights = Weights(
        arrays.get("weights.replicates", nothing),
        arrays.get("weights.configs", nothing),
        Params(
            arrays.get("weights.W", np.zeros((0, K, d), dtype)),
            arrays.get("weights.b", np.zeros((0, K), dtype)),
        ),
    )
    for name in COUNTS:
        expect(name, arrays[name], (S, C), np.int64)
    for name, values in final.items():
        expect(name, values, (S, C), dtype)
    for name, values in marks.items():
        packed = values.dtype == np.uint8
        last = -(-sizes[name] // 8) if packed else sizes[name]
        expect(name, values, (S, C, last), np.uint8 if packed else dtype)
    for name, codes in groups.items():
        expect(name, codes, (S, sizes[name]), np.int32)
    count = weights.replicates.size
    for index, end in zip(weights[:2], (S, C), strict=True):
        expect("weights", index, (count,), np.int64)
        if count and not 0 <= index.min() <= index.max() < end:
            raise ValueError("it holds weights of other runs")
    expect("W", weights.params.W, (count, K, d), dtype)
    expect("b", weights.params.b, (count, K), dtype)
    standardizer = None
    if own["mean"] is not None and own["std"] is not None:
        shape = (S, d) if own["mean"].ndim == 2 else (d,)
        for name, leaf in own.items():
            expect(name, leaf, shape, np.float64)
        standardizer = Standardizer(own["mean"], own["std"])
    return Result(
        identity, history, final, arrays["epochs"], arrays["diverged"], arrays["stopped"], marks, sizes,
        weights, standardizer, dict(description["about"]), tuple(description["own_rows"]),
        groups,
    )  # fmt: skip
