"""The outcome of a conversion: what became of every tensor, what was proven, and how that is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from converter.errors import CkconvError, escape
from converter.model.ledger import LedgerLine, Setting, Status
from converter.report.ledger import NAMES_TOGETHER, REASON_CHARACTERS, listed, noted
from converter.report.verification import Canary, OutputComparison, Verification

__all__ = ["Canary", "OptimizerReport", "OutputComparison", "Report", "Verification", "failure"]


class OptimizerStatus(str, Enum):
    """What became of optimizer state. Values are what reports print."""

    CARRIED = "carried"
    DROPPED = "dropped"
    ABSENT = "absent"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerReport:
    """What became of the optimizer state: `reason` says why it was dropped."""

    status: OptimizerStatus = OptimizerStatus.ABSENT
    algorithm: str | None = None
    step: int | None = None
    basis: str | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {**asdict(self), "status": self.status.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a conversion. `nbytes` counts the output's bytes; `is_dry_run` says that nothing was written.

    Before a graph is built, `built_by` is the framework that adds to those bytes; None where they are all.
    `settings` lists, layer by layer, what the `warnings` say of them together. `unchecked` is what no table knows,
    where nothing says what the loader of the target asks for. `made_with` is what a target that is verified says of
    the options that it was made with. `source_hash` has the algorithm and the hex digits that the target records.
    """

    source: str
    target: str
    source_format: str
    target_format: str
    lines: tuple[LedgerLine, ...] = ()
    optimizer: OptimizerReport = field(default_factory=OptimizerReport)
    verification: Verification = field(default_factory=Verification)
    warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    unchecked: str | None = None
    nbytes: int = 0
    built_by: str | None = None
    made_with: tuple[str, ...] = ()
    source_hash: Mapping[str, str] | None = None
    is_dry_run: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """The number of lines of each status."""
        counted = Counter(line.status.value for line in self.lines)
        return {status.value: counted[status.value] for status in Status}

    @property
    def verdict(self) -> str:
        """The last line that a user sees."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        checked = "nothing written (dry run)" if self.is_dry_run else str(self.verification)
        open_end = "" if self.unchecked is None else f"; loader not checked: no table knows {escape(self.unchecked)}"
        return f"ok: {counts}; optimizer {self.optimizer.status.value}; {checked}{open_end}"

    def losses(self) -> list[str]:
        """What a user should know besides the counts, one line for each reason, safe to print."""
        alike: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            if line.status in (Status.DROPPED, Status.DEFAULTED):
                alike.setdefault((line.status.value, line.reason), []).append(line.name or line.target or "")
        losses = [
            f"{status}: {listed(names, NAMES_TOGETHER)}: {escape(reason, REASON_CHARACTERS)}"
            for (status, reason), names in alike.items()
        ]
        if self.optimizer.status is OptimizerStatus.DROPPED:
            losses.append(f"dropped: optimizer state: {self.optimizer.reason}")
        return [*losses, *noted(self.warnings), *self.verification.noted]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return {
            "status": "ok",
            "exit_code": 0,
            "source": self.source,
            "target": self.target,
            "source_format": self.source_format,
            "target_format": self.target_format,
            "bytes": self.nbytes,
            "bytes_without": self.built_by and f"the graph, which {self.built_by} builds",
            "dry_run": self.is_dry_run,
            "counts": self.counts,
            "tensors": [
                {"name": line.name, "target": line.target, "status": line.status.value, "reason": line.reason}
                for line in self.lines
            ],
            "optimizer": self.optimizer.as_dict(),
            "verification": self.verification.as_dict(),
            "loader_not_checked": self.unchecked and f"no table knows {self.unchecked}",
            "warnings": list(self.warnings),
            "made_with": list(self.made_with),
            "source_hash": None if self.source_hash is None else dict(self.source_hash),
            "settings": [
                {
                    "layer": setting.layer,
                    "class": setting.class_name,
                    "name": setting.name,
                    "value": setting.value,
                    "kind": setting.kind.value,
                    "note": setting.note,
                }
                for setting in self.settings
            ],
        }


def failure(error: CkconvError, *, source: str, target: str) -> dict[str, Any]:
    """Return the JSON object that `--json` prints when `error` ended the run."""
    report: Report | None = error.report
    known = {} if report is None else report.as_dict()
    return {
        "source": source,
        "target": target,
        "counts": {status.value: 0 for status in Status},
        "tensors": [],
        "optimizer": OptimizerReport().as_dict(),
        "verification": Verification().as_dict(),
        "loader_not_checked": None,
        "warnings": [],
        "made_with": [],
        "source_hash": None,
        "settings": [],
        **known,
        "status": "failed",
        "exit_code": error.exit_code,
        "error": {
            "code": error.exit_code,
            "file": error.path,
            "tensor": error.tensor,
            "message": error.message,
            "hint": error.hint,
        },
    }
