"""Small sweeps that several test files share: settings, sweeps, a synthetic data set, and results."""

from dataclasses import replace

import jax
import numpy as np

from experiments.runner.settings import default_settings
from experiments.runner.stages import Sweep
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.descent import describe_settings
from linear_cifar.examples import TRAINING
from linear_cifar.fitting import fit
from linear_cifar.identity import identify
from linear_cifar.params import Params
from linear_cifar.result import TRAIN, Result, Weights
from linear_cifar.training import Descent

SETTINGS = default_settings(val_size=50, epochs=2, evaluate=("val",))


def make_sweep(configs, seeds=(3,), **changes):
    """Return a sweep named "small" with changed settings."""
    return Sweep("small", SETTINGS._replace(**changes), tuple(seeds), tuple(configs))


def small_data():
    """Return 250 training, 50 validation and 100 test images, all synthetic."""
    return prepare_data(make_synthetic(n_train=300, n_test=100), val_size=50)


def train_sweep(sweep, data, **options):
    """Train a sweep to its end, with further options of `fit`."""
    return fit(**sweep.fit_arguments(data), **options)


def draw_result(sweep, data, diverged=()):
    """Draw random measurements and weights of a sweep, for tests that need no training.

    Args:
      sweep: the sweep.
      data: its data.
      diverged: indices of configurations that diverge in the first epoch.
    """
    rng = np.random.default_rng(0)
    identity, dtype = identify_sweep(sweep, data), np.dtype(sweep.settings.dtype)
    (S, C), epochs = identity.size, sweep.settings.epochs
    finite = np.ones((S, C), bool)
    finite[:, list(diverged)] = False

    def draw_metrics(prefix, n, *leading):
        shape = (*leading, S, C)
        drawn = {"loss": rng.uniform(1.5, 2.0, shape), "acc": rng.integers(n // 5, n // 4 + 1, shape) / n}
        return {f"{prefix}_{name}": mask(values) for name, values in drawn.items()}

    def mask(values):
        return np.where(finite, values, np.nan).astype(dtype)

    def draw_marks(accuracy, n):
        """Mark random examples right, as many as the accuracy says; none where it is NaN."""
        places = rng.random((S, C, n)).argsort(axis=-1)
        return np.packbits(places < np.round(np.nan_to_num(accuracy) * n)[..., None], axis=-1)

    sizes = {name: data.size(name) for name in data.sets}
    measured = [name for name in sizes if name in sweep.settings.evaluate]
    history = draw_metrics("running", 1_000, epochs)
    history["W_norm"] = mask(rng.uniform(1, 2, (epochs, S, C)))
    for name in measured:
        history |= draw_metrics(name, sizes[name], epochs)
    final, marks = {}, {}
    for name, n in sizes.items():
        if name in measured:
            final |= {f"{name}_{metric}": history[f"{name}_{metric}"][-1] for metric in ("loss", "acc")}
        else:
            final |= draw_metrics(name, n)
        if name != TRAIN:
            final[f"{name}_class_acc"] = final[f"{name}_acc"] + dtype.type(0.01)
            marks[name] = draw_marks(final[f"{name}_acc"], n)
    W = np.where(finite[..., None, None], rng.normal(size=(S, C, data.K, data.d)), np.nan)
    params = Params(W.reshape(-1, data.K, data.d).astype(dtype), np.zeros((S * C, data.K), dtype))
    replicates, configs = (index.reshape(-1) for index in np.indices((S, C)))
    never = np.zeros((S, C), np.int64)
    return Result(
        identity, history, final, never + epochs, np.where(finite, never, 1), never, marks, sizes,
        Weights(replicates, configs, params), data.standardizer, sweep.fit_arguments(data)["about"],
    )  # fmt: skip


def identify_sweep(sweep, data):
    """Return the identity that the result of a sweep has, without training."""
    arguments = sweep.fit_arguments(data)
    descent = Descent(**{name: arguments[name] for name in Descent._fields})
    per_epoch = [name for name in data.sets if name in arguments["per_epoch"]]
    settings = describe_settings(descent, arguments["train"], per_epoch, np.dtype(descent.dtype))
    if arguments["halving"]:
        rungs = ",".join(map(str, arguments["halving"].rungs))
        settings["halving"] = f"{arguments['halving'].factor} at {rungs} of {descent.epochs} epochs"
    sets = {TRAINING: arguments["train"], **data.sets}
    each_epoch = descent.describe_epochs(descent.dtype)
    return identify(sweep.configs, arguments["seeds"], sets, data.standardizer, settings, each_epoch)


def stop_runs(result, stops):
    """Return the result as if halving had stopped configurations: {index: epoch}."""
    stopped = np.zeros(result.identity.size, np.int64)
    for c, epoch in stops.items():
        stopped[:, c] = epoch
    epochs = np.where(stopped > 0, stopped, result.epochs)
    later = np.arange(1, len(result.identity.epochs) + 1)[:, None, None] > epochs
    final = {
        name: np.take_along_axis(result.history[name], epochs[None] - 1, axis=0)[0]
        if name in result.history
        else np.where(stopped > 0, np.nan, values).astype(values.dtype)
        for name, values in result.final.items()
    }
    kept = ~np.isin(result.weights.configs, list(stops))
    return replace(
        result,
        history={
            name: np.where(later, np.nan, values).astype(values.dtype)
            for name, values in result.history.items()
        },
        final=final,
        epochs=epochs,
        stopped=stopped,
        marks={
            name: np.where(stopped[..., None] > 0, 0, packed).astype(packed.dtype)
            for name, packed in result.marks.items()
        },
        weights=jax.tree.map(lambda leaf: leaf[kept], result.weights),
    )
