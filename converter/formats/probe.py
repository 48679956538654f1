"""All that a sniffer may see of a file: enough to tell what it is, and little enough to stay fast and safe."""

from __future__ import annotations

from functools import cached_property

from converter.encoding import hdf5, tar, unknown
from converter.encoding import zip as zip_archive
from converter.encoding.part_files import folder_of_index, parts_in
from converter.errors import CkconvError, ReadError, escape
from converter.model.file import Location, is_dir, is_file, is_there, names_in, open_file

HEAD_BYTES = 4096
_ENTRY_LIMIT = 100_000
_TAIL_BYTES = 8
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def located(path: Location) -> Location:
    """Return `path`, or the index of the TensorFlow checkpoint whose prefix it is: no file is called like that.

    Of an index of shards it is their folder.
    """
    index = path.parent / f"{path.name}.index"
    return index if path.name and not is_there(path) and is_file(index) else folder_of_index(path)


class Probe:
    """A source as sniffers see it: `path`, `is_folder`, `size`, `head` (first 4 KiB), `entries` of a folder.

    Raises ReadError when there is nothing readable at `path`.
    """

    def __init__(self, path: Location) -> None:
        self.path = path
        self.is_folder = is_dir(path)
        self.entries: frozenset[str] = frozenset()
        self.size, self.head = 0, b""
        if self.is_folder:
            names = names_in(path)
            if len(names) > _ENTRY_LIMIT:
                raise ReadError(f"is a folder of {len(names)} entries, and at most {_ENTRY_LIMIT} are read", path=path)
            self.entries = frozenset(names)
        else:
            self._file = open_file(path)
            self.size = self._file.size
            self.head = self._file.read(0, min(self.size, HEAD_BYTES))

    @cached_property
    def tail(self) -> bytes:
        """The last eight bytes of a file."""
        return b"" if self.is_folder else self._file.read(max(0, self.size - _TAIL_BYTES), min(self.size, _TAIL_BYTES))

    @property
    def is_hdf5(self) -> bool:
        """Whether the file starts as HDF5 does."""
        return self.head.startswith(_HDF5_MAGIC)

    @cached_property
    def is_numbered_hdf5(self) -> bool:
        """Whether an HDF5 file numbers its variables, as `.weights.h5` does. Raises ReadError when it is damaged."""
        return hdf5.is_numbered(self._file)

    @cached_property
    def zip_members(self) -> frozenset[str]:
        """Names of the members when the file is a zip archive, else nothing."""
        if not self.head.startswith(b"PK\x03\x04"):
            return frozenset()
        try:
            return frozenset(zip_archive.read_names(self._file, limit=_ENTRY_LIMIT))
        except CkconvError:
            return frozenset()

    @cached_property
    def tar_members(self) -> frozenset[str]:
        """Names of the members when the file is a tar archive, else nothing."""
        if self.is_folder or not tar.looks_like(self.head):
            return frozenset()
        try:
            return frozenset(tar.read_members(self._file))
        except CkconvError:
            return frozenset()

    def nothing_known(self) -> CkconvError:
        """Return the error for content that no format claims, saying what it looks like."""
        if self.is_folder:
            what = "is an empty folder" if not self.entries else "holds no checkpoint that any format knows"
            what, hint = parts_in(self.entries) or unknown.of_folder(self.entries) or (what, None)
            return ReadError(what, path=self.path, hint=hint)
        if self.size == 0:
            return ReadError("is empty", path=self.path)
        if self.head.startswith(b"PK\x03\x04"):
            return self._of_zip()
        if tar.looks_like(self.head):
            return ReadError("is a tar archive, and no .nemo", path=self.path, hint="unpack it: tar -xf FILE")
        known = unknown.of_file(self.path.name, self.head, self.tail)
        what, hint = known or ("is in no format that is known", "if it is one, say which with --from")
        return ReadError(what, path=self.path, hint=hint)

    def _of_zip(self) -> CkconvError:
        """Return the error for a zip archive that no format claims: it is damaged, or holds something else."""
        try:
            names = zip_archive.read_names(self._file, limit=_ENTRY_LIMIT)
        except CkconvError as error:
            return error
        if not names:
            return ReadError("is an empty zip archive", path=self.path)
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        problem = f"is a zip archive of {escape(min(names))}{others}, and no checkpoint"
        return ReadError(problem, path=self.path, hint="unpack it: unzip FILE")
