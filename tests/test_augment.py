import jax
import jax.numpy as jnp
import numpy as np

from linear_cifar.augment import horizontal_flip, in_turn, random_shift

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


def test_a_shift_is_one_of_the_moves_all_equally_likely_and_repeats_the_edge():
    before = images(900, (1, 4, 5))
    keys = jax.random.split(jax.random.key(0), 900)
    after = jax.vmap(lambda key, image: random_shift(key, image, 1, (1, 4, 5)))(keys, before.reshape(900, -1))
    padded = np.pad(before[:, 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    moves = [(down, right) for down in (0, 1, 2) for right in (0, 1, 2)]
    windows = [padded[:, down : down + 4, right : right + 5] for down, right in moves]
    matches = np.array(
        [(window == np.array(after).reshape(900, 4, 5)).all(axis=(1, 2)) for window in windows]
    )
    assert after.dtype == np.uint8
    assert (matches.sum(axis=0) == 1).all()
    assert (matches.sum(axis=1) > 70).all()
    assert (matches.sum(axis=1) < 130).all()


def test_augmentations_in_turn_have_keys_of_their_own():
    key, image = jax.random.key(0), jnp.zeros(3)

    def noise(key, image):
        return image + jax.random.normal(key, image.shape)

    assert in_turn([]) is None
    assert in_turn([noise]) is noise
    both = in_turn([noise, noise])(key, image)
    first, second = (noise(its_key, image) for its_key in jax.random.split(key))
    np.testing.assert_allclose(both, first + second, rtol=1e-6)
    in_order = in_turn([noise, lambda key, image: 0 * image])(key, image)
    np.testing.assert_array_equal(in_order, jnp.zeros(3))
