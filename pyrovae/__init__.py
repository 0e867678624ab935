"""pyrovae: variational autoencoders as plain Pyro functions, with sparse and non-Gaussian priors.

The pipeline, in the order of the rooms::

    data         tensors in                         pv.data.digits().train
    nn           networks, tensors to tensors       pv.nn.MLP(64, [256])
    priors       p(z)                               pv.priors.Laplace(16)
    likelihoods  p(x|z)                             pv.likelihoods.Bernoulli(network)
    guides       q(z|x)                             pv.guides.Laplace(network, 16)
    vae          model(x) and guide(x) for Pyro     pv.VAE(prior, likelihood, guide)
    conditional  model(x, y) and guide(x, y)        pv.ConditionalVAE(..., num_labels=10)
    build        the same from names                pv.build_vae((64,), 16, prior="laplace")
    guards       is the pair right for the loss?    pv.check(vae.model, vae.guide, pv.ELBO(), x)
    objectives   bounds that Pyro's SVI descends    pv.ELBO(beta=pv.warmup(5))
    optim        optimizers, and rates that move    pv.optim.adam(lr=1e-3)
    infer        Pyro's SVI, compiled               pv.SVI(vae.model, vae.guide, optim, pv.ELBO())
    adversarial  a critic in the place of the KL    pv.GAN(prior, generator, critic)
    train        the loop around SVI                pv.fit(vae, x, epochs=50)
                 one model for each seed            pv.fit_many(make, x, seeds=range(10))
    features     atoms beyond gradients             pv.features.Moves(x)
    metrics      bounds and errors, per datum       pv.metrics.log_likelihood(vae, x)
    compression  lossless, by bits-back coding      pv.compression.compress(vae, x)
    plots        pictures                           pv.plots.reconstructions(vae, x)
    cli          pyrovae fit | evaluate | encode | sample | compare
"""

from pyrovae import (
    adversarial,
    build,
    compression,
    data,
    distributions,
    features,
    guards,
    guides,
    infer,
    likelihoods,
    metrics,
    nn,
    objectives,
    optim,
    plots,
    priors,
    train,
)
from pyrovae.adversarial import GAN, AdversarialAutoencoder
from pyrovae.build import build_vae, load, save
from pyrovae.conditional import ConditionalVAE
from pyrovae.guards import check
from pyrovae.infer import SVI
from pyrovae.objectives import (
    ELBO,
    IWAE,
    L1,
    L2,
    MMD,
    Capacity,
    DisARM,
    DReG,
    Exact,
    FreeBits,
    LeaveOneOut,
    Relaxed,
    Renyi,
    StickingTheLanding,
    StraightThrough,
    TotalCorrelation,
    constant,
    cyclical,
    warmup,
)
from pyrovae.train import fit, fit_many
from pyrovae.vae import VAE

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "GAN",
    "IWAE",
    "L1",
    "L2",
    "MMD",
    "SVI",
    "VAE",
    "AdversarialAutoencoder",
    "Capacity",
    "ConditionalVAE",
    "DReG",
    "DisARM",
    "Exact",
    "FreeBits",
    "LeaveOneOut",
    "Relaxed",
    "Renyi",
    "StickingTheLanding",
    "StraightThrough",
    "TotalCorrelation",
    "__version__",
    "adversarial",
    "build",
    "build_vae",
    "check",
    "compression",
    "constant",
    "cyclical",
    "data",
    "distributions",
    "features",
    "fit",
    "fit_many",
    "guards",
    "guides",
    "infer",
    "likelihoods",
    "load",
    "metrics",
    "nn",
    "objectives",
    "optim",
    "plots",
    "priors",
    "save",
    "train",
    "warmup",
]
