"""A small problem in float64, and sweeps over it, for the tests of the public functions."""

import jax
import jax.numpy as jnp
import problems

import linear_cifar as lc

D, K, N = 6, 3, 40
_, _, X, Y = problems.problem(n=60, d=D, K=K)
TRAIN = lc.Examples(jnp.asarray(X[:N]), jnp.asarray(Y[:N]))
VAL = lc.Examples(jnp.asarray(X[N:]), jnp.asarray(Y[N:]))
CONFIGS = lc.grid(eta=[0.1, 0.3], batch=[8], lam=[0.0, 0.1])
SEEDS = (7, 3)


def init(seed):
    return lc.init_params(jax.random.key(seed), D, K, scale=0.5, dtype=jnp.float64)


def start(configs=CONFIGS, train=TRAIN, epochs=3, **options):
    """Return the iterator of a sweep."""
    return lc.sweep(configs, train, {"val": VAL}, epochs=epochs, **{"seeds": SEEDS, "init": init, **options})


def run(*args, **options):
    """Return the epochs of a sweep."""
    return list(start(*args, **options))
