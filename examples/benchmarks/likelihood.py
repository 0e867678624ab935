"""Log-likelihood by importance sampling: ``pv.metrics.log_likelihood`` beside the ``get_nll`` of pythae; its memory.

Both have the same weights, those of five epochs of 784-400-50 on 2,000 data, and 5,000 draws for each datum; their
means over the first data must agree to 1 %. pyrovae takes 1,000 data in one call, which compiles its passes each time.
pythae takes one datum after the other, 20 in a turn, in batches of draws: its default of 100, and 1,000; gradients are
off, which it does not do by itself. The second table has the peak memory of a fresh process against the number of draws
and of data. The last line is the ratio of the seconds.

    PYROVAE_DATA=~/data python examples/benchmarks/likelihood.py [--rounds 15] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

from typing import NoReturn

import side_by_side as bench
import torch
from models import SCALE_FLOOR, images, pyrovae, pythae
from torch import Tensor
from torch.nn import functional

import pyrovae as pv

SIZES = (784, 400, 50)
NUM_TRAIN = 2000
TURN = 20  # data of which the means are compared, and that pythae takes in a turn


def trained(turns: bench.Turns, epochs: int) -> pv.VAE:
    """The same weights in every process."""
    vae = pyrovae(SIZES)
    turns.parameters = sum(p.numel() for p in vae.parameters())
    if epochs:
        pv.fit(vae, images(NUM_TRAIN), epochs=epochs, seed=0, progress=False, compile=False)
    return vae


def pyrovae_likelihood(turns: bench.Turns, num_data: int, num_samples: int, epochs: int = 0) -> NoReturn:
    vae, x = trained(turns, epochs), images(NUM_TRAIN + num_data)[NUM_TRAIN:]
    while True:
        turns(-pv.metrics.log_likelihood(vae, x, num_samples)[:TURN].mean().item())


def pythae_likelihood(turns: bench.Turns, num_data: int, num_samples: int, epochs: int, batch_size: int) -> NoReturn:
    vae, x = trained(turns, epochs), images(NUM_TRAIN + num_data)[NUM_TRAIN:]
    guide = vae.posterior

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = guide.head(guide.network(x)).chunk(2, -1)
        return loc, 2 * (functional.softplus(raw) + SCALE_FLOOR).log()

    model = pythae(encode, vae.likelihood.network, SIZES)
    with torch.no_grad():
        while True:
            turns(-model.get_nll(x, num_samples, batch_size))  # which has the sign of a log-likelihood


def main() -> None:
    args = bench.parse(bench.arguments("Seconds and memory of a log-likelihood."))
    num_data, num_samples, epochs = (2, 100, 1) if args.smoke else (1000, 5000, 5)
    task = {"num_data": num_data, "num_samples": num_samples, "epochs": epochs}
    part = {**task, "num_data": min(TURN, num_data)}
    entered = {
        f"pythae, batches of {batch_size}": bench.Contestant(
            pythae_likelihood, {**part, "batch_size": batch_size}, ("pythae.models",)
        )
        for batch_size in ((100,) if args.smoke else (100, 1000))
    }
    entered["pyrovae"] = bench.Contestant(pyrovae_likelihood, task)
    measured = bench.compare(entered, args.rounds, threads=args.threads, warm_up=1, steps=1, smoke=args.smoke)
    bench.check_same(measured, tolerance=0.01)
    for label, times in measured.items():
        times.seconds = [seconds / entered[label].options["num_data"] for seconds in times.seconds]  # of one datum
    base, first = next(iter(measured.items()))
    rows = [
        [label, f"{t.median * 1000:.1f}", bench.ratio(t, first), f"{t.peak:.0f}", f"{-t.loss:.2f}"]
        for label, t in measured.items()
    ]
    columns = ["", "seconds for 1,000 data", "over the first (quartiles)", "peak memory, MB", "nats per datum"]
    table = bench.markdown(columns, rows)

    grid = [(2, 10)] if args.smoke else [(100, 50), (100, 500), (100, 5000), (1000, 50), (10_000, 50)]
    rows = []
    for data, draws in grid:
        one = {"": bench.Contestant(pyrovae_likelihood, {"num_data": data, "num_samples": draws})}
        times = bench.compare(one, 1, threads=args.threads, warm_up=1, steps=1, smoke=args.smoke)[""]
        rows.append([f"{data:,}", f"{draws:,}", f"{times.seconds[0]:.2f}", f"{times.peak:.0f}"])
    memory = bench.markdown(["data", "draws of each", "seconds", "peak memory, MB"], rows)
    title = f"Log-likelihood with {num_samples:,} draws"
    bench.publish("likelihood", title, f"{table}\n\n{memory}", args)
    print(f"seconds, pyrovae over {base}: {bench.ratio(measured['pyrovae'], first).median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
