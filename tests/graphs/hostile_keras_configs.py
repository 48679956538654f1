"""Hostile Keras configs: what each asks for, and why that is no layer. `HOSTILE` is the table."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

GRAPHS = Path(__file__).parents[2] / "fixtures/graphs"
FIXTURE = GRAPHS / "siamese.keras"
MARSHALLED = "4wEAAAAAAAAAAAAAAAAAAAAA"
CODE = {"class_name": "__lambda__", "config": {"value": MARSHALLED, "defaults": None, "closure": None}}


def layer(values: dict[str, Any], class_name: str) -> dict[str, Any]:
    """The layer of that class in the config of a functional model."""
    found: dict[str, Any] = next(each for each in values["config"]["layers"] if each["class_name"] == class_name)
    return found


def config_of(path: Path) -> dict[str, Any]:
    """The config in an archive or an HDF5 file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            said = file.attrs["model_config"]
    else:
        with zipfile.ZipFile(path) as archive:
            said = archive.read("config.json")
    values: dict[str, Any] = json.loads(said)
    return values


def write(path: Path, values: Any, source: Path = FIXTURE) -> Path:
    """The file `source`, of the same suffix, with another config."""
    if path.suffix == ".h5":
        shutil.copy(source, path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(values)
        return path
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(values) if name == "config.json" else old.read(name))
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A change of the fixture's config, and why what it asks for is refused."""

    why: str
    change: Callable[[dict[str, Any]], Any]


def _object(module: Any, class_name: Any, config: Any = None, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": {} if config is None else config, **more}


def _function(module: Any, name: Any, registered: Any = None) -> dict[str, Any]:
    return _object(module, "function", name, registered_name=registered)


def _as_layer(why: str, **changes: Any) -> Hostile:
    return Hostile(why=why, change=lambda values: layer(values, "Subtract").update(changes))


def _as(key: str, value: Any, why: str) -> Hostile:
    """An argument of a layer that Keras deserializes."""
    return Hostile(why=why, change=lambda values: layer(values, "Dense")["config"].update({key: value}))


def _wrapped(why: str, inner: Any, key: str = "layer", class_name: str = "TimeDistributed") -> Hostile:
    return _as_layer(why, class_name=class_name, config={"name": "subtract", key: inner})


def _nested(values: dict[str, Any]) -> None:
    layer(values, "Sequential")["config"]["layers"].append(_object("keras.layers", "TFSMLayer", {"filepath": "/x"}))


def _call(values: dict[str, Any]) -> None:
    layer(values, "Subtract")["inbound_nodes"] = [{"args": [], "kwargs": {"x": _function("keras.utils", "get_file")}}]


_GET_FILE = _function("keras", "utils.get_file", "utils.get_file")
_LAMBDA = {"name": "subtract", "function": CODE}

HOSTILE = {
    "lambda": _as_layer("code in the config", class_name="Lambda", config=_LAMBDA),
    "lambda-by-dotted-name": _as_layer("Keras joins module and name", module="keras", class_name="layers.Lambda"),
    "lambda-in-its-module": _as_layer(
        "the same by where it is defined", module="keras.src.layers.core.lambda_layer", class_name="Lambda"
    ),
    "lambda-registered": _as_layer("a name registered by others", class_name="Lambda", registered_name="pkg>Lambda"),
    "lambda-of-a-package": _as_layer("the class behind a package's name", module=None, class_name="pkg>Lambda"),
    "code-as-activation": _as("activation", CODE, "marshalled code"),
    "code-as-scale": _as_layer("marshalled code as a number", class_name="Rescaling", config={"scale": CODE}),
    "code-in-a-cell-wrapper": _as_layer(
        "tf_keras unmarshals the function of a wrapper",
        module=None,
        class_name="ResidualWrapper",
        config={"cell": {}, "residual_fn": [MARSHALLED, None, None], "residual_fn_type": "lambda"},
    ),
    "code-in-any-wrapper": _as_layer("a function said to be a lambda", config={"name": "s", "call_fn_type": "lambda"}),
    "get-file": _as("activation", _GET_FILE, "fetches what the file names"),
    "get-file-by-module": _as("activation", _function("keras.utils", "get_file"), "the same without a dot"),
    "get-file-inside": _as("activation", _function("keras.src.utils.file_utils", "get_file"), "where it is defined"),
    "get-file-as-class": _as_layer("a function in the place of a class", module="keras.utils", class_name="get_file"),
    "get-file-as-python": _as("activation", _function("builtins", "get_file"), "a function of Keras, not of tensors"),
    "get-file-registered": _as(
        "activation", _function("keras.activations", "relu", "get_file"), "the second name counts"
    ),
    "load-model": _as("kernel_initializer", _function("keras.models", "load_model"), "opens a file and runs it"),
    "load-model-dotted": _as("kernel_initializer", _object("keras", "saving.load_model"), "the same by a dotted name"),
    "enable-unsafe": _as(
        "activation", _function("keras.config", "enable_unsafe_deserialization"), "switches checks off"
    ),
    "deserialize-as-activation": _as("activation", "deserialize", "tf_keras looks words up in its module"),
    "deserialize-as-class": _as("kernel_constraint", _object(None, "deserialize"), "the same for classes"),
    "python-function": _as("activation", _function("builtins", "exec"), "tf_keras takes it from Python"),
    "python-class": _as_layer("Python's own", module="builtins", class_name="eval"),
    "module-of-python": _as_layer("runs a command", module="os", class_name="system", registered_name="system"),
    "module-inside-python": _as("activation", _function("subprocess", "run", "function"), "runs a command"),
    "module-imported": _as_layer("importing it opens a browser", module="antigravity", class_name="Gain"),
    "library": _as("activation", _function("numpy", "load"), "unpickles a file"),
    "tensorflow": _as("activation", _function("tensorflow", "py_function"), "calls what it gets"),
    "dotted-function": _as("activation", _function("tensorflow", "io.write_file"), "writes a file"),
    "dotted-word": _as("activation", "keras.utils.get_file", "no word is dotted"),
    "colon": _as_layer("the form of an entry point", class_name="os:system"),
    "fullwidth-letters": _as_layer("Python would read it as Lambda", module=None, class_name="\uff2cambda"),
    "line-break": _as_layer("no name holds one", module=None, class_name="Lambda\n"),
    "key-alike": _as("activation", {"Class_Name": "Lambda", "config": {}}, "a key that looks like another"),
    "number-as-name": _as("kernel_initializer", _object("keras.initializers", 7), "no name"),
    "module-as-list": _as("bias_initializer", _object(["keras.initializers"], "Zeros"), "no name"),
    "relative-module": _as_layer("no name of a module", module="keras..utils", class_name="Dense"),
    "module-with-path": _as_layer("no name of a module", module="../evil", class_name="Gain"),
    "unlisted-part-of-keras": _as_layer(
        "no layers are there", module="keras.src.saving.saving_lib", class_name="H5IOStore"
    ),
    "unlisted-class": _as_layer("a module of layers, and no layer", module="keras.layers", class_name="deserialize"),
    "saved-model-layer": _as_layer("loads a SavedModel", class_name="TFSMLayer", config={"filepath": "/tmp/x"}),
    "torch-module": _as_layer("unpickles a module", class_name="TorchModuleWrapper", config={"module": "UEsDBA=="}),
    "jax-layer": _as_layer("calls what the file names", class_name="JaxLayer", config={"call_fn": _GET_FILE}),
    "flax-layer": _as_layer("calls what the file names", class_name="FlaxLayer", config={"method": _GET_FILE}),
    "node-of-a-graph": _as_layer(
        "tf_keras runs the operator",
        module=None,
        class_name="TensorFlowOpLayer",
        config={"node_def": "{}", "constants": {}},
    ),
    "any-method": _as_layer(
        "calls a method by name", module=None, class_name="InstanceMethod", config={"method_name": "eval"}
    ),
    "feature-columns": _as_layer("reads vocabularies from files", module=None, class_name="DenseFeatures"),
    "mapped-function": _as_layer("calls what it gets", module="keras.src.ops.core", class_name="VectorizedMap"),
    "tensorflow-function": _as_layer("writes a file", class_name="TFOpLambda", config={"function": "io.write_file"}),
    "tensorflow-loop": _as_layer("calls what it gets", class_name="TFOpLambda", config={"function": "map_fn"}),
    "tensorflow-vocabulary": _as_layer(
        "reads a file", class_name="TFOpLambda", config={"function": "nn.fixed_unigram_candidate_sampler"}
    ),
    "slicing-function": _as_layer("no slicing", class_name="SlicingOpLambda", config={"function": ["a"]}),
    "vocabulary-file": _as_layer("reads a file", class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
    "weights-file": _as_layer("reads a file", class_name="TextVectorization", config={"idf_weights": "/etc/passwd"}),
    "splitting-function": _as_layer(
        "a function by its name", class_name="TextVectorization", config={"split": "os.system"}
    ),
    "type-of-tensorflow": _as(
        "value", {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []}, "imports"
    ),
    "composite-tensor": _as_layer("JSON in a string", inbound_nodes=[["_COMPOSITE_TYPE", "{}"]]),
    "endless-text": _as(
        "value", _object(None, "__numpy__", {"value": ["a"], "dtype": "U2000000000"}), "8 GB for a letter"
    ),
    "in-a-wrapper": _wrapped("wrapped", _object("keras.layers", "Lambda", _LAMBDA)),
    "in-a-cell": _wrapped("wrapped", _object("keras", "layers.Lambda"), key="cell", class_name="RNN"),
    "in-cells": _wrapped("wrapped", [_object("os", "system")], key="cells", class_name="StackedRNNCells"),
    "in-a-model": Hostile(why="in a model inside", change=_nested),
    "in-a-call": Hostile(why="among the arguments of a call", change=_call),
    "in-a-policy": _as("dtype", _object("keras.mixed_precision", "set_global_policy"), "a function of Keras's"),
    "in-a-build": Hostile(
        why="in what a layer is built from",
        change=lambda values: layer(values, "Dense").update(build_config={"x": CODE}),
    ),
    "in-training": Hostile(
        why="in what it is trained with", change=lambda values: values.update(compile_config={"loss": _GET_FILE})
    ),
    "in-training-by-name": Hostile(
        why="the same by a dotted name", change=lambda values: values.update(compile_config={"loss": "os.system"})
    ),
    "in-metrics-by-name": Hostile(
        why="in a list of them", change=lambda values: values.update(compile_config={"metrics": ["os:system"]})
    ),
    "function-by-name": _as("fn", "keras.utils.get_file", "no function is dotted, whoever looks for it"),
    "policy-by-name": _as("dtype", "keras.saving.load_model", "no policy is dotted"),
    "mode-by-name": _as_layer("no mode is dotted", class_name="TextVectorization", config={"output_mode": "os.system"}),
    "program-by-name": _wrapped("a program without a dot", "TFSMLayer", key="cell", class_name="RNN"),
    "the-model-itself": Hostile(
        why="the root of all", change=lambda values: values.update(module="os", class_name="system")
    ),
}
