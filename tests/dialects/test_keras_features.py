"""Which layers of a Keras config take a flattened map: one row for each kind of layer between the two. No framework.

tests/dialects/test_keras_flatten.py has models of Keras, and what PyTorch computes with their weights.
"""

from __future__ import annotations

from typing import Any

import pytest

from converter.dialects.keras.architecture import parse
from converter.dialects.keras.flattening import input_features, on_maps

Config = dict[str, Any]
FLAT, KEPT, UNKNOWN = "FLAT", "KEPT", "UNKNOWN"


def layer(class_name: str, name: str = "", *, after: Any = None, built: Any = None, **config: Any) -> Config:
    """A layer; `after` are the names of those that it takes, or such lists where it is called several times."""
    made: Config = {"class_name": class_name, "config": {"name": name or class_name.lower(), **config}}
    if after is not None:
        calls = after if after and isinstance(after[0], list) else [after]
        made["inbound_nodes"] = [[[source, 0, 0, {}] for source in call] for call in calls]
    if built is not None:
        made["build_config"] = {"input_shape": built}
    return made


def image(*shape: int | None, name: str = "image") -> Config:
    return layer("InputLayer", name, batch_shape=[None, *(shape or (6, 5, 3))])


def sequential(*layers: Config, name: str = "s") -> Config:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(*layers: Config, outputs: tuple[str, ...] = ("d",), name: str = "m", after: Any = None) -> Config:
    config = {"name": name, "layers": list(layers), "output_layers": [[output, 0, 0] for output in outputs]}
    made: Config = {"class_name": "Functional", "config": config}
    return made if after is None else {**made, "inbound_nodes": layer("", after=after)["inbound_nodes"]}


def found(model: Config) -> dict[str, tuple[str, int | None]]:
    return {path: (features.order.name, features.channels) for path, features in input_features(parse(model)).items()}


CONV, FLATTEN, DENSE = layer("Conv2D", filters=4), layer("Flatten"), layer("Dense", "d", units=2)
FIRST = layer("Conv2D", filters=4, data_format="channels_first")
TURNED = layer("Permute", dims=[1, 3, 2])
ROWS: list[tuple[str, list[Config], dict[str, tuple[str, int | None]]]] = [
    ("an image", [image(), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    ("a convolution", [image(), CONV, FLATTEN, DENSE], {"d": (FLAT, 4)}),
    ("no flatten", [image(), CONV, DENSE], {}),
    ("channels first", [image(3, 6, 5), FIRST, FLATTEN, DENSE], {}),
    (
        "channels first, brought last by Flatten",
        [image(3, 6, 5), FIRST, layer("Flatten", data_format="channels_first"), DENSE],
        {"d": (FLAT, 4)},
    ),
    (
        "channels first that are last",
        [image(), CONV, layer("Flatten", data_format="channels_first"), DENSE],
        {"d": (KEPT, None)},
    ),
    ("flattened by Reshape", [image(), layer("Reshape", target_shape=[90]), DENSE], {"d": (FLAT, 3)}),
    (
        "channels first, flattened by Reshape",
        [image(3, 6, 5), FIRST, layer("Reshape", target_shape=[-1], data_format="channels_first"), DENSE],
        {},
    ),
    ("a map as rows", [image(), layer("Reshape", target_shape=[30, 3]), DENSE], {}),
    ("a map as other rows", [image(), layer("Reshape", target_shape=[6, 15]), DENSE], {"d": (KEPT, None)}),
    ("reshaped to what is no shape", [image(), layer("Reshape", target_shape=None), DENSE], {"d": (UNKNOWN, None)}),
    ("features as a map", [image(12), layer("Reshape", target_shape=[2, 2, 3]), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    ("features as rows", [image(12), layer("Reshape", target_shape=[4, 3]), FLATTEN, DENSE], {}),
    (
        "a flattened map as rows",
        [image(), FLATTEN, layer("Reshape", target_shape=[30, 3]), DENSE],
        {"reshape": (FLAT, 3), "d": (UNKNOWN, None)},
    ),
    (
        "a flattened map as a map",
        [image(), FLATTEN, layer("Reshape", target_shape=[5, 6, 3]), layer("Flatten", "again"), DENSE],
        {"reshape": (FLAT, 3), "d": (FLAT, 3)},
    ),
    ("turned to channels first", [image(), layer("Permute", dims=[3, 1, 2]), FLATTEN, DENSE], {}),
    ("height and width swapped", [image(), layer("Permute", dims=[2, 1, 3]), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    ("turned", [image(), TURNED, FLATTEN, DENSE], {"d": (KEPT, None)}),
    ("turned and reshaped", [image(), TURNED, layer("Reshape", target_shape=[3, 30]), DENSE], {"d": (KEPT, None)}),
    ("turned by no axes", [image(), layer("Permute", dims="x"), FLATTEN, DENSE], {"d": (KEPT, None)}),
    ("one number for each map", [image(), CONV, layer("GlobalAveragePooling2D"), DENSE], {}),
    ("pooled", [image(), CONV, layer("MaxPooling2D"), FLATTEN, DENSE], {"d": (FLAT, 4)}),
    ("averaged", [image(), layer("AvgPool2D"), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    (
        "pooled with channels first",
        [image(3, 6, 5), FIRST, layer("MaxPooling2D", data_format="channels_first"), FLATTEN, DENSE],
        {},
    ),
    (
        "pooled though unknown",
        [image(), layer("Own"), layer("MaxPooling2D"), DENSE],
        {"maxpooling2d": (KEPT, 3), "d": (KEPT, 3)},
    ),
    ("by depth", [image(), layer("DepthwiseConv2D", depth_multiplier=2), FLATTEN, DENSE], {"d": (FLAT, 6)}),
    ("by depth, once", [image(), layer("DepthwiseConv2D"), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    (
        "by depth, of no number",
        [image(), layer("DepthwiseConv2D", depth_multiplier="2"), FLATTEN, DENSE],
        {"d": (UNKNOWN, None)},
    ),
    ("separable", [image(), layer("SeparableConv2D", filters=7, depth_multiplier=2), FLATTEN, DENSE], {"d": (FLAT, 7)}),
    ("a Dense of every place", [image(), layer("Dense", units=7), FLATTEN, DENSE], {"d": (FLAT, 7)}),
    ("a Dense of every column", [image(3, 6, 5), FIRST, layer("Dense", units=7), FLATTEN, DENSE], {"d": (FLAT, 7)}),
    ("of one axis", [image(10, 2), layer("Conv1D", filters=4), FLATTEN, DENSE], {"d": (FLAT, 4)}),
    ("rows of features", [image(10, 2), FLATTEN, DENSE], {}),
    ("three axes", [image(4, 4, 4, 2), layer("Conv3D", filters=5), FLATTEN, DENSE], {"d": (FLAT, 5)}),
    ("words", [image(10), layer("Embedding", output_dim=4), FLATTEN, DENSE], {}),
    (
        "normalised before and behind",
        [image(), layer("BatchNormalization", "a"), FLATTEN, layer("LayerNormalization", "b"), DENSE],
        {"b": (FLAT, 3), "d": (FLAT, 3)},
    ),
    (
        "behind a Dense it is over",
        [image(), FLATTEN, DENSE, layer("Dense", "e", units=2)],
        {"d": (FLAT, 3)},
    ),
    ("a class of one's own", [image(), layer("Own"), DENSE], {"d": (KEPT, 3)}),
    (
        "a class of one's own on a flattened map",
        [image(), FLATTEN, layer("Own"), DENSE],
        {"own": (FLAT, 3), "d": (UNKNOWN, None)},
    ),
    ("a class of one's own on features", [image(12), layer("Own"), DENSE], {}),
    ("flattened twice", [image(), FLATTEN, layer("Flatten", "again"), DENSE], {"again": (FLAT, 3), "d": (FLAT, 3)}),
    (
        "channels that the build tells",
        [image(6, 5, None), layer("Flatten", built=[None, 6, 5, 3]), DENSE],
        {"d": (FLAT, 3)},
    ),
    ("channels that nothing tells", [image(6, 5, None), FLATTEN, DENSE], {"d": (UNKNOWN, None)}),
    ("no input, an input shape", [layer("Flatten", batch_input_shape=[None, 6, 5, 3]), DENSE], {"d": (FLAT, 3)}),
    ("no input, a built shape", [layer("Flatten", built=[None, 6, 5, 3]), DENSE], {"d": (FLAT, 3)}),
    ("no input, no shape", [FLATTEN, DENSE], {}),
    ("an input of Keras 2", [layer("InputLayer", batch_input_shape=[None, 6, 5, 3]), FLATTEN, DENSE], {"d": (FLAT, 3)}),
    ("a shape that is none", [layer("InputLayer", batch_shape="6"), FLATTEN, DENSE], {}),
    (
        "every step",
        [
            image(4, 6, 5, 3),
            layer("TimeDistributed", layer=FLATTEN),
            layer("Bidirectional", "both", layer=layer("LSTM", units=2)),
            DENSE,
        ],
        {
            "both": (FLAT, 3),
            "both/forward_lstm": (FLAT, 3),
            "both/backward_lstm": (FLAT, 3),
        },
    ),
    (
        "a Dense of every step",
        [image(4, 6, 5, 3), layer("TimeDistributed", layer=FLATTEN), layer("TimeDistributed", "t", layer=DENSE)],
        {"t": (FLAT, 3), "t/d": (FLAT, 3)},
    ),
    *(
        (
            f"a {name} behind it",
            [image(4, 6, 5, 3), layer("TimeDistributed", layer=FLATTEN), layer(name, "r", units=2), DENSE],
            {"r": (FLAT, 3)},
        )
        for name in ("LSTM", "GRU", "SimpleRNN")
    ),
]


@pytest.mark.parametrize(("layers", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_layers_take_in_a_row(layers: list[Config], expected: dict[str, tuple[str, int | None]]) -> None:
    assert found(sequential(*layers)) == expected


TWO = [image(name="i"), layer("Conv2D", "a", filters=4, after=["i"]), layer("Conv2D", "b", filters=5, after=["i"])]
FLATS = [layer("Flatten", "fa", after=["a"]), layer("Flatten", "fb", after=["b"])]
HEAD = layer("Dense", "d", units=2, after=["c"])
PLAIN = image(7, name="p")
GRAPHS: list[tuple[str, Config, dict[str, tuple[str, int | None]]]] = [
    (
        "maps beside each other",
        functional(
            *TWO,
            layer("Concatenate", "c", after=["a", "b"]),
            layer("Flatten", "f", after=["c"]),
            layer("Dense", "d", after=["f"]),
        ),
        {"d": (FLAT, 9)},
    ),
    (
        "maps of which one has channels that nothing tells",
        functional(
            image(6, 5, None, name="n"),
            *TWO,
            layer("Concatenate", "c", after=["a", "n"]),
            layer("Flatten", "f", after=["c"]),
            layer("Dense", "d", after=["f"]),
        ),
        {"d": (UNKNOWN, None)},
    ),
    (
        "flattened maps beside each other",
        functional(*TWO, *FLATS, layer("Concatenate", "c", after=["fa", "fb"]), HEAD),
        {"c": (UNKNOWN, None), "d": (UNKNOWN, None)},
    ),
    (
        "a flattened map beside features",
        functional(PLAIN, *TWO, *FLATS, layer("Concatenate", "c", after=["p", "fa"]), HEAD),
        {"c": (UNKNOWN, None), "d": (UNKNOWN, None)},
    ),
    ("features beside each other", functional(PLAIN, layer("Concatenate", "c", after=["p", "p"]), HEAD), {}),
    (
        "a flattened map added to itself",
        functional(*TWO, *FLATS, layer("Add", "c", after=["fa", "fa"]), HEAD),
        {"c": (FLAT, 4), "d": (FLAT, 4)},
    ),
    (
        "two flattened maps added",
        functional(*TWO, *FLATS, layer("Multiply", "c", after=["fa", "fb"]), HEAD),
        {"c": (UNKNOWN, None), "d": (UNKNOWN, None)},
    ),
    (
        "a flattened map and features added",
        functional(PLAIN, *TWO, *FLATS, layer("Add", "c", after=["fa", "p"]), HEAD),
        {"c": (UNKNOWN, None), "d": (UNKNOWN, None)},
    ),
    (
        "a map, and features for each of its channels",
        functional(
            PLAIN,
            *TWO,
            layer("Multiply", "c", after=["p", "a"]),
            layer("Flatten", "f", after=["c"]),
            layer("Dense", "d", after=["f"]),
        ),
        {"d": (FLAT, 4)},
    ),
    (
        "nothing to merge",
        functional(layer("Add", "c", after=[]), HEAD),
        {"d": (UNKNOWN, None)},
    ),
    (
        "one layer of two alike",
        functional(*TWO, *FLATS, layer("Dense", "d", after=[["fa"], ["fa"]])),
        {"d": (FLAT, 4)},
    ),
    (
        "one layer of two",
        functional(PLAIN, *TWO, *FLATS, layer("Dense", "d", after=[["fa"], ["p"]])),
        {"d": (UNKNOWN, None)},
    ),
    (
        "what nothing gives",
        functional(layer("Dense", "d", after=["gone"])),
        {"d": (UNKNOWN, None)},
    ),
    (
        "an attention, whose projections are layers of its own",
        functional(*TWO, *FLATS, layer("MultiHeadAttention", "d", after=["fa", "fa"])),
        dict.fromkeys(("d", "d/query", "d/key", "d/value"), (FLAT, 4)),
    ),
    (
        "a model inside, of a map",
        functional(
            image(name="i"),
            {**sequential(CONV, FLATTEN, layer("Dense", "e"), name="s"), "inbound_nodes": [[["i", 0, 0, {}]]]},
            layer("Dense", "d", after=["s"]),
        ),
        {"s/e": (FLAT, 4)},
    ),
    (
        "a model inside, that gives a flattened map",
        functional(
            image(name="i"),
            {**sequential(image(), CONV, FLATTEN, name="s"), "inbound_nodes": [[["i", 0, 0, {}]]]},
            layer("Dense", "d", after=["s"]),
        ),
        {"d": (FLAT, 4)},
    ),
    (
        "a functional model inside",
        functional(
            image(7, name="p"),
            image(name="i"),
            functional(
                image(name="x"),
                image(7, name="y"),
                layer("Flatten", "f", after=["x"]),
                layer("Dense", "e", after=["y"]),
                outputs=("f",),
                name="m",
                after=["i", "p"],
            ),
            layer("Dense", "d", after=["m"]),
        ),
        {"d": (FLAT, 3)},
    ),
    (
        "a model inside with two outputs that are not alike",
        functional(
            image(name="i"),
            functional(
                image(name="x"),
                layer("Flatten", "f", after=["x"]),
                layer("Dense", "e", after=["x"]),
                outputs=("f", "e"),
                name="m",
                after=["i"],
            ),
            layer("Dense", "d", after=["m"]),
        ),
        {"d": (UNKNOWN, None)},
    ),
]


@pytest.mark.parametrize(("model", "expected"), [row[1:] for row in GRAPHS], ids=[row[0] for row in GRAPHS])
def test_what_layers_take_in_a_graph(model: Config, expected: dict[str, tuple[str, int | None]]) -> None:
    assert found(model) == expected


def test_layers_on_maps_are_those_that_take_one_with_channels_last() -> None:
    model = sequential(image(), layer("BatchNormalization", "a"), FLATTEN, layer("BatchNormalization", "b"))
    assert on_maps(parse(model)) == {"a", "flatten"}
    first = sequential(image(3, 6, 5), FIRST, layer("BatchNormalization", "a"))
    assert on_maps(parse(first)) == {"conv2d"}  # an input says no order
    rows = sequential(image(10, 2), layer("BatchNormalization", "a"))
    assert on_maps(parse(rows)) == frozenset()
