"""The programs that the benchmark times: this project's sweep, and the same training in other libraries.

All of them shuffle and flip the images, except scikit-learn. They differ in two ways:

- The sweep evaluates on the validation images after each epoch, and standardises bytes as it goes.
- The other programs do not evaluate, and get images that are standardised already.

The other programs use one learning rate and no penalty, because only their time matters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from linear_cifar.augment import horizontal_flip
from linear_cifar.config import Config, grid
from linear_cifar.engine import Epoch, sweep
from linear_cifar.examples import Examples, make_examples
from linear_cifar.standardizer import Standardizer
from linear_cifar.training import TrainSpec

SHAPE = (3, 32, 32)
D, K = 3072, 10
ETA = 0.001
# The report's batch sizes and λ.
BATCHES, LAMS = (50, 100, 200, 400), (0.0, 0.1, 1.0)
SPEC = TrainSpec(augment=horizontal_flip)


class Baseline(NamedTuple):
    """A program that trains some configurations.

    `train_epoch` trains all of them on one pass over the training images, and waits for the end. `device`
    names what it runs on.
    """

    num_configs: int
    train_epoch: Callable[[], Any]
    device: str = "cpu"


class BenchData(NamedTuple):
    """Images for all baselines: raw for the sweep, and standardised in `x` for the other programs."""

    train: Examples
    val: Examples
    standardizer: Standardizer
    x: Float[np.ndarray, "n d"]
    labels: UInt8[np.ndarray, " n"]

    @property
    def K(self) -> int:
        """Number of classes."""
        return self.train.targets.shape[1]


def random_data(n: int) -> BenchData:
    """Return n training images and 1,000 validation images of random bytes.

    The speed does not depend on what the images show.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(n + 1_000, D), dtype=np.uint8)
    labels = rng.integers(0, K, size=n + 1_000, dtype=np.uint8)
    standardizer = Standardizer(np.full(D, 127.5), np.full(D, 73.9))
    x = (pixels[:n].astype(np.float32) - np.float32(127.5)) / np.float32(73.9)
    train, val = make_examples(pixels[:n], labels[:n], K), make_examples(pixels[n:], labels[n:], K)
    return BenchData(train, val, standardizer, x, labels[:n])


def make_configs(count: int) -> tuple[Config, ...]:
    """Return `count` configurations: the report's batch sizes and λ, under count / 12 values of η.

    The values of η lie between 0.001 and 1. `count` is a multiple of 12.
    """
    num_etas = count // (len(BATCHES) * len(LAMS))
    return grid([10 ** (-3 * i / max(1, num_etas - 1)) for i in range(num_etas)], BATCHES, LAMS)


def start_sweep(
    configs: Sequence[Config],
    train: Examples,
    val: Examples,
    standardizer: Standardizer,
    *,
    epochs: int,
    seeds: Sequence[int] = (0,),
) -> Iterator[Epoch]:
    """Start this project's sweep with the settings that all measurements share."""
    return sweep(
        configs,
        train,
        {"val": val},
        epochs=epochs,
        seeds=seeds,
        loss=SPEC.loss,
        standardizer=standardizer,
        augment=SPEC.augment,
        precision=SPEC.precision,
    )


def make_sweep(data: BenchData, configs: Sequence[Config]) -> Baseline:
    """Make a baseline of this project's sweep; each call of `train_epoch` trains its next epoch."""
    # A constant η takes the same time in every epoch, so there are more epochs than anybody asks for.
    epochs = start_sweep(configs, data.train, data.val, data.standardizer, epochs=10_000)
    return Baseline(len(configs), lambda: next(epochs), jax_device())


def make_single_run(data: BenchData, batch: int) -> Baseline:
    """Make a baseline of this project's sweep of one configuration."""
    return make_sweep(data, [Config(ETA, batch, 0.0)])


def make_plain_product(data: BenchData, num_configs: int) -> Baseline:
    """Make a baseline that computes the logits of all images and configurations as one matrix product.

    It does half the operations of an epoch, and its rate is the rate to aim at.
    """
    W = jax.random.normal(jax.random.key(0), (num_configs * data.K, data.x.shape[1]))
    x = jnp.asarray(data.x)
    product = jax.jit(lambda W, x: jnp.matmul(W, x.T, precision=SPEC.precision))
    return Baseline(num_configs, lambda: product(W, x).block_until_ready(), jax_device())


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

    n, d = data.x.shape
    rng = np.random.default_rng(0)
    device = torch_device()
    images, labels = _put_on(device, data.x, data.labels.astype(np.int64))
    model = torch.nn.Linear(d, data.K, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)

    def train_epoch() -> None:
        for rows, flipped in _draw_batches(rng, n, batch):
            chosen, mirrored = _put_on(device, rows, flipped)
            x = _flip_torch_images(images[chosen], mirrored)
            loss = torch.nn.functional.cross_entropy(model(x), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait_for(device)

    return Baseline(1, train_epoch, device)


def make_torch_vmap(data: BenchData, batch: int, num_configs: int) -> Baseline:
    """Make a baseline of configurations of one batch size, side by side through torch.func.vmap."""
    import torch
    from torch.func import grad, vmap

    n, d = data.x.shape
    rng = np.random.default_rng(0)
    device = torch_device()
    images, labels = _put_on(device, data.x, data.labels.astype(np.int64))
    W = torch.zeros(num_configs, data.K, d, device=device)
    b = torch.zeros(num_configs, data.K, device=device)

    def loss(W: Any, b: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, W, b), y)

    gradients = vmap(grad(loss, argnums=(0, 1)), in_dims=(0, 0, None, None))

    def train_epoch() -> None:
        for rows, flipped in _draw_batches(rng, n, batch):
            chosen, mirrored = _put_on(device, rows, flipped)
            x = _flip_torch_images(images[chosen], mirrored)
            dW, db = gradients(W, b, x, labels[chosen])
            W.sub_(ETA * dW)
            b.sub_(ETA * db)
        _wait_for(device)

    return Baseline(num_configs, train_epoch, device)


def make_sgd_classifier(data: BenchData) -> Baseline:
    """Make a baseline of one configuration in scikit-learn.

    It trains K one-vs-rest classifiers, one example at a time and without flips.
    """
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=ETA, alpha=0.0001, n_jobs=-1)
    classes = np.arange(data.K)
    return Baseline(1, lambda: model.partial_fit(data.x, data.labels.astype(np.int64), classes))


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

    return [torch.from_numpy(array).to(device) for array in arrays]


def _wait_for(device: str) -> None:
    """Wait until PyTorch has finished all work on a device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


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
