"""Variables of TensorFlow with PyTorch's names: a SavedModel of this program that TensorFlow has saved again.

What says whose names these are (`assets.extra/ckconv.json`) is not saved with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.kernels import KERNEL, LEAST_RANK, WEIGHT, to_weight


def are_torchs(names: Iterable[str]) -> bool:
    """Whether names are parts joined by dots, as no framework but PyTorch has them, some of them of weights."""
    listed = list(names)
    has_weights = any(name.endswith((f".{WEIGHT}", f".{KERNEL}")) for name in listed)
    return has_weights and not any("/" in name for name in listed)


def to_canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as PyTorch's, its kernels as weights; nothing is read."""
    weights = {
        name: f"{name.removesuffix(KERNEL)}{WEIGHT}"
        for name, tensor in checkpoint.tensors.items()
        if name.endswith(f".{KERNEL}") and len(tensor.shape) >= LEAST_RANK
    }
    weights = {name: new for name, new in weights.items() if new not in checkpoint}
    named = checkpoint.with_names(lambda name: weights.get(name, name))
    moved = {new: to_weight(named.tensors[new]) for new in weights.values()}
    warning = "layouts are taken to be PyTorch's, as the names are"
    return replace(
        named, tensors={**named.tensors, **moved}, dialect=Dialect.PYTORCH, warnings=(*checkpoint.warnings, warning)
    )
