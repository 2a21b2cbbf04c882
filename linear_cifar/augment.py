"""Random changes to training images that keep their class.

An augmentation is a function (key, images [n, d]) → images [n, d] of the same dtype. Training
draws a fresh key every epoch, so each encounter with an image is a new draw.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num, PRNGKeyArray

Augmentation = Callable[[PRNGKeyArray, Num[Array, "n d"]], Num[Array, "n d"]]


def horizontal_flip(
    key: PRNGKeyArray,
    images: Num[Array, "n d"],
    p: float = 0.5,
    shape: tuple[int, int, int] = (3, 32, 32),
) -> Num[Array, "n d"]:
    """Mirrors each image left to right with probability p.

    Args:
      key: JAX random key.
      images: rows of channels × height × width values, channel-major.
      p: probability of a flip, independent for each image.
      shape: channels, height and width; their product is d.
    """
    n = images.shape[0]
    grid = images.reshape(n, *shape)
    flipped = jax.random.bernoulli(key, p, (n,))
    return jnp.where(flipped[:, None, None, None], grid[..., ::-1], grid).reshape(images.shape)
