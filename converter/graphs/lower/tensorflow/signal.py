"""Fourier transforms and what goes with them. Complex numbers are pairs in ONNX, in a last axis of two."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import (
    as_scalar,
    dtype_of,
    extents_of,
    is_static,
    rank_of,
    tf,
    with_rank,
)
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


def _complex(x: Any) -> Any:
    x = tf.convert_to_tensor(x)
    x = tf.cast(x, tf.float64)  # in single precision the error of a sum of hundreds shows
    refuse(x.shape[-1] not in (1, 2), "a transform of neither real nor complex numbers")
    return tf.complex(x[..., 0], tf.zeros_like(x[..., 0]) if x.shape[-1] == 1 else x[..., 1])


def _pairs(x: Any) -> Any:
    return tf.stack([tf.math.real(x), tf.math.imag(x)], -1)


def _exchanged(x: Any, axis: Any) -> Any:
    """Exchange an axis, perhaps a tensor, with the last."""
    rank = rank_of(x)
    if isinstance(axis, int):
        order = list(range(rank))
        order[axis % rank], order[-1] = order[-1], order[axis % rank]
        return tf.transpose(x, order)
    places = tf.range(rank, dtype=tf.int64)
    axis = axis % rank
    last = tf.constant(rank - 1, tf.int64)
    order = tf.where(tf.equal(places, axis), last, tf.where(tf.equal(places, last), axis, places))
    return with_rank(tf.transpose(x, order), rank)


def _of_length(x: Any, length: Any) -> Any:
    """Cut or fill up the last axis with zeros."""
    x = x[..., :length]
    missing = tf.cast(length, tf.int64) - tf.shape(x, tf.int64)[-1]
    return tf.pad(x, tf.concat([tf.zeros([rank_of(x) - 1, 2], tf.int64), [[0, missing]]], 0))


@lowers("DFT", since=20)
def dft(x: Any, length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    """Along an axis, over what `length` cuts or fills up; onesided keeps, or is given, the first half."""
    dtype = tf.convert_to_tensor(x).dtype
    along = -2 if axis is None else int(axis.reshape(())) if is_static(axis) else tf.cast(as_scalar(axis), tf.int64)
    # Without the axis of pairs, an axis from the end is one nearer to it.
    rank = rank_of(x)
    along = along % rank
    last = _exchanged(_complex(x), along)
    count = tf.shape(last, tf.int64)[-1]
    if inverse and onesided:
        full = 2 * (count - 1) if length is None else tf.cast(as_scalar(length), tf.int64)
        half = _of_length(last, full // 2 + 1)
        y = tf.signal.irfft(half, [tf.cast(full, tf.int32)])
        return tf.cast(_exchanged(y, along)[..., None], dtype)
    last = last if length is None else _of_length(last, as_scalar(length))
    y = tf.signal.ifft(last) if inverse else tf.signal.fft(last)
    y = y[..., : tf.shape(y)[-1] // 2 + 1] if onesided else y
    return tf.cast(_pairs(_exchanged(y, along)), dtype)


@lowers("DFT", since=17)
def dft_by_attribute(x: Any, length: Any = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Any:
    """The axis as an attribute, before opset 20."""
    import numpy as np

    return dft(x, length, np.array(axis, np.int64), inverse=inverse, onesided=onesided)


@lowers("STFT", since=17)
def stft(signal: Any, frame_step: Any, window: Any = None, frame_length: Any = None, *, onesided: int = 1) -> Any:
    """[batch, samples, 1 or 2] -> [batch, frames, frequencies, 2]; a last frame that does not fit is left out."""
    values = _complex(signal)
    if frame_length is None:
        frame_length = extents_of(values)[-1] if window is None else extents_of(window)[0]
    length, step = (tf.cast(as_scalar(each), tf.int32) for each in (frame_length, frame_step))
    count = (tf.shape(values)[-1] - length) // step + 1
    places = tf.range(count)[:, None] * step + tf.range(length)[None, :]
    frames = tf.gather(values, places, axis=1)
    if window is not None:
        frames *= tf.cast(window, frames.dtype)
    y = tf.signal.fft(frames)
    y = y[..., : length // 2 + 1] if onesided else y
    return tf.cast(_pairs(y), tf.convert_to_tensor(signal).dtype)


@lowers("MelWeightMatrix", since=17)
def mel_weight_matrix(
    bands: Any, dft_length: Any, sample_rate: Any, lower: Any, upper: Any, *, output_datatype: int = 1
) -> Any:
    """[frequencies, bands]: triangles between neighbouring marks that are evenly spaced on the mel scale."""
    bands, dft_length = (tf.cast(as_scalar(each), tf.int64) for each in (bands, dft_length))
    rate, low, high = (tf.cast(as_scalar(each), tf.float32) for each in (sample_rate, lower, upper))
    to_mel = 2595.0 / tf.math.log(10.0)
    low, high = (to_mel * tf.math.log(1 + each / 700) for each in (low, high))
    marks = tf.range(tf.cast(bands + 2, tf.float32)) * ((high - low) / tf.cast(bands + 2, tf.float32)) + low
    hertz = 700 * (tf.exp(marks / to_mel) - 1)
    bins = tf.floor(tf.cast(dft_length + 1, tf.float32) * hertz / rate)
    left, centre, right = bins[:-2], bins[1:-1], bins[2:]
    at = tf.range(tf.cast(dft_length // 2 + 1, tf.float32))[:, None]
    rising = tf.math.divide_no_nan(at - left, centre - left)
    falling = tf.math.divide_no_nan(right - at, right - centre)
    rises = tf.logical_and(at >= left, at <= centre)
    falls = tf.logical_and(at >= centre, at < right)
    is_peak = tf.logical_and(tf.equal(centre, left), tf.equal(at, centre))
    weights = tf.where(falls, falling, tf.where(rises, rising, 0.0))
    return tf.cast(tf.where(is_peak, 1.0, weights), dtype_of(output_datatype))
