"""A computation graph that goes with a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converter.graphs.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGraph:
    """An ONNX file whose initializers name tensors instead of holding them, and the architecture it computes."""

    file: Path
    architecture: Architecture
