"""What a graph computes, compared with what it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converter.errors import VerificationError
from converter.model.tensor import Array

RELATIVE_TOLERANCE = {"float64": 1e-7, "float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}


def compare_outputs(
    expected: Mapping[str, Array], found: Mapping[str, Array], *, path: Path, atol: float | None, rtol: float | None
) -> tuple[float, float]:
    """Return the largest absolute difference between outputs, and the tolerance it was held against.

    The tolerance of an output is `atol` + `rtol` x max|expected|; by default rtol x max(1, max|expected|) with the
    rtol of its dtype. Raises VerificationError naming the output that is missing, misshapen or out of tolerance.
    """
    worst, allowed = 0.0, 0.0
    for key, reference in expected.items():
        output = key.partition("/")[2]
        if key not in found:
            raise VerificationError(f"the graph has no output {output!r}", path=path)
        result = found[key]
        if result.shape != reference.shape:
            raise VerificationError(
                f"output {output!r} has shape {list(result.shape)}, not {list(reference.shape)}", path=path
            )
        if reference.size == 0:
            continue
        finite = np.abs(reference[np.isfinite(reference)])
        scale = float(np.max(finite, initial=0.0))
        default = RELATIVE_TOLERANCE.get(reference.dtype.name, 0.0)
        tolerance = default * max(1.0, scale) if atol is rtol is None else (atol or 0.0) + (rtol or 0.0) * scale
        difference = _largest_difference(result.astype(np.float64), reference.astype(np.float64))
        if not difference <= tolerance:  # a NaN on one side alone is out of tolerance too
            raise VerificationError(
                f"output {output!r} differs by {difference:.3g}, more than {tolerance:.3g}", path=path
            )
        worst, allowed = max(worst, difference), max(allowed, tolerance)
    return worst, allowed


def _largest_difference(ours: Array, theirs: Array) -> float:
    is_same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(is_same, 0.0, np.abs(ours - theirs))))
