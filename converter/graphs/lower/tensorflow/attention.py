"""Attention as one operator (opset 23 and later), and the rotation of positions."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, dtype_of, extents_of, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
_AFTER_SOFTCAP, _WITH_BIAS, _AFTER_SOFTMAX = 1, 2, 3  # qk_matmul_output_mode


@lowers("Attention", since=23)
def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    valid_lengths: Any = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:
    """Also returns the keys and values with the past ones, and the scores at the stage the mode names.

    A query that may look at no key gives zeros. Fewer heads of keys than of queries are shared by groups of these.
    """
    query, key, value = (tf.convert_to_tensor(each) for each in (query, key, value))
    is_flat = rank_of(query) == 3
    if is_flat:
        query, key, value = _heads(query, q_num_heads), _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    past_length = 0 if past_key is None else extents_of(past_key)[2]
    if past_key is not None:
        key, value = tf.concat([past_key, key], 2), tf.concat([past_value, value], 2)
    present = (key, value)
    key, value = (_shared(each, extents_of(query)[1]) for each in (key, value))

    head_size = query.shape[-1]
    refuse(head_size is None and scale is None, "Attention over heads of unknown size")
    root = tf.cast((head_size**-0.5 if scale is None else scale) ** 0.5, query.dtype)
    raw = tf.matmul(query * root, key * root, transpose_b=True)
    capped = softcap * tf.tanh(raw / softcap) if softcap else raw
    offset = past_length if valid_lengths is None else _offsets(valid_lengths, extents_of(query)[2])
    allowed = _allowed(query, key, offset, is_causal, left_window_size, right_window_size, valid_lengths)
    bias = _bias(mask, allowed, extents_of(key)[2], query.dtype)
    biased = capped if bias is None else capped + bias
    probabilities = _probabilities(biased, bias, query.dtype, softmax_precision)
    y = tf.matmul(probabilities, value)
    if is_flat:
        batch, heads, length, size = extents_of(y)
        y = tf.reshape(tf.transpose(y, [0, 2, 1, 3]), as_shape([batch, length, heads * size]))
    stages = {_AFTER_SOFTCAP: capped, _WITH_BIAS: biased, _AFTER_SOFTMAX: probabilities}
    return y, *present, stages.get(qk_matmul_output_mode, raw)


def _heads(x: Any, count: int | None) -> Any:
    refuse(not count, "Attention over three dimensions without the number of heads")
    batch, length, width = extents_of(x)
    return tf.transpose(tf.reshape(x, as_shape([batch, length, count, width // count])), [0, 2, 1, 3])


def _shared(x: Any, heads: Any) -> Any:
    """Repeat heads of keys or values for the groups of queries that share them."""
    own = x.shape[1]
    refuse(own is None or not isinstance(heads, int), "Attention over an unknown number of heads")
    return x if own == heads else tf.repeat(x, heads // own, axis=1)


def _offsets(valid_lengths: Any, query_length: Any) -> Any:
    return tf.reshape(tf.cast(valid_lengths, tf.int64) - tf.cast(query_length, tf.int64), [-1, 1, 1, 1])


def _allowed(query: Any, key: Any, offset: Any, is_causal: int, left: int, right: int, valid_lengths: Any) -> Any:
    """Return which key a query may look at by position; None when every one."""
    conditions = []
    columns = tf.range(extents_of(key)[2], dtype=tf.int64)[None, :]
    if is_causal or left >= 0 or right >= 0:
        rows = tf.range(extents_of(query)[2], dtype=tf.int64)[:, None] + tf.cast(offset, tf.int64)
        conditions += [columns <= rows] if is_causal else []
        conditions += [rows - columns <= left] if left >= 0 else []
        conditions += [columns - rows <= right] if right >= 0 else []
    if valid_lengths is not None:
        conditions.append(columns < tf.reshape(tf.cast(valid_lengths, tf.int64), [-1, 1, 1, 1]))
    if not conditions:
        return None
    allowed = conditions[0]
    for condition in conditions[1:]:
        allowed = tf.logical_and(allowed, condition)
    return allowed


def _bias(mask: Any, allowed: Any, length: Any, dtype: Any) -> Any:
    """Return what is added to the scores: the mask, which may be too short, and minus infinity where not allowed."""
    if mask is None and allowed is None:
        return None
    minus_infinity = tf.constant(float("-inf"), dtype)
    if mask is None:
        return tf.where(allowed, tf.zeros([], dtype), minus_infinity)
    mask = tf.convert_to_tensor(mask)
    bias = tf.where(mask, tf.zeros([], dtype), minus_infinity) if mask.dtype == tf.bool else mask
    if bias.shape[-1] is None or not isinstance(length, int) or bias.shape[-1] < length:
        missing = tf.cast(length, tf.int64) - tf.shape(bias, out_type=tf.int64)[-1]
        amounts = tf.concat([tf.zeros([rank_of(bias) - 1, 2], tf.int64), [[0, missing]]], 0)
        bias = tf.pad(bias, amounts, constant_values=float("-inf"))
    return bias if allowed is None else tf.where(allowed, bias, minus_infinity)


def _probabilities(scores: Any, bias: Any, dtype: Any, precision: int | None) -> Any:
    scores = scores if precision is None else tf.cast(scores, dtype_of(precision))
    probabilities = tf.cast(tf.nn.softmax(scores), dtype)
    if bias is None:
        return probabilities
    is_reached = tf.reduce_any(bias > bias.dtype.min, axis=-1, keepdims=True)
    is_reached = tf.logical_or(is_reached, tf.reduce_any(tf.equal(bias, bias.dtype.min), axis=-1, keepdims=True))
    return tf.where(is_reached, probabilities, tf.zeros([], dtype))


@lowers("RotaryEmbedding", since=23)
def rotary_embedding(
    x: Any,
    cosines: Any,
    sines: Any,
    positions: Any = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    """Rotate pairs, halves of the head apart or neighbours, by the angles of their position."""
    x = tf.convert_to_tensor(x)
    is_flat = rank_of(x) == 3
    per_head = x
    if is_flat:
        refuse(not num_heads, "RotaryEmbedding over three dimensions without the number of heads")
        batch, length, width = extents_of(x)
        per_head = tf.reshape(x, as_shape([batch, length, num_heads, width // num_heads]))
    else:
        per_head = tf.transpose(x, [0, 2, 1, 3])
    size = rotary_embedding_dim or per_head.shape[-1]
    refuse(size is None, "RotaryEmbedding over heads of unknown size")
    turning, rest = per_head[..., :size], per_head[..., size:]
    if positions is not None:
        cosines, sines = tf.gather(cosines, positions), tf.gather(sines, positions)
    cosines, sines = cosines[..., None, : size // 2], sines[..., None, : size // 2]
    real, imaginary = (
        (turning[..., 0::2], turning[..., 1::2])
        if interleaved
        else (turning[..., : size // 2], turning[..., size // 2 :])
    )
    turned = (cosines * real - sines * imaginary, sines * real + cosines * imaginary)
    joined = tf.reshape(tf.stack(turned, -1), as_shape(extents_of(turning))) if interleaved else tf.concat(turned, -1)
    y = tf.concat([joined, rest], -1)
    return tf.reshape(y, as_shape(extents_of(x))) if is_flat else tf.transpose(y, [0, 2, 1, 3])
