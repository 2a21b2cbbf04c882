import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.augment import horizontal_flip

SHAPE = (3, 2, 4)


def flip(seed, images, p=0.5):
    keys = jax.random.split(jax.random.key(seed), len(images))
    return jax.vmap(lambda key, image: horizontal_flip(key, image, p, SHAPE))(keys, images)


def images(n=400, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 256, size=(n, *shape), dtype=np.uint8)


def test_every_image_is_itself_or_its_mirror_image_about_half_of_the_time():
    before = images()
    after = flip(0, jnp.array(before.reshape(400, -1)))
    after = np.array(after).reshape(before.shape)
    assert after.dtype == np.uint8
    same = (after == before).all(axis=(1, 2, 3))
    mirrored = (after == before[:, :, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_probability_and_key_decide():
    before = jnp.array(images().reshape(400, -1))
    never, always = (flip(0, before, p) for p in (0.0, 1.0))
    assert (never == before).all()
    assert (always == images()[..., ::-1].reshape(400, -1)).all()
    first, again, other = (flip(seed, before) for seed in (0, 0, 1))
    assert (first == again).all()
    assert not (first == other).all()
