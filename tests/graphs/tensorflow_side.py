"""Sources with graphs of TensorFlow's, to ONNX and run at two shapes: a process of its own for all of them.

``python -m tests.graphs.tensorflow_side ANSWER SOURCE ...`` writes what it found of each source as JSON. Sources
of tests.graphs.tensorflow_sources are among them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import converter
from converter.graphs.description.sample_inputs import sample_inputs, sample_sizes
from converter.graphs.description.signature import Signature
from converter.graphs.run.arrays import read_arrays, write_arrays
from converter.model.checkpoint import Checkpoint
from tests.graphs.tensorflow_sources import make


def examined(path: Path, folder: Path) -> dict[str, Any]:
    """Convert the graph of a source, put the source's weights into it, and run it and the source."""
    checkpoint = converter.read(path)
    source = checkpoint.graph
    if path.name == "own.keras":
        source = source.with_custom_objects(["tests.graphs.own_layers:Gain"], "")
    answer = source.trace(model=str(source.model), graph=str(folder / "graph.onnx"))
    architecture = Signature.from_json(answer)
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    arrays = {
        f"{case}/{name}": array
        for case, sizes in enumerate(sample_sizes(architecture))
        for name, array in sample_inputs(architecture.inputs, seed=case, sizes=sizes).items()
    }
    write_arrays(str(inputs), arrays)
    source.reference(model=str(source.model), inputs=str(inputs), outputs=str(outputs))
    names, session = filled(checkpoint, folder / "graph.onnx")
    expected = read_arrays(str(outputs))
    worst = 0.0
    for case in ("0", "1"):
        given = {each.name: arrays[f"{case}/{each.name}"] for each in architecture.inputs}
        for name, found in zip(architecture.outputs, session.run(list(architecture.outputs), given), strict=True):
            assert found.shape == expected[f"{case}/{name}"].shape
            worst = max(worst, float(np.abs(found - expected[f"{case}/{name}"]).max(initial=0)))
    return {
        "worst": worst,
        "initializers": names,
        "unknown": sorted({*architecture.parameters, *architecture.buffers} - set(checkpoint.names)),
        "unused": sorted(set(checkpoint.names) - set(names)),
        "buffers": sorted(architecture.buffers),
        "inputs": {each.name: list(each.shape) for each in architecture.inputs},
        "outputs": list(architecture.outputs),
    }


def filled(checkpoint: Checkpoint, graph: Path) -> tuple[list[str], Any]:
    import onnx
    import onnx_ir
    import onnxruntime

    model = onnx_ir.load(graph)
    named = [
        name
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    ]
    for name in named:
        model.graph.initializers[name].const_value = onnx_ir.tensor(checkpoint.tensor(name).numpy(), name=name)
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return named, onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    found = {}
    with tempfile.TemporaryDirectory() as made:
        for each in [*map(Path, sys.argv[2:]), *make(Path(made))]:
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    found[each.name] = examined(each, Path(scratch))
                except Exception as error:
                    found[each.name] = {"error": f"{type(error).__name__}: {error}"[:1000]}
    Path(sys.argv[1]).write_text(json.dumps(found))
