"""tf_model.h5 as TensorFlow's classes of transformers want it, written without either; h5py reads it here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor

SIZES = {"hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 6, "vocab_size": 9}
ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")


def bert(architecture: str, **more: tuple[int, ...]) -> Checkpoint:
    """A small BERT with numbers that tell its tensors apart."""
    shapes = {
        "bert.embeddings.word_embeddings.weight": (9, 4),
        "bert.embeddings.position_embeddings.weight": (5, 4),
        "bert.embeddings.token_type_embeddings.weight": (2, 4),
        **norm("bert.embeddings.LayerNorm"),
    }
    for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        for path in ATTENTION:
            shapes |= {f"{layer}.{path}.weight": (4, 4), f"{layer}.{path}.bias": (4,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (6, 4), f"{layer}.intermediate.dense.bias": (6,)}
        shapes |= {f"{layer}.output.dense.weight": (4, 6), f"{layer}.output.dense.bias": (4,)}
        shapes |= {**norm(f"{layer}.attention.output.LayerNorm"), **norm(f"{layer}.output.LayerNorm")}
    generator = np.random.default_rng(7)
    tensors = {
        name: ArrayTensor.of(generator.normal(size=shape).astype(np.float32))
        for name, shape in {**shapes, **more}.items()
    }
    values = {"model_type": "bert", "architectures": [architecture], **SIZES}
    return Checkpoint(tensors=tensors, config=Config(values=values, raw=json.dumps(values).encode()))


def norm(path: str) -> dict[str, tuple[int, ...]]:
    return {f"{path}.weight": (4,), f"{path}.bias": (4,)}


def pooler_and_classifier() -> dict[str, tuple[int, ...]]:
    names = {"bert.pooler.dense": (4, 4), "classifier": (3, 4)}
    return {f"{name}.{leaf}": shape[: 2 - place] for name, shape in names.items() for place, leaf in LEAVES}


LEAVES = ((0, "weight"), (1, "bias"))


def listed(group: Any, name: str) -> list[str]:
    return [item.decode() for item in group.attrs[name]]


def test_a_layer_without_weights_is_listed_with_its_number(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf")
    with h5py.File(tmp_path / "out" / "tf_model.h5") as file:
        assert listed(file, "layer_names") == ["bert", "dropout_7", "classifier"]
        assert listed(file["dropout_7"], "weight_names") == []
        names = listed(file["classifier"], "weight_names")
        assert names == [f"tf_bert_for_sequence_classification/classifier/{leaf}:0" for leaf in ("kernel", "bias")]
        kernel = file["classifier"][names[0]][()]
    np.testing.assert_array_equal(kernel, source.tensor("classifier.weight").numpy().T)


def test_tied_embeddings_are_in_every_layer_that_uses_them(tmp_path: Path) -> None:
    head = {"cls.predictions.transform.dense.weight": (4, 4), "cls.predictions.transform.dense.bias": (4,)}
    source = bert(
        "BertForMaskedLM", **head, **norm("cls.predictions.transform.LayerNorm"), **{"cls.predictions.bias": (9,)}
    )
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf")
    name = "tf_bert_for_masked_lm/bert/embeddings/word_embeddings/weight:0"
    with h5py.File(tmp_path / "out" / "tf_model.h5") as file:
        assert listed(file, "layer_names") == ["bert", "mlm___cls"]
        assert name in listed(file["mlm___cls"], "weight_names")
        np.testing.assert_array_equal(file["bert"][name][()], file["mlm___cls"][name][()])


@pytest.mark.parametrize("max_shard_size", ["50GB", "1KB"])
def test_the_way_there_and_back_is_exact(tmp_path: Path, max_shard_size: str) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    written = tmp_path / "out"
    report = converter.write(source, written, to="pretrained", flavor="tf", max_shard_size=max_shard_size)
    assert report.counts["dropped"] == report.counts["defaulted"] == 0
    converter.convert(written, tmp_path / "back", to="pretrained")
    back = converter.read(tmp_path / "back")
    assert set(back.tensors) == set(source.tensors)
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(back.tensor(name).numpy(), tensor.numpy())


def test_shards_list_datasets_without_the_name_of_the_model(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf", max_shard_size="1KB")
    index = json.loads((tmp_path / "out" / "tf_model.h5.index.json").read_text())["weight_map"]
    held = {}
    for shard in sorted(set(index.values())):
        with h5py.File(tmp_path / "out" / shard) as file:
            held |= {name: shard for name in listed(file, "layer_names") if isinstance(file[name], h5py.Dataset)}
    assert held == {name.partition("/")[2]: shard for name, shard in index.items()}
    assert len(set(index.values())) > 1


def test_heads_are_beside_the_weights_of_the_class(tmp_path: Path) -> None:
    """As they are beside safetensors; an optimizer of both is of no class of TensorFlow."""
    model = bert("BertModel", **{"bert.pooler.dense.weight": (4, 4), "bert.pooler.dense.bias": (4,)})
    kernel = ArrayTensor.of(np.arange(12, dtype=np.float32).reshape(4, 3))
    source = replace(model, tensors={**model.tensors, "heads.dense/kernel": kernel})
    for of, says in ((["heads.dense/kernel", *model.names], "dropped"), (list(model.names), "carried")):
        slot = {name: source.tensor(name) for name in of}
        report = converter.write(replace(source, optimizer=adam(slot)), tmp_path / says, to="pretrained", flavor="tf")
        assert report.optimizer.status.value == says
        assert any("of the heads" in warning for warning in report.warnings) is (says == "dropped")
        heads = converter.read(tmp_path / says / "heads.safetensors")
        assert np.array_equal(heads.tensors["dense/kernel"].numpy(), kernel.numpy())


def adam(slot: dict[str, ArrayTensor]) -> OptimizerState:
    hyperparameters = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
    group = ParameterGroup(parameters=tuple(slot), hyperparameters=hyperparameters)
    slots = {"exp_avg": slot, "exp_avg_sq": slot}
    return OptimizerState(algorithm="adam", step=3, groups=(group,), slots=slots, convention=Convention.TORCH)


def test_h5_has_the_names_of_the_class_that_tensors_tell_where_the_config_names_none(tmp_path: Path) -> None:
    """As `model.config.save_pretrained` writes it, beside a state dict."""
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    values = {name: value for name, value in source.config.values.items() if name != "architectures"}
    converter.write(source, tmp_path / "named.h5")
    unnamed = replace(source, config=Config(values=values, raw=json.dumps(values).encode()))
    converter.write(unnamed, tmp_path / "unnamed.h5")
    with h5py.File(tmp_path / "named.h5") as named, h5py.File(tmp_path / "unnamed.h5") as file:
        assert listed(file, "layer_names") == listed(named, "layer_names") != []
    untold = replace(unnamed, tensors={"x": ArrayTensor.of(np.zeros(3, np.float32))})
    with pytest.raises(UsageError, match="of model type 'bert', nor its tensors are of one class that TensorFlow has"):
        converter.write(untold, tmp_path / "untold.h5")
    assert converter.write(untold, tmp_path / "untold.h5", weights_only=True).counts["mapped"] == 1


def test_h5_has_the_same_names(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    converter.write(source, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert listed(file, "layer_names") == ["bert", "dropout_7", "classifier"]


def test_a_class_that_tensorflow_lacks_is_named(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf")
    assert source.config is not None
    values = {**source.config.values, "model_type": "modernbert", "architectures": ["ModernBertModel"]}
    other = Checkpoint(tensors=source.tensors, config=Config(values=values, raw=json.dumps(values).encode()))
    with pytest.raises(UsageError, match="modernbert"):
        converter.write(other, tmp_path / "other", to="pretrained", flavor="tf")
    assert not (tmp_path / "other").exists()


def test_what_the_class_has_no_variable_for_is_refused(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    converter.write(source, tmp_path / "out", to="pretrained", flavor="tf")
    extra = {**source.tensors, "bert.adapter.weight": source.tensor("classifier.weight")}
    with pytest.raises(LossError) as refused:
        converter.write(
            Checkpoint(tensors=extra, config=source.config), tmp_path / "more", to="pretrained", flavor="tf"
        )
    assert refused.value.tensor == "bert.adapter.weight"


def test_what_every_model_of_the_class_has_must_be_there(tmp_path: Path) -> None:
    source = bert("BertForSequenceClassification", **pooler_and_classifier())
    fewer = {name: tensor for name, tensor in source.tensors.items() if name != "bert.embeddings.LayerNorm.weight"}
    with pytest.raises(LossError, match="fill it at random"):
        converter.write(
            Checkpoint(tensors=fewer, config=source.config), tmp_path / "less", to="pretrained", flavor="tf"
        )
