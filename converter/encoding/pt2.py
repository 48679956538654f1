"""The archive of torch.export.save: a zip of programs as JSON and of their weights as raw storages.

Layout: torch/export/pt2_archive/_package.py and torch/csrc/export/pt2_archive_constants.h, torch 2.13; the schema of
the JSON: torch/_export/serde/schema.py. Nothing of it is unpickled: a program's weights need none of that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.encoding import json as strict_json
from converter.encoding import zip as zip_archive
from converter.encoding.torch_file.storages import Storage, View
from converter.encoding.zip import Member, Record
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import Checksum, SourceFile
from converter.model.tensor import ArrayTensor, Tensor

DOCUMENT_RECORD = "extra/ckconv.json"
MODEL_NAME = "model"
FORMAT_RECORD = "archive_format"
_VERSION_RECORD = "archive_version"
_FORMAT, _VERSION = b"pt2", b"0"
_WEIGHTS, _CONSTANTS, _MODELS = "data/weights/", "data/constants/", "models/"
_SAMPLES = f"data/sample_inputs/{MODEL_NAME}.pt"
_CONFIG_SUFFIX = ".json"
_STRIDED = 7
_SMALL_BYTES = 64
_CONFIG_LIMIT_BYTES = 256 << 20
_LEGACY_RECORD = "serialized_exported_program.json"

# torch/_export/serde/schema.py, ScalarType.
TYPE_CODES = {
    DType.UINT8: 1,
    DType.INT8: 2,
    DType.INT16: 3,
    DType.INT32: 4,
    DType.INT64: 5,
    DType.FLOAT16: 6,
    DType.FLOAT32: 7,
    DType.FLOAT64: 8,
    DType.COMPLEX64: 10,
    DType.COMPLEX128: 11,
    DType.BOOL: 12,
    DType.BFLOAT16: 13,
    DType.UINT16: 28,
    DType.FLOAT8_E4M3FN: 29,
    DType.FLOAT8_E5M2: 30,
    DType.FLOAT8_E4M3FNUZ: 31,
    DType.FLOAT8_E5M2FNUZ: 32,
    DType.FLOAT8_E8M0FNU: 33,
    DType.UINT32: 34,
    DType.UINT64: 35,
}
_TYPES = {code: dtype for dtype, code in TYPE_CODES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of a program: tensors by name, names that share one, which are not parameters, what is not read.

    `constants` are the names of what the program holds besides.
    """

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    buffers: frozenset[str]
    unread: Mapping[str, str]
    constants: tuple[str, ...]


def looks_like(names: frozenset[str]) -> bool:
    """Whether a zip archive with such members is one of these, of any age."""
    return any(name.count("/") == 1 and name.endswith(f"/{FORMAT_RECORD}") for name in names) or _LEGACY_RECORD in names


class Archive:
    """One archive, its members checked."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._members = zip_archive.read_members(file)
        self._checksums: dict[str, Checksum] = {}
        if _LEGACY_RECORD in self._members:
            raise ReadError("is a program that torch before 2.8 saved, with pickled weights", path=file.path)
        self._root = self._find_root()
        if self._text(FORMAT_RECORD) != _FORMAT or self._text(_VERSION_RECORD) != _VERSION:
            raise ReadError("is not a pt2 archive of version 0", path=file.path)
        if self._text("byteorder") != b"little":
            raise ReadError("was written on a big-endian machine", path=file.path)

    def document(self) -> bytes | None:
        """Return what this program left in an archive of its own."""
        if f"{self._root}/{DOCUMENT_RECORD}" not in self._members:
            return None
        return self._bytes(DOCUMENT_RECORD)

    def parts(self) -> list[Record]:
        """Return what makes the program, weights and what is about the archive left out, to be written again."""
        kept = (_MODELS, _CONSTANTS, "data/sample_inputs/")
        names = [name.removeprefix(f"{self._root}/") for name in self._members]
        return [
            Record(name=f"{MODEL_NAME}/{name}", content=self._content(name)) for name in names if name.startswith(kept)
        ]

    def besides_weights(self) -> dict[str, Tensor]:
        """Return the members by their names, empty for values of weights, without what this program left there."""
        weights, document = f"{self._root}/{_WEIGHTS}", f"{self._root}/{DOCUMENT_RECORD}"
        names = {name: name.removeprefix(f"{self._root}/") for name in self._members if name != document}
        return {
            name: ArrayTensor.of(np.empty(0, np.uint8))
            if name.startswith(weights) and not name.endswith(_CONFIG_SUFFIX)
            else self._content(inner)
            for name, inner in names.items()
        }

    def _content(self, name: str) -> Tensor:
        member = self._member(name)
        return zip_archive.member_tensor(self._file, member, dtype=DType.UINT8, shape=(member.uncompressed_bytes,))

    def state(self) -> State:
        """Return the state of the one program. Raises ReadError for none, several, and what contradicts itself."""
        name = self._program()
        config = f"{_WEIGHTS}{name}_weights_config.json"
        if f"{self._root}/{_WEIGHTS}{name}.pt" in self._members:
            raise ReadError("has its weights in a pickle, as torch before 2.9 saved them", path=self._file.path)
        tensors: dict[str, Tensor] = {}
        aliases: dict[str, str] = {}
        unread: dict[str, str] = {}
        buffers, owners = set(), dict[Any, str]()
        for key, entry in self._payloads(config).items():
            if entry.get("use_pickle"):
                unread[key] = "stored as a pickle, which is not opened"
                continue
            view = self._view(key, entry)
            if not entry.get("is_param"):
                buffers.add(key)
            try:
                tensor = view.tensor()
            except ReadError as error:
                raise ReadError(error.message, path=self._file.path, tensor=key) from error
            owner = owners.setdefault(view.identity, key) if view.identity is not None else key
            if owner == key:
                tensors[key] = tensor
            else:
                aliases[key] = owner
        constants = self._payloads(f"{_CONSTANTS}{name}_constants_config.json", is_needed=False)
        return State(
            tensors=tensors,
            aliases=aliases,
            buffers=frozenset(buffers - aliases.keys()),
            unread=unread,
            constants=tuple(constants),
        )

    def flat(self, storage: Storage, dtype: DType, numel: int) -> Tensor:
        """Return all elements of a storage; its CRC is checked as they are read."""
        member = self._member(storage.key)
        crc = self._checksums.setdefault(storage.key, zip_archive.checksum(self._file, member))
        return zip_archive.member_tensor(self._file, member, dtype=dtype, shape=(numel,), crc=crc)

    def _find_root(self) -> str:
        roots = {name.partition("/")[0] for name in self._members}
        if len(roots) != 1:
            raise ReadError("is a zip archive without one root folder", path=self._file.path)
        return roots.pop()

    def _program(self) -> str:
        prefix = f"{self._root}/{_MODELS}"
        names = [name.removeprefix(prefix).removesuffix(".json") for name in self._members if name.startswith(prefix)]
        if len(names) != 1:
            what = f"several programs: {', '.join(sorted(names))}" if names else "compiled code, and no program"
            raise ReadError(f"holds {what}", path=self._file.path)
        return names[0]

    def _payloads(self, name: str, *, is_needed: bool = True) -> dict[str, dict[str, Any]]:
        if not is_needed and f"{self._root}/{name}" not in self._members:
            return {}
        read = strict_json.loads(self._bytes(name), path=self._file.path, what="list of weights")
        payloads = read.get("config") if isinstance(read, dict) else None
        if not isinstance(payloads, dict) or not all(isinstance(entry, dict) for entry in payloads.values()):
            raise ReadError(f"has no list of weights in {name!r}", path=self._file.path)
        return payloads

    def _view(self, key: str, entry: Mapping[str, Any]) -> View:
        meta = entry.get("tensor_meta")
        path = entry.get("path_name")
        if not isinstance(meta, dict) or not isinstance(path, str):
            raise ReadError("has no description of its type, or no path", path=self._file.path, tensor=key)
        if meta.get("layout") != _STRIDED:
            raise ReadError("is sparse", path=self._file.path, tensor=key)
        code = meta.get("dtype")
        dtype = _TYPES.get(code) if isinstance(code, int) else None
        if dtype is None:
            raise ReadError(
                f"has the element type {code!r}, which torch does not have", path=self._file.path, tensor=key
            )
        record = f"{_WEIGHTS}{path}"
        nbytes = self._member(record).uncompressed_bytes
        return View(
            storage=Storage(archive=self, key=record, dtype=None, numel=nbytes, root_numel=nbytes),
            dtype=dtype,
            offset=_integer(meta.get("storage_offset")),
            shape=tuple(map(_integer, _listed(meta.get("sizes")))),
            strides=tuple(map(_integer, _listed(meta.get("strides")))),
        )

    def _text(self, name: str) -> bytes:
        member = self._members.get(f"{self._root}/{name}")
        return b"" if member is None else self._bytes(name, limit_bytes=_SMALL_BYTES).strip()

    def _bytes(self, name: str, limit_bytes: int = _CONFIG_LIMIT_BYTES) -> bytes:
        return zip_archive.read_bytes(self._file, self._member(name), limit_bytes=limit_bytes)

    def _member(self, name: str) -> Member:
        member = self._members.get(f"{self._root}/{name}")
        if member is None:
            raise ReadError(f"has no record {name!r}", path=self._file.path)
        return member


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _integer(value: Any) -> Any:
    """The number in a SymInt of the schema; what is none is for `View` to refuse."""
    number = value.get("as_int") if isinstance(value, dict) else None
    return number if type(number) is int else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What is to be written as the state of a program, in this order."""

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()

    @property
    def described(self) -> list[tuple[str, str, Tensor]]:
        """Each name, the name of the one whose tensor it is, and that tensor."""
        own = [(name, name, tensor) for name, tensor in self.tensors.items()]
        return own + [(alias, owner, self.tensors[owner]) for alias, owner in self.aliases.items()]


def records(weights: Weights, program: Sequence[Record], document: Record) -> list[Record]:
    """Return the members of an archive: a program, `weights` as its state, and `document`."""
    paths = {name: f"weight_{position}" for position, name in enumerate(weights.tensors)}
    config = {
        name: {
            "path_name": paths[owner],
            "is_param": owner in weights.parameters,
            "use_pickle": False,
            "tensor_meta": tensor_meta(tensor, requires_grad=owner in weights.parameters),
        }
        for name, owner, tensor in weights.described
    }
    stored = [
        Record(name=f"{MODEL_NAME}/{_WEIGHTS}{paths[name]}", content=tensor) for name, tensor in weights.tensors.items()
    ]
    named = f"{MODEL_NAME}/{_WEIGHTS}{MODEL_NAME}_weights_config.json"
    about = {FORMAT_RECORD: _FORMAT, _VERSION_RECORD: _VERSION, "byteorder": b"little", ".data/version": b"6\n"}
    return [
        *stored,
        Record(name=named, content=json.dumps({"config": config}).encode("ascii")),
        *program,
        document,
        *(Record(name=f"{MODEL_NAME}/{name}", content=content) for name, content in about.items()),
    ]


def tensor_meta(tensor: Tensor, *, requires_grad: bool = False) -> dict[str, Any]:
    """Return a TensorMeta of the schema: a dense tensor on the CPU."""
    return {
        "dtype": TYPE_CODES[tensor.dtype],
        "sizes": [{"as_int": extent} for extent in tensor.shape],
        "requires_grad": requires_grad,
        "device": {"type": "cpu", "index": None},
        "strides": [
            {"as_int": math.prod(extent or 1 for extent in tensor.shape[axis + 1 :])}
            for axis in range(len(tensor.shape))
        ],
        "storage_offset": {"as_int": 0},
        "layout": _STRIDED,
    }
