"""Values of other types than a Keras config has, at every place of it, are said or refused: never an internal error.

A slice of CKCONV_ORACLE_SEED of places and values; CKCONV_ORACLE_FULL=1 takes them all.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.keras import architecture, config_modules, grouping, parse, semantics, to_keras, to_pytorch
from converter.dialects.optimizer import flavors
from converter.dialects.transformers import heads
from converter.errors import CkconvError, SafetyError
from converter.formats import NoOptions, h5, keras
from converter.graphs.trace.tensorflow import keras_config
from converter.graphs.trace.tensorflow.keras_2 import as_keras_3
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor
from tests.dialects import keras_1_files
from tests.dialects.keras_1_files import Arrays, drawn, gates, layer, placed
from tests.graphs.hostile_keras_configs import FIXTURE, GRAPHS, config_of, write
from tests.slices import IS_FULL, SEED

SLICE = sys.maxsize if IS_FULL else 150
NO_TEXT: list[Any] = [7, -1.5, True, None, [], ["a"], [[None]], {}, {"class_name": 7}]
ODD: list[Any] = [
    *NO_TEXT,
    "",
    "x",
    [7],
    [{}],
    ["a", 0, 0],
    ["a", [], 0, {}],
    [[["a", 0, 0, {}]]],
    {"class_name": []},
    {"class_name": "Dense", "config": {"units": []}},
    {"config": 7},
    1e300,
    10**30,
]
_CELL = {"class_name": "LSTMCell", "config": {"name": "cell", "units": 2}}
_DENSE = {"class_name": "Dense", "config": {"name": "inner", "units": 2}}
_FORWARD, _BACKWARD = (
    {"class_name": "LSTM", "config": {"name": name, "units": 2, "activation": "tanh"}} for name in ("ahead", "back")
)
LAYERS: dict[str, dict[str, Any]] = {
    "Permute": {"dims": [2, 3, 1]},
    "Conv2D": {"filters": 4, "kernel_size": [2, 2], "strides": [1, 1], "padding": "causal", "dilation_rate": [1, 1]},
    "SeparableConv2D": {"filters": 4, "kernel_size": [2, 2], "depth_multiplier": 2, "data_format": "channels_last"},
    "DepthwiseConv2D": {"kernel_size": [2, 2], "depth_multiplier": 2},
    "Conv2DTranspose": {"filters": 4, "kernel_size": [2, 2], "padding": "same", "output_padding": [0, 0]},
    "PReLU": {"shared_axes": [1, 2]},
    "GroupNormalization": {"groups": 2, "axis": -1, "epsilon": 1e-3},
    "BatchNormalization": {"axis": [3], "momentum": 0.99, "scale": True, "center": True},
    "MaxPooling2D": {"pool_size": [2, 2]},
    "Concatenate": {"axis": -1},
    "Reshape": {"target_shape": [4, 4, 4]},
    "Flatten": {},
    "Dense": {"units": 4, "activation": "relu", "dtype": {"class_name": "DTypePolicy", "config": {"name": "float32"}}},
    "EinsumDense": {"equation": "ab,bcd->acd", "output_shape": [2, 3], "bias_axes": "cd", "activation": "gelu"},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 3, "value_dim": 3, "output_shape": [6], "attention_axes": [1]},
    "Bidirectional": {"layer": _FORWARD, "backward_layer": _BACKWARD, "merge_mode": "concat"},
    "TimeDistributed": {"layer": _DENSE},
    "GRU": {"units": 2, "reset_after": True, "recurrent_activation": "hard_sigmoid"},
    "LayerNormalization": {"axis": [-1], "rms_scaling": False},
    "Normalization": {"axis": -1, "mean": None},
    "Activation": {"activation": {"class_name": "function", "config": "relu", "module": "builtins"}},
}  # fmt: skip
"""Every class of which a value is computed with, with the settings that are."""


UNNAMED: dict[str, dict[str, Any]] = {"RNN": {"cell": _CELL}, "Dense": {"units": 4}}
"""A layer whose settings are known, and whose variables are not."""


def chain(of: dict[str, dict[str, Any]] = LAYERS) -> dict[str, Any]:
    """A functional model of one layer of each class, each called on the one before it as both versions say it."""
    layers: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "name": "in", "config": {"name": "in", "batch_shape": [None, 8, 8, 3]}}
    ]
    for class_name, config in of.items():
        before, name = layers[-1]["name"], class_name.lower()
        history = {"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}
        node = {"args": [history], "kwargs": {"training": False}} if len(layers) % 2 else [[before, 0, 0, {}]]
        build = {"input_shape": [None, 8, 8, 3]}
        layers.append(
            {
                "module": "keras.layers",
                "class_name": class_name,
                "registered_name": None,
                "name": name,
                "config": {"name": name, "trainable": True, **config},
                "build_config": build,
                "inbound_nodes": [node],
            }
        )
    outputs = [[layers[-1]["name"], 0, 0]]
    config = {"name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": outputs}
    module = "keras.src.models.functional"
    return {
        "module": module,
        "class_name": "Functional",
        "config": json.loads(json.dumps(config)),
        "registered_name": None,
    }


def zeros(config: dict[str, Any]) -> Checkpoint:
    """A checkpoint of the variables that the config's layers have, of shapes that their layouts take."""
    modules, _ = config_modules(parse(config))
    tensors = {}
    for module in modules:
        for slot in module.slots:
            sizes = {"1": 1, "b": len(slot.torch), **(slot.layout.sizes if slot.layout else {})}
            sides = "n" if slot.layout is None else slot.layout.pattern.partition("->")[0]
            groups = [joined or single for joined, single in re.findall(r"\(([^()]*)\)|(\S+)", sides)]
            shape = [math.prod(sizes.get(axis, 12) for axis in group.split()) for group in groups]
            tensors[f"{module.path}/{slot.keras}"] = ArrayTensor.of(np.zeros(shape, np.float32))
    return Checkpoint(tensors=tensors, dialect="keras", keras_config=Config(values=config, raw=b""))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a config: what holds it, and its key."""
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(each, dict | list):
            yield from places(each)


def ways(source: Checkpoint, config: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What takes values of a config, without a framework."""
    held = Config(values=config, raw=b"")
    of_torch = to_pytorch(source)

    def said() -> None:
        if architecture.is_model(config):
            for is_first in (False, True):
                found = semantics.settings(parse(config), is_keras_3=is_first)
                grouping.lines(found, is_for_keras=not is_first)

    def asked_of_keras() -> None:
        keras_config.check(config, ())
        as_keras_3(keras_config.for_keras(config, ()))

    is_named = not config_modules(parse(config))[1]
    return {
        "to PyTorch": lambda: to_pytorch(replace(source, keras_config=held)),
        "to Keras": lambda: is_named and architecture.is_model(config) and to_keras(of_torch, config),
        "settings": said,
        "to an archive": lambda: architecture.with_modules(config, is_older=True, module_of=lambda entry: None),
        "heads": lambda: (heads.encoder_config(held), heads.layer_configs(held, ["dense/kernel"])),
        "flavor": lambda: flavors.flavor_of(replace(source, keras_config=held), default=flavors.KerasFlavor.KERAS_3),
        "Keras": asked_of_keras,
        "Keras 2": lambda: as_keras_3(config),
    }


def ways_of_keras_1(source: Checkpoint, config: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What takes values of a config of Keras 1: what makes it one of Keras 2, and all that takes that."""

    def renewed() -> Iterator[str]:
        assert source.by_keras_config is not None
        newer = source.by_keras_config(Config(values=config, raw=b""))
        for name, take in ways(newer, dict(newer.keras_config.values) if newer.keras_config else {}).items():
            with suppress(CkconvError):
                take()
                yield name

    assert source.keras_config is not None
    assert {*renewed()} == {*ways(source, dict(source.keras_config.values))}
    return {"Keras 1": lambda: [*renewed()]}


def check(source: Checkpoint, limit: int) -> int:
    """Put odd values at places of the source's config, and count them; what neither takes nor refuses one fails."""
    assert source.keras_config is not None
    config = json.loads(json.dumps(source.keras_config.values))
    return check_ways(config, ways(source, config), limit)


def check_ways(config: dict[str, Any], taking: dict[str, Callable[[], object]], limit: int) -> int:
    """Do what `check` does, with what takes the config."""
    for take in taking.values():
        take()  # the config itself passes
    jobs = [(*place, odd) for place in places(config) for odd in ODD]
    chosen = jobs if len(jobs) <= limit else random.Random(SEED).sample(jobs, limit)
    for holder, key, odd in chosen:
        before, holder[key] = holder[key], odd
        for name, take in taking.items():
            try:
                take()
            except CkconvError:
                continue
            except Exception as error:
                pytest.fail(f"{name}: {key!r} as {odd!r} in {str(holder)[:200]}: {type(error).__name__}: {error}")
        holder[key] = before
    return len(chosen)


@pytest.mark.parametrize("layers", [LAYERS, UNNAMED], ids=["known", "unnamed"])
def test_a_value_of_another_type_at_every_place_of_every_class(layers: dict[str, Any]) -> None:
    assert check(zeros(chain(layers)), SLICE) >= 150


@pytest.mark.parametrize("name", ["keras-2.keras", "keras-2.h5", "siamese.keras", "attention.h5"])
def test_a_value_of_another_type_in_the_fixtures(name: str, tell: Callable[[str], None]) -> None:
    path = GRAPHS / name
    read = keras.read if path.suffix == ".keras" else h5.read
    count = check(read(path, NoOptions()), SLICE)
    tell(f"{count} odd values in {name}; CKCONV_ORACLE_FULL=1 takes all")
    assert count >= 150


def keras_1() -> dict[str, Any]:
    """A config of Keras 1 with a layer of each class of which a value is computed with, after a Merge of branches."""
    convolution = keras_1_files.convolution
    penalty = {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.1}}
    first = layer("ZeroPadding2D", "pad", padding=[1, 1, 1, 1], batch_input_shape=[None, 4, 4, 3])
    inner = [keras_1_files.source("words", [6, 6, 3]), placed(layer("Activation", "relu", activation="relu"), "words")]
    branches = [{"class_name": "Sequential", "config": [first]}, keras_1_files.functional(inner, "relu")]
    chain = [
        layer("Merge", "merge", mode="sum", mode_type="raw", concat_axis=-1, layers=branches),
        convolution("Convolution2D", "convolution2d_1", "tf", (3, 3), nb_filter=4, **penalty),
        convolution("Deconvolution2D", "back", "tf", (3, 3), nb_filter=4, output_shape=[None, 9, 9, 4], bias=False),
        layer("BatchNormalization", "norm", mode=0, axis=-1, epsilon=0.001, momentum=0.99),
        layer("Reshape", "rows", target_shape=[81, 4]),
        layer("ZeroPadding1D", "ends", padding={"left_pad": 1, "right_pad": 2}),
        layer("Convolution1D", "line", nb_filter=2, filter_length=3, subsample_length=1, border_mode="same"),
        layer("Bidirectional", "both", layer=keras_1_files.recurrent("LSTM", "forward_lstm", 2), merge_mode="concat"),
        keras_1_files.recurrent("GRU", "gru", 2),
        layer("TimeDistributed", "times", layer=layer("Dense", "dense", output_dim=2, bias=True)),
    ]
    return {"class_name": "Sequential", "config": chain}


def test_a_value_of_another_type_in_a_config_of_keras_1(tmp_path: Path) -> None:
    config = keras_1()
    weights: dict[str, Arrays] = {
        "convolution2d_1": {"convolution2d_1_W": drawn(3, 3, 3, 4), "convolution2d_1_b": drawn(4)},
        "back": {"back_W": drawn(3, 3, 4, 4)},
        "gru": gates("gru", "zrh", 4, 2),
        "times": {"dense_W": drawn(2, 2), "dense_b": drawn(2)},
    }
    path = keras_1_files.write(tmp_path / "m.h5", config, weights, is_theano=True)
    assert check_ways(config, ways_of_keras_1(h5.read(path, NoOptions()), config), SLICE) >= 150


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_a_class_that_is_no_text_ends_with_exit_code_5(value: Any, suffix: str, tmp_path: Path) -> None:
    source = FIXTURE.with_suffix(suffix)
    values = config_of(source)
    converter.convert(write(tmp_path / f"before{suffix}", values, source), tmp_path / "before.safetensors")
    values["config"]["layers"][1]["class_name"] = value
    hostile = write(tmp_path / f"after{suffix}", values, source)
    for target in ("safetensors", "onnx"):
        with pytest.raises(SafetyError, match="class is not text") as caught:
            converter.convert(hostile, tmp_path / f"after.{target}")
        assert caught.value.exit_code == 5


@pytest.mark.parametrize("key", ["class_name", "module", "registered_name", "config"])
@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_a_name_that_is_no_text_reaches_no_keras(key: str, value: Any) -> None:
    config = chain()
    dense = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")
    function = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
    dense["config"]["activation"] = function
    for holder in (function,) if key == "config" else (function, dense, config):
        before, holder[key] = holder[key], value
        if value is None and key in ("module", "registered_name"):
            keras_config.check(config, ())  # a word that stands alone is looked up
        else:
            with pytest.raises(SafetyError, match="not text"):
                keras_config.check(config, ())
        holder[key] = before
