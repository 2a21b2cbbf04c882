import time

import jax
import jax.numpy as jnp
import pytest

from experiments.cli.clock import PHASES, Clock, measure_union


def test_each_moment_counts_to_one_phase():
    started = time.perf_counter()
    clock = Clock()
    earlier = sum(clock.seconds.values())
    time.sleep(0.02)
    assert 0.02 <= clock.count("data") == clock.seconds["data"]
    clock.count("training")
    passed = time.perf_counter() - started
    assert sum(clock.seconds.values()) - earlier == pytest.approx(passed, abs=0.01)
    assert tuple(clock.seconds) == PHASES


def test_compiling_is_not_counted_as_training():
    clock = Clock()
    jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))(jnp.ones((4, 4))).block_until_ready()
    clock.count("training")
    assert clock.seconds["compiling"] > 0
    compiled = clock.seconds["compiling"]
    clock.count("training")
    assert clock.seconds["compiling"] == compiled  # counted once


def test_the_line_leaves_out_what_took_no_time():
    clock = Clock()
    clock.seconds = dict.fromkeys(PHASES, 0.0) | {"data": 0.84, "training": 61.26}
    assert str(clock) == "62.1 s: data 0.8, training 61.3"


def test_programs_that_compile_side_by_side_are_counted_once():
    assert measure_union([(0, 4), (1, 2), (1.5, 5), (7, 8)]) == 6
    assert measure_union([]) == 0
