"""Networks: tensors to tensors, no Pyro. Each says its ``out_features``; a decoder's output has ``out_shape``."""

from pyrovae.nn.conv import ConvDecoder, ConvEncoder
from pyrovae.nn.corruption import Corrupted, GaussianNoise, Masking, SaltAndPepper
from pyrovae.nn.mlp import MLP, Dictionary

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Corrupted",
    "Dictionary",
    "GaussianNoise",
    "Masking",
    "SaltAndPepper",
]
