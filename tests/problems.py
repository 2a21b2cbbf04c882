"""Small problems with float64 numbers, and the independent NumPy references that tests compare with."""

import numpy as np


def problem(seed=0, n=7, d=5, K=3, multi_hot=False, scale=1.0):
    """Return W [K, d], b [K], x [n, d], y [n, K] in float64."""
    rng = np.random.default_rng(seed)
    W, b, x = scale * rng.normal(size=(K, d)), rng.normal(size=K), rng.normal(size=(n, d))
    y = rng.integers(0, 2, size=(n, K)) if multi_hot else np.eye(K)[rng.integers(0, K, size=n)]
    return W, b, x, y.astype(np.float64)


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def reference_loss(name, s, y, q=0.0):
    """Return losses [n] by the formulas, for moderate logits."""

    def lq_term(p):
        return (1 - p**q) / q if q else -np.log(p)

    if name == "softmax":
        return (y * lq_term(softmax(s))).sum(axis=1)
    p = sigmoid(s)
    return ((1 - y) * lq_term(1 - p) + y * lq_term(p)).mean(axis=1)


def reference_dlogits(name, s, y, q=0.0):
    """Return ∂ℓ/∂s: of one-hot targets p_y^q (p - y) for softmax, the sum of it over the shares of others."""
    if name == "softmax":
        p, classes = softmax(s), np.eye(s.shape[1])
        return sum(y[:, [k]] * p[:, [k]] ** q * (p - classes[k]) for k in range(s.shape[1]))
    p = sigmoid(s)
    return (y * p**q * (p - 1) + (1 - y) * (1 - p) ** q * p) / s.shape[1]


def smooth(name, y, smoothing):
    """Spread a share of the targets evenly: over K classes, or over "yes" and "no" of each label."""
    return (1 - smoothing) * y + smoothing * (1 / y.shape[1] if name == "softmax" else 0.5)


def train_by_loop(W, b, x, y, eta, batch, lam, loss, epochs, q=0.0, momentum=0.0, smoothing=0.0):
    """Train by mini-batch gradient descent in file order, one batch after another."""
    W, b = W.copy(), b.copy()
    y = smooth(loss, y, smoothing)
    dW, db = np.zeros_like(W), np.zeros_like(b)
    for _ in range(epochs):
        for start in range(0, len(x), batch):
            xs, ys = x[start : start + batch], y[start : start + batch]
            G = reference_dlogits(loss, xs @ W.T + b, ys, q) / len(xs)
            dW, db = momentum * dW + G.T @ xs + 2 * lam * W, momentum * db + G.sum(axis=0)
            W, b = W - eta * dW, b - eta * db
    return W, b
