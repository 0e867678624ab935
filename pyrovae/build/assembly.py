"""A VAE from names and numbers.

``build_vae`` is what the command line calls; what it was called with is the whole of ``config.json``'s model section.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae import guards, likelihoods, priors
from pyrovae.build.dictionary import GUIDE, SLABS, start, start_at_data
from pyrovae.build.networks import networks
from pyrovae.build.parts import by_name_or_path, corruption, made, matching_guide, name_and_options
from pyrovae.build.tables import GUIDES, LIKELIHOODS, MODEL_GUIDES, NETWORKS, PRIORS
from pyrovae.conditional import ConditionalVAE
from pyrovae.guides import Refined
from pyrovae.names import by_name, check_options, own_options
from pyrovae.nn import Corrupted, Filled, Labelled
from pyrovae.schema import Kind, check, flag, listed, number, optional, text, whole
from pyrovae.vae import VAE

__all__ = ["KINDS", "build_vae"]

UNIT_INTERVAL = ("bernoulli", "continuous-bernoulli")  # likelihoods of data in [0, 1]
REALS = (likelihoods.Normal, likelihoods.Laplace)  # of data around the output of the decoder
SYMBOLS = (likelihoods.Categorical, likelihoods.Autoregressive)  # of whole numbers below num_classes
# what each argument of build_vae is, in Python and in a file
KINDS: dict[str, Kind] = {
    "event_shape": listed(whole(1), "a sequence of positive whole numbers such as (64,)", 16),
    "latent_dim": whole(1),
    "prior": text,
    "likelihood": text,
    "guide": optional(text),
    "hidden": listed(whole(1), "positive widths such as (400,)", 1000, least=0),
    "network": text,
    "num_classes": optional(whole(2)),
    "num_components": optional(whole(1)),
    "num_data": optional(whole(1, 2**63 - 1)),
    "norm": optional(text),
    "dropout": number(0.0, 1.0, "at least 0 and below 1"),
    "residual": whole(0, 1000),
    "refine": whole(0, 1000),
    "corrupt": optional(text),
    "missing": flag,
    "num_labels": optional(whole(2)),
    "name": optional(text),
}


def build_vae(
    event_shape: Sequence[int],
    latent_dim: int,
    prior: str = "normal",
    likelihood: str = "bernoulli",
    guide: str | None = None,
    hidden: Sequence[int] = (400,),
    network: str = "mlp",
    num_classes: int | None = None,
    num_components: int | None = None,
    inputs: Tensor | None = None,
    num_data: int | None = None,
    norm: str | None = None,
    dropout: float = 0.0,
    residual: int = 0,
    refine: int = 0,
    corrupt: str | Callable[[Tensor], Tensor] | None = None,
    missing: bool = False,
    num_labels: int | None = None,
    name: str | None = None,
) -> VAE:
    """A VAE from names: prior, a guide that fits it, likelihood, and the two networks.

    Args:
        event_shape: Shape of one datum.
        latent_dim: Number of latent coordinates.
        prior: A name of ``PRIORS``, or the import path of a class that takes ``latent_dim``. Hyper-parameters follow,
            ``"student-t:df=3:scale=0.5"``, each a Python literal or a plain word; one that is given is fixed, unless
            ``learned`` names it, ``"spike-slab:active=0.2:learned=active"``. So do those of likelihood and guide.
        likelihood: A name of ``LIKELIHOODS``, or the import path of a class that takes the decoder.
        guide: A name of ``GUIDES``, or the import path of a class that takes the encoder and ``latent_dim``, and the
            likelihood if its third argument has that name; None takes the guide of the prior's own family, or the one
            that ``MATCHING`` names. For a "spike-slab" with Normal slabs, the likelihood "normal" and the network
            "dictionary" it takes ``"coordinate-ascent"``, which has no encoder and learns location and scale of the
            slabs too.
        hidden: Width of each hidden layer of the encoder, in reverse those of the decoder; ``()`` makes the encoder
            linear, and the decoder too. A linear encoder before a "dictionary" of reals is that of a sparse
            autoencoder, :class:`~pyrovae.nn.Centred`.
        network: ``"mlp"``; ``"conv"`` for events ``(C, H, W)``, where ``hidden`` holds the one width between
            convolutions and code; ``"dictionary"``, an MLP encoder and a linear decoder of unit-norm atoms; ``"gru"``
            for sequences ``(length,)``, where ``hidden`` holds the one width of the states.
        num_classes: Of the likelihoods ``"categorical"`` and ``"autoregressive"``; the latter needs ``"gru"``.
        num_components: Of the priors ``"mixture"`` and ``"vamp"``; None is 10 and 50, or fewer when there are fewer
            inputs.
        inputs: Data ``(M, *event_shape)``, from which the pseudo-inputs of ``"vamp"`` start; they stay in [0, 1] under
            a likelihood of data in [0, 1]. A spike-and-slab dictionary starts at their mean, noise and energy; without
            them it starts for data of standard deviation 1. Other models do not read them.
        num_data: Rows of the training set, for the priors ``"beta-spike-slab"`` and ``"beta-bernoulli"``, whose
            activities all data share.
        norm: Normalisation in networks, ``"batch"``, ``"layer"``, ``"group"`` or None, as of :class:`~pyrovae.nn.MLP`;
            not in ``"gru"``.
        dropout: In the networks, in training.
        residual: Residual blocks for each size of the image, in ``"conv"``.
        refine: Sweeps of :class:`~pyrovae.guides.Refined` after the guide, for ``"spike-slab"`` with Normal slabs, the
            likelihood ``"normal"`` and the network ``"dictionary"``; 0 is none.
        corrupt: What the encoder sees in place of x while it trains: a name of ``CORRUPTIONS`` with its
            hyper-parameters, ``"gaussian:scale=0.5"``; the import path of a function of x, or of a class of modules; or
            such a function itself, ``pv.nn.GaussianNoise(0.5)``, and the VAE is saved as one made by hand is, without
            the names that build it again. The likelihood scores x itself, and in ``eval`` mode the encoder sees it too.
        missing: Whether data have holes, which are NaN: the likelihood is :class:`~pyrovae.likelihoods.Masked`, and the
            encoder reads 0 there, :class:`~pyrovae.nn.Filled`.
        num_labels: Makes a :class:`~pyrovae.ConditionalVAE` of data with so many labels, whose networks read the label
            too; of ``"mlp"`` and ``"conv"``, and of any prior but ``"vamp"``.
        name: As of a :class:`~pyrovae.VAE`: what its parameters are called by in Pyro's parameter store.

    Raises: ValueError for an unknown name, with the nearest known one, for ``"vamp"`` without inputs or with batch
        normalisation, for a prior with shared sites without ``num_data``, and for an option that the networks lack.
    """
    event_shape, hidden = _whole(event_shape), _whole(hidden)
    numbers = {"latent_dim": latent_dim, "num_classes": num_classes, "num_components": num_components}
    others = {
        "num_data": num_data,
        "dropout": dropout,
        "residual": residual,
        "refine": refine,
        "num_labels": num_labels,
    }
    words = {"event_shape": event_shape, "hidden": hidden, "network": network, "missing": missing}
    for argument, value in {**numbers, **others, **words}.items():
        check(argument, value, KINDS[argument])
    event_shape, hidden = tuple(event_shape), tuple(hidden)
    if inputs is not None and not isinstance(inputs, Tensor):
        raise ValueError(f"inputs must be a tensor of rows of data, or None, got {type(inputs).__name__}")
    if network in ("conv", "gru") and len(hidden) > 1:
        raise ValueError(f"hidden must be one width with network {network!r}, got {hidden}")
    if network not in NETWORKS:
        by_name("network", network, dict.fromkeys(NETWORKS))
    prior_name, prior_options = name_and_options("prior", prior)
    likelihood_name, likelihood_options = name_and_options("likelihood", likelihood)
    likelihood_class = by_name_or_path("likelihood", likelihood_name, LIKELIHOODS)
    if num_components is not None:
        if prior_name not in ("mixture", "vamp"):
            raise ValueError(f"num_components is of the priors mixture and vamp, got it with prior {prior!r}")
        prior_options.setdefault("num_components", num_components)
    slab = prior_options.get("slab", "normal")
    is_usual = (network, prior_name, likelihood_name) == ("dictionary", "spike-slab", "normal") and slab in SLABS
    without_encoder = {"corrupt": corrupt, "norm": norm, "dropout": dropout, "refine": refine, "missing": missing}
    if guide is None and is_usual and not any(without_encoder.values()):
        guide = GUIDE
    has_no_encoder = isinstance(guide, str) and guide.partition(":")[0] == GUIDE
    if has_no_encoder and (given := [name for name, value in without_encoder.items() if value]):
        raise ValueError(f"{given[0]} is for a guide with an encoder, got it with guide {GUIDE!r}")
    if prior_name == "vamp":  # it is made of the guide
        if num_labels is not None:
            raise ValueError(f"prior 'vamp' runs the encoder at inputs without labels, got num_labels = {num_labels}")
        if norm == "batch" or network == "gru":
            why = "whose batch statistics its pseudo-inputs would change" if norm else "whose symbols have no gradient"
            raise ValueError(f"prior 'vamp' runs the encoder, {why}: norm {norm!r}, network {network!r}")
        check_options("prior 'vamp'", prior_options, ["num_components"])
        num_components = _num_pseudo_inputs(prior_options.get("num_components"), inputs, event_shape)
        guide = guide or "normal"
    else:
        if has_no_encoder and is_usual:
            starts = start(slab, math.prod(event_shape), latent_dim)
            if "num_active" in prior_options:
                del starts["active"]
            prior_options.setdefault("learned", tuple(name for name in starts if name not in prior_options))
            prior_options = {**starts, **prior_options}
        prior_module = made("prior", prior_name, PRIORS, latent_dim, **prior_options)
        guide = guide or matching_guide(prior_name, prior_module)
    guide_name, guide_options = name_and_options("guide", guide)
    if num_classes is not None and likelihood_class not in SYMBOLS and likelihood_name in LIKELIHOODS:
        raise ValueError(
            f"num_classes is of the likelihoods categorical and autoregressive, got it with {likelihood!r}"
        )
    if likelihood_class in SYMBOLS:
        num_classes = likelihood_options.setdefault("num_classes", num_classes)
        if num_classes is None:
            raise ValueError(f"num_classes must be given with the {likelihood_name} likelihood")
    if likelihood_class is likelihoods.Autoregressive and network != "gru":
        raise ValueError(
            f'likelihood "autoregressive" needs network "gru", which writes symbols by turns, got {network!r}'
        )
    symbols = num_classes if likelihood_class in SYMBOLS else None
    encoder, decoder = networks(
        network,
        event_shape,
        latent_dim,
        hidden,
        symbols,
        residual=residual,
        num_labels=num_labels or 0,
        centred=likelihood_class in REALS,
        norm=norm,
        dropout=dropout,
    )
    damage = None if corrupt is None else corruption(corrupt)
    if num_labels is not None:
        encoder = Labelled(encoder, event_shape, num_labels, damage)
    elif damage is not None:
        encoder = Corrupted(encoder, damage)
    likelihood_module = made("likelihood", likelihood_name, LIKELIHOODS, decoder, **likelihood_options)
    if missing:
        likelihood_module = likelihoods.Masked(likelihood_module)  # type: ignore[arg-type]  # it says so where it is none
        encoder, inputs = Filled(encoder), inputs if inputs is None else inputs.nan_to_num()
    guide_args = [encoder, latent_dim]
    known_guides = GUIDES | MODEL_GUIDES
    options_of_guide = own_options(by_name_or_path("guide", guide_name, known_guides), 0) or []
    if has_no_encoder:
        if prior_name == "vamp":
            raise ValueError(f"prior 'vamp' is made of the guide, and guide {GUIDE!r} of the prior: take another guide")
        guide_args = [prior_module, likelihood_module]
    elif num_labels is None and options_of_guide[2:3] == ["likelihood"]:  # it scores reconstructions of its own
        guide_args.append(likelihood_module)
    guide_module = made("guide", guide_name, known_guides, *guide_args, **guide_options)
    if prior_name == "vamp":
        bounds = (0.0, 1.0) if likelihood_name in UNIT_INTERVAL else None
        prior_module = priors.Vamp(guide_module, num_components, inputs=inputs, bounds=bounds)  # type: ignore[arg-type]  # checked above
    guards.check_support(prior_module, guide_module, GUIDES)
    if refine:
        try:
            guide_module = Refined(guide_module, prior_module, likelihood_module, refine)
        except ValueError as error:
            raise ValueError(
                f"refine is for prior 'spike-slab', likelihood 'normal', network 'dictionary' and no missing values: "
                f"{error}"
            ) from error
    if has_no_encoder and is_usual and inputs is not None:
        start_at_data(prior_module, likelihood_module, inputs)
    parts = prior_module, likelihood_module, guide_module
    vae = VAE(*parts, num_data, name) if num_labels is None else ConditionalVAE(*parts, num_labels, num_data, name)
    named: dict[str, Any] = {
        "event_shape": list(event_shape),
        "latent_dim": latent_dim,
        "prior": prior,
        "likelihood": likelihood,
        "guide": guide,
        "hidden": list(hidden),
        "network": network,
        "num_classes": num_classes,
        "num_components": num_components,
        "num_data": num_data,
        "norm": norm,
        "dropout": dropout,
        "residual": residual,
        "refine": refine,
        "corrupt": corrupt,
        "missing": missing,
        "num_labels": num_labels,
        "name": name,
    }
    vae.config = named if corrupt is None or isinstance(corrupt, str) else None
    return vae


def _whole(values: Any) -> Any:
    """A tuple of whole numbers; anything else as it is, for the check that follows."""
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        return values


def _num_pseudo_inputs(num_components: int | None, inputs: Tensor | None, event_shape: tuple[int, ...]) -> int:
    if inputs is None:
        raise ValueError("inputs must be given with prior 'vamp': rows of data, from which its pseudo-inputs start")
    if tuple(inputs.shape[1:]) != event_shape:
        raise ValueError(f"inputs must be rows of shape {event_shape}, got {tuple(inputs.shape)}")
    return min(50, len(inputs)) if num_components is None else num_components
