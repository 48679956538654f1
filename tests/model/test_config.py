"""A config with other values: bytes that are kept, and bytes as transformers writes them."""

from __future__ import annotations

import json

import pytest

from converter.model.checkpoint import Config


def _config(text: str) -> Config:
    return Config(values=json.loads(text), raw=text.encode())


def test_a_config_that_is_right_keeps_its_bytes() -> None:
    config = _config('{"torch_dtype":"float32",   "architectures": ["BertModel"]}')
    assert config.with_values({}) is config
    assert config.with_values({"architectures": ["BertModel"]}).with_dtype("float32") is config


@pytest.mark.parametrize(
    ("text", "architecture", "model_type"),
    [
        ('{"architectures": ["BertModel", "Other"], "model_type": "bert"}', "BertModel", "bert"),
        ('{"architectures": [], "model_type": null}', None, None),
        ('{"architectures": "BertModel", "model_type": ["bert"]}', None, None),
        ('{"architectures": [{"a": 1}]}', None, None),
    ],
)
def test_what_a_config_names(text: str, architecture: str | None, model_type: str | None) -> None:
    assert (_config(text).architecture, _config(text).model_type) == (architecture, model_type)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype_changes_where_it_is(key: str) -> None:
    config = _config(json.dumps({"architectures": ["BertModel"], key: "float32", "z": [1, {"b": 1e-12, "a": "é"}]}))
    changed = config.with_dtype("bfloat16")
    assert changed.values == {**config.values, key: "bfloat16"}
    assert changed.raw.decode() == json.dumps(changed.values, indent=2) + "\n"
    assert list(json.loads(changed.raw)) == list(config.values)


def test_keys_are_added_in_order() -> None:
    in_order = _config('{"a": 1, "z": 2}').with_values({"architectures": ["BertModel"]}).with_dtype("float16")
    assert list(json.loads(in_order.raw)) == ["a", "architectures", "dtype", "z"]
    not_in_order = _config('{"z": 2, "a": 1}').with_values({"architectures": ["BertModel"]})
    assert list(json.loads(not_in_order.raw)) == ["z", "a", "architectures"]


def test_a_changed_config_is_what_transformers_would_write() -> None:
    transformers = pytest.importorskip("transformers")
    model_config = transformers.BertConfig(architectures=["BertForMaskedLM"], dtype="float32")
    changed = _config(model_config.to_json_string()).with_values({"architectures": ["BertForQuestionAnswering"]})
    changed = changed.with_dtype("bfloat16")
    model_config.architectures = ["BertForQuestionAnswering"]
    model_config.dtype = "bfloat16"
    assert changed.raw.decode() == model_config.to_json_string()
