"""What became of each tensor: one line per source tensor and per target slot that had no source."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How a tensor ended. Values are what the JSON report prints."""

    MAPPED = "mapped"
    TIED = "tied"
    DROPPED = "dropped"
    DEFAULTED = "defaulted"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One fate: `name` in the source (None for a defaulted slot), `target` slot (None when dropped).

    A loss that `is_refused_by_default` fails the run unless the user allowed it by name.
    """

    status: Status
    name: str | None = None
    target: str | None = None
    reason: str = ""
    is_refused_by_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of a layer that changes what it computes, and that the tensors of the target do not hold.

    `said` is what the target's side needs for it, or lacks: `kind` says which, as `converter.dialects.keras.settings`
    has it, or "unknown".
    """

    layer: str
    class_name: str
    name: str
    value: str
    kind: str
    said: str


def dropped(name: str, reason: str, *, is_refused_by_default: bool = False) -> LedgerLine:
    """A source tensor, or another named part of the source, that the target does not get."""
    return LedgerLine(status=Status.DROPPED, name=name, reason=reason, is_refused_by_default=is_refused_by_default)


def defaulted(target: str, reason: str, *, is_refused_by_default: bool = False) -> LedgerLine:
    """A target slot that no source tensor fills."""
    return LedgerLine(
        status=Status.DEFAULTED, target=target, reason=reason, is_refused_by_default=is_refused_by_default
    )
