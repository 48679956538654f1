"""What Keras 1 calls arrays: the layer, and which of its arrays it is, as in ``dense_1_W:0``.

Where a file has no config, names and shapes say what layers it is of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from converter.dialects.keras.architecture import Layer

_LEAVES = """
depthwise_kernel pointwise_kernel running_mean running_std gamma beta alphas
W_i W_f W_c W_o W_z W_r W_h U_i U_f U_c U_o U_z U_r U_h b_i b_f b_c b_o b_z b_r b_h W U b
"""
_NAME = re.compile(rf"(.+)_({'|'.join(_LEAVES.split())})(?:_\d+)?(?::0)?")
_NUMBER = re.compile(r"_\d+$")

_BY_LEAF: Mapping[str, str] = {
    "W_c": "LSTM",
    "W_z": "GRU",
    "depthwise_kernel": "SeparableConv2D",
    "gamma": "BatchNormalization",
    "alphas": "PReLU",
}
"""An array that layers of one class alone have."""
_BY_GATES: Mapping[float, str] = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
"""How many times as many columns as rows a recurrent kernel has."""
_BY_RANK: Mapping[int, str] = {2: "Dense", 4: "Conv2D", 5: "Conv3D"}
_BY_NAME: Mapping[tuple[str, int], str] = {
    ("embedding", 2): "Embedding",
    ("convolution1d", 4): "Conv1D",
    ("atrousconvolution1d", 4): "Conv1D",
    ("deconvolution2d", 4): "Conv2DTranspose",
}
"""What Keras 1 calls a layer that has no name of its own, and the rank of its kernel, where that is of another, too."""


def parted(names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the names that are of arrays of Keras 1, by the layer and the array that they say."""
    return {(match[1], match[2]): match[0] for match in map(_NAME.fullmatch, names) if match}


def told(group: str, shapes: Mapping[str, tuple[int, ...]]) -> Layer | None:
    """Return what names and shapes say of the layer that a group is of; None where a name says nothing.

    The class of what is not known is empty. A group of several layers is taken for that of a model.
    """
    named = parted(shapes)
    if len(named) < len(shapes):
        return None
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for (name, leaf), called in named.items():
        layers.setdefault(name, {})[leaf] = shapes[called]
    if layers.keys() == {group}:
        return _layer(group, group, layers[group])
    inner = tuple(_layer(name, f"{group}/{name}", leaves) for name, leaves in layers.items())
    return Layer(class_name="Model", name=group, config={}, path=group, store="", layers=inner)


def _layer(name: str, path: str, leaves: Mapping[str, tuple[int, ...]]) -> Layer:
    config = {
        "use_bias": "b" in leaves,
        "data_format": "channels_first" if _has_channels_first(leaves) else "channels_last",
    }
    return Layer(class_name=_class_of(name, leaves), name=name, config=config, path=path, store="")


def _class_of(name: str, leaves: Mapping[str, tuple[int, ...]]) -> str:
    for leaf in leaves.keys() & _BY_LEAF.keys():
        return _BY_LEAF[leaf]
    match leaves.get("U"):
        case (rows, columns) if rows:
            return _BY_GATES.get(columns / rows, "")
    rank = len(leaves.get("W", ()))
    return _BY_NAME.get((_NUMBER.sub("", name), rank), _BY_RANK.get(rank, ""))


def _has_channels_first(leaves: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the shapes of a kernel are those of channels first: its outputs are as many as its bias has."""
    kernel = leaves.get("pointwise_kernel", leaves.get("W", ()))
    if len(kernel) < 4:
        return False
    is_first, is_last = ((extent,) == leaves.get("b") for extent in (kernel[0], kernel[-1]))
    return is_first if is_first != is_last else kernel[-1] == kernel[-2] < min(kernel[:2])
