import json

import numpy as np
import pytest
from test_results import SETTINGS

from experiments import blocks, results
from experiments.blocks import Block, BlockError, are_whole, disagreement, join, plan
from experiments.run import condense, run
from experiments.settings import Variant
from linear_cifar.config import Config, grid
from linear_cifar.dataset import divide
from linear_cifar.synthetic import synthetic

A, B, C = grid([0.001, 0.003, 0.01], [20], [0.1])


def variant(configs=(A, B), seeds=(0, 1), **settings):
    return Variant("one", SETTINGS._replace(seeds=tuple(seeds), **settings), tuple(configs))


@pytest.fixture(scope="module")
def dataset():
    return divide(synthetic(n_train=300, n_test=100), val_size=50)


@pytest.fixture
def held(tmp_path, dataset):
    """One block on disk, as it is read back."""
    blocks.write(tmp_path, Block(variant()), dataset, {"versions": {}})
    (one,) = blocks.read(tmp_path)
    return one


def parts(variant, held, at_most=99):
    planned = plan(variant, held, at_most)
    return [(block.part.configs, block.part.settings.seeds) for block in planned]


def test_a_block_is_read_back_as_it_was_written(held, dataset):
    assert held.variant == "one"
    assert held.configs == [A, B]
    assert held.seeds == [0, 1]
    assert held.environment == {"versions": {}}
    assert disagreement(held, {"one": variant()}, dataset) is None


def test_a_new_run_is_one_block():
    assert plan(variant(), [], 4) == [Block(variant())]


def test_what_is_there_stays_and_what_lacks_is_added(held):
    assert parts(variant(), [held]) == [((A, B), (0, 1))]
    assert parts(variant([C, A, B], [0, 1]), [held]) == [((A, B), (0, 1)), ((C,), (0, 1))]
    assert parts(variant([A, B], [2, 1, 0]), [held]) == [((A, B), (0, 1)), ((A, B), (2,))]
    both = parts(variant([A, B, C], [0, 1, 2]), [held])
    assert both == [((A, B), (0, 1)), ((C,), (0, 1)), ((A, B, C), (2,))]
    other = held._replace(variant="two")
    assert parts(variant(), [other]) == [((A, B), (0, 1))]


def test_more_than_the_memory_holds_is_cut_evenly():
    five = range(5)
    assert parts(variant([A, B], five), [], 4) == [((A, B), (0,)), ((A, B), (1, 2)), ((A, B), (3, 4))]
    assert parts(variant([A, B, C], [0, 1]), [], 2) == [
        ((A,), (0,)), ((B, C), (0,)), ((A,), (1,)), ((B, C), (1,)),
    ]  # fmt: skip
    for at_most in range(1, 17):
        cut = plan(variant([A, B, C], five), [], at_most)
        assert all(block.part.runs <= at_most for block in cut)
        each = [(s, c) for block in cut for s in block.part.settings.seeds for c in block.part.configs]
        assert sorted(each) == sorted((s, c) for s in five for c in (A, B, C))


def test_of_very_many_runs_the_weights_are_kept_that_may_be_the_best():
    def keeps(configs, seeds, at_most):
        return {block.keeps for block in plan(variant(configs, seeds), [], at_most, keep_states=False)}

    many = grid([0.001 * i for i in range(1, 1001)], [20], [0.1])
    assert keeps([A, B, C], [0], 2) == {"best"}
    assert keeps([A, B, C], [0, 1], 6) == {"best"}
    assert keeps([A, B, C], [0, 1], 3) == {"configurations"}
    assert keeps(many, range(9), 1000) == {"best"}
    assert keeps(many, range(99), 1000) == {"configurations"}


def test_blocks_are_wide_enough_to_share_their_images():
    many = grid([0.001 * i for i in range(1, 1001)], [20], [0.1])
    for seeds, at_most in ((1, 5000), (10, 5000), (99, 5000), (99, 100), (2, 50)):
        for block in plan(variant(many, range(seeds)), [], at_most):
            assert block.part.runs <= at_most
            assert len(block.part.configs) >= min(at_most, blocks.WIDE) // 2


@pytest.mark.parametrize(
    ("configs", "seeds", "processes", "largest"),
    [(48, 20, 1, 960), (48, 20, 3, 7 * 48), (48, 20, 64, 16), (5, 1, 4, 2), (3, 3, 7, 2), (1, 1, 4, 1)],
)
def test_processes_have_about_as_much_to_do(configs, seeds, processes, largest):
    several = variant(grid([0.001 * i for i in range(1, configs + 1)], [20], [0.1]), range(seeds))
    runs = [block.part.runs for block in plan(several, [], 1000, processes)]
    assert sum(runs) == several.runs
    assert max(runs) == largest
    assert len(runs) <= processes


def test_blocks_have_folders_of_their_own(tmp_path):
    different = [variant(), variant([B, A]), variant(seeds=[1]), variant()._replace(name="two")]
    assert len({blocks.folder_of(tmp_path, Block(one), "f") for one in different}) == len(different)
    longer, as_before = (
        blocks.folder_of(tmp_path, Block(one), "f") for one in (variant(epochs=9), variant())
    )
    assert longer == as_before
    for other in (variant(loss="bce"), variant(max_loss=9.0)):
        assert blocks.folder_of(tmp_path, Block(other), "f") != as_before
    assert blocks.folder_of(tmp_path, Block(variant()), "g") != as_before


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (variant([C, B, A], [5, 1, 0], epochs=3), None),
        (variant(loss="bce"), "loss softmax, not bce"),
        (variant(flip=False), "flip True, not False"),
        (variant(max_loss=9.0), "max_loss None, not 9.0"),
        (variant(watch=("val", "test")), "watch ['val'], not ['val', 'test']"),
        (variant([A, C]), "eta 0.003, which this command leaves out"),
        (variant([A, Config(0.003, 50, 0.1)]), "Config(eta=0.003, batch=20,"),
        (variant(seeds=[1, 2]), "seed 0, which this command leaves out"),
        (variant(epochs=1), None),
        (variant(schedule="cosine"), "schedule constant, not cosine"),
        (variant()._replace(name="two"), "the variant 'one', which this command leaves out"),
    ],
)
def test_what_would_give_other_results_disagrees(held, dataset, wanted, words):
    found = disagreement(held, {wanted.name: wanted}, dataset)
    assert found is None if words is None else words in found


@pytest.mark.parametrize("settings", [{"schedule": "cosine"}, {"average": 2}])
def test_more_epochs_agree_only_where_they_do_not_change_the_first_ones(tmp_path, dataset, settings):
    blocks.write(tmp_path, Block(variant(**settings)), dataset, {})
    (one,) = blocks.read(tmp_path)
    assert disagreement(one, {"one": variant(**settings)}, dataset) is None
    longer = {"one": variant(**settings, epochs=3)}
    assert disagreement(one, longer, dataset) == "epochs 2, not 3"


@pytest.mark.parametrize(
    ("keeps", "wanted", "words"),
    [
        ("best", variant([A, B, C]), None),
        ("best", variant(seeds=[0, 1, 2]), "2 seeds, not 3 (it keeps the best weights only)"),
        ("configurations", variant([A, B, C], [0, 1, 2]), None),
        ("configurations", variant(epochs=3), "epochs 2, not 3"),
    ],
)
def test_what_is_left_of_a_block_limits_how_it_is_extended(tmp_path, dataset, keeps, wanted, words):
    blocks.write(tmp_path, Block(variant(), keeps), dataset, {})
    (one,) = blocks.read(tmp_path)
    assert one.keeps == keeps
    assert disagreement(one, {"one": wanted}, dataset) == words
    assert plan(wanted, [one], 9)[0].keeps == keeps


def test_other_images_disagree(held, dataset):
    other = dataset._replace(name="cifar10", fingerprint="0" * 64)
    assert disagreement(held, {"one": variant()}, other).startswith("the images of synthetic (")


def test_what_was_trained_is_not_dropped(held, dataset):
    further = held._replace(done=2)
    assert disagreement(further, {"one": variant(epochs=2)}, dataset) is None
    assert disagreement(further, {"one": variant(epochs=1)}, dataset) == "epochs 2, not 1"


def test_the_same_run_in_two_blocks_is_refused(tmp_path, dataset):
    blocks.write(tmp_path, Block(variant([A])), dataset, {})
    blocks.write(tmp_path, Block(variant([B, A])), dataset, {})
    with pytest.raises(BlockError, match="the same configuration and seed twice"):
        blocks.read(tmp_path)


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
def test_a_broken_block_is_named(tmp_path, dataset, change):
    path = blocks.write(tmp_path, Block(variant()), dataset, {}) / blocks.BLOCK
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(BlockError, match=str(path)):
        blocks.read(tmp_path)


def test_blocks_together_are_the_run_at_once(dataset, tmp_path):
    whole = variant([A, B], [0, 1])
    at_once = run(whole, dataset)
    planned = [variant([B], [1, 0]), variant([A], [1]), variant([A], [0])]
    parts = [run(block, dataset) for block in planned]
    joined = join(whole, parts)
    assert are_whole(whole, parts)
    assert not are_whole(whole, parts[:2])
    assert not are_whole(whole, [*parts[:2], run(planned[2], dataset, stopped=lambda: True)])
    assert joined.variant == whole
    for ours, theirs in (
        (joined.params.W, at_once.params.W),
        (joined.history.running.loss, at_once.history.running.loss),
        (joined.final["test"].accuracy, at_once.final["test"].accuracy),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(joined.history.finite, at_once.history.finite)
    # Each block keeps no more than what may be the best of the whole.
    condensed = join(whole, [condense(part, len(part.configs)) for part in parts])
    assert len(condensed.kept.seeds) == 3
    results.write(tmp_path, [condensed])
    best, its = joined.ranking[0], np.load(tmp_path / "best_params.npz")
    np.testing.assert_array_equal(its["W"], joined.params.W[joined.best_seed(best), best])
    assert its["eta"] == whole.configs[best].eta
