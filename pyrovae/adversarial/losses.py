r"""What the two players of a game descend, given the critic's scores :math:`d(x)` of real x and :math:`d(\tilde x)` of
drawn ones.

Each is the mean over a batch. Minimax and non-saturating take :math:`\sigma(d)` for the probability that x is real, so
that the best critic is :math:`d = \log p - \log q`; Wasserstein takes d as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["LOSSES", "GameLoss", "Minimax", "NonSaturating", "Wasserstein", "named_loss"]

Critic = Callable[[Tensor], Tensor]


class GameLoss:
    """A loss for each player: write ``critic``, ``generator`` and ``divergence``, and ``penalty`` where there is one.

    Args:
        critic_steps: Batches, each with one update of the critic, for one update of the generator.
    """

    def __init__(self, critic_steps: int = 1) -> None:
        if not isinstance(critic_steps, int) or critic_steps < 1:
            raise ValueError(f"critic_steps must be a whole number, at least 1, got {critic_steps!r}")
        self.critic_steps = critic_steps

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic descends, of its scores."""
        raise NotImplementedError(f"{type(self).__name__} must define critic(real, fake)")

    def generator(self, fake: Tensor) -> Tensor:
        """What the generator descends, of the critic's scores of its draws."""
        raise NotImplementedError(f"{type(self).__name__} must define generator(fake)")

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far the two laws are apart as far as the critic can tell: a lower bound, but for the noise of a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define divergence(real, fake)")

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor | float:
        """What the critic descends beside it, of its slope."""
        return 0.0


class Minimax(GameLoss):
    r"""The game of one value, which the critic raises and the generator lowers.

    .. math:: V = E\log\sigma(d(x)) + E\log(1 - \sigma(d(\tilde x))) \le 2\, JS(p, q) - 2\log 2

    with equality at the best critic. Its generator learns little while the critic is sure.

    Args:
        slope_penalty: :math:`\gamma \ge 0` of :math:`\frac{\gamma}{2} E\,\|\nabla d(x)\|^2` (R1), which keeps the
            critic flat at the data, so that the game settles.
        critic_steps: Batches for one update of the generator.

    Units: nats; ``divergence`` is :math:`V/2 + \log 2`, a bound on the Jensen-Shannon divergence, at most log 2.
    References: Goodfellow et al. (2014), "Generative adversarial nets", eq. 1 and theorem 1; Mescheder, Geiger and
        Nowozin (2018), "Which training methods for GANs do actually converge?", eq. 9.
    """

    def __init__(self, slope_penalty: float = 0.0, critic_steps: int = 1) -> None:
        super().__init__(critic_steps)
        self.slope_penalty = _at_least_zero("slope_penalty", slope_penalty)

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -softplus(fake).mean()

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        return math.log(2) - self.critic(real, fake) / 2

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor | float:
        if not self.slope_penalty:
            return 0.0
        return self.slope_penalty / 2 * _squared_slope(critic, real).mean()


class NonSaturating(Minimax):
    r"""The critic of :class:`Minimax`, and a generator that raises :math:`E\log\sigma(d(\tilde x))`.

    At the best critic its gradient is that of :math:`KL(q \,\|\, p) - 2\, JS(p, q)`, and it does not fade while the
    critic is sure.

    Args:
        slope_penalty: As of :class:`Minimax`.
        critic_steps: Batches for one update of the generator.

    Units: nats, as of :class:`Minimax`.
    References: Goodfellow et al. (2014), section 3; Arjovsky and Bottou (2017), "Towards principled methods for
        training generative adversarial networks", theorem 2.5.
    """

    def generator(self, fake: Tensor) -> Tensor:
        return softplus(-fake).mean()


class Wasserstein(GameLoss):
    r"""The distance that a critic of slope one sees.

    .. math:: W_1(p, q) = \max_{\|d\|_L \le 1} E\, d(x) - E\, d(\tilde x) , \qquad
        \lambda\, E\left(\|\nabla d(\hat x)\| - 1\right)^2 , \quad \hat x = u x + (1 - u) \tilde x , \; u \sim U(0, 1)

    The penalty holds the slope near one between the two laws and is no strict bound on it: of slopes that are one
    number everywhere the best is :math:`1 + W_1 / 2\lambda`, and ``divergence`` is so much larger.

    Args:
        slope_penalty: :math:`\lambda > 0`.
        critic_steps: Batches for one update of the generator.

    Units: those of x.
    References: Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville (2017), "Improved training of Wasserstein GANs",
        eq. 3 and algorithm 1, with a fresh batch for each update of the critic.
    """

    def __init__(self, slope_penalty: float = 10.0, critic_steps: int = 5) -> None:
        super().__init__(critic_steps)
        self.slope_penalty = _at_least_zero("slope_penalty", slope_penalty)
        if self.slope_penalty == 0:
            raise ValueError("slope_penalty must be positive: without it the critic's slope has no bound")

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def divergence(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor | float:
        u = torch.rand(len(real), *(1,) * (real.dim() - 1), dtype=real.dtype, device=real.device)
        slope = _squared_slope(critic, u * real + (1 - u) * fake)
        # the root has no derivative at 0, where a critic that is flat would give NaN
        return self.slope_penalty * (slope.clamp(min=1e-12).sqrt() - 1).square().mean()


LOSSES: dict[str, Callable[[], GameLoss]] = {
    "minimax": Minimax,
    "non-saturating": NonSaturating,
    "wasserstein": Wasserstein,
}


def named_loss(loss: GameLoss | str | None) -> GameLoss:
    """A loss as it is, by its name, or the non-saturating one with a slope penalty of 1 for None."""
    if loss is None:
        return NonSaturating(slope_penalty=1.0)
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if not isinstance(loss, GameLoss):
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, or an instance of such a class, got {loss!r}")
    return loss


def _squared_slope(critic: Critic, x: Tensor) -> Tensor:
    r""":math:`\|\nabla d(x)\|^2` of each row, which can be differentiated again."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]
    return slope.flatten(1).square().sum(1)


def _at_least_zero(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return value
