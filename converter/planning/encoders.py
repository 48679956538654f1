"""The graph of a model of transformers inside a Keras model, for the graph of the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from converter.dialects.transformers.heads import ModelInside, is_head, only_model_inside
from converter.dialects.transformers.tensorflow_classes import class_of_layer
from converter.errors import GraphError
from converter.execution.child import require
from converter.execution.workshop import LocalWorkshop
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.graphs.fitting.layout_steps import steps_back
from converter.graphs.trace.tensorflow.encoder_config import states_of_calls
from converter.graphs.trace.tensorflow.keras_2 import mixed_policy
from converter.model.checkpoint import Checkpoint
from converter.planning.tracing import trace_class

_CONFIG_NAME, _GRAPH_NAME = "encoder.json", "encoder.onnx"


def model_inside(graph: GraphSource, source: Checkpoint) -> ModelInside | None:
    """Return the layer of a Keras model that is a model of transformers. Raises ArchitectureError for several."""
    if not graph.trace.takes("encoder"):
        return None
    hint = "the same model by model.save(folder) has a graph of its own"
    return only_model_inside(source.keras_config, problem="a graph is made of one", hint=hint)


def with_encoder(
    graph: GraphSource, planned: Checkpoint, source: Checkpoint, opset: int | None, workshop: LocalWorkshop
) -> tuple[GraphSource, tuple[str, ...]]:
    """Return the graph of a Keras model with what its layer that is a model of transformers computes, and notes on it.

    `planned` has the names that PyTorch's class has. A graph that needs nothing is returned as it is. Raises
    what `model_inside` and tracing the class raise.
    """
    model = model_inside(graph, source)
    if model is None:
        return graph, ()
    require("torch", "tracing a model of transformers")
    architecture = class_of_layer(model.class_name).removeprefix("TF")
    config, file = workshop.scratch / _CONFIG_NAME, workshop.scratch / _GRAPH_NAME
    states = (
        {} if source.keras_config is None else states_of_calls(source.keras_config.values, model.layer, model.config)
    )
    config.write_text(json.dumps({**model.config, "architectures": [architecture], **states}))
    signature = trace_class(architecture, config=config, graph=file, opset=opset, workshop=workshop, as_tensorflow=True)
    weights = dict(_weights(signature, planned, source))
    absent = [name for name in (*signature.parameters, *signature.buffers) if name not in weights]
    places = {name: place for place, name in (graph.trace.arguments.get("places") or {}).items()}
    encoder = {
        "layer": model.layer,
        "class_name": model.class_name,
        "graph": os.fspath(file),
        "variables": [
            {
                "name": name,
                "shape": list(source.tensor(name).shape),
                "dtype": source.tensor(name).dtype.value,
                "place": places.get(name),
            }
            for name in _own(planned, source)
        ],
        "weights": weights,
        "absent": absent,
    }
    note = (
        f"{model.layer} is computed as PyTorch's {architecture} does, in what outputs are compared with, too: "
        f"there is no {model.class_name} in transformers 5"
    )
    policy = mixed_policy(source.keras_config.values) if source.keras_config is not None else None
    if policy is not None:
        note += f"; it computes in float32, and gives what {policy} has layers give"
    return graph.with_encoder(encoder), (note,)


def _own(planned: Checkpoint, source: Checkpoint) -> list[str]:
    """Return the source's names of the model's variables, in its order."""
    heads = {planned.origin(name) for name in planned.names if is_head(name)}
    return [name for name in source.names if source.origin(name) not in heads]


def _weights(signature: Signature, planned: Checkpoint, source: Checkpoint) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield for each weight of the class that the file has which variable it is, and what makes it of that."""
    by_origin = {source.origin(name): name for name in source.names}
    for name in (*signature.parameters, *signature.buffers):
        tied = [alias for alias, owner in signature.ties.items() if owner == name]
        found = next((each for each in (name, *tied) if each in planned), None)
        variable = None if found is None else by_origin.get(planned.origin(found))
        if found is None or variable is None:
            continue
        steps = steps_back(source.tensor(variable), planned.tensor(found))
        if steps is None:
            raise GraphError(f"{signature.title} has it in several pieces, the Keras model in one", tensor=name)
        yield name, {"variable": variable, "steps": [[step.kind, list(step.values)] for step in steps]}
