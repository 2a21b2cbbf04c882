import pytest
from test_results import SETTINGS

from experiments import improve
from experiments.improve import STEPS
from experiments.recipes import RECIPES
from experiments.shell import UsageError


def names(chosen):
    return [one.name for one in improve._chosen(chosen)]


def test_steps_come_with_what_they_are_compared_with():
    assert names("flips") == ["data_batch_1", "flips"]
    assert names("finer grid; flips") == [
        "data_batch_1", "full data", "flips", "full data, flips", "full data, flips, grid", "finer grid",
    ]  # fmt: skip
    assert names("") == [one.name for one in STEPS]
    with pytest.raises(UsageError, match="there is no 'flip'; there are: data_batch_1; full data"):
        improve._chosen("flip")


def test_a_step_is_compared_with_an_earlier_one():
    seen = set()
    for one in STEPS:
        assert one.base is None or one.base in seen
        assert one.name not in seen
        seen.add(one.name)


def test_the_last_steps_are_the_recipes():
    best = STEPS[-1]
    assert best.settings["epochs"] == RECIPES["best"]["epochs"]
    assert {config.q for config in best.configs} == set(RECIPES["best"]["q"])


def test_a_step_changes_settings_of_the_same_kind():
    for one in STEPS:
        changed = SETTINGS._replace(**one.settings)
        for name, before, after in zip(SETTINGS._fields, SETTINGS, changed, strict=True):
            assert type(after) is type(before), (one.name, name)
