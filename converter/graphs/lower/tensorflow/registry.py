"""The op table of TensorFlow: values are tensors, numpy arrays (known while the graph is built), None, or lists.

None is an input left out, a list a sequence.
"""

from __future__ import annotations

import importlib
from functools import cache

from converter.graphs.lower.registry import Registry, refuse

__all__ = ["REGISTRY", "refuse", "registry"]

_FAMILIES = (
    "elementwise",
    "casting",
    "creation",
    "shapes",
    "indexing",
    "linear_algebra",
    "convolution",
    "pooling",
    "resizing",
    "reduction",
    "normalisation",
    "sequences",
    "control_flow",
    "text",
    "attention",
    "recurrent",
    "signal",
    "detection",
    "random",
    "quantisation",
    "losses",
)

REGISTRY = Registry()


@cache
def registry() -> Registry:
    """Return the op table with all families in it."""
    for family in _FAMILIES:
        importlib.import_module(f"converter.graphs.lower.tensorflow.{family}")
    return REGISTRY
