"""Pyro's SVI, fast."""

from pyrovae.infer.svi import SVI

__all__ = ["SVI"]
