"""Archives of torch.jit.save: read, not written. Their weights are taken by name, their code stays text.

docs/source/jit.rst and torch/csrc/jit/docs/serialization.md of PyTorch: modules are pickled as objects, tensors are
records as in files of torch.save.
"""

from __future__ import annotations

from dataclasses import replace

from converter.dialects.training import checkpoint_of
from converter.encoding.torch_file import Walk, ZipArchive
from converter.encoding.torch_file.script import is_script
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe, not_written
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import Location, open_file


def sniff(probe: Probe) -> bool:
    """A zip archive with a module beside its code."""
    return is_script(probe.zip_members)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read parameters and buffers, as the first lines of their classes list them; no tensor is read, no code run.

    Raises ReadError for damage and for archives without tensors, SafetyError for pickles that would run code.
    """
    file = open_file(path)
    archive = ZipArchive(file)
    if not archive.is_script:
        raise ReadError("is no TorchScript archive: it has no code", path=path, hint="--from pytorch reads it")
    root = archive.load()
    walk = Walk(stored_bytes=file.size, operations=archive.operations)
    if archive.has_constants and not walk.has_tensors(root):
        problem = "has no weights with names: those of a program that was frozen are its constants"
        raise ReadError(problem, path=path, hint="save it before torch.jit.freeze or optimize_for_inference")
    checkpoint = checkpoint_of(root, walk)
    return replace(checkpoint, structure=None)


FORMAT = Format(
    name="torchscript",
    description="TorchScript: archives of torch.jit.save, read, not written",
    suffixes=(".jit",),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=not_written,
    file_name="model.jit",
)
