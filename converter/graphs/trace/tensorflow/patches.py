"""Layers of Keras 3.15 that tf2onnx cannot follow, as others that compute the same, while a model is traced.

And one that does not compute what it says, while it is traced or called; and convolutions that TensorFlow 2.21 writes
as others than they are.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from converter.graphs.trace.patches import replaced
from converter.graphs.trace.tensorflow.own_code import framework_of


@contextmanager
def convertible(model: Any) -> Iterator[None]:
    """Patch what a model of Keras 3 may have, and undo it afterwards."""
    if framework_of(model) != "keras":
        yield
        return
    owner = importlib.import_module("keras.src.layers.rnn.time_distributed").TimeDistributed
    mapped = owner.call

    def call(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        is_masked = mask is not None and self.layer._call_has_mask_arg
        if is_masked or inputs.shape[1] is not None:
            return mapped(self, inputs, training=training, mask=mask)
        return _at_once(self.layer, inputs, training)

    with replaced(owner, "call", call):
        yield


@contextmanager
def dilated() -> Iterator[None]:
    """Let a dilated convolution be one operator.

    But on a TPU, TensorFlow lays what it takes out in so many batches, whose number and padding depend on its extents.
    """
    nn_ops = importlib.import_module("tensorflow.python.ops.nn_ops")
    with replaced(nn_ops, "device_context", SimpleNamespace(enclosing_tpu_context=lambda: nn_ops)):
        yield


@contextmanager
def biased_by_channels(model: Any) -> Iterator[None]:
    """Let layers of Keras 3 with channels first add their bias to them, however long the last axis is.

    Where it is as long as there are channels, `add` of keras/src/backend/tensorflow/numpy.py goes along it.
    """
    if framework_of(model) != "keras":
        yield
        return
    import tensorflow as tf

    owner = importlib.import_module("keras.src.backend.tensorflow.numpy")
    original = owner.add

    def add(x1: Any, x2: Any) -> Any:
        is_alike = tf.is_tensor(x1) and tf.is_tensor(x2) and x1.dtype == x2.dtype
        is_along_another = is_alike and (x2.shape.rank or 0) > 1 and x2.shape[-1] == 1
        return tf.add(x1, x2) if is_along_another else original(x1, x2)

    with replaced(owner, "add", add):
        yield


def _at_once(layer: Any, inputs: Any, training: Any) -> Any:
    """Call `layer` on the steps of all sequences as one batch: Keras maps it over any number of steps, in a loop."""
    import tensorflow as tf

    shape = tf.shape(inputs)
    steps = tf.reshape(inputs, tf.concat([[-1], shape[2:]], 0))
    steps.set_shape([None, *inputs.shape[2:]])
    arguments = {"training": training} if layer._call_has_training_arg else {}
    found = layer.call(steps, **arguments)
    result = tf.reshape(found, tf.concat([shape[:2], tf.shape(found)[1:]], 0))
    result.set_shape([*inputs.shape[:2], *found.shape[1:]])
    return result
