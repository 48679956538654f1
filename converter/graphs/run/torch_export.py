"""A torch.export program that this program wrote, run by torch. Never for a file from elsewhere: torch unpickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.torch.framework import to_array, to_tensor, torch
from converter.graphs.lower.torch.names import original_name
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, run_sets
from converter.graphs.run.canary import try_groups
from converter.graphs.run.module_weights import ModuleWeights

_FILE_NAME = "model.pt2"
_FAILURES = (RuntimeError, AssertionError, ValueError, TypeError, LookupError)
_DOCUMENT = "/extra/ckconv.json"


def run(*, model: str, inputs: str, outputs: str, canary: str | None = None, since: float = 0.0) -> Answer:
    """Call the program `model`, a file or a folder with `model.pt2`, on the inputs of an .npz file; write another.

    With `canary`, an .npz to write, weights are then changed (converter.graphs.run.canary). Raises GraphError when the
    program does not load or run.
    """
    file = Path(model) / _FILE_NAME if Path(model).is_dir() else Path(model)
    called = _keywords(file)
    sets = read_sets(inputs)
    try:
        with file.open("rb") as stream:  # a path would have to end in .pt2, and a staged file may not
            program = torch.export.load(stream).module()

    except _FAILURES as error:
        raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error

    def run_one(arrays: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():  # a guard that does not hold is an AssertionError
            found = program(**{called.get(name, name): to_tensor(array) for name, array in arrays.items()})
        return {name: to_array(tensor) for name, tensor in found.items()}

    failed = run_sets(sets, outputs, run_one, _FAILURES)
    weights = ModuleWeights(program, original_name)
    tried = None if canary is None else try_groups(weights, run_one, sets, path=canary, since=since)
    return {"failed": failed, "canary": tried}


def _keywords(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith(_DOCUMENT))
        document: dict[str, dict[str, str]] = json.loads(archive.read(name))
    return document.get("inputs", {})
