"""The op table of PyTorch. What the values are, `framework` says."""

from __future__ import annotations

import importlib
from functools import cache

from converter.graphs.lower.registry import Registry, refuse

__all__ = ["REGISTRY", "refuse", "registry"]

_FAMILIES = (
    "elementwise",
    "casting",
    "creation",
    "random",
    "shapes",
    "indexing",
    "linear_algebra",
    "convolution",
    "pooling",
    "resizing",
    "detection",
    "reduction",
    "normalisation",
    "recurrent",
    "quantisation",
    "losses",
    "signal",
    "sequences",
    "control_flow",
)

REGISTRY = Registry()


@cache
def registry() -> Registry:
    """Return the op table with all families in it."""
    for family in _FAMILIES:
        importlib.import_module(f"converter.graphs.lower.torch.{family}")
    return REGISTRY
