"""Layers told from the names and shapes of their variables alone, where no config says what they are.

What names and shapes leave open is not told: such variables keep names and layouts as they are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from converter.dialects.keras import modules as table
from converter.dialects.keras.modules import Module, Slot

Shape = tuple[int, ...]

_TELLING_NAMES = """
kernel embeddings gamma beta moving_mean moving_variance recurrent_kernel depthwise_kernel pointwise_kernel
"""
TELLING = frozenset(_TELLING_NAMES.split())
"""Names that only Keras gives."""

_CELL = re.compile(r"(?:lstm|gru|simple_rnn)_cell(?:_\d+)?")
_CELLS = re.compile(r"(?:.*/)?stacked_rnn_cells(?:_\d+)?")
_PROJECTIONS = ("query", "key", "value", "attention_output")


def split(name: str) -> tuple[str, str]:
    """Return path and leaf of a variable's name, without the ``:0`` of Keras 2."""
    path, _, leaf = name.removesuffix(":0").rpartition("/")
    return path, leaf


def are_keras(names: Iterable[str]) -> bool:
    """Whether any name is one that only Keras uses."""
    return any(split(name)[1] in TELLING for name in names)


def without_cell(path: str) -> str:
    """Return the path of a recurrent layer, given its own or its cell's; each of several cells is one of its own."""
    head, _, last = path.rpartition("/")
    return head if head and _CELL.fullmatch(last) and not _CELLS.fullmatch(head) else path


def modules(shapes: Mapping[str, Shape]) -> list[Module]:
    """Return the modules that variables called so and of such shapes make up."""
    by_path: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        path, leaf = split(name)
        by_path.setdefault(path, {})[leaf] = shape
    attentions = _attentions(by_path)
    found = []
    for path, leaves in by_path.items():
        slots = attentions.get(path) or _slots(path, leaves)
        if slots:
            module, slots = _placed(path, slots, by_path)
            found.append(Module(path=path, module=module, slots=slots, constants=_constants(leaves)))
    return found


def _slots(path: str, leaves: Mapping[str, Shape]) -> tuple[Slot, ...] | None:
    config: dict[str, Any] = {"use_bias": "bias" in leaves}
    if "recurrent_kernel" in leaves:
        return _recurrent(leaves, config)
    if "depthwise_kernel" in leaves:
        return _depthwise(leaves, config)
    if "kernel" in leaves:
        return _kernel(path, leaves, config)
    if "embeddings" in leaves:
        return table.embedding(config)
    if "moving_mean" in leaves and "moving_variance" in leaves:
        return table.batch_normalization({"scale": "gamma" in leaves, "center": "beta" in leaves})
    if "gamma" in leaves or "beta" in leaves:
        return table.normalization({"scale": "gamma" in leaves, "center": "beta" in leaves})
    if "alpha" in leaves and set(leaves["alpha"][:-1]) == {1}:
        return (Slot(keras="alpha", torch=("weight",), layout=table.prelu_layout(len(leaves["alpha"]))),)
    if leaves.keys() <= {"weight", "bias"} and all(len(shape) == 1 for shape in leaves.values()):
        return tuple(Slot(keras=leaf, torch=(leaf,)) for leaf in leaves)
    return None


def _recurrent(leaves: Mapping[str, Shape], config: Mapping[str, Any]) -> tuple[Slot, ...] | None:
    kernel, recurrent, bias = leaves.get("kernel", ()), leaves["recurrent_kernel"], leaves.get("bias", (0,))
    if len(kernel) != 2 or len(recurrent) != 2 or not recurrent[0]:
        return None
    gates = recurrent[1] / recurrent[0]
    if gates in (3, 4) and bias == (2 * recurrent[1],):
        name = "CuDNNLSTM" if gates == 4 else "CuDNNGRU"
        return table.RECURRENT[name]({"units": recurrent[0]})
    if gates == 3:  # without a bias of two rows nothing says reset_after, which is what PyTorch computes
        return table.gru(config) if len(bias) == 2 else None
    is_plain = len(bias) == 1 and ("bias" not in leaves or bias[0] == recurrent[1])
    return table.recurrent(config) if gates in (1, 4) and is_plain else None


def _depthwise(leaves: Mapping[str, Shape], config: Mapping[str, Any]) -> tuple[Slot, ...] | None:
    rank = len(leaves["depthwise_kernel"])
    if rank not in (3, 4):
        return None
    config = {**config, "depth_multiplier": leaves["depthwise_kernel"][-1]}
    if "pointwise_kernel" in leaves:
        return table.separable_convolution(rank)(config)
    return table.depthwise_convolution(rank)(config)


def _kernel(path: str, leaves: Mapping[str, Shape], config: Mapping[str, Any]) -> tuple[Slot, ...] | None:
    kernel, bias = leaves["kernel"], leaves.get("bias")
    rank = len(kernel)
    if rank == 2 and bias is not None and len(bias) == 1 and bias[0] != kernel[1]:
        return None
    if rank == 2:
        return table.dense(config)
    if bias is not None and len(bias) == 2 and rank == 3 and bias == kernel[1:]:
        return table.heads_in(*bias, has_bias=True)
    if rank not in table.CONVOLUTIONS or (bias is not None and len(bias) != 1):
        return None
    is_depthwise = "depthwise" in path.rpartition("/")[2] or (
        bias is not None and bias[0] == kernel[-2] * kernel[-1] and bias[0] != kernel[-1]
    )
    if is_depthwise:
        return table.depthwise_convolution(rank)({**config, "depth_multiplier": kernel[-1]}) if rank < 5 else None
    if bias is not None and bias[0] not in kernel[-2:]:
        return None
    return table.convolution(rank)(config)


def _attentions(by_path: Mapping[str, Mapping[str, Shape]]) -> dict[str, tuple[Slot, ...]]:
    """Return the slots of projections that together are a MultiHeadAttention, by path."""
    found: dict[str, tuple[Slot, ...]] = {}
    for path in by_path:
        head, _, last = path.rpartition("/")
        if last != "query":
            continue
        paths = [f"{head}/{name}".lstrip("/") for name in _PROJECTIONS]
        leaves = [by_path.get(at, {}) for at in paths]
        kernels = [own.get("kernel", ()) for own in leaves]
        if any(len(kernel) != 3 for kernel in kernels):
            continue
        query, key, value, output = kernels
        if not (query[1] == key[1] == value[1] == output[0] and query[2] == key[2] and value[2] == output[1]):
            continue
        for at, own, kernel in zip(paths[:3], leaves, kernels, strict=False):
            found[at] = table.heads_in(kernel[1], kernel[2], has_bias="bias" in own)
        found[paths[3]] = table.heads_out(output[0], output[1], has_bias="bias" in leaves[3])
    return found


def _placed(path: str, slots: tuple[Slot, ...], by_path: Mapping[str, object]) -> tuple[str, tuple[Slot, ...]]:
    """Return where a module is in PyTorch: cells dissolve into their layers, the two directions into one module."""
    layer = without_cell(path)
    head, _, last = layer.rpartition("/")
    direction, _, rest = last.partition("_")
    other = {"forward": "backward", "backward": "forward"}.get(direction)
    is_recurrent = any(slot.keras == "recurrent_kernel" for slot in slots)
    if is_recurrent and any(without_cell(at) == f"{head}/{other}_{rest}" for at in by_path):
        if direction == "backward":
            slots = tuple(table.reversed_direction(slot) for slot in slots)
        layer = head
    return layer.replace("/", "."), slots


def _constants(leaves: Mapping[str, object]) -> Mapping[str, int] | None:
    return table.batch_constants("gamma" in leaves, "beta" in leaves) if "moving_variance" in leaves else None
