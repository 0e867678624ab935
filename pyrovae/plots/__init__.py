"""Pictures of what is learned; each function returns a matplotlib ``Figure`` and touches no global state.

matplotlib is imported when a picture is drawn, and never its ``pyplot``.
"""

from pyrovae.plots.comparison import Portrait, comparison
from pyrovae.plots.pictures import code_histograms, image_grid, loss_curves, prior_samples, reconstructions

__all__ = [
    "Portrait",
    "code_histograms",
    "comparison",
    "image_grid",
    "loss_curves",
    "prior_samples",
    "reconstructions",
]
