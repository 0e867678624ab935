"""A VAE from names and numbers, and a model to and from a folder."""

from pyrovae.build.assembly import build_vae
from pyrovae.build.parts import by_name_or_path, name_and_options
from pyrovae.build.saving import load, read_config, save
from pyrovae.build.tables import CORRUPTIONS, GUIDES, LIKELIHOODS, MATCHING, NETWORKS, PRIORS, usual_warmup

__all__ = [
    "CORRUPTIONS",
    "GUIDES",
    "LIKELIHOODS",
    "MATCHING",
    "NETWORKS",
    "PRIORS",
    "build_vae",
    "by_name_or_path",
    "load",
    "name_and_options",
    "read_config",
    "save",
    "usual_warmup",
]
