"""At which extents a source runs that does not run at those that graphs are checked at: found by trying.

A crop, a pooling or a valid convolution needs a least length, strides that meet again need multiples. Whole numbers on
a ladder are tried first, then all that are near the first that is taken: they say where it starts and in which steps.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from converter.execution.workshop import LocalWorkshop
from converter.graphs.description.cases import Case
from converter.graphs.description.sample_inputs import extents, sample_inputs, sample_sizes
from converter.graphs.description.signature import Dimension, Signature
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_arrays, write_sets
from converter.model.child_function import ChildFunction
from converter.model.tensor import Array

_LADDER = (
    (24, 32, 40, 48, 64, 80, 96, 100, 128, 160, 192, 224, 256),
    (300, 320, 384, 400, 448, 512, 640, 768, 800, 1000, 1024),
    (1280, 1600, 2000, 2048, 4000, 4096, 8000, 8192, 10_000, 16_000, 16_384, 32_000, 32_768),
)
_NEAR = 32
_CHECKED = 5
_ELEMENTS_LIMIT = 1 << 22
_SEED = 20180611

Run = Callable[[Sequence[Case]], Mapping[str, str]]
"""Runs the source on sets of inputs; returns why some of them did not run, by name."""


def failures(
    runner: ChildFunction[..., Answer], model: Path, workshop: LocalWorkshop, cases: Sequence[Case]
) -> Mapping[str, str]:
    """Return on which sets of inputs a model does not run or gives nothing, and why."""
    inputs, outputs = workshop.scratch / "tried-inputs.npz", workshop.scratch / "tried-outputs.npz"
    write_sets(os.fspath(inputs), {case.name: case.arrays for case in cases})
    answer = workshop.call(runner, model=os.fspath(model), inputs=os.fspath(inputs), outputs=os.fspath(outputs))
    without = dict.fromkeys(empty(read_arrays(os.fspath(outputs))), "its outputs have no elements")
    return {**without, **answer.get("unfit", {}), **answer["failed"]}


def empty(outputs: Mapping[str, Array]) -> Set[str]:
    """Return the sets for which no output, `<set>/<output>`, has an element."""
    held = {key.partition("/")[0] for key, array in outputs.items() if array.size}
    return {key.partition("/")[0] for key in outputs} - held


def that_it_takes(signature: Signature, run: Run) -> tuple[Signature, str] | None:
    """Return what `with_extents` does where the source does not run at the extents that graphs are made with."""
    if not _free(signature):
        return None
    cases = []
    for number, sizes in enumerate(sample_sizes(signature)[:2]):
        arrays = sample_inputs(signature.inputs, seed=_SEED, sizes=sizes)
        cases.append(Case(name=str(number), arrays=arrays, sizes=sizes))
    return with_extents(signature, run) if run(cases) else None


def with_extents(signature: Signature, run: Run, *, is_brief: bool = False) -> tuple[Signature, str] | None:
    """Return the signature with what was found of its free dimensions, and a note; None where nothing was.

    Those that the signature knows something of, and that of the batch, are as they were. A brief search ends at 256.
    """
    names = _free(signature)
    if not names:
        return None
    taken, failed = _on_the_ladder(signature, names, run, _LADDER[:1] if is_brief else _LADDER)
    if not taken:
        return None
    near = range(max(failed + 1, taken[0] - _NEAR), taken[0] + _NEAR + 1)
    found = sorted({*taken, *_taken(signature, names, near, run)})
    step = math.gcd(*(after - before for before, after in pairwise(found))) or 1
    while between := range(found[0] - step, failed, -step):
        fewer = between[:: math.ceil(len(between) / _NEAR)]
        found = sorted({*found, *_taken(signature, names, fewer, run)})
        failed = max((each for each in fewer if each < found[0]), default=failed)
    found = [each for each in found if each <= 2 * found[0]]
    counts = [(each - found[0]) // step for each in found]
    chosen = [counts[index * (len(counts) - 1) // (_CHECKED - 1)] for index in range(_CHECKED)]
    dimensions = []
    for place, name in enumerate(names):  # a map is no square in each of the sets
        turned = (*chosen[place % _CHECKED :], *chosen[: place % _CHECKED])
        dimensions.append(Dimension(name=name, low=found[0], step=step, checked=turned))
    steps = "" if step == 1 else f", {step} apart"
    are = "is" if len(names) == 1 else "are"
    note = f"the source runs where {' and '.join(names)} {are} {found[0]} or more{steps}, as was found by trying"
    return replace(signature, dimensions=(*signature.dimensions, *dimensions)), note


def _on_the_ladder(
    signature: Signature, names: Sequence[str], run: Run, ladders: Sequence[Sequence[int]]
) -> tuple[list[int], int]:
    """Return which extents of a ladder the source takes, and the largest below them that it does not."""
    failed = 0
    for ladder in ladders:
        taken = _taken(signature, names, ladder, run)
        failed = max((each for each in ladder if not taken or each < taken[0]), default=failed)
        if taken:
            return taken, failed
    return [], failed


def tried(signature: Signature) -> str:
    """Return what an error says of extents that were tried in vain, "" where there is nothing to try."""
    names = _free(signature)
    return f", at {' and '.join(names)} from 1 to {_LADDER[-1][-1]}" if names else ""


def _free(signature: Signature) -> list[str]:
    known = {each.name for each in signature.dimensions}
    known |= {str(each.shape[0]) for each in signature.inputs if each.shape}
    named = (extent for each in signature.inputs for extent in each.shape if isinstance(extent, str))
    return [name for name in dict.fromkeys(named) if name not in known and " + " not in name]


def _taken(signature: Signature, names: Sequence[str], candidates: Iterable[int], run: Run) -> list[int]:
    """Return at which of the extents the source runs, all free dimensions alike and one of anything else."""
    others = sample_sizes(signature)[1]
    cases = {}
    for extent in candidates:
        sizes = {**others, **dict.fromkeys(names, extent)}
        if max(math.prod(extents(each, sizes)) for each in signature.inputs) <= _ELEMENTS_LIMIT:
            arrays = sample_inputs(signature.inputs, seed=_SEED, sizes=sizes)
            cases[extent] = Case(name=str(extent), arrays=arrays, sizes=sizes)
    failed = run(list(cases.values())) if cases else {}
    return sorted(extent for extent in cases if str(extent) not in failed)
