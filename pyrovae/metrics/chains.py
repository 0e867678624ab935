"""The chains of annealed importance sampling: where they are on the path, and the two moves that keep them there."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent, biject_to, constraints

from pyrovae.distributions.spike_slab import nonnegative_with_atom, real_with_atom
from pyrovae.guards import same_support
from pyrovae.metrics.draws import Sites, check_points, drawn, local, replayed
from pyrovae.rows import Rows, num_rows

__all__ = ["ACCEPTANCE", "Path", "State", "flips", "hamiltonian"]

ACCEPTANCE = 0.65  # of the Hamiltonian steps, what their size is adapted towards
# the set that a law with an atom at zero has beside it
BESIDE_ATOM = ((real_with_atom, constraints.real), (nonnegative_with_atom, constraints.positive))


class State(NamedTuple):
    """Where the chains are: u ``(K, N, S)``, which of its numbers are off the atom, and log-densities ``(K, N)``."""

    u: Tensor
    is_open: Tensor
    log_start: Tensor
    log_joint: Tensor

    def where(self, accepted: Tensor, other: State) -> State:
        """The other state where it is accepted, ``(K, N)``."""
        return State(*(
            torch.where(accepted if new.dim() == 2 else accepted[..., None], new, old)
            for old, new in zip(self, other, strict=True)
        ))  # fmt: skip


class _Site(NamedTuple):
    """A latent site in u: its slice, the shape of its event there, the map from u to z, and whether it has an atom."""

    where: slice
    shape: torch.Size
    transform: Any
    has_atom: bool


class Path:
    """The log-densities of the start and of p(x, z), for K chains of each datum."""

    def __init__(self, model: Any, start: Any, x: Rows, num_chains: int) -> None:
        self.model, self.start, self.x, self.num_chains = model, start, x, num_chains
        joint, self.drawn = drawn((model, start), x, num_chains)
        check_points(local(self.drawn))
        self.sites: dict[str, _Site] = {}
        parts, size = [], 0
        for name, site in local(self.drawn).items():
            transform, has_atom = _unconstrained(name, site["fn"])
            if has_atom and _innermost(site["fn"]).event_shape:
                raise ValueError(f"site {name!r} of the start has no law of each coordinate, to propose it from")
            z = site["value"].expand(num_chains, num_rows(x), *site["fn"].event_shape)
            u = transform.inv(torch.where(z == 0, 1.0, z)) if has_atom else transform.inv(z)
            flat = u.reshape(num_chains, num_rows(x), -1)
            is_open = (z != 0).reshape(flat.shape) if has_atom else torch.ones_like(flat, dtype=torch.bool)
            parts.append((flat, is_open))
            self.sites[name] = _Site(slice(size, size + flat.shape[-1]), u.shape[2:], transform, has_atom)
            size += flat.shape[-1]
        u, is_open = (torch.cat(tensors, -1) for tensors in zip(*parts, strict=True))
        self.state = State(u, is_open, _total(self.drawn), _total(joint))

    def at(self, u: Tensor, is_open: Tensor) -> tuple[State, Tensor, Sites]:
        """The state at u, the log-Jacobian of z in the numbers off the atom, and the sites of the start there."""
        sites, log_jacobian = dict(self.drawn), u.new_zeros(u.shape[:2])
        for name, (where, shape, transform, has_atom) in self.sites.items():
            v = u[..., where].reshape(*u.shape[:2], *shape)
            z = transform(v)
            jacobian = transform.log_abs_det_jacobian(v, z).reshape(*u.shape[:2], -1)
            if has_atom:
                z = torch.where(is_open[..., where].reshape(z.shape), z, 0.0)
                jacobian = torch.where(is_open[..., where], jacobian, 0.0)
            sites[name] = {**sites[name], "value": z}
            log_jacobian = log_jacobian + jacobian.sum(-1)
        joint, start = replayed(self.model, self.start, self.x, self.num_chains, sites)
        return State(u, is_open, _total(start), _total(joint)), log_jacobian, start

    def tempered(self, u: Tensor, is_open: Tensor, beta: float) -> tuple[State, Tensor, Tensor]:
        """The state at u, the log-density there at a temperature, of u, and its gradient."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            state, log_jacobian, _ = self.at(u, is_open)
            value = _tempered(state, beta) + log_jacobian
            (gradient,) = torch.autograd.grad(value.sum(), u)
        return State(*(tensor.detach() for tensor in state)), value.detach(), gradient * is_open


def _total(sites: Sites) -> Tensor:
    return sum(site["log_prob"] for site in local(sites).values())


def _tempered(state: State, beta: float) -> Tensor:
    return (1 - beta) * state.log_start + beta * state.log_joint


def _unconstrained(name: str, fn: Any) -> tuple[Any, bool]:
    """The map from an unconstrained space onto the support of a site, beside an atom at zero if there is one."""
    for atom, beside in BESIDE_ATOM:
        if same_support(fn.support, atom):
            return biject_to(beside), True
    try:
        if not fn.support.is_discrete:
            return biject_to(fn.support), False
    except NotImplementedError:
        pass
    raise ValueError(f"site {name!r} has support {fn.support}, in which no chain moves here: use log_likelihood")


def _innermost(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def hamiltonian(path: Path, state: State, beta: float, step: Tensor, num_leapfrog: int) -> tuple[State, Tensor]:
    """One move of the numbers off the atom, and for each datum how far its acceptance is above what is wanted."""
    # a length of its own each time keeps a path from closing upon itself
    step = (step * torch.empty_like(step).uniform_(0.8, 1.2))[..., None]
    momentum = torch.randn_like(state.u) * state.is_open
    new, before, gradient = path.tempered(state.u, state.is_open, beta)
    before = before - 0.5 * momentum.square().sum(-1)
    for _ in range(num_leapfrog):
        momentum = momentum + 0.5 * step * gradient
        new, after, gradient = path.tempered(new.u + step * momentum, state.is_open, beta)
        momentum = momentum + 0.5 * step * gradient
    log_ratio = (after - 0.5 * momentum.square().sum(-1) - before).nan_to_num(nan=-math.inf, posinf=-math.inf)
    acceptance = log_ratio.clamp(max=0.0).exp()
    moving = state.is_open.any(-1).to(acceptance)
    change = (moving * (acceptance - ACCEPTANCE)).sum(0) / moving.sum(0).clamp(min=1.0)
    return state.where(torch.rand_like(acceptance) < acceptance, new), change


def flips(path: Path, state: State, beta: float) -> State:
    """Each coordinate that may be zero is proposed from the start's own law of it, whatever it is now."""
    for name, (where, _, transform, has_atom) in path.sites.items():
        if not has_atom:
            continue
        _, _, start = path.at(state.u, state.is_open)  # where an earlier site decides the law
        law, now = _innermost(start[name]["fn"]), start[name]["value"]
        shape = state.u[..., where].shape
        proposal = law.sample().expand(now.shape)
        log_odds = (law.log_prob(now) - law.log_prob(proposal)).reshape(shape)
        u = transform.inv(torch.where(proposal == 0, 1.0, proposal)).reshape(shape)
        is_open = (proposal != 0).reshape(shape)
        for j in range(shape[-1]):
            i = where.start + j
            u_j, open_j = state.u.clone(), state.is_open.clone()
            u_j[..., i], open_j[..., i] = u[..., j], is_open[..., j]
            new, _, _ = path.at(u_j, open_j)
            log_ratio = _tempered(new, beta) - _tempered(state, beta) + log_odds[..., j]
            accepted = torch.rand_like(log_ratio).log() < log_ratio  # False for NaN
            state = state.where(accepted, new)
    return state
