"""What an HDF5 file declares, told by libhdf5 in a process that a file may kill: `process` starts it and asks.

Run as a program, with the standard library, h5py and `converter.box` alone: it closes a box in which no file is in
reach before it is asked about any. For every file it forks; the fork may use little memory and time, opens nothing,
writes nothing but its answer, and reads the file through a descriptor that it was given. It tells what there is, and
judges nothing: that is for `reading`.
"""

from __future__ import annotations

import base64
import codecs
import io
import json
import math
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER_LIMIT_BYTES = 64 << 20
_MEMORY_BYTES = 512 << 20
_IDLE_SECONDS = 10
_ALARM_SECONDS = 60
_OBJECT_LIMIT = 1 << 17
_CHUNK_LIMIT = 1 << 18
_DEPTH_LIMIT = 64
_SNIFFED_OBJECTS = 2000
_COMPACT_LIMIT_BYTES = 1 << 16  # of an object header's message
_ATTRIBUTES = re.compile(
    r"(?:layer_names|weight_names)\d*|name|dtype|backend|keras_version|model_config|training_config|ckconv(?:_\w+)?"
)
_NUMBERS = "|b1 |i1 |u1 <i2 >i2 <u2 >u2 <i4 >i4 <u4 >u4 <i8 >i8 <u8 >u8 <f2 >f2 <f4 >f4 <f8 >f8 <c8 >c8 <c16 >c16"
_BFLOAT16_FIELDS, _BFLOAT16_BIAS = (15, 7, 8, 0, 7), 127
_KINDS = (
    *("INTEGER", "FLOAT", "TIME", "BITFIELD", "OPAQUE"),
    *("COMPOUND", "REFERENCE", "ENUM", "VLEN", "ARRAY"),
)


class _ExcessError(Exception):
    """A structure larger than any checkpoint's."""


class _Source(io.RawIOBase):
    """A part of an open file, as h5py takes files."""

    def __init__(self, descriptor: int, offset: int, length: int) -> None:
        self._descriptor, self._offset, self._length, self._position = descriptor, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = start + position
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._length - self._position)]
        count = os.preadv(self._descriptor, [view], self._offset + self._position) if view else 0
        self._position += count
        return count


class _Walk:
    """Every object once, by its address, depth first; `objects` has them in the order they are met."""

    def __init__(self, types: list[tuple[str, Any]]) -> None:
        self._types = types
        self._indices: dict[int, int] = {}
        self._links = 0
        self._chunks = 0
        self.objects: list[dict[str, Any]] = []

    def visit(self, here: Any, depth: int = 0) -> int:
        """Describe an object unless it is known already, and what is below it; return its place in `objects`."""
        from h5py import h5d, h5g, h5o

        address = h5o.get_info(here).addr
        if address in self._indices:
            return self._indices[address]
        if depth > _DEPTH_LIMIT:
            raise _ExcessError(f"has groups nested more than {_DEPTH_LIMIT} deep")
        index = self._indices[address] = len(self.objects)
        described: dict[str, Any] = {}
        self.objects.append(described)
        if isinstance(here, h5g.GroupID):
            described["members"] = list(self._members(here, depth))
            described["attributes"] = _attributes(here)
        elif isinstance(here, h5d.DatasetID):
            described |= self._dataset(here)
            described["attributes"] = _attributes(here)
        return index

    def _members(self, group: Any, depth: int) -> Iterator[tuple[str, int | None]]:
        """Yield name and place of every member; None for links that are not hard, which are not followed."""
        from h5py import h5l, h5o

        for raw in list(group):
            self._links += 1
            if self._links > _OBJECT_LIMIT:
                raise _ExcessError(f"has more than {_OBJECT_LIMIT} objects")
            is_hard = group.links.get_info(raw).type == h5l.TYPE_HARD
            yield raw.decode("utf-8"), self.visit(h5o.open(group, raw), depth + 1) if is_hard else None

    def _dataset(self, dataset: Any) -> dict[str, Any]:
        from h5py import h5d, h5s

        properties = dataset.get_create_plist()
        layout, type_id = properties.get_layout(), dataset.get_type()
        kind, item_bytes = self._kind(type_id), int(type_id.get_size())
        described: dict[str, Any] = {
            "type": kind,
            "item_bytes": item_bytes,
            "is_elsewhere": bool(properties.get_external_count()) or layout == h5d.VIRTUAL,
            "filters": [int(properties.get_filter(index)[0]) for index in range(properties.get_nfilters())],
            "shape": None,
        }
        if described["is_elsewhere"] or dataset.get_space().get_simple_extent_type() == h5s.NULL:
            return described
        shape = [int(extent) for extent in dataset.shape]
        described |= {"shape": shape, "stored_bytes": int(dataset.get_storage_size())}
        if layout == h5d.CHUNKED:
            described["chunk_shape"] = [int(extent) for extent in properties.get_chunk()]
            described["chunks"] = self._chunks_of(dataset)
        elif layout == h5d.COMPACT and math.prod(shape) * item_bytes <= _COMPACT_LIMIT_BYTES:
            described["data"] = _compact(dataset, type_id, shape, item_bytes)
        elif described["stored_bytes"]:
            described["offset"] = dataset.get_offset()
        if properties.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED:
            described["fill"] = _fill(properties, kind, item_bytes)
        return described

    def _kind(self, type_id: Any) -> str:
        """Return numpy's code of a number, "<bfloat16" or ">bfloat16", or the class in lower case."""
        from h5py import h5t

        kind = type_id.get_class()
        if kind == h5t.STRING:
            return "text"
        for code, known in self._types:
            if type_id.equal(known):
                return code
        if kind == h5t.FLOAT and type_id.get_fields() == _BFLOAT16_FIELDS and type_id.get_ebias() == _BFLOAT16_BIAS:
            return (">" if type_id.get_order() == h5t.ORDER_BE else "<") + "bfloat16"
        return next((name.lower() for name in _KINDS if getattr(h5t, name) == kind), str(kind))

    def _chunks_of(self, dataset: Any) -> list[tuple[tuple[int, ...], int, int, int]]:
        """Return origin, place, size and skipped filters of every chunk that is stored."""
        found: list[tuple[tuple[int, ...], int, int, int]] = []

        def note(chunk: Any) -> bool | None:
            self._chunks += 1
            found.append((tuple(chunk.chunk_offset), chunk.byte_offset, chunk.size, chunk.filter_mask))
            return True if self._chunks > _CHUNK_LIMIT else None

        if dataset.chunk_iter(note):
            raise _ExcessError(f"has more than {_CHUNK_LIMIT} chunks")
        return found


def _compact(dataset: Any, type_id: Any, shape: list[int], item_bytes: int) -> str:
    import numpy as np
    from h5py import h5s

    array = np.zeros(shape, f"V{item_bytes}")
    if array.nbytes:
        dataset.read(h5s.ALL, h5s.ALL, array, type_id)
    return base64.b64encode(array.tobytes()).decode("ascii")


def _fill(properties: Any, kind: str, item_bytes: int) -> str | None:
    import numpy as np

    is_bfloat16 = kind.endswith("bfloat16")
    if kind[0] not in "<>|" and kind != "opaque":
        return None
    value = np.zeros((), "<f4" if is_bfloat16 else f"V{item_bytes}" if kind == "opaque" else kind)
    properties.get_fill_value(value)
    data = value.tobytes()
    if is_bfloat16:
        data = data[2:] if kind[0] == "<" else data[:1:-1]
    return base64.b64encode(data).decode("ascii")


def _attributes(owner: Any) -> dict[str, str | list[str]]:
    """Return the attributes that the program knows, as text; those of other types are left out."""
    from h5py import AttributeManager, h5a, h5s, h5t

    found: dict[str, str | list[str]] = {}
    for index in range(h5a.get_num_attrs(owner)):
        attribute = h5a.open(owner, index=index)
        name = attribute.name.decode("utf-8")
        if not _ATTRIBUTES.fullmatch(name) or attribute.get_space().get_simple_extent_type() == h5s.NULL:
            continue
        if math.prod(attribute.shape) == 0:  # Keras writes no names as an array of no float64s
            found[name] = []
        elif attribute.get_type().get_class() == h5t.STRING:
            nbytes = attribute.get_type().get_size() * math.prod(attribute.shape)
            is_text = attribute.get_type().get_cset() in (h5t.CSET_ASCII, h5t.CSET_UTF8)
            if not is_text or nbytes > ANSWER_LIMIT_BYTES or len(attribute.shape) > 1:
                raise _ExcessError(f"has an attribute {name!r} that is no text, several axes of it, or too long")
            value = AttributeManager(_Owner(owner))[name]
            found[name] = [_text(item) for item in value] if attribute.shape else _text(value)
    return found


class _Owner:
    """What h5py's attribute manager wants of an object."""

    def __init__(self, identifier: Any) -> None:
        self.id = identifier


def _text(value: Any) -> str:
    """Return text, which h5py may hand over as bytes, or with surrogates for what is no UTF-8."""
    return (value if isinstance(value, bytes) else str(value).encode("utf-8")).decode("utf-8")


def _is_numbered(root: Any) -> bool:
    from h5py import h5a

    names = [h5a.open(root, index=index).name for index in range(h5a.get_num_attrs(root))]
    return not any(name.startswith((b"layer_names", b"model_config")) for name in names) and _holds(root, b"vars")


def _holds(root: Any, name: bytes) -> bool:
    """Whether a group has that name. Looks at a bounded number; depth first: the first of the layers tells."""
    from h5py import h5g, h5l, h5o

    waiting, seen, limit = [(root, iter(list(root)))], set(), _SNIFFED_OBJECTS
    while waiting and limit > 0:
        here, links = waiting[-1]
        link = next(links, None)
        if link is None:
            waiting.pop()
            continue
        limit -= 1
        if here.links.get_info(link).type != h5l.TYPE_HARD:
            continue
        member = h5o.open(here, link)
        address = h5o.get_info(member).addr
        if isinstance(member, h5g.GroupID) and address not in seen:
            if link == name:
                return True
            seen.add(address)
            waiting.append((member, iter(list(member))))
    return False


def _limit(seconds: int, used_bytes: int) -> None:
    """Take away what parsing does not need. No descriptor can be had from here on: links out of a file lead nowhere."""
    from converter.box import seccomp

    limits = {
        resource.RLIMIT_AS: used_bytes + _MEMORY_BYTES,
        resource.RLIMIT_CPU: seconds + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for which, most in limits.items():
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most - 1 if which == resource.RLIMIT_CPU else most, most))
    signal.alarm(_ALARM_SECONDS)
    seccomp.close()


def _answer(question: dict[str, Any], descriptor: int, types: list[tuple[str, Any]]) -> dict[str, Any]:
    import h5py

    source = _Source(descriptor, question["offset"], question["length"])
    try:
        root = h5py.File(source, "r")["/"].id
        if question["what"] == "is_numbered":
            return {"is_numbered": _is_numbered(root)}
        walk = _Walk(types)
        walk.visit(root)
        return {"objects": walk.objects}
    except _ExcessError as excess:
        return {"error": str(excess)}
    except MemoryError:
        return {"error": f"needs more than {_MEMORY_BYTES >> 20} MiB for its structure"}
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        return {"error": f"is damaged, or no HDF5: {error.args[0] if error.args else ''}"}


def _work(question: dict[str, Any], descriptor: int, out: int, types: list[tuple[str, Any]], used_bytes: int) -> None:
    """Answer and end, without the rites of an interpreter or of libhdf5: what they would touch may be in pieces."""
    code = 0
    try:
        _limit(question["seconds"], used_bytes)
        data = json.dumps(_answer(question, descriptor, types)).encode("ascii")
        if len(data) > ANSWER_LIMIT_BYTES:
            data = b'{"error": "declares a structure larger than any checkpoint has"}'
    except BaseException:
        code, data = 1, traceback.format_exc().encode("ascii", "backslashreplace")
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
    os._exit(code)


def _serve(requests: socket.socket) -> None:
    """Fork for every request, and tell how the fork ended; end when nobody asks any more, at once if the asker is gone.

    The socket tells of that, and not PR_SET_PDEATHSIG: it would be the end of the thread that started this process.
    """
    import h5py
    import numpy as np

    from converter import box
    from converter.box.privileges import die_with

    types = [(code, h5py.h5t.py_create(np.dtype(code), logical=True)) for code in _NUMBERS.split()]
    codecs.lookup("ascii")  # modules are loaded while files can be opened
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    box.close_around_server()
    server = os.getpid()
    requests.settimeout(_IDLE_SECONDS)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(requests, 4096, 2)
        except TimeoutError:
            return
        if not data:
            return
        at_work, working = os.pipe()
        process = os.fork()
        if process == 0:
            die_with(server)
            requests.close()
            source, out = descriptors
            _work(json.loads(data), source, out, types, used_bytes)
        for descriptor in (*descriptors, working):
            os.close(descriptor)
        if _is_gone_before(requests, at_work):
            return
        os.close(at_work)
        _, status = os.waitpid(process, 0)
        requests.sendall(struct.pack("<i", status))


def _is_gone_before(requests: socket.socket, at_work: int) -> bool:
    """Wait for the end of the fork, which holds the other end of a pipe; whether the asker is gone before."""
    waiting = select.poll()
    for descriptor in (requests.fileno(), at_work):
        waiting.register(descriptor, 0)  # that the other end is closed is told anyway
    return requests.fileno() in {descriptor for descriptor, _ in waiting.poll()}


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[2])
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        _serve(asked)
