"""The page of everything: what is read back, the verdicts, and the page in a browser where there is one."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import numpy as np
import pytest
from test_results import SETTINGS

from experiments import (
    archive,
    bce,
    claims,
    conduct,
    grid,
    improve,
    markdown,
    page,
    provenance,
    report,
    table1,
)
from experiments.archive import Archive, ArchiveError, Missing
from experiments.claims import IN_DOUBT, NOT_REPRODUCED, NOT_RUN, REPRODUCED
from experiments.run import run
from experiments.settings import Variant
from experiments.shell import UsageError
from linear_cifar.config import Config
from linear_cifar.dataset import divide
from linear_cifar.synthetic import synthetic

SEEDS = (5, 6, 7)
PAIRS = ((0.1, 0.0), (0.001, 0.0), (0.001, 0.1), (0.001, 1.0))
ROWS = tuple(Config(eta, 100, lam) for eta, lam in PAIRS)
GRID = (Config(0.001, 50, 0.0), claims.CLAIMED_BEST, Config(1.0, 50, 1e10))  # the last one diverges
STEPS = {"data_batch_1": ROWS[2:3], claims.TRICKS: GRID}
EXPERIMENTS = {
    "table1": (table1, {"table1": ROWS}, {"watch": ("train", "val")}),
    "grid": (grid, {"grid": GRID}, {}),
    "bce": (
        bce,
        {loss: tuple(dict.fromkeys((at, *ROWS[1:3]))) for loss, at in claims.TABLE2.items()},
        {"watch": ("train", "val", "test")},
    ),
    "improve": (improve, STEPS, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small runs of every experiment, as `conduct` writes them."""
    data = divide(synthetic(n_train=700, n_test=120), val_size=60)
    root = tmp_path_factory.mktemp("results")
    for name, (module, variants, own) in EXPERIMENTS.items():
        where = root / name / "one <&> two"
        where.mkdir(parents=True)
        runs = []
        for variant, configs in variants.items():
            loss = variant if variant in claims.TABLE2 else "softmax"
            settings = SETTINGS._replace(**{"seeds": SEEDS, "val_size": 60, "loss": loss} | own)
            runs.append(run(Variant(variant, settings, configs), data))
        trained = [(one.variant, one.dataset) for one in runs]
        environment = provenance.describe_environment() | provenance.describe_use([(3, 3)])
        work = conduct.Work(name, {"seed": 5}, trained, environment, where)
        conduct.write(work, runs, module.present)
    return root


@pytest.fixture
def runs(folder):
    return {one.experiment: one for one in archive.find(folder, pytest.fail)}


def test_runs_are_read_back_as_they_were_written(runs):
    one = runs["grid"]
    assert one.configs("grid") == GRID
    assert one.dataset == "synthetic"
    assert one.values("val_acc", "grid", GRID[0]).shape == (3,)
    assert np.isnan(one.values("val_acc", "grid", GRID[2])).all()
    assert one.best("grid") in GRID[:2]
    assert [row.cells["diverged"] for row in one.results] == [None, None, 1] * 3
    assert [row.cells["epoch"] for row in one.history[:3]] == [1, 2, 1]
    assert one.history[0].cells["test_acc"] is None
    assert list(runs["table1"].tables) == ["table1", "ranking"]
    measured = runs["bce"].values("accuracy", "bce", claims.TABLE2["bce"])
    tested = runs["bce"].values("test_acc", "bce", claims.TABLE2["bce"])
    np.testing.assert_allclose(measured, tested, atol=1e-6)


def test_what_cannot_be_read_is_named_and_left_out(folder, tmp_path):
    for name, content in {"a": "{", "b": "[]", "c": '{"schema": 1}', "d": '{"schema": 2}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    shutil.copytree(folder / "grid", tmp_path / "whole")
    lines = []
    assert [one.experiment for one in archive.find(tmp_path, lines.append)] == ["grid"]
    assert len(lines) == 4
    (broken,) = (tmp_path / "whole").rglob("results.csv")
    for content in ("", "eta\n1\n", broken.read_text().replace("0.001", "small")):
        broken.write_text(content)
        with pytest.raises(ArchiveError, match=r"results\.csv"):
            _ = Archive(broken.parent).results


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.385, 0.39, 0.395], REPRODUCED),
        ([0.375, 0.385, 0.38], IN_DOUBT),
        ([0.36, 0.361, 0.362], NOT_REPRODUCED),
        ([0.39, 0.39], IN_DOUBT),
        ([0.39, np.nan, 0.39], IN_DOUBT),
    ],
)
def test_a_figure_is_judged_by_the_stated_rule(values, verdict):
    assert claims.figure_verdict(39.0, np.array(values)) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    # In points. With three seeds the interval is ± 4.303 standard errors: of 0.0577 and of 0.577.
    [
        ([0.9, 1.0, 1.1], REPRODUCED),
        ([-0.9, -1.0, -1.1], NOT_REPRODUCED),
        ([0.25, 0.35, 0.45], REPRODUCED),
        ([2.3, 3.3, 4.3], REPRODUCED),
        ([1.4, 2.4, 3.4], IN_DOUBT),
        ([0.29, 0.29, 0.29], IN_DOUBT),
        ([1.0, 1.0], IN_DOUBT),
    ],
)
def test_a_comparison_is_judged_by_the_stated_rule(values, verdict):
    assert claims.difference_verdict(np.array(values) / 100) == verdict


@pytest.fixture
def as_reported(runs):
    """The same runs, said to be on real images and with the report's settings."""
    for one in runs.values():
        one.dataset = "cifar10"
        for variant, expected in claims.SETTINGS.get(one.experiment, {}).items():
            one.variants[variant] |= expected
    return runs


def verdicts(runs):
    return {one.claim.text: one.verdict for one in claims.findings(runs)}


def test_every_claim_is_judged(as_reported):
    found = verdicts(as_reported)
    assert len(found) == len(claims.CLAIMS)
    assert NOT_RUN not in found.values()
    # Labels are drawn evenly, so BCE's probabilities start far above a tenth.
    assert found["BCE gives several classes a high probability (mean of the second class)"] == REPRODUCED
    assert found["Its test accuracy"] == NOT_REPRODUCED
    assert set(verdicts({}).values()) == {NOT_RUN}


def test_made_up_images_prove_nothing(as_reported):
    for one in as_reported.values():
        one.dataset = "synthetic"
    assert set(verdicts(as_reported).values()) == {IN_DOUBT}


def test_other_settings_say_nothing_of_the_report(as_reported):
    as_reported["table1"].variants["table1"]["epochs"] = 1
    (finding,) = [one for one in claims.findings(as_reported) if one.claim.text == "λ = 1 harms"]
    assert (finding.verdict, finding.measured) == (NOT_RUN, "this run has epochs 1, the report 40")


def test_what_was_left_out_is_named(as_reported):
    one = as_reported["improve"]
    with pytest.raises(Missing, match=r"grid with eta 0\.5, batch 7, lam 0"):
        as_reported["grid"].values("val_acc", "grid", Config(0.5, 7, 0.0))
    one.__dict__["results"] = [row for row in one.results if row.variant != claims.BASE]
    (finding,) = [one for one in claims.findings(as_reported) if "gain 4 points" in one.claim.text]
    assert (finding.verdict, finding.measured) == (NOT_RUN, "this run lacks data_batch_1")


def test_the_best_is_that_of_the_run_itself(runs):
    with np.load(next(runs["grid"].folder.glob("best_params.npz"))) as best:
        assert runs["grid"].best("grid") == Config(**{name: best[name].item() for name in Config._fields})


def rendered(render, runs, folder):
    return render("A title", report.document(runs, None), folder)


def test_the_page_needs_nothing_else(runs, folder):
    text = rendered(page.render, runs, folder)
    assert not re.search(r"""(src|href)=["'](?!data:|#)(https?:|//)|@import|url\(""", text)
    assert text.count("data:image/") == sum(len(list(path.glob("*.svg"))) for path in folder.glob("*/*"))
    assert "Made-up images, not CIFAR-10" in text
    assert "one <&> two" not in text
    assert '<a href="table1/one%20%3C%26%3E%20two/">table1/one &lt;&amp;&gt; two</a>' in text


def test_markdown_holds_the_same_tables(runs, folder):
    text = rendered(markdown.render, runs, folder)
    for one in runs.values():
        for table in one.tables.values():
            for cell in table.rows[0]:
                assert markdown._escape(cell) in text
    for target in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (folder / unquote(target)).exists(), target
    assert "Made-up images" in text


def test_of_several_runs_the_one_that_says_most_is_taken(as_reported):
    older, newer, made_up, other, smaller, plain = (Archive(as_reported["table1"].folder) for _ in range(6))
    for one in (older, newer, other, smaller, plain):
        one.dataset = "cifar10"
    for one in (older, newer, made_up, smaller, plain):
        one.variants["table1"] |= claims.SETTINGS["table1"]["table1"]
    older.written, newer.written = "2026-01-01T00:00:00", "2026-01-02T00:00:00"
    smaller.variants["table1"]["configurations"] = 1
    plain.variants["table1"] |= {"init": "numpy", "shuffle": False, "dtype": "float64"}
    every = [made_up, other, smaller, older, newer, plain]
    assert report.choose(every, "table1", plain=False) is newer
    assert report.choose([made_up, other], "table1", plain=False) is other
    assert report.choose(every, "table1", plain=True) is plain
    assert report.choose(every, "grid", plain=False) is None
    assert len(report.document({}, plain)) == 4


def test_the_command_writes_both_formats_and_prints_the_verdicts(folder, tmp_path, monkeypatch, capsys):
    class Flags:
        results = str(tmp_path)

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(report, "FLAGS", Flags)
    report.main()
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "report.md").read_text().startswith("# Single-layer classifiers")
    printed = capsys.readouterr().out
    assert all(claim.text in printed for claim in claims.CLAIMS)
    assert not list(tmp_path.glob(".*"))


def test_without_runs_one_line_says_what_to_do(tmp_path, monkeypatch):
    class Flags:
        results = str(tmp_path)

    monkeypatch.setattr(report, "FLAGS", Flags)
    with pytest.raises(UsageError, match="holds no finished run: python -m"):
        report.main()
    assert list(tmp_path.iterdir()) == []


WATCH = "<script>window.problems = []; onerror = (text) => problems.push(text);"
WATCH += "console.error = console.warn = (...words) => problems.push(words.join(' '));</script>"
TRY = """<script>
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
seen.beyond = [...document.querySelectorAll('body *')].filter((one) => beyond(one) && !one.closest('table'));
seen.beyond = seen.beyond.map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`);
seen.problems = problems;
document.body.innerHTML = '<pre id=seen></pre>';
document.getElementById('seen').textContent = JSON.stringify(seen);
</script>"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(runs, folder, tmp_path, scheme):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome on the PATH")
    text = rendered(page.render, runs, folder)
    text = text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{TRY}</body>")
    (tmp_path / "page.html").write_text(text)
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
    configs = sum(len(its) for _, variants, _ in EXPERIMENTS.values() for its in variants.values())
    assert len(seen["first"]) == configs
    val = [row[8] for row in seen["first"]]
    assert val[-2:] == ["diverged"] * 2
    figures = [float(text.split(" ")[0]) for text in val[:-2]]
    assert figures == sorted(figures, reverse=True)
    etas = [[float(row[2]) for row in seen[way]] for way in ("rising", "falling")]
    assert etas[0] == sorted(etas[0])
    assert etas[1] == sorted(etas[0], reverse=True)
    assert [(row[0], row[3]) for row in seen["filtered"]] == [("improve", "400")]
    assert (seen["hovered"], seen["kept"], seen["selected"], seen["focused"]) == (1, 2, 1, 1)
    assert seen["images"]
    assert all(width > 0 for width in seen["images"])
    assert seen["beyond"] == [], "the page is wider than a phone"
