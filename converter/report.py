"""The ledger of a conversion: what became of every tensor, and how that is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from converter.errors import CkconvError, LossError, escape
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import LedgerLine, Setting, Status
from converter.model.output import Output

_NAMES_SHOWN = 20
_NAMES_TOGETHER = 3
_OUTPUTS_SHOWN = 6
_REASON_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerReport:
    """What became of the optimizer state: `status` is "carried", "dropped" or "absent"."""

    status: str = "absent"
    algorithm: str | None = None
    step: int | None = None
    basis: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """How one output of the target compared with the reference's, over all sample cases.

    `max_abs`, `max_rel`   the largest difference, and the largest in units of the element's scale
    `tolerance`            of an element that is no larger than the scale; 0 where elements are to be equal
    `share`                of the elements that could have failed (converter.verification.comparing)
    `reason`               why the output proves nothing, None where it does
    """

    name: str
    dtype: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    tolerance: float = 0.0
    share: float = 0.0
    reason: str | None = None

    def __str__(self) -> str:
        proven = "" if self.reason is None else f", not proven: {self.reason}"
        return (
            f"output {self.name!r}: {self.dtype}, max|d| {self.max_abs:.2e}, relative {self.max_rel:.2e}, "
            f"tolerance {self.tolerance:.2e}, {self.share:.1%} of the elements could have failed{proven}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Whether the comparison noticed weights that were changed on purpose, a group of one name at a time.

    `tried` counts the groups, `noticed` those whose change put an output out of tolerance, `unnoticed` names the
    others; for `not_tried` there was no time, or, as `reason` says, no way.
    """

    tried: int = 0
    noticed: int = 0
    not_tried: int = 0
    unnoticed: tuple[str, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        left = f", {self.not_tried} not tried" if self.not_tried else ""
        why = "" if self.reason is None else f" ({self.reason})"
        return f"canary: {self.noticed} of {self.tried} groups of weights noticed when changed{left}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was verified: `weights` bit for bit; `outputs` within `tolerance`, `max_abs` being the largest difference.

    `reason` says why outputs were not, where they could have been; `per_output` how each compared, of which some may
    have proved nothing; `is_unproven` that they were compared and none could prove anything.
    `beyond` says which lengths that the config names no set of inputs reached, `left_out` what else they did not;
    `data` is the name of the user's own file of inputs, where there was one: then no others were compared.
    """

    weights: bool = False
    outputs: bool = False
    max_abs: float | None = None
    tolerance: float | None = None
    reason: str | None = None
    is_unproven: bool = False
    beyond: str | None = None
    data: str | None = None
    left_out: tuple[str, ...] = ()
    per_output: tuple[OutputComparison, ...] = ()
    canary: Canary | None = None

    def __str__(self) -> str:
        if self.outputs:
            unproven = [f"{escape(each.name)!r} ({each.reason})" for each in self.per_output if each.reason is not None]
            but = f"; not proven: {listed(unproven, _NAMES_TOGETHER)}" if unproven else ""
            where = "" if self.data is None else f" on the inputs of {escape(self.data)} alone"
            beyond = "" if self.beyond is None else f"; {self.beyond}"
            return f"verified outputs max|d|={self.max_abs:.2e}{where}{but}{beyond}"
        done = "verified weights" if self.weights else "not verified"
        how = "not proven" if self.is_unproven else "not verified"
        return done if self.reason is None else f"{done}, outputs {how}: {self.reason}"

    @property
    def details(self) -> tuple[str, ...]:
        """How each output compared, and what became of the canary, one line each, safe to print."""
        canary = () if self.canary is None else (str(self.canary),)
        return tuple(escape(line, _REASON_CHARACTERS) for line in (*map(str, self.per_output), *canary))

    def shown(self, limit: int = _OUTPUTS_SHOWN) -> tuple[str, ...]:
        """Return `details`, of many outputs those that prove nothing and the first of the others."""
        if len(self.per_output) <= limit:
            return self.details
        unproven_first = sorted(self.per_output, key=lambda each: each.reason is None)
        left = f"{len(self.per_output) - limit} more outputs: --json and --report have them"
        first = replace(self, per_output=tuple(unproven_first[:limit]), canary=None).details
        return (*first, left, *replace(self, per_output=()).details)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know besides: sets of inputs that were left out, weights that the outputs do not show."""
        if self.canary is None or not self.canary.unnoticed:
            return self.left_out
        names = self.canary.unnoticed
        groups = f"{len(names)} of {self.canary.tried} groups of weights"
        return (*self.left_out, f"the outputs do not change with {groups}: {listed(names, _NAMES_TOGETHER)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Verification:
        """Return what `as_dict` made `values` of, but for `is_unproven`, which `reason` and `per_output` say."""
        canary = values["canary"]
        return cls(
            **{name: values[name] for name in ("weights", "outputs", "max_abs", "tolerance", "reason")},
            **{name: values[name] for name in ("beyond", "data")},
            left_out=tuple(values["left_out"]),
            per_output=tuple(OutputComparison(**each) for each in values["per_output"]),
            canary=None if canary is None else Canary(**{**canary, "unnoticed": tuple(canary["unnoticed"])}),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` says of it."""
        return {
            "weights": self.weights,
            "outputs": self.outputs,
            "max_abs": self.max_abs,
            "tolerance": self.tolerance,
            "reason": self.reason,
            "beyond": self.beyond,
            "data": self.data,
            "left_out": list(self.left_out),
            "per_output": [asdict(each) for each in self.per_output],
            "canary": None if self.canary is None else {**asdict(self.canary), "unnoticed": [*self.canary.unnoticed]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a conversion. `nbytes` counts the output's bytes; `is_dry_run` says that nothing was written.

    `settings` lists, layer by layer, what the `warnings` say of them together.
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
    nbytes: int = 0
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
        return f"ok: {counts}; optimizer {self.optimizer.status}; {checked}"

    def losses(self) -> list[str]:
        """What a user should know besides the counts, one line for each reason, safe to print."""
        alike: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            if line.status in (Status.DROPPED, Status.DEFAULTED):
                alike.setdefault((line.status.value, line.reason), []).append(line.name or line.target or "")
        said = [
            f"{status}: {listed(names, _NAMES_TOGETHER)}: {escape(reason, _REASON_CHARACTERS)}"
            for (status, reason), names in alike.items()
        ]
        if self.optimizer.status == "dropped":
            said.append(f"dropped: optimizer state: {self.optimizer.reason}")
        notes = (*self.warnings, *self.verification.notes)
        return said + [f"note: {escape(note, _REASON_CHARACTERS)}" for note in notes]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        optimizer = self.optimizer
        return {
            "status": "ok",
            "exit_code": 0,
            "source": self.source,
            "target": self.target,
            "source_format": self.source_format,
            "target_format": self.target_format,
            "bytes": self.nbytes,
            "dry_run": self.is_dry_run,
            "counts": self.counts,
            "tensors": [
                {"name": line.name, "target": line.target, "status": line.status.value, "reason": line.reason}
                for line in self.lines
            ],
            "optimizer": {
                "status": optimizer.status,
                "algorithm": optimizer.algorithm,
                "step": optimizer.step,
                "basis": optimizer.basis,
                "reason": optimizer.reason,
            },
            "verification": self.verification.as_dict(),
            "warnings": list(self.warnings),
            "settings": [
                {
                    "layer": setting.layer,
                    "class": setting.class_name,
                    "name": setting.name,
                    "value": setting.value,
                    "kind": setting.kind,
                    "said": setting.said,
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
        "optimizer": {"status": "absent", "algorithm": None, "step": None, "basis": None, "reason": None},
        "verification": Verification().as_dict(),
        "warnings": [],
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
    told = {line.name for line in lines}
    missing = [name for name in map(source.origin, source.names) if name not in told]
    if missing:
        raise LossError(f"{len(missing)} tensors are unaccounted for: {listed(missing)}", tensor=missing[0])
    return tuple(lines)


def check_allowed(lines: Iterable[LedgerLine], *, allow_dropped: Sequence[str], allow_missing: Sequence[str]) -> None:
    """Raise LossError for a loss that is refused by default and matches none of the user's patterns."""
    for line in lines:
        if not line.is_refused_by_default:
            continue
        patterns = allow_missing if line.status is Status.DEFAULTED else allow_dropped
        name = line.name or line.target or ""
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            flag = "--allow-missing" if line.status is Status.DEFAULTED else "--allow-dropped"
            raise LossError(line.reason, tensor=name, hint=f"{flag} {name!r} accepts it")


def listed(names: Sequence[str], limit: int = _NAMES_SHOWN) -> str:
    """Return names for a message: all of a few, the first `limit` of many."""
    shown = ", ".join(escape(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
