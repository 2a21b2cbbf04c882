"""The report: reading experiments back, the verdicts, and the page, in a browser where there is one."""

import copy
import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from small_runs import SETTINGS, draw_result, stop_runs, train_sweep

from experiments import bce, grid, improve, report, search, table1
from experiments.artifacts import drawing, provenance
from experiments.artifacts.confusion import render_confusion
from experiments.artifacts.exports import best_result, write_results
from experiments.artifacts.reader import ExperimentFolder, MissingResult, ReadError, find_experiments
from experiments.artifacts.tables import Table, format_interval
from experiments.reporting import claims
from experiments.reporting.claims import IN_DOUBT, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from experiments.reporting.page import render_html
from experiments.reporting.sections import REFERENCE, gather_report
from experiments.runner.errors import UsageError
from experiments.runner.folder import BLOCKS, CONFIG, TABLES
from experiments.runner.stages import Sweep
from linear_cifar.blocks import SWEEP, block_folder
from linear_cifar.checkpoints import RESULT
from linear_cifar.config import AXES, Config
from linear_cifar.data.prepare import prepare_data
from linear_cifar.data.synthetic import make_synthetic
from linear_cifar.folders import write_json
from linear_cifar.npz import read_npz, write_npz

SEEDS = (5, 6, 7)
PAIRS = ((0.1, 0.0), (0.001, 0.0), (0.001, 0.1), (0.001, 1.0))
ROWS = tuple(Config(eta, 100, lam) for eta, lam in PAIRS)
GRID = (Config(0.001, 50, 0.0), claims.CLAIMED_BEST, Config(1.0, 50, 1e10))  # the last one diverges
STEPS = {"data_batch_1": ROWS[2:3], claims.TRICKS: GRID}
LOSSES = {loss: tuple(dict.fromkeys((config, *ROWS[1:3]))) for loss, config in claims.TABLE2.items()}
EXPERIMENTS = {
    "table1": (table1, {"table1": ROWS}, {"evaluate": ("train", "val")}),
    "grid": (grid, {"grid": GRID}, {}),
    "search": (search, {"search": GRID}, {"halving": 2, "rungs": (1,), "bracket": 4}),
    "bce": (bce, LOSSES, {"evaluate": ("train", "val", "test")}),
    "improve": (improve, STEPS, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small experiments of every kind, as the commands write them."""
    data = prepare_data(make_synthetic(n_train=700, n_test=120), val_size=60)
    root = tmp_path_factory.mktemp("results")
    for name, (module, sweeps, changes) in EXPERIMENTS.items():
        results, planned = {}, []
        for sweep, configs in sweeps.items():
            loss = sweep if sweep in claims.TABLE2 else "softmax"
            settings = SETTINGS._replace(**{"val_size": 60, "loss": loss} | changes)
            planned.append(Sweep(sweep, settings, SEEDS, configs))
            diverged = [c for c, config in enumerate(configs) if config == GRID[2]]
            # Only the measures of `bce` must agree with its weights.
            trained = name == "bce"
            result = train_sweep(planned[-1], data) if trained else draw_result(planned[-1], data, diverged)
            results[sweep] = stop_runs(result, {1: 1}) if name == "search" else result
        write_experiment(root / name / "one <&> two", module, planned, results, data)
    return root


def write_experiment(folder, module, sweeps, results, data):
    """Write the files of an experiment, as its command does."""
    data, listed = {sweep.name: data for sweep in sweeps}, list(results.values())
    for name, result in results.items():
        block = block_folder(folder / BLOCKS / name, result.identity)
        block.mkdir(parents=True)
        write_json(block.parent / SWEEP, {"identity": result.identity.to_json()})
        result.save(block / f"{RESULT}-{len(result.identity.epochs)}.npz")
    write_results(folder, listed)
    figures, tables = module.render(folder, listed, data)
    confusion, pairs = render_confusion(best_result(listed), data)
    drawing.save_figures(folder, {**figures, "confusion": confusion}, ["png", "svg"], titles=True)
    tables = [*tables, *pairs]
    write_json(folder / TABLES, {"tables": [vars(table) for table in tables]})
    name = module.__name__.removeprefix("experiments.")
    write_json(
        folder / CONFIG, provenance.describe_experiment(name, {}, sweeps, data, results, complete=True)
    )


@pytest.fixture
def experiments(folder):
    return {experiment.name: experiment for experiment in find_experiments(folder, pytest.fail)}


def test_experiments_are_read_back_as_they_were_written(experiments):
    result = experiments["grid"].result("grid")
    assert result.configs == GRID
    assert experiments["grid"].dataset == "synthetic"
    assert result.final["val_acc"][:, 0].shape == (3,)
    assert np.isnan(result.final["val_acc"][:, 2]).all()
    assert result.best().config in GRID[:2]
    assert result.diverged.tolist() == [[0, 0, 1]] * 3
    assert "test_acc" not in result.history
    assert list(experiments["table1"].tables) == ["table1", "ranking"]
    with pytest.raises(MissingResult, match="refit"):
        experiments["grid"].result("refit")


@pytest.mark.parametrize("name", ["confidence", "second", "overconfident", "true_wrong"])
def test_values_per_example_have_the_measures_as_their_means(experiments, name):
    experiment = experiments["bce"]
    with (experiment.folder / "measures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for loss, config in claims.TABLE2.items():
        key = {"sweep": loss, **{axis: f"{value}" for axis, value in config.items()}}
        runs = [row for row in rows if key.items() <= row.items()]
        values = experiment.measured(name, loss, config)
        assert values.shape == (3, 120)
        np.testing.assert_allclose(values.mean(axis=1), [float(row[name]) for row in runs], atol=1e-6)
    for missing in ((name, "bce", ROWS[0]), ("ece", "bce", claims.TABLE2["bce"])):
        with pytest.raises(MissingResult):
            experiment.measured(*missing)


def test_intervals_are_those_of_the_tables(experiments):
    experiment = experiments["grid"]
    (row,) = [row for row in experiment.tables["ranking"].rows if row[1:4] == ["0.001", "50", "0"]]
    for split, cell in zip(("train", "val", "test"), row[4:7], strict=True):
        assert format_interval(experiment.result("grid").interval(split, 0)) == cell


def test_broken_values_per_example_are_named(folder, tmp_path):
    shutil.copytree(folder / "bce", tmp_path / "bce")
    (path,) = tmp_path.rglob("values.npz")
    arrays, description = read_npz(path)
    second = arrays["bce.second"]

    def measure():
        return ExperimentFolder(path.parent).measured("second", "bce", claims.TABLE2["bce"])

    for changed in (second[0], second.astype(float), second[..., 1:], second[:2]):
        write_npz(path, arrays | {"bce.second": changed}, description)
        with pytest.raises(ReadError, match=r"values\.npz cannot be read: .*bce\.second is float"):
            measure()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReadError, match=r"values\.npz cannot be read"):
        measure()
    path.unlink()
    with pytest.raises(MissingResult):
        measure()


def test_unreadable_experiments_are_named_and_left_out(folder, tmp_path):
    for name, content in {"a": "{", "b": "[]", "c": '{"schema": 1}', "d": '{"schema": 2}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content, encoding="utf-8")
    shutil.copytree(folder / "grid", tmp_path / "whole")
    lines = []
    (whole,) = find_experiments(tmp_path, lines.append)
    assert whole.name == "grid"
    assert len(lines) == 4
    whole.sweeps["grid"]["identity"] = "0" * 16
    with pytest.raises(ReadError, match=r"does not hold the results that config\.json describes"):
        whole.result("grid")
    (block,) = whole.folder.rglob("result-2.npz")
    block.write_bytes(block.read_bytes()[:-1])
    with pytest.raises(ReadError, match=r"result-2\.npz"):
        whole.result("grid")
    block.unlink()
    with pytest.raises(ReadError, match="holds no finished block"):
        whole.result("grid")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.385, 0.39, 0.395], REPRODUCED),
        ([0.375, 0.385, 0.38], IN_DOUBT),
        # One more seed scatters by 4.303 · 0.1 · √(4/3) = 0.497 points; the means are 0.69, 1.19, 1.21 away.
        ([0.3821, 0.3831, 0.3841], REPRODUCED),
        ([0.3771, 0.3781, 0.3791], IN_DOUBT),
        ([0.3769, 0.3779, 0.3789], NOT_REPRODUCED),
        ([0.39, 0.39], IN_DOUBT),
        ([0.39, np.nan, 0.39], IN_DOUBT),
    ],
)
def test_a_number_is_judged_by_the_stated_rule(values, verdict):
    assert claims.judge_number(39.0, np.repeat(np.array(values)[:, None], 4, axis=1)) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    # In points. With three seeds the interval is ± 4.303 standard errors, which are 0.0577 and 0.577.
    [
        ([0.9, 1.0, 1.1], REPRODUCED),
        ([-0.9, -1.0, -1.1], NOT_REPRODUCED),
        ([2.4, 3.4, 4.4], REPRODUCED),
        ([1.4, 2.4, 3.4], IN_DOUBT),
        ([1.0, 1.0], IN_DOUBT),
        ([1.0, np.nan, 1.0], IN_DOUBT),
    ],
)
def test_a_comparison_is_judged_by_the_stated_rule(values, verdict):
    assert claims.judge_difference(np.repeat(np.array(values)[:, None], 500, axis=1) / 100) == verdict


@pytest.mark.parametrize(("gained", "lost", "verdict"), [(65, 40, REPRODUCED), (60, 42, IN_DOUBT)])
def test_images_may_leave_in_doubt_what_the_seeds_agree_on(gained, lost, verdict):
    # Every seed gains on the same images. McNemar's test: (65 − 40) / √105 = 2.44, (60 − 42) / √102 = 1.78.
    differences = np.zeros((5, 1_000))
    differences[:, :gained], differences[:, gained : gained + lost] = 1, -1
    assert claims.judge_difference(differences) == verdict


def test_the_rule_names_the_limits_that_the_verdicts_use():
    assert f"within {claims.TOLERANCE} points" in claims.RULE
    assert f"fewer than {claims.MIN_SEEDS} seeds" in claims.RULE


@pytest.fixture
def as_reported(experiments):
    """The same experiments, declared to be on real images and with the report's settings."""
    for experiment in experiments.values():
        experiment.dataset = "cifar10"
        for sweep, expected in claims.SETTINGS.get(experiment.name, {}).items():
            experiment.sweeps[sweep] |= expected
    return experiments


def verdicts(experiments):
    return {finding.claim.text: finding.verdict for finding in claims.judge_claims(experiments)}


def test_every_claim_is_judged(as_reported):
    found = verdicts(as_reported)
    assert len(found) == len(claims.CLAIMS)
    assert NOT_RUN not in found.values()
    # Synthetic labels are drawn evenly, so BCE's probabilities start far above a tenth.
    assert found["BCE gives several classes a high probability (mean of the second class)"] == REPRODUCED
    assert found["Test accuracy at η 0.01, batch 400, λ 0.1"] == NOT_REPRODUCED
    assert set(verdicts({}).values()) == {NOT_RUN}


def test_synthetic_images_prove_nothing(as_reported):
    for experiment in as_reported.values():
        experiment.dataset = "synthetic"
    assert set(verdicts(as_reported).values()) == {IN_DOUBT}


def test_an_experiment_with_other_settings_does_not_test_the_claims(as_reported):
    as_reported["table1"].sweeps["table1"]["epochs"] = 1
    (finding,) = [found for found in claims.judge_claims(as_reported) if found.claim.text == "λ = 1 harms"]
    assert (finding.verdict, finding.measured) == (NOT_RUN, "this experiment has 1 epochs, the report has 40")


def test_a_section_says_where_its_settings_are_not_the_reports(as_reported, folder):
    as_reported["grid"].sweeps["grid"] |= {"epochs": 10, "train": "batch1"}
    page = gather_report(as_reported)
    labels = {experiment.name: section.deviation for experiment, section in page.sections}
    expected = "10 epochs, the report has 40; train batch1, the report has full"
    assert labels == dict.fromkeys(as_reported, "") | {"grid": expected}
    assert f"This experiment has {expected}." in render_html(page, folder)
    as_reported["grid"].user_file = True
    assert not claims.find_deviation(as_reported["grid"])


def test_the_first_figure_precedes_a_long_table(experiments, folder):
    experiment = experiments["grid"]
    ranking = experiment.tables["ranking"]
    experiment.tables = {"ranking": replace(ranking, rows=[*ranking.rows] * 16, values=())}
    text = render_html(gather_report({"grid": experiment}), folder)
    order = ("what may be the best is framed", "Table of 48 rows", "Loss per epoch")
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_missing_results_are_named(as_reported, monkeypatch):
    def measured(text):
        (finding,) = [found for found in claims.judge_claims(as_reported) if text in found.claim.text]
        assert finding.verdict == NOT_RUN
        return finding.measured

    del as_reported["improve"].sweeps[claims.BASE]
    assert measured("gain 4 points") == "this experiment has no data_batch_1"
    fewer = as_reported["table1"].result("table1").take([0, 1])
    monkeypatch.setattr(as_reported["table1"], "result", lambda sweep: fewer)
    assert measured("λ = 1 harms") == "this experiment has no table1 with eta 0.001, batch 100, lam 1"


def test_what_diverged_is_in_doubt(as_reported, monkeypatch):
    result = as_reported["improve"].result(claims.TRICKS)
    diverged = replace(result, diverged=np.ones_like(result.diverged))
    monkeypatch.setattr(as_reported["improve"], "result", lambda sweep: diverged)
    assert verdicts(as_reported)["Test accuracy at η 0.01, batch 400, λ 0.1"] == IN_DOUBT


def test_the_best_configuration_is_the_one_that_is_saved(experiments):
    with np.load(experiments["grid"].folder / "best_params.npz") as best:
        config = Config(**{name: best[name].item() for name in AXES})
    assert experiments["grid"].result("grid").best().config == config


def test_the_page_needs_no_other_file(experiments, folder):
    text = render_html(gather_report(experiments), folder)
    assert not re.search(r"""(src|href)=["'](?!data:|#)(https?:|//)|@import|url\(""", text)
    assert text.count("data:image/") == len(list(folder.rglob("*.svg")))
    assert "Synthetic images, not CIFAR-10" in text
    assert "one <&> two" not in text
    assert '<a href="table1/one%20%3C%26%3E%20two/">table1/one &lt;&amp;&gt; two</a>' in text


def test_the_page_escapes_all_that_a_folder_holds(experiments, folder):
    experiment = experiments["grid"]
    attack = "</script><script>alert(1)</script>"
    experiment.command = experiment.config["machine"] = experiment.dataset = attack
    table = Table("attack", attack, [attack], [[attack]], note=attack)
    experiment.tables = {attack: table}
    page = gather_report({"grid": experiment})
    page.explorer["rows"][0]["key"][1] = attack
    text = render_html(page, folder)
    assert "<script>alert" not in text
    assert text.count("<script") == text.count("</script>") == 2
    (data,) = re.findall(r'<script id="explorer-data" type="application/json">(.*?)</script>', text)
    assert json.loads(data)["rows"][0]["key"][1] == attack


def test_the_experiment_that_says_most_is_chosen(as_reported):
    older, newer, synthetic, other, smaller, reference = (
        ExperimentFolder(as_reported["table1"].folder) for _ in range(6)
    )
    for experiment in (older, newer, other, smaller, reference):
        experiment.dataset = "cifar10"
    for experiment in (older, newer, synthetic, smaller, reference):
        experiment.sweeps["table1"] |= claims.SETTINGS["table1"]["table1"]
    older.written, newer.written = "2026-01-01T00:00:00", "2026-01-02T00:00:00"
    smaller.sweeps["table1"]["configurations"] = 1
    reference.sweeps["table1"] |= {"init": "numpy", "shuffle": False, "dtype": "float64"}
    found = [synthetic, other, smaller, older, newer, reference]
    assert report.choose_experiment(found, "table1") is newer
    assert report.choose_experiment([synthetic, other], "table1") is other
    assert report.choose_experiment(found, REFERENCE) is reference
    assert report.choose_experiment(found, "grid") is None


def test_the_reference_recipe_has_a_section_and_the_figures_are_shown_once(experiments):
    reference = ExperimentFolder(experiments["table1"].folder)
    (alone,) = gather_report({REFERENCE: reference}).sections
    assert list(alone[1].captions) == ["samples", "curves", "weights", "confusion"]
    both = gather_report({"table1": experiments["table1"], REFERENCE: reference})
    assert [len(section.captions) for _, section in both.sections] == [4, 0]
    assert len(both.sources) == 2
    assert len(both.explorer["rows"]) == len(ROWS)


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """The command's flags, with an empty folder as --results."""

    class Flags:
        results = str(tmp_path)

    monkeypatch.setattr(report, "FLAGS", Flags)


def test_the_command_writes_the_page_and_prints_the_verdicts(folder, tmp_path, flags, capsys):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    report.main()
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    printed = capsys.readouterr().out
    assert all(claim.text in printed for claim in claims.CLAIMS)
    assert not list(tmp_path.glob(".*"))


def test_without_experiments_one_line_says_what_to_do(tmp_path, flags):
    with pytest.raises(UsageError, match="holds no finished experiment: python -m"):
        report.main()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_figure_is_named(folder, tmp_path, flags):
    shutil.copytree(folder / "grid", tmp_path / "grid")
    (folder,) = (path.parent for path in tmp_path.rglob("heatmap.png"))
    (folder / "heatmap.svg").unlink()
    report.main()
    (folder / "heatmap.png").unlink()
    with pytest.raises(UsageError, match=r"heatmap.svg is missing: run the command again with --formats"):
        report.main()


COLLECT_PROBLEMS = "<script>window.problems = []; onerror = (text) => problems.push(text);"
COLLECT_PROBLEMS += "console.error = console.warn = (...words) => problems.push(words.join(' '));</script>"
USE_PAGE = """<script>
const texts = (row) => [...row.cells].map((cell) => cell.textContent);
const rows = () => [...document.querySelectorAll('#explorer tbody tr')].map(texts);
const head = (name) => document.querySelector(`#explorer th[data-name=${name}] button`);
const select = (name, value) => {
  const box = document.querySelector(`#explorer select[aria-label=${name}]`);
  box.value = value;
  box.dispatchEvent(new Event('change'));
};
const seen = { first: rows(), background: getComputedStyle(document.body).backgroundColor };
head('eta').click();
seen.rising = rows();
head('eta').click();
seen.falling = rows();
select('experiment', 'improve');
select('batch', '400');
seen.filtered = rows();
select('batch', '');
const line = () => document.querySelector('#explorer tbody tr');
line().dispatchEvent(new Event('mouseenter'));
seen.hovered = document.querySelectorAll('#explorer path').length;
line().focus();
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key }));
press('Enter');
press('ArrowDown');
seen.focused = [...document.querySelectorAll('#explorer tbody tr')].indexOf(document.activeElement);
seen.kept = document.querySelectorAll('#explorer path').length;
seen.selected = document.querySelectorAll('[aria-selected=true]').length;
seen.images = [...document.images].map((image) => image.naturalWidth);
setTimeout(() => {  // once the page has loaded
const beyond = (element) => element.getBoundingClientRect().right > innerWidth + 1;
const elements = [...document.querySelectorAll('body *')];
seen.beyond = elements.filter((element) => beyond(element) && !element.closest('table'));
seen.beyond = seen.beyond.map((element) => `${element.tagName} ${element.textContent.slice(0, 40)}`);
const says = (box) => getComputedStyle(box, '::before').content !== 'none';
const boxes = [...document.querySelectorAll('.wide')];
seen.scrolls = boxes.map((box) => [box.scrollWidth > box.clientWidth, box.tabIndex === 0, says(box)]);
const cells = [...document.querySelector('.verdicts tbody tr').cells];
const tops = cells.map((cell) => cell.getBoundingClientRect().top);
seen.card = [0, 1, 2, 3, 4].sort((a, b) => tops[a] - tops[b]);
seen.problems = problems;
document.body.innerHTML = '<pre id=seen></pre>';
document.getElementById('seen').textContent = JSON.stringify(seen);
}, 500);
</script>"""


def test_the_page_shows_a_search_and_explores_what_reached_the_end(experiments):
    page = gather_report(experiments)
    (section,) = [section for shown, section in page.sections if shown.name == "search"]
    assert list(section.captions)[:2] == ["axes", "effort"]
    explored = [row["key"][2:] for row in page.explorer["rows"] if row["key"][0] == "search"]
    assert explored == [[*GRID[0].values()], [*GRID[2].values()]]


def test_a_grid_and_a_search_on_the_same_file_have_a_section_each(experiments):
    own = {}
    for name in ("grid", "search"):
        experiment = copy.copy(experiments[name])
        experiment.user_file = True
        own[report.name_section(experiment)] = experiment
    assert len(own) == 2
    titles = [section.title for _, section in gather_report(own).sections]
    assert all(
        title.startswith(f"The {name} on") for name, title in zip(("grid", "search"), titles, strict=True)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_in_a_browser(experiments, folder, tmp_path, scheme):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    text = render_html(gather_report(experiments), folder)
    text = text.replace("<head>", f"<head>{COLLECT_PROBLEMS}").replace("</body>", f"{USE_PAGE}</body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    process = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900", "--virtual-time-budget=5000",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--dump-dom", (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', process.stdout, re.S)[1]
    seen = json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["problems"] == []
    assert seen["background"] == ("rgb(20, 23, 27)" if scheme == "dark" else "rgb(255, 255, 255)")
    configs = sum(len(group) for _, sweeps, _ in EXPERIMENTS.values() for group in sweeps.values())
    assert len(seen["first"]) == configs - 1  # without the one that the search has stopped
    val = [row[2 + len(AXES) + 1] for row in seen["first"]]  # after train
    assert val[-3:] == ["diverged"] * 3
    figures = [float(text.split(" ")[0]) for text in val[:-3]]
    assert figures == sorted(figures, reverse=True)
    etas = [[float(row[2]) for row in seen[way]] for way in ("rising", "falling")]
    assert etas[0] == sorted(etas[0])
    assert etas[1] == sorted(etas[0], reverse=True)
    assert [(row[0], row[3]) for row in seen["filtered"]] == [("improve", "400")]
    assert (seen["hovered"], seen["kept"], seen["selected"], seen["focused"]) == (1, 2, 1, 1)
    assert seen["images"]
    assert all(width > 0 for width in seen["images"])
    assert seen["beyond"] == [], "the page is wider than a phone"
    assert {tuple(box) for box in seen["scrolls"]} == {(True, True, True), (False, False, False)}
    assert seen["card"] == [0, 2, 1, 3, 4], "verdict and measured numbers come first"


@pytest.mark.parametrize("user_file", [False, True])
def test_an_experiment_without_a_section_has_one_all_the_same(experiments, folder, user_file):
    experiment = copy.copy(experiments["grid"])
    experiment.name, experiment.user_file = "probe", user_file
    name = report.name_section(experiment)
    page = gather_report({name: experiment, "bce": experiments["bce"]})
    (_, known), (shown, section) = page.sections
    assert known.title.startswith("Table 2")
    assert shown is experiment
    assert section.title == f"The probe on {experiment.label}"
    assert list(section.captions) == ["weights", "heatmap", "differences", "confusion"]
    text = render_html(page, folder)
    assert section.title in text
    assert all(table.title.rstrip(":")[:30] in text for table in experiment.tables.values())
