"""The estimator passes scikit-learn's own checks, works in its searches, and scores by the bound that it names."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import subprocess
import sys

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import data, linear_gaussian, marginal, set_exact_posterior
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyrovae as pv
from pyrovae import sklearn
from pyrovae.compilation import timings
from pyrovae.sklearn import VAETransformer


def small(latent_dim=2, **options):
    return VAETransformer(latent_dim, **{"hidden": (8,), "epochs": 2, "num_samples": 5, "random_state": 0, **options})


def factors(num=200, features=5):
    """Two factors, mixed into columns of unequal scales, and noise."""
    rng = np.random.default_rng(0)
    z, mixing = rng.normal(size=(num, 2)), rng.normal(size=(2, features))
    return (z @ mixing + 0.1 * rng.normal(size=(num, features))) * np.arange(1, features + 1)


X = factors()


@parametrize_with_checks(
    [small(), small(prior="spike-slab", likelihood="laplace", network="dictionary"), small(random_state=None)]
)
def test_scikit_learns_own_checks(estimator, check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it the check of array inputs is skipped
    check(estimator)


def test_a_search_in_a_pipeline_finds_the_number_of_factors():
    vae = small(network="dictionary", hidden=(32,), epochs=60, batch_size=32, lr=1e-2, num_samples=20)
    grid = {"vaetransformer__latent_dim": np.array([1, 2]), "vaetransformer__prior": ["normal", "laplace"]}
    search = GridSearchCV(make_pipeline(StandardScaler(), vae), grid, cv=2).fit(X)
    assert search.best_params_["vaetransformer__latent_dim"] == 2
    assert search.transform(X).shape == (len(X), 2)
    assert search.inverse_transform(search.transform(X)).shape == X.shape
    error = search.inverse_transform(search.transform(X)) - X
    assert (error.var(0) < 0.5 * X.var(0)).all()


def test_cross_validation_scores_the_rows_left_out():
    model, folds = small(), KFold(3)
    scores = cross_val_score(model, X, cv=folds)
    expected = [clone(model).fit(X[train]).score_samples(X[test]).mean() for train, test in folds.split(X)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def fitted_to(vae, features, **options):
    """An estimator whose VAE is this one."""
    model = small(**options).fit(np.zeros((2, features)))
    model.vae_ = vae
    return model


def test_the_score_is_log_p_where_the_guide_is_the_posterior():
    vae = linear_gaussian()
    set_exact_posterior(vae)
    x = data(vae)
    model = fitted_to(vae, x.shape[1])
    expected = marginal(vae).log_prob(x).detach().numpy()
    np.testing.assert_allclose(model.score_samples(x.numpy()), expected, rtol=1e-9)
    assert model.score(x.numpy()) == pytest.approx(expected.mean(), rel=1e-9)


def test_the_score_is_the_importance_weighted_bound():
    torch.manual_seed(0)
    vae = linear_gaussian(pv.guides.Normal)
    x = data(vae, 500)
    bound = {k: fitted_to(vae, x.shape[1], num_samples=k).score_samples(x.numpy()) for k in (1, 20)}
    for k, values in bound.items():
        torch.manual_seed(1)
        other = pv.metrics.log_likelihood(vae, x, num_samples=k).numpy()
        difference = values - other
        # two independent estimates: 4.5 standard errors have a false-alarm rate of 1e-5
        assert abs(difference.mean()) < 4.5 * difference.std() / math.sqrt(len(x))
    log_p = marginal(vae).log_prob(x).detach().numpy()
    assert bound[1].mean() < bound[20].mean() < log_p.mean()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_one_score_wherever_it_stands(dtype):
    rows = X[:10].astype(dtype)
    model = small().fit(X)
    scores = model.score_samples(rows)
    assert scores.dtype == dtype
    np.testing.assert_array_equal(model.score_samples(rows[::-1]), scores[::-1])
    np.testing.assert_array_equal(model.score_samples(np.repeat(rows[3:4], 4, axis=0)), scores[[3] * 4])
    assert model.set_params(num_samples=6).score_samples(rows)[0] != scores[0]


def test_the_draws_of_different_rows_are_independent():
    """Rows so alike that one noise for all of them would give equal scores; five draws of each vary by nats."""
    model = small(num_samples=1).fit(X)
    rows = X[:1] + 1e-9 * np.arange(50)[:, None]
    assert model.score_samples(rows).std() > 1e-3


def test_compiled_scores_are_the_same(monkeypatch, recorded):
    eager = small().fit(X).score_samples(X[:20])
    monkeypatch.setattr(timings, "SECONDS", 0.0)
    monkeypatch.setattr(timings, "RUNS", 0)
    compiled = small().fit(X).set_params(compile=None).score_samples(X[:20])
    np.testing.assert_allclose(compiled, eager, rtol=1e-10)


@pytest.fixture
def objectives(monkeypatch):
    """What each run of training descended on."""
    used, train = [], sklearn.fit
    monkeypatch.setattr(
        sklearn, "fit", lambda *args, loss, **rest: used.append(loss) or train(*args, loss=loss, **rest)
    )
    return used


def test_one_seed_gives_one_fit_and_leaves_other_draws_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = small().fit(X)
    scores, drawn = first.score_samples(X), first.sample(7)
    assert torch.equal(torch.rand(1), expected)
    second = small().fit(X)
    np.testing.assert_array_equal(second.transform(X), first.transform(X))
    np.testing.assert_array_equal(second.score_samples(X), scores)
    np.testing.assert_array_equal(second.sample(7), drawn)
    assert second.loss_curve_ == first.loss_curve_
    other = small(random_state=1).fit(X)
    assert not np.allclose(other.transform(X), first.transform(X))
    assert not np.allclose(other.score_samples(X), scores)


def test_a_random_state_is_drawn_from():
    state = np.random.RandomState(0)
    first, second = small(random_state=state).fit(X), small(random_state=state).fit(X)
    assert not np.allclose(first.transform(X), second.transform(X))
    assert not np.allclose(first.sample(3), first.sample(3))


@pytest.mark.parametrize("through_pickle", [False, True])
def test_partial_fit_goes_on_with_weights_and_optimizer(through_pickle):
    model = small(batch_size=64, random_state=3)
    model.partial_fit(X)
    vae, optim, seed = copy.deepcopy((model.vae_, model._optim, model._seed))
    if through_pickle:
        model = pickle.loads(pickle.dumps(model))
    model.partial_fit(X[:100])
    x = torch.tensor(X[:100], dtype=torch.float32)
    losses = pv.fit(vae, x, 1, 64, optim, seed=seed + 1, progress=False, compile=False)["train_loss"]
    assert model.loss_curve_[1:] == losses
    assert model.n_iter_ == 2
    for ours, theirs in zip(model.vae_.parameters(), vae.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    counts = {int(each.state[p]["step"]) for p, each in model._optim.optim_objs.items()}
    assert counts == {4 + 2}


def test_a_warmup_of_partial_fit_counts_passes(objectives):
    model = small(warmup=2, beta=4.0)
    for _ in range(3):
        model.partial_fit(X)
    assert [loss.beta(0) for loss in objectives] == [1.0, 3.0, 4.0]


def test_a_sparse_prior_is_warmed_up(objectives):
    small(prior="spike-slab", epochs=5).fit(X)
    small(epochs=5, beta=2.0).fit(X)
    assert [loss.beta(0) for loss in objectives] == [0.0, 2.0]
    assert objectives[0].beta.end == 4.0


@pytest.mark.parametrize(
    "options",
    [{}, {"prior": "vamp:num_components=4"}, {"prior": "flow"}, {"prior": "beta-spike-slab"}],
    ids=lambda options: options.get("prior", "normal"),
)
def test_a_pickled_one_is_the_same(options):
    model = small(**options).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    np.testing.assert_array_equal(again.score_samples(X[:5]), model.score_samples(X[:5]))
    np.testing.assert_array_equal(again.sample(5), model.sample(5))


def test_an_unpickled_one_trains_in_another_process(tmp_path):
    model = small().fit(X)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((model, X)))
    script = (
        "import pickle; model, X = pickle.load(open('model.pickle', 'rb'));"
        "before = model.transform(X); model.partial_fit(X); print(abs(model.transform(X) - before).max() > 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"


def test_fitted_models_leave_the_parameter_store_with_them():
    before = set(pyro.get_param_store().keys())
    model = small().fit(X)
    model.score_samples(X[:3])
    clone(model).fit(X)
    del model
    gc.collect()
    assert set(pyro.get_param_store().keys()) <= before


def test_bits_are_sampled_as_bits_and_codes_have_names():
    bits = (X > 0).astype(np.float32)
    model = small(3, likelihood="bernoulli").fit(bits)
    drawn = model.sample(20)
    assert drawn.shape == (20, X.shape[1])
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) <= {0.0, 1.0}
    assert list(model.get_feature_names_out()) == [f"vaetransformer{i}" for i in range(3)]
    assert model.score(bits) < 0
    np.testing.assert_allclose(model.transform(bits), model.vae_.encode(torch.tensor(bits)).numpy())


def test_another_optimizer_steps_as_a_copy():
    optim = pyro.optim.SGD({"lr": 1e-4})
    model = small(optim=optim).fit(X)
    assert not optim.optim_objs
    assert all(isinstance(each, torch.optim.SGD) for each in model._optim.optim_objs.values())


def test_an_optimizer_is_a_name_with_hyperparameters_as_of_fit():
    x = torch.tensor(X, dtype=torch.float32)
    named = small(optim="nesterov:momentum=0.8", lr=0.01).fit(X)
    built = small(optim=pv.optim.nesterov(0.01, momentum=0.8, batch_size=min(named.batch_size, len(x)))).fit(X)
    np.testing.assert_array_equal(named.transform(X), built.transform(X))


def test_gradient_descent_takes_all_rows_at_each_step():
    model = small(optim="gd", batch_size=7, epochs=3).fit(X)
    built = small(optim=pv.optim.gd(model.lr, batch_size=len(X)), batch_size=len(X), epochs=3).fit(X)
    np.testing.assert_array_equal(model.transform(X), built.transform(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"latent_dim": 2.5}, "latent_dim"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0.0}, "lr"),
        ({"beta": -1.0}, "beta"),
        ({"warmup": -1.0}, "warmup"),
        ({"warmup": 5}, "schedule of beta"),
        ({"hidden": 8}, "hidden"),
        ({"prior": "norml"}, "did you mean 'normal'"),
        ({"likelihood": "gauss"}, "unknown likelihood"),
        ({"likelihood": "bernoulli"}, "binarise"),
        ({"device": "nowhere"}, "device 'nowhere'"),
        ({"optim": "adma"}, "did you mean 'adam'"),
        ({"optim": "adam:momentum=0.9"}, "optimizer 'adam' has no option 'momentum'"),
        ({"optim": 1e-3}, "optim"),
        ({"random_state": "seed"}, "seed"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_is_fitted(options, message):
    model = small().set_params(**options)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X)
    assert not hasattr(model, "vae_")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.set_params(num_samples=0).score(X), "num_samples"),
        (lambda model: model.sample(0), "n_samples"),
        (lambda model: model.inverse_transform(X), "codes of 2 coordinates, got 5 columns"),
        (lambda model: model.fit(X * 1e300), "inf"),
    ],
)
def test_a_bad_call_is_one_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(small().fit(X))


def test_rows_where_there_is_no_density_are_refused():
    bits = (X > 0).astype(float)
    with pytest.raises(ValueError, match="binarise"):
        small(likelihood="bernoulli").fit(bits).score(bits + 0.5)


def test_shared_sites_are_for_fit():
    assert math.isfinite(small(prior="beta-spike-slab").fit(X).score(X))
    with pytest.raises(ValueError, match="num_data"):
        small(prior="beta-spike-slab").partial_fit(X)


def test_pyrovae_alone_loads_no_scikit_learn():
    script = "import sys, pyrovae; print(any(name.split('.')[0] == 'sklearn' for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
