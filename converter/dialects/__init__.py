"""Names, layouts and conventions between frameworks: pure functions on a Checkpoint.

A package that is installed beside this one adds a dialect by an entry point of the group ``ckconv.dialects``: its name
is that of the dialect, and it names a function Checkpoint -> Checkpoint that does for it what `canonical` does. It puts
new name -> name in the file of what it renames into `origins`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import FunctionType

from converter.dialects.keras import to_pytorch
from converter.dialects.names import torch_names
from converter.dialects.optimizer.semantics import to_torch
from converter.dialects.transformers import flax, in_process_names, old_names, tensorflow, tf1
from converter.entry_points import DIALECTS, added
from converter.model.checkpoint import Checkpoint, Dialect

__all__ = ["canonical"]


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with PyTorch's names and layouts, as far as anything says what its tensors are.

    Names of Keras ("keras", and "tensorflow" as SavedModels have them) are translated; "generic" ones stay, with a
    warning; variables of TensorFlow with PyTorch's names are PyTorch's. An optimizer of Keras becomes one of
    torch.optim. No weight is read but tied ones. Raises ReadError when two names become one, or a shape is not what its
    layer has; LossError for a variable that no table has.
    """
    match checkpoint.dialect:
        case Dialect.TENSORFLOW if tf1.model_type_of(checkpoint.names) is not None:
            return to_torch(tf1.to_canonical(checkpoint))
        case Dialect.TENSORFLOW if checkpoint.keras_config is None and torch_names.are_torchs(checkpoint.names):
            return torch_names.to_canonical(checkpoint)
        case Dialect.KERAS | Dialect.TENSORFLOW:
            return to_torch(tensorflow.to_canonical(checkpoint) or to_pytorch(checkpoint))
        case Dialect.FLAX:
            return flax.to_canonical(checkpoint)
        case Dialect.GENERIC:
            warning = "layout as stored: nothing says which framework's names these are"
            return replace(checkpoint, warnings=(*checkpoint.warnings, warning))
        case Dialect.PYTORCH:
            return in_process_names.to_hub(old_names.renewed(checkpoint))
        case other:
            return _of_other_packages().get(other, _unchanged)(checkpoint)


@cache
def _of_other_packages() -> Mapping[str, Callable[[Checkpoint], Checkpoint]]:
    return dict(added(DIALECTS, FunctionType))


def _unchanged(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint
