"""Axes, configurations, their grids, and the hyperparameters of a compiled program."""

import copy
import json
import math
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.config import AXES, Config, Hyperparams, check_configs, grid, stack_hyperparams


def test_a_configuration_is_a_mapping_with_attributes_and_defaults():
    config = Config(0.1, 100)
    assert (
        config == Config(eta=0.1, batch=100, lam=0.0) == Config(np.float64(0.1), np.int32(100), np.array(0))
    )
    assert list(config) == list(AXES)
    assert (config.eta, config["batch"], config.lam, config.get("gamma")) == (0.1, 100, 0.0, None)
    assert [type(value) for value in config.values()] == [int if name == "batch" else float for name in AXES]
    assert config.replace(eta=0.2).replace(eta=0.1) == config != config.replace(eta=0.2)
    with pytest.raises(AttributeError, match="there is no gamma: the hyperparameters are eta, batch, lam"):
        _ = config.gamma
    with pytest.raises(AttributeError):
        config.eta = 1.0


def test_further_axes_follow_by_name_and_come_back_from_json_and_pickles():
    config = Config(0.1, 100, zeta=-1, gamma=2)
    assert [*config][len(AXES) :] == ["gamma", "zeta"]
    assert (config.gamma, config.zeta) == (2.0, -1.0)
    for twin in (
        Config(zeta=-1, eta=0.1, gamma=2, batch=100),
        Config(**json.loads(json.dumps(dict(config)))),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
    ):
        assert twin == config
        assert {twin: 1}[config] == 1
    assert config != Config(0.1, 100)
    assert "eta" not in Config(gamma=2)  # as for a method that has no learning rate


def test_grid_is_every_combination_once():
    assert grid(lam=[4.0, 5.0], eta=[1.0, 2.0, 1.0], batch=[3]) == (
        Config(1.0, 3, 4.0),
        Config(1.0, 3, 5.0),
        Config(2.0, 3, 4.0),
        Config(2.0, 3, 5.0),
    )
    assert grid(eta=np.array([1.0]), batch=(2,), q=[0.5], momentum=iter([0.8, 0.9]), gamma=[7]) == (
        Config(1.0, 2, q=0.5, momentum=0.8, gamma=7.0),
        Config(1.0, 2, q=0.5, momentum=0.9, gamma=7.0),
    )


def test_an_empty_axis_is_named():
    with pytest.raises(ValueError, match="batch is empty"):
        grid(eta=[0.1], batch=[], lam=[0.0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("eta", -0.1, "eta is -0.1: give zero or a positive number"),
        ("eta", math.nan, "eta is nan: give zero or a positive number"),
        ("eta", math.inf, "eta is inf"),
        ("eta", True, "eta is True: give a number"),
        ("eta", np.ones(2), "eta is float64(2,): give a number"),
        ("lam", -1.0, "lam is -1.0"),
        ("batch", 0, "batch is 0: give a whole number, at least 1"),
        ("batch", 8.5, "batch is 8.5: give a whole number"),
        ("q", 1.5, "q is 1.5: give a number from 0 to 1 (0: cross-entropy, 1: mean absolute error)"),
        ("q", math.nan, "q is nan"),
        ("momentum", 1.0, "momentum is 1.0: give a number from 0 to below 1"),
        ("momentum", -0.1, "momentum is -0.1"),
        ("gamma", -math.inf, "gamma is -inf: give a finite number"),
        ("gamma", "2", "gamma is '2': give a number"),
    ],
)
def test_values_out_of_range_are_named_wherever_they_enter(name, value, message):
    for make in (
        lambda: Config(**{name: value}),
        lambda: grid(**{name: [value]}),
        lambda: Config(0.1, 1).replace(**{name: value}),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_what_gradient_descent_needs_is_checked():
    check_configs([Config(0.1, 100, gamma=-2.0)], 100, "float32")
    for config, message in {
        Config(0.1): "batch is missing among .*: give each Config one",
        Config(batch=1): "eta is missing",
        Config(0.1, 101): "batch is 101: the training set holds 100",
        Config(0.1, 1, gamma=-1e39): "gamma is -1e.39: give a number that float32 can hold",
        Config(0.1, 1, lam=1e-50): "lam is 1e-50: give a number that float32 can hold",
    }.items():
        with pytest.raises(ValueError, match=message):
            check_configs([config], 100, "float32")


def test_hyperparams_are_traced_by_name():
    stacked = stack_hyperparams(grid(eta=[0.1, 0.2], batch=[5], gamma=[3.0]))
    assert [*stacked] == ["eta", "lam", "q", "momentum", *[*stacked][4:-1], "gamma"]
    np.testing.assert_array_equal(stacked.eta, np.float32([0.1, 0.2]))
    assert stacked.gamma.dtype == jnp.float32

    @jax.jit
    def read(hyperparams):
        return hyperparams.replace(eta=2 * hyperparams.eta)

    doubled = read(stacked)
    np.testing.assert_array_equal(doubled.eta, 2 * stacked.eta)
    read(Hyperparams(**{name: jnp.ones(2, jnp.float32) for name in reversed([*stacked])}))
    assert read._cache_size() == 1  # neither values nor the order in which they are given count
    with pytest.raises(AttributeError, match="there is no batch: the hyperparameters are eta, lam, q"):
        read(stacked).batch  # noqa: B018
    assert Hyperparams(eta=0.1).lam == 0.0
