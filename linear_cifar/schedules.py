"""How the learning rate changes over the epochs of a run: a factor of every configuration's η.

A schedule maps the number of epochs done, 0 at the start, to the factor for the next one. It changes η
between epochs only and is data to the compiled program, so that another one compiles nothing again.
"""

from collections.abc import Callable

import optax

Schedule = Callable[[int], float]


def constant(epochs: int) -> Schedule:
    """η as it is."""
    return optax.constant_schedule(1.0)


def cosine(epochs: int) -> Schedule:
    r"""$\frac12 (1 + \cos(\pi t / E))$ for epoch t of E, counted from 0 (Loshchilov & Hutter 2017)."""
    return optax.cosine_decay_schedule(1.0, decay_steps=epochs)


def step(epochs: int) -> Schedule:
    """A tenth of η after half of the epochs, a hundredth after three quarters."""
    return optax.piecewise_constant_schedule(1.0, {max(1, epochs // 2): 0.1, max(2, 3 * epochs // 4): 0.1})


# By name; each takes the number of epochs of the run.
SCHEDULES = {schedule.__name__: schedule for schedule in (constant, cosine, step)}
