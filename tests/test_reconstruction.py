"""Explained variance and shrinkage against scikit-learn and numpy, and with missing values."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from pyrovae import metrics

X = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MADE = 0.6 * X + 0.1 * torch.randn(X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_explained_variance_is_that_of_scikit_learn():
    rows, made = (table.flatten(1).numpy() for table in (X, MADE))
    expected = r2_score(rows, made, multioutput="raw_values")
    weights = ((rows - rows.mean(0)) ** 2).sum(0)
    assert metrics.explained_variance(X, MADE) == pytest.approx((expected * weights).sum() / weights.sum())
    assert metrics.explained_variance(X, X) == 1.0
    assert metrics.explained_variance(X, X.mean(0).expand_as(X)) == pytest.approx(0.0)
    assert metrics.explained_variance(X, -X) < 0


def test_the_slope_is_the_regression_through_the_origin():
    rows, made = (table.reshape(-1).numpy() for table in (X, MADE))
    fitted = LinearRegression(fit_intercept=False).fit(made[:, None], rows)
    got = metrics.shrinkage(X, MADE)
    assert got.slope == pytest.approx(fitted.coef_[0])
    lengths = [np.linalg.norm(table.flatten(1).numpy(), axis=1) for table in (MADE, X)]
    assert got.norm_ratio == pytest.approx((lengths[0] / lengths[1]).mean())
    assert metrics.shrinkage(X, 0.5 * X) == pytest.approx((0.5, 2.0))
    assert metrics.shrinkage(X, X) == pytest.approx((1.0, 1.0))


def test_missing_values_are_left_out():
    """A column that is missing in every row is as if it were not there."""
    holes, made = X.flatten(1).clone(), MADE.flatten(1)
    holes[:, 2] = math.nan
    kept = [0, 1, 3, 4, 5]
    one, other = (holes, made), (X.flatten(1)[:, kept], made[:, kept])
    assert metrics.explained_variance(*one) == pytest.approx(metrics.explained_variance(*other))
    assert metrics.shrinkage(*one) == pytest.approx(metrics.shrinkage(*other))


def test_rows_of_zeros_have_no_ratio():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert metrics.shrinkage(x, torch.tensor([[5.0, 0.0], [2.0, 2.0]])).norm_ratio == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.explained_variance(X, X[:4]), r"reconstruction must be of the shape \(50, 2, 3\) of x, got"),
        (lambda: metrics.explained_variance(X, X / 0), "reconstruction must be finite, got NaN or infinity"),
        (lambda: metrics.explained_variance(torch.ones(3, 2), torch.ones(3, 2)), "x must vary over the data"),
        (lambda: metrics.shrinkage(torch.zeros(3, 2), torch.ones(3, 2)), "x must not be zero in every row"),
        (
            lambda: metrics.shrinkage(torch.ones(3, 2), torch.zeros(3, 2)),
            "reconstruction must not be zero in every row",
        ),
        (lambda: metrics.shrinkage(torch.ones(3, 2) / 0, torch.zeros(3, 2)), "x must be finite or missing"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
