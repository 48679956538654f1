"""The form of a decoder that goes on from keys and values of what came before, and returns them.

Names are those of optimum: inputs `past_key_values.0.key`, `past_key_values.0.value` ..., outputs `present.0.key` ...
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from converter.errors import GraphError
from converter.graphs.architecture import GraphInput
from converter.graphs.trace.dimensions import Dimension
from converter.graphs.trace.modalities import Inputs
from converter.model.dtype import DType

PAST = "past_key_values"
PRESENT = "present"
_PAST_SEQUENCE = "past_sequence"
_LEAF = re.compile(r"(?:input\.|output\.)?past_key_values\.(?:layers\.)?(\d+)\.(keys|values)")


def with_past(model: Any, taken: Inputs) -> Inputs:
    """Return the inputs of a decoder on the meta device, and its past ones.

    Raises GraphError for a class that keeps no keys and values.
    """
    shapes = _cached_shapes(model)
    total = f"{_PAST_SEQUENCE} + sequence"
    inputs = [replace(each, shape=("batch", total)) if each.name == "attention_mask" else each for each in taken.inputs]
    for layer, pair in enumerate(shapes):
        for kind, (heads, size) in zip(("key", "value"), pair, strict=True):
            shape = ("batch", heads, _PAST_SEQUENCE, size)
            inputs.append(GraphInput(name=f"{PAST}.{layer}.{kind}", dtype=DType.FLOAT32, shape=shape))
    sequence = next(each for each in taken.dimensions if each.name == "sequence")
    high = None if sequence.high is None else sequence.high // 2
    dimensions = [replace(each, high=high) if each.name == "sequence" else each for each in taken.dimensions]
    past = Dimension(name=_PAST_SEQUENCE, high=high, checked=(6, 12))
    return Inputs(inputs=tuple(inputs), dimensions=(*dimensions, past))


def _cached_shapes(model: Any) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return heads and size of keys and of values, layer by layer."""
    import torch

    name, config = type(model).__name__, model.config
    if getattr(config, "is_encoder_decoder", False):
        raise GraphError(f"{name} is an encoder and a decoder: --with-cache is for decoders alone")
    ids = torch.ones((1, 1), dtype=torch.int64, device="meta")
    try:
        with torch.no_grad():
            cache = model(input_ids=ids, use_cache=True).past_key_values
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        shapes = [((keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])) for keys, values in layers]
    except (AttributeError, IndexError, TypeError) as error:
        raise GraphError(f"{name} keeps no cache of keys and values, layer by layer") from error
    if not shapes:
        raise GraphError(f"{name} keeps no cache of keys and values")
    return shapes


def cache_of(tensors: dict[str, Any]) -> Any:
    """Take the past out of `tensors`, which are by the names of inputs, and return it as a transformers Cache.

    None where there is none. Every layer is whole, also one that transformers would cut to its window.
    """
    names = [name for name in tensors if name.startswith(f"{PAST}.")]
    if not names:
        return None
    from transformers import DynamicCache

    past = {name: tensors.pop(name) for name in names}
    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[f"{PAST}.{layer}.key"], past[f"{PAST}.{layer}.value"], layer)
    return cache


def present_of(cache: Any) -> dict[str, Any]:
    """Return the tensors of a Cache by the names of outputs."""
    present = {}
    for number, layer in enumerate(cache.layers):
        present[f"{PRESENT}.{number}.key"], present[f"{PRESENT}.{number}.value"] = layer.keys, layer.values
    return present


def name_cache(model: Any) -> None:
    """Give those inputs and outputs of an exported onnx_ir.Model that are of a cache their names."""
    for prefix, values in ((PAST, model.graph.inputs), (PRESENT, model.graph.outputs)):
        for value in values:
            match = _LEAF.fullmatch(value.name)
            if match is not None:
                value.name = f"{prefix}.{match[1]}.{match[2].removesuffix('s')}"
