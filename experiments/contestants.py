"""What the benchmark lets run: the sweep, and the same training as others would write it.

A contestant trains some configurations for one epoch per call, shuffling and flipping the images. The
sweep validates after each epoch too and standardises bytes as it goes; its peers do not validate, and
find the images standardised. Only the time of the others matters, so they use one η and no penalty.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from linear_cifar.augment import horizontal_flip
from linear_cifar.config import Config, grid
from linear_cifar.evaluation import Examples, examples
from linear_cifar.losses import get_loss
from linear_cifar.standardizer import Standardizer
from linear_cifar.sweep import sweep
from linear_cifar.training import Recipe

SHAPE = (3, 32, 32)
D, K = 3072, 10
ETA = 0.001
RECIPE = Recipe(get_loss("softmax"), augment=horizontal_flip)


class Contestant(NamedTuple):
    """`epoch` trains `configs` configurations through the training images once, and waits for the end."""

    name: str
    configs: int
    epoch: Callable[[], Any]


class Arena(NamedTuple):
    """The data of all contestants: as the sweep takes it, and standardised for the others."""

    train: Examples
    val: Examples
    standardizer: Standardizer
    x: Float[np.ndarray, "n d"]
    labels: UInt8[np.ndarray, " n"]

    @property
    def K(self) -> int:
        """Number of classes."""
        return self.train.targets.shape[1]


def random_arena(n: int) -> Arena:
    """n training images of random bytes, and 1,000 more: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(n + 1_000, D), dtype=np.uint8)
    labels = rng.integers(0, K, size=n + 1_000, dtype=np.uint8)
    standardizer = Standardizer(np.full(D, 127.5), np.full(D, 73.9))
    x = (pixels[:n].astype(np.float32) - np.float32(127.5)) / np.float32(73.9)
    train, val = examples(pixels[:n], labels[:n], K), examples(pixels[n:], labels[n:], K)
    return Arena(train, val, standardizer, x, labels[:n])


def many(configs: int) -> tuple[Config, ...]:
    """The report's batch sizes and λ under as many η, from 0.001 to 1, as give that many configurations."""
    etas = [10 ** (-3 * i / max(1, configs // 12 - 1)) for i in range(configs // 12)]
    return grid(etas, [50, 100, 200, 400], [0.0, 0.1, 1.0])


def plain_product(arena: Arena, configs: int) -> Contestant:
    """The scores of all images under that many configurations, as one product: the rate to aim at.

    It does half the operations of an epoch.
    """
    W = jax.random.normal(jax.random.key(0), (configs * arena.K, arena.x.shape[1]))
    x = jnp.asarray(arena.x)
    product = jax.jit(lambda W, x: jnp.matmul(W, x.T, precision=RECIPE.precision))
    return Contestant("plain matrix product", configs, lambda: product(W, x).block_until_ready())


def linear_cifar(arena: Arena, configs: Sequence[Config], name: str = "linear_cifar") -> Contestant:
    """This project's sweep of the configurations."""
    epochs = sweep(configs, arena.train, {"val": arena.val}, arena.standardizer, RECIPE, epochs=10**9)
    return Contestant(name, len(configs), lambda: next(epochs))


def numpy_loop(arena: Arena, batch: int) -> Contestant:
    """One configuration in NumPy: rows of examples, products by BLAS."""
    n, d = arena.x.shape
    rng = np.random.default_rng(0)
    W, b = np.zeros((arena.K, d), np.float32), np.zeros(arena.K, np.float32)
    targets = np.asarray(arena.train.targets)

    def epoch() -> None:
        for chosen, flipped in _batches(rng, n, batch):
            x = arena.x[chosen]
            images = x.reshape(-1, *SHAPE)
            images[flipped] = images[flipped][..., ::-1]
            scores = x @ W.T + b
            G = np.exp(scores - scores.max(axis=1, keepdims=True))
            G = (G / G.sum(axis=1, keepdims=True) - targets[chosen]) / np.float32(len(x))
            np.subtract(W, ETA * (G.T @ x), out=W)
            np.subtract(b, ETA * G.sum(axis=0), out=b)

    return Contestant("NumPy", 1, epoch)


def torch_loop(arena: Arena, batch: int) -> Contestant:
    """One configuration in PyTorch: nn.Linear and SGD, without a DataLoader's overhead."""
    import torch

    n, d = arena.x.shape
    rng = np.random.default_rng(0)
    images, labels = torch.from_numpy(arena.x), torch.from_numpy(arena.labels.astype(np.int64))
    model = torch.nn.Linear(d, arena.K)
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)

    def epoch() -> None:
        for chosen, flipped in _batches(rng, n, batch):
            x = _torch_flip(images[torch.from_numpy(chosen)], torch.from_numpy(flipped))
            loss = torch.nn.functional.cross_entropy(model(x), labels[torch.from_numpy(chosen)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return Contestant("PyTorch", 1, epoch)


def torch_vmap(arena: Arena, batch: int, configs: int) -> Contestant:
    """Configurations of one batch size side by side through torch.func.vmap."""
    import torch
    from torch.func import grad, vmap

    n, d = arena.x.shape
    rng = np.random.default_rng(0)
    images, labels = torch.from_numpy(arena.x), torch.from_numpy(arena.labels.astype(np.int64))
    W, b = torch.zeros(configs, arena.K, d), torch.zeros(configs, arena.K)

    def loss(W: Any, b: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, W, b), y)

    gradients = vmap(grad(loss, argnums=(0, 1)), in_dims=(0, 0, None, None))

    def epoch() -> None:
        for chosen, flipped in _batches(rng, n, batch):
            x = _torch_flip(images[torch.from_numpy(chosen)], torch.from_numpy(flipped))
            dW, db = gradients(W, b, x, labels[torch.from_numpy(chosen)])
            W.sub_(ETA * dW)
            b.sub_(ETA * db)

    return Contestant("torch.func.vmap", configs, epoch)


def sgd_classifier(arena: Arena) -> Contestant:
    """One configuration in scikit-learn: K one-vs-rest classifiers, an example at a time, no flips."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=ETA, alpha=0.0001, n_jobs=-1)
    classes = np.arange(arena.K)
    return Contestant(
        "SGDClassifier", 1, lambda: model.partial_fit(arena.x, arena.labels.astype(np.int64), classes)
    )


def _batches(rng: np.random.Generator, n: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An epoch's batches: the rows of each, and which of them are flipped."""
    order, flipped = rng.permutation(n), rng.random(n) < 0.5
    for start in range(0, n, size):
        yield order[start : start + size], flipped[start : start + size]


def _torch_flip(x: Any, flipped: Any) -> Any:
    """Mirrors some of the images [n, d]."""
    images = x.view(-1, *SHAPE)
    images[flipped] = images[flipped].flip(-1)
    return x
