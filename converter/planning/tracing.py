"""The graph of a class of transformers, as both a config.json and a layer of a Keras model need it."""

from __future__ import annotations

import os
from pathlib import Path

from converter.execution.workshop import LocalWorkshop
from converter.graphs import calls
from converter.graphs.description.signature import Signature


def trace_class(
    architecture: str,
    *,
    config: Path,
    graph: Path,
    opset: int | None,
    workshop: LocalWorkshop,
    with_cache: bool = False,
    padding_rows: bool = False,
    as_tensorflow: bool = False,
) -> Signature:
    """Trace the class `architecture`, built from the file `config`, into the ONNX file `graph`. Needs the extra torch.

    With `padding_rows` those of embeddings are not trained, as PyTorch has it; TensorFlow's classes train them.
    With `as_tensorflow` padding is computed as they do.

    Raises what `calls.trace_transformers` raises.
    """
    workshop.observer.stage(f"tracing {architecture}")
    answer = workshop.call(
        calls.trace_transformers,
        config=os.fspath(config),
        architecture=architecture,
        graph=os.fspath(graph),
        with_cache=with_cache,
        opset=opset,
        padding_rows=padding_rows,
        as_tensorflow=as_tensorflow,
    )
    return Signature.from_json(answer)
