"""The command line: ``pyrovae fit DATA`` trains and leaves a run; ``evaluate``, ``encode``, ``sample``,
``impute`` and ``compress`` take a run.

``pyrovae compare DATA`` trains one model for each prior and leaves a folder of runs. A run is a folder of
``config.json``, ``model.safetensors``, ``history.csv``, ``metrics.json`` and ``figures/``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import pyrovae as pv
from pyrovae.cli.comparing import compare
from pyrovae.cli.compressing import compress, decompress
from pyrovae.cli.errors import explained
from pyrovae.cli.evaluating import evaluate
from pyrovae.cli.features import report
from pyrovae.cli.fitting import fit
from pyrovae.cli.reproducing import reproduce
from pyrovae.cli.using import encode, impute, sample
from pyrovae.processes import FailedElsewhereError, rank_of_torchrun

__all__ = ["cli", "main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; an error of the user's is one line on stderr and exit status 2."""
    try:
        sys.exit(cli(args, prog_name="pyrovae", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt) as error:
        _say_stopped(error.__cause__ or error)
        sys.exit(130)
    except SystemExit as error:
        if hasattr(error, "said"):  # SIGTERM while a model was trained
            _say_stopped(error)
        raise
    except FailedElsewhereError:  # the other process prints the error
        sys.exit(2)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        if rank_of_torchrun() and (isinstance(error, click.ClickException) or hasattr(error, "everywhere")):
            sys.exit(2)  # the first process prints it
    click.echo(f"pyrovae: error: {message}", err=True)
    sys.exit(2)


def _say_stopped(error: BaseException) -> None:
    said = getattr(error, "said", None)
    click.echo(f"pyrovae: stopped{'' if said is None else f'; {said}'}", err=True)


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(pv.__version__, prog_name="pyrovae")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Variational autoencoders as plain Pyro functions, with sparse and non-Gaussian priors.

    \b
    pyrovae fit digits --out runs/digits     train on handwritten digits, and see what was learned
    pyrovae evaluate runs/digits             all that can be measured of it, and pictures
    pyrovae report runs/features             what each latent stands for, as one HTML page
    pyrovae encode runs/digits               the code of every row
    pyrovae sample runs/digits               new data from the model
    pyrovae impute runs/mine                 what is missing, given what is observed
    pyrovae compare digits --prior normal,spike-slab --out runs/compare
                                             one model for each prior, in one table and one picture
    pyrovae compress runs/digits             every row in one small file, without loss; and decompress
    """
    if rank_of_torchrun() is not None and ctx.invoked_subcommand != "fit":
        raise click.UsageError("torchrun starts fit; every other command runs in one process")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (fit, evaluate, report, encode, impute, sample, compare, compress, decompress, reproduce):
    cli.add_command(command)
