"""The command as a user runs it, in a process of its own."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from absl.testing import flagsaver

from experiments import conduct, grid, shell

ROOT = Path(__file__).parent.parent
FILES = [
    "best_params.npz", "blocks", "config.json", "curves.png", "curves.svg", "heatmap.png", "heatmap.svg",
    "history.csv", "results.csv", "tables.json",
]  # fmt: skip
QUICK = ["--dataset=synthetic", "--train=batch1", "--epochs=1", "--eta=0.001,0.01", "--batch=400"]


def command(*flags, cwd):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "XDG_CACHE_HOME": str(cwd.with_name("caches")),
    }
    return subprocess.run(
        [sys.executable, "-m", "experiments.grid", *flags],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("run")
    return cwd, command(*QUICK, "--lam=0.1", "--seed=7", cwd=cwd)


def test_a_run_writes_its_files_and_says_where(done):
    cwd, process = done
    assert process.returncode == 0, process.stderr
    folder = cwd / re.search(r"^files: (results/grid/\S+)$", process.stdout, re.M)[1]
    assert sorted(os.listdir(folder)) == FILES
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    settings = [(r["eta"], r["batch"], r["lam"]) for r in rows]
    assert settings == [(e, "400", "0.1") for e in ("0.001", "0.01")]
    best = max(rows, key=lambda row: float(row["val_acc"]))
    assert f"test {100 * float(best['test_acc']):.2f}" in process.stdout.splitlines()[-2]
    assert "best val acc" in process.stderr


def test_config_json_says_what_the_results_are(done):
    cwd, _ = done
    (path,) = cwd.glob("results/grid/*/config.json")
    config = json.loads(path.read_text())
    assert config["command"] == "python -m experiments.grid " + " ".join([*QUICK, "--lam=0.1", "--seed=7"])
    assert config["settings"]["batch"] == [400]
    assert config["settings"]["seed"] == 7
    assert config["settings"]["precision"] == "float32"
    assert config["dataset"]["name"] == "synthetic"
    assert len(config["dataset"]["fingerprint"]) == 64
    assert config["devices"] == ["cpu: cpu", "cpu: cpu"]
    assert config["versions"]["jax"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss=hinge"], "loss"),
        (["0.1"], "unexpected '0.1'"),
        (["--batch=49001"], "the training set holds 49,000 examples"),
        (["--out=file/below"], "--out=file/below can't be written to"),
        (["--out=taken"], "--out=taken holds another run's files"),
        (["--dataset=cifar10", "--data_dir=broken"], "broken"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_clear_line_and_leaves_nothing_behind(tmp_path, flags, words):
    (tmp_path / "file").touch()
    for path in ("taken/results.csv", "broken/cifar-10-batches-bin/data_batch_1.bin"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    before = sorted(tmp_path.rglob("*"))
    process = forks.Process(["-m", "experiments.grid", *flags], cwd=tmp_path, env=os.environ)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 2
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--eta=-0.1"], "eta is -0.1"),
        (["--lam=0.1,-1"], "lam is -1"),
        (["--lam=nan"], "lam is nan"),
        (["--eta="], "eta"),
        (["--batch=1.5"], "whole numbers"),
        (["--batch=0"], "batch is 0"),
        (["--train=batch1", "--batch=10001"], "the training set holds 10,000 examples"),
        (["--epochs=0"], "epochs"),
        (["--q=1.5"], "q is 1.5"),
        (["--average=41"], "average is 41: the run has 40 epochs"),
        (["--watch=tests"], "watch"),
        (["--lamda=0.1"], "lamda"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(given, words):
    with flagsaver.flagsaver(), pytest.raises(shell.UsageError) as caught:
        grid.define_flags()
        shell._parse(["grid", *given])
        conduct._check(grid.variant())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_lists_the_flags_with_their_defaults(tmp_path):
    process = forks.Process(["-m", "experiments.grid", "--help"], cwd=tmp_path, env=os.environ)
    text, _ = process.communicate(timeout=240)
    for flag in (
        "eta",
        "batch",
        "lam",
        "epochs",
        "loss",
        "[no]flip",
        "train",
        "seed",
        "out",
        "dataset",
        "data_dir",
    ):
        assert f"  --{flag}:" in text
    assert "0.001,0.01,0.1,1.0" in text
