"""``pyrovae compress`` and ``pyrovae decompress``: the rows of a data set as one small file, and back."""

from __future__ import annotations

from pathlib import Path

import click

from pyrovae import compression, runs
from pyrovae.cli.using import out_option, overwrite_option, run_argument, trust_option
from pyrovae.likelihoods import Likelihood

__all__ = ["compress", "decompress"]


@click.command(short_help="Every row in one small file, without loss.")
@run_argument
@click.argument("data", required=False)
@out_option
@overwrite_option
@trust_option
def compress(run: Path, data: str | None, out: Path | None, overwrite: bool, trust: bool) -> None:
    """Write the bits of every row of DATA (default: the run's own data, in its own order) as one small file.

    The run has a Bernoulli or categorical likelihood. See docs/compression.md.
    """
    vae, config = runs.load_run(run, "cpu", trust)
    x = runs.data_rows(run, config, data)
    if isinstance(vae.likelihood, Likelihood):
        vae.likelihood.check(x)
    x = x.reshape(-1, *config["model"]["event_shape"]).to(next(vae.parameters()))
    path = runs.new_file(out or run / "compressed.pvbb", overwrite)
    compressed = compression.compress(vae, x)
    runs.save_bytes(path, compressed)
    click.echo(f"{len(x)} rows in {len(compressed)} bytes, {8 * len(compressed) / len(x):.1f} bits per row: {path}")


@click.command(short_help="The rows of a compressed file.")
@run_argument
@click.argument("file", type=click.Path(path_type=Path))
@out_option
@overwrite_option
@trust_option
def decompress(run: Path, file: Path, out: Path | None, overwrite: bool, trust: bool) -> None:
    """Write the rows of FILE, which ``pyrovae compress`` made by the same run, as a .npy of one row each."""
    if not file.is_file():
        raise FileNotFoundError(f"FILE {str(file)!r} must be a file that exists")
    vae, _ = runs.load_run(run, "cpu", trust)
    path = runs.new_file(out or run / "decompressed.npy", overwrite, ".npy")
    x = compression.decompress(vae, file.read_bytes())
    runs.save_array(path, x)
    click.echo(f"{len(x)} rows of shape {tuple(x.shape[1:])}: {path}")
