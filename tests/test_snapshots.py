import functools
import os
import sys
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_sweep
from small_sweep import CONFIGS, SEEDS, TRAIN

import linear_cifar as lc
from linear_cifar.identity import name_function, name_loss
from linear_cifar.npz import FileError, read_npz, write_npz
from linear_cifar.replicates import identify_replicate

DOUBLED = CONFIGS[3].replace(eta=0.6)
STANDARDIZER = lc.Standardizer(np.full(6, 0.1), np.full(6, 2.0))


def decaying_heavy_ball(hyperparams):
    """Return an optimizer whose state has arrays of several shapes and types: a velocity and a counter."""

    def factor(count):
        return -hyperparams.eta / (1 + count.astype(hyperparams.eta.dtype))

    return optax.chain(optax.trace(decay=0.9), optax.scale_by_schedule(factor))


def add_noise(key, features, scale=0.1):
    return features + scale * jax.random.normal(key, features.shape, features.dtype)


DECAYING = {"optimizer": decaying_heavy_ball, "average": 4}


def last(epochs):
    return epochs[-1].snapshot()


def with_settings(snapshot, **settings):
    """Return a snapshot of another sweep."""
    identity = snapshot.identity
    return snapshot._replace(identity=identity._replace(settings={**identity.settings, **settings}))


def assert_same_bits(snapshot, expected):
    assert snapshot.identity == expected.identity
    assert snapshot.number == expected.number
    leaves = [jax.tree.leaves(state[1:]) for state in (snapshot, expected)]
    for ours, theirs in zip(*leaves, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def assert_same_runs(snapshot, expected):
    assert snapshot.identity == expected.identity
    assert snapshot.number == expected.number
    leaves = [jax.tree.leaves(state[1:]) for state in (snapshot, expected)]
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def epochs():
    return small_sweep.run(epochs=4)


@pytest.fixture(scope="module")
def snapshot(epochs):
    """Two epochs of all runs, from a sweep that was to have four."""
    return epochs[1].snapshot()


def test_a_snapshot_comes_back_from_a_file_bit_for_bit(tmp_path):
    made = last(small_sweep.run(epochs=4, **DECAYING))
    assert {leaf.dtype.name for leaf in made.opt_state} == {"float64", "int32"}
    assert not np.array_equal(made.averaged.W, made.params.W)
    made.save(tmp_path / "probe.npz")
    lc.load_snapshot(str(tmp_path / "probe.npz")).save(str(tmp_path / "again.npz"))
    assert_same_bits(lc.load_snapshot(tmp_path / "again.npz"), made)


@pytest.mark.parametrize("name", ["probe", "probe.ckpt", "probe.npz", ".probe", "a.b.c", "猫"])
def test_a_snapshot_has_exactly_the_name_that_it_was_given(name, snapshot, tmp_path):
    for _ in range(2):
        snapshot.save(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
        assert_same_bits(lc.load_snapshot(tmp_path / name), snapshot)


def test_a_failed_save_leaves_nothing(snapshot, tmp_path):
    (tmp_path / "probe").mkdir()
    with pytest.raises(OSError, match="directory"):
        snapshot.save(tmp_path / "probe")
    assert os.listdir(tmp_path) == ["probe"]


def test_a_snapshot_may_have_numbers_of_numpy(tmp_path):
    configs = [lc.Config(np.float32(config.eta), np.int64(8), np.float64(config.lam)) for config in CONFIGS]
    seeds = [lc.Replicate(np.int64(7), np.int64(0)), lc.Replicate(8, 1)]
    made = last(small_sweep.run(configs, epochs=1, seeds=seeds))
    made.save(tmp_path / "probe.npz")
    assert_same_bits(lc.load_snapshot(tmp_path / "probe.npz"), made)
    small_sweep.start(configs, epochs=2, seeds=seeds, resume_from=made)


@pytest.mark.parametrize("options", [DECAYING, {"schedule": lc.SCHEDULES["cosine"]}])
def test_a_resumed_sweep_has_the_same_bits_as_an_uninterrupted_one(options, tmp_path):
    configs = lc.grid(eta=[1.0, 2.0], batch=[8], lam=[0.0, 0.1])  # at this η rounding errors would grow
    straight = small_sweep.run(configs, epochs=5, **options)
    for number in (1, 3):
        straight[number - 1].snapshot().save(tmp_path / "probe.npz")
        resumed_from = lc.load_snapshot(tmp_path / "probe.npz")
        assert resumed_from.number == number
        resumed = small_sweep.run(configs, epochs=5, resume_from=resumed_from, **options)
        assert [epoch.number for epoch in resumed] == list(range(number + 1, 6))
        assert_same_bits(last(resumed), last(straight))
        for ours, expected in zip(resumed, straight[number:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, ours.metrics, expected.metrics)


def test_nothing_is_left_to_train_after_the_last_epoch(epochs):
    assert small_sweep.run(epochs=4, resume_from=last(epochs)) == []


def other_examples():
    features = np.array(TRAIN.features)
    features[39, 5] += 1e-9
    return lc.Examples(features, TRAIN.targets)


def with_rows(count):
    return [lc.Replicate(seed, rows=np.arange(count)) for seed in SEEDS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"configs": CONFIGS[::-1]}, "fewer configurations or replicates, or another order of them"),
        ({"configs": [*CONFIGS, DOUBLED]}, "fewer configurations or replicates, or another order of them"),
        (
            {"configs": [*CONFIGS[:3], CONFIGS[3].replace(eta=0.31)]},
            "the configuration eta=0.3 .*, which is left out",
        ),
        ({"configs": CONFIGS[:2]}, "eta 0.3, which is left out here"),
        ({"seeds": [7, 4]}, "seed 3, which is left out here"),
        ({"seeds": [7]}, "seed 3, which is left out here"),
        ({"seeds": [3, 7]}, "fewer configurations or replicates, or another order of them"),
        ({"seeds": with_rows(40)}, "the replicate seed 7, other rows, which is left out here"),
        ({"train": other_examples()}, "other data: training examples classes .*, not classes "),
        ({"train": lc.Examples(TRAIN.features, TRAIN.targets[:, ::-1])}, "other data: training examples"),
        ({"standardizer": STANDARDIZER}, "other data: standardizer none, not "),
        ({"loss": "bce"}, "loss softmax, not bce"),
        ({"optimizer": lc.heavy_ball}, "optimizer sgd, not heavy_ball"),
        (
            {"optimizer": lambda hyperparams: lc.sgd(hyperparams)},
            r"optimizer sgd, not <test_snapshots\.<lambda>",
        ),
        ({"augment": add_noise}, r"augment none, not test_snapshots\.add_noise"),
        ({"shuffle": False}, "shuffle True, not False"),
        ({"precision": "tensorfloat32"}, "precision float32, not tensorfloat32"),
        ({"schedule": lc.SCHEDULES["cosine"]}, "another schedule or averaging"),
        ({"average": 4}, "another schedule or averaging"),
        ({"epochs": 1}, "epochs 2, not 1"),
    ],
)
def test_a_snapshot_of_something_else_is_refused(snapshot, options, message):
    small_sweep.start(epochs=4, resume_from=snapshot)
    with pytest.raises(ValueError, match=f"the snapshot is of another sweep: it has {message}") as raised:
        small_sweep.start(**{"epochs": 4, **options}, resume_from=snapshot)
    assert "\n" not in str(raised.value)


def test_examples_of_another_shape_are_refused(snapshot):
    train = lc.Examples(TRAIN.features[:, :5], TRAIN.targets)
    with pytest.raises(ValueError, match=r"the weights are \(3, 6\): these examples need \(3, 5\)"):
        lc.sweep(CONFIGS, train, {}, epochs=4, seeds=SEEDS, resume_from=snapshot)


def test_the_arguments_of_an_augmentation_are_part_of_a_snapshot(snapshot):
    weak, strong = (lc.chain([partial(add_noise, scale=scale), add_noise]) for scale in (0.1, 0.2))
    with_noise = with_settings(snapshot, augment=name_function(weak))
    small_sweep.start(epochs=4, augment=weak, resume_from=with_noise)
    with pytest.raises(ValueError, match=r"it has augment .*scale=0\.1.*, not .*scale=0\.2"):
        small_sweep.start(epochs=4, augment=strong, resume_from=with_noise)


def test_rows_and_standardisers_of_a_replicate_are_part_of_a_snapshot(snapshot):
    seeds = [lc.Replicate(3, fold, np.arange(20) + fold, STANDARDIZER) for fold in (0, 1)]
    replicates = tuple(map(identify_replicate, seeds))
    of_folds = snapshot._replace(identity=snapshot.identity._replace(replicates=replicates))
    small_sweep.start(epochs=4, seeds=seeds, resume_from=of_folds)
    for change in (
        {"rows": np.arange(2, 22)},
        {"fold": 2},
        {"standardizer": STANDARDIZER._replace(mean=np.full(6, 0.2))},
    ):
        with pytest.raises(ValueError, match="the replicate seed 3, fold 1, other rows, which is left out"):
            small_sweep.start(epochs=4, seeds=[seeds[0], seeds[1]._replace(**change)], resume_from=of_folds)


def test_more_epochs_follow_a_constant_learning_rate(snapshot, epochs):
    longer = small_sweep.run(epochs=6, resume_from=snapshot)
    assert [epoch.number for epoch in longer] == [3, 4, 5, 6]
    assert_same_bits(longer[1].snapshot(), last(epochs))


@pytest.mark.parametrize(
    ("options", "done"),
    [({"schedule": lc.SCHEDULES["cosine"]}, 2), ({"schedule": lc.SCHEDULES["step"]}, 3), ({"average": 2}, 4)],
)
def test_more_epochs_are_refused_where_the_epochs_so_far_depend_on_their_number(options, done):
    made = small_sweep.run(epochs=4, **options)[done - 1].snapshot()
    small_sweep.start(epochs=4, resume_from=made, **options)
    with pytest.raises(ValueError, match="another schedule or averaging of its epochs") as raised:
        small_sweep.start(epochs=6, resume_from=made, **options)
    assert "\n" not in str(raised.value)


def test_more_epochs_are_possible_where_averaging_has_not_begun():
    made = small_sweep.run(epochs=4, average=2)[1].snapshot()
    longer = small_sweep.run(epochs=6, average=2, resume_from=made)
    assert_same_bits(last(longer), last(small_sweep.run(epochs=6, average=2)))


def test_survivors_train_further_as_they_would_have_in_the_full_sweep(snapshot, epochs):
    survivors = snapshot.take(replicates=[1, 0], configs=[3, 1])
    assert survivors.identity.configs == (CONFIGS[3], CONFIGS[1])
    resumed = small_sweep.run([CONFIGS[3], CONFIGS[1]], epochs=4, seeds=[3, 7], resume_from=survivors)
    assert_same_runs(last(resumed), last(epochs).take([1, 0], [3, 1]))
    np.testing.assert_allclose(
        resumed[-1].metrics["val_loss"],
        epochs[-1].metrics["val_loss"][::-1, [3, 1]],
        rtol=1e-9,
    )


def test_configurations_that_are_stopped_keep_their_history_only(snapshot, epochs):
    halved = snapshot.stop([2, 0])
    assert halved.alive == [1, 3]
    assert halved.stopped.tolist() == [[2, 0, 2, 0]] * 2
    assert halved.params.W.shape[:2] == (2, 2)
    resumed = small_sweep.run(epochs=4, resume_from=halved)
    for name, expected in last(epochs).history.items():
        ours = last(resumed).history[name]
        np.testing.assert_allclose(ours[:, :, [1, 3]], expected[:, :, [1, 3]], rtol=1e-9)
        np.testing.assert_array_equal(ours[:2], expected[:2])
        assert np.isnan(ours[2:, :, [0, 2]]).all()
    assert not last(resumed).diverged.any()
    np.testing.assert_allclose(
        resumed[-1].params().W, epochs[-1].params().W[:, [1, 3]], rtol=1e-9, atol=1e-12
    )


def test_taking_and_files_keep_what_is_stopped(snapshot, tmp_path):
    halved = snapshot.stop([2])
    halved.save(tmp_path / "halved")
    assert_same_bits(lc.load_snapshot(tmp_path / "halved"), halved)
    taken = halved.take(configs=[3, 2])
    assert taken.alive == [0]
    np.testing.assert_array_equal(taken.params.W, snapshot.params.W[:, [3]])
    assert_same_bits(halved.take(configs=[1, 3]), snapshot.take(configs=[1, 3]))


def test_taking_selects_runs_by_their_indices(snapshot):
    taken = snapshot.take(configs=[2])
    assert taken.identity.replicates == snapshot.identity.replicates
    np.testing.assert_array_equal(taken.params.W, snapshot.params.W[:, [2]])
    np.testing.assert_array_equal(snapshot.take(replicates=[1]).averaged.b, snapshot.averaged.b[[1]])
    assert_same_bits(snapshot.take(), snapshot)
    for indices in ({"configs": [4]}, {"replicates": [2]}):
        with pytest.raises(IndexError):
            snapshot.take(**indices)


@pytest.mark.parametrize("axis", ["configs", "replicates"])
def test_joined_snapshots_train_further_as_one_sweep(axis, snapshot, epochs):
    if axis == "configs":
        parts = [small_sweep.run(part, epochs=2) for part in (CONFIGS[:2], CONFIGS[2:])]
    else:
        parts = [small_sweep.run(epochs=2, seeds=[seed]) for seed in SEEDS]
    joined = lc.join_snapshots([last(part) for part in parts])
    assert_same_runs(joined, snapshot)
    assert_same_runs(last(small_sweep.run(epochs=4, resume_from=joined)), last(epochs))


def test_joining_undoes_taking(snapshot):
    by_config = [snapshot.take(configs=part) for part in ([0], [1, 2], [3])]
    assert_same_bits(lc.join_snapshots(by_config), snapshot)
    by_replicate = [snapshot.take(replicates=[s]) for s in (0, 1)]
    assert_same_bits(lc.join_snapshots(by_replicate), snapshot)
    swapped = lc.join_snapshots(by_replicate[::-1])
    assert_same_bits(swapped, snapshot.take(replicates=[1, 0]))
    assert_same_bits(lc.join_snapshots([snapshot]), snapshot)


def test_snapshots_that_do_not_belong_together_are_not_joined(snapshot, epochs):
    second = snapshot.take(configs=[1])

    def changed(**values):
        return second._replace(identity=second.identity._replace(**values))

    first = snapshot.take(configs=[0])
    for others, message in [
        (
            [snapshot.take(replicates=[0], configs=[1])],
            "share neither their replicates nor",
        ),
        ([epochs[2].snapshot().take(configs=[1])], "of different sweeps or epochs"),
        ([changed(data={"": "0" * 64})], "of different sweeps or epochs"),
        ([with_settings(second, loss="bce")], "of different sweeps or epochs"),
        ([with_settings(second, optimizer="adam")], "of different sweeps or epochs"),
        ([changed(epochs=((0.5, 1), (0.5, 1)))], "of different sweeps or epochs"),
        ([snapshot.take(configs=[1, 0])], "have some configs in common"),
        ([first], "have some replicates in common"),
    ]:
        with pytest.raises(ValueError, match=message) as raised:
            lc.join_snapshots([first, *others])
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="there are no snapshots to join"):
        lc.join_snapshots([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, content: arrays.pop("averaged.b"), "averaged.b"),
        (lambda arrays, content: arrays.update({"params.W": arrays["params.W"][:, 1:]}), "W is float64"),
        (lambda arrays, content: arrays.update({"params.b": np.float32(arrays["params.b"])}), "b is float32"),
        (lambda arrays, content: arrays.update({"opt_state.0": np.zeros((1, 4))}), "optimizer's state"),
        (lambda arrays, content: arrays.pop("history.val_acc"), "its history has other columns"),
        (
            lambda arrays, content: arrays.update({"history.W_norm": np.zeros(3)}),
            r"W_norm is float64\[3\], not",
        ),
        (lambda arrays, content: arrays.update(stopped=np.zeros((2, 4))), "stopped is float64"),
        (lambda arrays, content: arrays.update(stopped=np.eye(2, 4, dtype=np.int64)), "W is float64"),
        (lambda arrays, content: content["identity"]["epochs"].pop(), "is float64"),
        (lambda arrays, content: content["identity"].update(format=99), "99"),
        (lambda arrays, content: content["identity"].pop("settings"), "settings"),
        (lambda arrays, content: content["identity"]["settings"].pop("dtype"), "dtype"),
        (lambda arrays, content: content["identity"]["configs"][0].__setitem__(0, -1), "eta is -1"),
        (lambda arrays, content: content["identity"].update(configs="\n\n"), "snapshot"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(change, message, snapshot, tmp_path):
    path = tmp_path / "probe.npz"
    snapshot.save(path)
    arrays, content = read_npz(path)
    change(arrays, content)
    write_npz(path, arrays, content)
    with pytest.raises(FileError, match=message) as raised:
        lc.load_snapshot(path)
    assert str(raised.value).startswith(f"{path} does not hold a snapshot: ")
    assert "\n" not in str(raised.value)


def scaled(scale):
    """Return an optimizer that no name tells from its siblings."""

    def optimizer(hyperparams):
        return optax.sgd(scale * hyperparams.eta)

    return optimizer


def named_sgd(scale):
    """Return an optimizer that has the name of the built-in one."""

    @functools.wraps(lc.sgd)
    def optimizer(hyperparams):
        return optax.sgd(scale * hyperparams.eta)

    return optimizer


class Noise:
    """An augmentation that depends on what the object holds."""

    def __call__(self, key, features):
        return features

    def add(self, key, features):
        return features


def apply(key, features, function):
    return function(key, features)


def shift_by(key, features, offsets):
    return features + offsets


def own_softmax(logits, y):
    return jnp.sum(y * (jax.nn.logsumexp(logits) - logits))


OTHER_LOSS = lc.Loss.from_value("own", lambda logits, y: jnp.sum(y * logits))
OWN_LOSS = lc.Loss.from_value("own", own_softmax)


@pytest.mark.parametrize(
    ("argument", "first", "second"),
    [
        ("optimizer", lambda h: optax.sgd(h.eta), lambda h: optax.sgd(2 * h.eta)),
        ("optimizer", scaled(1), scaled(2)),
        ("optimizer", partial(scaled(1)), partial(scaled(2))),
        ("optimizer", named_sgd(1), named_sgd(2)),
        ("augment", Noise(), Noise()),
        ("augment", Noise().add, Noise().add),
        ("augment", partial(apply, function=Noise()), partial(apply, function=Noise())),
        ("loss", OTHER_LOSS, lc.Loss.from_value("own", lambda logits, y: jnp.sum(-y * logits))),
        ("loss", OTHER_LOSS, OTHER_LOSS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_snapshot_cannot_tell_apart_is_not_resumed(argument, first, second, snapshot):
    name = name_loss(first) if argument == "loss" else name_function(first)
    taken = with_settings(snapshot, **{argument: name})
    with pytest.raises(
        ValueError, match=rf"{argument} is .*<.*, which cannot be told from .*: define it at the top level"
    ):
        small_sweep.start(**{"epochs": 4, argument: second}, resume_from=taken)


def test_functions_at_the_top_level_of_a_module_are_told_apart():
    small, large = (partial(shift_by, offsets=offset * np.ones(6)) for offset in (0.0, 1.0))
    long = [partial(shift_by, offsets=np.where(np.arange(5_000) == i, 1.0, 0.0)) for i in (2_000, 3_000)]
    assert len({name_function(function) for function in (small, large, *long, shift_by, add_noise)}) == 6
    snapshot = next(small_sweep.start(augment=small, loss=OWN_LOSS)).snapshot()
    resumed = small_sweep.run(augment=small, loss=OWN_LOSS, resume_from=snapshot)
    expected = small_sweep.run(augment=small, loss=OWN_LOSS)
    assert_same_bits(last(resumed), last(expected))
    with pytest.raises(ValueError, match=r"it has augment .*shift_by"):
        small_sweep.start(augment=large, loss=OWN_LOSS, resume_from=snapshot)
    with pytest.raises(ValueError, match=r"it has loss own\(.*own_softmax.*, not softmax"):
        small_sweep.start(augment=small, resume_from=snapshot)


def test_built_in_functions_have_short_names():
    names = [name_function(f) for f in (lc.sgd, lc.adamw, partial(lc.horizontal_flip, p=0.5))]
    assert names == ["sgd", "adamw", "horizontal_flip(p=0.5)"]


def test_a_function_that_a_notebook_defines_again_is_another_one(monkeypatch):
    names = []
    for scale in ("1", "2", "1"):
        program = f"def own(h):\n  return [lambda g: {scale} * g for _ in h]"
        main = types.ModuleType("__main__")
        exec(program, vars(main))
        monkeypatch.setitem(sys.modules, "__main__", main)
        names.append(name_function(main.own))
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("__main__.own[")


def half_adam(hyperparams):
    return optax.adam(hyperparams.eta, mu_dtype=jnp.bfloat16)


def test_a_state_of_bfloat16_comes_back_from_a_file(tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        snapshot = next(small_sweep.start(optimizer=half_adam)).snapshot()
        snapshot.save(tmp_path / "half")
        assert_same_bits(lc.load_snapshot(tmp_path / "half"), snapshot)
        small_sweep.start(optimizer=half_adam, resume_from=lc.load_snapshot(tmp_path / "half"))
