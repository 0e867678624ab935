"""The classifier of digits that the examples 10, 11 and 19 look at draws with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import pyrovae as pv

Classify = Callable[[Tensor], Tensor]


def trained_probe(data: pv.data.Data, epochs: int) -> tuple[Classify, float]:
    """A convolutional classifier of grey digits, trained on the training set, and its accuracy on the test set."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Unflatten(1, data.image_shape), pv.nn.ConvEncoder(data.image_shape, [16, 32], 128), nn.Linear(128, 10)
        )
        optim = torch.optim.Adam(network.parameters(), lr=2e-3)
        rate = torch.optim.lr_scheduler.LinearLR(optim, 1.0, 0.05, total_iters=epochs)
        for _ in range(epochs):
            for rows in torch.randperm(len(data.train)).split(128):
                loss = nn.functional.cross_entropy(network(data.train[rows]), data.labels["train"][rows])
                optim.zero_grad()
                loss.backward()
                optim.step()
            rate.step()

    def classify(x: Tensor) -> Tensor:
        return network(x.reshape(len(x), -1)).argmax(1)

    with torch.no_grad():
        right = [classify(x) == y for x, y in zip(data.test.split(1000), data.labels["test"].split(1000), strict=True)]
    return classify, torch.cat(right).float().mean().item()


def print_shares(name: str, coverage: pv.metrics.ClassCoverage) -> None:
    """A line of the table of classes."""
    print(f"{name:<18}" + "".join(f"{share:>7.1%}" for share in coverage.share.tolist()) + f"{coverage.kl:>9.3f}")
