import errno
import os
import subprocess
import sys
from pathlib import Path

import forks
import jaxlib
import pytest

from experiments.cli import launch
from experiments.runner.errors import UsageError
from linear_cifar import devices

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("statement", "code", "line"),
    [
        ("raise experiments.runner.errors.UsageError('no such thing')", 2, "error: no such thing"),
        (
            "raise linear_cifar.folders.FolderError(pathlib.Path('a/b'), 'not empty')",
            2,
            "error: --out=a/b: not empty",
        ),
        ("raise linear_cifar.data.dataset.DataError('broken file')", 2, "error: broken file"),
        ("raise KeyboardInterrupt", 130, "stopped"),
        ("raise KeyboardInterrupt(15)", 143, "stopped"),
        (
            "raise experiments.runner.errors.Stopped('stopped; to resume: ...', 15)",
            143,
            "stopped; to resume: ...",
        ),
        ("os.kill(os.getpid(), 15)", 143, "stopped"),
        ("raise linear_cifar.folders.SaveError('no space')", 1, "error: no space"),
        (
            f"raise OSError({errno.ENOSPC}, 'No space left on device', 'results.csv')",
            1,
            "error: [Errno 28] No space left on device: 'results.csv'",
        ),
    ],
)
def test_a_command_that_fails_ends_in_one_line(tmp_path, statement, code, line):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import os, pathlib, linear_cifar.data.dataset, linear_cifar.folders, experiments.cli.launch
def main(): {statement}
experiments.cli.launch.launch(lambda: None, main)
""",
        encoding="utf-8",
    )
    process = forks.Process([str(program)], cwd=tmp_path, env=os.environ)
    assert process.communicate(timeout=120) == ("", line + "\n")
    assert process.returncode == code


def test_a_bug_shows_its_traceback():
    program = "from experiments.cli.launch import launch\ndef main(): 1 / 0\nlaunch(lambda: None, main)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "ZeroDivisionError" in process.stderr
    assert process.returncode == 1


def test_ctrl_c_during_the_imports_ends_in_one_line(tmp_path):
    (tmp_path / "jax.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)", encoding="utf-8"
    )
    process = subprocess.run(
        [sys.executable, "-m", "experiments.grid"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.stdout, process.stderr, process.returncode) == ("", "stopped\n", 130)


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nsuch backend"), AssertionError()], ids=["text", "no text"]
)
def test_a_missing_device_is_one_line_that_names_the_variable(monkeypatch, error):
    def raise_error():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr("jax.local_devices", raise_error)
    reason = "no such backend" if error.args else "there are no such devices"
    with pytest.raises(UsageError, match=f"^JAX_PLATFORMS=cuda: no device can be used: {reason}$"):
        launch.check_devices()


@pytest.fixture
def variables(monkeypatch):
    """Set environment variables; those of the caches are not set otherwise."""

    def set_variables(**values):
        for name in ("HOME", "XDG_CACHE_HOME", launch.JAX_CACHE):
            if name in values:
                monkeypatch.setenv(name, str(values[name]))
            else:
                monkeypatch.delenv(name, raising=False)

    return set_variables


def test_compiled_programs_are_kept_where_the_environment_says(tmp_path, variables):
    home, cache, programs = tmp_path / "home", tmp_path / "cache", tmp_path / "programs"
    variables(HOME=home)
    assert launch.find_cache() == home / ".cache" / "linear_cifar"
    variables(HOME=home, XDG_CACHE_HOME=cache)
    assert launch.find_cache() == cache / "linear_cifar"
    variables(HOME=home, XDG_CACHE_HOME=cache, JAX_COMPILATION_CACHE_DIR=programs)
    assert launch.find_cache() == programs
    for path in (home / ".cache" / "linear_cifar", cache / "linear_cifar", programs):
        assert list(path.iterdir()) == []


def test_without_a_home_compiled_programs_are_not_kept(variables, monkeypatch):
    variables(HOME="/dev/null/x")
    assert launch.find_cache() is None
    variables()
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without an entry
    assert launch.find_cache() is None
    for store in ("", "gs://bucket/programs"):
        variables(JAX_COMPILATION_CACHE_DIR=store)
        assert launch.find_cache() is None


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", launch.JAX_CACHE])
def test_an_unusable_folder_for_compiled_programs_is_refused(variables, name):
    variables(**{name: "/dev/null/x"})
    with pytest.raises(
        UsageError, match=f"^{name}=/dev/null/x: compiled programs cannot be kept there: Not a"
    ):
        launch.find_cache()


def test_the_options_of_a_gpu_are_set_where_jax_can_use_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--own")
    monkeypatch.setattr(devices, "GPU_PLUGINS", ("no_plugin", "plugin_of_this_test"))
    monkeypatch.setattr(devices, "TRIED_VERSIONS", (jaxlib.__version__,))
    devices.set_gpu_options()
    assert os.environ["XLA_FLAGS"] == "--own"
    (tmp_path / "plugin_of_this_test.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    devices.set_gpu_options()
    assert os.environ["XLA_FLAGS"] == f"{devices.GPU_OPTIONS} --own"  # the last one decides


@pytest.mark.skipif(not jaxlib.__version__.startswith(devices.TRIED_VERSIONS), reason="JAX is newer")
def test_xla_knows_the_options_of_a_gpu():
    code = "import jax; jax.jit(lambda x: x + 1)(1.0)"
    environment = os.environ | {"XLA_FLAGS": devices.GPU_OPTIONS, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
