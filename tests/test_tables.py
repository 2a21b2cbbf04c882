import random
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small_runs import draw_result, make_sweep, small_data

from experiments.artifacts import tables
from experiments.artifacts.exports import best_result
from experiments.artifacts.latex import format_latex
from experiments.artifacts.tables import (
    MAY_BE_BEST,
    PRINTED_ROWS,
    Cell,
    Table,
    format_difference,
    format_interval,
    split_cells,
)
from linear_cifar.config import Config, grid
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.uncertainty import DIVERGED, Estimate, estimate_accuracy, interval_over_seeds

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (*grid(eta=[0.001, 0.01], batch=[20, 64], lam=[0.0, 0.1]), Config(1.0, 20, 1e10))


def ranking_table(result):
    return tables.ranking_table(result, result.selection())


def interval(mean, half_width):
    return Estimate(mean, mean - half_width, mean + half_width)


@pytest.fixture(scope="module")
def result():
    return draw_result(make_sweep(CONFIGS, seeds=SEEDS), small_data(), diverged=[8])


def test_ranking_is_by_mean_validation_accuracy_then_loss_with_diverged_last(result):
    accuracy = np.array([[0.2, 0.4, np.nan, 0.3], [0.4, 0.4, 0.9, 0.5]], np.float32)
    loss = np.array([[1.0, 2.0, np.nan, 1.5], [1.0, 2.0, 1.0, 1.5]], np.float32)
    measured = replace(result.take(range(4)), final={"val_loss": loss, "val_acc": accuracy})
    assert measured.ranking() == [3, 1, 0, 2]


def test_the_ranking_names_the_data_the_seeds_and_what_diverged(result):
    text = ranking_table(result).format()
    lines = text.splitlines()
    assert len(lines) == len(CONFIGS) + 5
    assert lines[0].startswith("synthetic (95 % intervals over seeds 3-4 and examples; train: seeds)")
    assert "diverged in epoch 1" in lines[-4]
    assert lines[-3].startswith("synthetic, best:")
    assert " of 9 configurations may be the best: with 95 % confidence" in lines[-2]
    assert lines[-2].endswith("With fewer than 10 configurations and 10 seeds the set may be large.")
    assert lines[-1].startswith("Choosing the best is expected to reach ")


def with_marks(result, marks):
    """Return the result with these marks [S, C, n] on validation and test examples."""
    accuracy = {name: array.mean(axis=2) for name, array in marks.items()}
    accuracy["train"] = accuracy["val"]
    losses = {f"{name}_loss": 1 - values for name, values in accuracy.items()}
    accuracies = {
        f"{name}_{kind}": values for name, values in accuracy.items() for kind in ("acc", "class_acc")
    }
    packed = {name: np.packbits(array, axis=-1) for name, array in marks.items()}
    return replace(result, final=losses | accuracies, marks=packed)


def test_configurations_are_compared_with_the_best_by_seed_and_example(result):
    rng = np.random.default_rng(0)
    share = np.array([0.40, 0.80, 0.75])
    marks = {name: rng.random((2, 3, n)) < share[:, None] for name, n in (("val", 50), ("test", 100))}
    changed = with_marks(result.take(range(3)), marks)
    np.testing.assert_array_equal(changed.values("test", 1), marks["test"][:, 1])
    table = ranking_table(changed)
    assert table.columns[-2:] == ["val − best, simultaneous", "remark"]
    order = sorted(range(3), key=lambda c: -marks["val"][:, c].mean())
    for place, (c, row) in enumerate(zip(order, table.rows, strict=True)):
        for split, cell in (("val", row[5]), ("test", row[6])):
            assert cell == format_interval(estimate_accuracy(marks[split][:, c]))
        if place:
            assert row[-2] == format_difference(changed.selection().difference[c])
    # Training accuracies have intervals over the seeds.
    train = marks["val"].mean(axis=2)[:, order[:1]]
    assert table.rows[0][4] == format_interval(interval_over_seeds(train))


def test_the_set_of_the_best_is_marked_and_counted(result):
    marks = np.zeros((2, 3, 50), bool)
    marks[:, 0, :40], marks[:, 1, 3:43], marks[:, 2, :5] = True, True, True
    marked = {"val": marks, "test": np.repeat(marks, 2, axis=2)}
    table = ranking_table(with_marks(result.take(range(3)), marked))
    assert [row[-1] for row in table.rows] == [MAY_BE_BEST, MAY_BE_BEST, ""]
    assert "2 of 3 configurations may be the best" in table.note


def test_a_selection_that_only_luck_makes_is_said_to_reach_less():
    marks = np.random.default_rng(0).random((1, 40, 50)) < 0.5
    configs = grid(eta=[0.001 * i for i in range(1, 41)], batch=[20], lam=[0.0])
    drawn = draw_result(make_sweep(configs), small_data())
    changed = with_marks(drawn, {"val": marks, "test": np.repeat(marks, 2, axis=2)})
    selection = changed.selection()
    own = marks.mean(axis=2).max()
    assert own > 0.6
    assert selection.expected < own - 0.05
    assert f"is expected to reach {100 * selection.expected:.2f} (cross-validated over 5 parts" in (
        ranking_table(changed).note
    )


def test_one_seed_gives_intervals_over_examples():
    table = ranking_table(draw_result(make_sweep(CONFIGS[:2]), small_data()))
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "over examples, for these weights" in table.title
    assert "±" not in table.rows[0][4]  # there is none over one seed
    assert " to " in table.rows[0][5]
    assert "each seed" not in table.note


def test_a_difference_has_its_sign():
    assert format_difference(interval(0.0123, 0.004)) == "+1.23 ± 0.40"
    assert format_difference(interval(-0.0123, np.nan)) == "-1.23"
    assert format_interval(DIVERGED) == "-"


def test_an_interval_that_is_not_symmetric_has_both_ends():
    assert format_interval(Estimate(0.99, 0.9455, 0.9997)) == "99.00 (94.55 to 99.97)"
    assert format_interval(Estimate(1.0, 0.88, 1.0)) == "100.00 (88.00 to 100.00)"
    assert format_interval(Estimate(0.4, 0.37, 0.432)) == "40.00 ± 3.10"
    assert format_difference(Estimate(0.01, -0.002, 0.05)) == "+1.00 (-0.20 to 5.00)"


def test_no_luck_is_said_where_there_is_none():
    configs = grid(eta=[0.001, 0.01], batch=[20], lam=[0.0])
    marks = np.zeros((1, 2, 50), bool)
    marks[:, 0, :40], marks[:, 1, :10] = True, True
    drawn = with_marks(draw_result(make_sweep(configs), small_data()), {"val": marks, "test": marks})
    note = ranking_table(drawn).note
    assert "expected to reach 80.00" in note
    assert "luck" not in note


@pytest.mark.parametrize("val_size", [1, 3])
def test_very_few_validation_examples_are_enough_for_a_table(val_size):
    data = prepare_data(make_synthetic(n_train=300, n_test=1), val_size=val_size)
    table = ranking_table(draw_result(make_sweep(CONFIGS[:3], seeds=SEEDS, val_size=val_size), data))
    assert len(table.rows) == 3
    assert (" to " in table.rows[0][5]) == (val_size > 1)
    assert " to " not in table.rows[0][6]
    assert ("cross-validated over 3 parts" in table.note) == (val_size > 1)


def test_a_grid_whose_refit_diverged_has_the_best():
    data = small_data()
    sets = {name: data.sets[name] for name in ("train", "test")}
    whole = draw_result(make_sweep(CONFIGS[:3], seeds=SEEDS), data)
    sweep = make_sweep(CONFIGS[:1], seeds=SEEDS, val_size=0, evaluate=())
    for diverged, expected in (([], "refit"), ([0], "small")):
        refit = draw_result(sweep._replace(name="refit"), data._replace(sets=sets), diverged)
        assert best_result([whole, refit]).about["sweep"] == expected
        assert best_result([whole, refit], complete=False) is whole


def test_a_refit_that_diverged_is_last():
    data = small_data()
    sets = {name: data.sets[name] for name in ("train", "test")}
    sweep = make_sweep(CONFIGS[:3], seeds=SEEDS, val_size=0, evaluate=())
    data = data._replace(sets=sets)
    refit = draw_result(sweep, data, diverged=[0])
    assert refit.ranking() == [1, 2, 0]
    table = tables.refit_table(refit, data)
    assert [row[-1] for row in table.rows] == ["", "", "diverged in epoch 1"]


def test_refitted_configurations_keep_the_order_of_the_selection():
    data = small_data()
    fixed = {"val_size": 0, "evaluate": ()}
    sets = {name: data.sets[name] for name in ("train", "test")}
    refit = draw_result(make_sweep(CONFIGS[:3], seeds=SEEDS, **fixed), data._replace(sets=sets))
    assert refit.ranking() == [0, 1, 2]
    table = tables.refit_table(refit, data)
    assert f"trained again on all {data.size('train'):,} training examples" in table.title
    assert [row[2:4] for row in table.rows] == [["20", "0"], ["20", "0.1"], ["64", "0"]]
    assert table.columns[4:] == ["train acc", "test acc", "test by class", "mean weights", "remark"]
    x = (np.asarray(data.sets["test"].features) - data.standardizer.mean) / data.standardizer.std
    labels = np.asarray(data.sets["test"].targets).argmax(axis=1)
    for c, row in enumerate(table.rows):
        W, b = (leaf[:, c].mean(axis=0) for leaf in refit.params())
        accuracy = ((x @ W.T + b).argmax(axis=1) == labels).mean()
        assert row[-2].startswith(f"{100 * accuracy:.2f} (")


def test_a_table_says_when_every_configuration_diverged():
    diverged = draw_result(make_sweep(CONFIGS[8:]), small_data(), diverged=[0])
    assert "every configuration diverged" in ranking_table(diverged).format()


def test_a_long_table_prints_its_first_rows():
    configs = grid(eta=[0.001 * i for i in range(1, 31)], batch=[20, 64], lam=[0.01 * i for i in range(5)])
    many = draw_result(make_sweep(configs, seeds=SEEDS), small_data())
    table = ranking_table(many)
    lines = table.format().splitlines()
    assert len(table.rows) == 300
    assert len(lines) == 1 + 1 + PRINTED_ROWS + 1 + 3
    assert lines[2 + PRINTED_ROWS] == "and 200 more, see tables.json"


def test_percent_is_mean_and_sample_deviation():
    assert tables.percent(0.25) == ("25.00", 25.0)
    assert tables.percent([0.25, 0.27]).text == "26.00 ± 1.41"
    assert tables.percent([0.25, np.nan]) == ("-", None)


def test_a_configuration_is_named_by_what_its_sweep_uses(result):
    assert tables.configuration_name(result, 0) == "eta=0.001 batch=20 lam=0"
    configs = (CONFIGS[0], CONFIGS[0].replace(q=0.5))
    with_q = replace(result, identity=result.identity._replace(configs=configs))
    assert tables.configuration_name(with_q, 0) == "eta=0.001 batch=20 q=0"


def test_the_first_epoch_of_divergence_is_named(result):
    both = result.take(range(2))
    final = {name: np.where([True, False], values, np.nan) for name, values in both.final.items()}
    # From epoch 4 with one seed, from epoch 3 with another.
    diverged = replace(both, diverged=np.array([[0, 4], [0, 3]]), final=final)
    assert [row[-1] for row in ranking_table(diverged).rows] == [MAY_BE_BEST, "diverged in epoch 3"]


def test_columns_but_the_last_are_aligned_to_the_right():
    rows = [["a", "bb", "c"], ["10", "2", ""], ["1", "2", "long"]]
    assert tables.align(rows) == " a  bb  c\n10   2\n 1   2  long"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.01235"), (1e-6, "1e-06"), (0.1, "0.1"), (65536, "65536"), (np.nan, "-"), (np.inf, "inf")],
)
def test_numbers_have_four_significant_digits_and_whole_ones_all(value, text):
    assert tables.number_cell(value) == (text, value if np.isfinite(value) else None)


def test_the_values_of_cells_are_the_numbers_of_their_texts(result):
    table = ranking_table(result)
    for row, values in zip(table.rows, table.values, strict=True):
        for name, text, value in zip(table.columns, row, values, strict=True):
            if isinstance(value, dict):
                interval = Estimate(*(value[end] / 100 for end in ("mean", "low", "high")))
                assert text in (format_interval(interval), format_difference(interval))
            elif value is None:
                assert text in ("", "-") or name == "remark"
            else:
                assert float(text) == pytest.approx(value, rel=5e-4, abs=0.005)
    assert tables.percent([0.25, 0.27]).value == pytest.approx({"mean": 26, "sd": np.sqrt(2)})


@pytest.mark.parametrize("columns", [["a", "a"], ["a", ""]])
def test_a_column_without_a_name_of_its_own_is_refused(columns):
    with pytest.raises(ValueError, match="of one name, or one without"):
        Table("t", "", columns, [])


def draw_table(draw):
    """Draw a table of texts and numbers, some of whose columns are optional."""
    words = [
        "±",
        "12.34",
        "may be the best",
        "-0.27 (-1.94 to 0.72)",
        "eta=0.0001 batch=100",
        "",
        "100_% {x}",
    ]
    columns = [
        f"{draw.choice('abc')} {'x' * draw.randrange(12)} {number}" for number in range(draw.randint(1, 12))
    ]
    rows = [[draw.choice(words) for _ in columns] for _ in range(draw.randint(1, 5))]
    optional = draw.sample(columns, draw.randrange(len(columns)))
    return Table("t", "A title of words. " * draw.randint(1, 9), columns, rows, (), "Notes. " * 9, optional)


def test_no_line_is_wider_than_the_terminal_and_columns_are_left_out_in_order():
    draw, seen = random.Random(0), set()
    for _ in range(300):
        table, width = draw_table(draw), draw.randint(40, 200)
        lines = table.format(width).splitlines()
        assert max(map(len, lines)) <= width
        assert align_columns(table, 0) in table.format()
        text = " ".join(" ".join(lines).split())
        left_out = next(
            (n for n in range(len(table.optional) + 1) if widest(align_columns(table, n)) <= width), None
        )
        count = len(table.optional) if left_out is None else left_out
        names = "; ".join(table.optional[:count])
        assert (f"columns: without {' '.join(names.split())}. All are in tables.json." in text) == (count > 0)
        if left_out is None:
            assert all(cell in text for row in table.rows for cell in kept_cells(table, row, count))
        else:
            assert align_columns(table, count) in "\n".join(lines)
        seen.add((left_out is None, count > 0))
    assert len(seen) == 4


def kept_cells(table, row, count):
    return [cell for name, cell in zip(table.columns, row, strict=True) if name not in table.optional[:count]]


def align_columns(table, count):
    return tables.align([kept_cells(table, row, count) for row in (table.columns, *table.rows)])


def widest(text):
    return max(map(len, text.splitlines()))


def test_top_5_accuracies_have_columns_where_they_are_measured(result):
    assert not any("top" in name for name in ranking_table(result).columns)
    data = small_data()
    sets = {name: data.sets[name] for name in ("train", "test")}
    sweep = make_sweep(CONFIGS[:3], seeds=SEEDS, val_size=0, evaluate=())
    refit = draw_result(sweep, data._replace(sets=sets))
    for drawn, make_table in ((result, ranking_table), (refit, partial(tables.refit_table, data=data))):
        top = {f"{split}_top5": np.sqrt(drawn.final[f"{split}_acc"]) for split in drawn.marks}
        table = make_table(replace(drawn, final=drawn.final | top))
        for name, values in top.items():
            column = f"{name.removesuffix('_top5')} top-5"
            assert column in table.optional
            best = float(table.rows[0][table.columns.index(column)])
            assert best == pytest.approx(100 * values[:, drawn.ranking()[0]].mean(), abs=0.006)


def test_a_narrow_ranking_keeps_what_matters_most(result):
    table = ranking_table(result)
    text = table.format(80)
    head = text.splitlines()[2].split("  ")
    assert [name for name in map(str.strip, head) if name] == [
        "rank", "eta", "batch", "lam", "val acc", "remark",
    ]  # fmt: skip
    names = "val by class; val loss; train acc; val − best, simultaneous; test acc"
    assert f"80 columns: without {names}. All are in tables.json." in " ".join(text.split())


HOSTILE = "100 % & #1_a {b} ~ ^ \\ $ < > | [c] * ± −1 η λ 猫\n\n-2.5"


def draw_latex():
    """Return a file of two tables, one of them with all that LaTeX could take for a command."""
    cells = [[Cell(HOSTILE), Cell("[0.25]", 0.25)], [Cell("* a"), Cell("-0.27 (-1.94 to 0.72)")]]
    hostile = Table("hostile", f"{HOSTILE}:", ["eta", "[remark"], *split_cells(cells), HOSTILE)
    long = Table("long", "Long", ["n"], [[str(n)] for n in range(PRINTED_ROWS + 5)])
    return format_latex([hostile, long], "synthetic: python -m experiments.grid --out='猫\n%'")


def test_latex_is_ascii_with_all_special_characters_escaped():
    text = draw_latex()
    assert text.isascii()
    comment, about, *_ = text.splitlines()
    assert comment == "% synthetic: python -m experiments.grid --out='? %'"
    assert r"\usepackage{booktabs}" in about
    assert r"{*} a & $-$0.27 ($-$1.94 to 0.72) \\" in text
    assert (
        r"\caption{100 \% \& \#1\_a \{b\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$ $<$ $>$"
        in text
    )
    assert r"{[}c] {*} $\pm$ $-$1 $\eta$ $\lambda$ ? $-$2.5}\label{tab:hostile}" in text
    assert r"$\eta$ & {[}remark \\" in text
    assert "and 5 more, see tables.json" in text
    assert "\n99 \\\\\n\\bottomrule" in text


def test_latex_is_balanced():
    text = re.sub(r"(?m)^%.*\n", "", draw_latex())
    assert not re.search(r"(?<!\\)[%#]", text)
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 2
    bare = re.sub(r"\\[{}$&%#_]", "", text)  # without escaped characters
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", bare, re.S):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {row.count("&") for row in rows} == {len(columns) - 1}


def test_pdflatex_accepts_the_tables(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    text = "\n".join(
        [r"\documentclass{article}\usepackage{booktabs}\begin{document}", draw_latex(), r"\end{document}"]
    )
    (tmp_path / "paper.tex").write_text(text, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
