"""Names, layouts and conventions between frameworks: pure functions on a Checkpoint."""

from __future__ import annotations

from dataclasses import replace

from converter.dialects.keras import to_pytorch
from converter.model.checkpoint import Checkpoint

__all__ = ["canonical"]


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with PyTorch's names and layouts, as far as anything says what its tensors are.

    Names of Keras ("keras", and "tensorflow" as SavedModels have them) are translated; "generic" ones stay, with a
    warning. Nothing is read. Raises ReadError when two names become one, or a shape is not what its layer has.
    """
    match checkpoint.dialect:
        case "keras" | "tensorflow":
            return to_pytorch(checkpoint)
        case "generic":
            said = "layout as stored: nothing says which framework's names these are"
            return replace(checkpoint, warnings=(*checkpoint.warnings, said))
        case _:
            return checkpoint
