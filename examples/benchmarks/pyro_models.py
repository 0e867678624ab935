"""Seconds of a step on Pyro's own models: ``pyrovae.SVI`` beside ``pyro.infer.SVI``, with the same objective of Pyro.

Model, guide, objective and optimizer are those of Pyro's examples and tutorials, on data that are drawn here:

- linear regression: ``PyroModule[nn.Linear]`` with ``PyroSample`` priors, ``AutoNormal``;
- eight schools, with the guide of the example;
- a sparse Gaussian process: ``VariationalSparseGP`` on minibatches by ``set_data``;
- ``sparse_gamma_def``: three layers of Gamma variables, with its own guide, optimizer and clamped parameters;
- a Bayesian neural network: two hidden layers of weights, ``AutoNormal``;
- latent Dirichlet allocation and a hidden Markov model, their discrete sites summed by ``TraceEnum_ELBO``.

Compiling takes the seconds of the last but one column, which the last one turns into steps: after so many steps it is
earned back. The last line is the largest of the ratios.

    python examples/benchmarks/pyro_models.py [--only "eight schools"] [--rounds 15] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import side_by_side as bench
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

import pyrovae as pv

Step = Callable[[Callable[..., float]], float]  # takes svi.step


class Problem:
    """What one row trains: the arguments of an SVI, and what the user's loop does in each turn."""

    def __init__(self, model: Any, guide: Any, optim: Any, loss: Any, step: Step) -> None:
        self.svi = model, guide, optim, loss
        self.step = step


def adam(lr: float = 1e-2) -> Any:
    return pyro.optim.Adam({"lr": lr})


def linear_regression() -> Problem:
    x = torch.randn(170, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 9.0 + 0.3 * torch.randn(170)

    class Regression(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.linear = PyroModule[nn.Linear](3, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
            self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
            mean = self.linear(x).squeeze(-1)
            with pyro.plate("data", x.shape[0]):
                pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
            return mean

    model = Regression()
    return Problem(model, AutoNormal(model), adam(), Trace_ELBO(), lambda step: step(x, y))


def eight_schools() -> Problem:
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model(y: Tensor, sigma: Tensor) -> None:
        with pyro.plate("data", 8):
            eta = pyro.sample("eta", dist.Normal(torch.zeros(8), torch.ones(8)))
            mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 10 * torch.ones(1)))
            tau = pyro.sample("tau", dist.HalfCauchy(scale=25 * torch.ones(1)))
            pyro.sample("obs", dist.Normal(mu + tau * eta, sigma), obs=y)

    def guide(y: Tensor, sigma: Tensor) -> None:
        params = {}
        for name, size in (("eta", 8), ("mu", 1), ("logtau", 1)):
            loc = pyro.param(f"loc_{name}", torch.randn(size))
            scale = pyro.param(f"scale_{name}", 0.1 * torch.rand(size), constraint=constraints.positive)
            params[name] = loc, scale
        tau = dist.TransformedDistribution(dist.Normal(*params["logtau"]), [dist.transforms.ExpTransform()])
        with pyro.plate("data", 8):
            pyro.sample("eta", dist.Normal(*params["eta"]))
            pyro.sample("mu", dist.Normal(*params["mu"]))
            pyro.sample("tau", tau)

    return Problem(model, guide, adam(), Trace_ELBO(), lambda step: step(y, sigma))


def sparse_gp() -> Problem:
    torch.set_default_dtype(torch.float64)  # in float32 rounding grows from step to step, in Pyro's step as well
    x = 5 * torch.rand(1000)
    y = 0.5 * torch.sin(3 * x) + 0.2 * torch.randn(1000)
    kernel = gp.kernels.RBF(input_dim=1, variance=torch.tensor(5.0), lengthscale=torch.tensor(1.0))
    inducing, noise = torch.linspace(0, 5, 20), gp.likelihoods.Gaussian(variance=torch.tensor(0.1))
    process = gp.models.VariationalSparseGP(x, y, kernel, inducing, noise, num_data=1000, whiten=True, jitter=1e-4)

    def turn(step: Callable[..., float]) -> float:
        rows = torch.randint(1000, (100,))
        process.set_data(x[rows], y[rows])
        return step()

    return Problem(process.model, process.guide, adam(), Trace_ELBO(), turn)


def sparse_gamma_def() -> Problem:
    sizes, num = {"top": 100, "mid": 40, "bottom": 15}, 320
    pixels, w_sizes = 64 * 64, {"top": 100 * 40, "mid": 40 * 15, "bottom": 15 * 64 * 64}
    x = torch.poisson(10 * torch.rand(num, 1) * torch.rand(1, pixels))
    of_z, of_w = (torch.tensor(0.1), torch.tensor(0.1)), (torch.tensor(0.1), torch.tensor(0.3))

    def model(x: Tensor) -> None:
        w = {}
        for layer, size in w_sizes.items():
            with pyro.plate(f"w_{layer}_plate", size):
                w[layer] = pyro.sample(f"w_{layer}", dist.Gamma(*of_w))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z_top", dist.Gamma(*of_z).expand([sizes["top"]]).to_event(1))
            mean = z @ w["top"].reshape(100, 40)
            z = pyro.sample("z_mid", dist.Gamma(of_z[0], of_z[1] / mean).to_event(1))
            mean = z @ w["mid"].reshape(40, 15)
            z = pyro.sample("z_bottom", dist.Gamma(of_z[0], of_z[1] / mean).to_event(1))
            pyro.sample("obs", dist.Poisson(z @ w["bottom"].reshape(15, pixels)).to_event(1), obs=x)

    def gamma(name: str, shape: tuple[int, ...]) -> dist.Gamma:
        alpha = pyro.param(f"alpha_{name}", lambda: 0.5 + 0.1 * torch.randn(shape))
        mean = pyro.param(f"mean_{name}", lambda: 0.1 * torch.randn(shape))
        alpha, mean = softplus(alpha), softplus(mean)
        return dist.Gamma(alpha, alpha / mean)

    def guide(x: Tensor) -> None:
        for layer, size in w_sizes.items():
            with pyro.plate(f"w_{layer}_plate", size):
                pyro.sample(f"w_{layer}", gamma(f"w_{layer}", (size,)))
        with pyro.plate("data", len(x)):
            for layer, size in sizes.items():
                pyro.sample(f"z_{layer}", gamma(f"z_{layer}", (num, size)).to_event(1))

    def turn(step: Callable[..., float]) -> float:
        loss = step(x)
        for layer in sizes:
            for kind in "wz":
                for name, least in (("alpha", -2.5), ("mean", -4.5)):
                    pyro.param(f"{name}_{kind}_{layer}").data.clamp_(min=least)
        return loss

    optim = pyro.optim.AdagradRMSProp({"eta": 4.5, "t": 0.1})
    return Problem(model, guide, optim, TraceMeanField_ELBO(), turn)


def bayesian_network() -> Problem:
    x = torch.randn(200, 8)
    y = torch.tanh(x @ torch.randn(8)) + 0.1 * torch.randn(200)

    class Network(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            for i, (m, n) in enumerate(((8, 50), (50, 50), (50, 1))):
                layer = PyroModule[nn.Linear](m, n)
                layer.weight = PyroSample(dist.Normal(0.0, m**-0.5).expand([n, m]).to_event(2))
                layer.bias = PyroSample(dist.Normal(0.0, 1.0).expand([n]).to_event(1))
                setattr(self, f"layer_{i}", layer)

        def forward(self, x: Tensor, y: Tensor) -> None:
            mean = self.layer_2(torch.tanh(self.layer_1(torch.tanh(self.layer_0(x))))).squeeze(-1)
            sigma = pyro.sample("sigma", dist.Gamma(0.5, 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("obs", dist.Normal(mean, sigma), obs=y)

    model = Network()
    return Problem(model, AutoNormal(model, init_scale=0.01), adam(), Trace_ELBO(), lambda step: step(x, y))


def latent_dirichlet_allocation() -> Problem:
    topics, words, docs, length, batch = 8, 256, 200, 32, 32
    data = torch.randint(words, (length, docs))
    predictor = nn.Sequential(nn.Linear(words, 50), nn.Sigmoid(), nn.Linear(50, topics), nn.Softmax(-1))

    def model(data: Tensor) -> None:
        with pyro.plate("topics", topics):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0 / topics, 1.0))
            topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(words) / words))
        with pyro.plate("documents", docs) as rows:
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", length):
                topic = pyro.sample("topic", dist.Categorical(doc_topics), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(topic_words[topic]), obs=data[:, rows])

    def guide(data: Tensor) -> None:
        weights = pyro.param("weights_q", lambda: torch.ones(topics), constraint=constraints.positive)
        of_words = pyro.param("words_q", lambda: torch.ones(topics, words), constraint=constraints.greater_than(0.5))
        with pyro.plate("topics", topics):
            pyro.sample("topic_weights", dist.Gamma(weights, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(of_words))
        pyro.module("predictor", predictor)
        with pyro.plate("documents", docs, batch) as rows:
            counts = torch.zeros(words, batch).scatter_add(0, data[:, rows], torch.ones(length, batch))
            pyro.sample("doc_topics", dist.Delta(predictor(counts.t()), event_dim=1))

    optim, loss = pyro.optim.ClippedAdam({"lr": 1e-2}), TraceEnum_ELBO(max_plate_nesting=2)
    return Problem(model, guide, optim, loss, lambda step: step(data))


def hidden_markov_model() -> Problem:
    states, notes, steps, num = 8, 20, 16, 16
    data = (torch.rand(num, steps, notes) < 0.3).float()

    def model(data: Tensor) -> None:
        of_x = pyro.sample("of_x", dist.Dirichlet(8 * torch.eye(states) + 1.5).to_event(1))
        of_y = pyro.sample("of_y", dist.Beta(1.5, 3.0).expand([states, notes]).to_event(2))
        tones = pyro.plate("tones", notes, dim=-1)
        with pyro.plate("sequences", num, dim=-2):
            x = 0
            for t in pyro.markov(range(steps)):
                x = pyro.sample(f"x_{t}", dist.Categorical(of_x[x]), infer={"enumerate": "parallel"})
                with tones:
                    pyro.sample(f"y_{t}", dist.Bernoulli(of_y[x.squeeze(-1)]), obs=data[:, t])

    guide = pyro.infer.autoguide.AutoDelta(
        pyro.poutine.block(model, expose=["of_x", "of_y"]),
    )
    return Problem(model, guide, adam(), TraceEnum_ELBO(max_plate_nesting=2), lambda step: step(data))


PROBLEMS: dict[str, tuple[Callable[[], Problem], float]] = {  # and the ratio to stay below
    "linear regression": (linear_regression, 0.07),
    "eight schools": (eight_schools, 0.09),
    "sparse Gaussian process": (sparse_gp, 0.14),
    "sparse_gamma_def": (sparse_gamma_def, 0.45),
    "Bayesian neural network": (bayesian_network, 0.3),
    "latent Dirichlet allocation": (latent_dirichlet_allocation, 0.5),
    "hidden Markov model": (hidden_markov_model, 0.5),
}


def contestant(turns: bench.Turns, name: str, compiled: bool) -> NoReturn:
    pyro.set_rng_seed(0)
    problem = PROBLEMS[name][0]()
    svi = partial(pv.SVI, compile=True)(*problem.svi) if compiled else SVI(*problem.svi)
    while True:
        loss = problem.step(svi.step)
        turns.parameters = sum(p.numel() for p in pyro.get_param_store()._params.values())
        turns(loss)


def main() -> None:
    parser = bench.arguments("Seconds of a step on Pyro's own models.")
    parser.add_argument("--only", default="", help="those models alone whose name has this in it")
    args = bench.parse(parser)
    names = [name for name in PROBLEMS if args.only in name]
    if not names:
        parser.error(f"--only {args.only!r} is in none of {', '.join(PROBLEMS)}")
    rows, ratios = [], []
    for name in names[: 1 if args.smoke else None]:
        ways = {"Pyro": False} if args.smoke else {"Pyro": False, "pyrovae": True}
        entered = {label: bench.Contestant(contestant, {"name": name, "compiled": way}) for label, way in ways.items()}
        measured = bench.compare(entered, args.rounds, threads=args.threads, smoke=args.smoke)
        bench.check_same(measured, tolerance=0.05)
        theirs, ours = measured["Pyro"], measured.get("pyrovae", measured["Pyro"])
        ratio = bench.ratio(ours, theirs)
        compiling = ours.start_up - theirs.start_up
        earned = compiling / (theirs.median - ours.median) if ours.median < theirs.median else float("inf")
        numbers = [
            f"{1e3 * theirs.median:.2f}",
            f"{1e3 * ours.median:.3f}",
            ratio,
            f"{compiling:.0f}",
            f"{earned:,.0f}",
        ]
        rows.append([name, *numbers])
        ratios.append(ratio.median)
    columns = ["model", "Pyro, ms", "pyrovae, ms", "ratio (quartiles)", "compiling, s", "earned back after steps"]
    bench.publish("pyro_models", "Pyro's own models", bench.markdown(columns, rows), args)
    print(f"seconds per step, pyrovae.SVI over pyro.infer.SVI, the largest: {max(ratios):.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
