"""Code of layers of one's own that does not run: the line says where, for which Keras it is, and what to do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, GraphError, UsageError

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx")

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-mixed"
OWN = "tests.graphs.keras_2_layers:Gain,Widened"
without_tf_keras = pytest.mark.skipif(
    importlib.util.find_spec("tf_keras") is not None, reason="tf_keras is here, and runs it: tests/oracle"
)

Places = tuple[Path, pytest.MonkeyPatch]


@without_tf_keras
@pytest.mark.parametrize("source", ["own.h5", "own.keras", "own-encoder.keras"])
@pytest.mark.parametrize("target", ["out.onnx", "out.pt2"])
def test_code_for_keras_2_without_tf_keras(source: str, target: str, tmp_path: Path) -> None:
    own = OWN if source.startswith("own.") else OWN.replace("Gain,", "")
    with pytest.raises(ArchitectureError) as caught:
        converter.convert(FIXTURES / source, tmp_path / target, custom_objects=(own,))
    said = "is of Keras 2, and Keras 3 does not run the code of --custom-objects, which is for Keras 2 "
    assert re.match(rf"{re.escape(said)}\(keras_2_layers\.py, line \d+\): \S", caught.value.message)
    assert caught.value.hint == "pip install tf-keras, which runs it, or write it for Keras 3"
    assert caught.value.exit_code == 2
    assert not (tmp_path / target).exists()


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, **lines: str) -> None:
    """A module `mine` where the command is run: a layer whose methods are these."""
    methods = "".join(f"    def {name}:\n        {line}\n" for name, line in lines.items())
    (folder / "mine.py").write_text(f"import keras\n\nclass Mine(keras.layers.Layer):\n{methods}")
    monkeypatch.chdir(folder)


def saved(folder: Path) -> Path:
    """A file of Keras 3 with a layer of that name."""

    class Mine(keras.layers.Layer):
        def call(self, x):
            return x * 2

    inputs = keras.Input((3,), name="x")
    keras.Model(inputs, keras.layers.Dense(2)(Mine()(inputs))).save(folder / "model.keras")
    return folder / "model.keras"


@pytest.mark.parametrize(
    "methods", [{"build(self, shape)": "shape.as_list()"}, {"call(self, x)": "raise TypeError('no way')"}]
)
def test_code_that_fails_in_the_keras_of_the_file(
    methods: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path)
    module(tmp_path, monkeypatch, **methods)
    with pytest.raises(GraphError) as caught:
        converter.convert(source, tmp_path / "out.onnx", custom_objects=("mine:Mine",))
    said = r"the code of --custom-objects does not run in Keras 3(?: or tf_keras)?; mine\.py, line 5 in Keras 3: "
    assert re.match(said, caught.value.message)
    assert "Error:" not in caught.value.message


def test_code_that_fails_while_it_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path)
    module(tmp_path, monkeypatch, **{"call(self, x)": "return x if isinstance(x, keras.KerasTensor) else x.numpy()"})
    with pytest.raises(GraphError, match=r"does not run in Keras 3; mine\.py, line 5 in Keras 3: "):
        converter.convert(source, tmp_path / "out.onnx", custom_objects=("mine:Mine",))


@pytest.mark.parametrize("line", ["import nowhere_at_all", "raise AttributeError('no such layer')"])
def test_code_that_is_not_imported(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path)
    (tmp_path / "mine.py").write_text(f"{line}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"--custom-objects: mine cannot be imported: [Nn]o "):
        converter.convert(source, tmp_path / "out.onnx", custom_objects=("mine:Mine",))


@without_tf_keras
def test_code_that_imports_tf_keras_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("import tf_keras\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CkconvError) as caught:
        converter.convert(FIXTURES / "own.h5", tmp_path / "out.onnx", custom_objects=("mine:Gain,Widened",))
    assert caught.value.hint == "pip install tf-keras: the file is of Keras 2"
