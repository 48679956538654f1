"""What the string attributes of ONNX's operators may say, checked once for every framework.

A lowering that compares such an attribute with the values it knows would take any other for the last of them. Source:
https://onnx.ai/onnx/operators, opset 1 to 28. Attributes that are texts of their own are not here: the equation of
Einsum, patterns, locales, words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.onnx.cells import ACTIVATIONS, DIRECTIONS
from converter.graphs.lower.onnx.resizing import POSITIONS, REACHES, ROUNDINGS
from converter.graphs.lower.onnx.windows import AUTO_PADS

_DIRECTIONS = frozenset(DIRECTIONS)
_LOSS_REDUCTIONS = frozenset(("none", "sum", "mean"))
_BLOCK_MODES = frozenset(("DCR", "CRD"))

# Of any operator that has an attribute of this name.
_OF_ANY: Mapping[str, frozenset[str]] = {
    "auto_pad": AUTO_PADS,
    "round_mode": frozenset(("up", "down", "nearest")),
    "nearest_mode": frozenset(ROUNDINGS),
    "padding_mode": frozenset(("zeros", "border", "reflection")),
    "approximate": frozenset(("none", "tanh")),
    "keep_aspect_ratio_policy": frozenset(("stretch", "not_larger", "not_smaller")),
    "case_change_action": frozenset(("NONE", "LOWER", "UPPER")),
    "update_rule": frozenset(("linear", "gated", "delta", "gated_delta")),
    "activation": frozenset(("none", "silu", "swish")),
    "pixel_format": frozenset(("RGB", "BGR", "Grayscale")),
}
_OF_ONE: Mapping[tuple[str, str], frozenset[str]] = {
    ("BitShift", "direction"): frozenset(("LEFT", "RIGHT")),
    ("RNN", "direction"): _DIRECTIONS,
    ("GRU", "direction"): _DIRECTIONS,
    ("LSTM", "direction"): _DIRECTIONS,
    ("NegativeLogLikelihoodLoss", "reduction"): _LOSS_REDUCTIONS,
    ("SoftmaxCrossEntropyLoss", "reduction"): _LOSS_REDUCTIONS,
    ("ScatterElements", "reduction"): frozenset(("none", "add", "mul", "max", "min")),
    ("ScatterND", "reduction"): frozenset(("none", "add", "mul", "max", "min")),
    ("DepthToSpace", "mode"): _BLOCK_MODES,
    ("SpaceToDepth", "mode"): _BLOCK_MODES,
    ("GridSample", "mode"): frozenset(("linear", "bilinear", "nearest", "cubic", "bicubic")),
    ("Pad", "mode"): frozenset(("constant", "reflect", "edge", "wrap")),
    ("Resize", "mode"): frozenset(REACHES),
    ("Upsample", "mode"): frozenset(("nearest", "linear", "bilinear", "cubic")),
    ("Resize", "coordinate_transformation_mode"): frozenset(POSITIONS),
    ("RoiAlign", "coordinate_transformation_mode"): frozenset(("half_pixel", "output_half_pixel")),
    ("RoiAlign", "mode"): frozenset(("avg", "max")),
    ("TensorScatter", "mode"): frozenset(("linear", "circular")),
    ("TfIdfVectorizer", "mode"): frozenset(("TF", "IDF", "TFIDF")),
    ("Momentum", "mode"): frozenset(("standard", "nesterov")),
}
# Lists of words, in whatever case.
_OF_LISTS: Mapping[str, frozenset[str]] = {"activations": ACTIVATIONS}


def check(op_type: str, attributes: Mapping[str, Any]) -> None:
    """Raise GraphError when a string attribute of an operator of ONNX has a value that ONNX does not give it."""
    for name, value in attributes.items():
        allowed = _OF_ONE.get((op_type, name), _OF_ANY.get(name))
        if isinstance(value, str) and allowed is not None:
            _check_choice(op_type, name, value, value, allowed)
        elif isinstance(value, (list, tuple)) and name in _OF_LISTS:
            for word in value:
                _check_choice(op_type, name, word, str(word).lower(), _OF_LISTS[name])


def _check_choice(op_type: str, name: str, value: Any, word: str, allowed: frozenset[str]) -> None:
    if word not in allowed:
        raise GraphError(f"{op_type}: {name} {value!r} is not one of {', '.join(sorted(allowed - {''}))}")
