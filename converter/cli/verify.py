"""`ckconv verify`: whether a target holds what its source says, after the fact."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from converter import report
from converter.cli import ignore_signals, is_given, print_failure, print_json, printing
from converter.cli.progress import progress
from converter.errors import CkconvError
from converter.program import verify

_PATH = click.Path(path_type=str)


@click.command(name="verify")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@click.option("--to", default=None, metavar="FORMAT", help="Format of DST, when its content does not say.")
@click.option("--from", "from_format", default=None, metavar="FORMAT", help="Format of SRC.")
@click.option("--config", default=None, type=click.Path(path_type=Path), help="The config.json that was given.")
@click.option("--config-value", multiple=True, metavar="NAME=VALUE", help="As it was given.")
@click.option("--custom-objects", multiple=True, metavar="MODULE:NAMES", help="As it was given.")
@click.option("--task", default=None, help="The head that was given.")
@click.option("--mapping", default=None, type=click.Path(path_type=Path), help="The name rules that were given.")
@click.option("--dtype", default=None, help="The element type that weights were cast to.")
@click.option("--include", multiple=True, metavar="PATTERN", help="As it was given.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="As it was given.")
@click.option("--optimizer", default=None, metavar="auto|keep|drop", help="As it was given.")
@click.option("--hyperparameter", multiple=True, metavar="NAME=VALUE", help="As it was given.")
@click.option("--param-order", default=None, type=click.Path(path_type=Path), help="The order that was given.")
@click.option("--trainable", default=None, metavar="REGEX", help="As it was given.")
@click.option("--epsilon", default=None, metavar="stock|exact", help="As it was given.")
@click.option("--weights-only", is_flag=True, help="DST holds no graph.")
@click.option("--with-cache", is_flag=True, help="As it was given.")
@click.option("--model", default=None, metavar="PACKAGE.MODULE:FACTORY", help="As it was given.")
@click.option(
    "--inputs",
    multiple=True,
    metavar="FILE.npz|NAME:TYPE[DIM,...],...",
    help="Arrays of your own to compare outputs on, instead of samples; or as it was given.",
)
@click.option("--opset", default=None, type=int, metavar="N", help="As it was given.")
@click.option("--tied", default=None, metavar="copies|once", help="As it was given.")
@click.option("--layout", default=None, metavar="pytorch|tensorflow", help="As it was given.")
@click.option("--flavor", default=None, metavar="safetensors|bin|tf|flax", help="As it was given.")
@click.option("--verify", default=None, metavar="auto|weights|outputs", help="What to prove.")
@click.option("--atol", default=None, type=float, help="Of outputs: an element may differ by ATOL + RTOL x scale.")
@click.option(
    "--rtol", default=None, type=float, help="The scale is the median |x| of the output, or |x| where larger."
)
@click.option("--timeout", default=None, type=float, metavar="SECONDS", help="Time for each child process: 3600.")
@click.option("--require-sandbox", is_flag=True, help="Refuse where a layer of the sandbox is missing.")
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
