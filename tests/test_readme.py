"""The README files agree with the code: commands, flags, files, modules, verdicts, and types of examples."""

import importlib
import inspect
import pydoc
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xla_flags
from absl import flags
from absl.testing import flagsaver
from small_runs import draw_result, make_sweep, small_data

import linear_cifar as lc
from experiments.artifacts import measures, provenance
from experiments.artifacts.exports import history_columns, result_columns, write_results
from experiments.reporting.claims import RULE
from experiments.runner import folder
from linear_cifar.config import grid

ROOT = Path(__file__).parent.parent
FILES = ("README.md", "experiments/README.md", "experiments/FILES.md", "experiments/RESULTS.md",
         "linear_cifar/README.md", "experiments/benchmark/README.md", "experiments/CLUSTER.md",
         "experiments/FEATURES.md")  # fmt: skip
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
COMMANDS = ("grid", "path", "search", "compare", "table1", "bce", "improve", "report", "bench")


def find_block(marker):
    return re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", TEXTS["README.md"], re.S)[1]


def join_examples(name):
    """Return the Python examples of a file as one program; its lines are those of the file."""
    lines = [""] * len(TEXTS[name].splitlines())
    for match in re.finditer(r"```python\n(.*?)```", TEXTS[name], re.S):
        first = TEXTS[name][: match.start(1)].count("\n")
        code = match[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["README.md", "linear_cifar/README.md"])
def test_the_examples_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # As in a user's program, without the tests' strictness.
    program = join_examples(name)
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags.FLAGS}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stderr


def test_the_examples_have_types(tmp_path):
    """`mypy --strict` accepts a user's code; libraries without types of their own are Any."""
    programs = []
    for name in FILES:
        if "```python\n" in TEXTS[name]:
            programs.append(tmp_path / f"{name.removesuffix('.md').replace('/', '_')}.py")
            programs[-1].write_text(join_examples(name), encoding="utf-8")
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", "--follow-imports=silent"]
    # A cache of its own: that of `mypy` alone is for other options.
    command = [sys.executable, "-m", "mypy", *options, f"--cache-dir={ROOT / '.cache/mypy'}", *programs]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(programs) == 6


def test_help_names_every_option_of_fit_with_its_default():
    text = pydoc.plain(pydoc.render_doc(lc.fit))
    signature, docstring = text.split("\n\n", 1)[1].split("\n", 1)
    for name, parameter in inspect.signature(lc.fit).parameters.items():
        assert re.search(rf"\b{name}\b", docstring), name
        if parameter.default is not parameter.empty:
            assert f"{name}: " in signature
            assert "<function" not in repr(parameter.default)


def test_the_two_commands_install_and_run_modules_that_exist():
    for marker, module in (("main", "experiments.grid"), ("tests", "pytest")):
        install, run = find_block(marker).split(" && ")
        assert install.startswith("pip install ")
        assert shlex.split(run)[:3] == ["python", "-m", module]
    assert find_block("tests").startswith("pip install -e '.[test]'")


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 110


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
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", TEXTS[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if anchor:  # GitHub makes it from a heading
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


def test_every_module_has_its_line():
    folders = {"linear_cifar": "linear_cifar/README.md", "linear_cifar/data": "linear_cifar/README.md",
               "experiments/benchmark": "experiments/benchmark/README.md"}  # fmt: skip
    for package, readme in folders.items():
        for path in (ROOT / package).glob("[!_]*.py"):
            assert f"`{path.name}`" in TEXTS[readme], f"{package}/{path.name} is not described"
    for path in (ROOT / "experiments").iterdir():
        if (path / "__init__.py").exists():
            assert f"`{path.name}/`" in TEXTS["experiments/README.md"]
    assert {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")} == set(COMMANDS)


def test_the_rule_of_the_verdicts_is_that_of_the_code():
    written = re.search(r"<!-- rule -->(.*?)<!-- /rule -->", TEXTS["experiments/RESULTS.md"], re.S)[1]
    assert written.split() == RULE.split()


def test_every_column_and_entry_of_the_files_is_described():
    text = TEXTS["experiments/FILES.md"]
    described = set(re.findall(r"`([\w.]+)`", text))
    assert {*result_columns(), *history_columns(), *measures.NAMES} <= described
    names = [name for key, name in vars(folder).items() if key.isupper() and isinstance(name, str)]
    assert {name for name in names if "." in name} <= described
    sweep, data = make_sweep(grid(eta=[0.1], batch=[10])), small_data()
    prepared, results = {sweep.name: data}, {sweep.name: draw_result(sweep, data)}
    config = provenance.describe_experiment("grid", {}, [sweep], prepared, results, complete=True)
    assert config.keys() | config["dataset"].keys() <= described
    assert f"`schema` {config['schema']}," in text


def test_every_array_of_the_files_is_described(tmp_path):
    sweep, data = make_sweep(grid(eta=[0.1], batch=[10])), small_data()
    result = draw_result(sweep, data)
    write_results(tmp_path, [result])
    result.save(tmp_path / "result.npz")
    with np.load(tmp_path / folder.BEST) as best, np.load(tmp_path / "result.npz") as saved:
        arrays = {*best, *saved} - {"fold"}
    described = set(re.findall(r"`([\w.*]+)`", TEXTS["experiments/FILES.md"]))
    assert all({name, f"{name.split('.')[0]}.*"} & described for name in arrays)


def test_the_core_needs_no_more_packages_than_the_readme_says():
    absent = ["tensorflow_datasets", "requests", "PIL", "matplotlib", "tqdm", "sklearn", "filelock", "jinja2"]
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import linear_cifar"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
