"""`--select KEY`: one of several models, with the optimizer that fits it and without all else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from converter.dialects.training.optimizers import prefix_of, with_state_of
from converter.errors import UsageError, escape
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Kind, LedgerLine, dropped
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
    told = [line for line in checkpoint.lines if line.kind is not Kind.UNHELD or _is_at(line.name or "", key)]
    reduced = replace(
        with_state_of(checkpoint, frozenset(wanted)).of_names(wanted),
        models={model: checkpoint.models[model] for model in models} if len(models) > 1 else {},
        extras={},
        structure=None,
        lines=(*told, *_left_out(checkpoint, frozenset(wanted), key)),
    )
    left = f"{', '.join(checkpoint.extras)} not carried: --select {key} takes the weights there"
    warnings = (*reduced.warnings, left) if checkpoint.extras else reduced.warnings
    return replace(reduced.with_names(lambda name: name.removeprefix(prefix)), warnings=warnings)


def _left_out(checkpoint: Checkpoint, wanted: frozenset[str], key: str) -> Iterator[LedgerLine]:
    others = (name for name in checkpoint.names if name not in wanted)
    in_extras = (name for extra, value in checkpoint.extras.items() for name in tensor_names(extra, value))
    for name in (*others, *in_extras):
        yield dropped(name, f"not selected: --select {key} takes the others")


def _is_at(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")
