"""Data whose codes are known: sparse features, subspaces and curved manifolds, bars, sparse sources."""

from pyrovae.data.synthetic.bars import Bars
from pyrovae.data.synthetic.features import SparseFeatures, linear_probabilities, zipf_probabilities
from pyrovae.data.synthetic.generators import Batch, Stream, Synthetic
from pyrovae.data.synthetic.sources import SparseSources
from pyrovae.data.synthetic.subspaces import Manifolds, Subspaces

__all__ = [
    "Bars",
    "Batch",
    "Manifolds",
    "SparseFeatures",
    "SparseSources",
    "Stream",
    "Subspaces",
    "Synthetic",
    "linear_probabilities",
    "zipf_probabilities",
]
