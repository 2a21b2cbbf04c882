"""Schedules of the learning rate: a factor for each epoch that multiplies every configuration's η.

A schedule is made from the number of epochs of the run. It maps the number of epochs done, 0 at the start, to
the factor of the next epoch. The factor changes between epochs only and is data to the compiled program, so
another schedule compiles nothing again.
"""

import math
from collections.abc import Callable

import jax
import numpy as np
import optax
from jax.typing import DTypeLike

from linear_cifar.arguments import describe, look_up, one_line

Factor = Callable[[int], float]
Schedule = Callable[[int], Factor]


def constant(epochs: int) -> Factor:
    """Keep η."""
    return optax.constant_schedule(1.0)


def cosine(epochs: int) -> Factor:
    r"""Let η fall as $\frac12 (1 + \cos(\pi t / E))$ in epoch t of E, from 0 (Loshchilov & Hutter 2017)."""
    return optax.cosine_decay_schedule(1.0, decay_steps=epochs)


def step(epochs: int) -> Factor:
    """Take a tenth of η after half of the epochs, and a hundredth after three quarters."""
    return optax.piecewise_constant_schedule(1.0, {max(1, epochs // 2): 0.1, max(2, 3 * epochs // 4): 0.1})


SCHEDULES: dict[str, Schedule] = {schedule.__name__: schedule for schedule in (constant, cosine, step)}


def epoch_factors(schedule: str | Schedule, epochs: int, dtype: DTypeLike) -> list[float]:
    """Return the factor of η in each epoch, computed in the type of the weights.

    Raises:
      ValueError: if the schedule is none, or a factor is negative or not finite.
    """
    found = look_up("schedule", schedule, SCHEDULES)
    advice = (
        f"give one of {', '.join(SCHEDULES)}, or a function of the number of epochs that returns a function "
        "from the epochs done to the factor of η"
    )
    try:
        # JAX's default type would depend on how a user has set it up.
        with jax.enable_x64(np.dtype(dtype) == np.float64):
            factor = found(epochs)
            factors = [float(factor(done)) for done in range(epochs)]
    # It is the user's function, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"schedule is {describe(found)}, which fails ({one_line(error)}): {advice}"
        ) from error
    for done, value in enumerate(factors):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"schedule gives η the factor {value} in epoch {done + 1}: give 0 or more")
    return factors
