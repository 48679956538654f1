"""Proof of a graph: reference and target run on the same inputs, each in a process of its own, and are compared.

Where the comparison fails, the reference is asked how far rounding moves its own outputs: it runs once more as it is,
and once with every weight changed in the last place. A model in which that alone makes more of a difference than the
tolerance (a T5 with weights four times as large: a softmax of large numbers jumps) is compared by that, and what
rounding changes altogether is said to be unproven. A reference that differs from itself when nothing was changed has
no such excuse, nor is there one from a tolerance that was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converter.encoding import safetensors
from converter.errors import GraphError, UnprovenError, VerificationError
from converter.execution.child import Call
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format
from converter.graphs.architecture import Architecture
from converter.graphs.inputs import sample_inputs, sample_sizes
from converter.graphs.run.arrays import read_outputs
from converter.graphs.traced import Reference, TracedGraph
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output
from converter.model.tensor import Array
from converter.options import Options
from converter.report import Canary, Verification
from converter.verification.comparing import RELATIVE_TOLERANCE, Comparison, compare_outputs, unproven_reason

Outputs = Mapping[str, Array]
_Call = tuple[str, Path, Mapping[str, Any]]
"""A runner, the model it is to run, and more of its arguments."""
_SAMPLE_SEED = 20180611
_OWN = "converter.graphs.run."
"""Where runners are that can change weights: references in the last place, targets a group of one name at a time."""


def verify_outputs(
    checkpoint: Checkpoint, staged: Path, runner: str, options: Options, workshop: LocalWorkshop
) -> Verification:
    """Run the reference and the `staged` target, on the same inputs at two shapes that were not traced.

    `runner` is the ``package.module:function`` that runs the target. After that, weights of the target are changed, a
    group at a time, which the same comparison has to notice (converter.graphs.run.canary).

    Raises VerificationError when an output is out of tolerance; UnprovenError, when proof of outputs was asked for and
    one of them proves nothing.
    """
    graph: TracedGraph = checkpoint.graph
    reference = graph.reference
    workshop.observer.stage("comparing outputs")
    inputs = workshop.scratch / "inputs.npz"
    _write_inputs(inputs, graph.architecture)
    if reference.takes_weights and not (reference.model / safetensors.FILE_NAME).exists():
        workshop.stream(safetensors.files(checkpoint.tensors, {}, None)[0], reference.model)
    runs = _Runs(workshop=workshop, architecture=graph.architecture.architecture, inputs=inputs)
    canary = workshop.scratch / "canary.npz"
    watching = {"canary": os.fspath(canary), "since": time.monotonic()} if runner.startswith(_OWN) else {}
    # Each holds the weights: both at once only where these are small.
    (expected, _), (found, answer) = runs.run(
        [("reference", _call(reference)), ("target", (runner, staged, watching))],
        at_once=2 if checkpoint.nbytes <= options.memory_bytes else 1,
    )
    compare = _comparing(reference, options, staged)
    try:
        try:
            comparison = compare(expected, found)
        except UnprovenError:
            raise
        except VerificationError as error:
            if not options.atol is options.rtol is None:
                raise
            rounding = _rounding(runs, reference, expected, compare, error)
            compare = partial(compare, rounding=rounding)
            comparison = compare(expected, found)
    except UnprovenError as error:
        if options.verify == "outputs":
            raise
        reason = error.message.removeprefix("outputs not proven: ")
        return Verification(weights=True, reason=reason, is_unproven=True, per_output=error.per_output)
    verification = Verification(
        weights=True,
        outputs=True,
        max_abs=comparison.max_abs,
        tolerance=comparison.tolerance,
        per_output=comparison.per_output,
        canary=_judged(answer, canary, expected, compare),
    )
    return _settled(verification, comparison, options, staged)


def _settled(verification: Verification, comparison: Comparison, options: Options, staged: Path) -> Verification:
    """Return what is to be said where an output, or the comparison itself, proves nothing."""
    canary = verification.canary
    if canary is not None and canary.tried and not canary.noticed:
        reason = f"they show no change of any of {canary.tried} groups of weights"
        if options.verify == "outputs":
            raise UnprovenError(f"outputs not proven: {reason}", path=staged)
        return replace(verification, outputs=False, is_unproven=True, reason=reason)
    if comparison.unproven and options.verify == "outputs":
        raise UnprovenError(f"outputs not proven: {unproven_reason(comparison.unproven)}", path=staged)
    return verification


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Runs of models on one file of inputs, each in a process of its own."""

    workshop: LocalWorkshop
    architecture: str
    inputs: Path

    def run(self, calls: Sequence[tuple[str, _Call]], at_once: int = 1) -> list[tuple[Outputs, Mapping[str, Any]]]:
        """Return the outputs of each, by ``<case>/<output>``, and what the runner answered; the names are of files."""
        files = [self.workshop.scratch / f"outputs-{name}.npz" for name, _ in calls]
        made = [self._made(call, file) for (_, call), file in zip(calls, files, strict=True)]
        answers = self.workshop.call_all(made, at_once=at_once)
        return [(read_outputs(os.fspath(file)), answer) for file, answer in zip(files, answers, strict=True)]

    def _made(self, call: _Call, outputs: Path) -> Call:
        function, model, arguments = call
        given = {
            "model": os.fspath(model),
            "architecture": self.architecture,
            "inputs": os.fspath(self.inputs),
            "outputs": os.fspath(outputs),
        }
        return Call(function=function, arguments={**given, **arguments})


def _call(reference: Reference, **more: Any) -> _Call:
    return reference.runner, reference.model, {**reference.arguments, **more}


def _comparing(reference: Reference, options: Options, staged: Path) -> partial[Comparison]:
    """Return compare_outputs with the tolerances that were asked for, or that a cast makes necessary."""
    rtol = options.rtol
    is_cast = options.target_dtype() is not None
    if not reference.takes_weights and options.atol is rtol is None:
        rtol = _cast_tolerance(options)
    return partial(compare_outputs, path=staged, atol=options.atol, rtol=rtol, is_cast=is_cast)


def verify_foreign_outputs(
    checkpoint: Checkpoint, output: Output, found: Path, target: Format, options: Options, workshop: LocalWorkshop
) -> Verification:
    """As `verify_outputs`, for a target that may come from elsewhere: its framework does not load it.

    Where nothing else can run it, the program is made anew and is run in its place. Raises VerificationError too when
    the two are not the same.
    """
    if target.foreign_runner is not None:
        return verify_outputs(checkpoint, found, target.foreign_runner, options, workshop)
    if target.runner is None or target.is_same_program is None or output.build is None:
        return Verification(weights=True, reason=f"{target.name} files from elsewhere are not run")
    workshop.observer.stage("building")
    made = workshop.scratch / "made-anew"
    made.mkdir()
    output.build(replace(workshop, folder=made))
    if not target.is_same_program(found, made):
        raise VerificationError(
            "holds another program than is made of the source here, and one from elsewhere is not run",
            path=found,
            hint="--verify weights compares the weights alone",
        )
    return verify_outputs(checkpoint, made, target.runner, options, workshop)


def _cast_tolerance(options: Options) -> float | None:
    """Return what a cast that was asked for may cost, where the reference runs with the weights before it."""
    dtype = options.target_dtype()
    return None if dtype is None else RELATIVE_TOLERANCE.get(dtype.value)


def _rounding(
    runs: _Runs,
    reference: Reference,
    expected: Outputs,
    compare: partial[Comparison],
    difference: VerificationError,
) -> dict[str, float]:
    """Return by how much each output of the reference moves when its weights change in the last place.

    Raises `difference` where that is no excuse, or cannot be told.
    """
    if not reference.runner.startswith(_OWN):
        raise difference
    try:
        calls = [("again", _call(reference)), ("nudged", _call(reference, nudge=True))]
        (again, _), (nudged, _) = runs.run(calls)
    except GraphError:
        raise difference from None
    with suppress(UnprovenError):
        try:
            compare(expected, again)
        except VerificationError:
            difference.message += "; the source differs from itself, too, when it runs again"
            raise difference from None
    moved: dict[str, float] = {}
    for key, array in expected.items():
        name = key.partition("/")[2]
        moved[name] = max(moved.get(name, 0.0), _moved(array, nudged[key]))
    return moved


def _moved(array: Array, other: Array) -> float:
    """Return the largest difference; infinite for what is not a floating-point number, and is not the same."""
    if array.dtype.kind not in "fc" and array.dtype.name not in RELATIVE_TOLERANCE:
        return 0.0 if np.array_equal(array, other) else np.inf
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.abs(array.astype(wide) - other.astype(wide))
    return float(np.max(moved, where=np.isfinite(moved), initial=0.0))


def _judged(answer: Mapping[str, Any], outputs: Path, expected: Outputs, compare: partial[Comparison]) -> Canary | None:
    """Return which of the groups of weights that were changed the comparison noticed."""
    told = answer.get("canary")
    if told is None:
        return None
    case = f"{told['case']}/"
    ours = {key: array for key, array in expected.items() if key.startswith(case)}
    unnoticed = []
    for number, group in enumerate(told["tried"]):
        found = read_outputs(os.fspath(outputs), f"{number}/")
        theirs = {case + key.partition("/")[2]: array for key, array in found.items()}
        if number not in told["failed"] and _is_alike(compare, ours, theirs):
            unnoticed.append(group)
    tried = len(told["tried"])
    return Canary(
        tried=tried,
        noticed=tried - len(unnoticed),
        not_tried=told["not_tried"],
        unnoticed=tuple(sorted(unnoticed)),
        reason=told["reason"],
    )


def _is_alike(compare: partial[Comparison], expected: Outputs, found: Mapping[str, Array]) -> bool:
    try:
        compare(expected, found)
    except UnprovenError:
        return True
    except VerificationError:
        return False
    return True


def _write_inputs(path: Path, architecture: Architecture) -> None:
    arrays = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=_SAMPLE_SEED + case, sizes=sizes).items()
    }
    np.savez(path, **arrays)
