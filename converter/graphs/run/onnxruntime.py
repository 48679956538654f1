"""An ONNX model run by onnxruntime, on the CPU. The caller has parsed the file with this program's own reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converter.errors import GraphError, MissingExtraError
from converter.graphs.run.arrays import read_inputs, write_outputs

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip
_SUFFIX = ".onnx"


def run(*, model: str, architecture: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Run the file `model`, or the one in that folder, on the inputs of an .npz file; write another.

    Inputs are cast to the graph's types. `architecture` is not needed, and is taken so that every runner is called
    alike. Returns `missing` and `unexpected`, both empty. Raises GraphError when the model does not run.
    """
    path = file_of(model)
    session = _session(path)
    wanted = {value.name: _DTYPES.get(value.type) for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    results = {}
    for number, arrays in read_inputs(inputs).items():
        feeds = {name: arrays[name].astype(dtype) for name, dtype in wanted.items() if name in arrays}
        with _failures(path):
            results[number] = dict(zip(names, session.run(names, feeds), strict=True))
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}


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


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnx", "running an ONNX model") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # A model is run here once or twice: neither copies of the weights in another layout nor pools are worth it.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    with _failures(path):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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
