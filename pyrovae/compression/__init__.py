"""Lossless compression of discrete data by a trained VAE: bits-back coding on a stack of bits (ANS).

The coder is ``constriction``, which ``pip install 'pyrovae[compression]'`` brings and which is loaded where it is used.
"""

from pyrovae.compression.bits_back import compress, decompress

__all__ = ["compress", "decompress"]
