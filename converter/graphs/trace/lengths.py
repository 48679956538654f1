"""Lengths beyond which a model computes something else than its graph, which holds one of its ways alone.

torch.export follows the branch that the traced extents take, and keeps its condition: a range of the extent. Where the
class goes on beyond that range, by another way, its graph would be wrong there, and nothing would say so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.sample_inputs import extents
from converter.graphs.description.signature import GraphInput

_log = logging.getLogger(__name__)
_SPARSE = "block_sparse"
_FIRST_POSITIONS = 4  # rows of a table of positions that are no positions: fairseq's come after the padding's


def check_algorithm(model: Any) -> None:
    """Raise GraphError for a model that changes to sparse attention where a text is long (BigBird, BigBirdPegasus).

    It would be exported as the full attention that it has for short texts.
    """
    if not any(getattr(each, "attention_type", None) == _SPARSE for each in model.modules()):
        return
    parts = {f"{name}.": each for name, each in vars(model.config).items() if hasattr(each, "to_diff_dict")}
    name = next((name for name, each in parts.items() if getattr(each, "attention_type", None) == _SPARSE), "")
    raise GraphError(
        f"{type(model).__name__} has {_SPARSE} attention for long texts and full attention for short ones: no graph is "
        "both",
        hint=f"--config-value {name}attention_type=original_full makes a graph of full attention, for texts of any "
        "length",
    )


def check_bounds(model: Any, inputs: Sequence[GraphInput], sizes: Mapping[str, int], program: Any) -> None:
    """Raise GraphError when `model` takes more than its exported `program`, which was traced with `sizes`.

    A bound that is the length of a table, such as that of positions, is left: the graph fails beyond it.
    """
    tables = {extent for each in (*model.parameters(), *model.buffers()) for extent in each.shape}
    for name, bound in sorted(_bounds(inputs, program)):
        is_table = any(bound + more in tables for more in range(_FIRST_POSITIONS))
        _log.debug("%s: %s is at most %d, a table's length: %s", type(model).__name__, name, bound, is_table)
        if not is_table and _takes(model, inputs, {**sizes, name: bound + 1}):
            raise GraphError(
                f"{type(model).__name__} computes something else where {name} is more than {bound}: one graph cannot "
                "do both"
            )


def _bounds(inputs: Sequence[GraphInput], program: Any) -> Iterator[tuple[str, int]]:
    """Yield the dimensions of inputs that the program holds to a range, and the largest extent of each."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    seen = set()
    for each in inputs:
        for name, extent in zip(each.shape, getattr(values.get(each.name), "shape", ()), strict=False):
            expression = getattr(getattr(extent, "node", None), "expr", None)
            upper = getattr(program.range_constraints.get(expression), "upper", None)
            if isinstance(name, str) and name not in seen and upper is not None and upper.is_Integer:
                seen.add(name)
                yield name, int(upper)


def _takes(model: Any, inputs: Sequence[GraphInput], sizes: Mapping[str, int]) -> bool:
    """Whether the class computes with inputs of these sizes, as far as can be told without any value."""
    import torch

    arguments = {
        each.name: torch.ones(extents(each, sizes), dtype=getattr(torch, each.dtype.value), device="meta")
        for each in inputs
    }
    try:
        with torch.no_grad():
            model(**arguments)
    except Exception as error:  # a model's own code fails in any way it likes
        _log.debug("%s does not take %s: %s", type(model).__name__, sizes, error)
        return False
    return True
