"""Quantised checkpoints, told by their config or by a method's whole set of tensors; nothing here knows their values.

Codes without their scales are no weights. Which tensors a method stores: transformers 5.24 (`quantizers`), bitsandbytes
0.50, compressed-tensors 0.20, GPTQModel, AutoAWQ, mlx-lm, torchao 0.18, HQQ, AQLM, VPTQ, EETQ, QuIP#, and what
DeepSeek, OpenAI (gpt-oss) and ComfyUI publish.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType

_BYTES = frozenset({DType.INT8, DType.UINT8})
_FLOAT8 = frozenset({DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2, DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2FNUZ})
_WORDS = frozenset({DType.INT32, DType.UINT32})
_INT64 = frozenset({DType.INT64})
_SHORT = frozenset({DType.INT16, DType.UINT16})
_SCALES = frozenset(
    {DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT8_E4M3FN, DType.FLOAT8_E8M0FNU, DType.UINT8}
)

_KEYS = ("quantization_config", "compression_config")


@dataclass(frozen=True, slots=True)
class _Method:
    """What a method stores for one weight: the end of the name of its codes, and those of what belongs to them."""

    name: str
    codes: str
    dtypes: frozenset[DType]
    others: Mapping[str, frozenset[DType]]


_METHODS = (
    _Method("fp8 with scales", ".weight", _BYTES | _FLOAT8, {".weight_scale_inv": _SCALES}),
    _Method("fp8 with scales", ".weight", _FLOAT8, {".qscale_weight": _SCALES}),
    _Method("fp8 with scales", ".weight", _FLOAT8, {".scale_weight": _SCALES}),
    _Method("fp8 with scales", ".weight", _FLOAT8, {".scale": _SCALES}),
    _Method("GPTQ or AWQ", ".qweight", _WORDS, {".qzeros": _WORDS, ".scales": _SCALES}),
    _Method("GPTQ", ".qweight", _WORDS, {".g_idx": _WORDS, ".scales": _SCALES}),
    _Method("compressed-tensors", ".weight_packed", _WORDS | _BYTES, {".weight_scale": _SCALES}),
    _Method("int8 or fp8 with scales", ".weight", _BYTES | _FLOAT8, {".weight_scale": _SCALES}),
    _Method("bitsandbytes in 4 bits", ".weight", _BYTES, {".weight.absmax": _SCALES, ".weight.quant_map": _SCALES}),
    _Method("bitsandbytes in 8 bits", ".weight", _BYTES, {".SCB": _SCALES}),
    _Method("MXFP4", "_blocks", _BYTES, {"_scales": _SCALES}),
    _Method("MXFP4", ".blocks", _BYTES, {".scales": _SCALES}),
    _Method("MLX", ".weight", _WORDS, {".scales": _SCALES}),
    _Method("torchao", "_qdata", _BYTES | _FLOAT8 | _WORDS, {"_scale": _SCALES}),
    _Method("torchao", "_qdata", _BYTES | _WORDS, {"_scale_and_zero": _SCALES}),
    _Method("EETQ", ".weight", _BYTES, {".weight_scales": _SCALES}),
    _Method("HQQ", ".W_q", _BYTES | _WORDS, {".scale": _SCALES, ".zero": _SCALES}),
    _Method("AQLM", ".codes", _BYTES | _SHORT, {".codebooks": _SCALES, ".scales": _SCALES}),
    _Method("VPTQ", ".indices", _SHORT, {".centroids.weight": _SCALES}),
    _Method("QuIP#", ".Qidxs", _SHORT | _INT64 | _BYTES, {".SU": _SCALES, ".SV": _SCALES}),
    _Method("Marlin", ".B", _WORDS, {".s": _SCALES}),
    _Method("quanto", ".weight._data", _BYTES | _FLOAT8, {".weight._scale": _SCALES}),
)


def quantisation_of(checkpoint: Checkpoint) -> str | None:
    """Return what a checkpoint is quantised by, and what says so; None for one that is not."""
    config = {} if checkpoint.config is None else checkpoint.config.values
    told = next(_in_config(config), None)
    if told is not None:
        return told
    codes = frozenset[DType]().union(*(method.dtypes for method in _METHODS))
    for name in (name for name in checkpoint.names if checkpoint.tensor(name).dtype in codes):
        for method in _METHODS:
            if name.endswith(method.codes) and _is_stored(checkpoint, name.removesuffix(method.codes), method):
                return f"{method.name}, as {name} and what is beside it say"
    return None


def _in_config(config: Mapping[str, Any]) -> Iterator[str]:
    for part in (config, *(part for part in config.values() if isinstance(part, Mapping))):
        for key in _KEYS:
            settings = part.get(key)
            if isinstance(settings, Mapping):
                yield f"{settings.get('quant_method', 'a method without a name')}, as its config says"
        settings = part.get("quantization")
        if isinstance(settings, Mapping) and {"bits", "group_size"} <= settings.keys():
            yield "MLX, as its config says"


def _is_stored(checkpoint: Checkpoint, prefix: str, method: _Method) -> bool:
    parts = {method.codes: method.dtypes, **method.others}
    return all(
        prefix + end in checkpoint and checkpoint.tensor(prefix + end).dtype in dtypes for end, dtypes in parts.items()
    )
