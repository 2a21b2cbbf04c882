import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from small_runs import draw_result, make_sweep, small_data

from experiments.artifacts import drawing, figures, fonts, measures, search_figures
from experiments.artifacts.plotting import Text, matplotlib, style
from linear_cifar.comparison import Comparison
from linear_cifar.config import Config, Range, draw_configs, grid
from linear_cifar.data.dataset import SPLITS
from linear_cifar.uncertainty import DIVERGED, Estimate, Selection

SEEDS = (3, 4)
# The last one diverges.
CONFIGS = (Config(0.001, 20, 0.0), Config(0.01, 64, 0.1), Config(1.0, 20, 1e10))
GRID = grid(eta=[0.001, 0.01, 0.1, 1.0], batch=[20, 40, 80, 100], lam=[0.0, 0.0001, 1.0])
POINTS = draw_configs(
    48, eta=Range(1e-4, 1.0), batch=[20, 100], lam=Range(1e-6, 0.1, zeros=0.2), q=Range(0, 0.9)
)
LONG = "a data set whose name is very long, longer than a figure is wide.npz cf8cd10c"
STEPS = ["data_batch_1", "full data, flips, grid", "finer grid, cosine decay"]
ACCURACIES = [np.array([0.391, 0.389]), np.array([np.nan, 0.4]), np.array([0.43])]
INTERVALS = [Estimate(0.39, 0.38, 0.40), DIVERGED, Estimate(0.43, 0.41, 0.4512)]


def drawn_texts(figure, titles=True):
    """Finish a figure, and return the texts that it draws."""
    texts, draw = [], Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            texts.append(text)
        draw(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        drawing.finish(figure, titles)
        patch.setattr(Text, "draw", record)
        with style.context(["default", drawing.STYLE]):
            figure.draw_without_rendering()
    return texts


def words(figure):
    return [text.get_text() for text in drawn_texts(figure)]


def find_faults(figure, titles=True):
    """Return the texts that are cut, overlap others or are smaller than 7 pt."""
    texts = drawn_texts(figure, titles)
    boxes = np.array([text.get_window_extent().extents for text in texts])
    low, high = boxes[:, :2], boxes[:, 2:]
    cut = (low < -1).any(axis=1) | (high > np.array(figure.bbox.max) + 1).any(axis=1)
    small = [text.get_fontsize() < 7 for text in texts]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    pairs = np.argwhere(np.triu((shared > 1).all(axis=-1), 1))
    faults = [f"cut: {texts[i].get_text()!r}" for i in np.flatnonzero(cut)]
    faults += [f"small: {texts[i].get_text()!r}" for i in np.flatnonzero(small)]
    return faults + [f"overlap: {texts[i].get_text()!r}, {texts[j].get_text()!r}" for i, j in pairs]


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def result(data):
    return draw_result(make_sweep(CONFIGS, seeds=SEEDS), data, diverged=[2])


@pytest.fixture(scope="module")
def results(data):
    """Results of one, three and 48 configurations; the second has a long name, and one that diverged."""
    one = draw_result(make_sweep(CONFIGS[:1], evaluate=SPLITS), data)
    three = draw_result(make_sweep(CONFIGS, seeds=SEEDS, evaluate=SPLITS), data, diverged=[2])
    three = replace(
        three, about=three.about | {"label": LONG, "classes": [f"{LONG} {k}" for k in range(100)]}
    )
    two = replace(one, about=one.about | {"classes": ["yes", "no"]})
    many = draw_result(make_sweep(GRID, seeds=SEEDS, epochs=3), data)
    # A wide range of accuracies, of which one collapsed.
    accuracy = np.linspace(0.95, 0.3, len(GRID), dtype=np.float32) + np.zeros((2, 1), np.float32)
    accuracy[:, -1] = 0.01
    many = replace(many, final=many.final | {"val_acc": accuracy})
    points = draw_result(make_sweep(POINTS), data, diverged=[5])
    none = draw_result(make_sweep(CONFIGS[1:], seeds=SEEDS, evaluate=SPLITS), data, diverged=[0, 1])
    return {"one": one, "two classes": two, "three": three, "many": many, "points": points, "none": none}


def shown(result, data):
    predictions = measures.predict(result, data)
    return [(result, 0, predictions), (result, result.ranking()[0], predictions)]


def confusion(count, name):
    counts = np.eye(count) * 90 + np.arange(count) % 7
    names = [f"{name} {k}" for k in range(count)]
    return figures.plot_confusion(counts, names, f"{LONG}, test: predictions", count <= 20)


def samples(data, *_):
    classes = tuple(f"{LONG} {k}" for k in range(10))
    return figures.plot_samples(data.dataset._replace(classes=classes))


DRAWINGS = {
    "heatmap": lambda result, _: figures.plot_heatmap(result, result.selection()),
    "differences": lambda result, _: figures.plot_differences(result, result.selection()),
    "curves": lambda result, _: figures.plot_curves(result),
    "axes": lambda result, _: search_figures.plot_axes(result),
    "effort": lambda result, _: search_figures.plot_effort(result),
    "weights": lambda result, _: figures.plot_weights(result, range(len(result.configs))),
    "costs": lambda result, _: figures.plot_costs(result),
    "histograms": lambda result, data: figures.plot_histograms(shown(result, data)),
    "reliability": lambda result, data: figures.plot_reliability_diagram(shown(result, data)),
    "gap": lambda result, data: figures.plot_gaps(shown(result, data)),
    "learning": lambda result, _: figures.plot_learning_curves(result, len(result.configs) - 1),
}
VARIANTS = [
    *itertools.product(["heatmap", "differences", "curves"], ["one", "three", "many", "points", "none"]),
    *itertools.product(["axes", "effort"], ["one", "three", "points", "none"]),
    *itertools.product(["weights"], ["one", "two classes", "three"]),
    *itertools.product(["costs", "histograms", "reliability", "gap", "learning"], ["three", "none"]),
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_no_text_is_cut_or_overlaps_another(results, data, name, variant):
    figure = DRAWINGS[name](results[variant], data)
    assert figure.get_figwidth() in {drawing.COLUMN, drawing.PAGE}
    assert not find_faults(figure, titles=variant != "many")


@pytest.mark.parametrize("count", [2, 10, 100])
@pytest.mark.parametrize("name", ["c", LONG, "\U000f0000"])
def test_no_name_of_a_class_is_cut_or_overlaps_another(count, name):
    assert not find_faults(confusion(count, name))


@pytest.mark.parametrize(
    ("count", "sizes", "name"),
    [
        (1, [100], "raw"),
        (1, [5, 50], LONG),
        (2, [100, 300, 1000, 3000, 100_000], "raw"),
        (6, [10, 11, 12, 13, 5000], "raw"),
        (6, [5, 50], "\U000f0000"),
        (14, [100, 300, 1000, 3000, 100_000], LONG.replace(" ", "_")),
    ],
)
def test_no_text_of_sizes_is_cut_or_overlaps_another(count, sizes, name):
    names, estimates = [f"{name} {i}" for i in range(count)], [INTERVALS[i % 3] for i in range(count)]
    selection = Selection(estimates, np.ones(count, bool), np.nan, 0)
    shown = Comparison(tuple(names), "val", CONFIGS[:1] * count, tuple(estimates), selection, 0)
    figure = figures.plot_sizes(dict.fromkeys(sizes, shown), f"{name}: accuracy by size")
    assert not find_faults(figure)
    drawn = words(figure)
    assert {f"{sizes[0]:,}", "training examples", "val accuracy, %"} <= {*drawn}
    labels = [text for text in drawn if text.endswith((f" {count - 1}", f"({count - 1})"))]
    assert len(labels) == 1 or "class" in drawn[-1]


def test_other_figures_have_no_text_that_is_cut_or_overlaps_another(data):
    assert not find_faults(figures.plot_steps(STEPS, ACCURACIES, INTERVALS, LONG))
    assert not find_faults(samples(data))


def compare_files(count, name, folders=1):
    """Return a comparison of files with these names, and two factors or one."""
    factors = {
        f"{name} {i}": {"file": f"{name} {i}"}
        if folders == 1
        else {"backbone": f"{name} {i % folders}", "layer": f"{name} {i // folders}"}
        for i in range(count)
    }
    means = [0.9 - 0.07 * (i % 10) for i in range(count)]
    accuracy = tuple(Estimate(mean, mean - 0.03, min(1, mean + 0.01)) for mean in means)
    difference = [Estimate(mean - 0.9, mean - 0.93, mean - 0.87) for mean in means]
    selection = Selection(difference, np.arange(count) < 2, 0.9, 5)
    return Comparison(tuple(factors), "val", CONFIGS[:1] * count, accuracy, selection, 0), factors


@pytest.mark.parametrize("name", ["l", LONG, "猫"])
@pytest.mark.parametrize("count", [1, 2, 12, 60])
def test_no_name_of_a_file_is_cut_or_overlaps_another(count, name):
    assert not find_faults(figures.plot_comparison(*compare_files(count, name), LONG))
    for folders in (2, 12) if count % 2 == 0 else ():
        assert not find_faults(figures.plot_factors(*compare_files(count, name, folders), LONG))
    assert figures.plot_factors(*compare_files(count, name), LONG) is None


def test_files_are_drawn_best_first_and_the_heat_map_frames_the_set():
    comparison, factors = compare_files(12, "l", folders=3)
    panel = figures.plot_comparison(comparison, factors, "files").axes[0]
    labels = [text.get_text() for text in panel.get_yticklabels()]
    drawn = [line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 1]
    assert labels[:2] == ["l 0, l 0", "l 1, l 3"]  # files 0 and 10 have the same accuracy
    assert drawn[::3] == sorted(drawn[::3], reverse=True)  # beside each are the ends of its interval
    assert len(drawn[::3]) == 12
    panel = figures.plot_factors(comparison, factors, "files").axes[0]
    frames = {
        (box.get_x() + 0.46, box.get_y() + 0.46): box.get_linewidth()
        for box in panel.patches
        if not box.get_fill()
    }
    assert frames == {(0, 2): 2.4, (0, 1): 1.0}  # columns and rows, from below
    assert panel.images[0].get_array()[0, 1] == pytest.approx(100 * comparison.accuracy[5].mean)
    assert [text.get_text() for text in panel.get_yticklabels()] == ["l 2", "l 1", "l 0"]


def test_faults_are_found():
    with drawing.draw_figure((3.5, 2), "title") as figure:
        figure.subplots().set_axis_off()
        figure.text(0.5, 0.5, "first")
        figure.text(0.5, 0.5, "second")
        figure.text(-0.1, 0.5, "left", fontsize=6)
    assert find_faults(figure) == ["cut: 'left'", "small: 'left'", "overlap: 'first', 'second'"]


def test_text_stays_text_in_every_format(tmp_path, result):
    def draw():
        return {"heatmap": figures.plot_heatmap(result, result.selection())}

    drawing.save_figures(tmp_path, draw(), ["svg", "pdf"], titles=True)
    svg, pdf = ((tmp_path / f"heatmap.{suffix}").read_bytes() for suffix in ("svg", "pdf"))
    assert ">learning rate η</text>".encode() in svg
    assert b": validation accuracy</text>" in svg
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    drawing.save_figures(tmp_path, draw(), ["svg", "png"], titles=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heatmap.png", "heatmap.svg"]
    assert b": validation accuracy</text>" not in (tmp_path / "heatmap.svg").read_bytes()
    drawing.save_figures(tmp_path, {"heatmap": None}, ["svg"], titles=True)
    assert not list(tmp_path.iterdir())


def test_figures_of_very_many_configurations_show_the_best(data):
    configs = grid(eta=[0.001 * i for i in range(1, 16)], batch=[20, 40], lam=[0.01 * i for i in range(20)])
    rng, one = np.random.default_rng(0), draw_result(make_sweep(configs[:1], seeds=SEEDS), data)
    many = one.take([0] * len(configs))
    accuracy = rng.random(many.identity.size).astype(np.float32)
    final = many.final | {"val_acc": accuracy, "val_loss": 3 - accuracy}
    many = replace(many, identity=many.identity._replace(configs=tuple(configs)), final=final)
    selection = many.selection()
    heatmap, curves = words(figures.plot_heatmap(many, selection)), words(figures.plot_curves(many))
    assert "the first 40 of 600 configurations" in words(figures.plot_differences(many, selection))
    assert "the best 12 of 20 λ" in heatmap
    assert sum(text.startswith("λ = ") for text in heatmap) == 12
    assert f"λ = {many.configs[many.ranking()[0]].lam:g}" in heatmap
    assert any("the best 200 of 600 configurations" in text for text in curves)
    assert sum(text.startswith("η = ") for text in curves) <= 8


def test_a_heat_map_has_no_panels_for_an_axis_of_one_value(data):
    result = draw_result(make_sweep(grid(eta=[0.1, 1.0], batch=[16], lam=[0.0, 0.1, 1.0])), data)
    texts = words(figures.plot_heatmap(result, result.selection()))
    assert [text for text in texts if text.startswith(("B = ", "λ = "))] == ["B = 16"]
    assert "L2 strength λ" in texts


def test_colours_span_the_better_half_of_a_heat_map(results):
    figure = figures.plot_heatmap(results["many"], results["many"].selection())
    (image, *_), values = figure.axes[0].images, 100 * results["many"].final["val_acc"].mean(axis=0)
    assert image.get_clim() == pytest.approx((np.median(values), values.max()))
    assert any("colours from the median up" in text for text in words(figure))


def test_curves_above_the_axis_are_counted(results, data):
    history = {name: values.copy() for name, values in results["many"].history.items()}
    worst = results["many"].ranking()[-2:]
    history["val_loss"][-1, :, worst] = 50
    texts = words(figures.plot_curves(replace(results["many"], history=history)))
    above = int(next(text for text in texts if "above the axis" in text).split("; ")[1].split()[0])
    assert 2 <= above <= 24
    assert {"λ = 0.0001\nloss", "η = 1", "B = 80"} <= {*texts}


def test_effort_ends_at_the_chosen_configuration(results):
    for result in (results["many"], results["points"]):
        chosen = result.history["val_acc"].mean(axis=1, dtype=float)[-1]
        assert search_figures.trace_effort(result)[1][-1] == np.nanmax(chosen)


def test_a_figure_too_large_is_drawn_coarser():
    with drawing.draw_figure((1.0, 1000.0), "tall") as figure:
        pass
    assert figure.bbox.height == drawing.MAX_PIXELS


def test_the_best_has_a_band_of_several_seeds(result, data):
    single = draw_result(make_sweep(CONFIGS[:1]), data)
    for drawn, count in ((result, 2), (single, 0)):  # one in each panel
        panels = figures.plot_curves(drawn).axes
        assert sum(len(panel.collections) for panel in panels) == count


@pytest.mark.parametrize("may_be_best", [[True, False], [True, True], None])
def test_a_heat_map_frames_what_may_be_the_best(data, may_be_best):
    diverged = [0, 1] * (may_be_best is None)
    result = draw_result(make_sweep(CONFIGS[:2]), data, diverged)
    selection = result.selection()
    if may_be_best:
        selection = selection._replace(may_be_best=np.array(may_be_best)[np.argsort(result.ranking())])
    panels = figures.plot_heatmap(result, selection).axes
    widths = [patch.get_linewidth() for panel in panels for patch in panel.patches if not patch.get_fill()]
    assert sorted(widths) == ([1.0, 2.4][-sum(may_be_best) :] if may_be_best else [])


def test_curves_that_diverged_have_a_note_and_no_ticks(data):
    result = draw_result(make_sweep(CONFIGS, seeds=SEEDS, evaluate=SPLITS), data, diverged=[2])
    diverged = (result, 2, None)
    for figure, count in (
        (figures.plot_costs(result), 1),
        (figures.plot_learning_curves(result, 2), 2),
        (figures.plot_gaps([(result, 0, None), diverged]), 1),
        (figures.plot_gaps([diverged, diverged]), 3),
        (figures.plot_learning_curves(result, 0), 0),
        (figures.plot_steps(["a", "b"], ACCURACIES[:2], INTERVALS[:2], "synthetic"), 1),
    ):
        texts = words(figure)
        assert texts.count("diverged") == count
        if count == len(figure.axes) > 1:  # no panel has curves
            assert not any(text[0].isdigit() for text in texts)


def test_the_axis_of_epochs_has_whole_numbers(data):
    for epochs in (1, 2):
        result = draw_result(make_sweep(CONFIGS[:1], epochs=epochs), data)
        figure = figures.plot_learning_curves(result, 0)
        drawing.finish(figure)
        panel = figure.axes[0]
        low, high = panel.get_xlim()
        ticks = [tick for tick in panel.get_xticks() if low <= tick <= high]
        assert ticks == [epoch + 1 for epoch in range(epochs)]


def test_a_diverged_selection_is_named_and_hides_no_legend(data):
    result = draw_result(make_sweep(CONFIGS, seeds=SEEDS, evaluate=SPLITS), data, diverged=[2])
    predictions = measures.predict(result, data)
    selections = [(result, 2, predictions), (result, 0, predictions)]
    histograms, diagram = (
        words(plot(selections)) for plot in (figures.plot_histograms, figures.plot_reliability_diagram)
    )
    assert {"classified wrong", "classified right"} <= {*histograms}
    assert "small: η = 1, B = 20, λ = 1e+10: diverged" in diagram
    (label,) = (text for text in diagram if text.startswith("small: η = 0.001, B = 20, λ = 0\nECE "))
    assert re.search(
        r"ECE \d+\.\d\d % \(seed 3\), \d+\.\d\d ± \d+\.\d\d % \(all seeds\)$", label.replace("\n", " ")
    )


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
def test_names_in_any_script_are_drawn_without_a_warning(count):
    names = [f"{name} {k}" for k, name in zip(range(count), itertools.cycle(["猫", "कुत्ता", "\U000f0000"]))]
    title = f"{'猫' * 30} {'long' * 30}.npz \U000f0000"
    texts = words(figures.plot_confusion(np.eye(count), names, title, count <= 20))
    assert "class 2" in texts or count == 100
    assert not any("\U000f0000" in text for text in texts)
    assert any("no installed font has the name" in text for text in texts)


def test_a_title_is_no_wider_than_its_figure():
    for title in ("a title of many words " * 10, f"{'long' * 30}.npz: short\nand a second line"):
        with drawing.draw_figure((3.0, 3.0), title) as figure:
            figure.subplots().set_axis_off()
        (drawn,) = drawn_texts(figure)
        assert drawn.get_window_extent().width <= figure.bbox.width
        assert drawn.get_text().split()[-1] == title.split()[-1]


def test_figures_do_not_depend_on_the_users_settings(tmp_path):
    settings = {"font.size": 30, "text.usetex": True, "font.family": "nothing", "axes.grid": True}
    for name, changes in {"plain": {}, "changed": settings}.items():
        with matplotlib.rc_context(changes):
            figure = figures.plot_confusion(np.eye(3), ["a", "b", "c"], "title", True)
            drawing.save_figures(tmp_path, {name: figure}, ["svg"], titles=True)
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "changed.svg").read_bytes()
