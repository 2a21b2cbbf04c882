"""The programs that the benchmark times: this project's sweep, and the same training in other libraries.

All of them shuffle and flip the images, except scikit-learn. They differ in two ways:

- The sweep evaluates on the validation images after each epoch, and standardises bytes as it goes.
- The other programs do not evaluate, and get images that are standardised already.

The other programs use one learning rate and no penalty, because only their time matters.

`linear_probes.py` has the programs that train many heads on features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from linear_cifar.augment import horizontal_flip
from linear_cifar.config import Config, grid
from linear_cifar.descent import Epoch, sweep
from linear_cifar.examples import Examples, make_examples
from linear_cifar.standardizer import Standardizer, standardize
from linear_cifar.training import TrainSpec

SHAPE = (3, 32, 32)
D, K = 3072, 10
ETA = 0.001
# The report's batch sizes and λ.
BATCHES, LAMS = (50, 100, 200, 400), (0.0, 0.1, 1.0)
SPEC = TrainSpec(augment=horizontal_flip)
# Most bytes of logits that the plain product computes at a time.
LOGITS_BYTES = 2**29


class Baseline(NamedTuple):
    """A program that trains some configurations.

    `train_epoch` trains all of them on one pass over the training examples, or on a share of it, and waits
    for the end. `device` names what it runs on.
    """

    num_configs: int
    train_epoch: Callable[[], Any]
    device: str = "cpu"
    share: float = 1.0


@dataclass(frozen=True)
class BenchData:
    """Examples for all programs: raw for the sweep, and standardised in `x` for the others.

    `spec` says how all programs train.
    """

    train: Examples
    val: Examples
    standardizer: Standardizer | None
    spec: TrainSpec = SPEC

    @property
    def K(self) -> int:
        """Number of classes."""
        return self.train.K

    @cached_property
    def x(self) -> Float[np.ndarray, "n d"]:
        """The standardised training features."""
        return np.array(standardize(self.standardizer, self.train.features))

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """The classes of the training examples."""
        return np.asarray(self.train.classes)


def random_data(n: int) -> BenchData:
    """Return n training images and 1,000 validation images of random bytes.

    The speed does not depend on what the images show.
    """
    pixels = np.random.default_rng(0).integers(0, 256, size=(n + 1_000, D), dtype=np.uint8)
    return BenchData(*_label_at_random(pixels, K), Standardizer(np.full(D, 127.5), np.full(D, 73.9)))


def random_features(n: int, d: int, num_classes: int) -> BenchData:
    """Return n training examples and 1,000 validation examples of normal float32 features.

    They train without augmentation and without a standardiser.
    """
    features = np.random.default_rng(0).standard_normal((n + 1_000, d), dtype=np.float32)
    return BenchData(*_label_at_random(features, num_classes), None, TrainSpec())


def _label_at_random(features: np.ndarray, num_classes: int) -> tuple[Examples, Examples]:
    """Return training examples, and the last 1,000 as validation examples."""
    labels = np.random.default_rng(1).integers(num_classes, size=len(features))
    train, val = slice(-1_000), slice(-1_000, None)
    return (
        make_examples(features[train], labels[train], num_classes),
        make_examples(features[val], labels[val], num_classes),
    )


def make_configs(count: int) -> tuple[Config, ...]:
    """Return `count` configurations: the report's batch sizes and λ, under count / 12 values of η.

    The values of η lie between 0.001 and 1. `count` is a multiple of 12.
    """
    num_etas = count // (len(BATCHES) * len(LAMS))
    return grid(eta=[10 ** (-3 * i / max(1, num_etas - 1)) for i in range(num_etas)], batch=BATCHES, lam=LAMS)


def start_sweep(
    configs: Sequence[Config], data: BenchData, *, epochs: int, seeds: Sequence[int] = (0,)
) -> Iterator[Epoch]:
    """Start this project's sweep."""
    return sweep(
        configs,
        data.train,
        {"val": data.val},
        epochs=epochs,
        seeds=seeds,
        standardizer=data.standardizer,
        **data.spec._asdict(),
    )


def make_sweep(data: BenchData, configs: Sequence[Config]) -> Baseline:
    """Make a baseline of this project's sweep; each call of `train_epoch` trains its next epoch."""
    # A constant η takes the same time in every epoch, so there are more epochs than anybody asks for.
    epochs = start_sweep(configs, data, epochs=10_000)
    return Baseline(len(configs), lambda: next(epochs), jax_device())


def make_single_run(data: BenchData, batch: int) -> Baseline:
    """Make a baseline of this project's sweep of one configuration."""
    return make_sweep(data, [Config(ETA, batch, 0.0)])


def make_plain_product(data: BenchData, num_configs: int) -> Baseline:
    """Make a baseline that computes the logits of all examples and configurations as one matrix product.

    It does half the operations of an epoch, and its rate is the rate to aim at. Where the logits would take
    more than `LOGITS_BYTES`, it computes those of a share of the examples.
    """
    n, d = data.x.shape
    W = jax.random.normal(jax.random.key(0), (num_configs * data.K, d), data.x.dtype)
    x = jnp.asarray(data.x[: LOGITS_BYTES // (4 * len(W))])
    product = jax.jit(lambda W, x: jnp.matmul(W, x.T, precision=data.spec.precision))
    return Baseline(num_configs, lambda: product(W, x).block_until_ready(), jax_device(), len(x) / n)


def make_numpy_loop(data: BenchData, batch: int) -> Baseline:
    """Make a baseline of one configuration in NumPy, whose matrix products BLAS computes."""
    n, d = data.x.shape
    rng = np.random.default_rng(0)
    W, b = np.zeros((data.K, d), np.float32), np.zeros(data.K, np.float32)
    targets = np.asarray(data.train.targets)

    def train_epoch() -> None:
        for rows, flipped in _draw_batches(rng, n, batch):
            x = data.x[rows]
            images = x.reshape(-1, *SHAPE)
            images[flipped] = images[flipped][..., ::-1]
            logits = x @ W.T + b
            dlogits = np.exp(logits - logits.max(axis=1, keepdims=True))
            dlogits = (dlogits / dlogits.sum(axis=1, keepdims=True) - targets[rows]) / np.float32(len(x))
            np.subtract(W, ETA * (dlogits.T @ x), out=W)
            np.subtract(b, ETA * dlogits.sum(axis=0), out=b)

    return Baseline(1, train_epoch)


def make_torch_loop(data: BenchData, batch: int) -> Baseline:
    """Make a baseline of one configuration in PyTorch: nn.Linear and SGD, without a DataLoader's overhead."""
    import torch

    model = torch.nn.Linear(data.x.shape[1], data.K, device=torch_device())
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)

    def step(x: Any, y: Any) -> None:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return make_torch_baseline(data, batch, 1, step)


def make_torch_vmap(
    data: BenchData, batch: int, num_configs: int, timed_batches: int | None = None
) -> Baseline:
    """Make a baseline of configurations of one batch size, side by side through torch.func.vmap."""
    import torch
    from torch.func import grad, vmap

    d, device = data.x.shape[1], torch_device()
    W = torch.zeros(num_configs, data.K, d, device=device)
    b = torch.zeros(num_configs, data.K, device=device)

    def loss(W: Any, b: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, W, b), y)

    gradients = vmap(grad(loss, argnums=(0, 1)), in_dims=(0, 0, None, None))

    def step(x: Any, y: Any) -> None:
        dW, db = gradients(W, b, x, y)
        W.sub_(ETA * dW)
        b.sub_(ETA * db)

    return make_torch_baseline(data, batch, num_configs, step, timed_batches)


def make_torch_baseline(
    data: BenchData,
    batch: int,
    num_configs: int,
    step: Callable[[Any, Any], None],
    timed_batches: int | None = None,
) -> Baseline:
    """Make a baseline in PyTorch from its update on one batch.

    Args:
      data: examples, which are flipped where `data.spec` has an augmentation.
      batch: batch size.
      num_configs: number of configurations that `step` updates.
      step: update, called with the features [batch, d] and labels [batch] as tensors.
      timed_batches: batches of an epoch that `train_epoch` trains on; None: all.
    """
    import torch

    n = len(data.labels)
    rng = np.random.default_rng(0)
    device = torch_device()
    features, labels = _put_on(device, data.x, data.labels.astype(np.int64))

    def train_epoch() -> None:
        for rows, flipped in islice(_draw_batches(rng, n, batch), timed_batches):
            chosen, mirrored = _put_on(device, rows, flipped)
            x = features[chosen]
            step(x if data.spec.augment is None else _flip_torch_images(x, mirrored), labels[chosen])
        if device == "cuda":
            torch.cuda.synchronize()

    share = 1.0 if timed_batches is None else min(1.0, timed_batches * batch / n)
    return Baseline(num_configs, train_epoch, device, share)


def make_sgd_classifier(data: BenchData) -> Baseline:
    """Make a baseline of one configuration in scikit-learn.

    It trains K one-vs-rest classifiers, one example at a time and without flips.
    """
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=ETA, alpha=0.0001, n_jobs=-1)
    classes = np.arange(data.K)
    return Baseline(1, lambda: model.partial_fit(data.x, data.labels, classes))


def jax_device() -> str:
    """Name the device that JAX computes on."""
    return jax.devices()[0].device_kind


def torch_device() -> str:
    """Return PyTorch's name of the kind of device that JAX computes on, or cpu where PyTorch has none."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def _put_on(device: str, *arrays: np.ndarray) -> list[Any]:
    """Return arrays as PyTorch's tensors on a device."""
    import torch

    return [torch.tensor(array, device=device) for array in arrays]


def _draw_batches(rng: np.random.Generator, n: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of an epoch: the rows of each, and a mask of those to flip."""
    order, flipped = rng.permutation(n), rng.random(n) < 0.5
    for start in range(0, n, batch):
        yield order[start : start + batch], flipped[start : start + batch]


def _flip_torch_images(x: Any, flipped: Any) -> Any:
    """Mirror the chosen images of x [n, d] in place, and return x."""
    images = x.view(-1, *SHAPE)
    images[flipped] = images[flipped].flip(-1)
    return x
