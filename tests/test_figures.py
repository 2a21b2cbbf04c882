import itertools
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from small_runs import draw_result, make_sweep, small_data

from experiments.artifacts import drawing, figures, fonts, measures, search_figures
from experiments.artifacts.plotting import Text, matplotlib
from linear_cifar.config import Config, Range, draw_configs, grid
from linear_cifar.data.dataset import SPLITS
from linear_cifar.uncertainty import DIVERGED, Estimate

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (Config(0.001, 20, 0.0), Config(0.01, 64, 0.1), Config(1.0, 20, 1e10))


def read_svg(path):
    """Return the text of a figure, in which each label is also a comment."""
    return path.with_suffix(".svg").read_text(encoding="utf-8")


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
    predictions = measures.predict(result, data)
    selections = [(result, 0, predictions), (result, result.ranking()[0], predictions)]
    accuracies, intervals = [np.array([0.3, 0.4]), np.array([np.nan])], [Estimate(0.35, 0.25, 0.45), DIVERGED]
    selection = result.selection()
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
        "axes": lambda path: search_figures.plot_axes(path, result),
        "effort": lambda path: search_figures.plot_effort(path, result),
        "steps": lambda path: figures.plot_steps(path, ["a", "b"], accuracies, intervals, "synthetic"),
    }
    for name, draw in drawings.items():
        draw(tmp_path / name)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert "<svg" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8"), name


def test_long_names_of_configurations_are_drawn_whole(tmp_path, data):
    axes = {"eta": Range(1e-4, 1.0), "batch": [100, 200], "lam": Range(1e-6, 0.1), "q": Range(0.0, 0.9)}
    configs = draw_configs(32, **axes)
    result = draw_result(make_sweep(configs), data)
    figures.plot_differences(tmp_path / "differences", result, result.selection())
    pixels = matplotlib.image.imread(tmp_path / "differences.png")
    assert (pixels[:, :2] == 1).all()


def test_figures_of_very_many_configurations_show_the_best(tmp_path, data):
    configs = grid(eta=[0.001 * i for i in range(1, 31)], batch=[20], lam=[0.01 * i for i in range(20)])
    rng, one = np.random.default_rng(0), draw_result(make_sweep(configs[:1], seeds=SEEDS), data)
    many = one.take([0] * len(configs))
    accuracy = rng.random(many.identity.size).astype(np.float32)
    final = many.final | {"val_acc": accuracy, "val_loss": 3 - accuracy}
    many = replace(many, identity=many.identity._replace(configs=tuple(configs)), final=final)
    selection = many.selection()
    figures.plot_heatmap(tmp_path / "heatmap", many, selection)
    figures.plot_differences(tmp_path / "differences", many, selection)
    figures.plot_curves(tmp_path / "curves", many)
    heatmap, curves = (
        (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in ("heatmap", "curves")
    )
    assert "the first 40 of 600" in read_svg(tmp_path / "differences")
    assert "the best 12 of 20 λ" in heatmap
    assert heatmap.count("<!-- λ = ") == 12
    assert f"<!-- λ = {configs[many.ranking()[0]].lam:g} -->" in heatmap
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
    figures_drawn = {
        name: (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in ("several", "single")
    }
    bands = {name: svg.count('id="FillBetween') for name, svg in figures_drawn.items()}
    assert bands == {"several": 2, "single": 0}  # one in each panel


def test_no_cell_of_a_heat_map_is_the_best_if_every_configuration_diverged(tmp_path, result, data):
    diverged = draw_result(make_sweep(CONFIGS[2:]), data, diverged=[0])
    figures.plot_heatmap(tmp_path / "some", result, result.selection())
    figures.plot_heatmap(tmp_path / "none", diverged, diverged.selection())
    frames = {name: figures.ORANGE.lower() in read_svg(tmp_path / name) for name in ("some", "none")}
    assert frames == {"some": True, "none": False}


@pytest.mark.parametrize("may_be_best", [[True, False], [True, True]])
def test_a_heat_map_frames_what_may_be_the_best(tmp_path, data, may_be_best):
    result = draw_result(make_sweep(CONFIGS[:2]), data)
    order = np.argsort(result.ranking())
    selection = result.selection()._replace(may_be_best=np.array(may_be_best)[order])
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
    predictions = measures.predict(result, data)
    selections = [(result, 2, predictions), (result, 0, predictions)]
    figures.plot_histograms(tmp_path / "histograms", selections)
    figures.plot_reliability_diagram(tmp_path / "reliability", selections)
    histograms, diagram = (read_svg(tmp_path / name) for name in ("histograms", "reliability"))
    assert "<!-- classified wrong -->" in histograms
    assert "<!-- classified right -->" in histograms
    assert "<!-- small, eta=1 batch=20 lam=1e+10: diverged -->" in diagram
    assert "<!-- small, eta=0.001 batch=20 lam=0: ECE " in diagram


def test_a_diverged_step_has_a_note(tmp_path):
    accuracies, intervals = (
        [np.array([0.3, 0.4]), np.array([np.nan, 0.4])],
        [Estimate(0.35, 0.25, 0.45), DIVERGED],
    )
    figures.plot_steps(tmp_path / "steps", ["a", "b"], accuracies, intervals, "synthetic")
    assert read_svg(tmp_path / "steps").count("<!-- diverged -->") == 1


# Fonts by the characters that they have, in place of the installed ones.
FONTS = {
    "DejaVu Sans": "abcdefghijklmnopqrstuvwxyz 0123456789()…:,?",
    "Serif": "猫",
    "Sans": "猫犬",
    "Sign": "देव",
}


@pytest.fixture
def few_fonts(monkeypatch):
    """Only these fonts are installed."""
    for function in (fonts.find_fallbacks, fonts.default_characters):
        function.cache_clear()
    monkeypatch.setattr(fonts, "characters_of", lambda family: frozenset(FONTS[family]))
    monkeypatch.setattr(fonts.font_manager, "get_font_names", lambda: list(FONTS))
    yield
    for function in (fonts.find_fallbacks, fonts.default_characters):
        function.cache_clear()


@pytest.mark.usefixtures("few_fonts")
def test_a_fallback_has_as_many_of_the_missing_characters_as_possible():
    assert fonts.missing_characters("cat\n猫犬") == {"猫", "犬"}
    assert fonts.find_fallbacks(frozenset("猫犬")) == (["Sans"], frozenset())
    assert fonts.find_fallbacks(frozenset("猫देx☃")) == (["Sign", "DejaVu Sans", "Sans"], frozenset("☃"))
    assert fonts.find_fallbacks(frozenset()) == ([], frozenset())


@pytest.mark.usefixtures("few_fonts")
def test_labels_of_classes_are_short_and_distinct():
    labels, note = fonts.label_classes(["cat", "猫", "☃", "class 2", "雪"], 12)
    assert labels == ["cat", "猫", "class 2 (2)", "class 2 (3)", "class 4"]
    assert "no installed font has the name" in note
    alike = ["a name that is long, and its end: one", "a name that is long, and its end: two"]
    assert fonts.label_classes(alike, 12) == (["a name…: one", "a name…: two"], "")
    alike = [f"the same beginning {k} and the same end" for k in range(100)]
    labels, _ = fonts.label_classes(alike, 12)
    assert labels[7] == "the …end (7)"
    assert len({*labels}) == 100
    assert max(map(len, labels)) <= 12


def test_a_wide_character_takes_two_columns():
    assert fonts.shorten("猫" * 6, 12) == "猫" * 6
    assert fonts.shorten("猫" * 7, 12) == "猫猫猫…猫猫"
    assert fonts.shorten("a" * 13, 12) == "aaaaaa…aaaaa"


@pytest.mark.parametrize("count", [3, 10, 100])
def test_names_in_any_script_are_drawn_without_a_warning(tmp_path, count):
    names = [f"{name} {k}" for k, name in zip(range(count), itertools.cycle(["猫", "कुत्ता", "\U000f0000"]))]
    title = f"{'猫' * 30} {'long' * 30}.npz \U000f0000"
    figures.plot_confusion(tmp_path / "confusion", np.eye(count), names, title, count <= 20)
    svg = read_svg(tmp_path / "confusion")
    assert "class 2" in svg or count == 100
    assert "\U000f0000" not in svg
    assert "no installed font has the name" in svg


def test_a_title_is_no_wider_than_its_figure(tmp_path):
    for title in ("a title of many words " * 10, f"{'long' * 30}.npz: short\nand a second line"):
        with drawing.draw_figure(tmp_path / "title", (3.0, 3.0), title) as figure:
            pass
        (drawn,) = [text for text in figure.findobj(Text) if text.get_text()]
        assert drawn.get_window_extent().width <= figure.bbox.width
        assert drawn.get_text().split()[-1] == title.split()[-1]


def test_figures_do_not_depend_on_the_users_settings(tmp_path):
    settings = {"font.size": 30, "text.usetex": True, "font.family": "nothing", "axes.grid": True}
    for name, changes in {"plain": {}, "changed": settings}.items():
        with matplotlib.rc_context(changes):
            figures.plot_confusion(tmp_path / name, np.eye(3), ["a", "b", "c"], "title", True)
    assert read_svg(tmp_path / "plain") == read_svg(tmp_path / "changed")
