"""A graph that a source brings along: how to get it, and how to run the source itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from converter.graphs.run.answers import Answer
from converter.model.checkpoint import Graph
from converter.model.child_function import ChildFunction
from converter.model.file import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource(Graph):
    """What a reader puts into `Checkpoint.graph`. Nothing is run before a target asks for the graph.

    `model`      the file or folder that holds the graph
    `trace`      ``trace(model=, graph=)`` writes the ONNX file `graph`, whose external initializers (location
                 "weights") are called as the reader calls the tensors, in their element types and layouts as stored;
                 functions are inlined. It returns `Signature.to_json()`, in the same names. It raises SafetyError
                 before anything of a hostile file is run, GraphError for what has no ONNX form
    `reference`  ``run(model=, inputs=, outputs=)`` runs `model` itself on the inputs of an .npz file; with a parameter
                 `nudge` it can change every weight in its last place before
    `extra`      the pip extra that both need
    """

    model: Location
    trace: ChildFunction[..., dict[str, Any]]
    reference: ChildFunction[..., Answer]
    extra: str

    def with_encoder(self, encoder: Mapping[str, Any]) -> GraphSource:
        """Return the same with the graph and the variables of a model of transformers that is a layer of it."""
        return self._with(encoder=dict(encoder))

    def with_signature(self, name: str) -> GraphSource:
        """Return the same of another signature of a SavedModel."""
        return self._with(signature=name)

    def with_custom_objects(self, custom_objects: Sequence[str], folder: str) -> GraphSource:
        """Return the same with the user's own classes, and the folder where they are, where it has a use for them."""
        if not self.trace.takes("custom_objects"):
            return self
        return self._with(custom_objects=list(custom_objects), folder=folder)

    def _with(self, **own: Any) -> GraphSource:
        """Return the same with more arguments, which both that traces and what it is compared with get."""
        return replace(self, trace=self.trace.with_arguments(**own), reference=self.reference.with_arguments(**own))
