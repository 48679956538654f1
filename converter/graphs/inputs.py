"""Seeded inputs for any graph: what its architecture knows of their values, else integers 0 and 1, floats normal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.architecture import Architecture, GraphInput, Sampling

_ROWS, _EXTENTS = (3, 1), (17, 9)
_HEIGHTS, _WIDTHS = (64, 96), (96, 64)
_SOUNDS = (3200, 2400)
_SOUND_RANK, _IMAGE_RANK = 2, 4
_ELEMENTS_LIMIT = 1 << 28


def sample_sizes(architecture: Architecture) -> tuple[Mapping[str, int], ...]:
    """Return sets of extents by dimension to check a graph at: the architecture's own, else two that differ.

    Of dimensions that mean nothing in particular those in the same place are alike, for graphs from elsewhere often
    call one dimension differently in each of their inputs. Images are large enough to be halved five times, and sounds,
    with their masks, to be some frames.
    """
    if architecture.sizes:
        return architecture.sizes
    found: dict[str, tuple[int, int]] = {}
    has_sound = any(map(_is_sound, architecture.inputs))
    for each in architecture.inputs:
        for extent, cases in zip(each.shape, _cases(each, has_sound=has_sound), strict=True):
            found.update({name: found.get(name, cases) for name in _names(extent)})
    return tuple({name: cases[number] for name, cases in found.items()} for number in range(len(_ROWS)))


def _is_sound(each: GraphInput) -> bool:
    return each.dtype.is_floating and len(each.shape) == _SOUND_RANK and isinstance(each.shape[1], str)


def _cases(each: GraphInput, *, has_sound: bool) -> list[tuple[int, int]]:
    """Return the extents that each dimension of an input would have, in the first case and in the second."""
    cases = [_ROWS, *[_EXTENTS] * (len(each.shape) - 1)][: len(each.shape)]
    free = [axis for axis, extent in enumerate(each.shape) if axis and isinstance(extent, str)]
    if each.dtype.is_floating and len(each.shape) == _IMAGE_RANK and free in ([1, 2], [2, 3]):
        cases[free[0]], cases[free[1]] = _HEIGHTS, _WIDTHS
    if _is_sound(each) or (has_sound and len(each.shape) == _SOUND_RANK and "mask" in each.name):
        cases[1] = _SOUNDS
    return cases


def sample_inputs(inputs: Sequence[GraphInput], *, seed: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return one array per input. `sizes` gives the extent of each named dimension.

    The first row of a mask has no padding, of the others each gets some, and the inputs of the same shape have it in
    the same places. Raises GraphError for an input that is larger than any a graph would be checked with.
    """
    random = np.random.default_rng(seed)
    shapes = {each.name: extents(each, sizes) for each in inputs}
    for name, shape in shapes.items():
        if math.prod(shape) > _ELEMENTS_LIMIT:
            raise GraphError(f"an input {name!r} of {list(shape)} is too large to check the graph with")
    masks = {
        each.shape: _mask(random, shapes[each.name], each.sampling.low)
        for each in inputs
        if each.sampling.role == "mask"
    }
    arrays: dict[str, Any] = {}
    for each in inputs:
        is_mask = each.sampling.role == "mask"
        array = masks[each.shape] if is_mask else _values(random, each, shapes[each.name])
        if each.sampling.padding is not None and each.shape in masks:
            array = np.where(masks[each.shape] == 1, array, each.sampling.padding)
        arrays[each.name] = np.asarray(array).astype(each.dtype.numpy)
    return arrays


def extents(each: GraphInput, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of an input where the named dimensions are of these `sizes`."""
    return tuple(_extent(extent, sizes) for extent in each.shape)


def _names(extent: int | str) -> Iterator[str]:
    if isinstance(extent, str):
        yield from (term for term in extent.split(" + ") if not term.isdigit())


def _extent(extent: int | str, sizes: Mapping[str, int]) -> int:
    if isinstance(extent, int):
        return extent
    return sum(int(term) if term.isdigit() else sizes[term] for term in extent.split(" + "))


def _mask(random: np.random.Generator, shape: tuple[int, ...], least: int) -> Any:
    rows, length = int(np.prod(shape[:-1])), shape[-1]
    least = max(min(least, length), 1)
    lengths = random.integers(least, max(length, least + 1), rows)
    lengths[:1] = length
    return (np.arange(length)[None, :] < lengths[:, None]).astype(np.int64).reshape(shape)


def _values(random: np.random.Generator, each: GraphInput, shape: tuple[int, ...]) -> Any:
    sampling = each.sampling
    if np.dtype(each.dtype.numpy).kind not in "iub":
        values = random.standard_normal(shape)
    else:
        values = _integers(random, sampling, shape)
    if sampling.role == "boxes":
        return np.sort(values.reshape(*shape[:-1], 2, 2), axis=-2).reshape(shape)
    count = min(len(sampling.leading), shape[-1] if shape else 0)
    if count:
        values[..., :count] = sampling.leading[:count]
    return values


def _integers(random: np.random.Generator, sampling: Sampling, shape: tuple[int, ...]) -> Any:
    excluded = {sampling.padding, *sampling.excluded}
    dropped = sorted(number for number in excluded if number is not None and sampling.low <= number < sampling.high)
    values = random.integers(sampling.low, max(sampling.high - len(dropped), sampling.low + 1), shape)
    for number in dropped:
        values = np.where(values >= number, values + 1, values)
    return values
