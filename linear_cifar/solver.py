r"""The minimum of the objective, for many runs at once: L-BFGS, scaled by the features' covariance.

All runs of a replicate pass over the examples together, so that their products are one wide product. Runs
that have ended leave it, a tile of columns at a time.

With C the covariance of the features and h the mean second derivatives of the loss by each logit, the
Hessian of a run is about $\alpha\, C \otimes \mathrm{diag}(h) + 2 \lambda I$. L-BFGS starts its quasi-Newton
matrix from the inverse of that, by the eigenvectors of C, and α follows from the last step. On the pixels of
CIFAR-10 a run then takes about 25 evaluations, where scaling by a number needs more than 300. All runs start
from zero, because a start from a neighbour's solution would make them wait for one another.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from linear_cifar.arguments import check_choice, describe
from linear_cifar.batches import Index, fold_batches, take_rows
from linear_cifar.checks import find_unused
from linear_cifar.config import Config, Hyperparams, check_values
from linear_cifar.examples import Examples, expand_targets
from linear_cifar.identity import METHOD
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, REPLICATED, Layout
from linear_cifar.losses import LOSSES, Loss, get_loss
from linear_cifar.methods import Outcome, Placed, RunState, compute_norm
from linear_cifar.model import FULL_PRECISION, PRECISIONS, compute_logits, multiply, softmax_probabilities
from linear_cifar.params import Params
from linear_cifar.replicates import Replicate, ReplicateData, stack_rows, stack_standardizers
from linear_cifar.snapshots import Snapshot
from linear_cifar.standardizer import Standardizer, standardize

Carry = TypeVar("Carry")

# The status of a run:
# - it goes on;
# - it is at the minimum;
# - it has none, because λ is 0 and its examples are separable;
# - it cannot be brought nearer to the minimum in this arithmetic.
RUNNING, CONVERGED, SEPARABLE, STALLED = range(4)
# Steps that a run remembers; 5 and 20 take about as many evaluations.
REMEMBERED = 10
# Evaluations after which a run has stalled, if neither its objective falls by a digit nor its gradient's norm
# falls below this share of the lowest.
MOST_IDLE, SMALLER = 30, 0.9
# A step is accepted if the objective falls by this share of its slope (Nocedal and Wright 2006, section 3.1).
DECREASE = 1e-4
# A run has converged, too, where the objective is expected to fall by this share of its last digit. Rounding
# may keep the gradient above the tolerance there, as in float32 where λ is small.
NEGLIGIBLE = 0.01
# With more features their covariance and its eigenvectors take too long; their variances scale alone.
LARGEST_COVARIANCE = 4_096
# Examples whose logits are computed at a time, and columns of a product from which on it is wide.
CHUNK, CPU_COLUMNS, ACCELERATOR_COLUMNS = 2_000, 50, 512
# By the type of the arithmetic; see `solve`.
TOLERANCES = {"float32": 1e-6, "float64": 1e-10}
# Evaluations from one look at the runs to the next.
ROUND = 10


class SolverSpec(NamedTuple):
    """The fixed settings of the solver, which are part of the compiled program."""

    loss: Loss
    precision: str = FULL_PRECISION
    tolerance: float = TOLERANCES["float32"]
    unpenalised: bool = False  # whether some λ is 0, so that separable examples are looked for


class Scale(NamedTuple):
    """Mean and covariance of a replicate's features, as they are after standardising."""

    mean: Float[Array, "*S d"]
    variances: Float[Array, "*S d"]  # along the eigenvectors, or along the features
    vectors: Float[Array, "*S d d"] | None  # eigenvectors, in columns


class SolverState(NamedTuple):
    """State of a run between two evaluations.

    Positions, gradients and steps are [K, D] with D = d + 1: W, and the bias of centred features, b + W·mean.
    The covariance then has no entries between W and bias, and the objective is the same.
    """

    position: Float[Array, "*runs K D"]
    gradient: Float[Array, "*runs K D"]
    direction: Float[Array, "*runs K D"]
    steps: Float[Array, "*runs M K D"]  # the last steps, and the changes of the gradient along them
    changes: Float[Array, "*runs M K D"]
    inverses: Float[Array, "*runs M"]  # of step · change; 0: there is no step in this place
    length: Float[Array, "*runs"]  # of the step to try next, in units of the direction
    slope: Float[Array, "*runs"]  # of the objective along the direction
    curvature: Float[Array, "*runs"]  # α
    objective: Float[Array, "*runs"]
    gradient_norm: Float[Array, "*runs"]
    first_objective: Float[Array, "*runs"]
    first_norm: Float[Array, "*runs"]
    evaluations: Int[Array, "*runs"]
    lowest_norm: Float[Array, "*runs"]  # of the gradient so far, as of the last progress
    idle: Int[Array, "*runs"]  # evaluations without progress
    status: Int[Array, "*runs"]


def start_state(runs: tuple[int, ...], K: int, d: int, dtype: Any) -> SolverState:
    """Return the state of runs that start from W = 0 and b = 0, as NumPy arrays."""
    zeros = partial(np.zeros, dtype=dtype)
    matrix, memory = (*runs, K, d + 1), (*runs, REMEMBERED, K, d + 1)
    numbers, counts = zeros(runs), np.zeros(runs, np.int32)
    infinite = np.full(runs, np.inf, dtype)
    arrays: tuple[Any, ...] = (
        *(zeros(matrix), zeros(matrix), zeros(matrix), zeros(memory), zeros(memory)),
        *(zeros((*runs, REMEMBERED)), numbers, numbers, np.ones(runs, dtype)),
        *(infinite, infinite, numbers, numbers, counts, infinite, counts, counts),
    )
    return SolverState(*arrays)


class _Data(NamedTuple):
    """The training examples of a replicate, a chunk at a time."""

    examples: Examples
    standardizer: Standardizer | None
    rows: Any  # [n]; None: all
    dtype: Any

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.examples.features if self.rows is None else self.rows)

    def take(self, start: Index, size: int) -> tuple[Array, Array, Array]:
        """Return the next examples: standardised features, targets and weights."""
        leaves = (self.examples.features, self.examples.compact, self.examples.weights)
        if self.rows is None:
            features, compact, weights = jax.tree.map(lambda leaf: take_rows(leaf, start, size), leaves)
        else:
            chosen = take_rows(self.rows, start, size)
            features, compact, weights = jax.tree.map(lambda leaf: leaf[chosen], leaves)
        x = standardize(self.standardizer, features, self.dtype)
        y = expand_targets(compact, self.examples.K, self.dtype)
        return x, y, jnp.ones(size, self.dtype) if weights is None else weights.astype(self.dtype)

    def fold(self, step: Callable[[Carry, Index, int], Carry], carry: Carry) -> Carry:
        """Fold a step over the chunks."""
        return fold_batches(step, carry, self.n, min(CHUNK, self.n))


def _select(
    examples: Examples, standardizer: Standardizer | None, replicate: ReplicateData, dtype: Any
) -> _Data:
    """Return the training examples of a replicate."""
    scale = standardizer if replicate.standardizer is None else replicate.standardizer
    return _Data(examples, scale, replicate.rows, dtype)


@partial(jax.jit, static_argnames=("precision", "dtype"))
def fit_scale(
    train: Examples,
    standardizer: Standardizer | None,
    replicates: ReplicateData,
    precision: str,
    dtype: Any,
) -> Scale:
    """Compute the mean and the covariance of each replicate's training features, [S, ...] in `dtype`.

    The other arguments are those of `solve_round`, on one device.
    """

    def fit_replicate(replicate: ReplicateData) -> Scale:
        data, d = _select(train, standardizer, replicate, dtype), train.features.shape[1]

        def add_mean(sums: tuple[Array, Array], start: Index, size: int) -> tuple[Array, Array]:
            x, _, weights = data.take(start, size)
            return sums[0] + weights @ x, sums[1] + weights.sum()

        def add_squares(total: Array, start: Index, size: int) -> Array:
            x, _, weights = data.take(start, size)
            x = (x - mean[None, :]) * jnp.sqrt(weights)[:, None]
            return total + (jnp.sum(x**2, axis=0) if total.ndim == 1 else multiply(x.T, x, precision))

        total, weight = data.fold(add_mean, (jnp.zeros(d, dtype), jnp.zeros((), dtype)))
        weight = jnp.where(weight > 0, weight, 1)
        mean = total / weight
        shape = (d,) if d > LARGEST_COVARIANCE else (d, d)
        squares = data.fold(add_squares, jnp.zeros(shape, dtype)) / weight
        if squares.ndim == 1:
            return Scale(mean, squares, None)
        variances, vectors = jnp.linalg.eigh(squares)
        return Scale(mean, jnp.maximum(variances, 0), vectors)

    return jax.lax.map(fit_replicate, replicates)


@partial(jax.jit, static_argnames=("layout", "spec"))
def solve_round(
    state: SolverState,
    hyperparams: Hyperparams,
    solved: Bool[Array, " C"],
    train: Examples,
    standardizer: Standardizer | None,
    replicates: ReplicateData,
    scale: Scale,
    layout: Layout,
    spec: SolverSpec,
) -> SolverState:
    """Advance all runs by up to `ROUND` evaluations, in one program.

    Args:
      state: state of the runs in the layout's S × C slots.
      hyperparams: arrays [C], in the order of the slots.
      solved: False for slots that only repeat a configuration.
      train: n training examples, whose features the weights' type can hold, see `prepare_features`.
      standardizer: mean and std [d] of the training features, see `train_epoch`.
      replicates: rows and standardisers [S].
      scale: as `fit_scale` returns it.
      layout: which device solves which runs.
      spec: settings that all runs share.
    """
    columns = CPU_COLUMNS if layout.loops.vmap_width else ACCELERATOR_COLUMNS

    def solve_on_device(
        state: SolverState,
        hyperparams: Hyperparams,
        solved: Bool[Array, " c"],
        train: Examples,
        standardizer: Standardizer | None,
        replicates: ReplicateData,
        scale: Scale,
    ) -> SolverState:
        def solve_replicate(args: tuple[SolverState, ReplicateData, Scale]) -> SolverState:
            state, replicate, scale = args
            data = _select(train, standardizer, replicate, state.position.dtype)
            return _solve_replicate(state, hyperparams, solved, data, scale, columns, spec)

        # One replicate after another, since they share nothing.
        return jax.lax.map(solve_replicate, (state, replicates, scale))

    solve_on_mesh = jax.shard_map(
        solve_on_device,
        mesh=layout.mesh,
        in_specs=(BY_RUN, BY_CONFIG, BY_CONFIG, REPLICATED, REPLICATED, BY_REPLICATE, BY_REPLICATE),
        out_specs=BY_RUN,
        check_vma=False,  # see `train_epoch`
    )
    return solve_on_mesh(state, hyperparams, solved, train, standardizer, replicates, scale)


def _solve_replicate(
    state: SolverState,
    hyperparams: Hyperparams,
    solved: Bool[Array, " c"],
    data: _Data,
    scale: Scale,
    columns: int,
    spec: SolverSpec,
) -> SolverState:
    """Advance the runs [c] of a replicate."""

    def runs_on(state: SolverState) -> Bool[Array, " c"]:
        return solved & (state.status == RUNNING)

    def advance(carry: tuple[SolverState, Index]) -> tuple[SolverState, Index]:
        state, i = carry
        active = runs_on(state)
        trial = state.position + state.length[:, None, None] * state.direction
        evaluation = _evaluate(trial, hyperparams, active, data, scale, columns, spec)
        # All runs that are active have the same number of evaluations, and so the same place in memory.
        place = jnp.max(jnp.where(active, state.evaluations, 0)) % REMEMBERED
        step = partial(_advance_run, place=place, scale=scale, spec=spec)
        return jax.vmap(step)(state, hyperparams, active, trial, evaluation), i + 1

    state, _ = jax.lax.while_loop(
        lambda carry: runs_on(carry[0]).any() & (carry[1] < ROUND), advance, (state, jnp.int32(0))
    )
    return state


class _Evaluation(NamedTuple):
    """The objective of runs [c] and its gradient, see `SolverState`."""

    objective: Float[Array, " c"]
    gradient: Float[Array, "c K D"]
    norm: Float[Array, " c"]  # of the gradient
    curvatures: Float[Array, "c K"]  # mean second derivatives by each logit
    separable: Bool[Array, " c"]


def _evaluate(
    position: Float[Array, "c K D"],
    hyperparams: Hyperparams,
    active: Bool[Array, " c"],
    data: _Data,
    scale: Scale,
    columns: int,
    spec: SolverSpec,
) -> _Evaluation:
    """Compute objectives and gradients of the runs that are active; those of others mean nothing."""
    (c, K, _), n = position.shape, data.n
    # The runs that are active come first, and go through the examples a tile at a time.
    tiles = math.ceil(c / math.ceil(columns / K))
    width = math.ceil(c / tiles)
    order = jnp.argsort(~active, stable=True)
    order = jnp.concatenate([order, order[: tiles * width - c]])
    W, bias = position[order, :, :-1], position[order, :, -1]
    params, axes = Params(W, bias), jax.tree.map(lambda axis: axis[order], hyperparams)

    def add_chunk(sums: _Sums, start: Index, size: int) -> _Sums:
        x, y, weights = data.take(start, size)
        # The features are centred, and not the products: those would lose digits to a large mean.
        x = x - scale.mean[None, :]

        def measure_run(params: Params, axes: Hyperparams) -> _Sums:
            logits = compute_logits(params, x, spec.precision)
            loss = jnp.sum(weights * spec.loss.value(logits, y, axes))
            dlogits = spec.loss.gradient(logits, y, axes) * weights[:, None]
            wrong = _count_wrong(logits, y, weights, spec)
            return _Sums(
                loss, jnp.zeros_like(loss), multiply(dlogits.T, x, spec.precision), dlogits.sum(0),
                _sum_curvatures(logits, weights, spec), wrong,
            )  # fmt: skip

        def add_tile(tile: Index, sums: _Sums) -> _Sums:
            take = partial(jax.lax.dynamic_slice_in_dim, start_index=tile * width, slice_size=width)
            new = jax.vmap(measure_run)(*jax.tree.map(take, (params, axes)))
            total = jax.tree.map(lambda leaf, more: take(leaf) + more, sums, new)
            # Losses are summed with the digits that each addition loses (Kahan 1965), so that a line search
            # in float32 sees small steps.
            old, lost = take(sums.loss), take(sums.lost)
            total = total._replace(loss=old + (new.loss - lost))
            total = total._replace(lost=(total.loss - old) - (new.loss - lost))
            put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=tile * width, axis=0)
            return jax.tree.map(put, sums, total)

        if tiles == 1:
            return add_tile(0, sums)
        return jax.lax.fori_loop(0, (active.sum() + width - 1) // width, add_tile, sums)

    zeros = jnp.zeros(tiles * width, position.dtype)
    outputs = jax.eval_shape(lambda: _count_wrong(bias[:1], bias[:1], zeros[:1], spec)).shape
    wrong = jnp.zeros((tiles * width, *outputs), position.dtype)
    nothing = _Sums(zeros, zeros, jnp.zeros_like(W), *(jnp.zeros_like(bias),) * 2, wrong)
    sums = data.fold(add_chunk, nothing)
    loss, _, dW, db, curvatures, wrong = jax.tree.map(lambda leaf: leaf[jnp.argsort(order[:c])], sums)
    W, lam = position[..., :-1], hyperparams.lam[:, None, None]
    dW, db = dW / n + 2 * lam * W, db / n
    gradient = jnp.concatenate([dW, db[..., None]], axis=-1)
    norm = jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2)))
    objective = loss / n + hyperparams.lam * jnp.sum(W**2, axis=(1, 2))
    separable = (hyperparams.lam == 0) & (hyperparams.smoothing == 0) & (wrong == 0).any(axis=1)
    return _Evaluation(objective, gradient, norm, curvatures / n, separable)


class _Sums(NamedTuple):
    """Sums over examples; `lost` are the digits that the sum of the losses lacks."""

    loss: Array
    lost: Array
    dW: Array  # noqa: N815
    db: Array
    curvatures: Array  # second derivatives by each logit
    wrong: Array  # number of examples on the wrong side, for all outputs together or for each


def _sum_curvatures(
    logits: Float[Array, "n K"], weights: Float[Array, " n"], spec: SolverSpec
) -> Float[Array, " K"]:
    """Sum the second derivatives of the losses by each logit; those of a loss of one's own are unknown."""
    K = logits.shape[1]
    if spec.loss.name not in LOSSES:
        return jnp.full(K, jnp.sum(weights) / K)
    p = spec.loss.probabilities(logits)
    return weights @ (p * (1 - p)) / (1 if spec.loss.name == "softmax" else K)


def _count_wrong(
    logits: Float[Array, "n K"], y: Float[Array, "n K"], weights: Float[Array, " n"], spec: SolverSpec
) -> Float[Array, " outputs"]:
    """Count the examples that keep the classes, or each label, from being separable by these logits."""
    if not spec.unpenalised:
        return jnp.ones(1, logits.dtype)
    if spec.loss.probabilities is softmax_probabilities:
        lowest, highest = jnp.where(y > 0, logits, jnp.inf), jnp.where(y < 1, logits, -jnp.inf)
        right = (lowest.min(axis=1) > highest.max(axis=1))[:, None]
    else:
        right = logits * (2 * y - 1) > 0
        right &= (y == 0) | (y == 1)
    return jnp.sum(~right & (weights > 0)[:, None], axis=0, dtype=logits.dtype)


def _advance_run(
    state: SolverState,
    hyperparams: Hyperparams,
    active: Bool[Array, ""],
    trial: Float[Array, "K D"],
    evaluation: _Evaluation,
    place: Index,
    scale: Scale,
    spec: SolverSpec,
) -> SolverState:
    """Go to the position that was tried, or try a shorter step, of a run that is active."""
    lam, epsilon = hyperparams.lam, jnp.finfo(trial.dtype).eps
    objective, gradient = evaluation.objective, evaluation.gradient
    is_first = state.evaluations == 0
    rise = objective - state.objective
    lower = rise <= DECREASE * state.length * state.slope
    # Where the objective changes by its last digits only, its slope decides (Hager and Zhang 2005).
    flat = (rise <= 4 * epsilon * jnp.abs(state.objective)) & (
        jnp.sum(gradient * state.direction) <= (2 * DECREASE - 1) * state.slope
    )
    accepted = active & jnp.isfinite(objective + evaluation.norm) & (is_first | lower | flat)
    # The least of the parabola through both objectives and the slope.
    above = rise - state.length * state.slope
    least = -state.slope * state.length**2 / (2 * jnp.where(above > 0, above, jnp.inf))
    shorter = jnp.clip(least, 0.1 * state.length, 0.5 * state.length)

    step, change = trial - state.position, gradient - state.gradient
    product = jnp.sum(step * change)
    norms = jnp.sqrt(jnp.sum(step**2) * jnp.sum(change**2))
    remembered = accepted & ~is_first & (product > epsilon * norms)

    def remember(memory: Array, new: Array) -> Array:
        old = jax.lax.dynamic_index_in_dim(memory, place, keepdims=False)
        # A step that was rejected leaves its place empty.
        new = jnp.where(active, jnp.where(remembered, new, 0), old)
        return jax.lax.dynamic_update_index_in_dim(memory, new, place, axis=0)

    memory = _Memory(
        remember(state.steps, step),
        remember(state.changes, change),
        remember(state.inverses, 1 / jnp.where(remembered, product, 1)),
    )
    along = _project(step, scale)
    # A class without examples has a curvature that vanishes; below the digits of the others it means nothing.
    h = jnp.maximum(evaluation.curvatures, epsilon * jnp.sum(evaluation.curvatures))
    # Equal changes of all logits change no softmax: steps along them would only have to be undone.
    centred = spec.loss.name == "softmax"
    if centred:
        along -= (h @ along / jnp.sum(h))[None, :]
    spread = h @ jnp.sum(jnp.append(scale.variances, 1)[None, :] * along**2, axis=1)
    curvature = (product - 2 * lam * jnp.sum(step[:, :-1] ** 2)) / jnp.where(remembered, spread, 1)
    curvature = jnp.where(remembered & (curvature > 0), curvature, state.curvature)
    direction = -_multiply_inverse(gradient, memory, place, curvature * h, lam, scale, centred)

    smaller = accepted & (evaluation.norm < SMALLER * state.lowest_norm)
    progress = accepted & (is_first | smaller | (rise < -epsilon * jnp.abs(state.objective)))
    idle = jnp.where(progress, 0, state.idle + 1)
    norm = jnp.where(accepted, evaluation.norm, state.gradient_norm)
    first = jnp.where(is_first, objective, state.first_objective)
    first_norm = jnp.where(is_first, norm, state.first_norm)
    slope = jnp.sum(direction * gradient)
    status = jnp.where((idle >= MOST_IDLE) | (accepted & ~(slope < 0)), STALLED, RUNNING)
    status = jnp.where(accepted & evaluation.separable, SEPARABLE, status)
    # Minus the slope is twice the height above the minimum, if the Hessian is as the steps show it.
    height = -slope / jnp.maximum(jnp.abs(objective), epsilon * jnp.abs(first))
    small = (norm <= spec.tolerance * first_norm) & (height <= spec.tolerance)
    status = jnp.where(accepted & (small | (height <= NEGLIGIBLE * epsilon) | (norm == 0)), CONVERGED, status)

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(accepted, new, old)

    return SolverState(
        choose(trial, state.position),
        choose(gradient, state.gradient),
        choose(direction, state.direction),
        *memory,
        jnp.where(active, choose(jnp.ones_like(shorter), shorter), state.length),
        choose(slope, state.slope),
        curvature,
        choose(objective, state.objective),
        *(jnp.where(active, new, old) for new, old in (
            (norm, state.gradient_norm),
            (first, state.first_objective),
            (first_norm, state.first_norm),
            (state.evaluations + 1, state.evaluations),
            (jnp.where(smaller, norm, state.lowest_norm), state.lowest_norm),
            (idle, state.idle),
            (status.astype(np.int32), state.status),
        )),
    )  # fmt: skip


class _Memory(NamedTuple):
    """The last steps of a run, see `SolverState`."""

    steps: Array
    changes: Array
    inverses: Array


def _multiply_inverse(
    gradient: Float[Array, "K D"],
    memory: _Memory,
    newest: Index,
    curvatures: Float[Array, " K"],
    lam: Float[Array, ""],
    scale: Scale,
    centred: bool,
) -> Float[Array, "K D"]:
    """Multiply a gradient by the inverse of the Hessian as the remembered steps show it.

    That is the two-loop recursion (Nocedal 1980, "Updating quasi-Newton matrices with limited storage").
    """

    def recall(age: Index) -> tuple[Array, Array, Array]:
        place = (newest - age) % REMEMBERED
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False), tuple(memory)
        )

    def subtract(gradient: Array, age: Index) -> tuple[Array, Array]:
        step, change, inverse = recall(age)
        weight = inverse * jnp.sum(step * gradient)
        return gradient - weight * change, weight

    def add(result: Array, weighted: tuple[Index, Array]) -> tuple[Array, None]:
        step, change, inverse = recall(weighted[0])
        return result + step * (weighted[1] - inverse * jnp.sum(change * result)), None

    ages = jnp.arange(REMEMBERED, dtype=jnp.int32)
    gradient, weights = jax.lax.scan(subtract, gradient, ages)
    along = _project(gradient, scale)
    # Smaller variances are rounding.
    variances = jnp.maximum(scale.variances, jnp.finfo(along.dtype).eps * jnp.max(scale.variances))
    diagonal = curvatures[:, None] * jnp.append(variances, 1)[None, :]
    diagonal = diagonal.at[:, :-1].add(2 * lam)
    # Along a direction without curvature there is no gradient.
    along = jnp.where(diagonal > 0, along / jnp.where(diagonal > 0, diagonal, 1), 0)
    if centred:
        along -= along.mean(axis=0, keepdims=True)
    result = _project(along, scale, back=True)
    return jax.lax.scan(add, result, (ages, weights), reverse=True)[0]


def _project(position: Float[Array, "K D"], scale: Scale, back: bool = False) -> Float[Array, "K D"]:
    """Return the components of positions along the eigenvectors of the covariance, or back from there."""
    if scale.vectors is None:
        return position
    vectors = scale.vectors.T if back else scale.vectors
    return jnp.concatenate([multiply(position[:, :-1], vectors), position[:, -1:]], axis=1)


@jax.jit
def as_position_params(position: Float[Array, "*runs K D"], mean: Float[Array, "*replicates d"]) -> Params:
    """Return the parameters of positions, see `SolverState`."""
    W, mean = position[..., :-1], mean[..., None, None, :]
    return Params(W, position[..., -1] - jnp.sum(W * mean, axis=-1))


class Solver(NamedTuple):
    """The options that all runs of `solve` share, see there: a `Method` whose epochs are rounds."""

    epochs: int
    loss: str | Loss = "softmax"
    precision: str = FULL_PRECISION
    dtype: str = "float32"
    tolerance: float | None = None

    @property
    def augment(self) -> None:
        """Return None: the minimum is that of the examples as they are."""

    @property
    def spec(self) -> SolverSpec:
        """The settings that are part of the compiled program."""
        tolerance = TOLERANCES[self.dtype] if self.tolerance is None else float(self.tolerance)
        return SolverSpec(get_loss(self.loss), self.precision, tolerance)

    def check_options(self) -> "Solver":
        """Return the solver, or raise ValueError if an option is wrong by itself."""
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("dtype", self.dtype, tuple(TOLERANCES))
        if self.tolerance is not None and not (isinstance(self.tolerance, Real) and 0 < self.tolerance < 1):
            raise ValueError(f"tolerance is {describe(self.tolerance)}: give a number between 0 and 1")
        get_loss(self.loss)
        return self

    def check(
        self,
        configs: Sequence[Config],
        train: Examples,
        replicates: Sequence[Replicate],
        snapshot: Snapshot | None,
    ) -> np.dtype:
        """Return the type of the weights; raise ValueError for a hyperparameter that cannot be used."""
        loss = get_loss(self.loss)
        for name, value in find_unused(configs, loss):
            raise ValueError(f"{name} is {value}: the solver does not use it: leave it out")
        for config in configs if loss.name in LOSSES else ():
            if config.q > 0:
                raise ValueError(
                    f"q is {config.q}: the loss {loss.name} is convex at q=0 only, and may have several "
                    "minima otherwise: give q=0, or train with fit"
                )
        check_values(configs, self.dtype)
        return np.dtype(self.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the settings of an identity that only the solver has, see `Method`."""
        return {METHOD: "exact minimum", "tolerance": self.spec.tolerance}

    def describe_epochs(self, dtype: DTypeLike) -> tuple[tuple[float, int], ...]:
        """Return what decides each round, which is the same for all."""
        return ((1.0, 1),) * self.epochs

    def extends(self, dtype: DTypeLike) -> bool:
        """Tell that more rounds continue the same ones."""
        return True

    def fit_to(self, configs: Sequence[Config]) -> "Solver":
        """Return the solver."""
        return self

    def describe_needs(self, configs: Sequence[Config], d: int) -> dict[str, int]:
        """Return the rows of a chunk and the numbers that runs and replicates hold, for `max_runs`."""
        covariance = 4 * d**2 if d <= LARGEST_COVARIANCE else 0  # with its eigenvectors and their workspace
        return {"largest_batch": CHUNK, "weights_per_run": 2 * REMEMBERED + 16, "per_replicate": covariance}

    def start(
        self,
        configs: Sequence[Config],
        replicates: Sequence[Replicate],
        shape: tuple[int, int],
        snapshot: Snapshot | None,
    ) -> RunState:
        """Return the state of the runs, see `Method`."""
        if snapshot is not None:
            expected = start_state(snapshot.params.b.shape[:2], *shape, snapshot.params.W.dtype)
            return RunState(snapshot.params, snapshot.restore(expected, "the solver"))
        runs, dtype = (len(replicates), len(configs)), np.dtype(self.dtype)
        zeros = Params(np.zeros((*runs, *shape), dtype), np.zeros((*runs, shape[0]), dtype))
        return RunState(zeros, start_state(runs, *shape, dtype))

    def prepare(self, placed: Placed) -> tuple[Scale, Any, SolverSpec]:
        """Return the scale of the features, which slots are solved, and the spec of these configurations."""
        layout, dtype = placed.layout, placed.hyperparams.lam.dtype
        train, standardizer = jax.tree.map(
            lambda leaf: leaf.addressable_data(0), (placed.train, placed.standardizer)
        )
        replicates = ReplicateData(
            placed.keys, stack_rows(placed.replicates), stack_standardizers(placed.replicates)
        )
        scale = fit_scale(train, standardizer, replicates, self.precision, dtype)
        solved = np.array([c not in layout.configs[:i] for i, c in enumerate(layout.configs)])
        # A loss of one's own may have a minimum where the classes are separable.
        unpenalised = self.spec.loss.name in LOSSES and bool((placed.hyperparams.lam == 0).any())
        spec = self.spec._replace(unpenalised=unpenalised)
        return layout.shard(scale, BY_REPLICATE), layout.shard(solved, BY_CONFIG), spec

    def program(
        self, placed: Placed, prepared: tuple[Scale, Any, SolverSpec], number: int, state: RunState
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return `solve_round` and its arguments."""
        (scale, solved, spec), layout = prepared, placed.layout
        return solve_round, (
            state.opt_state, layout.shard(placed.hyperparams, BY_CONFIG), solved, placed.train,
            placed.standardizer, placed.per_replicate, scale, layout, spec,
        )  # fmt: skip

    def read(
        self,
        placed: Placed,
        prepared: tuple[Scale, Any, SolverSpec],
        number: int,
        output: SolverState,
        averaged: Params,
    ) -> Outcome:
        """Return what `solve_round` has returned, with the parameters of its positions."""
        scale, _, _ = prepared
        params, status = as_position_params(output.position, scale.mean), np.asarray(output.status)
        measured = {
            "objective": output.objective,
            "gradient_norm": output.gradient_norm,
            "evaluations": output.evaluations,
            "converged": status == CONVERGED,
            "separable": status == SEPARABLE,
            "stalled": status == STALLED,
            "W_norm": compute_norm(params.W),
        }
        running = placed.layout.from_slots(status) == RUNNING
        finite = np.isfinite(output.objective)
        return Outcome(RunState(params, output), params, measured, finite, not running.any())
