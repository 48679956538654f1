"""`ckconv SRC DST`: convert."""

from __future__ import annotations

from typing import Any

import click

from converter.cli import is_given
from converter.cli.options import with_options
from converter.cli.outcome import Manner, with_manner
from converter.cli.progress import human_bytes
from converter.declaring import Use
from converter.program import convert
from converter.report import Report

_PATH = click.Path(path_type=str, readable=False)


@click.command(name="convert")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@click.option("--to", default=None, metavar="FORMAT", help="Format of DST; by default what its name says.")
@with_options(*Use)
@with_manner
def command(source: str, destination: str, manner: Manner, **arguments: Any) -> None:
    """Convert the checkpoint SRC into DST."""
    options = {name: value for name, value in arguments.items() if is_given(value)}
    to = options.pop("to", None)
    result = manner.run(
        lambda observer: convert(source, destination, to=to, observer=observer, **options),
        source=source,
        destination=destination,
        overwrite=bool(arguments["overwrite"]),
        done="is in place",
    )
    lines = (
        *result.losses(),
        *result.verification.shown(),
        f"{result.source_format} -> {result.target_format}, {_size(result)}",
        result.verdict,
    )
    manner.say(result, lines, done="nothing was written" if result.is_dry_run else "the output is in place")


def _size(report: Report) -> str:
    """Return the size of the output, or what is known of it."""
    size = human_bytes(report.nbytes)
    return size if report.built_by is None else f"at least {size}: {report.built_by} builds the graph"
