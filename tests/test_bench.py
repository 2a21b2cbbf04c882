"""What the benchmark times: that its peers do train, and what its probe prints."""

import inspect
import json

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from sklearn.linear_model import LogisticRegression

from experiments import contestants, probe
from experiments.bench import epochs_per_s
from experiments.contestants import Arena, many
from experiments.timing import alternate
from linear_cifar.dataset import divide
from linear_cifar.evaluation import examples
from linear_cifar.standardizer import Standardizer
from linear_cifar.synthetic import synthetic


def arena(n=200):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n + 50).astype(np.uint8)
    # The class shows in each image's brightness: a flip does not hide it.
    pixels = np.clip(rng.normal(60 + 60 * labels[:, None], 40, (n + 50, 3072)), 0, 255).astype(np.uint8)
    x = (pixels[:n] - np.float32(120)) / np.float32(64)
    train, val = examples(pixels[:n], labels[:n], 3), examples(pixels[n:], labels[n:], 3)
    return Arena(train, val, Standardizer(np.full(3072, 120.0), np.full(3072, 64.0)), x, labels[:n])


def test_the_numpy_peer_trains():
    small = arena()
    peer = contestants.numpy_loop(small, 50)
    for _ in range(20):
        peer.epoch()
    W = inspect.getclosurevars(peer.epoch).nonlocals["W"]
    fitted = LogisticRegression().fit(small.x, small.labels)
    assert np.mean((small.x @ W.T).argmax(axis=1) == fitted.predict(small.x)) > 0.9


def test_the_sweep_goes_on_where_it_was():
    ours = contestants.linear_cifar(arena(), many(12)[:1])
    first, second = ours.epoch(), ours.epoch()
    assert (first.number, second.number) == (1, 2)
    assert second.record.watched["val"].loss < first.record.watched["val"].loss


@pytest.mark.parametrize("count", [12, 48, 120])
def test_many_gives_that_many(count):
    configs = many(count)
    assert len(set(configs)) == count
    assert {config.batch for config in configs} == {50, 100, 200, 400}


def test_alternating_runs_each_in_turn_after_a_warm_up():
    calls = []
    times = alternate([lambda: calls.append("a"), lambda: calls.append("b")], repeats=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [len(its) for its in times] == [2, 2]


def test_epochs_are_counted_while_all_processes_train():
    assert epochs_per_s([[10, 12, 14, 16]]) == pytest.approx(1 / 2)
    # From 11 to 14: one and a half epochs of the first process, three of the second.
    assert epochs_per_s([[10, 12, 14], [11, 12, 13, 14, 15]]) == pytest.approx(4.5 / 3)
    with pytest.raises(RuntimeError, match="did not train at the same time"):
        epochs_per_s([[1, 2], [2, 3]])


@pytest.mark.parametrize(
    ("given", "epochs"), [([], 2), (["--seeds=2", "--images=1000", "--epochs=3"], 3)], ids=["data", "bytes"]
)
def test_the_probe_prints_what_it_measured(monkeypatch, capsys, given, epochs):
    data = divide(synthetic(n_train=1_200, n_test=100), val_size=200)
    monkeypatch.setattr(probe, "load", lambda *_: data)
    with flagsaver.flagsaver():  # which forgets new flags
        probe.define_flags()
        flags.FLAGS(["probe", "--configs=12", *given])
        probe.main()
    measured = json.loads(capsys.readouterr().out)
    assert measured["configs"] == 12
    assert measured["to_first_epoch_s"] > measured["first_epoch_s"] > 0
    assert len(measured["ends"]) == epochs
    assert measured["peak_bytes"] > data.train.images.nbytes
