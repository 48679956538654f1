"""The graph of a Keras model, as the readers of Keras's formats hand it on: its config, and what is stored where."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converter.errors import CkconvError, SafetyError
from converter.graphs.calls import run_keras, trace_keras
from converter.graphs.description.source import GraphSource
from converter.graphs.trace.tensorflow import encoder_config, keras_config
from converter.model.checkpoint import Listing
from converter.model.file import Location, absolute
from converter.model.tensor import Tensor


def is_hostile(config: Mapping[str, Any]) -> bool:
    """Whether a Keras config must be refused (exit 5) when a graph is made of it."""
    try:
        keras_config.check(config, ())
    except SafetyError:
        return True
    except CkconvError:
        return False
    return False


def names_in_vain(graph: GraphSource, custom_objects: Sequence[str]) -> list[str]:
    """Return which names of the user's own code the config of a Keras model has no use for.

    Raises UsageError for what names no code.
    """
    names = keras_config.names_of_users(custom_objects)
    config = graph.trace.arguments.get("config")
    return [] if config is None else keras_config.in_vain(config, names)


def check(graph: GraphSource, encoder: Mapping[str, Any] | None) -> None:
    """Raise what building a Keras model would refuse its config for, before the framework that builds it starts.

    `encoder` is the `layer` that is a model of transformers, and its `class_name`: its own graph stands in for it.
    """
    arguments = graph.trace.arguments
    if "config" in arguments:
        names = keras_config.names_of_users(arguments.get("custom_objects", ()))
        encoder_config.checked(arguments["config"], names, encoder)


def graph_source(
    path: Location,
    config: Mapping[str, Any],
    tensors: Iterable[Tensor],
    listing: Listing,
    recipes: Mapping[str, Sequence[object]] | None = None,
) -> GraphSource:
    """Return the graph of a model with the weights in the file `path`: `tensors`, ties once, and where it has them.

    `recipes` say how the variables of layers are made of those of a file that Keras does not load any more.
    """
    elements = sum(math.prod(each.shape) for each in tensors)
    named: dict[str, Any]
    if listing.format == "h5":
        named = {"layers": [[layer, [name for _, name in pairs]] for layer, pairs in listing.layers.items() if pairs]}
    else:
        pairs_of = listing.layers.items()
        named = {
            "places": {
                f"{place}/vars/{called}".lstrip("/"): name for place, pairs in pairs_of for called, name in pairs
            }
        }
    made = {} if recipes is None else {"recipes": recipes}
    return GraphSource(
        model=absolute(path),
        trace=trace_keras.with_arguments(config=config, elements=elements, **named),
        reference=run_keras.with_arguments(config=config, elements=elements, **made),
        extra="tensorflow",
    )
