"""Densities and divergences that torch and Pyro lack or have wrong. Importing this room registers the divergences."""

from pyrovae.distributions import kl

__all__ = ["kl"]
