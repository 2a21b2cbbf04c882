"""Small runs that several test files share: settings, sweeps, a synthetic data set, and results."""

import jax
import numpy as np

from experiments.runner.data import prepare_data
from experiments.runner.settings import Settings
from experiments.runner.sweeps import HELD_OUT, Sweep, SweepResult, name_replicates
from linear_cifar.data.dataset import split_dataset
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.engine import EpochMetrics, mask_diverged, mask_metrics
from linear_cifar.evaluation import Metrics
from linear_cifar.fitting import SavedParams, select_all
from linear_cifar.params import Params
from linear_cifar.uncertainty import pack_correct

SETTINGS = Settings(
    train="full", val_size=50, folds=0, image_shape=None, standardize="standard", loss="softmax", flip=True,
    shift=0, epochs=2, schedule="constant",
    average=1, shuffle=True, init="jax", dtype="float32", precision="float32", evaluate=("val",),
    max_loss=None, halving=0, rungs=(), bracket=0,
)  # fmt: skip


def make_sweep(configs, seeds=(3,), **changes):
    """Return a sweep named "small" with changed settings."""
    settings = SETTINGS._replace(**changes)
    return Sweep("small", settings, name_replicates(seeds, settings.folds), tuple(configs))


def small_dataset():
    """Return 250 training, 50 validation and 100 test images, all synthetic."""
    return split_dataset(make_synthetic(n_train=300, n_test=100), val_size=50)


def small_data():
    """Return the same images, prepared for training."""
    return prepare_data(small_dataset())


def draw_result(sweep, data, diverged=()):
    """Draw random measurements and weights of a sweep, for tests that need no training.

    Args:
      sweep: the sweep.
      data: its data.
      diverged: indices of configurations that diverge in the first epoch.
    """
    rng = np.random.default_rng(0)
    history_shape = (sweep.settings.epochs, *sweep.size)

    def draw_metrics(shape, n=1_000):
        loss, accuracy = rng.uniform(1.5, 2.0, shape), rng.integers(n // 5, n // 4 + 1, shape) / n
        return Metrics(loss.astype(np.float32), accuracy.astype(np.float32))

    def draw_correct(accuracy, n):
        """Mark random examples right, as many as the accuracy says; none where it is NaN."""
        places = rng.random((*accuracy.shape, n)).argsort(axis=-1)
        return pack_correct(places < np.round(np.nan_to_num(accuracy) * n)[..., None])

    finite = np.ones(history_shape, bool)
    finite[:, :, list(diverged)] = False
    evaluated = {name: draw_metrics(history_shape, data.size(name)) for name in sweep.settings.evaluate}
    norm = rng.uniform(1, 2, history_shape).astype(np.float32)
    history = mask_diverged(EpochMetrics(draw_metrics(history_shape), evaluated, norm, finite))
    final = {name: draw_metrics(sweep.size, data.size(name)) for name in data.splits}
    final |= {name: jax.tree.map(lambda values: values[-1], metrics) for name, metrics in evaluated.items()}
    W = np.where(finite[-1][..., None, None], rng.normal(size=(*sweep.size, data.K, data.d)), np.nan)
    params = Params(
        W.reshape(-1, data.K, data.d).astype(np.float32),
        np.zeros((W.shape[0] * W.shape[1], data.K), np.float32),
    )
    saved = SavedParams(*select_all(*sweep.size), params)
    by_class = {name: final[name].accuracy + np.float32(0.01) for name in HELD_OUT if name in data.splits}
    masked = mask_metrics((final, by_class), finite[-1])
    correct = {name: draw_correct(masked[0][name].accuracy, data.size(name)) for name in by_class}
    stopped = np.zeros(sweep.size, np.int64)
    return SweepResult(sweep, data, history, *masked, correct, stopped, saved)


def stop_runs(result, stops):
    """Return the result as if halving had stopped configurations: {index: epoch}."""
    stopped = np.zeros(result.sweep.size, np.int64)
    for c, epoch in stops.items():
        stopped[:, c] = epoch
    epochs = np.arange(1, result.epochs + 1)[:, None, None]
    later = (stopped > 0) & (epochs > stopped)

    def hide(values):
        return values if values.dtype == bool else np.where(later, np.nan, values).astype(values.dtype)

    def hide_unless_measured(values):
        return np.where(stopped > 0, np.nan, values).astype(values.dtype)

    history = jax.tree.map(hide, result.history)
    final = {
        name: jax.tree.map(lambda values: values[-1], result.history.evaluated[name])
        if name in result.settings.evaluate
        else jax.tree.map(hide_unless_measured, metrics)
        for name, metrics in result.final.items()
    }
    kept = ~np.isin(result.saved.configs, list(stops))
    return result._replace(
        history=history,
        final=final,
        class_accuracy=jax.tree.map(hide_unless_measured, result.class_accuracy),
        stopped=stopped,
        saved=jax.tree.map(lambda leaf: leaf[kept], result.saved),
    )
