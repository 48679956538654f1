"""Fourier transforms and what goes with them. Complex numbers are pairs along the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.graphs.lower.torch.framework import Int, Tensor, axis_of, dtype_of, to_tensor, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("DFT", since=20)
def dft(x: Tensor, length: Int = None, axis: Int = -2, *, inverse: int = 0, onesided: int = 0) -> Any:
    """Along one axis, cut or padded with zeros to `length`; half of it, of real numbers, when one-sided."""
    axis = axis_of(axis, x)
    if inverse and onesided:
        return torch.fft.irfft(torch.view_as_complex(x.contiguous()), length, axis).unsqueeze(-1)
    values = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)
    function = torch.fft.ifft if inverse else torch.fft.rfft if onesided else torch.fft.fft
    return torch.view_as_real(function(values, length, axis))


@lowers("DFT", since=17)
def dft_by_attribute(x: Tensor, length: Int = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    """The axis as an attribute, before opset 20."""
    return dft(x, length, axis, inverse=inverse, onesided=onesided)


@lowers("STFT", since=17)
def stft(x: Tensor, step: Int, window: Tensor = None, length: Int = None, *, onesided: int = 1) -> Any:
    """Transforms of frames, each under a window: [batch, frames, bins, 2]."""
    length = window.shape[0] if length is None else length
    values = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)
    frames = values.unfold(1, length, step)
    frames = frames if window is None else frames * window
    return torch.view_as_real(torch.fft.rfft(frames) if onesided and not frames.is_complex() else torch.fft.fft(frames))


@lowers("MelWeightMatrix", since=17)
def mel_weight_matrix(
    bins: Int, length: Int, rate: Int, lower: Tensor, upper: Tensor, *, output_datatype: int = 1
) -> Any:
    """Triangles that are even in mel, as onnx.reference has them: edges are cut to whole bins of the spectrum."""
    first, last = (2595 * np.log10(1 + float(each) / 700) for each in (lower, upper))
    mels = np.arange(bins + 2) * (last - first) / (bins + 2) + first
    edges = ((length + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate).astype(np.int64)
    matrix = np.zeros((length // 2 + 1, bins), np.float32)
    for at in range(bins):
        low, centre, high = edges[at : at + 3]
        if low == centre:
            matrix[centre, at] = 1
        for row in range(low, centre + 1):
            matrix[row, at] = (row - low) / (centre - low) if centre > low else matrix[row, at]
        for row in range(centre, high):
            matrix[row, at] = (high - row) / (high - centre) if high > centre else matrix[row, at]
    return to_tensor(matrix).to(dtype_of(output_datatype))
