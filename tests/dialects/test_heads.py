"""What surrounds a model of transformers in a Keras config: which layers it has, and which model. No framework."""

from __future__ import annotations

import json
from typing import Any

import pytest

from converter.dialects.transformers.heads import config_around, encoder_config, head_name, is_head, layer_configs
from converter.model.checkpoint import Config

BERT = {"model_type": "bert", "transformers_version": "4.57.6", "_name_or_path": "x", "hidden_size": 4}


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, **config}}


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Functional", "config": {"name": "m", "layers": list(layers)}}


def nested(inner: dict[str, Any], depth: int) -> Config:
    for _ in range(depth):
        inner = model(inner)
    return Config(values=inner, raw=b"{}")


DENSE, ENCODER = layer("Dense", "head", units=3), {"class_name": "TFBertModel", "config": BERT, "name": "bert"}


def test_names_of_heads_have_a_prefix_and_no_number_of_an_output() -> None:
    assert [head_name(name) for name in ("head/kernel", "head/kernel:0")] == ["heads.head/kernel"] * 2
    assert (is_head("heads.head/kernel"), is_head("head/kernel")) == (True, False)


@pytest.mark.parametrize(("depth", "is_found"), [(0, True), (1, True), (31, True), (70, False)])
def test_layers_are_found_in_models_inside_models_as_deep_as_there_is_sense_in(depth: int, is_found: bool) -> None:
    found = layer_configs(nested(DENSE, depth), ["heads.head/kernel"])
    assert found == (json.dumps({"head": DENSE}, sort_keys=True) if is_found else None)
    encoder = encoder_config(nested(ENCODER, min(depth, 20) if is_found else depth))
    assert (encoder is not None) == is_found


def test_a_layer_is_told_where_a_variable_is_its_own() -> None:
    config = Config(values=model(DENSE, layer("Dense", "other"), ENCODER, {"name": "odd"}), raw=b"{}")
    told = layer_configs(config, ["heads.head/kernel", "heads.bert/x"])
    assert told is not None
    assert json.loads(told) == {"head": DENSE}
    assert layer_configs(config, ["heads.kernel"]) is None
    assert layer_configs(None, ["heads.head/kernel"]) is None
    turned = Config(values=model(layer("Dense", "z"), layer("Dense", "a")), raw=b"{}")
    assert list(json.loads(str(layer_configs(turned, ["z/kernel", "a/kernel"])))) == ["a", "z"]
    by_entry = Config(values=model({"class_name": "Dense", "config": {}, "name": "head"}), raw=b"{}")
    assert json.loads(str(layer_configs(by_entry, ["head/kernel"])))["head"]["class_name"] == "Dense"


def test_the_config_of_the_model_inside_is_that_of_transformers_without_where_it_was() -> None:
    found = encoder_config(Config(values=model(DENSE, ENCODER), raw=b"{}"))
    assert found is not None
    assert found.values == {key: value for key, value in BERT.items() if key != "_name_or_path"}
    assert json.loads(found.raw) == found.values
    for other in ({"model_type": "bert"}, {**BERT, "model_type": 7}):
        assert encoder_config(Config(values=model(layer("Own", "x", **other)), raw=b"{}")) is None
    assert encoder_config(None) is None


def test_of_a_savedmodel_the_layers_outside_the_model_of_transformers_are_told() -> None:
    layers = {"bert": ENCODER, "bert.dense": layer("Dense", "inner"), "head": DENSE, "bertish": layer("Dense", "o")}
    made = config_around(None, layers)
    assert made is not None
    assert made.values["config"]["layers"] == [ENCODER, DENSE, layer("Dense", "o")]
    assert json.loads(made.raw) == made.values
    whole = Config(values=model(ENCODER), raw=b"{}")
    assert config_around(whole, layers) is whole
    bare = Config(values=model(DENSE), raw=b"{}")
    assert config_around(bare, {"head": DENSE}) is bare
    replaced = config_around(bare, layers)
    assert replaced is not None
    assert replaced.values["class_name"] == "SavedModel"
