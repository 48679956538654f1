"""`ckconv inspect`: what a checkpoint holds, from its headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from converter.cli import failed, print_failure, print_json, printing
from converter.cli.options import with_option
from converter.cli.progress import human_bytes
from converter.errors import CkconvError, escape
from converter.execution.hashing import tensor_sha256
from converter.formats.probe import located
from converter.model.checkpoint import Checkpoint
from converter.planning.source import detected
from converter.program import read
from converter.proof.difference import canonical_form
from converter.storage import location_of


@click.command(name="inspect")
@click.argument("source", type=click.Path(path_type=str, readable=False), metavar="SRC")
@with_option("from_format")
@with_option("config")
@click.option("--hash", "with_hash", is_flag=True, help="Read every tensor and show the SHA-256 of its bytes.")
@click.option("--canonical", is_flag=True, help="Show PyTorch's names and layouts instead of those stored.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    source: str, from_format: str | None, config: Path | None, with_hash: bool, canonical: bool, as_json: bool
) -> None:
    """Show tensors, config and optimizer of SRC, reading no tensor unless --hash asks for it."""
    try:
        checkpoint = read(source, from_format=from_format, config=config)
        if canonical:
            checkpoint = canonical_form(checkpoint)
        described = describe(checkpoint)
        if as_json:
            described = {"format": from_format or detected(located(location_of(source)), None)[1].name, **described}
        if with_hash:
            for tensor in described["tensors"]:
                tensor["sha256"] = tensor_sha256(checkpoint.tensor(tensor["name"]))
    except CkconvError as error:
        if as_json:
            print_failure(failed(error))
        raise
    with printing():
        if as_json:
            print_json(described)
        else:
            _show(described)


def _show(described: dict[str, Any]) -> None:
    for tensor in described["tensors"]:
        shape = "x".join(map(str, tensor["shape"])) or "scalar"
        tied = "" if tensor["tied_to"] is None else f"  = {escape(tensor['tied_to'])}"
        hashed = f"{tensor['sha256']}  " if "sha256" in tensor else ""
        click.echo(f"{hashed}{tensor['dtype']:<10} {shape:<16} {escape(tensor['name'])}{tied}")
    optimizer = described["optimizer"]
    state = "no optimizer" if optimizer is None else f"{optimizer['algorithm']} at step {optimizer['step']}"
    model = described["architecture"] or "no config"
    constants = described["constants"]
    beside = (
        f"; {constants['count']} constants of the graph, {constants['numbers']} numbers" if constants["count"] else ""
    )
    size = human_bytes(described["bytes"])
    click.echo(f"{len(described['tensors'])} tensors, {size}{beside}; {escape(model)}; {state}")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known of a checkpoint as JSON values."""
    optimizer = checkpoint.optimizer
    config = {} if checkpoint.config is None else checkpoint.config.values
    architectures = config.get("architectures")
    return {
        "bytes": checkpoint.nbytes,
        "parts": sorted(part.value for part in checkpoint.parts),
        "architecture": ", ".join(map(str, architectures)) if isinstance(architectures, list) else None,
        "tensors": [
            {
                "name": name,
                "dtype": checkpoint.tensor(name).dtype.value,
                "shape": list(checkpoint.tensor(name).shape),
                "tied_to": checkpoint.aliases.get(name),
            }
            for name in checkpoint.names
        ],
        "constants": {
            "count": len(checkpoint.constants),
            "numbers": sum(checkpoint.constants.values()),
            "by_name": dict(checkpoint.constants),
        },
        "optimizer": None
        if optimizer is None
        else {
            "algorithm": optimizer.algorithm,
            "step": optimizer.step,
            "basis": optimizer.basis,
            "slots": sorted(optimizer.slots),
        },
        "optimizer_refused": checkpoint.optimizer_unusable,
        "extras": sorted(checkpoint.extras),
        "assets": sorted(checkpoint.assets),
        "warnings": list(checkpoint.warnings),
    }
