import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import typing
from collections import Counter
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import small_sweep
import test_cifar10
from small_sweep import CONFIGS, SEEDS, TRAIN, VAL

import linear_cifar as lc


def squared_hinge(logits, y):
    return jnp.sum(jnp.maximum(0, 1 - (2 * y - 1) * logits) ** 2)


def squared_hinge_by_loop(W, b, x, y, lam):
    """Return the objective's gradients, example by example and class by class."""
    dW, db = 2 * lam * W, np.zeros_like(b)
    for i in range(len(x)):
        for k in range(len(b)):
            sign = 2 * y[i, k] - 1
            slack = max(0, 1 - sign * (W[k] @ x[i] + b[k]))
            dW[k] += -2 * sign * slack * x[i] / len(x)
            db[k] += -2 * sign * slack / len(x)
    return dW, db


def features_and_labels(n=40, d=6, num_classes=10):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, num_classes, n)


@pytest.mark.parametrize("name", ["softmax", "bce", "hinge"])
def test_manual_gradients_equal_autodiff_also_for_a_loss_of_the_users(name):
    loss = lc.Loss.from_value("hinge", squared_hinge) if name == "hinge" else lc.get_loss(name)
    x, labels = features_and_labels()
    data = lc.make_examples(x, labels, num_classes=10)
    params = lc.init_params(jax.random.key(0), d=x.shape[1], K=10)
    manual = lc.gradients(params, *data, lam=0.1, loss=loss)
    auto = jax.grad(lc.objective)(params, *data, lam=0.1, loss=loss)
    for ours, expected in zip(manual, auto, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    if name == "hinge":
        by_loop = squared_hinge_by_loop(*(np.asarray(a, np.float64) for a in (*params, *data)), lam=0.1)
        for ours, expected in zip(manual, by_loop, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_a_thousand_configurations_from_ten_seeds():
    x, _ = features_and_labels(n=100)
    labels = x[:, :3].argmax(axis=1)  # can be learned, and seeds differ in accuracy
    train, val = (lc.make_examples(x[part], labels[part], 3) for part in (slice(20), slice(20, None)))
    configs = lc.grid(eta=np.logspace(-2, 0.5, 50), batch=[10], lam=np.linspace(0, 0.02, 20))
    result = lc.fit(configs, train, {"val": val}, loss="softmax", epochs=20, seeds=range(10))
    accuracy = result.final["val_acc"].astype(np.float64)
    assert accuracy.shape == (10, 1000)
    assert result.history["val_loss"].shape == (20, 10, 1000)

    best = result.best("val")
    means = accuracy.mean(axis=0)
    assert best.config == configs[best.index]
    assert best.mean == means[best.index] == means.max()
    np.testing.assert_allclose(best.stderr, accuracy[:, best.index].std(ddof=1) / np.sqrt(10))

    for seed in (0, 9):
        W, b = result.params(config=best.index, seed=seed)
        predicted = (x[20:] @ W.T + b).argmax(axis=1)
        np.testing.assert_allclose(accuracy[seed, best.index], (predicted == labels[20:]).mean(), rtol=1e-6)


def test_a_sweep_stops_and_resumes_from_a_file(tmp_path):
    path = tmp_path / "probe.npz"
    straight = small_sweep.run(epochs=4)
    for epoch in small_sweep.start(epochs=2):
        epoch.snapshot().save(path)
    more = small_sweep.run(epochs=4, resume_from=lc.load_snapshot(path))
    assert [epoch.number for epoch in more] == [3, 4]
    for resumed, expected in zip(more, straight[2:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, resumed.params(), expected.params())
        jax.tree.map(np.testing.assert_array_equal, resumed.metrics, expected.metrics)


def part(examples, n=None, d=None, K=None):
    """Return examples with fewer rows or columns."""
    return lc.Examples(examples.features[:n, :d], examples.targets[:n, :K])


HINGE = lc.Loss.from_value("hinge", squared_hinge)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"configs": []}, "at least one configuration"),
        ({"configs": [lc.Config(0.1, 41, 0.0)]}, "batch is 41: the training set holds 40"),
        ({"configs": [lc.Config(eta=0.1)]}, "batch is missing among .*: give each Config one"),
        ({"configs": [lc.Config(batch=8)]}, "eta is missing among .*: give each Config one"),
        ({"configs": [lc.Config(0.1, 8, 0.0, q=0.5)], "loss": HINGE}, "q is 0.5: neither .* uses it: give"),
        ({"evaluation_sets": {"test": part(VAL, d=5)}}, "test has 5 features and 3 classes"),
        ({"evaluation_sets": {"test": part(VAL, n=9, K=2)}}, "test has 6 features and 2 classes"),
        ({"epochs": 0}, "epochs is 0"),
        ({"average": 0}, "average is 0"),
        ({"average": 4}, "average is 4: give 1 to 3"),
        ({"seeds": []}, "at least one seed"),
        ({"loss": "hinge"}, "unknown loss 'hinge': choose one of softmax, bce"),
        ({"standardizer": lc.Standardizer(np.zeros(5), np.ones(5))}, r"\(5,\), \(5,\): give both as \(6,\)"),
        ({"init": lambda seed: lc.init_params(jax.random.key(seed), d=5, K=3)}, r"the weights are \(3, 5\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [lc.sweep, lc.fit])
def test_arguments_are_checked_when_the_function_is_called(function, arguments, message):
    valid = {"configs": CONFIGS, "train": TRAIN, "evaluation_sets": {"val": VAL}, "epochs": 3}
    with pytest.raises(ValueError, match=message) as raised:
        function(**{**valid, **arguments})  # not advanced by `next`
    assert "\n" not in str(raised.value)


def test_runs_of_other_parameters_are_not_evaluated():
    params = lc.Params(jnp.zeros((2, 3, 3, 6)), jnp.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"the parameters are of \(2, 3\) runs: there are \(2, 4\)"):
        lc.evaluate_runs(CONFIGS, params, VAL, seeds=SEEDS)


def test_a_star_import_gives_every_exported_name():
    namespace = {}
    exec("from linear_cifar import *", namespace)
    del namespace["__builtins__"]
    assert set(namespace) == set(lc.__all__)
    assert len(lc.__all__) == len(set(lc.__all__))
    assert all(namespace[name] is getattr(lc, name) for name in lc.__all__)


def test_no_exported_name_shadows_a_module():
    modules = [module.name for module in pkgutil.iter_modules(lc.__path__)]
    assert {"descent", "training", "fitting"} <= set(modules)
    assert not set(modules) & set(lc.__all__)
    for name in modules:
        __import__(f"linear_cifar.{name}")
        assert inspect.ismodule(getattr(lc, name)), name


def test_no_two_modules_of_the_project_have_the_same_name():
    root = Path(lc.__file__).parents[1]
    paths = [path for folder in ("linear_cifar", "experiments") for path in (root / folder).rglob("*.py")]
    names = [path.name for path in paths if path.name != "__init__.py"]
    assert "descent.py" in names
    assert "grid.py" in names
    assert sorted(name for name, count in Counter(names).items() if count > 1) == []


def classes_in(annotation):
    """Yield the package's classes that an annotation is made of."""
    if inspect.isclass(annotation) and annotation.__module__.startswith("linear_cifar"):
        yield annotation
    for argument in typing.get_args(annotation):
        for part in argument if isinstance(argument, list) else [argument]:
            yield from classes_in(part)


# Methods that only `fit` calls.
INTERNAL = {lc.Cluster.train}


def annotations_of(exported):
    """Yield the annotations of a function, or of a class's fields and public methods."""
    yield from inspect.get_annotations(exported).values()
    if inspect.isclass(exported):
        for name, member in vars(exported).items():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if not name.startswith("_") and inspect.isfunction(function) and member not in INTERNAL:
                yield from inspect.get_annotations(function).values()


def test_everything_that_a_public_signature_needs_is_exported():
    public = [getattr(lc, name) for name in lc.__all__]
    documented = [member for member in public if inspect.isfunction(member) or inspect.isclass(member)]
    needed = {found for member in documented for hint in annotations_of(member) for found in classes_in(hint)}
    assert {lc.Snapshot, lc.TrainSpec, lc.Metrics} <= needed
    assert sorted(cls.__name__ for cls in needed if cls not in public) == []


# Of a package that pip installs without extras.
WITHOUT_EXTRAS = """
import importlib, json, pkgutil, sys
from pathlib import Path

missing = json.loads(sys.argv[1])

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import linear_cifar
for module in pkgutil.walk_packages(linear_cifar.__path__, "linear_cifar."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        print(module.name, error)
from linear_cifar.data import cifar10, download, formats, tfds

folder, count = Path(sys.argv[2]), int(sys.argv[3])
print(cifar10.read_cifar10(folder / "binary", count).splits["train"].features.shape)
print(formats.read_features(folder / "own.npz").splits["train"].features.shape)
for read in (tfds.read_tfds, download.fetch):
    try:
        read(folder)
    except tfds.DataError as error:
        print(type(error).__name__, error)
"""


def installed_without_extras():
    """Return the names of the distributions that the package needs, and those that they need."""
    project = Path(lc.__file__).parents[1] / "pyproject.toml"
    requirements, names = (
        tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"],
        {"linear-cifar"},
    )
    for requirement in requirements:  # which grows
        name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
        if name not in names and "extra ==" not in requirement:
            names.add(name)
            requirements += metadata.requires(name) or []
    return names


def test_without_the_extras_every_module_is_imported_and_says_what_is_missing(tmp_path):
    base = installed_without_extras()
    assert {"jax", "numpy", "absl-py"} <= base
    missing = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & base
    ]
    assert {"requests", "PIL", "tensorflow_datasets", "array_record", "importlib_resources"} <= {*missing}
    test_cifar10.write(tmp_path / "binary", test_cifar10.LAYOUTS[0])
    np.savez(tmp_path / "own.npz", x_train=np.ones((4, 2), np.float32), y_train=np.arange(4) % 2)
    (tmp_path / "tfds").mkdir()
    (tmp_path / "tfds" / "cifar10-train.array_record-00000-of-00001").touch()
    arguments = [json.dumps(missing), str(tmp_path), str(test_cifar10.COUNT)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(lc.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    estimators, binary, own, prepared, download = done.stdout.splitlines()
    assert estimators.startswith("linear_cifar.sklearn scikit-learn is missing")
    assert estimators.endswith("pip install 'linear_cifar[sklearn]'")
    assert (binary, own) == (str((5 * test_cifar10.COUNT, 3072)), "(4, 2)")
    assert prepared.startswith(
        f"DataError the CIFAR-10 that tfds prepared in {tmp_path / 'tfds'} needs tensorflow_"
    )
    assert download.startswith("DataUnavailable a download needs requests")
    for message in (prepared, download):
        assert message.endswith("pip install 'linear_cifar[data]'")


def test_everything_public_has_a_docstring():
    for member in (getattr(lc, name) for name in lc.__all__):
        if getattr(member, "__module__", "").startswith("linear_cifar"):
            assert inspect.getdoc(member).split("\n\n")[0].endswith("."), member


def test_a_training_loop_can_be_built_from_the_exported_names():
    W, b, x, y = problems.problem(n=18, d=4, K=3)
    configs = [lc.Config(0.1, 6, 0.1, momentum=0.5), lc.Config(0.3, 6, 0.0)]
    layout = lc.make_layout([config.batch for config in configs], 1, jax.local_devices()[:1], W.nbytes)
    spec = lc.TrainSpec(lc.get_loss("softmax"), lc.heavy_ball, shuffle=False)
    hyperparams = lc.stack_hyperparams([configs[c] for c in layout.configs], jnp.float64)
    state = initial = lc.init_state(lc.Params(W[None], b[None]), hyperparams, spec.optimizer)
    train = lc.Examples(jnp.asarray(x), jnp.asarray(y))
    for epoch in range(2):
        replicates = lc.ReplicateData(jax.random.key(epoch)[None])
        state, _, finite = lc.train_epoch(state, hyperparams, train, None, replicates, layout, spec)
    trained = layout.from_slots(state.params)
    assert finite.all()
    for c, config in enumerate(configs):
        expected = problems.train_by_loop(W, b, x, y, loss="softmax", epochs=2, **config)
        for ours, reference in zip(trained, expected, strict=True):
            np.testing.assert_allclose(ours[0, c], reference, rtol=1e-12, atol=1e-13)

    step = jax.jit(lc.train_step, static_argnames="spec")
    run = jax.tree.map(lambda leaf: leaf[0, 0], initial)
    single = jax.tree.map(lambda leaf: leaf[0], hyperparams)
    for start in (0, 6, 12):
        run, _ = step(run, single, x[start : start + 6], y[start : start + 6], spec)
    expected = problems.train_by_loop(W, b, x, y, 0.1, 6, 0.1, "softmax", 1, momentum=0.5)
    for ours, reference in zip(run.params, expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-13)
