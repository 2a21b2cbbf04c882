"""Random changes to training images that keep their class.

An augmentation is a function (key, image [d]) → image [d] of the same dtype. Training draws a key for
every image and epoch, so each encounter with an image is a new draw.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num, PRNGKeyArray

from linear_cifar.arguments import as_whole, describe, is_traced

Augmentation = Callable[[PRNGKeyArray, Num[Array, " d"]], Num[Array, " d"]]


def horizontal_flip(
    key: PRNGKeyArray, image: Num[Array, " d"], p: float = 0.5, shape: tuple[int, int, int] = (3, 32, 32)
) -> Num[Array, " d"]:
    """Mirror the image left to right with probability p.

    Args:
      key: JAX random key.
      image: channels × height × width values, channel-major.
      p: probability of a flip.
      shape: channels, height and width; their product is d.
    """
    if not is_traced(p) and not 0 <= p <= 1:
        raise ValueError(f"p is {p}: give a probability from 0 to 1")
    # In float32, because where JAX's default is float64 the draw would be another one.
    mirrored = jax.random.bernoulli(key, jnp.asarray(p, jnp.float32))
    columns = jnp.arange(shape[-1])
    # One gather, which XLA joins with the gather of the rows: on a CPU a third of the time of choosing
    # between the image and its mirror image.
    chosen = jnp.where(mirrored, columns[::-1], columns)
    return image.reshape(shape)[..., chosen].reshape(-1)


def random_shift(
    key: PRNGKeyArray, image: Num[Array, " d"], pixels: int = 1, shape: tuple[int, int, int] = (3, 32, 32)
) -> Num[Array, " d"]:
    """Move the image by up to `pixels` along each axis, all moves equally likely.

    Pixels that come in from outside repeat the edge.

    Args:
      pixels: the longest move, at least 0.
      key, image, shape: as for `horizontal_flip`.
    """
    as_whole("pixels", pixels, 0)
    _, height, width = shape
    down, right = jax.random.randint(key, (2,), -pixels, pixels + 1, dtype=jnp.int32)
    rows = jnp.clip(jnp.arange(height, dtype=jnp.int32) - down, 0, height - 1)
    columns = jnp.clip(jnp.arange(width, dtype=jnp.int32) - right, 0, width - 1)
    return image.reshape(shape)[:, rows[:, None], columns[None, :]].reshape(-1)


def chain(augmentations: Sequence[Augmentation]) -> Augmentation | None:
    """Return one augmentation that applies several in turn, each with its own key; None if there are none.

    Raises:
      ValueError: if it is no list of augmentations.
    """
    try:
        augmentations = list(augmentations)
    except TypeError:
        raise ValueError(f"augmentations is {describe(augmentations)}: give a list of functions") from None
    if len(augmentations) <= 1:
        return augmentations[0] if augmentations else None
    return partial(_apply_all, augmentations=tuple(augmentations))


def _apply_all(
    key: PRNGKeyArray, image: Num[Array, " d"], augmentations: tuple[Augmentation, ...]
) -> Num[Array, " d"]:
    for augment_key, augment in zip(jax.random.split(key, len(augmentations)), augmentations, strict=True):
        image = augment(augment_key, image)
    return image
