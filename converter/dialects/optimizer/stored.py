"""Optimizer state as PyTorch has it, in files that keep PyTorch's names and layouts but are no pickles.

Every slot is a tensor `<algorithm>/<slot>/<parameter>`; a document beside them says the rest:
``{"algorithm", "step", "groups": [{"parameters": [name], "hyperparameters": {name: value}}]}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converter.dialects.optimizer.torch_state import named_state
from converter.encoding import json as strict_json
from converter.encoding.hdf5 import Dataset, Group
from converter.encoding.hdf5.layers import listed
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor

_STEP_LIMIT = 1 << 53
_DOCUMENT, _GROUP, _NAMES = "ckconv_optimizer", "ckconv_group_", "weight_names"


def stored_tensors(state: OptimizerState) -> dict[str, Tensor]:
    """Return the slots by the names that they are stored under."""
    return {
        f"{state.algorithm}/{slot}/{name}": tensor
        for slot, tensors in state.slots.items()
        for name, tensor in tensors.items()
    }


def document_of(state: OptimizerState) -> dict[str, Any]:
    """Return the document of a state. Raises LossError for hyperparameters that JSON has no words for."""
    groups = [
        {"parameters": list(group.parameters), "hyperparameters": dict(group.hyperparameters)} for group in state.groups
    ]
    document = {"algorithm": state.algorithm, "step": state.step, "groups": groups}
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LossError(f"optimizer state: its hyperparameters cannot be stored: {error}") from error
    return document


def with_stored_state(
    checkpoint: Checkpoint, document: object, tensors: Mapping[str, Tensor], *, is_of_these_names: bool = True
) -> Checkpoint:
    """Return the checkpoint with the state that `document` and `tensors` are; or with the reason why it has none.

    Its parameters are checked against the checkpoint's, unless that has other names; `to_torch` does it then.
    """
    try:
        state_dict = _state_dict(document, tensors)
        state = named_state(state_dict, checkpoint if is_of_these_names else _stand_ins(state_dict))
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message)
    return replace(checkpoint, optimizer=state)


def _state_dict(document: object, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    algorithm, step, groups = _checked(document)
    names = [name for group in groups for name in group["parameters"]]
    slots: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for stored, tensor in tensors.items():
        known, _, rest = stored.partition("/")
        slot, _, name = rest.partition("/")
        if known != algorithm or name not in slots:
            raise LossError(f"its slot {stored!r} is of no parameter")
        slots[name][slot] = tensor
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(names):
        if slots[name] or not tensors:
            state[number] = {**({} if step is None else {"step": step}), **slots[name]}
    param_groups, start = [], 0
    for group in groups:
        ids = list(range(start, start + len(group["parameters"])))
        start += len(ids)
        param_groups.append(
            {**_as_in_torch(group["hyperparameters"]), "params": ids, "param_names": group["parameters"]}
        )
    return {"state": state, "param_groups": param_groups, "algorithm": algorithm}


def _stand_ins(state: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint with the parameters of a state, each as its first slot is."""
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    slots = [state["state"].get(number, {}) for number in range(len(names))]
    scalar = ArrayTensor.of(np.zeros((), np.float32))
    tensors = [next((value for value in each.values() if isinstance(value, Tensor)), scalar) for each in slots]
    return Checkpoint(tensors=dict(zip(names, tensors, strict=True)))


def _as_in_torch(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in hyperparameters.items()}


def _checked(document: object) -> tuple[str, int | None, list[dict[str, Any]]]:
    held = document if isinstance(document, dict) else {}
    algorithm, step, groups = held.get("algorithm"), held.get("step"), held.get("groups")
    is_step = step is None or (type(step) is int and 0 <= step < _STEP_LIMIT)
    is_whole = isinstance(algorithm, str) and is_step and isinstance(groups, list)
    for group in groups if is_whole and groups is not None else []:
        names = group.get("parameters") if isinstance(group, dict) else None
        is_whole = is_whole and isinstance(names, list) and all(isinstance(name, str) for name in names)
        is_whole = is_whole and isinstance(group.get("hyperparameters"), dict)
    if not is_whole:
        raise LossError("its document does not say what it is of")
    return str(algorithm), step, list(groups or ())


# in HDF5: numbered datasets, names and document in the attributes of their group


def placed(state: OptimizerState, place: str) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]]:
    """Return the datasets and the attributes, by path, of a state that goes into the group `place`."""
    tensors, document = stored_tensors(state), document_of(state)
    names = {f"{_GROUP}{number}": group.pop("parameters") for number, group in enumerate(document["groups"])}
    attributes = {_DOCUMENT: json.dumps(document), _NAMES: list(tensors), **names}
    return {f"{place}/{number}": tensor for number, tensor in enumerate(tensors.values())}, {place: attributes}


def is_placed(group: Group | None) -> bool:
    """Whether a group is what `placed` makes."""
    return group is not None and _DOCUMENT in group.attributes and listed(group, f"{_GROUP}0") is not None


def with_placed_state(
    checkpoint: Checkpoint, group: Group, path: Location, *, is_of_these_names: bool = True
) -> Checkpoint:
    """Return the checkpoint with the state in a group of the file at `path`. Raises ReadError for a malformed one."""
    text = group.attributes[_DOCUMENT]
    if not isinstance(text, str):
        raise ReadError(f"has a {_DOCUMENT} that is no text", path=path)
    document = strict_json.loads(text.encode("utf-8"), path=path, what=_DOCUMENT)
    groups = document.get("groups") if isinstance(document, dict) else None
    for number, held in enumerate(groups if isinstance(groups, list) else ()):
        if isinstance(held, dict):
            held["parameters"] = list(listed(group, f"{_GROUP}{number}") or ())
    names = listed(group, _NAMES) or ()
    if len(names) != len(group.members):
        raise ReadError(f"lists {len(names)} variables of the optimizer, and holds {len(group.members)}", path=path)
    tensors = dict(zip(names, _numbered(group, names, path), strict=True))
    return with_stored_state(checkpoint, document, tensors, is_of_these_names=is_of_these_names)


def _numbered(group: Group, names: Sequence[str], path: Location) -> Iterator[Tensor]:
    for number, name in enumerate(names):
        dataset = group.members.get(str(number))
        if not isinstance(dataset, Dataset) or dataset.tensor is None:
            raise ReadError("is listed in the optimizer, but is not in the file", path=path, tensor=name)
        yield dataset.tensor
