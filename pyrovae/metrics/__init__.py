"""Measurements of a model and a guide, one value per datum, in nats. Nothing here trains."""

from pyrovae.metrics.likelihood import Elbo, active_units, elbo, evaluate, log_likelihood, mean_squared_error

__all__ = ["Elbo", "active_units", "elbo", "evaluate", "log_likelihood", "mean_squared_error"]
