import pytest
from small_runs import SETTINGS

from experiments.cli.recipes import RECIPES
from experiments.improve import STEPS, select_steps
from experiments.runner.errors import UsageError


def selected_names(names):
    return [step.name for step in select_steps(names)]


def test_selected_steps_include_the_steps_they_are_compared_with():
    assert selected_names("flips") == ["data_batch_1", "flips"]
    assert selected_names("finer grid; flips") == [
        "data_batch_1", "full data", "flips", "full data, flips", "full data, flips, grid", "finer grid",
    ]  # fmt: skip
    assert selected_names("") == [step.name for step in STEPS]
    with pytest.raises(UsageError, match="there is no step 'flip'; the steps are: data_batch_1; full data"):
        select_steps("flip")


def test_each_step_is_compared_with_an_earlier_one():
    earlier = set()
    for step in STEPS:
        assert step.base is None or step.base in earlier
        assert step.name not in earlier
        earlier.add(step.name)


def test_the_last_step_is_the_best_recipe():
    best = STEPS[-1]
    assert best.changes["epochs"] == RECIPES["best"]["epochs"]
    assert {config.q for config in best.configs} == set(RECIPES["best"]["q"])


def test_steps_keep_the_types_of_the_settings():
    for step in STEPS:
        changed = SETTINGS._replace(**step.changes)
        for name, old, new in zip(SETTINGS._fields, SETTINGS, changed, strict=True):
            assert type(new) is type(old), (step.name, name)
