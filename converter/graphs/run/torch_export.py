"""A torch.export program that this program wrote, run by torch. Never for a file from elsewhere: torch unpickles."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.torch.framework import to_array, to_tensor, torch
from converter.graphs.run.arrays import read_inputs, write_outputs

_FILE_NAME = "model.pt2"
_DOCUMENT = "/extra/ckconv.json"


def run(*, model: str, architecture: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Call the program `model`, a file or a folder with `model.pt2`, on the inputs of an .npz file; write another.

    `architecture` is not needed, and is taken so that every runner is called alike. Returns `missing` and
    `unexpected`, both empty. Raises GraphError when the program does not load or run.
    """
    file = Path(model) / _FILE_NAME if Path(model).is_dir() else Path(model)
    called = _keywords(file)
    results = {}
    try:
        with file.open("rb") as stream:  # a path would have to end in .pt2, and a staged file may not
            program = torch.export.load(stream).module()
        for number, arrays in read_inputs(inputs).items():
            with torch.no_grad():
                found = program(**{called.get(name, name): to_tensor(array) for name, array in arrays.items()})
            results[number] = {name: to_array(tensor) for name, tensor in found.items()}
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}


def _keywords(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith(_DOCUMENT))
        document: dict[str, dict[str, str]] = json.loads(archive.read(name))
    return document.get("inputs", {})
