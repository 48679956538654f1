"""What became of each tensor: one line per source tensor and per target slot that had no source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How a tensor ended. Values are what the JSON report prints."""

    MAPPED = "mapped"
    TIED = "tied"
    DROPPED = "dropped"
    DEFAULTED = "defaulted"


class Kind(Enum):
    """What a line is about. The value of one that is no weight is why it is dropped, until something carries it."""

    WEIGHT = "a weight"
    OPTIMIZER = "a variable of the optimizer"
    METRIC = "the state of a metric"
    RANDOM = "the state of a random generator"
    SAVES = "how many times the model was saved"
    STEPS = "the number of training steps"
    VALUE = "no tensor"
    ORDER = "the order of the features that weights are for"
    UNHELD = "a tensor of a kind that none of ours can hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One fate: `name` in the source (None for a defaulted slot), `target` slot (None when dropped).

    Other code tells lines by their `kind`, never by the words of their reason. A loss that `is_refused_by_default`
    fails the run unless the user allowed it by name.
    """

    status: Status
    name: str | None = None
    target: str | None = None
    reason: str = ""
    kind: Kind = Kind.WEIGHT
    is_refused_by_default: bool = False


class SettingKind(str, Enum):
    """Where the other framework has a setting of a layer. Values are what reports print."""

    ARGUMENT = "argument"
    """its module has an argument for it"""
    BESIDE = "beside"
    """something beside its module computes it"""
    ABSENT = "absent"
    """its module does not compute it"""
    WIRING = "wiring"
    """it is written where the module is called"""
    TRAINING = "training"
    """it changes training alone"""
    UNWRITTEN = "unwritten"
    """of a layer without weights: it is in the model's code"""
    UNKNOWN = "unknown"
    """no table knows the setting"""

    __str__ = str.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of a layer that changes what it computes, and that the tensors of the target do not hold.

    `note` is what the target's side needs for it, or lacks: `kind` says which.
    """

    layer: str
    class_name: str
    name: str
    value: str
    kind: SettingKind
    note: str


def dropped(name: str, reason: str, *, is_refused_by_default: bool = False) -> LedgerLine:
    """A source tensor, or another named part of the source, that the target does not get."""
    return LedgerLine(status=Status.DROPPED, name=name, reason=reason, is_refused_by_default=is_refused_by_default)


def no_weight(name: str, kind: Kind, reason: str | None = None) -> LedgerLine:
    """What is of another kind than a weight, and is dropped for it."""
    return LedgerLine(status=Status.DROPPED, name=name, reason=reason or kind.value, kind=kind)


def misordered(name: str, reason: str) -> LedgerLine:
    """Weights whose features may be in another order than the target's; a graph of the source's own has it inside."""
    return LedgerLine(status=Status.DROPPED, name=name, reason=reason, kind=Kind.ORDER, is_refused_by_default=True)


def unheld(name: str, reason: str) -> LedgerLine:
    """A tensor of the source that cannot be held, and that a user has to leave out."""
    return LedgerLine(status=Status.DROPPED, name=name, reason=reason, kind=Kind.UNHELD, is_refused_by_default=True)


def without(lines: Iterable[LedgerLine], kind: Kind) -> tuple[LedgerLine, ...]:
    """Return the lines but those of a kind, once what they are about is carried."""
    return tuple(line for line in lines if line.kind is not kind)


def defaulted(target: str, reason: str, *, is_refused_by_default: bool = False) -> LedgerLine:
    """A target slot that no source tensor fills."""
    return LedgerLine(
        status=Status.DEFAULTED, target=target, reason=reason, is_refused_by_default=is_refused_by_default
    )
