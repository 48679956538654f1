"""Bringing a checkpoint and a signature together: every tensor of one has its place in the other, or a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.errors import ArchitectureError, GraphError, LossError
from converter.graphs.description.signature import Declaration, Signature
from converter.graphs.fitting.layout_steps import LayoutStep, derives_from, steps_back
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, Status, defaulted, dropped
from converter.model.tensor import ArrayTensor, Tensor, is_equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How the checkpoint has what an initializer of the graph names: under `name`, and what makes the graph's of it."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    steps: tuple[LayoutStep, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        steps = [[step.kind, list(step.values)] for step in self.steps]
        return {"name": self.name, "dtype": self.dtype.value, "shape": list(self.shape), "steps": steps}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A checkpoint and a signature that agree. `stored` holds the initializers that the graph has otherwise."""

    checkpoint: Checkpoint
    signature: Signature
    stored: Mapping[str, Stored] = field(default_factory=dict)


def fitted_to_class(checkpoint: Checkpoint, signature: Signature) -> Fitted:
    """Fit the tensors that `signature` has, tied as it ties them; every other one is a line.

    Raises ArchitectureError for another shape, LossError for tied tensors that differ.
    """
    tensors: dict[str, Tensor] = {}
    lines: list[LedgerLine] = []
    declared = {**signature.parameters, **signature.buffers}
    for name, declaration in declared.items():
        tensors[name] = _filling(checkpoint, signature, name, declaration, lines)
    aliases = {alias: owner for alias, owner in signature.ties.items() if alias in checkpoint}
    for name in checkpoint.names:
        if name not in tensors and name not in aliases:
            lines.append(_left_over(checkpoint.origin(name), name, signature))
    fitted = replace(
        checkpoint.with_state_of(tensors, ties=signature.ties),
        tensors=tensors,
        aliases=aliases,
        buffers=frozenset(signature.buffers),
        lines=(*checkpoint.lines, *lines),
    )
    stored = {
        name: Stored(name=name, dtype=tensors[name].dtype, shape=shape)
        for name, (dtype, shape) in declared.items()
        if tensors[name].dtype is not dtype
    }
    return Fitted(checkpoint=fitted, signature=signature, stored=stored)


def _filling(
    checkpoint: Checkpoint, signature: Signature, name: str, declaration: Declaration, lines: list[LedgerLine]
) -> Tensor:
    tied = [alias for alias, owner in signature.ties.items() if owner == name]
    sources = [candidate for candidate in (name, *tied) if candidate in checkpoint]
    dtype, shape = declaration
    if not sources:
        reason = f"{signature.title} has it, the checkpoint does not; filled with zeros"
        lines.append(defaulted(name, reason, is_refused_by_default=True))
        return ArrayTensor.of(np.zeros(shape, dtype.numpy))
    tensor = checkpoint.tensor(sources[0])
    if tensor.shape != shape:
        raise ArchitectureError(
            f"has shape {list(tensor.shape)}, {signature.title} has {list(shape)}", tensor=sources[0]
        )
    for other in sources[1:]:
        if not is_equal(checkpoint.tensor(other), tensor):
            raise LossError(f"differs from {sources[0]}, which {signature.title} ties it to", tensor=other)
    return tensor


def _left_over(origin: str, name: str, signature: Signature) -> LedgerLine:
    if name in signature.computed:
        return dropped(origin, "computed from the config")
    if any(re.search(pattern, name) for pattern in signature.ignored):
        return dropped(origin, "transformers skips it when it loads this class")
    reason = f"{signature.title} has no such tensor"
    return dropped(origin, reason, is_refused_by_default=True)


def fitted_to_source(planned: Checkpoint, source: Checkpoint, signature: Signature) -> Fitted:
    """Fit `planned`, which dialect and selection made of `source`, to the signature of the source's own graph.

    What was renamed, moved or cast keeps its new name and form, and `stored` says how. What was cut, joined or left
    out on the way keeps the source's name and layout. Tensors that the graph does not use stay.

    Raises GraphError when the graph names a tensor that the source does not have so.
    """
    declared = {**signature.parameters, **signature.buffers}
    for name, (dtype, shape) in declared.items():
        if name not in source or (source.tensor(name).dtype, source.tensor(name).shape) != (dtype, shape):
            raise GraphError(f"the graph has it as {dtype.value}{list(shape)}, the source does not", tensor=name)
    found = {name: _stored(name, planned, source) for name in declared}
    kept = _with_relatives([name for name, stored in found.items() if stored is None], planned, source)
    fitted = _with_kept(planned, source, kept)
    found |= {name: _as_it_was(name, source) for name in kept.intersection(declared)}
    settled = {name: stored for name, stored in found.items() if stored is not None}
    buffers = {settled[name].name for name in signature.buffers}
    lines = tuple(_in_graph(line, signature) for line in fitted.lines)
    return Fitted(
        checkpoint=replace(fitted, buffers=fitted.buffers | buffers, lines=lines),
        signature=replace(
            signature,
            parameters=_renamed(signature.parameters, settled),
            buffers=_renamed(signature.buffers, settled),
            ties={},
        ),
        stored={name: each for name, each in settled.items() if _is_changed(name, each, declared[name])},
    )


def _in_graph(line: LedgerLine, signature: Signature) -> LedgerLine:
    """Return the line of something that no target holds as a tensor, mended where the graph itself has it."""
    if line.status is Status.DROPPED and line.name is not None and line.name in signature.computed:
        return dropped(line.name, "no tensor of its own: a constant of the graph")
    return line


def _stored(name: str, planned: Checkpoint, source: Checkpoint) -> Stored | None:
    """Return what became of the source's tensor `name`.

    None when no single planned tensor is the source's with axes permuted or reshaped.
    """
    origin = source.origin(name)
    candidates = [each for each in planned.names if planned.origin(each) == origin]
    for each in candidates:
        tensor = planned.tensor(each)
        steps = steps_back(tensor, source.tensor(name))
        if steps is not None:
            owner = planned.aliases.get(each, each)
            return Stored(name=owner, dtype=tensor.dtype, shape=tensor.shape, steps=steps)
    return None


def _as_it_was(name: str, source: Checkpoint) -> Stored:
    tensor = source.tensor(name)
    return Stored(name=name, dtype=tensor.dtype, shape=tensor.shape)


def _with_relatives(names: Iterable[str], planned: Checkpoint, source: Checkpoint) -> frozenset[str]:
    """Return `names` and every other of the source's tensors that the plan joined with one of them."""
    kept = frozenset(names)
    while kept:
        joined = _derived_from(kept, planned, source)
        more = frozenset(
            name
            for name, tensor in source.tensors.items()
            if any(derives_from(planned.tensors[each], [tensor]) for each in joined)
        )
        if more <= kept:
            break
        kept |= more
    return kept


def _derived_from(names: frozenset[str], planned: Checkpoint, source: Checkpoint) -> list[str]:
    tensors = [source.tensor(name) for name in names]
    return [name for name, tensor in planned.tensors.items() if derives_from(tensor, tensors)]


def _with_kept(planned: Checkpoint, source: Checkpoint, kept: frozenset[str]) -> Checkpoint:
    """Return the plan with those tensors of the source in place of what was made of them."""
    if not kept:
        return planned
    replaced = frozenset(_derived_from(kept, planned, source))
    tensors = {name: tensor for name, tensor in planned.tensors.items() if name not in replaced}
    clash = next((name for name in sorted(kept) if name in tensors), None)
    if clash is not None:
        raise GraphError("is already the name of another tensor", tensor=clash)
    if planned.has_state_of(replaced):
        planned = planned.without_state("its weights stay in the source's own layout")
    own_origins = {name: source.origin(name) for name in kept}
    origins = frozenset(own_origins.values())
    return replace(
        planned,
        tensors={**tensors, **{name: source.tensor(name) for name in source.names if name in kept}},
        aliases={alias: owner for alias, owner in planned.aliases.items() if owner not in replaced},
        origins={
            **{name: origin for name, origin in planned.origins.items() if name not in replaced},
            **{name: origin for name, origin in own_origins.items() if origin != name},
        },
        buffers=(planned.buffers - replaced) | (source.buffers & kept),
        frozen=(planned.frozen - replaced) | (source.frozen & kept),
        lines=tuple(line for line in planned.lines if line.name not in origins),
        warnings=(*planned.warnings, *(f"{name} keeps name and layout, as the graph has it" for name in sorted(kept))),
    )


def _renamed(declarations: Mapping[str, Declaration], stored: Mapping[str, Stored]) -> dict[str, Declaration]:
    return {stored[name].name: (stored[name].dtype, stored[name].shape) for name in declarations}


def _is_changed(name: str, stored: Stored, declaration: Declaration) -> bool:
    return bool(stored.steps) or (stored.name, stored.dtype, stored.shape) != (name, *declaration)
