"""Proof of an output's tensors: bit for bit, through the mapping, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from converter.errors import VerificationError
from converter.execution.digests import NONE, Digests, digest_of
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import Convention, OptimizerState
from converter.model.structure import OrderedMapping, Slot, State
from converter.model.tensor import Tensor, is_equal
from converter.observer import SILENT, Observer

Runner = Callable[[Iterable[tuple[int, Callable[[Observer], None]]], Observer], None]
"""Runs comparisons, each given with the bytes of memory that it takes besides chunks, and tells an observer."""


_NAME_LIMIT = 200


def _one_by_one(comparisons: Iterable[tuple[int, Callable[[Observer], None]]], observer: Observer) -> None:
    for _, compare in comparisons:
        compare(observer)


def verify_weights(
    expected: Checkpoint,
    found: Checkpoint,
    names: Mapping[str, str],
    *,
    path: Path,
    digests: Digests = NONE,
    observer: Observer = SILENT,
    run: Runner = _one_by_one,
) -> None:
    """Compare every tensor of `found`, read back from the staged `path`, with the one that `names` says fills it.

    `names` maps slot -> name in `expected`. Reads both sides in pieces, the first only where `digests` do not say what
    was written of it; `run` may compare several at once. Raises
    VerificationError naming the first slot that is missing, unexpected, or differs in dtype, shape or any bit.
    """
    missing = [slot for slot in names if slot not in found.tensors and slot not in found.aliases]
    if missing:
        raise VerificationError("is missing in the output", path=path, tensor=missing[0])
    unexpected = [slot for slot in found.names if slot not in names]
    if unexpected:
        raise VerificationError("is in the output, but was not planned", path=path, tensor=unexpected[0])
    comparisons: dict[tuple[int, int], tuple[int, Callable[[Observer], None]]] = {}
    for slot, name in names.items():
        ours, theirs = expected.tensor(name), found.tensor(slot)
        compare = partial(_compare, ours, theirs, digests=digests, path=path, name=slot)
        comparisons.setdefault((id(ours), id(theirs)), (ours.working_bytes + theirs.working_bytes, compare))
    run(comparisons.values(), observer)


def names_of_parameters(state: OptimizerState, planned: Checkpoint, names: Mapping[str, str]) -> dict[str, str]:
    """Return slot -> parameter of `state`, which goes by one name of a tie; a file may hold it under another."""
    held = set(state.parameters)
    of_tie = {planned.aliases.get(name, name): name for name in held}
    return {
        slot: name if name in held else of_tie.get(planned.aliases.get(name, name), name)
        for slot, name in names.items()
    }


def verify_state(
    planned: Checkpoint, found: Checkpoint, names: Mapping[str, str], *, path: Path, digests: Digests = NONE
) -> None:
    """Compare the optimizer's state read back with what was planned, and of a copy all that stands beside the weights.

    `names` maps names of the output -> names of the plan. Raises VerificationError for any difference.
    """
    if planned.structure is not None:
        _compare_nested(planned.structure, found.structure, "", path, digests)
    if planned.optimizer is None and planned.optimizer_stored is not None:
        theirs = found.optimizer_stored
        held = {} if theirs is None else {"tensors": theirs.tensors, "attributes": theirs.attributes}
        ours = planned.optimizer_stored
        _compare_nested({"tensors": ours.tensors, "attributes": ours.attributes}, held, "optimizer", path, digests)
    if planned.optimizer is not None:
        parameters = names_of_parameters(planned.optimizer, planned, names)
        verify_optimizer(planned.optimizer, found.optimizer, path=path, names=parameters, digests=digests)


def _compare_nested(expected: Any, found: Any, name: str, path: Path, digests: Digests) -> None:
    """Compare how weights are nested, and all that is none."""
    is_same = True
    match expected:
        case Slot():
            is_same = isinstance(found, Slot)
        case State():
            is_same = isinstance(found, State)
            if is_same:
                _compare_nested(expected.value, found.value, name, path, digests)
        case Tensor():
            is_same = isinstance(found, Tensor)
            if is_same:
                _compare(expected, found, SILENT, digests=digests, path=path, name=name)
        case Mapping():
            is_same = type(found) is type(expected) and expected.keys() == found.keys()
            if is_same:
                _compare_items(expected, found, name, path, digests)
        case list() | tuple():
            is_same = type(found) is type(expected) and len(found) == len(expected)
            for position, (ours, theirs) in enumerate(zip(expected, found, strict=True) if is_same else ()):
                _compare_nested(ours, theirs, f"{name}.{position}"[-_NAME_LIMIT:], path, digests)
        case _:
            is_same = type(found) is type(expected) and (found == expected or found != found)
    if not is_same:
        raise VerificationError("is not what the source has there", path=path, tensor=name.lstrip("."))


def _compare_items(
    expected: Mapping[Any, Any], found: Mapping[Any, Any], name: str, path: Path, digests: Digests
) -> None:
    for key in expected:
        _compare_nested(expected[key], found[key], f"{name}.{key}"[-_NAME_LIMIT:], path, digests)
    if isinstance(expected, OrderedMapping) and isinstance(found, OrderedMapping):
        _compare_nested(expected.attributes, found.attributes, name, path, digests)


def verify_optimizer(
    expected: OptimizerState,
    found: OptimizerState | None,
    *,
    path: Path | None,
    names: Mapping[str, str] | None = None,
    digests: Digests = NONE,
) -> None:
    """Compare optimizer state read back with what was meant. Raises VerificationError for any difference.

    `names` maps slots of the output -> names in `expected`, as for weights.
    """
    if found is None:
        raise VerificationError("has no optimizer state", path=path)
    found = found.with_names(names or {})
    if (found.step, found.algorithm) != (expected.step, expected.algorithm):
        raise VerificationError(
            f"optimizer is {found.algorithm} at step {found.step}, not {expected.algorithm} at {expected.step}",
            path=path,
        )
    if _comparable(found) != _comparable(expected):
        raise VerificationError("optimizer groups differ", path=path)
    ours = {(slot, name): tensor for slot, tensors in expected.slots.items() for name, tensor in tensors.items()}
    theirs = {(slot, name): tensor for slot, tensors in found.slots.items() for name, tensor in tensors.items()}
    if ours.keys() != theirs.keys():
        slot, name = sorted(ours.keys() ^ theirs.keys())[0]
        raise VerificationError(f"optimizer slot {slot} is on one side only", path=path, tensor=name)
    for (slot, name), tensor in ours.items():
        _compare(tensor, theirs[slot, name], SILENT, digests=digests, path=path, name=f"{slot}/{name}")


def _comparable(state: OptimizerState) -> list[tuple[Any, dict[str, Any]]]:
    """Return what must be alike of the groups: torch.optim's in order, Keras's where slots say what is in them."""
    is_of_torch = state.convention is Convention.TORCH
    return [
        (
            group.parameters if is_of_torch else frozenset(group.parameters if state.slots else ()),
            {key: tuple(value) if isinstance(value, list) else value for key, value in group.hyperparameters.items()},
        )
        for group in state.groups
    ]


def _compare(
    expected: Tensor, found: Tensor, observer: Observer, *, digests: Digests, path: Path | None, name: str
) -> None:
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        raise VerificationError(
            f"is {found.dtype.value}{list(found.shape)}, not {expected.dtype.value}{list(expected.shape)}",
            path=path,
            tensor=name,
        )
    written = digests.of(expected)
    if not (is_equal(expected, found) if written is None else digest_of(found.chunks()) == written):
        raise VerificationError("differs from the source", path=path, tensor=name)
    observer.advance(expected.nbytes)
