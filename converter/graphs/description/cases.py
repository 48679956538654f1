"""Which sets of inputs a source and a target are compared on: few, each of several properties, at a bounded cost.

There are five shapes with right padding, none, left padding and holes, a row that is all masked, and one token, each
where the inputs allow it; integers below more and more, negative and large ones, where nothing says what integers mean,
those of the whole type where the graph takes any, and keys that a table lacks (converter.graphs.trace.sampling);
one length in each range between the lengths from which on a model computes otherwise; and what is left of the
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from converter.graphs.description.sample_inputs import (
    LARGE,
    MIXED,
    NONE,
    NUMBERS,
    RIGHT,
    ROW,
    SMALL,
    WHOLE,
    extents,
    sample_inputs,
    sample_sizes,
)
from converter.graphs.description.signature import Dimension, GraphInput, Role, Sampling, Signature, Threshold

_SEED = 20180611
_OPERATIONS_PER_SECOND = 2e10
_COPIES_OF_SCORES = 3
_BYTES = 4
_MOST_LENGTHS = 3
_PLAIN = 2
_ROWS_BESIDE_FLOATS = 8
_MARGIN = 3
_LARGEST_VOCABULARY = 1 << 24
_ANY = "negative and large integers"
_LEAST = 2
_TRIED = (16, 256, 4096, 65536)
"""What integers are tried below, where nothing says which the source takes."""
_MOST_ALONE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a set of inputs beyond the five shapes may cost: seconds of a processor, bytes of scores and of outputs."""

    seconds: float = 10.0
    nbytes: int = 1 << 30

    @property
    def quarter(self) -> Budget:
        """A fourth of it."""
        return Budget(seconds=self.seconds / 4, nbytes=self.nbytes // 4)

    def has_room(self, signature: Signature, sizes: Mapping[str, int]) -> bool:
        """Whether a run at these sizes is expected to cost no more than this."""
        texts = [extents(each, sizes) for each in signature.inputs if _is_of_text(each)]
        texts += [_frames(signature, each, sizes) for each in signature.inputs if each.dtype.is_floating]
        tokens = sum(math.prod(shape[:2]) for shape in texts)
        scores = max((math.prod(shape[:-1]) * shape[-1] ** 2 for shape in texts if shape), default=0)
        vocabulary = max((each.sampling.high for each in signature.inputs if each.sampling.role is Role.IDS), default=0)
        operations = 2.0 * tokens * _weights(signature, vocabulary)
        return (
            operations <= self.seconds * _OPERATIONS_PER_SECOND
            and scores * signature.heads * _BYTES * _COPIES_OF_SCORES <= self.nbytes
            and tokens * vocabulary * _BYTES <= self.nbytes // 4
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A set of inputs: what to call it, its arrays by name, and the extents of the named dimensions.

    `is_plain` is one that any source runs on: a few examples as they are met with every day. `below` is what all
    integers of the inputs `tried` are less than, where only a run tells whether the source takes them.
    """

    name: str
    arrays: Mapping[str, Any]
    sizes: Mapping[str, int]
    is_plain: bool = False
    below: int | None = None
    tried: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The sets, and what they do not reach: `notes` for the report."""

    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


def sample_cases(signature: Signature, budget: Budget = Budget()) -> Cases:
    """Return the sets of inputs to compare a graph on. Raises GraphError for an input that is too large for any."""
    shapes = sample_sizes(signature)
    has_mask = any(each.sampling.role is Role.MASK for each in signature.inputs)
    plans = [("right padding", shapes[0], RIGHT), ("no padding", shapes[1], NONE)]
    if has_mask:
        plans += [
            ("left padding and holes in the mask", shapes[2], MIXED),
            ("a row all masked", shapes[3], ROW),
        ]
    else:
        plans = [("", sizes, padding) for _, sizes, padding in plans]
    if any(_free(each) for each in signature.inputs if not each.dtype.is_floating):
        plans.append(("the shortest", shapes[4], NONE))
    plans += [(name, sizes, NONE) for name, sizes in _long(signature, budget)]
    cases = [_case(signature, number, *plan) for number, plan in enumerate(plans)]
    if any(map(_is_of_unknown_meaning, signature.inputs)):
        cases.append(_case(signature, len(cases), _ANY, shapes[2], RIGHT, integers=LARGE))
    cases += _trials(signature, len(cases), shapes[1])
    if any(map(_is_looked_up, signature.inputs)):
        sizes = _room_for_keys(signature, budget.quarter)
        cases.append(_case(signature, len(cases), "keys of a table", sizes, RIGHT))
        cases.append(_case(signature, len(cases), "keys that a table lacks", sizes, RIGHT, integers=LARGE))
    if any(each.sampling == NUMBERS for each in signature.inputs):
        cases.append(_case(signature, len(cases), "integers of the whole type", shapes[2], RIGHT, integers=WHOLE))
    rest, notes = _vocabulary(signature, cases, budget.quarter)
    # Of two alike, as where all extents are fixed, one says what both would, unless they are all there is.
    return Cases(cases=tuple({case.name: case for case in (*cases, *rest)}.values()), notes=tuple(notes))


def unreached(signature: Signature, sizes: Sequence[Mapping[str, int]]) -> str | None:
    """Return what a verdict says of the lengths that none of these sizes reaches, though the config names them."""
    found = []
    dimensions = {each.name: each for each in signature.dimensions}
    for name, dimension in dimensions.items():
        longest = max((each[name] for each in sizes if name in each), default=0)
        past = [each for each in _reachable(signature, dimension) if longest <= _at(dimension, each)]
        if past:
            unit = "tokens" if "sequence" in name or _counts_tokens(signature, name) else name
            found.append(f"{longest} {unit} ({', '.join(each.name for each in past)})")
    return f"outputs not compared beyond {' and '.join(dict.fromkeys(found))}" if found else None


def _counts_tokens(signature: Signature, name: str) -> bool:
    return any(_is_of_text(each) and len(each.shape) == 2 and each.shape[1] == name for each in signature.inputs)


def _case(
    signature: Signature, number: int, name: str, sizes: Mapping[str, int], padding: str, *, integers: str = SMALL
) -> Case:
    arrays = sample_inputs(signature.inputs, seed=_SEED + number, sizes=sizes, padding=padding, integers=integers)
    return Case(name=_called(name, signature, sizes), arrays=arrays, sizes=sizes, is_plain=number < _PLAIN)


def _trials(signature: Signature, number: int, sizes: Mapping[str, int]) -> Iterator[Case]:
    """Yield sets of integers of more and more, for inputs of which nothing says what they mean: of all, and of each."""
    unknown = [each.name for each in signature.inputs if _is_of_no_meaning(each)]
    groups = [tuple(unknown), *((name,) for name in unknown[:_MOST_ALONE] if len(unknown) > 1)]
    for tried in groups if unknown else ():
        for below in _TRIED:
            inputs = tuple(_within(each, below) if each.name in tried else each for each in signature.inputs)
            name = f"{' and '.join(tried)} below {below}"
            yield replace(_case(replace(signature, inputs=inputs), number, name, sizes, NONE), below=below, tried=tried)


def _within(each: GraphInput, below: int) -> GraphInput:
    most = int(np.iinfo(each.dtype.numpy).max)
    return replace(each, sampling=Sampling(high=min(below, most)))


def drawn(signature: Signature, compared: Sequence[Case], cases: Sequence[Case]) -> list[str]:
    """Return a note of each input whose integers were drawn from what the source was found to take, and not from all.

    `compared` are those of the `cases` that the source takes.
    """
    trials = [case for case in cases if case.below is not None]
    if not trials or any(case.name.startswith(_ANY) for case in compared):
        return []
    found = []
    for name in dict.fromkeys(name for case in trials for name in case.tried):
        taken = [case.below for case in compared if case.below is not None and name in case.tried]
        found.append(
            f"integers of {name} were drawn from 0 to {max(taken, default=_LEAST) - 1}, as the source takes them"
        )
    return found


def _called(name: str, signature: Signature, sizes: Mapping[str, int]) -> str:
    """Return the name of a set with the shapes of its texts, or of its first inputs."""
    inputs = [each for each in signature.inputs if _is_of_text(each)] or list(signature.inputs)
    shapes = list(dict.fromkeys(extents(each, sizes) for each in inputs))
    shown = " and ".join(" x ".join(map(str, shape)) for shape in shapes[:2] if shape)
    return ", ".join(each for each in (name, shown or "a number") if each)


def _free(each: GraphInput) -> bool:
    return any(isinstance(extent, str) for extent in each.shape[1:])


def _is_of_text(each: GraphInput) -> bool:
    return not each.dtype.is_floating and each.sampling.role is not Role.MASK and len(each.shape) > 1


def _is_of_unknown_meaning(each: GraphInput) -> bool:
    return each.sampling in (Sampling(), NUMBERS) and np.dtype(each.dtype.numpy).kind in "iu"


def _is_of_no_meaning(each: GraphInput) -> bool:
    return each.sampling == Sampling() and np.dtype(each.dtype.numpy).kind in "iu"


def _is_looked_up(each: GraphInput) -> bool:
    return each.sampling.role is Role.KEYS


def _room_for_keys(signature: Signature, budget: Budget) -> dict[str, int]:
    """Return sizes at which an input has room for all the keys that are known, and as many others, or for some."""
    asked = list(filter(_is_looked_up, signature.inputs))
    sizes = dict(sample_sizes(signature)[0])
    counts = {each.name: 2 * max(len(each.sampling.keys), len(each.sampling.beside)) for each in asked}
    rows = max(-(-counts[each.name] // _drawn_in_a_row(each, sizes)) for each in asked)
    rows, batches = _batches(signature, asked, sizes, rows, budget)
    return {**sizes, **{name: max(rows, sizes[name]) for name in batches}}


def _frames(signature: Signature, each: GraphInput, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return rows and steps of a sound; nothing for an image, whose size does not vary by this."""
    dimensions = {dimension.name: dimension for dimension in signature.dimensions}
    dimension = dimensions.get(str(each.shape[1])) if len(each.shape) in (2, 3) else None
    if dimension is None:
        return ()
    rows, extent = extents(each, sizes)[:2]
    return rows, max(extent - dimension.low, 0) // dimension.step + 1


def _weights(signature: Signature, vocabulary: int) -> int:
    """Return how many weights each token meets: those of matrices that are no table of the vocabulary."""
    shapes = (shape for _, shape in signature.parameters.values() if len(shape) > 1)
    return sum(math.prod(shape) for shape in shapes if shape[0] != vocabulary)


def _at(dimension: Dimension, threshold: Threshold) -> int:
    """Return the largest extent that is not past a threshold; sound has its first step after what is seen at once."""
    return threshold.count if dimension.step == 1 else dimension.low + threshold.count * dimension.step


def _reachable(signature: Signature, dimension: Dimension) -> list[Threshold]:
    limit = _limit(dimension)
    return [each for each in signature.thresholds if each.dimension == dimension.name and _at(dimension, each) < limit]


def _limit(dimension: Dimension) -> float:
    found = dimension.high if dimension.reach is None else dimension.reach
    return math.inf if found is None else found


def _long(signature: Signature, budget: Budget) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield lengths past thresholds, the longest first, of several dimensions at once."""
    least = {each.name: each.extent(min(each.checked)) for each in signature.dimensions}
    least = {**{name: min(each[name] for each in sample_sizes(signature)) for name in _names(signature)}, **least}
    lengths = {
        each.name: [
            (label, extent)
            for label, extent in _lengths(signature, each)
            if budget.has_room(signature, {**least, each.name: extent})
        ][:_MOST_LENGTHS]
        for each in signature.dimensions
    }
    for place in range(max(map(len, lengths.values()), default=0)):
        found = {name: each[place] for name, each in lengths.items() if place < len(each)}
        labels = dict.fromkeys(label for label, _ in found.values())
        yield f"past {', '.join(labels)}", {**least, **{name: extent for name, (_, extent) in found.items()}}


def _names(signature: Signature) -> Iterator[str]:
    yield from sample_sizes(signature)[0]


def _lengths(signature: Signature, dimension: Dimension) -> list[tuple[str, int]]:
    """Return an extent in each range between thresholds that has none yet, and what it is past; longest first."""
    limit = _limit(dimension)
    labels: dict[float, list[str]] = {}
    for each in _reachable(signature, dimension):
        labels.setdefault(_at(dimension, each), []).append(each.name)
    starts = [*sorted(labels), limit]
    there = {dimension.extent(count) for count in dimension.checked}
    found = []
    for start, end in pairwise(starts):
        if not any(start < extent <= end for extent in there):
            steps = max(_MARGIN, int(start) // 8 // dimension.step)
            found.append((", ".join(labels[start]), int(min(start + steps * dimension.step, end))))
    return found[::-1]


def _vocabulary(signature: Signature, cases: Sequence[Case], budget: Budget) -> tuple[list[Case], list[str]]:
    """Return a set with the ids that no other has, or with as many as there is room for, and notes of the rest."""
    ids = [each for each in signature.inputs if each.sampling.role is Role.IDS]
    sizes = dict(sample_sizes(signature)[0])
    rest = {each.name: _unseen(each, cases) for each in ids}
    rows = max((-(-len(rest[each.name]) // _drawn_in_a_row(each, sizes)) for each in ids), default=0)
    rows, batches = _batches(signature, [each for each in ids if len(rest[each.name])], sizes, rows, budget)
    added = []
    if rows:
        sizes.update(dict.fromkeys(batches, rows))
        case = _case(signature, len(cases), "the rest of the vocabulary", sizes, NONE)
        arrays = dict(case.arrays)
        for each in ids:
            if len(rest[each.name]):
                start = len(each.sampling.leading)
                arrays[each.name][..., start:] = np.resize(rest[each.name], arrays[each.name][..., start:].shape)
        added.append(replace(case, arrays=arrays))
        rest = {each.name: _unseen(each, (*cases, *added)) for each in ids}
    sizes_of = {each.name: each.sampling.high - each.sampling.low for each in ids}
    return added, [
        f"{sizes_of[name] - len(left)} of {sizes_of[name]} ids of {name} are among the inputs compared"
        for name, left in rest.items()
        if len(left)
    ]


def _batches(
    signature: Signature, asked: Sequence[GraphInput], sizes: Mapping[str, int], rows: int, budget: Budget
) -> tuple[int, set[str]]:
    """Return how many of `rows` there is room for in a batch, and the dimensions that are one."""
    batches = {each.shape[0] for each in asked if each.shape and isinstance(each.shape[0], str)}
    if any(each.shape and each.shape[0] in batches for each in signature.inputs if each.dtype.is_floating):
        rows = min(rows, _ROWS_BESIDE_FLOATS)
    while rows and not budget.has_room(signature, {**sizes, **dict.fromkeys(batches, rows)}):
        rows //= 2
    return rows, batches


def _unseen(each: GraphInput, cases: Sequence[Case]) -> Any:
    """Return the ids of an input that no set has, without those that stand for something else than text."""
    low, high = each.sampling.low, min(each.sampling.high, each.sampling.low + _LARGEST_VOCABULARY)
    seen = np.zeros(high - low, bool)
    for case in cases:
        ids = case.arrays[each.name].reshape(-1).astype(np.int64) - low
        seen[ids[(ids >= 0) & (ids < high - low)]] = True
    special = np.array([number - low for number in each.sampling.excluded if low <= number < high], np.int64)
    seen[special] = True
    return np.flatnonzero(~seen) + low


def _drawn_in_a_row(each: GraphInput, sizes: Mapping[str, int]) -> int:
    return max(math.prod(extents(each, sizes)[1:]) - len(each.sampling.leading), 1)
