"""Whether two checkpoints are the same, whatever formats they came in: names and layouts are made canonical first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.dialects import canonical
from converter.dialects.names.wrappers import unwrapped
from converter.errors import VerificationError, escape
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import Tensor, is_equal
from converter.proof.weights import verify_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What two checkpoints, `left` and `right`, do not have in common.

    `changed` maps names to what differs: element type, shape or values. `optimizer` says how optimizer state differs
    where both have one; `notes` are what one of them has besides and tells nothing about the other.
    """

    same: int
    only_left: tuple[str, ...] = ()
    only_right: tuple[str, ...] = ()
    changed: Mapping[str, str]
    optimizer: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether there is none."""
        return not (self.only_left or self.only_right or self.changed or self.optimizer)

    @property
    def verdict(self) -> str:
        """The last line that a user sees."""
        counts = f"{self.same} same, {len(self.changed)} differ, {len(self.only_left)} only in A"
        state = "" if self.optimizer is None else "; optimizer state differs"
        return f"{'same' if self.is_same else 'different'}: {counts}, {len(self.only_right)} only in B{state}"

    def lines(self) -> list[str]:
        """Return one line for each difference and note, safe to print."""
        return [
            *(f"only in A: {escape(name)}" for name in self.only_left),
            *(f"only in B: {escape(name)}" for name in self.only_right),
            *(f"differs: {escape(name)}: {what}" for name, what in self.changed.items()),
            *([] if self.optimizer is None else [f"optimizer: {escape(self.optimizer)}"]),
            *(f"note: {escape(note)}" for note in self.notes),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            "status": "same" if self.is_same else "different",
            "exit_code": 0 if self.is_same else 1,
            "same": self.same,
            "only_left": list(self.only_left),
            "only_right": list(self.only_right),
            "changed": dict(self.changed),
            "optimizer": self.optimizer,
            "notes": list(self.notes),
        }


def canonical_form(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with PyTorch's names and layouts, without wrappers' prefixes. Nothing is read."""
    return canonical(unwrapped(checkpoint))


def compare(left: Checkpoint, right: Checkpoint) -> Difference:
    """Compare every tensor bit for bit. A tied name that one side leaves out is no difference while one name is there.

    Tensors that nothing can hold are not compared, and so are never the same.

    Where one side alone has a config, it says what the names of both mean. Raises ReadError when a tensor's bytes
    cannot be had.
    """
    config = left.config or right.config
    left, right = (canonical_form(replace(side, config=side.config or config)) for side in (left, right))
    changed: dict[str, str] = {}
    same = 0
    for name in left.names:
        if name in right:
            what = _how(left.tensor(name), right.tensor(name))
            if what is None:
                same += 1
            else:
                changed[name] = what
    optimizer, notes = _optimizers(left, right)
    unheld_left, unheld_right = _unheld(left), _unheld(right)
    changed |= {name: f"{what}: not compared" for name, what in unheld_left.items() if name in unheld_right}
    return Difference(
        same=same,
        only_left=(*_missing(left, right), *(name for name in unheld_left if name not in unheld_right)),
        only_right=(*_missing(right, left), *(name for name in unheld_right if name not in unheld_left)),
        changed=changed,
        optimizer=optimizer,
        notes=notes,
    )


def _unheld(side: Checkpoint) -> dict[str, str]:
    return {line.name: line.reason for line in side.lines if line.kind is Kind.UNHELD and line.name is not None}


def _how(left: Tensor, right: Tensor) -> str | None:
    if left.dtype is not right.dtype:
        return f"{left.dtype.value} and {right.dtype.value}"
    if left.shape != right.shape:
        return f"{list(left.shape)} and {list(right.shape)}"
    return None if is_equal(left, right) else "other values"


def _missing(here: Checkpoint, there: Checkpoint) -> tuple[str, ...]:
    """Return the names that `there` lacks, but for those tied to one that it has."""
    found = {here.aliases.get(name, name) for name in here.names if name in there}
    return tuple(name for name in here.names if name not in there and here.aliases.get(name, name) not in found)


def _optimizers(left: Checkpoint, right: Checkpoint) -> tuple[str | None, tuple[str, ...]]:
    if left.optimizer is None or right.optimizer is None:
        return None, tuple(_alone(left, right, "A") + _alone(right, left, "B"))
    what, notes = _settings(left.optimizer, right.optimizer)
    if what is not None:
        return what, notes
    ours, theirs = _by_parameter(left.optimizer), _by_parameter(right.optimizer)
    if ours.convention is theirs.convention is Convention.TORCH:
        theirs, rounded = _with_rounded_momentum(ours, replace(theirs, groups=ours.groups))
        notes += rounded
        if ours.algorithm == "sgd" and ours.step != theirs.step and None in (ours.step, theirs.step):
            notes += ("one alone counts the steps of SGD, which change no update",)
            theirs = replace(theirs, step=ours.step)
    try:
        verify_optimizer(ours, theirs, path=None)
    except VerificationError as error:
        return (f"{error.message}" if error.tensor is None else f"{error.tensor}: {error.message}"), notes
    return None, notes


def _alone(here: Checkpoint, there: Checkpoint, side: str) -> list[str]:
    """Return what to say of one side's optimizer state, which is not compared with the other's."""
    if here.optimizer_unusable is not None:
        return [f"{side} has optimizer state that is not compared: {here.optimizer_unusable}"]
    is_alone = here.optimizer is not None and there.optimizer_unusable is None
    return [f"{side} alone has optimizer state"] if is_alone else []


_HOW_ONLY = frozenset(("foreach", "fused", "capturable", "differentiable"))
"""Hyperparameters of torch.optim that say how an update is computed, and change nothing of it."""
_EPSILON_TOLERANCE = 1e-6


def _settings(left: OptimizerState, right: OptimizerState) -> tuple[str | None, tuple[str, ...]]:
    """Return the first hyperparameter that differs, and what is alike but for the rounding of Keras, which has float32.

    Where parameters differ is left to others.
    """
    if {left.convention, right.convention} != {Convention.TORCH}:
        return None, ()
    sides = [
        {name: group.hyperparameters for group in state.groups for name in group.parameters} for state in (left, right)
    ]
    if sides[0].keys() != sides[1].keys():
        name = min(sides[0].keys() ^ sides[1].keys())
        return f"{name}: is in a group on one side only", ()
    rounded: dict[str, str] = {}
    for name, ours in sides[0].items():
        theirs = sides[1][name]
        for key in (key for key in sorted({*ours, *theirs}) if key not in _HOW_ONLY):
            values = [side.get(key) for side in (ours, theirs)]
            if _as_tuple(values[0]) == _as_tuple(values[1]):
                continue
            if not _is_rounded(key, *values):
                return f"{name}: {key} is {values[0]!r} and {values[1]!r}", ()
            rounded[key] = f"{key} is {values[0]!r} and {values[1]!r}: the same but for rounding"
    return None, tuple(rounded.values())


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _is_rounded(key: str, left: Any, right: Any) -> bool:
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(_is_rounded(key, *pair) for pair in zip(left, right, strict=True))
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (left, right)):
        return False
    is_epsilon = key == "eps" and math.isclose(left, right, rel_tol=_EPSILON_TOLERANCE)
    return is_epsilon or bool(np.float32(left) == np.float32(right))


_SCALED = "momentum_buffer"


def _with_rounded_momentum(left: OptimizerState, right: OptimizerState) -> tuple[OptimizerState, tuple[str, ...]]:
    """Return `right` with `left`'s momentum where each value is next to it: Keras's has the learning rate in it."""
    ours, theirs = left.slots.get(_SCALED, {}), right.slots.get(_SCALED, {})
    nearby = {name for name, tensor in ours.items() if name in theirs and _is_next_to(tensor, theirs[name])}
    if not nearby:
        return right, ()
    slots = {**right.slots, _SCALED: {name: ours[name] if name in nearby else theirs[name] for name in theirs}}
    warning = f"{_SCALED} of {len(nearby)} parameters is the same but for the last bit of some values"
    return replace(right, slots=slots), (warning,)


def _is_next_to(left: Tensor, right: Tensor) -> bool:
    if (left.dtype, left.shape) != (right.dtype, right.shape) or is_equal(left, right):
        return False
    ours, theirs = left.numpy(), right.numpy()
    return bool(ours.dtype.kind == "f" and np.all(np.abs(ours - theirs) <= np.spacing(np.abs(ours))))


def _by_parameter(state: OptimizerState) -> OptimizerState:
    """Return the same state with a group for every parameter: how they are grouped changes no update."""
    if not state.slots or state.convention is not Convention.TORCH:
        return state
    groups = {name: replace(group, parameters=(name,)) for group in state.groups for name in group.parameters}
    return replace(state, groups=tuple(groups[name] for name in sorted(groups)))
