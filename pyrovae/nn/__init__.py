"""Networks: tensors to tensors, no Pyro. Each says its ``out_features``; a decoder's output has ``out_shape``."""

from pyrovae.nn.conv import ConvDecoder, ConvEncoder
from pyrovae.nn.corruption import Corrupted, GaussianNoise, Masking, SaltAndPepper
from pyrovae.nn.holes import Filled
from pyrovae.nn.labels import Labelled
from pyrovae.nn.layers import Residual
from pyrovae.nn.mlp import MLP, Centred, Dictionary
from pyrovae.nn.recurrent import GRUDecoder, GRUEncoder

__all__ = [
    "MLP",
    "Centred",
    "ConvDecoder",
    "ConvEncoder",
    "Corrupted",
    "Dictionary",
    "Filled",
    "GRUDecoder",
    "GRUEncoder",
    "GaussianNoise",
    "Labelled",
    "Masking",
    "Residual",
    "SaltAndPepper",
]
