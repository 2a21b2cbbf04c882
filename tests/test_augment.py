from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.augment import chain, horizontal_flip, random_shift

SHAPE = (3, 2, 4)


def flip(seed, images, p=0.5):
    keys = jax.random.split(jax.random.key(seed), len(images))
    return jax.vmap(lambda key, image: horizontal_flip(key, image, p, SHAPE))(keys, images)


def images(n=400, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, size=(n, *shape), dtype=np.uint8)


def test_about_half_of_the_images_are_mirrored():
    original = images()
    augmented = flip(0, jnp.array(original.reshape(400, -1)))
    augmented = np.array(augmented).reshape(original.shape)
    assert augmented.dtype == np.uint8
    same = (augmented == original).all(axis=(1, 2, 3))
    mirrored = (augmented == original[:, :, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_probability_and_key_decide():
    original = jnp.array(images().reshape(400, -1))
    never, always = (flip(0, original, p) for p in (0.0, 1.0))
    assert (never == original).all()
    assert (always == images()[..., ::-1].reshape(400, -1)).all()
    first, repeated, other = (flip(seed, original) for seed in (0, 0, 1))
    assert (first == repeated).all()
    assert not (first == other).all()


def test_all_shifts_are_equally_likely_and_repeat_the_edge():
    original = images(900, (1, 4, 5))
    keys = jax.random.split(jax.random.key(0), 900)
    augmented = jax.vmap(lambda key, image: random_shift(key, image, 1, (1, 4, 5)))(
        keys, original.reshape(900, -1)
    )
    padded = np.pad(original[:, 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    moves = [(down, right) for down in (0, 1, 2) for right in (0, 1, 2)]
    windows = [padded[:, down : down + 4, right : right + 5] for down, right in moves]
    matches = np.array(
        [(window == np.array(augmented).reshape(900, 4, 5)).all(axis=(1, 2)) for window in windows]
    )
    assert augmented.dtype == np.uint8
    assert (matches.sum(axis=0) == 1).all()
    assert (matches.sum(axis=1) > 70).all()
    assert (matches.sum(axis=1) < 130).all()


def test_chained_augmentations_have_keys_of_their_own():
    key, image = jax.random.key(0), jnp.zeros(3)

    def noise(key, image):
        return image + jax.random.normal(key, image.shape)

    assert chain([]) is None
    assert chain([noise]) is noise
    both = chain([noise, noise])(key, image)
    first, second = (noise(part, image) for part in jax.random.split(key))
    np.testing.assert_allclose(both, first + second, rtol=1e-6)
    in_order = chain([noise, lambda key, image: 0 * image])(key, image)
    np.testing.assert_array_equal(in_order, jnp.zeros(3))


@pytest.mark.parametrize("augment", [horizontal_flip, random_shift])
def test_draws_do_not_depend_on_jaxs_default_type(augment):
    images = np.arange(16 * 48, dtype=np.float32).reshape(16, 48)
    changed = []
    for x64 in (True, False):
        with jax.enable_x64(x64):
            keys = jax.random.split(jax.random.key(3, impl="threefry2x32"), 16)
            changed.append(np.asarray(jax.vmap(partial(augment, shape=(3, 4, 4)))(keys, images)))
    np.testing.assert_array_equal(*changed)
    assert not np.array_equal(changed[0], images)
