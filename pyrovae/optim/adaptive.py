r"""Optimizers with a learning rate for each coordinate, by the size that its gradient had.

:math:`g_t` is the gradient of the loss, squares, roots and quotients are of each coordinate by itself, and
:math:`\eta` is the learning rate. A loss multiplied by a constant gives the same steps, but for :math:`\epsilon`: there
is no batch size to tell. All averages start at zero, and t at 1.
"""

from __future__ import annotations

from typing import Any

from pyro.optim import PyroOptim
from pyro.optim.clipped_adam import ClippedAdam
from torch.optim import Adagrad, Adam, AdamW, NAdam, RMSprop

from pyrovae.optim.base import Rate, pyro_optim
from pyrovae.optim.numbers import at_least_zero, coefficients, positive, share

__all__ = ["adagrad", "adam", "adamw", "clipped_adam", "nadam", "rmsprop"]

Betas = tuple[float, float]


def adagrad(lr: Rate = 1e-2, eps: float = 1e-10) -> PyroOptim:
    r"""AdaGrad: steps shrink with the sum of the squares of all gradients so far.

    .. math:: s_t = s_{t-1} + g_t^2 , \qquad \theta_t = \theta_{t-1} - \eta\, \frac{g_t}{\sqrt{s_t} + \epsilon}

    Args:
        lr: :math:`\eta`, or a schedule of it; the first step of each coordinate is as long.
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is not positive.
    References: Duchi, Hazan and Singer (2011), "Adaptive subgradient methods for online learning and stochastic
        optimization".
    """
    positive(eps=eps)
    return pyro_optim(Adagrad, lr, eps=eps)


def rmsprop(lr: Rate = 1e-3, decay: float = 0.99, eps: float = 1e-8) -> PyroOptim:
    r"""RMSProp: AdaGrad with a running mean in the place of the sum.

    .. math:: s_t = \alpha s_{t-1} + (1 - \alpha)\, g_t^2 , \qquad
        \theta_t = \theta_{t-1} - \eta\, \frac{g_t}{\sqrt{s_t} + \epsilon}

    The mean starts at zero and is not corrected for it: the first step is :math:`1 / \sqrt{1 - \alpha}` times as long.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        decay: :math:`\alpha`, in [0, 1).
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is out of its range.
    References: Tieleman and Hinton (2012), "Lecture 6.5: RMSProp", Neural networks for machine learning.
    """
    positive(eps=eps)
    share(decay=decay)
    return pyro_optim(RMSprop, lr, alpha=decay, eps=eps)


def adam(lr: Rate = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> PyroOptim:
    r"""Adam: momentum, and RMSProp's running mean, both corrected for their start at zero.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t , \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2 , \qquad
        \theta_t = \theta_{t-1} - \eta\, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    with :math:`\hat m_t = m_t / (1 - \beta_1^t)` and :math:`\hat v_t = v_t / (1 - \beta_2^t)`.

    Args:
        lr: :math:`\eta`, or a schedule of it; about the length of a step of each coordinate.
        betas: :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is out of its range.
    References: Kingma and Ba (2015), "Adam: a method for stochastic optimization", algorithm 1.
    """
    return pyro_optim(Adam, lr, **_checked(betas, eps))


def adamw(lr: Rate = 1e-3, weight_decay: float = 1e-2, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> PyroOptim:
    r"""Adam with weights that decay apart from the gradient.

    .. math:: \theta_t = (1 - \eta \lambda)\, \theta_{t-1} - \eta\, \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    with :math:`\hat m_t, \hat v_t` as in :func:`adam`. Unlike a penalty in the loss, :class:`~pyrovae.L2`, the decay is
    the same for coordinates of small and of large gradients, and neither the size of a batch nor the scale of the loss
    is in it. All parameters decay: biases and hyper-parameters too.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        weight_decay: :math:`\lambda`, at least 0: a weight without a gradient loses the share :math:`\eta \lambda` of
            itself in a step.
        betas: :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is out of its range.
    References: Loshchilov and Hutter (2019), "Decoupled weight decay regularization", algorithm 2.
    """
    at_least_zero(weight_decay=weight_decay)
    return pyro_optim(AdamW, lr, weight_decay=weight_decay, **_checked(betas, eps))


def nadam(lr: Rate = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> PyroOptim:
    r"""Adam with Nesterov's momentum, which grows over the steps.

    .. math:: \theta_t = \theta_{t-1} - \frac{\eta}{\sqrt{\hat v_t} + \epsilon} \left(
        \frac{\mu_{t+1}\, m_t}{1 - \prod_{i=1}^{t+1} \mu_i} + \frac{(1 - \mu_t)\, g_t}{1 - \prod_{i=1}^t \mu_i}\right) ,
        \qquad \mu_t = \beta_1 \left(1 - \tfrac12\, 0.96^{0.004\, t}\right)

    with :math:`m_t, \hat v_t` as in :func:`adam`.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        betas: :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is out of its range.
    References: Dozat (2016), "Incorporating Nesterov momentum into Adam".
    """
    return pyro_optim(NAdam, lr, **_checked(betas, eps))


def clipped_adam(lr: Rate = 1e-3, clip: float = 10.0, betas: Betas = (0.9, 0.999), eps: float = 1e-8) -> PyroOptim:
    r"""Pyro's Adam of a gradient that is clipped, each coordinate by itself.

    .. math:: \theta_t = \theta_{t-1} - \eta\, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \,
        \frac{m_t}{\sqrt{v_t} + \epsilon}

    with :math:`m_t, v_t` as in :func:`adam`, of :math:`\max(-c, \min(c, g_t))` in the place of :math:`g_t`. Clipping
    turns the gradient; ``fit(clip_norm=...)`` shortens all of it together.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        clip: :math:`c`, in nats summed over a batch, as the losses are: twice the rows, twice the clip.
        betas: :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
        eps: :math:`\epsilon`, in nats of a batch.

    Raises: ValueError if a number is out of its range.
    References: Kingma and Ba (2015), as :func:`adam`, the order of computation at the end of section 2; Pyro's
        ``ClippedAdam``.
    """
    positive(clip=clip)
    return pyro_optim(ClippedAdam, lr, clip_norm=clip, **_checked(betas, eps))


def _checked(betas: Betas, eps: float) -> dict[str, Any]:
    coefficients(betas)
    positive(eps=eps)
    return {"betas": tuple(betas), "eps": eps}
