"""Archives around files of torch.save, with settings beside them: `.nemo` of NVIDIA NeMo, `.zip` of stable-baselines3.

NeMo (nemo/core/connectors/save_restore_connector.py) puts `model_weights.ckpt`, `model_config.yaml` and files of
tokenizers into a tar; stable-baselines3 (common/save_util.py) `policy.pth`, a file for each optimizer and for other
tensors, and `data`, whose objects are pickled, into a zip. What is pickled in `data` stays closed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converter.encoding import gzip, tar
from converter.encoding import json as strict_json
from converter.encoding import zip as zip_archive
from converter.encoding.torch_file.archives import archive_of
from converter.errors import ReadError
from converter.model.file import PartFile, SourceFile

_HEAD_BYTES, _TAR_BYTES = 4096, 512
_NEMO_WEIGHTS, _NEMO_PARTS = "model_weights.ckpt", "model_weights/"
_POLICY, _DATA, _SUFFIX = "policy.pth", "data", ".pth"
_VERSIONS = frozenset(("_stable_baselines3_version", "system_info.txt"))
_DATA_LIMIT_BYTES = 64 << 20
_PICKLED = ":serialized:"
_NAMES_TOGETHER = 10


def is_nemo(names: Collection[str]) -> bool:
    """Whether a tar with these members is one of NeMo."""
    return any(name.rpartition("/")[2] == _NEMO_WEIGHTS or name.startswith(_NEMO_PARTS) for name in names)


def is_compressed_tar(head: bytes) -> bool:
    """Whether a file that starts with `head` is a tar with gzip, as NeMo wrote until 1.x."""
    return gzip.looks_like(head) and tar.looks_like(gzip.start_of(head, _TAR_BYTES))


def is_stable_baselines(names: Collection[str]) -> bool:
    """Whether a zip with these members is one of stable-baselines3."""
    return _POLICY in names and _DATA in names


class Container:
    """Several files in one: `members` by name, where they are in the file. `notes` say what is left out."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.operations = 0
        self.may_loop = False
        self.notes: tuple[str, ...] = ()

    def load(self) -> Any:
        """Return the root value. Raises ReadError for members that are not what their archive has."""
        raise NotImplementedError

    def _loaded(self, part: PartFile, scope: str = "") -> Any:
        archive = archive_of(part, scope=scope)
        value = archive.load()
        self.operations += archive.operations
        self.may_loop |= archive.may_loop
        return value

    def _leave(self, names: Collection[str], why: str) -> None:
        if names:
            more = f" and {len(names) - _NAMES_TOGETHER} more" if len(names) > _NAMES_TOGETHER else ""
            self.notes += (f"{', '.join(sorted(names)[:_NAMES_TOGETHER])}{more} not carried: {why}",)


class _Nemo(Container):
    def load(self) -> Any:
        members = tar.read_members(self._file)
        weights = [name for name in members if name.rpartition("/")[2] == _NEMO_WEIGHTS]
        if not is_nemo(members):
            raise ReadError("is a tar without a model of NeMo", path=self._file.path)
        if not weights:
            hint = f"unpack it with tar: what is in {_NEMO_PARTS} may be a folder of torch.distributed.checkpoint"
            raise ReadError("holds a model that several processes saved", path=self._file.path, hint=hint)
        if len(weights) > 1:
            hint = "NeMo joins them: change_tensor_parallelism.py, or restore_from and save_to"
            raise ReadError(f"holds a model in {len(weights)} parts", path=self._file.path, hint=hint)
        self._leave(members.keys() - set(weights), "files beside the weights")
        return self._loaded(members[weights[0]])


class _StableBaselines(Container):
    def load(self) -> Any:
        members = zip_archive.read_members(self._file)
        root: dict[str, Any] = {}
        for name in sorted(name for name in members if name.endswith(_SUFFIX)):
            member = members[name]
            if not member.is_stored:
                raise ReadError(f"has its {name} compressed, which stable-baselines3 does not do", path=self._file.path)
            part = PartFile(self._file, member.data_offset, member.uncompressed_bytes)
            value = self._loaded(part, scope=f"{name}/")
            if value is not None:
                root[name.removesuffix(_SUFFIX)] = value
        data = self._data(members[_DATA])
        others = members.keys() - {_DATA, *_VERSIONS} - {name for name in members if name.endswith(_SUFFIX)}
        self._leave(others, "files beside the weights")
        return {**root, _DATA: data} if data else root

    def _data(self, member: zip_archive.Member) -> dict[str, Any]:
        """Return what the settings have as plain data."""
        try:
            raw = zip_archive.read_bytes(self._file, member, limit_bytes=_DATA_LIMIT_BYTES)
            values = strict_json.loads(raw, path=self._file.path, what=_DATA)
        except ReadError as error:
            self._leave((_DATA,), error.message)
            return {}
        if not isinstance(values, dict):
            self._leave((_DATA,), "is no JSON object")
            return {}
        pickled = {name for name, value in values.items() if isinstance(value, dict) and _PICKLED in value}
        self._leave({f"{_DATA}.{name}" for name in pickled}, "pickled objects, which stay closed")
        return {name: value for name, value in values.items() if name not in pickled}


def container_of(file: SourceFile) -> Container | None:
    """Return the container that `file` is, None when it is none. Raises ReadError for a damaged one."""
    head = file.read(0, min(file.size, _HEAD_BYTES))
    if is_compressed_tar(head):
        return _Nemo(gzip.GunzipFile(file))
    if tar.looks_like(head):
        return _Nemo(file) if is_nemo(tar.read_members(file)) else None
    if head.startswith(b"PK\x03\x04") and is_stable_baselines(zip_archive.read_names(file, limit=1 << 16)):
        return _StableBaselines(file)
    return None
