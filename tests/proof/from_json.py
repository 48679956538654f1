"""What was proven, read back from `--json`: a report says all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.report import Canary, OutputComparison, Verification


def verification_of(values: Mapping[str, Any]) -> Verification:
    """Return what `as_dict` made `values` of, but for `is_unproven`, which `reason` and `per_output` say."""
    canary = values["canary"]
    rest = {name: value for name, value in values.items() if name not in ("left_out", "per_output", "canary")}
    return Verification(
        **rest,
        left_out=tuple(values["left_out"]),
        per_output=tuple(OutputComparison(**each) for each in values["per_output"]),
        canary=None if canary is None else Canary(**{**canary, "unnoticed": tuple(canary["unnoticed"])}),
    )
