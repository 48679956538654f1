"""Sizes that a config.json leaves out and the shapes of the tensors tell: of a BERT, and of what is laid out like one.

transformers fills them with those of a release, and then refuses the tensors. No shape tells how many heads there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint, Dialect

_TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
_HEADS = "num_attention_heads"
_LAYER = re.compile(r"(?:^|\.)encoder\.layer\.(\d+)\.")
_SIZES = {
    "vocab_size": ("embeddings.word_embeddings.weight", 0),
    "hidden_size": ("embeddings.word_embeddings.weight", 1),
    "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
}
_OF_LABELS = ("classifier.weight", "classifier.out_proj.weight")
_LABEL_KEYS = ("id2label", "label2id", "num_labels")


def with_sizes(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the sizes that its config leaves out, and a warning that says them.

    Raises ArchitectureError where the config does not say the number of heads either.
    """
    config = checkpoint.config
    if config is None or config.model_type not in _TYPES or checkpoint.dialect != Dialect.PYTORCH:
        return checkpoint
    sizes = {name: size for name, size in _sizes(checkpoint).items() if name not in config.values}
    if not sizes:
        return checkpoint
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    if _HEADS not in config.values:
        raise ArchitectureError(
            f"config.json does not say {_HEADS}, which no tensor tells (they tell {listed})",
            hint=f"--config-value {_HEADS}=N",
        )
    values: dict[str, object] = dict(sizes)
    labels = _labels(checkpoint)
    if labels is not None and not any(key in config.values for key in _LABEL_KEYS):
        names = {str(number): f"LABEL_{number}" for number in range(labels)}
        values |= {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
        listed += f", {labels} labels"
    warning = f"config.json: as the shapes of the tensors tell, {listed}"
    return replace(checkpoint, config=config.with_values(values), warnings=(*checkpoint.warnings, warning))


def _sizes(checkpoint: Checkpoint) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for size, (ending, axis) in _SIZES.items():
        shape = _shape(checkpoint, ending)
        if shape is not None and len(shape) == 2:
            found[size] = shape[axis]
    numbers = [int(match[1]) for match in map(_LAYER.search, checkpoint.names) if match is not None]
    return {**found, "num_hidden_layers": 1 + max(numbers)} if numbers and found else {}


def _labels(checkpoint: Checkpoint) -> int | None:
    shapes = (_shape(checkpoint, ending) for ending in _OF_LABELS)
    return next((shape[0] for shape in shapes if shape is not None and len(shape) == 2), None)


def _shape(checkpoint: Checkpoint, ending: str) -> tuple[int, ...] | None:
    named = (name for name in checkpoint.names if name == ending or name.endswith(f".{ending}"))
    return next((checkpoint.tensor(name).shape for name in named), None)
