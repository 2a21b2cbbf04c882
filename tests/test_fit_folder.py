"""`fit` with a folder: what it resumes, extends and refuses, and what a kill at any moment leaves."""

import contextlib
import inspect
import json
import pickle
import shutil

import jax
import numpy as np
import optax
import pytest
import small_sweep
from small_sweep import TRAIN, VAL

import linear_cifar as lc
from linear_cifar import fitting, legs
from linear_cifar.blocks import MANIFEST, SWEEP, WIDE, load_result, split_runs
from linear_cifar.checkpoints import Checkpoints

A, B, C = lc.grid(eta=[0.1, 0.2, 0.3], batch=[8], lam=[0.01])
TEST = lc.Examples(np.asarray(VAL.features) + 0.1, np.asarray(VAL.targets))
# All that a state holds: velocities, averages that begin before the end, and a schedule.
EVERYTHING = {"optimizer": "heavy_ball", "average": 2, "schedule": "cosine"}


def half_sgd(hyperparams):
    return optax.sgd(0.5 * hyperparams.eta)


def fit(folder=None, configs=(A, B), seeds=(0, 1), epochs=3, **options):
    """Train a small sweep that validates after every epoch and is tested at the end."""
    defaults = {"init": small_sweep.init, "per_epoch": ["val"]}
    sets = {"val": VAL, "test": TEST}
    return lc.fit(configs, TRAIN, sets, epochs=epochs, seeds=seeds, folder=folder, **defaults | options)


def assert_same(result, expected, rtol=1e-9):
    assert result.configs == expected.configs
    assert result.identity == expected.identity
    for name in ("history", "final", "marks", "epochs", "diverged", "stopped", "weights"):
        pairs = zip(*(jax.tree.leaves(getattr(member, name)) for member in (result, expected)), strict=True)
        for found, wanted in pairs:
            if rtol:
                np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-12, err_msg=name)
            else:
                np.testing.assert_array_equal(found, wanted, err_msg=name)


def count_trained(monkeypatch):
    """Count the epochs that are trained, of all blocks together."""
    trained = []
    original = legs.train_epochs

    def train_epochs(*args, **options):
        for epoch in original(*args, **options):
            trained.append(epoch.number)
            yield epoch

    monkeypatch.setattr(legs, "train_epochs", train_epochs)
    return trained


def test_a_folder_changes_no_number_and_holds_the_result(tmp_path):
    expected, result = fit(), fit(tmp_path)
    assert_same(result, expected, rtol=0)
    assert_same(load_result(tmp_path), expected, rtol=0)
    assert len(load_result(tmp_path, weights=False).weights.configs) == 0


def test_a_finished_sweep_is_read_and_not_trained_again(tmp_path, monkeypatch):
    expected = fit(tmp_path)
    trained, steps = count_trained(monkeypatch), []
    assert_same(fit(tmp_path, on_epoch=steps.append), expected, rtol=0)
    assert trained == []
    assert [(step.resumed, step.epoch, step.advance, step.total) for step in steps] == [(True, 3, 3.0, 3.0)]


def test_more_configurations_seeds_and_epochs_extend_a_sweep(tmp_path, monkeypatch):
    fit(tmp_path, [B], [1], epochs=2)
    trained = count_trained(monkeypatch)
    result = fit(tmp_path, [A, B, C], [0, 1], epochs=3)
    assert trained.count(3) == len(list(tmp_path.glob(f"*/{MANIFEST}")))
    assert trained.count(1) == trained.count(3) - 1  # the first block had two epochs
    assert_same(result, fit(None, [A, B, C], [0, 1], epochs=3))


def test_the_order_of_arguments_is_that_of_the_result_whatever_is_on_disk(tmp_path):
    fit(tmp_path, [A, B], [0, 1])
    swapped = fit(tmp_path, [C, B, A], [1, 0])
    assert_same(swapped, fit(None, [C, B, A], [1, 0]))


def test_blocks_together_equal_the_sweep_at_once(tmp_path):
    assert_same(fit(tmp_path, [A, B, C], [0, 1], block_runs=2), fit(None, [A, B, C], [0, 1]))
    assert len(list(tmp_path.glob(f"*/{MANIFEST}"))) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "bce"}, "loss softmax, not bce"),
        ({"max_loss": 9.0}, "max_loss none, not 9.0"),
        ({"shuffle": False}, "shuffle True, not False"),
        ({"optimizer": half_sgd}, "optimizer sgd, not test_fit_folder.half_sgd"),
        ({"per_epoch": ["val", "test"]}, "per_epoch ['val'], not ['val', 'test']"),
        ({"configs": [A, C]}, "eta 0.2, which is left out here"),
        ({"configs": [A, lc.Config(0.2, 8, 0.0), lc.Config(0.1, 8, 0.0)]}, "the configuration eta=0.2"),
        ({"seeds": [1, 2]}, "seed 0, which is left out here"),
        (
            {"seeds": [lc.Replicate(0, rows=np.arange(20)), lc.Replicate(1, rows=np.arange(20, 40))]},
            "replicate",
        ),
        ({"epochs": 2}, "epochs 3, not 2"),
        ({"schedule": "cosine"}, "another schedule or averaging of its epochs"),
        ({"standardizer": lc.Standardizer(np.zeros(6), np.full(6, 2.0))}, "other data: standardizer"),
        ({"halving": lc.Halving(2, (1,))}, "halving none, not 2 at 1 of 3 epochs"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_and_untouched(tmp_path, changes, message):
    fit(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(lc.FolderError) as error:
        fit(tmp_path, **changes)
    assert message in error.value.reason
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_examples_are_refused(tmp_path):
    fit(tmp_path)
    for train, sets, name in (
        (TRAIN.take(np.arange(30)), {"val": VAL, "test": TEST}, "training examples"),
        (TRAIN, {"val": TEST, "test": TEST}, "val"),
        (TRAIN, {"val": VAL, "test": VAL}, "test"),
        (TRAIN, {"val": VAL}, "test"),
    ):
        with pytest.raises(lc.FolderError, match=f"other data: {name}"):
            options = {"epochs": 3, "seeds": (0, 1), "per_epoch": ["val"], "init": small_sweep.init}
            lc.fit([A, B], train, sets, folder=tmp_path, **options)


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"average": 2}, {"keep": "per_config"}])
def test_more_epochs_are_refused_where_they_would_change_the_first_ones_or_states_are_gone(
    tmp_path, settings
):
    fit(tmp_path, **settings)
    with pytest.raises(lc.FolderError, match=r"epochs 3, not 4|another schedule"):
        fit(tmp_path, epochs=4, **settings)
    assert_same(fit(tmp_path, **settings), fit(None, **settings), rtol=0)
    assert not list(tmp_path.glob("*/state-*"))


def test_the_best_weights_alone_cannot_be_extended_by_seeds(tmp_path):
    fit(tmp_path, keep="best")
    assert len(fit(tmp_path, [A, B, C], keep="best").weights.configs) == 1
    with pytest.raises(lc.FolderError, match="it keeps the best weights only"):
        fit(tmp_path, [A, B, C], [0, 1, 2], keep="best")


def test_a_subset_of_configurations_is_taken_only_on_request(tmp_path):
    fit(tmp_path)
    with pytest.raises(lc.FolderError, match=r"eta 0\.1"):
        fit(tmp_path, [B])
    assert_same(fit(tmp_path, [B], subset=True), fit(None, [B]))


def test_functions_that_have_no_name_of_their_own_are_refused_with_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"init is <.*<lambda>>, which cannot be told from another function"):
        fit(tmp_path / "new", init=lambda seed: small_sweep.init(seed))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: "",
        lambda content: "[" * 100_000,
        lambda content: json.dumps(content | {"keep": "some"}),
        lambda content: json.dumps(content | {"identity": 3}),
        lambda content: json.dumps(content | {"identity": content["identity"] | {"format": 0}}),
        lambda content: json.dumps(content | {"identity": content["identity"] | {"configs": []}}),
        lambda content: json.dumps(content | {"identity": content["identity"] | {"configs": [[1, 2]]}}),
        lambda content: json.dumps(
            content | {"identity": content["identity"] | {"replicates": [[0.5, 1, ""]]}}
        ),
        lambda content: json.dumps(content | {"identity": content["identity"] | {"settings": {}}}),
        lambda content: json.dumps({"identity": content["identity"], "keep": content["keep"]}),
    ],
)
def test_a_broken_block_is_named_and_its_folder_untouched(tmp_path, change):
    fit(tmp_path)
    (path,) = tmp_path.glob(f"*/{MANIFEST}")
    broken = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(lc.FolderError, match=f"{path.parent.name}/{MANIFEST}"):
        fit(tmp_path)
    assert path.read_text(encoding="utf-8") == broken


def test_the_same_run_in_two_blocks_is_refused(tmp_path):
    fit(tmp_path, [A])
    fit(tmp_path / "other", [B, A])
    for path in (tmp_path / "other").glob(f"*/{MANIFEST}"):
        shutil.move(path.parent, tmp_path)
    with pytest.raises(lc.FolderError, match="the same configuration and seed twice"):
        fit(tmp_path, [A, B])


def test_a_broken_result_or_state_is_set_aside_with_a_note(tmp_path):
    expected = fit(tmp_path, save_every=1)
    (block,) = (path.parent for path in tmp_path.glob(f"*/{MANIFEST}"))
    notes = []
    for name in ("result-3.npz", "state-3.npz"):
        (block / name).write_bytes((block / name).read_bytes()[:-100])
    assert_same(fit(tmp_path, log=notes.append), expected, rtol=0)
    told = [note[6 : note.index(" cannot")] for note in notes]
    assert told == ["the finished block", "the state after epoch 3"]
    assert {path.name for path in block.glob("broken-*")} == {"broken-result-3.npz", "broken-state-3.npz"}


def test_a_result_of_other_runs_is_not_taken_for_this_one(tmp_path):
    fit(tmp_path / "a"), fit(tmp_path / "b", loss="bce")
    ((a,), (b,)) = (list((tmp_path / name).glob("*/result-3.npz")) for name in "ab")
    shutil.copy(b, a)
    notes = []
    fit(tmp_path / "a", log=notes.append)
    assert "is of another block: it has loss bce, not softmax" in notes[0]


def test_other_versions_are_noted(tmp_path):
    fit(tmp_path)
    (path,) = tmp_path.glob(f"*/{MANIFEST}")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["environment"]["versions"]["jax"] = "0.1"
    path.write_text(json.dumps(content), encoding="utf-8")
    notes = []
    fit(tmp_path, log=notes.append)
    assert notes == [
        "note: begun with other versions or devices, see block.json: results agree up to rounding"
    ]


def test_a_stop_saves_and_the_rest_is_trained_later(tmp_path):
    expected = fit(None, [A, B, C], block_runs=2)
    answers = iter([False] * 5)
    stopped = fit(tmp_path, [A, B, C], block_runs=2, should_stop=lambda: next(answers, True))
    assert not stopped.complete
    begun = stopped.epochs > 0
    assert 0 < begun.sum() < begun.size
    np.testing.assert_array_equal(np.isnan(stopped.history["val_loss"][0]), ~begun)
    assert len(stopped.to_frame()) == begun.sum()
    assert_same(fit(tmp_path, [A, B, C], block_runs=2), expected, rtol=0)


def test_a_stop_before_anything_is_trained_is_told(tmp_path):
    with pytest.raises(fitting.NothingTrained):
        fit(tmp_path, should_stop=lambda: True)
    assert_same(fit(tmp_path), fit(), rtol=0)


class Killed(BaseException):
    """Ends the training as SIGKILL would: nothing handles it."""


CONFIGS = lc.draw_configs(
    16, bracket=8, eta=lc.Range(0.01, 0.5), batch=[5, 10], lam=lc.Range(1e-4, 0.1),
    momentum=lc.Range(0.0, 0.9, zeros=0.5),
)  # fmt: skip
HALVING = lc.Halving(2, (1, 2), 8)


def halve(folder=None, **options):
    return fit(folder, CONFIGS, epochs=3, **{"halving": HALVING, "save_every": 1, **EVERYTHING, **options})


@pytest.mark.parametrize("train", [lambda folder, **o: fit(folder, save_every=1, **EVERYTHING, **o), halve])
@pytest.mark.parametrize("block_runs", [None, 3])
def test_killed_after_any_save_it_resumes_to_the_same_bits(train, block_runs, tmp_path, monkeypatch):
    expected = train(tmp_path / "undisturbed", block_runs=block_runs)
    save, saves = Checkpoints._write, []
    monkeypatch.setattr(Checkpoints, "_write", lambda self, *args: (save(self, *args), saves.append(0)))
    train(tmp_path / "counted", block_runs=block_runs)
    total = len(saves)
    assert total >= 3

    def kill_after(count):
        saves = []

        def write(self, *args):
            save(self, *args)
            saves.append(args)
            if len(saves) == count:
                raise Killed

        monkeypatch.setattr(Checkpoints, "_write", write)

    for count in range(1, total + 1, max(1, total // 5)):
        kill_after(count)
        with pytest.raises(Killed):
            train(tmp_path / "killed", block_runs=block_runs)
        kill_after(1)  # killed again after one more save
        with contextlib.suppress(Killed):
            train(tmp_path / "killed", block_runs=block_runs)
        monkeypatch.setattr(Checkpoints, "_write", save)
        assert_same(train(tmp_path / "killed", block_runs=block_runs), expected, rtol=0)
        assert not list((tmp_path / "killed").glob(f"*/{legs.PART}*"))
        shutil.rmtree(tmp_path / "killed")


def test_ctrl_c_in_a_notebook_saves_the_last_whole_epoch(tmp_path, monkeypatch):
    def interrupt(step):
        if step.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, on_epoch=interrupt)
    trained = count_trained(monkeypatch)
    assert_same(fit(tmp_path), fit(), rtol=0)
    assert trained[0] == 3


def test_the_epochs_told_add_up_to_the_total(tmp_path):
    for options in ({}, {"block_runs": 3}):
        steps = []
        halve(tmp_path / str(len(options)), on_epoch=steps.append, **options)
        # 8 of a bracket before the first rung, then half of each batch size.
        assert steps[0].total == pytest.approx((8 + 4 + 2) / 8)
        assert sum(step.advance for step in steps) == pytest.approx(steps[0].total)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1, 2)}, "seeds 0,1, by which halving has chosen"),
        ({"halving": lc.Halving(2, (1,), 8)}, "halving 2 at 1,2 of 3 epochs, not 2 at 1 of 3 epochs"),
        ({"halving": lc.Halving(2, (1, 2), 16)}, "a bracket of 8 points, which halving cannot extend"),
    ],
)
def test_a_halved_sweep_is_extended_by_whole_brackets_only(tmp_path, changes, message):
    options = {"halving": HALVING, "optimizer": "heavy_ball"}
    fit(tmp_path, CONFIGS[:8], **options)
    with pytest.raises(lc.FolderError, match=message):
        fit(tmp_path, CONFIGS, **options | changes)
    assert_same(fit(tmp_path, CONFIGS, **options), fit(None, CONFIGS, **options), rtol=0)


def test_parts_are_cut_evenly_and_share_their_examples():
    for num_configs, num_seeds in ((3, 5), (1000, 10), (2, 2)):
        for most in (1, 2, 7, 100, 5000):
            parts = split_runs(range(num_seeds), range(num_configs), most)
            assert all(len(rows) * len(columns) <= most for rows, columns in parts)
            runs = sorted((s, c) for rows, columns in parts for s in rows for c in columns)
            assert runs == [(s, c) for s in range(num_seeds) for c in range(num_configs)]
            assert min(len(columns) for _, columns in parts) >= min(most, WIDE, num_configs) // 2


def test_a_folder_without_its_description_is_named(tmp_path):
    fit(tmp_path)
    (tmp_path / SWEEP).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=SWEEP):
        load_result(tmp_path)


def test_a_folder_in_use_is_refused(tmp_path):
    def again(step):
        with pytest.raises(lc.FolderError, match="another process is writing there"):
            fit(tmp_path, [C])

    fit(tmp_path, on_epoch=again, epochs=1)


def test_a_stop_one_epoch_before_a_rung_is_not_taken_for_the_rung(tmp_path):
    options = {"halving": lc.Halving(2, (2,), 8), "epochs": 4}
    answers = iter([False] * 2)  # it is also asked before the first epoch
    stopped = fit(tmp_path, CONFIGS[:8], should_stop=lambda: next(answers, True), **options, **EVERYTHING)
    assert stopped.epochs.max() == 1
    assert not stopped.stopped.any()
    expected = fit(None, CONFIGS[:8], **options, **EVERYTHING)
    assert_same(fit(tmp_path, CONFIGS[:8], **options, **EVERYTHING), expected, rtol=0)


def test_a_bracket_in_parts_equals_the_bracket_at_once(tmp_path):
    assert_same(halve(tmp_path, block_runs=3), halve())


@pytest.mark.parametrize("name", ["join_parts", "measure"])
def test_killed_after_the_parts_of_a_leg_it_trains_none_of_them_again(tmp_path, monkeypatch, name):
    expected = halve(block_runs=3)

    def die(*args):
        raise Killed

    owner = legs if name == "join_parts" else legs.Trainer
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Killed):
            halve(tmp_path, block_runs=3)
    trained = count_trained(monkeypatch)
    assert_same(halve(tmp_path, block_runs=3), expected, rtol=0)
    resumed = len(trained)
    trained.clear()
    halve(tmp_path / "again", block_runs=3)
    # Of two equal brackets, the first one's first leg was trained, or all of it.
    first_leg, whole = trained.count(1) // 2, len(trained) // 2
    assert len(trained) - resumed == (first_leg if name == "join_parts" else whole)


def test_after_a_stop_only_what_is_begun_has_a_folder(tmp_path, monkeypatch):
    answers = iter([False] * 2)  # it is also asked before the first epoch
    fit(tmp_path, [A, B, C], block_runs=2, should_stop=lambda: next(answers, True))
    assert len(list(tmp_path.glob(f"*/{MANIFEST}"))) == 1
    # A block in which nothing is trained binds nobody.
    (path,) = (path.parent for path in tmp_path.glob(f"*/{MANIFEST}"))
    for file in path.glob("*.npz"):
        file.unlink()
    assert_same(fit(tmp_path, [C]), fit(None, [C]), rtol=0)


def test_weights_that_are_gone_are_not_promised(tmp_path):
    fit(tmp_path, keep="best")
    with pytest.raises(lc.FolderError, match="the weights 'best' only, not 'all'"):
        fit(tmp_path, keep="all")
    assert len(fit(tmp_path).weights.configs) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"about": {"a": np.float32(1)}}, "about cannot be saved as JSON"),
        ({"folder": 3}, "folder is 3: give a path"),
        ({"halving": lc.Halving(2, 2)}, "rungs is 2: give epochs"),
        ({"per_epoch": ["test"], "halving": lc.Halving(2, (1,))}, "halving needs an evaluation set"),
    ],
)
def test_options_that_cannot_be_used_are_named_before_anything_is_trained(options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(lc.fit)(
            [A, B], TRAIN, {"val": VAL, "test": TEST}, epochs=3, init=small_sweep.init, **options
        )


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    options = {"epochs": 3, "init": small_sweep.init, "folder": tmp_path}
    lc_fit = inspect.unwrap(lc.fit)  # without the tests' type checks
    result = lc_fit([A], TRAIN, {"val": VAL}, average=np.int64(2), max_loss=np.float32(50), **options)
    assert result.identity == lc_fit([A], TRAIN, {"val": VAL}, average=2, max_loss=50.0, **options).identity


def test_the_sets_are_in_the_order_of_the_call(tmp_path):
    options = {"epochs": 1, "per_epoch": (), "init": small_sweep.init, "folder": tmp_path}
    lc.fit([A], TRAIN, {"val": VAL, "dev": TEST}, **options)
    assert lc.fit([A], TRAIN, {"dev": TEST, "val": VAL}, **options).chosen_by == "dev"


def test_what_another_machine_needs_for_a_block_can_be_pickled(monkeypatch):
    trained = []

    def train_elsewhere(self, block):
        shipped = self._replace(devices=None, on_epoch=legs.ignore, should_stop=legs.never)
        trainer, block = pickle.loads(pickle.dumps((shipped, block)))
        trained.append(train_here(trainer, block))
        return pickle.loads(pickle.dumps(trained[-1]))

    expected = fit(block_runs=2)
    train_here = legs.Trainer.train_block
    monkeypatch.setattr(legs.Trainer, "train_block", train_elsewhere)
    assert_same(fit(block_runs=2), expected, rtol=0)
    assert len(trained) > 1
