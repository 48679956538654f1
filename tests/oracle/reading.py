"""Converting what the oracle environment built, and comparing it with what the PyTorch class saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import converter
from converter.errors import CkconvError
from converter.model.ledger import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one model: `reason` says what is wrong, "" when names, types, shapes and values are all right."""

    class_name: str
    variant: int
    reason: str = ""


def outcome(built: Path, scratch: Path) -> Outcome:
    """Convert the tf_model.h5 in `built` to a pretrained folder, and compare it with what is expected."""
    class_name, _, variant = built.name.partition(".")
    target = scratch / built.name
    try:
        report = converter.convert(built / "tf_model.h5", target, to="pretrained", durable=False)
    except CkconvError as error:
        return Outcome(class_name=class_name, variant=int(variant), reason=f"{type(error).__name__}: {error.message}")
    expected = converter.read(built / "expected.safetensors")
    found = converter.read(target / "model.safetensors")
    config = json.loads((target / "config.json").read_text())
    again = {line.target for line in report.lines if line.status is Status.TIED} - expected.tensors.keys()
    stored = {name: tensor for name, tensor in found.tensors.items() if name not in again}
    differences = list(_differences(expected.tensors, stored))
    if config.get("architectures") != [class_name[2:]]:
        differences.append(f"architectures {config.get('architectures')}")
    return Outcome(class_name=class_name, variant=int(variant), reason="; ".join(differences[:3]))


def _differences(expected: object, found: object) -> Iterator[str]:
    assert isinstance(expected, dict)
    assert isinstance(found, dict)
    yield from (f"no {name}" for name in sorted(expected.keys() - found.keys()))
    yield from (f"unexpected {name}" for name in sorted(found.keys() - expected.keys()))
    for name in sorted(expected.keys() & found.keys()):
        ours, theirs = found[name], expected[name]
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            yield f"{name} is {ours.dtype.value}{list(ours.shape)}, not {theirs.dtype.value}{list(theirs.shape)}"
        elif ours.numpy().tobytes() != theirs.numpy().tobytes():
            yield f"{name} has other values"


def built_in(folder: Path) -> list[Path]:
    """Return the models that were built in a folder."""
    return sorted(path.parent for path in folder.glob("*/dump.json"))
