"""Wrong calls of the public functions, each with the words that it must be answered with.

    python tests/wrong_calls.py

prints the calls that are answered otherwise. It runs in a process of its own, as an importer's program does:
under pytest, the shapes and types of arguments are checked before a function sees them.
"""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.preprocessing import StandardScaler

import linear_cifar as lc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 3
TRAIN, VAL = lc.make_examples(X, Y, 3), lc.make_examples(X[:6], Y[:6], 3)
CONFIG = lc.Config(0.1, 4, 0.0)
PARAMS = lc.init_params(jax.random.key(0), d=4, K=3)
BATCH = X, np.eye(3, dtype=np.float32)[Y]
MULTI_HOT = lc.Examples(X, np.eye(3)[Y] + np.eye(3)[(Y + 1) % 3])


def fit(**options):
    """Call `fit` with valid arguments, except those that are given."""
    return lc.fit(
        **{"configs": [CONFIG], "train": TRAIN, "evaluation_sets": {"val": VAL}, "epochs": 2, **options}
    )


def sweep(**options):
    """Call `sweep` with valid arguments, except those that are given."""
    return lc.sweep(**{"configs": [CONFIG], "train": TRAIN, "evaluation_sets": {}, "epochs": 2, **options})


def solve(**options):
    """Call `solve` with valid arguments, except those that are given."""
    return lc.solve(**{"lams": [0.1], "train": TRAIN, "evaluation_sets": {"val": VAL}, **options})


def masked():
    """Return features of which one is masked."""
    return np.ma.masked_equal(np.arange(48.0).reshape(12, 4), 7)


class Unhashable:
    """A function that JAX cannot keep a program for."""

    __hash__ = None

    def __call__(self, *arguments):
        """Return nothing of use."""


def epoch_arguments(train):
    """Return the arguments of `train_epoch`."""
    d = train.features.shape[1]
    layout = lc.make_layout([4], 1, jax.local_devices()[:1], 100)
    hyperparams = lc.stack_hyperparams([CONFIG])
    state = lc.init_state(lc.Params(jnp.zeros((1, 3, d)), jnp.zeros((1, 3))), hyperparams)
    return state, hyperparams, train, None, lc.ReplicateData(jax.random.key(0)[None]), layout, lc.TrainSpec()


class Sparse:
    """Something like a SciPy sparse matrix."""

    nnz = 0

    def toarray(self):
        """Return nothing of use."""


NOT_FINITE = np.where(np.arange(48).reshape(12, 4) == 21, np.nan, X)
OBJECTS = np.array([[1, "a"]] * 12, object)
CALLS = {
    # Examples.
    "examples of NaN": (lambda: lc.Examples(NOT_FINITE, BATCH[1]), "row 5 of features holds NaN"),
    "features of NaN": (lambda: lc.make_examples(NOT_FINITE, Y, 3), "row 5 of features holds NaN"),
    "standardizer of NaN": (lambda: lc.fit_standardizer(NOT_FINITE), "row 5 of features holds NaN"),
    "unit length of NaN": (lambda: lc.scale_to_unit_length(NOT_FINITE), "row 5 of features holds NaN"),
    "complex features": (lambda: lc.make_examples(X * 1j, Y, 3), r"features is complex64\(12, 4\): give"),
    "complex jax features": (lambda: lc.make_examples(jnp.asarray(X) * 1j, Y, 3), "features is complex64"),
    "strings": (lambda: lc.make_examples(X.astype(str), Y, 3), "features is <U.*: give an array of real"),
    "objects": (lambda: lc.make_examples(OBJECTS, Y, 3), "Python objects that are not all numbers"),
    "ragged": (lambda: lc.make_examples([[1], [1, 2]], Y, 3), "features cannot be made an array"),
    "time spans": (lambda: lc.fit_standardizer(np.array([[1]], "m8[D]")), "timedelta64.*real numbers"),
    "beyond 2^53": (lambda: lc.fit_standardizer(np.array([[2**60], [2**60 + 1]])), "feature 0 is beyond"),
    "dates": (lambda: lc.fit_standardizer(np.array([["2020-01-01"]], "M8[D]")), "datetime64.*real numbers"),
    "masked": (lambda: lc.make_examples(masked(), Y, 3), "features has masked values: fill them"),
    "sparse": (lambda: lc.make_examples(Sparse(), Y, 3), r"features is sparse .*toarray\(\)"),
    "longdouble": (
        lambda: lc.fit_standardizer(np.full((2, 2), np.longdouble(1) / 3)),
        "float64 loses: round it",
    ),
    "one axis": (lambda: lc.make_examples(X[0], Y, 3), r"features is float32\(4,\): give \[n, d\]"),
    "no examples": (lambda: lc.make_examples(X[:0], Y[:0], 3), "give at least one example"),
    "labels of halves": (lambda: lc.make_examples(X, Y + 0.5, 3), "row 0 of labels is 0.5: give whole"),
    "labels of NaN": (lambda: lc.make_examples(X, np.full(12, np.nan), 3), "row 0 of labels is nan"),
    "words as labels": (lambda: lc.make_examples(X, ["a"] * 12, 3), "labels is <U1.*give an array of real"),
    "too large a label": (lambda: lc.make_examples(X, Y + 2**32, 3), "row 0 of labels is 4294967296: give"),
    "num_classes": (
        lambda: lc.make_examples(X, Y, 3.0),
        "num_classes is 3.0: give a whole number, at least 2",
    ),
    "labels as targets": (
        lambda: lc.Examples(X, Y),
        r"targets is int64\(12,\): give \[n, K\]; make_examples",
    ),
    "targets beyond 1": (lambda: lc.Examples(X, 2 * BATCH[1]), "row 0 of targets holds a number that is not"),
    "unclear kind": (lambda: lc.Examples(X, 0.9 * BATCH[1]), "do not show their kind: give kind='soft'"),
    "kind": (lambda: lc.Examples(*BATCH, kind="hot"), "kind is 'hot': choose one of classes, soft, labels"),
    "not one-hot": (lambda: lc.Examples(*MULTI_HOT, kind="classes"), "the targets are not one-hot"),
    "classes of one output": (lambda: lc.Examples(X, BATCH[1][:, :1], "soft"), "one output.*kind 'labels'"),
    # The arguments of a sweep.
    "evaluation set": (lambda: fit(evaluation_sets=VAL), 'evaluation_sets is an Examples: give .*"val": val'),
    "tuple as a set": (lambda: fit(evaluation_sets=("val", VAL)), "evaluation_sets is a tuple"),
    "tuple in a set": (
        lambda: fit(evaluation_sets={"val": BATCH}),
        "the evaluation set val is a tuple: give",
    ),
    "tuple to train": (lambda: fit(train=BATCH), "train is a tuple: give lc.make_examples"),
    "another kind": (lambda: fit(train=MULTI_HOT, loss="bce"), "the targets of val are classes, those of"),
    "seeds=5": (lambda: fit(seeds=5), r"seeds is 5: give a list, such as \[0\]"),
    "half a seed": (lambda: fit(seeds=[0.5, 1.9]), "seed is 0.5: give a whole number, 0 to 4294967295"),
    "large seed": (lambda: fit(seeds=[1, 2**32 + 1]), "seed is 4294967297: give 0 to 4294967295"),
    "huge seed": (lambda: fit(seeds=[2**63]), "seed is 9223372036854775808: give 0 to"),
    "negative seed": (lambda: sweep(seeds=[-1]), "seed is -1: give 0 to"),
    "true as a seed": (lambda: fit(seeds=[True]), "seed is True: give a whole number"),
    "text as seeds": (lambda: fit(seeds="01"), "seeds is '01': give a list"),
    "seeds of bytes": (lambda: fit(seeds=b"01"), "seeds is b'01': give a list"),
    "one run twice": (
        lambda: fit(seeds=[lc.Replicate(0), lc.Replicate(0, 1)]),
        "two replicates train the same run",
    ),
    "seed of NumPy's": (lambda: fit(seeds=np.array([0.5])), "seed is 0.5: give a whole number"),
    "seed twice": (lambda: fit(seeds=[3, 3]), "the same seed and fold"),
    "seed of weights": (lambda: lc.jax_params(2**32, 4, 3), "seed is 4294967296"),
    "seed of NumPy": (lambda: lc.numpy_params(-1, 4, 3), "seed is -1"),
    "seed of points": (
        lambda: lc.draw_configs(2, seed=0.5, eta=[1], batch=[1]),
        "seed is 0.5",
    ),
    "schedule": (
        lambda: fit(schedule="cosinus"),
        "unknown schedule 'cosinus': choose one of constant, cosine",
    ),
    "schedule of optax": (lambda: fit(schedule=optax.constant_schedule(1.0)), "schedule is .*which fails"),
    "schedule as a number": (lambda: fit(schedule=0.5), "schedule is 0.5, which fails"),
    "ascent": (
        lambda: fit(schedule=lambda epochs: lambda done: -1.0),
        "the factor -1.0 in epoch 1: give 0 or",
    ),
    "NaN schedule": (lambda: fit(schedule=lambda epochs: lambda done: np.nan), "the factor nan in epoch 1"),
    "optimizer of optax": (
        lambda: fit(optimizer=optax.adam),
        "optimizer is the function adam, which cannot be",
    ),
    "made optimizer": (
        lambda: fit(optimizer=optax.adam(0.1)),
        "optimizer is a GradientTransf.*: give one of",
    ),
    "line search": (lambda: fit(optimizer=lambda h: optax.lbfgs(h.eta)), "which cannot be used .*value"),
    "lbfgs": (lambda: fit(optimizer=optax.lbfgs), "optimizer is the function lbfgs, which cannot be used"),
    "optimizer's name": (
        lambda: fit(optimizer="adam"),
        "unknown optimizer 'adam': choose one of sgd, heavy_",
    ),
    "momentum": (
        lambda: fit(configs=[CONFIG.replace(momentum=0.9)]),
        "momentum is 0.9: .*heavy_ball",
    ),
    "eta": (lambda: fit(optimizer=lambda h: optax.sgd(0.5)), "eta is 0.1: optimizer, .*, does not use it"),
    "loss as a function": (lambda: fit(loss=lambda s, y: 0), "loss is the function .*Loss.from_value"),
    "loss's name": (lambda: fit(loss="hinge"), "unknown loss 'hinge': choose one of softmax, bce"),
    "built-in name": (
        lambda: lc.Loss.from_value("softmax", lambda s, y: 0.0),
        "the name 'softmax' of a built-in",
    ),
    "one output": (lambda: lc.evaluate(PARAMS, lc.Examples(X, BATCH[1][:, :1]), "softmax"), "need"),
    "softmax of one output": (
        lambda: fit(train=lc.Examples(X, BATCH[1][:, :1]), evaluation_sets={}),
        "there is one output, .*: give loss='bce'",
    ),
    "other axes": (
        lambda: fit(configs=[CONFIG, CONFIG.replace(gamma=1.0)]),
        "configs do not all have gamma: give all of them the same axes",
    ),
    "axis of a loss": (
        lambda: fit(loss=lc.Loss.from_value("own", lambda s, y, h: s @ y * h.gamma, gamma=0.0)),
        "gamma is missing, which the loss own reads: give each Config one",
    ),
    "axis that a loss does not name": (
        lambda: fit(loss=lc.Loss.from_value("own", lambda s, y, h: s @ y * h.q * h.gamma, q=0.0)),
        "loss own fails on .*there is no gamma: the hyperparameters are q",
    ),
    "axis that an optimizer reads": (
        lambda: fit(optimizer=lambda h: optax.adam(h.eta, h.beta)),
        "cannot be used .there is no beta: the hyperparameters are eta, lam",
    ),
    "name of an axis": (lambda: lc.Config(0.1, 4, items=1.0), "an axis has the name 'items': give another"),
    "two values": (lambda: lc.Config(0.1, 4, eta=1.0), "Config has two values for eta: give one"),
    "too many values": (
        lambda: lc.Config(*range(99)),
        "Config has 99 values without a name: give eta, batch",
    ),
    "one config": (lambda: fit(configs=CONFIG), r"configs is one Config: give a list, such as \[config\]"),
    "no configs": (lambda: fit(configs=3), "configs is 3: give a list of Config"),
    "names as configs": (lambda: fit(configs=["a"]), "configs holds 'a': give a list of Config"),
    "text as eta": (lambda: fit(configs=[lc.Config("1", 4, 0.0)]), "eta is '1': give a number"),
    "eta beyond float32": (
        lambda: fit(configs=[lc.Config(1e39, 4, 0.0)]),
        "eta is 1e.39: give a number that fl",
    ),
    "one eta": (
        lambda: lc.grid(eta=0.1, batch=[4]),
        r"eta is 0.1: give a list of numbers, such as \[0.1\]",
    ),
    "text as etas": (lambda: lc.grid(eta="12", batch=[4]), "eta is '12': give a list of numbers"),
    "scaler": (
        lambda: fit(standardizer=StandardScaler().fit(X)),
        "standardizer is a StandardScaler: give lc.St",
    ),
    "pair": (
        lambda: fit(standardizer=(X.mean(0), X.std(0))),
        "standardizer is a tuple: give lc.Standardizer",
    ),
    "zero std": (lambda: fit(standardizer=lc.Standardizer(X[0], 0 * X[0])), "std is not positive"),
    "NaN mean": (
        lambda: fit(standardizer=lc.Standardizer(np.full(4, np.nan), X[0] ** 2)),
        "mean is NaN or inf",
    ),
    "shape": (lambda: fit(standardizer=lc.Standardizer(X[0, :1], X[0, :1] ** 2)), r"give both as \(4,\)"),
    "epochs": (lambda: fit(epochs=2.5), "epochs is 2.5: give a whole number, at least 1"),
    "average": (lambda: fit(average=3), "average is 3: give 1 to 2"),
    "shuffle": (lambda: fit(shuffle="no"), "shuffle is 'no': choose one of True, False"),
    "precision": (lambda: fit(precision="tf32"), "precision is 'tf32': choose one of float32, tensorfloat32"),
    "augment": (
        lambda: fit(augment=lambda key, x: x[:2]),
        r"augment returns float32\(2,\) for an example \(4,\)",
    ),
    "augment of images": (lambda: fit(augment=lc.horizontal_flip), "augment is the function .*which fails"),
    "augment's name": (lambda: fit(augment="flip"), "augment is 'flip': give a function"),
    "init's name": (lambda: fit(init="torch"), "unknown init 'torch': choose one of jax, numpy"),
    "init": (lambda: fit(init=5), "init is 5: give jax or numpy, or a function of the seed"),
    "dtype": (lambda: fit(dtype="float16"), "dtype is 'float16': choose one of float32, float64"),
    "loss that counts as diverged": (lambda: fit(max_loss=0), "max_loss is 0: give a positive number"),
    "init's shape": (
        lambda: fit(init=lambda seed: lc.jax_params(seed, 3, 3)),
        r"the weights are \(3, 3\): these",
    ),
    "keep": (lambda: fit(keep="none"), "keep is 'none': choose one of all, per_config, best"),
    "keep without a set": (
        lambda: fit(keep="best", evaluation_sets={}),
        "keep='best' needs an evaluation set",
    ),
    "set to measure": (
        lambda: fit(per_epoch=["test"]),
        "per_epoch has 'test': the evaluation sets are val",
    ),
    "save_every": (lambda: fit(save_every=0), "save_every is 0: give at least 1"),
    "block_runs": (lambda: fit(block_runs=0.5), "block_runs is 0.5: give a whole number"),
    "halving": (lambda: fit(halving=3), "halving is 3: give lc.Halving"),
    "halving's factor": (lambda: fit(halving=lc.Halving(factor=1)), "factor is 1: give at least 2"),
    "halving's rungs": (lambda: fit(halving=lc.Halving(rungs=(2,))), "rungs is 2: give epochs in rising"),
    "halving without a set": (
        lambda: fit(halving=lc.Halving(), evaluation_sets={"test": VAL}),
        "halving needs an evaluation set",
    ),
    "one's own function in a folder": (
        lambda: fit(folder="nowhere", init=lambda seed: lc.jax_params(seed, 4, 3)),
        "init is .*<lambda>.*: define it at the top level",
    ),
    "memory": (lambda: fit(memory_bytes=0), "memory_bytes is 0: give at least 1"),
    "one device": (lambda: fit(devices=jax.devices()[0]), "devices is .*: give a list of some of jax.local"),
    "devices": (lambda: fit(devices=[]), r"devices is \[\]: give a list of some of jax.local_devices"),
    "an unknown option": (lambda: fit(momentum=0.9), "unexpected keyword argument 'momentum'"),
    "path as a snapshot": (
        lambda: sweep(resume_from="probe.npz"),
        "resume_from is 'probe.npz': give a snapshot",
    ),
    "rows by name": (lambda: fit(seeds=[lc.Replicate(0, evaluation_rows=Y)]), "evaluation_rows is int64"),
    "the best": (lambda: fit().best("typo"), "there is no evaluation set 'typo': give one of val"),
    "marks": (lambda: fit().values("typo", 0), "there are no marks of 'typo': give one of val"),
    "no such run": (lambda: fit().params(0, seed=7), "there is no run of configuration 0 and seed 7"),
    "weights that were not kept": (
        lambda: fit(seeds=[0, 1], keep="best").params(),
        "there are no weights of some runs: use keep='all'",
    ),
    "mask of a result": (lambda: fit().take([True]), r"configs is bool\(1,\): give a list of indices"),
    "features to predict": (lambda: fit().predict(X[:, :2]), r"x is float32\(12, 2\): .*give features"),
    "interval": (lambda: fit().interval("typo", 0), "there is no evaluation set 'typo': give one of val"),
    "selection": (lambda: fit().selection("typo"), "there is no evaluation set 'typo': give one of val"),
    "rounded times": (
        lambda: fit(train=lc.make_examples(1e9 + X.astype(np.float64), Y, 3), evaluation_sets={}),
        "feature 0 goes from .* float32 cannot tell apart: give a standardizer",
    ),
    "1e300": (
        lambda: lc.evaluate(PARAMS, lc.make_examples(X.astype(np.float64) * 1e300, Y, 3), "softmax"),
        "feature 0 goes from .*, which float32 cannot tell apart: give a standardizer",
    ),
    "init of a seed": (
        lambda: fit(seeds=[0, 1], init=lambda seed: lc.jax_params(seed, 4 - seed, 3)),
        r"the weights are \(3, 3\): these examples need",
    ),
    "whole weights": (
        lambda: fit(init=lambda seed: (np.ones((3, 4), int), np.ones(3))),
        "W is int64.*floating",
    ),
    "loss of the wrong shape": (
        lambda: fit(loss=lc.Loss.from_value("own", lambda s, y: s)),
        "loss own fails on|loss own returns",
    ),
    "loss of one argument": (
        lambda: fit(loss=lc.Loss.from_value("own", lambda s: s.sum())),
        "loss own fails on",
    ),
    "optimizer that cannot be hashed": (
        lambda: fit(optimizer=Unhashable()),
        "optimizer is .*cannot be hashed",
    ),
    "augmentation that cannot be hashed": (
        lambda: fit(augment=Unhashable()),
        "augment is .*cannot be hashed",
    ),
    "wide features in an epoch": (
        lambda: lc.train_epoch(*epoch_arguments(lc.make_examples(Y[:, None] + 2**40, Y, 3))),
        "train has features of int32: pass them through prepare_features",
    ),
    "mask of a snapshot": (
        lambda: next(sweep(evaluation_sets={"val": VAL})).snapshot().take(configs=[True]),
        r"configs is bool\(1,\): give a list of indices",
    ),
    "times 2": (lambda: fit(configs=[lc.Hyperparams(eta=0.1)]), "configs holds a Hyperparams"),
    "rows of examples": (lambda: TRAIN.take([12]), "rows go from 12 to 12: give 0 to 11"),
    "two standardisers": (
        lambda: fit(seeds=[lc.Replicate(0, standardizer=5)]),
        "standardizer is 5: give lc.St",
    ),
    "no rows": (lambda: fit(seeds=[lc.Replicate(0, rows=[])]), "the rows of seed 0 are .*give indices"),
    "one device twice": (lambda: fit(devices=jax.local_devices()[:1] * 2), "devices is .*give a list"),
    "device's name": (
        lambda: lc.evaluate_runs(
            [CONFIG], lc.Params(PARAMS.W[None, None], PARAMS.b[None, None]), VAL, seeds=[0], devices="cpu"
        ),
        "devices is 'cpu': give a list",
    ),
    "seeds of an array without axes": (lambda: fit(seeds=np.array(5)), "seeds is 5: give a list"),
    "schedule that is not followed": (
        lambda: fit(
            optimizer=lambda h: optax.inject_hyperparams(optax.sgd)(learning_rate=h.eta), schedule="cosine"
        ),
        "schedule changes eta, which optimizer, .*, keeps from its start",
    ),
    "one output of one's own loss": (
        lambda: fit(
            train=lc.Examples(X, BATCH[1][:, :1]),
            evaluation_sets={},
            loss=lc.Loss.from_value("logistic", lambda s, y: jnp.sum(jnp.logaddexp(0, s) - y * s)),
        ),
        "there is one output, .*lc.sigmoid_probabilities",
    ),
    "a huge eta": (
        lambda: lc.grid(eta=[10**400]),
        "eta is .*: give a number that float64 can hold",
    ),
    "chain": (lambda: lc.chain(3), "augmentations is 3: give a list of functions"),
    "pixels": (
        lambda: lc.random_shift(jax.random.key(0), X[0], -1, (1, 2, 2)),
        "pixels is -1: give at least 0",
    ),
    "p of a flip": (lambda: lc.horizontal_flip(jax.random.key(0), X[0], 7, (1, 2, 2)), "p is 7: give a prob"),
    # The solver.
    "one lam": (lambda: solve(lams=0.1), r"lams is 0.1: give a list, such as \[0.001, 0.01, 0.1\]"),
    "no lam": (lambda: solve(lams=[]), "needs at least one configuration"),
    "text as lams": (lambda: solve(lams="0.1"), "lam is '0': give a number"),
    "lams below 0": (lambda: solve(lams=[0.1, -1.0]), "lam is -1.0: give zero or a positive number"),
    "NaN as lam": (lambda: solve(lams=[np.nan]), "lam is nan: give zero or a positive number"),
    "lam of float64": (lambda: solve(lams=[1e-60]), "lam is 1e-60: give a number that float32 can hold"),
    "eta of the solver": (
        lambda: solve(lams=[lc.Config(lam=0.1, eta=0.5)]),
        "eta is 0.5: the solver does not use it: leave it out",
    ),
    "momentum of the solver": (
        lambda: solve(lams=[lc.Config(lam=0.1, momentum=0.9)]),
        "momentum is 0.9: the solver does not use it: leave it out",
    ),
    "q of the solver": (
        lambda: solve(lams=[lc.Config(lam=0.1, q=0.5)]),
        "q is 0.5: the loss softmax is convex at q=0 only, .*: give q=0, or train with fit",
    ),
    "tolerance of 0": (lambda: solve(tolerance=0.0), "tolerance is 0.0: give a number between 0 and 1"),
    "tolerance in words": (lambda: solve(tolerance="1e-6"), "tolerance is '1e-6': give a number between"),
    "no evaluations": (lambda: solve(max_evaluations=0), "max_evaluations is 0: give at least 1"),
    "half an evaluation": (lambda: solve(max_evaluations=1.5), "max_evaluations is 1.5: give a whole number"),
    "a type of half": (lambda: solve(dtype="float16"), "dtype is 'float16': choose one of float32, float64"),
    "seeds of the solver": (lambda: solve(replicates=5), "seeds is 5: give a list"),
    # One run.
    "q of a loss without": (
        lambda: lc.objective(PARAMS, *BATCH, lc.Loss.from_value("own", lambda s, y: jnp.sum(s * y)), q=0.9),
        "q is 0.9: the loss own does not read it",
    ),
    "lam of an objective": (
        lambda: lc.objective(PARAMS, *BATCH, lam=-1.0),
        "lam is -1.0: give zero or",
    ),
    "lams of an objective": (
        lambda: lc.gradients(PARAMS, *BATCH, lam=np.ones(3)),
        r"lam is float64\(3,\)",
    ),
    "labels in an objective": (
        lambda: lc.objective(PARAMS, X, Y, lam=0.0, loss="softmax"),
        r"y is .*\(12,\): give targets \(12, 3\), of labels jax.nn.one_hot\(labels, 3\)",
    ),
    "labels in gradients": (
        lambda: lc.gradients(PARAMS, X, Y, "bce", lam=0.0),
        r"y is .*\(12,\): give targets",
    ),
    "labels while tracing": (
        lambda: jax.jit(lambda x, y: lc.objective(PARAMS, x, y, "softmax", lam=0.0))(X, Y),
        r"y is .*\(12,\): give targets",
    ),
    "labels in a column": (
        lambda: lc.objective(PARAMS, X, Y[:, None], "softmax", lam=0.0),
        r"\(12, 1\): give targets",
    ),
    "labels in a step": (
        lambda: lc.train_step(lc.RunState(PARAMS, ()), CONFIG, X, Y, lc.TrainSpec()),
        r"y is .*\(12,\): give targets",
    ),
    "narrow x": (
        lambda: lc.objective(PARAMS, X[:, :3], BATCH[1], "softmax", lam=0.0),
        r"give features \[n, 4\]",
    ),
    "complex x": (lambda: lc.objective(PARAMS, X * 1j, BATCH[1], "softmax", lam=0.0), "x is complex64"),
    "many runs": (
        lambda: lc.objective(lc.Params(PARAMS.W[None], PARAMS.b[None]), *BATCH),
        r"W is \(1, 3, 4\): give the parameters of one run",
    ),
    "dict of params": (lambda: lc.evaluate({"W": 0, "b": 0}, VAL, "bce"), "params is a dict: give lc.Params"),
    "W of scikit-learn": (
        lambda: lc.evaluate(lc.Params(PARAMS.W.T, PARAMS.b), VAL, "bce"),
        r"W is \(4, 3\) and b is \(3,\): give W \[K, d\]",
    ),
    "W of other examples": (
        lambda: lc.evaluate(lc.Params(PARAMS.W[:, :3], PARAMS.b), VAL, "bce"),
        r"the weights are \(3, 3\): these examples need \(3, 4\)",
    ),
    "softmax of one output in an objective": (
        lambda: lc.objective(lc.Params(PARAMS.W[:1], PARAMS.b[:1]), X, BATCH[1][:, :1], "softmax", lam=0.0),
        "there is one output, .*: give loss='bce'",
    ),
    "precision of an objective": (
        lambda: lc.objective(PARAMS, *BATCH, precision="tf32"),
        "precision is 'tf32': choose one of float32",
    ),
    "rows to evaluate": (
        lambda: lc.evaluate(lc.Params(PARAMS.W[None], PARAMS.b[None]), VAL, "bce", rows=[[-1, 99]]),
        "the rows go from -1 to 99: give rows from 0 to 5",
    ),
    "standardisers of others": (
        lambda: lc.evaluate(PARAMS, VAL, "bce", lc.Standardizer(np.ones((2, 4)), np.ones((2, 4)))),
        r"2 standardisers are given for runs \(\): give one each",
    ),
    "loss in a spec": (lambda: lc.TrainSpec("hinge"), "unknown loss 'hinge'"),
    "arrays to evaluate": (
        lambda: lc.evaluate(PARAMS, BATCH, "bce"),
        "examples is a tuple: give lc.make_exam",
    ),
    "function to evaluate": (lambda: lc.evaluate(PARAMS, VAL, np.mean), "loss is the function mean: choose"),
    "marks of labels": (lambda: lc.mark_correct(PARAMS, MULTI_HOT), "loss is None: give the loss whose"),
    "top of labels": (
        lambda: lc.mark_correct(PARAMS, MULTI_HOT, loss="bce", top=5),
        "top is 5: examples of the kind 'labels' have no one class",
    ),
    "top 0": (lambda: lc.mark_correct(PARAMS, VAL, top=0), "top is 0: give at least 1"),
    "confusion of labels": (
        lambda: lc.confusion_matrix(PARAMS, MULTI_HOT),
        "a confusion matrix needs one class",
    ),
    "no standardizer": (lambda: lc.fold_standardizer(PARAMS, None), "standardizer is None"),
    "logits": (
        lambda: lc.compute_logits(PARAMS, X[:, :2]),
        r"x is float32\(12, 2\): .*give features \[n, 4\]",
    ),
    "a snapshot to join": (lambda: lc.join_snapshots([3]), "snapshots is a list: give a list of snapshots"),
    "labels of classes": (lambda: lc.mean_class_accuracy(np.ones((2, 5), bool), Y), "give one label each"),
    # Searches and statistics.
    "negative factor": (lambda: lc.choose_survivors([[1]], [[1]], [4], -1), "factor is -1: give at least 2"),
    "factor 0": (lambda: lc.choose_survivors([[1]], [[1]], [4], 0), "factor is 0: give at least 2"),
    "half a factor": (
        lambda: lc.choose_survivors([[1]], [[1]], [4], 2.5),
        "factor is 2.5: give a whole number",
    ),
    "batches": (lambda: lc.choose_survivors([[1]], [[1]], [4, 4], 3), "there are 2 batches"),
    "bracket": (lambda: lc.draw_configs(2, bracket=100, eta=[1]), "bracket is 100: give a power of two"),
    "range in a grid": (lambda: lc.grid(eta=lc.Range(0.1, 1)), "eta is a Range: give a list of numbers"),
    "rungs": (lambda: lc.default_rungs(0), "epochs is 0: give at least 1"),
    "unknown axis": (
        lambda: fit(configs=lc.draw_configs(2, etas=[1], batch=[1])),
        "eta is missing among batch, lam, q, .*, etas: give each Config one",
    ),
    "gamma": (
        lambda: fit(configs=lc.draw_configs(2, eta=[1], batch=[1], gamma=[1])),
        "gamma is 1.0: neither the loss softmax nor optimizer, the function sgd, uses it: give a loss or an",
    ),
    "no points": (
        lambda: lc.draw_configs(0, eta=[1], batch=[1]),
        "count is 0: give at least",
    ),
    "one axis of marks": (
        lambda: lc.estimate_accuracy(np.ones(5, bool)),
        r"bool\(5,\): give an array \[seeds, ex",
    ),
    "other marks": (lambda: lc.estimate_difference(np.ones((1, 5)), np.ones((1, 4))), "give one shape"),
    "two axes of marks": (lambda: lc.confidence_set(np.ones((2, 5), bool)), r"give an array \[seeds, config"),
    "NaN in a set": (lambda: lc.confidence_set(np.full((2, 2, 5), np.nan)), "correct holds NaN"),
    "diverged": (
        lambda: lc.confidence_set(np.ones((2, 2, 5), bool), np.ones((2, 1), bool)),
        r"give \(2, 2\)",
    ),
    "two axes of folds": (lambda: lc.cross_validate_selection(np.ones((2, 5))), r"\[seeds, folds, config"),
    "ratio": (
        lambda: lc.linearize_ratio(np.ones((1, 3)), np.ones((1, 4))),
        r"give one shape \[seeds, examples\]",
    ),
    "rank": (lambda: lc.rank([1.0], [1.0]), r"give an array \[seeds, configurations\]"),
    "ranks": (lambda: lc.best_per_seed([[1.0]], [[1.0, 2.0]]), r"give one shape \[seeds, configurations\]"),
    "confidence": (
        lambda: lc.reliability([0.5, np.nan], [True, False]),
        "confidence 1 is nan: give numbers from",
    ),
    "bins": (lambda: lc.reliability([0.5], [True], 0), "bins is 0: give at least 1"),
    "probabilities as labels": (
        lambda: lc.label_metrics(np.full((2, 3), 0.3), np.ones((2, 3))),
        "predicted holds 0.3",
    ),
    "label metrics": (lambda: lc.label_metrics(np.ones((2, 3)), np.ones((2, 2))), r"give one shape \[n, K\]"),
}


def find_failures():
    """Return a line for each call that is not refused as it must be: by one line, with its words."""
    failures = []
    for name, (call, words) in CALLS.items():
        try:
            call()
        except (ValueError, TypeError, KeyError) as error:
            text = error.args[0] if error.args else ""
            if not re.search(words, text) or "\n" in text or len(text) > 400:
                failures.append(f"{name}: {type(error).__name__}: {text}")
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
        else:
            failures.append(f"{name}: accepted")
    return failures


if __name__ == "__main__":
    found = find_failures()
    print("\n".join(found) or f"all {len(CALLS)} wrong calls are refused")
    sys.exit(bool(found))
