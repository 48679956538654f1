"""Checkpoints of Google's BERT, ALBERT and ELECTRA against what transformers 4.57.6 reads in them (fixtures/tf1)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.dialects.transformers import tf1
from converter.errors import LossError, ReadError
from converter.formats import NoOptions, tf_checkpoint
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import Status
from converter.model.tensor import ArrayTensor

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "tf1"
CLASSES = {
    "bert": "BertForPreTraining",
    "bert-classifier": "BertForSequenceClassification",
    "albert": "AlbertForPreTraining",
    "electra": "ElectraForPreTraining",
    "electra-generator": "ElectraForMaskedLM",
}


def assert_same(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert set(ours.names) == set(theirs.names)
    for name in theirs.names:
        np.testing.assert_array_equal(ours.tensor(name).numpy(), theirs.tensor(name).numpy(), err_msg=name)


@pytest.mark.parametrize("name", CLASSES)
def test_weights_are_those_that_transformers_loads(name: str, tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / name / "model.ckpt", tmp_path / "out", to="pretrained")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == ([CLASSES[name]], name.split("-")[0])
    assert_same(converter.read(tmp_path / "out"), converter.read(FIXTURES / name / "expected.safetensors"))
    assert report.counts["defaulted"] == 0


def test_moments_are_listed_under_the_names_that_they_have(tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / "bert" / "model.ckpt", tmp_path / "out", to="pretrained")
    dropped = {line.name: line.reason for line in report.lines if line.status is Status.DROPPED}
    assert dropped["bert/pooler/dense/kernel/adam_m"] == "a variable of the optimizer"
    assert len(dropped) == 2 * report.counts["mapped"] + 1
    moment = "bert/encoder/layer_1/output/dense/kernel/adam_v"
    found = tf1.match("bert", moment.removesuffix("/adam_v"))
    assert found is not None
    assert found.layout is not None
    assert found.name == "bert.encoder.layer.1.output.dense.weight"


def test_a_config_given_by_name_is_enough(tmp_path: Path) -> None:
    for file in (FIXTURES / "bert").glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    config = FIXTURES / "bert" / "bert_config.json"
    converter.convert(tmp_path / "model.ckpt", tmp_path / "out", to="pretrained", config=config)
    assert_same(converter.read(tmp_path / "out"), converter.read(FIXTURES / "bert" / "expected.safetensors"))


def test_names_are_translated_without_a_config(tmp_path: Path) -> None:
    for file in (FIXTURES / "albert").glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    converter.convert(tmp_path / "model.ckpt", tmp_path / "out.safetensors")
    assert_same(converter.read(tmp_path / "out.safetensors"), converter.read(FIXTURES / "albert/expected.safetensors"))


def test_the_config_json_beside_comes_before_a_released_one(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "bert", tmp_path / "bert")
    released = tf_checkpoint.read(folder, NoOptions()).config
    assert released is not None
    assert "model_type" not in released.values
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert tf_checkpoint.read(folder, NoOptions()).config is None


@pytest.mark.parametrize("name", ["bert", "albert", "electra"])
def test_names_in_a_hub_module_are_known(name: str) -> None:
    source = converter.read(FIXTURES / name / "model.ckpt")
    plain = canonical(source)
    module = canonical(source.with_names(lambda own: own if name == "electra" else f"module/{own}"))
    assert set(module.names) == set(plain.names)


def test_another_models_config_is_refused() -> None:
    source = converter.read(FIXTURES / "bert" / "model.ckpt")
    assert canonical(source).dialect == "pytorch"
    other = replace(source, config=Config(values={"model_type": "gpt2"}, raw=b""))
    with pytest.raises(ReadError, match=r"names of bert.*'gpt2'"):
        canonical(other)


def test_a_variable_of_no_row_is_a_loss(tmp_path: Path) -> None:
    source = converter.read(FIXTURES / "bert" / "model.ckpt")
    converter.write(source, tmp_path / "whole.safetensors")
    extra = {"loss/my_head/kernel": ArrayTensor.of(np.zeros((2, 2), np.float32))}
    with pytest.raises(LossError) as caught:
        converter.write(replace(source, tensors={**source.tensors, **extra}), tmp_path / "more.safetensors")
    assert caught.value.tensor == "loss/my_head/kernel"


def test_a_shape_that_no_kernel_has_names_the_variable() -> None:
    source = converter.read(FIXTURES / "bert" / "model.ckpt")
    name = "bert/pooler/dense/kernel"
    assert name in source.tensors
    with pytest.raises(ReadError) as caught:
        canonical(replace(source, tensors={**source.tensors, name: ArrayTensor.of(np.zeros(4, np.float32))}))
    assert caught.value.tensor == name


def test_names_of_other_models_are_left_alone() -> None:
    assert tf1.model_type_of(["tf_bert_model/bert/encoder/layer_._0/attention/self/query/kernel"]) is None
    assert tf1.model_type_of(["fc1/kernel"]) is None
