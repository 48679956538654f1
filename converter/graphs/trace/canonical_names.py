"""In-memory parameter names of transformers 5 -> the names save_pretrained writes, and which are tied to which."""

from __future__ import annotations

from typing import Any

from converter.errors import GraphError
from converter.graphs.trace.saved_form import saved_form


def canonical_names(model: Any) -> dict[str, str]:
    """Return in-memory name -> canonical name for the whole state dict of a model on the meta device.

    Raises GraphError naming a weight that is stored as something else than a renamed tensor (fused, split, permuted).
    """
    form = saved_form(model)
    for name in form.parts:
        raise GraphError("is stored in another form than the model computes with, not only renamed", tensor=name)
    return dict(form.names)


def tied_names(model: Any) -> dict[str, str]:
    """Return tied name -> owner, in memory: the owner is the one of a group that save_pretrained writes."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    removed = set(model.all_tied_weights_keys)
    ties = {}
    for group in groups.values():
        owner = next((name for name in group if name not in removed), group[0])
        ties.update({name: owner for name in group if name != owner})
    return ties
