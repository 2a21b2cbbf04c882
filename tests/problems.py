"""Small problems with float64 numbers, and the independent NumPy references that tests compare with."""

import numpy as np


def problem(seed=0, n=7, d=5, K=3, multi_hot=False, scale=1.0):
    """W [K, d], b [K], x [n, d], y [n, K] in float64."""
    rng = np.random.default_rng(seed)
    W, b, x = scale * rng.normal(size=(K, d)), rng.normal(size=K), rng.normal(size=(n, d))
    y = rng.integers(0, 2, size=(n, K)) if multi_hot else np.eye(K)[rng.integers(0, K, size=n)]
    return W, b, x, y.astype(np.float64)


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def reference_loss(name, s, y):
    """Losses [n] as the formulas have them; for moderate scores."""
    if name == "softmax":
        return -(y * np.log(softmax(s))).sum(axis=1)
    p = sigmoid(s)
    return -((1 - y) * np.log(1 - p) + y * np.log(p)).mean(axis=1)


def reference_dscores(name, s, y):
    return softmax(s) - y if name == "softmax" else (sigmoid(s) - y) / s.shape[1]


def train_by_loop(W, b, x, y, eta, batch, lam, loss, epochs):
    """Plain mini-batch gradient descent in file order, one example batch after another."""
    W, b = W.copy(), b.copy()
    for _ in range(epochs):
        for start in range(0, len(x), batch):
            xs, ys = x[start : start + batch], y[start : start + batch]
            G = reference_dscores(loss, xs @ W.T + b, ys) / len(xs)
            W, b = W - eta * (G.T @ xs + 2 * lam * W), b - eta * G.sum(axis=0)
    return W, b
