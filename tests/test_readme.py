"""What the README shows is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from test_results import SETTINGS

from experiments import provenance
from experiments.results import HISTORY, RESULTS
from experiments.settings import Variant
from linear_cifar.config import Config
from linear_cifar.dataset import Dataset, Split

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(marker):
    return re.search(rf"<!-- {marker}.*?-->\n```\w+\n(.*?)```", README, re.S)[1]


def test_the_example_runs(capsys):
    names = {}
    exec(compile(block("example"), "README.md", "exec"), names)
    lines = capsys.readouterr().out.split("\n")
    assert [line.split()[0] for line in lines[:-1]] == ["1", "2", "3", "4", "5"]
    assert names["best"] in names["configs"]
    assert names["accuracy"].max() > 0.6


def test_every_module_has_its_line():
    for folder in ("linear_cifar", "experiments"):
        for path in (ROOT / folder).glob("[!_]*.py"):
            assert f"`{path.name}`" in README, f"{folder}/{path.name} is not described"


def test_the_commands_name_what_exists():
    for marker in ("main", "tests"):
        command = shlex.split(block(marker))
        assert command[:5] == ["pip", "install", "-r", "requirements.txt", "&&"]
        assert command[5:7] == ["python", "-m"]
        module = command[7]
        assert module == "pytest" or (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_every_command_that_is_named_exists():
    named = set(re.findall(r"python -m experiments\.(\w+)", README))
    assert {"table1", "grid", "bce", "improve", "report", "bench"} <= named
    for name in named:
        assert f"python -m experiments.{name}" in (ROOT / "experiments" / f"{name}.py").read_text()


def test_every_column_and_every_entry_of_the_files_is_described():
    section = README[README.index("## The files of a run") : README.index("## In your own code")]
    described = set(re.findall(r"`(\w+)`", section))
    assert {*RESULTS, *HISTORY, *Config._fields} <= described
    environment = provenance.describe_environment() | provenance.describe_use([(1, 1)])
    split = Split(np.zeros((1, 3), np.uint8), np.zeros(1, np.uint8))
    dataset = Dataset("synthetic", (), split, split, split, "", False, "")
    own = Variant("one", SETTINGS, ())
    config = provenance.describe("grid", {}, [(own, dataset)], environment, complete=True)
    assert config.keys() <= described
    assert f"now {config['schema']}." in section


def test_the_core_needs_no_more_than_the_readme_says():
    absent = ["tensorflow_datasets", "requests", "PIL", "matplotlib", "tqdm", "sklearn", "orbax", "filelock"]
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import linear_cifar"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
