"""Convolutions and what goes with them."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.onnx.windows import check_auto_pad, flat, windows
from converter.graphs.lower.torch.framework import Ints, Tensor, product, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("Conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """Any number of spatial axes that PyTorch has: one, two or three."""
    where = windows(x.shape[2:], weight.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    function = getattr(torch.nn.functional, f"conv{x.ndim - 2}d")
    how = {"stride": where.strides, "dilation": where.dilations, "groups": group}
    if where.is_symmetric:
        return function(x, weight, bias, padding=where.before, **how)
    return function(torch.nn.functional.pad(x, where.pads), weight, bias, **how)


@lowers("ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The gradient of Conv with respect to its input, cut by the pads; an output shape decides these."""
    check_auto_pad(auto_pad)
    rank = x.ndim - 2
    strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
    more = list(output_padding or [0] * rank)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    before, after = list(pads[:rank]) if pads else [0] * rank, list(pads[rank:]) if pads else [0] * rank
    totals = None
    if output_shape:
        wanted = list(output_shape)[-rank:]
        full = [stride * (extent - 1) + span for extent, stride, span in zip(x.shape[2:], strides, reach, strict=True)]
        more = [torch.sym_max(want - have, extra) for want, have, extra in zip(wanted, full, more, strict=True)]
        totals = [torch.sym_max(have + extra - want, 0) for want, have, extra in zip(wanted, full, more, strict=True)]
    elif auto_pad.startswith("SAME"):
        totals = [max(span + extra - stride, 0) for span, extra, stride in zip(reach, more, strides, strict=True)]
    if totals is not None:
        halves = [total // 2 for total in totals]
        rest = [total - half for total, half in zip(totals, halves, strict=True)]
        before, after = (halves, rest) if auto_pad == "SAME_UPPER" else (rest, halves)
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    full = function(x, weight, None, stride=strides, dilation=dilations, groups=group)
    # PyTorch allows an output padding below stride or dilation only; zeros after the whole are the same.
    cut = flat([-each for each in before], [extra - each for extra, each in zip(more, after, strict=True)])
    full = torch.nn.functional.pad(full, cut)
    return full if bias is None else full + bias.reshape([-1] + [1] * rank)


@lowers("DeformConv", since=19)
def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor = None,
    mask: Tensor = None,
    *,
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    offset_group: int = 1,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """Each element of the kernel looks, bilinearly, where its offset says; outside is zero."""
    n, channels, height, width = x.shape
    dtype, x, offset = x.dtype, x.double(), offset.double()  # positions between -1 and 1 lose a digit of float32
    where = windows(
        [height, width], weight.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET"
    )
    rows, columns = offset.shape[2:]
    size = product(where.kernel)
    first = [torch.arange(count) * stride for count, stride in zip((rows, columns), where.strides, strict=True)]
    steps = [torch.arange(count) * dilation for count, dilation in zip(where.kernel, where.dilations, strict=True)]
    taps = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).reshape(1, 1, size, 1, 1, 2)
    starts = torch.stack(torch.meshgrid(*first, indexing="ij"), -1).reshape(1, 1, 1, rows, columns, 2)
    moved = offset.reshape(n, offset_group, size, 2, rows, columns).permute(0, 1, 2, 4, 5, 3)
    positions = taps + starts - torch.tensor(where.before) + moved
    # grid_sample counts from -1 to 1, from edge to edge, and the horizontal axis comes first.
    extents = torch.tensor([height, width])
    grid = ((2 * positions + 1) / extents - 1).flip(-1)
    grid = grid.reshape(n * offset_group, size * rows, columns, 2)
    parts = x.reshape(n * offset_group, channels // offset_group, height, width)
    found = torch.nn.functional.grid_sample(parts, grid, align_corners=False)
    found = found.reshape(n, offset_group, -1, size, rows, columns)
    if mask is not None:
        found = found * mask.reshape(n, offset_group, 1, size, rows, columns)
    found = found.to(dtype).reshape(n, group, channels // group * size, rows * columns)
    kernels = weight.reshape(group, weight.shape[0] // group, -1)
    result = torch.matmul(kernels, found).reshape(n, weight.shape[0], rows, columns)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


@lowers("Col2Im", since=18)
def col2im(
    x: Tensor, image_shape: Ints, block_shape: Ints, *, dilations: Any = None, pads: Any = None, strides: Any = None
) -> Any:
    """Blocks put back where they were taken from; what overlaps is added."""
    rank = len(image_shape)
    where = windows(image_shape, block_shape, strides=strides, dilations=dilations, pads=pads, auto_pad="NOTSET")
    padded = [
        extent + before + after for extent, before, after in zip(image_shape, where.before, where.after, strict=True)
    ]
    n, size = x.shape[0], product(block_shape)
    channels = x.shape[1] // size
    index = torch.zeros([1] * (2 * rank), dtype=torch.int64)
    for axis in range(rank):
        span = (block_shape[axis] - 1) * where.dilations[axis] + 1
        starts = torch.arange((padded[axis] - span) // where.strides[axis] + 1) * where.strides[axis]
        taps = torch.arange(block_shape[axis]) * where.dilations[axis]
        along = [1] * (2 * rank)
        along[axis], along[rank + axis] = taps.shape[0], starts.shape[0]
        index = index * padded[axis] + (taps[:, None] + starts[None, :]).reshape(along)
    empty = x.new_zeros(n, channels, product(padded))
    places = index.reshape(1, 1, -1).expand(n, channels, -1)
    image = empty.scatter_add(2, places, x.reshape(n, channels, -1)).reshape(n, channels, *padded)
    return torch.nn.functional.pad(image, [-amount for amount in where.pads])
