"""Seconds of an epoch: ``pv.fit`` beside the ``BaseTrainer`` of pythae.

784-400-50 both ways, Adam at 1e-3, batches of 128 to train and to validate: one pass over 50,000 data, one evaluation
on 10,000 others, and the best weights kept, for both. pythae's bars and logs are off; what it saves goes to a temporary
folder. The first epoch is not among those timed: what it takes longer than the others, building, first calls and
compilation, is the column start-up. The last line is the ratio of the seconds per epoch.

    PYROVAE_DATA=~/data python examples/benchmarks/epochs.py [--rounds 15] [--threads 1] [--write] [--smoke]
"""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import pyro
import side_by_side as bench
import torch
from models import Halves, images, networks, pyrovae, pythae
from torch import Tensor

import pyrovae as pv

SIZES = (784, 400, 50)
FOREVER = 1_000_000


def split(num_train: int) -> tuple[Tensor, Tensor]:
    """Training data, and a fifth as many to validate."""
    x = images(num_train + num_train // 5)
    return x[:num_train], x[num_train:]


def pyrovae_fit(turns: bench.Turns, num_train: int, compiled: bool | None) -> None:
    vae, (train, val) = pyrovae(SIZES), split(num_train)
    turns.parameters = sum(p.numel() for p in vae.parameters())

    def ended(vae: Any, epoch: int, history: pv.train.History) -> None:
        turns(history["val_loss"][-1])

    optim = pyro.optim.Adam({"lr": 1e-3})
    pv.fit(vae, train, FOREVER, 128, optim, val=val, callbacks=[ended], seed=0, progress=False, compile=compiled)


def pythae_fit(turns: bench.Turns, num_train: int) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Ended(TrainingCallback):
        def on_log(self, training_config: Any, logs: dict[str, float], **kwargs: Any) -> None:
            turns(logs["eval_epoch_loss"])

    for name in logging.root.manager.loggerDict:
        if name.startswith("pythae"):
            logging.getLogger(name).setLevel(logging.WARNING)
    encoder, decoder = networks(SIZES)
    model = pythae(Halves(encoder), decoder, SIZES)
    turns.parameters = sum(p.numel() for p in model.parameters())
    train, val = (BaseDataset(x, torch.zeros(len(x))) for x in split(num_train))
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=128,
            per_device_eval_batch_size=128,
            num_epochs=FOREVER,
            learning_rate=1e-3,
            no_cuda=True,
        )
        BaseTrainer(model, train, val, config, callbacks=[Ended()]).train()


def main() -> None:
    args = bench.parse(bench.arguments("Seconds of an epoch."))
    data = {"num_train": 500 if args.smoke else 50_000}
    entered = {
        "pythae": bench.Contestant(pythae_fit, data, ("pythae.trainers",)),
        "pyrovae, not compiled": bench.Contestant(pyrovae_fit, {**data, "compiled": False}),
    }
    if not args.smoke:
        entered["pyrovae"] = bench.Contestant(pyrovae_fit, {**data, "compiled": None})
    measured = bench.compare(entered, args.rounds, threads=args.threads, warm_up=1, steps=1, smoke=args.smoke)
    bench.check_same(measured, tolerance=0.05)
    base, ours = next(iter(measured)), next(reversed(measured))  # one and the same where pythae is not installed
    first, last = measured[base], measured[ours]
    rows = [
        [label, f"{times.median:.2f}", bench.ratio(times, first), f"{times.start_up:.1f}", f"{times.peak:.0f}"]
        for label, times in measured.items()
    ]
    columns = ["", "seconds per epoch", "over the first (quartiles)", "start-up, s", "peak memory, MB"]
    bench.publish("epochs", f"An epoch of {data['num_train']:,} data", bench.markdown(columns, rows), args)
    print(f"seconds per epoch, {ours} over {base}: {bench.ratio(last, first).median:.2f}")


if __name__ == "__main__":
    bench.serve(globals())
    main()
