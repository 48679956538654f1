"""The form of a decoder that takes the keys and values of earlier tokens, and returns them with its own.

Names are those of optimum: inputs `past_key_values.0.key`, `past_key_values.0.value` ..., outputs `present.0.key` ...,
and `past_key_values.0.decoder.key` ... of the decoder behind an encoder. What the encoder gives is computed at every
step: torch.export follows one way through the attention to it, with or without its keys and values.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.sample_inputs import extents
from converter.graphs.description.signature import Dimension, GraphInput
from converter.graphs.trace.dimensions import checked_sizes
from converter.graphs.trace.modalities import Inputs
from converter.graphs.trace.patches import masks_as_they_are
from converter.model.dtype import DType

PAST = "past_key_values"
PRESENT = "present"
_PAST_SEQUENCE = "past_sequence"
_OF_DECODER = "decoder."
_LEAF = re.compile(r"(?:input\.|output\.)?past_key_values\.(self_attention_cache\.)?(?:layers\.)?(\d+)\.(keys|values)")


def with_past(model: Any, model_inputs: Inputs) -> Inputs:
    """Return the inputs of a decoder on the meta device, and its past ones.

    Raises GraphError for a class that keeps no keys and values.
    """
    shapes = _cached_shapes(model, model_inputs)
    is_behind_encoder = _is_behind_encoder(model)
    sequence = "decoder_sequence" if is_behind_encoder else "sequence"
    inputs = list(model_inputs.inputs)
    if not is_behind_encoder:
        total = ("batch", f"{_PAST_SEQUENCE} + {sequence}")
        inputs = [replace(each, shape=total) if each.name == "attention_mask" else each for each in inputs]
    for layer, pair in enumerate(shapes):
        for kind, (heads, size) in zip(("key", "value"), pair, strict=True):
            name = f"{PAST}.{layer}.{_OF_DECODER if is_behind_encoder else ''}{kind}"
            shape = ("batch", heads, _PAST_SEQUENCE, size)
            inputs.append(GraphInput(name=name, dtype=DType.FLOAT32, shape=shape))
    limit = next(each for each in model_inputs.dimensions if each.name == sequence).high
    high = None if limit is None else limit // 2
    dimensions = [replace(each, high=high) if each.name == sequence else each for each in model_inputs.dimensions]
    reach = None if limit is None else limit - 1
    past = Dimension(name=_PAST_SEQUENCE, high=high, reach=reach, checked=(6, 12, 5, 3, 1))
    thresholds = (
        replace(each, dimension=_PAST_SEQUENCE, count=max(each.count - 1, 1)) if each.dimension == sequence else each
        for each in model_inputs.thresholds
    )
    return Inputs(inputs=tuple(inputs), dimensions=(*dimensions, past), thresholds=tuple(thresholds))


def _is_behind_encoder(model: Any) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False))


def _cached_shapes(model: Any, model_inputs: Inputs) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return heads and size of keys and of values, layer by layer."""
    import torch

    name = type(model).__name__
    sizes = checked_sizes(model_inputs.dimensions)[0]
    arguments = {
        each.name: torch.ones(extents(each, sizes), dtype=getattr(torch, each.dtype.value), device="meta")
        for each in model_inputs.inputs
        if not each.name.endswith("attention_mask")  # whose values some classes look at
    }
    try:
        with torch.no_grad(), masks_as_they_are():
            cache = _of_decoder(model(**arguments, use_cache=True).past_key_values)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        shapes = [((keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])) for keys, values in layers]
    except (AttributeError, IndexError, TypeError) as error:
        raise GraphError(f"{name} keeps no cache of keys and values, layer by layer") from error
    if not shapes:
        raise GraphError(f"{name} keeps no cache of keys and values")
    return shapes


def _of_decoder(cache: Any) -> Any:
    """Return what a decoder keeps of itself, not of its encoder."""
    return getattr(cache, "self_attention_cache", cache)


def cache_of(tensors: dict[str, Any]) -> Any:
    """Take the past out of `tensors`, which are by the names of inputs, and return it as a transformers Cache.

    None where there is none. Every layer is whole, also one that transformers would cut to its window.
    """
    names = [name for name in tensors if name.startswith(f"{PAST}.")]
    if not names:
        return None
    from transformers import DynamicCache, EncoderDecoderCache

    past = {name: tensors.pop(name) for name in names}
    decoder = _OF_DECODER if f"{PAST}.0.{_OF_DECODER}key" in past else ""
    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(*(past[f"{PAST}.{layer}.{decoder}{kind}"] for kind in ("key", "value")), layer)
    return EncoderDecoderCache(cache, DynamicCache()) if decoder else cache


def present_of(cache: Any) -> dict[str, Any]:
    """Return the tensors of a Cache by the names of outputs."""
    own = _of_decoder(cache)
    decoder = "" if own is cache else _OF_DECODER
    present = {}
    for number, layer in enumerate(own.layers):
        present[f"{PRESENT}.{number}.{decoder}key"] = layer.keys
        present[f"{PRESENT}.{number}.{decoder}value"] = layer.values
    return present


def name_cache(model: Any) -> None:
    """Give those inputs and outputs of an exported onnx_ir.Model that are of a cache their names."""
    for prefix, values in ((PAST, model.graph.inputs), (PRESENT, model.graph.outputs)):
        for value in values:
            match = _LEAF.fullmatch(value.name)
            if match is not None:
                decoder = _OF_DECODER if match[1] else ""
                value.name = f"{prefix}.{match[2]}.{decoder}{match[3].removesuffix('s')}"
