"""What the process that parses HDF5 tells of a file is judged, one row a condition: hostile bytes may have told it."""

from __future__ import annotations

import base64
import copy
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.encoding.hdf5 import reading
from converter.encoding.hdf5.chunks import DEFLATE
from converter.errors import CkconvError, ReadError, SafetyError
from converter.model.file import LocalFile, SourceFile

_PLAIN = {"type": "<f4", "item_bytes": 4, "is_elsewhere": False, "filters": [], "attributes": {}}
_GROUP, _CHUNKED, _WHOLE, _FILLED, _BELOW = range(5)
SOUND: list[dict[str, Any]] = [
    {"members": [["chunked", 1], ["whole", 2], ["filled", 3], ["below", 4]], "attributes": {}},
    {
        **_PLAIN,
        "shape": [4, 4],
        "stored_bytes": 64,
        "chunk_shape": [2, 4],
        "chunks": [[[0, 0], 0, 32, 0], [[2, 0], 32, 32, 0]],
    },
    {**_PLAIN, "shape": [2], "stored_bytes": 8, "offset": 64},
    {**_PLAIN, "shape": [2], "stored_bytes": 0, "fill": base64.b64encode(np.float32(7).tobytes()).decode()},
    {"members": [], "attributes": {}},
]
BAD: list[tuple[str, int, dict[str, Any], type[CkconvError], str]] = [
    ("a group linked twice", _BELOW, {"members": [["again", 4]]}, ReadError, "a group that is linked twice"),
    ("a link to another place", _BELOW, {"members": [["x", None]]}, SafetyError, "a link to another place"),
    ("two members of one name", _BELOW, {"members": [["x", 2], ["x", 2]]}, ReadError, "two members of one name"),
    ("neither group nor dataset", _BELOW, {"members": [["x", 5]]}, ReadError, "neither group nor dataset"),
    ("data in another file", _WHOLE, {"is_elsewhere": True}, SafetyError, "its data in another file"),
    ("a filter of its own", _CHUNKED, {"filters": [DEFLATE, 32001]}, SafetyError, "needs the filters 1, 32001"),
    ("filters and no chunks", _WHOLE, {"filters": [DEFLATE]}, ReadError, "has filters and is not in chunks"),
    ("no shape", _WHOLE, {"shape": None}, ReadError, "has no shape"),
    ("no numbers", _WHOLE, {"type": "compound"}, ReadError, "elements of type compound"),
    ("too few bytes", _WHOLE, {"stored_bytes": 7}, ReadError, "has 7 bytes instead of 8"),
    ("beyond the end", _WHOLE, {"offset": 65}, ReadError, "needs 8 bytes at 65"),
    ("before the start", _WHOLE, {"offset": -1}, ReadError, "-1"),
    ("one byte of another", _WHOLE, {"offset": 63}, ReadError, "shares bytes with 'chunked'"),
    ("chunks of fewer axes", _CHUNKED, {"chunk_shape": [4]}, ReadError, "cannot cover its shape"),
    ("chunks of no extent", _CHUNKED, {"chunk_shape": [0, 4]}, ReadError, "cannot cover its shape"),
    ("a chunk too many", _CHUNKED, {"chunk_shape": [4, 4]}, ReadError, "has 2 chunks where 1 belong"),
    (
        "a chunk between places",
        _CHUNKED,
        {"chunks": [[[1, 0], 0, 32, 0], [[2, 0], 32, 32, 0]]},
        ReadError,
        r"a chunk at \[1, 0\], where none",
    ),
    (
        "a chunk beyond the end",
        _CHUNKED,
        {"chunks": [[[4, 0], 0, 32, 0], [[2, 0], 32, 32, 0]]},
        ReadError,
        r"a chunk at \[4, 0\], where none",
    ),
    (
        "two chunks in one place",
        _CHUNKED,
        {"chunks": [[[2, 0], 0, 32, 0], [[2, 0], 32, 32, 0]]},
        ReadError,
        "has two chunks in one place",
    ),
    ("a fill value of two bytes", _FILLED, {"fill": base64.b64encode(b"12").decode()}, ReadError, "a fill value of 2"),
    ("more than is stored", _FILLED, {"shape": [(16 << 20) // 4 + 1]}, ReadError, "of which 0 are stored"),
]


@pytest.fixture
def file(tmp_path: Path) -> SourceFile:
    (tmp_path / "x.h5").write_bytes(np.arange(18, dtype="<f4").tobytes())
    return LocalFile(tmp_path / "x.h5")


def read(file: SourceFile, objects: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> reading.Group:
    monkeypatch.setattr(reading.process, "objects", lambda *_, **__: copy.deepcopy(objects))
    return reading.read(file)


def test_what_is_sound_is_read(file: SourceFile, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {path: dataset.tensor for path, dataset in read(file, SOUND, monkeypatch).datasets()}
    values = {path: tensor.numpy().ravel().tolist() for path, tensor in found.items() if tensor is not None}
    assert values == {("chunked",): [*range(16)], ("whole",): [16, 17], ("filled",): [7, 7]}


@pytest.mark.parametrize(("place", "change", "kind", "why"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_not_is_refused(
    place: int,
    change: dict[str, Any],
    kind: type[CkconvError],
    why: str,
    file: SourceFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects: list[dict[str, Any]] = [*copy.deepcopy(SOUND), {"attributes": {}}]
    objects[place] |= change
    with pytest.raises(CkconvError, match=why) as caught:
        read(file, objects, monkeypatch)
    assert type(caught.value) is kind
    assert caught.value.path == str(file.path)


@pytest.mark.parametrize("cut_bytes", [0, 1, 4])
def test_a_chunk_without_its_checksum(cut_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its values are there; what deflate adds to know that they are right is not."""
    data = np.arange(8, dtype="<f4").tobytes()
    stored = zlib.compress(data)[: -cut_bytes or None]
    (tmp_path / "x.h5").write_bytes(stored)
    chunked = {**SOUND[_CHUNKED], "shape": [2, 4], "filters": [DEFLATE], "chunks": [[[0, 0], 0, len(stored), 0]]}
    objects = [{"members": [["w", 1]], "attributes": {}}, chunked]
    (dataset,) = [each for _, each in read(LocalFile(tmp_path / "x.h5"), objects, monkeypatch).datasets()]
    assert dataset.tensor is not None
    if not cut_bytes:
        assert dataset.tensor.numpy().tobytes() == data
    else:
        with pytest.raises(ReadError, match="is cut short"):
            dataset.tensor.numpy()


@pytest.mark.parametrize("count", [4, 5])
def test_what_grows_together(count: int, file: SourceFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may grow to 16 MiB, and all of them to 64."""
    large = {**SOUND[_FILLED], "shape": [(16 << 20) // 4]}
    objects = [{"members": [[str(number), number + 1] for number in range(count)], "attributes": {}}, *[large] * count]
    if count == 4:
        assert len(list(read(file, objects, monkeypatch).datasets())) == count
    else:
        with pytest.raises(ReadError, match="of which 0 are stored"):
            read(file, objects, monkeypatch)
