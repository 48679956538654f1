"""TensorFlow checkpoints of transformers' classes have their objects, which tf.train.Checkpoint restores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.identity.shapes import shapes_of
from converter.dialects.tables import document
from converter.dialects.transformers.object_paths import objects_of
from converter.encoding.object_graph import Node, object_graph
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle, read_bundle
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT

FIXTURES = ROOT / "fixtures"
QUERY = "bert/encoder/layer/1/attention/self_attention/query/kernel"
NAMED = "tf_bert_for_question_answering/bert/encoder/layer_._1/attention/self/query/kernel"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "out"
    converter.convert(FIXTURES / "squad-bert" / "checkpoint.pth", folder, to="tf-checkpoint")
    return folder


def at(nodes: tuple[Node, ...], path: str) -> int:
    index = 0
    for name in path.split("/"):
        index = nodes[index].children[name]
    return index


def graph(bundle: Bundle) -> tuple[Node, ...]:
    nodes = object_graph(bundle)
    assert nodes
    return nodes


def test_a_variable_hangs_where_its_class_has_it_under_the_name_that_it_has_there(written: Path) -> None:
    bundle = read_bundle(written / "ckpt")
    nodes = graph(bundle)
    node = nodes[at(nodes, QUERY)]
    assert node.full_name == NAMED
    ours = converter.read(FIXTURES / "squad-bert" / "checkpoint.pth")
    expected = ours.tensors["bert.encoder.layer.1.attention.self.query.weight"].numpy().T
    assert np.array_equal(bundle.tensors[str(node.key)].numpy(), expected)
    names = {each.full_name for each in nodes if each.key is not None and not each.key.startswith("optimizer/")}
    assert len(names) == len(ours.names) + len(["save_counter"])


def test_the_model_is_the_root_as_save_weights_has_it_and_is_below_that_too(written: Path) -> None:
    nodes = graph(read_bundle(written / "ckpt"))
    assert at(nodes, f"model/{QUERY}") == at(nodes, QUERY)
    assert at(nodes, "bert/encoder/layer/1/attention/self_attention/dropout") > 0, "a layer without variables"
    assert at(nodes, "model/optimizer") == at(nodes, "optimizer")


def test_a_class_with_a_model_of_its_own_is_the_root_alone(tmp_path: Path) -> None:
    config = {
        **{"model_type": "bart", "architectures": ["BartModel"], "vocab_size": 4, "d_model": 2},
        **{"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1, "decoder_attention_heads": 1},
        **{"encoder_ffn_dim": 3, "decoder_ffn_dim": 3, "max_position_embeddings": 3},
    }
    slots = shapes_of(config, "BartModel", ()).slots
    checkpoint = Checkpoint(
        tensors={
            name: ArrayTensor.of(np.ones(slot.shape, np.float32))
            for name, slot in slots.items()
            if slot.is_required and slot.shape is not None
        },
        config=Config(values=config, raw=json.dumps(config).encode()),
    )
    converter.write(checkpoint, tmp_path / "bart", to="tf-checkpoint")
    nodes = graph(read_bundle(tmp_path / "bart" / "ckpt"))
    assert "model" not in nodes[at(nodes, "model")].children
    assert nodes[at(nodes, "model/encoder/embed_positions/embeddings")].key is not None


def test_what_is_written_comes_back_with_its_optimizer(written: Path, tmp_path: Path) -> None:
    report = converter.convert(written, tmp_path / "back.pth")
    assert report.verdict.startswith("ok: 39 mapped, 0 tied, 0 dropped, 0 defaulted; optimizer carried")
    source, back = (
        converter.read(each) for each in (FIXTURES / "squad-bert" / "checkpoint.pth", tmp_path / "back.pth")
    )
    assert {name: each.numpy().tobytes() for name, each in source.tensors.items()} == {
        name: each.numpy().tobytes() for name, each in back.tensors.items()
    }
    assert source.optimizer is not None
    assert back.optimizer is not None
    assert back.optimizer.step == source.optimizer.step


@pytest.mark.parametrize("case", ["vit", "roberta-classifier", "xlm-roberta-classifier"])
def test_whatever_the_source_is(case: str, tmp_path: Path) -> None:
    """Files of Keras, and folders of transformers for PyTorch, become the same checkpoint."""
    folder = FIXTURES / "keras-transformers"
    config = str(folder / f"{case}.json")
    source = next(path for path in (folder / f"{case}.h5", folder / f"{case}.weights.h5") if path.exists())
    converter.convert(source, tmp_path / "a", to="tf-checkpoint", config=config)
    converter.convert(folder / f"{case}.safetensors", tmp_path / "b", to="tf-checkpoint", config=config)
    first, second = (read_bundle(tmp_path / each / "ckpt") for each in "ab")
    assert {key: each.numpy().tobytes() for key, each in first.tensors.items()} == {
        key: each.numpy().tobytes() for key, each in second.tensors.items()
    }
    assert OBJECT_GRAPH_KEY in first.entries


def said(report: Any) -> list[str]:
    return [each for each in report.warnings if each.startswith("names and layouts are PyTorch's")]


def test_names_that_no_class_of_tensorflow_restores_are_said_to_be_those_of_pytorch(tmp_path: Path) -> None:
    source = FIXTURES / "squad-bert" / "checkpoint.pth"
    part = converter.convert(source, tmp_path / "part", to="tf-checkpoint", exclude=("qa_outputs.*",), optimizer="drop")
    assert said(part)
    assert "bert.embeddings.word_embeddings.weight" in read_bundle(tmp_path / "part" / "ckpt").entries
    tensors = {"lm_head.weight": ArrayTensor.of(np.ones((4, 2), np.float32))}
    for name, config in (("plain", None), ("other", {"model_type": "mine"})):
        given = None if config is None else Config(values=config, raw=json.dumps(config).encode())
        made = converter.write(Checkpoint(tensors=tensors, config=given), tmp_path / name, to="tf-checkpoint")
        assert said(made), name
        assert OBJECT_GRAPH_KEY not in read_bundle(tmp_path / name / "ckpt").entries


def test_a_copy_is_as_its_source(written: Path, tmp_path: Path) -> None:
    report = converter.convert(written, tmp_path / "again", to="tf-checkpoint")
    assert not said(report)
    first, second = (read_bundle(each / "ckpt") for each in (written, tmp_path / "again"))
    assert {key: each.numpy().tobytes() for key, each in first.tensors.items()} == {
        key: each.numpy().tobytes() for key, each in second.tensors.items()
    }
    assert object_graph(first) == object_graph(second)


def test_every_row_of_the_table_is_of_a_path_that_is_found() -> None:
    for groups in document("tensorflow_objects")["models"].values():
        for group in groups:
            rows = [(path, name) for path, name in group["rows"] if name is not None]
            filled = [(path.replace("{", "").replace("}", ""), name) for path, name in rows]
            assert len({path for path, _ in filled}) == len(filled)
    for class_name, variable, path in (
        ("TFBertModel", "x/bert/embeddings/word_embeddings/weight", "bert/embeddings/weight"),
        ("TFBertModel", "x/bert/encoder/layer_._11/output/dense/bias", "bert/encoder/layer/11/bert_output/dense/bias"),
        ("TFRoFormerModel", "x/roformer/encoder/embed_positions/embeddings", None),
    ):
        found = objects_of(class_name, [variable])
        assert found is not None, class_name
        assert path in (None, *found.variables)
    assert objects_of("TFBertModel", ["x/bert/none/of/these"]) is None
    assert objects_of("TFNoneOfThese", ["x/bert/embeddings/word_embeddings/weight"]) is None
