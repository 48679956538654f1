"""The ledger: one line for every tensor of a source and every slot of a target, and which losses are refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

from converter.errors import LossError, escape
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, LedgerLine, Status
from converter.model.output import Output

NAMES_TOGETHER = 3
"""Names that stand together in one note."""
REASON_CHARACTERS = 1000
"""Of a reason or a note, what is shown."""
_NAMES_SHOWN = 20
_OPTIONS_SHOWN = 4
_LAST_PART = re.compile(r"[^./]*$")


def account(source: Checkpoint, written: Checkpoint, output: Output) -> tuple[LedgerLine, ...]:
    """Return one line for every tensor of `source` and every slot of `output` that none of them fills.

    `written` is what the writer was given: `source`, renamed and reduced, its losses in `lines`.

    Raises LossError when a tensor of the source has no line, naming it.
    """
    defaults = {line.target for line in (*written.lines, *output.lines) if line.status is Status.DEFAULTED}
    lines: list[LedgerLine] = []
    first_slot: dict[str, str] = {}
    for slot, name in output.names.items():
        if name in defaults:
            continue
        owner = written.aliases.get(name, name)
        shared = first_slot.setdefault(owner, slot)
        status = Status.MAPPED if shared == slot else Status.TIED
        reason = "" if shared == slot else f"shares {shared}"
        lines.append(LedgerLine(status=status, name=written.origin(name), target=slot, reason=reason))
    for name, slot in output.ties.items():
        reason = f"stored once, as {slot}"
        lines.append(LedgerLine(status=Status.TIED, name=written.origin(name), target=slot, reason=reason))
    lines += [*written.lines, *output.lines]
    accounted = {line.name for line in lines}
    missing = [name for name in map(source.origin, source.names) if name not in accounted]
    if missing:
        raise LossError(f"{len(missing)} tensors are unaccounted for: {listed(missing)}", tensor=missing[0])
    return tuple(lines)


def check_allowed(lines: Iterable[LedgerLine], *, allow_dropped: Sequence[str], allow_missing: Sequence[str]) -> None:
    """Raise LossError for a loss that is refused by default and matches none of the user's patterns.

    It is about the first, and its hint about all that one option accepts.
    """
    refused: dict[str, list[str]] = {}
    why = ""
    for line in lines:
        patterns = allow_missing if line.status is Status.DEFAULTED else allow_dropped
        name = line.name or line.target or ""
        if line.is_refused_by_default and not any(fnmatchcase(name, pattern) for pattern in patterns):
            flag = "--allow-missing" if line.status is Status.DEFAULTED else "--allow-dropped"
            how = "--exclude" if line.kind is Kind.UNHELD else flag
            refused.setdefault(how, []).append(name)
            why = why or line.reason
    for flag, names in refused.items():
        raise LossError(why, tensor=names[0], hint=_accepting(flag, names))


def _beginning(names: Sequence[str]) -> str:
    """Return the characters that all names begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return "".join(column[0] for column in alike)


def _accepting(flag: str, names: Sequence[str]) -> str:
    """Return the options that accept what is refused of all these tensors."""
    verb, object_ = ("leave", " out") if flag == "--exclude" else ("accept", "")
    if len(names) == 1:
        return f"{flag} {names[0]!r} {verb}s it{object_}"
    alike = _LAST_PART.sub("", _beginning(names))
    if len(names) > _OPTIONS_SHOWN and alike:
        return f"{flag} '{alike}*' {verb}s all {len(names)} of them{object_}"
    options = " ".join(f"{flag} {name!r}" for name in names[:_OPTIONS_SHOWN])
    more = f" ... and {len(names) - _OPTIONS_SHOWN} more" if len(names) > _OPTIONS_SHOWN else ""
    return f"{options}{more} {verb} them{object_}"


def noted(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes as they are printed, one line each."""
    return tuple(f"note: {escape(note, REASON_CHARACTERS)}" for note in notes)


def listed(names: Sequence[str], limit: int = _NAMES_SHOWN) -> str:
    """Return names for a message: all of a few, the first `limit` of many."""
    shown = ", ".join(escape(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
