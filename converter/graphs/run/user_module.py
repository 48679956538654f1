"""The reference for a user's own model: the module itself, with the checkpoint's weights in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, run_sets
from converter.graphs.run.module_weights import ModuleWeights
from converter.graphs.trace.user_module import built, named_outputs

FACTORY_NAME = "module.json"
_WEIGHTS_NAME = "model.safetensors"


def run(*, model: str, inputs: str, outputs: str, nudge: str | None = None) -> Answer:
    """Run the module that `model`/module.json (`factory`, `folder`) names, on the inputs of an .npz file.

    Its weights are those of `model`/model.safetensors, in the module's own element types. With `nudge` every weight is
    changed in its last place before. Raises GraphError for a tensor of the module that has no value.
    """
    import torch
    from safetensors.torch import load_file

    module = built(**json.loads((Path(model) / FACTORY_NAME).read_text()))
    stored = load_file(Path(model) / _WEIGHTS_NAME)
    filled: set[int] = set()
    with torch.no_grad():
        state = module.state_dict(keep_vars=True)
        for name in stored:
            state[name].copy_(stored[name])
            filled.add(id(state[name]))
        empty = [name for name, tensor in state.items() if id(tensor) not in filled]
        if empty:
            raise GraphError("has no value in the checkpoint", tensor=empty[0])
        if nudge is not None:
            ModuleWeights(module).nudge(nudge)

    def called(arrays: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            result = module(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        return {name: np.asarray(each) for name, each in named_outputs(result)}

    # The user's own code fails in any way it likes.
    return {"failed": run_sets(read_sets(inputs), outputs, called, (Exception,))}
