"""Rows per second of ``vae.encode`` and ``vae.sample``, beside plain PyTorch on the same network.

By hand, a code is the first half of what the encoder gives, and a draw is ``torch.bernoulli`` of what the decoder makes
of ``torch.randn``, both without gradients. 784-400-50, for several numbers of rows at a time. The last line is the time
of ``vae.encode`` over that by hand, for the most rows.

    python examples/benchmarks/throughput.py [--rounds 15] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

from typing import NoReturn

import side_by_side as bench
import torch
from models import images, pyrovae

SIZES = (784, 400, 50)


def encode(turns: bench.Turns, num_rows: int) -> NoReturn:
    vae, x = pyrovae(SIZES), images(num_rows)
    while True:
        turns(vae.encode(x)[0, 0].item())


def encode_by_hand(turns: bench.Turns, num_rows: int) -> NoReturn:
    vae, x = pyrovae(SIZES), images(num_rows)
    encoder = torch.nn.Sequential(vae.posterior.network, vae.posterior.head).eval()
    with torch.no_grad():
        while True:
            turns(encoder(x).chunk(2, -1)[0][0, 0].item())


def sample(turns: bench.Turns, num_rows: int) -> NoReturn:
    vae = pyrovae(SIZES)
    while True:
        turns(vae.sample(num_rows)[0, 0].item())


def sample_by_hand(turns: bench.Turns, num_rows: int) -> NoReturn:
    decoder = pyrovae(SIZES).likelihood.network.eval()
    with torch.no_grad():
        while True:
            turns(torch.bernoulli(decoder(torch.randn(num_rows, SIZES[-1])).sigmoid())[0, 0].item())


def main() -> None:
    args = bench.parse(bench.arguments("Rows per second of encode and sample."))
    rows, ratios = [], {}
    for ours, by_hand in ((sample, sample_by_hand), (encode, encode_by_hand)):
        for num_rows in (8,) if args.smoke else (1, 128, 10_000):
            pair = {
                "by hand": bench.Contestant(by_hand, {"num_rows": num_rows}),
                "ours": bench.Contestant(ours, {"num_rows": num_rows}),
            }
            measured = bench.compare(pair, args.rounds, threads=args.threads, warm_up=3, smoke=args.smoke)
            per_second = [f"{num_rows / times.median:,.0f}" for times in measured.values()]
            ratios[ours] = bench.ratio(measured["ours"], measured["by hand"])
            rows.append([f"`vae.{ours.__name__}`", f"{num_rows:,}", *per_second, ratios[ours]])
    columns = ["", "rows at a time", "rows per second by hand", "rows per second", "time over that by hand (quartiles)"]
    bench.publish("throughput", "Encoding and sampling", bench.markdown(columns, rows), args)
    print(f"seconds, vae.encode over by hand: {ratios[encode].median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
