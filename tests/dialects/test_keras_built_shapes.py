"""The shapes that a Keras config says its layers were built with, and where their weights are. No framework."""

from __future__ import annotations

from typing import Any

import pytest

from converter.dialects.keras.architecture import Layer, modules, parse, snake_case
from converter.errors import ReadError


def parsed(*layers: dict[str, Any]) -> tuple[Layer, ...]:
    return parse({"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}).layers


def layer(class_name: str, **more: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": class_name.lower()}, **more}


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        ({"input_shape": [None, 4]}, (None, 4)),
        ({"shapes_dict": {"query_shape": [None, 5, 4], "value_shape": [None, 6, 4]}}, (None, 5, 4)),
        ({"input_shape": [None, 3], "shapes_dict": {"query_shape": [None, 5, 4]}}, (None, 3)),
        ({"shapes_dict": {"value_shape": [None, 6, 4]}}, None),
        ({"shapes_dict": [None, 6]}, None),
        ({"input_shape": [[None, 4], [None, 5]]}, None),
        ({"input_shape": [None, True]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_what_a_layer_was_built_with(build: Any, shape: tuple[int | None, ...] | None) -> None:
    (found,) = parsed(layer("MultiHeadAttention", build_config=build))
    assert found.input_shape == shape


def of_keras_3(name: str, call: int = 0) -> dict[str, Any]:
    config = {"shape": [None, 4], "dtype": "float32", "keras_history": [name, call, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


NODES: list[tuple[str, Any, tuple[tuple[tuple[str, int], ...], ...]]] = [
    ("one", [{"args": [of_keras_3("a")], "kwargs": {}}], ((("a", 0),),)),
    ("a list", [{"args": [[of_keras_3("b"), of_keras_3("a", 1)]], "kwargs": {}}], ((("b", 0), ("a", 1)),)),
    (
        "arguments, then keywords",
        [{"args": [of_keras_3("q"), of_keras_3("v")], "kwargs": {"key": of_keras_3("k")}}],
        ((("q", 0), ("v", 0), ("k", 0)),),
    ),
    (
        "two calls",
        [{"args": [of_keras_3("b")], "kwargs": {}}, {"args": [of_keras_3("a")], "kwargs": {}}],
        ((("b", 0),), (("a", 0),)),
    ),
    ("Keras 2", [[["b", 0, 0, {}], ["a", 2, 0, {}]]], ((("b", 0), ("a", 2)),)),
    ("two calls of Keras 2", [[["b", 0, 0, {}]], [["a", 0, 0, {}]]], ((("b", 0),), (("a", 0),))),
    ("Keras 2 with a keyword", [[["q", 0, 0, {"value": ["v", 1, 0]}]]], ((("q", 0), ("v", 1)),)),
    ("none", [], ()),
    ("no list", {"args": [of_keras_3("a")]}, ()),
]


@pytest.mark.parametrize(("nodes", "inbound"), [row[1:] for row in NODES], ids=[row[0] for row in NODES])
def test_what_a_layer_takes_is_in_the_order_of_its_call(nodes: Any, inbound: tuple[Any, ...]) -> None:
    (found,) = parsed(layer("Concatenate", inbound_nodes=nodes))
    assert found.inbound == inbound


def test_layers_of_one_class_are_numbered_apart() -> None:
    found = parsed(layer("Dense"), layer("LSTM"), layer("Dense"), layer("Package>Dense"), layer("Conv2D"))
    assert [each.store for each in found] == [
        "layers/dense",
        "layers/lstm",
        "layers/dense_1",
        "layers/dense_2",
        "layers/conv2d",
    ]


def test_a_model_of_keras_2_is_kept_where_a_functional_one_is() -> None:
    inner = {"class_name": "Model", "config": {"name": "m", "layers": [layer("Dense")]}}
    found = parsed(inner, {**inner, "class_name": "Functional"}, {**inner, "class_name": "Sequential"})
    assert [each.store for each in found] == ["layers/functional", "layers/functional_1", "layers/sequential"]
    assert [each.layers[0].store for each in found][1] == "layers/functional_1/layers/dense"


@pytest.mark.parametrize(
    ("class_name", "snake"),
    [
        ("Dense", "dense"),
        ("Conv2D", "conv2d"),
        ("MultiHeadAttention", "multi_head_attention"),
        ("GRU", "gru"),
        ("SeparableConv2DTranspose", "separable_conv2d_transpose"),
        ("MyLayer_x", "my_layer_x"),
    ],
)
def test_names_as_keras_makes_them(class_name: str, snake: str) -> None:
    assert snake_case(class_name) == snake


def test_the_two_sides_of_a_bidirectional_layer() -> None:
    inner = {"class_name": "LSTM", "config": {"name": "forward_lstm", "units": 2}}
    (found,) = parsed({"class_name": "Bidirectional", "config": {"name": "b", "layer": inner}})
    assert [(each.name, each.store) for each in found.layers] == [
        ("forward_lstm", "layers/bidirectional/forward_layer"),
        ("backward_lstm", "layers/bidirectional/backward_layer"),
    ]
    other = {"class_name": "GRU", "config": {"name": "mine", "units": 3}}
    (found,) = parsed({"class_name": "Bidirectional", "config": {"name": "b", "layer": inner, "backward_layer": other}})
    assert [(each.class_name, each.name) for each in found.layers] == [("LSTM", "forward_lstm"), ("GRU", "mine")]


def test_a_gru_of_before_keras_3_had_no_reset_after_where_its_config_says_nothing() -> None:
    for more, config, expected in (
        ({}, {}, False),
        ({}, {"reset_after": True}, True),
        ({"module": "keras.layers"}, {}, None),
        ({"module": "keras.layers"}, {"reset_after": False}, False),
    ):
        (found,) = parsed({"class_name": "GRU", "config": {"name": "g", "units": 2, **config}, **more})
        assert found.config.get("reset_after") is expected
    (other,) = parsed({"class_name": "LSTM", "config": {"name": "l", "units": 2}})
    assert "reset_after" not in other.config


@pytest.mark.parametrize("place", ["layer", "backward_layer", "both"])
def test_a_side_of_a_bidirectional_layer_that_is_no_module_makes_the_layer_none(place: str) -> None:
    good = {"class_name": "GRU", "config": {"name": "g", "units": 2, "reset_after": True}}
    bad = {"class_name": "GRU", "config": {"name": "odd", "units": 2, "reset_after": False}}
    sides = {"layer": good, "backward_layer": good} | dict.fromkeys(
        ["layer", "backward_layer"] if place == "both" else [place], bad
    )
    model = parse(
        {
            "class_name": "Sequential",
            "config": {"name": "s", "layers": [{"class_name": "Bidirectional", "config": {"name": "b", **sides}}]},
        }
    )
    assert modules(model) == ([], list(model.layers))


@pytest.mark.parametrize("wrapper", ["Sequential", "TimeDistributed"])
def test_a_config_nested_without_end_is_refused(wrapper: str) -> None:
    def nested(depth: int) -> dict[str, Any]:
        entry = layer("Dense")
        for _ in range(depth):
            inside = {"layers": [entry]} if wrapper == "Sequential" else {"layer": entry}
            entry = {"class_name": wrapper, "config": {"name": "n", **inside}}
        return entry

    assert len(parsed(nested(20))) == 1
    for depth in (40, 100):
        with pytest.raises(ReadError, match="deep"):
            parsed(nested(depth))
