"""`ckconv diff`: whether two checkpoints are the same, across formats."""

from __future__ import annotations

from pathlib import Path

import click

from converter.cli import failed, print_failure, print_json, printing
from converter.cli.options import with_option
from converter.errors import CkconvError, Interrupted
from converter.program import diff

_PATH = click.Path(path_type=str, readable=False)


@click.command(name="diff")
@click.argument("left", type=_PATH, metavar="A")
@click.argument("right", type=_PATH, metavar="B")
@with_option("config")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def command(left: str, right: str, config: Path | None, as_json: bool, quiet: bool) -> None:
    """Compare A and B, tensor by tensor and bit for bit; exit 0 same, 1 different, 2 when either cannot be read."""
    try:
        found = diff(left, right, config=config)
    except CkconvError as error:
        error.exit_code = error.exit_code if isinstance(error, Interrupted) else 2
        if as_json:
            print_failure(failed(error))
        raise
    with printing(exit_code=2):
        if as_json:
            print_json(found.as_dict())
        elif not quiet:
            for line in found.lines():
                click.echo(line)
            click.echo(found.verdict)
    raise click.exceptions.Exit(0 if found.is_same else 1)
