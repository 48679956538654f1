"""What no format claims: files and folders of this field that are told by what they begin with, and the way out."""

from __future__ import annotations

import re
from collections.abc import Collection

from converter.encoding.leveldb_table import MAGIC

_TF2ONNX = "tf2onnx makes an ONNX file of it: python -m tf2onnx.convert"
_MAGICS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the checkpoint itself", "fetch it with git lfs pull"),
    (0, b"\x1f\x8b", "is compressed with gzip", "decompress it first: gunzip -c FILE > OTHER"),
    (0, b"\x04\x22\x4d\x18", "is compressed with LZ4", "decompress it first: lz4 -d FILE OTHER"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with Zstandard", "decompress it first: zstd -d FILE -o OTHER"),
    (0, b"\xfd7zXZ\x00", "is compressed with xz", "decompress it first: xz -dc FILE > OTHER"),
    (0, b"BZh", "is compressed with bzip2", "decompress it first: bunzip2 -c FILE > OTHER"),
    (0, b"7z\xbc\xaf\x27\x1c", "is an archive of 7-Zip", "unpack it: 7z x FILE"),
    (0, b"GGUF", "is a GGUF file, which is not read", "the folder that it was made from is"),
    (4, b"TFL3", "is a TensorFlow Lite model", f"{_TF2ONNX} --tflite FILE --output model.onnx"),
)
"""Where a file has which bytes, what it is then, and what helps."""

_CORE_ML = re.compile(rb"\x08[\x01-\x0f]\x12")
_TENSORFLOW_JS = re.compile(rb'"(?:modelTopology|weightsManifest)"')
_OF_FLAX = re.compile(r"checkpoint_\d+")


def of_file(name: str, head: bytes, tail: bytes) -> tuple[str, str] | None:
    """Return what a file is, by its name, its first bytes and its last eight, and what helps; None for others."""
    for offset, magic, what, hint in _MAGICS:
        if head.startswith(magic, offset):
            return what, hint
    if tail == MAGIC:
        return "is a table of keys and values, and no checkpoint of TensorFlow", "--from tf-checkpoint says why"
    if name.endswith(".meta"):
        return "is the graph of a TensorFlow 1 checkpoint, without its weights", f"give {name.removesuffix('.meta')}"
    if name.endswith(".mlmodel") and _CORE_ML.match(head):
        return "is a Core ML model", "the model that it was converted from is read"
    if name.endswith(".pbtxt"):
        return "is a graph of TensorFlow as text", "TensorFlow writes its variables: tf.compat.v1.train.Saver().save"
    if _TENSORFLOW_JS.search(head):
        return "is a model of TensorFlow.js", "tensorflowjs_converter --output_format keras makes an .h5 of it"
    return None


def of_folder(entries: Collection[str]) -> tuple[str, str] | None:
    """Return what a folder is by what is in it, and what helps; None for others."""
    if "_CHECKPOINT_METADATA" in entries or {"_METADATA", "manifest.ocdbt"} & set(entries):
        restore = "orbax.checkpoint.PyTreeCheckpointer().restore(FOLDER)"
        return "is a checkpoint of Orbax, which is not read", f"flax.serialization.to_bytes({restore}) is a .msgpack"
    of_flax = sorted((name for name in entries if _OF_FLAX.fullmatch(name)), key=lambda name: (len(name), name))
    if of_flax:
        return f"holds {len(of_flax)} checkpoints of Flax", f"give one: {of_flax[-1]} is the newest"
    if "Manifest.json" in entries and "Data" in entries:
        return "is a Core ML package", "the model that it was converted from is read"
    return None
