"""In which order a transformers class has its parameters: its own, which files of weights need not keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converter.graphs.trace.canonical_names import canonical_names
from converter.graphs.trace.model_building import abstract_model, model_class, model_config


def parameter_order(*, config: str, architecture: str) -> dict[str, Any]:
    """Return what `named_parameters()` of the class `architecture`, built from the config.json at `config`, gives.

    `parameters` lists, in order and each once, all names that a parameter has, the model's first choice first;
    `layer_norms` those names that are inside a torch.nn.LayerNorm. Names are those that save_pretrained writes.

    Raises ArchitectureError for a config that does not build, GraphError for weights that are saved in another form.
    """
    import torch

    class_ = model_class(architecture)
    model = abstract_model(class_, model_config(class_, json.loads(Path(config).read_text())))
    saved = canonical_names(model)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(saved.get(name, name))
    norms = [
        saved.get(f"{path}.{leaf}", f"{path}.{leaf}")
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm)
        for leaf, _ in module.named_parameters(recurse=False)
    ]
    return {"parameters": list(names.values()), "layer_norms": norms}
