"""The result of a sweep: its parts, files, tables, choices and predictions."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import small_sweep
from small_sweep import CONFIGS, SEEDS, TRAIN, VAL, D, K, N

import linear_cifar as lc
from linear_cifar.npz import FileError, read_npz, write_npz
from linear_cifar.result import choose_set
from linear_cifar.uncertainty import interval_over_seeds

DIVERGING = lc.Config(1.0, 8, 1e30 / 2)
ALL_CONFIGS = (*CONFIGS, DIVERGING)
TEST = lc.Examples(np.asarray(VAL.features) + 0.1, np.asarray(VAL.targets))
SETS = {"train": TRAIN, "val": VAL, "test": TEST}
STANDARDIZER = lc.Standardizer(np.full(D, 0.1), np.linspace(1.0, 2.0, D))
FOLDS = np.arange(N).reshape(2, -1)


def fit(configs=ALL_CONFIGS, seeds=SEEDS, sets=SETS, **options):
    defaults = {"epochs": 3, "init": small_sweep.init, "per_epoch": ["val"], "standardizer": STANDARDIZER}
    return lc.fit(configs, TRAIN, sets, seeds=seeds, **defaults | options)


@pytest.fixture(scope="module")
def result():
    return fit(about={"label": "small"})


@pytest.fixture(scope="module")
def folds():
    """Two seeds of two folds, each measured on the rows that it does not train on."""
    replicates = [
        lc.Replicate(
            seed,
            fold,
            FOLDS[1 - fold],
            lc.Standardizer(np.full(D, float(fold)), np.full(D, 2.0)),
            {"held_out": FOLDS[fold]},
        )
        for seed in (5, 6)
        for fold in (0, 1)
    ]
    return fit(CONFIGS, replicates, {"held_out": TRAIN}, per_epoch=["held_out"], standardizer=None)


def assert_equal(result, expected):
    """Compare all fields, arrays bit for bit."""
    leaves, structure = jax.tree.flatten(list(vars(result).values()))
    wanted, expected_structure = jax.tree.flatten(list(vars(expected).values()))
    assert structure == expected_structure
    for leaf, other in zip(leaves, wanted, strict=True):
        if isinstance(other, np.ndarray):
            assert leaf.dtype == other.dtype
            np.testing.assert_array_equal(leaf, other)
        else:
            assert leaf == other


# ---- parts


def test_taking_selects_runs_by_their_indices(result):
    taken = result.take(configs=[3, 1], replicates=[1])
    assert taken.configs == (CONFIGS[3], CONFIGS[1])
    assert taken.seeds == (SEEDS[1],)
    for group in ("history", "final", "marks"):
        for name, values in getattr(result, group).items():
            axis = 1 if group == "history" else 0
            expected = np.take(np.take(values, [1], axis), [3, 1], axis + 1)
            np.testing.assert_array_equal(getattr(taken, group)[name], expected)
    np.testing.assert_array_equal(taken.params().W, result.params().W[[1]][:, [3, 1]])
    assert taken.weights.replicates.tolist() == [0, 0]
    assert taken.weights.configs.tolist() == [0, 1]
    assert_equal(result.take(), result)
    assert_equal(result.take(configs=[-1]), result.take(configs=[4]))
    for indices in ({"configs": [5]}, {"replicates": [2]}):
        with pytest.raises(IndexError):
            result.take(**indices)
    with pytest.raises(ValueError, match="give a list of indices"):
        inspect.unwrap(lc.Result.take)(result, configs=result.stayed_finite)


def test_joining_undoes_taking(result, folds):
    for whole in (result, folds):
        S, C = whole.identity.size
        parts = [whole.take([C - 1], range(S)), *(whole.take(range(C - 1), [s]) for s in reversed(range(S)))]
        assert_equal(lc.Result.join(parts, whole.identity), whole)


def test_runs_of_no_part_are_not_begun(result):
    joined = lc.Result.join([result.take([0, 1], [0]), result.take([1], [1])], result.identity)
    assert joined.epochs.tolist() == [[3, 3, 0, 0, 0], [0, 3, 0, 0, 0]]
    assert not joined.complete
    for values in joined.final.values():
        np.testing.assert_array_equal(np.isnan(values), joined.epochs == 0)
    assert len(joined.to_frame()) == 3
    np.testing.assert_array_equal(joined.params(1, SEEDS[1]).W, result.params(1, SEEDS[1]).W)
    with pytest.raises(KeyError, match="configuration 0, seed 3 were not kept"):
        joined.params(0, SEEDS[1])


def test_a_part_of_an_older_version_has_fewer_measurements(result):
    old, new = result.take([0, 1]), result.take([2, 3])
    new = dataclasses.replace(new, final=new.final | {"val_top5": new.final["val_acc"]})
    for parts in ([old, new], [new, old]):
        assert lc.Result.join(parts, result.identity).final.keys() == result.final.keys()


def test_fewer_weights_are_kept_on_request(result):
    assert result.keep("all") is result
    accuracy = np.nan_to_num(result.final["val_acc"], nan=-1)
    kept = result.keep("per_config").weights
    assert sorted(kept.configs.tolist()) == list(range(5))
    for replicate, config in zip(kept.replicates, kept.configs, strict=True):
        assert replicate == accuracy[:, config].argmax()
    best = result.keep("best")
    index = result.best().index
    assert (best.weights.replicates.tolist(), best.weights.configs.tolist()) == (
        [accuracy[:, index].argmax()],
        [index],
    )
    np.testing.assert_array_equal(best.predict(VAL.features), result.predict(VAL.features))


# ---- files


@pytest.mark.parametrize("name", ["result", "folds"])
def test_a_result_comes_back_from_a_file_bit_for_bit(name, request, tmp_path):
    made = request.getfixturevalue(name)
    made.save(tmp_path / "a.npz")
    assert_equal(lc.Result.load(str(tmp_path / "a.npz")), made)
    without = lc.Result.load(tmp_path / "a.npz", weights=False)
    assert len(without.weights.configs) == 0
    assert without.weights.params.W.shape == (0, K, D)
    for column, values in made.final.items():
        np.testing.assert_array_equal(without.final[column], values)


def test_a_damaged_file_is_refused(result, tmp_path):
    path = tmp_path / "a.npz"
    result.save(path)
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:-1],
        content[:500] + bytes([content[500] ^ 1]) + content[501:],
        content + b"\0",
    ):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"a\.npz cannot be read"):
            lc.Result.load(path)
    with pytest.raises(FileNotFoundError):
        lc.Result.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, _: arrays.pop("diverged"), "diverged"),
        (lambda arrays, _: arrays.pop("history.W_norm"), "its history has other columns"),
        (lambda arrays, _: arrays.update({"final.val_acc": np.zeros(3)}), r"val_acc is float64\[3\], not"),
        (lambda arrays, _: arrays.update(epochs=np.zeros((2, 5))), "epochs is float64"),
        (
            lambda arrays, _: arrays.update({"marks.val": np.zeros((2, 5, 2), np.uint8)}),
            r"val is uint8\[2, 5, 2\]",
        ),
        (lambda arrays, _: arrays.update({"marks.other": arrays["marks.val"]}), "other"),
        (lambda arrays, _: arrays.update({"weights.configs": np.full(10, 5)}), "weights of other runs"),
        (lambda arrays, _: arrays.update({"weights.W": np.zeros((9, K, D))}), "W is float64"),
        (lambda arrays, _: arrays.update({"standardizer.mean": np.zeros((5, D))}), "mean is float64"),
        (lambda _, content: content.pop("identity"), "identity"),
        (lambda _, content: content.pop("about"), "about"),
        (lambda _, content: content.update(sizes=3), "a result"),
        (lambda _, content: content.update(sizes={"val": "\n\n"}), "a result"),
        (lambda _, content: content["identity"]["settings"].update(K=4), "W is float64"),
        (lambda _, content: content["identity"]["settings"].pop("dtype"), "dtype"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(change, message, result, tmp_path):
    path = tmp_path / "a.npz"
    result.save(path)
    arrays, content = read_npz(path)
    change(arrays, content)
    write_npz(path, arrays, content)
    with pytest.raises(FileError, match=message) as raised:
        lc.Result.load(path)
    assert str(raised.value).startswith(f"{path} does not hold a result: ")
    assert "\n" not in str(raised.value)


# ---- tables


def test_a_frame_has_a_row_per_run(result, folds):
    frame = result.to_frame()
    assert list(frame.columns) == [
        "eta", "batch", "lam", "q", "momentum", "smoothing", "seed", "fold", "epochs", "train_loss",
        "train_acc", "val_loss", "val_acc", "val_class_acc", "test_loss", "test_acc", "test_class_acc",
        "diverged", "stopped",
    ]  # fmt: skip
    assert len(frame) == 10
    row = frame[(frame.seed == 3) & (frame.eta == 0.3) & (frame.lam == 0.1)]
    assert row.val_acc.item() == result.final["val_acc"][1, 3]
    assert frame[frame.eta == 1.0].diverged.tolist() == [3, 3]
    assert frame.val_acc.isna().sum() == 2
    assert frame.fold.isna().all()
    assert folds.to_frame().fold.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_a_frame_has_a_row_per_run_and_epoch(result):
    frame = result.to_frame(per_epoch=True)
    assert set(frame.columns) == {
        "eta", "batch", "lam", "q", "momentum", "smoothing", "seed", "fold", "epoch", "running_loss",
        "running_acc", "W_norm", "val_loss", "val_acc",
    }  # fmt: skip
    assert len(frame) == 30
    rows = frame[(frame.seed == 3) & (frame.eta == 0.3) & (frame.lam == 0.1)]
    assert rows.epoch.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(rows.running_loss, result.history["running_loss"][:, 1, 3])


def test_the_columns_are_those_of_the_csv_files(result):
    from experiments.artifacts.exports import history_columns, result_columns

    assert set(result.to_frame().columns) <= {*result_columns()}
    assert set(result.to_frame(per_epoch=True).columns) <= {*history_columns()}


# ---- choosing


def test_no_configuration_is_chosen_by_a_training_or_test_set(result):
    assert result.chosen_by == "val"
    assert choose_set(["train", "test", "test_2", "a", "b"]) == "a"
    assert choose_set(["train", "test"]) is None


def test_configurations_are_ranked_by_their_mean_accuracy(result):
    accuracy, loss = (result.final[f"val_{name}"].mean(axis=0) for name in ("acc", "loss"))
    expected = sorted(range(4), key=lambda c: (-accuracy[c], loss[c]))
    assert result.ranking() == [*expected, 4]
    best = result.best()
    assert (best.index, best.config) == (expected[0], CONFIGS[expected[0]])
    assert best.mean == pytest.approx(accuracy[expected[0]])
    first, second = result.final["val_acc"][:, best.index]
    assert best.stderr == pytest.approx(abs(first - second) / 2)
    assert result.best("test").mean == pytest.approx(np.nanmax(result.final["test_acc"].mean(axis=0)))
    for wrong in (
        lambda: result.best("other"),
        lambda: result.ranking("other"),
        lambda: result.selection("other"),
    ):
        with pytest.raises(KeyError, match="no evaluation set 'other': give one of train, val, test"):
            wrong()


def test_one_replicate_has_no_standard_error(result):
    assert np.isnan(result.take(replicates=[0]).best().stderr)


def test_without_a_set_to_choose_by_the_first_that_did_not_diverge_is_best():
    fitted = fit([DIVERGING, *CONFIGS[:2]], sets={}, per_epoch=None)
    assert fitted.chosen_by is None
    assert fitted.ranking() == [1, 2, 0]
    assert fitted.best_replicate(1) == 0
    with pytest.raises(KeyError, match="none, because the sweep had none"):
        fitted.best()
    assert len(fitted.predict(VAL.features)) == 20


def correct_by_numpy(result, s, c, examples, rows=slice(None)):
    W, b = (np.asarray(leaf) for leaf in result.params_at(s, c))
    mean, std = result.standardizer_of(s)
    logits = (np.asarray(examples.features)[rows] - mean) / std @ W.T + b
    return logits.argmax(axis=1) == np.asarray(examples.targets)[rows].argmax(axis=1)


def test_marks_are_those_of_the_weights(result, folds):
    for c in range(4):
        for name, examples in (("val", VAL), ("test", TEST)):
            marks = result.values(name, c)
            assert marks.dtype == bool
            for s in (0, 1):
                np.testing.assert_array_equal(marks[s], correct_by_numpy(result, s, c, examples))
        # The marks of all folds, each by the run that was trained without its fold.
        expected = [
            np.concatenate([correct_by_numpy(folds, 2 * i + fold, c, TRAIN, FOLDS[fold]) for fold in (0, 1)])
            for i in (0, 1)
        ]
        np.testing.assert_array_equal(folds.values("held_out", c), expected)
    with pytest.raises(KeyError, match="no marks of 'train': give one of val, test"):
        result.values("train", 0)


def test_an_interval_is_over_seeds_and_examples(result, folds):
    for c in range(4):
        estimate = lc.estimate_accuracy(result.values("val", c))
        interval = result.interval("val", c)
        assert interval.mean == pytest.approx(result.final["val_acc"][:, c].mean())
        assert interval[1:3] == pytest.approx(estimate[1:3])
        assert folds.interval("held_out", c).mean == pytest.approx(folds.final["held_out_acc"][:, c].mean())
    # The training examples are given: their interval is over the seeds.
    over_seeds = interval_over_seeds(np.float64(result.final["train_acc"][:, :1]))
    assert result.interval("train", 0)[:3] == pytest.approx(over_seeds[:3])
    assert np.isnan(result.interval("val", 4)).all()


def test_all_configurations_are_compared_with_the_best(result, folds):
    selection = result.selection()
    best = result.best().index
    assert selection.difference[best][:3] == (0, 0, 0)
    for c in {*range(4)} - {best}:
        paired = lc.estimate_difference(result.values("val", c), result.values("val", best))
        assert selection.difference[c].mean == pytest.approx(paired.mean)
        assert selection.difference[c].low <= paired.low  # as the level allows for all comparisons
        assert selection.may_be_best[c] == (selection.difference[c].high >= 0)
    assert np.isnan(selection.difference[4]).all()
    marks = np.stack([result.values("val", c) for c in range(5)], axis=1)
    diverged = np.broadcast_to(~result.stayed_finite, (2, 5))
    np.testing.assert_array_equal(selection.may_be_best, lc.confidence_set(marks, diverged))
    assert selection.parts == 5
    chosen = folds.selection()
    accuracy = folds.final["held_out_acc"].reshape(2, 2, 4)
    assert chosen.expected == pytest.approx(lc.cross_validate_selection(accuracy).mean())
    assert chosen.parts == 2


def test_a_halved_sweep_is_compared_without_an_estimate():
    halved = fit(CONFIGS, halving=lc.Halving(2, (1,), 4))
    assert halved.halved
    assert len(halved.ranking()) == 2
    assert halved.take_finished().configs == tuple(CONFIGS[c] for c in sorted(halved.ranking()))
    selection = halved.take_finished().selection()
    assert np.isnan(selection.expected)
    assert halved.best().index == halved.ranking()[0]
    assert len(halved.to_frame(per_epoch=True)) == 2 * (2 * 3 + 2 * 1)


# ---- weights


def test_predictions_equal_those_of_numpy(result, folds):
    x = np.asarray(VAL.features)
    for fitted, replicates in ((result, 2), (folds, 4)):
        for s in range(replicates):
            W, b = fitted.params_at(s, 1)
            mean, std = fitted.standardizer_of(s)
            logits = (x - mean) / std @ np.asarray(W).T + b
            np.testing.assert_array_equal(fitted.predict(x, 1, s), logits.argmax(axis=1))
            expected = problems.softmax(logits)
            np.testing.assert_allclose(fitted.predict_proba(x, 1, s), expected, rtol=1e-9)
    best = result.best().index
    np.testing.assert_array_equal(result.predict(x), result.predict(x, best, result.best_replicate(best)))
    with pytest.raises(KeyError, match="were not kept"):
        result.keep("best").predict(x, (best + 1) % 4, 0)


def test_a_result_that_was_loaded_predicts_as_before(result, tmp_path):
    result.save(tmp_path / "a.npz")
    loaded = lc.Result.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.predict_proba(VAL.features), result.predict_proba(VAL.features))


def own_value(logits, y):
    return jnp.sum(y * (jax.nn.logsumexp(logits) - logits))


def test_a_loss_of_ones_own_is_given_again_for_probabilities():
    own = lc.Loss.from_value("own", own_value, probabilities=lc.softmax_probabilities)
    fitted = fit(CONFIGS[:1], loss=own)
    with pytest.raises(ValueError, match=r"the loss is own\(.*\): give it as loss="):
        fitted.predict_proba(VAL.features)
    expected = fitted.predict_proba(VAL.features, loss=lc.get_loss("softmax"))
    np.testing.assert_array_equal(fitted.predict_proba(VAL.features, loss=own), expected)


def test_labels_count_by_their_share(tmp_path):
    x, classes = np.asarray(TRAIN.features), np.asarray(TRAIN.targets)
    targets = np.maximum(classes, np.roll(classes, 1, axis=1) * (x[:, :1] > 0))
    examples = lc.Examples(x, targets, kind="labels")
    fitted = lc.fit(
        CONFIGS, examples, {"val": examples}, epochs=2, seeds=SEEDS, loss="bce", init=small_sweep.init
    )
    fitted.save(tmp_path / "a.npz")
    assert_equal(lc.Result.load(tmp_path / "a.npz"), fitted)
    assert "val_class_acc" not in fitted.final
    for c in range(4):
        shares = fitted.values("val", c)
        for s in (0, 1):
            W, b = (np.asarray(leaf) for leaf in fitted.params_at(s, c))
            probabilities = problems.sigmoid(x @ W.T + b)
            np.testing.assert_allclose(fitted.predict_proba(x, c, s), probabilities, rtol=1e-9)
            np.testing.assert_allclose(shares[s], ((probabilities >= 0.5) == (targets >= 0.5)).mean(axis=1))
        assert fitted.interval("val", c).mean == pytest.approx(fitted.final["val_acc"][:, c].mean())


def test_the_order_of_replicates_changes_no_interval(folds):
    shuffled = folds.take(replicates=[2, 0, 3, 1])
    for c in range(len(CONFIGS)):
        np.testing.assert_array_equal(
            np.sort(shuffled.values("held_out", c), axis=0),
            np.sort(folds.values("held_out", c), axis=0),
        )
        np.testing.assert_allclose(shuffled.interval("held_out", c), folds.interval("held_out", c))
    with pytest.raises(KeyError, match="do not all have the folds"):
        folds.take(replicates=[0, 3]).values("held_out", 0)


def test_examples_that_all_folds_predict_count_once():
    replicates = [lc.Replicate(seed, fold, FOLDS[1 - fold]) for seed in (5, 6) for fold in (0, 1)]
    result = fit(CONFIGS[:1], replicates, {"val": VAL})
    values = result.values("val", 0)
    assert values.shape == (2, len(VAL))
    marks = np.unpackbits(result.marks["val"][:, 0], axis=-1, count=len(VAL)).reshape(2, 2, -1)
    np.testing.assert_array_equal(values, marks.mean(axis=1))


def test_runs_that_are_not_trained_have_no_marks():
    answers = iter([False] * 11)
    result = fit(CONFIGS, block_runs=2, should_stop=lambda: next(answers, True))
    assert not result.complete
    begun = result.epochs.all(axis=0)
    assert 0 < begun.sum() < len(CONFIGS)
    for c in np.flatnonzero(~begun):
        with pytest.raises(KeyError, match="is not trained in every replicate yet"):
            result.interval("val", int(c))
