"""What an exporter notes about its sources, cut down to what a reader of an error or of the graph can use."""

from __future__ import annotations

import ast
from typing import Any

from converter.graphs.description.traced import MODULE_KEY

_SCOPES_KEY = "pkg.torch.onnx.name_scopes"


def keep_module_paths(model: Any) -> None:
    """Remove stack traces and the paths of this machine from an onnx_ir.Model; nodes keep the path of their module."""
    nodes = list(model.graph.all_nodes())
    paths = [_module_path(node.metadata_props.get(_SCOPES_KEY, "")) for node in nodes]
    values = [
        *model.graph.inputs,
        *model.graph.initializers.values(),
        *(each for node in nodes for each in node.outputs),
    ]
    for noted in (model, model.graph, *nodes, *values):
        noted.metadata_props.clear()
        noted.doc_string = None
    for node, path in zip(nodes, paths, strict=True):
        if path:
            node.metadata_props[MODULE_KEY] = path


def _module_path(scopes: str) -> str:
    """Return the innermost module of a list of scopes such as ``"['', 'body', 'body.0', 'linear']"``."""
    try:
        names = ast.literal_eval(scopes)
    except (ValueError, SyntaxError):
        return ""
    return str(names[-2]) if isinstance(names, list) and len(names) > 1 else ""
