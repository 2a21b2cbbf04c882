import numpy as np
import pytest
from small_runs import draw_result, make_sweep, small_data

from experiments.artifacts import tables
from experiments.artifacts.tables import NOT_SIGNIFICANT, PRINTED_ROWS, ranking_table
from linear_cifar.config import Config, grid
from linear_cifar.evaluation import Metrics

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (*grid([0.001, 0.01], [20, 64], [0.0, 0.1]), Config(1.0, 20, 1e10))


@pytest.fixture(scope="module")
def result():
    return draw_result(make_sweep(CONFIGS, seeds=SEEDS), small_data(), diverged=[8])


def test_ranking_is_by_mean_validation_accuracy_then_loss_with_diverged_last(result):
    accuracy = np.array([[0.2, 0.4, np.nan, 0.3], [0.4, 0.4, 0.9, 0.5]], np.float32)
    loss = np.array([[1.0, 2.0, np.nan, 1.5], [1.0, 2.0, 1.0, 1.5]], np.float32)
    assert result._replace(final={"val": Metrics(loss, accuracy)}).ranking == [3, 1, 0, 2]


def test_the_ranking_names_the_data_the_seeds_and_what_diverged(result):
    text = str(ranking_table(result))
    lines = text.splitlines()
    assert len(lines) == len(CONFIGS) + 4
    assert lines[0].startswith("synthetic (mean ± standard deviation over seeds 3-4)")
    assert "diverged in epoch 1" in lines[-3]
    assert lines[-2].startswith("synthetic, best:")
    assert f"{NOT_SIGNIFICANT}: " in lines[-1]


def test_configurations_are_compared_with_the_best_by_seed(result):
    # The second is as far below the first in both seeds; the third is above it in one.
    val = np.array([[0.60, 0.50, 0.61, np.nan], [0.70, 0.60, 0.60, 0.1]], np.float32)
    test = np.array([[0.40, 0.50, 0.43, 0.9], [0.60, 0.20, 0.30, 0.9]], np.float32)
    final = {"train": Metrics(val, val), "val": Metrics(1 - val, val), "test": Metrics(test, test)}
    history = result.history._replace(finite=np.isfinite(val)[None])
    sweep = make_sweep(CONFIGS[:4], seeds=SEEDS)
    by_class = {"val": val, "test": test}
    changed = result._replace(sweep=sweep, history=history, final=final, class_accuracy=by_class)
    table = ranking_table(changed)
    assert table.columns[-3:] == ["val − best", "won", ""]
    assert [row[-3:] for row in table.rows] == [
        ["", "", ""],
        ["-4.50 ± 5.50", "1/2", NOT_SIGNIFICANT],
        ["-10.00 ± 0.00", "0/2", ""],
        ["-", "0/2", "diverged in epoch 1"],
    ]
    # Seed 3 alone would choose the third, and seed 4 the first.
    assert "test 50.00 ± 14.14; mean per class: val 65.00 ± 7.07, test 50.00 ± 14.14; each" in table.note
    assert "own best: test 51.50 ± 12.02." in table.note


def test_one_seed_allows_no_comparison():
    table = ranking_table(draw_result(make_sweep(CONFIGS[:2]), small_data()))
    assert table.columns[-2:] == ["val loss", ""]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    for text in (NOT_SIGNIFICANT, "each seed", "±"):
        assert text not in str(table)


def test_a_table_says_when_every_configuration_diverged():
    diverged = draw_result(make_sweep(CONFIGS[8:]), small_data(), diverged=[0])
    assert "every configuration diverged" in str(ranking_table(diverged))


def test_a_long_table_prints_its_first_rows(result):
    configs = grid([0.001 * i for i in range(1, 31)], [20, 64], [0.01 * i for i in range(5)])
    accuracy = np.random.default_rng(0).random((2, len(configs))).astype(np.float32)
    final = {split: Metrics(3 - accuracy, accuracy) for split in ("train", "val", "test")}
    history = result.history._replace(finite=np.ones((2, 2, len(configs)), bool))
    by_class = {"val": accuracy, "test": accuracy}
    sweep = make_sweep(configs, seeds=SEEDS)
    many = result._replace(sweep=sweep, history=history, final=final, class_accuracy=by_class)
    table = ranking_table(many)
    lines = str(table).splitlines()
    assert len(table.rows) == 300
    assert len(lines) == 1 + 1 + PRINTED_ROWS + 1 + 2
    assert lines[2 + PRINTED_ROWS] == "and 200 more, see tables.json"


def test_percent_is_mean_and_sample_deviation():
    assert tables.percent(0.25) == "25.00"
    assert tables.percent([0.25, 0.27]) == "26.00 ± 1.41"
    assert tables.percent([0.25, np.nan]) == "-"


def test_a_configuration_is_named_by_what_its_sweep_uses(result):
    assert tables.configuration_name(result, 0) == "eta=0.001 batch=20 lam=0"
    configs = (CONFIGS[0], CONFIGS[0]._replace(q=0.5))
    with_q = result._replace(sweep=make_sweep(configs))
    assert tables.configuration_name(with_q, 0) == "eta=0.001 batch=20 lam=0 q=0"


def test_the_first_epoch_of_divergence_is_named(result):
    finite = np.ones((4, 2, 2), bool)
    finite[3:, 0, 1], finite[2:, 1, 1] = False, False  # from epoch 4 with one seed, from epoch 3 with another
    sweep = make_sweep(CONFIGS[:2], seeds=SEEDS)
    val = Metrics(np.array([[1, np.nan]] * 2), np.array([[0.5, np.nan]] * 2))
    history = result.history._replace(finite=finite)
    final = dict.fromkeys(("train", "val", "test"), val)
    diverged = result._replace(sweep=sweep, history=history, final=final)
    assert [row[-1] for row in ranking_table(diverged).rows] == ["", "diverged in epoch 3"]


def test_columns_but_the_last_are_aligned_to_the_right():
    rows = [["a", "bb", "c"], ["10", "2", ""], ["1", "2", "long"]]
    assert tables.align(rows) == " a  bb  c\n10   2\n 1   2  long"
