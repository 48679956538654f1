"""A SavedModel of variables alone, as TensorFlow opens it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from tests.conftest import python

_DESCRIBE = """
import json, sys
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
print(json.dumps({
    "all": {variable.name: variable.numpy().tolist() for variable in loaded.variables},
    "trainable": [variable.name for variable in loaded.trainable_variables],
    "dtypes": [variable.dtype.name for variable in loaded.variables],
    "signatures": list(loaded.signatures),
    "optimizer": [variable.numpy().tolist() for variable in loaded.optimizer.variables],
}))
"""
_SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}


def test_tensorflow_opens_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    arrays = {
        "encoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "steps": np.array(7, np.int64),
        "_odd name": np.zeros((0, 2), np.float16),
        "frozen": np.ones(2, np.float32),
    }
    state = OptimizerState(
        algorithm="sgd",
        step=None,
        groups=(ParameterGroup(parameters=("encoder.weight",), hyperparameters=_SGD),),
        slots={"momentum_buffer": {"encoder.weight": ArrayTensor.of(np.full((2, 3), 5, np.float32))}},
    )
    checkpoint = Checkpoint(
        tensors={name: ArrayTensor.of(array) for name, array in arrays.items()},
        frozen=frozenset({"frozen"}),
        optimizer=state,
    )
    converter.write(checkpoint, tmp_path / "out", to="savedmodel", weights_only=True)
    described = python(_DESCRIBE, tmp_path / "out", environment={"TF_CPP_MIN_LOG_LEVEL": "3"})
    assert described.returncode == 0, described.stderr
    facts = json.loads(described.stdout)
    odd = ".>_odd>20>name"
    assert facts["all"] == {
        "encoder.weight:0": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "steps:0": 7,
        f"{odd}:0": [],
        "frozen:0": [1.0, 1.0],
    }
    assert facts["dtypes"] == ["float32", "int64", "float16", "float32"]
    assert facts["trainable"] == ["encoder.weight:0", f"{odd}:0"]
    assert facts["signatures"] == []
    assert [[5.0] * 3] * 2 in facts["optimizer"]
    assert not [each for each in facts["optimizer"] if each in facts["all"].values()]
    assert converter.read(tmp_path / "out").names == tuple(arrays)
