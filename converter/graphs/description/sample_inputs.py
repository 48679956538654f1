"""Seeded inputs for any graph: what its signature knows of their values, else integers 0 and 1, floats normal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.description.signature import GraphInput, Role, Sampling, Signature

NUMBERS = Sampling(role=Role.NUMBERS)
RIGHT, NONE, MIXED, ROW = "right", "none", "mixed", "row"
"""How masks are: ones and then zeros; ones; rows that begin with zeros, have holes, or both; a last row of zeros."""

_ROWS, _EXTENTS = (3, 1, 4, 2, 2), (17, 9, 12, 6, 1)
_HEIGHTS, _WIDTHS = (64, 96, 64, 96, 64), (96, 64, 96, 64, 96)
_LINE = 16
"""The least height of an image, such as a line of text, whose width varies."""
_SOUNDS = (3200, 2400, 2800, 2400, 2400)
_SOUND_RANK, _IMAGE_RANK = 2, 4
_ELEMENTS_LIMIT = 1 << 28
_LONG = 64
SMALL, LARGE, WHOLE = "small", "large", "whole"
"""How integers are of which nothing is known: what their sampling says; negative and large; as large as their type.

Of those that are looked up in a table all are keys of it where they are small, elsewhere every other one.
"""

_LARGE = (-1, -2, -100, -1000, -(1 << 15), -(1 << 24), 127, 255, 1000, (1 << 15) - 1, 1 << 24)


def sample_sizes(signature: Signature) -> tuple[Mapping[str, int], ...]:
    """Return five sets of extents by dimension to check a graph at, of several batches; the last has one of anything.

    They are what the signature says of its dimensions. Of those that mean nothing in particular the ones in the same
    place are alike, for graphs from elsewhere often call one dimension differently in each of their inputs. Images are
    large enough to be halved five times, and sounds, with their masks, to be some frames.
    """
    found: dict[str, Sequence[int]] = {}
    has_sound = any(map(_is_sound, signature.inputs))
    for each in signature.inputs:
        for extent, cases in zip(each.shape, _cases(each, has_sound=has_sound), strict=True):
            found.update({name: found.get(name, cases) for name in _names(extent)})
    for known in signature.dimensions:
        found[known.name] = [known.extent(known.checked[case % len(known.checked)]) for case in range(len(_ROWS))]
    return tuple({name: cases[number] for name, cases in found.items()} for number in range(len(_ROWS)))


def _is_sound(each: GraphInput) -> bool:
    return each.dtype.is_floating and len(each.shape) == _SOUND_RANK and isinstance(each.shape[1], str)


def _cases(each: GraphInput, *, has_sound: bool) -> list[Sequence[int]]:
    """Return the extents that each dimension of an input would have, case by case."""
    cases: list[Sequence[int]] = [*[_ROWS], *[_EXTENTS] * (len(each.shape) - 1)]
    cases = cases[: len(each.shape)]
    free = [axis for axis, extent in enumerate(each.shape) if axis and isinstance(extent, str)]
    if each.dtype.is_floating and len(each.shape) == _IMAGE_RANK:
        if free in ([1, 2], [2, 3]):
            cases[free[0]], cases[free[1]] = _HEIGHTS, _WIDTHS
        elif len(free) == 1 and max(extent for extent in each.shape[1:] if isinstance(extent, int)) >= _LINE:
            cases[free[0]] = _WIDTHS
    if _is_sound(each) or (has_sound and len(each.shape) == _SOUND_RANK and "mask" in each.name):
        cases[1] = _SOUNDS
    return cases


def sample_inputs(
    inputs: Sequence[GraphInput], *, seed: int, sizes: Mapping[str, int], padding: str = RIGHT, integers: str = SMALL
) -> dict[str, Any]:
    """Return one array per input. `sizes` gives the extent of each named dimension, `padding` says how masks are.

    The first row of a mask that is padded at the right has no padding, of the others each gets some; inputs of the
    same shape have it in the same places. What stands for an image is never masked. `integers` says how those are of
    which nothing is known; where they are whole, those that may not be anything are large. Large ones end at 2**24, to
    where float32 has them all. Raises GraphError for an input that is larger than any a graph would be checked with.
    """
    random = np.random.default_rng(seed)
    shapes = {each.name: extents(each, sizes) for each in inputs}
    for name, shape in shapes.items():
        if math.prod(shape) > _ELEMENTS_LIMIT:
            raise GraphError(f"an input {name!r} of {list(shape)} is too large to check the graph with")
    leading = {each.shape: len(each.sampling.leading) for each in inputs if each.sampling.leading}
    masks = {
        each.shape: _mask(random, shapes[each.name], each.sampling.low, padding, leading.get(each.shape, 0))
        for each in inputs
        if each.sampling.role is Role.MASK
    }
    arrays: dict[str, Any] = {}
    for each in inputs:
        is_mask = each.sampling.role is Role.MASK
        array = masks[each.shape] if is_mask else _values(random, each, shapes[each.name], integers=integers)
        if each.sampling.padding is not None and each.shape in masks:
            array = np.where(masks[each.shape] == 1, array, each.sampling.padding)
        arrays[each.name] = np.asarray(array).astype(each.dtype.numpy)
    return arrays


def extents(each: GraphInput, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an input where the named dimensions are of these `sizes`."""
    return tuple(_extent(extent, sizes) for extent in each.shape)


def _names(extent: int | str) -> Iterator[str]:
    yield from (term for term in str(extent).split(" + ") if not term.isdigit())


def _extent(extent: int | str, sizes: Mapping[str, int]) -> int:
    return sum(int(term) if term.isdigit() else sizes[term] for term in str(extent).split(" + "))


def _mask(random: np.random.Generator, shape: tuple[int, ...], least: int, padding: str, leading: int) -> Any:
    """Return ones and zeros; at least `least` ones in a row, but in one that has none, and the `leading` ones."""
    rows, length = int(np.prod(shape[:-1])), shape[-1]
    least = max(min(least, length), 1)
    mask = np.ones((rows, length), np.int64)
    if padding == RIGHT:
        lengths = random.integers(least, max(length, least + 1), rows)
        lengths[:1] = length
        mask = (np.arange(length)[None, :] < lengths[:, None]).astype(np.int64)
    elif padding == ROW and rows > 1:
        mask[-1] = 0
    elif padding == MIXED:
        for row, number in zip(mask, range(rows), strict=True):
            room = length - least
            start = int(random.integers(1, room // 2 + 2)) if number % 3 != 1 and room > 1 else 0
            row[:start] = 0
            if number % 3 != 0 and room > start:
                hole = int(random.integers(start + 1, max(length - 1, start + 2)))
                row[hole : min(hole + 1 + (room - start) // 3, length - 1)] = 0
    mask[:, :leading] = 1
    return mask.reshape(shape)


def _values(random: np.random.Generator, each: GraphInput, shape: tuple[int, ...], *, integers: str) -> Any:
    sampling = each.sampling
    kind = np.dtype(each.dtype.numpy).kind
    if kind not in "iub":
        values = random.standard_normal(shape)
    elif sampling.role is Role.KEYS:
        values = _keys(random, sampling, shape, beside=integers != SMALL)
    elif integers == WHOLE and sampling == NUMBERS:
        values = _whole(random, np.iinfo(each.dtype.numpy), shape)
    elif integers != SMALL and sampling in (Sampling(), NUMBERS) and kind in "iu":
        limits = np.iinfo(each.dtype.numpy)
        fitting = [number for number in _LARGE if limits.min <= number <= limits.max]
        values = random.choice(np.array(fitting, np.int64), shape)
    else:
        values = _integers(random, sampling, shape)
    if sampling.role is Role.BOXES:
        return np.sort(values.reshape(*shape[:-1], 2, 2), axis=-2).reshape(shape)
    count = min(len(sampling.leading), shape[-1] if shape else 0)
    if count:
        values[..., :count] = sampling.leading[:count]
    return values


def _whole(random: np.random.Generator, limits: np.iinfo[Any], shape: tuple[int, ...]) -> Any:
    """Return powers of two, one less and one more, of either sign, and the least and the largest integer of a type.

    Of 64 bits none from 2**31 to 2**32: onnxruntime takes the larger of two, clips and has signs as if those were
    negative (1.31, with AVX-512).
    """
    low, high, bits = int(limits.min), int(limits.max), limits.bits
    numbers = {sign * (1 << power) + more for power in range(bits) for sign in (1, -1) for more in (-1, 0, 1)}
    fitting = sorted(
        number
        for number in numbers
        if low <= number <= high and not (bits == _LONG and 1 << 31 <= abs(number) < 1 << 32)
    )
    values = random.choice(np.array(fitting, limits.dtype), shape)
    values.reshape(-1)[:2] = np.array([low, high], limits.dtype)[: values.size]
    return values


def _keys(random: np.random.Generator, sampling: Sampling, shape: tuple[int, ...], *, beside: bool) -> Any:
    """Return keys in any order or, at every other place, what is none; all of them if there is room."""
    values = np.empty(math.prod(shape), np.int64)
    others = sampling.beside if beside and sampling.beside else sampling.keys
    for start, listed in ((0, others), (1, sampling.keys)):
        values[start::2] = np.resize(random.permutation(np.array(listed, np.int64)), values[start::2].shape)
    return values.reshape(shape)


def _integers(random: np.random.Generator, sampling: Sampling, shape: tuple[int, ...]) -> Any:
    excluded = {sampling.padding, *sampling.excluded}
    dropped = sorted(number for number in excluded if number is not None and sampling.low <= number < sampling.high)
    values = random.integers(sampling.low, max(sampling.high - len(dropped), sampling.low + 1), shape)
    for number in dropped:
        values = np.where(values >= number, values + 1, values)
    return values
