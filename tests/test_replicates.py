import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import small_sweep
from small_sweep import CONFIGS, TRAIN, VAL

import linear_cifar as lc

FOLDS = [np.array([3, 1, *range(10, 32)]), np.array([0, 2, 39, *range(4, 25)])]
STANDARDIZERS = [lc.Standardizer(np.full(6, 0.5 * fold), np.linspace(0.5, 2, 6) + fold) for fold in (0, 1)]
REPLICATES = [lc.Replicate(5, fold, FOLDS[fold], STANDARDIZERS[fold]) for fold in (0, 1)]


def add_noise(key, features):
    return features + 0.1 * jax.random.normal(key, features.shape, features.dtype)


def run(seeds, train=TRAIN, **options):
    return small_sweep.run(train=train, epochs=2, seeds=seeds, augment=add_noise, **options)


@pytest.fixture(scope="module")
def together():
    return run(REPLICATES)


def assert_same(epochs, place, expected, expected_place):
    """Compare the parameters and metrics of one replicate in two sweeps, epoch by epoch."""
    for epoch, other in zip(epochs, expected, strict=True):
        values = jax.tree.map(lambda leaf: leaf[place], (epoch.params(), epoch.metrics))
        reference = jax.tree.map(lambda leaf: leaf[expected_place], (other.params(), other.metrics))
        for leaf, expected_leaf in zip(jax.tree.leaves(values), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(leaf, expected_leaf, rtol=1e-9, atol=1e-12)


def train_alone(fold):
    """Train seed 5 on the rows of a fold only, with the standardiser of the fold."""
    rows = jnp.asarray(FOLDS[fold])
    train = TRAIN.take(rows)
    return run([5], train, standardizer=STANDARDIZERS[fold])


@pytest.mark.parametrize("fold", [0, 1])
def test_a_replicate_trains_as_a_sweep_on_its_rows_with_its_standardiser_does(fold, together):
    assert_same(together, fold, train_alone(fold), 0)


def test_folds_beside_one_another_do_not_influence_one_another(together):
    changed = REPLICATES[1]._replace(rows=FOLDS[1][::-1].copy(), standardizer=STANDARDIZERS[0])
    beside = run([changed, REPLICATES[0]])
    assert_same(beside, 1, together, 0)
    assert not np.allclose(beside[-1].params().W[0], together[-1].params().W[1], rtol=1e-3)


def test_rows_of_a_replicate_need_no_standardiser_of_its_own():
    seeds = [lc.Replicate(5, fold, rows) for fold, rows in enumerate(FOLDS)]
    assert_same(run(seeds, standardizer=STANDARDIZERS[1]), 1, train_alone(1), 0)


def test_a_standardiser_of_a_replicate_needs_no_rows_and_replaces_the_shared_one():
    seeds = [lc.Replicate(5, fold, standardizer=scale) for fold, scale in enumerate(STANDARDIZERS)]
    shared = lc.Standardizer(np.zeros(6), np.full(6, 9.0))
    params = small_sweep.run(epochs=2, seeds=seeds, standardizer=shared, shuffle=False)[-1].params()
    initial = [np.asarray(leaf) for leaf in small_sweep.init(5)]
    features, targets = (np.asarray(array) for array in TRAIN)
    for fold, (mean, std) in enumerate(STANDARDIZERS):
        x = (features - mean) / std
        for c, config in enumerate(CONFIGS):
            W, b = problems.train_by_loop(*initial, x, targets, loss="softmax", epochs=2, **config)
            np.testing.assert_allclose(params.W[fold, c], W, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(params.b[fold, c], b, rtol=1e-9, atol=1e-12)


def test_a_sweep_of_folds_is_evaluated_with_their_standardisers(together):
    W, b = together[-1].params()
    again = lc.evaluate_runs(CONFIGS, lc.Params(W, b), VAL, seeds=REPLICATES)
    np.testing.assert_array_equal(again.loss, together[-1].metrics["val_loss"])
    np.testing.assert_array_equal(again.accuracy, together[-1].metrics["val_acc"])
    labels = np.asarray(VAL.targets).argmax(axis=1)
    for fold, (mean, std) in enumerate(STANDARDIZERS):
        x = (np.asarray(VAL.features) - mean) / std
        for c in range(len(CONFIGS)):
            predicted = (x @ W[fold, c].T + b[fold, c]).argmax(axis=1)
            assert again.accuracy[fold, c] == (predicted == labels).mean()


EVALUATED = [np.array([4, 0, 7, 11]), np.array([19, 3, 3, 8])]


def test_a_fold_is_evaluated_on_its_own_rows(together):
    seeds = [
        replicate._replace(evaluation_rows={"val": rows})
        for replicate, rows in zip(REPLICATES, EVALUATED, strict=True)
    ]
    last = run(seeds)[-1]
    np.testing.assert_array_equal(last.params().W, together[-1].params().W)
    W, b = last.params()
    options = {"seeds": REPLICATES, "rows": np.stack(EVALUATED)}
    again = lc.evaluate_runs(CONFIGS, lc.Params(W, b), VAL, **options)
    marks = lc.mark_correct_of_runs(CONFIGS, lc.Params(W, b), VAL, **options)
    labels = np.asarray(VAL.targets).argmax(axis=1)[np.stack(EVALUATED)]
    by_class = lc.mean_class_accuracy(marks, labels)
    assert marks.shape == (2, len(CONFIGS), 4)
    for fold, (mean, std) in enumerate(STANDARDIZERS):
        x = (np.asarray(VAL.features)[EVALUATED[fold]] - mean) / std
        y = np.asarray(VAL.targets)[EVALUATED[fold]]
        for c in range(len(CONFIGS)):
            logits = x @ W[fold, c].T + b[fold, c]
            loss = -(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[y == 1].mean()
            correct = logits.argmax(axis=1) == y.argmax(axis=1)
            assert marks[fold, c].tolist() == correct.tolist()
            for measured in (again.accuracy, last.metrics["val_acc"]):
                assert measured[fold, c] == correct.mean()
            for measured in (again.loss, last.metrics["val_loss"]):
                assert measured[fold, c] == pytest.approx(loss, rel=1e-12)
            expected = [correct[y[:, k] == 1].mean() for k in range(3) if y[:, k].any()]
            assert by_class[fold, c] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("rows", [[[0, 20]], [[-1, 3]], [[1, 2]] * 3])
def test_rows_that_do_not_fit_are_named(rows):
    params = lc.Params(np.zeros((1, 1, 3, 6)), np.zeros((1, 1, 3)))
    with pytest.raises(ValueError, match=r"^the rows (are|go from)"):
        lc.evaluate_runs(CONFIGS[:1], params, VAL, seeds=[0], rows=np.array(rows))


def replicates(**second):
    return [REPLICATES[0], REPLICATES[1]._replace(**second)]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([1, 2, 1], "two replicates have the same seed and fold"),
        ([1, lc.Replicate(1)], "two replicates have the same seed and fold"),
        (replicates(fold=0), "two replicates have the same seed and fold"),
        (replicates(rows=np.arange(23)), "replicates need equally many training rows"),
        (replicates(rows=None), "replicates need equally many training rows"),
        (replicates(evaluation_rows={"val": np.arange(3)}), "equally many rows of each evaluation set"),
        (
            [lc.Replicate(5, evaluation_rows={"test": np.arange(3)})],
            "seed 5 has rows of 'test': the evaluation sets are val",
        ),
        (
            [lc.Replicate(5, evaluation_rows={"val": np.array([20])})],
            "seed 5 has row 20: give rows from 0 to 19",
        ),
        (replicates(standardizer=None), "give every replicate a standardiser of its own, or none"),
        (replicates(rows=np.arange(17, 41)), "seed 5 has row 40: give rows from 0 to 39"),
        (replicates(rows=np.arange(-1, 23)), "seed 5 has row -1: give rows from 0 to 39"),
        ([lc.Replicate(5, rows=np.ones(40, bool))], r"the rows of seed 5 are bool\(40,\): give indices"),
        ([lc.Replicate(5, rows=np.arange(8) + 0.5)], r"the rows of seed 5 are float64\(8,\): give indices"),
        (
            [lc.Replicate(5, rows=np.zeros((8, 1), int))],
            r"the rows of seed 5 are int64\(8, 1\): give indices",
        ),
        ([lc.Replicate(5, rows=np.arange(7))], "batch is 8: the training set holds 7"),
        (
            [lc.Replicate(5, standardizer=lc.Standardizer(np.zeros((1, 6)), np.ones((1, 6))))],
            r"mean and std \(1, 6\), \(1, 6\): give both as \(6,\)",
        ),
    ],
)
def test_replicates_that_do_not_fit_are_named(seeds, message):
    with pytest.raises(ValueError, match=message) as raised:
        small_sweep.start(seeds=seeds)
    assert "\n" not in str(raised.value)
