"""Seconds of one training step: pyrovae beside PyTorch by hand, Pyro, NumPyro and pythae.

Every contestant trains the network that its row names, in float32, on the same batches, by Adam at 1e-3, and gives its
loss as a Python number at each step. Each is written as its users write it:

- PyTorch by hand: no distribution at all, the KL in closed form; eager, and with the loss under ``torch.compile`` and
  the fused Adam;
- Pyro: ``pyro.infer.SVI``, ``Trace_ELBO`` and ``pyro.optim.Adam``, with the validation that is Pyro's default;
- NumPyro: ``svi.update`` under ``jax.jit``, its state donated;
- pythae: its ``VAE``, and the step of its ``BaseTrainer``;
- pyrovae: ``pv.SVI`` with ``pv.ELBO()``, compiled or not, and compiled with matrix products in bfloat16.

Those of a row must have as many parameters and, after 200 steps, the same loss to 5 %. The last network has two priors
of pyrovae alone, the spike-and-slab beside the Normal. See ``side_by_side.py`` for how it is timed. The last line is of
the last network: a step of ``pv.SVI`` over one by hand, or of the spike-and-slab over one of the Normal.

    PYROVAE_DATA=~/data python examples/benchmarks/steps.py [--only "400-50, batch 128"] [--rounds 15] [--threads 1]
        [--write] [--smoke]
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import pyro
import side_by_side as bench
import torch
from models import SCALE_FLOOR, ByHand, Halves, Pyro, batches, networks, pyrovae, pythae
from pyro.infer import SVI, Trace_ELBO

import pyrovae as pv

SIZES: dict[str, dict[str, Any]] = {
    "10-16-2, batch 32": {"sizes": (10, 16, 2), "batch_size": 32},
    "784-400-50, batch 32": {"sizes": (784, 400, 50), "batch_size": 32},
    "784-400-50, batch 128": {"sizes": (784, 400, 50), "batch_size": 128},
    "784-400-50, batch 512": {"sizes": (784, 400, 50), "batch_size": 512},
    "conv 28×28, batch 128": {"sizes": (784, 256, 50), "batch_size": 128, "conv": True},
}
SPARSE = "784-400-400-64, batch 128"


def by_hand(
    turns: bench.Turns, sizes: Sequence[int], batch_size: int, conv: bool = False, compiled: bool = False
) -> NoReturn:
    model = ByHand(*networks(sizes, conv))
    turns.parameters = count(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=compiled)
    loss_of = torch.compile(model, fullgraph=True) if compiled else model
    for x in batches(sizes, batch_size, conv):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        turns(loss.item() / batch_size)


def pyro_svi(turns: bench.Turns, sizes: Sequence[int], batch_size: int, conv: bool = False) -> NoReturn:
    vae = Pyro(*networks(sizes, conv))
    turns.parameters = count(vae)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    for x in batches(sizes, batch_size, conv):
        turns(svi.step(x) / batch_size)


def pyrovae_svi(
    turns: bench.Turns,
    sizes: Sequence[int],
    batch_size: int,
    conv: bool = False,
    prior: str = "normal",
    compiled: bool = False,
    precision: str | None = None,
) -> NoReturn:
    vae = pyrovae(sizes, prior, conv)
    turns.parameters = count(vae)
    number = None if precision is None else getattr(torch, precision)
    optim = pyro.optim.Adam({"lr": 1e-3})
    svi = pv.SVI(vae.model, vae.guide, optim, pv.ELBO(), compile=compiled, precision=number)
    for x in batches(sizes, batch_size, conv):
        turns(svi.step(x) / batch_size)


def numpyro_svi(turns: bench.Turns, sizes: Sequence[int], batch_size: int) -> NoReturn:
    import jax
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax

    def mlp(widths: Sequence[int]) -> Any:
        layers = [layer for pair in pairwise(widths) for layer in (dense(*pair), stax.Relu)]
        return stax.serial(*layers[:-1])

    def dense(n_in: int, n_out: int) -> Any:
        def init(key: Any, shape: tuple[int, ...]) -> Any:
            return jax.random.uniform(key, shape, minval=-(n_in**-0.5), maxval=n_in**-0.5)

        return stax.Dense(n_out, init, init)

    *hidden, dim = sizes[1:]
    encoder, decoder = mlp([sizes[0], *hidden, 2 * dim]), mlp([dim, *hidden[::-1], sizes[0]])

    def model(x: Any) -> None:
        decode = numpyro.module("decoder", decoder, (batch_size, dim))
        with numpyro.plate("data", batch_size):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encode = numpyro.module("encoder", encoder, (batch_size, sizes[0]))
        with numpyro.plate("data", batch_size):
            loc, raw = jax.numpy.split(encode(x), 2, axis=-1)
            numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw) + SCALE_FLOOR).to_event(1))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.Trace_ELBO())
    passes = batches(sizes, batch_size)
    twenty = [jax.numpy.asarray(next(passes).numpy()) for _ in range(20)]
    state = svi.init(jax.random.key(0), twenty[0])
    turns.parameters = sum(leaf.size for leaf in jax.tree.leaves(svi.get_params(state)))
    update = jax.jit(svi.update, donate_argnums=0)
    while True:
        for x in twenty:
            state, loss = update(state, x)
            turns(float(loss) / batch_size)


def pythae_trainer(turns: bench.Turns, sizes: Sequence[int], batch_size: int) -> NoReturn:
    encoder, decoder = networks(sizes)
    model = pythae(Halves(encoder), decoder, sizes)
    turns.parameters = count(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for x in batches(sizes, batch_size):
        loss = model({"data": x}).loss  # BaseTrainer.train_step and _optimizers_step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        turns(loss.item())


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def contestants(smoke: bool, conv: bool = False, **size: Any) -> dict[str, bench.Contestant]:
    """Those of one size; the first is what the others are divided by."""
    if conv:
        size["conv"] = True
    compiled = {**size, "compiled": True}
    all_of_them = {
        "PyTorch by hand": bench.Contestant(by_hand, size),
        "PyTorch by hand, compiled": bench.Contestant(by_hand, compiled),
        "Pyro": bench.Contestant(pyro_svi, size),
        "NumPyro": bench.Contestant(numpyro_svi, size, ("jax.example_libraries", "numpyro.infer")),
        "pythae": bench.Contestant(pythae_trainer, size, ("pythae.models",)),
        "pyrovae": bench.Contestant(pyrovae_svi, size),
        "pyrovae, compiled": bench.Contestant(pyrovae_svi, compiled),
        "pyrovae, compiled, bfloat16": bench.Contestant(pyrovae_svi, {**compiled, "precision": "bfloat16"}),
    }
    left_out = {"NumPyro", "pythae"} if conv else set()
    return {
        label: contestant
        for label, contestant in all_of_them.items()
        if label not in left_out and not (smoke and "compiled" in label)
    }


def priors() -> dict[str, bench.Contestant]:
    """The spike-and-slab beside the Normal."""
    size = {"sizes": (784, 400, 400, 64), "batch_size": 128}
    entered = {}
    for ending, compiled in ((", compiled", True), ("", False)):
        for prior in ("normal", "spike-slab"):
            options = {**size, "prior": prior, "compiled": compiled}
            entered[f"{prior}{ending}"] = bench.Contestant(pyrovae_svi, options)
    return entered


def main() -> None:
    parser = bench.arguments("Seconds of a training step.")
    parser.add_argument("--only", default="", help="those sizes alone whose name has this in it")
    args = bench.parse(parser)
    names = [name for name in (*SIZES, SPARSE) if args.only in name][: 1 if args.smoke else None]
    if not names:
        parser.error(f"--only {args.only!r} is in none of {', '.join((*SIZES, SPARSE))}")
    rows = []
    for name in names:
        entered = priors() if name == SPARSE else contestants(args.smoke, **SIZES[name])
        measured = bench.compare(entered, args.rounds, threads=args.threads, smoke=args.smoke)
        for prior in ("normal", "spike-slab"):
            of_prior = {k: t for k, t in measured.items() if entered[k].options.get("prior", "normal") == prior}
            if of_prior:
                bench.check_same(of_prior, tolerance=0.05)
        first = next(iter(measured.values()))
        ours = next(measured[k] for k in ("pyrovae, compiled", "spike-slab, compiled", "pyrovae") if k in measured)
        for label, times in measured.items():
            milliseconds, cores = 1e3 * times.median, statistics.median(times.cores)
            ratios = [bench.ratio(times, first), bench.ratio(ours, times)]
            numbers = [f"{milliseconds:.3f}", *ratios, f"{times.start_up:.1f}", f"{cores:.2f}"]
            rows.append(["" if times is not first else name, label, *numbers])
    columns = [
        "network",
        "",
        "ms per step",
        "over the first (quartiles)",
        "pv.SVI compiled over it",
        "start-up, s",
        "CPU s/s",
    ]
    bench.publish("steps", "One training step", bench.markdown(columns, rows), args)
    mine, theirs = ("spike-slab, compiled", "normal, compiled") if name == SPARSE else ("pyrovae", "PyTorch by hand")
    if not args.smoke and name != SPARSE:
        mine, theirs = f"{mine}, compiled", f"{theirs}, compiled"
    print(f"seconds per step, {mine} over {theirs}: {bench.ratio(measured[mine], measured[theirs]).median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
