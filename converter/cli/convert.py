"""`ckconv SRC DST`: convert."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from converter import report
from converter.cli import ignore_signals, is_given, print_failure, print_json, printing
from converter.cli.options import with_options
from converter.cli.progress import human_bytes, progress
from converter.declaring import Use
from converter.errors import CkconvError
from converter.program import convert
from converter.report import page

_PATH = click.Path(path_type=str)


@click.command(name="convert")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@click.option("--to", default=None, metavar="FORMAT", help="Format of DST; by default what its name says.")
@with_options(*Use)
@click.option(
    "--report", "ledger_path", default=None, metavar="FILE", help="Write the ledger there: .txt, .json or .html."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Log to stderr.")
def command(
    source: str,
    destination: str,
    ledger_path: str | None,
    as_json: bool,
    no_progress: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Convert the checkpoint SRC into DST."""
    if verbose:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
    options = {name: value for name, value in given.items() if is_given(value)}
    to = options.pop("to", None)
    try:
        with page.opened(ledger_path, source=source, target=destination, overwrite=bool(given["overwrite"])) as ledger:
            try:
                with progress(is_shown=not (no_progress or quiet or as_json), committing=ignore_signals) as observer:
                    result = convert(source, destination, to=to, observer=observer, **options)
            except CkconvError as error:
                if ledger is not None:
                    ledger.write(error)
                raise
            if ledger is not None:
                ledger.write(result)
    except CkconvError as error:
        if as_json:
            print_failure(report.failure(error, source=os.fspath(source), target=os.fspath(destination)))
        raise
    with printing("nothing was written" if result.is_dry_run else "the output is in place"):
        if as_json:
            print_json(result.as_dict())
        elif not quiet:
            for line in (*result.losses(), *result.verification.shown()):
                click.echo(line)
            click.echo(f"{result.source_format} -> {result.target_format}, {human_bytes(result.nbytes)}")
            click.echo(result.verdict)
