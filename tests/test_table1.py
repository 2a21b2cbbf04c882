"""Table 1 as a user runs it. Its reference recipe reproduces the numbers of NumPy code (golden.json)."""

import json
import os
from pathlib import Path

import forks
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments import table1
from experiments.artifacts.reader import ExperimentFolder
from experiments.cli import source
from experiments.cli.launch import parse_flags
from linear_cifar.config import Config
from linear_cifar.data.synthetic import make_synthetic

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
# Tolerances of losses and accuracies. For the re-compressed images all numbers are known to eight digits. For
# the published images they are known to four digits, so each is off by up to half of the last digit.
TOLERANCES = {"shared_data": (1e-6, 1e-4), "published_data": (6e-5, 1e-4)}


def run_table1(*flags, cwd, **variables):
    """Run the command, and return its exit code and what it wrote to stderr."""
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "XDG_CACHE_HOME": str(cwd / "caches")} | variables
    process = forks.Process(["-m", "experiments.table1", *flags], cwd=cwd, env=env)
    _, errors = process.communicate()
    return process.returncode, errors


def test_the_reference_recipe_reproduces_the_reference_numbers(cifar10_dir, cifar10, tmp_path):
    kind = "published_data" if cifar10.verified else "shared_data"
    rows, (loss_tolerance, accuracy_tolerance) = GOLDEN[kind]["rows"], TOLERANCES[kind]
    pairs = dict.fromkeys(f"{row['eta']}:{row['lam']}" for row in rows)
    flags = ("--recipe=reference", "--dataset=cifar10", f"--data_dir={cifar10_dir}", "--evaluate=train,test")
    code, errors = run_table1(*flags, f"--eta_lam={','.join(pairs)}", "--out=run", cwd=tmp_path)
    assert code == 0, errors
    experiment = ExperimentFolder(tmp_path / "run")
    assert experiment.config["dataset"]["verified"] == cifar10.verified
    result = experiment.result("table1")
    places = {(config.eta, config.lam): c for c, config in enumerate(result.configs)}
    compared = 0
    for row in rows:
        lam, c = row["lam"], places[row["eta"], row["lam"]]
        cells = {name: values[row["epoch"] - 1, 0, c] for name, values in result.history.items()}
        numbers = cells | {"W_fro": cells["W_norm"], "cost": cells["train_loss"] + lam * cells["W_norm"] ** 2}
        for name in numbers.keys() & row.keys() - {"epoch"}:
            tolerance = accuracy_tolerance if name.endswith("acc") else loss_tolerance
            assert numbers[name] == pytest.approx(row[name], abs=tolerance), (name, row)
            compared += 1
    assert compared == sum(len(row.keys() - {"loss", "eta", "lam", "epoch"}) for row in rows)


def test_the_reference_recipe_with_other_flags_writes_its_files(tmp_path, monkeypatch):
    words = [
        "--recipe=reference",
        "--train=full",
        "--val_size=50",
        "--epochs=1",
        "--eta_lam=0.01:0.1",
        "--seed=7",
    ]
    monkeypatch.setattr("sys.argv", ["experiments.table1", *words])
    monkeypatch.setattr(source, "find_dataset", lambda *_: make_synthetic(n_train=300, n_test=100))
    with flagsaver.flagsaver():
        table1.define_flags()
        parse_flags(["table1", *words, f"--out={tmp_path / 'run'}"])
        table1.main()
    experiment = ExperimentFolder(tmp_path / "run")
    settings = experiment.sweeps["table1"]
    names = ("init", "dtype", "shuffle", "seeds")
    assert [settings[name] for name in names] == ["numpy", "float64", False, [7]]
    assert experiment.result("table1").configs == (Config(0.01, 100, 0.1),)
    with np.load(tmp_path / "run" / "best_params.npz") as best:
        assert best["W"].dtype == np.float64
    figures = ("samples", "curves", "weights")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {f"{figure}{suffix}" for figure in figures for suffix in (".png", ".svg")} < files
    with flagsaver.flagsaver():  # the same experiment, drawn again in another format
        table1.define_flags()
        parse_flags(["table1", *words, f"--out={tmp_path / 'run'}", "--formats=pdf", "--titles=no"])
        table1.main()
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {f"{figure}.pdf" for figure in figures} < files
    assert "samples.svg" not in files


@pytest.mark.parametrize("flag", ["--eta_lam=0.1:a"])
def test_pairs_are_checked(tmp_path, flag):
    code, errors = run_table1(flag, cwd=tmp_path)
    assert code == 2
    assert "pairs eta:lam separated by commas" in errors
    assert len(errors.splitlines()) == 1
