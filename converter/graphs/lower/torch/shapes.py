"""Operators that move elements without looking at them: reshape, transpose, concatenate, pad."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Int, Ints, Tensor, axis_of, product, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("Reshape", since=5)
def reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Any:
    """-1 is inferred; 0 copies the input's extent unless `allowzero`."""
    if not allowzero:
        shape = [
            x.shape[axis] if isinstance(extent, int) and extent == 0 else extent for axis, extent in enumerate(shape)
        ]
    return x.reshape(shape)


@lowers("Reshape")
def reshape_by_attribute(x: Tensor, *, shape: Any, consumed_inputs: Any = ()) -> Any:
    """The shape as an attribute, before opset 5."""
    return reshape(x, list(shape))


@lowers("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Any:
    """A matrix: the extents before `axis` by those from it on."""
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape([product(x.shape[:axis]), product(x.shape[axis:])])


@lowers("Transpose")
def transpose(x: Tensor, *, perm: Any = None) -> Any:
    """Axes reversed when no permutation is given."""
    return x.permute(list(reversed(range(x.ndim))) if perm is None else list(perm))


@lowers("Squeeze", since=13)
def squeeze(x: Tensor, axes: Ints = None) -> Any:
    """Drop axes of extent 1: those named, or all of them."""
    if axes is None:
        return x.squeeze()
    for axis in axes:
        extent = x.shape[axis_of(axis, x)]
        refuse(isinstance(extent, int) and extent != 1, f"Squeeze of axis {axis} of {list(x.shape)}")
    return x.squeeze([axis_of(axis, x) for axis in axes])


@lowers("Squeeze")
def squeeze_by_attribute(x: Tensor, *, axes: Any = None) -> Any:
    """Axes as an attribute, before opset 13."""
    return squeeze(x, axes)


@lowers("Unsqueeze", since=13)
def unsqueeze(x: Tensor, axes: Ints) -> Any:
    """Axes count in the result; their order does not matter."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis if axis >= 0 else axis + rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@lowers("Unsqueeze")
def unsqueeze_by_attribute(x: Tensor, *, axes: Any) -> Any:
    """Axes as an attribute, before opset 13."""
    return unsqueeze(x, axes)


@lowers("Concat", since=4)
def concat(*values: Tensor, axis: int) -> Any:
    """Join along an axis."""
    return torch.cat(values, axis)


@lowers("Concat")
def concat_of_channels(*values: Tensor, axis: int = 1) -> Any:
    """Along axis 1 when none is given, before opset 4."""
    return torch.cat(values, axis)


@lowers("Split", since=18)
def split(x: Tensor, sizes: Ints = None, *, axis: int = 0, num_outputs: int | None = None, output_count: int) -> Any:
    """Into the sizes given, or into equal parts of which the last may be smaller."""
    if sizes is not None:
        return torch.split(x, sizes, axis)
    count, extent = num_outputs or output_count, x.shape[axis]
    part = -(-extent // count)
    return torch.split(x, [part] * (count - 1) + [extent - part * (count - 1)], axis)


@lowers("Split", since=13)
def split_by_sizes(x: Tensor, sizes: Ints = None, *, axis: int = 0, output_count: int) -> Any:
    """Without `num_outputs`, before opset 18."""
    return split(x, sizes, axis=axis, output_count=output_count)


@lowers("Split")
def split_by_attribute(x: Tensor, lengths: Ints = None, *, axis: int = 0, split: Any = None, output_count: int) -> Any:
    """Sizes as an attribute, before opset 13; opset 1 had them as an input, too."""
    if split is None and lengths is None:
        return torch.split(x, x.shape[axis] // output_count, axis)
    return torch.split(x, lengths or list(split), axis)


@lowers("Expand", since=8)
def expand(x: Tensor, shape: Ints) -> Any:
    """Broadcasting goes both ways: an extent of 1 in `shape` keeps the input's."""
    rank = max(x.ndim, len(shape))
    own, wanted = [1] * (rank - x.ndim) + list(x.shape), [1] * (rank - len(shape)) + shape
    return x.expand([_wider(*pair) for pair in zip(own, wanted, strict=True)])


def _wider(own: Any, wanted: Any) -> Any:
    if isinstance(wanted, int) and wanted == 1:
        return own
    return wanted


@lowers("Tile", since=6)
def tile(x: Tensor, repeats: Ints) -> Any:
    """Repeat along each axis."""
    return x.repeat(repeats)


@lowers("Tile")
def tile_of_one_axis(x: Tensor, tiles: Int, axis: Int) -> Any:
    """Along one axis, before opset 6."""
    return x.repeat([tiles if each == axis else 1 for each in range(x.ndim)])


@lowers("Pad", since=11)
def pad(x: Tensor, pads: Ints, value: Tensor = None, axes: Ints = None, *, mode: str = "constant") -> Any:
    """Begins of all axes, then ends; negative ones cut. Modes constant, reflect, edge and wrap."""
    chosen = list(range(x.ndim)) if axes is None else [axis_of(axis, x) for axis in axes]
    amounts = {axis: (pads[at], pads[at + len(chosen)]) for at, axis in enumerate(chosen)}
    if mode == "constant":
        flat = [amount for axis in reversed(range(x.ndim)) for amount in amounts.get(axis, (0, 0))]
        return _padded_by(x, flat, value)
    refuse(mode not in ("reflect", "edge", "wrap"), f"Pad mode {mode!r}")
    for axis, (before, after) in amounts.items():
        if isinstance(before, int) and before < 0:
            x, before = x.narrow(axis, -before, x.shape[axis] + before), 0
        if isinstance(after, int) and after < 0:
            x, after = x.narrow(axis, 0, x.shape[axis] + after), 0
        if isinstance(before, int) and isinstance(after, int) and before == after == 0:
            continue
        x = x.index_select(axis, _positions(x.shape[axis], before, after, mode))
    return x


def _padded_by(x: Any, flat: list[Any], value: Any) -> Any:
    if value is None:
        return torch.nn.functional.pad(x, flat)
    if not torch.compiler.is_exporting():
        return torch.nn.functional.pad(x, flat, value=value.item())
    # The value may be a tensor that only runs have: the mask of what is padded takes it in.
    inside = torch.nn.functional.pad(torch.ones_like(x, dtype=torch.bool), flat)
    return torch.where(inside, torch.nn.functional.pad(x, flat), value.reshape(()).to(x.dtype))


def _positions(extent: Any, before: Any, after: Any, mode: str) -> Any:
    positions = torch.arange(-before, extent + after)
    if mode == "edge":
        return positions.clamp(min=0).minimum(torch.scalar_tensor(extent - 1, dtype=torch.int64))
    if mode == "wrap":
        return torch.remainder(positions, extent)
    period = 2 * (extent - 1)
    if isinstance(period, int) and period == 0:
        return torch.zeros_like(positions)
    folded = torch.remainder(positions, period)
    return torch.minimum(folded, period - folded)


@lowers("Pad", since=2)
def pad_by_attributes(x: Tensor, *, pads: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """Amounts and value as attributes, before opset 11."""
    return pad(x, list(pads), torch.tensor(value, dtype=x.dtype), mode=mode)


@lowers("Pad")
def pad_at_first(x: Tensor, *, paddings: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """The amounts were called `paddings` in opset 1."""
    return pad_by_attributes(x, pads=paddings, mode=mode, value=value)


@lowers("CenterCropPad", since=18)
def center_crop_pad(x: Tensor, shape: Ints, *, axes: Any = None) -> Any:
    """To the extents given, what is cut or padded being half before and half after."""
    for at, axis in enumerate(range(x.ndim) if axes is None else axes):
        missing = shape[at] - x.shape[axis]
        before = -((-missing) // 2) if missing < 0 else missing // 2
        x = pad(x, [before, missing - before], axes=[axis])
    return x


@lowers("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    """[n, c, h, w] -> [n, c / b^2, h * b, w * b]; the block comes before (DCR) or after (CRD) the channels."""
    b = blocksize
    n, c, h, w = x.shape
    if mode == "CRD":
        return torch.nn.functional.pixel_shuffle(x, b)
    blocks = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // (b * b), h * b, w * b)


@lowers("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    """[n, c, h, w] -> [n, c * b^2, h / b, w / b]; the block comes before (DCR) or after (CRD) the channels."""
    if mode == "CRD":
        return torch.nn.functional.pixel_unshuffle(x, blocksize)
    b = blocksize
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)
