import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from linear_cifar.data.synthetic import make_synthetic


@pytest.fixture(scope="module")
def raw():
    return make_synthetic(n_train=6_000, n_test=2_000)


def test_has_the_shapes_of_cifar10_and_says_what_it_is(raw):
    assert raw.name == "synthetic"
    assert not raw.verified
    assert all(name.startswith("synthetic") for name in raw.classes)
    assert raw.splits["train"].features.shape == (6_000, 3_072)
    assert raw.splits["train"].features.dtype == raw.splits["train"].labels.dtype == np.uint8
    counts = np.bincount(raw.splits["train"].labels, minlength=10)
    assert (counts > 450).all()
    assert (counts < 750).all()


def test_the_seed_alone_decides_it(raw):
    again, other = make_synthetic(n_train=6_000, n_test=2_000), make_synthetic(1, n_train=6_000, n_test=2_000)
    np.testing.assert_array_equal(raw.splits["train"].features, again.splits["train"].features)
    np.testing.assert_array_equal(raw.splits["test"].labels, again.splits["test"].labels)
    assert not np.array_equal(raw.splits["train"].features, other.splits["train"].features)
    assert not np.array_equal(raw.splits["train"].features[:2_000], raw.splits["test"].features)


def test_noise_has_the_spectrum_of_natural_images(raw):
    grey = raw.splits["train"].features.reshape(-1, 3, 32, 32).mean(axis=1)
    power = (np.abs(np.fft.rfft2(grey - grey.mean(axis=0))) ** 2).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)[None, :])
    band = (frequency > 0.05) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -2.6 < slope < -1.4


def test_is_learnable_but_hard(raw):
    scaler = StandardScaler().fit(raw.splits["train"].features)
    model = LogisticRegression(C=1e-5, max_iter=30, tol=1e-2).fit(
        scaler.transform(raw.splits["train"].features), raw.splits["train"].labels
    )
    accuracy = model.score(scaler.transform(raw.splits["test"].features), raw.splits["test"].labels)
    assert 0.2 < accuracy < 0.5
