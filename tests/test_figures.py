import re
import struct

import jax
import numpy as np
import pytest
from small_runs import draw_result, make_sweep, small_data

from experiments.artifacts import drawing, figures, measures
from experiments.artifacts.intervals import DIVERGED, Interval, describe_selection
from linear_cifar.config import Config, grid
from linear_cifar.data.dataset import SPLITS
from linear_cifar.evaluation import Metrics

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (Config(0.001, 20, 0.0), Config(0.01, 64, 0.1), Config(1.0, 20, 1e10))


def read_svg(path):
    """Return the text of a figure, in which each label is also a comment."""
    return path.with_suffix(".svg").read_text()


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def result(data):
    return draw_result(make_sweep(CONFIGS, seeds=SEEDS), data, diverged=[2])


@pytest.mark.parametrize("diverged", [[2], [0, 1, 2]], ids=["some diverge", "all diverge"])
def test_every_figure_is_drawn(tmp_path, data, diverged):
    sweep = make_sweep(CONFIGS, loss="bce", epochs=1, evaluate=SPLITS)
    result = draw_result(sweep, data, diverged)
    predictions = measures.predict(result)
    selections = [(result, 0, predictions), (result, result.ranking[0], predictions)]
    accuracies, intervals = [np.array([0.3, 0.4]), np.array([np.nan])], [Interval(0.35, 0.1), DIVERGED]
    selection = describe_selection(result)
    drawings = {
        "heatmap": lambda path: figures.plot_heatmap(path, result, selection),
        "differences": lambda path: figures.plot_differences(path, result, selection),
        "curves": lambda path: figures.plot_curves(path, result),
        "costs": lambda path: figures.plot_costs(path, result),
        "samples": lambda path: figures.plot_samples(path, data.dataset),
        "weights": lambda path: figures.plot_weights(path, result, range(len(CONFIGS))),
        "confusion": lambda path: figures.plot_confusion(
            path, np.eye(3), ["$\\bad{", "a$b^", "c"], "$5", True
        ),
        "histograms": lambda path: figures.plot_histograms(path, selections),
        "reliability": lambda path: figures.plot_reliability_diagram(path, selections),
        "gap": lambda path: figures.plot_gaps(path, selections),
        "learning": lambda path: figures.plot_learning_curves(path, result, 0),
        "steps": lambda path: figures.plot_steps(path, ["a", "b"], accuracies, intervals, "synthetic"),
    }
    for name, draw in drawings.items():
        draw(tmp_path / name)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert "<svg" in (tmp_path / f"{name}.svg").read_text(), name


def test_figures_of_very_many_configurations_show_the_best(tmp_path, result):
    configs = grid([0.001 * i for i in range(1, 31)], [20], [0.01 * i for i in range(20)])
    accuracy = np.random.default_rng(0).random((2, len(configs))).astype(np.float32)
    final = {split: Metrics(3 - accuracy, accuracy) for split in SPLITS}
    history = jax.tree.map(lambda values: values[:, :, [0] * len(configs)], result.history)
    correct = {name: packed[:, [0] * len(configs)] for name, packed in result.correct.items()}
    sweep = make_sweep(configs, seeds=SEEDS)
    stopped = np.zeros(sweep.size, np.int64)
    many = result._replace(sweep=sweep, history=history, final=final, correct=correct, stopped=stopped)
    selection = describe_selection(many)
    figures.plot_heatmap(tmp_path / "heatmap", many, selection)
    figures.plot_differences(tmp_path / "differences", many, selection)
    figures.plot_curves(tmp_path / "curves", many)
    heatmap, curves = ((tmp_path / f"{name}.svg").read_text() for name in ("heatmap", "curves"))
    assert "the first 40 of 600" in read_svg(tmp_path / "differences")
    assert "the best 12 of 20 λ" in heatmap
    assert heatmap.count("<!-- λ = ") == 12
    assert f"<!-- λ = {configs[many.ranking[0]].lam:g} -->" in heatmap
    assert "loss of 200 configurations, " in curves
    assert " less accurate" in curves
    assert curves.count("<!-- η = ") <= 12
    for name in ("heatmap", "curves", "differences"):
        width, height = struct.unpack(">II", (tmp_path / f"{name}.png").read_bytes()[16:24])
        assert max(width, height) <= drawing.MAX_PIXELS


def test_a_figure_too_large_is_drawn_coarser(tmp_path):
    with drawing.draw_figure(tmp_path / "tall", (1.0, 1000.0), "tall"):
        pass
    assert struct.unpack(">II", (tmp_path / "tall.png").read_bytes()[16:24]) == (30, 30_000)


def test_the_best_has_a_band_of_several_seeds(tmp_path, result, data):
    figures.plot_curves(tmp_path / "several", result)
    figures.plot_curves(tmp_path / "single", draw_result(make_sweep(CONFIGS[:1]), data))
    figures_drawn = {name: (tmp_path / f"{name}.svg").read_text() for name in ("several", "single")}
    bands = {name: svg.count('id="FillBetween') for name, svg in figures_drawn.items()}
    assert bands == {"several": 2, "single": 0}  # one in each panel


def test_no_cell_of_a_heat_map_is_the_best_if_every_configuration_diverged(tmp_path, result, data):
    diverged = draw_result(make_sweep(CONFIGS[2:]), data, diverged=[0])
    figures.plot_heatmap(tmp_path / "some", result, describe_selection(result))
    figures.plot_heatmap(tmp_path / "none", diverged, describe_selection(diverged))
    frames = {name: figures.ORANGE.lower() in read_svg(tmp_path / name) for name in ("some", "none")}
    assert frames == {"some": True, "none": False}


@pytest.mark.parametrize("may_be_best", [[True, False], [True, True]])
def test_a_heat_map_frames_what_may_be_the_best(tmp_path, data, may_be_best):
    result = draw_result(make_sweep(CONFIGS[:2]), data)
    order = np.argsort(result.ranking)
    selection = describe_selection(result)._replace(may_be_best=np.array(may_be_best)[order])
    figures.plot_heatmap(tmp_path / "heatmap", result, selection)
    svg = read_svg(tmp_path / "heatmap")
    widths = re.findall(f"stroke: {figures.ORANGE.lower()}; stroke-width: ([0-9.]+)", svg)
    assert sorted(widths) == ["1.2", "3"][-sum(may_be_best) :]
    assert ("thin frames" in svg) == all(may_be_best)


def test_curves_that_diverged_have_a_note_and_no_ticks(tmp_path, data):
    result = draw_result(make_sweep(CONFIGS, seeds=SEEDS, evaluate=SPLITS), data, diverged=[2])
    diverged = (result, 2, None)
    panels = {
        "costs": (1, lambda path: figures.plot_costs(path, result)),
        "learning": (2, lambda path: figures.plot_learning_curves(path, result, 2)),
        "gap": (1, lambda path: figures.plot_gaps(path, [(result, 0, None), diverged])),
        "all": (3, lambda path: figures.plot_gaps(path, [diverged, diverged])),
        "none": (0, lambda path: figures.plot_learning_curves(path, result, 0)),
    }
    for name, (count, draw) in panels.items():
        draw(tmp_path / name)
        assert read_svg(tmp_path / name).count("<!-- diverged -->") == count, name
    labels = {name: re.findall("<!-- [−0-9.]+ -->", read_svg(tmp_path / name)) for name in panels}
    assert labels["learning"] == labels["all"] == []
    assert labels["none"]


def test_the_axis_of_epochs_has_whole_numbers(tmp_path, data):
    for epochs in (1, 2):
        result = draw_result(make_sweep(CONFIGS[:1], epochs=epochs), data)
        figures.plot_learning_curves(tmp_path / "learning", result, 0)
        svg = read_svg(tmp_path / "learning")
        first_axis = svg[svg.index('id="matplotlib.axis_1"') : svg.index('id="matplotlib.axis_2"')]
        ticks = re.findall("<!-- ([0-9.]+) -->", first_axis)
        assert ticks == [str(epoch + 1) for epoch in range(epochs)]


def test_a_diverged_selection_is_named_and_hides_no_legend(tmp_path, data):
    result = draw_result(make_sweep(CONFIGS, seeds=SEEDS, evaluate=SPLITS), data, diverged=[2])
    predictions = measures.predict(result)
    selections = [(result, 2, predictions), (result, 0, predictions)]
    figures.plot_histograms(tmp_path / "histograms", selections)
    figures.plot_reliability_diagram(tmp_path / "reliability", selections)
    histograms, diagram = (read_svg(tmp_path / name) for name in ("histograms", "reliability"))
    assert "<!-- classified wrong -->" in histograms
    assert "<!-- classified right -->" in histograms
    assert "<!-- small, eta=1 batch=20 lam=1e+10: diverged -->" in diagram
    assert "<!-- small, eta=0.001 batch=20 lam=0: ECE " in diagram


def test_a_diverged_step_has_a_note(tmp_path):
    accuracies, intervals = [np.array([0.3, 0.4]), np.array([np.nan, 0.4])], [Interval(0.35, 0.1), DIVERGED]
    figures.plot_steps(tmp_path / "steps", ["a", "b"], accuracies, intervals, "synthetic")
    assert read_svg(tmp_path / "steps").count("<!-- diverged -->") == 1
