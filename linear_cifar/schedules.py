"""Schedules of the learning rate: a factor for each epoch that multiplies every configuration's η.

A schedule is made from the number of epochs of the run. It maps the number of epochs done, 0 at the start, to
the factor of the next epoch. The factor changes between epochs only and is data to the compiled program, so
another schedule compiles nothing again.
"""

from collections.abc import Callable

import optax

Factor = Callable[[int], float]
Schedule = Callable[[int], Factor]


def constant(epochs: int) -> Factor:
    """Keep η."""
    return optax.constant_schedule(1.0)


def cosine(epochs: int) -> Factor:
    r"""Let η fall as $\frac12 (1 + \cos(\pi t / E))$ in epoch t of E, counted from 0 (Loshchilov & Hutter
    2017).
    """
    return optax.cosine_decay_schedule(1.0, decay_steps=epochs)


def step(epochs: int) -> Factor:
    """Take a tenth of η after half of the epochs, and a hundredth after three quarters."""
    return optax.piecewise_constant_schedule(1.0, {max(1, epochs // 2): 0.1, max(2, 3 * epochs // 4): 0.1})


SCHEDULES: dict[str, Schedule] = {schedule.__name__: schedule for schedule in (constant, cosine, step)}
