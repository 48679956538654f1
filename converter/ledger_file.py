"""The ledger as a document of its own: text, JSON or one HTML page, by the suffix of its file."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.errors import CkconvError, UsageError, WriteError, escape
from converter.report import Report, failure

_STYLE = "body{font:14px sans-serif} td,th{text-align:left;padding:2px 12px 2px 0} td{font-family:monospace}"
_COLUMNS = ("status", "name", "target", "reason")


def check(path: Path) -> None:
    """Raise UsageError when no ledger can be put at `path`."""
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError("--report names a file in a folder that exists", path=path)


def write(path: Path, outcome: Report | CkconvError, *, source: str, target: str) -> None:
    """Write what became of every tensor, and the verdict or the error. Raises WriteError."""
    if isinstance(outcome, Report):
        said, closing = outcome.as_dict(), outcome.verdict
    else:
        said, closing = failure(outcome, source=source, target=target), f"failed: {outcome}"
    match path.suffix.lower():
        case ".json":
            text = json.dumps(said, indent=2)
        case ".html" | ".htm":
            text = _page(said, closing)
        case _:
            text = "\n".join(_lines(said, closing))
    try:
        path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise WriteError(os.strerror(error.errno or 0), path=path) from error


def _lines(said: Mapping[str, Any], closing: str) -> Iterator[str]:
    yield _title(said)
    for row in _rows(said):
        status, name, target, reason = row
        arrow = "" if target in ("", name) else f" -> {target}"
        yield f"{status:<10} {name}{arrow}" + (f": {reason}" if reason else "")
    yield from (f"note: {escape(warning, 1000)}" for warning in said["warnings"])
    yield closing


def _page(said: Mapping[str, Any], closing: str) -> str:
    """Return a page without scripts or anything to load: names in it come from the checkpoint."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in _rows(said))
    notes = "".join(f"<li>{html.escape(escape(warning, 1000))}</li>" for warning in said["warnings"])
    title = html.escape(_title(said))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        f"<h1>{title}</h1>\n<p>{html.escape(closing)}</p>\n<ul>{notes}</ul>\n"
        f"<table><tr>{head}</tr>\n{rows}</table></html>"
    )


def _title(said: Mapping[str, Any]) -> str:
    return f"{escape(said['source'], 1000)} -> {escape(said['target'], 1000)}"


def _rows(said: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for line in said["tensors"]:
        yield tuple(escape(line[column] or "", 1000) for column in _COLUMNS)
