"""A user's own inputs of a graph, an .npz file: keys are `<input>`, or `<set>/<input>` of several sets.

Nothing in it is unpickled, and no array is read before its header was found to say what the archive has.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from converter.errors import UsageError, escape
from converter.graphs.description.cases import Case
from converter.graphs.description.signature import GraphInput

SUFFIX = ".npz"
_MEMBER_SUFFIX = ".npy"
_MOST_MEMBERS = 4096
_MOST_BYTES = 1 << 30
_LONGEST_NAME = 80
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def user_cases(path: Path, inputs: Sequence[GraphInput]) -> tuple[Case, ...]:
    """Return the sets in the file at `path`, as the graph with these `inputs` takes them.

    Arrays of an element type of which the input's has every value are cast. Raises UsageError for a file that
    cannot be read, is larger than 1 GiB unpacked, or does not fit the inputs.
    """
    known = {each.name: each for each in inputs}
    sets: dict[str, dict[str, Any]] = {}
    for key, array in _arrays(path).items():
        set_name, name = ("", key) if key in known else (key.partition("/")[0], key.partition("/")[2])
        if name not in known:
            hint = f"it takes {', '.join(known)}" if known else None
            raise UsageError(f"{escape(key)!r} is not an input of the graph", path=path, hint=hint)
        sets.setdefault(set_name, {})[name] = _fitting(array, known[name], key, path)
    if not sets:
        raise UsageError("has no arrays", path=path)
    for set_name, arrays in sets.items():
        missing = [name for name in known if name not in arrays]
        if missing:
            where = f"the set {escape(set_name)!r}" if set_name else "it"
            raise UsageError(f"{where} has no array for the input {missing[0]!r}", path=path)
        _check_dimensions(arrays, known, set_name, path)
    return tuple(
        Case(name=escape(set_name, _LONGEST_NAME) or path.name.replace("/", "_"), arrays=arrays, sizes={})
        for set_name, arrays in sets.items()
    )


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS or sum(member.file_size for member in members) > _MOST_BYTES:
                _refuse(f"is larger than {_MOST_BYTES >> 20} MiB or {_MOST_MEMBERS} arrays", path)
            arrays = {}
            for member in members:
                key = member.filename.removesuffix(_MEMBER_SUFFIX)
                if key == member.filename or key in arrays:
                    _refuse(f"is not a .npz file of arrays: it has {escape(member.filename)!r}", path)
                with archive.open(member) as file:
                    arrays[key] = _array(file, member.file_size, key, path)
            return arrays
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=path) from error
    except _DAMAGE as error:
        raise UsageError(f"is not a .npz file, or a damaged one: {error}", path=path) from error


def _array(file: Any, nbytes: int, key: str, path: Path) -> Any:
    try:
        version = np.lib.format.read_magic(file)
        reading = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
            version
        )
        if reading is None:
            _refuse(f"{escape(key)!r} is in version {version} of .npy", path)
        shape, is_fortran, dtype = reading(file)
    except ValueError as error:
        raise UsageError(f"{escape(key)!r} is not an array: {error}", path=path) from error
    count = math.prod(shape)
    if dtype.hasobject or dtype.kind not in "biufc" or min(shape, default=0) < 0:
        _refuse(f"{escape(key)!r} is an array of {escape(str(dtype))}, which no input takes", path)
    if file.tell() + count * dtype.itemsize != nbytes:
        _refuse(f"{escape(key)!r} has {nbytes - file.tell()} bytes, not those of {dtype.name}{list(shape)}", path)
    array = np.frombuffer(file.read(), dtype=dtype, count=count).astype(dtype.newbyteorder("="))
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)


def _fitting(array: Any, wanted: GraphInput, key: str, path: Path) -> Any:
    target = np.dtype(wanted.dtype.numpy)
    shape = f"[{', '.join(map(str, wanted.shape))}]"
    if array.dtype != target and not _holds_all(target, array.dtype):
        _refuse(f"{escape(key)!r} is {array.dtype.name}, and the graph takes {wanted.dtype.value}{shape}", path)
    is_like = len(array.shape) == len(wanted.shape) and all(
        isinstance(there, str) or there == extent for there, extent in zip(wanted.shape, array.shape, strict=True)
    )
    if not is_like:
        _refuse(
            f"{escape(key)!r} is of shape {list(array.shape)}, and the graph takes {wanted.dtype.value}{shape}", path
        )
    return np.ascontiguousarray(array.astype(target)).reshape(array.shape)


def _holds_all(target: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether `target` has every value of `dtype`: numpy calls it safe to cast int64 to float64, too."""
    is_rounded = dtype.kind in "iu" and target.kind == "f" and dtype.itemsize >= target.itemsize
    return dtype.kind in "biuf" and np.can_cast(dtype, target, "safe") and not is_rounded


def _check_dimensions(arrays: dict[str, Any], known: dict[str, GraphInput], set_name: str, path: Path) -> None:
    """Refuse a dimension that has two extents in one set."""
    extents: dict[str, tuple[int, str]] = {}
    for name, array in arrays.items():
        for dimension, extent in zip(known[name].shape, array.shape, strict=True):
            if not isinstance(dimension, str) or not dimension.isidentifier():
                continue
            there, first = extents.setdefault(dimension, (extent, name))
            if there != extent:
                where = f" in the set {escape(set_name)!r}" if set_name else ""
                _refuse(f"{dimension} is {there} in {first!r} and {extent} in {name!r}{where}", path)


def _refuse(what: str, path: Path) -> NoReturn:
    raise UsageError(what, path=path)
