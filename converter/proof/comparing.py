"""What a graph computes, compared with what it should: element by element, against a scale that no mask stretches.

Of an output of floating-point numbers, all its sample cases together:

`scale`      the median of |x| over the expected elements that are finite, not zero and not masked. Not the maximum: one
             logit of -1e9 would excuse anything beside it. Not the deviation: rounding goes with magnitudes. Measured
             over 66 models of the zoo, ONNX against torch, the largest difference is at most 2.3e-6 of it, where noise
             on one weight, another GELU or float16 for one weight are 1e-4 and more.
tolerance    atol + rtol x max(scale, |x|) for the element x: one that stands out is held to its own magnitude. Where
             the graph computes in a less precise type than the output's, as models of a mixed policy do, rtol is the
             former's; a sigmoid of float32 has an atol of 2.4e-7, which onnxruntime's is off by, and a softmax of
             float32 the rtol of its largest logit, 2e-5 x that, where it is more than 1: all of a row is divided by its
             exponential. Logits are taken from ln p, less its median.
`masked`     elements that no computation gives beside the others: of 1e8 and more, a thousand times the scale. They are
             equal but for the last two places of their type; infinities and NaN are in the same places.
`share`      of the elements that could have failed: those that another element of the same output in their place would
             have put out of tolerance, NaN none of them. An output in which none could have proves nothing: it is
             constant, or empty, or all NaN, or smaller than the tolerance.
`numbers`    the share of elements that are finite, or minus infinity beside finite ones in their row (a mask: all but a
             few columns of a text detector's logits). Below a quarter an output proves nothing. Measured with the
             wrong graphs of tests/graphs/wrong_graphs.py, a part of whose rows is NaN: a twentieth of the rows shows 3
             of 30 faults every time, a tenth 22, a fifth the 25 that all rows show. Rows that are all masked are at
             most a sixth of what is compared, and the zoo's outputs have no other NaN.

Integers, booleans and strings are equal; complex numbers are two outputs; element types, shapes and the set of outputs
are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import UnprovenError, VerificationError
from converter.graphs.description.traced import SIGMOID, SOFTMAX
from converter.model.tensor import Array
from converter.report import OutputComparison

RELATIVE_TOLERANCE = {"float64": 1e-7, "float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}
APPROXIMATION = 2.0**-22
"""What two computations of a sigmoid may be apart, of which one is onnxruntime's (graphs/passes/activations.py)."""
ROUNDING_FACTOR = 4
"""How many times what rounding does to the reference a target may be away from it: it rounds at other places."""
_MOST_ROUNDING = 1e-2
"""Of the root mean square: where rounding alone changes more, neither equal nor different outputs say anything."""
_LEAST_NUMBERS = 0.25
_MASKED, _MASKED_SCALES = 1e8, 1e3
_GAP, _LEAST_APART = 100.0, 1e3
_SAMPLED = 1 << 21
_PIECE = 1 << 20
_SEED = 20180611


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of comparing outputs, none of which differed."""

    per_output: tuple[OutputComparison, ...]

    @property
    def max_abs(self) -> float:
        """The largest difference in an output that proves something."""
        return max((each.max_abs for each in self.per_output if each.reason is None), default=0.0)

    @property
    def tolerance(self) -> float:
        """The largest tolerance of such an output."""
        return max((each.tolerance for each in self.per_output if each.reason is None), default=0.0)

    @property
    def unproven(self) -> tuple[OutputComparison, ...]:
        """Those outputs that proved nothing."""
        return tuple(each for each in self.per_output if each.reason is not None)


def compare_outputs(
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    *,
    path: Path,
    atol: float | None,
    rtol: float | None,
    rounding: Mapping[str, float] | None = None,
    rounded: Mapping[str, str] | None = None,
    activations: Mapping[str, str] | None = None,
    is_cast: bool = False,
) -> Comparison:
    """Compare the arrays of sample cases, keys being `<case>/<output>`, as this module's docstring says.

    Without `atol` and `rtol` the latter is that of the output's element type (RELATIVE_TOLERANCE), or of the type in
    `rounded` that it is computed in, and the former the least normal number; `activations` says which outputs of
    float32 are a SIGMOID, whose atol is APPROXIMATION, or a SOFTMAX, whose rtol is that of its logits. One given alone
    makes the other 0.
    `rounding` is by how much rounding alone moved each of the reference's outputs: ROUNDING_FACTOR times that is
    tolerated. `is_cast` says that the target computes in another
    floating-point type, because it was asked to.

    Raises VerificationError naming the output that is missing, not expected, of another shape or type, or out of
    tolerance; UnprovenError where nothing differs and nothing could have.
    """
    per_output = []
    for name in _outputs(expected, found, path):
        keys = [key for key in expected if _output(key) == name]
        pairs = [(np.asarray(expected[key]), np.asarray(found[key])) for key in keys]
        for ours, theirs in pairs:
            _check_declaration(name, ours, theirs, path, is_cast=is_cast)
        compared = _Output(
            name=name,
            cases=tuple(key.partition("/")[0] for key in keys),
            path=path,
            atol=atol,
            rtol=rtol,
            rounding=(rounding or {}).get(name, 0.0),
            rounded=(rounded or {}).get(name),
            activation=(activations or {}).get(name),
        )
        per_output.append(compared.compare(pairs))
    comparison = Comparison(per_output=tuple(per_output))
    if len(comparison.unproven) == len(per_output):
        error = UnprovenError(f"outputs not proven: {unproven_reason(comparison.unproven)}", path=path)
        error.per_output = comparison.per_output
        raise error
    return comparison


def unproven_reason(outputs: Sequence[OutputComparison], limit: int = 3) -> str:
    """Return why outputs prove nothing, the first few by name."""
    if not outputs:
        return "there are none"
    shown = ", ".join(f"{each.name!r} ({each.reason})" for each in outputs[:limit])
    return shown if len(outputs) <= limit else f"{shown} and {len(outputs) - limit} more"


def _output(key: str) -> str:
    return key.partition("/")[2]


def _outputs(expected: Mapping[str, Array], found: Mapping[str, Array], path: Path) -> list[str]:
    for key in expected:
        if key not in found:
            raise VerificationError(f"the graph has no output {_output(key)!r}", path=path)
    for key in found:
        if key not in expected:
            raise VerificationError(
                f"the graph has an output {_output(key)!r} that the source does not have", path=path
            )
    return list(dict.fromkeys(map(_output, expected)))


def _check_declaration(name: str, ours: Array, theirs: Array, path: Path, *, is_cast: bool) -> None:
    if theirs.shape != ours.shape:
        raise VerificationError(f"output {name!r} has shape {list(theirs.shape)}, not {list(ours.shape)}", path=path)
    is_same = ours.dtype == theirs.dtype or (ours.dtype.kind in "US" and theirs.dtype.kind in "US")
    if not is_same and not (is_cast and _is_floating(ours) and _is_floating(theirs)):
        raise VerificationError(f"output {name!r} is {theirs.dtype.name}, not {ours.dtype.name}", path=path)


def _is_floating(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name in RELATIVE_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """How one output is compared."""

    name: str
    cases: tuple[str, ...]
    path: Path
    atol: float | None
    rtol: float | None
    rounding: float
    rounded: str | None
    activation: str | None

    def compare(self, pairs: Sequence[tuple[Array, Array]]) -> OutputComparison:
        """Compare the arrays of all cases. Raises VerificationError at the first that differs."""
        dtype = pairs[0][0].dtype
        if dtype.kind == "c":
            parts = [(_parts(ours), _parts(theirs)) for ours, theirs in pairs]
            return self._numbers(parts, dtype.name, np.dtype(f"f{dtype.itemsize // 2}"))
        if _is_floating(pairs[0][0]):
            return self._numbers(pairs, dtype.name, dtype)
        return self._exactly(pairs, dtype.name)

    def _exactly(self, pairs: Sequence[tuple[Array, Array]], dtype: str) -> OutputComparison:
        for case, (ours, theirs) in zip(self.cases, pairs, strict=True):
            wrong = np.argwhere(ours != theirs)
            if len(wrong):
                if self.rounding:
                    return OutputComparison(name=self.name, dtype=dtype, reason="rounding alone changes it")
                at = tuple(int(each) for each in wrong[0])
                raise self._difference(case, at, "", f": {theirs[at]}, not {ours[at]}")
        flat = np.concatenate([ours.ravel() for ours, _ in pairs])
        share = float(np.mean(flat != flat[_others(flat.size)])) if flat.size else 0.0
        reason = None if share else "constant" if flat.size else "empty"
        return OutputComparison(name=self.name, dtype=dtype, share=share, reason=reason)

    def _numbers(self, pairs: Sequence[tuple[Array, Array]], dtype: str, part: np.dtype[Any]) -> OutputComparison:
        scale = _scale([ours for ours, _ in pairs])
        rtol, least = self._relative(part), self._absolute(part)
        if self.activation == SOFTMAX and part == np.float32 and self.atol is self.rtol is None:
            rtol *= max(1.0, _largest_logit([ours for ours, _ in pairs]))
        bits = min(map(_fraction_bits, self._types(part)))
        least = max(least, ROUNDING_FACTOR * self.rounding)
        usual_below = max(_MASKED, _MASKED_SCALES * scale)
        largest, relative = 0.0, 0.0
        for case, (ours, theirs) in zip(self.cases, pairs, strict=True):
            for start in range(0, ours.size, _PIECE):
                reference = ours.reshape(-1)[start : start + _PIECE].astype(np.float64)
                difference = _differences(reference, theirs.reshape(-1)[start : start + _PIECE].astype(np.float64))
                allowed = _allowed(reference, scale, least, rtol, bits)
                excess = difference > allowed
                if excess.any():
                    worst = int(np.argmax(np.where(excess, difference, -1.0)))
                    at = tuple(map(int, np.unravel_index(start + worst, ours.shape)))
                    by, more = f" by {difference[worst]:.3g}", f", more than {allowed[worst]:.3g}"
                    raise self._difference(case, at, by, more, hint="--atol and --rtol allow more")
                sizes = np.abs(reference)
                usual = (sizes < usual_below) & (difference > 0)
                largest = max(largest, float(np.max(difference, where=usual, initial=0.0)))
                own = difference / np.maximum(np.maximum(sizes, scale), np.finfo(np.float64).tiny)
                relative = max(relative, float(np.max(own, where=usual, initial=0.0)))
        flat = _sampled([ours for ours, _ in pairs])
        share = _share(flat, _allowed(flat, scale, least, rtol, bits))
        tolerance = least + rtol * scale
        return OutputComparison(
            name=self.name,
            dtype=dtype,
            max_abs=largest,
            max_rel=relative,
            tolerance=tolerance,
            computed_in=self.rounded,
            share=share,
            reason=self._powerless(flat, share, _numbers_among([ours for ours, _ in pairs])),
        )

    def _relative(self, part: np.dtype[Any]) -> float:
        if self.atol is self.rtol is None:
            return max(RELATIVE_TOLERANCE.get(each, 0.0) for each in self._types(part))
        return self.rtol or 0.0

    def _absolute(self, part: np.dtype[Any]) -> float:
        """Return `atol`; by default what a processor may flush to zero, or what onnxruntime may be off by."""
        if self.atol is self.rtol is None:
            if self.activation == SIGMOID and part == np.float32:
                return APPROXIMATION
            return float(np.finfo(part).smallest_normal) if part.kind == "f" else 0.0
        return self.atol or 0.0

    @property
    def _most_rounding(self) -> float:
        """What is no more than the type allows that is computed in proves as much as that does."""
        return max(_MOST_ROUNDING, 0.0 if self.rounded is None else RELATIVE_TOLERANCE[self.rounded])

    def _types(self, part: np.dtype[Any]) -> tuple[str, ...]:
        return (part.name,) if self.rounded is None else (part.name, self.rounded)

    def _powerless(self, flat: Array, share: float, numbers: float) -> str | None:
        if not flat.size:
            return "empty"
        if np.isnan(flat).all():
            return "all NaN"
        if numbers < _LEAST_NUMBERS:
            return f"{1 - numbers:.1%} of it is NaN or infinite"
        # Not of the scale: all but a few elements of a softmax that is sure of itself are next to nothing.
        if self.rounding and ROUNDING_FACTOR * self.rounding > self._most_rounding * _root_mean_square(_usual(flat)):
            return f"rounding alone changes it by {self.rounding:.2g}"
        if share:
            return None
        finite = flat[~np.isnan(flat)]
        return "constant" if (finite == finite[0]).all() else "varies less than the tolerance"

    def _difference(
        self, case: str, at: tuple[int, ...], by: str, but: str, hint: str | None = None
    ) -> VerificationError:
        where = f" at {list(at)}" if at else ""
        where += f" on {case}" if case else ""
        return VerificationError(f"output {self.name!r} differs{by}{where}{but}", path=self.path, hint=hint)


def _parts(array: Array) -> Array:
    return np.stack([array.real, array.imag])


def _scale(arrays: Sequence[Array]) -> float:
    sizes = _usual(_sampled(arrays))
    return float(np.median(sizes)) if sizes.size else 0.0


def _largest_logit(arrays: Sequence[Array]) -> float:
    probabilities = _sampled(arrays)
    logits = np.log(probabilities[np.isfinite(probabilities) & (probabilities > 0)])
    return float(np.max(logits) - np.median(logits)) if logits.size else 0.0


def _root_mean_square(sizes: Array) -> float:
    return float(np.sqrt(np.mean(np.square(sizes)))) if sizes.size else 0.0


def _usual(flat: Array) -> Array:
    """Return |x|, in order, of what is finite, not zero, and below a gap that sets masked values apart."""
    sizes = np.abs(flat)
    sizes = np.sort(sizes[np.isfinite(sizes) & (sizes > 0)])
    apart = np.flatnonzero((sizes[1:] >= _GAP * sizes[:-1]) & (sizes[1:] >= _LEAST_APART))
    return sizes[: apart[0] + 1] if apart.size else sizes


def _sampled(arrays: Sequence[Array]) -> Array:
    """Return the elements of all arrays, or of very large ones about _SAMPLED, evenly spread."""
    step = max(1, sum(array.size for array in arrays) // _SAMPLED)
    return np.concatenate([array.reshape(-1)[::step].astype(np.float64) for array in arrays])


def _differences(reference: Array, result: Array) -> Array:
    """Return |d|, 0 where both are the same infinity or NaN, infinite where one alone is."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(reference - result)
    is_same = (reference == result) | (np.isnan(reference) & np.isnan(result))
    difference = np.where(is_same, 0.0, difference)
    return np.where(np.isnan(difference), np.inf, difference)


def _allowed(reference: Array, scale: float, least: float, rtol: float, bits: int) -> Array:
    sizes = np.where(np.isfinite(reference), np.abs(reference), 0.0)
    allowed = least + rtol * np.maximum(scale, sizes)
    is_masked = sizes >= max(_MASKED, _MASKED_SCALES * scale)
    if scale > 0 and is_masked.any():
        step = 2.0 ** (np.floor(np.log2(np.where(is_masked, sizes, 1.0))) - bits)
        allowed = np.where(is_masked, 2 * step, allowed)
    return allowed


def _fraction_bits(dtype: str) -> int:
    return 7 if dtype == "bfloat16" else int(np.finfo(dtype).nmant)


def _others(count: int) -> Array:
    """Return for each of `count` elements another one: one after the other on a shuffled ring."""
    order = np.random.default_rng(_SEED).permutation(count)
    others = np.empty(count, np.int64)
    others[order] = np.roll(order, 1)
    return others


def _numbers_among(arrays: Sequence[Array]) -> float:
    """Return the share of elements that are finite, or minus infinity beside some that are."""
    found = 0
    for array in arrays:
        is_finite = np.isfinite(array)
        has_some = is_finite.any(-1, keepdims=True) if array.ndim else is_finite
        found += np.count_nonzero(is_finite | ((array == array.dtype.type(-np.inf)) & has_some))
    return found / max(sum(array.size for array in arrays), 1)


def _share(flat: Array, allowed: Array) -> float:
    if not flat.size:
        return 0.0
    return float(np.mean((_differences(flat, flat[_others(flat.size)]) > allowed) & ~np.isnan(flat)))
