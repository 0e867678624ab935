"""The losses of the two players against divergences of known Gaussians and slopes by hand."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from scipy.integrate import quad
from torch import nn

from pyrovae.adversarial import LOSSES, GameLoss, Minimax, NonSaturating, Wasserstein

SHIFT = 1.3
NUM = 1_000_000


def jensen_shannon(shift):
    """Of N(0, 1) and N(shift, 1), by quadrature."""
    p, q = st.norm(0, 1), st.norm(shift, 1)

    def part(law):
        def integrand(x):
            mixture = np.logaddexp(p.logpdf(x), q.logpdf(x)) - math.log(2)
            return law.pdf(x) * (law.logpdf(x) - mixture)

        return quad(integrand, -12, 12 + shift, epsabs=1e-12)[0]

    return (part(p) + part(q)) / 2


def best(x):
    """The best critic of N(0, 1) against N(SHIFT, 1): the difference of their log-densities."""
    return SHIFT**2 / 2 - SHIFT * x


def draws(seed=0, num=NUM):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num, generator=generator, dtype=torch.float64) for _ in range(2))


def standard_error(per_row):
    return per_row.std() / len(per_row) ** 0.5


def test_minimax_at_the_best_critic_is_twice_jensen_shannon_less_two_logs():
    """Within 5 standard errors of a million draws: a false alarm once in 10^6."""
    x, noise = draws()
    real, fake = best(x), best(noise + SHIFT)
    exact = jensen_shannon(SHIFT)
    value = -Minimax().critic(real, fake)
    error = (
        standard_error(-nn.functional.softplus(-real)) ** 2 + standard_error(nn.functional.softplus(fake)) ** 2
    ) ** 0.5
    assert abs(value - (2 * exact - 2 * math.log(2))) <= 5 * error < 0.01
    for loss in (Minimax(), NonSaturating()):
        assert abs(loss.divergence(real, fake) - exact) <= 2.5 * error


def test_every_other_critic_bounds_jensen_shannon_from_below():
    x, noise = draws()
    exact = jensen_shannon(SHIFT)
    for other in (lambda x: 0.7 * best(x), lambda x: best(x) + 0.3, lambda x: torch.zeros_like(x)):
        assert Minimax().divergence(other(x), other(noise + SHIFT)) < exact - 0.005


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        # by the envelope theorem the critic may be held; of the other, theorem 2.5 of Arjovsky and Bottou (2017)
        (Minimax(), lambda h: 2 * (jensen_shannon(SHIFT + h) - jensen_shannon(SHIFT - h)) / (2 * h)),
        (
            NonSaturating(),
            lambda h: (
                SHIFT - 2 * (jensen_shannon(SHIFT + h) - jensen_shannon(SHIFT - h)) / (2 * h)
            ),  # KL is SHIFT^2 / 2
        ),
    ],
    ids=["minimax", "non-saturating"],
)
def test_the_generators_gradient_at_the_best_critic_is_that_of_the_divergence(loss, slope):
    """Within 5 standard errors of a million draws, and they are below 1 % of the slope."""
    _, noise = draws(1)
    shifts = torch.full((NUM,), SHIFT, dtype=torch.float64, requires_grad=True)
    each = torch.autograd.grad(loss.generator(best(noise + shifts)), shifts)[0] * NUM
    assert abs(each.mean() - slope(1e-3)) <= 5 * standard_error(each)
    assert standard_error(each) < 0.01 * abs(slope(1e-3))


def test_wasserstein_of_shifted_gaussians_is_the_shift():
    x, noise = draws(2)
    loss = Wasserstein()
    real, fake = -x, -(noise + SHIFT)  # the best critic of slope one
    error = (standard_error(real) ** 2 + standard_error(fake) ** 2) ** 0.5
    assert abs(loss.divergence(real, fake) - SHIFT) <= 5 * error < 0.01
    assert loss.critic(real, fake) == -loss.divergence(real, fake)
    shift = torch.tensor(SHIFT, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(loss.generator(-(noise + shift)), shift)[0] == pytest.approx(1.0)


def test_a_trained_critic_finds_the_distance_and_what_the_penalty_leaves_of_it():
    """Two Gaussians of the plane, W = 5 apart. Of slopes s, s W - 10 (s - 1)^2 is largest at s = 1 + W / 20."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 1))
    optim = torch.optim.Adam(critic.parameters(), lr=0.01)
    loss, shift = Wasserstein(), torch.tensor([3.0, 4.0])

    def scores(x):
        return critic(x).flatten()

    for _ in range(400):
        real, fake = torch.randn(128, 2), torch.randn(128, 2) + shift
        optim.zero_grad()
        (loss.critic(scores(real), scores(fake)) + loss.penalty(scores, real, fake)).backward()
        optim.step()
    with torch.no_grad():
        found = loss.divergence(scores(torch.randn(20_000, 2)), scores(torch.randn(20_000, 2) + shift))
    assert found == pytest.approx(5.0 * (1 + 5.0 / 20), rel=0.05)


class Quadratic(nn.Module):
    """d(x) = x' A x / 2 + b' x, whose slope is A x + b."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        self.a = nn.Parameter(a + a.T)
        self.b = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("ni,ij,nj->n", x, self.a, x) / 2 + x @ self.b

    def slope(self, x):
        return x @ (self.a + self.a.T) / 2 + self.b


@pytest.mark.parametrize("loss", [Minimax(2.0), NonSaturating(2.0), Wasserstein(3.0)])
def test_slope_penalties_are_those_by_hand_and_so_are_their_gradients(loss):
    critic = Quadratic()
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    def penalty():
        torch.manual_seed(0)
        return loss.penalty(critic, real, fake)

    torch.manual_seed(0)
    u = torch.rand(7, 1, dtype=torch.float64)
    if isinstance(loss, Wasserstein):
        expected = 3.0 * (critic.slope(u * real + (1 - u) * fake).norm(dim=1) - 1).square().mean()
    else:
        expected = critic.slope(real).square().sum(1).mean()
    assert penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = torch.autograd.grad(penalty(), list(critic.parameters()))
    for parameter, gradient in zip(critic.parameters(), gradients, strict=True):
        for place in np.ndindex(*parameter.shape):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[place] += step
                values.append(penalty().item())
                with torch.no_grad():
                    parameter[place] -= step
            assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-6)


def test_a_flat_critic_has_a_finite_penalty_and_gradient():
    critic = Quadratic()
    with torch.no_grad():
        critic.a.zero_()
        critic.b.zero_()
    x = torch.ones(4, 3, dtype=torch.float64)
    penalty = Wasserstein().penalty(critic, x, x)
    assert penalty.item() == pytest.approx(10.0, rel=1e-5)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(penalty, list(critic.parameters())))


def test_scores_far_out_stay_finite():
    far = torch.tensor([-1e4, 1e4])
    for make in LOSSES.values():
        loss = make()
        for value in (loss.critic(far, far), loss.generator(far), loss.divergence(far, far)):
            assert torch.isfinite(value)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Minimax(slope_penalty=-1.0), "slope_penalty"),
        (lambda: Wasserstein(slope_penalty=0.0), "slope_penalty"),
        (lambda: NonSaturating(critic_steps=0), "critic_steps"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_a_loss_of_ones_own_says_what_it_lacks():
    scores = dist.Normal(0.0, 1.0).sample((3,))
    for call in (
        lambda g: g.critic(scores, scores),
        lambda g: g.generator(scores),
        lambda g: g.divergence(scores, scores),
    ):
        with pytest.raises(NotImplementedError, match="GameLoss must define"):
            call(GameLoss())
