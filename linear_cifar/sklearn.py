"""Classifiers with scikit-learn's interface, which nothing else imports: they choose by cross-validation."""

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import check_cv
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"scikit-learn is missing ({error}): pip install 'linear_cifar[sklearn]'") from None

from linear_cifar.config import grid
from linear_cifar.examples import make_examples
from linear_cifar.fitting import fit, solve
from linear_cifar.losses import Loss, get_loss
from linear_cifar.replicates import Replicate
from linear_cifar.result import Result
from linear_cifar.standardizer import Standardizer, fit_standardizer, fold_standardizer
from linear_cifar.uncertainty import DIVERGED, confidence_set, estimate_accuracy, linearize_ratio, rank

# Values of λ, half a power of ten apart.
LAMS = tuple(10 ** (k / 2) for k in range(-12, 1))


class _LinearClassifierCV(ClassifierMixin, BaseEstimator):
    """A base of both estimators."""

    # The axes of configurations, and the arguments that have their values.
    axes: ClassVar[dict[str, str]] = {"lam": "lams"}
    seeds: Sequence[int] = (0,)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Any:
        """Train every configuration on every fold, choose the best, and train it on all examples.

        `sample_weight` are numbers from 0 [n]: an example of weight 2 counts as two, in scores too. `groups`
        has the group of each example, such as its patient, for `cv` and for the intervals.

        Raises:
          ValueError: if an argument is wrong, or every configuration diverged.
        """
        X, y = validate_data(self, X, y, dtype="numeric", ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        K, whole = len(self.classes_), slice(None)
        if K < 2:
            raise ValueError(f"y has one class, {self.classes_[0]}: give examples of two classes or more")
        examples = make_examples(X, labels, K, sample_weight)
        weights: Any = None if sample_weight is None else np.asarray(examples.weights, np.float64)
        by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weights)

        def weigh(rows: Any) -> Any:
            if weights is None and (by_class == 1).all():
                return examples
            relative = 1 if weights is None else weights / weights[rows].mean()
            return make_examples(examples.features, labels, K, by_class[labels] * relative)

        def scale(rows: Any) -> Any:
            shares = None if weights is None else weights[rows]
            return fit_standardizer(X[rows], shares) if self.standardize else None

        splits, calls = list(check_cv(self.cv, y, classifier=True).split(X, y, groups)), defaultdict(list)
        for fold, split in enumerate(splits):
            # Folds train in one call if they have equally many rows and the same weights.
            calls[tuple(map(len, split)) if weights is None else fold].append(fold)
            if weights is not None and not all(weights[rows].any() for rows in split):
                raise ValueError(f"the weights of fold {fold} are all zero: give another cv")
        configs = grid(**{axis: getattr(self, name) for axis, name in self.axes.items()})
        options = {"loss": self.loss, "dtype": self.dtype, "per_epoch": (), **(self.options or {})}
        if "folder" in options:
            raise ValueError("options has 'folder': folds and final weights cannot share one; leave it out")
        self.results_ = []
        for folds in calls.values():
            train = weigh(splits[folds[0]][0])
            data = [(f, splits[f][0], scale(splits[f][0]), {"val": splits[f][1]}) for f in folds]
            replicates = [Replicate(seed, *fold) for seed in self.seeds for fold in data]
            self.results_.append(self._train(configs, train, {"val": train}, replicates, options))
        held_out = {fold: splits[fold][1] for folds in calls.values() for fold in folds}
        measured = _measure(self.results_, held_out, weights, groups)
        params = [{axis: config[axis] for axis in self.axes} for config in configs]
        columns = {f"param_{axis}": np.array([values[axis] for values in params]) for axis in self.axes}
        self.cv_results_ = {"params": params, **columns, **measured}
        self.best_index_ = int(measured["rank_test_score"].argmin())
        self.best_score_ = float(measured["mean_test_score"][self.best_index_])
        self.best_params_ = params[self.best_index_]
        options["standardizer"] = standardizer = scale(whole)
        best = self._train([configs[self.best_index_]], weigh(whole), {}, list(self.seeds)[:1], options)
        if np.isnan(self.best_score_) or best.diverged.any():
            raise ValueError(f"the best configuration, {self.best_params_}, diverged: give a smaller eta")
        units = standardizer or Standardizer(np.zeros(X.shape[1]), np.ones(X.shape[1]))
        self.params_ = fold_standardizer(best.params_at(0, 0), units)
        self.coef_, self.intercept_ = (np.diff(leaf, axis=0) if K == 2 else leaf for leaf in self.params_)
        self.n_iter_ = int(best.final.get("evaluations", best.epochs)[0, 0])
        return self

    def _compute_logits(self, X: Any) -> Float[np.ndarray, "n K"]:
        check_is_fitted(self)
        return validate_data(self, X, dtype="numeric", reset=False) @ self.params_.W.T + self.params_.b

    def decision_function(self, X: Any) -> Float[np.ndarray, "n *K"]:
        """Return the logits [n, K]; of two classes the second one's minus the first one's [n]."""
        logits = self._compute_logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> Any:
        """Return the class with the highest logit [n]."""
        highest = self._compute_logits(X).argmax(axis=1)
        return self.classes_[highest]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n K"]:
        """Return the probabilities of the loss [n, K], divided by their sum."""
        with jax.enable_x64(True):
            p = np.asarray(get_loss(self.loss).probabilities(jnp.asarray(self._compute_logits(X))))
        return p / p.sum(axis=1, keepdims=True)


class LogisticPathCV(_LinearClassifierCV):
    """Logistic regression with the best of many λ, in the place of LogisticRegressionCV.

    One call of `solve` finds the minima of all λ on all folds of equal size. λ is LogisticRegression's
    1 / (2 n C), and 1 / (n C) for two classes, because each has weights here. Given `sample_weight`, n is its
    sum. `standardize` brings the features of each fold to mean 0 and standard deviation 1 over its training
    examples. `coef_` and `intercept_` are for raw features all the same. `options` has further arguments of
    `solve`.

    Attributes:
      cv_results_: as GridSearchCV's, with accuracies as scores, and `low` and `high`, the 95 % interval of
        the accuracy on all held-out examples; `may_be_best` is the set that contains the best with 95 %
        confidence. Of equal scores the one with the lowest validation loss ranks first; given
        `sample_weight`, the one that `lams` has first.
      results_: results of the folds, one for each of their sizes; given `sample_weight`, one for each fold.
      params_: W [K, d] and b [K] for raw features.
      n_iter_: evaluations of the objective, or epochs, for the final weights.
    """

    def __init__(
        self, lams: Sequence[float] = LAMS, *, cv: Any = 5, loss: str | Loss = "softmax",
        standardize: bool = True, class_weight: Any = None, tolerance: float | None = None,
        dtype: str = "float32", options: Any = None,
    ) -> None:  # fmt: skip
        self.lams, self.cv, self.loss, self.standardize = lams, cv, loss, standardize
        self.class_weight, self.tolerance, self.dtype, self.options = class_weight, tolerance, dtype, options

    def _train(self, configs: Any, train: Any, sets: Any, replicates: Any, options: Any) -> Result:
        result = solve(
            configs, train, sets, replicates=replicates, **{"tolerance": self.tolerance, **options}
        )
        # More evaluations do not help a run that is at the limit of its digits.
        missing = result.final["converged"] + result.final["stalled"] == 0
        if missing.any():
            lams = sorted({configs[c].lam for c in np.nonzero(missing)[1].tolist()})
            words = (
                f"no minimum in {missing.sum()} of {missing.size} runs, of lam {lams}: leave out lam 0 where"
            )
            words += " classes are separable, or give options={'max_evaluations': 10_000}"
            warnings.warn(words, ConvergenceWarning, stacklevel=3)
        return result


class SweepClassifierCV(_LinearClassifierCV):
    """The best of a grid of gradient descents, in the place of GridSearchCV over SGDClassifier.

    One call of `linear_cifar.fit` trains all combinations of `etas`, `batches` and `lams` from all `seeds` on
    all folds of equal size. The final weights are trained from the first seed. Other arguments and attributes
    are as for `LogisticPathCV`; `options` has further arguments of `fit`, such as {"schedule": "cosine"}.
    """

    axes: ClassVar = {"eta": "etas", "batch": "batches", "lam": "lams"}

    def __init__(
        self, etas: Sequence[float] = (0.001, 0.01, 0.1), batches: Sequence[int] = (8,),
        lams: Sequence[float] = (0.0, 0.001, 0.01, 0.1), *, epochs: int = 20, seeds: Sequence[int] = (0,),
        cv: Any = 5, loss: str | Loss = "softmax", standardize: bool = True, class_weight: Any = None,
        dtype: str = "float32", options: Any = None,
    ) -> None:  # fmt: skip
        self.etas, self.batches, self.lams, self.epochs, self.seeds = etas, batches, lams, epochs, seeds
        self.cv, self.loss, self.standardize = cv, loss, standardize
        self.class_weight, self.dtype, self.options = class_weight, dtype, options

    def _train(self, configs: Any, train: Any, sets: Any, replicates: Any, options: Any) -> Result:
        return fit(configs, train, sets, epochs=self.epochs, seeds=replicates, **options)


def _measure(results: Any, held_out: Mapping[int, Any], weights: Any, groups: Any) -> dict[str, Any]:
    """Return the scores in `cv_results_`, from the rows that each fold holds out, in the order of results."""
    C, rows = len(results[0].configs), np.concatenate([*held_out.values()])
    marks = [np.stack([part.values("val", c) for c in range(C)], axis=1) for part in results]
    correct, finite = np.concatenate(marks, axis=2), np.all([part.stayed_finite for part in results], axis=0)
    shares = np.ones(len(rows)) if weights is None else weights[rows] / weights[rows].max()
    values = ratios = correct * shares  # [S, C, N]
    scores, losses, start = np.empty((len(held_out), C)), np.zeros((len(held_out), C)), 0
    for fold, held in held_out.items():
        part, start = slice(start, start + len(held)), start + len(held)
        scores[fold] = np.average(correct[:, :, part], axis=2, weights=shares[part]).mean(axis=0)
    if weights is None:
        by_run = [part.final["val_loss"][part.order_replicates()] for part in results]
        by_fold = [loss.reshape(len(correct), -1, C).mean(axis=0) for loss in by_run]
        losses[[*held_out]] = np.concatenate(by_fold)
    else:
        all_shares = np.broadcast_to(shares, correct.shape[1:])
        ratios = np.stack([linearize_ratio(of_seed, all_shares) for of_seed in values])
    scores[:, ~finite] = np.nan
    ranks = 1 + np.argsort(rank(losses, scores)).astype(np.int32)
    # An example that several folds hold out is one example.
    units = rows if groups is None else np.asarray(groups)[rows]
    units = None if len(np.unique(units)) == len(units) else units
    intervals = [estimate_accuracy(ratios[:, c], units) if finite[c] else DIVERGED for c in range(C)]
    low, high = np.clip(np.array(intervals)[:, 1:3].T, 0, 1)
    diverged = np.broadcast_to(~finite, correct.shape[:2])
    return {
        "mean_test_score": scores.mean(axis=0),
        "std_test_score": scores.std(axis=0),
        **{f"split{fold}_test_score": score for fold, score in enumerate(scores)},
        "rank_test_score": ranks,
        "low": low,
        "high": high,
        "may_be_best": confidence_set(values, diverged, groups=units) if finite.any() else finite,
    }
