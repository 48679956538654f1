"""Conditions of readers and writers that few checkpoints meet, each with the row that just does not; no framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects.transformers.heads import METADATA_KEY as HEADS_KEY
from converter.dialects.transformers.heads import PREFIX as HEADS_PREFIX
from converter.encoding import msgpack, protobuf
from converter.encoding.dcp import metadata_pickle
from converter.encoding.object_graph import ObjectTree, object_graph
from converter.encoding.onnx_file import model_files, read_model
from converter.encoding.tensor_bundle import bundle_files, read_bundle
from converter.encoding.torch_file import torch_file
from converter.errors import ReadError, SafetyError, UsageError
from converter.execution.streaming import stream
from converter.formats import by_name, dcp
from converter.formats.probe import located
from converter.graphs.calls import run_onnx
from converter.graphs.description.signature import Signature
from converter.graphs.description.traced import Reference, TracedGraph
from converter.model.checkpoint import Checkpoint, Config
from converter.model.file import LocalFile
from converter.model.ledger import Status
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.output import OutputFile, Provenance, piece_bytes
from converter.model.tensor import ArrayTensor, Tensor

PROVENANCE = Provenance(tool="test", source_name="x", source_hash=lambda: "")


def tensor(*shape: int, start: float = 0) -> Tensor:
    return ArrayTensor.of(np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


def first_of(checkpoint: Checkpoint) -> dict[str, float]:
    return {name: float(held.numpy().reshape(-1)[0]) for name, held in checkpoint.tensors.items()}


SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
ADAMW = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": False}
TRAINED = Checkpoint(
    tensors={"a.weight": tensor(2, 3), "b": tensor(3, start=50)},
    optimizer=OptimizerState(
        algorithm="sgd",
        step=None,
        groups=(ParameterGroup(parameters=("a.weight",), hyperparameters=SGD),),
        slots={"momentum_buffer": {"a.weight": tensor(2, 3, start=70)}},
    ),
)


@pytest.mark.parametrize("name", ["savedmodel", "tf-checkpoint", "h5", "keras", "dcp", "pytorch"])
def test_state_that_was_written_here_is_state_and_no_loss(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"weights_only": True} if by_name(name).runner or name in ("h5", "keras") else {}
    suffix = {"h5": "x.h5", "keras": "x.weights.h5"}.get(name, "x")
    converter.write(TRAINED, tmp_path / suffix, to=name, **options)
    found = converter.read(tmp_path / suffix)
    assert (found.lines, found.warnings) == ((), ())
    assert first_of(found) == {"a.weight": 0, "b": 50}
    assert found.optimizer is not None
    assert found.optimizer.slots["momentum_buffer"]["a.weight"].numpy().tolist() == [[70, 71, 72], [73, 74, 75]]


# onnx


def test_data_beside_a_model_is_aligned_and_small_tensors_stay_in_it(tmp_path: Path) -> None:
    """Shapes and axes must be in the model: 1024 bytes are outside, one element less is not."""
    sizes = {"small": 255, "least": 256, "odd": 257, "last": 300, "none": 0}
    tensors = {name: tensor(size, start=number) for number, (name, size) in enumerate(sizes.items())}
    data, model = model_files("x.onnx", tensors, {}, producer="test", is_external=True)
    assert (data.name, model.name) == ("x.onnx.data", "x.onnx")
    for file in (data, model):
        stream(file, tmp_path)
    found = read_model(LocalFile(tmp_path / "x.onnx")).tensors
    places = {name: (held.file.path.name, held.offset) for name, held in found.items() if hasattr(held, "file")}
    outside = {name: offset for name, (file, offset) in places.items() if file == "x.onnx.data"}
    assert outside == {"least": 0, "odd": 1024, "last": 1024 + 1088}
    assert {name: held.size for name, held in found.items()} == sizes
    assert [float(held.numpy()[0]) for held in found.values() if held.size] == [0, 1, 2, 3]
    (whole,) = model_files("x.onnx", tensors, {}, producer="test")
    assert whole.name == "x.onnx"
    assert sum(map(piece_bytes, whole.pieces)) > sum(sizes.values()) * 4


# SavedModels whose weights are kernels


def with_kernels(folder: Path, tensors: dict[str, Tensor], kernels: set[str]) -> dict[str, Any]:
    """What the document of a SavedModel says of a checkpoint whose graph would have these as kernels."""
    signature = Signature(title="x", parameters={}, buffers={}, inputs=(), outputs=("y",))
    reference = Reference(runner=run_onnx, model=folder, takes_weights=False)
    graph = TracedGraph(file=folder / "x", signature=signature, reference=reference, kernels=frozenset(kernels))
    format_ = by_name("savedmodel")
    checkpoint = Checkpoint(tensors=tensors, graph=graph)
    output = format_.write(checkpoint, format_.write_options(layout="tensorflow"), PROVENANCE)
    stream(output.files[0], folder)
    document: dict[str, Any] = json.loads((folder / output.files[0].name).read_text())
    return document


def test_a_weight_is_no_kernel_where_another_tensor_has_that_name(tmp_path: Path) -> None:
    tensors = {"a.weight": tensor(2, 3), "b.weight": tensor(2, 3), "b.kernel": tensor(2), "c.weight": tensor(2, 3)}
    document = with_kernels(tmp_path, tensors, {"a.weight", "b.weight"})
    assert document["kernels"] == ["a.weight"]
    assert document["names"] == {"a.kernel": "a.weight"}


def test_a_kernel_has_two_axes_at_least(tmp_path: Path) -> None:
    converter.write(TRAINED, tmp_path / "x", to="savedmodel", weights_only=True)
    document = tmp_path / "x" / "assets.extra" / "ckconv.json"
    said = json.loads(document.read_text())
    document.write_text(json.dumps({**said, "kernels": ["a.weight"]}))
    assert converter.read(tmp_path / "x").tensors["a.weight"].shape == (3, 2)
    document.write_text(json.dumps({**said, "kernels": ["b"]}))
    with pytest.raises(ReadError, match="is listed as a kernel of a layer, and has 1 axes") as caught:
        converter.read(tmp_path / "x")
    assert caught.value.tensor == "b"


# Keras


def test_names_that_are_listed_are_as_many_as_there_are_variables(tmp_path: Path) -> None:
    path = tmp_path / "x.weights.h5"
    for listed, names in (
        (["mine/kernel", "mine/bias"], ["mine/kernel", "mine/bias"]),
        (["mine/kernel"], ["layers/mine/vars/0", "layers/mine/vars/1"]),
        (["mine/kernel", "mine/bias", "mine/more"], ["layers/mine/vars/0", "layers/mine/vars/1"]),
    ):
        with h5py.File(path, "w") as file:
            file["layers/mine/vars/0"] = np.zeros((2, 3), np.float32)
            file["layers/mine/vars/1"] = np.ones(3, np.float32)
            file["layers/mine/vars"].attrs["weight_names"] = listed
        assert list(converter.read(path).tensors) == names


# TensorFlow checkpoints


def test_two_variables_of_one_name_are_called_by_their_paths(tmp_path: Path) -> None:
    """Also where they hold the same, for they are two: what is trained may make them differ."""

    def read(*full_names: str) -> list[str]:
        tree, tensors = ObjectTree(), {}
        for number, full_name in enumerate(full_names):
            node = tree.child(tree.child(0, f"layer{number}"), "w")
            tensors[tree.set_variable(node, f"layer{number}/w", full_name)] = tensor(3)
        for file in bundle_files("ckpt", tensors, tree.serialized()):
            (tmp_path / file.name).unlink(missing_ok=True)
            stream(file, tmp_path)
        found = converter.read(tmp_path / "ckpt.index")
        assert not [line for line in found.lines if line.status is Status.TIED]
        return list(found.tensors)

    assert read("dense/w", "dense_1/w") == ["dense/w", "dense_1/w"]
    assert read("dense/w", "dense/w") == ["layer0/w", "layer1/w"]
    assert read("dense/w", "dense/w", "other/w") == ["layer0/w", "layer1/w", "other/w"]


def test_a_file_is_itself_whatever_has_its_name_and_more(tmp_path: Path) -> None:
    """A prefix is one only where no file is called so."""
    index, path = tmp_path / "model.index", tmp_path / "model"
    index.write_bytes(b"")
    assert located(path) == index
    assert located(tmp_path / "other") == tmp_path / "other"
    path.write_bytes(b"")
    assert located(path) == path
    path.unlink()
    path.symlink_to("nowhere")
    assert located(path) == path
    index.unlink()
    index.mkdir()
    path.unlink()
    assert located(path) == path


@pytest.mark.parametrize(("name", "written"), [("it's", r"it\'s"), ('"', r"\""), ("back\\slash", r"back\\slash")])
def test_the_name_of_a_checkpoint_may_have_quotes(name: str, written: str, tmp_path: Path) -> None:
    converter.write(Checkpoint(tensors={"w": tensor(2)}), tmp_path / "out", to="tf-checkpoint")
    folder = tmp_path / "out"
    (folder / "ckconv.json").unlink()
    for file in folder.glob("ckpt.*"):
        file.rename(folder / file.name.replace("ckpt.", f"{name}."))
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{written}"\n')
    if "\\" in name:  # no checkpoint's files are called so
        with pytest.raises(SafetyError, match="names a file in a way no checkpoint does"):
            converter.read(folder)
    else:
        assert list(converter.read(folder).tensors) == ["w"]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((), None),
        (("bert_config.json",), "bert"),
        (("albert_config.json",), "albert"),
        (("bert_config.json", "config.json"), "plain"),
        (("bert_config.json", "albert_config.json"), None),
    ],
    ids=str,
)
def test_the_config_that_google_left_beside_a_checkpoint(
    present: tuple[str, ...], expected: str | None, tmp_path: Path
) -> None:
    converter.write(Checkpoint(tensors={"w": tensor(2)}), tmp_path / "out", to="tf-checkpoint")
    (tmp_path / "out" / "ckconv.json").unlink()
    for name in present:
        kind = name.removesuffix("config.json").rstrip("_") or "plain"
        (tmp_path / "out" / name).write_text(json.dumps({"model_type": kind}))
    config = converter.read(tmp_path / "out").config
    assert (None if config is None else config.values["model_type"]) == expected


# save_pretrained folders

BERT = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "hidden_size": 4,
    "num_hidden_layers": 0,
    "num_attention_heads": 2,
    "vocab_size": 5,
    "intermediate_size": 4,
    "max_position_embeddings": 3,
}
CLASSIFIER = {
    "bert.embeddings.word_embeddings.weight": (5, 4),
    "bert.embeddings.position_embeddings.weight": (3, 4),
    "bert.embeddings.token_type_embeddings.weight": (2, 4),
    "bert.embeddings.LayerNorm.weight": (4,),
    "bert.embeddings.LayerNorm.bias": (4,),
    "bert.pooler.dense.weight": (4, 4),
    "bert.pooler.dense.bias": (4,),
    "classifier.weight": (2, 4),
    "classifier.bias": (2,),
}


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("said", ["BertForSequenceClassification", "BertModel", None])
def test_a_config_that_is_right_is_not_said_to_be_changed(prefix: str, said: str | None, tmp_path: Path) -> None:
    values = {**BERT, "architectures": [said]} if said else {k: v for k, v in BERT.items() if k != "architectures"}
    config = Config(values=values, raw=json.dumps(values).encode())
    tensors = {prefix + name: tensor(*shape) for name, shape in CLASSIFIER.items()}
    report = converter.write(Checkpoint(tensors=tensors, config=config), tmp_path / "out", to="pretrained")
    changed = "config.json: architectures is now BertForSequenceClassification"
    assert (changed in report.warnings) is (said != "BertForSequenceClassification")
    found = converter.read(tmp_path / "out")
    assert set(found.names) == set(CLASSIFIER)
    assert found.config is not None
    assert found.config.values["architectures"] == ["BertForSequenceClassification"]
    if said == "BertForSequenceClassification":
        assert found.config.raw == config.raw


def test_a_folder_is_read_as_the_flavour_that_transformers_takes_and_says_so(tmp_path: Path) -> None:
    values = dict(BERT)
    config = Config(values=values, raw=json.dumps(values).encode())
    checkpoint = Checkpoint(tensors={name: tensor(*shape) for name, shape in CLASSIFIER.items()}, config=config)
    other = replace(checkpoint, tensors={**checkpoint.tensors, "classifier.bias": tensor(2, start=9)})
    converter.write(other, tmp_path / "out", to="pretrained", flavor="bin")
    assert converter.read(tmp_path / "out").warnings == ()
    converter.write(checkpoint, tmp_path / "plain", to="pretrained")
    (tmp_path / "plain" / "model.safetensors").rename(tmp_path / "out" / "model.safetensors")
    found = converter.read(tmp_path / "out")
    assert found.tensors["classifier.bias"].numpy()[0] == 0
    assert found.warnings == ("model.safetensors is read, not pytorch_model.bin; --from chooses",)


@pytest.mark.parametrize(("said", "asked", "expected"), [(None, None, 8), (32, None, 32), (32, 4, 4), ("32", None, 8)])
def test_the_batch_that_a_trainer_goes_on_with(said: Any, asked: int | None, expected: int, tmp_path: Path) -> None:
    config = Config(values=dict(BERT), raw=json.dumps(BERT).encode())
    state = {
        "epoch": 2.0,
        "global_step": 10,
        "logging_steps": 5,
        **({} if said is None else {"train_batch_size": said}),
    }
    checkpoint = Checkpoint(
        tensors={name: tensor(*shape) for name, shape in CLASSIFIER.items()},
        config=config,
        extras={"trainer_state": state},
    )
    report = converter.write(checkpoint, tmp_path / "out", to="pretrained", train_batch_size=asked)
    written = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert written["train_batch_size"] == expected
    is_assumed = asked is None and said != 32
    assert any("a batch size of 8" in warning for warning in report.warnings) is is_assumed


# names


def test_names_that_flax_means_something_by_stay_apart_from_one_another(tmp_path: Path) -> None:
    names = ["__ckconv__.__msgpack_chunked_array__", "__ckconv___.__msgpack_chunked_array__"]
    tensors = {name: tensor(2, start=number) for number, name in enumerate(names)}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.msgpack")
    assert first_of(converter.read(tmp_path / "x.msgpack")) == {name: number for number, name in enumerate(names)}


def test_keys_of_a_state_dict_are_names_and_numbers(tmp_path: Path) -> None:
    value = {0: tensor(2), "a": {1: tensor(2, start=1), "b": [tensor(2, start=2)]}, None: tensor(2, start=3)}
    stream(OutputFile(name="x.pth", pieces=tuple(torch_file(value))), tmp_path)
    found = converter.read(tmp_path / "x.pth")
    assert first_of(found) == {"0": 0, "a.1": 1, "a.b.0": 2}
    assert [(line.name, line.reason) for line in found.lines] == [("NoneType", "has a key that is no name")]


@pytest.mark.parametrize("external_data", [True, False])
def test_tensors_of_a_model_are_in_a_file_of_their_own_where_that_is_asked_for(
    external_data: bool, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tensors={"w": tensor(20, 20)})
    options: dict[str, Any] = {"to": "onnx", "weights_only": True, "external_data": external_data}
    converter.write(checkpoint, f"{tmp_path}/out/", **options)
    files = {entry.name for entry in (tmp_path / "out").iterdir()}
    assert files == {"model.onnx", *(["model.onnx.data"] if external_data else [])}
    assert converter.read(tmp_path / "out").tensors["w"].numpy()[0, 1] == 1
    if external_data:
        with pytest.raises(UsageError, match="the output is several files"):
            converter.write(checkpoint, tmp_path / "x.onnx", **options)


# torch.distributed.checkpoint


@pytest.mark.parametrize("key", ["model", "state_dict", "module", "model_state_dict", "extras", "optimizers", "epoch"])
def test_extras_under_any_key_come_back(key: str, tmp_path: Path) -> None:
    extras = {key: {"a": 1}, "beside": 2}
    checkpoint = Checkpoint(tensors={"w": tensor(2)}, extras=extras)
    converter.write(checkpoint, tmp_path / "out", to="dcp")
    found = converter.read(tmp_path / "out")
    assert (list(found.tensors), found.extras, found.optimizer_refused) == (["w"], extras, None)


def test_state_of_an_optimizer_of_no_known_kind_is_refused_and_not_carried_as_something_else(tmp_path: Path) -> None:
    value = {"model": {"w": tensor(2)}, "optim": {"kind": "unknown"}, "epoch": 3}
    items, pieces = dcp._laid_out(list(_paths(value, ())))
    stream(OutputFile(name="__0_0.distcp", pieces=tuple(pieces)), tmp_path)
    (tmp_path / ".metadata").write_bytes(metadata_pickle(items))
    found = converter.read(tmp_path)
    assert (found.optimizer_refused, found.extras) == ("it is of a kind that is not known", {"epoch": 3})


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    else:
        yield path, value


def test_numbers_of_an_optimizer_beside_safetensors_are_not_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Their file has them in the order of the alphabet; a file of torch.save has the model's."""
    weights = {"b": tensor(2), "a": tensor(2, start=5)}
    slots = {number: {"momentum_buffer": tensor(2, start=number)} for number in (0, 1)}
    state = {"state": slots, "param_groups": [{**SGD, "params": [0, 1]}]}
    converter.write(Checkpoint(tensors=weights), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "of-no-table"}')
    stream(OutputFile(name="optimizer.pt", pieces=tuple(torch_file(state))), tmp_path)
    found = converter.read(tmp_path)
    assert found.optimizer is None
    assert found.optimizer_refused
    assert found.optimizer_numbered is not None
    assert list(found.optimizer_numbered["state"]) == [0, 1]
    stream(OutputFile(name="x.pth", pieces=tuple(torch_file({"model": weights, "optimizer": state}))), tmp_path)
    of_torch = converter.read(tmp_path / "x.pth").optimizer
    assert of_torch is not None
    assert {name: held.numpy()[0] for name, held in of_torch.slots["momentum_buffer"].items()} == {"b": 0, "a": 1}


@pytest.mark.parametrize(("given", "expected"), [({}, 7), ({"global_step": 9}, 9), ({"epoch": 2.0}, 7)], ids=str)
def test_the_step_of_a_trainer_is_the_optimizer_s_where_nothing_else_says_one(
    given: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    names = list(CLASSIFIER)
    trained = replace(
        TRAINED,
        tensors={name: tensor(*shape) for name, shape in CLASSIFIER.items()},
        config=Config(values=dict(BERT), raw=json.dumps(BERT).encode()),
        extras=given,
        optimizer=OptimizerState(
            algorithm="adamw",
            step=7,
            groups=(ParameterGroup(parameters=tuple(names), hyperparameters=ADAMW),),
            slots={slot: {name: tensor(*CLASSIFIER[name]) for name in names} for slot in ("exp_avg", "exp_avg_sq")},
        ),
    )
    converter.write(trained, tmp_path / "out", to="pretrained")
    written = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert (written["global_step"], written.get("epoch")) == (expected, given.get("epoch"))


def test_what_this_program_says_in_a_file_of_flax_is_no_weight(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"a.weight": tensor(2), "b": tensor(3)})
    converter.write(checkpoint, tmp_path / "flax_model.msgpack")
    (tmp_path / "config.json").write_text('{"model_type": "of-no-table"}')
    found = converter.read(tmp_path, from_format="pretrained")
    assert sorted(found.names) == ["a/weight", "b"]
    assert found.lines == ()


def test_attributes_of_objects_that_are_no_variables(tmp_path: Path) -> None:
    """trackable_object_graph.proto: a table has two tensors, whose keys start alike; what else is saved has none."""

    def attribute(name: str, key: str) -> bytes:
        said = (
            protobuf.content_field(1, name) + protobuf.content_field(2, "full/name:0") + protobuf.content_field(3, key)
        )
        return protobuf.content_field(1, protobuf.content_field(2, said))

    graph = attribute("VARIABLE_VALUE", "w/.ATTRIBUTES/VARIABLE_VALUE")
    graph += attribute("table", "t/.ATTRIBUTES/table")
    graph += attribute("OBJECT_CONFIG_JSON", "o/.ATTRIBUTES/OBJECT_CONFIG_JSON")
    for file in bundle_files("ckpt", {"w/.ATTRIBUTES/VARIABLE_VALUE": tensor(2)}, graph):
        stream(file, tmp_path)
    found = object_graph(read_bundle(tmp_path / "ckpt"))
    assert [(node.key, node.full_name, node.table) for node in found] == [
        ("w/.ATTRIBUTES/VARIABLE_VALUE", "full/name", None),
        (None, "", "t/.ATTRIBUTES/table"),
        (None, "", None),
    ]


# sizes


@pytest.mark.parametrize(
    ("name", "to", "limit_bytes", "said"),
    [
        ("config.json", "pretrained", 16 << 20, "is a config of"),
        ("trainer_state.json", "pretrained", 256 << 20, "is a state of"),
        ("optimizer.json", "pretrained", 256 << 20, "is an optimizer of"),
        ("model.safetensors.index.json", "shards", 256 << 20, "is an index of"),
        (".metadata", "dcp", 256 << 20, "is metadata of"),
        ("ckconv.json", "dcp", 64 << 20, "is a document of"),
        ("ckconv.json", "tf-checkpoint", 64 << 20, "is a document of"),
        ("checkpoint", "tf-checkpoint", 1 << 20, "is a list of checkpoints of"),
        ("model.onnx", "onnx", (1 << 31) - 1, "an ONNX model ends at 2 GiB"),
    ],
)
def test_what_is_too_large_to_be_what_it_is_called_is_not_read(
    name: str, to: str, limit_bytes: int, said: str, tmp_path: Path
) -> None:
    """One byte too many, and all of them a hole: the file is refused before any is read."""
    checkpoint = Checkpoint(
        tensors={key: tensor(*shape) for key, shape in CLASSIFIER.items()},
        config=Config(values=dict(BERT), raw=json.dumps(BERT).encode()),
        extras={"epoch": 1.0} if to == "pretrained" else {},
    )
    shards: dict[str, Any] = {"to": "safetensors", "max_shard_size": "100"}
    options = {"shards": shards, "onnx": {"to": to, "weights_only": True}}.get(to, {"to": to})
    converter.write(checkpoint, f"{tmp_path}/out/", **options)
    folder = tmp_path / "out"
    if name == "optimizer.json":
        (folder / "optimizer.index").write_bytes(b"")
        (folder / name).write_bytes(b"")
    else:
        assert converter.read(folder).names
    with open(folder / name, "r+b") as file:
        file.truncate(limit_bytes + 1)
    with pytest.raises(ReadError, match=said) as caught:
        converter.read(folder, from_format="safetensors" if to == "shards" else to)
    assert caught.value.path == f"{folder / name}"
    with open(folder / name, "r+b") as file:
        file.truncate(limit_bytes)
    if limit_bytes <= 1 << 20:
        with pytest.raises(ReadError) as caught:
            converter.read(folder, from_format=to)
        assert said not in caught.value.message


# what is one thing is not taken for another


def test_two_places_of_a_state_dict_are_two(tmp_path: Path) -> None:
    def written(*paths: tuple[str, ...]) -> Path:
        items, pieces = dcp._laid_out([((f"{number}",), tensor(2)) for number in range(len(paths))])
        placed = {name: replace(item, path=path) for (name, item), path in zip(items.items(), paths, strict=True)}
        (tmp_path / "__0_0.distcp").unlink(missing_ok=True)
        stream(OutputFile(name="__0_0.distcp", pieces=tuple(pieces)), tmp_path)
        (tmp_path / ".metadata").write_bytes(metadata_pickle(placed))
        return tmp_path

    assert set(converter.read(written(("a",), ("b", "c"))).names) == {"a", "b.c"}
    with pytest.raises(ReadError, match="is in the file twice") as caught:
        converter.read(written(("a",), ("a",)))
    assert caught.value.tensor == "1"
    with pytest.raises(ReadError, match="is inside something that is no dict"):
        converter.read(written(("a",), ("a", "b")))


@pytest.mark.parametrize("other", [{"a": 1}, 3, {"state": 1}], ids=str)
def test_a_list_of_which_not_all_are_states_of_optimizers_is_none_of_them(other: Any, tmp_path: Path) -> None:
    """One of them would be lost in silence."""
    weights = {"a": tensor(2)}
    state = {"state": {0: {"momentum_buffer": tensor(2)}}, "param_groups": [{**SGD, "params": [0]}]}
    for listed, is_state in (([state], True), ([state, other], False), ({"one": state, "two": other}, False)):
        value = {"model": weights, "optimizers": listed}
        (tmp_path / "x.pth").unlink(missing_ok=True)
        stream(OutputFile(name="x.pth", pieces=tuple(torch_file(value))), tmp_path)
        found = converter.read(tmp_path / "x.pth")
        assert (found.optimizer is not None) is is_state
        assert ("optimizers" in found.extras) is not is_state


def test_what_is_said_of_layers_outside_a_model_is_beside_them(tmp_path: Path) -> None:
    def said(name: str) -> dict[str, str]:
        data = (tmp_path / "out" / name).read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return {key: value for key, value in header["__metadata__"].items() if key not in ("format", "ckconv")}

    tensors = {name: tensor(*shape) for name, shape in CLASSIFIER.items()}
    checkpoint = Checkpoint(
        tensors={**tensors, f"{HEADS_PREFIX}dense/kernel": tensor(2, 3)},
        config=Config(values=dict(BERT), raw=json.dumps(BERT).encode()),
        metadata={HEADS_KEY: "{}", "other": "1"},
    )
    converter.write(checkpoint, tmp_path / "out", to="pretrained")
    assert (said("model.safetensors"), said("heads.safetensors")) == ({"other": "1"}, {HEADS_KEY: "{}"})
    found = converter.read(tmp_path / "out")
    assert found.metadata[HEADS_KEY] == "{}"
    assert f"{HEADS_PREFIX}dense/kernel" in found.names


@pytest.mark.parametrize("shape", [(4,), (2, 2), (3,), (5,), (2, 3)], ids=str)
def test_an_array_in_chunks_has_as_many_elements_as_its_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    """What is more than the shape has is no array either: half of it would be lost."""
    parts = {str(number): tensor(2, start=2 * number) for number in range(2)}
    extents = b"".join(msgpack.text(str(axis)) + msgpack.number(extent) for axis, extent in enumerate(shape))
    chunks = b"".join(msgpack.text(key) + _flax_array(part) for key, part in parts.items())
    data = msgpack.map_header(1) + msgpack.text("w") + msgpack.map_header(3)
    data += msgpack.text("__msgpack_chunked_array__") + b"\xc3"
    data += msgpack.text("shape") + msgpack.map_header(len(shape)) + extents
    data += msgpack.text("chunks") + msgpack.map_header(2) + chunks
    (tmp_path / "x.msgpack").write_bytes(data)
    if int(np.prod(shape)) == 4:
        assert converter.read(tmp_path / "x.msgpack").tensors["w"].numpy().reshape(-1).tolist() == [0, 1, 2, 3]
    else:
        with pytest.raises(ReadError, match="has 4 elements in chunks, its shape"):
            converter.read(tmp_path / "x.msgpack")


def _flax_array(held: Tensor) -> bytes:
    inner = msgpack.array_header(3) + msgpack.array_header(1) + msgpack.number(held.size) + msgpack.text("float32")
    inner += msgpack.binary_header(held.nbytes) + held.numpy().tobytes()
    return msgpack.extension_header(1, len(inner)) + inner
