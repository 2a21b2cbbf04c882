"""The report: reading runs back, the verdicts, and the page, in a browser where there is one."""

import copy
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from small_runs import SETTINGS, draw_result, stop_runs

from experiments import bce, grid, improve, report, search, table1
from experiments.artifacts import provenance
from experiments.artifacts.reader import MissingResult, ReadError, RunResult, find_runs
from experiments.artifacts.tables import format_interval
from experiments.cli.experiment import write_artifacts
from experiments.reporting import claims
from experiments.reporting.claims import IN_DOUBT, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from experiments.reporting.rendering import render_html
from experiments.reporting.sections import REFERENCE, gather_report
from experiments.runner.data import prepare_data
from experiments.runner.errors import UsageError
from experiments.runner.sweeps import Sweep, name_replicates
from experiments.runner.training import train_sweep
from linear_cifar.config import Config
from linear_cifar.data.dataset import split_dataset
from linear_cifar.data.synthetic import make_synthetic
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
    """Small runs of every experiment, as the commands write them."""
    data = prepare_data(split_dataset(make_synthetic(n_train=700, n_test=120), val_size=60))
    root = tmp_path_factory.mktemp("results")
    for name, (module, sweeps, changes) in EXPERIMENTS.items():
        results = []
        for sweep, configs in sweeps.items():
            loss = sweep if sweep in claims.TABLE2 else "softmax"
            settings = SETTINGS._replace(**{"val_size": 60, "loss": loss} | changes)
            named = Sweep(sweep, settings, name_replicates(SEEDS, 0), configs)
            diverged = [c for c, config in enumerate(configs) if config == GRID[2]]
            # Only the measures of `bce` must agree with its weights.
            trained = name == "bce"
            result = train_sweep(named, data) if trained else draw_result(named, data, diverged)
            results.append(stop_runs(result, {1: 1}) if name == "search" else result)
        pairs = [(result.sweep, data) for result in results]
        sizes = [result.sweep.size for result in results]
        environment = provenance.describe_environment() | provenance.describe_use(sizes)
        run_folder = root / name / "one <&> two"
        run_folder.mkdir(parents=True)
        description = provenance.describe_run(name, {}, pairs, environment, complete=True)
        write_artifacts(run_folder, results, module.render, description)
    return root


@pytest.fixture
def runs(folder):
    return {run.experiment: run for run in find_runs(folder, pytest.fail)}


def test_runs_are_read_back_as_they_were_written(runs):
    run = runs["grid"]
    assert run.configs("grid") == GRID
    assert run.dataset == "synthetic"
    assert run.values("val_acc", "grid", GRID[0]).shape == (3,)
    assert np.isnan(run.values("val_acc", "grid", GRID[2])).all()
    assert run.best("grid") in GRID[:2]
    assert [row.cells["diverged"] for row in run.results] == [None, None, 1] * 3
    assert [row.cells["epoch"] for row in run.history[:3]] == [1, 2, 1]
    assert run.history[0].cells["test_acc"] is None
    assert list(runs["table1"].tables) == ["table1", "ranking"]
    measured = runs["bce"].values("accuracy", "bce", claims.TABLE2["bce"])
    tested = runs["bce"].values("test_acc", "bce", claims.TABLE2["bce"])
    np.testing.assert_allclose(measured, tested, atol=1e-6)


COLUMNS = ("val_acc", "test_acc", "confidence", "second", "overconfident", "true_wrong")


@pytest.mark.parametrize("column", COLUMNS)
def test_values_per_example_have_the_measures_as_their_means(runs, column):
    for loss, config in claims.TABLE2.items():
        values = runs["bce"].example_values(column, loss, config)
        expected = runs["bce"].values(column, loss, config)
        assert values.shape == (3, 60 if column == "val_acc" else 120)
        np.testing.assert_allclose(values.mean(axis=1), expected, atol=1e-6)
    assert np.isnan(runs["grid"].example_values("test_acc", "grid", GRID[2])).all()
    for missing in (("test_acc", "grid", ROWS[0]), ("ece", "bce", claims.TABLE2["bce"])):
        with pytest.raises(MissingResult):
            runs["bce"].example_values(*missing)


def test_intervals_are_those_of_the_tables(runs):
    run = runs["grid"]
    (row,) = [row for row in run.tables["ranking"].rows if row[1:4] == ["0.001", "50", "0"]]
    for split, cell in zip(("train", "val", "test"), row[4:7], strict=True):
        assert format_interval(run.interval(split, "grid", GRID[0])) == cell


def test_broken_values_per_example_are_named(folder, tmp_path):
    shutil.copytree(folder / "bce", tmp_path / "bce")
    (path,) = tmp_path.rglob("values.npz")
    arrays, description = read_npz(path)
    for changed in (arrays["0.second"][0], arrays["0.second"].astype(float), arrays["0.second"][..., 1:]):
        write_npz(path, arrays | {"0.second": changed}, description)
        with pytest.raises(ReadError, match=r"values\.npz does not describe its arrays: 0\.second is float"):
            RunResult(path.parent).example_values("second", "bce", claims.TABLE2["bce"])
    correct = path.with_name("correct.npz")
    marks, sweeps = read_npz(correct)
    write_npz(correct, marks | {"0.test": np.zeros((3, 1, 120), np.float32)}, sweeps)
    with pytest.raises(ReadError, match=r"correct\.npz does not describe its arrays: 0\.test is float32"):
        RunResult(path.parent).example_values("test_acc", "bce", claims.TABLE2["bce"])
    write_npz(path, arrays | {"1.second": arrays["1.second"][:2]}, description)
    with pytest.raises(ReadError, match="of another run"):
        RunResult(path.parent).example_values("second", "bce", claims.TABLE2["bce"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReadError, match=r"values\.npz cannot be read"):
        RunResult(path.parent).example_values("second", "bce", claims.TABLE2["bce"])


def test_unreadable_runs_are_named_and_left_out(folder, tmp_path):
    for name, content in {"a": "{", "b": "[]", "c": '{"schema": 1}', "d": '{"schema": 2}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content, encoding="utf-8")
    shutil.copytree(folder / "grid", tmp_path / "whole")
    lines = []
    assert [run.experiment for run in find_runs(tmp_path, lines.append)] == ["grid"]
    assert len(lines) == 4
    (broken,) = (tmp_path / "whole").rglob("results.csv")
    for content in ("", "eta\n1\n", broken.read_text(encoding="utf-8").replace("0.001", "small")):
        broken.write_text(content, encoding="utf-8")
        with pytest.raises(ReadError, match=r"results\.csv"):
            _ = RunResult(broken.parent).results


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
def as_reported(runs):
    """The same runs, declared to be on real images and with the report's settings."""
    for run in runs.values():
        run.dataset = "cifar10"
        for sweep, expected in claims.SETTINGS.get(run.experiment, {}).items():
            run.sweeps[sweep] |= expected
    return runs


def verdicts(runs):
    return {finding.claim.text: finding.verdict for finding in claims.judge_claims(runs)}


def test_every_claim_is_judged(as_reported):
    found = verdicts(as_reported)
    assert len(found) == len(claims.CLAIMS)
    assert NOT_RUN not in found.values()
    # Synthetic labels are drawn evenly, so BCE's probabilities start far above a tenth.
    assert found["BCE gives several classes a high probability (mean of the second class)"] == REPRODUCED
    assert found["Test accuracy at η 0.01, batch 400, λ 0.1"] == NOT_REPRODUCED
    assert set(verdicts({}).values()) == {NOT_RUN}


def test_synthetic_images_prove_nothing(as_reported):
    for run in as_reported.values():
        run.dataset = "synthetic"
    assert set(verdicts(as_reported).values()) == {IN_DOUBT}


def test_a_run_with_other_settings_does_not_test_the_claims(as_reported):
    as_reported["table1"].sweeps["table1"]["epochs"] = 1
    (finding,) = [found for found in claims.judge_claims(as_reported) if found.claim.text == "λ = 1 harms"]
    assert (finding.verdict, finding.measured) == (NOT_RUN, "this run has epochs 1, the report has 40")


def test_missing_results_are_named(as_reported):
    with pytest.raises(MissingResult, match=r"grid with eta 0\.5, batch 7, lam 0"):
        as_reported["grid"].values("val_acc", "grid", Config(0.5, 7, 0.0))
    run = as_reported["improve"]
    run.__dict__["results"] = [row for row in run.results if row.sweep != claims.BASE]
    (finding,) = [found for found in claims.judge_claims(as_reported) if "gain 4 points" in found.claim.text]
    assert (finding.verdict, finding.measured) == (NOT_RUN, "this run has no data_batch_1")


def test_the_best_configuration_is_the_one_the_run_saved(runs):
    with np.load(next(runs["grid"].folder.glob("best_params.npz"))) as best:
        assert runs["grid"].best("grid") == Config(**{name: best[name].item() for name in Config._fields})


def test_the_page_needs_no_other_file(runs, folder):
    text = render_html(gather_report(runs), folder)
    assert not re.search(r"""(src|href)=["'](?!data:|#)(https?:|//)|@import|url\(""", text)
    assert text.count("data:image/") == len(list(folder.rglob("*.svg")))
    assert "Synthetic images, not CIFAR-10" in text
    assert "one <&> two" not in text
    assert '<a href="table1/one%20%3C%26%3E%20two/">table1/one &lt;&amp;&gt; two</a>' in text


def test_the_page_escapes_all_that_a_run_holds(runs, folder):
    run = runs["grid"]
    attack = "</script><script>alert(1)</script>"
    run.command = run.config["machine"] = run.dataset = attack
    run.tables = {attack: run.tables["ranking"]._replace(title=attack, rows=[[attack]], note=attack)}
    run.__dict__["history"] = [row._replace(sweep="grid") for row in run.history]
    page = gather_report({"grid": run})
    page.explorer["rows"][0]["key"][1] = attack
    text = render_html(page, folder)
    assert "<script>alert" not in text
    assert text.count("<script") == text.count("</script>") == 2
    (data,) = re.findall(r'<script id="explorer-data" type="application/json">(.*?)</script>', text)
    assert json.loads(data)["rows"][0]["key"][1] == attack


def test_the_run_that_says_most_is_chosen(as_reported):
    older, newer, synthetic, other, smaller, reference = (
        RunResult(as_reported["table1"].folder) for _ in range(6)
    )
    for run in (older, newer, other, smaller, reference):
        run.dataset = "cifar10"
    for run in (older, newer, synthetic, smaller, reference):
        run.sweeps["table1"] |= claims.SETTINGS["table1"]["table1"]
    older.written, newer.written = "2026-01-01T00:00:00", "2026-01-02T00:00:00"
    smaller.sweeps["table1"]["configurations"] = 1
    reference.sweeps["table1"] |= {"init": "numpy", "shuffle": False, "dtype": "float64"}
    found = [synthetic, other, smaller, older, newer, reference]
    assert report.choose_run(found, "table1") is newer
    assert report.choose_run([synthetic, other], "table1") is other
    assert report.choose_run(found, REFERENCE) is reference
    assert report.choose_run(found, "grid") is None


def test_the_reference_recipe_has_a_section_and_the_figures_are_shown_once(runs):
    reference = RunResult(runs["table1"].folder)
    (alone,) = gather_report({REFERENCE: reference}).sections
    assert list(alone[1].captions) == ["samples", "curves", "weights", "confusion"]
    both = gather_report({"table1": runs["table1"], REFERENCE: reference})
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


def test_without_runs_one_line_says_what_to_do(tmp_path, flags):
    with pytest.raises(UsageError, match="holds no finished run: python -m"):
        report.main()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_figure_is_named(folder, tmp_path, flags):
    shutil.copytree(folder / "grid", tmp_path / "grid")
    (figure,) = tmp_path.rglob("heatmap.png")
    figure.unlink()
    with pytest.raises(UsageError, match="heatmap"):
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
const beyond = (element) => element.getBoundingClientRect().right > innerWidth + 1;
const elements = [...document.querySelectorAll('body *')];
seen.beyond = elements.filter((element) => beyond(element) && !element.closest('table'));
seen.beyond = seen.beyond.map((element) => `${element.tagName} ${element.textContent.slice(0, 40)}`);
seen.problems = problems;
document.body.innerHTML = '<pre id=seen></pre>';
document.getElementById('seen').textContent = JSON.stringify(seen);
</script>"""


def test_the_page_shows_a_search_and_explores_what_reached_the_end(runs):
    page = gather_report(runs)
    (section,) = [section for run, section in page.sections if run.experiment == "search"]
    assert list(section.captions)[:2] == ["axes", "effort"]
    explored = [row["key"][2:] for row in page.explorer["rows"] if row["key"][0] == "search"]
    assert explored == [[*GRID[0]], [*GRID[2]]]


def test_a_grid_and_a_search_on_the_same_file_have_a_section_each(runs):
    own = {}
    for name in ("grid", "search"):
        run = copy.copy(runs[name])
        run.user_file = True
        own[report.name_section(run)] = run
    assert len(own) == 2
    titles = [section.title for _, section in gather_report(own).sections]
    assert all(
        title.startswith(f"The {name} on") for name, title in zip(("grid", "search"), titles, strict=True)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_in_a_browser(runs, folder, tmp_path, scheme):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    text = render_html(gather_report(runs), folder)
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
    val = [row[8] for row in seen["first"]]
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


@pytest.mark.parametrize("user_file", [False, True])
def test_a_run_of_an_experiment_without_a_section_has_one_all_the_same(runs, folder, user_file):
    run = copy.copy(runs["grid"])
    run.experiment, run.user_file = "probe", user_file
    name = report.name_section(run)
    page = gather_report({name: run, "bce": runs["bce"]})
    (_, known), (shown, section) = page.sections
    assert known.title.startswith("Table 2")
    assert shown is run
    assert section.title == f"The probe on {run.label}"
    assert list(section.captions) == ["weights", "differences", "confusion"]
    text = render_html(page, folder)
    assert section.title in text
    assert all(table.title.rstrip(":")[:30] in text for table in run.tables.values())
