"""The benchmark's tables that are measured in one process.

A table lists cases. A case is one baseline, or several that together train some configurations. `time_cases`
times all of them in turn, and each function below makes a row from the timing of each case.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax

from experiments.benchmark.baselines import (
    BATCHES,
    LAMS,
    SPEC,
    Baseline,
    BenchData,
    D,
    K,
    make_configs,
    make_numpy_loop,
    make_plain_product,
    make_sgd_classifier,
    make_single_run,
    make_sweep,
    make_torch_loop,
    make_torch_vmap,
    random_data,
    start_sweep,
)
from experiments.benchmark.timing import time_call, time_cases
from linear_cifar.config import Config, grid, stack_hyperparams
from linear_cifar.layout import BY_CONFIG, BY_REPLICATE, BY_RUN, make_layout
from linear_cifar.params import init_params
from linear_cifar.replicates import ReplicateData
from linear_cifar.training import init_state, train_epoch

Row = dict[str, Any]

# Configurations of the report's grid.
GRID = 48
ETAS = (0.001, 0.01, 0.1, 1.0)
OUR_SWEEP, PLAIN_PRODUCT = "linear_cifar", "plain matrix product"
# Packages whose baselines are left out where they are not installed.
OPTIONAL_PACKAGES = ("optuna", "sklearn", "torch")


def missing_packages() -> list[str]:
    """Return the optional packages that are not installed."""
    return [package for package in OPTIONAL_PACKAGES if not find_spec(package)]


def measure_baselines(data: BenchData, repeats: int) -> list[Row]:
    """Time an epoch of the whole grid with every baseline that is installed.

    Programs that train one configuration at a time run one of each batch size. Their time is scaled up to
    the grid.
    """
    cases = {
        PLAIN_PRODUCT: [make_plain_product(data, GRID)],
        OUR_SWEEP: [make_sweep(data, make_configs(GRID))],
        f"{OUR_SWEEP}, one at a time": [make_single_run(data, batch) for batch in BATCHES],
        "NumPy": [make_numpy_loop(data, batch) for batch in BATCHES],
    }
    if find_spec("torch"):
        cases["PyTorch"] = [make_torch_loop(data, batch) for batch in BATCHES]
        per_batch = GRID // len(BATCHES)
        cases["torch.func.vmap"] = [make_torch_vmap(data, batch, per_batch) for batch in BATCHES]
    if find_spec("sklearn"):
        cases["SGDClassifier"] = [make_sgd_classifier(data)]
    return [
        {
            "baseline": name,
            "epoch_s": rates["epoch_s"],
            "configs_epochs_per_s": None if name == PLAIN_PRODUCT else GRID / rates["epoch_s"],
            **rates,
            "device": cases[name][0].device,
        }
        for name, rates in measure_rates(cases, data, GRID, repeats).items()
    ]


def measure_rates(
    cases: Mapping[str, Sequence[Baseline]], data: BenchData, num_configs: int, repeats: int
) -> dict[str, Row]:
    """Time all cases, and return the time of an epoch of all configurations in each, and its rate.

    `of_peak` is relative to the fastest product, whose name begins with `PLAIN_PRODUCT`.
    """
    seconds = {name: num_configs * timing.s_per_config for name, timing in time_cases(cases, repeats).items()}
    products = [name for name in cases if name.startswith(PLAIN_PRODUCT)]
    # Logits and gradients are one product each, of 2 n d K operations; the plain product is the logits alone.
    product_flops = 2 * data.x.size * data.K * num_configs
    flops = dict.fromkeys(cases, 2 * product_flops) | dict.fromkeys(products, product_flops)
    peak = max(flops[name] / seconds[name] for name in products)
    return {
        name: {
            "epoch_s": epoch_s,
            "gflops": flops[name] / epoch_s / 1e9,
            "of_peak": flops[name] / epoch_s / peak,
            "times_ours": None if name in products else epoch_s / seconds[OUR_SWEEP],
        }
        for name, epoch_s in seconds.items()
    }


def measure_single_run(data: BenchData, repeats: int) -> list[Row]:
    """Time an epoch of one configuration of batch size 100, here, in NumPy and in PyTorch."""
    cases = {OUR_SWEEP: [make_single_run(data, 100)], "NumPy": [make_numpy_loop(data, 100)]}
    if find_spec("torch"):
        cases["PyTorch"] = [make_torch_loop(data, 100)]
    timed = time_cases(cases, 2 * repeats - 1)
    return [
        {
            "baseline": name,
            "epoch_s": timing.epoch_s,
            "times_ours": timing.epoch_s / timed[OUR_SWEEP].epoch_s,
            "device": cases[name][0].device,
        }
        for name, timing in timed.items()
    ]


def measure_sizes(data: BenchData, repeats: int, quick: bool) -> list[Row]:
    """Time an epoch by the number of configurations."""
    sweeps: dict[str, Sequence[Config]] = {
        "1": [Config(0.001, 100, 0.0)],
        "12 of one batch size": grid(eta=ETAS, batch=[100], lam=LAMS),
        "12 of four batch sizes": make_configs(12),
        "48": make_configs(48),
    }
    if not quick:
        sweeps |= {"96": make_configs(96), "480": make_configs(480)}
    cases = {name: [make_sweep(data, configs)] for name, configs in sweeps.items()}
    timed = time_cases(cases, min(repeats, 3))
    return [
        {
            "configurations": name,
            "epoch_s": timing.epoch_s,
            "ms_per_configuration": 1e3 * timing.s_per_config,
            "relative_to_48": timing.s_per_config / timed["48"].s_per_config,
        }
        for name, timing in timed.items()
    ]


def measure_image_counts(n: int, repeats: int, quick: bool) -> list[Row]:
    """Time an epoch of the grid by the number of training images, up to n."""
    counts = [n // 2, n] if quick else [n // 4, n // 2, n]
    cases = {count: [make_sweep(random_data(count), make_configs(GRID))] for count in counts}
    return [
        {"images": count, "epoch_s": timing.epoch_s, "us_per_image": 1e6 * timing.epoch_s / count}
        for count, timing in time_cases(cases, repeats).items()
    ]


def measure_epochs(data: BenchData, quick: bool) -> list[Row]:
    """Time whole sweeps of the grid by their number of epochs; their program is compiled already."""
    rows = []
    for epochs in (1, 2, 4) if quick else (1, 2, 4, 8):
        total_s = time_call(partial(list, start_sweep(make_configs(GRID), data, epochs=epochs)))
        rows.append({"epochs": epochs, "s": total_s, "s_per_epoch": total_s / epochs})
    return rows


def measure_vmap_widths(data: BenchData, quick: bool) -> list[Row]:
    """Time an epoch by the number of configurations that train side by side on a core.

    `linear_cifar.layout.CPU_CACHE_BYTES` was chosen from this table.
    """
    configs = make_configs(96 if quick else 192)
    layout = make_layout([config.batch for config in configs], 1, jax.local_devices(), 4 * D * K)
    hyperparams = layout.shard(stack_hyperparams([configs[c] for c in layout.configs]), BY_CONFIG)
    train, standardizer = layout.broadcast((data.train, data.standardizer))
    keys = jax.random.split(jax.random.key(0), 1)
    state = init_state(jax.vmap(partial(init_params, d=D, K=K))(keys), hyperparams)
    state = layout.shard(state, BY_RUN)
    replicates = layout.shard(ReplicateData(keys), BY_REPLICATE)

    def train_with(width: int) -> None:
        with_width = layout._replace(loops=layout.loops._replace(vmap_width=width))
        trained = train_epoch(state, hyperparams, train, standardizer, replicates, with_width, SPEC)
        jax.block_until_ready(trained)

    widths = [6, 24] if quick else [3, 6, 12, 16, 24, 48]
    cases = {width: [Baseline(len(configs), partial(train_with, width))] for width in widths}
    return [
        {
            "configurations": len(configs),
            "vmap_width": width,
            "epoch_s": timing.epoch_s,
            "ms_per_configuration": 1e3 * timing.s_per_config,
            "default_vmap_width": layout.loops.vmap_width,
        }
        for width, timing in time_cases(cases, 2).items()
    ]


def measure_batch_sizes(data: BenchData, repeats: int, quick: bool) -> list[Row]:
    """Time an epoch with batch sizes that do not divide one another or the images, 12 configurations each."""
    odd_sizes = [(50, 64)] if quick else [(50, 64), (7, 11, 13, 17), (999,), (len(data.labels),)]
    cases = {sizes: [make_sweep(data, grid(eta=ETAS, batch=sizes, lam=LAMS))] for sizes in odd_sizes}
    return [
        {
            "batches": ", ".join(map(str, sizes)),
            "epoch_s": timing.epoch_s,
            "ms_per_configuration": 1e3 * timing.s_per_config,
            "compiling_s": timing.first_s - timing.epoch_s,
        }
        for sizes, timing in time_cases(cases, min(repeats, 3)).items()
    ]
