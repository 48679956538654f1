"""Files and folders of no format that is read say what they are, and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

import converter
from converter.errors import CkconvError, ReadError

TABLE = bytes(60) + bytes.fromhex("57fb808b247547db")
FILES = {
    "model.ckpt.meta": (b"\n\x82\x10\x12\xde\x0f\nD", "the graph of a TensorFlow 1 checkpoint", "give model.ckpt"),
    "table": (b"x" + TABLE, "a table of keys and values", "--from tf-checkpoint"),
    "graph.pbtxt": (b'node {\n  name: "x"\n}\n', "a graph of TensorFlow as text", "Saver"),
    "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite", "tf2onnx.convert --tflite"),
    "model.mlmodel": (b"\x08\x04\x12\x20" + bytes(50), "Core ML", "converted from"),
    "model.json": (b'{"format": "layers-model", "modelTopology": {}}', "TensorFlow.js", "tensorflowjs_converter"),
    "model.gguf": (b"GGUF\3\0\0\0" + bytes(50), "GGUF", "made from"),
    "model.h5.lz4": (b"\x04\x22\x4d\x18" + bytes(50), "compressed with LZ4", "lz4 -d"),
    "model.h5.gz": (b"\x1f\x8b\x08\0" + bytes(50), "compressed with gzip", "gunzip"),
    "model.h5.zst": (b"\x28\xb5\x2f\xfd" + bytes(50), "compressed with Zstandard", "zstd -d"),
    "model.h5.xz": (b"\xfd7zXZ\0" + bytes(50), "compressed with xz", "xz -dc"),
    "model.h5.bz2": (b"BZh91AY" + bytes(50), "compressed with bzip2", "bunzip2"),
    "notes.txt": (b"some text", "in no format that is known", "--from"),
}
FOLDERS = {
    "orbax": (["_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", "d/x"], "a checkpoint of Orbax", "to_bytes"),
    "flax": (["checkpoint_9", "checkpoint_10"], "holds 2 checkpoints of Flax", "checkpoint_10 is the newest"),
    "package": (["Manifest.json", "Data/model.mlmodel"], "a Core ML package", "converted from"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, what, hint = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CkconvError) as raised:
        converter.read(tmp_path / name)
    assert isinstance(raised.value, ReadError)
    assert what in raised.value.message
    assert hint in str(raised.value.hint)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_says_what_it_is(name: str, tmp_path: Path) -> None:
    entries, what, hint = FOLDERS[name]
    for entry in entries:
        (tmp_path / entry).parent.mkdir(exist_ok=True)
        (tmp_path / entry).write_bytes(b"x")
    with pytest.raises(ReadError) as raised:
        converter.read(tmp_path)
    assert what in raised.value.message
    assert hint in str(raised.value.hint)
