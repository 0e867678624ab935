"""What codes are good for: few-label accuracy of a probe. scikit-learn is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

__all__ = ["Probe", "probe_accuracy"]


class Probe(NamedTuple):
    """Mean accuracy over draws of the labelled rows, and its standard error, NaN for one draw."""

    accuracy: float
    standard_error: float


def probe_accuracy(
    codes: Tensor,
    labels: Tensor,
    test_codes: Tensor,
    test_labels: Tensor,
    num_labels: int = 100,
    repeats: int = 20,
    seed: int = 0,
    classifier: str = "linear",
    num_neighbors: int = 5,
) -> Probe:
    """Share of test rows whose label a simple classifier of codes predicts, trained on few labelled rows.

    Each repeat draws ``num_labels`` rows, as many of each class as of the others, or one more where they do not divide.
    Codes are standardised by mean and standard deviation over all of ``codes``, whose labels that does not use.
    ``"linear"`` is scikit-learn's logistic regression, with its penalty of weight 1 on the squared weights; ``"knn"``
    takes the most frequent label, the smallest of several, of the nearest labelled rows by Euclidean distance. The
    first asks whether classes are in half spaces, the second whether neighbours are of one class.

    Args:
        codes: ``(N, D)``, what the labelled rows are drawn from.
        labels: ``(N,)``, whole numbers.
        test_codes: ``(M, D)``.
        test_labels: ``(M,)``.
        num_labels: Labelled rows in all, at least one for each class.
        repeats: Draws of the labelled rows.
        seed: Of the draws.
        classifier: ``"linear"`` or ``"knn"``.
        num_neighbors: Of ``"knn"``; at most ``num_labels``.

    Returns: The mean over the repeats and its standard error: that of the choice of labels, not of the test set.
    Raises: ValueError when shapes do not match, a class has too few rows, codes are not finite, or ``classifier`` is
        neither.
    References: for the neighbours, Vafaii, Galor and Yates (2024), "Poisson variational autoencoder".
    """
    x, x_test = (part.double().cpu().numpy() for part in (codes, test_codes))
    y, y_test = (part.cpu().numpy() for part in (labels, test_labels))
    for name, rows, of, classes in (("labels", x, "codes", y), ("test_labels", x_test, "test_codes", y_test)):
        if rows.ndim != 2 or classes.shape != rows.shape[:1] or not len(rows):
            raise ValueError(f"{name} must be one for each row of {of}, got {classes.shape} for {rows.shape}")
    if x.shape[1] != x_test.shape[1]:
        raise ValueError(f"test_codes must have {x.shape[1]} columns as codes have, got {x_test.shape[1]}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    for name, table in (("codes", x), ("test_codes", x_test)):
        if not np.isfinite(table).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    make = _classifier(classifier, num_neighbors, num_labels)
    generator = np.random.default_rng(seed)
    scale = x.std(0)
    mean, scale = x.mean(0), np.where(scale > 0, scale, 1.0)
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    accuracies = []
    for _ in range(repeats):
        rows = _stratified(y, num_labels, generator)
        accuracies.append(make().fit(x[rows], y[rows]).score(x_test, y_test))
    error = np.std(accuracies, ddof=1) / repeats**0.5 if repeats > 1 else np.nan
    return Probe(float(np.mean(accuracies)), float(error))


def _classifier(name: str, num_neighbors: int, num_labels: int) -> Callable[[], Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    if name not in ("linear", "knn"):
        raise ValueError(f'classifier must be "linear" or "knn", got {name!r}')
    if name == "linear":
        return lambda: LogisticRegression(max_iter=10_000)
    if not 1 <= num_neighbors <= num_labels:
        raise ValueError(f"num_neighbors must be between 1 and num_labels = {num_labels}, got {num_neighbors}")
    return lambda: KNeighborsClassifier(num_neighbors)


def _stratified(labels: np.ndarray[Any, Any], num: int, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Indexes of ``num`` rows, of each class as many as of the others or one more."""
    classes = generator.permutation(np.unique(labels))
    if len(classes) < 2 or num < len(classes):
        raise ValueError(f"num_labels must be at least one for each of 2 or more classes, got {num} for {len(classes)}")
    each, more = divmod(num, len(classes))
    drawn = []
    for place, label in enumerate(classes):
        rows, wanted = np.flatnonzero(labels == label), each + (place < more)
        if len(rows) < wanted:
            raise ValueError(f"num_labels = {num} takes {wanted} rows of class {label}, which has {len(rows)}")
        drawn.append(generator.choice(rows, wanted, replace=False))
    return np.concatenate(drawn)
