"""Seeded inputs for a traced text model: ids of the vocabulary, padding at the tail where the mask says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converter.graphs.architecture import GraphInput

_RESERVED_POSITIONS = 2


def sample_inputs(
    inputs: Sequence[GraphInput], config_values: Mapping[str, Any], *, seed: int, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Return one array per input.

    `sizes` gives the extent of each named dimension (`batch`, `choices`, `sequence`); the sequence is cut to what the
    model has positions for. RoBERTa counts positions from 2, so two fewer than the config says are used with any
    model. The first row has no padding, of the others each gets some.
    """
    random = np.random.default_rng(seed)
    sizes = {**sizes, "sequence": _sequence_length(config_values, sizes["sequence"])}
    shape = tuple(sizes[extent] if isinstance(extent, str) else extent for extent in inputs[0].shape)
    is_masked = any(each.name == "attention_mask" for each in inputs)
    mask = _mask(random, shape) if is_masked else np.ones(shape, np.int64)
    arrays = {
        "input_ids": np.where(mask == 1, _ids(random, config_values, shape), config_values.get("pad_token_id") or 0),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, max(int(config_values.get("type_vocab_size", 2)), 1), shape),
    }
    return {each.name: arrays[each.name].astype(each.dtype.numpy) for each in inputs}


def _sequence_length(config_values: Mapping[str, Any], wanted: int) -> int:
    limits = [config_values.get(key) for key in ("max_position_embeddings", "n_positions")]
    return max(min([wanted, *(limit - _RESERVED_POSITIONS for limit in limits if isinstance(limit, int))]), 1)


def _mask(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    rows, length = int(np.prod(shape[:-1])), shape[-1]
    lengths = random.integers(1, max(length, 2), rows)
    lengths[0] = length
    return (np.arange(length)[None, :] < lengths[:, None]).astype(np.int64).reshape(shape)


def _ids(random: np.random.Generator, config_values: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    padding = config_values.get("pad_token_id")
    ids = random.integers(0, int(config_values.get("vocab_size", 1000)) - 1, shape)
    return ids if padding is None else np.where(ids >= padding, ids + 1, ids)
