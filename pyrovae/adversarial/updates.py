"""The two stochastic-gradient updates of a game, and what a model is that plays it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor, nn

from pyrovae import guards
from pyrovae.adversarial.losses import GameLoss, named_loss
from pyrovae.infer.optimizer import Grouped
from pyrovae.infer.saving import check_optimizer_state
from pyrovae.objectives import is_divergence
from pyrovae.schema import anything, check, mapping, record, whole

__all__ = ["Game", "Updates", "check_game"]

Optim = pyro.optim.PyroOptim
ADAM = {"lr": 2e-4, "betas": (0.5, 0.999)}  # of Radford, Metz and Chintala (2016), section 4


class Game(nn.Module):
    """A model with a ``critic``, against which the rest of it plays: write ``draws(x)``.

    The ``weight`` is that of the game in what the rest of it descends.
    """

    critic: nn.Module
    weight: float = 1.0
    name: str | None = None  # as of a VAE
    config: dict[str, Any] | None = None
    num_labels = 0  # as of a VAE

    def __getstate__(self) -> dict[str, object]:
        return guards.state(self)

    def draws(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Real rows, drawn rows with the gradient of what drew them, and what else a datum costs, ``()``."""
        raise NotImplementedError(f"{type(self).__name__} must define draws(x)")

    def scores(self, x: Tensor) -> Tensor:
        """The critic's, one for each row."""
        scores = self.critic(x)
        if scores.numel() != len(x):
            raise ValueError(f"critic must return one number for each of {len(x)} rows, got {tuple(scores.shape)}")
        return scores.flatten()

    def trainer(
        self,
        optim: Optim | tuple[Optim, Optim] | None = None,
        loss: GameLoss | str | None = None,
        *,
        clip_norm: float | None = None,
        compile: bool | None = None,
        precision: torch.dtype | None = None,
    ) -> Updates:
        """What trains the model, one batch at a time; the arguments are those of :class:`Updates`.

        Raises: ValueError for ``compile`` and ``precision``, which a game does not have.
        """
        for name, value in (("compile", compile or None), ("precision", precision)):
            if value is not None:
                raise ValueError(f"{name} is not for a GAN or an adversarial autoencoder, got {value}")
        return Updates(self, optim, loss, clip_norm)


class Updates:
    r"""Training of a game: for each batch a step of the critic, and then one of the rest.

    .. math:: \text{critic} \downarrow L_d + \text{penalty} , \qquad \text{the rest} \downarrow \text{cost} +
        \text{weight} \cdot L_g

    Both read the same draws; the critic has been updated when the rest is.

    Args:
        game: A :class:`GAN`, an :class:`AdversarialAutoencoder` or another :class:`Game`.
        optim: An optimizer of ``pyro.optim``, which may tell the players apart by the names of parameters; or a pair,
            the critic's second. :func:`pyrovae.fit` follows the schedules of their learning rates. None is Adam at a
            learning rate of 2e-4 with betas (0.5, 0.999).
        loss: A loss, or its name in ``LOSSES``; None is :class:`NonSaturating` with a slope penalty of 1.
        clip_norm: Largest Euclidean norm of the gradient of all parameters of a player together.

    Raises: FloatingPointError when a loss becomes NaN, with the parameters as they were.
    References: Goodfellow et al. (2014), algorithm 1; Radford, Metz and Chintala (2016) for Adam's numbers.
    """

    comparable = False  # a validation loss is what the critic of that epoch says

    def __init__(
        self,
        game: Game,
        optim: Optim | tuple[Optim, Optim] | None = None,
        loss: GameLoss | str | None = None,
        clip_norm: float | None = None,
    ) -> None:
        optim = Optim(torch.optim.Adam, dict(ADAM)) if optim is None else optim
        pair = optim if isinstance(optim, tuple) else (optim, optim)
        if len(pair) != 2 or not all(isinstance(each, Optim) for each in pair):
            raise TypeError(f"optim must be a pyro.optim optimizer, or a pair of them, got {optim!r}")
        if any(isinstance(each, PyroLRScheduler) for each in pair):
            raise ValueError(
                "optim: a plateau or a scheduler of Pyro's own is not for a GAN or an adversarial autoencoder: give "
                "the optimizer a schedule, such as pyrovae.optim.cosine"
            )
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {clip_norm}")
        self.game, self.loss = game, named_loss(loss)
        guards.register(game)
        of_critic = [param for param in game.critic.parameters() if param.requires_grad]
        known = set(of_critic)
        rest = [param for param in game.parameters() if param.requires_grad and param not in known]
        self._rest = _Player(rest, pair[0], clip_norm)
        self._critic = _Player(of_critic, pair[1], clip_norm)
        self._num_batches = 0

    def step(self, x: Tensor) -> float:
        """One batch: the cost and the weighted divergence as far as the critic can tell, summed over its rows."""
        guards.check_tensors(self.game, x)
        guards.register(self.game)
        game, loss = self.game, self.loss
        self._num_batches += 1
        moves = self._num_batches % loss.critic_steps == 0
        with torch.set_grad_enabled(moves):
            real, fake, cost = self._draws(x)
        real = real.detach()
        scores = game.scores(real), game.scores(fake.detach())
        number = self._number(cost, *scores)
        critic_loss = loss.critic(*scores) + loss.penalty(game.scores, real, fake.detach())
        self._check(x, cost, critic_loss)
        self._critic.descend(critic_loss)
        if moves:
            rest_loss = cost + game.weight * loss.generator(game.scores(fake))
            self._check(x, rest_loss)
            self._rest.descend(rest_loss)
        return number * len(x)

    def evaluate(self, x: Tensor) -> float:
        """What ``step`` returns, without a step."""
        with torch.no_grad():
            real, fake, cost = self._draws(x)
            return self._number(cost, self.game.scores(real), self.game.scores(fake)) * len(x)

    def state_dict(self) -> dict[str, object]:
        """The states of the optimizers of both players by the names of parameters, and the number of batches."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.game.named_parameters()}
        optims = {names[p]: state for player in (self._rest, self._critic) for p, state in player.states().items()}
        return {"num_batches": self._num_batches, "optim": optims}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        check("state", state, record({"num_batches": whole(), "optim": mapping(mapping(anything))}))
        self._num_batches = state["num_batches"]
        guards.register(self.game)
        named: dict[str, Tensor] = dict(self.game.named_parameters())
        states = {named[name]: each for name, each in state["optim"].items()}
        for player in (self._rest, self._critic):
            player.load_states({param: states[param] for param in player.params if param in states})

    def _draws(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        try:
            with guards.pyro_lock:
                return self.game.draws(x)
        except (ValueError, RuntimeError) as error:
            if not is_divergence(error):
                raise
            raise FloatingPointError(f"a draw became NaN: {self._blame(x)}") from error

    def _number(self, cost: Tensor, real: Tensor, fake: Tensor) -> float:
        return float(cost.detach() + self.game.weight * self.loss.divergence(real.detach(), fake.detach()))

    def _check(self, x: Tensor, *losses: Tensor) -> None:
        if any(bool(loss.isnan()) for loss in losses):
            raise FloatingPointError(f"the loss became NaN: {self._blame(x)}")

    def _blame(self, x: Tensor) -> str:
        tensors = [("the data", x), *((f"parameter {name}", value) for name, value in self.game.named_parameters())]
        bad = [name for name, value in tensors if not bool(torch.isfinite(value).all())]
        return f"{', '.join(bad[:3])} not finite" if bad else "data and parameters are finite, scores or draws are not"


class _Player:
    """Some parameters and what steps them."""

    def __init__(self, params: Sequence[Tensor], optim: Optim, clip_norm: float | None) -> None:
        self.params, self.optim, self.clip_norm = list(params), optim, clip_norm
        self._grouped: Grouped | None = None

    def descend(self, loss: Tensor) -> None:
        """A step on a loss; the gradients of the other player's parameters are not touched."""
        if not self.params:
            return
        for param, grad in zip(self.params, torch.autograd.grad(loss, self.params, allow_unused=True), strict=True):
            param.grad = grad
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.params, self.clip_norm)
        if all(param in self.optim.optim_objs for param in self.params):
            self._grouped = self._grouped or Grouped(self.optim, self.params)
            self._grouped.step()
        else:
            self.optim(self.params)  # makes an optimizer of each
        for param in self.params:
            param.grad = None

    def states(self) -> dict[Tensor, dict[str, Any]]:
        """The state of the optimizer of each parameter that has been stepped."""
        optims = self.optim.optim_objs
        return {param: optims[param].state_dict() for param in self.params if param in optims}

    def load_states(self, states: dict[Tensor, dict[str, Any]]) -> None:
        """Put the states back; a parameter without one begins anew."""
        for param in self.params:
            self.optim.optim_objs.pop(param, None)
            param.grad = None
        self.optim(list(states))  # makes an optimizer of each, and steps nothing without a gradient
        for param, state in states.items():
            check_optimizer_state(self.optim.optim_objs[param], state)
            self.optim.optim_objs[param].load_state_dict(state)
        self._grouped = None


def check_game(prior: Any, critic: Any) -> None:
    """Refuse a prior that the game would not train, or that all data share a part of."""
    if hasattr(prior, "shared"):
        raise ValueError(
            f"prior {type(prior).__name__} has sites that all data share, which a critic of rows cannot see"
        )
    learned = [name for name, param in prior.named_parameters() if param.requires_grad]
    if learned:
        raise ValueError(
            f"prior {type(prior).__name__} has learned {', '.join(learned[:3])}, which a critic does not train: "
            f"fix them, or prior.requires_grad_(False)"
        )
    if not any(True for _ in critic.parameters()):
        raise ValueError(f"critic {type(critic).__name__} has no parameters to train")
