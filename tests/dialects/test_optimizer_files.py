"""The optimizer of a Keras file, given its parts: what goes before what, and what is left of lines. No framework."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_files import (
    record_attributes,
    recorded,
    with_listed_state,
    with_numbered_state,
)
from converter.dialects.optimizer.keras_layouts import config_of, variables
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.writing import call_of, compile_config, for_keras, training_config
from converter.encoding.hdf5 import Dataset, Group
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config, Dialect
from converter.model.ledger import Kind, no_weight
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor
from tests.dialects.test_optimizer_semantics import checkpoint_of

KERNEL, BIAS, GAMMA = (ArrayTensor.of(np.ones(shape, np.float32)) for shape in ((2, 3), (3,), (3,)))
PATH = Path("model")
LINES = (no_weight("optimizer/iteration", Kind.OPTIMIZER), no_weight("metric", Kind.METRIC))


def scalar(value: float, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.asarray(value, dtype))


def group(members: Mapping[str, Tensor | Group], **attributes: Any) -> Group:
    made = {name: Dataset(tensor=each) if isinstance(each, Tensor) else each for name, each in members.items()}
    return Group(attributes=attributes, members=made)


def numbered(*tensors: Tensor, **attributes: Any) -> Group:
    return group({str(number): tensor for number, tensor in enumerate(tensors)}, **attributes)


def root(optimizer: Group, **inner: Group) -> Group:
    return group({"optimizer": group({"vars": optimizer, **inner})})


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": name, **config}}


def model(*layers: dict[str, Any], compiled: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    return made if compiled is None else {**made, "compile_config": compiled}


HEAD = (scalar(3, "int64"), scalar(0.5))
DENSE, OTHER = layer("Dense", "d"), layer("Dense", "e")
WEIGHTS = {"d/kernel": KERNEL, "d/bias": BIAS}
SGD = {"optimizer": {"class_name": "SGD", "config": {"momentum": 0.5}}}


def read(
    optimizer: Group,
    config: Mapping[str, Any] | None,
    weights: Mapping[str, Tensor] = WEIGHTS,
    stores: Mapping[str, Sequence[str]] | None = None,
    **inner: Group,
) -> Checkpoint:
    source = Checkpoint(tensors=dict(weights), dialect=Dialect.KERAS, lines=LINES)
    listed = {"layers/dense": list(weights)} if stores is None else stores
    return with_numbered_state(source, root(optimizer, **inner), listed, config, PATH)


def state_of(checkpoint: Checkpoint) -> OptimizerState:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return checkpoint.optimizer


def test_what_is_carried_has_no_line_any_more() -> None:
    found = read(numbered(*HEAD, KERNEL, BIAS), model(DENSE, compiled=SGD))
    assert state_of(found).slots["momentum"].keys() == WEIGHTS.keys()
    assert found.lines == LINES[1:]
    refused = read(numbered(*HEAD, KERNEL), model(DENSE, compiled=SGD))
    assert (refused.optimizer, refused.lines) == (None, LINES)
    assert "fit no order" in (refused.optimizer_refused or "")
    assert read(numbered(), model(DENSE, compiled=SGD)).lines == LINES
    source = Checkpoint(tensors=WEIGHTS)
    assert with_numbered_state(source, group({}), {}, None, PATH) is source


def test_the_order_is_that_of_the_config_without_what_is_not_trained() -> None:
    norm = {f"n/{leaf}": GAMMA for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    frozen = {"f/kernel": KERNEL, "f/bias": BIAS}
    weights = {**norm, **WEIGHTS, **frozen}
    config = model(DENSE, layer("Dense", "f", trainable=False), layer("BatchNormalization", "n"), compiled=SGD)
    found = state_of(read(numbered(*HEAD, KERNEL, BIAS, GAMMA, GAMMA), config, weights))
    assert list(found.slots["momentum"]) == ["d/kernel", "d/bias", "n/gamma", "n/beta"]
    assert found.basis == "verified (order)"


OWN = model(DENSE, layer("Own", "o"), compiled=SGD)
OF_OWN = {"o/a": GAMMA, "o/b": GAMMA}


def test_a_config_of_other_weights_tells_no_order() -> None:
    found = read(numbered(*HEAD, KERNEL, BIAS), model(DENSE, OTHER, compiled=SGD))
    assert found.optimizer is None
    assert "fit no order" in (found.optimizer_refused or "")


INSIDE = {"layers/own": ["o/a"], "layers/own/z": ["o/z/gamma", "o/z/beta"], "layers/own/b": ["layers/own/b/vars/0"]}
SCALE, WIDE = (ArrayTensor.of(np.ones(shape, np.float32)) for shape in ((1,), (3, 5)))
HELD = {"o/a": SCALE, "o/z/gamma": GAMMA, "o/z/beta": GAMMA, "layers/own/b/vars/0": GAMMA}
OF_INSIDE = numbered(*HEAD, KERNEL, BIAS, SCALE, GAMMA, GAMMA, GAMMA)


def inside_own(optimizer: Group, stores: Mapping[str, Sequence[str]], weights: Mapping[str, Tensor]) -> Checkpoint:
    return read(optimizer, OWN, {**WEIGHTS, **weights}, {"layers/dense": list(WEIGHTS), **stores})


def test_shapes_tell_how_layers_stand_inside_one_of_ones_own() -> None:
    weights = {**HELD, "layers/own/b/vars/0": WIDE}
    for slots, order in (
        ((WIDE, GAMMA, GAMMA), ["layers/own/b/vars/0", "o/z/gamma", "o/z/beta"]),
        ((GAMMA, GAMMA, WIDE), ["o/z/gamma", "o/z/beta", "layers/own/b/vars/0"]),
        ((GAMMA, GAMMA), ["o/z/gamma", "o/z/beta"]),
        ((WIDE,), ["layers/own/b/vars/0"]),
        ((), []),
    ):
        found = state_of(inside_own(numbered(*HEAD, KERNEL, BIAS, SCALE, *slots), INSIDE, weights))
        assert list(found.slots["momentum"]) == ["d/kernel", "d/bias", "o/a", *order], "what is not trained has none"
    shuffled = inside_own(numbered(*HEAD, KERNEL, BIAS, GAMMA, GAMMA, SCALE, WIDE), INSIDE, weights)
    assert "fit no order" in (shuffled.optimizer_refused or ""), "its own variables come first"


def test_code_tells_how_layers_stand_where_shapes_do_not() -> None:
    found = inside_own(OF_INSIDE, INSIDE, HELD)
    assert "fit several orders" in (found.optimizer_refused or "")
    hint = "--custom-objects package.module:Own names code that says the order of what is inside"
    assert hint in (found.optimizer_refused or "")
    assert found.optimizer_stored is not None
    z, b = ["o/z/gamma", "o/z/beta"], ["layers/own/b/vars/0"]
    for classes, order in (
        ({"z": "LayerNormalization", "b": "", "drop": "Dropout"}, [*z, *b]),
        ({"b": "", "z": "LayerNormalization"}, [*b, *z]),
    ):
        state = found.optimizer_stored.named(inside=lambda layer, classes=classes: classes)
        assert list(state.slots["momentum"]) == ["d/kernel", "d/bias", "o/a", *order]
    with pytest.raises(LossError, match="fit no order") as caught:
        found.optimizer_stored.named(order=["d/kernel"], inside=lambda layer: {})
    assert caught.value.hint is None


def test_a_class_of_keras_tells_which_variables_are_statistics() -> None:
    """Without it all four variables may be trained, and the layer of one's own, which stands anywhere then, not."""
    stores = {
        "layers/own/n": [f"layers/own/n/vars/{at}" for at in range(4)],
        "layers/own/w": ["o/w/kernel"],
        "layers/own/z": ["o/z/gamma", "o/z/beta"],
    }
    weights = dict.fromkeys([name for names in stores.values() for name in names], GAMMA) | {"o/w/kernel": WIDE}
    found = inside_own(numbered(*HEAD, KERNEL, BIAS, *[GAMMA] * 4, WIDE), stores, weights)
    assert "fit several orders" in (found.optimizer_refused or "")
    assert found.optimizer_stored is not None
    classes = {"z": "LayerNormalization", "n": "BatchNormalization", "w": "Dense"}
    state = found.optimizer_stored.named(inside=lambda layer: classes)
    order = ["o/z/gamma", "o/z/beta", "layers/own/n/vars/0", "layers/own/n/vars/1", "o/w/kernel"]
    assert list(state.slots["momentum"]) == ["d/kernel", "d/bias", *order]


def test_layers_of_one_class_stand_by_their_numbers() -> None:
    places = [f"layers/own/blocks/{name}" for name in ("dense_10", "dense_2", "norm", "dense")]
    stores = {place: [f"{place}/w"] for place in places}
    weights = {f"{place}/w": SCALE if place.endswith("norm") else GAMMA for place in places}
    found = state_of(inside_own(numbered(*HEAD, KERNEL, BIAS, GAMMA, SCALE, GAMMA, GAMMA), stores, weights))
    order = [name.rpartition("/")[0].rpartition("/")[2] for name in found.slots["momentum"]][2:]
    assert order == ["dense", "norm", "dense_2", "dense_10"]


def test_too_many_ways_to_try_are_said() -> None:
    places = [f"layers/own/{name}" for name in "abcdefghijkl"]
    stores = {place: [f"{place}/v/w"] for place in places}
    weights = {f"{place}/v/w": GAMMA for place in places}
    found = inside_own(numbered(*HEAD, KERNEL, BIAS, *[GAMMA] * 11, KERNEL), stores, weights)
    assert "cannot be told by shapes alone" in (found.optimizer_refused or "")


def test_a_layer_of_ones_own_is_told_by_the_one_place_that_it_has() -> None:
    given = numbered(*HEAD, KERNEL, BIAS, GAMMA, GAMMA)
    for place in ("layers/own", "_layer_checkpoint_dependencies/own"):
        stores = {place: list(OF_OWN), "layers/dense": list(WEIGHTS)}
        found = state_of(read(given, OWN, {**OF_OWN, **WEIGHTS}, stores))
        assert list(found.slots["momentum"]) == ["d/kernel", "d/bias", "o/a", "o/b"]
    without = state_of(read(numbered(*HEAD, KERNEL, BIAS), OWN))
    assert list(without.slots["momentum"]) == ["d/kernel", "d/bias"], "it may have no variables"


def test_the_names_in_a_record_go_before_the_config() -> None:
    weights = {"a": BIAS, "b": BIAS}
    record = {"ckconv_optimizer": "{}", "ckconv_parameters": ("b", "a")}
    found = state_of(read(numbered(*HEAD, BIAS, BIAS, **record), model(DENSE, compiled=SGD), weights))
    assert list(found.slots["momentum"]) == ["b", "a"]
    record["ckconv_parameters"] = ("b", "c")
    strange = read(numbered(*HEAD, BIAS, BIAS, **record), model(DENSE, compiled=SGD), weights)
    assert "fit no order" in (strange.optimizer_refused or "")


@pytest.mark.parametrize(
    ("title", "inner", "algorithm"),
    [
        ("sgd", None, "sgd"),
        ("sgd_2", None, "sgd"),
        ("loss_scale_optimizer", "sgd", "sgd"),
        ("loss_scale_optimizer_1", "adagrad", "adagrad"),
        ("loss_scale_optimizer", None, None),
        ("own", "sgd", None),
    ],
)
def test_what_an_optimizer_is_called_tells_its_class_where_no_config_does(
    title: str, inner: str | None, algorithm: str | None
) -> None:
    more = {} if inner is None else {"inner_optimizer": group({"vars": group({}, name=inner)})}
    found = read(numbered(*HEAD, KERNEL, BIAS, name=title), None, stores={"layers/dense": list(WEIGHTS)}, **more)
    assert (None if found.optimizer is None else found.optimizer.algorithm) == algorithm
    told = read(numbered(*HEAD, KERNEL, BIAS, name=title), model(DENSE, compiled=SGD), **more)
    assert state_of(told).algorithm == "sgd"


def test_positions_of_what_does_not_decay_are_those_of_the_config() -> None:
    adamw = {"class_name": "AdamW", "config": {"weight_decay": 0.5, "without_weight_decay": [1]}}
    moments = [KERNEL, KERNEL, BIAS, BIAS]
    found = state_of(read(numbered(*HEAD, *moments), model(DENSE, compiled={"optimizer": adamw})))
    assert [(each.parameters, each.hyperparameters["weight_decay"]) for each in found.groups] == [
        (("d/kernel",), 0.5),
        (("d/bias",), 0.0),
    ]


# variables with names


def in_keras(flavor: KerasFlavor = KerasFlavor.TF_KERAS, kind: str = "adam") -> OptimizerState:
    state = to_keras(checkpoint_of(kind), flavor).optimizer
    assert state is not None
    return state


def test_variables_with_names_are_read_with_the_record_beside_them() -> None:
    state = in_keras()
    weights = checkpoint_of("adam").tensors
    held = variables(state, KerasFlavor.TF_KERAS)
    source = Checkpoint(tensors=weights, lines=LINES)
    file = group({"optimizer_weights": group(held, **record_attributes(state))})
    found = with_listed_state(source, file, {"optimizer_config": {"class_name": "Adam"}}, PATH)
    assert state_of(found).groups[0].hyperparameters["beta_1"] == 0.8
    assert found.lines == LINES[1:]
    bare = with_listed_state(source, group({"optimizer_weights": group(held)}), training_config(state), PATH)
    assert state_of(bare).groups[0].hyperparameters["beta_1"] == 0.8
    for nothing in (group({}), group({"optimizer_weights": group({})})):
        assert with_listed_state(source, nothing, training_config(state), PATH) is source
    unknown = with_listed_state(source, group({"optimizer_weights": group({"x": KERNEL})}), None, PATH)
    assert (unknown.optimizer, unknown.lines) == (None, LINES)
    assert "its variable 'x' belongs to no weight" in (unknown.optimizer_refused or "")


def test_a_record_is_a_document_with_the_names_of_what_does_not_decay() -> None:
    two = to_keras(checkpoint_of("adamw", decays=(0.5, 0.0)), KerasFlavor.KERAS_3).optimizer
    assert two is not None
    for made in (recorded(two), record_attributes(two)):
        assert made["ckconv_without_decay"] == ["fc.bias"]
        assert made["ckconv_parameters"] == ["fc.weight", "fc.bias"]
    assert json.loads(record_attributes(two)["ckconv_optimizer"])["class_name"] == "AdamW"
    assert "ckconv_without_decay" not in recorded(in_keras())


# how files say with what a model was compiled


def test_a_model_is_compiled_with_this_optimizer_and_what_else_it_was_with() -> None:
    state = in_keras(KerasFlavor.KERAS_3)
    _, config = config_of(state)
    known = {"optimizer": {"class_name": "Own"}, "loss": "mse", "metrics": ["a"]}
    made = compile_config(state, known)
    assert {**made, "optimizer": None} == {"optimizer": None, "loss": "mse", "metrics": ["a"]}
    assert made["optimizer"] == {
        "module": "keras.optimizers",
        "class_name": "Adam",
        "config": config,
        "registered_name": None,
    }
    for nothing in (None, [], "x"):
        assert compile_config(state, nothing)["loss"] is None
    assert training_config(state)["optimizer_config"] == {"class_name": "Adam", "config": config}
    assert training_config(state)["loss"] is None


def test_optimizers_of_this_program_are_compiled_by_their_own_module() -> None:
    state = to_keras(checkpoint_of("adam"), KerasFlavor.KERAS_3, is_exact=True).optimizer
    assert state is not None
    told = {"module": "converter.keras_optimizers", "class_name": "Adam", "registered_name": "ckconv>Adam"}
    for made in (compile_config(state, None)["optimizer"], training_config(state)["optimizer_config"]):
        assert {**made, "config": None} == {**told, "config": None}
    assert call_of(state).startswith("the optimizer is converter.keras_optimizers.Adam(")


def test_a_keras_model_around_one_of_transformers_keeps_pytorchs_names_and_says_so() -> None:
    around = Config(values=model(layer("TFBertModel", "bert")), raw=b"{}")
    source = replace(
        checkpoint_of("adam"), keras_config=around, config=Config(values={"model_type": "bert"}, raw=b"{}")
    )
    made = for_keras(source, KerasFlavor.KERAS_3, is_exact=False)
    assert made.warnings == ("names and layouts are PyTorch's: the Keras config has layers that no table knows",)
    assert made.keras_config is None
    assert made.tensors == source.tensors
    plain = replace(source, keras_config=Config(values={"class_name": "Own", "config": {}}, raw=b"{}"))
    assert for_keras(plain, KerasFlavor.KERAS_3, is_exact=False) is plain
