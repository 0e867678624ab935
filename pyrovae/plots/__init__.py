"""Pictures of what is learned; each function returns a matplotlib ``Figure`` and touches no global state.

``feature_report`` returns a page of HTML instead.

matplotlib is imported when a picture is drawn, and never its ``pyplot``.
"""

from pyrovae.plots.comparison import Portrait, comparison
from pyrovae.plots.decoders import decoder_atoms, traversals
from pyrovae.plots.diagnostics import importance_curve, kl_spectrum, sbc_ranks, spike_occupancy
from pyrovae.plots.features import feature_report
from pyrovae.plots.histograms import code_histograms, column_histograms, latent_density
from pyrovae.plots.learning_curves import learning_curves
from pyrovae.plots.pictures import image_grid, image_rows, loss_curves, prior_samples, reconstructions
from pyrovae.plots.rate_distortion import rate_distortion

__all__ = [
    "Portrait",
    "code_histograms",
    "column_histograms",
    "comparison",
    "decoder_atoms",
    "feature_report",
    "image_grid",
    "image_rows",
    "importance_curve",
    "kl_spectrum",
    "latent_density",
    "learning_curves",
    "loss_curves",
    "prior_samples",
    "rate_distortion",
    "reconstructions",
    "sbc_ranks",
    "spike_occupancy",
    "traversals",
]
