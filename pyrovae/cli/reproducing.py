"""``pyrovae reproduce``: published experiments, with the published numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import click

from pyrovae.features.reproductions import REPRODUCTIONS, markdown

__all__ = ["reproduce"]


@click.command()
@click.argument("name", type=click.Choice(list(REPRODUCTIONS)))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Number of seeds, from 0.")
@click.option(
    "--page", type=click.Path(dir_okay=False), help="Markdown file whose section of this experiment is written."
)
def reproduce(name: str, seeds: int, page: str | None) -> None:
    """Train the models of a published experiment on sparse features, and print their numbers.

    The table has mean and range over the seeds, and a line says how the size differs from the published one.

    \b
    pyrovae reproduce sparse-but-wrong --seeds 2
    """
    reproduction = REPRODUCTIONS[name]()
    rows: dict[str, list[dict[str, float]]] = {}
    for method, run in reproduction.methods.items():
        for seed in range(seeds):
            row = run(seed)
            rows.setdefault(method, []).append(row)
            click.echo(
                f"{method}, seed {seed}: {', '.join(f'{key} {value:.3f}' for key, value in row.items())}", err=True
            )
    section = markdown(reproduction, rows)
    click.echo(section)
    if page is not None:
        path = Path(page)
        before = path.read_text(encoding="utf-8") if path.exists() else "# Reproductions\n"
        head, *sections = before.split("\n## ")
        kept = [f"\n## {each}" for each in sections if not each.startswith(reproduction.title + "\n")]
        path.write_text("".join([head, *kept]).rstrip("\n") + "\n\n" + section, encoding="utf-8")
