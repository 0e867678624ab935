"""How fast models learn: the negative ELBO against epochs and against seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.plots.pictures import new_figure
from pyrovae.plots.rate_distortion import apart
from pyrovae.train import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["learning_curves"]

LINES = ("-", "--", ":")  # after ten colours
WIDE, FAR = 1.5, 2.5  # largest loss, and longest run, over the smallest, from which its axis is logarithmic


def learning_curves(models: Mapping[str, Sequence[History]]) -> Figure:
    """The validation loss, -ELBO, at the end of each epoch, against epochs and against seconds.

    A line is the mean over the runs of one model, which differ in their seeds; its band is from the least to the
    largest of them. The second panel has the mean of their seconds. Where a run stopped early the line ends with it.

    Args:
        models: The histories that :func:`pyrovae.fit` gives, one or more under each name.

    Units: nats per datum.
    Raises: ValueError without models, and for a history without validation losses.
    """
    if not models or not all(models.values()):
        raise ValueError("models must be one name or more, each with one history or more")
    curves = {name: (_columns(name, several, "val_loss"), _columns(name, several, "seconds"))
              for name, several in models.items()}  # fmt: skip
    figure = new_figure(10.0, max(3.8, 0.9 + 0.24 * len(models)))
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (losses, seconds) in enumerate(curves.values()):
        epochs = torch.arange(1, losses.shape[1] + 1)
        for axes, x in ((left, epochs), (right, seconds.mean(0))):
            style = {"color": f"C{number % 10}", "linestyle": LINES[number // 10 % len(LINES)]}
            marker = "o" if len(x) == 1 else ""
            axes.plot(x, losses.mean(0), linewidth=1.4, marker=marker, markersize=3, **style)
            axes.fill_between(x, losses.amin(0), losses.amax(0), color=style["color"], alpha=0.2, linewidth=0)
    several = max(len(losses) for losses, _ in curves.values()) > 1
    left.set_title("mean over seeds, band from least to largest" if several else "one seed", fontsize=9, loc="left")
    left.set(xlabel="epochs", ylabel="$-$ELBO of the validation set (nats per datum)")
    right.set(xlabel="seconds of training")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.locator_params(axis="x", integer=True)
    finite = torch.cat([losses[losses.isfinite()] for losses, _ in curves.values()])
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high / low > WIDE:
        left.set_yscale("log")
        _ticks(left.yaxis, low, high, (1, 2, 5) if high / low > 20 else (1, 1.2, 1.5, 2, 3, 5, 7))
    clocks = [seconds.mean(0) for _, seconds in curves.values()]
    if max(float(clock[-1]) for clock in clocks) > FAR * min(float(clock[-1]) for clock in clocks):
        right.set_xscale("log")
        first, last = min(float(clock[0]) for clock in clocks), max(float(clock[-1]) for clock in clocks)
        _ticks(right.xaxis, first, last, (1, 2, 5))
    _names(right, {name: float(_ends(losses)) for name, (losses, _) in curves.items()})
    return figure


def _columns(name: str, histories: Sequence[History], key: str) -> Tensor:
    """A row for each run, up to where the shortest stops; what is infinite is a gap."""
    length = min(len(history[key]) for history in histories)
    values = torch.tensor([history[key][:length] for history in histories], dtype=torch.double)
    if not bool(values.isfinite().any(1).all()):
        raise ValueError(f"models: {name!r} has a history without a {key} that is finite")
    return torch.where(values.isfinite(), values, torch.nan)


def _ends(losses: Tensor) -> Tensor:
    """The last mean that is a number."""
    means = losses.nanmean(0)
    return means[means.isfinite()][-1]


def _ticks(axis: Axis, low: float, high: float, digits: Sequence[float]) -> None:
    """Few round numbers, written out, on a logarithmic axis: of these digits."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.1 <= tick <= high * 1.1]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _names(axes: Axes, ends: Mapping[str, float]) -> None:
    """Names in a column to the right, in the order of the last losses, in the colours of their lines."""
    order = sorted(range(len(ends)), key=list(ends.values()).__getitem__)
    names = list(ends)
    axes.get_ylim()  # the limits are settled before places are read
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [float(to_axes.transform((1.0, ends[names[i]]))[1]) for i in order]
    heights = apart(places, gap=0.95 / max(len(names), 16))
    for i, y in zip(order, heights, strict=True):
        axes.text(1.04, y, f"{names[i]}  {ends[names[i]]:.1f}", color=f"C{i % 10}", fontsize=9, va="center",
                  transform=axes.transAxes)  # fmt: skip
