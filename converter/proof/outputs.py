"""Proof of a graph: reference and target run on the same inputs, each in a process of its own, and are compared.

Where the comparison fails, the reference is asked how far rounding moves its own outputs: it runs once more as it is,
and once with every weight changed in the last place, of the type that is computed in. A model in which that alone
makes more of a difference than the tolerance (a T5 with weights four times as large: a softmax of large numbers jumps)
is compared by that, and what rounding changes altogether is unproven. A reference that differs from itself when nothing
was changed has no such excuse, nor is there one from a tolerance that was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from converter.encoding import safetensors
from converter.errors import GraphError, LimitError, UnprovenError, UsageError, VerificationError
from converter.execution.workshop import LocalWorkshop
from converter.formats import Format
from converter.graphs.description.cases import Budget, Case, Cases, drawn, sample_cases, unreached
from converter.graphs.description.signature import Signature
from converter.graphs.description.traced import TracedGraph
from converter.graphs.description.user_inputs import user_cases
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_arrays, write_sets
from converter.graphs.run.canary import OWN_TYPE
from converter.model.checkpoint import Checkpoint
from converter.model.child_function import Call, ChildFunction
from converter.model.output import Output
from converter.model.tensor import Array
from converter.options import Options, Verify
from converter.planning.extents import empty, failures, tried, with_extents
from converter.proof.comparing import RELATIVE_TOLERANCE, Comparison, compare_outputs, unproven_reason
from converter.report import Canary, Verification

Outputs = Mapping[str, Array]
Runner = ChildFunction[..., Answer]
_Run = tuple[Runner, Path]
"""A runner, and the model it is to run."""


def verify_outputs(
    checkpoint: Checkpoint, staged: Path, runner: Runner, options: Options, workshop: LocalWorkshop
) -> Verification:
    """Run the reference and the `staged` target on the same sets of inputs, and compare what they give.

    `runner` runs the target. The sets are those of converter.graphs.description.cases, or the user's own. One on which
    the reference does not run is left out, and the verification says so; the user's own must all run. After that,
    weights of the target are changed, a group at a time, which the same comparison has to notice
    (converter.graphs.run.canary).

    Raises VerificationError when an output is out of tolerance, or the target does not run where the reference does;
    GraphError when the reference runs on no set; UsageError for inputs of the user's that do not fit; UnprovenError,
    when proof of outputs was asked for and one of them proves nothing.
    """
    graph = TracedGraph.of(checkpoint)
    assert graph is not None, "weights alone have no outputs"
    reference = graph.reference
    workshop.observer.stage("comparing outputs")
    if reference.takes_weights and not (reference.model / safetensors.FILE_NAME).exists():
        workshop.stream(safetensors.files(checkpoint.tensors, {}, None)[0], reference.model)
    data = options.data
    chosen = (
        sample_cases(graph.signature, _budget(options))
        if data is None
        else Cases(cases=user_cases(data, graph.signature.inputs))
    )
    runs = _Runs(
        workshop=workshop,
        inputs=workshop.scratch / "inputs.npz",
        # Each holds the weights: both at once only where these are small.
        at_once=2 if checkpoint.nbytes <= options.memory_bytes else 1,
    )
    canary = workshop.scratch / "canary.npz"
    if runner.takes("canary"):
        runner = runner.with_arguments(canary=os.fspath(canary), since=time.monotonic())
    signature, chosen, compared, left_out, (expected, found, answer) = _where_it_runs(
        runs, graph.signature, chosen, options, ("reference", (reference.runner, reference.model)), (runner, staged)
    )
    if data is not None and left_out:
        raise UsageError(left_out[0], path=data)
    sizes = [case.sizes for case in compared]
    reached = partial(
        replace,
        left_out=(*left_out, *drawn(signature, compared, chosen.cases), *chosen.notes),
        beyond=None if data is not None else unreached(signature, sizes),
        data=None if data is None else data.name,
    )
    compare = _comparing(graph, options, staged)
    try:
        try:
            comparison = compare(expected, found)
        except UnprovenError:
            raise
        except VerificationError as error:
            if not options.atol is options.rtol is None:
                raise
            rounding = _rounding(runs, graph, expected, compare, error)
            compare = partial(compare, rounding=rounding)
            comparison = compare(expected, found)
    except UnprovenError as error:
        if options.verify is Verify.OUTPUTS:
            raise
        reason = error.message.removeprefix("outputs not proven: ")
        return reached(Verification(weights=True, reason=reason, is_unproven=True, per_output=error.per_output))
    verification = Verification(
        weights=True,
        outputs=True,
        max_abs=comparison.max_abs,
        tolerance=comparison.tolerance,
        per_output=comparison.per_output,
        canary=_judged(answer, canary, expected, compare),
    )
    return _settled(reached(verification), comparison, options, staged)


_HINT = "--inputs FILE.npz gives inputs that it takes"


class _NowhereError(GraphError):
    """The source runs on none of the sets."""


def _where_it_runs(
    runs: _Runs, signature: Signature, chosen: Cases, options: Options, reference: tuple[str, _Run], target: _Run
) -> tuple[Signature, Cases, list[Case], list[str], tuple[Outputs, Outputs, Answer]]:
    """Run both sides as `_both` does; at other extents where the source takes none of these, or gives nothing there.

    The signature says what was found of its dimensions.
    """
    problem: _NowhereError | None = None
    result = None
    try:
        result = _both(runs, chosen.cases, reference, ("target", target))
    except _NowhereError as error:
        problem = error
    if options.data is None and (result is None or {case.name for case in result[0]} <= empty(result[2][0])):
        wider = with_extents(signature, partial(failures, *reference[1], runs.workshop), is_brief=result is not None)
        if wider is not None:
            signature, note = wider
            chosen = sample_cases(signature, _budget(options))
            chosen = replace(chosen, notes=(*chosen.notes, note))
            return signature, chosen, *_both(runs, chosen.cases, reference, ("target", target))
    if result is None:
        tries = tried(signature) if options.data is None else ""
        assert problem is not None
        raise GraphError(f"the source does not run{tries}: {problem.message}", hint=problem.hint) from problem
    return signature, chosen, *result


def _both(
    runs: _Runs, cases: Sequence[Case], reference: tuple[str, _Run], target: tuple[str, _Run]
) -> tuple[list[Case], list[str], tuple[Outputs, Outputs, Answer]]:
    """Run both sides on the sets: those to compare, a note for each that one of them does not take, and outputs.

    A reference that ends without an answer, out of memory or time, is run once more on the plainest sets alone.
    """
    runs.write(cases)
    try:
        (expected, theirs), (found, ours) = runs.run([reference, target])
    except (GraphError, LimitError) as error:
        plain = [case for case in cases if case.is_plain]
        reason = runs.failure(reference) if 0 < len(plain) < len(cases) else None
        if reason is None:
            raise error
        compared, notes, outputs = _both(runs, plain, reference, target)
        return compared, [*notes, *(_left_out(case.name, reason) for case in cases if not case.is_plain)], outputs
    failed = theirs["failed"]
    unfit = {name: reason for name, reason in ours.get("unfit", {}).items() if name not in failed}
    compared = [case for case in cases if case.name not in failed and case.name not in unfit]
    if not compared:
        raise _NowhereError(next(iter(failed.values()), "no inputs"), hint=_HINT)
    for name, reason in ours["failed"].items():
        if name not in failed:
            raise VerificationError(f"does not run on {name}, where the source does: {reason}", path=target[1][1])
    names = {case.name for case in compared}
    return compared, _notes(cases, failed, unfit), (_of(names, expected), _of(names, found), ours)


def _notes(cases: Sequence[Case], failed: Mapping[str, str], unfit: Mapping[str, str]) -> list[str]:
    """Return a note for each set that was not compared, but for those that only tried what the source takes."""
    trials = {case.name for case in cases if case.below is not None}
    notes = [_left_out(name, reason) for name, reason in failed.items() if name not in trials]
    return [*notes, *(f"outputs not compared on {name}: {reason}" for name, reason in unfit.items())]


def _of(names: Set[str], outputs: Outputs) -> Outputs:
    return {key: array for key, array in outputs.items() if key.partition("/")[0] in names}


def _left_out(name: str, reason: str) -> str:
    return f"outputs not compared on {name}: the source does not run there: {reason}"


def _budget(options: Options) -> Budget:
    """Return what sets of inputs may cost: more where outputs must be proven, never much of the time that there is."""
    budget = Budget(seconds=120.0, nbytes=4 << 30) if options.verify is Verify.OUTPUTS else Budget()
    return replace(budget, seconds=min(budget.seconds, options.timeout / 8))


def _settled(verification: Verification, comparison: Comparison, options: Options, staged: Path) -> Verification:
    """Return the notes where an output, or the comparison itself, proves nothing."""
    canary = verification.canary
    if canary is not None and canary.tried and not canary.noticed:
        reason = f"they do not change with any of {canary.tried} groups of weights"
        if options.verify is Verify.OUTPUTS:
            raise UnprovenError(f"outputs not proven: {reason}", path=staged)
        return replace(verification, outputs=False, is_unproven=True, reason=reason)
    if comparison.unproven and options.verify is Verify.OUTPUTS:
        raise UnprovenError(f"outputs not proven: {unproven_reason(comparison.unproven)}", path=staged)
    return verification


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Runs of models on one file of inputs, each in a process of its own."""

    workshop: LocalWorkshop
    inputs: Path
    at_once: int = 1

    def write(self, cases: Sequence[Case]) -> None:
        """Write the inputs of all that is run from now on."""
        write_sets(os.fspath(self.inputs), {case.name: case.arrays for case in cases})

    def failure(self, call: tuple[str, _Run]) -> str | None:
        """Return why a model ends without an answer, None when it does not."""
        try:
            self.run([call])
        except (GraphError, LimitError) as error:
            return error.message
        return None

    def run(self, calls: Sequence[tuple[str, _Run]]) -> list[tuple[Outputs, Answer]]:
        """Return the outputs of each, by ``<case>/<output>``, and what the runner answered; the names are of files."""
        files = [self.workshop.scratch / f"outputs-{name}.npz" for name, _ in calls]
        prepared = [self._call(run, file) for (_, run), file in zip(calls, files, strict=True)]
        answers = self.workshop.call_all(prepared, at_once=self.at_once)
        return [(read_arrays(os.fspath(file)), answer) for file, answer in zip(files, answers, strict=True)]

    def _call(self, run: _Run, outputs: Path) -> Call[Answer]:
        runner, model = run
        return runner.call(model=os.fspath(model), inputs=os.fspath(self.inputs), outputs=os.fspath(outputs))


def _comparing(graph: TracedGraph, options: Options, staged: Path) -> partial[Comparison]:
    """Return compare_outputs with the tolerances that were asked for, or that a cast or the graph makes necessary."""
    rtol = options.rtol
    is_cast = options.target_dtype() is not None
    if not graph.reference.takes_weights and options.atol is rtol is None:
        rtol = _cast_tolerance(options)
    return partial(
        compare_outputs,
        path=staged,
        atol=options.atol,
        rtol=rtol,
        rounded=graph.rounded,
        activations=graph.activations,
        is_cast=is_cast,
    )


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
        if options.data is not None:
            raise UsageError(f"--inputs {options.data}: {target.name} files from elsewhere are not run")
        return Verification(weights=True, reason=f"{target.name} files from elsewhere are not run")
    workshop.observer.stage("building")
    anew = workshop.scratch / "made-anew"
    anew.mkdir()
    output.build(replace(workshop, folder=anew))
    if not target.is_same_program(found, anew):
        raise VerificationError(
            "holds another program than ckconv makes of the source, and programs from elsewhere are not run",
            path=found,
            hint="--verify weights compares the weights alone",
        )
    return verify_outputs(checkpoint, anew, target.runner, options, workshop)


def _cast_tolerance(options: Options) -> float | None:
    """Return what a cast that was asked for may cost, where the reference runs with the weights before it."""
    dtype = options.target_dtype()
    return None if dtype is None else RELATIVE_TOLERANCE.get(dtype.value)


def _rounding(
    runs: _Runs,
    graph: TracedGraph,
    expected: Outputs,
    compare: partial[Comparison],
    difference: VerificationError,
) -> dict[str, float]:
    """Return by how much each output of the reference moves when its weights change in the last place.

    That is the last place of the least precise type that is computed in. Raises `difference` where that is no excuse,
    or cannot be told.
    """
    runner, model = graph.reference.runner, graph.reference.model
    dtype = max(graph.rounded.values(), key=RELATIVE_TOLERANCE.__getitem__, default=OWN_TYPE)
    if not runner.takes("nudge"):
        raise difference
    try:
        (again, _), (nudged, _) = runs.run(
            [("again", (runner, model)), ("nudged", (runner.with_arguments(nudge=dtype), model))]
        )
    except GraphError:
        raise difference from None
    if not (expected.keys() <= again.keys() and expected.keys() <= nudged.keys()):  # it does not run any more
        raise difference
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


def _judged(answer: Answer, outputs: Path, expected: Outputs, compare: partial[Comparison]) -> Canary | None:
    """Return which of the groups of weights that were changed the comparison noticed."""
    canary = answer.get("canary")
    if canary is None or not any(key.startswith(f"{canary['case']}/") for key in expected):
        return None
    case = f"{canary['case']}/"
    ours = {key: array for key, array in expected.items() if key.startswith(case)}
    unnoticed = []
    for number, group in enumerate(canary["tried"]):
        found = read_arrays(os.fspath(outputs), f"{number}/")
        theirs = {case + key.partition("/")[2]: array for key, array in found.items()}
        if number not in canary["failed"] and _is_alike(compare, ours, theirs):
            unnoticed.append(group)
    tried = len(canary["tried"])
    return Canary(
        tried=tried,
        noticed=tried - len(unnoticed),
        not_tried=canary["not_tried"],
        unnoticed=tuple(sorted(unnoticed)),
        reason=canary["reason"],
    )


def _is_alike(compare: partial[Comparison], expected: Outputs, found: Mapping[str, Array]) -> bool:
    try:
        compare(expected, found)
    except UnprovenError:
        return True
    except VerificationError:
        return False
    return True
