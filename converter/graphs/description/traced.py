"""A computation graph that goes with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.graphs.description.signature import Signature
from converter.graphs.run.answers import Answer
from converter.model.checkpoint import Graph
from converter.model.child_function import ChildFunction

WEIGHTS_LOCATION = "weights"
"""Where the external initializers of such a file claim to be; no file is called so."""
MODULE_KEY = "module"
"""The metadata of a node that says in which module of the model it is, such as ``bert.encoder.layer.0.attention``."""

PADDING_ROW_KEY = "padding_row"
"""The metadata of a node that picks rows of a table: the row without a gradient, as an nn.Embedding's padding_idx."""

SIGMOID = "sigmoid"
SOFTMAX = "softmax"
"""What an output of numbers between 0 and 1 is, and how it is compared: converter.graphs.passes.activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a graph's outputs are compared with.

    `runner`         ``run(model=, inputs=, outputs=)``, one of the references of converter.graphs.calls
    `model`          what it is given to run: the source itself, or a folder
    `takes_weights`  whether that folder is to have the checkpoint's tensors in model.safetensors; the source itself has
                     its own, before any cast
    """

    runner: ChildFunction[..., Answer]
    model: Path
    takes_weights: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGraph(Graph):
    """An ONNX file whose external initializers name tensors instead of holding them, and what it computes.

    Initializers agree with the checkpoint's tensors in name, element type and shape; `signature` has those names.
    `kernels` are those that TensorFlow would rather have as model.kernels says, `rounded` is the type that an output is
    computed in, where that is float16 or bfloat16. `activations` says which outputs are a SIGMOID or a SOFTMAX.
    """

    file: Path
    signature: Signature
    reference: Reference
    kernels: frozenset[str] = frozenset()
    rounded: Mapping[str, str] = field(default_factory=dict)
    activations: Mapping[str, str] = field(default_factory=dict)
