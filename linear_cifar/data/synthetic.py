"""Synthetic images of CIFAR-10's shapes, for machines without the data.

No result on them says anything about CIFAR-10. An image is a smooth template of its class, mirrored or not,
under strong noise with the spectrum of natural images: its amplitude falls with frequency, and its colours
are mostly grey. So a linear model learns slowly and ends near the accuracies that it has on CIFAR-10.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float

from linear_cifar.data.dataset import Dataset, Split, make_dataset

SIDE = 32
CLASSES = tuple(f"synthetic {k}" for k in range(10))
# Contrast of a template against the noise, in standard deviations of a pixel, and number of templates of a
# class. Both are chosen so that the default recipe ends near the 40 % that it has on CIFAR-10.
TEMPLATE_CONTRAST = 0.48
TEMPLATES_PER_CLASS = 4
# Amplitude ~ 1 / frequency, as in natural images (Field 1987), and faster for smooth templates.
NOISE_DECAY, TEMPLATE_DECAY = 1.0, 2.0
# Standard deviations of brightness, red-against-blue and green-against-both, before normalising.
COLOUR_AXES = np.array([[1.0, 1.0, 1.0], [0.25, 0.0, -0.25], [-0.08, 0.16, -0.08]])
PIXEL_MEAN, PIXEL_STD = 120.0, 58.0
# Images made at a time, which bounds the memory. Each block has a random stream of its own.
BLOCK = 2_500


def make_synthetic(seed: int = 0, n_train: int = 50_000, n_test: int = 10_000) -> Dataset:
    """Make a labelled data set of 10 classes, with uint8 images [n, 3072].

    Equal arguments give equal images on one machine. On another machine products may be rounded differently,
    which can change a pixel by 1.

    Args:
      seed: seed of the images (not of a training run).
      n_train: number of training images.
      n_test: number of test images.
    """
    key = np.random.SeedSequence(seed)
    templates_key, train_key, test_key = key.spawn(3)
    count = len(CLASSES) * TEMPLATES_PER_CLASS
    templates = _textures(np.random.default_rng(templates_key), count, TEMPLATE_DECAY)
    splits = {"train": _draw(train_key, n_train, templates), "test": _draw(test_key, n_test, templates)}
    return make_dataset(
        "synthetic", CLASSES, splits, f"generated from seed {seed}", image_shape=(3, SIDE, SIDE)
    )


def _draw(key: np.random.SeedSequence, n: int, templates: Float[np.ndarray, "t 3 side side"]) -> Split:
    """Draw n labelled images."""
    images, labels = np.empty((n, 3 * SIDE * SIDE), np.uint8), np.empty(n, np.uint8)

    def fill(start: int, key: np.random.SeedSequence) -> None:
        block = slice(start, min(start + BLOCK, n))
        size = block.stop - start
        rng = np.random.default_rng(key)
        which = rng.integers(len(templates), size=size)
        signal = templates[which]
        mirrored = rng.random(size) < 0.5
        signal[mirrored] = signal[mirrored, :, :, ::-1]
        pixels = TEMPLATE_CONTRAST * signal + _textures(rng, size, NOISE_DECAY)
        # CIFAR-10's mean and contrast; values outside 0 to 255 are clipped.
        pixels = np.clip(np.rint(PIXEL_MEAN + PIXEL_STD * pixels), 0, 255)
        images[block] = pixels.reshape(size, -1)
        labels[block] = which // TEMPLATES_PER_CLASS

    starts = range(0, n, BLOCK)
    # NumPy releases the interpreter's lock while it draws and multiplies.
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(fill, starts, key.spawn(len(starts))))
    return Split(images, labels)


def _textures(rng: np.random.Generator, n: int, decay: float) -> Float[np.ndarray, "n 3 side side"]:
    """Draw Gaussian images of unit variance whose amplitude falls as frequency^-decay, in float32."""
    frequency = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    amplitude = (1 + frequency) ** -decay
    amplitude /= np.sqrt(np.mean(amplitude**2))
    colours = (COLOUR_AXES / np.sqrt((COLOUR_AXES**2).sum(axis=0))).astype(np.float32)
    waves = rng.standard_normal((n, 3, SIDE, SIDE), np.float32)
    waves *= amplitude.astype(np.float32)
    # The inverse cosine transform along both sides, then brightness and two colours to RGB. The transform
    # also transposes the image, which does not matter to noise of a symmetric spectrum.
    k, i = np.mgrid[:SIDE, :SIDE]
    cosines = np.sqrt(2 / SIDE) * np.cos(np.pi * (i + 0.5) * k / SIDE)  # orthonormal, a frequency per row
    cosines[0] = np.sqrt(1 / SIDE)
    cosines = cosines.astype(np.float32)
    axes = (waves @ cosines).swapaxes(2, 3) @ cosines
    return (colours.T @ axes.reshape(n, 3, -1)).reshape(axes.shape)
