"""`ckconv verify`: whether a target holds what its source says, after the fact."""

from __future__ import annotations

from typing import Any

import click

from converter.cli import is_given
from converter.cli.options import with_options
from converter.cli.outcome import Manner, with_manner
from converter.declaring import Use
from converter.program import verify
from converter.report.ledger import noted

_PATH = click.Path(path_type=str, readable=False)


@click.command(name="verify")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@click.option("--to", default=None, metavar="FORMAT", help="Format of DST, when its content does not say.")
@with_options(Use.DECIDES, Use.PROVES, Use.WORKS)
@click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
@with_manner
def command(source: str, destination: str, overwrite: bool, manner: Manner, **arguments: Any) -> None:
    """Prove DST against SRC: every tensor bit for bit through the mapping, and what a graph computes; exit 4 if not.

    The options are those that DST was made with: those that it says itself are taken from it, but for code and files.
    """
    options = {name: value for name, value in arguments.items() if is_given(value)}
    result = manner.run(
        lambda observer: verify(source, destination, observer=observer, **options),
        source=source,
        destination=destination,
        overwrite=overwrite,
        done="is what the source says",
    )
    verification = result.verification
    lines = (*noted(result.made_with), *verification.noted, *verification.shown(), result.verdict)
    manner.say(result, lines, done="the destination is what the source says")
