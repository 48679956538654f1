"""The official node tests of ONNX (onnx.backend.test, 1,884 in onnx 1.23), run through one of the lowerings.

    python -m tests.graphs.node_suite tensorflow [--full] [--only PATTERN]

prints what passed, failed and is excluded. Without --full it runs the slice that CKCONV_ORACLE_SEED chooses. Exit code
1 when a case fails that is not excluded, when one passes that is, or when a line of the exclude list matches no case.

A lowering `NAME` is two files beside this one: `node_suite_NAME.py`, whose `run(model, inputs)` takes an
onnx.ModelProto and a list of values (arrays, lists for sequences, None for empty optionals) and returns the outputs in
order; and `node_suite_NAME.txt`, the exclude list. In it `[cannot hold]` begins the cases whose element types or
domains the framework has no place for, `[not yet]` those that only wait for work, `[by processor]` those whose last
place is rounded out of tolerance on some processors, which may pass or not; every other line is `name or pattern:
reason`.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.slices import IS_FULL, SEED

CANNOT_HOLD, NOT_YET, BY_PROCESSOR = "cannot hold", "not yet", "by processor"
_SLICES = 6
_REASON_LIMIT = 200
# Two units in the last place, as onnx.backend.test.runner has it: numpy compares no bfloat16 with a Python float.
_BFLOAT16_TOLERANCE = 2**-6

Run = Callable[[Any, list[Any]], list[Any]]


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A line of the exclude list."""

    pattern: str
    category: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case: `error` is None when it passed; `exclusion` is the line that expects it to fail."""

    name: str
    error: str | None
    exclusion: Exclusion | None

    @property
    def is_expected(self) -> bool:
        """Whether the case did what the exclude list says."""
        if self.exclusion is not None and self.exclusion.category == BY_PROCESSOR:
            return True
        return (self.error is None) == (self.exclusion is None)


@cache
def cases() -> tuple[Any, ...]:
    """Return all cases in the order of their names. Making them takes 15 seconds."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(sorted(load_model_tests(kind="node"), key=lambda case: case.name))


def slice_of(seed: int) -> tuple[Any, ...]:
    """Return every sixth case, beginning at the seed's."""
    return cases()[seed % _SLICES :: _SLICES]


def exclusions(lowering: str) -> tuple[Exclusion, ...]:
    """Read the exclude list of a lowering."""
    category, found = "", []
    for line in Path(__file__).with_name(f"node_suite_{lowering}.txt").read_text().splitlines():
        if line.startswith("["):
            category = line.strip("[]")
            assert category in (CANNOT_HOLD, NOT_YET, BY_PROCESSOR), line
        elif line and not line.startswith("#"):
            pattern, _, reason = line.partition(": ")
            assert category, f"no category yet: {line}"
            assert reason.strip(), f"no reason: {line}"
            found.append(Exclusion(pattern=pattern, category=category, reason=reason.strip()))
    return tuple(found)


def runner(lowering: str) -> Run:
    """Return the function that runs a model through a lowering."""
    return importlib.import_module(f"tests.graphs.node_suite_{lowering}").run  # type: ignore[no-any-return]


def outcome(case: Any, run: Run, listed: Iterable[Exclusion]) -> Outcome:
    """Run one case on each of its data sets."""
    exclusion = next((each for each in listed if fnmatch.fnmatchcase(case.name, each.pattern)), None)
    try:
        for inputs, expected in case.data_sets:
            found = run(case.model, [_array(value) for value in inputs])
            _compare(found, [_array(value) for value in expected], case.rtol, case.atol)
    except Exception as error:
        # Whatever a framework raises is the outcome of this case, and the next one is to be run.
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Outcome(name=case.name, error=text[:_REASON_LIMIT], exclusion=exclusion)
    return Outcome(name=case.name, error=None, exclusion=exclusion)


def _array(value: Any) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _compare(found: Any, expected: Any, rtol: float, atol: float) -> None:
    """As onnx.backend.test.runner.Runner.assert_similar_outputs does, without a promise to strings."""
    assert len(found) == len(expected), f"{len(found)} values, expected {len(expected)}"
    for value, wanted in zip(found, expected, strict=True):
        if isinstance(wanted, (list, tuple)):
            assert isinstance(value, (list, tuple)), f"{type(value)}, expected a sequence"
            _compare(value, wanted, rtol, atol)
            continue
        wanted = np.asarray(wanted)
        assert value.shape == wanted.shape, f"shape {list(value.shape)}, expected {list(wanted.shape)}"
        if wanted.dtype == object or wanted.dtype.kind in "SU":
            np.testing.assert_array_equal(value, wanted)
            continue
        assert value.dtype == wanted.dtype, f"{value.dtype}, expected {wanted.dtype}"
        tolerance = rtol
        if wanted.dtype.kind == "V" or wanted.dtype.name == "bfloat16":
            tolerance = max(rtol, _BFLOAT16_TOLERANCE) if wanted.dtype.name == "bfloat16" else rtol
            value, wanted = value.astype(np.float32), wanted.astype(np.float32)
        np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=atol)


def report(outcomes: list[Outcome], listed: tuple[Exclusion, ...], *, is_full: bool) -> tuple[list[str], bool]:
    """Return the lines to print, and whether all is as the exclude list says."""
    passed = sum(each.error is None for each in outcomes)
    held_back = sum(each.exclusion is not None and each.exclusion.category == CANNOT_HOLD for each in outcomes)
    waiting = sum(each.exclusion is not None and each.exclusion.category == NOT_YET for each in outcomes)
    rounded = sum(each.error is not None and each.is_expected for each in outcomes) - held_back - waiting
    surprises = [each for each in outcomes if not each.is_expected]
    names = [case.name for case in cases()]
    stale = [each for each in listed if not fnmatch.filter(names, each.pattern)]
    left = len(outcomes) - held_back
    lines = [
        f"{'FAILED' if each.error else 'PASSED, though excluded'}  {each.name}: {each.error or each.exclusion.reason}"  # type: ignore[union-attr]
        for each in surprises
    ]
    lines += [f"MATCHES NO CASE  {each.pattern}: {each.reason}" for each in stale]
    lines.append(
        f"{'all' if is_full else 'a slice of'} {len(outcomes)} of {len(names)} cases: {passed} passed, "
        f"{sum(bool(each.error) for each in surprises)} failed, {held_back + waiting + rounded} excluded "
        f"({held_back} {CANNOT_HOLD}, {waiting} {NOT_YET}, {rounded} {BY_PROCESSOR})"
    )
    lines.append(f"{100 * passed / len(outcomes):.1f} % of all, {100 * passed / max(left, 1):.1f} % of the {left} left")
    return lines, not surprises and not stale


def main(arguments: list[str]) -> int:
    """Run the suite and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.graphs.node_suite")
    parser.add_argument("lowering")
    parser.add_argument("--full", action="store_true", default=IS_FULL)
    parser.add_argument("--only", metavar="PATTERN", help="cases whose names match; implies --full")
    parser.add_argument("--trace", action="store_true", help="print each name before its case runs")
    options = parser.parse_args(arguments)
    chosen = cases() if options.full or options.only else slice_of(SEED)
    if options.only:
        chosen = tuple(case for case in chosen if fnmatch.fnmatchcase(case.name, options.only))
    listed, run = exclusions(options.lowering), runner(options.lowering)
    outcomes = []
    for case in chosen:
        if options.trace:
            print(case.name, flush=True)
        outcomes.append(outcome(case, run, listed))
    lines, is_as_listed = report(outcomes, listed, is_full=options.full)
    print("\n".join(lines))
    return 0 if is_as_listed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
