"""The variables of each layer of Keras against PyTorch's tensors, by numpy alone: names, layouts, and back.

No framework: tests/dialects/test_keras_layers.py computes the same with the layers of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from converter.dialects.keras.architecture import Layer, modules, parse
from converter.dialects.keras.modules import SIMPLE, WITHOUT_VARIABLES, Module
from converter.dialects.keras.translation import config_modules, to_keras, to_pytorch
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.ledger import Status
from converter.model.tensor import ArrayTensor

Array = np.ndarray[Any, Any]
Make = Callable[[Mapping[str, Array]], Array]


def config_of(*layers: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    entries = [{"module": "keras.layers", "class_name": name, "config": {"name": f"l{at}", **config}}
               for at, (name, config) in enumerate(layers)]  # fmt: skip
    return {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Numbers of which no two are alike."""
    made, start = {}, 1
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        made[name] = np.arange(start, start + count, dtype=np.float32).reshape(shape)
        start += count
    return made


def itself(name: str) -> Make:
    return lambda held: held[name]


def turned(name: str, *axes: int) -> Make:
    return lambda held: held[name].transpose(axes)


def by_depth(name: str, *to: int) -> Make:
    """[*window, channels, multiplier] -> [channels x multiplier, 1, *window]."""
    return lambda held: held[name].transpose(*to).reshape(-1, 1, *held[name].shape[:-2])


def gates(name: str, count: int, order: tuple[int, ...] | None = None) -> Make:
    def made(held: Mapping[str, Array]) -> Array:
        parts = np.split(held[name], count, axis=-1)
        whole: Array = np.concatenate([parts[at] for at in order or range(count)], axis=-1)
        return whole.T if whole.ndim == 2 else whole

    return made


def gru_bias(row: int) -> Make:
    def made(held: Mapping[str, Array]) -> Array:
        update, reset, candidate = np.split(held["gru_cell/bias"][row], 3)
        return np.concatenate([reset, update, candidate])

    return made


def zeros(shape: int) -> Make:
    return lambda held: np.zeros(shape, np.float32)


HEADS = {f"{name}/kernel": (6, 2, 3) for name in ("query", "key", "value")} | {"attention_output/kernel": (2, 3, 6)}
WITH_BIASES = {
    name: shape
    for kernel, its in HEADS.items()
    for name, shape in ((kernel, its), (kernel.replace("kernel", "bias"), (6,) if "output" in kernel else (2, 3)))
}
OUT_OF_HEADS = "abcd,cde->abe"
"""How many heads there are is not in its config, and not in a weight of [out, in]: it is read, and not written."""
Row = tuple[str, str, dict[str, Any], dict[str, tuple[int, ...]], dict[str, Make]]
ROWS: list[Row] = [
    (
        "dense",
        "Dense",
        {},
        {"kernel": (2, 3), "bias": (3,)},
        {"weight": turned("kernel", 1, 0), "bias": itself("bias")},
    ),
    ("dense without bias", "Dense", {"use_bias": False}, {"kernel": (2, 3)}, {"weight": turned("kernel", 1, 0)}),
    ("embedding", "Embedding", {}, {"embeddings": (5, 3)}, {"weight": itself("embeddings")}),
    *(
        (
            name,
            name,
            {},
            {"kernel": (*(2, 3, 4)[:rank], 5, 6), "bias": (6,)},
            {"weight": turned("kernel", rank + 1, rank, *range(rank)), "bias": itself("bias")},
        )
        for rank in (1, 2, 3)
        for name in (f"Conv{rank}D", f"Convolution{rank}D")
    ),
    *(
        (
            name,
            name,
            {},
            {"kernel": (*(2, 3, 4)[:rank], 5, 6), "bias": (5,)},
            {"weight": turned("kernel", rank + 1, rank, *range(rank)), "bias": itself("bias")},
        )
        for rank in (1, 2, 3)
        for name in (f"Conv{rank}DTranspose",)
    ),
    *(
        (
            f"{name} {multiplier}",
            name,
            {"depth_multiplier": multiplier},
            {"kernel": (*(2, 3)[:rank], 5, multiplier), "bias": (5 * multiplier,)},
            {"weight": by_depth("kernel", rank, rank + 1, *range(rank)), "bias": itself("bias")},
        )
        for rank in (1, 2)
        for name in (f"DepthwiseConv{rank}D",)
        for multiplier in (1, 2)
    ),
    *(
        (
            name,
            name,
            {"depth_multiplier": 2},
            {"depthwise_kernel": (*(2, 3)[:rank], 5, 2), "pointwise_kernel": (*(1, 1)[:rank], 10, 4), "bias": (4,)},
            {
                "depthwise.weight": by_depth("depthwise_kernel", rank, rank + 1, *range(rank)),
                "pointwise.weight": turned("pointwise_kernel", rank + 1, rank, *range(rank)),
                "pointwise.bias": itself("bias"),
            },
        )
        for rank in (1, 2)
        for name in (f"SeparableConv{rank}D",)
    ),
    *(
        (
            f"{name} {sorted(config)}",
            name,
            config,
            dict.fromkeys(shapes, (3,)),
            {{"gamma": "weight", "beta": "bias"}[leaf]: itself(leaf) for leaf in shapes},
        )
        for name in ("LayerNormalization", "GroupNormalization")
        for config, shapes in (
            ({}, ("gamma", "beta")),
            ({"scale": False}, ("beta",)),
            ({"center": False}, ("gamma",)),
            ({"rms_scaling": True}, ("gamma",)),
        )
    ),
    ("rms", "RMSNormalization", {}, {"scale": (3,)}, {"weight": itself("scale")}),
    (
        "alpha for each channel",
        "PReLU",
        {"shared_axes": [1, 2]},
        {"alpha": (1, 1, 3)},
        {"weight": lambda held: held["alpha"].reshape(3)},
    ),
    ("alpha for each feature", "PReLU", {}, {"alpha": (3,)}, {"weight": itself("alpha")}),
    (
        "lstm",
        "LSTM",
        {},
        {"lstm_cell/kernel": (2, 12), "lstm_cell/recurrent_kernel": (3, 12), "lstm_cell/bias": (12,)},
        {
            "weight_ih_l0": turned("lstm_cell/kernel", 1, 0),
            "weight_hh_l0": turned("lstm_cell/recurrent_kernel", 1, 0),
            "bias_ih_l0": itself("lstm_cell/bias"),
            "bias_hh_l0": zeros(12),
        },
    ),
    (
        "lstm without bias",
        "LSTM",
        {"use_bias": False},
        {"lstm_cell/kernel": (2, 12), "lstm_cell/recurrent_kernel": (3, 12)},
        {"weight_ih_l0": turned("lstm_cell/kernel", 1, 0), "weight_hh_l0": turned("lstm_cell/recurrent_kernel", 1, 0)},
    ),
    (
        "rnn",
        "SimpleRNN",
        {},
        {"simple_rnn_cell/kernel": (2, 3), "simple_rnn_cell/recurrent_kernel": (3, 3), "simple_rnn_cell/bias": (3,)},
        {
            "weight_ih_l0": turned("simple_rnn_cell/kernel", 1, 0),
            "weight_hh_l0": turned("simple_rnn_cell/recurrent_kernel", 1, 0),
            "bias_ih_l0": itself("simple_rnn_cell/bias"),
            "bias_hh_l0": zeros(3),
        },
    ),
    (
        "gru",
        "GRU",
        {},
        {"gru_cell/kernel": (2, 9), "gru_cell/recurrent_kernel": (3, 9), "gru_cell/bias": (2, 9)},
        {
            "weight_ih_l0": gates("gru_cell/kernel", 3, (1, 0, 2)),
            "weight_hh_l0": gates("gru_cell/recurrent_kernel", 3, (1, 0, 2)),
            "bias_ih_l0": gru_bias(0),
            "bias_hh_l0": gru_bias(1),
        },
    ),
    (
        "attention",
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3},
        WITH_BIASES,
        {
            **{
                f"{name}.weight": (lambda held, name=name: held[f"{name}/kernel"].reshape(6, 6).T)
                for name in ("query", "key", "value")
            },
            **{
                f"{name}.bias": (lambda held, name=name: held[f"{name}/bias"].reshape(6))
                for name in ("query", "key", "value")
            },
            "attention_output.weight": lambda held: held["attention_output/kernel"].reshape(6, 6).T,
            "attention_output.bias": itself("attention_output/bias"),
        },
    ),
    (
        "attention with values of another size",
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3, "value_dim": 4, "use_bias": False},
        {**HEADS, "value/kernel": (6, 2, 4), "attention_output/kernel": (2, 4, 6)},
        {
            **{
                f"{name}.weight": (lambda held, name=name: held[f"{name}/kernel"].reshape(6, 6).T)
                for name in ("query", "key")
            },
            "value.weight": lambda held: held["value/kernel"].reshape(6, 8).T,
            "attention_output.weight": lambda held: held["attention_output/kernel"].reshape(8, 6).T,
        },
    ),
    (
        "einsum into heads",
        "EinsumDense",
        {"equation": "abc,cde->abde", "output_shape": [None, 2, 3], "bias_axes": "de"},
        {"kernel": (4, 2, 3), "bias": (2, 3)},
        {"weight": lambda held: held["kernel"].reshape(4, 6).T, "bias": lambda held: held["bias"].reshape(6)},
    ),
    (
        "einsum out of heads",
        "EinsumDense",
        {"equation": OUT_OF_HEADS, "output_shape": [None, 5], "bias_axes": "e"},
        {"kernel": (2, 3, 5), "bias": (5,)},
        {"weight": lambda held: held["kernel"].reshape(6, 5).T, "bias": itself("bias")},
    ),
    (
        "einsum with its kernel the other way about",
        "EinsumDense",
        {"equation": "...x,yx->...y", "output_shape": 3},
        {"kernel": (3, 4)},
        {"weight": itself("kernel")},
    ),
    (
        "einsum whose heads are turned",
        "EinsumDense",
        {"equation": "ab,bdc->acd", "output_shape": [2, 3], "bias_axes": "cd"},
        {"kernel": (4, 3, 2), "bias": (2, 3)},
        {
            "weight": lambda held: held["kernel"].transpose(2, 1, 0).reshape(6, 4),
            "bias": lambda held: held["bias"].reshape(6),
        },
    ),
]


def checkpoint(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Checkpoint:
    tensors = {f"l0/{name}": ArrayTensor.of(array) for name, array in filled(shapes).items()}
    kept = Config(values=dict(config), raw=b"{}")
    return Checkpoint(tensors=tensors, keras_config=kept, dialect=Dialect.KERAS)


@pytest.mark.parametrize(
    ("class_name", "config", "shapes", "expected"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_variables_are_what_pytorch_has(
    class_name: str, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], expected: dict[str, Make]
) -> None:
    whole = config_of((class_name, config))
    source = checkpoint(shapes, whole)
    there = to_pytorch(source)
    held = filled(shapes)
    assert there.tensors.keys() == {f"l0.{name}" for name in expected}
    for name, make in expected.items():
        np.testing.assert_array_equal(there.tensors[f"l0.{name}"].numpy(), make(held), err_msg=name)
    assert not there.warnings
    assert there.buffers == there.frozen == frozenset()
    if config.get("equation") == OUT_OF_HEADS:
        with pytest.raises(ReadError, match=r"has shape \[5, 6\], not one that reads"):
            to_keras(there, whole)
        return
    back = to_keras(there, whole)
    assert list(back.tensors) == [f"l0/{name}" for name in shapes]
    for name, array in held.items():
        np.testing.assert_array_equal(back.tensors[f"l0/{name}"].numpy(), array, err_msg=name)


def test_every_layer_with_variables_is_in_a_row_here() -> None:
    told = {row[1] for row in ROWS} | {"BatchNormalization", "Normalization"}
    assert SIMPLE.keys() <= told
    assert not told & WITHOUT_VARIABLES


# normalisation of batches


@pytest.mark.parametrize(
    ("config", "leaves", "constant"),
    [
        ({}, ("gamma", "beta"), {}),
        ({"scale": False}, ("beta",), {"weight": 1}),
        ({"center": False}, ("gamma",), {"bias": 0}),
        ({"center": False, "scale": False}, (), {}),
        ({"rms_scaling": True}, ("gamma", "beta"), {}),
    ],
)
def test_a_normalisation_of_batches(config: dict[str, Any], leaves: tuple[str, ...], constant: dict[str, int]) -> None:
    """torch.nn.BatchNorm has weight and bias together or not at all, and counts its batches."""
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    whole = config_of(("BatchNormalization", config))
    shapes = dict.fromkeys((*leaves, "moving_mean", "moving_variance"), (3,))
    there = to_pytorch(checkpoint(shapes, whole))
    values = {name: filled(shapes)[leaf] for leaf, name in names.items() if leaf in shapes}
    values |= {name: np.full(3, value, np.float32) for name, value in constant.items()}
    assert {name: tensor.numpy().tolist() for name, tensor in there.tensors.items()} == {
        **{f"l0.{name}": array.tolist() for name, array in values.items()},
        "l0.num_batches_tracked": 0,
    }
    assert there.tensors["l0.num_batches_tracked"].dtype.value == "int64"
    assert there.buffers == {"l0.running_mean", "l0.running_var", "l0.num_batches_tracked"}
    assumed = {line.target for line in there.lines if line.status is Status.DEFAULTED}
    assert assumed == {"l0.num_batches_tracked", *(f"l0.{name}" for name in constant)}
    back = to_keras(there, whole)
    assert list(back.tensors) == [f"l0/{leaf}" for leaf in shapes]
    assert back.buffers == {"l0/moving_mean", "l0/moving_variance"}
    refused = [line.name for line in back.lines if line.is_refused_by_default]
    assert refused == []
    for name, value in constant.items():
        other = there.tensors | {f"l0.{name}": ArrayTensor.of(np.full(3, value + 1, np.float32))}
        lost = to_keras(Checkpoint(tensors=other), whole)
        assert [line.name for line in lost.lines if line.is_refused_by_default] == [f"l0.{name}"]


def test_statistics_of_the_data_are_buffers_of_their_own_names() -> None:
    whole = config_of(("Normalization", {}))
    shapes: dict[str, tuple[int, ...]] = {"mean": (2,), "variance": (2,), "count": ()}
    there = to_pytorch(checkpoint(shapes, whole))
    assert there.tensors.keys() == there.buffers == {"l0.mean", "l0.variance", "l0.count"}
    assert modules(parse(config_of(("Normalization", {"mean": [0.0], "variance": [1.0]}))))[0][0].slots == ()


# two directions, wrappers


def test_two_directions_are_one_module() -> None:
    inner = {"class_name": "LSTM", "config": {"name": "lstm", "units": 3}}
    whole = config_of(("Bidirectional", {"layer": inner}))
    shapes = {
        f"{direction}_lstm/lstm_cell/{leaf}": shape
        for direction in ("forward", "backward")
        for leaf, shape in {"kernel": (2, 12), "recurrent_kernel": (3, 12), "bias": (12,)}.items()
    }
    there = to_pytorch(checkpoint(shapes, whole))
    held = filled(shapes)
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        np.testing.assert_array_equal(
            there.tensors[f"l0.weight_ih_l0{suffix}"].numpy(), held[f"{direction}_lstm/lstm_cell/kernel"].T
        )
        np.testing.assert_array_equal(
            there.tensors[f"l0.bias_ih_l0{suffix}"].numpy(), held[f"{direction}_lstm/lstm_cell/bias"]
        )
        assert not there.tensors[f"l0.bias_hh_l0{suffix}"].numpy().any()
    assert list(to_keras(there, whole).tensors) == [f"l0/{name}" for name in shapes]


def found(class_name: str, **config: Any) -> tuple[list[Module], list[Layer]]:
    return modules(parse(config_of((class_name, config))))


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("GRU", {"reset_after": False}),
        ("PReLU", {"shared_axes": [2]}),
        ("PReLU", {"shared_axes": [2, 3]}),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "output_shape": [2, 3]}),
        ("EinsumDense", {"equation": "ab,bc->cb"}),
        ("EinsumDense", {"equation": "ab,cd->abcd"}),
        ("EinsumDense", {"equation": "ab,bc->abc"}),
        ("EinsumDense", {"equation": "ba,bc->ac"}),
        ("EinsumDense", {"equation": "ab,bc->ca"}),
        ("EinsumDense", {"equation": "ab,bc->ac", "bias_axes": "a"}),
        ("EinsumDense", {"equation": "ab,bcd->acd", "output_shape": [2, 3], "bias_axes": "d"}),
        ("EinsumDense", {"equation": "ab,bc"}),
        ("Bidirectional", {"layer": {"class_name": "GRU", "config": {"reset_after": False}}}),
        ("Bidirectional", {"layer": {"class_name": "Own", "config": {}}}),
        ("TimeDistributed", {"layer": {"class_name": "Own", "config": {}}}),
        ("Own", {}),
    ],
)
def test_what_pytorch_does_not_compute_is_unknown(class_name: str, config: dict[str, Any]) -> None:
    known, unknown = found(class_name, **config)
    assert known == []
    assert [layer.path for layer in unknown] == ["l0"]
    with pytest.raises(ArchitectureError, match=f"layer 'l0' is a {class_name}, whose variables cannot be") as caught:
        to_keras(Checkpoint(tensors={}), config_of((class_name, config)))
    assert caught.value.hint is not None
    assert "safetensors have those that there are" in caught.value.hint


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("MultiHeadAttention", {"num_heads": 2}),
        ("MultiHeadAttention", {"num_heads": 0, "key_dim": 3}),
        ("MultiHeadAttention", {"num_heads": True, "key_dim": 3}),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "value_dim": "4"}),
        ("DepthwiseConv2D", {"depth_multiplier": 0}),
        ("SeparableConv1D", {"depth_multiplier": 1.5}),
        ("PReLU", {"shared_axes": ["1"]}),
        ("EinsumDense", {}),
        ("EinsumDense", {"equation": 7}),
        ("EinsumDense", {"equation": "ab,bc->ac", "bias_axes": 7}),
        ("EinsumDense", {"equation": "ab,bc->ac", "output_shape": ["3"]}),
    ],
)
def test_a_setting_that_is_none_is_said_with_its_layer(class_name: str, config: dict[str, Any]) -> None:
    with pytest.raises(ReadError, match=f"whose {class_name} has no valid") as caught:
        found(class_name, **config)
    assert caught.value.tensor == "l0"


def test_what_is_not_trained_says_so_itself_or_in_what_is_around_it() -> None:
    for around, inside, is_trained in (
        (True, True, True),
        (False, True, False),
        (True, False, False),
        (None, None, True),
    ):
        inner = {"class_name": "Dense", "config": {"name": "d", **({} if inside is None else {"trainable": inside})}}
        own = {} if around is None else {"trainable": around}
        for class_name in ("TimeDistributed", "Wrapper"):
            ((module,), _) = found(class_name, layer=inner, **own)
            assert module.is_trainable is is_trained
    ((module,), _) = found("Dense", trainable=False)
    assert not module.is_trainable
    there = to_pytorch(checkpoint({"kernel": (2, 3), "bias": (3,)}, config_of(("Dense", {"trainable": False}))))
    assert there.frozen == {"l0.weight", "l0.bias"}


def test_what_is_wrapped_may_have_the_name_of_its_wrapper() -> None:
    inner = {"class_name": "Dense", "config": {"name": "d"}}
    ((module,), _) = found("TimeDistributed", layer=inner)
    assert (module.path, module.also, module.stores) == ("l0/d", ("l0",), ("layers/time_distributed/layer",))
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [inner, {**inner, "config": {"name": "e"}}]}}
    (several, _) = found("TimeDistributed", layer=model)
    assert [(each.path, each.also) for each in several] == [("l0/m/d", ()), ("l0/m/e", ())]


# back


def test_a_bias_of_pytorchs_own_is_added_and_lines_say_so() -> None:
    whole = config_of(("LSTM", {"use_bias": True}))
    shapes = {"lstm_cell/kernel": (2, 12), "lstm_cell/recurrent_kernel": (3, 12), "lstm_cell/bias": (12,)}
    there = to_pytorch(checkpoint(shapes, whole))
    two = there.tensors | {"l0.bias_hh_l0": ArrayTensor.of(np.full(12, 0.5, np.float32))}
    back = to_keras(Checkpoint(tensors=two), whole)
    np.testing.assert_array_equal(
        back.tensors["l0/lstm_cell/bias"].numpy(), filled(shapes)["lstm_cell/bias"] + np.float32(0.5)
    )
    (line,) = (line for line in back.lines if line.status is Status.DROPPED)
    assert line.name == "l0.bias_hh_l0"
    assert "added to l0.bias_ih_l0" in line.reason
    with pytest.raises(ReadError, match="cannot be added"):
        to_keras(Checkpoint(tensors=there.tensors | {"l0.bias_hh_l0": ArrayTensor.of(np.ones(3, np.float32))}), whole)
    alone = {name: tensor for name, tensor in there.tensors.items() if name != "l0.bias_hh_l0"}
    assert "l0/lstm_cell/bias" in to_keras(Checkpoint(tensors=alone), whole).tensors


def test_what_no_layer_holds_is_refused_and_what_is_lacking_is() -> None:
    whole = config_of(("Dense", {}))
    held = {"l0.weight": ArrayTensor.of(np.ones((3, 2))), "l0.bias": ArrayTensor.of(np.ones(3))}
    more = to_keras(Checkpoint(tensors={**held, "other": ArrayTensor.of(np.ones(1))}), whole)
    assert [(line.name, line.is_refused_by_default) for line in more.lines] == [("other", True)]
    with pytest.raises(LossError, match=r"'l0.bias' is not in the checkpoint") as caught:
        to_keras(Checkpoint(tensors={"l0.weight": held["l0.weight"]}), whole)
    assert caught.value.tensor == "l0/bias"


def test_modules_behind_a_flatten_have_their_rows_permuted() -> None:
    """Keras flattens (H, W, C), PyTorch (C, H, W)."""
    layers = [
        ("InputLayer", {"batch_shape": [None, 2, 1, 3]}),
        ("Flatten", {}),
        ("BatchNormalization", {}),
        ("Dense", {"units": 2, "use_bias": False}),
    ]
    behind, dense = config_modules(parse(config_of(*layers)))[0]
    assert [slot.keras for slot in behind.slots if slot.layout is not None and "channels" in slot.layout.sizes] == [
        *("gamma", "beta", "moving_mean", "moving_variance")
    ]
    kernel = np.arange(12, dtype=np.float32).reshape(6, 2)
    whole = config_of(*layers)
    stats = {
        f"l2/{leaf}": ArrayTensor.of(np.arange(6, dtype=np.float32)) for leaf in [slot.keras for slot in behind.slots]
    }
    source = Checkpoint(
        tensors={**stats, "l3/kernel": ArrayTensor.of(kernel)},
        keras_config=Config(values=whole, raw=b"{}"),
        dialect=Dialect.KERAS,
    )
    there = to_pytorch(source)
    assert there.tensors["l2.weight"].numpy().tolist() == [0, 3, 1, 4, 2, 5]
    np.testing.assert_array_equal(there.tensors["l3.weight"].numpy(), kernel[[0, 3, 1, 4, 2, 5]].T)
    np.testing.assert_array_equal(to_keras(there, whole).tensors["l3/kernel"].numpy(), kernel)
    assert dense.slots[0].layout is not None
