"""The minimum of the objective for many λ: `lc.solve` beside programs that reach the same objective.

A problem is a λ, standardised features and labels. A program solves problems with a tolerance. It returns
their W [P, K, d] and b [P, K], and the number of evaluations of all together.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import linear_cifar as lc
from experiments.benchmark.baselines import BenchData, K, jax_device, make_plain_product, torch_device
from experiments.benchmark.measurements import OUR_SWEEP, PLAIN_PRODUCT, Row
from experiments.benchmark.timing import time_call

MANY_LAMS = tuple(np.logspace(-6, 0, 16).tolist())
# Largest relative difference from the minimum, and the tolerances to reach it with.
GAP, TOLERANCES = 1e-6, (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Steps after which other programs give a problem up; seconds above which a program is called only once.
MOST_STEPS, LONGEST_S = 300, 40
Problems = list[tuple[float, np.ndarray, np.ndarray]]


def make_gaussian_classes(n: int, d: int, distance: float, correlated: bool = False) -> BenchData:
    """Make normal examples of classes with normal means; correlated features have the spectrum 1/√k."""
    rng = np.random.default_rng(0)
    labels = rng.integers(K, size=n)
    x = rng.standard_normal((n, d)) + distance * rng.standard_normal((K, d))[labels]
    if correlated:
        x = x * np.arange(1, d + 1) ** -0.25 @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    train = lc.make_examples(x.astype(np.float32), labels, K)
    return BenchData(train, train, None)


def solve_all(data: BenchData, lams: Any, replicates: Any, dtype: Any, tolerance: float) -> Any:
    """Solve all problems with `lc.solve`."""
    options: Any = {"standardizer": data.standardizer, "dtype": dtype, "tolerance": tolerance}
    result = lc.solve(lams, data.train, replicates=replicates, **options)
    return *result.weights.params, int(result.final["evaluations"].sum())


def solve_with_sklearn(solver: str, problems: Problems, tolerance: float) -> Any:
    """Solve one problem after another with scikit-learn, which counts iterations."""
    from sklearn.linear_model import LogisticRegression

    options: Any = {"solver": solver, "tol": tolerance, "max_iter": MOST_STEPS}
    fits = [LogisticRegression(C=0.5 / len(x) / lam, **options).fit(x, y) for lam, x, y in problems]
    W, b = np.stack([fit.coef_ for fit in fits]), np.stack([fit.intercept_ for fit in fits])
    return W, b, sum(int(fit.n_iter_[0]) for fit in fits)


def solve_with_torch(problems: Problems, tolerance: float) -> Any:
    """Solve one problem after another with PyTorch's L-BFGS."""
    import torch

    def solve(lam: float, features: np.ndarray, labels: np.ndarray) -> Any:
        x, y = (torch.tensor(leaf, device=torch_device()) for leaf in (features, labels.astype(np.int64)))
        params = torch.zeros(K, x.shape[1] + 1, device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([params], **options)

        def evaluate() -> Any:
            optimizer.zero_grad()
            W, b = params[:, :-1], params[:, -1]
            loss = torch.nn.functional.cross_entropy(x @ W.T + b, y) + lam * (W**2).sum()
            loss.backward()
            return loss

        optimizer.step(evaluate)
        return params.detach().cpu().numpy(), optimizer.state[params]["func_evals"]

    options: Any = {"max_iter": MOST_STEPS, "tolerance_grad": tolerance, "line_search_fn": "strong_wolfe"}
    params, evaluations = zip(*(solve(*problem) for problem in problems), strict=True)
    return np.stack(params)[..., :-1], np.stack(params)[..., -1], sum(evaluations)


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None, None))
def minimize_with_optax(lam: Any, x: Any, targets: Any, tolerance: Any) -> Any:
    """Return W, b and the number of evaluations of `optax.lbfgs`."""

    def step(carry: Any) -> Any:
        params, state, value, grad, steps = carry
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=objective)
        # The line search ends with these. Under vmap `value_and_grad_from_state` would compute them again.
        value, grad, more = (optax.tree.get(state, key) for key in ("value", "grad", "num_linesearch_steps"))
        return optax.apply_updates(params, updates), state, value, grad, steps + more

    def goes_on(carry: Any) -> Any:
        largest = jnp.maximum(*(jnp.abs(leaf).max() for leaf in carry[3]))
        return (largest > tolerance) & (carry[4] < MOST_STEPS)

    objective, solver = partial(lc.objective, x=x, y=targets, lam=lam), optax.lbfgs()
    params = lc.Params(jnp.zeros((K, x.shape[1]), x.dtype), jnp.zeros(K, x.dtype))
    start = (params, solver.init(params), *jax.value_and_grad(objective)(params), jnp.int32(1))
    params, *_, steps = jax.lax.while_loop(goes_on, step, start)
    return *params, steps


def solve_with_optax(problems: Problems, tolerance: float) -> Any:
    """Solve problems that differ in λ at once."""
    _, x, labels = problems[0]
    lams = np.array([lam for lam, *_ in problems], x.dtype)
    W, b, steps = map(np.asarray, minimize_with_optax(lams, x, np.eye(K, dtype=x.dtype)[labels], tolerance))
    return W, b, int(steps.sum())


def compute_objectives(problems: Problems, W: np.ndarray, b: np.ndarray, _: int) -> np.ndarray:
    """Compute the objective of each problem in float64."""
    with jax.enable_x64(True):
        params = map(lc.Params, W.astype(np.float64), b.astype(np.float64))
        solved = zip(params, problems, strict=True)
        return np.array(
            [lc.objective(W_b, x.astype(float), np.eye(K)[y], lam=lam) for W_b, (lam, x, y) in solved]
        )


def try_tolerances(program: Any, problems: Problems, minima: np.ndarray) -> dict[str, Any]:
    """Return what the loosest tolerance takes that reaches the minima, or else the best one."""
    rows = []
    for tolerance in TOLERANCES:
        start = time.perf_counter()
        solution = program(tolerance)
        seconds = time.perf_counter() - start
        gap = float(np.max(compute_objectives(problems, *solution) / minima - 1))
        rows.append({"first_s": seconds, "tolerance": tolerance, "gap": gap, "evaluations": solution[2]})
        if gap <= GAP or seconds > LONGEST_S:
            break
    return min(rows, key=lambda row: row["gap"])


def measure_path(
    make_data: Callable[[], BenchData], lams: Sequence[float], folds: int, repeats: int
) -> list[Row]:
    """Time the programs on all λ, in folds if there are any; few λ only beside scikit-learn's L-BFGS.

    Each has the loosest tolerance that brings its problems within `GAP` of the minimum, which `lc.solve`
    finds in float64; `gap` is what is left. `s` and `evaluations`, of which scikit-learn counts iterations,
    are of all problems, and calculated where fewer are `timed`. `of_peak` is the rate of 4 n d K operations
    per evaluation, relative to the plain product.
    """
    jax.clear_caches()  # `first_s` includes compiling
    data, replicates = make_data(), [lc.Replicate(0)]
    if folds:
        n = len(data.labels)
        parts = np.random.default_rng(1).permutation(n)[: n - n % folds].reshape(folds, -1)
        replicates = [lc.Replicate(0, f, np.delete(parts, f, axis=0).ravel()) for f in range(folds)]
    rows: list[Any] = [slice(None) if replicate.rows is None else replicate.rows for replicate in replicates]
    problems = [(lam, *pair) for pair in [(data.x[part], data.labels[part]) for part in rows] for lam in lams]
    minima = compute_objectives(problems, *solve_all(data, lams, replicates, "float64", 1e-9))
    whole, fold, middle = slice(None), slice(len(lams)), slice(len(lams) // 2, len(lams) // 2 + 1)
    many, newton = len(lams) == len(MANY_LAMS), partial(solve_with_sklearn, "newton-cholesky")
    known: list[tuple[str, str, bool, Any, slice]] = [
        ("optax.lbfgs under vmap", "optax", many, solve_with_optax, fold),
        ("PyTorch, LBFGS", "torch", many, solve_with_torch, fold),
        ("scikit-learn, lbfgs", "sklearn", True, partial(solve_with_sklearn, "lbfgs"), whole),
        ("scikit-learn, newton-cholesky", "sklearn", many, newton, middle),
    ]
    programs = {OUR_SWEEP: (partial(solve_all, data, lams, replicates, "float32"), whole)} | {
        name: (partial(solve, problems[part]), part)
        for name, package, wanted, solve, part in known
        if wanted and find_spec(package)
    }
    found = {
        name: try_tolerances(run, problems[part], minima[part]) for name, (run, part) in programs.items()
    }
    product = make_plain_product(data, len(lams))
    calls: dict[str, Any] = {PLAIN_PRODUCT: product.train_epoch} | {
        name: partial(run, found[name]["tolerance"])
        for name, (run, _) in programs.items()
        if found[name]["first_s"] <= LONGEST_S
    }
    rounds = [{name: time_call(call) for name, call in calls.items()} for _ in range(repeats)]
    timed = {name: median(times[name] for times in rounds) for name in calls}
    peak = 2 * data.x.size * K * len(lams) * product.share / timed[PLAIN_PRODUCT]
    table: list[Row] = []
    for name, (_, part) in programs.items():
        row, count, foreign = found[name], len(minima[part]), name.startswith("scikit-learn")
        seconds = timed.get(name, row["first_s"]) * len(minima) / count
        evaluations = round(row["evaluations"] * len(minima) / count)
        of_peak = 4 * problems[0][1].size * K * evaluations / seconds / peak
        table.append({
            "program": name, "problems": len(minima), "timed": count, "s": seconds,
            "times_ours": seconds / (table[0]["s"] if table else seconds), **row, "evaluations": evaluations,
            "of_peak": None if foreign else of_peak, "device": "cpu" if foreign else jax_device(),
        })  # fmt: skip
    return table
