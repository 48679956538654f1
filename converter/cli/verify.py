"""`ckconv verify`: whether a target holds what its source says, after the fact."""

from __future__ import annotations

import os
from typing import Any

import click

from converter import report
from converter.cli import ignore_signals, is_given, print_failure, print_json, printing
from converter.cli.options import with_options
from converter.cli.progress import progress
from converter.declaring import Use
from converter.errors import CkconvError
from converter.program import verify

_PATH = click.Path(path_type=str)


@click.command(name="verify")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@click.option("--to", default=None, metavar="FORMAT", help="Format of DST, when its content does not say.")
@with_options(Use.DECIDES, Use.PROVES, Use.WORKS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def command(source: str, destination: str, as_json: bool, quiet: bool, **given: Any) -> None:
    """Prove DST against SRC: every tensor bit for bit through the mapping, and what a graph computes; exit 4 if not.

    The options are those that DST was made with.
    """
    options = {name: value for name, value in given.items() if is_given(value)}
    try:
        with progress(is_shown=not (quiet or as_json), committing=ignore_signals) as observer:
            result = verify(source, destination, observer=observer, **options)
    except CkconvError as error:
        if as_json:
            print_failure(report.failure(error, source=os.fspath(source), target=os.fspath(destination)))
        raise
    with printing("the destination is what the source says"):
        if as_json:
            print_json(result.as_dict())
        elif not quiet:
            click.echo(result.verdict)
