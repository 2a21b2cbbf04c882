"""Feature sets are compared by configurations that the examples which compare have not chosen."""

import numpy as np
import pytest
import simulations

import linear_cifar as lc
from linear_cifar.uncertainty import assign_parts

CONFIGS = lc.grid(eta=[0.01, 0.1, 1.0], batch=[16])
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.arange(240) % 3)
# The classes are apart in the first two features only.
X = np.float32(RNG.normal(size=(240, 6)) + 2.5 * np.eye(6)[Y])


def fit(features, folds=0, groups=None, seeds=(0, 1), **options):
    rows = np.arange(240)
    parts = {"train": rows[:120], "val": rows[120:180], "test": rows[180:]}
    if not folds:
        sets = {
            name: lc.make_examples(
                features[part], Y[part], 3, groups=None if groups is None else groups[part]
            )
            for name, part in parts.items()
        }
        return lc.fit(CONFIGS, sets["train"], sets, epochs=3, seeds=seeds, **options)
    left_out = np.split(rows, folds)
    replicates = [
        lc.Replicate(seed, fold, np.setdiff1d(rows, part), evaluation_rows={"val": part})
        for seed in seeds
        for fold, part in enumerate(left_out)
    ]
    examples = lc.make_examples(features, Y, 3, groups=groups)
    return lc.fit(CONFIGS, examples, {"val": examples}, epochs=3, seeds=replicates, **options)


@pytest.fixture(scope="module")
def results():
    return {"all": fit(X), "first": fit(X[:, :1]), "noise": fit(X[:, 3:])}


def test_on_a_test_set_each_has_its_best_by_validation(results):
    found = lc.compare(results)
    assert (found.names, found.on, found.names[found.best]) == (("all", "first", "noise"), "test", "all")
    marks = []
    for k, (name, result) in enumerate(results.items()):
        best = result.ranking("val")[0]
        assert found.configs[k] == result.configs[best]
        marks.append(result.values("test", best))
        assert found.accuracy[k] == lc.estimate_accuracy(marks[k]), name
        difference = marks[k].mean() - marks[0].mean()
        assert found.selection.difference[k].mean == pytest.approx(difference)
    may_be_best = lc.confidence_set(np.stack(marks, axis=1))
    assert found.selection.may_be_best.tolist() == may_be_best.tolist()
    assert not may_be_best.all()


@pytest.mark.parametrize(("folds", "grouped"), [(4, False), (0, False), (0, True)])
def test_without_a_test_set_the_other_parts_choose(folds, grouped):
    groups = np.arange(240) // 5 if grouped else None
    results = {"all": fit(X, folds, groups), "first": fit(X[:, :1], folds, groups)}
    found = lc.compare(results, "val")
    for k, result in enumerate(results.values()):
        correct = np.stack([result.values("val", c) for c in range(3)])
        n = correct.shape[2]
        part_of = np.arange(n) // 60 if folds else (np.arange(n) // 5 if grouped else np.arange(n)) % 5
        expected, count = np.empty(correct.shape[1:]), 4 if folds else 5
        by_part = np.stack(
            [correct[:, :, part_of == part].mean(axis=2).mean(axis=1) for part in range(count)]
        )
        for part in range(count):
            # Rounding chooses among equally good ones, so the sum is as in the code.
            chosen = np.argmax((by_part.sum(axis=0) - by_part[part]) / (count - 1))
            expected[:, part_of == part] = correct[chosen][:, part_of == part]
        codes = None if groups is None else groups[120:180]
        assert found.accuracy[k] == lc.estimate_accuracy(expected, codes)
        assert expected.mean() == pytest.approx(result.selection("val").expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: {}, "there are no results"),
        (lambda results: results | {"b": fit(X, seeds=[0])}, "b and all have other seeds"),
        (lambda results: results | {"b": fit(X, groups=Y)}, "b and all have other groups"),
        (lambda results: results | {"b": fit(X, 4)}, "b and all have other folds"),
        (lambda results: results | {"b": fit(X, max_loss=1e-9)}, "every configuration of b diverged"),
    ],
)
def test_what_cannot_be_compared_is_named(results, change, message):
    with pytest.raises(ValueError, match=message):
        lc.compare(change(results), "val")
    with pytest.raises(KeyError, match="there are no marks of 'other'"):
        lc.compare(results, "other")


def test_what_nothing_has_chosen_is_refused():
    examples = lc.make_examples(X, Y, 3)
    alone = lc.fit(CONFIGS, examples, {"test": examples}, epochs=1)
    with pytest.raises(ValueError, match="a has no validation set to choose among 3"):
        lc.compare({"a": alone})
    assert lc.compare({"a": alone.take([0])}).configs == CONFIGS[:1]
    with pytest.raises(ValueError, match="there is no test or validation set that all results have"):
        lc.compare({"a": lc.fit(CONFIGS[:1], examples, epochs=1)})
    single = lc.fit(CONFIGS, examples, {"val": examples.take(np.arange(1))}, epochs=1)
    with pytest.raises(ValueError, match="one example, or one group, cannot choose and measure"):
        lc.compare({"a": single})


def test_no_part_divides_a_group_or_a_fold():
    assert assign_parts(7).tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert assign_parts(6, folds=3).tolist() == [0, 0, 1, 1, 2, 2]
    assert assign_parts(4, groups=np.array(["b", "a", "b", "c"])).tolist() == [1, 0, 1, 2]


def test_a_difference_without_a_test_set_is_that_of_the_best_configuration_of_all():
    results = {"all": fit(X[:, 1:]), "first": fit(X[:, :1])}
    found = lc.compare(results, "val")
    correct = np.concatenate([[result.values("val", c) for c in range(3)] for result in results.values()])
    may_be_best = lc.confidence_set(np.moveaxis(correct, 0, 1))
    assert found.selection.may_be_best.tolist() == [may_be_best[:3].any(), may_be_best[3:].any()]
    best = correct.mean(axis=(1, 2)).reshape(2, 3).max(axis=1)
    assert [estimate.mean for estimate in found.selection.difference] == pytest.approx(best - best.max())
    assert found.best == best.argmax()


def test_equally_good_feature_sets_seem_equally_good():
    for found in simulations.measure_choice(sets=4, configs=12, seeds=2, examples=200, draws=60):
        assert found.held > 0.93
        assert abs(found.chosen) < 0.01
        assert abs(found.measured) < 0.01 < found.naive
