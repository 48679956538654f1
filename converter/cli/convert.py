"""`ckconv SRC DST`: convert."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converter import report
from converter.cli import ignore_signals, is_given, print_failure, print_json, printing
from converter.cli.progress import human_bytes, progress
from converter.errors import CkconvError
from converter.program import convert
from converter.report import page

_PATH = click.Path(path_type=str)


def _option(*names: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, **{"default": None, **settings})


@click.command(name="convert")
@click.argument("source", type=_PATH, metavar="SRC")
@click.argument("destination", type=_PATH, metavar="DST")
@_option("--to", metavar="FORMAT", help="Format of DST; by default what its name says.")
@_option("--from", "from_format", metavar="FORMAT", help="Format of SRC, when its content does not say.")
@_option("--config", type=click.Path(path_type=Path), help="A config.json, instead of the one beside SRC.")
@_option("--config-value", multiple=True, metavar="NAME=VALUE", help="Another value in that config; may be repeated.")
@_option(
    "--custom-objects", multiple=True, metavar="MODULE:NAMES", help="Your own layers of a Keras model; may be repeated."
)
@_option("--task", help="Which head the model has, such as question-answering, when nothing says.")
@_option("--mapping", type=click.Path(path_type=Path), help="Name rules of your own, a JSON file.")
@_option("--dtype", help="Cast floating-point weights: float32, float16, bfloat16 ...")
@_option("--include", multiple=True, metavar="PATTERN", help="Convert only tensors of such names; may be repeated.")
@_option("--exclude", multiple=True, metavar="PATTERN", help="Leave such tensors out; may be repeated.")
@_option("--optimizer", metavar="auto|keep|drop", help="Carry optimizer state where DST can, or must, or not.")
@_option("--hyperparameter", multiple=True, metavar="NAME=VALUE", help="Of the optimizer; may be repeated.")
@_option("--param-order", type=click.Path(path_type=Path), help="Names of the optimizer's parameters, in order.")
@_option("--trainable", metavar="REGEX", help="Which parameters the optimizer has, where it only numbers them.")
@_option("--epsilon", metavar="stock|exact", help="Keras's own optimizer, or one that adds epsilon where PyTorch does.")
@_option("--weights-only", is_flag=True, help="Write no graph.")
@_option(
    "--with-cache", is_flag=True, help="A decoder's graph takes keys and values of what came before, and returns them."
)
@_option("--model", metavar="PACKAGE.MODULE:FACTORY", help="Your own torch model, imported and traced.")
@_option(
    "--inputs",
    multiple=True,
    metavar="NAME:TYPE[DIM,...],...|FILE.npz",
    help="What --model takes: input_ids:int64[batch,seq]; arrays of your own to compare outputs on. May be repeated.",
)
@_option("--opset", type=int, metavar="N", help="Version of ONNX's operators; by default what the exporter gives.")
@_option("--input-dtype", metavar="int64|int32", help="Element type of a SavedModel's integer inputs.")
@_option("--layout", metavar="pytorch|tensorflow", help="Of a SavedModel's weights; the latter is faster on a CPU.")
@_option("--flavor", metavar="safetensors|bin|tf|flax", help="Weight files of a pretrained folder.")
@_option("--external-data", is_flag=True, help="Keep the tensors of an ONNX model in a file of their own.")
@_option("--train-batch-size", type=int, metavar="N", help="Of a device, with which Trainer is to go on from DST.")
@_option("--tied", metavar="copies|once", help="How safetensors stores tied tensors.")
@_option("--max-shard-size", metavar="SIZE", help="Split weights into files of at most this: 5GB, 500MiB.")
@_option("--verify", metavar="auto|weights|outputs|none", help="What to prove before DST appears.")
@_option("--atol", type=float, help="Of outputs: an element may differ by ATOL + RTOL x scale.")
@_option("--rtol", type=float, help="The scale is the median |x| of the output, or |x| where larger.")
@_option("--allow-dropped", multiple=True, metavar="PATTERN", help="Accept that such tensors are lost.")
@_option("--allow-missing", multiple=True, metavar="PATTERN", help="Accept that such slots are filled with zeros.")
@_option("--overwrite", is_flag=True, help="Replace DST, and an earlier report.")
@_option("--dry-run", is_flag=True, help="Say what would happen; write nothing.")
@_option("--resume", is_flag=True, help="Go on from the files that a killed attempt at DST finished.")
@_option("--jobs", type=int, metavar="N", help="Threads that write a file; helps where tensors are computed.")
@_option("--max-memory", metavar="SIZE", help="Memory for buffers and for tensors computed at once: 256MiB.")
@_option("--timeout", type=float, metavar="SECONDS", help="Time for each child process that has a framework: 3600.")
@_option("--require-sandbox", is_flag=True, help="Refuse where a layer of the sandbox is missing; -v names them.")
@_option("--no-fsync", "durable", flag_value=False, type=bool, help="Do not wait for the disk.")
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
    options = {name: value for name, value in given.items() if is_given(value) or name == "durable"}
    if options.get("durable") is None:
        del options["durable"]
    to = options.pop("to", None)
    try:
        with page.opened(ledger_path, source=source, target=destination, overwrite=given["overwrite"]) as ledger:
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
