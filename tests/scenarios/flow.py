"""Control flow of the model: what it branches on, loops, sites that come and go."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import SGD, Adam
from torch import nn

from scenarios.models import X, no_guide, observe, regression
from scenarios.rows import compiled, either, refused, twice

READS = r"reads the value|value of a tensor|depend"


@twice
def a_branch_on_the_number_of_rows(trial):
    svi = trial.svi(lambda x: regression(x, 1.0 if len(x) > 10 else 3.0))
    for i in range(4):
        trial.steps(svi, 6, X if i % 2 else X[:7])


@compiled
def a_branch_on_the_length_of_a_list(trial):
    history = []
    svi = trial.svi(lambda x: regression(x, 3.0 if len(history) > 2 else 1.0))
    for _ in range(5):
        trial.steps(svi, 4)
        history.append(1)


@compiled
def a_branch_on_a_class(trial):
    nets = [nn.Linear(3, 1)]

    def model(x):
        pyro.module("net", nets[0])
        out = nets[0](x)
        observe(out[:, 0] if isinstance(nets[0], nn.Linear) else out.sum(-1), x)

    svi = trial.svi(model, no_guide)
    trial.steps(svi, 8)
    nets[0] = nn.Sequential(nn.Linear(3, 2))
    trial.steps(svi, 8)


@refused(says=READS)
def a_branch_on_the_data(trial):
    svi = trial.svi(lambda x: regression(x, 1.0 if x.sum() > 0 else 3.0))
    for i in range(16):
        trial.step(svi, X if i % 2 else -X)


@refused(says=READS)
def a_branch_on_a_parameter(trial):
    def model(x):
        w = pyro.param("w", torch.zeros(3))
        observe(x @ w, x, 1.0 if w.abs().sum() < 0.5 else 3.0)

    trial.steps(trial.svi(model, no_guide), 20)


@refused(says=READS)
def a_branch_on_a_draw(trial):
    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        w = pyro.sample("w", dist.Normal(loc, 0.5).to_event(1))
        if w[0] > 0:
            pyro.factor("penalty", -w[0], has_rsample=True)

    trial.steps(trial.svi(regression, guide), 20)


@refused(says=READS)
def a_loop_while_a_tensor_is_large(trial):
    def model(x):
        size = x.abs().max()
        while size > 1:
            size = size / 2
        regression(x, size + 0.5)

    svi = trial.svi(model)
    for i in range(16):
        trial.step(svi, X * (1 + i))


@refused(says=READS)
def a_number_read_by_item(trial):
    def model(x):
        regression(x, round(x.abs().max().item(), 2))

    svi = trial.svi(model)
    for i in range(16):
        trial.step(svi, X * (1 + i / 4))


@either(says=READS + "|item")
def a_number_of_a_parameter_by_item(trial):
    def model(x):
        regression(x, 1.0 + pyro.param("loc", torch.zeros(3)).abs().sum().item())

    trial.steps(trial.svi(model, optim=Adam({"lr": 0.1})), 20)


@refused(says=READS + "|tolist")
def a_list_of_a_tensor(trial):
    svi = trial.svi(lambda x: regression(x, 1.0 + max(x[:, 0].abs().tolist())))
    for i in range(16):
        trial.step(svi, X * (1 + i / 4))


@refused(says=READS + "|numpy")
def an_array_of_a_tensor(trial):
    svi = trial.svi(lambda x: regression(x, 1.0 + float(x.numpy().std())))
    for i in range(16):
        trial.step(svi, X * (1 + i / 4))


@either(says=READS + "|shape|nonzero|mask|index")
def rows_that_are_chosen_by_their_values(trial):
    svi = trial.svi(lambda x: regression(x[x[:, 0] > 0]))
    for i in range(16):
        trial.step(svi, X.roll(i, 1) + i / 10)


@either(says=READS + "|assert")
def an_assertion_about_a_tensor(trial):
    def model(x):
        assert (x.abs() < 100).all(), "too large"
        regression(x)

    trial.steps(trial.svi(model), 16)


@compiled
def a_loop_of_another_length(trial):
    depth = {"layers": 1}

    def model(x):
        h = x @ pyro.param("w", torch.zeros(3))
        for _ in range(depth["layers"]):
            h = h + h.tanh()
        observe(h, x)

    svi = trial.svi(model, no_guide)
    for depth["layers"] in (1, 3, 2):
        trial.steps(svi, 7)


@compiled
def a_site_that_comes_and_goes(trial):
    config = {"more": False}

    def model(x):
        regression(x)
        if config["more"]:
            with pyro.plate("again", len(x)):
                pyro.sample("more", dist.Normal(pyro.param("m", torch.tensor(0.0)), 0.5), obs=x[:, 0])

    svi = trial.svi(model)
    for config["more"] in (False, True, False):
        trial.steps(svi, 8)


@either(says=READS + r"|in flow\.py|random|same|draw|site")
def sites_of_a_random_number(trial):
    """A geometric number of draws by recursion, as in Pyro's introduction."""

    def geometric(p, t=0):
        x = pyro.sample(f"x{t}", dist.Bernoulli(p), infer={"is_auxiliary": True})
        return 0.0 if x.item() == 1 else 1.0 + geometric(p, t + 1)

    def model(x):
        number = geometric(torch.tensor(0.5))
        observe(pyro.param("m", torch.tensor(0.0)) + number, x)

    def guide(x):
        geometric(pyro.param("p", torch.tensor(0.6), constraint=dist.constraints.unit_interval))

    trial.steps(trial.svi(model, guide, SGD({"lr": 1e-4})), 12)
