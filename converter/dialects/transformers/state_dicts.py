"""What `load_state_dict` of a class of transformers asks for and files of it leave out."""

from __future__ import annotations

from dataclasses import replace

from converter.dialects.identity.inference import infer_architecture
from converter.dialects.identity.ties import with_every_name
from converter.dialects.tables import flax_table
from converter.dialects.transformers.sinusoids import sinusoids
from converter.errors import ArchitectureError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import defaulted


def as_state_dict(checkpoint: Checkpoint) -> Checkpoint:
    """Return a model of transformers with ties under every name, and with what its class computes and has in memory.

    Other checkpoints are returned as they are. Raises ReadError for a config that does not say how large that is.
    """
    return _with_unsaved_tables(with_every_name(checkpoint))


def _with_unsaved_tables(checkpoint: Checkpoint) -> Checkpoint:
    """Return a model of transformers with the position tables that its class has and `save_pretrained` leaves out.

    ``load_state_dict`` asks for them; MarianMTModel is such a class. Raises ReadError as `sinusoids` does.
    """
    config = checkpoint.config
    table = None if config is None or config.model_type is None else flax_table(config.model_type)
    if config is None or table is None or table.sinusoids is None:
        return checkpoint
    try:
        inference = infer_architecture(checkpoint.by_name, config.values)
    except ArchitectureError:
        return checkpoint
    if inference.architecture not in table.classes or inference.architecture in table.sinusoids.classes:
        return checkpoint
    dtype = next(iter(checkpoint.tensors.values())).dtype
    made = {
        inference.prefix + name: sinusoids(table.sinusoids.kind, config.values, dtype)
        for name in table.sinusoids.names
        if inference.prefix + name not in checkpoint
    }
    why = f"computed of the config, as {inference.architecture} does, which saves no such table"
    return replace(
        checkpoint,
        tensors={**checkpoint.tensors, **made},
        frozen=checkpoint.frozen | made.keys(),
        lines=(*checkpoint.lines, *(defaulted(name, why) for name in made)),
    )
