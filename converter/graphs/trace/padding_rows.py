"""Padding rows of embeddings, which a graph computes with and does not train.

Source: torch.nn.Embedding (PyTorch 2.13), whose `padding_idx` names the row that gets no gradient.
"""

from __future__ import annotations

from typing import Any

from converter.graphs.description.traced import MODULE_KEY, PADDING_ROW_KEY


def note_padding_rows(model: Any, module: Any) -> None:
    """Note the padding row of each embedding of an nn.Module at the nodes of an onnx_ir.Model that look it up.

    Nodes say in which module they are, as `keep_module_paths` leaves them.
    """
    import torch

    rows = {
        path: each.padding_idx
        for path, each in module.named_modules()
        if isinstance(each, torch.nn.Embedding) and each.padding_idx is not None
    }
    for node in model.graph.all_nodes():
        row = rows.get(node.metadata_props.get(MODULE_KEY, ""))
        if row is not None and node.op_type == "Gather" and node.inputs[0].is_initializer():
            node.metadata_props[PADDING_ROW_KEY] = str(row)
