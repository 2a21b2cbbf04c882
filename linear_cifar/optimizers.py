"""Optimizers: functions from a configuration's hyperparameters to optax transformations."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from linear_cifar.arguments import describe, look_up
from linear_cifar.config import Hyperparams
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
    """Return the optimizer of that name, or an optimizer of one's own.

    Raises:
      ValueError: if there is none; the message names the optimizers there are.
    """
    found: Optimizer = look_up("optimizer", optimizer, OPTIMIZERS)
    if not callable(found):
        raise ValueError(f"optimizer is {describe(found)}: {_ADVICE}")
    return found


_ADVICE = (
    f"give one of {', '.join(OPTIMIZERS)}, or a function of the hyperparameters that returns an optax "
    "transformation, such as lambda h: optax.adam(h.eta)"
)


@lru_cache(maxsize=256)
def find_dependencies(optimizer: Optimizer, K: int, d: int, dtype: DTypeLike) -> frozenset[str]:
    """Return the names of the hyperparameters on which an optimizer's update depends.

    An update that depends on `lam` applies the penalty itself, and 2λW is then not in the gradient. One that
    does not depend on a hyperparameter must not be given different values of it.

    Args:
      optimizer: optimizer.
      K, d: shape of the weights.
      dtype: type of the weights.

    Raises:
      ValueError: if the optimizer does not make updates of the parameters from their gradients alone.
    """
    dtype = jnp.dtype(dtype)
    params = Params(jax.ShapeDtypeStruct((K, d), dtype), jax.ShapeDtypeStruct((K,), dtype))  # type: ignore[arg-type]
    hyperparams = Hyperparams(*[jax.ShapeDtypeStruct((), dtype)] * len(Hyperparams._fields))  # type: ignore[arg-type]

    def update(hyperparams: Hyperparams, params: Params, gradients: Params) -> Any:
        transformation = optimizer(hyperparams)
        if not isinstance(transformation, optax.GradientTransformation):
            raise TypeError(f"it returns {describe(transformation)}")
        return transformation.update(gradients, transformation.init(params), params)

    try:
        traced, (updates, _) = jax.make_jaxpr(update, return_shape=True)(hyperparams, params, params)
    # It is the user's function, which may raise anything.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"optimizer is {describe(optimizer)}, which cannot be used ({reason:.120}): {_ADVICE}"
        ) from error
    if jax.tree.map(lambda leaf: leaf.shape, updates) != jax.tree.map(lambda leaf: leaf.shape, params):
        raise ValueError(f"optimizer is {describe(optimizer)}, whose updates have other shapes: {_ADVICE}")
    # Backwards from the results, by identity: constants in a program cannot be hashed.
    needed = {id(variable) for variable in traced.jaxpr.outvars}
    for equation in reversed(traced.jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    of_hyperparams = zip(Hyperparams._fields, traced.jaxpr.invars, strict=False)
    return frozenset(name for name, variable in of_hyperparams if id(variable) in needed)
