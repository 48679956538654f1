"""torch.save files -> Checkpoint: plain state dicts, training checkpoints, Lightning, whole modules."""

from __future__ import annotations

from dataclasses import replace

from converter.dialects.training import checkpoint_of
from converter.encoding.torch_file import Walk, archive_of
from converter.encoding.torch_file.containers import container_of
from converter.encoding.torch_file.tree import is_tensor
from converter.errors import CkconvError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location, open_file


def read_checkpoint(path: Location, *, select: str | None, name: str | None, stem: str) -> Checkpoint:
    """Read a file of torch.save: its pickles and what they declare, no tensor but the optimizer's step counts.

    A tensor without a name gets `name`, or `stem` and a warning.

    Raises ReadError for damage and for files without tensors, SafetyError for pickles that would run code, UsageError
    where there are no weights at the key that was asked for.
    """
    file = open_file(path)
    try:
        container = container_of(file)
        archive = container or archive_of(file)
        root = archive.load()
        walk = Walk(stored_bytes=file.size, operations=archive.operations)
        root = walk.unlooped(root)
        if not is_tensor(root):
            if name is not None:
                raise UsageError("--name is for files with one tensor that has no name")
            found = checkpoint_of(root, walk, select=select)
            return replace(found, warnings=(*found.warnings, *(() if container is None else container.notes)))
        found = checkpoint_of({stem if name is None else name: root}, walk, select=select)
    except CkconvError as error:
        error.path = error.path or str(path)
        raise
    warning = f"the tensor has no name of its own: it is called {stem}, as the file is; --name NAME calls it otherwise"
    structure = next(iter(found.structure.values())) if found.structure else None
    return replace(
        found, structure=structure, warnings=found.warnings if name is not None else (*found.warnings, warning)
    )
