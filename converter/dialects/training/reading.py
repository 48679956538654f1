"""What training code saves -> Checkpoint: names of models, an optimizer with its model, everything else as extras.

The names of a single model are its own, whatever key it stands under. Several are each prefixed with their key path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from converter.declaring import option
from converter.dialects.optimizer.torch_layouts import states_in
from converter.dialects.optimizer.torch_state import is_buffer
from converter.dialects.training.optimizers import with_optimizers
from converter.dialects.training.parts import OWN_EXTRAS, WEIGHTS_KEYS, Parts, Path, items_of, parts_of
from converter.dialects.training.selecting import selected
from converter.encoding.torch_file import Walk
from converter.encoding.torch_file.tree import NO_NAME, NOTHING, is_key, is_name, text_of
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind
from converter.model.structure import Slot, State, places, replaced

_NORMALISED = {
    "epoch": ("epoch",),
    "global_step": ("global_step", "iter", "iteration", "step"),
    "scheduler_state_dict": ("scheduler_state_dict", "lr_scheduler_state_dict", "lr_scheduler", "scheduler"),
}
_LIGHTNING_SCHEDULERS = "lr_schedulers"


def select_option() -> Any:
    """Return the field of a reader's options that chooses one of several models."""
    return option(
        None,
        "Of a file with several models the one at this key (ema, model.state_dict), with the optimizer that fits it "
        "and without all else.",
        metavar="KEY",
    )


def checkpoint_of(root: Any, walk: Walk, *, select: str | None = None, is_normalised: bool = True) -> Checkpoint:
    """Return the checkpoint that nested data is. No tensor is read but an optimizer's step counts.

    What training code calls differently gets one name where it `is_normalised`.

    Raises ReadError for data without tensors, UsageError where nothing stands at the key that was asked for.
    """
    parts = parts_of(root, walk)
    weights = _flattened(parts, walk, is_prefixed=select is not None)
    found = walk.weights
    if not found.tensors:
        raise _nothing_named(root, parts.base, walk)
    walk.go_on_beside_weights()
    states = {path: State() for path in parts.optimizers}
    structure = _assembled(root, (), {**weights, **states}, parts, walk)
    for path, state in states.items():
        state.value = walk.plain(parts.optimizers[path], _dotted(path))
    rest = _rest(structure, parts.base)
    by_kind = {name for name, tensor in found.tensors.items() if is_buffer(name, tensor)}
    kinds = found.buffers if found.has_modules else found.buffers | by_kind
    checkpoint = Checkpoint(
        tensors=found.tensors,
        aliases=found.aliases,
        models={_dotted(path): tuple(slot.name for slot in places(weights[path], Slot)) for path in parts.models},
        buffers=frozenset(kinds & found.tensors.keys()),
        frozen=frozenset(found.frozen),
        extras=_normalised(rest) if is_normalised else rest,
        structure=structure,
    )
    checkpoint = with_optimizers(checkpoint, dict(_each_state(states)))
    checkpoint = replace(checkpoint, lines=tuple(walk.lines))
    return checkpoint if select is None else selected(checkpoint, select)


def _nothing_named(root: Any, base: Path, walk: Walk) -> ReadError:
    """Return the error for data without a weight: tensors may be there, under keys that are no names."""
    if not walk.has_tensors(root):
        return ReadError("holds no tensor")
    line = next((line for line in walk.lines if line.kind is Kind.UNHELD), None)
    if line is not None and line.reason != NO_NAME:
        return ReadError(line.reason, tensor=line.name)
    for key in base:
        root = (items_of(root) or {})[key]
    within = [root, *((items_of(root) or {}).get(key) for key in WEIGHTS_KEYS)]
    kinds = {type(key).__name__ for each in within for key in items_of(each) or () if not is_name(key)}
    if not kinds:
        return ReadError("holds no tensor that is a weight")
    problem = f"holds no tensor under a name: its keys are of the type {' and '.join(sorted(kinds))}"
    return ReadError(problem, hint='save it again with keys that are text: {".".join(map(str, key)): ...}')


def names_in(structure: Any) -> Mapping[str, str]:
    """Return what a reader calls the slots of a structure -> what they are called there."""
    walk = Walk()
    _flattened(parts_of(structure, walk), walk)
    return walk.weights.slots


def _flattened(parts: Parts, walk: Walk, *, is_prefixed: bool = False) -> dict[Path, Any]:
    """Add all weights to those of `walk`; return how each part is nested, by its path."""
    only = next(iter(parts.models.values()), None)
    is_bare = len(parts.models) == 1 and not is_prefixed and not isinstance(only, list | tuple)
    if is_bare and parts.tensors:
        own = {text_of(key) for key in items_of(only) or ()}
        is_bare = own.isdisjoint(map(_dotted, parts.tensors))
    return {
        path: walk.flatten(value, "" if is_bare and path in parts.models else _dotted(path))
        for path, value in parts.weights
    }


def _assembled(value: Any, path: Path, taken: Mapping[Path, Any], parts: Parts, walk: Walk) -> Any:
    """Return how `value` is nested: what is taken in its place, and the rest as plain data."""
    if path in taken:
        return taken[path]
    items = items_of(value) if path in parts.above else None
    if items is None:
        return walk.beside(value, _dotted(path[len(parts.base) :]))
    found: dict[Any, Any] = {}
    for key, item in items.items():
        where = (*path, key)
        if not is_key(key) or (not is_name(key) and walk.has_tensors(item)):
            walk.leave_nameless(_dotted(where[len(parts.base) :]), item)
            continue
        found[key] = _assembled(item, where, taken, parts, walk)
    if isinstance(value, list | tuple):
        return type(value)(None if item is NOTHING else item for item in found.values())
    return walk.alike(value, {key: item for key, item in found.items() if item is not NOTHING})


def _rest(structure: Any, base: Path) -> dict[str, Any]:
    """Return what is neither weights nor an optimizer."""
    for key in base:
        structure = structure[key]
    rest = replaced(structure, lambda slot: None, lambda state: None)
    if isinstance(rest, list | tuple):
        return {str(position): item for position, item in enumerate(rest) if item is not None}
    return {text_of(key): item for key, item in rest.items()} if isinstance(rest, Mapping) else {}


def _each_state(states: Mapping[Path, State]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each optimizer's state with the key that it stands under; several under one are numbered."""
    for path, state in states.items():
        found = states_in(state.value)
        for position, each in enumerate(found):
            yield _dotted((*path, position) if len(found) > 1 else path), each


def _dotted(path: Path) -> str:
    return ".".join(map(text_of, path))


def _normalised(training: dict[str, Any]) -> dict[str, Any]:
    """Bring the names that training code uses for the same things to one."""
    own = training.get(OWN_EXTRAS)
    beside = training.keys() - {OWN_EXTRAS}
    if isinstance(own, dict) and all(isinstance(key, str) and key not in beside for key in own):
        training = {**{key: value for key, value in training.items() if key != OWN_EXTRAS}, **own}
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
