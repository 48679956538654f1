"""The ledger as a document of its own: text, JSON or one HTML page, by the suffix of its file.

Each form says what it is, so that `--overwrite` replaces an earlier report and nothing else.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from converter.errors import CkconvError, escape
from converter.execution.guarded import GuardedFile, guarded
from converter.formats.probe import located
from converter.model.ledger import LedgerLine, Setting
from converter.report import Report, failure
from converter.report.ledger import REASON_CHARACTERS
from converter.storage import location_of

_STYLE = "body{font:14px sans-serif} td,th{text-align:left;padding:2px 12px 2px 0} td{font-family:monospace}"
_PAGE_START = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="generator" content="ckconv">'
_TEXT_MARK = "report of ckconv"
_KEYS = {"status", "exit_code", "source", "target", "counts", "tensors", "optimizer", "verification", "warnings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """What a table of the ledger says of every line, and of a setting, which has no value in most columns."""

    title: str
    of_line: Callable[[LedgerLine], str | None]
    of_setting: Callable[[Setting], str] = lambda setting: ""


def _of_setting(setting: Setting) -> str:
    return f"{setting.class_name}, {setting.kind}" + (f": {setting.note}" if setting.note else "")


_STATUS = _Column(title="status", of_line=lambda line: line.status.value, of_setting=lambda setting: "setting")
_NAME = _Column(title="name", of_line=lambda line: line.name, of_setting=lambda setting: setting.layer)
_TARGET = _Column(title="target", of_line=lambda line: line.target)
_REASON = _Column(title="reason", of_line=lambda line: line.reason, of_setting=_of_setting)
_COLUMNS = (_STATUS, _NAME, _TARGET, _REASON)
"""Those of the HTML page."""


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
    known = outcome if isinstance(outcome, Report) else outcome.report
    report = known or Report(source=place.source, target=place.target, source_format="", target_format="")
    closing = outcome.verdict if isinstance(outcome, Report) else f"failed: {outcome}"
    match place.file.path.suffix.lower():
        case ".json" if isinstance(outcome, CkconvError):
            return json.dumps(failure(outcome, source=place.source, target=place.target), indent=2)
        case ".json":
            return json.dumps(report.as_dict(), indent=2)
        case ".html" | ".htm":
            return _page(report, closing)
        case _:
            return "\n".join(_text(report, closing))


def _text(report: Report, closing: str) -> Iterator[str]:
    yield _title(report)
    yield _TEXT_MARK
    for row in _rows(report, _STATUS, _NAME, _TARGET, _REASON):
        status, name, target, reason = row
        arrow = "" if target in ("", name) else f" -> {target}"
        yield f"{status:<10} {name}{arrow}" + (f": {reason}" if reason else "")
    notes = (*report.made_with, *report.warnings, *report.verification.notes)
    yield from (f"note: {_shown(note)}" for note in notes)
    yield from report.verification.details
    yield closing


def _page(report: Report, closing: str) -> str:
    """Return a page without scripts or anything to load: names in it come from the checkpoint."""
    head = "".join(f"<th>{column.title}</th>" for column in _COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in _rows(report, *_COLUMNS)
    )
    remarks = (*report.made_with, *report.warnings, *report.verification.notes, *report.verification.details)
    notes = "".join(f"<li>{html.escape(_shown(each))}</li>" for each in remarks)
    title = html.escape(_title(report))
    return (
        f"{_PAGE_START}<title>{title}</title><style>{_STYLE}</style>\n"
        f"<h1>{title}</h1>\n<p>{html.escape(closing)}</p>\n<ul>{notes}</ul>\n"
        f"<table><tr>{head}</tr>\n{rows}</table></html>"
    )


def _title(report: Report) -> str:
    return f"{_shown(report.source)} -> {_shown(report.target)}"


def _rows(report: Report, *columns: _Column) -> Iterator[tuple[str, ...]]:
    """Yield the cells of every line of the ledger, then of every setting."""
    for line in report.lines:
        yield tuple(_shown(column.of_line(line) or "") for column in columns)
    for setting in report.settings:
        yield tuple(_shown(column.of_setting(setting)) for column in columns)


def _shown(text: str) -> str:
    return escape(text, REASON_CHARACTERS)
