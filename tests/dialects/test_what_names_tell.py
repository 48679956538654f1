"""Dialects, one row a condition: what names, shapes and configs tell, and what is refused; no framework is imported."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects import canonical
from converter.dialects.identity.ties import declared_ties
from converter.dialects.names import torch_names
from converter.dialects.names.operations import Reverse
from converter.dialects.names.rules import Names, Rule, RuleTable
from converter.dialects.tables.rows import Row, Rows, Template
from converter.dialects.transformers import tf1
from converter.dialects.transformers.attributes import AttributeRow as Place
from converter.dialects.transformers.heads import encoder_config, layer_configs
from converter.dialects.transformers.in_process_rows import Packed
from converter.dialects.transformers.mechanical import translated
from converter.dialects.transformers.sinusoids import is_computed, sinusoids
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.dtype import DType
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor


def tensor(*shape: int, start: float = 0) -> Tensor:
    return ArrayTensor.of(np.arange(start, start + math.prod(shape), dtype=np.float32).reshape(shape))


# rules


TABLE = RuleTable(
    rules=(
        Rule(("a.{n}",), ("x.{n}",), (Reverse(),)),
        Rule(("b.{n}",), ("y.{n}",), (Reverse(),)),
        Rule(("c.{n}",), ("z.{n}",)),
    )
)


def tied(alias: str) -> Checkpoint:
    group = ParameterGroup(parameters=("a.0",), hyperparameters={})
    state = OptimizerState(algorithm="x", step=1, groups=(group,), slots={"exp_avg": {"a.0": tensor(2, 3, start=50)}})
    return Checkpoint(tensors={"a.0": tensor(2, 3), "k": tensor(4)}, aliases={alias: "a.0"}, optimizer=state)


def test_a_tie_is_kept_where_both_sides_are_transposed() -> None:
    made = TABLE.apply(tied("b.1"), is_forward=True)
    assert made.aliases == {"y.1": "x.0"}
    np.testing.assert_array_equal(made.tensor("y.1").numpy(), tensor(2, 3).numpy().T)
    assert made.optimizer is not None
    np.testing.assert_array_equal(made.optimizer.slots["exp_avg"]["x.0"].numpy(), tensor(2, 3, start=50).numpy().T)
    assert TABLE.apply(made, is_forward=False).aliases == {"b.1": "a.0"}


@pytest.mark.parametrize("alias", ["c.1", "stays"])
def test_a_tie_that_is_transposed_on_one_side_is_refused(alias: str) -> None:
    with pytest.raises(LossError, match="the mapping rearranges one of them") as caught:
        TABLE.apply(tied(alias), is_forward=True)
    assert caught.value.tensor == alias


def test_a_tie_to_what_stays_is_refused_as_well() -> None:
    with pytest.raises(LossError, match="the mapping rearranges one of them"):
        TABLE.apply(Checkpoint(tensors={"k": tensor(4)}, aliases={"a.0": "k"}), is_forward=True)


def test_what_a_rule_may_say() -> None:
    dots = Rule(("a.{n}+(x)",), ("[{n}].b",))
    assert dots.names("a.7+(x)", is_forward=True) == Names(before=("a.7+(x)",), after=("[7].b",))
    assert dots.names("aX7+(x)", is_forward=True) is None
    assert dots.names("[7].b", is_forward=False) == Names(before=("[7].b",), after=("a.7+(x)",))
    assert TABLE.unused(["a.0", "y.3"], is_forward=True) == TABLE.rules[1:]
    assert TABLE.unused(["a.0", "y.3"], is_forward=False) == (TABLE.rules[0], TABLE.rules[2])


def test_a_direction_is_that_of_most_names() -> None:
    assert TABLE.is_forward(["a.0", "a.1", "y.0"])
    assert not TABLE.is_forward(["a.0", "x.1", "y.0"])


# names of torch in TensorFlow


@pytest.mark.parametrize(
    ("names", "are_torchs"),
    [
        (["a.weight", "a.bias"], True),
        (["a.kernel"], True),
        (["a.weight", "b/kernel"], False),
        (["a.bias"], False),
        (["weight"], False),
        ([], False),
    ],
)
def test_names_that_only_torch_has(names: list[str], are_torchs: bool) -> None:
    assert torch_names.are_torchs(names) is are_torchs


def test_kernels_with_names_of_torch_become_weights() -> None:
    held = {"a.kernel": tensor(2, 3), "b.kernel": tensor(5), "c.kernel": tensor(2, 2), "c.weight": tensor(3)}
    made = torch_names.to_canonical(Checkpoint(tensors=held, dialect="tensorflow"))
    assert set(made.tensors) == {"a.weight", "b.kernel", "c.kernel", "c.weight"}
    np.testing.assert_array_equal(made.tensors["a.weight"].numpy(), tensor(2, 3).numpy().T)
    assert made.tensors["c.weight"].shape == (3,)
    assert made.dialect == "pytorch"


# ties and layouts of Keras


def keras(tensors: dict[str, Tensor], layers: list[dict[str, Any]] | None = None, **more: Any) -> Checkpoint:
    config = None
    if layers is not None:
        values = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
        config = Config(values=values, raw=json.dumps(values).encode())
    return Checkpoint(tensors=tensors, dialect="keras", keras_config=config, **more)


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": config}


def test_a_tie_of_keras_is_one_where_both_sides_have_one_layout() -> None:
    square = {"one/kernel": tensor(4, 4), "one/bias": tensor(4), "emb/embeddings": tensor(4, 4, start=20)}
    same = canonical(keras(square, aliases={"two/kernel": "one/kernel"}))
    assert same.aliases == {"two.weight": "one.weight"}
    turned = canonical(keras(square, aliases={"out/kernel": "emb/embeddings"}))
    assert turned.aliases == {}
    np.testing.assert_array_equal(turned.tensors["emb.weight"].numpy(), tensor(4, 4, start=20).numpy())
    np.testing.assert_array_equal(turned.tensors["out.weight"].numpy(), tensor(4, 4, start=20).numpy().T)


HEIGHT, WIDTH = 3, 2


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("has_norm", [False, True])
def test_a_depth_multiplier_behind_a_flatten(multiplier: int, has_norm: bool) -> None:
    """Keras has its features at (row, column, channel), PyTorch at (channel, row, column); there are 2 x n channels."""
    channels = 2 * multiplier
    count = HEIGHT * WIDTH * channels
    norm = [layer("BatchNormalization", name="norm", axis=-1)] if has_norm else []
    layers = [
        layer("InputLayer", name="in", batch_shape=[None, HEIGHT, WIDTH, 2]),
        layer("DepthwiseConv2D", name="deep", kernel_size=[1, 1], depth_multiplier=multiplier, use_bias=False),
        layer("Flatten", name="flat"),
        *norm,
        layer("Dense", name="head", units=5, use_bias=True),
    ]
    vectors = {f"norm/{leaf}": tensor(count, start=7) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    held = {
        "deep/depthwise_kernel": tensor(1, 1, 2, multiplier),
        "head/kernel": tensor(count, 5),
        "head/bias": tensor(5),
    }
    made = canonical(keras({**held, **(vectors if has_norm else {})}, layers))
    head = made.tensors["head.weight"].numpy()
    kernel = held["head/kernel"].numpy()
    for row, column, channel in np.ndindex(HEIGHT, WIDTH, channels):
        theirs = (row * WIDTH + column) * channels + channel
        ours = (channel * HEIGHT + row) * WIDTH + column
        np.testing.assert_array_equal(head[:, ours], kernel[theirs])
        if has_norm:
            assert made.tensors["norm.weight"].numpy()[ours] == 7 + theirs
            assert made.tensors["norm.running_var"].numpy()[ours] == 7 + theirs
    np.testing.assert_array_equal(made.tensors["head.bias"].numpy(), tensor(5).numpy())
    np.testing.assert_array_equal(  # the n-th channel that is made of input c is c x n's
        made.tensors["deep.weight"].numpy().reshape(-1), held["deep/depthwise_kernel"].numpy().reshape(-1)
    )


def test_layers_that_are_not_trained_are_frozen_and_statistics_are_buffers() -> None:
    layers = [
        layer("InputLayer", name="in", batch_shape=[None, 3]),
        layer("Dense", name="one", units=3, trainable=False),
        layer("BatchNormalization", name="norm", axis=-1, trainable=False),
        layer("Dense", name="two", units=3, trainable=True),
        layer("Dense", name="three", units=3),
    ]
    held = {f"{name}/{leaf}": tensor(*shape) for name in ("one", "two", "three")
            for leaf, shape in (("kernel", (3, 3)), ("bias", (3,)))}  # fmt: skip
    held |= {f"norm/{leaf}": tensor(3) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    made = canonical(keras(held, layers))
    assert made.frozen == {"one.weight", "one.bias", "norm.weight", "norm.bias"}
    assert made.buffers == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    inner = {"class_name": "Sequential", "config": {"name": "body", "layers": layers[1:], "trainable": False}}
    nested = canonical(keras({f"body/{name}": each for name, each in held.items()}, [layers[0], inner]))
    assert nested.frozen == {f"body.{name}" for name in made.frozen}  # Keras, too, goes by what its layers say


# rows of tables


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a.{n}", "b.{m}")], "has a placeholder that"),
        ([("a.{n}.{n}", "b.{n}")], "has a placeholder twice"),
        ([("a.{n}.{m}", "b.{n}")], "need the same placeholders"),
        ([("a.{n}", "x.{n}"), ("a.0", "y")], "is in two rows, as theirs"),
        ([("a", "x.{n}"), ("b.{n}", "x.{n}")], "has a placeholder that"),
        ([("a.{n}", "x.{n}"), ("b.{m}", "x.{m}")], "is in two rows, as canonical"),
    ],
)
def test_tables_that_contradict_themselves(rows: list[tuple[str, str]], why: str) -> None:
    Rows([Row.of(["a.{n}", "x.{n}", None]), Row.of(["a.{n}.b", "x.{n}.b", None]), Row.of(["c", "d", "i o -> o i"])])
    with pytest.raises(ValueError, match=why):
        Rows([Row.of([*row, None]) for row in rows])


def test_rows_tell_tensors_of_two_ranks_apart() -> None:
    rows = Rows([Row.of(["k", "w", "i o -> o i"]), Row.of(["k", "v", "x i o -> o i x"])])
    assert [rows.to_canonical("k", rank).name for rank in (2, 3)] == ["w", "v"]  # type: ignore[union-attr]
    assert rows.to_canonical("k", 4) is None
    with pytest.raises(ValueError, match="two rows"):
        Rows([Row.of(["k", "w", "i o -> o i"]), Row.of(["k", "v", None])])
    found = Rows([Row.of(["a.{n}.k", "b.{n}.w", None])]).from_canonical("b.12.w")
    assert found is not None
    assert (found.name, found.indices) == ("a.12.k", {"n": "12"})
    assert Rows([Row.of(["a.{n}.k", "b.{n}.w", None])]).from_canonical("b.x.w") is None


def packed(*parts: str, axis: int | None = 0, is_stacked: bool = False) -> Packed:
    return Packed(
        whole=Template(text="all"),
        parts=tuple(Template(text=part) for part in parts),
        axis=axis,
        is_stacked=is_stacked,
        is_in_process=True,
    )


def taken_apart(row: Packed, whole: Tensor) -> dict[str, Tensor]:
    way = row.derivation(["x.all"], {}, before="x.", after="", whole=whole)
    assert (way.before, way.is_forward) == (("x.all",), True)
    return dict(zip(way.after, way.applied([whole]), strict=True))


def put_together(row: Packed, parts: Mapping[str, Tensor]) -> tuple[Tensor, tuple[str, ...]]:
    way = row.derivation(parts, {}, before="", after="x.", whole=None)
    assert (way.after, way.is_forward) == (("x.all",), False)
    (whole,) = way.applied([parts[name] for name in way.before])
    return whole, way.before


def test_tensors_that_are_packed_come_apart_and_together() -> None:
    whole = tensor(6, 4)
    for axis in (0, 1):
        row = packed("q", "k", axis=axis)
        parts = taken_apart(row, whole)
        for name, half in zip("qk", np.split(whole.numpy(), 2, axis), strict=True):
            np.testing.assert_array_equal(parts[name].numpy(), half)
        again, names = put_together(row, parts)
        np.testing.assert_array_equal(again.numpy(), whole.numpy())
        assert names == ("q", "k")
    stacked = packed("{e}.gate", "{e}.up", axis=1, is_stacked=True)
    experts = tensor(3, 4, 2)
    apart = taken_apart(stacked, experts)
    assert list(apart) == ["0.gate", "0.up", "1.gate", "1.up", "2.gate", "2.up"]
    np.testing.assert_array_equal(apart["1.up"].numpy(), experts.numpy()[1, 2:])
    again, names = put_together(stacked, apart)
    np.testing.assert_array_equal(again.numpy(), experts.numpy())
    assert names == tuple(apart)
    single = packed("{e}.down", axis=None, is_stacked=True)
    np.testing.assert_array_equal(put_together(single, taken_apart(single, experts))[0].numpy(), experts.numpy())
    for shape, row in (((5, 4), packed("q", "k")), ((4,), packed("q", "k", axis=1)), ((3, 5, 2), stacked)):
        with pytest.raises(ReadError, match="which is not 2 parts") as unfit:
            taken_apart(row, tensor(*shape))
        assert unfit.value.tensor == "x.all"
    del apart["1.up"]
    with pytest.raises(LossError, match="others are stored together with it") as caught:
        put_together(stacked, apart)
    assert caught.value.tensor == "1.up"


# what a config computes


@pytest.mark.parametrize("width", [4, 5])
@pytest.mark.parametrize("kind", ["halves", "interleaved", "rotary"])
def test_position_tables(kind: str, width: int) -> None:
    keys = {"halves": "d_model", "interleaved": "dim", "rotary": "hidden_size"}
    config = {
        "max_position_embeddings": 7,
        keys[kind]: width * (2 if kind == "rotary" else 1),
        "num_attention_heads": 2,
    }
    found = sinusoids(kind, config, DType.FLOAT32).numpy()
    half = (width + 1) // 2
    for position in range(7):
        for pair in range(half):
            angle = position / 10000 ** (2 * pair / width)
            sine, cosine = (2 * pair, 2 * pair + 1) if kind == "interleaved" else (pair, half + pair)
            assert found[position, sine] == np.float32(math.sin(angle))
            if 2 * pair + 1 < width:
                assert found[position, cosine] == np.float32(math.cos(angle))


@pytest.mark.parametrize(
    "change",
    [{"max_position_embeddings": 0}, {"max_position_embeddings": True}, {"d_model": None}, {"d_model": 1 << 26},
     {"d_model": -4}, {"d_model": 4.0}],
)  # fmt: skip
def test_position_tables_that_cannot_be(change: dict[str, Any]) -> None:
    config = {"max_position_embeddings": 7, "d_model": 4}
    assert sinusoids("halves", config, DType.FLOAT32).shape == (7, 4)
    with pytest.raises(ReadError, match="position table"):
        sinusoids("halves", {**config, **change}, DType.FLOAT32)


def test_position_tables_are_computed_only_where_they_are_not_learned() -> None:
    assert is_computed("halves", {})
    assert is_computed("interleaved", {"sinusoidal_pos_embds": True})
    assert not is_computed("interleaved", {"sinusoidal_pos_embds": False})
    assert not is_computed("interleaved", {})


# transformers' own rules


@pytest.mark.parametrize(
    ("name", "rank", "expected", "shape", "is_certain"),
    [
        ("a/kernel", 2, "a.weight", (1, 0), True),
        ("a/kernel", 4, "a.weight", (3, 2, 0, 1), True),
        ("a/kernel", 6, "a.weight", None, False),
        ("a/embeddings", 2, "a.weight", None, True),
        ("a/gamma", 1, "a.weight", None, True),
        ("a/beta", 1, "a.bias", None, True),
        ("a/moving_mean", 1, "a.running_mean", None, True),
        ("a/moving_variance", 1, "a.running_var", None, True),
        ("a/strange", 1, "a.strange", None, False),
        ("a_._0_._b/kernel", 2, "a.0.b.weight", (1, 0), True),
        ("x___a/kernel", 2, "a.weight", (1, 0), True),
        ("a/depthwise_kernel", 4, "a.depthwise.weight", (3, 2, 0, 1), True),
        ("a/weight_g", 3, "a.parametrizations.weight.original0", (2, 1, 0), True),
        ("a/weight_v", 3, "a.parametrizations.weight.original1", (2, 1, 0), True),
    ],
)
def test_what_transformers_makes_of_a_name(
    name: str, rank: int, expected: str, shape: tuple[int, ...] | None, is_certain: bool
) -> None:
    found = translated(name, rank)
    assert (found.name, found.is_certain) == (expected, is_certain)
    extents = tuple(range(2, 2 + rank))
    if shape is None:
        assert found.layout is None
    elif "depthwise" not in name:
        assert found.layout is not None
        assert found.layout.to_torch(tensor(*extents)).shape == tuple(extents[axis] for axis in shape)


def test_places_of_lists_and_numbers_in_names() -> None:
    row = Place.of("layer_{n}/vars/0", "encoder/layer_._{n+1}/kernel")
    assert row.place.fullmatch("layer/vars/0")
    assert row.place.fullmatch("layer_11/vars/0")
    assert not row.place.fullmatch("layer_x/vars/0")
    assert not row.place.fullmatch("layer_1/vars/00")


# names of TensorFlow 1


QUERY = "encoder/layer_0/attention/self/query/kernel"


@pytest.mark.parametrize(
    ("names", "model_type"),
    [
        ([f"bert/{QUERY}"], "bert"),
        ([f"module/bert/{QUERY}", "x"], "bert"),
        ([f"electra/{QUERY}"], "electra"),
        ([f"generator/{QUERY}"], "electra"),
        (["bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/kernel"], "albert"),
        ([f"bert/{QUERY}", f"electra/{QUERY}"], None),
        ([f"other/bert/{QUERY}"], None),
        ([f"bert/{QUERY}/Adam"], None),
        ([], None),
    ],
)
def test_whose_names_these_are(names: list[str], model_type: str | None) -> None:
    assert tf1.model_type_of(names) == model_type


def test_of_electras_two_models_the_config_names_one() -> None:
    held = {"electra/embeddings/word_embeddings": tensor(5, 4), f"electra/{QUERY}": tensor(4, 4, start=9),
            f"generator/{QUERY}": tensor(4, 4, start=90), "discriminator_predictions/temperature": tensor(1),
            "stranger": tensor(1)}  # fmt: skip
    source = Checkpoint(tensors=held, dialect="tensorflow")

    def taken(*architectures: str) -> Checkpoint:
        values = {"model_type": "electra", "architectures": list(architectures)}
        return tf1.to_canonical(replace(source, config=Config(values=values, raw=b"")))

    for made, start in (
        (taken("ElectraForPreTraining"), 9),
        (tf1.to_canonical(source), 9),
        (taken("ElectraForMaskedLM"), 90),
    ):
        (query,) = [name for name in made.tensors if name.endswith("query.weight")]
        np.testing.assert_array_equal(made.tensors[query].numpy(), tensor(4, 4, start=start).numpy().T)
        refused = {line.name for line in made.lines if line.is_refused_by_default}
        assert refused == {"stranger"}
        assert any("temperature" in str(line.name) for line in made.lines)


# configs of models around a model


ENCODER = {"model_type": "bert", "transformers_version": "4", "hidden_size": 4, "_name_or_path": "/home/x"}


def test_the_config_of_the_model_inside() -> None:
    values = {"class_name": "Functional", "config": {"layers": [
        {"class_name": "Dense", "config": {"name": "head", "units": 3}},
        {"class_name": "TFBertMainLayer", "config": {"name": "bert", "config": ENCODER}},
    ]}}  # fmt: skip
    config = Config(values=values, raw=b"")
    found = encoder_config(config)
    assert found is not None
    assert found.values == {key: value for key, value in ENCODER.items() if key != "_name_or_path"}
    assert json.loads(found.raw) == found.values
    assert encoder_config(None) is None
    bare = {key: value for key, value in ENCODER.items() if key != "transformers_version"}
    assert encoder_config(Config(values={"config": bare}, raw=b"")) is None
    told = layer_configs(config, ["heads.head/kernel", "heads.bert/x"])
    assert told is not None
    assert json.loads(told) == {"head": {"class_name": "Dense", "config": {"name": "head", "units": 3}}}
    assert layer_configs(config, ["heads.other/kernel"]) is None
    assert layer_configs(None, ["heads.head/kernel"]) is None


def test_ties_that_a_config_does_not_mention_are_ties() -> None:
    """`tie_word_embeddings` is true where it is not said (transformers.PretrainedConfig)."""
    word, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    held = {word: tensor(5, 4), decoder: tensor(5, 4), "bert.embeddings.position_embeddings.weight": tensor(3, 4)}
    assert declared_ties(held, {}, "BertForMaskedLM") == {decoder: word}
    assert declared_ties(held, {"tie_word_embeddings": True}, "BertForMaskedLM") == {decoder: word}
    assert declared_ties(held, {"tie_word_embeddings": False}, "BertForMaskedLM") == {}


def test_names_in_memory_that_several_classes_have_stay() -> None:
    """Which class it is decides what they are on the hub."""
    name = "neck.fusion_stage.layers.0.projection.weight"
    config = {"model_type": "tipsv2_dpt"}
    source = Checkpoint(tensors={name: tensor(2, 2)}, config=Config(values=config, raw=b""))
    kept = canonical(source)
    assert kept.names == (name,)
    assert "several classes have them in memory" in kept.warnings[0]
    found = set()
    for architecture in ("Tipsv2DptForDepthEstimation", "Tipsv2DptForNormalEstimation"):
        values = {**config, "architectures": [architecture]}
        found |= set(canonical(replace(source, config=Config(values=values, raw=b""))).names)
    assert len(found) == 2
    assert name not in found
