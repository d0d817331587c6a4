"""Logistic heads over windows, of which only the documents' labels are known."""

import numpy as np

# Weights of the two kinds of features: both have rows of length one, and logits need more.
EMBEDDING_SCALE = 5.0
GRAM_SCALE = 5.0
ROUNDS = 2


def sigmoid(z):
    return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


def minimise(x, targets, weights, penalty, iterations=60):
    """L-BFGS (Nocedal and Wright, algorithm 7.4) on the weighted log-loss with an L2 penalty. `[width + 1]`, bias last."""
    weights = (weights / weights.sum()).astype(np.float32)

    def loss(theta):
        z = x @ theta[:-1] + theta[-1]
        value = float(weights @ (np.logaddexp(0, z) - targets * z)) + 0.5 * penalty * float(theta[:-1] @ theta[:-1])
        residual = ((sigmoid(z) - targets) * weights).astype(np.float32)
        return value, np.append(x.T @ residual + penalty * theta[:-1], residual.sum()).astype(np.float32)

    theta = np.zeros(x.shape[1] + 1, np.float32)
    value, gradient = loss(theta)
    history = []
    for _ in range(iterations):
        direction, saved = gradient.copy(), []
        for step, change, rho in reversed(history):
            saved.append(rho * (step @ direction))
            direction -= saved[-1] * change
        if history:
            step, change, _ = history[-1]
            direction *= (step @ change) / (change @ change)
        else:
            direction /= max(1e-8, np.abs(gradient).sum())
        for (step, change, rho), alpha in zip(history, reversed(saved)):
            direction += step * (alpha - rho * (change @ direction))
        size = 1.0
        while True:
            next_value, next_gradient = loss(theta - size * direction)
            if next_value <= value - 1e-4 * size * float(gradient @ direction) or size < 1e-6:
                break
            size *= 0.5
        step, change = -size * direction, next_gradient - gradient
        if step @ change > 1e-12:
            history = [*history, (step, change, 1 / (step @ change))][-10:]
        theta, converged = theta + step, abs(value - next_value) < 1e-6
        value, gradient = next_value, next_gradient
        if converged:
            break
    return theta


def rows(embeddings, grams):
    return np.concatenate([embeddings * EMBEDDING_SCALE, grams * GRAM_SCALE], axis=1)


def document_scores(logits, owner, count):
    """The highest window of each document."""
    scores = np.full(count, -np.inf, np.float32)
    np.maximum.at(scores, owner, logits)
    return scores


def fit(x, owner, targets, weights, penalty):
    """`targets` and `weights` are the documents'; a weight of 0 leaves a document out. A positive document teaches by the
    window that speaks loudest for it, a negative one by all."""
    count = len(targets)
    windows = np.bincount(owner, minlength=count)
    row_weights = (weights / np.maximum(windows, 1))[owner]
    for _ in range(ROUNDS):
        used = np.flatnonzero(row_weights > 0)
        theta = minimise(x[used], targets[owner][used], row_weights[used], penalty)
        logits = x @ theta[:-1] + theta[-1]
        loudest = logits >= document_scores(logits, owner, count)[owner] - 1e-6
        negatives = (weights / np.sqrt(np.maximum(windows, 1)))[owner]
        row_weights = np.where(targets[owner] == 1, np.where(loudest, weights[owner], 0), negatives)
    return theta
