"""The rules that transformers itself goes by when it loads TensorFlow's variables into PyTorch, without a table.

transformers 4.57 (modeling_tf_pytorch_utils.py, convert_tf_weight_name_to_pt_weight_name). They leave open what a
table knows: the base model's prefix, weights that PyTorch has untransposed, axes of one element, ties.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from converter.dialects.names.rearrangement import Rearrangement
from converter.dialects.tables.rows import layout_of

_OUTER = re.compile(r"[^/]*___([^/]*)")
_LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NORMS = {"weight_g": "original0", "weight_v": "original1"}
_KERNELS = {2: "i o -> o i", 3: "x i o -> o i x", 4: "y x i o -> o i y x", 5: "z y x i o -> o i z y x"}
_SEPARABLE = ("depthwise", "pointwise")
_REVERSED = {3: "x i o -> o i x", 4: "y x i o -> o i x y"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanicalName:
    """What a variable is called in PyTorch; `is_certain` is False where the name does not say what it is."""

    name: str
    layout: Rearrangement | None
    is_certain: bool


def translated(name: str, rank: int) -> MechanicalName:
    """Return what the rules make of the name of a variable, less the model's own name in front."""
    path = [part for part in _OUTER.sub(r"\1", name).replace("_._", "/").split("/") if part]
    leaf = path[-1]
    if leaf.removesuffix("_kernel") in _SEPARABLE:
        path[-1:] = [leaf.removesuffix("_kernel"), "weight"]
        return MechanicalName(name=".".join(path), layout=layout_of(_REVERSED.get(rank)), is_certain=rank in _REVERSED)
    if leaf in _NORMS:
        path[-1:] = ["parametrizations", "weight", _NORMS[leaf]]
        return MechanicalName(name=".".join(path), layout=layout_of(_KERNELS.get(rank)), is_certain=rank in _KERNELS)
    is_kernel = leaf == "kernel"
    path[-1] = _LEAVES.get(leaf, leaf)
    return MechanicalName(
        name=".".join(path),
        layout=layout_of(_KERNELS.get(rank)) if is_kernel else None,
        is_certain=leaf in _LEAVES and (not is_kernel or rank in _KERNELS),
    )
