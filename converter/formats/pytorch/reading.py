"""torch.save files -> Checkpoint: plain state dicts, training checkpoints, Lightning, whole modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.torch_layouts import as_state_dict, merged
from converter.dialects.optimizer.torch_state import is_buffer, is_numbered, named_state
from converter.encoding.pickle import Placeholder
from converter.encoding.torch_file import Walk, archive_of, is_module
from converter.errors import CkconvError, LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location, open_file

WEIGHTS_KEYS = ("model_state_dict", "state_dict", "model", "module")
_NORMALISED = {
    "epoch": ("epoch",),
    "global_step": ("global_step", "iter", "iteration", "step"),
    "scheduler_state_dict": ("scheduler_state_dict", "lr_scheduler_state_dict", "lr_scheduler", "scheduler"),
}
_LIGHTNING_SCHEDULERS = "lr_schedulers"
_OWN_EXTRAS = "extras"


def read_checkpoint(path: Location) -> Checkpoint:
    """Read a file of torch.save: its pickles and what they declare, no tensor but the optimizer's step counts.

    Raises ReadError for damage and for files without tensors, SafetyError for pickles that would run code.
    """
    file = open_file(path)
    try:
        archive = archive_of(file)
        root = archive.load()
        return _checkpoint(root, Walk(stored_bytes=file.size, operations=archive.operations))
    except CkconvError as error:
        error.path = error.path or str(path)
        raise


def _checkpoint(root: Any, walk: Walk) -> Checkpoint:
    weights, beside = _split(root, walk)
    walk.flatten(weights)
    if not walk.weights.tensors:
        raise ReadError("holds no tensor")
    states, training = _optimizer_states(beside)
    extras = _normalised(walk.plain_values(training))
    found = walk.weights
    by_kind = {name for name, tensor in found.tensors.items() if is_buffer(name, tensor)}
    kinds = found.buffers if found.has_modules else found.buffers | by_kind
    checkpoint = Checkpoint(
        tensors=found.tensors,
        aliases=found.aliases,
        buffers=frozenset(kinds & found.tensors.keys()),
        frozen=frozenset(found.frozen),
        extras=extras,
    )
    checkpoint = _with_optimizer(checkpoint, states, walk)
    return replace(checkpoint, lines=tuple(walk.lines))


def _split(root: Any, walk: Walk) -> tuple[Any, dict[Any, Any]]:
    """Return the part of the value that is weights, and what stands beside it."""
    if isinstance(root, Placeholder) and not is_module(root) and root.items:
        root = root.items
    if not isinstance(root, dict):
        return root, {}
    inner = next(iter(root.values()), None)
    if len(root) == 1 and isinstance(inner, dict) and _weights_key(inner, walk) is not None:
        root = inner
    key = _weights_key(root, walk)
    if key is not None:
        return root[key], {name: item for name, item in root.items() if name != key}
    return _split_by_kind(root, walk)


def _weights_key(root: dict[Any, Any], walk: Walk) -> str | None:
    """Return the key under which training code has put the weights, None where it is none of those in use."""
    return next((key for key in WEIGHTS_KEYS if _is_weights(root.get(key), walk)), None)


def _split_by_kind(root: dict[Any, Any], walk: Walk) -> tuple[Any, dict[Any, Any]]:
    """Return what has tensors and is no state of an optimizer, and the rest."""
    beside = {key: value for key, value in root.items() if _states_in(value) or not walk.has_tensors(value)}
    weights = {key: value for key, value in root.items() if key not in beside}
    only = next(iter(weights), None)
    if len(weights) == 1 and any(map(_states_in, beside.values())) and _is_weights(weights[only], walk):
        return weights[only], beside  # under a key of the user's own
    return weights, beside


def _is_weights(value: Any, walk: Walk) -> bool:
    return isinstance(value, dict | list | tuple | Placeholder) and walk.has_tensors(value)


def _states_in(value: Any) -> list[Mapping[str, Any]]:
    """Return the states of the optimizers that a value is, or lists, in whatever layout; none for anything else."""
    own = as_state_dict(value)
    if own is not None:
        return [own]
    listed = list(value) if isinstance(value, list | tuple) else list(value.values()) if isinstance(value, dict) else []
    states = [state for item in listed if isinstance(item, dict) and (state := as_state_dict(item)) is not None]
    return states if len(states) == len(listed) else []


def _optimizer_states(beside: dict[Any, Any]) -> tuple[list[Any], dict[Any, Any]]:
    """Take the states of optimizers out of what stands beside the weights."""
    states: list[Any] = []
    others: dict[Any, Any] = {}
    for key, value in beside.items():
        found = _states_in(value)
        states += found
        if not found:
            others[key] = value
    return states, others


def _with_optimizer(checkpoint: Checkpoint, states: list[Any], walk: Walk) -> Checkpoint:
    if not states:
        return checkpoint
    try:
        state = walk.plain(merged(states), "optimizer")
        checkpoint = replace(checkpoint, optimizer_numbered=state if is_numbered(state) else None)
        checkpoint = replace(checkpoint, optimizer=named_state(state, checkpoint))
    except LossError as error:
        return replace(checkpoint, optimizer_refused=error.message)
    warnings = (f"{len(states)} optimizers of one algorithm became one, with the groups of all",)
    return replace(checkpoint, warnings=(*checkpoint.warnings, *warnings)) if len(states) > 1 else checkpoint


def _normalised(training: dict[str, Any]) -> dict[str, Any]:
    """Bring the names that training code uses for the same things to one."""
    own = training.get(_OWN_EXTRAS)
    beside = training.keys() - {_OWN_EXTRAS}
    if isinstance(own, dict) and all(isinstance(key, str) and key not in beside for key in own):
        training = {**{key: value for key, value in training.items() if key != _OWN_EXTRAS}, **own}
    names = {}
    for normal, spellings in _NORMALISED.items():
        is_number = normal != "scheduler_state_dict"
        for spelling in spellings:
            value = training.get(spelling)
            if isinstance(value, int if is_number else Mapping) and not isinstance(value, bool):
                names[spelling] = normal
                break
    extras = {names.get(key, key): value for key, value in training.items()}
    schedulers = extras.get(_LIGHTNING_SCHEDULERS)
    if isinstance(schedulers, list) and len(schedulers) == 1 and "scheduler_state_dict" not in extras:
        extras["scheduler_state_dict"] = schedulers[0]
        del extras[_LIGHTNING_SCHEDULERS]
    return extras
