"""What there is to say of a file of Keras's formats that has arrays, and no layers for Keras to load them into."""

from __future__ import annotations

from converter.model.checkpoint import ADDS_MODEL_TYPE, NO_MODEL_TYPE, Checkpoint, Dialect
from converter.model.output import ArraysAlone

_OF_KERAS = "that of its Keras model, as to_json() or get_config() returns it"


def arrays_alone(checkpoint: Checkpoint, *, suffix: str) -> ArraysAlone:
    """Return why Keras loads nothing of a `suffix` file with these names, and what would help."""
    names = "PyTorch's names" if checkpoint.dialect == Dialect.PYTORCH else "such names"
    problem = f"Keras loads no {suffix} file of {names}, and"
    if checkpoint.config is None:
        why = "nothing says which layers these are"
        return ArraysAlone(problem=f"{problem} {why}", hint=f"--config FILE gives its config.json, FILE {_OF_KERAS}")
    kind = checkpoint.config.values.get("model_type")
    if kind is None:
        return ArraysAlone(
            problem=f"{problem} {NO_MODEL_TYPE}", hint=f"{ADDS_MODEL_TYPE}; --config FILE gives {_OF_KERAS}"
        )
    why = f"neither its config, of model type {kind!r}, nor its tensors are of one class that TensorFlow has"
    return ArraysAlone(
        problem=f"{problem} {why}", hint=f"--config FILE names one as its architectures, FILE {_OF_KERAS}"
    )
