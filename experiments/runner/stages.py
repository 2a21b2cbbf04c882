"""The stages of an experiment, one after another, each of which trains named sweeps.

A stage looks at the results so far and says what to train next. A grid is one stage. Training its best
configurations again on more data is a second one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.runner.settings import SGD, Settings
from linear_cifar.config import Config
from linear_cifar.data.prepare import Data
from linear_cifar.fitting import fit, solve
from linear_cifar.result import Result

# Name of the sweep that trains the best configurations again.
REFIT = "refit"


class Sweep(NamedTuple):
    """A named sweep of an experiment: configurations to train from some seeds with the same settings."""

    name: str
    settings: Settings
    seeds: tuple[int, ...]
    configs: tuple[Config, ...]
    file: str = ""  # name of the file to train on, of several; see `experiments.cli.source.find_files`

    def train(self, data: Data, **options: Any) -> Result:
        """Train this sweep by `fit`, or by `solve`; the options are those that both have."""
        arguments = self.fit_arguments(data) | options
        if self.settings.solver == SGD:
            return fit(**arguments)
        return solve(arguments.pop("configs"), replicates=arguments.pop("seeds"), **arguments)

    def fit_arguments(self, data: Data) -> dict[str, Any]:
        """Return the arguments with which `fit` trains this sweep, and words for its result."""
        dataset = data.dataset
        about = {
            "sweep": self.name,
            "dataset": dataset.name,
            "label": dataset.label,
            "classes": list(dataset.classes),
            "image_shape": dataset.image_shape and list(dataset.image_shape),
            "standardize": self.settings.standardize,
            "fingerprint": dataset.fingerprint,
            "bracket": self.settings.bracket,
            "file": self.file,
            "size": self.settings.train_size or self.settings.shots,
        }
        return {
            "configs": self.configs,
            "train": data.sets["train"],
            "evaluation_sets": data.sets,
            "seeds": data.replicates(self.seeds),
            "standardizer": data.standardizer,
            "about": about,
            **self.settings.fit_options(dataset.image_shape),
        }


class Stage(NamedTuple):
    """One stage of an experiment.

    `sweep_names` are the names its sweeps may have, so that a folder with other sweeps is refused before
    anything is trained. `choose` maps the results of the earlier stages to the sweeps to train. If it returns
    none, the experiment ends.
    """

    sweep_names: tuple[str, ...]
    choose: Callable[[Sequence[Result]], Sequence[Sweep]]


def fixed_stage(sweeps: Sequence[Sweep]) -> Stage:
    """Return a stage that trains these sweeps, whatever came before."""
    return Stage(tuple(sweep.name for sweep in sweeps), lambda results: sweeps)


def refit_stage(sweep: Sweep, count: int) -> Stage:
    """Return a stage that trains the best configurations of a sweep again, on all training examples.

    They are trained from every seed of the sweep. There are no folds and no validation split, because the
    configurations are chosen already.

    Args:
      sweep: sweep of the stage before.
      count: number of configurations to train, best first; those that diverged are left out.
    """

    def choose(results: Sequence[Result]) -> list[Sweep]:
        (result,) = results
        chosen = [result.configs[c] for c in result.ranking()[:count] if result.stayed_finite[c]]
        evaluate = tuple(name for name in sweep.settings.evaluate if name != "val")
        settings = sweep.settings._replace(
            folds=0, val_size=0, evaluate=evaluate, halving=0, rungs=(), bracket=0
        )
        return [sweep._replace(name=REFIT, settings=settings, configs=tuple(chosen))] if chosen else []

    return Stage((REFIT,), choose)
