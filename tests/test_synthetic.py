import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from linear_cifar.synthetic import synthetic


@pytest.fixture(scope="module")
def source():
    return synthetic(n_train=6_000, n_test=2_000)


def test_has_the_shapes_of_cifar10_and_says_what_it_is(source):
    assert source.name == "synthetic"
    assert not source.published
    assert all(name.startswith("synthetic") for name in source.classes)
    assert source.train.images.shape == (6_000, 3_072)
    assert source.train.images.dtype == source.train.labels.dtype == np.uint8
    counts = np.bincount(source.train.labels, minlength=10)
    assert (counts > 450).all()
    assert (counts < 750).all()


def test_the_seed_alone_decides_it(source):
    again, other = synthetic(n_train=6_000, n_test=2_000), synthetic(1, n_train=6_000, n_test=2_000)
    np.testing.assert_array_equal(source.train.images, again.train.images)
    np.testing.assert_array_equal(source.test.labels, again.test.labels)
    assert not np.array_equal(source.train.images, other.train.images)
    assert not np.array_equal(source.train.images[:2_000], source.test.images)


def test_noise_has_the_spectrum_of_natural_images(source):
    grey = source.train.images.reshape(-1, 3, 32, 32).mean(axis=1)
    power = (np.abs(np.fft.rfft2(grey - grey.mean(axis=0))) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)[None, :])
    band = (frequency > 0.05) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -2.6 < slope < -1.4


def test_is_learnable_but_hard(source):
    scaler = StandardScaler().fit(source.train.images)
    model = LogisticRegression(C=1e-5, max_iter=30, tol=1e-2).fit(
        scaler.transform(source.train.images), source.train.labels
    )
    accuracy = model.score(scaler.transform(source.test.images), source.test.labels)
    assert 0.2 < accuracy < 0.5
