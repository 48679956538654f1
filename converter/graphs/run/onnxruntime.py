"""An ONNX model run by onnxruntime, on the CPU. The caller has parsed the file with this program's own reader."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from converter.encoding import protobuf
from converter.encoding.onnx_file import opset_of, read_model
from converter.encoding.onnx_tensors import TYPE_NUMBERS
from converter.errors import GraphError, MissingExtraError
from converter.graphs.passes.old_opsets import FIRST, raise_old
from converter.graphs.passes.precision import compute_exactly
from converter.graphs.run.answers import Answer, TriedGroups
from converter.graphs.run.arrays import read_sets, run_sets
from converter.graphs.run.canary import available_bytes, is_floating, nudged, try_groups, untried
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.tensor import Tensor

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
    "tensor(bfloat16)": "bfloat16",
}  # fmt: skip
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SUFFIX = ".onnx"
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_MODEL_GRAPH, _GRAPH_INPUT, _NODE_OPERATOR = 7, 11, 4
_COPIES = 4
"""Of a model's file, at most, that are in memory while onnxruntime opens it from bytes."""


def run(
    *,
    model: str,
    inputs: str,
    outputs: str,
    canary: str | None = None,
    since: float = 0.0,
    nudge: str | None = None,
    inexact: Sequence[str] = (),
) -> Answer:
    """Run the file `model`, or the one in that folder, on the inputs of an .npz file; write another.

    Inputs are cast to the graph's types. With `nudge` every weight is changed in its last place before; with `canary`,
    an .npz to write, weights are changed afterwards (converter.graphs.run.canary). `inexact` are operators to compute
    in double precision, where others are measured by this. Raises GraphError when the model does not run.
    """
    path = file_of(model)
    sets = read_sets(inputs)
    weights = _FedWeights(path, _mended(path, inexact))
    if nudge is not None:
        for name in weights.sizes():
            weights.write(name, nudged(weights.read(name), name, nudge))
    session = _session(path, weights.content) if nudge is None else weights.session()
    failed = run_sets(sets, outputs, partial(_outputs, session, path=path, weights=weights))
    del session  # that of the canary holds the weights, too
    tried = None if canary is None else _tried(weights, sets, canary=canary, since=since)
    return {"failed": failed, "canary": tried}


def _outputs(session: Any, arrays: Mapping[str, Any], path: Path, weights: _FedWeights) -> dict[str, Any]:
    wanted = {value.name: _DTYPES.get(value.type) for value in session.get_inputs()}
    types = {value.name: _DTYPES.get(value.type) for value in session.get_outputs()}
    feeds = {name: _fed(arrays[name].astype(dtype)) for name, dtype in wanted.items() if name in arrays}
    feeds |= weights.fed
    with _failures(path):
        if _BFLOAT16.name not in types.values():
            return dict(zip(types, session.run([*types], feeds), strict=True))
        values = {name: _as_value(array) for name, array in feeds.items()}
        found = zip(types.items(), session.run_with_ort_values([*types], values), strict=True)
        return {name: _read(value) if dtype == _BFLOAT16.name else value.numpy() for (name, dtype), value in found}


def _fed(array: Any) -> Any:
    """Return an array as onnxruntime takes it: numpy has no bfloat16 that it knows."""
    import onnxruntime

    if array.dtype != _BFLOAT16:
        return array
    number = TYPE_NUMBERS[DType.BFLOAT16]
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view("uint16"), number)


def _as_value(fed: Any) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(fed) if isinstance(fed, np.ndarray) else fed


def _read(value: Any) -> Any:
    """Return the array of bfloat16 in an OrtValue, which its own `numpy` does not."""
    shape = value.shape()
    content = ctypes.string_at(value.data_ptr(), math.prod(shape) * _BFLOAT16.itemsize)
    return np.frombuffer(content, _BFLOAT16).reshape(shape)


def _tried(weights: _FedWeights, sets: Mapping[str, Mapping[str, Any]], *, canary: str, since: float) -> TriedGroups:
    if weights.path.stat().st_size * _COPIES > available_bytes():
        return untried(weights, "memory")
    try:
        session = weights.session()
    except GraphError as error:  # an operator that takes constants alone
        return untried(weights, error.message)
    return try_groups(
        weights, lambda arrays: _outputs(session, arrays, weights.path, weights), sets, path=canary, since=since
    )


class _FedWeights:
    """The initializers of an ONNX file, fed to a session instead of being taken from the file, where they are changed.

    A `converter.graphs.run.canary.Weights`. Since IR version 4 an initializer that is among the graph's inputs, too, is
    a default (https://github.com/onnx/onnx/blob/v1.19.0/docs/IR.md#graphs). `content` is what to open instead of the
    file.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        self.content = content
        model = read_model(LocalFile(path))
        self._tensors = {
            name: tensor
            for name, tensor in model.tensors.items()
            if is_floating(tensor.dtype.numpy) and tensor.nbytes and name not in model.operands
        }
        self.fed: dict[str, Any] = {}

    def session(self) -> Any:
        """Open a session that can be fed. Raises GraphError when onnxruntime does not take weights as inputs."""
        values = [
            protobuf.content_field(_GRAPH_INPUT, _value_info(name, tensor)) for name, tensor in self._tensors.items()
        ]
        # Messages of one type, one after the other, are one message with the repeated fields of both.
        content = self.path.read_bytes() if self.content is None else self.content
        return _session(self.path, content + protobuf.content_field(_MODEL_GRAPH, b"".join(values)))

    def sizes(self) -> Mapping[str, int]:
        return {name: tensor.nbytes for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Any:
        return self._tensors[name].numpy()

    def write(self, name: str, values: Any) -> None:
        self.fed[name] = _fed(values)


def _value_info(name: str, tensor: Tensor) -> bytes:
    extents = b"".join(protobuf.content_field(1, protobuf.number_field(1, extent)) for extent in tensor.shape)
    of_tensor = protobuf.number_field(1, TYPE_NUMBERS[tensor.dtype]) + protobuf.content_field(2, extents)
    return protobuf.content_field(1, name) + protobuf.content_field(2, protobuf.content_field(1, of_tensor))


def _mended(path: Path, inexact: Sequence[str]) -> bytes | None:
    """Return the model with these operators in double precision, and none older than onnxruntime knows.

    None, and little is read, where nothing has to change. External data stay where they are.
    """
    names = [protobuf.content_field(_NODE_OPERATOR, name) for name in inexact]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        is_inexact = any(content.find(name) >= 0 for name in names)
    if not is_inexact and opset_of(LocalFile(path)) >= FIRST:
        return None
    import onnx_ir

    model = onnx_ir.load(path, format="protobuf")
    is_old = raise_old(model)
    if not (is_inexact and compute_exactly(model, inexact)) and not is_old:
        return None
    return bytes(onnx_ir.to_proto(model).SerializeToString())


def check(*, model: str) -> None:
    """Hold the file `model` to the checker of onnx. Raises GraphError when it refuses it."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise GraphError(f"the checker of onnx refuses it: {_in_one_line(error)}", path=model) from error


def open_session(*, model: str) -> None:
    """Open the file `model` in onnxruntime. Raises GraphError when that fails."""
    _session(Path(model))


def file_of(model: str) -> Path:
    """Return the ONNX file that `model` is or has in it. Raises GraphError for none or several."""
    path = Path(model)
    if not path.is_dir():
        return path
    files = sorted(entry for entry in path.iterdir() if entry.name.endswith(_SUFFIX))
    if len(files) != 1:
        raise GraphError(f"holds {len(files)} ONNX models", path=path)
    return files[0]


def _session(path: Path, content: bytes | None = None) -> Any:
    """Open a file, or in its place a model whose external data are in its folder."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnx", "running an ONNX model") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A model is run here once or twice: neither copies of the weights in another layout nor pools are worth it.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    if content is not None:
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(path.absolute().parent))
    with _failures(path):
        return onnxruntime.InferenceSession(
            str(path) if content is None else content, options, providers=["CPUExecutionProvider"]
        )


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # onnxruntime has an exception class of its own for each status code, of no common base but Exception.
        if type(error).__module__.startswith("onnxruntime") or isinstance(error, RuntimeError | ValueError):
            raise GraphError(f"onnxruntime does not run it: {_in_one_line(error)}", path=path) from error
        raise


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
