"""Position tables that some PyTorch models of transformers store and others compute from the config.

The arithmetic is that of create_sinusoidal_embeddings in transformers 4.57 (modeling_distilbert.py) and of
RoFormerSinusoidalPositionalEmbedding, float64 rounded once, so that the values are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.tensor import Array, ArrayTensor, Tensor

_VALUES_LIMIT = 1 << 26
_WIDTH_KEYS = {"halves": "d_model", "interleaved": "dim", "rotary": "hidden_size"}
_SWITCHES = {"interleaved": "sinusoidal_pos_embds"}


def is_computed(kind: str, config: Mapping[str, Any]) -> bool:
    """Whether a model with this config has a position table of this kind, and not learned positions."""
    return kind not in _SWITCHES or bool(config.get(_SWITCHES[kind]))


def sinusoids(kind: str, config: Mapping[str, Any], dtype: DType) -> Tensor:
    """Return a position table [positions, width]: sines and cosines in "halves" or "interleaved".

    "rotary" is "halves" of the width of one attention head. Raises ReadError for a config that does not say how
    large it is, or says more than 2**26 values.
    """
    positions = _count(config, "max_position_embeddings")
    width = _count(config, _WIDTH_KEYS[kind])
    if kind == "rotary":
        width //= _count(config, "num_attention_heads")
    return ArrayTensor.of(position_table(positions, width, is_interleaved=kind == "interleaved")).cast(dtype)


def position_table(positions: int, width: int, *, is_interleaved: bool = False) -> Array:
    """Return a position table [positions, width] of float32: sines, then cosines, or one beside the other.

    Raises ReadError for one of no width or more than 2**26 values.
    """
    if not width or positions * width > _VALUES_LIMIT:
        raise ReadError(f"config.json asks for a position table of {positions} x {width} values")
    wavelengths = np.array([np.power(10000, 2 * (axis // 2) / width) for axis in range(width)])
    angles = np.arange(positions)[:, None] / wavelengths
    table = np.empty((positions, width), np.float32)
    middle = (width + 1) // 2
    sines, cosines = (
        (slice(0, None, 2), slice(1, None, 2)) if is_interleaved else (slice(0, middle), slice(middle, None))
    )
    table[:, sines] = np.sin(angles[:, 0::2])
    table[:, cosines] = np.cos(angles[:, 1::2])
    return table


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value <= 0:
        raise ReadError(f"config.json says that {key} is {value!r}, which a position table needs")
    return value
