"""Broken and hostile inputs, random mutations of genuine ones; those of `tests/fuzz.py` follow coverage."""

import json
import sys

import pytest
import targets
from absl import flags
from absl.testing import flagsaver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import bce, grid, improve, table1
from experiments.cli import experiment
from experiments.cli.recipes import apply_recipe
from experiments.runner.errors import UsageError
from linear_cifar.data.cifar10 import SIZES
from linear_cifar.schedules import SCHEDULES
from linear_cifar.training import Descent

FLAGS = flags.FLAGS
EXAMPLES = {"tfds": 60, "npy": 60, "safetensors": 100, "parquet": 100}


def repeatable(number):
    """Return hypothesis settings for this number of inputs, the same ones every time."""
    checks = list(HealthCheck)
    return settings(
        max_examples=number, deadline=None, database=None, derandomize=True, suppress_health_check=checks
    )


def mutated(genuine):
    """Mutate genuine bytes: cut, repeat, exchange or overwrite a few places."""
    place = st.integers(0, max(map(len, genuine)))
    edit = st.tuples(place, place, st.one_of(st.binary(max_size=8), st.just(None)))

    def apply(content, edits):
        for start, end, new in edits:
            start, end = sorted((start % (len(content) + 1), end % (len(content) + 1)))
            content = content[:start] + (
                content[start:end] * 2 if new is None else new + content[start + len(new) :]
            )
        return content

    cut = st.builds(lambda content, end: content[:end], st.sampled_from(genuine), place)
    return st.one_of(
        st.builds(apply, st.sampled_from(genuine), st.lists(edit, min_size=1, max_size=4)),
        cut,
        st.binary(max_size=99),
    )


@pytest.mark.parametrize("name", targets.TARGETS)
def test_any_file_is_read_or_refused_in_one_line(name, tmp_path):
    genuine, attempt = targets.TARGETS[name](tmp_path)

    @repeatable(EXAMPLES.get(name, 200))
    @given(mutated(genuine))
    def try_input(content):
        attempt(content)

    assert all(map(attempt, genuine))
    with targets.bounded():
        try_input()


NUMBERS = st.one_of(st.integers(-3, 10**6), st.floats(), st.integers()).map(str)
TEXTS = st.sampled_from(
    [
        "",
        "nan",
        "inf",
        "1e400",
        "-0",
        "0x10",
        "1_0",
        "٣",
        "true",
        "no",
        "bce",
        "cosine",
        "batch1",
        "best",
        "val",
        ":",
        "a:b",
        ",,",
    ]
)
VALUES = st.one_of(
    NUMBERS, TEXTS, st.lists(st.one_of(NUMBERS, TEXTS), max_size=4).map(",".join),
    st.lists(st.tuples(NUMBERS, NUMBERS).map(":".join), max_size=3).map(",".join), st.text(max_size=20),
)  # fmt: skip


@flagsaver.flagsaver()  # which forgets new flags
@pytest.mark.parametrize("module", [grid, table1, bce, improve], ids=lambda module: module.__name__)
def test_any_flags_make_a_run_or_are_refused(module, monkeypatch):
    other_flags = set(FLAGS)
    monkeypatch.setattr(sys, "argv", [module.__name__])
    made = 0

    def check_run(name, make_stages, render, keep=None):
        nonlocal made
        for sweep in make_stages()[0].choose(()):
            experiment.check_sweep(sweep, SIZES)
            json.dumps([sweep.settings, experiment._flag_values()], allow_nan=False)
            options = sweep.settings.fit_options((3, 32, 32))
            descent = Descent(**{name: options[name] for name in Descent._fields})
            assert descent.spec
            assert descent.initializer(4, 3)
            # Of the first epoch only: a billion epochs would take hours.
            assert 0 < SCHEDULES[descent.schedule](descent.epochs)(0) <= 1
        made += 1

    monkeypatch.setattr(module, "run_experiment", check_run)
    module.define_flags()
    names = sorted(set(FLAGS) - other_flags)
    flag = st.tuples(st.sampled_from([*names, "lamda"]), VALUES).map(lambda pair: f"--{pair[0]}={pair[1]}")

    @repeatable(200)
    @given(st.lists(flag, min_size=1, max_size=3))
    def try_flags(words):
        with flagsaver.flagsaver():
            try:
                FLAGS([module.__name__, *words])
                apply_recipe()
                module.main()
            except (flags.Error, UsageError) as error:
                assert str(error)

    with targets.bounded():
        try_flags()
    assert made > 5
