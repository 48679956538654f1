"""The reference: a save_pretrained folder run by transformers itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ArchitectureError, GraphError
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, run_sets
from converter.graphs.run.module_weights import ModuleWeights
from converter.graphs.trace.caching import cache_of, present_of
from converter.graphs.trace.model_building import model_class, model_config


def run(*, model: str, architecture: str, inputs: str, outputs: str, nudge: str | None = None) -> Answer:
    """Run the class `architecture` with the folder's weights, computed in float32, on the inputs of an .npz file.

    `model` is a folder with config.json and model.safetensors. Keys of the files are `<set>/<input or output name>`.
    With `nudge` every weight is changed in its last place before. Raises ArchitectureError when the config does not
    build, GraphError when the weights do not fit, or one of the class is not among them: transformers would make it up.
    """
    class_ = model_class(architecture)
    try:
        config_values = json.loads((Path(model) / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"the config cannot be read: {error}", path=model) from error
    import torch

    try:
        with _rows_as_loaded():
            loaded, report = class_.from_pretrained(
                model,
                config=model_config(class_, config_values),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise GraphError(f"transformers does not load it: {' '.join(str(error).split())[:300]}", path=model) from error
    missing = sorted(report["missing_keys"])
    if missing:
        also = f", and {len(missing) - 1} more are not" if len(missing) > 1 else ""
        raise GraphError(f"is not in the checkpoint that {architecture} is to be run with{also}", tensor=missing[0])
    loaded.eval()
    if nudge is not None:
        ModuleWeights(loaded).nudge(nudge)
    # A model's own code fails in any way it likes.
    return {"failed": run_sets(read_sets(inputs), outputs, lambda arrays: _outputs(loaded, arrays), (Exception,))}


@contextlib.contextmanager
def _rows_as_loaded() -> Iterator[None]:
    """Keep rows of a table that were loaded: transformers 5.23 zeroes that of padding after it has loaded it.

    Its initialisation passes by what is marked as loaded, and a row of a parameter (`weight[padding_idx]`, in classes
    such as ChineseCLIP's) has no mark of its own.
    """
    from transformers import initialization

    original = initialization.zeros_

    def zeros(tensor: Any) -> Any:
        return tensor if getattr(tensor._base, "_is_hf_initialized", False) else original(tensor)

    initialization.zeros_ = zeros
    try:
        yield
    finally:
        initialization.zeros_ = original


def _outputs(model: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    cache = cache_of(inputs)
    state = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    with torch.no_grad():
        result = model(**inputs, **state)
    present = {} if cache is None else present_of(result.past_key_values)
    return {name: np.asarray(tensor) for name, tensor in {**named_tensors(result), **present}.items()}


def named_tensors(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a ModelOutput by the names they have as outputs of a graph.

    Those of a field that is a list are numbered (`feature_maps.0`); a field that has fields of its own is left out.
    """
    import torch

    tensors: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, (list, tuple)):
            tensors.update({f"{name}.{number}": each for number, each in enumerate(value) if torch.is_tensor(each)})
    return tensors
