import json

import numpy as np
import pytest
from small_runs import make_sweep, small_data

from experiments.artifacts.results import write_results
from experiments.runner.blocks import (
    MANIFEST,
    Block,
    block_folder,
    find_incompatibility,
    is_complete,
    join_results,
    plan_sweep,
    read_manifests,
    write_manifest,
)
from experiments.runner.errors import BlockError
from experiments.runner.training import keep_best, train_sweep
from linear_cifar.config import Config, grid
from linear_cifar.planning import WIDE

A, B, C = grid([0.001, 0.003, 0.01], [20], [0.1])


def sweep(configs=(A, B), seeds=(0, 1), **settings):
    return make_sweep(configs, seeds=tuple(seeds), **settings)


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def dataset(data):
    return data.dataset


@pytest.fixture
def manifest(tmp_path, dataset):
    """The manifest of a block on disk, read back."""
    write_manifest(tmp_path, Block(sweep()), dataset, {"versions": {}})
    (manifest,) = read_manifests(tmp_path)
    return manifest


def planned_parts(whole, manifests, max_runs=99):
    blocks = plan_sweep(whole, manifests, max_runs)
    return [(block.sweep.configs, block.sweep.seeds) for block in blocks]


def test_a_manifest_is_read_back_as_it_was_written(manifest, dataset):
    assert manifest.sweep == "small"
    assert manifest.configs == [A, B]
    assert manifest.replicates == [(0, None), (1, None)]
    assert manifest.environment == {"versions": {}}
    assert find_incompatibility(manifest, {"small": sweep()}, dataset) is None


def test_a_new_run_is_one_block():
    assert plan_sweep(sweep(), [], 4) == [Block(sweep())]


def test_blocks_on_disk_stay_and_new_ones_hold_what_is_missing(manifest):
    assert planned_parts(sweep(), [manifest]) == [((A, B), (0, 1))]
    assert planned_parts(sweep([C, A, B], [0, 1]), [manifest]) == [((A, B), (0, 1)), ((C,), (0, 1))]
    assert planned_parts(sweep([A, B], [2, 1, 0]), [manifest]) == [((A, B), (0, 1)), ((A, B), (2,))]
    both = planned_parts(sweep([A, B, C], [0, 1, 2]), [manifest])
    assert both == [((A, B), (0, 1)), ((C,), (0, 1)), ((A, B, C), (2,))]
    other = manifest._replace(sweep="two")
    assert planned_parts(sweep(), [other]) == [((A, B), (0, 1))]


def test_a_sweep_is_cut_evenly_into_blocks_that_the_memory_holds():
    five = range(5)
    assert planned_parts(sweep([A, B], five), [], 4) == [((A, B), (0,)), ((A, B), (1, 2)), ((A, B), (3, 4))]
    assert planned_parts(sweep([A, B, C], [0, 1]), [], 2) == [
        ((A,), (0,)), ((B, C), (0,)), ((A,), (1,)), ((B, C), (1,)),
    ]  # fmt: skip
    for max_runs in range(1, 17):
        cut = plan_sweep(sweep([A, B, C], five), [], max_runs)
        assert all(block.sweep.num_runs <= max_runs for block in cut)
        runs = [(s, c) for block in cut for s in block.sweep.seeds for c in block.sweep.configs]
        assert sorted(runs) == sorted((s, c) for s in five for c in (A, B, C))


def test_blocks_of_very_many_runs_keep_the_weights_that_may_be_the_best():
    def retentions(configs, seeds, max_runs):
        return {block.retention for block in plan_sweep(sweep(configs, seeds), [], max_runs, keep_all=False)}

    many = grid([0.001 * i for i in range(1, 1001)], [20], [0.1])
    assert retentions([A, B, C], [0], 2) == {"best"}
    assert retentions([A, B, C], [0, 1], 6) == {"best"}
    assert retentions([A, B, C], [0, 1], 3) == {"configurations"}
    assert retentions(many, range(9), 1000) == {"best"}
    assert retentions(many, range(99), 1000) == {"configurations"}
    # Without validation, the results of another sweep decide which configuration is the best.
    (block,) = plan_sweep(sweep([A, B], [0], val_size=0), [], 2, keep_all=False)
    assert block.retention == "configurations"


def test_blocks_are_wide_enough_to_share_their_images():
    many = grid([0.001 * i for i in range(1, 1001)], [20], [0.1])
    for seeds, max_runs in ((1, 5000), (10, 5000), (99, 5000), (99, 100), (2, 50)):
        for block in plan_sweep(sweep(many, range(seeds)), [], max_runs):
            assert block.sweep.num_runs <= max_runs
            assert len(block.sweep.configs) >= min(max_runs, WIDE) // 2


def test_blocks_have_folders_of_their_own(tmp_path):
    different = [sweep(), sweep([B, A]), sweep(seeds=[1]), sweep()._replace(name="two")]
    different += [sweep(loss="bce"), sweep(max_loss=9.0)]
    folders = {block_folder(tmp_path, block, "f") for block in different}
    assert len(folders) == len(different)
    assert block_folder(tmp_path, sweep(), "g") not in folders
    assert block_folder(tmp_path, sweep(epochs=9), "f") == block_folder(tmp_path, sweep(), "f")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (sweep([C, B, A], [5, 1, 0], epochs=3), None),
        (sweep(loss="bce"), "loss softmax, not bce"),
        (sweep(flip=False), "flip True, not False"),
        (sweep(max_loss=9.0), "max_loss None, not 9.0"),
        (sweep(evaluate=("val", "test")), "evaluate ['val'], not ['val', 'test']"),
        (sweep([A, C]), "eta 0.003, which this command leaves out"),
        (sweep([A, Config(0.003, 50, 0.1)]), "Config(eta=0.003, batch=20,"),
        (sweep(seeds=[1, 2]), "seed 0, which this command leaves out"),
        (sweep(epochs=1), None),
        (sweep(schedule="cosine"), "schedule constant, not cosine"),
        (sweep()._replace(name="two"), "the sweep 'small', which this command leaves out"),
    ],
)
def test_a_block_of_other_results_is_incompatible(manifest, dataset, wanted, message):
    found = find_incompatibility(manifest, {wanted.name: wanted}, dataset)
    assert found is None if message is None else message in found


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"average": 2}])
def test_more_epochs_are_compatible_only_where_they_do_not_change_the_first_ones(tmp_path, dataset, settings):
    write_manifest(tmp_path, Block(sweep(**settings)), dataset, {})
    (manifest,) = read_manifests(tmp_path)
    assert find_incompatibility(manifest, {"small": sweep(**settings)}, dataset) is None
    longer = {"small": sweep(**settings, epochs=3)}
    assert find_incompatibility(manifest, longer, dataset) == "epochs 2, not 3"


@pytest.mark.parametrize(
    ("retention", "wanted", "message"),
    [
        ("best", sweep([A, B, C]), None),
        ("best", sweep(seeds=[0, 1, 2]), "2 seeds, not 3 (it keeps the best weights only)"),
        ("configurations", sweep([A, B, C], [0, 1, 2]), None),
        ("configurations", sweep(epochs=3), "epochs 2, not 3"),
    ],
)
def test_the_retention_of_a_block_limits_how_it_is_extended(tmp_path, dataset, retention, wanted, message):
    write_manifest(tmp_path, Block(sweep(), retention), dataset, {})
    (manifest,) = read_manifests(tmp_path)
    assert manifest.retention == retention
    assert find_incompatibility(manifest, {"small": wanted}, dataset) == message
    assert plan_sweep(wanted, [manifest], 9)[0].retention == retention


def test_a_block_of_other_images_is_incompatible(manifest, dataset):
    other = dataset._replace(name="cifar10", fingerprint="0" * 64)
    assert find_incompatibility(manifest, {"small": sweep()}, other).startswith("the data of synthetic (")


def test_fewer_epochs_than_are_trained_are_incompatible(manifest, dataset):
    further = manifest._replace(epochs_done=2)
    assert find_incompatibility(further, {"small": sweep(epochs=2)}, dataset) is None
    assert find_incompatibility(further, {"small": sweep(epochs=1)}, dataset) == "epochs 2, not 1"


def test_the_same_run_in_two_blocks_is_refused(tmp_path, dataset):
    write_manifest(tmp_path, Block(sweep([A])), dataset, {})
    write_manifest(tmp_path, Block(sweep([B, A])), dataset, {})
    with pytest.raises(BlockError, match="the same configuration and seed twice"):
        read_manifests(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: "",
        lambda content: "[]",
        lambda content: "[" * 100_000,
        lambda content: json.dumps(content | {"schema": 1}),
        lambda content: json.dumps(content | {"configs": [[1, 2]]}),
        lambda content: json.dumps(content | {"configs": [["a", 20, 0.1]]}),
        lambda content: json.dumps(content | {"configs": [[[], 20, 0.1]]}),
        lambda content: json.dumps(content | {"configs": []}),
        lambda content: json.dumps(content | {"configs": [[1, 20.0, 0.1]]}),
        lambda content: json.dumps(content | {"configs": [[10**400, 20, 0.1]]}),
        lambda content: json.dumps(content | {"configs": [[0.5, 20, 0.1]]}),
        lambda content: json.dumps(content | {"settings": 3}),
        lambda content: json.dumps(content | {"settings": {}}),
        lambda content: json.dumps({name: content[name] for name in content if name != "fingerprint"}),
    ],
)
def test_a_broken_manifest_is_named(tmp_path, dataset, change):
    path = write_manifest(tmp_path, Block(sweep()), dataset, {}) / MANIFEST
    path.write_text(change(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(BlockError, match=str(path)):
        read_manifests(tmp_path)


def test_blocks_together_equal_the_sweep_at_once(data, tmp_path):
    whole = sweep([A, B], [0, 1])
    at_once = train_sweep(whole, data)
    blocks = [sweep([B], [1, 0]), sweep([A], [1]), sweep([A], [0])]
    parts = [train_sweep(block, data) for block in blocks]
    joined = join_results(whole, parts)
    assert is_complete(whole, parts)
    assert not is_complete(whole, parts[:2])
    assert not is_complete(whole, [*parts[:2], train_sweep(blocks[2], data, stopped=lambda: True)])
    assert joined.sweep == whole
    for actual, expected in (
        (joined.params.W, at_once.params.W),
        (joined.history.running.loss, at_once.history.running.loss),
        (joined.final["test"].accuracy, at_once.final["test"].accuracy),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(joined.history.finite, at_once.history.finite)
    # Each block keeps no more weights than may be the best of the whole.
    best_only = join_results(whole, [keep_best(part, len(part.configs)) for part in parts])
    assert len(best_only.saved.replicates) == 3
    write_results(tmp_path, [best_only])
    c = joined.ranking[0]
    with np.load(tmp_path / "best_params.npz") as best:
        np.testing.assert_array_equal(best["W"], joined.params.W[joined.best_replicate(c), c])
        assert best["eta"] == whole.configs[c].eta
