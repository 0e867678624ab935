"""A VAE from names and numbers, and a model to and from a folder."""

from pyrovae.build.assembly import build_vae
from pyrovae.build.config import Trust, read_config
from pyrovae.build.parts import by_name_or_path, name_and_options
from pyrovae.build.saving import load, save
from pyrovae.build.tables import CORRUPTIONS, GUIDES, LIKELIHOODS, MATCHING, NETWORKS, PRIORS, usual_warmup

__all__ = [
    "CORRUPTIONS",
    "GUIDES",
    "LIKELIHOODS",
    "MATCHING",
    "NETWORKS",
    "PRIORS",
    "Trust",
    "build_vae",
    "by_name_or_path",
    "load",
    "name_and_options",
    "read_config",
    "save",
    "usual_warmup",
]
