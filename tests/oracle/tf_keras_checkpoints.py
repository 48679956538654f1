"""Checkpoints of a model of tf_keras, run in the second environment: ``save FOLDER`` writes, ``load FOLDER`` restores.

`load` restores copies, in `FOLDER/<optimizer>-weights-copy` and `FOLDER/<optimizer>-objects-copy`, as `save` wrote the
sources, and fails where a value is left over, missing or another.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

OPTIMIZERS = ("new", "legacy")
_X = np.linspace(-1, 1, 32).reshape(8, 4).astype(np.float32)
_Y = np.linspace(0, 1, 16).reshape(8, 2).astype(np.float32)


def _model(optimizer: str, steps: int) -> Any:
    tf_keras.utils.set_random_seed(steps)
    layers = [tf_keras.layers.Dense(3, name="one"), tf_keras.layers.BatchNormalization(name="norm")]
    model = tf_keras.Sequential([tf_keras.Input((4,)), *layers, tf_keras.layers.Dense(2, name="two")])
    kinds = {"new": tf_keras.optimizers.Adam, "legacy": tf_keras.optimizers.legacy.Adam}
    model.compile(kinds[optimizer](0.01), "mse", metrics=["mae"])
    model.fit(_X, _Y, epochs=steps, batch_size=8, verbose=0)
    return model


def _objects(model: Any) -> Any:
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer, step=tf.Variable(0, dtype=tf.int64))


def _same(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def _main(mode: str, folder: Path) -> None:
    for optimizer in OPTIMIZERS:
        source = _model(optimizer, 3)
        if mode == "save":
            source.save_weights(str(folder / f"{optimizer}-weights" / "ckpt"))
            _objects(source).save(str(folder / f"{optimizer}-objects" / "ckpt"))
            continue
        found = _model(optimizer, 1)
        found.load_weights(str(folder / f"{optimizer}-weights-copy" / "ckpt")).assert_consumed()
        _same(found.get_weights(), source.get_weights())
        found = _model(optimizer, 1)
        _objects(found).restore(str(folder / f"{optimizer}-objects-copy" / "ckpt")).assert_consumed()
        _same(found.get_weights(), source.get_weights())
        states = [each.optimizer.variables for each in (found, source)]
        _same(*(list(each() if callable(each) else each) for each in states))
    print("restored")


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
