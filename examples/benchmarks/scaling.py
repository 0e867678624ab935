"""How a training step of ``pv.SVI`` grows with the code, with the pseudo-inputs of ``Vamp``, and with the data set.

784-400-D and batches of 128, compiled. D goes from 16 to 4,096 under a Normal and under a spike-and-slab prior;
``Vamp`` on 50 coordinates has 10 to 500 components; the data set has 1,000 to 50,000 rows, of which ``pv.data.batches``
cuts the batch, and should cost nothing. Each time is divided by that of the least of its kind, round by round. The
last line is the step at most coordinates over that at fewest, under the Normal.

    PYROVAE_DATA=~/data python examples/benchmarks/scaling.py [--rounds 15] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

from typing import Any, NoReturn

import pyro
import side_by_side as bench
from models import images, pyrovae

import pyrovae as pv

BATCH_SIZE = 128


def step(
    turns: bench.Turns, prior: str, dim: int, compiled: bool, num_data: int = 1280, num_components: int | None = None
) -> NoReturn:
    x = images(num_data)
    options: dict[str, Any] = {}
    if num_components is not None:
        options = {"num_components": num_components, "inputs": x}
    vae = pyrovae((784, 400, dim), prior, **options)
    svi = pv.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pv.ELBO(), compile=compiled)
    while True:
        for batch in pv.data.batches(x, BATCH_SIZE):
            if len(batch) == BATCH_SIZE:  # of another size it would be compiled again
                turns(svi.step(batch) / BATCH_SIZE)


def main() -> None:
    args = bench.parse(bench.arguments("How a training step grows."))
    dims = (2, 4) if args.smoke else (16, 64, 256, 1024, 4096)
    kinds: dict[str, dict[str, dict[str, Any]]] = {
        f"{prior}, coordinates": {f"{dim:,}": {"prior": prior, "dim": dim} for dim in dims}
        for prior in ("spike-slab", "normal")
    }
    if not args.smoke:
        vamp = {f"{k}": {"prior": "vamp", "dim": 50, "num_components": k} for k in (10, 50, 100, 250, 500)}
        data = {f"{n:,}": {"prior": "normal", "dim": 50, "num_data": n} for n in (1000, 10_000, 50_000)}
        kinds = {"vamp, components": vamp, "normal, rows of the data set": data, **kinds}
    rows = []
    for kind, sizes in kinds.items():
        entered = {size: bench.Contestant(step, {**o, "compiled": not args.smoke}) for size, o in sizes.items()}
        warm_up = 5 if args.smoke else 50
        measured = bench.compare(entered, args.rounds, threads=args.threads, warm_up=warm_up, smoke=args.smoke)
        least, *_, most = measured.values()
        for size, times in measured.items():
            numbers = [f"{1e3 * times.median:.3f}", bench.ratio(times, least), f"{times.peak:.0f}"]
            rows.append([kind if times is least else "", size, *numbers])
    columns = ["", "", "ms per step", "over the least (quartiles)", "peak memory, MB"]
    bench.publish("scaling", "How a step grows", bench.markdown(columns, rows), args)
    print(f"seconds per step, {dims[-1]} coordinates over {dims[0]}: {bench.ratio(most, least).median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
