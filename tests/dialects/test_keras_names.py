"""Layers of Keras told from names, shapes and places alone, where no config says what they are. No framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.keras import FLATTEN_ORDER, parse, to_keras, to_pytorch
from converter.dialects.keras.objects import add_model, listing_of
from converter.dialects.keras.stores import names_from_path
from converter.encoding.object_graph import Node, ObjectTree
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor

Shape = tuple[int, ...]


def numbers(shape: Shape, start: int = 0) -> ArrayTensor:
    return ArrayTensor.of(np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


def of(shapes: Mapping[str, Shape], config: Mapping[str, Any] | None = None, **more: Any) -> Checkpoint:
    kept = None if config is None else Config(values=config, raw=b"{}")
    tensors = {name: numbers(shape) for name, shape in shapes.items()}
    return Checkpoint(tensors=tensors, keras_config=kept, dialect=Dialect.KERAS, **more)


def found(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in to_pytorch(of(shapes)).tensors.items()}


# names and shapes


LSTM = {"kernel": (2, 12), "recurrent_kernel": (3, 12), "bias": (12,)}
TORCH_LSTM = {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 3), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
STATISTICS: dict[str, Shape] = {"moving_mean": (3,), "moving_variance": (3,)}
RUNNING: dict[str, Shape] = {"running_mean": (3,), "running_var": (3,), "num_batches_tracked": ()}


def under(path: str, shapes: Mapping[str, Shape], dot: str = "/") -> dict[str, Shape]:
    return {f"{path}{dot}{leaf}": shape for leaf, shape in shapes.items()}


TOLD: list[tuple[str, dict[str, Shape], dict[str, Shape]]] = [
    ("a Dense", {"d/kernel": (2, 3), "d/bias": (3,)}, {"d.weight": (3, 2), "d.bias": (3,)}),
    ("a Dense of Keras 2", {"d/kernel:0": (2, 3), "d/bias:0": (3,)}, {"d.weight": (3, 2), "d.bias": (3,)}),
    ("a Dense in a block", {"a/b/d/kernel": (2, 3)}, {"a.b.d.weight": (3, 2)}),
    ("no Dense", {"d/kernel": (2, 3), "d/bias": (2,)}, {"d/kernel": (2, 3), "d/bias": (2,)}),
    ("a convolution", {"c/kernel": (5, 6, 2, 3), "c/bias": (3,)}, {"c.weight": (3, 2, 5, 6), "c.bias": (3,)}),
    ("without bias", {"c/kernel": (5, 2, 3)}, {"c.weight": (3, 2, 5)}),
    ("of three axes", {"c/kernel": (5, 6, 7, 2, 3)}, {"c.weight": (3, 2, 5, 6, 7)}),
    (
        "of three axes, and one channel",
        {"c/kernel": (5, 6, 7, 1, 3), "c/bias": (3,)},
        {"c.weight": (3, 1, 5, 6, 7), "c.bias": (3,)},
    ),
    ("transposed", {"c/kernel": (5, 6, 3, 2), "c/bias": (3,)}, {"c.weight": (2, 3, 5, 6), "c.bias": (3,)}),
    (
        "no convolution",
        {"c/kernel": (5, 6, 2, 3), "c/bias": (5,)},
        {"c/kernel": (5, 6, 2, 3), "c/bias": (5,)},
    ),
    ("by depth, by name", {"depthwise_conv2d/kernel": (5, 6, 2, 1)}, {"depthwise_conv2d.weight": (2, 1, 5, 6)}),
    (
        "by depth, by its bias",
        {"c/kernel": (5, 6, 2, 3), "c/bias": (6,)},
        {"c.weight": (6, 1, 5, 6), "c.bias": (6,)},
    ),
    ("by depth, of Keras 2", {"c/depthwise_kernel": (5, 2, 3)}, {"c.weight": (6, 1, 5)}),
    ("by depth, of no rank", {"c/depthwise_kernel": (5, 3)}, {"c/depthwise_kernel": (5, 3)}),
    (
        "separable",
        {"c/depthwise_kernel": (5, 6, 2, 3), "c/pointwise_kernel": (1, 1, 6, 4), "c/bias": (4,)},
        {"c.depthwise.weight": (6, 1, 5, 6), "c.pointwise.weight": (4, 6, 1, 1), "c.pointwise.bias": (4,)},
    ),
    ("heads", {"h/kernel": (6, 2, 3), "h/bias": (2, 3)}, {"h.weight": (6, 6), "h.bias": (6,)}),
    ("no heads", {"h/kernel": (6, 2, 3), "h/bias": (3, 2)}, {"h/kernel": (6, 2, 3), "h/bias": (3, 2)}),
    ("an embedding", {"e/embeddings": (7, 2)}, {"e.weight": (7, 2)}),
    (
        "batches normalised",
        under("n", {"gamma": (3,), "beta": (3,), **STATISTICS}),
        under("n", {"weight": (3,), "bias": (3,), **RUNNING}, "."),
    ),
    (
        "batches normalised without a scale",
        under("n", {"beta": (3,), **STATISTICS}),
        under("n", {"bias": (3,), **RUNNING, "weight": (3,)}, "."),
    ),
    ("normalised", {"n/gamma": (3,), "n/beta": (3,)}, {"n.weight": (3,), "n.bias": (3,)}),
    ("normalised, of one", {"n/gamma": (3,)}, {"n.weight": (3,)}),
    ("shifted alone", {"n/beta": (3,)}, {"n.bias": (3,)}),
    ("a slope for each channel", {"p/alpha": (1, 1, 3)}, {"p.weight": (3,)}),
    ("a slope for each place", {"p/alpha": (2, 1, 3)}, {"p/alpha": (2, 1, 3)}),
    ("what PyTorch calls so, too", {"x/weight": (3,), "x/bias": (3,)}, {"x.weight": (3,), "x.bias": (3,)}),
    ("a matrix that PyTorch calls so", {"x/weight": (3, 2)}, {"x/weight": (3, 2)}),
    ("an LSTM", under("l/lstm_cell", LSTM), under("l", TORCH_LSTM, ".")),
    ("an LSTM by its own path", under("l", LSTM), under("l", TORCH_LSTM, ".")),
    (
        "a numbered cell",
        under("l/lstm_cell_3", {"kernel": (2, 12), "recurrent_kernel": (3, 12)}),
        under("l", {"weight_ih_l0": (12, 2), "weight_hh_l0": (12, 3)}, "."),
    ),
    (
        "an RNN",
        under("l/simple_rnn_cell", {"kernel": (2, 3), "recurrent_kernel": (3, 3)}),
        under("l", {"weight_ih_l0": (3, 2), "weight_hh_l0": (3, 3)}, "."),
    ),
    (
        "a GRU that resets after",
        under("l/gru_cell", {"kernel": (2, 9), "recurrent_kernel": (3, 9), "bias": (2, 9)}),
        under("l", {"weight_ih_l0": (9, 2), "weight_hh_l0": (9, 3), "bias_ih_l0": (9,), "bias_hh_l0": (9,)}, "."),
    ),
    *(
        (
            what,
            under("l/gru_cell", {"kernel": (2, 9), "recurrent_kernel": (3, 9), **bias}),
            under("l/gru_cell", {"kernel": (2, 9), "recurrent_kernel": (3, 9), **bias}),
        )
        for what, bias in (("a GRU that resets before", {"bias": (9,)}), ("a GRU without bias", {}))
    ),
    *(
        (what, under("l", shapes), under("l", shapes))
        for what, shapes in (
            ("a bias and a half", {**LSTM, "bias": (18,)}),
            ("five gates", {"kernel": (2, 15), "recurrent_kernel": (3, 15)}),
            ("no kernel", {"recurrent_kernel": (3, 12)}),
            ("no units", {"kernel": (2, 0), "recurrent_kernel": (0, 0)}),
        )
    ),
    (
        "two directions",
        under("b/forward_lstm/lstm_cell", LSTM) | under("b/backward_lstm/lstm_cell", LSTM),
        under("b", TORCH_LSTM, ".") | {f"b.{name}_reverse": shape for name, shape in TORCH_LSTM.items()},
    ),
    (
        "one direction",
        under("b/forward_lstm/lstm_cell", LSTM),
        under("b.forward_lstm", TORCH_LSTM, "."),
    ),
    (
        "two directions in nothing",
        under("forward_lstm/lstm_cell", LSTM) | under("backward_lstm/lstm_cell", LSTM),
        under("forward_lstm", TORCH_LSTM, ".") | under("backward_lstm", TORCH_LSTM, "."),
    ),
    (
        "two that are called like directions",
        {"b/forward_d/kernel": (2, 3), "b/backward_d/kernel": (2, 3)},
        {"b.forward_d.weight": (3, 2), "b.backward_d.weight": (3, 2)},
    ),
    (
        "attention",
        {
            **{f"a/{name}/kernel": (6, 2, 4) for name in ("query", "key", "value")},
            "a/attention_output/kernel": (2, 4, 6),
        },
        {**{f"a.{name}.weight": (8, 6) for name in ("query", "key", "value")}, "a.attention_output.weight": (6, 8)},
    ),
    ("two of one name", {"d/kernel": (2, 3), "d/kernel:0": (2, 3)}, {"d/kernel": (2, 3), "d/kernel:0": (2, 3)}),
    ("anything else", {"x/y": (2, 3)}, {"x/y": (2, 3)}),
]


@pytest.mark.parametrize(("shapes", "torch"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_what_names_and_shapes_tell(shapes: dict[str, Shape], torch: dict[str, Shape]) -> None:
    assert found(shapes) == torch


ATTENTION = {"query": (6, 2, 4), "key": (6, 2, 4), "value": (6, 2, 5), "attention_output": (2, 5, 6)}


@pytest.mark.parametrize(
    "other",
    [
        *({"query": (6, 3, 4)}, {"key": (6, 3, 4)}, {"value": (6, 3, 5)}, {"attention_output": (3, 5, 6)}),
        *({"query": (6, 2, 3)}, {"key": (6, 2, 3)}, {"value": (6, 2, 3)}, {"attention_output": (2, 4, 6)}),
        *({"query": (6, 8)}, {"attention_output": (10, 6)}, {"key": None}, {"value": None}, {"attention_output": None}),
    ],
)
def test_four_kernels_are_an_attention_where_their_heads_agree(other: dict[str, Shape | None]) -> None:
    def shapes(**changed: Any) -> dict[str, Shape]:
        held = {**ATTENTION, **changed}
        return {f"a/{name}/kernel": shape for name, shape in held.items() if shape is not None}

    assert found(shapes())["a.value.weight"] == (10, 6)
    assert found(shapes())["a.attention_output.weight"] == (6, 10)
    whole = shapes(**other)
    kernels = {name.replace("/kernel", ".weight").replace("/", ".") for name, shape in whole.items() if len(shape) == 3}
    assert {len(found(whole)[name]) for name in kernels} == {3}


def test_what_was_told_without_a_config_is_said_and_what_was_not() -> None:
    made = to_pytorch(of({"d/kernel": (2, 3), "x/y": (2, 3)}))
    as_stored, guessed = made.warnings
    assert as_stored == "layout as stored: x/y: neither config nor names say what they are"
    assert guessed.startswith("layouts of 1 tensors follow from their Keras names and shapes, without a config")
    assert made.dialect == Dialect.PYTORCH
    nothing = to_pytorch(of({"x/y": (2, 3)}))
    assert (len(nothing.warnings), nothing.dialect) == (1, Dialect.GENERIC)
    many = to_pytorch(of({f"x/y{number}": (1,) for number in range(12)}))
    assert "x/y9 and 2 more: neither" in many.warnings[0]


@pytest.mark.parametrize(
    ("shapes", "suspects"),
    [
        ({"c/kernel": (3, 3, 2, 4), "d/kernel": (36, 5)}, "d/kernel"),
        ({"c/kernel": (3, 3, 2, 4), "d/kernel": (36, 5), "e/kernel": (5, 7)}, "d/kernel"),
        ({"c/kernel": (3, 3, 2, 4), "d/kernel": (36, 5), "e/kernel": (2, 36)}, ""),
        ({"c/kernel": (3, 3, 2, 4), "d/kernel": (4, 5)}, ""),
        ({"c/kernel": (3, 3, 5, 7), "d/kernel": (36, 5)}, ""),
        ({"c/kernel": (3, 3, 2, 1), "d/kernel": (37, 5)}, ""),
        ({"c/kernel": (3, 3, 2, 4), "d/kernel": (8, 5)}, ""),
        ({"d/kernel": (36, 5)}, ""),
        ({"c/kernel": (3, 3, 2, 4), "e/embeddings": (36, 5)}, ""),
        ({"c/kernel": (3, 3, 2, 4), **under("l/simple_rnn_cell", {"kernel": (36, 3), "recurrent_kernel": (3, 3)})}, ""),
    ],
)
def test_rows_of_whatever_may_be_behind_a_flatten_must_be_allowed(shapes: dict[str, Shape], suspects: str) -> None:
    """A multiple of the channels of a convolution, and of no number that another layer makes."""
    lines = [line for line in to_pytorch(of(shapes)).lines if line.name == FLATTEN_ORDER]
    assert [line.is_refused_by_default for line in lines] == [True] * bool(suspects)
    assert all(line.reason.startswith(f"{suspects}: behind a Flatten, as it seems") for line in lines)


# names and a config


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": name, **config}}


def model(*layers: dict[str, Any], class_name: str = "Sequential", name: str = "m") -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, "layers": list(layers)}}


DENSE = layer("Dense", "d", units=3)
NESTED = model(model(DENSE, name="inner"), layer("Dense", "e", units=2))


@pytest.mark.parametrize(
    ("name", "torch"),
    [
        ("inner/d/kernel", "inner.d.weight"),
        ("inner/d/kernel:0", "inner.d.weight"),
        ("m/inner/d/kernel", "inner.d.weight"),
        ("d/kernel", "inner.d.weight"),
        ("other/inner/d/kernel", "inner.d.weight"),
        ("e/kernel", "e.weight"),
        ("inner/e/kernel", "inner.e.weight"),
    ],
)
def test_names_may_have_the_models_own_before_them_or_lack_that_of_one_inside(name: str, torch: str) -> None:
    made = to_pytorch(of({name: (2, 3)}, NESTED))
    assert list(made.tensors) == [torch]
    assert bool(made.warnings) == (torch == "inner.e.weight")  # of a layer that the config does not have


def test_a_name_that_two_layers_could_have_is_that_of_none() -> None:
    twice = model(model(DENSE, name="one"), model(DENSE, name="two"))
    assert any("without a config" in each for each in to_pytorch(of({"d/kernel": (2, 3)}, twice)).warnings)
    exact = to_pytorch(of({"one/d/kernel": (2, 3), "two/d/kernel": (2, 3)}, twice))
    assert (list(exact.tensors), exact.warnings) == (["one.d.weight", "two.d.weight"], ())


def test_a_variable_is_that_of_one_layer_and_a_layer_has_one() -> None:
    """The exact name goes first, whichever stands first in the file."""
    for names in (("inner/d/kernel", "d/kernel"), ("d/kernel", "inner/d/kernel")):
        made = to_pytorch(of(dict.fromkeys(names, (2, 3)), NESTED))
        assert made.origin("inner.d.weight") == "inner/d/kernel"
        assert made.origin("d.weight") == "d/kernel"


def test_ties_stay_where_both_sides_are_laid_out_alike() -> None:
    config = model(DENSE, layer("Dense", "e"), layer("Embedding", "w"))
    source = of({"d/kernel": (3, 3), "w/embeddings": (3, 3)}, config)
    tied = replace(source, aliases={"e/kernel": "d/kernel"}, buffers=frozenset(), frozen=frozenset({"d/kernel"}))
    made = to_pytorch(tied)
    assert (dict(made.aliases), set(made.tensors)) == ({"e.weight": "d.weight"}, {"d.weight", "w.weight"})
    assert made.frozen == {"d.weight"}
    other = to_pytorch(replace(of({"w/embeddings": (3, 3)}, config), aliases={"d/kernel": "w/embeddings"}))
    assert other.aliases == {}
    assert set(other.tensors) == {"w.weight", "d.weight"}


# an optimizer goes along


GRU = layer("GRU", "g", units=3)
BOTH = {
    "g/gru_cell/kernel": (2, 9),
    "g/gru_cell/recurrent_kernel": (3, 9),
    "g/gru_cell/bias": (2, 9),
    "d/kernel": (3, 3),
    "d/bias": (3,),
}


def trained(checkpoint: Checkpoint, *groups: tuple[str, ...], **more: Any) -> Checkpoint:
    names = [name for names in groups for name in names]
    slots = {"m": {name: numbers(checkpoint.tensor(name).shape, 100) for name in names}}
    made = tuple(ParameterGroup(parameters=names, hyperparameters={"number": at}) for at, names in enumerate(groups))
    return replace(checkpoint, optimizer=OptimizerState(algorithm="x", step=1, groups=made, slots=slots, **more))


def test_state_is_split_and_laid_out_as_its_weights_are_and_back() -> None:
    config = model(GRU, DENSE)
    source = trained(
        of(BOTH, config), ("g/gru_cell/kernel", "g/gru_cell/bias"), ("d/kernel",), convention=Convention.KERAS
    )
    there = to_pytorch(source)
    assert there.optimizer is not None
    assert [group.parameters for group in there.optimizer.groups] == [
        ("g.weight_ih_l0", "g.bias_ih_l0", "g.bias_hh_l0"),
        ("d.weight",),
    ]
    for name, moment in there.optimizer.slots["m"].items():
        np.testing.assert_array_equal(moment.numpy(), there.tensors[name].numpy() + 100)
    whole = trained(there, tuple(there.tensors))
    back = to_keras(whole, config).optimizer
    assert back is not None
    assert [group.parameters for group in back.groups] == [tuple(BOTH)]
    for name, shape in BOTH.items():
        assert back.slots["m"][name].shape == shape


def test_state_of_one_bias_where_pytorch_has_two_is_refused_both_ways() -> None:
    config = model(layer("LSTM", "l", units=3))
    source = of(under("l/lstm_cell", LSTM), config)
    there = to_pytorch(trained(source, tuple(under("l/lstm_cell", LSTM))))
    assert there.optimizer is None
    assert there.optimizer_refused == (
        "PyTorch has two biases where Keras has 'l/lstm_cell/bias': no state of theirs equals its own"
    )
    assert to_pytorch(trained(source, ("l/lstm_cell/kernel",))).optimizer is not None
    with pytest.raises(LossError, match="Keras has one bias where PyTorch has bias_ih_l0 and bias_hh_l0") as caught:
        to_keras(trained(there, tuple(there.tensors)), config)
    assert caught.value.tensor == "l/lstm_cell/bias"
    assert "--optimizer drop" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("layers", "groups", "tensor", "why"),
    [
        ((DENSE,), (("d.weight", "d.bias"), ("d.bias",)), "d.bias", "is in optimizer groups"),
        ((DENSE, layer("Dense", "e")), (("d.weight", "d.bias"),), "e/kernel", "the Keras config trains it"),
        (
            (layer("Dense", "d", trainable=False),),
            (("d.weight",),),
            "d.weight",
            "no trained variable of the Keras config",
        ),
        ((DENSE,), (("d.weight", "d.bias", "more"),), "more", "it belongs to no trained variable of the Keras config"),
        ((DENSE,), (("d.weight",),), "d/bias", "the optimizer has no state for it"),
    ],
)
def test_an_optimizer_trains_what_the_layers_do(
    layers: tuple[dict[str, Any], ...], groups: tuple[tuple[str, ...], ...], tensor: str, why: str
) -> None:
    shapes: dict[str, Shape] = {
        f"{name}.{leaf}": shape for name in "de" for leaf, shape in (("weight", (3, 3)), ("bias", (3,)))
    }
    source = replace(of({**shapes, "more": (1,)}), dialect=Dialect.PYTORCH)
    assert to_keras(trained(source, ("d.weight", "d.bias")), model(DENSE)).optimizer is not None
    with pytest.raises(LossError, match=f"optimizer state: .*{why}") as caught:
        to_keras(trained(source, *groups), model(*layers))
    assert caught.value.tensor == tensor
    assert "--optimizer drop" in str(caught.value.hint)


def test_what_is_frozen_and_what_is_no_parameter_is_told_in_keras() -> None:
    config = model(
        layer("Dense", "d", trainable=False),
        layer("BatchNormalization", "n"),
        layer("BatchNormalization", "f", trainable=False),
    )
    shapes: dict[str, Shape] = {"d.weight": (3, 3), "d.bias": (3,)}
    for name in "nf":
        shapes |= under(name, {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,)}, ".")
    made = to_keras(replace(of(shapes), dialect=Dialect.PYTORCH), config)
    assert made.buffers == {f"{name}/moving_{leaf}" for name in "nf" for leaf in ("mean", "variance")}
    assert made.frozen == {"d/kernel", "d/bias", "f/gamma", "f/beta"}


# places in .weights.h5


PLACES: list[tuple[str, list[Shape], dict[str, str], tuple[str, ...] | None]] = [
    ("layers/dense", [(2, 3), (3,)], {}, ("dense/kernel", "dense/bias")),
    ("layers/dense_1", [(2, 3)], {}, ("dense_1/kernel",)),
    ("layers/dense", [(2, 3)], {"layers/dense": "head"}, ("head/kernel",)),
    ("layers/head", [(2, 3)], {"layers/head": "dense_7"}, ("dense_7/kernel",)),
    ("layers/own", [(2, 3)], {}, None),
    ("layers/dense", [(2, 3), (3,), (3,)], {}, None),
    ("layers/dense", [(2, 3), (3, 3)], {}, None),
    ("layers/einsum_dense", [(2, 3, 4), (3, 4)], {}, ("einsum_dense/kernel", "einsum_dense/bias")),
    ("layers/embedding", [(7, 2)], {}, ("embedding/embeddings",)),
    ("layers/p_re_lu", [(3,)], {}, ("p_re_lu/alpha",)),
    ("layers/layer_normalization", [(3,), (3,)], {}, ("layer_normalization/gamma", "layer_normalization/beta")),
    ("layers/layer_normalization", [(3,)], {}, None),
    (
        "layers/batch_normalization",
        [(3,)] * 4,
        {},
        tuple(f"batch_normalization/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")),
    ),
    (
        "layers/batch_normalization",
        [(3,)] * 2,
        {},
        ("batch_normalization/moving_mean", "batch_normalization/moving_variance"),
    ),
    ("layers/batch_normalization", [(3,)] * 3, {}, None),
    (
        "layers/normalization",
        [(2,), (2,), ()],
        {},
        tuple(f"normalization/{leaf}" for leaf in ("mean", "variance", "count")),
    ),
    (
        "layers/depthwise_conv2d",
        [(3, 3, 2, 1), (2,)],
        {},
        ("depthwise_conv2d/depthwise_kernel", "depthwise_conv2d/bias"),
    ),
    (
        "layers/separable_conv1d",
        [(3, 2, 1), (1, 2, 4)],
        {},
        ("separable_conv1d/depthwise_kernel", "separable_conv1d/pointwise_kernel"),
    ),
    (
        "layers/functional/layers/dense",
        [(2, 3)],
        {"layers/functional": "base", "layers/functional/layers/dense": "head"},
        ("base/head/kernel",),
    ),
    ("layers/functional/layers/dense", [(2, 3)], {}, ("functional/dense/kernel",)),
    (
        "_layer_checkpoint_dependencies/dense",
        [(2, 3)],
        {"_layer_checkpoint_dependencies/dense": "head"},
        ("head/kernel",),
    ),
    ("block/dense", [(2, 3)], {"block/dense": "head"}, ("block/dense/kernel",)),
    (
        "layers/lstm/cell",
        [(2, 12), (3, 12), (12,)],
        {},
        tuple(f"lstm/lstm_cell/{leaf}" for leaf in ("kernel", "recurrent_kernel", "bias")),
    ),
    (
        "layers/gru/cell",
        [(2, 9), (3, 9)],
        {"layers/gru/cell": "gru_cell"},
        ("gru/gru_cell/kernel", "gru/gru_cell/recurrent_kernel"),
    ),
    (
        "layers/own/cell",
        [(2, 9), (3, 9)],
        {"layers/own/cell": "my"},
        ("own/lstm_cell/kernel", "own/lstm_cell/recurrent_kernel"),
    ),
    ("layers/own/cell", [(2, 9), (3, 8)], {}, None),
    ("layers/own/cell", [(2, 9)], {}, None),
    ("layers/own/cell", [(2, 9, 1), (3, 9)], {}, None),
    ("layers/own/cell", [(2, 9), (3, 9, 1)], {}, None),
    (
        "layers/bidirectional/forward_layer/cell",
        [(2, 12), (3, 12)],
        {"layers/bidirectional": "b", "layers/bidirectional/forward_layer": "forward_l"},
        ("b/forward_l/lstm_cell/kernel", "b/forward_l/lstm_cell/recurrent_kernel"),
    ),
    (
        "layers/time_distributed/layer",
        [(2, 3)],
        {"layers/time_distributed/layer": "dense_2"},
        ("time_distributed/dense_2/kernel",),
    ),
    *(
        (
            f"layers/multi_head_attention/{place}",
            [(6, 2, 3), (2, 3)],
            {"layers/multi_head_attention": "a"},
            (f"a/{name}/kernel", f"a/{name}/bias"),
        )
        for place, name in (
            ("query_dense", "query"),
            ("_key_dense", "key"),
            ("value_dense", "value"),
            ("_output_dense", "attention_output"),
        )
    ),
    ("layers/multi_head_attention/query_dense", [(6, 2, 3)], {}, ("multi_head_attention/query/kernel",)),
    ("layers/multi_head_attention/query_dense", [(6, 2, 3)] * 3, {}, None),
]


@pytest.mark.parametrize(("store", "shapes", "titles", "names"), PLACES)
def test_names_of_numbered_variables(
    store: str, shapes: list[Shape], titles: dict[str, str], names: tuple[str, ...] | None
) -> None:
    assert names_from_path(store, shapes, titles) == names


# objects of a checkpoint of TensorFlow


def hung(config: Mapping[str, Any], *, is_older: bool) -> dict[str, str]:
    """Name of each variable -> where its key says that it hangs."""
    tree = ObjectTree()
    nodes, keys = add_model(tree, tree.child(0, "model"), parse(config), is_older=is_older)
    assert set(nodes) == set(keys.values())
    return {name: key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for key, name in keys.items()}


INPUT = layer("InputLayer", "i", batch_shape=[None, 3])


@pytest.mark.parametrize(
    ("config", "older", "newer"),
    [
        (
            model(INPUT, DENSE),
            {"d/kernel": "model/layer-0/kernel"},
            {"d/kernel": "model/_functional/_operations/1/kernel"},
        ),
        (
            model(INPUT, DENSE, class_name="Functional"),
            {"d/kernel": "model/layer-1/kernel"},
            {"d/kernel": "model/_operations/1/kernel"},
        ),
        (
            model(INPUT, model(INPUT, DENSE, name="inner"), class_name="Functional"),
            {"inner/d/kernel": "model/layer-1/layer-0/kernel"},
            {"inner/d/kernel": "model/_operations/1/_functional/_operations/1/kernel"},
        ),
        (
            model(layer("Bidirectional", "b", layer=layer("LSTM", "l", units=3))),
            {
                "b/forward_l/lstm_cell/kernel": "model/layer-0/forward_layer/cell/kernel",
                "b/backward_l/lstm_cell/bias": "model/layer-0/backward_layer/cell/bias",
            },
            {"b/forward_l/lstm_cell/kernel": "model/_functional/_operations/0/forward_layer/cell/kernel"},
        ),
        (
            model(layer("MultiHeadAttention", "a", num_heads=2, key_dim=3)),
            {"a/query/kernel": "model/layer-0/query_dense/kernel"},
            {"a/attention_output/bias": "model/_functional/_operations/0/output_dense/bias"},
        ),
    ],
)
def test_where_variables_hang(config: dict[str, Any], older: dict[str, str], newer: dict[str, str]) -> None:
    for places, is_older in ((older, True), (newer, False)):
        made = hung(config, is_older=is_older)
        assert {name: made[name] for name in places} == places


def test_a_variable_hangs_by_each_of_its_names() -> None:
    tree = ObjectTree()
    nodes, _ = add_model(tree, tree.child(0, "model"), parse(model(layer("DepthwiseConv2D", "c"))), is_older=True)
    layer_node = tree.child(tree.child(0, "model"), "layer-0")
    for attribute in ("kernel", "_kernel", "depthwise_kernel", "_depthwise_kernel"):
        assert tree.child(layer_node, attribute) == nodes["c/kernel"]


def test_what_does_not_take_features_is_in_order_whatever_they_are() -> None:
    """Behind a layer of a user's own on maps nobody knows the order: of a kernel, not of a bias."""
    image = layer("InputLayer", "i", batch_shape=[None, 4, 4, 3])
    config = model(image, layer("Own", "o"), DENSE, layer("LSTM", "l", units=3))
    made = to_pytorch(of({"d/kernel": (48, 3), "d/bias": (3,), **under("l/lstm_cell", LSTM)}, config))
    (line,) = (line for line in made.lines if line.name == FLATTEN_ORDER)
    assert line.reason.startswith("d/kernel: behind a Flatten, whose map goes through Own 'o';")


def nodes_of(children: Mapping[int, Mapping[str, int]], keys: Mapping[int, str]) -> list[Node]:
    count = 1 + max([*children, *keys, *(index for its in children.values() for index in its.values())])
    return [
        Node(children=children.get(index, {}), key=keys.get(index), full_name="", slots=()) for index in range(count)
    ]


def test_the_layers_of_a_saved_model_list_their_variables() -> None:
    """In the order that the layer lists, called by the attributes that lead to each; what is beside is none."""
    children = {
        0: {"layer-0": 1, "layer-1": 2, "keras_api": 9},
        2: {"variables": 3, "inner": 4, "own": 7, "keras_api": 8, "itself": 2},
        3: {"0": 7, "1": 6, "2": 5},
        4: {"bias": 5, "kernel": 6, "keras_api": 8},
        8: {"bias": 5},
    }
    names = {"k5": "bias", "k6": "kernel", "k7": "own"}
    listing = listing_of(nodes_of(children, {5: "k5", 6: "k6", 7: "k7"}), names, "savedmodel")
    assert listing is not None
    assert (listing.format, dict(listing.layers)) == (
        "savedmodel",
        {"layer-0": (), "layer-1": (("own", "own"), ("inner/kernel", "kernel"), ("inner/bias", "bias"))},
    )
    plain = listing_of(nodes_of({**children, 2: {"inner": 4, "own": 7}}, {5: "k5", 6: "k6", 7: "k7"}), names, "x")
    assert plain is not None
    assert plain.layers["layer-1"] == (("own", "own"), ("inner/bias", "bias"), ("inner/kernel", "kernel"))


def test_what_is_in_a_list_a_dict_or_a_model_inside_a_layer_is_no_attribute() -> None:
    """An archive calls it otherwise, by class and number; a SavedModel tells a dict by its being no layer."""
    inside = {"blocks": 2, "parts": 3, "tail": 4, "att": 5}
    layers = {number: {"keras_api": 20, "w": number + 10} for number in (6, 7, 8, 9)}
    children = {
        0: {"layer-0": 1},
        1: inside | {"keras_api": 20},
        2: {"0": 6},
        3: {"first": 7},
        4: {"layer_with_weights-0": 8, "layer-0": 8, "keras_api": 20},
        5: {"dense": 9, "keras_api": 20},
        **layers,
    }
    keys = {number: f"k{number}" for number in (16, 17, 18, 19)}
    names = {key: key for key in keys.values()}
    saved = listing_of(nodes_of(children, keys), names, "savedmodel")
    assert saved is not None
    assert [path for path, _ in saved.layers["layer-0"]] == [
        "blocks/[0]/w",
        "parts/[first]/w",
        "tail/[layer-0]/w",
        "att/dense/w",
    ]
    bare = {index: {name: at for name, at in its.items() if name != "keras_api"} for index, its in children.items()}
    restored = listing_of(nodes_of(bare, keys), names, "tf-checkpoint")
    assert restored is not None
    assert restored.layers["layer-0"][1][0] == "parts/first/w"


def test_objects_that_are_no_layers_in_a_row_are_no_listing() -> None:
    names = {"k": "w"}
    assert listing_of([], names, "x") is None
    assert listing_of(nodes_of({0: {"layer-1": 1}, 1: {"w": 2}}, {2: "k"}), names, "x") is None
    assert listing_of(nodes_of({0: {"layer-0": 1}, 1: {"w": 2}}, {}), names, "x") is None
    assert listing_of(nodes_of({0: {"layer-0": 1, "layer-1": 1}, 1: {"w": 2}}, {2: "k"}), names, "x") is None
    odd = nodes_of({0: {"layer-0": 1}, 1: {"w": 2, "variables": 3}, 3: {"first": 2}}, {2: "k"})
    assert listing_of(odd, names, "x") is None
