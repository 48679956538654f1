"""What was proven of an output, and how that is reported."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from converter.errors import escape
from converter.report.ledger import NAMES_TOGETHER, REASON_CHARACTERS, listed, noted

_OUTPUTS_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """How one output of the target compared with the reference's, over all sample cases.

    `max_abs`, `max_rel`   the largest difference, and the largest in units of the element's scale
    `tolerance`            of an element that is no larger than the scale; 0 where elements are to be equal
    `computed_in`          the type that is computed in, where that is float16 or bfloat16
    `share`                of the elements that could have failed (converter.proof.comparing)
    `reason`               why the output proves nothing, None where it does
    """

    name: str
    dtype: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    tolerance: float = 0.0
    computed_in: str | None = None
    share: float = 0.0
    reason: str | None = None

    def __str__(self) -> str:
        proven = "" if self.reason is None else f", not proven: {self.reason}"
        inside = "" if self.computed_in in (None, self.dtype) else f" computed in {self.computed_in}"
        return (
            f"output {self.name!r}: {self.dtype}{inside}, max|d| {self.max_abs:.2e}, relative {self.max_rel:.2e}, "
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
            but = f"; not proven: {listed(unproven, NAMES_TOGETHER)}" if unproven else ""
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
        return tuple(escape(line, REASON_CHARACTERS) for line in (*map(str, self.per_output), *canary))

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
        return (*self.left_out, f"the outputs do not change with {groups}: {listed(names, NAMES_TOGETHER)}")

    @property
    def noted(self) -> tuple[str, ...]:
        """The `notes`, one line each, safe to print."""
        return noted(self.notes)

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
