"""SavedModels with tables, to ONNX and run: a process of its own for all of them.

``python -m tests.graphs.lookup_side FOLDER [KIND ...]`` makes those of tests.graphs.lookup_sources below FOLDER, and
writes what it found of each as FOLDER/answer.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from converter.graphs.description.cases import sample_cases
from converter.graphs.description.signature import Signature
from converter.graphs.run import foreign_saved_model
from converter.graphs.run.arrays import read_sets, write_sets
from converter.graphs.trace.tensorflow.saved_model import trace
from converter.graphs.trace.tensorflow.serving import serve
from tests.graphs.lookup_sources import SOURCES


def examined(model: Path, scratch: Path) -> dict[str, Any]:
    """Convert what a SavedModel serves, and compare it on every set of inputs that a conversion has."""
    graph = scratch / "graph.onnx"
    architecture = Signature.from_json(trace(model=str(model), graph=str(graph)))
    sets = {str(number): case.arrays for number, case in enumerate(sample_cases(architecture).cases)}
    inputs, outputs = str(scratch / "inputs.npz"), str(scratch / "outputs.npz")
    write_sets(inputs, sets)
    told = foreign_saved_model.run(model=str(model), inputs=inputs, outputs=outputs)
    expected = read_sets(outputs)
    session = session_of(model, graph)
    worst = 0.0
    for number, arrays in expected.items():
        for name, found in zip(
            architecture.outputs, session.run(list(architecture.outputs), sets[number]), strict=True
        ):
            assert (found.shape, found.dtype) == (arrays[name].shape, arrays[name].dtype)
            if not np.array_equal(found, arrays[name]):
                worst = max(worst, float(np.abs(found.astype(float) - arrays[name]).max()))
    operators = {node.op_type for node in onnx.load(graph, load_external_data=False).graph.node}
    return {
        "worst": worst,
        "sets": len(sets),
        "failed": told["failed"],
        "notes": list(architecture.notes),
        "asked": sorted({int(each) for arrays in sets.values() for array in arrays.values() for each in array.flat}),
        "operators": sorted(operators),
    }


def session_of(model: Path, graph: Path) -> Any:
    """Return a session of the graph with the weights of the source."""
    loaded = onnx.load(graph, load_external_data=False)
    held = {each.variable.name: each.tensor.numpy() for each in serve(model).variables.values()}
    for each in loaded.graph.initializer:
        if each.data_location == onnx.TensorProto.EXTERNAL:
            each.CopyFrom(onnx.numpy_helper.from_array(held[each.name], each.name))
    return onnxruntime.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    folder, answer = Path(sys.argv[1]), {}
    for kind in sys.argv[2:] or SOURCES:
        place = folder / kind.replace(" ", "-")
        place.mkdir()
        try:
            SOURCES[kind](place / "model")
            answer[kind] = examined(place / "model", place)
        except Exception as error:
            answer[kind] = {"error": f"{type(error).__name__}: {error}"[:1000]}
    (folder / "answer.json").write_text(json.dumps(answer))
