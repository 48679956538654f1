"""NumPy: ``.npz`` archives of arrays by name, and one array in a ``.npy`` under the file's own name.

Arrays are named as in the archive, without ``.npy``. What is no numbers (objects, text, dates, records) is a ledger
line. numpy has no bfloat16 and no 8-bit floating-point types: ``--dtype`` casts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from converter.encoding import npy
from converter.encoding import zip as zip_archive
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import Location, SourceFile, open_file
from converter.model.ledger import LedgerLine, dropped
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import FileTensor, Tensor, byteswapped

_SUFFIX = ".npy"
_NOT_OF_NUMPY = ("bfloat16", "float8")
_DTYPES = frozenset(dtype for dtype in DType if not dtype.value.startswith(_NOT_OF_NUMPY))


def sniff(probe: Probe) -> bool:
    """A file that begins as an array does, or an archive with nothing but such files."""
    members = probe.zip_members
    return probe.head.startswith(npy.MAGIC) or (bool(members) and all(name.endswith(_SUFFIX) for name in members))


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the headers of all arrays; elements stay where they are, checked by the archive's CRC as they are read.

    Raises ReadError for damage, and for an array of another size than its header says.
    """
    file = open_file(path)
    if not file.read(0, min(2, file.size)).startswith(b"PK"):
        found = [_array(file, path.name.removesuffix(_SUFFIX))]
    else:
        members = zip_archive.read_members(file, are_keys=True)
        found = [_member(file, member) for name, member in members.items() if name.endswith(_SUFFIX)]
    tensors = {name: tensor for name, tensor, _ in found if tensor is not None}
    lines = tuple(line for _, _, line in found if line is not None)
    if lines and not tensors:
        hint = "numpy.savez saves arrays by their names"
        raise ReadError(f"holds no array of numbers, but {lines[0].reason}", path=path, tensor=lines[0].name, hint=hint)
    return Checkpoint(tensors=tensors, lines=lines)


_Found = tuple[str, Tensor | None, LedgerLine | None]


def _array(file: SourceFile, name: str) -> _Found:
    def elements(header: npy.Header, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        return FileTensor(dtype=dtype, shape=shape, file=file, offset=header.nbytes)

    return _found(name, lambda nbytes: file.read(0, min(nbytes, file.size)), file.size, elements, file.path)


def _member(file: SourceFile, member: zip_archive.Member) -> _Found:
    def elements(header: npy.Header, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        return zip_archive.member_tensor(file, member, dtype=dtype, shape=shape, head_bytes=header.nbytes)

    name, read = member.name.removesuffix(_SUFFIX), partial(zip_archive.read_start, file, member)
    return _found(name, read, member.uncompressed_bytes, elements, file.path)


def _found(
    name: str,
    read: Callable[[int], bytes],
    nbytes: int,
    elements: Callable[[npy.Header, DType, tuple[int, ...]], Tensor],
    path: Location,
) -> _Found:
    header = npy.header(read, path, name)
    if header.dtype is None:
        return name, None, dropped(name, header.what)
    needed = header.nbytes + header.dtype.itemsize * math.prod(header.shape)
    if needed != nbytes:
        raise ReadError(f"needs {needed} bytes as its header says, and has {nbytes}", path=path, tensor=name)
    tensor = elements(header, header.dtype, header.shape[::-1] if header.is_fortran else header.shape)
    tensor = byteswapped(tensor) if header.is_swapped else tensor
    return name, tensor.transpose(tuple(reversed(range(len(header.shape))))) if header.is_fortran else tensor, None


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    """Lay out an archive that numpy.load opens, every tensor under each of its names, aligned to 64 bytes.

    It says nothing of what it was made of: numpy would take that for an array.
    """
    tensors = checkpoint.by_name
    records = [
        zip_archive.Record.headed(f"{name}{_SUFFIX}", npy.written_header(tensor.dtype, tensor.shape), tensor)
        for name, tensor in tensors.items()
    ]
    file = OutputFile(name=FORMAT.file_name or "", pieces=tuple(zip_archive.archive(records)))
    return Output(files=(file,), names={name: name for name in tensors})


FORMAT = Format(
    name="npz",
    description="NumPy: .npz, arrays by name; .npy is read",
    suffixes=(".npz",),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=_DTYPES,
    sniff=sniff,
    read=read,
    write=write,
    file_name="model.npz",
    entries=("*.npz",),
)
