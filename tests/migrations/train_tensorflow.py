"""Targets as tf_keras goes on training them, in the second environment: tasks on standard input."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf
import transformers

from tests.migrations import tensorflow_models
from tests.migrations.judging import Arrays, Case, Judge, WrongError, answer
from tests.migrations.steps import of_tensorflow

keras = tf.keras


def _trained(case: Case, model: Any, optimizer: Any) -> Arrays:
    inputs = dict(case.inputs)
    padding_rows = {"word_embeddings": 0} if case.source.maker == "torch" else {}

    def compute() -> dict[str, Any]:
        found = model(inputs, training=False)
        return {"": found} if isinstance(found, tf.Tensor) else {name: found[name] for name in case.outputs}

    return {name: value.numpy() for name, value in of_tensorflow(model, optimizer, compute, padding_rows).items()}


def _built(case: Case) -> Any:
    """Return the model as its author builds and compiles it."""
    made = getattr(tensorflow_models, case.source.group)()
    model = made[0] if isinstance(made, tuple) else made
    model(dict(case.inputs))
    model.compile(optimizer=getattr(keras.optimizers, case.source.optimizer)(1e-3), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def whole(case: Case) -> Arrays:
    """Open what is whole; load weights into the model that their author would build anew."""
    if case.source.is_whole or case.target == "keras":
        more = {"safe_mode": False} if case.path.suffix == ".keras" else {}
        model = keras.models.load_model(case.path, custom_objects=tensorflow_models.OWN, **more)
        if model.optimizer is None:
            raise WrongError("it has no optimizer")
    else:
        model = _built(case)
        model.load_weights(str(case.path))
    return _trained(case, model, model.optimizer)


def pretrained(case: Case) -> Arrays:
    """As README's "Training goes on" says it for a TensorFlow class."""
    model = getattr(transformers, f"TF{case.source.model}").from_pretrained(case.path)
    optimizer = keras.optimizers.deserialize(json.loads((case.path / "optimizer.json").read_text()))
    optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(optimizer=optimizer).restore(str(case.path / "optimizer")).assert_existing_objects_matched()
    return _trained(case, model, optimizer)


JUDGES: dict[str, Judge] = {"h5": whole, "keras": whole, "tf": pretrained}

if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    answer(JUDGES)
