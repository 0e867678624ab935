"""Models that play against a critic: a law that can be drawn is matched, and no density of it is asked for."""

from pyrovae.adversarial.autoencoder import AdversarialAutoencoder
from pyrovae.adversarial.gan import GAN
from pyrovae.adversarial.losses import LOSSES, GameLoss, Minimax, NonSaturating, Wasserstein
from pyrovae.adversarial.sampler import Sampler
from pyrovae.adversarial.shrunk import Shrunk
from pyrovae.adversarial.updates import Game, Updates

__all__ = [
    "GAN",
    "LOSSES",
    "AdversarialAutoencoder",
    "Game",
    "GameLoss",
    "Minimax",
    "NonSaturating",
    "Sampler",
    "Shrunk",
    "Updates",
    "Wasserstein",
]
