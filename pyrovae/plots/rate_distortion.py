"""The plane of rate and distortion: what codes cost, and what they leave unsaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyrovae.metrics import RateDistortion
from pyrovae.plots.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Point", "apart", "draw_plane", "rate_distortion"]

Point = tuple[float, float]  # rate and distortion, means in nats per datum


def rate_distortion(models: Mapping[str, Sequence[RateDistortion]]) -> Figure:
    r"""Models in the plane of rate and distortion, each name a curve: one model, or several of different beta.

    The rate is :math:`KL(q(z|x) \,\|\, p(z))`, the distortion :math:`-E_q[\log p(x|z)]`, means over the data; their sum
    is the negative ELBO, which is higher the farther down and left a model lies. The lines are of equal ELBO. The
    points of one name are joined in the order of their rates.

    Args:
        models: What :func:`~pyrovae.metrics.rate_distortion` gives of each model, under the name of its curve.

    Units: nats per datum.
    References: Alemi et al. (2018), "Fixing a broken ELBO", figure 1.
    """
    if not models or not all(models.values()):
        raise ValueError("models must be one name or more, each with one model or more")
    curves = {
        name: sorted((float(m.rate.mean()), float(m.distortion.mean())) for m in several)
        for name, several in models.items()
    }
    figure = new_figure(7.5, max(3.6, 1.2 + 0.22 * len(models)))
    draw_plane(figure.subplots(), curves, [f"C{i % 10}" for i in range(len(models))])
    return figure


def draw_plane(axes: Axes, curves: Mapping[str, Sequence[Point]], colors: Sequence[str]) -> None:
    """Curves of points with their names beside; a name without points has no bound, and is left out."""
    shown = [(name, points, c) for (name, points), c in zip(curves.items(), colors, strict=True) if points]
    axes.set_title("Rate and distortion of the test set, with lines of equal ELBO (nats per datum)", fontsize=10)
    axes.set(xlabel="rate, KL of guide from prior (nats)", ylabel="distortion, $-E_q[\\log p(x|z)]$ (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    if not shown:
        axes.text(0.5, 0.5, "no model here has a bound on log p(x)", ha="center", transform=axes.transAxes)
        return
    rates, distortions = ([point[i] for _, points, _ in shown for point in points] for i in (0, 1))
    (x0, x1), (y0, y1) = _padded(rates), _padded(distortions)
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    _equal_elbo_lines(axes, (x0, x1), (y0, y1))
    # names stand in a column beside the ends of the curves, in their order and apart from each other
    ends = sorted(((points[-1], name, c) for name, points, c in shown), key=lambda end: end[0][1])
    heights = apart([(end[1] - y0) / (y1 - y0) for end, _, _ in ends], gap=0.95 / max(len(shown), 8))
    for _, points, color in shown:
        axes.plot(*zip(*points, strict=True), "o-", color=color, linewidth=1.0, zorder=3)
    for (end, name, color), y in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            end,
            xytext=(1.04, y),
            textcoords="axes fraction",
            color=color,
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.4, "linewidth": 0.6, "shrinkA": 2, "shrinkB": 4},
        )


def _padded(values: list[float]) -> tuple[float, float]:
    margin = 0.2 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _equal_elbo_lines(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = x[0] + y[0], x[1] + y[1]
    for level in MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high):
        if not low < level < high:
            continue
        axes.plot(x, [level - x[0], level - x[1]], color="0.87", linewidth=0.8, zorder=0, scalex=False, scaley=False)
        from_left = level - x[0] <= y[1]
        place = (x[0], level - x[0]) if from_left else (level - y[1], y[1])
        axes.annotate(
            f"ELBO {-level:g}".replace("-", "\N{MINUS SIGN}"),
            place,
            xytext=(3, 0) if from_left else (0, -2),
            textcoords="offset points",
            fontsize=7,
            color="0.5",
            va="center" if from_left else "top",
            annotation_clip=True,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )


def apart(places: list[float], gap: float) -> list[float]:
    """Sorted places, moved as little as they must to lie a gap apart within [0, 1]."""
    moved = list(places)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved[-1] = min(moved[-1], 1.0)
    for i in reversed(range(len(moved) - 1)):
        moved[i] = min(moved[i], moved[i + 1] - gap)
    return moved
