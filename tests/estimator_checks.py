"""Run scikit-learn's own checks on the estimators of `linear_cifar.sklearn`.

    python tests/estimator_checks.py

takes about a minute on 2 cores, most of it to compile programs for the shapes of the checks' data.
"""

import os
import sys
import time
import warnings

import jax
import xla_flags
from sklearn.utils.estimator_checks import check_estimator

from linear_cifar.sklearn import LogisticPathCV, SweepClassifierCV

# A check compares two minima to 7 digits, which takes float64 and a λ that is not tiny.
PATH = LogisticPathCV((0.01, 0.1), dtype="float64")
SWEEP = SweepClassifierCV()
# A step on an example of weight 2 is not a step on each of two examples; scikit-learn's list for its own
# SGDClassifier has the same entry.
NO_EQUIVALENCE = {"check_sample_weight_equivalence_on_dense_data": "weighted steps are not repeated steps"}


def report(*, check_name, exception, status, **_):
    """Print the outcome of a check."""
    print(f"  {check_name}: {status} {exception or ''}", flush=True)


def check(estimator, expected):
    """Run all checks and return True if none fails but those that are expected to."""
    print(estimator, flush=True)
    start = time.perf_counter()
    outcomes = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail=None, callback=report
    )
    print(f"  {time.perf_counter() - start:.0f} s")
    return {outcome["check_name"] for outcome in outcomes if outcome["status"] in {"failed", "xfail"}} == {
        *expected
    }


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags.FLAGS}"
    jax.config.update("jax_num_cpu_devices", 1)
    warnings.simplefilter("ignore")
    sys.exit(not all([check(PATH, {}), check(SWEEP, NO_EQUIVALENCE)]))
