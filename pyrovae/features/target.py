"""A callback that holds the number of active latents at a target, by the noise scale."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae import metrics
from pyrovae.hyper import Constrained
from pyrovae.schema import check, number, whole
from pyrovae.train import Callback
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from pyrovae.train import Run

__all__ = ["TargetL0"]

LARGEST_STEP = 0.1  # of the logarithm of the noise scale; the dictionary has to follow
FASTER, SLOWER = 1.2, 0.5  # of a step after one to the same side, and after one to the other side
FAR = math.log(1.1)  # an L0 further from the target than this is said
TIMES = 100  # that it moves at most
MOST_ACTIVE = 0.99
DRAWS = 10  # of a guide whose gates have no exact probability
EVERY = 50  # steps of a stream, whose length is not known


class TargetL0(Callback):
    r"""Moves the noise scale until the mean number of active latents is a target.

    .. math:: L_0 = \frac1N \sum_n \sum_j q(z_j \ne 0 | x_n)

    The noise scale weighs the reconstruction against the price of a code: where it is larger, fewer latents are worth
    theirs. It starts where the model has it, and is no parameter during the run. Its logarithm moves up where L0 is
    above the target and down where it is below, by a step that grows by a fifth after one to the same side and is
    halved after one to the other side (Riedmiller and Braun, 1993). Learned activities of a spike-and-slab prior are
    multiplied by a common factor, so that their sum is the target: latents would else close each other, since each that
    closes makes the next one less likely.

    The bound on log p(x) is then that of a model with this noise, and below that of the noise which maximises it.
    Losses of two epochs are of two noises: with validation data, too, the run ends with the weights of its last epoch.

    Args:
        x: Training data, ``(N, *event_shape)``, of which at most 1,000 rows are used.
        target: Mean number of active latents per datum, above 0 and below the number of latents.
        seed: Of the rows of x.

    Attributes: ``l0`` and ``scale``, the mean noise scale, of the last measurement. ``summary()`` says both.

    Raises: TypeError at the start of the run for a model without a noise scale, or whose codes have no exact zeros;
        ValueError for a target that is not below the number of latents. A warning at the end says what L0 is where it
        is more than 10 % away from the target: between the floor of the scale and the root of the
        total variance of the data no noise has been found that has it.
    References: Riedmiller and Braun (1993), "A direct adaptive method for faster backpropagation learning: the RPROP
        algorithm".
    """

    l0 = scale = math.nan

    def __init__(self, x: Tensor, target: float, seed: int = 0) -> None:
        check("target", target, number(math.nextafter(0.0, 1.0), expected="a number above 0"))
        check("seed", seed, whole())
        if not isinstance(x, Tensor) or x.dim() < 2 or len(x) < 2:
            raise ValueError(f"x must be a tensor of at least two rows, got {getattr(x, 'shape', x)!r}")
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:1000]
        self.x, self.target = x[order.to(x.device)], float(target)
        self.most = float(x.flatten(1).double().var(0, correction=0).sum().sqrt())
        self._step, self._side = LARGEST_STEP, 0.0

    def check(self, vae: object) -> None:
        """Raise the error that a run of this model would raise."""
        self._measure(vae)

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint of a run keeps."""
        return {"step": self._step, "side": self._side}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Put back what :meth:`state_dict` returned."""
        self._step, self._side = float(state["step"]), float(state["side"])  # type: ignore[arg-type]  # by state_dict

    def on_fit_start(self, run: Run) -> None:
        self._measure(run.vae)
        _noise(run.vae).requires_grad_(False)
        run.trainer.comparable = False  # type: ignore[attr-defined]  # see Trainer

    def on_step_end(self, run: Run) -> None:
        steps = run.num_epochs * run.steps_per_epoch
        if run.step % (EVERY if math.isinf(steps) else max(1, int(steps / TIMES))):
            return
        self._measure(run.vae)
        side = math.copysign(1.0, self.l0 - self.target)
        if self._side:
            self._step = min(LARGEST_STEP, self._step * (FASTER if side == self._side else SLOWER))
        self._side = side
        noise = _noise(run.vae)
        scale = noise().detach() * math.exp(side * self._step)
        noise.start_at(scale.clamp(min=1.001 * noise.lower, max=self.most))
        active = getattr(getattr(run.vae, "prior", None), "active", None)
        if isinstance(active, Constrained) and hasattr(active, "raw"):
            value = active().detach()
            active.start_at((value * self.target / value.sum()).clamp(max=MOST_ACTIVE))

    def on_fit_end(self, run: Run) -> None:
        self._measure(run.vae)
        self._give_back(run)
        if not abs(math.log(max(self.l0, 1e-9) / self.target)) <= FAR:
            warnings.warn(f"target L0 {self.target:g} is not reached: {self.summary()}", stacklevel=2)

    def on_error(self, run: Run, error: BaseException) -> None:
        if not getattr(run.trainer, "comparable", True):  # the run had begun
            self._give_back(run)

    def summary(self) -> str:
        """For example ``"8.02 latents are active per datum at noise scale 0.31"``."""
        return f"{self.l0:.2f} latents are active per datum at noise scale {self.scale:.3g}"

    @staticmethod
    def _give_back(run: Run) -> None:
        _noise(run.vae).requires_grad_(True)
        run.trainer.comparable = True  # type: ignore[attr-defined]  # see Trainer

    @torch.no_grad()
    def _measure(self, vae: object) -> None:
        noise = _noise(vae)
        assert isinstance(vae, VAE)  # it has a noise
        probability, _ = metrics.nonzero_probability(vae, self.x.to(noise().device), DRAWS)
        if bool((probability == 1).all()):
            raise TypeError(f"TargetL0 needs codes with exact zeros, got the guide {type(vae.posterior).__name__}")
        if self.target >= probability.shape[1]:
            raise ValueError(f"target must be below the number of latents, {probability.shape[1]}, got {self.target:g}")
        self.l0 = float(probability.double().sum(1).mean())
        self.scale = float(noise().mean())


def _noise(vae: object) -> Constrained:
    likelihood = getattr(vae, "likelihood", None)
    noise = getattr(likelihood, "scale", None)
    if not isinstance(noise, Constrained) or not hasattr(noise, "raw"):
        kind = type(vae if likelihood is None else likelihood).__name__
        fixed = " with a fixed scale" if isinstance(noise, Constrained) else ""
        raise TypeError(f"TargetL0 needs the learned scale of a Normal or Laplace likelihood, got {kind}{fixed}")
    return noise
