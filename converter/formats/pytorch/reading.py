"""torch.save files -> Checkpoint: plain state dicts, training checkpoints, Lightning, whole modules."""

from __future__ import annotations

from converter.dialects.training import checkpoint_of
from converter.encoding.torch_file import Walk, archive_of
from converter.errors import CkconvError
from converter.model.checkpoint import Checkpoint
from converter.model.file import Location, open_file


def read_checkpoint(path: Location, *, select: str | None = None) -> Checkpoint:
    """Read a file of torch.save: its pickles and what they declare, no tensor but the optimizer's step counts.

    Raises ReadError for damage and for files without tensors, SafetyError for pickles that would run code, UsageError
    where there are no weights at the key that was asked for.
    """
    file = open_file(path)
    try:
        archive = archive_of(file)
        root = archive.load()
        return checkpoint_of(root, Walk(stored_bytes=file.size, operations=archive.operations), select=select)
    except CkconvError as error:
        error.path = error.path or str(path)
        raise
