"""`--select KEY`: one of several models, with the optimizer that fits it and without all else."""

from __future__ import annotations

from dataclasses import replace

from converter.dialects.training.optimizers import prefix_of, with_state_of
from converter.errors import UsageError, escape
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, dropped
from converter.model.tensor import tensor_names


def selected(checkpoint: Checkpoint, key: str) -> Checkpoint:
    """Return what stands at `key` under its own names. Raises UsageError where no weight does."""
    models = [model for model in checkpoint.models if _is_at(model, key)]
    wanted = [name for name in checkpoint.names if _is_at(name, key)]
    if not wanted:
        known = ", ".join(map(escape, checkpoint.models))
        hint = f"there are {known}" if known else "its weights stand under no key of their own"
        raise UsageError(f"--select {key!r}: no weights are there", hint=hint)
    prefix = f"{key}."
    if len(models) == 1 and len(checkpoint.models[models[0]]) == len(wanted):
        prefix = prefix_of(models[0], wanted) or prefix
    others = frozenset(checkpoint.names).difference(wanted)
    reason = f"not selected: --select {key} takes the others"
    lines = [dropped(name, reason) for name in checkpoint.names if name in others]
    lines += [
        dropped(name, reason) for extra, value in checkpoint.extras.items() for name in tensor_names(extra, value)
    ]
    told = [line for line in checkpoint.lines if line.kind is not Kind.UNHELD or _is_at(line.name or "", key)]
    left = f"{', '.join(checkpoint.extras)} not carried: --select {key} takes the weights there"
    reduced = replace(
        with_state_of(checkpoint, frozenset(wanted)).of_names(wanted),
        models={model: checkpoint.models[model] for model in models} if len(models) > 1 else {},
        extras={},
        structure=None,
        lines=(*told, *lines),
    )
    warnings = (*reduced.warnings, left) if checkpoint.extras else reduced.warnings
    return replace(reduced.with_names(lambda name: name.removeprefix(prefix)), warnings=warnings)


def _is_at(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")
