"""The grid command as a user runs it, in a process of its own."""

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

from experiments import grid
from experiments.cli import experiment
from experiments.cli.launch import parse_flags
from experiments.cli.source import open_source
from experiments.runner.errors import UsageError

ROOT = Path(__file__).parent.parent
FILES = [
    "best_params.npz", "blocks", "config.json", "confusion.png", "confusion.svg",
    "curves.png", "curves.svg", "differences.png", "differences.svg",
    "heatmap.png", "heatmap.svg", "history.csv", "results.csv", "tables.json", "tables.tex",
    "weights.png", "weights.svg",
]  # fmt: skip
QUICK = ["--dataset=synthetic", "--train=batch1", "--epochs=1", "--eta=0.001,0.01", "--batch=400"]


def run_grid(*flags, cwd):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",  # a narrow bar would cut its remark off
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
def finished(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("run")
    return cwd, run_grid(*QUICK, "--lam=0.1", "--seed=7", cwd=cwd)


def test_a_run_writes_its_files_and_prints_their_folder(finished):
    cwd, process = finished
    assert process.returncode == 0, process.stderr
    folder = cwd / re.search(r"^files: (results/grid/\S+)$", process.stdout, re.M)[1]
    assert sorted(os.listdir(folder)) == FILES
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    configs = [(row["eta"], row["batch"], row["lam"]) for row in rows]
    assert configs == [(eta, "400", "0.1") for eta in ("0.001", "0.01")]
    best = max(rows, key=lambda row: float(row["val_acc"]))
    (line,) = [line for line in process.stdout.splitlines() if line.startswith("synthetic, best: ")]
    assert f"test {100 * float(best['test_acc']):.2f} ± " in line
    assert "best val acc" in process.stderr


def test_config_json_describes_the_run(finished):
    cwd, _ = finished
    (path,) = cwd.glob("results/grid/*/config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["command"] == "python -m experiments.grid " + " ".join([*QUICK, "--lam=0.1", "--seed=7"])
    assert config["settings"]["batch"] == [400]
    assert config["settings"]["seed"] == 7
    assert config["settings"]["precision"] == "float32"
    assert config["dataset"]["name"] == "synthetic"
    assert len(config["dataset"]["fingerprint"]) == 64
    assert config["devices"] == ["cpu: cpu", "cpu: cpu"]
    assert config["versions"]["jax"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss=hinge"], "loss"),
        (["0.1"], "unexpected '0.1'"),
        (["--batch=49001"], "the training set holds 49,000 examples"),
        (["--out=file/below"], "--out=file/below: cannot be written to"),
        (["--out=taken"], "--out=taken: holds another experiment's files"),
        (["--dataset=cifar10", "--data_dir=broken"], "broken"),
    ],
    ids=" ".join,
)
def test_a_mistake_ends_in_one_line_and_leaves_no_files(tmp_path, flags, message):
    (tmp_path / "file").touch()
    for path in ("taken/results.csv", "broken/cifar-10-batches-bin/data_batch_1.bin"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    paths = sorted(tmp_path.rglob("*"))
    process = forks.Process(["-m", "experiments.grid", *flags], cwd=tmp_path, env=os.environ)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 2
    assert output == ""
    *announced, line = errors.splitlines()
    assert [text.partition(":")[0] for text in announced] == ["grid"] * ("broken" in message)
    assert line.startswith("error: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == paths


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eta=-0.1"], "eta is -0.1"),
        (["--lam=0.1,-1"], "lam is -1"),
        (["--lam=nan"], "lam is nan"),
        (["--eta="], "eta"),
        (["--batch=1.5"], "whole numbers"),
        (["--batch=0"], "batch is 0"),
        (["--train=batch1", "--batch=10001"], "the training set holds 10,000 examples"),
        (["--epochs=0"], "epochs"),
        (["--val_size=50000"], "--val_size=50000: give less than the 50,000 training examples"),
        (["--image_shape=3,32,32"], "--image_shape: it is for --data only"),
        (["--q=1.5"], "q is 1.5"),
        (["--average=41"], "--average=41: give at most --epochs=40"),
        (["--evaluate=tests"], "evaluate"),
        (["--lamda=0.1"], "lamda"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(flags, message):
    with flagsaver.flagsaver(), pytest.raises(UsageError) as caught:
        grid.define_flags()
        parse_flags(["grid", *flags])
        sweep = grid.make_sweep()
        experiment.check_sweep(sweep, open_source()[0])
    assert message in str(caught.value)
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
