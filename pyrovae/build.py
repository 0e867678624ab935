"""A VAE from names and numbers, and a VAE to and from a folder.

``build_vae`` is what the command line calls; what it was called with is the whole of ``config.json``'s model section.
A part is a name, or a name with its hyper-parameters: ``"student-t:df=3:scale=0.5"``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyrovae import guards, guides, likelihoods, priors
from pyrovae.names import by_name, check_options, own_options
from pyrovae.nn import (
    MLP,
    ConvDecoder,
    ConvEncoder,
    Corrupted,
    Dictionary,
    GaussianNoise,
    GRUDecoder,
    GRUEncoder,
    Masking,
    SaltAndPepper,
)
from pyrovae.vae import VAE

__all__ = [
    "CORRUPTIONS",
    "GUIDES",
    "LIKELIHOODS",
    "MATCHING",
    "NETWORKS",
    "PRIORS",
    "build_vae",
    "by_name",
    "by_name_or_path",
    "load",
    "name_and_options",
    "save",
    "usual_warmup",
]

Module = TypeVar("Module", bound=nn.Module)

PRIORS: dict[str, Callable[..., nn.Module]] = {
    "flat": priors.Flat,
    "normal": priors.Normal,
    "laplace": priors.Laplace,
    "student-t": priors.StudentT,
    "cauchy": priors.Cauchy,
    "logistic": priors.Logistic,
    "generalized-normal": priors.GeneralizedNormal,
    "spike-slab": functools.partial(priors.SpikeSlab, learned=("active", "scale")),
    "thresholded-laplace": functools.partial(priors.ThresholdedLaplace, learned=("threshold", "scale")),
    "thresholded-normal": functools.partial(priors.ThresholdedNormal, learned=("threshold", "scale")),
    "rectified-normal": functools.partial(priors.RectifiedNormal, learned=("loc", "scale")),
    "hard-concrete": functools.partial(priors.HardConcrete, learned=("active", "scale")),
    "bernoulli": functools.partial(priors.Bernoulli, learned=("probs",)),
    "poisson": functools.partial(priors.Poisson, learned=("rate",)),
    "categorical": functools.partial(priors.Categorical, learned=("logits",)),
    "relaxed-bernoulli": functools.partial(priors.RelaxedBernoulli, learned=("probs",)),
    "mixture": priors.Mixture,
    "vamp": priors.Vamp,
    "flow": priors.Flow,
    "hyperspherical-uniform": priors.HypersphericalUniform,
    "dirichlet": priors.Dirichlet,
    "logistic-normal": priors.LogisticNormal,
    "stick-breaking": priors.StickBreaking,
    "beta-spike-slab": functools.partial(priors.BetaSpikeSlab, learned=("scale",)),
    "beta-bernoulli": functools.partial(priors.BetaBernoulli, learned=("scale",)),
    "gamma": priors.Gamma,
    "exponential": priors.Exponential,
    "half-normal": priors.HalfNormal,
    "horseshoe": priors.Horseshoe,
    "regularized-horseshoe": priors.RegularizedHorseshoe,
    "sparse-mixture": priors.SparseMixture,
}
GUIDES: dict[str, type[nn.Module]] = {
    "normal": guides.Normal,
    "multivariate-normal": guides.MultivariateNormal,
    "low-rank-normal": guides.LowRankMultivariateNormal,
    "laplace": guides.Laplace,
    "student-t": guides.StudentT,
    "generalized-normal": guides.GeneralizedNormal,
    "spike-slab": guides.SpikeSlab,
    "thresholded-laplace": guides.ThresholdedLaplace,
    "thresholded-normal": guides.ThresholdedNormal,
    "rectified-normal": guides.RectifiedNormal,
    "hard-concrete": guides.HardConcrete,
    "bernoulli": guides.Bernoulli,
    "poisson": guides.Poisson,
    "categorical": guides.Categorical,
    "relaxed-bernoulli": guides.RelaxedBernoulli,
    "delta": guides.Delta,
    "power-spherical": guides.PowerSpherical,
    "von-mises-fisher": guides.VonMisesFisher,
    "dirichlet": guides.Dirichlet,
    "logistic-normal": guides.LogisticNormal,
    "stick-breaking": guides.StickBreaking,
    "beta-spike-slab": guides.BetaSpikeSlab,
    "weibull": guides.Weibull,
    "log-normal": guides.LogNormal,
    "gamma": guides.Gamma,
    "regularized-horseshoe": guides.RegularizedHorseshoe,
}
# The guide of a prior whose own name is no guide's, where it is not the Normal.
MATCHING: dict[str, str] = {
    "flat": "delta",
    "hyperspherical-uniform": "power-spherical",
    "exponential": "gamma",
    "half-normal": "gamma",
    "beta-bernoulli": "beta-spike-slab",
}
LIKELIHOODS: dict[str, type[likelihoods.Likelihood]] = {
    "bernoulli": likelihoods.Bernoulli,
    "continuous-bernoulli": likelihoods.ContinuousBernoulli,
    "normal": likelihoods.Normal,
    "laplace": likelihoods.Laplace,
    "categorical": likelihoods.Categorical,
    "autoregressive": likelihoods.Autoregressive,
    "poisson": likelihoods.Poisson,
    "negative-binomial": likelihoods.NegativeBinomial,
}
NETWORKS = ("mlp", "conv", "dictionary", "gru")
CORRUPTIONS: dict[str, type[nn.Module]] = {
    "gaussian": GaussianNoise,
    "masking": Masking,
    "salt-and-pepper": SaltAndPepper,
}
UNIT_INTERVAL = ("bernoulli", "continuous-bernoulli")  # likelihoods of data in [0, 1]
SYMBOLS = (likelihoods.Categorical, likelihoods.Autoregressive)  # of whole numbers below num_classes
# epochs that beta rises for, where gates shut for good if it does not
WARMUP = dict.fromkeys(("spike-slab", "beta-spike-slab", "beta-bernoulli"), 14.0)


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
    corrupt: str | None = None,
) -> VAE:
    """A VAE from names: prior, a guide that fits it, likelihood, and the two networks.

    Args:
        event_shape: Shape of one datum.
        latent_dim: Number of latent coordinates.
        prior: A name of ``PRIORS``, or the import path of a class that takes ``latent_dim``. Hyper-parameters follow,
            ``"student-t:df=3:scale=0.5"``, each a Python literal or a plain word; one that is given is fixed, unless
            ``learned`` names it, ``"spike-slab:active=0.2:learned=active"``. So do those of likelihood and guide.
        likelihood: A name of ``LIKELIHOODS``, or the import path of a class that takes the decoder.
        guide: A name of ``GUIDES``, or the import path of a class that takes the encoder and ``latent_dim``; None takes
            the guide of the prior's own family, or the one that ``MATCHING`` names.
        hidden: Width of each hidden layer of the encoder, in reverse those of the decoder.
        network: ``"mlp"``; ``"conv"`` for events ``(C, H, W)``, where ``hidden`` holds the one width between
            convolutions and code; ``"dictionary"``, an MLP encoder and a linear decoder of unit-norm atoms; ``"gru"``
            for sequences ``(length,)``, where ``hidden`` holds the one width of the states.
        num_classes: Of the likelihoods ``"categorical"`` and ``"autoregressive"``; the latter needs ``"gru"``.
        num_components: Of the priors ``"mixture"`` and ``"vamp"``; None is 10 and 50, or fewer when there are fewer
            inputs.
        inputs: Data ``(M, *event_shape)``, from which the pseudo-inputs of ``"vamp"`` start; other priors do not read
            them. They stay in [0, 1] under a likelihood of data in [0, 1].
        num_data: Rows of the training set, for the priors ``"beta-spike-slab"`` and ``"beta-bernoulli"``, whose
            activities all data share.
        norm: Normalisation in networks, ``"batch"``, ``"layer"``, ``"group"`` or None, as of :class:`~pyrovae.nn.MLP`;
            not in ``"gru"``.
        dropout: In the networks, in training.
        residual: Residual blocks for each size of the image, in ``"conv"``.
        corrupt: What the encoder sees in place of x while it trains: a name of ``CORRUPTIONS`` with its
            hyper-parameters, ``"gaussian:scale=0.5"``, or the import path of a function of x, or of a class of modules.
            The likelihood scores x itself, and in ``eval`` mode the encoder sees it too.

    Raises: ValueError for an unknown name, with the nearest known one, for ``"vamp"`` without inputs or with batch
        normalisation, for a prior with shared sites without ``num_data``, and for an option that the networks lack.
    """
    event_shape, hidden = _whole("event_shape", event_shape, "(64,)"), _whole("hidden", hidden, "(400,)")
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ValueError(f"latent_dim must be a positive whole number, got {latent_dim!r}")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must be positive widths, got {hidden}")
    if network not in NETWORKS:
        by_name("network", network, dict.fromkeys(NETWORKS))
    prior_name, prior_options = name_and_options("prior", prior)
    likelihood_name, likelihood_options = name_and_options("likelihood", likelihood)
    likelihood_class = by_name_or_path("likelihood", likelihood_name, LIKELIHOODS)
    if num_components is not None:
        if prior_name not in ("mixture", "vamp"):
            raise ValueError(f"num_components is of the priors mixture and vamp, got it with prior {prior!r}")
        prior_options.setdefault("num_components", num_components)
    if prior_name == "vamp":  # it is made of the guide
        if norm == "batch" or network == "gru":
            why = "whose batch statistics its pseudo-inputs would change" if norm else "whose symbols have no gradient"
            raise ValueError(f"prior 'vamp' runs the encoder, {why}: norm {norm!r}, network {network!r}")
        check_options("prior 'vamp'", prior_options, ["num_components"])
        num_components = _num_pseudo_inputs(prior_options.get("num_components"), inputs, event_shape)
        guide = guide or "normal"
    else:
        prior_module = _made("prior", prior_name, PRIORS, latent_dim, **prior_options)
        guide = guide or _matching_guide(prior_name, prior_module)
    guide_name, guide_options = name_and_options("guide", guide)
    out_shape = event_shape
    if likelihood_class in SYMBOLS:
        num_classes = likelihood_options.setdefault("num_classes", num_classes)
        if num_classes is None:
            raise ValueError(f"num_classes must be given with the {likelihood_name} likelihood")
        out_shape = (math.prod(event_shape) * num_classes,)
    if likelihood_class is likelihoods.Autoregressive and network != "gru":
        raise ValueError(
            f'likelihood "autoregressive" needs network "gru", which writes symbols by turns, got {network!r}'
        )
    if network == "gru":
        encoder, decoder = _recurrent(
            event_shape,
            latent_dim,
            hidden,
            num_classes if likelihood_class in SYMBOLS else None,
            norm,
            dropout,
            residual,
        )
    else:
        encoder, decoder = _networks(network, event_shape, latent_dim, hidden, out_shape, norm, dropout, residual)
    if corrupt is not None:
        encoder = Corrupted(encoder, _corruption(corrupt))
    likelihood_module = _made("likelihood", likelihood_name, LIKELIHOODS, decoder, **likelihood_options)
    guide_module = _made("guide", guide_name, GUIDES, encoder, latent_dim, **guide_options)
    if prior_name == "vamp":
        bounds = (0.0, 1.0) if likelihood_name in UNIT_INTERVAL else None
        prior_module = priors.Vamp(guide_module, num_components, inputs=inputs, bounds=bounds)  # type: ignore[arg-type]  # checked above
    guards.check_support(prior_module, guide_module, GUIDES)
    vae = VAE(prior_module, likelihood_module, guide_module, num_data)
    vae.config = {
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
        "corrupt": corrupt,
    }
    return vae


def usual_warmup(prior: str, epochs: float) -> float:
    """Epochs over which beta should rise from 0 under a prior, in a run of so many: four fifths of it at most."""
    return min(WARMUP.get(prior.partition(":")[0], 0.0), 0.8 * epochs)


def by_name_or_path(what: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table, or what stands at a dotted import path."""
    if name in table or "." not in name:
        return by_name(what, name, table)
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may fail in any way while it is imported
        file = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name == file
        hint = f"; run it in the folder of {file}.py" if absent else ""
        raise ValueError(f"{what} {name!r} cannot be imported: {type(error).__name__}: {error}{hint}") from error


def name_and_options(what: str, text: str) -> tuple[str, dict[str, Any]]:
    """``"student-t:df=3"`` as the name and ``{"df": 3}``; a value is a Python literal, or else a word."""
    if not isinstance(text, str):
        raise ValueError(
            f"{what} must be a name or an import path, got {text!r}; an instance goes into "
            f"pv.VAE(prior, likelihood, guide)"
        )
    name, *pairs = text.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (equals and key.isidentifier() and value) or key in options:
            raise ValueError(f"{what} {text!r} must be name:option=value, each option once, got {pair!r}")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    if isinstance(options.get("learned"), str):
        options["learned"] = tuple(options["learned"].split("+"))
    return name, options


def _made(what: str, name: str, table: Mapping[str, Any], *args: Any, **options: Any) -> nn.Module:
    """A part made by its class; whatever a user's own class raises names the part."""
    cls = by_name_or_path(what, name, table)
    if options:
        check_options(f"{what} {name!r}", options, own_options(cls, len(args)))
    if isinstance(cls, functools.partial):  # what is given is fixed, unless it is said to be learned
        options.setdefault("learned", tuple(key for key in cls.keywords["learned"] if key not in options))
    try:
        module = cls(*args, **options)
    except Exception as error:
        if name in table and (isinstance(error, ValueError) or not options):
            raise
        raise ValueError(f"{what} {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{what} {name!r} must be a class of torch modules, got {module!r} from it")
    return module


def _corruption(corrupt: str) -> Callable[[Tensor], Tensor]:
    """A function of x: a module of ``CORRUPTIONS``, or what stands at an import path, a function or a class."""
    name, options = name_and_options("corrupt", corrupt)
    found = by_name_or_path("corrupt", name, CORRUPTIONS)
    if isinstance(found, type):
        return _made("corrupt", name, CORRUPTIONS, **options)
    if not callable(found):
        raise ValueError(f"corrupt {name!r} must be a function of x, or a class of torch modules, got {found!r}")
    check_options(f"corrupt {name!r}", options, own_options(found, 1))
    return functools.partial(found, **options) if options else found


def save(vae: nn.Module, folder: str | Path, **sections: Any) -> None:
    """Write ``model.safetensors`` and ``config.json``; each file appears whole or not at all.

    Args:
        vae: Any VAE, GAN or adversarial autoencoder. One that ``build_vae`` did not make is saved without the means to
            build it again.
        folder: Made when absent.
        sections: More to keep in ``config.json``, by name; JSON values.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as partial:
        (Path(partial) / "model.safetensors").write_bytes(safetensors.torch.save(_unshared(vae.state_dict())))
        (Path(partial) / "config.json").write_text(
            json.dumps({"model": getattr(vae, "config", None), **sections}, indent=2) + "\n"
        )
        for name in ("model.safetensors", "config.json"):
            os.replace(Path(partial) / name, folder / name)


@overload
def load(folder: str | Path, vae: None = None) -> VAE: ...
@overload
def load(folder: str | Path, vae: Module) -> Module: ...
def load(folder: str | Path, vae: nn.Module | None = None) -> nn.Module:
    """The model that :func:`save` wrote.

    Args:
        folder: Holds ``model.safetensors`` and ``config.json``.
        vae: One of the same parts to load into; needed when the saved one was not made by ``build_vae``.

    Raises: FileNotFoundError, or ValueError when a file is cut short, foreign or of another model.
    """
    folder = Path(folder)
    path = folder / "model.safetensors"
    if vae is None:
        config = read_config(folder)["model"]
        if config is None:
            raise ValueError(f"{str(folder)!r} holds a VAE made by hand: build it and pass it, load(folder, vae=...)")
        try:
            vae = build_vae(**config, inputs=_unread_inputs(config))
        except TypeError as error:
            raise ValueError(f"config.json in {str(folder)!r} is not of this pyrovae: {error}") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no model.safetensors in {str(folder)!r}")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is cut short or not a model: {error}") from error
    _check_tensors(path, vae, tensors)
    vae.to(next((t.dtype for t in tensors.values() if t.is_floating_point()), None))
    vae.load_state_dict(tensors, strict=False)  # tensors that two names share are saved once
    return vae


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor once, under its first name: modules may share one, and the file format may not."""
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        names.setdefault(tensor.data_ptr(), name)
    return {name: tensors[name].contiguous() for name in names.values()}


def read_config(folder: str | Path) -> dict[str, Any]:
    """``config.json`` of a run; FileNotFoundError or ValueError when it is not one."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no run in {str(folder)!r}: it has no config.json")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is cut short or not JSON: {error}") from error
    if isinstance(config, dict) and "compare" in config and "model" not in config:
        names = sorted(run.parent.name for run in path.parent.glob("*/config.json"))
        raise ValueError(f"{str(folder)!r} is a comparison: choose one of its runs, {', '.join(names)}")
    if not isinstance(config, dict) or "model" not in config:
        raise ValueError(f"{str(path)!r} is not the config of a pyrovae run")
    return config


def _check_tensors(path: Path, vae: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = vae.state_dict()
    shared = {t.data_ptr() for name, t in own.items() if name in tensors}
    missing = [name for name, t in own.items() if name not in tensors and t.data_ptr() not in shared]
    foreign = [name for name in tensors if name not in own]
    if missing or foreign:
        raise ValueError(f"{str(path)!r} is of another model: it lacks {missing[:3]} and has {foreign[:3]}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{str(path)!r} is of another model: {name} has shape {tuple(tensor.shape)}, "
                f"not {tuple(own[name].shape)}"
            )


def _whole(name: str, values: Sequence[int], example: str) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a sequence of whole numbers such as {example}, got {values!r}") from error


def _num_pseudo_inputs(num_components: int | None, inputs: Tensor | None, event_shape: tuple[int, ...]) -> int:
    if inputs is None:
        raise ValueError("inputs must be given with prior 'vamp': rows of data, from which its pseudo-inputs start")
    if tuple(inputs.shape[1:]) != event_shape:
        raise ValueError(f"inputs must be rows of shape {event_shape}, got {tuple(inputs.shape)}")
    return min(50, len(inputs)) if num_components is None else num_components


def _unread_inputs(config: dict[str, Any]) -> Tensor | None:
    """What the pseudo-inputs start at before the saved ones are loaded."""
    if str(config.get("prior")).partition(":")[0] != "vamp":
        return None
    return torch.zeros(config.get("num_components") or 0, *config.get("event_shape", ()))


def _matching_guide(name: str, prior: nn.Module) -> str:
    if name in GUIDES:
        return name
    if name in MATCHING:
        return MATCHING[name]
    support = getattr(prior, "support", None)
    if support is not None and guards.same_support(support, constraints.real):
        return "normal"
    raise ValueError(f"guide must be given with prior {name!r}, whose support is {support}")


def _networks(
    name: str,
    event_shape: tuple[int, ...],
    latent_dim: int,
    hidden: tuple[int, ...],
    out_shape: tuple[int, ...],
    norm: str | None,
    dropout: float,
    residual: int,
) -> tuple[nn.Module, nn.Module]:
    options: dict[str, Any] = {"norm": norm, "dropout": dropout}
    if name == "conv":
        if len(event_shape) != 3 or out_shape != event_shape:
            raise ValueError(f'network "conv" needs images (channels, height, width), got event_shape {event_shape}')
        image, options = (event_shape[0], event_shape[1], event_shape[2]), {**options, "residual": residual}
        encoder = ConvEncoder(image, hidden=hidden[-1], **options)
        return encoder, ConvDecoder(latent_dim, image, hidden=hidden[-1], **options)
    if residual:
        raise ValueError(f'residual is of network "conv", got {residual} with network {name!r}')
    if name == "dictionary":
        return MLP(event_shape, hidden, **options), Dictionary(latent_dim, out_shape, unit_norm=True)
    return MLP(event_shape, hidden, **options), MLP(latent_dim, hidden[::-1], out_shape, **options)


def _recurrent(
    event_shape: tuple[int, ...],
    latent_dim: int,
    hidden: tuple[int, ...],
    num_classes: int | None,
    norm: str | None,
    dropout: float,
    residual: int,
) -> tuple[nn.Module, nn.Module]:
    if len(event_shape) != 1 or num_classes is None:
        raise ValueError(
            f'network "gru" needs sequences (length,) under the likelihood categorical or autoregressive, got '
            f"event_shape {event_shape}{'' if num_classes else ' and another likelihood'}"
        )
    if norm is not None or residual:
        raise ValueError(f'network "gru" has neither norm nor residual, got {norm!r} and {residual}')
    encoder = GRUEncoder(event_shape[0], num_classes, hidden[-1], dropout=dropout)
    return encoder, GRUDecoder(latent_dim, event_shape[0], num_classes, hidden[-1], dropout=dropout)
