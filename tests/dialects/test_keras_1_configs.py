"""Configs of Keras 1 in the terms of Keras 2: classes, settings, inputs and what a Merge joins."""

from __future__ import annotations

from typing import Any

import pytest

from converter.dialects.keras import keras_1
from converter.errors import ReadError, SafetyError
from tests.dialects import keras_1_files as older
from tests.dialects.keras_1_files import layer, placed


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = keras_1.as_keras_2(config)["config"]["layers"]
    return layers


def renewed(class_name: str, **settings: Any) -> tuple[str, dict[str, Any]]:
    """Return the class and settings of one layer, without those that all have."""
    (_, made) = layers_of(older.sequential(layer(class_name, "x", **settings), shape=(4, 4)))
    own = {key: value for key, value in made["config"].items() if key not in ("name", "trainable")}
    return made["class_name"], own


@pytest.mark.parametrize(
    ("older_class", "older_settings", "class_name", "settings"),
    [
        ("TimeDistributedDense", {"output_dim": 3, "bias": False}, "Dense", {"units": 3, "use_bias": False}),
        (
            "AtrousConvolution1D",
            {"nb_filter": 2, "filter_length": 3, "subsample_length": 1, "atrous_rate": 2, "init": "zero"},
            "Conv1D",
            {"filters": 2, "kernel_size": [3], "strides": [1], "dilation_rate": [2]},
        ),
        (
            "Convolution3D",
            {"kernel_dim1": 1, "kernel_dim2": 2, "kernel_dim3": 3, "dim_ordering": "th"},
            "Conv3D",
            {"kernel_size": [1, 2, 3], "data_format": "channels_first"},
        ),
        ("MaxPooling1D", {"pool_length": 2, "stride": 2}, "MaxPooling1D", {"pool_size": [2], "strides": [2]}),
        ("ZeroPadding1D", {"padding": 2}, "ZeroPadding1D", {"padding": 2}),
        ("ZeroPadding1D", {"padding": {"right_pad": 2}}, "ZeroPadding1D", {"padding": [0, 2]}),
        ("ZeroPadding2D", {"padding": [1, 2]}, "ZeroPadding2D", {"padding": [1, 2]}),
        ("ZeroPadding2D", {"padding": [1, 2, 3, 4]}, "ZeroPadding2D", {"padding": [[1, 2], [3, 4]]}),
        ("ZeroPadding2D", {"padding": {"left_pad": 3}}, "ZeroPadding2D", {"padding": [[0, 0], [3, 0]]}),
        ("Dropout", {"p": 0.5}, "Dropout", {"rate": 0.5}),
        (
            "Embedding",
            {"input_dim": 5, "output_dim": 2, "input_length": 4, "dropout": 0.0, "W_constraint": {"name": "NonNeg"}},
            "Embedding",
            {"input_dim": 5, "output_dim": 2, "embeddings_constraint": {"class_name": "NonNeg", "config": {}}},
        ),
        (
            "Dense",
            {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.1}},
            "Dense",
            {"kernel_regularizer": {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.1}}},
        ),
        (
            "Dense",
            {"b_constraint": {"name": "MaxNorm", "m": 2, "axis": 0}},
            "Dense",
            {"bias_constraint": {"class_name": "MaxNorm", "config": {"max_value": 2, "axis": 0}}},
        ),
        ("GRU", {"inner_activation": "tanh"}, "GRU", {"recurrent_activation": "tanh", "reset_after": False}),
    ],
)
def test_settings_have_the_names_and_values_of_keras_2(
    older_class: str, older_settings: dict[str, Any], class_name: str, settings: dict[str, Any]
) -> None:
    assert renewed(older_class, **older_settings) == (class_name, settings)


def test_what_has_no_equal_stays_for_keras_to_refuse() -> None:
    assert renewed("BatchNormalization", mode=0) == ("BatchNormalization", {})
    assert renewed("BatchNormalization", mode=1) == ("BatchNormalization", {"mode": 1})
    assert renewed("Embedding", dropout=0.2) == ("Embedding", {"dropout": 0.2})
    highway = {"activation": "linear", "transform_bias": -2}
    assert renewed("Highway", **highway) == ("Highway", highway)
    eigenvalue = {"name": "EigenvalueRegularizer", "k": 1}
    assert renewed("Dense", W_regularizer=eigenvalue) == ("Dense", {"kernel_regularizer": eigenvalue})


@pytest.mark.parametrize(
    ("mode", "mode_type", "class_name", "settings"),
    [
        ("sum", "raw", "Add", {}),
        ("concat", "raw", "Concatenate", {"axis": 2}),
        ("dot", "raw", "Dot", {"axes": [1, 1]}),
        ("cos", "raw", "Merge", None),
        ("sum", "function", "Merge", None),
    ],
)
def test_a_merge_is_a_class_for_each_mode(mode: str, mode_type: str, class_name: str, settings: Any) -> None:
    said = {"mode": mode, "mode_type": mode_type, "concat_axis": 2, "dot_axes": [1, 1], "arguments": {}}
    assert renewed("Merge", **said) == (class_name, said if settings is None else settings)


def dense(name: str, **settings: Any) -> dict[str, Any]:
    return layer("Dense", name, output_dim=3, **settings)


def chain(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": [*layers]}


def merge(name: str, *branches: dict[str, Any]) -> dict[str, Any]:
    return layer("Merge", name, mode="sum", mode_type="raw", layers=[*branches])


def calls(config: dict[str, Any]) -> dict[str, list[str]]:
    """Return the layers that each is called on."""
    found = keras_1.as_keras_2(config)
    assert found["class_name"] == "Model"
    return {
        each["config"]["name"]: [place[0] for node in each["inbound_nodes"] for place in node]
        for each in found["config"]["layers"]
    }


def test_branches_of_a_merge_are_layers_of_a_functional_model() -> None:
    """A chain, a functional model, a layer that two share, and a Merge in a branch."""
    shared = dense("shared", batch_input_shape=[None, 3])
    inner = older.functional([older.source("words", [3]), placed(dense("both"), "words")], "both")
    first = merge("first", chain(shared, dense("a")), inner)
    config = chain(merge("second", chain(first, dense("b")), chain(shared, dense("c"))), dense("last"))
    assert calls(config) == {
        "shared_input": [],
        "shared": ["shared_input"],
        "a": ["shared"],
        "words": [],
        "both": ["words"],
        "first": ["a", "both"],
        "b": ["first"],
        "c": ["shared"],
        "second": ["b", "c"],
        "last": ["second"],
    }
    made = keras_1.as_keras_2(config)["config"]
    assert made["input_layers"] == [["shared_input", 0, 0], ["words", 0, 0]]
    assert made["output_layers"] == [["last", 0, 0]]


def test_the_input_of_a_sequential_is_a_layer() -> None:
    source = {"name": "a_input", "batch_input_shape": [None, 3], "dtype": "int32"}
    first = dense("a", batch_input_shape=[None, 3], input_dtype="int32")
    for config in (chain(first), chain(chain(first))):
        assert layers_of(config)[0] == {"class_name": "InputLayer", "config": source}
    own = {"class_name": "InputLayer", "config": {"name": "own", "batch_input_shape": [None, 3], "sparse": False}}
    assert [each["config"]["name"] for each in layers_of(chain(own, dense("a")))] == ["own", "a"]
    inner = older.functional([older.source("words", [3]), placed(dense("both"), "words")], "both")
    assert layers_of(chain(inner))[0]["config"]["name"] == "words"


def test_models_in_a_sequential_have_the_names_that_the_file_lists() -> None:
    first = dense("a", batch_input_shape=[None, 3])
    made = keras_1.as_keras_2(chain(chain(first), dense("b")), ["sequential_4", "b"])
    assert made["config"]["layers"][1]["config"]["name"] == "sequential_4"


def test_what_is_no_layer_is_refused() -> None:
    good = chain(merge("m", chain(dense("a", batch_input_shape=[None, 3]))))
    assert keras_1.as_keras_2(good)
    for odd in (7, None, {}, {"class_name": "Sequential", "config": 7}):
        with pytest.raises(ReadError):
            keras_1.as_keras_2(chain(merge("m", odd)))  # type: ignore[arg-type]
    with pytest.raises(SafetyError, match="class is not text"):
        keras_1.as_keras_2(chain(merge("m", {"class_name": ["Dense"], "config": {}})))


def test_a_shape_told_to_a_deconvolution_becomes_a_padding_of_its_output() -> None:
    def padding(extent: int, mode: str) -> Any:
        shape = [None, extent, extent, 5]
        entry = older.convolution(
            *("Deconvolution2D", "back", "tf", (3, 3)),
            nb_filter=5,
            output_shape=shape,
            border_mode=mode,
            subsample=[2, 2],
        )
        (_, made) = keras_1.as_keras_2(older.sequential(entry, shape=(4, 4, 3)))["config"]["layers"]
        return made["config"]["output_padding"]

    assert [padding(9, "valid"), padding(10, "valid")] == [[0, 0], [1, 1]]  # (4 - 1) * 2 + 3
    assert [padding(8, "same"), padding(7, "same")] == [None, [0, 0]]


def test_files_of_keras_2_are_none_of_keras_1() -> None:
    config = older.sequential(older.recurrent("GRU", "gru_1", 4), shape=(6, 3))
    newer = keras_1.as_keras_2(config)
    assert keras_1.is_of_keras_1(config, None)
    assert not keras_1.is_of_keras_1(config, "2.0.0")
    assert not keras_1.is_of_keras_1(newer, None)
