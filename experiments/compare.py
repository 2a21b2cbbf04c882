"""Train the same grid on several files of features, and compare the best of each.

    python -m experiments.compare --data='features/*.npz' --names='{backbone}_{layer}.npz'

trains on one file after another in one process, so that files of equal shapes share compiled programs. All
hold the same examples in the same order, which is checked before anything is trained. The files are compared
example by example, and no example that compares them chooses a configuration, see `linear_cifar.compare`.

It writes to --out:

- config.json, tables.json, and compare.csv, a row per file, best first
- results.csv and history.csv, whose sweeps are the files; best_params.npz of the best by validation
- blocks, with the results of all runs
- compare (the accuracy of each file) and confusion, as figures; with two factors in --names also heatmap

    python -m experiments.compare --data='features/*.npz' --train_sizes=100,300,1000 --seeds=5

also asks how many labels are enough: it trains on subsets, and draws sizes (accuracy against size).

    python -m experiments.compare --data='features/*.npz' --solver=path

compares the files by the exact minimum for each λ, see experiments.path.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from absl import flags as absl_flags

from experiments.artifacts import exports, tables
from experiments.cli import flags
from experiments.cli.experiment import Rendered, run_experiment
from experiments.cli.files import read_factors
from experiments.cli.launch import launch
from experiments.cli.source import find_files
from experiments.runner.errors import UsageError
from experiments.runner.folder import COMPARE
from experiments.runner.stages import Stage, fixed_stage
from linear_cifar.comparison import compare
from linear_cifar.config import AXES
from linear_cifar.data.prepare import Data
from linear_cifar.result import Result

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Define the flags of this command."""
    flags.define_path_axes(eta=(0.001, 0.01, 0.1, 1.0), batch=(50, 100, 200, 400), lam=(0.0, 0.1, 1.0))
    flags.define_settings(epochs=40, flip=True, selects=True, compares=True, omit=("train",))
    flags.define_sizes()


def main() -> None:
    """Train the grid on every file, and compare the files."""
    run_experiment("compare", make_stages, partial(render, pattern=FLAGS.names))


def make_stages() -> list[Stage]:
    """Return a stage with a sweep for each file and training size."""
    files = find_files()
    read_factors(files, FLAGS.names)
    sweep = flags.solver_sweep_from_flags("")
    named = [sweep._replace(name=name, file=name) for name in files]
    return [fixed_stage([sized for whole in named for sized in flags.sizes_from_flags(whole)])]


def render(folder: Path, results: Sequence[Result], data: Mapping[str, Data], pattern: str = "") -> Rendered:
    """Write compare.csv, draw the figures, and return the tables of the files and of the training sizes."""
    from experiments.artifacts import figures

    by_size: dict[int, dict[str, Result]] = {}
    for result in results:
        by_size.setdefault(result.about["size"], {})[result.about["file"]] = result
    largest = by_size[max(by_size)]
    paths = {name: Path(data[result.about["sweep"]].dataset.origin) for name, result in largest.items()}
    factors = read_factors(paths, pattern)
    finite = [name for name in largest if all(named[name].stayed_finite.any() for named in by_size.values())]
    if not finite:
        raise UsageError("every configuration of every file diverged: give lower values of --eta")
    comparisons = {size: compare({name: named[name] for name in finite}) for size, named in by_size.items()}
    rows = [
        (
            comparison.names[i], data[by_size[size][comparison.names[i]].about["sweep"]].size("train"),
            *comparison.accuracy[i][:3], comparison.selection.difference[i].mean,
            bool(comparison.selection.may_be_best[i]), *map(comparison.configs[i].get, AXES),
            *factors[comparison.names[i]].values(),
        )
        for size, comparison in comparisons.items()
        for i in tables.order_files(comparison)
    ]  # fmt: skip
    exports.write_csv(folder / COMPARE, [*exports.COMPARE_COLUMNS, *factors[finite[0]]], rows)
    comparison = comparisons[max(comparisons)]
    title = tables.interval_heading(results[0], False, tables.count_files(largest))
    drawn = {
        "compare": figures.plot_comparison(comparison, factors, title),
        "heatmap": figures.plot_factors(comparison, factors, title),
    }
    listed = [tables.comparison_table(comparison, largest, factors)]
    if len(comparisons) > 1:
        unit = tables.SHOTS if FLAGS.shots else tables.EXAMPLES
        drawn["sizes"] = figures.plot_sizes(comparisons, title, unit)
        listed.append(tables.sizes_table(comparisons, title, unit))
    return drawn, listed


if __name__ == "__main__":
    launch(define_flags, main)
