"""What a config says of a TensorFlow class in numbers: how many layers, and the variables that only TensorFlow has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.dialects.transformers.sinusoids import position_table
from converter.errors import UsageError
from converter.model.tensor import Array

_EXTENT_LIMIT = 1 << 24
_RELATIVE_POSITIONS = "relative positions"
_BIASES = "biases"
_SINUSOIDS = "sinusoids"
_LAYERS_LIMIT = 1000


def sizes(config: Mapping[str, Any], term: str) -> Iterator[int]:
    """Yield the factors of a product that the table writes as keys of the config. Raises UsageError for no number."""
    for key in filter(None, term.split(" * ")):
        if key == "cross attention":
            yield int(bool(config.get("is_decoder") and config.get("add_cross_attention")))
        else:
            value = config.get(key)
            yield sum(_extent(key, item) for item in value) if isinstance(value, list) else _extent(key, value)


def computed_variables(entry: Sequence[str], config: Mapping[str, Any]) -> Iterator[tuple[str, str, Array]]:
    """Yield name, reason and values of the variables that an entry of the table has under a config.

    `entry` is [variable, what is in it, keys of the config for its shape]; of biases in each layer, how many there are
    and their width. Raises UsageError for keys without a size.
    """
    theirs, kind, *keys = entry
    if kind == _RELATIVE_POSITIONS:
        part = config.get(keys[0]) if keys else config
        if isinstance(part, Mapping) and part.get("use_rel_pos") is False:
            reason = f"zeros: {_RELATIVE_POSITIONS} that use_rel_pos turns off"
            for layer, extents in enumerate(_relative_positions(part)):
                yield theirs.replace("{n}", str(layer)), reason, np.zeros(extents, np.float32)
        return
    if kind == _BIASES:
        if config.get("qkv_bias") is False:
            layers, width = (_extent(key, config.get(key)) for key in keys)
            for layer in range(min(layers, _LAYERS_LIMIT)):
                yield theirs.replace("{n}", str(layer)), "zeros: no qkv_bias", np.zeros(width, np.float32)
        return
    shape = [_extent(key, config.get(key)) for key in keys]
    yield theirs, kind, position_table(*shape) if kind == _SINUSOIDS else np.zeros(shape, np.float32)


def _extent(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _EXTENT_LIMIT:
        raise UsageError(f"config.json has no usable {key}, which the TensorFlow class needs")
    return value


def _relative_positions(config: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield the shape in each layer (modeling_tf_sam, TFSamVisionAttention.build), whose keys have no defaults here."""
    keys = ("num_hidden_layers", "image_size", "patch_size", "window_size", "hidden_size", "num_attention_heads")
    layers, image, patch, window, width, heads = (_extent(key, config.get(key)) for key in keys)
    everywhere = config.get("global_attn_indexes")
    if layers > _LAYERS_LIMIT or not patch or not heads:
        raise UsageError("config.json has no usable num_hidden_layers, patch_size or num_attention_heads")
    for layer in range(layers):
        is_global = not window or (isinstance(everywhere, list) and layer in everywhere)
        positions = image // patch if is_global else window
        yield max(0, 2 * positions - 1), width // heads
