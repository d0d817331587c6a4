"""Splits by document, measures, and their bootstrap intervals."""

import numpy as np

from features import fnv

FOLDS = 5
RESAMPLES = 1000
# Texts of which more than this share of six-letter pieces agrees are one document.
ALIKE = 0.4


def groups(documents):
    """A number for each document, equal for those that are alike or say so."""
    table = np.zeros((len(documents), 16384), np.float32)
    for row, document in enumerate(documents):
        text = " ".join(document["text"].lower().split())
        table[row, [fnv(text[at : at + 6].encode()) % 16384 for at in range(max(1, len(text) - 5))]] = 1
    common, size = table @ table.T, table.sum(1)
    alike = common / (size[:, None] + size - common) > ALIKE
    parent = list(range(len(documents)))

    def root(at):
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for a, b in zip(*np.where(np.triu(alike, 1))):
        parent[root(a)] = root(b)
    first = {}
    for at, document in enumerate(documents):
        parent[root(at)] = root(first.setdefault(document["group"], at))
    return np.array([root(at) for at in range(len(documents))])


def folds(group, seed):
    names = np.unique(group)
    drawn = dict(zip(names, np.random.RandomState(seed).randint(0, FOLDS, len(names))))
    return np.array([drawn[name] for name in group])


def auprc(targets, scores):
    """Average precision: the mean of the precision at each positive, best score first."""
    found = targets[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(found) / np.arange(1, len(found) + 1))[found == 1].mean())


def best_threshold(targets, scores, beta=0.5):
    """The score from which on F-beta is highest. Below 1, `beta` counts precision for more: a block costs more than a miss."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order])
    f = (1 + beta**2) * hits / (np.arange(1, len(hits) + 1) + beta**2 * targets.sum())
    return float(scores[order][np.argmax(f)])


def precision(targets, flags):
    return float(targets[flags].mean()) if flags.any() else float("nan")


def interval(measure, *columns):
    """The measure of the columns with a 95 % interval from resampling their rows."""
    drawn = np.random.RandomState(0)
    count = len(columns[0])
    values = []
    for _ in range(RESAMPLES):
        rows = drawn.randint(0, count, count)
        value = measure(*(column[rows] for column in columns))
        if np.isfinite(value):
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{measure(*columns):.3f} [{low:.3f}, {high:.3f}] n={count}"


def share(flags):
    return float(np.mean(flags)) if len(flags) else float("nan")
