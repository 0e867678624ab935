"""The encoder and the decoder from the name of a network and its widths."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from pyrovae.nn import MLP, Centred, ConvDecoder, ConvEncoder, Dictionary, GRUDecoder, GRUEncoder

__all__ = ["networks"]


def networks(
    network: str,
    event_shape: tuple[int, ...],
    latent_dim: int,
    hidden: tuple[int, ...],
    num_classes: int | None = None,
    residual: int = 0,
    num_labels: int = 0,
    centred: bool = False,
    **options: Any,
) -> tuple[nn.Module, nn.Module]:
    """An encoder of data and a decoder of codes.

    Args:
        network: A name of ``NETWORKS``.
        event_shape: Shape of one datum.
        latent_dim: Number of latent coordinates.
        hidden: Width of each hidden layer of the encoder, in reverse those of the decoder; none is for "mlp" and
            "dictionary", and makes the encoder linear.
        num_classes: Where data are symbols: the decoder says so many logits for each.
        residual: Residual blocks for each size of the image, in ``"conv"``.
        num_labels: Columns of a label that both read too: the encoder as more channels of an image, or after its
            numbers, the decoder after the code.
        centred: Whether a linear encoder of a "dictionary" reads x less the dictionary's bias.
        options: ``norm`` and ``dropout`` of the layers.

    Raises: ValueError for an option that the network lacks, or a shape that is not for it.
    """
    if num_labels and network in ("dictionary", "gru"):
        why = "whose atoms all have unit norm" if network == "dictionary" else "which reads symbols alone"
        raise ValueError(f'num_labels is of the networks "mlp" and "conv", got {num_labels} with "{network}", {why}')
    if not hidden and (network in ("conv", "gru") or any(options.values())):
        used = f"network {network!r}" if network in ("conv", "gru") else "norm and dropout"
        raise ValueError(f"hidden must be positive widths such as (400,) with {used}, got ()")
    if network == "gru":
        if len(event_shape) != 1 or num_classes is None:
            raise ValueError(
                f'network "gru" needs sequences (length,) under the likelihood categorical or autoregressive, got '
                f"event_shape {event_shape}{'' if num_classes else ' and another likelihood'}"
            )
        norm = options.pop("norm", None)
        if norm is not None or residual:
            raise ValueError(f'network "gru" has neither norm nor residual, got {norm!r} and {residual}')
        (length,), width = event_shape, hidden[-1]
        return (
            GRUEncoder(length, num_classes, width, **options),
            GRUDecoder(latent_dim, length, num_classes, width, **options),
        )
    if network == "conv":
        if len(event_shape) != 3 or num_classes is not None:
            raise ValueError(f'network "conv" needs images (channels, height, width), got event_shape {event_shape}')
        channels, height, width = event_shape
        options |= {"residual": residual, "hidden": hidden[-1]}
        return (
            ConvEncoder((channels + num_labels, height, width), **options),
            ConvDecoder(latent_dim + num_labels, (channels, height, width), **options),
        )
    if residual:
        raise ValueError(f'residual is of network "conv", got {residual} with network {network!r}')
    out_shape = event_shape if num_classes is None else (math.prod(event_shape) * num_classes,)
    encoder = MLP(math.prod(event_shape) + num_labels if num_labels else event_shape, hidden, **options)
    if network == "dictionary":
        dictionary = Dictionary(latent_dim, out_shape, unit_norm=True)
        return Centred(dictionary) if centred and not hidden else encoder, dictionary
    return encoder, MLP(latent_dim + num_labels, hidden[::-1], out_shape, **options)
