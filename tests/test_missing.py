"""Data with holes: bounds on log p of what is observed, and the mean of what is missing, against closed forms."""

import math
import re

import numpy as np
import pyro
import pytest
import scipy.stats as st
import torch
from cases import Linear
from linear_gaussian import DIM, NOISE, linear_gaussian, marginal
from svi_runs import adam, losses, weights
from test_cli import desk, pyrovae, read, trained  # noqa: F401  # fixtures
from torch import nn

import pyrovae as pv
from pyrovae import guides, likelihoods, priors
from pyrovae.nn import MLP, Corrupted, Filled, Masking

NAN = math.nan
LATENT, WIDTH, COLUMNS, ROWS = 3, 5, 7, 6


@pytest.fixture(autouse=True)
def alone():
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_holes(x, prob=0.4, seed=7):
    return torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < prob, NAN, x)


MAKERS = {
    "normal": (lambda f: likelihoods.Normal(f, scale=0.7), lambda x: x),
    "normal, per pixel": (lambda f: likelihoods.Normal(f, scale="per-pixel"), lambda x: x),
    "laplace": (likelihoods.Laplace, lambda x: x),
    "bernoulli": (likelihoods.Bernoulli, lambda x: (x > 0).double()),
    "continuous-bernoulli": (likelihoods.ContinuousBernoulli, torch.sigmoid),
    "poisson": (likelihoods.Poisson, lambda x: (3 * x.abs()).floor()),
    "negative-binomial": (likelihoods.NegativeBinomial, lambda x: (3 * x.abs()).floor()),
}


def vae(likelihood, columns=COLUMNS, guide=guides.Normal, prior=priors.Normal, **options):
    torch.manual_seed(0)
    decoder, encoder = MLP(LATENT, [WIDTH], columns), MLP(columns, [WIDTH])
    part = likelihoods.Masked(MAKERS[likelihood][0](decoder))
    return pv.VAE(prior(LATENT, **options), part, guide(Filled(encoder), LATENT)).double()


def smaller(module, likelihood, columns):
    """The same model with these columns alone, and nothing that knows of holes."""
    decoder, encoder = MLP(LATENT, [WIDTH], len(columns)), MLP(len(columns), [WIDTH])
    part = MAKERS[likelihood][0](decoder)
    model = pv.VAE(priors.Normal(LATENT), part, guides.Normal(encoder, LATENT)).double()
    tensors = {
        name.replace("likelihood.likelihood", "likelihood").replace("posterior.network.network", "posterior.network"): t
        for name, t in module.state_dict().items()
        if not name.endswith("fill")
    }
    for name, tensor in model.state_dict().items():
        tensor.copy_(of_columns(tensors[name], tensor.shape, columns))
    return model


def of_columns(tensor, shape, columns):
    """What is left of a parameter, or of its gradient, without the columns that are gone."""
    for dim, size in enumerate(shape):
        if size != tensor.shape[dim]:
            tensor = tensor.index_select(dim, torch.tensor(columns))
    return tensor


# --- what it is: the model without the dimensions that are missing --------------------------------------------------


@pytest.mark.parametrize("likelihood", MAKERS)
def test_elbo_and_gradient_are_those_of_the_model_without_the_missing_dimensions(likelihood):
    module = vae(likelihood)
    x = with_holes(MAKERS[likelihood][1](normal(ROWS, COLUMNS)))
    x[0], x[1, 1:] = NAN, NAN  # nothing is observed; one number is
    for row in x[1:]:
        columns = [j for j in range(COLUMNS) if not row[j].isnan()]
        small = smaller(module, likelihood, columns)
        found = []
        for each, datum in ((module, row), (small, row[columns])):
            each.zero_grad()
            torch.manual_seed(1)
            loss = pv.ELBO().differentiable_loss(each.model, each.guide, datum[None])
            loss.backward()
            found.append((loss.item(), [p.grad for p in each.parameters()]))
        (loss, grads), (expected, theirs) = found
        assert loss == pytest.approx(expected, rel=1e-12)
        for grad, their in zip(grads, theirs, strict=True):
            torch.testing.assert_close(of_columns(grad, their.shape, columns), their, rtol=1e-10, atol=1e-13)
        total = sum(float(grad.square().sum()) for grad in grads)
        assert total == pytest.approx(sum(float(g.square().sum()) for g in theirs)), "the rest of the gradient is zero"
    nothing = pv.ELBO().loss(module.model, module.guide, x[:1])
    assert nothing == pytest.approx(pv.metrics.elbo(module, x[:1], 1).kl.item()), "of what is not seen only the KL"


@pytest.mark.parametrize("num", [1, 4])
def test_whole_data_have_the_density_they_had(num):
    for name, (_, support) in MAKERS.items():
        module, x = vae(name), support(normal(ROWS, COLUMNS))
        z = normal(num, 1, LATENT)
        whole, masked = module.likelihood.likelihood(z), module.likelihood(z)
        torch.testing.assert_close(masked.log_prob(x), whole.log_prob(x), rtol=1e-12, atol=0)
        assert masked.batch_shape == whole.batch_shape
        assert torch.equal(module.likelihood.mean(z), module.likelihood.likelihood.mean(z))
        expanded = masked.expand((2, num, ROWS))
        torch.testing.assert_close(expanded.log_prob(x)[1], masked.log_prob(x))
        torch.manual_seed(0)
        draws = expanded.sample()
        torch.manual_seed(0)
        assert torch.equal(draws, whole.expand((2, num, ROWS)).sample())
        assert torch.equal(masked.variance, whole.variance)
        assert (masked.support.check(with_holes(x))).all()
        assert masked.support.is_discrete == whole.support.is_discrete


def test_extreme_numbers_leave_no_nan_in_a_gradient():
    """A density that is infinite, or flat, at what a hole was filled with."""
    for name, (make, support) in MAKERS.items():
        for size in (-80.0, 80.0):
            out = torch.full((2, 3), size, requires_grad=True)
            x = support(torch.tensor([[0.5, NAN, -0.3], [NAN, NAN, NAN]]))
            x = torch.where(torch.tensor([[False, True, False], [True, True, True]]), NAN, x)
            likelihoods.Masked(make(Linear(3))).float()(out).log_prob(x.float()).sum().backward()
            assert torch.isfinite(out.grad).all(), name
            assert (out.grad[0, 1] == 0).all()
            assert (out.grad[1] == 0).all()


# --- the linear-Gaussian model, where all is known ------------------------------------------------------------------


HOLES = [0, 3, 4]
SEEN = [1, 2, 5]


def with_exact_posterior(wider=1.0):
    """x without HOLES: p(z|x_obs) = N(S W'(x_obs - b)/s², S), S = (I + W'W/s²)^-1 with the rows W of SEEN alone."""
    module = linear_gaussian()
    linear, head = module.likelihood.network.linear, module.posterior.head
    w = linear.weight[SEEN]
    covariance = torch.linalg.inv(torch.eye(DIM).double() + w.T @ w / NOISE**2)
    gain, tril = covariance @ w.T / NOISE**2, wider * torch.linalg.cholesky(covariance)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:DIM, SEEN] = gain
        head.bias[:DIM] = -gain @ linear.bias[SEEN]
        head.bias[DIM : 2 * DIM] = torch.log(torch.expm1(tril.diagonal() - guides.SCALE_FLOOR))
        head.bias[2 * DIM :] = tril[tuple(torch.tril_indices(DIM, DIM, -1))]
    module.posterior.network = Filled(module.posterior.network, fill=17.0).double()  # whose weights there are 0
    module.likelihood = likelihoods.Masked(module.likelihood)
    return module


def holed(module, num=5):
    torch.manual_seed(1)
    x = marginal_of(module).sample((num,))
    x[:, HOLES] = NAN
    return x


def marginal_of(module):
    class Parts:
        likelihood = module.likelihood.likelihood

    return marginal(Parts)


def test_every_bound_is_log_p_of_what_is_observed_at_the_exact_posterior():
    module = with_exact_posterior()
    x, p = holed(module), marginal_of(module)
    law = st.multivariate_normal(p.mean[SEEN].detach(), p.covariance_matrix[SEEN][:, SEEN].detach())
    expected = law.logpdf(x[:, SEEN].numpy())
    iwae = pv.IWAE(num_particles=2)
    with torch.no_grad():
        for values in (
            pv.metrics.elbo(module, x, 2).elbo,
            pv.metrics.log_likelihood(module, x, 3),
            -torch.stack(
                [torch.tensor(iwae.loss(module.model, module.guide, row[None]), dtype=torch.float64) for row in x]
            ),
        ):
            np.testing.assert_allclose(values.numpy(), expected, rtol=1e-10)


def test_impute_is_the_conditional_mean():
    """60 numbers within 6 standard errors of 30 repeats of 2,000 draws, under a guide 1.5 times too wide.

    With 29 degrees of freedom P(|t| > 6) = 1.6e-6: a false alarm once in 10^4.
    """
    module = with_exact_posterior(wider=1.5)
    x, p = holed(module, 20), marginal_of(module)
    mean, cov = p.mean.detach(), p.covariance_matrix.detach()
    gain = cov[HOLES][:, SEEN] @ torch.linalg.inv(cov[SEEN][:, SEEN])
    expected = mean[HOLES] + (x[:, SEEN] - mean[SEEN]) @ gain.T
    torch.manual_seed(2)
    repeats = pv.metrics.impute(module, x.repeat(30, 1), 2000).unflatten(0, (30, 20))
    assert torch.equal(repeats[0][:, SEEN], x[:, SEEN])
    got = repeats[..., HOLES]
    assert ((got.mean(0) - expected).abs() < 6 * got.std(0) / 30**0.5).all()
    one = pv.metrics.impute(module, x.repeat(30, 1), 1).unflatten(0, (30, 20))[..., HOLES]
    assert (one.std(0) > 10 * got.std(0)).all(), "so that the first line says something"


def test_impute_in_chunks_is_the_weighted_mean_by_hand(monkeypatch):
    module = with_exact_posterior(wider=1.5)
    x = holed(module, 4)
    monkeypatch.setattr("pyrovae.metrics.draws.CHUNK", 512 * len(x) * 3)  # three draws of a pass
    torch.manual_seed(3)
    got = pv.metrics.impute(module, x, 8)
    torch.manual_seed(3)
    log_w, means = [], []
    for k in draws_of(x, 8):
        q = module.posterior.distribution(x)
        z = q.sample((k,))
        p = module.likelihood(z)
        log_w.append(p.log_prob(x) + module.prior.distribution().log_prob(z) - q.log_prob(z))
        means.append(p.mean)
    w = torch.cat(log_w).softmax(0)
    expected = (w[..., None] * torch.cat(means)).sum(0)
    torch.testing.assert_close(got[:, HOLES], expected[:, HOLES].detach(), rtol=1e-10, atol=1e-12)
    assert len(draws_of(x, 8)) > 1


def draws_of(x, num_samples):
    ((_, draws),) = pv.metrics.draws.chunks(x, num_samples)
    return draws


def test_impute_takes_two_functions_and_whole_data():
    module = with_exact_posterior()
    x = holed(module)
    torch.manual_seed(4)
    expected = pv.metrics.impute(module, x, 50)
    torch.manual_seed(4)
    assert torch.equal(pv.metrics.impute((module.model, module.guide), x, 50), expected)
    assert torch.equal(pv.metrics.impute(module, expected, 5), expected)


def test_impute_refuses():
    module, x = vae("normal"), with_holes(normal(ROWS, COLUMNS))
    whole = pv.VAE(module.prior, module.likelihood.likelihood, module.posterior)
    with pytest.raises(ValueError, match=r"the value nan at index .* build_vae\(missing=True\) takes it"):
        pv.metrics.impute(whole, x)
    with pytest.raises(ValueError, match=r"num_samples must be at least 1, got 0"):
        pv.metrics.impute(module, x, 0)
    with pytest.raises(ValueError, match="is a point"):
        pv.metrics.impute(vae("normal", guide=guides.Delta), x)
    likelihood = likelihoods.Masked(likelihoods.Categorical(MLP(LATENT, [WIDTH], 2 * COLUMNS), 2)).double()
    with pytest.raises(ValueError, match="NaN for the mean of what is missing"):
        pv.metrics.impute(
            pv.VAE(module.prior, likelihood, module.posterior), torch.where(x.isnan(), NAN, (x > 0).double()), 5
        )


# --- in training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
def test_svi_compiles_it_with_the_losses_of_pyros(likelihood):
    def run(cls, **options):
        module = vae(likelihood).float()
        svi = cls(module.model, module.guide, adam(), pv.ELBO(), **options)
        batches = [with_holes(MAKERS[likelihood][1](normal(ROWS, COLUMNS, seed=i)).float(), seed=i) for i in range(8)]
        return losses(svi, batches), weights(module), svi

    (expected, theirs, _), (got, ours, svi) = run(pyro.infer.SVI), run(pv.SVI, compile=True)
    assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert svi.compilations == 1


@pytest.mark.parametrize("prior", ["spike-slab", "vamp", "beta-spike-slab", "horseshoe"])
def test_fit_and_measurements_take_holes(prior, tmp_path):
    x = with_holes(normal(80, COLUMNS)).float()
    torch.manual_seed(0)
    module = pv.build_vae(
        (COLUMNS,), 2, prior, "normal", hidden=(8,), missing=True, inputs=x, num_data=80, corrupt=None
    )
    pv.fit(module, x, epochs=2, val=x[:20], seed=0, progress=False)
    numbers = pv.metrics.evaluate(module, x, 50)
    finite = [v for v in numbers.values() if isinstance(v, float)]
    assert len(finite) > 8
    assert all(map(math.isfinite, finite))
    observed = ~x.isnan()
    assert numbers["bits_per_dimension"] == pytest.approx(
        -numbers["log_likelihood"] * 80 / (int(observed.sum()) * math.log(2)), rel=1e-5
    )
    error = (module.reconstruct(x) - x)[observed].square()
    assert pv.metrics.mean_squared_error(module, x[:1]).item() == pytest.approx(error[: int(observed[0].sum())].mean())
    pv.save(module, tmp_path)
    loaded = pv.load(tmp_path)
    assert isinstance(loaded.likelihood, likelihoods.Masked)
    assert torch.equal(loaded.encode(x), module.encode(x))


def test_holes_are_filled_before_the_encoder_is_damaged():
    x = with_holes(normal(ROWS, COLUMNS)).float()
    module = pv.build_vae((COLUMNS,), 2, "normal", "normal", hidden=(8,), missing=True, corrupt="masking:prob=0.3")
    network = module.posterior.network
    assert isinstance(network, Filled)
    assert isinstance(network.network, Corrupted)
    assert torch.isfinite(pv.ELBO().differentiable_loss(module.model, module.guide, x))


def test_what_diverges_is_not_blamed_on_holes():
    x = with_holes(normal(ROWS, COLUMNS)).float()
    module = vae("normal").float()
    with torch.no_grad():
        module.likelihood.network.layers[0].weight[0, 0] = NAN
    with pytest.raises(FloatingPointError) as caught:
        pv.fit(module, x, epochs=1, progress=False)
    assert "the data" not in str(caught.value)
    assert "layers.0.weight is NaN" in str(caught.value)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_filled_reads_a_constant_of_each_column_and_keeps_it():
    x = with_holes(normal(ROWS, COLUMNS)).float()
    encoder = MLP(COLUMNS, [WIDTH])
    filled = Filled(encoder, x.nanmean(0))
    assert torch.equal(filled(x), encoder(torch.where(x.isnan(), x.nanmean(0), x)))
    assert torch.equal(Filled(encoder)(x), encoder(x.nan_to_num()))
    assert set(filled.state_dict()) == {"fill", *(f"network.{name}" for name in encoder.state_dict())}
    assert filled.double()(x.double()).dtype == torch.float64
    assert (filled.in_shape, filled.out_features) == (encoder.in_shape, encoder.out_features)


def test_an_encoder_that_reads_nan_is_named_before_the_first_step():
    module, x = vae("normal"), with_holes(normal(ROWS, COLUMNS))
    module.posterior.network = module.posterior.network.network
    with pytest.raises(ValueError, match=r"guide: its code is NaN where the data are: nn\.Filled\(encoder\)"):
        pv.fit(module, x, epochs=1, progress=False)
    pv.fit(module, x.nan_to_num(), epochs=1, progress=False)


class Joint(likelihoods.Likelihood):
    """A likelihood of a user's own, whose dimensions are not independent."""

    def forward(self, z):
        return pyro.distributions.MultivariateNormal(self.output(z), torch.eye(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: likelihoods.Masked(MLP(2, [3], 4)), "likelihood must be a Likelihood of whole data"),
        (lambda: likelihoods.Masked(likelihoods.Masked(likelihoods.Normal(Linear(3)))), "of whole data, got Masked"),
        (lambda: likelihoods.Masked(likelihoods.Bernoulli(Linear(3)), fill=0.5), "fill must be a value that Bernoulli"),
        (lambda: likelihoods.Masked(Joint(Linear(3)))(torch.zeros(2, 3)), "MultivariateNormal are not independent"),
        (lambda: Filled(lambda x: x), "network must be a torch module"),
        (lambda: Filled(nn.Identity(), NAN), "fill must be finite"),
        (lambda: pv.build_vae((5,), 2, missing=1), "missing must be True or False, got 1"),
    ],
)
def test_bad_parts(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_text_has_no_holes():
    with pytest.raises(ValueError, match="none may be missing"):
        pv.build_vae((6,), 2, "normal", "autoregressive", network="gru", num_classes=3, missing=True)


def test_what_is_observed_is_checked():
    masked = likelihoods.Masked(likelihoods.Bernoulli(Linear(3)))
    masked.check(torch.tensor([[0.0, 1.0, NAN]]))
    for bad in (0.5, math.inf):
        with pytest.raises(ValueError, match=r"at index \(0, 2\) does not fit"):
            masked.check(torch.tensor([[0.0, NAN, bad]]))
    with pyro.validation_enabled(), pytest.raises(ValueError, match=r"within the support"):  # whatever ran before
        masked(torch.zeros(1, 3).double()).log_prob(torch.tensor([[0.0, NAN, 0.5]]))


def test_masking_hides_what_a_hole_does_not():
    """The two are not one: a damaged encoder sees zeros, and the likelihood scores what they hide."""
    x = normal(ROWS, COLUMNS)
    module = vae("normal")
    torch.manual_seed(0)
    hidden = Masking(0.5)(x)
    assert not torch.equal(
        pv.metrics.elbo(module, torch.where(hidden == 0, NAN, x)).elbo, pv.metrics.elbo(module, x).elbo
    )


# --- on the command line --------------------------------------------------------------------------------------------


def write_table(path, x):
    """NaN as an empty cell, under a header."""
    lines = [",".join("" if np.isnan(v) else f"{v:.9g}" for v in row) for row in x]
    path.write_text("\n".join([",".join(f"c{j}" for j in range(x.shape[1])), *lines]) + "\n")


TINY = "--epochs 2 --hidden 8 --latent-dim 2 --num-samples 5"


def test_a_table_with_empty_cells_from_fit_to_imputation(desk, monkeypatch, capsys):  # noqa: F811  # a fixture
    x = (5 + 3 * with_holes(normal(60, 4), prob=0.2)).numpy().astype(np.float32)
    write_table(desk / "holes.csv", x)
    np.save(desk / "holes.npy", x)
    share = np.isnan(x).mean()
    assert pyrovae(f"fit holes.csv --missing {TINY} --out out") == 0
    printed = capsys.readouterr().out
    assert "missing: " in printed
    assert "standardised" in printed
    config = read(desk / "out/config.json")
    assert config["model"]["missing"] is config["fit"]["missing"] is True
    assert config["model"]["likelihood"] == "normal"
    saved = config["data"]["standardization"]
    train = pv.data.from_file("holes.csv", missing=True).train
    np.testing.assert_allclose(saved["loc"], np.nanmean(train, 0), rtol=1e-5)
    np.testing.assert_allclose(saved["scale"], np.nanstd(train, 0), rtol=1e-5)
    assert pyrovae("evaluate out --num-samples 30") == 0
    assert read(desk / "out/metrics.json")["mean_squared_error"] > 0
    assert pyrovae("encode out") == 0
    assert np.isfinite(np.load(desk / "out/codes.npy")).all()

    capsys.readouterr()
    for file, name in (("", "out/imputed.npy"), ("holes.npy --out other.npy", "other.npy")):
        assert pyrovae(f"impute out {file} --num-samples 50 --seed 3") == 0
        assert f"60 rows, {np.isnan(x).sum()} missing values filled, {share:.1%} of all" in capsys.readouterr().out
        filled = np.load(desk / name)
        np.testing.assert_allclose(filled[~np.isnan(x)], x[~np.isnan(x)], rtol=1e-5)
        assert np.abs(filled[np.isnan(x)] - 5).max() < 20, "in the units of the data"
    # the table has nine digits of each number, the array all of them
    np.testing.assert_allclose(np.load(desk / "out/imputed.npy"), np.load(desk / "other.npy"), rtol=1e-6, atol=1e-6)

    np.save(desk / "bits.npy", np.where(np.isnan(x), np.nan, x > 5))
    assert pyrovae(f"compare bits.npy --missing --prior normal,spike-slab {TINY} --out both") == 0
    assert read(desk / "both/normal/config.json")["model"]["likelihood"] == "bernoulli"
    np.save(desk / "counts.npy", np.where(np.isnan(x), np.nan, np.abs(x).round().clip(0, 3)))
    assert pyrovae(f"fit counts.npy --missing --likelihood categorical {TINY} --out classes") == 0
    assert read(desk / "classes/config.json")["model"]["num_classes"] == 4


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit nan.csv --out out", "nan at index (3, 1), and 1 such values in all; missing=True, or --missing, takes"),
        ("fit infinite.npy --missing --out out", "infinite.npy has inf at index (4, 2)"),
        ("fit holes.csv --out out", "row 3 column 2 is not a number: ''; missing=True, or --missing, takes it"),
        ("fit words.csv --missing --out out", "row 3 column 2 is not a number: 'x'"),
        ("fit grey_holes.npy --missing --binarize static --out out", "has missing values, which are no probabilities"),
        ("impute run", "run 'run' has a model of whole data: pyrovae fit --missing"),
    ],
)
def test_errors_of_the_command_line(desk, capsys, command, message):  # noqa: F811  # a fixture
    (desk / "holes.csv").write_text("a,b\n1,2\n3,\n")
    (desk / "words.csv").write_text("a,b\n1,2\n3,x\n")
    grey = np.random.default_rng(0).random((40, 4))
    grey[0, 0] = NAN
    np.save(desk / "grey_holes.npy", grey)
    assert pyrovae(command) == 2
    assert message in capsys.readouterr().err


def test_a_column_that_is_never_observed_is_left_as_it_is():
    x = torch.tensor([[1.0, NAN, 2.0], [3.0, NAN, NAN]])
    scaled = pv.data.Standardization.of(x)
    assert scaled.loc.tolist() == [2.0, 0.0, 2.0]
    assert scaled.scale.tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(scaled.inverse(scaled(x)).float(), x, equal_nan=True)
    figure = pv.plots.column_histograms(x, torch.randn(100, 3))
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes if axes.get_visible()]
    assert max(heights[0]) > 0
    assert max(heights[1]) == 0
