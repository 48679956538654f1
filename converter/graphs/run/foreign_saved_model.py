"""A SavedModel from elsewhere, run by TensorFlow: only after its graph was found to compute and do nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from converter.encoding.folder import open_inside
from converter.errors import GraphError
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.run.arrays import read_inputs, write_outputs
from converter.graphs.trace.tensorflow import operators
from converter.graphs.trace.tensorflow.saved_model import GRAPH_NAME, signature_name

_VARIABLES = "variables"


def run(*, model: str, architecture: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Call the signature that is converted, on the inputs of an .npz file; write another.

    TensorFlow is given the very bytes that were inspected, and the variables beside them, but no assets. Raises
    SafetyError for a graph with an operator that is not known to compute alone, GraphError when it fails.
    """
    folder = Path(model)
    file = open_inside(folder, GRAPH_NAME)
    data = file.read(0, file.size)
    operators.check(data, os.fspath(file.path))
    with tempfile.TemporaryDirectory(dir=Path(outputs).parent, prefix="source-") as copy:
        Path(copy, GRAPH_NAME).write_bytes(data)
        os.symlink(folder.absolute() / _VARIABLES, Path(copy, _VARIABLES))
        try:
            loaded = tf.saved_model.load(copy)
            function = loaded.signatures[signature_name(data, folder)]
            results = {number: _called(function, arrays) for number, arrays in read_inputs(inputs).items()}
        except (KeyError, ValueError, tf.errors.OpError) as error:
            raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}


def _called(function: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    types = {name: specification.dtype for name, specification in function.structured_input_signature[1].items()}
    result = function(**{name: tf.cast(arrays[name], dtype) for name, dtype in types.items()})
    return {name: tensor.numpy() for name, tensor in result.items()}
