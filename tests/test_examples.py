"""Every file of examples/ runs with --smoke and ends by printing the number that its text explains."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"

# Each example: its options beside --smoke, and what its last line says. A file without a row here is a failure.
ROWS: dict[str, tuple[list[str], str]] = {
    "00_plain_pyro.py": ([], "held-out ELBO: {} nats per datum"),
    "01_vae_digits.py": (["--out", "picture.png"], "held-out log-likelihood: {} nats per datum"),
    "02_write_a_prior.py": ([], "ELBO, two Laplaces minus normal: {} nats per datum"),
    "03_spike_slab_digits.py": (["--out", "spike_slab.png"], "codes that are exactly zero: {} of 1"),
    "04_sparse_coding.py": (
        ["--out", "sparse_coding.png"],
        "share of Gabor-like atoms, sparse priors minus Normal: {} of 1",
    ),
    "05_vamp_prior.py": (["--out", "pseudo_inputs.png"], "log-likelihood, vamp minus normal: {} nats per datum"),
    "06_horseshoe.py": (["--out", "horseshoe.png"], "least cosine of a true atom, horseshoe: {}"),
    "07_dirichlet.py": (["--out", "topics.png"], "mean cosine of true and learned topics, warm-up: {}"),
    "08_autoencoders.py": (["--out", "autoencoders.png"], "squared error per pixel, plain autoencoder: {}"),
    "09_denoising.py": (
        ["--out", "denoising.png"],
        "squared error on noisy digits, plain over denoising: {}",
    ),
    "10_gan.py": (["--out", "gan.png"], "least share of a digit: {} of 1"),
    "11_adversarial_autoencoder.py": (
        ["--out", "adversarial_autoencoder.png"],
        "p-value of trained codes, the less: {}",
    ),
    "12_latent_dimension.py": (
        ["--out", "latent_dimension.png"],
        "held-out log-likelihood, spike-slab of 64 minus normal of {name}: {} nats per datum",
    ),
    "13_text.py": ([], "bits per character, unigram minus VAE: {}"),
    "14_compression.py": (["--out", "compression.png"], "bits of the file over the negative ELBO, Normal prior: {}"),
    "15_missing_pixels.py": (
        ["--out", "missing_pixels.png"],
        "squared error of missing pixels, mean of the pixel over VAE: {}",
    ),
    "16_anomalies.py": (["--out", "anomalies.png"], "least area under the ROC curve, likelihood ratio: {}"),
    "17_interpolation.py": (["--out", "interpolation.png"], "coordinates in use by a digit: {} of 32"),
    "18_few_labels.py": (["--out", "few_labels.png"], "right with 100 labels, sparse codes minus pixels: {} of 1"),
    "19_conditional_vae.py": (
        ["--out", "conditional.png"],
        "test digits named rightly by the largest log p(x|y): {} of 1",
    ),
    "benchmarks/checkpoints.py": ([], "cost of a checkpoint every 100 steps, in processor time: {} % ({} to {} %)"),
    "benchmarks/epochs.py": ([], "seconds per epoch, pyrovae, not compiled over {name}: {}"),
    "benchmarks/likelihood.py": ([], "seconds, pyrovae over {name}: {}"),
    "benchmarks/many_seeds.py": ([], "seconds, fit_many over as many runs of fit: {}"),
    "benchmarks/memory_mapped.py": ([], "seconds per epoch, on the disk over in memory: {}"),
    "benchmarks/precision.py": ([], "test ELBO, bfloat16 less float32: {} nats"),
    "benchmarks/pyro_models.py": ([], "seconds per step, pyrovae.SVI over pyro.infer.SVI, the largest: {}"),
    "benchmarks/scaling.py": ([], "seconds per step, 4 coordinates over 2: {}"),
    "benchmarks/side_by_side.py": ([], "seconds per step, one process over another: {}"),
    "benchmarks/sparse_supports.py": ([], "ELBO, Normal minus fan: {} nats per datum"),
    "benchmarks/spike_slab_mnist.py": ([], "seconds per epoch, spike-slab over normal: {}"),
    "benchmarks/steady.py": ([], "seconds per step, last over first: {}"),
    "benchmarks/steps.py": ([], "seconds per step, pyrovae over PyTorch by hand: {}"),
    "benchmarks/throughput.py": ([], "seconds, vae.encode over by hand: {}"),
}
SHARED = ["benchmarks/models.py", "digit_probe.py"]  # what examples import, and no example


def files() -> list[str]:
    """All of examples/, sub-folders included."""
    paths = (path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(str(path.relative_to(EXAMPLES)) for path in paths)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Pyro's parameters and torch's random state are put back after."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        yield


def test_every_file_has_a_row_and_is_in_the_index() -> None:
    assert files() == sorted([*ROWS, *SHARED])
    index = (ROOT / "docs" / "index.md").read_text()
    assert sorted(re.findall(r"\(\.\./examples/(\S+)\)", index)) == sorted(ROWS)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, last_line = ROWS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES / Path(name).parent)  # where python finds what a script imports
    monkeypatch.setattr(sys, "argv", [name, "--smoke", *options])
    namespace = runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    pattern = re.escape(last_line).replace(r"\{\}", r"([+-]?\d+\.\d+)").replace(r"\{name\}", ".*")
    match = re.fullmatch(pattern, capsys.readouterr().out.splitlines()[-1])
    assert match is not None
    if not name.startswith("benchmarks/"):  # whose numbers are of seconds
        # 64 fair coins have -44.4 nats; an untrained VAE lies below that, and no bound on log p(x) of bits lies above 0
        assert abs(float(match[1])) < 60
    assert "last line" in namespace["__doc__"]

    written = [path.name for path in tmp_path.iterdir()]
    assert written == options[1:], "an example writes nothing but its --out"
    for path in written:
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")
