"""Layers of one's own whose code is for Keras 2, where tf_keras is at hand: their models become graphs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.oracle.environment import PYTHON, ROOT

FIXTURES = ROOT / "fixtures" / "keras-mixed"
OWN = "tests.graphs.keras_2_layers:Gain,Widened"
CASES = [("own.h5", OWN), ("own.keras", OWN), ("own-encoder.keras", OWN.replace("Gain,", ""))]
FOR_KERAS_3 = """
import keras

class Gain(keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=shape[-1:])
        self.shift = self.add_weight(name="shift", shape=shape[-1:])

    def call(self, x):
        return x * self.gain + self.shift

class Widened(keras.layers.Layer):
    def __init__(self, units=5, **keywords):
        super().__init__(**keywords)
        self.units, self._inner = units, keras.layers.Dense(units)

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.units))
        self.factor = self.add_weight(name="factor", shape=(), trainable=False)
        self._inner.build(shape)

    def call(self, x):
        return keras.ops.matmul(x, self.kernel) * self.factor + self._inner(x)
"""


@pytest.fixture(scope="module")
def tf_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the tf_keras of the second environment, whose TensorFlow is of the same version."""
    told = subprocess.run(
        [PYTHON, "-c", "import importlib.util as u; print(u.find_spec('tf_keras').submodule_search_locations[0])"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(told.stdout.strip(), folder / "tf_keras", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def converted(source: Path, target: Path, own: str, packages: Path, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(packages), str(target.parent)])
    options = ["--custom-objects", own, "--json", "--no-progress"]
    return subprocess.run(
        [sys.executable, "-m", "converter", str(source), str(target), *options],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def stored(source: str) -> dict[str, Any]:
    with np.load(FIXTURES / f"{source.partition('.')[0]}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("source", "own"), [*CASES, ("own.h5", "mine:Gain,Widened")])
def test_the_graph_computes_what_tf_keras_did(source: str, own: str, tf_keras: Path, tmp_path: Path) -> None:
    """Code that has become that of Keras 3 since is run by it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    (tmp_path / "mine.py").write_text(FOR_KERAS_3)
    done = converted(FIXTURES / source, tmp_path / "out.onnx", own, tf_keras)
    assert done.returncode == 0, done.stderr[-1000:]
    assert json.loads(done.stdout)["verification"]["outputs"]
    arrays = stored(source)
    inputs = {name.removeprefix("in:"): each for name, each in arrays.items() if name.startswith("in:")}
    session = onnxruntime.InferenceSession(str(tmp_path / "out.onnx"))
    (found,) = session.run(None, inputs)
    (wanted,) = (each for name, each in arrays.items() if name.startswith("out:"))
    (type_of,) = arrays["types"]
    assert found.dtype.name == type_of.partition(":")[2]
    close = 1e-2 if found.dtype.name == "float16" else 1e-5
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=close, atol=close * np.abs(wanted).mean())


def test_code_that_asks_for_the_legacy_keras_itself(tf_keras: Path, tmp_path: Path) -> None:
    done = converted(FIXTURES / "own.h5", tmp_path / "out.onnx", OWN, tf_keras, TF_USE_LEGACY_KERAS="1")
    assert done.returncode == 0, done.stderr[-1000:]
