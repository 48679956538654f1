"""The ledger as a document of its own: text, JSON or one HTML page, by the suffix of its file.

Each form says what it is, so that `--overwrite` replaces an earlier report and nothing else.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from converter.errors import CkconvError, escape
from converter.execution.guarded import GuardedFile, guarded
from converter.formats.probe import located
from converter.report import Report, Verification, failure
from converter.storage import location_of

_STYLE = "body{font:14px sans-serif} td,th{text-align:left;padding:2px 12px 2px 0} td{font-family:monospace}"
_PAGE_START = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="generator" content="ckconv">'
_TEXT_MARK = "report of ckconv"
_KEYS = {"status", "exit_code", "source", "target", "counts", "tensors", "optimizer", "verification", "warnings"}
_COLUMNS = ("status", "name", "target", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFile:
    """Where the ledger of `source` and `target` goes; `opened` makes it. `done` is true of the target without it."""

    file: GuardedFile
    source: str
    target: str
    done: str

    def write(self, outcome: Report | CkconvError) -> None:
        """Write what became of every tensor, and the verdict or the error.

        Raises WriteError or DestinationExistsError, which say what is `done`; an error that is reported says instead
        that its report could not be written.
        """
        text = _rendered(outcome, self)
        try:
            self.file.write((text + "\n").encode("utf-8", errors="backslashreplace"))
        except CkconvError as error:
            if isinstance(outcome, CkconvError):
                outcome.hint = "; ".join(filter(None, (outcome.hint, f"no report: {error}")))
                return
            if not outcome.is_dry_run:
                error.hint = f"{self.target} {self.done}"
            raise


@contextmanager
def opened(
    path: str | None, *, source: str, target: str, overwrite: bool, done: str = "is in place"
) -> Iterator[LedgerFile | None]:
    """Yield where the ledger goes, None when no `path` is given; `done` is what `target` is if it cannot be written.

    Raises UsageError, DestinationExistsError or WriteError (see `guarded`) when it cannot go there.
    """
    if path is None:
        yield None
        return
    with guarded(
        path,
        option="--report",
        source=located(location_of(source)),
        destination=location_of(target),
        overwrite=overwrite,
        is_earlier=is_ledger,
    ) as file:
        yield LedgerFile(file=file, source=source, target=target, done=done)


def is_ledger(content: bytes) -> bool:
    """Whether these are the bytes of a ledger file, in any of its forms."""
    if content.startswith(_PAGE_START.encode()):
        return True
    if content.startswith(b"{"):
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict) and document.keys() >= _KEYS
    return content.split(b"\n", 2)[1:2] == [_TEXT_MARK.encode()]


def _rendered(outcome: Report | CkconvError, place: LedgerFile) -> str:
    if isinstance(outcome, Report):
        document, closing = outcome.as_dict(), outcome.verdict
    else:
        document, closing = failure(outcome, source=place.source, target=place.target), f"failed: {outcome}"
    match place.file.path.suffix.lower():
        case ".json":
            return json.dumps(document, indent=2)
        case ".html" | ".htm":
            return _page(document, closing)
        case _:
            return "\n".join(_lines(document, closing))


def _lines(document: Mapping[str, Any], closing: str) -> Iterator[str]:
    yield _title(document)
    yield _TEXT_MARK
    for row in _rows(document):
        status, name, target, reason = row
        arrow = "" if target in ("", name) else f" -> {target}"
        yield f"{status:<10} {name}{arrow}" + (f": {reason}" if reason else "")
    verification = Verification.from_dict(document["verification"])
    yield from (f"note: {escape(note, 1000)}" for note in (*document["warnings"], *verification.notes))
    yield from verification.details
    yield closing


def _page(document: Mapping[str, Any], closing: str) -> str:
    """Return a page without scripts or anything to load: names in it come from the checkpoint."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in _rows(document)
    )
    verification = Verification.from_dict(document["verification"])
    remarks = (*document["warnings"], *verification.notes, *verification.details)
    notes = "".join(f"<li>{html.escape(escape(each, 1000))}</li>" for each in remarks)
    title = html.escape(_title(document))
    return (
        f"{_PAGE_START}<title>{title}</title><style>{_STYLE}</style>\n"
        f"<h1>{title}</h1>\n<p>{html.escape(closing)}</p>\n<ul>{notes}</ul>\n"
        f"<table><tr>{head}</tr>\n{rows}</table></html>"
    )


def _title(document: Mapping[str, Any]) -> str:
    return f"{escape(document['source'], 1000)} -> {escape(document['target'], 1000)}"


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for line in document["tensors"]:
        yield tuple(escape(line[column] or "", 1000) for column in _COLUMNS)
    for setting in document["settings"]:
        reason = f"{setting['class']}, {setting['kind']}" + (f": {setting['note']}" if setting["note"] else "")
        yield ("setting", escape(setting["layer"], 1000), "", escape(reason, 1000))
