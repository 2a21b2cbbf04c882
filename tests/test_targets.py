"""Tests of the kinds of targets: one class, soft classes, several labels, one output."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix

import linear_cifar as lc

W, B, X, ONE_HOT = problems.problem(n=60, d=5, K=4)
PARAMS = lc.Params(jnp.asarray(W), jnp.asarray(B))
LOGITS = X @ W.T + B
RNG = np.random.default_rng(0)
SHARES = RNG.dirichlet(np.ones(4), size=60)
TWO_LABELS = np.maximum(ONE_HOT, np.roll(ONE_HOT, 1, axis=1) * (RNG.random((60, 1)) < 0.5))
SMOOTHED = 0.9 * ONE_HOT + 0.1 / 4
TIES = 0.5 * ONE_HOT + 0.5 * ONE_HOT[::-1]
MIXED = np.where(np.arange(60)[:, None] % 2, ONE_HOT, 0.3 * ONE_HOT + 0.7 * ONE_HOT[::-1])
BINARY = TWO_LABELS[:, :1]


def right_classes(targets):
    return LOGITS.argmax(axis=1) == targets.argmax(axis=1)


def right_labels(loss, targets):
    probabilities = {"softmax": problems.softmax, "bce": problems.sigmoid}[loss](LOGITS)
    return ((probabilities >= 0.5) == (targets >= 0.5)).mean(axis=1)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize(
    "targets", [ONE_HOT, SHARES, SMOOTHED, MIXED, TIES], ids=["one-hot", "shares", "smooth", "mixup", "ties"]
)
def test_of_classes_the_largest_logit_must_be_the_largest_target(loss, targets):
    examples = lc.Examples(X, targets)
    right = right_classes(targets)
    assert 0 < right.mean() < 1
    assert lc.evaluate(PARAMS, examples, loss).accuracy == pytest.approx(right.mean())
    marks = lc.mark_correct(PARAMS, examples)
    assert marks.dtype == bool
    np.testing.assert_array_equal(marks, right)
    expected = confusion_matrix(targets.argmax(axis=1), LOGITS.argmax(axis=1))
    np.testing.assert_array_equal(lc.confusion_matrix(PARAMS, examples), expected)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
@pytest.mark.parametrize("targets", [TWO_LABELS, 0.9 * TWO_LABELS + 0.05], ids=["multi-hot", "smoothed"])
def test_labels_are_right_one_by_one(loss, targets):
    examples = lc.Examples(X, targets, kind="labels")
    right = right_labels(loss, targets)
    assert lc.evaluate(PARAMS, examples, loss).accuracy == pytest.approx(right.mean())
    marks = lc.mark_correct(PARAMS, examples, loss=loss)
    np.testing.assert_allclose(marks, right)
    assert lc.estimate_accuracy(marks[None]).mean == pytest.approx(right.mean())
    by_label = accuracy_score(targets.ravel() >= 0.5, (problems.sigmoid(LOGITS) >= 0.5).ravel())
    assert loss == "softmax" or right.mean() == pytest.approx(by_label)


def test_a_multi_hot_row_with_one_label_is_judged_label_by_label():
    targets = TWO_LABELS.copy()
    single = np.flatnonzero(targets.sum(axis=1) == 1)
    assert 0 < len(single) < 60
    marks = lc.mark_correct(PARAMS, lc.Examples(X, targets), loss="bce")
    np.testing.assert_allclose(marks[single], right_labels("bce", targets)[single])


def test_what_a_threshold_takes_is_compared_with_what_is_true():
    predicted = problems.sigmoid(LOGITS) >= 0.5
    sharp, smoothed = (
        lc.label_metrics(predicted, targets) for targets in (TWO_LABELS, 0.9 * TWO_LABELS + 0.05)
    )
    assert sharp == smoothed
    assert np.isnan(lc.label_metrics(predicted, 0 * TWO_LABELS).recall)


def test_one_output_is_thresholded_as_scikit_learn_does():
    labels = BINARY[:, 0].astype(int)
    train = lc.Examples(X, BINARY)
    fitted = lc.fit([lc.Config(0.5, 20, 0.001)], train, {"train": train}, loss="bce", epochs=100)
    expected = LogisticRegression(C=1 / (2 * 60 * 0.001)).fit(X, labels).score(X, labels)
    assert labels.mean() != expected
    assert fitted.best("train").mean == pytest.approx(expected, abs=0.021)
    right = lc.mark_correct(fitted.params(0, 0), train, loss="bce")
    assert right.mean() == pytest.approx(fitted.best("train").mean)


@pytest.mark.parametrize("targets", [TWO_LABELS, BINARY], ids=["multi-hot", "one output"])
def test_a_sweep_measures_what_counts_as_right(targets):
    train = lc.Examples(X, targets)
    configs = lc.grid(eta=[0.01, 1.0], batch=[60], lam=[0.0])
    K = targets.shape[1]
    options = {"loss": "bce", "seeds": [1, 2], "devices": jax.local_devices()[:1]}
    epoch = next(lc.sweep(configs, train, {"train": train}, epochs=1, **options))
    initial = [lc.jax_params(seed, 5, K) for seed in (1, 2)]
    for s, params in enumerate(initial):
        # One batch: the running accuracy is that of the initial weights.
        expected = lc.mark_correct(params, train, loss="bce").mean()
        np.testing.assert_allclose(epoch.metrics["running_acc"][s], expected, atol=1e-6)
    marks = lc.mark_correct_of_runs(configs, epoch.params(), train, seeds=[1, 2], loss="bce")
    np.testing.assert_allclose(epoch.metrics["train_acc"], marks.mean(axis=-1), atol=1e-6)
    if marks.dtype != bool:
        chosen = lc.confidence_set(marks)
        assert chosen[marks.mean(axis=(0, 2)).argmax()]


@pytest.mark.parametrize(("targets", "kind"), [(TWO_LABELS, "labels"), (BINARY, None)])
def test_a_single_step_measures_what_counts_as_right(targets, kind):
    K = targets.shape[1]
    params = lc.Params(jnp.asarray(W[:K]), jnp.asarray(B[:K]))
    state, hyperparams = (
        lc.RunState(params, ()),
        lc.stack_hyperparams(lc.grid(eta=[0.1], batch=[4], lam=[0.0]), jnp.float64),
    )
    single = jax.tree.map(lambda leaf: leaf[0], hyperparams)
    kinds = {} if kind is None else {"kind": kind}
    _, measured = lc.train_step(state, single, X, targets, lc.TrainSpec("bce"), **kinds)
    expected = lc.mark_correct(params, lc.Examples(X, targets), loss="bce")
    np.testing.assert_allclose(measured.accuracy, expected)


def test_traced_targets_need_their_kind():
    def accuracy(targets, kind=None):
        return lc.Examples(jnp.asarray(X), targets, kind).kind

    assert jax.eval_shape(lambda y: jnp.ones(len(accuracy(y))), jnp.asarray(BINARY)).shape == (6,)  # labels
    with pytest.raises(ValueError, match="targets are traced and do not show their kind"):
        jax.eval_shape(lambda y: accuracy(y), jnp.asarray(ONE_HOT))
