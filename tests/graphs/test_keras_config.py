"""What the config of a Keras model may name before Keras sees it, in files whose weights are those of a real model."""

from __future__ import annotations

import importlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import h5py
import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, GraphError, SafetyError, UsageError
from converter.execution import child
from converter.graphs.description.sample_inputs import sample_inputs
from converter.graphs.description.signature import GraphInput
from converter.graphs.trace.tensorflow import keras_config
from converter.model.dtype import DType

FIXTURE = Path(__file__).parents[2] / "fixtures/graphs/siamese.keras"
CODE = {"class_name": "__lambda__", "config": {"value": "4wEAAA==", "defaults": None, "closure": None}}


def config() -> dict[str, Any]:
    with zipfile.ZipFile(FIXTURE) as archive:
        values: dict[str, Any] = json.loads(archive.read("config.json"))
    return values


def layer(values: dict[str, Any], class_name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in values["config"]["layers"] if each["class_name"] == class_name)
    return found


def changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: layer(values, "Subtract").update(changes)


HOSTILE = {
    "lambda": changed(class_name="Lambda", config={"name": "subtract", "function": CODE}),
    "lambda-code-alone": lambda values: layer(values, "Dense")["config"].update(activation=CODE),
    "module-of-python": changed(module="os", class_name="system", registered_name="system"),
    "builtins": changed(module="builtins", class_name="eval", registered_name=None),
    "function-of-python": lambda values: layer(values, "Dense")["config"].update(
        activation={"class_name": "function", "module": "subprocess", "config": "run", "registered_name": "function"}
    ),
    "other-parts-of-keras": changed(module="keras.utils", class_name="get_file", registered_name=None),
    "saved-model-layer": changed(class_name="TFSMLayer", config={"filepath": "/tmp/x"}),
    "vocabulary-file": lambda values: layer(values, "Dense")["config"].update(vocabulary="/etc/passwd"),
    "tensorflow-function": changed(class_name="TFOpLambda", config={"function": "io.write_file"}),
}


def written(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The fixture with another config."""
    values = config()
    change(values)
    with zipfile.ZipFile(FIXTURE) as source, zipfile.ZipFile(tmp_path / "model.keras", "w") as target:
        for name in source.namelist():
            data = json.dumps(values).encode() if name == "config.json" else source.read(name)
            target.writestr(name, data)
    return tmp_path / "model.keras"


@pytest.mark.framework
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_config_that_is_a_program_is_refused_and_its_weights_convert(kind: str, tmp_path: Path) -> None:
    keras_config.check(config(), frozenset())
    source = written(tmp_path, HOSTILE[kind])
    converter.convert(source, tmp_path / "w.safetensors")
    with pytest.raises(SafetyError) as caught:
        converter.convert(source, tmp_path / "out", to="savedmodel")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "out").exists()


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No framework is missing, and no process starts."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a process starts")

    for name in ("call_all", "start_ahead"):
        monkeypatch.setattr(child, name, fail)
    for module in ("plan", "graph"):
        monkeypatch.setattr(importlib.import_module(f"converter.planning.{module}"), "require", lambda *_: None)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("target", ["onnx", "savedmodel"])
def test_what_a_config_is_refused_for_is_said_before_any_framework_starts(target: str, tmp_path: Path) -> None:
    for kind in HOSTILE:
        (tmp_path / kind).mkdir()
        with pytest.raises(SafetyError) as caught:
            converter.convert(written(tmp_path / kind, HOSTILE[kind]), tmp_path / "out", to=target)
        is_said = "model.save(folder) of the same model" in str(caught.value) and "--custom-objects" in str(
            caught.value
        )
        assert is_said is (kind == "lambda"), kind
    own = written(tmp_path, changed(module="my_package.layers", class_name="Gain", registered_name="Gain"))
    with pytest.raises(ArchitectureError, match=r"Gain.*; --custom-objects my_package\.layers:Gain names the code"):
        converter.convert(own, tmp_path / "out", to=target)
    with pytest.raises(UsageError, match=r"--custom-objects is package\.module:Name,Name, not 'Gain'"):
        converter.convert(own, tmp_path / "out", to=target, custom_objects=("Gain",))
    with pytest.raises(UsageError, match="--custom-objects names Other, which the Keras config has no use for"):
        converter.convert(own, tmp_path / "out", to=target, custom_objects=("my_package:Gain,Other",))
    with pytest.raises(AssertionError, match="a process starts"):
        converter.convert(own, tmp_path / "out", to=target, custom_objects=("my_package:Gain",))


@pytest.mark.usefixtures("no_process")
def test_a_model_of_transformers_inside_is_no_class_to_be_named(tmp_path: Path) -> None:
    """Nor are several: the message of those comes before any framework, too."""
    encoders = FIXTURE.parents[1] / "keras-encoders"
    with pytest.raises(AssertionError, match="a process starts"):
        converter.convert(encoders / "pooling.h5", tmp_path / "out", to="savedmodel", optimizer="drop")


@pytest.mark.parametrize(
    ("reference", "is_asked_for"),
    [
        ({"module": None, "class_name": "Gain"}, True),
        ({"module": "my_package", "class_name": "Gain", "registered_name": "my_package>Gain"}, True),
        ({"module": "builtins", "class_name": "function", "config": "Gain"}, True),
        ({"module": "keras.layers", "class_name": "Gain"}, False),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"activation": "Gain"}}, True),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"activation": "my_package>Gain"}}, True),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"name": "Gain"}}, False),
        ({"class_name": "Dense", "config": {"own": [{"class_name": "Gain", "config": {}}]}}, True),
    ],
)
def test_a_name_of_the_users_own_is_in_vain_where_nothing_is_called_so(
    reference: dict[str, Any], is_asked_for: bool
) -> None:
    names = {"Gain", "Other"}
    assert keras_config.in_vain({"config": {"layers": [reference]}}, names) == ["Gain", "Other"][is_asked_for:]


@pytest.mark.framework
def test_a_lambda_in_hdf5_is_refused_and_the_weights_convert(tmp_path: Path) -> None:
    source = tmp_path / "model.h5"
    shutil.copy(FIXTURE.with_suffix(".h5"), source)
    with h5py.File(source, "r+") as file:
        values = json.loads(file.attrs["model_config"])
        layer(values, "Subtract").update(
            class_name="Lambda", config={"name": "subtract", "function": ["4wEAAA==", None, None]}
        )
        file.attrs["model_config"] = json.dumps(values)
    converter.convert(source, tmp_path / "w.safetensors")
    with pytest.raises(SafetyError, match="Lambda"):
        converter.convert(source, tmp_path / "out", to="savedmodel")


@pytest.mark.framework
@pytest.mark.parametrize(
    "change",
    [
        changed(module="my_package.layers", class_name="Gain", registered_name="Gain"),
        changed(module=None, class_name="my_package>Gain", registered_name="my_package>Gain"),
    ],
)
def test_a_class_of_the_users_own_has_to_be_named(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    source = written(tmp_path, change)
    with pytest.raises(ArchitectureError, match=r"Gain.*--custom-objects .*:Gain"):
        converter.convert(source, tmp_path / "out", to="savedmodel")
    with pytest.raises(UsageError, match="no_such_module"):
        converter.convert(source, tmp_path / "out", to="savedmodel", custom_objects=("no_such_module:Gain",))
    with pytest.raises(UsageError, match=r"package\.module:Name"):
        converter.convert(source, tmp_path / "out", to="savedmodel", custom_objects=("Gain",))


def test_the_users_names_are_not_asked_about() -> None:
    values = config()
    changed(module="my_package.layers", class_name="Gain", registered_name="Gain")(values)
    keras_config.check(values, frozenset({"Gain"}))
    with pytest.raises(ArchitectureError):
        keras_config.check(values, frozenset({"Other"}))


@pytest.mark.framework
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_config_that_asks_for_more_than_its_file_has_is_refused(suffix: str, tmp_path: Path) -> None:
    """Before anything is allocated: the weights would be of 40 TB."""
    if suffix == ".keras":
        source = written(tmp_path, lambda said: layer(said, "Dense")["config"].update(units=10**13))
    else:
        source = tmp_path / "model.h5"
        shutil.copy(FIXTURE.with_suffix(".h5"), source)
        with h5py.File(source, "r+") as file:
            said = json.loads(file.attrs["model_config"])
            layer(said, "Dense")["config"].update(units=10**13)
            file.attrs["model_config"] = json.dumps(said)
    with pytest.raises(ArchitectureError, match=r"layer 'similarity' .* weights, the file holds \d+"):
        converter.convert(source, tmp_path / "out", to="savedmodel")
    assert not (tmp_path / "out").exists()


def test_inputs_to_check_a_graph_with_are_bounded() -> None:
    known = GraphInput(name="x", dtype=DType.FLOAT32, shape=("batch", 10**12))
    assert sample_inputs((replace(known, shape=("batch", 3)),), seed=0, sizes={"batch": 2})["x"].shape == (2, 3)
    with pytest.raises(GraphError, match=r"input 'x' of \[2, 1000000000000\]"):
        sample_inputs((known,), seed=0, sizes={"batch": 2})


def test_depth_is_bounded() -> None:
    values: dict[str, Any] = {}
    for _ in range(100):
        values = {"config": values}
    with pytest.raises(CkconvError, match="deep"):
        keras_config.check(values, frozenset())


def test_what_keras_3_takes_for_a_function_is_left_out() -> None:
    from converter.graphs.trace.tensorflow.keras_2 import as_keras_3

    given = {"class_name": "Attention", "config": {"name": "attention", "score_mode": "dot", "dropout": 0.0}}
    assert as_keras_3(given)["config"] == {"name": "attention", "dropout": 0.0}
    given["config"]["score_mode"] = "concat"  # type: ignore[index]
    assert as_keras_3(given) == given


@pytest.mark.framework
def test_a_layer_whose_class_says_no_arguments_is_called_as_the_file_calls_it() -> None:
    """Keras 2 writes `{}` for a class without get_config, and the name of the layer beside it alone."""
    pytest.importorskip("keras")
    from converter.graphs.trace.tensorflow import building

    def entry(class_name: str, name: str, own: dict[str, Any], *before: str) -> dict[str, Any]:
        nodes = [[[each, 0, 0, {}] for each in before]] if before else []
        return {"class_name": class_name, "config": own, "name": name, "inbound_nodes": nodes}

    layers = [
        entry("InputLayer", "x", {"name": "x", "batch_input_shape": [None, 3], "dtype": "float32"}),
        entry("Gain", "mine", {}, "x"),
        entry("Gain", "other", {"name": "other"}, "mine"),
    ]
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["other", 0, 0]]}
    values = {"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}}
    model = building.build(values, ("tests.graphs.own_layers:Gain",), "", is_archive=False)
    assert [layer.name for layer in model.layers] == ["x", "mine", "other"]


@pytest.mark.parametrize("class_name", ["LSTM", "Bidirectional", "Dense"])
def test_states_of_keras_2_are_given_by_name(class_name: str) -> None:
    """As in a sequence-to-sequence model, whose decoder begins where its encoder ends."""
    from converter.graphs.trace.tensorflow.keras_2 import as_keras_3

    places = [["words", 0, 0, {}], ["encoder", 0, 1, {}], ["encoder", 0, 2, {}]]
    layer = {"class_name": class_name, "name": "decoder", "config": {"name": "decoder"}, "inbound_nodes": [places]}
    model = {"class_name": "Functional", "config": {"name": "m", "layers": [layer]}}
    (call,) = as_keras_3(model)["config"]["layers"][0]["inbound_nodes"]

    def told(tensors: list[Any]) -> list[Any]:
        return [each["config"]["keras_history"] for each in tensors]

    if class_name == "Dense":
        assert told(call["args"][0]) == [place[:3] for place in places]
    else:
        assert told(call["args"]) == [["words", 0, 0]]
        assert told(call["kwargs"]["initial_state"]) == [["encoder", 0, 1], ["encoder", 0, 2]]


def test_a_graph_is_of_one_call_of_a_recurrent_layer() -> None:
    """Keras 3 draws masks of dropout where it uses none, and keeps states that no file has."""
    from converter.graphs.trace.tensorflow.recurrence import note_of, of_one_call

    cell = {"class_name": "GRUCell", "config": {"name": "cell", "dropout": 0.5, "recurrent_dropout": 0.5}}
    inner = {"class_name": "LSTM", "config": {"name": "lstm", "dropout": 0.5, "stateful": True, "units": 3}}
    plain = {"class_name": "Dropout", "config": {"name": "own", "dropout": 0.5, "stateful": True}}
    model = {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {"class_name": "Bidirectional", "config": {"layer": inner, "backward_layer": inner}},
                {"class_name": "RNN", "config": {"cell": cell, "stateful": False}},
                plain,
            ]
        },
    }
    both, cells, untouched = of_one_call(model)["config"]["layers"]
    assert both["config"]["layer"]["config"] == {"name": "lstm", "dropout": 0.0, "stateful": False, "units": 3}
    assert cells["config"]["cell"]["config"] == {"name": "cell", "dropout": 0.0, "recurrent_dropout": 0.0}
    assert untouched == plain
    assert note_of(model) == "layer lstm and 1 more is stateful: in the graph each call begins anew"
    assert note_of(plain) == ""
