r"""Descent along the gradient: all of it, of batches, and with momentum.

Losses here are nats summed over a batch of B rows. The learning rate of these four is per datum: it is divided by
``batch_size``, so that with ``batch_size=B`` the gradient is the mean over the rows,

.. math:: g_t = \frac1B \sum_{n=1}^B \nabla \ell_n(\theta_t)

and the last, smaller batch of an epoch counts for its rows. :math:`\eta` is the learning rate.
"""

from __future__ import annotations

from pyro.optim import PyroOptim
from torch.optim import SGD

from pyrovae.optim.base import Rate, WholeSet, pyro_optim
from pyrovae.optim.numbers import positive, share

__all__ = ["gd", "momentum", "nesterov", "sgd"]


def gd(lr: Rate = 1e-2, batch_size: int = 1) -> PyroOptim:
    r"""Gradient descent: each step takes the whole set.

    .. math:: \theta_{t+1} = \theta_t - \eta\, \frac1N \sum_{n=1}^N \nabla \ell_n(\theta_t)

    ``pyrovae.fit`` refuses smaller batches: ``fit(vae, x, batch_size=None, optim=gd(0.05, batch_size=len(x)))``.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        batch_size: :math:`N`, the rows of the set.

    Raises: ValueError if ``lr`` is not positive.
    References: Cauchy (1847), "Méthode générale pour la résolution des systèmes d'équations simultanées".
    See also: :func:`sgd`.
    """
    return pyro_optim(WholeSet, lr, batch_size)


def sgd(lr: Rate = 1e-2, batch_size: int = 1) -> PyroOptim:
    r"""Stochastic gradient descent: each step takes a batch.

    .. math:: \theta_{t+1} = \theta_t - \eta\, g_t

    Args:
        lr: :math:`\eta`, or a schedule of it.
        batch_size: :math:`B`, the rows of a batch.

    Raises: ValueError if ``lr`` is not positive.
    References: Robbins and Monro (1951), "A stochastic approximation method".
    """
    return pyro_optim(SGD, lr, batch_size)


def momentum(lr: Rate = 1e-2, momentum: float = 0.9, batch_size: int = 1) -> PyroOptim:
    r"""Gradient descent with momentum, the heavy ball.

    .. math:: v_{t+1} = \mu v_t + g_t , \qquad \theta_{t+1} = \theta_t - \eta\, v_{t+1} , \qquad v_0 = 0

    Along a constant gradient a step grows to :math:`1 / (1 - \mu)` times that of :func:`sgd`.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        momentum: :math:`\mu`, in (0, 1).
        batch_size: :math:`B`, the rows of a batch.

    Raises: ValueError if a number is out of its range.
    References: Polyak (1964), "Some methods of speeding up the convergence of iteration methods"; Rumelhart, Hinton and
        Williams (1986), "Learning representations by back-propagating errors".
    """
    positive(momentum=momentum)
    share(momentum=momentum)
    return pyro_optim(SGD, lr, batch_size, momentum=momentum)


def nesterov(lr: Rate = 1e-2, momentum: float = 0.9, batch_size: int = 1) -> PyroOptim:
    r"""Nesterov's accelerated gradient: momentum that looks ahead.

    .. math:: v_{t+1} = \mu v_t + g_t , \qquad \theta_{t+1} = \theta_t - \eta\, (g_t + \mu v_{t+1}) , \qquad v_0 = 0

    The reference moves :math:`\theta'` by the gradient at :math:`\theta' - \eta \mu v`; these are its steps for the
    point ahead, :math:`\theta = \theta' - \eta \mu v`, at a constant learning rate.

    Args:
        lr: :math:`\eta`, or a schedule of it.
        momentum: :math:`\mu`, in (0, 1).
        batch_size: :math:`B`, the rows of a batch.

    Raises: ValueError if a number is out of its range.
    References: Nesterov (1983), "A method of solving a convex programming problem with convergence rate O(1/k^2)";
        Sutskever, Martens, Dahl and Hinton (2013), "On the importance of initialization and momentum in deep learning",
        eq. 3 and 4.
    """
    positive(momentum=momentum)
    share(momentum=momentum)
    return pyro_optim(SGD, lr, batch_size, momentum=momentum, nesterov=True)
