"""The README files agree with the code: commands, flags, files, modules, verdicts and examples."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import xla_flags
from absl import flags
from absl.testing import flagsaver
from small_runs import make_sweep, small_data

from experiments.artifacts import provenance
from experiments.artifacts.results import HISTORY_COLUMNS, RESULT_COLUMNS
from experiments.reporting.claims import RULE
from linear_cifar.config import Config

ROOT = Path(__file__).parent.parent
FILES = ("README.md", "experiments/README.md", "experiments/RESULTS.md", "linear_cifar/README.md",
         "experiments/benchmark/README.md")  # fmt: skip
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
COMMANDS = ("grid", "search", "table1", "bce", "improve", "report", "bench")


def find_block(marker):
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", TEXTS["README.md"], re.S)[1]


@pytest.mark.parametrize("name", ["README.md", "linear_cifar/README.md"])
def test_the_examples_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # As in a user's program, without the tests' strictness.
    program = "\n".join(re.findall(r"```python\n(.*?)```", TEXTS[name], re.S))
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags.FLAGS}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr


def test_the_two_commands_install_and_run_modules_that_exist():
    for marker, module in (("main", "experiments.grid"), ("tests", "pytest")):
        install, run = find_block(marker).split(" && ")
        assert install.startswith("pip install ")
        assert shlex.split(run)[:3] == ["python", "-m", module]
    assert find_block("tests").startswith("pip install -e '.[test]'")


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 160


@pytest.mark.parametrize("name", FILES)
def test_lines_have_at_most_120_characters(name):
    # Rows of tables cannot be broken.
    wide = [line for line in TEXTS[name].splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not wide


@pytest.mark.parametrize("name", FILES)
def test_every_command_that_is_named_exists(name):
    named = set(re.findall(r"python -m experiments\.([a-z]\w*(?:\.\w+)*)", TEXTS[name]))
    for module in named:
        path = ROOT / "experiments" / f"{module.replace('.', '/')}.py"
        assert f"python -m experiments.{module}" in path.read_text(encoding="utf-8")
    if name == "experiments/README.md":
        assert named == set(COMMANDS)


@pytest.mark.parametrize("name", FILES)
def test_every_flag_that_is_named_exists(name):
    with flagsaver.flagsaver():
        defined = set()
        for command in COMMANDS:
            with flagsaver.flagsaver():
                importlib.import_module(f"experiments.{command}").define_flags()
                defined |= set(flags.FLAGS)
    commands = "\n".join(re.findall(r"`--[^`]*`|python -m experiments.*|python tests.*", TEXTS[name]))
    named = set(re.findall(r"--([a-z]\w*)", commands))
    assert named - defined <= {"help"}


@pytest.mark.parametrize("name", FILES)
def test_links_and_pictures_exist(name):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[name]):
        assert ((ROOT / name).parent / target).exists(), target


def test_every_module_has_its_line():
    folders = {"linear_cifar": "linear_cifar/README.md", "linear_cifar/data": "linear_cifar/README.md",
               "experiments/benchmark": "experiments/benchmark/README.md"}  # fmt: skip
    for folder, readme in folders.items():
        for path in (ROOT / folder).glob("[!_]*.py"):
            assert f"`{path.name}`" in TEXTS[readme], f"{folder}/{path.name} is not described"
    for path in (ROOT / "experiments").iterdir():
        if (path / "__init__.py").exists():
            assert f"`{path.name}/`" in TEXTS["experiments/README.md"]
    assert {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")} == set(COMMANDS)


def test_the_rule_of_the_verdicts_is_that_of_the_code():
    written = re.search(r"<!-- rule -->(.*?)<!-- /rule -->", TEXTS["experiments/RESULTS.md"], re.S)[1]
    assert written.split() == RULE.split()


def test_every_column_and_entry_of_the_files_is_described():
    text = TEXTS["experiments/README.md"]
    section = text[text.index("## The files of a run") : text.index("## Adding an experiment")]
    described = set(re.findall(r"`(\w+)`", section))
    assert {*RESULT_COLUMNS, *HISTORY_COLUMNS, *Config._fields} <= described
    environment = provenance.describe_environment() | provenance.describe_use([(1, 1)])
    config = provenance.describe_run("grid", {}, [(make_sweep([]), small_data())], environment, complete=True)
    assert config.keys() <= described
    assert config["dataset"].keys() <= described | {"name", "origin", "fingerprint"}
    assert f"this schema, {config['schema']}." in section


def test_the_core_needs_no_more_packages_than_the_readme_says():
    absent = ["tensorflow_datasets", "requests", "PIL", "matplotlib", "tqdm", "sklearn", "filelock", "jinja2"]
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import linear_cifar"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
