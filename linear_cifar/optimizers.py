"""Optimizers: functions from a configuration's hyperparameters to optax transformations."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.interpreters.partial_eval import dce_jaxpr
from jax.typing import DTypeLike

from linear_cifar.arguments import check_hashable, describe, look_up, one_line
from linear_cifar.config import Config, Hyperparams
from linear_cifar.params import Params

Optimizer = Callable[[Hyperparams], optax.GradientTransformation]


def sgd(hyperparams: Hyperparams) -> optax.GradientTransformation:
    """Return plain gradient descent with learning rate η."""
    return optax.sgd(hyperparams.eta)


def heavy_ball(hyperparams: Hyperparams) -> optax.GradientTransformation:
    """Return gradient descent with momentum μ: v ← μ v + ∂J, W ← W − η v (Polyak 1964)."""
    return optax.sgd(hyperparams.eta, momentum=hyperparams.momentum)


def adamw(hyperparams: Hyperparams) -> optax.GradientTransformation:
    r"""Return Adam with decoupled weight decay: λ shrinks W beside Adam's step, and is not in the gradient.

    $W \leftarrow W - \eta (\hat m / (\sqrt{\hat v} + 10^{-8}) + \lambda W)$, as PyTorch's AdamW with
    `weight_decay=lam` for W and 0 for b (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization").
    """
    only_W: Any = Params(W=True, b=False)  # type: ignore[arg-type]
    return optax.adamw(hyperparams.eta, weight_decay=hyperparams.lam, mask=only_W)


OPTIMIZERS: dict[str, Optimizer] = {optimizer.__name__: optimizer for optimizer in (sgd, heavy_ball, adamw)}


def get_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """Return the optimizer of that name, or a function unchanged; raise ValueError if there is none."""
    found: Optimizer = look_up("optimizer", optimizer, OPTIMIZERS)
    if not callable(found):
        raise ValueError(f"optimizer is {describe(found)}: {_ADVICE}")
    check_hashable("optimizer", found)
    return found


def without_velocity(optimizer: str | Optimizer, configs: Sequence[Config]) -> Optimizer:
    """Return `sgd` in place of `heavy_ball` where no configuration has momentum, else the optimizer itself.

    A velocity takes memory and time.
    """
    found = get_optimizer(optimizer)
    return sgd if found is heavy_ball and not any(config.momentum for config in configs) else found


_ADVICE = (
    f"give one of {', '.join(OPTIMIZERS)}, or a function of the hyperparameters that returns an optax "
    "transformation, such as lambda h: optax.adam(h.eta)"
)


@lru_cache(maxsize=256)
def find_dependencies(
    optimizer: Optimizer, names: tuple[str, ...], K: int, d: int, dtype: DTypeLike
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the hyperparameters on which an optimizer's updates depend.

    Updates that depend on `lam` apply the penalty themselves, and 2λW is then not in the gradient.

    Args:
      names: names of the hyperparameters.
      K, d, dtype: shape and type of the weights.

    Returns:
      Names on which the first step or a later one depends, also through what the state keeps; and names on
      which every step depends, from the hyperparameters passed to that step.

    Raises:
      ValueError: if the optimizer does not make updates of the parameters from their gradients alone.
    """
    dtype = jnp.dtype(dtype)
    params: Any = Params(jax.ShapeDtypeStruct((K, d), dtype), jax.ShapeDtypeStruct((K,), dtype))  # type: ignore[arg-type]
    hyperparams = Hyperparams.make(names, (jax.ShapeDtypeStruct((), dtype),) * len(names))

    def start(hyperparams: Hyperparams, params: Params) -> Any:
        transformation = optimizer(hyperparams)
        if not isinstance(transformation, optax.GradientTransformation):
            raise TypeError(f"it returns {describe(transformation)}")
        return transformation.init(params)

    def update(hyperparams: Hyperparams, state: Any, params: Params, gradients: Params) -> Any:
        return optimizer(hyperparams).update(gradients, state, params)

    try:
        started, state = jax.make_jaxpr(start, return_shape=True)(hyperparams, params)
        updated, (updates, _) = jax.make_jaxpr(update, return_shape=True)(hyperparams, state, params, params)
    # It is the user's function, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"optimizer is {describe(optimizer)}, which cannot be used ({one_line(error)}): {_ADVICE}"
        ) from error
    if jax.tree.map(lambda leaf: leaf.shape, updates) != jax.tree.map(lambda leaf: leaf.shape, params):
        raise ValueError(f"optimizer is {describe(optimizer)}, whose updates have other shapes: {_ADVICE}")
    num_names, num_leaves = len(names), len(jax.tree.leaves(state))
    # Updates read state that earlier updates wrote: repeat until no further leaf of the state is used.
    kept = [False] * num_leaves
    while True:
        _, used = dce_jaxpr(updated.jaxpr, [True] * len(jax.tree.leaves(updates)) + kept)
        taken = used[num_names : num_names + num_leaves]
        if taken == kept:
            break
        kept = [a or b for a, b in zip(kept, taken, strict=True)]
    _, first = dce_jaxpr(started.jaxpr, kept)
    each_step = {name for name, is_used in zip(names, used, strict=False) if is_used}
    from_start = {name for name, is_used in zip(names, first, strict=False) if is_used}
    return frozenset(each_step | from_start), frozenset(each_step)
