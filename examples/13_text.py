r"""A VAE of sentences, character by character, on the docstrings of Python's standard library.

.. math:: p(x|z) = \prod_t softmax(f(z, x_1 \dots x_{t-1}))_{x_t}

The decoder is a GRU that reads z and the characters before. It is a language model by itself, and so strong that it may
leave z unread: the KL falls to nothing and the code of every sentence is the prior (Bowman et al., 2016). Against that,
a quarter of a nat of each of the 32 coordinates costs nothing (free bits), or three characters in ten are hidden from
the decoder in training as well (word dropout).

The table has for each model the bits per character of held-out sentences, with that of their end, and the KL in nats
per sentence. A unigram knows how frequent each character is; the GRU without z is the same decoder, alone. Of a VAE the
bits are a bound: the plain one collapses, with a KL of about 0.1, and has those of the GRU or a little more. With free
bits the code carries 8 nats, about what is free, and this bound is looser by 0.1 bits. Hidden characters add nothing to
the KL here and cost 0.3 bits.

Then, for the last model: sentences that it makes up from z of the prior; held-out sentences with the likeliest of their
codes; and what lies on the line between two codes. Eight nats say how a sentence begins and of what kind it is.

The last line is how many bits per character the last VAE is below the unigram: about 2.5.

    python examples/13_text.py [--smoke]
"""

from __future__ import annotations

import argparse
import ast
import math
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pyro
import torch
from torch import Tensor

import pyrovae as pv

LONGEST, DIM, HIDDEN = 59, 32, 128


def main() -> None:
    parser = argparse.ArgumentParser(description="A VAE of sentences, character by character.")
    parser.add_argument("--smoke", action="store_true", help="one epoch of a few sentences, to see that it runs")
    args = parser.parse_args()
    epochs = 1 if args.smoke else 12

    lines = sentences(most_files=12 if args.smoke else None)
    data = pv.data.text(lines[:300] if args.smoke else lines)
    num_classes = len(data.vocabulary)
    print(f"{len(lines):,} sentences of up to {LONGEST} characters, {num_classes} different ones; for example")
    show(data, data.train[:3])

    bits = {"unigram": unigram_bits(data)}
    print(f"\n{'model':<32} {'bits per character':>18} {'KL':>8}")
    print(f"{'unigram':<32} {bits['unigram']:>18.3f} {'-':>8}")

    torch.manual_seed(0)
    decoder = pv.nn.GRUDecoder(1, data.event_shape[0], num_classes, HIDDEN)
    pair = language_model(pv.likelihoods.Autoregressive(decoder, num_classes))
    train(pair, data, epochs, pv.ELBO())
    report("GRU without z", pair, data)

    settings = {
        "VAE": (0.0, pv.ELBO()),
        "VAE, free bits and word dropout": (0.3, pv.ELBO(kl=pv.FreeBits(0.25))),
        "VAE, free bits": (0.0, pv.ELBO(kl=pv.FreeBits(0.25))),
    }
    for name, (word_dropout, loss) in settings.items():
        torch.manual_seed(0)
        vae = make_vae(data.event_shape[0], num_classes, word_dropout)
        train(vae, data, epochs, loss)
        bits[name] = report(name, vae, data)

    torch.manual_seed(0)
    print("\nmade up, z from the prior")
    show(data, vae.sample(8))
    print("\nheld out, and the likeliest sentence of its code")
    x = data.test[:5]
    show(data, torch.stack([x, vae.reconstruct(x).long()], 1).flatten(0, 1))
    print("\nfrom one code to another")
    first, last = vae.encode(data.test[:2])
    show(data, vae.decode(torch.lerp(first, last, torch.linspace(0, 1, 7)[:, None])))
    print(f"bits per character, unigram minus VAE: {bits['unigram'] - bits[name]:.3f}")


def sentences(most_files: int | None = None) -> list[str]:
    """Every sentence of the docstrings of the standard library that is short enough, once, in order of its file."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.rglob("*.py") if not {"site-packages", "test", "tests"} & set(path.parts))
    found = (sentence for path in paths[:most_files] for text in docstrings(path) for sentence in cut(text))
    return list(dict.fromkeys(found))


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def cut(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        for sentence in re.split(r"(?<=\.)\s+", " ".join(paragraph.split())):
            if re.fullmatch(r"[A-Z][ -~]+\.", sentence) and 20 <= len(sentence) <= LONGEST:
                yield sentence


def make_vae(length: int, num_classes: int, word_dropout: float) -> pv.VAE:
    decoder = pv.nn.GRUDecoder(DIM, length, num_classes, HIDDEN, word_dropout=word_dropout)
    return pv.VAE(
        prior=pv.priors.Normal(DIM),
        likelihood=pv.likelihoods.Autoregressive(decoder, num_classes),
        guide=pv.guides.Normal(pv.nn.GRUEncoder(length, num_classes, HIDDEN // 2), DIM),
    )


def language_model(likelihood: pv.likelihoods.Autoregressive):
    """Model and guide without z: the decoder reads a zero."""

    def model(x: Tensor) -> None:
        pyro.module("language model", likelihood)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", likelihood(torch.zeros(len(x), 1)), obs=x)

    def guide(x: Tensor) -> None:
        pass

    return model, guide


def train(vae, data: pv.data.Data, epochs: int, loss: pv.ELBO) -> None:
    optim = pyro.optim.Adam({"lr": 3e-3})
    pv.fit(vae, data, epochs, batch_size=64, optim=optim, loss=loss, seed=0, progress=False)


def report(name: str, vae, data: pv.data.Data) -> float:
    """Bits per character of the test sentences, in one row with the KL."""
    torch.manual_seed(0)
    terms = pv.metrics.elbo(vae, data.test)
    bits = -terms.elbo.sum().item() / (num_characters(data.test, data) * math.log(2))
    print(f"{name:<32} {bits:>18.3f} {terms.kl.mean():>8.2f}")
    return bits


def num_characters(x: Tensor, data: pv.data.Data) -> int:
    """Those of the sentences, and one end for each; what fills the rows up costs next to nothing."""
    return int((x != data.vocabulary.encode("\n")).sum()) + len(x)


def unigram_bits(data: pv.data.Data) -> float:
    """Of a code that knows how frequent each character is in the training sentences, each seen once more."""
    end = data.vocabulary.encode("\n").item()

    def counts(x: Tensor) -> Tensor:
        count = torch.bincount(x.flatten(), minlength=len(data.vocabulary)).double()
        count[end] = len(x)
        return count

    train, test = counts(data.train) + 1, counts(data.test)
    return -(test * (train / train.sum()).log2()).sum().item() / test.sum().item()


def show(data: pv.data.Data, x: Tensor) -> None:
    for sentence in data.vocabulary.decode(x):
        print(f"  {sentence.partition(chr(10))[0]}")


if __name__ == "__main__":
    main()
