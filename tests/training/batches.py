"""The batches that every framework trains on, step by step the same."""

from __future__ import annotations

from typing import Any

import numpy as np

STEPS = 20
"""Steps before the conversion, and after it."""
VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS, LABELS = 50, 6, 8, 2, 2, 4

Batch = tuple[dict[str, Any], Any]


def batch(kind: str, step: int) -> Batch:
    """Return inputs by name, and labels. Images have channels last; no token is the padding, which BERT of torch does
    not train.

    The encoder of Keras 3 takes one-hot rows, not numbers: Keras 3.15 on TensorFlow squares the gradients of rows of an
    Embedding that come twice one by one, where PyTorch and tf_keras add them up first, so that two runs with an
    Embedding part whatever was converted.
    """
    generator = np.random.default_rng([7, step])
    labels = generator.integers(0, LABELS, 16)
    if kind == "mlp":
        return {"x": generator.normal(size=(16, 8)).astype(np.float32)}, labels
    if kind == "cnn":
        return {"x": generator.normal(size=(16, 4, 4, 3)).astype(np.float32)}, labels
    ids = generator.integers(1, VOCABULARY, (16, LENGTH)).astype(np.int32)
    if kind == "bert":
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}, labels
    places = np.broadcast_to(np.arange(LENGTH), ids.shape)
    return {
        "ids": np.eye(VOCABULARY, dtype=np.float32)[ids],
        "places": np.eye(LENGTH, dtype=np.float32)[places],
    }, labels


def batches(kind: str, *, is_resumed: bool) -> list[Batch]:
    """Return the batches before the conversion, or those after it."""
    start = STEPS if is_resumed else 0
    return [batch(kind, step) for step in range(start, start + STEPS)]
