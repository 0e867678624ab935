"""A callback that moves atoms of a spike-and-slab dictionary to where gradients do not lead, if the bound rises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae import likelihoods, priors
from pyrovae.distributions import LinearNormal, SpikeSlab
from pyrovae.guides import CoordinateAscent
from pyrovae.hyper import Constrained
from pyrovae.infer import SVI
from pyrovae.nn import Dictionary
from pyrovae.schema import check, number, whole
from pyrovae.train import Callback

if TYPE_CHECKING:
    from pyrovae.train import Run

__all__ = ["Move", "Moves"]

TINY = torch.finfo(torch.float32).tiny
SHUT = 1e-4  # activity of a latent that is closed
BORN = 0.05  # activity of a latent that begins anew, before its first M-step
TRIED = 4  # latents of the least value for which a new direction is tried
PAIRS = 8  # pairs that are rotated, those whose gates depend on each other most
NAMES = ("active", "loc", "scale")  # of the hyper-parameters; not every slab has a location
SPREAD = 0.3  # scale of a new slab, by its location
ROUNDS = 2  # E and M steps after a move, before the bounds are compared


Kept = tuple[str, tuple[int, ...], float]


class Move(NamedTuple):
    """What was done: ``kind`` is "closed", "revived" or "rotated"; ``gain`` is that of the bound, in nats per datum."""

    epoch: int
    kind: str
    latents: tuple[int, ...]
    gain: float


class Moves(Callback):
    r"""Closes latents without use, revives them where the residual is largest, and rotates pairs, between epochs.

    A move is kept if the bound of ``x`` rises, after a few exact steps of EM on the prior of the latents concerned:

    .. math:: \pi_j = \overline{\gamma_j} , \qquad m_j = \overline{\gamma_j \mu_j} / \overline{\gamma_j} , \qquad
              \tau_j^2 = \overline{\gamma_j ((\mu_j - m_j)^2 + s_j^2)} / \overline{\gamma_j}

    for Normal slabs; the same of half-Normal and exponential ones, and of the activity alone for truncated Normals.

    Moves: a latent whose value for the bound is below ``tolerance`` is closed; one of those, or of the least valuable
    ones, becomes the direction in which the residual varies most; two latents whose gates depend on each other are
    turned by 45 degrees to either side, because sum and difference of two features are a local optimum.

    Args:
        x: Training data, ``(N, *event_shape)``; a thousand rows are enough.
        tolerance: In nats per datum, what a move must gain and what a latent must be worth.
        until: The share of the epochs in which latents are revived and rotated; they are closed in all epochs.
        times: After so many epochs of a run at most, evenly spaced.
        seed: Of the rows of x, of which at most 1,000 are used.

    Attributes: ``moves``, a list of :class:`Move`. ``summary()`` says in one line what was done.

    Raises: TypeError at the start of the run, unless the guide of the VAE is :class:`~pyrovae.guides.CoordinateAscent`,
        which needs no encoder to follow a move, and activity and slabs of the prior are learned.
    """

    def __init__(self, x: Tensor, tolerance: float = 0.01, until: float = 0.7, times: int = 25, seed: int = 0) -> None:
        check("tolerance", tolerance, number(0.0, expected="a number, at least 0"))
        check("until", until, number(0.0, math.nextafter(1.0, 2.0), "a share from 0 to 1"))
        check("times", times, whole(1))
        check("seed", seed, whole())
        if not isinstance(x, Tensor) or x.dim() < 2 or len(x) < 2:
            raise ValueError(f"x must be a tensor of at least two rows, got {getattr(x, 'shape', x)!r}")
        self.tolerance, self.until, self.times = tolerance, until, times
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:1000]
        self.x = x[order.to(x.device)]
        self.moves: list[Move] = []

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint of a run keeps."""
        return {"moves": [[move.epoch, move.kind, list(move.latents), move.gain] for move in self.moves]}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Put back what :meth:`state_dict` returned."""
        moves: Iterable[tuple[int, str, list[int], float]] = state["moves"]  # type: ignore[assignment]  # by state_dict
        self.moves = [Move(epoch, kind, tuple(latents), gain) for epoch, kind, latents, gain in moves]

    @staticmethod
    def are_possible(vae: object) -> bool:
        """Whether a VAE is a spike-and-slab dictionary that this callback can move."""
        return _problem(vae) is None

    def on_fit_start(self, run: Run) -> None:
        _Dictionary(run, self.x)

    def on_epoch_end(self, run: Run) -> None:
        every = -(-run.num_epochs // self.times)
        if run.epoch % every and run.epoch < run.num_epochs:
            return
        dictionary = _Dictionary(run, self.x)
        all_kinds = run.epoch <= self.until * run.num_epochs
        for kind, latents, gain in dictionary.improve(self.tolerance, all_kinds):
            self.moves.append(Move(run.epoch, kind, latents, gain))

    def summary(self) -> str:
        """For example ``"12 closed, 3 revived, 2 rotated: the bound rose by 4.10 nats per datum"``."""
        if not self.moves:
            return "no latent was moved"
        counts = Counter(move.kind for move in self.moves)
        gain = sum(move.gain for move in self.moves)
        return ", ".join(f"{n} {kind}" for kind, n in counts.items()) + f": the bound rose by {gain:.2f} nats per datum"


def _problem(vae: object) -> str | None:
    """What a VAE lacks."""
    guide = getattr(vae, "posterior", None)
    if type(guide) is not CoordinateAscent:
        kind = type(vae if guide is None else guide).__name__
        return f"a VAE with the guide CoordinateAscent, got {kind}"
    prior, likelihood = guide.model_parts
    if not isinstance(likelihood, likelihoods.Normal) or not isinstance(likelihood.network, Dictionary):
        return "the likelihood Normal with a Dictionary"
    if not all(hasattr(each, "raw") for each in _hyper_parameters(prior)):
        names = tuple(name for name in NAMES if hasattr(prior, name))
        return f"a prior that learns {', '.join(names)}: learned={names}"
    return None


def _hyper_parameters(prior: nn.Module) -> tuple[Constrained, ...]:
    return tuple(getattr(prior, name) for name in NAMES if hasattr(prior, name))


class _Dictionary:
    """The parameters of a dictionary, its codes of x, and their bound."""

    guide: CoordinateAscent
    prior: priors.SpikeSlab
    likelihood: likelihoods.Normal

    def __init__(self, run: Run, x: Tensor) -> None:
        if (problem := _problem(run.vae)) is not None:
            raise TypeError(f"Moves needs {problem}")
        self.guide = run.vae.posterior  # type: ignore[attr-defined]  # see _problem
        self.prior, self.likelihood = self.guide.model_parts  # type: ignore[assignment]
        self.parameters = _hyper_parameters(self.prior)
        network = self.likelihood.network
        assert isinstance(network, Dictionary)
        self.weight, self.unit_norm = network.linear.weight, network.unit_norm
        self.optim = run.trainer.optim if isinstance(run.trainer, SVI) else None
        self.x = x.to(self.weight)
        self.tensors: tuple[Tensor, ...] = (self.weight, *(each.raw for each in self.parameters))

    @torch.no_grad()
    def improve(self, tolerance: float, all_kinds: bool) -> Iterator[Kept]:
        """Every move that is kept, as it is made; latents are closed only, unless ``all_kinds``."""
        self.bound, self.code = self.infer(())
        yield from self.close(tolerance)
        if not all_kinds:
            return
        for j in self.values().argsort()[:TRIED].tolist():
            yield from self.kept("revived", (j,), partial(self.revive, j), tolerance)
        for pair in self.pairs():
            for turn in (1.0, -1.0):
                kept = list(self.kept("rotated", pair, partial(self.rotate, *pair, turn), tolerance))
                yield from kept
                if kept:
                    break

    def kept(self, kind: str, latents: tuple[int, ...], move: Callable[[], None], tolerance: float) -> Iterator[Kept]:
        """Make a move, and put everything back unless the bound rises by more than ``tolerance``."""
        before = [tensor.detach().clone() for tensor in self.tensors]
        move()
        bound, code = self.infer(latents)
        gain = bound - self.bound
        if not gain > tolerance:
            for tensor, old in zip(self.tensors, before, strict=True):
                tensor.copy_(old)
            return
        self.bound, self.code = bound, code
        self.forget(latents)
        yield kind, latents, gain

    def close(self, tolerance: float) -> Iterator[Kept]:
        """Close all latents of no value; half of them, a quarter and so on where the bound would fall."""
        values, active = self.values(), self.prior.active()
        worthless = [j for j in values.argsort().tolist() if values[j] < tolerance and active[j] > SHUT]
        while worthless:
            latents = tuple(worthless)
            kept = list(self.kept("closed", latents, partial(self.shut, latents), -tolerance * len(latents)))
            if kept:
                yield from kept
                return
            worthless = worthless[: len(worthless) // 2]

    def infer(self, latents: tuple[int, ...]) -> tuple[float, SpikeSlab]:
        """The mean bound of x and its codes, after steps of EM that move the prior of some latents."""
        for _ in range(ROUNDS if latents else 0):
            self.fit_prior(self.guide.distribution(self.x).base_dist, list(latents))
        q = self.guide.distribution(self.x).base_dist
        p, likelihood = self.prior.distribution().base_dist, self.at(q.mean[:1])
        expected = likelihood.expected_log_prob(q.to_event(1), self.x)
        assert expected is not None  # its two moments are known
        bound = expected - kl_divergence(q, p).sum(-1)
        return bound.double().mean().item(), q

    def fit_prior(self, q: SpikeSlab, latents: list[int]) -> None:
        """The exact M step; for truncated Normal slabs, that of the activity."""
        gates, code = q.probs[:, latents], q.slab.mean[:, latents]
        total = gates.sum(0).clamp(min=1e-6)
        mean = (gates * code).sum(0) / total
        variance = (gates * ((code - mean) ** 2 + q.slab.variance[:, latents])).sum(0) / total
        open_ = gates.mean(0) > SHUT
        old = [each()[latents] for each in self.parameters]
        slab = {
            "normal": (mean, variance.sqrt()),
            "half-normal": ((variance + mean**2).sqrt(),),
            "exponential": (mean,),
            "truncated-normal": old[1:],
        }[self.prior.slab]
        new = gates.mean(0).clamp(SHUT, 1 - SHUT), *slab
        self.put(latents, *(torch.where(open_, a, b) for a, b in zip(new, old, strict=True)))

    def put(self, latents: list[int], *values: Tensor) -> None:
        for each, value in zip(self.parameters, values, strict=True):
            each.raw[latents] = each._inverse(value)

    def values(self) -> Tensor:
        """What each latent is worth for the bound while all others stay, at most; in nats per datum, ``(D,)``."""
        q, p = self.code, self.prior.distribution().base_dist
        likelihood = self.at(q.mean[:1])
        precision = likelihood.scale.square().reciprocal().expand(likelihood.event_shape).reshape(-1)
        own = (likelihood.weight.square() * precision[:, None]).sum(0)
        pull = (self.residual() * precision) @ likelihood.weight + own * q.mean
        return (q.mean * pull - 0.5 * own * (q.variance + q.mean**2) - kl_divergence(q, p)).mean(0)

    def residual(self) -> Tensor:
        return (self.x - self.likelihood.mean(self.code.mean)).flatten(1)

    def at(self, z: Tensor) -> LinearNormal:
        """p(x|z), which is linear: the guide has seen to it."""
        x = self.likelihood(z)
        assert isinstance(x, LinearNormal)
        return x

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of open latents whose gates are the most correlated."""
        gates = self.code.probs
        gates = (gates - gates.mean(0)) * (gates.mean(0) > 10 * SHUT)
        correlation = torch.nn.functional.normalize(gates, dim=0)
        correlation = (correlation.T @ correlation).abs().triu(1)
        most = correlation.flatten().topk(min(PAIRS, correlation.numel())).indices.tolist()
        pairs = [divmod(place, gates.shape[1]) for place in most]
        return [pair for pair in pairs if pair[0] != pair[1] and correlation[pair] > 0]

    # Moves

    def shut(self, latents: tuple[int, ...]) -> None:
        places = list(latents)
        active, *slab = (each()[places] for each in self.parameters)
        self.put(places, torch.full_like(active, SHUT / 100), *slab)

    def revive(self, j: int) -> None:
        """Give latent j the direction in which the residual varies most, towards its longer tail."""
        residual = self.residual()
        largest = torch.linalg.eigh(residual @ residual.T).eigenvectors[:, -1]
        direction = torch.nn.functional.normalize(largest @ residual, dim=0)
        along = residual @ direction
        direction = direction * (along**3).sum().sign()
        size = (residual @ direction).topk(max(1, int(BORN * len(residual)))).values.mean()
        self.weight[:, j] = direction * self.weight[:, j].norm()
        size = size if self.unit_norm else size / self.weight[:, j].norm()
        self.put([j], size.new_tensor([BORN]), *self.slab_of(size[None]))

    def rotate(self, j: int, k: int, turn: float) -> None:
        u, v = self.weight[:, j].clone(), self.weight[:, k].clone()
        if self.unit_norm:
            u, v = u / u.norm(), v / v.norm()
        slab = self.prior.slab_distribution()
        energy = (slab.mean.square() + slab.variance)[[j, k]].mean()
        self.weight[:, j], self.weight[:, k] = u + turn * v, u - turn * v
        size = energy.sqrt().expand(2) / (1.0 if self.unit_norm else math.sqrt(2.0))
        self.put([j, k], self.prior.active()[[j, k]].mean().expand(2), *self.slab_of(size))

    def slab_of(self, size: Tensor) -> tuple[Tensor, ...]:
        """Hyper-parameters of slabs at codes of this size."""
        size = size.abs().clamp(min=TINY)
        return (size, SPREAD * size) if len(self.parameters) == len(NAMES) else (size,)

    def forget(self, latents: tuple[int, ...]) -> None:
        """Set the optimizer's state of the latents that moved to zero."""
        places = list(latents)
        for tensor in self.tensors:
            optimizer = self.optim.optim_objs.get(tensor) if self.optim is not None else None
            state = getattr(optimizer, "optimizer", optimizer)
            for value in () if state is None else state.state[tensor].values():
                if isinstance(value, Tensor) and value.shape == tensor.shape:
                    value[..., places] = 0.0
