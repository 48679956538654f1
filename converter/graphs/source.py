"""A graph that a source brings along: how to get it, and how to run the source itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """What a reader puts into `Checkpoint.graph`. Nothing is run before a target asks for the graph.

    `model`      the file or folder that holds the graph
    `trace`      ``package.module:function``, called in a child process as ``trace(model=, graph=, **arguments)``. It
                 writes the ONNX file `graph`, whose external initializers (location "weights") are called as the
                 reader calls the tensors, in their element types and layouts as stored; functions are inlined. It
                 returns `Architecture.to_json()`, in the same names. It raises SafetyError before anything of a hostile
                 file is run, GraphError for what has no ONNX form
    `reference`  ``package.module:function``, called in a child process as
                 ``run(model=, architecture=, inputs=, outputs=, **reference_arguments)``: runs `model` itself on the
                 inputs of an .npz file
    `extra`      the pip extra that both need
    `takes_custom_objects`   whether both take `custom_objects` and `folder`: the user's own classes, and where they are
    `arguments`, `reference_arguments`   more keywords of `trace` and of `reference`, JSON values
    """

    model: Path
    trace: str
    reference: str
    extra: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reference_arguments: Mapping[str, Any] = field(default_factory=dict)
    takes_custom_objects: bool = False
