"""The command that searches ranges: its flags, files, tables and figures, and how a search is extended."""

import csv
import re

import numpy as np
import pytest
from absl.testing import flagsaver
from small_runs import draw_result, identify_sweep, make_sweep, small_data, stop_runs

from experiments import search
from experiments.artifacts import figures, search_figures
from experiments.artifacts.plotting import Text
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli import source
from experiments.cli.launch import parse_flags
from experiments.runner.errors import UsageError
from experiments.runner.stages import refit_stage
from linear_cifar.blocks import SavedBlock, find_difference
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.folders import FolderError
from linear_cifar.halving import Halving

FLAGS = (
    "--dataset=synthetic", "--val_size=50", "--epochs=3", "--eta=1e-4:0.01", "--batch=50", "--lam=0:0.1",
    "--log_axes=eta",
)  # fmt: skip
HALVING = ("--halving=2", "--bracket=8")


def parse(*words):
    """Return the sweep that these flags describe."""
    with flagsaver.flagsaver():
        search.define_flags()
        parse_flags(["search", *words])
        return search.make_sweep()


@pytest.fixture(scope="module")
def run_search(tmp_path_factory):
    """Search on synthetic images, without figures, and return the folder."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, *words):
        with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["experiments.search", *FLAGS, *HALVING])
            patch.setattr(source, "find_dataset", lambda *_: make_synthetic(n_train=300, n_test=60))
            for plot in ("differences", "best_weights", "confusion"):
                patch.setattr(figures, f"plot_{plot}", lambda *_: None)
            search.define_flags()
            parse_flags(["search", *FLAGS, *HALVING, f"--out={root / name}", *words])
            search.main()
        return root / name

    return run


@pytest.fixture(scope="module")
def folder(run_search):
    return run_search("search", "--points=16", "--seeds=2")


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_bracket_keeps_its_best_half(folder):
    rows = read_csv(folder / "results.csv")
    assert len(rows) == 32
    for bracket in range(2):
        stops = [row["stopped"] for row in rows[8 * bracket : 8 * bracket + 8]]
        assert sorted(stops) == [""] * 4 + ["1"] * 4
    assert [row["stopped"] for row in rows[:16]] == [row["stopped"] for row in rows[16:]]


def test_a_stopped_run_has_the_rows_and_cells_of_what_was_measured(folder):
    rows, history = (read_csv(folder / name) for name in ("results.csv", "history.csv"))
    for row in rows:
        epochs = [entry for entry in history if all(entry[key] == row[key] for key in ("eta", "lam", "seed"))]
        assert len(epochs) == int(row["epochs"]) == int(row["stopped"] or 3)
        assert epochs[-1]["val_acc"] == row["val_acc"] != ""
        assert (row["test_acc"] == "") == (row["train_loss"] == "") == (row["stopped"] != "")
        assert (row["val_class_acc"] == "") == (row["stopped"] != "")
    result = ExperimentFolder(folder).result("search")
    finished = [[float(row[key]) for key in ("eta", "lam")] for row in rows[:16] if not row["stopped"]]
    ends = result.take_finished()
    assert [[config.eta, config.lam] for config in ends.configs] == finished
    assert ends.values("val", 0).shape == (2, 50)
    stopped = next(c for c in range(16) if result.stopped[0, c])
    with pytest.raises(KeyError, match=f"configuration {stopped} was stopped by halving"):
        result.interval("val", stopped)


def test_the_table_ranks_what_reached_the_end_and_counts_the_others(folder):
    (table,) = ExperimentFolder(folder).tables.values()
    assert len(table.rows) == 8
    assert "Halving stopped 8 after epoch 1; 8 of 16 configurations reached the end" in table.note
    assert "with 95 % confidence the best of those that reached the end on other seeds" in table.note
    assert "Choosing the best is expected" not in table.note
    assert "own best" not in table.note


def test_the_reader_takes_the_best_of_those_that_reached_the_end(folder):
    experiment = ExperimentFolder(folder)
    result = experiment.result("search")
    best = result.best()
    assert best.config == result.take_finished().best().config
    assert not result.stopped[:, best.index].any()
    (table,) = experiment.tables.values()
    assert table.rows[0][1] == f"{best.config.eta:.4g}"


def test_more_points_add_brackets_and_train_no_earlier_one_again(folder, run_search, capsys):
    run_search("extended", "--points=8", "--seeds=2")
    first = {
        path.stat().st_mtime_ns for path in (folder.parent / "extended").glob("blocks/search/*/result-3.npz")
    }
    extended = run_search("extended", "--points=16", "--seeds=2")
    assert "reused: search, 8 configurations x 2 seeds, the first 3 of 3 epochs" in capsys.readouterr().err
    blocks = {path.stat().st_mtime_ns for path in extended.glob("blocks/search/*/result-3.npz")}
    assert first < blocks
    assert len(blocks) == 2
    for name in ("results.csv", "history.csv", "best_params.npz"):
        assert (extended / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds=3"], "holds runs with seeds 0,1, by which halving has chosen"),
        (["--seeds=1"], "holds runs with seeds 0,1, by which halving has chosen"),
        (["--seeds=2", "--epochs=4"], "holds runs with halving 2 at 1 of 3 epochs, not 2 at 1,2 of 4 epochs"),
        (["--seeds=2", "--folds=2"], "holds runs with other data: training examples"),
        (["--seeds=2", "--rungs=2"], "holds runs with halving 2 at 1 of 3 epochs, not 2 at 2 of 3 epochs"),
        (["--seeds=2", "--halving=3"], "holds runs with halving 2 at 1 of 3 epochs, not 3 at 1 of 3 epochs"),
        (
            ["--seeds=2", "--halving=3", "--bracket=16"],
            "holds runs with halving 2 at 1 of 3 epochs, not 3 at 1 of 3 epochs",
        ),
        (["--seeds=2", "--points=8"], "which is left out here"),
        (["--seeds=2", "--bracket=16"], "holds runs with a bracket of 8 points, which halving cannot extend"),
    ],
    ids=" ".join,
)
def test_a_halved_search_is_not_extended_otherwise(folder, run_search, words, message):
    with pytest.raises(FolderError, match=re.escape(message)):
        run_search(folder.name, "--points=16", *words)


def test_a_short_bracket_is_not_extended():
    configs = parse("--points=16", "--batch=50").configs
    whole = identify_sweep(make_sweep(configs, halving=2, rungs=(1,), bracket=8), small_data())
    for places, expected in (
        (slice(4), "a bracket of 4 points, which halving cannot extend"),
        (slice(4, 12), "a bracket of 8 points, which halving cannot extend"),
        (slice(8, 16), None),
    ):
        block = SavedBlock(whole._replace(configs=configs[places]), "all", {}, epochs=1, extendable=True)
        assert find_difference(block, whole, Halving(2, (1,), 8)) == expected


def test_the_ranges_are_recorded_as_text(folder):
    settings = ExperimentFolder(folder).settings
    assert (settings["eta"], settings["lam"], settings["batch"]) == ("0.0001:0.01", "0.0:0.1", [50])
    assert (settings["log_axes"], settings["points"]) == (["eta"], 16)


def test_with_folds_the_mean_over_them_decides_and_the_best_is_trained_again(run_search):
    folder = run_search("folds", "--points=8", "--folds=2")
    rows = read_csv(folder / "results.csv")
    assert [row["sweep"] for row in rows].count("refit") == 1
    by_config = {}
    for row in rows[:-1]:
        by_config.setdefault(row["eta"], []).append(row)
    assert all(len({row["stopped"] for row in members}) == 1 for members in by_config.values())
    ends = {eta: rows for eta, rows in by_config.items() if not rows[0]["stopped"]}
    best = max(ends, key=lambda eta: np.mean([float(row["val_acc"]) for row in ends[eta]]))
    assert rows[-1]["eta"] == best


def test_without_halving_all_points_are_ranked(tmp_path):
    configs = parse("--points=4", "--batch=50").configs
    data = small_data()
    result = draw_result(make_sweep(configs, (0, 1)), data)
    drawn, (table,) = search.render(tmp_path, [result], {"small": data})
    assert len(table.rows) == 4
    assert "Halving" not in table.note
    assert "Choosing the best is expected to reach" in table.note
    assert {name for name, figure in drawn.items() if figure} == {"axes", "effort", "differences", "weights"}


@pytest.mark.parametrize("diverged", [range(8), [0, 1]])
def test_diverged_runs_are_counted_and_drawn(tmp_path, diverged):
    configs = parse("--points=8", "--batch=50").configs
    sweep = make_sweep(configs, (0, 1), halving=2, rungs=(1,), bracket=8)
    data = small_data()
    result = stop_runs(draw_result(sweep, data, diverged), dict.fromkeys([0, 1, 2, 3], 1))
    drawn, (table,) = search.render(tmp_path, [result], {"small": data})
    assert "Halving stopped 4 after epoch 1" in table.note
    assert f"({min(4, len(diverged))} of them had diverged); 4 of 8 configurations" in table.note
    assert ("every configuration diverged" in table.note) == (len(diverged) == 8)
    assert len(table.rows) == 4
    texts = [text.get_text() for text in drawn["axes"].findobj(Text)]
    assert any(f"8 configurations, {len(diverged)} diverged" in text for text in texts)


def test_the_best_of_what_reached_the_end_are_trained_again():
    configs = parse("--points=8", "--batch=50").configs
    sweep = make_sweep(configs, (0, 1), halving=2, rungs=(1,), bracket=8)
    result = stop_runs(draw_result(sweep, small_data()), dict.fromkeys([0, 1, 2, 3, 4], 1))
    for count in (2, 20):
        (refit,) = refit_stage(sweep, count).choose([result])
        assert refit.configs == tuple(configs[c] for c in result.ranking()[:count])
        assert len(refit.configs) == min(count, 3)
        assert (refit.settings.halving, refit.settings.rungs, refit.settings.bracket) == (0, (), 0)


def test_effort_counts_the_epochs_of_what_trains():
    configs = parse("--points=8").configs
    result = draw_result(make_sweep(configs, (0, 1), epochs=3, halving=2, bracket=4), small_data())
    result = stop_runs(result, {0: 1, 1: 2, 3: 1, 4: 1})
    work, best, ends = search_figures.trace_effort(result)
    assert work.tolist() == [8, 12, 14, 22, 28, 34]
    assert ends == [14, 34]
    mean = result.history["val_acc"].mean(axis=1)
    expected = [np.nanmax(mean[i, :4]) for i in range(3)]
    expected += [max(expected[-1], np.nanmax(mean[i, 4:])) for i in range(3)]
    np.testing.assert_allclose(best, expected)
    assert best[-1] == mean[-1, result.ranking()[0]]


def test_ranges_lists_and_rungs_are_parsed():
    sweep = parse("--eta=0.1", "--lam=1e-4:0.1:0.5", "--q=0:0.9", "--points=64", "--batch=10,20")
    assert {config.eta for config in sweep.configs} == {0.1}
    assert {config.batch for config in sweep.configs} == {10, 20}
    assert sum(config.lam == 0 for config in sweep.configs) == 32
    assert (sweep.settings.halving, sweep.settings.rungs, sweep.settings.bracket) == (0, (), 0)
    assert {config.batch for config in parse("--batch=10,10,20").configs} == {10, 20}
    assert {config.q for config in parse("--recipe=best").configs} == {0.7}
    assert parse("--halving=3").settings.rungs == (2, 6, 18)
    assert parse("--halving=3", "--schedule=cosine").settings.rungs == (6, 18)
    assert parse("--halving=3", "--rungs=5,7").settings.rungs == (5, 7)
    logs = [np.log10([config.eta for config in parse("--points=64", *words).configs])
            for words in ([], ["--log_axes=lam"])]  # fmt: skip
    assert np.median(logs[0]) == pytest.approx(-2, abs=0.1)
    assert np.median(logs[1]) == pytest.approx(np.log10(0.5), abs=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eta=1:0.1"], "eta goes from 1 to 0.1: give a lower and a higher end"),
        (["--lam=0:0.1"], "lam goes from 0 on a logarithmic scale"),
        (["--halving=1"], "--halving=1: factor is 1"),
        (["--rungs=2"], "--rungs: it is for --halving"),
        (["--bracket=64"], "--bracket: it is for --halving"),
        (["--halving=3", "--bracket=4", "--points=8"], "--bracket=4: give at least 2 points for each"),
        (["--eta=1e-4:1:0.5"], "eta has a share at 0, where nothing is learned"),
        (["--halving=3", "--eta=0.1,0.2", "--lam=0", "--points=64"], "--points=64: only 8 of them differ"),
        (["--halving=3", "--bracket=100"], "--bracket=100: give a power of two"),
        (["--halving=3", "--points=300"], "--points=300: with --halving give whole brackets of 256, such as"),
        (["--halving=3", "--rungs=6,2"], "rungs is 6,2: give epochs in rising order, below epochs,"),
        (["--halving=3", "--rungs=40"], "rungs is 40: give epochs in rising order"),
        (["--halving=3", "--epochs=1"], "epochs is 1: halving needs at least 2"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_flags_that_do_not_go_together_are_one_line(words, message):
    with pytest.raises(UsageError, match=re.escape(message)) as raised:
        parse(*words)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--eta=a:b", "expected low:high, low:high:share at 0, or numbers separated by commas"),
        ("--eta=1:2:3:4", "expected low:high"),
        ("--batch=50:100", "expected whole numbers separated by commas"),
        ("--rungs=a", "expected whole numbers separated by commas"),
        ("--rungs=0", "rungs is 0: give a whole number, at least 1"),
        ("--log_axes=batch", "expected some of eta, lam, q, momentum"),
        ("--formats=png,jpg", "expected some of png, svg, pdf"),
        ("--formats=", "expected some of png, svg, pdf"),
    ],
)
def test_a_value_that_cannot_be_parsed_is_refused(word, message):
    with flagsaver.flagsaver():
        search.define_flags()
        with pytest.raises(Exception, match=re.escape(message)):
            parse_flags(["search", word])


def test_the_figure_of_the_axes_draws_every_kind():
    words = ["--points=8", "--q=0:0.9", "--momentum=0:0.9:0.5", "--lam=1e-6:0.1:0.2"]
    result = draw_result(make_sweep(parse(*words).configs, (0, 1)), small_data())
    texts = [text.get_text() for text in search_figures.plot_axes(result).findobj(Text)]
    for label in ("learning rate η", "batch size", "λ", "momentum"):
        assert any(label in text for text in texts)
