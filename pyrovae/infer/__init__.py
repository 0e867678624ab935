"""Pyro's SVI, fast."""

from pyrovae.infer.programs import sharing
from pyrovae.infer.svi import SVI

__all__ = ["SVI", "sharing"]
