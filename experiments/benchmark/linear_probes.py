"""Linear probes: many heads on the same float32 features, trained here and as others train them.

A head is a configuration: its own learning rate η and penalty λ, and the batch size that all share. The
programs in PyTorch shuffle as the sweep does. They have no penalty and do not evaluate.
"""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.baselines import (
    ETA,
    Baseline,
    BenchData,
    jax_device,
    make_plain_product,
    make_sweep,
    make_torch_baseline,
    make_torch_vmap,
    random_features,
    torch_device,
)
from experiments.benchmark.measurements import OUR_SWEEP, PLAIN_PRODUCT, Row, measure_rates
from linear_cifar.config import Config, grid

# Examples, features of each, and examples in a batch.
N, D, BATCH = 50_000, 768, 256
# Numbers of classes and of heads.
SIZES = ((10, 1_000), (100, 200))
LAMS = tuple(np.logspace(-6, -2, 10).tolist())
# The λ of the heads that scikit-learn fits. Its time for all heads is calculated from theirs.
FITTED_LAMS = (LAMS[2], LAMS[7])
# Batches of an epoch that the slow programs train on. Their time for the epoch is calculated.
TIMED_BATCHES = 10
BY_BATCH, TO_OPTIMUM = "batch by batch", "LogisticRegression, to the optimum"


def make_heads(count: int) -> tuple[Config, ...]:
    """Return `count` heads, a multiple of 10: ten λ, and values of η between 0.001 and 1."""
    return grid(eta=np.logspace(-3, 0, count // len(LAMS)), batch=[BATCH], lam=LAMS)


def make_batched_product(data: BenchData, num_heads: int) -> Baseline:
    """Make a baseline that computes the logits of one whole batch after another.

    It does half the operations of an epoch. On a CPU its logits stay in the cache.
    """
    n, d = data.x.shape
    W = jax.random.normal(jax.random.key(0), (num_heads * data.K, d), data.x.dtype)
    batches = jnp.asarray(data.x[: n // BATCH * BATCH].reshape(-1, BATCH, d))

    @jax.jit
    def compute_last_logits(W: jax.Array, batches: jax.Array) -> jax.Array:
        def step(_: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
            return jnp.matmul(W, x.T, precision=data.spec.precision), None

        return jax.lax.scan(step, jnp.zeros((len(W), BATCH), W.dtype), batches)[0]

    return Baseline(
        num_heads,
        lambda: compute_last_logits(W, batches).block_until_ready(),
        jax_device(),
        len(batches) * BATCH / n,
    )


def make_torch_heads(data: BenchData, etas: Sequence[float], timed_batches: int) -> Baseline:
    """Make a baseline of a list of nn.Linear, with one SGD that has a learning rate for each of them.

    DINOv2 trains its linear probes so: the losses are added up, and one call goes backward through all of
    them (Oquab et al. 2023, `dinov2/eval/linear.py`).
    """
    import torch

    device = torch_device()
    heads = torch.nn.ModuleList(torch.nn.Linear(data.x.shape[1], data.K, device=device) for _ in etas)
    groups = [{"params": head.parameters(), "lr": eta} for head, eta in zip(heads, etas, strict=True)]
    optimizer = torch.optim.SGD(groups)

    def step(x: Any, y: Any) -> None:
        loss: Any = sum(torch.nn.functional.cross_entropy(head(x), y) for head in heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return make_torch_baseline(data, BATCH, len(etas), step, timed_batches)


def make_torch_wide(data: BenchData, num_heads: int) -> Baseline:
    """Make a baseline of one nn.Linear with the outputs of all heads, which share a learning rate."""
    import torch

    model = torch.nn.Linear(data.x.shape[1], num_heads * data.K, device=torch_device())
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)

    def step(x: Any, y: Any) -> None:
        logits = model(x).view(len(x) * num_heads, data.K)
        losses = torch.nn.functional.cross_entropy(logits, y.repeat_interleave(num_heads), reduction="sum")
        optimizer.zero_grad()
        (losses / len(x)).backward()
        optimizer.step()

    return make_torch_baseline(data, BATCH, num_heads, step)


def make_logistic_regressions(data: BenchData, lams: Sequence[float]) -> Baseline:
    """Make a baseline of scikit-learn's LogisticRegression, which trains a head per λ > 0 to the optimum."""
    from sklearn.linear_model import LogisticRegression

    n = len(data.labels)

    def fit_all() -> None:
        for lam in lams:
            LogisticRegression(C=1 / (2 * n * lam), max_iter=10_000).fit(data.x, data.labels)

    return Baseline(len(lams), fit_all)


def measure_linear_probes(
    n: int, repeats: int, sizes: Sequence[tuple[int, int]] = SIZES, d: int = D
) -> list[Row]:
    """Time an epoch of all heads with every baseline that is installed.

    `of_peak` is relative to the faster of the two products. `timed` says what was timed: `epoch_s`, the time
    of all heads and batches, is calculated from that. scikit-learn does not train for an epoch but to the
    optimum, and so its row has no rate.

    Args:
      n: number of training examples.
      repeats: number of times that each program runs after the first time.
      sizes: numbers of classes and of heads, multiples of 10.
      d: number of features.
    """
    return [row for K, heads in sizes for row in _measure_heads(random_features(n, d, K), heads, repeats)]


def _measure_heads(data: BenchData, heads: int, repeats: int) -> list[Row]:
    """Time the programs that train `heads` heads on the same examples."""
    configs = make_heads(heads)
    cases = {
        PLAIN_PRODUCT: [make_plain_product(data, heads)],
        f"{PLAIN_PRODUCT}, {BY_BATCH}": [make_batched_product(data, heads)],
        OUR_SWEEP: [make_sweep(data, configs)],
    }
    if find_spec("torch"):
        etas = [config.eta for config in configs]
        cases["PyTorch, a list of heads"] = [make_torch_heads(data, etas, TIMED_BATCHES)]
        cases["PyTorch, one wide layer"] = [make_torch_wide(data, heads)]
        cases["torch.func.vmap"] = [make_torch_vmap(data, BATCH, heads, TIMED_BATCHES)]
    if find_spec("sklearn"):
        cases[TO_OPTIMUM] = [make_logistic_regressions(data, FITTED_LAMS)]
    rows = []
    for name, rates in measure_rates(cases, data, heads, repeats).items():
        (baseline,) = cases[name]
        if name == TO_OPTIMUM:
            rates |= {"gflops": None, "of_peak": None}
        timed = _describe_timed(baseline, len(data.x), heads)
        row = {"baseline": name, "K": data.K, "heads": heads, **rates}
        rows.append(row | {"timed": timed, "device": baseline.device})
    return rows


def _describe_timed(baseline: Baseline, n: int, heads: int) -> str:
    """Tell which part of the work was timed."""
    if baseline.num_configs < heads:
        return f"{baseline.num_configs} of {heads:,} heads"
    if baseline.share < 1:
        batches = math.ceil(n / BATCH)
        return f"{round(baseline.share * n / BATCH)} of {batches:,} batches"
    return "all"
