"""The graph of a Keras model, as the readers of Keras's formats hand it on: its config, and what is stored where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.errors import CkconvError, SafetyError
from converter.graphs.calls import run_keras, trace_keras
from converter.graphs.description.source import GraphSource
from converter.graphs.trace.tensorflow import keras_config
from converter.model.file import Location, absolute


def is_hostile(config: Mapping[str, Any]) -> bool:
    """Whether a Keras config must be refused (exit 5) when a graph is made of it."""
    try:
        keras_config.check(config, ())
    except SafetyError:
        return True
    except CkconvError:
        return False
    return False


def graph_source(
    path: Location,
    config: Mapping[str, Any],
    *,
    elements: int,
    layers: Sequence[tuple[str, Sequence[str]]] | None = None,
    places: Mapping[str, str] | None = None,
) -> GraphSource:
    """Return the graph of the model in the file `path`, whose tensors have that many `elements`.

    `layers` or `places` are as converter.graphs.trace has them.
    """
    named: dict[str, Any] = {"places": dict(places or {})}
    if layers is not None:
        named = {"layers": [[name, list(held)] for name, held in layers]}
    return GraphSource(
        model=absolute(path),
        trace=trace_keras.with_arguments(config=config, elements=elements, **named),
        reference=run_keras.with_arguments(config=config, elements=elements),
        extra="tensorflow",
    )
