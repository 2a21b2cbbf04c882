import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import linear_cifar as lc
import linear_cifar.sklearn
from linear_cifar.sklearn import LogisticPathCV, SweepClassifierCV

# 20 examples in each of three folds, of which the last 5 of a fold repeat its first 5.
X, SPECIES = (values[np.random.default_rng(0).permutation(150)[:60]] for values in load_iris(return_X_y=True))
REPEATED, FOLDS = np.arange(60) % 20 >= 15, np.arange(60) // 20
X, SPECIES = (np.where(REPEATED.reshape(-1, *[1] * (v.ndim - 1)), np.roll(v, 15, 0), v) for v in (X, SPECIES))
X[:, 3] *= 1e3
Y = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
LAMS = (1e-3, 1e-2, 1.0)
PATH = LogisticPathCV(LAMS, cv=PredefinedSplit(FOLDS), dtype="float64")
SWEEP = SweepClassifierCV((0.01, 0.3), (5,), (0.001,), cv=PredefinedSplit(FOLDS), epochs=5, seeds=(3, 4))
# Scikit-learn's checks that need no compiling; tests/estimator_checks.py runs all.
QUICK = (
    "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init",
    "check_estimators_unfitted", "check_mixin_order", "check_parameters_default_constructible",
    "check_estimator_sparse_array", "check_fit2d_1sample",
)  # fmt: skip


def make_reference(lam, n, class_weight=None):
    C = 1 / (2 * n * lam)
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=C, class_weight=class_weight, tol=1e-8, max_iter=10_000)
    )


def assert_same_weights(ours, pipeline):
    scaler, theirs = pipeline[0], pipeline[1]
    np.testing.assert_allclose(ours.coef_ * scaler.scale_, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), pipeline.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X), pipeline.predict(X))


@pytest.fixture(scope="module")
def path():
    return clone(PATH).fit(X, Y, sample_weight=np.ones(60))  # one program with the tests of other weights


@pytest.fixture(scope="module")
def sweep():
    return clone(SWEEP).fit(pd.DataFrame(X, columns=["a", "b", "c", "d"]), Y)


def test_the_path_has_the_scores_and_weights_of_scikit_learn(path):
    scores = [cross_val_score(make_reference(lam, 40), X, Y, cv=PATH.cv) for lam in LAMS]
    found = path.cv_results_
    np.testing.assert_allclose([found[f"split{f}_test_score"] for f in range(3)], np.transpose(scores))
    np.testing.assert_allclose(found["mean_test_score"], np.mean(scores, axis=1))
    np.testing.assert_allclose(found["std_test_score"], np.std(scores, axis=1))
    assert path.best_params_ == {"lam": LAMS[path.best_index_]} == found["params"][path.best_index_]
    assert path.best_score_ == found["mean_test_score"].max()
    assert found["rank_test_score"][path.best_index_] == 1
    assert sorted(found["rank_test_score"]) == [1, 2, 3]
    assert_same_weights(path, make_reference(path.best_params_["lam"], 60).fit(X, Y))


def test_an_example_of_weight_two_counts_as_two(path):
    weights = np.where(REPEATED, 0, 1 + np.roll(REPEATED, -15))
    x, y = np.where(REPEATED[:, None], 1e6, X), np.where(REPEATED, "setosa", Y)
    weighted = clone(PATH).fit(x, y, sample_weight=list(weights))
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        np.testing.assert_allclose(weighted.cv_results_[name], path.cv_results_[name])
    np.testing.assert_allclose(weighted.decision_function(X), path.decision_function(X), rtol=1e-5)


def test_classes_that_weigh_alike(path):
    balanced = clone(PATH).set_params(class_weight="balanced").fit(X, Y, sample_weight=np.ones(60))
    lam = balanced.best_params_["lam"]
    assert_same_weights(balanced, make_reference(lam, 60, "balanced").fit(X, Y))
    assert abs(balanced.coef_ - path.coef_).max() > 1e-4


def test_two_classes_have_one_row_of_weights():
    is_versicolor = SPECIES == 1
    two = clone(PATH).set_params(lams=[0.01]).fit(X, is_versicolor, sample_weight=np.ones(60))
    reference = make_reference(0.01 / 2, 60).fit(X, is_versicolor)
    assert (two.coef_.shape, two.intercept_.shape) == ((1, 4), (1,))
    assert_same_weights(two, reference)
    np.testing.assert_allclose(two.decision_function(X), (X @ two.coef_.T + two.intercept_)[:, 0])
    np.testing.assert_allclose(two.decision_function(X), reference.decision_function(X), atol=1e-4)


def test_a_sweep_in_a_pipeline_and_a_pickle(sweep):
    assert list(sweep.feature_names_in_) == ["a", "b", "c", "d"]
    assert list(sweep.classes_) == ["setosa", "versicolor", "virginica"]
    assert sweep.best_params_ == {"eta": 0.3, "batch": 5.0, "lam": 0.001}
    assert sweep.score(pd.DataFrame(X, columns=["a", "b", "c", "d"]), Y) > 0.8
    pipeline = clone(make_pipeline(StandardScaler(), SWEEP)).fit(X, Y)
    copy = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(copy.predict_proba(X), pipeline.predict_proba(X))


def test_scores_and_intervals_are_those_of_the_result(sweep):
    (result,), found = sweep.results_, sweep.cv_results_
    assert result.identity.size == (6, 2)
    assert sweep.best_index_ == result.ranking()[0]
    np.testing.assert_allclose(found["mean_test_score"], result.final["val_acc"].mean(axis=0), rtol=1e-6)
    intervals = [result.interval("val", c) for c in range(2)]
    np.testing.assert_allclose(found["low"], [interval.low for interval in intervals])
    np.testing.assert_allclose(found["high"], [interval.high for interval in intervals])
    np.testing.assert_array_equal(found["may_be_best"], result.selection().may_be_best)


def test_folds_of_unequal_size_count_every_example(sweep):
    splits = [(train, held[:size]) for train, held in PredefinedSplit(FOLDS).split() for size in (10, 20)]
    unequal = clone(SWEEP).set_params(cv=splits).fit(X, Y)
    assert [result.sizes["val"] for result in unequal.results_] == [10, 20]
    for fold, (train, held) in enumerate(splits):
        result, (mean, std) = unequal.results_[fold % 2], lc.fit_standardizer(X[train])
        scaled = (X[held] - mean) / std
        params = [result.params_at(s, 1) for s in (fold // 2, 3 + fold // 2)]  # of both seeds
        predicted = [(scaled @ W.T + b).argmax(axis=1) for W, b in params]
        right = np.mean(predicted == SPECIES[held])
        np.testing.assert_allclose(unequal.cv_results_[f"split{fold}_test_score"][1], right)
    halves = [unequal.cv_results_[f"split{fold}_test_score"] for fold in (1, 3, 5)]
    np.testing.assert_allclose(np.mean(halves, axis=0), sweep.cv_results_["mean_test_score"])


def test_an_example_that_is_held_out_twice_counts_once_in_intervals(sweep):
    (result,), found = sweep.results_, sweep.cv_results_
    held = {fold: np.flatnonzero(fold % 3 == FOLDS) for fold in range(6)}
    twice = linear_cifar.sklearn._measure([result, result], held, None, None)
    for name in ("mean_test_score", "std_test_score", "low", "high", "may_be_best"):
        np.testing.assert_allclose(twice[name], found[name], atol=0.01)
    grouped = linear_cifar.sklearn._measure([result, result], held, None, np.repeat(["a", "b", "c"], 20))
    assert (grouped["low"] < found["low"] - 0.05).all()


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (np.zeros(60), {}, "y has one class, 0.0"),
        (X[:, 0], {}, "Unknown label type"),
        (Y, {"sample_weight": np.ones(59)}, r"weights is float64\(59,\): give \[n\]"),
        (Y, {"sample_weight": -np.ones(60)}, "row 0 of weights is -1.0"),
        (Y, {"sample_weight": (FOLDS == 0)}, "the weights of fold 0 are all zero"),
    ],
)
def test_mistakes_are_named(labels, arguments, message):
    with pytest.raises(ValueError, match=message):
        clone(PATH).fit(X, labels, **arguments)


def test_what_has_not_converged_and_what_diverges_is_said():
    with pytest.warns(ConvergenceWarning, match=r"no minimum in \d of \d runs, of lam \[0.001"):
        clone(PATH).set_params(options={"max_evaluations": 10}).fit(X, Y, np.ones(60))
    with pytest.raises(ValueError, match="diverged: give a smaller eta"):
        clone(SWEEP).set_params(etas=(1e30, 1e35)).fit(X, Y)


@pytest.mark.parametrize("estimator", [LogisticPathCV(), SweepClassifierCV()])
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_that_need_no_compiling(estimator):
    checks = [check for _, check in estimator_checks_generator(estimator) if check.func.__name__ in QUICK]
    assert len(checks) == len(QUICK)
    for check in checks:
        check(clone(estimator))
