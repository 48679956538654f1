"""The table of settings against the real layers of Keras, and what is said of each against what PyTorch computes."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.keras import activations, architecture, leaves, modules
from converter.dialects.keras.grouping import lines
from converter.dialects.keras.semantics import settings, with_settings
from converter.dialects.keras.settings import COMMON, LAYERS, Fate, Rule
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.ledger import Setting
from converter.report.page import opened
from tests.dialects import keras_settings_dump
from tests.oracle import environment

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("tf_keras_settings.json").read_text("utf-8"))


def is_in_table(layer: str, key: str) -> bool:
    return key in COMMON or key in LAYERS[layer]


def without_a_rule(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{layer}.{key}" for layer, config in configs.items() for key in config if not is_in_table(layer, key)]


def differing_defaults(configs: Mapping[str, Mapping[str, Any]], *, but: Sequence[str] = ()) -> list[str]:
    """Return the settings whose default is another than the table's, where that has one."""

    def plain(value: Any) -> Any:
        alike = isinstance(value, list | tuple) and len(set(value)) == 1
        return value[0] if alike else value

    return [
        f"{layer}.{key}: {value!r}"
        for layer, config in configs.items()
        for key, value in config.items()
        if (rule := {**COMMON, **LAYERS[layer]}[key]).default is not None
        if rule.fate not in (Fate.WIRING, Fate.HELD) and plain(value) != rule.default and f"{layer}.{key}" not in but
    ]


def test_every_setting_of_every_layer_of_keras_3_is_in_the_table() -> None:
    keras = pytest.importorskip("keras")
    configs = keras_settings_dump.configs(keras)
    assert {"LSTM", "MultiHeadAttention", "Dense", "RandomCrop"} <= configs.keys()
    assert without_a_rule(configs) == []
    assert without_a_rule({"Dense": {"units": 3, "made_up": 1}}) == ["Dense.made_up"]
    assert differing_defaults(configs) == []


def test_every_setting_of_every_layer_of_tf_keras_is_in_the_table() -> None:
    assert without_a_rule(RECORDED["layers"]) == []
    assert differing_defaults(RECORDED["layers"]) == []


@pytest.mark.skipif(not environment.PYTHON, reason="CKCONV_ORACLE_PYTHON names no Python")
def test_what_is_recorded_of_tf_keras_is_what_it_says() -> None:
    script = Path(keras_settings_dump.__file__)
    made = subprocess.run([environment.PYTHON, str(script), "tf_keras"], capture_output=True, check=True, timeout=300)
    assert json.loads(made.stdout) == RECORDED


def test_every_class_that_has_or_has_no_weights_is_in_the_table() -> None:
    known = {*modules.SIMPLE, *modules.RECURRENT, *modules.WITHOUT_VARIABLES}
    missing = {name for name in known if name not in LAYERS and not name.startswith("Adaptive")}
    assert missing == set()
    assert {"MultiHeadAttention", "Bidirectional", "TimeDistributed"} <= LAYERS.keys()


def test_every_rule_that_reads_more_than_a_value_has_its_reading() -> None:
    from converter.dialects.keras import semantics

    readings = {rule.reading for rules in (COMMON, *LAYERS.values()) for rule in rules.values() if rule.reading}
    assert readings == set(semantics._READINGS)


# activations


def test_every_activation_of_keras_is_known() -> None:
    keras = pytest.importorskip("keras")
    functions = {"deserialize", "serialize", "get"}
    assert {name for name in dir(keras.activations) if name[0].islower()} - functions <= activations.NAMES
    assert set(RECORDED["activations"]) - functions <= activations.NAMES


def test_activations_compute_in_torch_what_they_do_in_keras() -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    inputs = np.random.default_rng(0).uniform(-4, 4, (5, 8)).astype(np.float32)
    tried = 0
    for name in sorted(activations.NAMES):
        expression = activations.in_torch(name, is_keras_3=True)
        if not expression:
            continue
        made = eval(expression, {"torch": torch})(torch.from_numpy(inputs)).numpy()  # noqa: S307
        wanted = np.asarray(keras.activations.get(name)(inputs))
        np.testing.assert_allclose(made, wanted, atol=2e-6, rtol=1e-5, err_msg=name)
        tried += 1
    assert tried > 25
    before = eval(str(activations.in_torch("hard_sigmoid", is_keras_3=False)), {"torch": torch})  # noqa: S307
    made = before(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(made, np.clip(0.2 * inputs + 0.5, 0, 1), atol=1e-6)
    assert np.abs(made - np.asarray(keras.activations.hard_sigmoid(inputs))).max() > 0.05


SLOPES = {"leaky_relu": ("negative_slope", "torch.nn.LeakyReLU({})")}


@pytest.mark.parametrize("name", SLOPES)
def test_numbers_in_activations_are_the_defaults_of_keras(name: str) -> None:
    """Read from its source, which is not imported."""
    found = importlib.util.find_spec("keras")
    if found is None or found.origin is None:
        pytest.skip("keras is not installed")
    source = (Path(found.origin).parent / "src/activations/activations.py").read_text(encoding="utf-8")
    made = next(each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef) and each.name == name)
    defaults = dict(
        zip([each.arg for each in made.args.args][-len(made.args.defaults) :], made.args.defaults, strict=True)
    )
    argument, expression = SLOPES[name]
    assert activations.in_torch(name, is_keras_3=True) == expression.format(ast.literal_eval(defaults[argument]))


# what is said of a model


def model_of(*layers: tuple[str, Mapping[str, Any]]) -> architecture.Layer:
    listed = [
        {"class_name": name, "config": {"name": f"l{index}", **config}} for index, (name, config) in enumerate(layers)
    ]
    return architecture.parse({"class_name": "Sequential", "config": {"name": "m", "layers": listed}})


def said_of(class_name: str, *, is_keras_3: bool = True, **config: Any) -> list[str]:
    return [each.note for each in settings(model_of((class_name, config)), is_keras_3=is_keras_3)]


def kinds(found: Sequence[Setting]) -> dict[str, str]:
    return {each.name: each.kind for each in found}


LSTM = {"units": 3, "activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": True}
NOTED: list[tuple[str, dict[str, Any], str]] = [
    ("LSTM", {**LSTM, "activation": "relu"}, "activation relu"),
    ("LSTM", {**LSTM, "recurrent_activation": "hard_sigmoid"}, "recurrent_activation hard_sigmoid"),
    ("LSTM", {**LSTM, "go_backwards": True}, "go_backwards"),
    ("LSTM", {**LSTM, "stateful": True}, "stateful"),
    ("LSTM", {**LSTM, "zero_output_for_mask": True}, "zero_output_for_mask"),
    ("LSTM", {**LSTM, "return_sequences": False}, "h_n for its output (return_sequences is off)"),
    ("LSTM", {**LSTM, "recurrent_dropout": 0.2}, "recurrent_dropout 0.2"),
    ("GRU", {**LSTM, "reset_after": False}, "reset_after False"),
    ("SimpleRNN", {"units": 3, "activation": "gelu"}, "activation gelu"),
    ("Embedding", {"mask_zero": True}, "mask_zero"),
    ("Dense", {"activation": "softmax"}, "torch.nn.Softmax(-1) after it"),
    ("Dense", {"activation": "my_own"}, "the activation my_own after it"),
    ("Dense", {"activation": {"class_name": "function", "config": "gelu"}}, "torch.nn.GELU() after it"),
    (
        "Dense",
        {"activation": {"module": "keras.layers", "class_name": "LeakyReLU", "config": {"negative_slope": 0.1}}},
        "the activation LeakyReLU(negative_slope=0.1) after it",
    ),
    ("Dense", {"kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}}}, "kernel_regularizer L2(l2=0.01)"),
    ("Dense", {"lora_rank": 4}, "lora_rank 4"),
    ("Dense", {"trainable": False}, "trainable False"),
    (
        "Dense",
        {"dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}},
        "torch.autocast(dtype=torch.float16)",
    ),
    ("Conv2D", {"activation": "softmax"}, "torch.nn.Softmax(1) after it"),
    ("BatchNormalization", {"renorm": True}, "renorm"),
    ("BatchNormalization", {"mode": 1}, "mode 1"),
    ("BatchNormalization", {"axis": -2}, "axis -2"),
    ("LayerNormalization", {"axis": [1, 2]}, "the axes 1, 2 as the last"),
    ("LayerNormalization", {"rms_scaling": True}, "rms_scaling"),
    ("Normalization", {"invert": True}, "invert"),
    ("Normalization", {"mean": [1.0, 2.0]}, "mean (1, 2)"),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 4}, "num_heads=2"),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 4, "attention_axes": [2]}, "attention along axes 2"),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 4, "sliding_window": 8}, "sliding_window 8"),
    ("MultiHeadAttention", {"num_heads": 2, "key_dim": 4, "use_gate": True}, "use_gate"),
    ("GroupNormalization", {"groups": -1}, "a group for each channel"),
    ("EinsumDense", {"equation": "abc,cde->abde"}, "inputs and outputs flattened and not as in abc,cde->abde"),
    ("RNN", {"cell": {"class_name": "LSTMCell", "config": {**LSTM, "activation": "relu"}}}, "activation relu"),
    ("LeakyReLU", {"negative_slope": 0.3}, "negative_slope 0.3"),
    ("ReLU", {"max_value": 6}, "max_value 6"),
    ("UpSampling2D", {"interpolation": "bilinear"}, "interpolation bilinear"),
    *(
        (
            "Conv2DTranspose",
            {"kernel_size": [size] * 2, "strides": [2, 2], "padding": padding, "output_padding": added},
            note,
        )
        for size, padding, added, note in (
            (3, "same", 0, "padding=1"),
            (3, "same", 1, "its output cropped at the ends by (0, 1)"),
            (4, "same", 0, "padding=2"),
            (4, "same", 1, "its output cropped at the ends by (1, 2)"),
            (3, "valid", 1, "output_padding=1"),
            (3, "same", None, "its output cropped at the ends by (0, 1)"),
            (4, "same", None, "padding=1"),
        )
    ),
    (
        "Conv2D",
        {"padding": "same", "strides": [2, 2]},
        "padding 'same' by torch.nn.functional.pad before it, as none goes with a stride",
    ),
]


@pytest.mark.parametrize(
    ("class_name", "config", "said"), NOTED, ids=[f"{name}-{said[:24]}" for name, _, said in NOTED]
)
def test_what_pytorch_does_otherwise_is_said(class_name: str, config: dict[str, Any], said: str) -> None:
    assert said in said_of(class_name, **config)
    assert any(
        said in line for line in lines(settings(model_of((class_name, config)), is_keras_3=True), is_for_keras=False)
    )


BARE: dict[str, list[str]] = {
    **{name: [] for name in ("Dense", "Embedding", "Conv2D", "DepthwiseConv2D", "SeparableConv1D", "PReLU")},
    "BatchNormalization": ["eps=0.001", "momentum=0.01"],
    "LayerNormalization": ["eps=0.001"],
    "GroupNormalization": ["eps=0.001", "num_groups=32"],
    "RMSNormalization": ["eps=1e-06"],  # torch.nn.RMSNorm takes that of the type
    "Normalization": ["(x - mean) / variance.sqrt() for it"],
    "LSTM": ["batch_first=True", "h_n for its output (return_sequences is off)"],
    "SimpleRNN": ["batch_first=True", "h_n for its output (return_sequences is off)"],
}


@pytest.mark.parametrize("class_name", BARE)
def test_a_layer_that_is_set_to_nothing_is_set_to_what_keras_takes(class_name: str) -> None:
    assert said_of(class_name) == BARE[class_name]
    older = said_of(class_name, is_keras_3=False)
    hard = "recurrent_activation hard_sigmoid (0.2 x + 0.5, cut at 0 and 1)"
    assert older == ([hard] if class_name == "LSTM" else []) + BARE[class_name]


QUIET: list[tuple[str, str, tuple[Any, ...], tuple[Any, ...]]] = [
    ("BatchNormalization", "epsilon", (1e-5,), (1e-3, 1e-6)),
    ("BatchNormalization", "momentum", (0.9,), (0.99, 0.1, 1.0, 2.0)),
    ("BatchNormalization", "renorm", (False, None), (True,)),
    ("BatchNormalization", "synchronized", (False,), (True,)),
    ("LayerNormalization", "epsilon", (1e-5,), (1e-3, 1e-12)),
    ("RMSNormalization", "epsilon", (), (1e-6, 1e-5)),
    ("Conv2D", "strides", (1, [1, 1]), (2, [2, 2], [1, 2])),
    ("Conv2D", "dilation_rate", (1, [1, 1]), (2, [2, 2])),
    ("Conv2D", "groups", (1,), (2,)),
    ("Conv2D", "padding", ("valid",), ("same", "causal", "full")),
    ("Dense", "activation", ("linear", None), ("relu", "softmax")),
    ("Dense", "activity_regularizer", (None,), ("l2",)),
    ("Dense", "trainable", (True, None), (False,)),
    ("Dense", "dtype", ("float32", "bfloat16", None), ("mixed_bfloat16", "int8_from_float32")),
    ("Dense", "quantization_config", (None,), ({"class_name": "Int8", "config": {}},)),
    ("Embedding", "mask_zero", (False,), (True,)),
    ("LSTM", "go_backwards", (False,), (True,)),
    ("LSTM", "dropout", (0, 0.0), (0.5,)),
    ("LSTM", "unroll", (True, False), ()),
    ("LSTM", "activation", ("tanh",), ("relu",)),
    ("LSTM", "recurrent_activation", ("sigmoid",), ("hard_sigmoid",)),
    ("LSTM", "time_major", (False,), ()),
    ("SimpleRNN", "activation", ("tanh",), ("relu", "gelu")),
    ("GroupNormalization", "groups", (), (1, 32, -1)),
    ("MultiHeadAttention", "attention_axes", (None,), ([1], [2])),
    ("MultiHeadAttention", "use_gate", (False, None), (True,)),
    ("Normalization", "invert", (False,), (True,)),
    ("EinsumDense", "equation", ("ab,bc->ac", "...x,xy->...y", "abc, cd->abd"), ("abc,cde->abde",)),
    ("ReLU", "max_value", (None,), (6,)),
    ("ReLU", "threshold", (0, None), (1,)),
    ("LeakyReLU", "negative_slope", (0.01,), (0.3,)),
    ("Softmax", "axis", (-1,), (1,)),
    ("Rescaling", "offset", (0,), (1,)),
    ("UpSampling2D", "interpolation", ("nearest",), ("bilinear",)),
    ("MaxPooling2D", "padding", ("valid",), ("same",)),
    ("GlobalAveragePooling2D", "keepdims", (False,), (True,)),
]


@pytest.mark.parametrize(("class_name", "name", "quiet", "telling"), QUIET)
def test_a_value_that_pytorch_takes_as_it_is_needs_no_word(
    class_name: str, name: str, quiet: tuple[Any, ...], telling: tuple[Any, ...]
) -> None:
    def told(value: Any) -> list[Setting]:
        return [
            each
            for each in settings(
                model_of((class_name, {**LSTM_LIKE.get(class_name, {}), name: value})), is_keras_3=True
            )
            if each.name == name
        ]

    for value in quiet:
        assert told(value) == [], value
    for value in telling:
        assert len(told(value)) == 1, value


LSTM_LIKE: dict[str, dict[str, Any]] = {"LSTM": {"units": 3, "return_sequences": True}}


def placed(class_name: str, shape: Sequence[int | None] | None, *, is_on_map: bool = False, **config: Any) -> list[str]:
    """What is said of the axes of a layer that was built with a shape; on a map with channels last, or not."""
    entry: dict[str, Any] = {"class_name": class_name, "config": {"name": "l", **config}}
    if shape is not None:
        entry["build_config"] = {"input_shape": list(shape)}
    image = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 8, 8, 3]}}
    layers = [image, entry] if is_on_map else [entry]
    model = architecture.parse({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
    return [each.note for each in settings(model, is_keras_3=True) if each.name == "axis"]


@pytest.mark.parametrize(
    ("axis", "shape", "is_on_map", "is_said"),
    [
        *((-1, None, False, False), ([-1], (None, 8, 8, 3), True, False), (3, (None, 8, 8, 3), True, False)),
        *(([3], (None, 8, 8, 3), False, False), (1, (None, 3), False, False), (2, (None, 5, 3), False, False)),
        *((1, None, False, False), (1, (None, 8, 8, 3), True, True)),
        *((1, (None, 5, 3), False, True), (2, None, False, False), (3, None, False, False)),
        *((2, (None, 8, 8, 3), False, True), (-2, None, False, True), (0, None, False, True), ("x", None, False, True)),
    ],
)
def test_an_axis_of_batches_is_the_last_or_that_of_pytorch(
    axis: Any, shape: tuple[int | None, ...] | None, is_on_map: bool, is_said: bool
) -> None:
    said = placed("BatchNormalization", shape, is_on_map=is_on_map, axis=axis)
    assert said == ([f"axis {axis[0] if isinstance(axis, list) else axis}"] if is_said else [])


def test_an_axis_of_channels_that_are_first_is_that_of_pytorch() -> None:
    norm = {"class_name": "BatchNormalization", "config": {"name": "n", "axis": 1}}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 3, 8, 8]}},
        {"class_name": "Conv2D", "config": {"name": "c", "data_format": "channels_first"}},
        {**norm, "build_config": {"input_shape": [None, 4, 8, 8]}},
    ]
    model = architecture.parse({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
    assert [each.note for each in settings(model, is_keras_3=True) if each.name == "axis"] == []


@pytest.mark.parametrize(
    ("axis", "shape", "said"),
    [
        *((-1, None, []), ([-1], (None, 8, 3), []), (2, (None, 8, 3), []), ([1, 2], (None, 8, 3), [])),
        *((1, (None, 8, 3), ["axis 1 as the last"]), ([2], None, ["axis 2 as the last"])),
        *(
            ([1, 2], (None, 8, 8, 3), ["the axes 1, 2 as the last"]),
            ([2, 1], (None, 8, 3), ["the axes 2, 1 as the last"]),
        ),
    ],
)
def test_axes_that_are_normalised_are_the_last(
    axis: Any, shape: tuple[int | None, ...] | None, said: list[str]
) -> None:
    assert placed("LayerNormalization", shape, axis=axis) == said
    assert placed("Normalization", shape, axis=axis) == ["(x - mean) / variance.sqrt() for it", *said]


@pytest.mark.parametrize(
    ("axes", "shape", "is_said"),
    [
        *((None, None, False), ([1], [None, 5, 4], False), (1, [None, 5, 4], False)),
        *(([1], [None, 5, 6, 4], True), ([2], [None, 5, 4], True), ([1], None, True), ([1, 2], [None, 5, 4], True)),
    ],
)
def test_attention_is_along_the_one_axis_that_there_is(axes: Any, shape: Any, is_said: bool) -> None:
    config = {"num_heads": 2, "key_dim": 4, "attention_axes": axes, "query_shape": shape}
    found = settings(model_of(("MultiHeadAttention", config)), is_keras_3=True)
    assert any(each.name == "attention_axes" for each in found) == is_said


@pytest.mark.parametrize(
    ("strides", "size", "dilation", "padding", "said"),
    [
        (1, 3, 1, "same", "padding='same'"),
        ([1, 1], 3, 1, "same", "padding='same'"),
        (2, 3, 1, "same", "padding 'same' by torch.nn.functional.pad before it, as none goes with a stride"),
        (1, 3, 1, "causal", "torch.nn.functional.pad by (2, 0) before it"),
        (1, [5], [2], "causal", "torch.nn.functional.pad by (8, 0) before it"),
        (1, None, 1, "causal", "torch.nn.functional.pad by causal before it"),
        (1, 3, 1, "full", "padding full"),
    ],
)
def test_how_a_convolution_is_padded(strides: Any, size: Any, dilation: Any, padding: str, said: str) -> None:
    config = {"strides": strides, "kernel_size": size, "dilation_rate": dilation, "padding": padding}
    found = settings(model_of(("Conv1D", config)), is_keras_3=True)
    assert [each.note for each in found if each.name == "padding"] == [said]


def test_a_class_that_no_table_knows_is_said_where_it_has_no_variables() -> None:
    """One that has some is said by their names, which no module of PyTorch takes."""
    model = model_of(("Package>Mine", {"factor": 2}), ("Dense", {"units": 2}))
    for names, is_said in (((), True), (("l1/kernel",), True), (("l0/scale", "l1/kernel"), False)):
        found = settings(model, names, is_keras_3=True)
        assert [(each.class_name, each.kind) for each in found] == [("Package>Mine", "unwritten")] * is_said


def test_values_as_wide_as_keys_are_no_news() -> None:
    heads = {"num_heads": 2, "key_dim": 4}
    assert said_of("MultiHeadAttention", **heads, value_dim=4) == said_of("MultiHeadAttention", **heads)
    assert "value_dim=3" in said_of("MultiHeadAttention", **heads, value_dim=3)


def deep(count: int) -> Any:
    value: Any = 1
    for _ in range(count):
        value = [value, 2]
    return value


@pytest.mark.parametrize(
    "layer",
    [{"class_name": "Dense", "config": {"name": "l0", "made_up": deep(5000)}}, {"config": {"name": "l0"}}],
    ids=["nested without end", "no layer"],
)
def test_a_config_that_is_not_understood_is_said_to_be(layer: dict[str, Any]) -> None:
    def planned(entry: dict[str, Any]) -> Checkpoint:
        config = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry]}, "keras_version": "3.0.0"}
        source = Checkpoint(tensors={}, dialect=Dialect.KERAS, keras_config=Config(values=config, raw=b""))
        return with_settings(replace(source, dialect=Dialect.PYTORCH), source, has_own_graph=False)

    said = "the Keras config is not understood: what its layers compute is not compared"
    assert planned(layer).warnings == (said,)
    assert said not in planned({"class_name": "Dense", "config": {"name": "l0", "made_up": deep(3)}}).warnings


def test_a_setting_that_no_table_knows_is_said() -> None:
    found = settings(model_of(("Dense", {"units": 2, "made_up": 3})), is_keras_3=True)
    assert kinds(found) == {"made_up": "unknown"}
    assert lines(found, is_for_keras=False) == ("Dense l0: made_up 3: not known here, and not carried",)


def test_layers_as_pytorch_has_them_are_no_news() -> None:
    plain = model_of(
        (
            "Dense",
            {
                "units": 3,
                "activation": "linear",
                "use_bias": False,
                "name": "x",
                "kernel_initializer": {"class_name": "Z"},
            },
        ),
        (
            "Conv2D",
            {
                "filters": 3,
                "kernel_size": [3, 3],
                "strides": [1, 1],
                "padding": "valid",
                "data_format": "channels_last",
            },
        ),
        ("Embedding", {"mask_zero": False, "input_length": 5}),
        ("BatchNormalization", {"epsilon": 1e-5, "momentum": 0.9, "axis": -1}),
        ("LayerNormalization", {"epsilon": 1e-5, "axis": [-1]}),
    )
    assert settings(plain, is_keras_3=True) == ()


def test_what_a_layer_is_called_with_is_said() -> None:
    history = {"class_name": "__keras_tensor__", "config": {"keras_history": ["in", 0, 0]}}
    attention = {
        "class_name": "MultiHeadAttention",
        "config": {"name": "at", "num_heads": 1, "key_dim": 2},
        "inbound_nodes": [
            {"args": [history], "kwargs": {"value": history, "use_causal_mask": True, "training": False}}
        ],
    }
    older = {
        "class_name": "BatchNormalization",
        "config": {"name": "bn", "epsilon": 1e-5, "momentum": 0.9},
        "inbound_nodes": [[["in", 0, 0, {"training": True}]]],
    }
    config = {"class_name": "Functional", "config": {"name": "m", "layers": [attention, older]}}
    said = {each.note for each in settings(architecture.parse(config), is_keras_3=True)}
    assert {"what the call with use_causal_mask=True does", "what the call with training=True does"} <= said
    assert not any("value" in each or "training=False" in each for each in said)


def test_configs_of_keras_1_are_read_by_what_keras_2_calls_their_settings() -> None:
    convolution = {
        "nb_filter": 3,
        "nb_row": 3,
        "nb_col": 3,
        "subsample": [2, 2],
        "border_mode": "valid",
        "dim_ordering": "tf",
    }
    found = settings(
        model_of(
            (
                "Convolution2D",
                {**convolution, "activation": "relu", "bias": True, "W_regularizer": {"name": "WeightRegularizer"}},
            ),
            (
                "LSTM",
                {
                    "output_dim": 3,
                    "input_dim": 2,
                    "inner_activation": "hard_sigmoid",
                    "dropout_U": 0.5,
                    "consume_less": "cpu",
                },
            ),
            ("Dense", {"output_dim": 2, "init": "glorot_uniform", "b_constraint": None, "input_dim": 3}),
        ),
        is_keras_3=False,
    )
    assert "unknown" not in kinds(found).values(), found
    said = [each.note for each in found]
    for expected in ("stride=2", "torch.nn.ReLU() after it", "recurrent_dropout 0.5"):
        assert expected in said
    assert any(each.startswith("recurrent_activation hard_sigmoid (0.2 x + 0.5") for each in said)
    assert any(each.name == "kernel_regularizer" and each.kind == "training" for each in found)


def test_what_old_configs_leave_out_is_what_keras_took_then() -> None:
    assert any("hard_sigmoid" in each for each in said_of("LSTM", is_keras_3=False, units=3))
    assert not any("recurrent_activation" in each for each in said_of("LSTM", is_keras_3=True, units=3))
    assert "reset_after False" in said_of("GRU", is_keras_3=False, units=3)


def test_many_layers_are_few_lines_and_all_are_listed() -> None:
    many = [
        ("Conv2D", {"padding": "same", "activation": "relu"}),
        ("BatchNormalization", {"epsilon": 1e-3}),
        ("Add", {}),
    ]
    found = settings(model_of(*many * 50), is_keras_3=True)
    made = lines(found, is_for_keras=False)
    assert len(made) == 3
    assert "l0, l3, l6 and 47 more" in made[0]
    assert made[2] == "layers without weights are for the model's code: Add x50"
    assert len({each.layer for each in found}) == 150


@pytest.mark.parametrize(
    ("of_source", "of_target", "is_said"),
    [
        *((Dialect.KERAS, Dialect.PYTORCH, True), (Dialect.TENSORFLOW, Dialect.PYTORCH, True)),
        *((Dialect.PYTORCH, Dialect.KERAS, True), (Dialect.PYTORCH, Dialect.PYTORCH, False)),
        *((Dialect.KERAS, Dialect.KERAS, False), (Dialect.TENSORFLOW, Dialect.KERAS, False)),
    ],
)
def test_settings_are_said_where_weights_change_sides_without_their_graph(
    of_source: Dialect, of_target: Dialect, is_said: bool
) -> None:
    layers = [{"class_name": "Dense", "config": {"name": "d", "activation": "relu"}}]
    config = Config(values={"class_name": "Sequential", "config": {"name": "m", "layers": layers}}, raw=b"{}")
    source = Checkpoint(tensors={}, keras_config=config, dialect=of_source)
    planned = replace(source, dialect=of_target)
    made = with_settings(planned, source, has_own_graph=False)
    assert (bool(made.warnings), bool(made.settings)) == (is_said, is_said)
    assert any("ReLU" in each for each in made.warnings) == is_said
    assert with_settings(planned, source, has_own_graph=True) is planned
    assert with_settings(planned, replace(source, keras_config=None), has_own_graph=False) is planned


def test_the_precision_of_a_layer_without_weights_is_one_of_the_whole_model() -> None:
    found = settings(model_of(("ReLU", {"dtype": "mixed_float16"}), ("Dense", {"dtype": "float16"})), is_keras_3=True)
    assert [(each.layer, each.name, each.kind) for each in found] == [
        ("l0", "", "unwritten"),
        ("l0", "dtype", "beside"),
    ]
    made = lines(found, is_for_keras=False)
    assert made[0] == "torch.autocast(dtype=torch.float16): l0, with a Keras policy of mixed precision"


def test_an_input_is_no_layer_of_the_models_code() -> None:
    found = settings(
        model_of(("InputLayer", {"batch_shape": [None, 3]}), ("Dense", {}), ("Flatten", {})), is_keras_3=True
    )
    assert [(each.class_name, each.kind) for each in found] == [("Flatten", "unwritten")]


def test_what_a_module_lacks_is_one_thing_or_several() -> None:
    (one,) = lines(settings(model_of(("LSTM", {**LSTM, "stateful": True})), is_keras_3=True), is_for_keras=False)
    assert "stateful: torch.nn.LSTM has no such, the weights alone are carried" in one
    both = {**LSTM, "stateful": True, "activation": "relu"}
    (several,) = lines(settings(model_of(("LSTM", both)), is_keras_3=True), is_for_keras=False)
    assert "stateful: torch.nn.LSTM has none of these, the weights alone are carried" in several.replace(
        "stateful, activation relu", "activation relu, stateful"
    )


def test_layers_are_grouped_by_what_they_have_alike_or_by_each_thing_whichever_is_shorter() -> None:
    """Every combination of two settings is a line each of these; two ways to be set are a line for each way."""
    combined = [("Conv2D", {"strides": strides, "groups": groups}) for strides in (1, 2) for groups in (1, 2)]
    made = lines(settings(model_of(*combined), is_keras_3=True), is_for_keras=False)
    assert made == ("Conv2D l1, l3: PyTorch needs groups=2", "Conv2D l2, l3: PyTorch needs stride=2")
    alike = [("Conv2D", {"strides": 2, "groups": 2}), ("Conv2D", {"strides": 3, "groups": 3})] * 2
    made = lines(settings(model_of(*alike), is_keras_3=True), is_for_keras=False)
    assert made == (
        "Conv2D l0, l2: PyTorch needs stride=2, groups=2",
        "Conv2D l1, l3: PyTorch needs stride=3, groups=3",
    )


def test_a_hard_sigmoid_is_another_line_before_keras_3() -> None:
    newer, older = (activations.in_torch("hard_sigmoid", is_keras_3=is_keras_3) for is_keras_3 in (True, False))
    assert newer == "torch.nn.Hardsigmoid()"
    assert older == "lambda x: (0.2 * x + 0.5).clamp(0, 1)"
    assert [said_of("Dense", is_keras_3=is_keras_3, activation="hard_sigmoid") for is_keras_3 in (True, False)] == [
        [f"{newer} after it"],
        [f"{older} after it"],
    ]


def test_both_directions_of_a_bidirectional_are_one_layer() -> None:
    inner = {"class_name": "LSTM", "config": {**LSTM, "name": "lstm", "activation": "relu"}}
    back = {"class_name": "LSTM", "config": {**LSTM, "name": "back", "activation": "relu", "go_backwards": True}}
    for more in ({}, {"backward_layer": back}):
        found = settings(model_of(("Bidirectional", {"layer": inner, **more})), is_keras_3=True)
        assert [each.note for each in found] == ["activation relu", "batch_first=True"]
        assert {each.class_name for each in found} == {"Bidirectional(LSTM)"}
    summed = settings(model_of(("Bidirectional", {"layer": inner, "merge_mode": "sum"})), is_keras_3=True)
    assert "merge_mode sum" in [each.note for each in summed]


@pytest.mark.parametrize(
    ("forward", "backward", "is_said"),
    [
        *((False, None, False), (None, None, False), (True, None, True)),
        *((False, True, False), (False, False, True), (None, False, True), (True, True, True), (True, False, True)),
    ],
)
def test_directions_that_run_otherwise_than_those_of_pytorch(
    forward: bool | None, backward: bool | None, is_said: bool
) -> None:
    """PyTorch's first runs forwards, the second backwards; Keras's second is the reverse of the first, or its own."""
    own = {} if forward is None else {"go_backwards": forward}
    inner = {"class_name": "LSTM", "config": {**LSTM, "name": "lstm", **own}}
    back = {"class_name": "LSTM", "config": {**LSTM, "name": "back", "go_backwards": backward}}
    config = {"layer": inner, **({} if backward is None else {"backward_layer": back})}
    found = settings(model_of(("Bidirectional", config)), is_keras_3=True)
    assert ("go_backwards" in [each.note for each in found]) == is_said


# numbers: PyTorch's modules, built as the report says, compute what Keras does


def arguments_of(report: converter.Report, torch: Any) -> dict[str, Any]:
    said = [each["note"] for each in report.as_dict()["settings"] if each["kind"] == "argument"]
    made: dict[str, Any] = eval(f"dict({', '.join(said)})", {"torch": torch})  # noqa: S307
    return made


def converted(
    layer: Any, shape: tuple[int, ...], folder: Path, keras: Any
) -> tuple[Any, np.ndarray, converter.Report, Any]:
    """Return a random input, what Keras makes of it, the report, and the state for one module of PyTorch."""
    torch = pytest.importorskip("torch")
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    generator = np.random.default_rng(3)
    model.set_weights([generator.uniform(0.2, 1, weight.shape) for weight in model.get_weights()])
    model.save(folder / "m.keras")
    report = converter.convert(folder / "m.keras", folder / "m.pth")
    given = generator.normal(size=(2, *shape)).astype(np.float32)
    state = torch.load(folder / "m.pth", weights_only=True)
    return given, np.asarray(model(given)), report, {name.partition(".")[2]: value for name, value in state.items()}


def close(made: Any, wanted: np.ndarray) -> None:
    assert made.shape == wanted.shape
    np.testing.assert_allclose(made, wanted, atol=2e-5, rtol=1e-4)


CONVOLUTIONS = {
    "stride": ("Conv2D", {"strides": 2}, {}),
    "strides": ("Conv2D", {"strides": (2, 1)}, {}),
    "dilation": ("Conv2D", {"dilation_rate": 2}, {}),
    "groups": ("Conv2D", {"groups": 2}, {}),
    "same": ("Conv2D", {"padding": "same"}, {}),
    "same-even": ("Conv2D", {"padding": "same", "kernel_size": (2, 4)}, {}),
    "transposed": ("Conv2DTranspose", {"strides": 2}, {}),
    "transposed-same": ("Conv2DTranspose", {"strides": 2, "padding": "same", "kernel_size": 4}, {}),
    "transposed-wide-stride": ("Conv2DTranspose", {"strides": 4}, {}),
    "transposed-wide-stride-same": ("Conv2DTranspose", {"strides": 4, "padding": "same"}, {}),
    "transposed-output-padding": ("Conv2DTranspose", {"strides": 2, "output_padding": 1}, {}),
    "depthwise": ("DepthwiseConv2D", {"padding": "same"}, {"groups": 4}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_built_as_said_compute_what_keras_does(name: str, tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    class_name, options, more = CONVOLUTIONS[name]
    filters = {} if class_name.startswith("Depthwise") else {"filters": 4}
    layer = getattr(keras.layers, class_name)(**filters, **{"kernel_size": 3, **options})
    given, wanted, report, state = converted(layer, (9, 8, 4), tmp_path, keras)
    arguments = {**arguments_of(report, torch), **more}
    module_class = torch.nn.ConvTranspose2d if "Transpose" in class_name else torch.nn.Conv2d
    module = module_class(4, 4, tuple(layer.kernel_size), **arguments)
    module.load_state_dict(state)
    with torch.no_grad():
        close(module(torch.from_numpy(given).movedim(-1, 1)).movedim(1, -1).numpy(), wanted)


def test_causal_padding_and_crops_are_as_said(tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    causal = keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2)
    (tmp_path / "a").mkdir()
    given, wanted, report, state = converted(causal, (9, 4), tmp_path / "a", keras)
    assert "torch.nn.functional.pad by (4, 0) before it" in [each["note"] for each in report.as_dict()["settings"]]
    module = torch.nn.Conv1d(4, 4, 3, **arguments_of(report, torch))
    module.load_state_dict(state)
    with torch.no_grad():
        made = module(torch.nn.functional.pad(torch.from_numpy(given).movedim(-1, 1), (4, 0))).movedim(1, -1)
    close(made.numpy(), wanted)
    (tmp_path / "b").mkdir()
    cropped = keras.layers.Conv1DTranspose(4, 3, padding="same", strides=2)
    given, wanted, report, state = converted(cropped, (9, 4), tmp_path / "b", keras)
    assert "its output cropped at the ends by (0, 1)" in [each["note"] for each in report.as_dict()["settings"]]
    module = torch.nn.ConvTranspose1d(4, 4, 3, **arguments_of(report, torch))
    module.load_state_dict(state)
    with torch.no_grad():
        close(module(torch.from_numpy(given).movedim(-1, 1))[..., 0:-1].movedim(1, -1).numpy(), wanted)


NORMS = {
    "batch": ("BatchNormalization", {"epsilon": 0.3}, "BatchNorm2d", (6,)),
    "batch-default": ("BatchNormalization", {}, "BatchNorm2d", (6,)),
    "layer": ("LayerNormalization", {"epsilon": 0.3}, "LayerNorm", (6,)),
    "rms": ("RMSNormalization", {"epsilon": 0.3}, "RMSNorm", (6,)),
    "group": ("GroupNormalization", {"groups": 3, "epsilon": 0.3}, "GroupNorm", ()),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_built_as_said_compute_what_keras_does(name: str, tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    class_name, options, module_class, sizes = NORMS[name]
    given, wanted, report, state = converted(getattr(keras.layers, class_name)(**options), (3, 2, 6), tmp_path, keras)
    arguments = arguments_of(report, torch)
    if module_class == "GroupNorm":
        arguments["num_channels"] = 6
    module = getattr(torch.nn, module_class)(*sizes, **arguments).eval()
    module.load_state_dict(state)
    given_torch = torch.from_numpy(given)
    with torch.no_grad():
        if module_class in ("BatchNorm2d", "GroupNorm"):
            made = module(given_torch.movedim(-1, 1)).movedim(1, -1)
        else:
            made = module(given_torch)
    close(made.numpy(), wanted)


def test_recurrent_layers_built_as_said_compute_what_keras_does(tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    for name, layer, module_class in (
        ("relu", keras.layers.SimpleRNN(5, activation="relu"), torch.nn.RNN),
        ("lstm", keras.layers.LSTM(5), torch.nn.LSTM),
        ("gru", keras.layers.GRU(5), torch.nn.GRU),
    ):
        (tmp_path / name).mkdir()
        given, wanted, report, state = converted(layer, (4, 3), tmp_path / name, keras)
        assert "h_n for its output (return_sequences is off)" in [each["note"] for each in report.as_dict()["settings"]]
        module = module_class(3, 5, **arguments_of(report, torch))
        module.load_state_dict(state)
        with torch.no_grad():
            _, last = module(torch.from_numpy(given))
        close((last[0] if isinstance(last, tuple) else last)[0].numpy(), wanted)


# files


def lost(report: converter.Report) -> str:
    return "\n".join(report.warnings)


def test_an_lstm_that_pytorch_has_not_is_said_and_one_that_it_has_is_not(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((5, 4))
    other = {"activation": "relu", "recurrent_activation": "hard_sigmoid", "go_backwards": True}
    for name, options in (("plain", {}), ("other", other)):
        keras.Model(inputs, keras.layers.LSTM(6, name="rnn", **options)(inputs)).save(tmp_path / f"{name}.keras")
    plain = converter.convert(tmp_path / "plain.keras", tmp_path / "plain.pth")
    assert "none of these" not in lost(plain)
    said = lost(converter.convert(tmp_path / "other.keras", tmp_path / "other.pth"))
    expected = (
        "LSTM rnn: activation relu, recurrent_activation hard_sigmoid, go_backwards: torch.nn.LSTM has none of these"
    )
    assert expected in said
    for target in ("other.safetensors", "other.msgpack"):
        assert expected in lost(converter.convert(tmp_path / "other.keras", tmp_path / target))
    for target in ("again.keras", "other.h5"):  # whose config goes along
        made = converter.convert(tmp_path / "other.keras", tmp_path / target)
        assert "rnn" not in lost(made)
        assert made.settings == ()
    onnx_alone = converter.convert(tmp_path / "other.keras", tmp_path / "weights.onnx", weights_only=True)
    assert expected in lost(onnx_alone)


@pytest.mark.parametrize("suffix", [".txt", ".html", ".json"])
def test_a_report_lists_the_settings_of_every_layer(suffix: str, tmp_path: Path) -> None:
    found = settings(model_of(*[("LayerNormalization", {"epsilon": 1e-3})] * 9), is_keras_3=True)
    outcome = converter.Report(source="a", target="b", source_format="keras", target_format="pytorch", settings=found)
    with opened(str(tmp_path / f"report{suffix}"), source="a", target="b", overwrite=False) as ledger:
        assert ledger is not None
        ledger.write(outcome)
    text = (tmp_path / f"report{suffix}").read_text(encoding="utf-8")
    assert all(f"l{number}" in text for number in range(9))
    assert text.count("eps=0.001") == 9


def test_a_keras_config_for_weights_of_pytorch_says_what_it_presumes(tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    inputs = keras.Input((5, 4))
    outputs = keras.layers.LayerNormalization(name="n")(keras.layers.LSTM(6, name="rnn", activation="relu")(inputs))
    (tmp_path / "model.json").write_text(keras.Model(inputs, outputs).to_json(), encoding="utf-8")
    rnn, norm = torch.nn.LSTM(4, 6), torch.nn.LayerNorm(6)
    state = {f"rnn.{name}": value for name, value in rnn.state_dict().items()}
    torch.save(state | {f"n.{name}": value for name, value in norm.state_dict().items()}, tmp_path / "m.pth")
    said = lost(converter.convert(tmp_path / "m.pth", tmp_path / "m.keras", config=tmp_path / "model.json"))
    assert "LSTM rnn: activation relu: torch.nn.LSTM has no such" in said
    assert "LayerNormalization n: right where PyTorch had eps=0.001" in said


def test_a_graph_carries_what_its_layers_compute(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((5, 4))
    keras.Model(inputs, keras.layers.LSTM(6, name="rnn", activation="relu")(inputs)).save(tmp_path / "m.keras")
    made = converter.convert(tmp_path / "m.keras", tmp_path / "m.onnx")
    assert made.verification.outputs
    assert "rnn" not in lost(made)
    assert made.settings == ()


def test_a_gru_that_resets_before_is_kept_as_stored_also_where_an_old_config_does_not_say_so(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.GRU(3, reset_after=False, name="g")])
    model.save(tmp_path / "m.keras")
    report = converter.convert(tmp_path / "m.keras", tmp_path / "m.safetensors")
    assert "reset_after False: torch.nn.GRU has no such" in lost(report)
    assert converter.read(tmp_path / "m.safetensors").tensors["g/gru_cell/kernel"].shape == (4, 9)
    old = model_of(("GRU", {"units": 3}))
    assert architecture.modules(old) == ([], list(old.layers))


def test_two_biases_of_a_recurrent_layer_of_cudnn_are_not_taken_for_one() -> None:
    shapes = {"l/kernel": (4, 12), "l/recurrent_kernel": (3, 12), "l/bias": (12,)}
    assert [module.module for module in leaves.modules(shapes)] == ["l"]
    (module,) = leaves.modules({**shapes, "l/bias": (24,)})
    assert [slot.torch for slot in module.slots][-1] == ("bias_ih_l0", "bias_hh_l0")
    assert leaves.modules({**shapes, "l/bias": (13,)}) == []


DEEP: list[Any] = [1]
for _ in range(50):
    DEEP = [DEEP]
ODD = [None, [], {}, "x", -1, 10**400, 1e308, [[1]], True, {"class_name": 3}, DEEP, [None, 2], ["a"], [2, 2], "same", 7]


def test_configs_with_anything_for_a_value_are_said_or_refused() -> None:
    generator, tried = random.Random(5), 0
    for class_name, rules in LAYERS.items():
        keys = [key for key in {**COMMON, **rules} if key not in ("name", "layer", "backward_layer")]
        for _ in range(60):
            config = {key: generator.choice(ODD) for key in generator.sample(keys, min(len(keys), 5))}
            if "layer" in rules:
                config["layer"] = {"class_name": "GRU", "config": {"name": "i", **config}}
            model = model_of(("InputLayer", {"batch_input_shape": [None, 8, 8, 3]}), (class_name, config))
            lines(settings(model, is_keras_3=True), is_for_keras=bool(tried % 2))
            tried += 1
    assert tried > 5000


def test_rules_of_the_table_are_no_less_than_their_fates() -> None:
    """An argument has a name or is read, and whatever is held or inert is not read."""
    for layer, rules in LAYERS.items():
        for key, rule in rules.items():
            assert isinstance(rule, Rule)
            if rule.fate is Fate.ARGUMENT:
                assert rule.argument or rule.reading, f"{layer}.{key}"
            if rule.fate in (Fate.HELD, Fate.INERT):
                assert not rule.reading, f"{layer}.{key}"
