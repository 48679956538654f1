"""A computation graph that goes with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.graphs.architecture import Architecture

WEIGHTS_LOCATION = "weights"
"""Where the external initializers of such a file claim to be; no file is called so."""
MODULE_KEY = "module"
"""The metadata of a node that says in which module of the model it is, such as ``bert.encoder.layer.0.attention``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a graph's outputs are compared with.

    `runner`         ``package.module:function`` as in converter.graphs.run
    `model`          what it is given to run: the source itself, or a folder
    `takes_weights`  whether that folder is to have the checkpoint's tensors in model.safetensors; the source itself has
                     its own, before any cast
    `arguments`      more keywords of the runner, JSON values
    """

    runner: str
    model: Path
    takes_weights: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGraph:
    """An ONNX file whose external initializers name tensors instead of holding them, and what it computes.

    Initializers agree with the checkpoint's tensors in name, element type and shape; `architecture` has those names.
    `kernels` are those that TensorFlow would rather have as model.kernels says.
    """

    file: Path
    architecture: Architecture
    reference: Reference
    kernels: frozenset[str] = frozenset()
