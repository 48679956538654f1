"""ONNX as weights: models of onnx and torch read, ours opened by onnx.checker and onnxruntime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.encoding import protobuf
from converter.encoding.onnx_tensors import TYPE_NUMBERS
from converter.errors import ArchitectureError, LossError, ReadError, UsageError
from converter.formats.onnx import sniff
from converter.formats.probe import Probe
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor, FileTensor

onnx = pytest.importorskip("onnx")

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)


def matmul(*more: Any) -> Any:
    helper, elem = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "fc.weight"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", elem, [None, 2])],
        [helper.make_tensor_value_info("y", elem, [None, 3])],
        initializer=[onnx.numpy_helper.from_array(KERNEL, "fc.weight"), *more],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("is_external", [False, True])
def test_models_of_the_library(is_external: bool, tmp_path: Path) -> None:
    onnx.save(matmul(), tmp_path / "x.onnx", save_as_external_data=is_external, location="weights", size_threshold=0)
    checkpoint = converter.read(tmp_path / "x.onnx")
    assert (list(checkpoint.tensors), checkpoint.dialect) == (["fc.weight"], "pytorch")
    tensor = checkpoint.tensors["fc.weight"]
    assert isinstance(tensor, FileTensor)
    assert tensor.file.path.name == ("weights" if is_external else "x.onnx")
    np.testing.assert_array_equal(tensor.numpy(), KERNEL)


def test_that_training_is_not_carried_is_said(tmp_path: Path) -> None:
    made = matmul()
    onnx.save(made, tmp_path / "x.onnx")
    assert converter.read(tmp_path / "x.onnx").warnings == ()
    made.training_info.append(onnx.TrainingInfoProto(algorithm=onnx.GraphProto(name="step")))
    onnx.save(made, tmp_path / "trained.onnx")
    report = converter.convert(tmp_path / "trained.onnx", tmp_path / "out.onnx")
    assert [each for each in report.warnings if each.startswith("training_info not carried")]


def test_what_torch_exported(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Conv1d(2, 2, 1)).eval()
    torch.onnx.export(net, (torch.zeros(2, 3),), tmp_path / "x.onnx", dynamo=True, optimize=False, verbose=False)
    found = converter.read(tmp_path / "x.onnx").tensors
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy())


def test_texts_and_graphs_that_train_are_losses_that_must_be_allowed(tmp_path: Path) -> None:
    onnx.save(matmul(onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [1], [b"x"])), tmp_path / "x.onnx")
    with pytest.raises(LossError, match="text"):
        converter.convert(tmp_path / "x.onnx", tmp_path / "x.safetensors")
    converter.convert(tmp_path / "x.onnx", tmp_path / "x.safetensors", allow_dropped=("words",))
    graph = onnx.GraphProto(name="step", initializer=[onnx.numpy_helper.from_array(KERNEL, "moment")])
    made = matmul()
    made.training_info.append(onnx.TrainingInfoProto(algorithm=graph))
    onnx.save(made, tmp_path / "y.onnx")
    with pytest.raises(LossError, match="of a graph that trains the model"):
        converter.convert(tmp_path / "y.onnx", tmp_path / "y.safetensors")


def opened(path: Path) -> dict[str, Any]:
    """What onnxruntime computes from a model without inputs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, {}), strict=True))


ORT_TYPES = [
    dtype for dtype in TYPE_NUMBERS if dtype.value.startswith(("bool", "int", "uint")) or dtype.value in
    ("float16", "float32", "float64")
]  # fmt: skip


def test_onnx_and_onnxruntime_open_what_we_write(tmp_path: Path) -> None:
    tensors = {f"a.{dtype.value}": ArrayTensor.of(np.array([[0, 1]], dtype.numpy)) for dtype in ORT_TYPES}
    tensors |= {"scalar": ArrayTensor.of(np.array(4, np.int64)), "é / .. \u202e": ArrayTensor.of(KERNEL)}
    tensors |= {"empty": ArrayTensor.of(np.zeros((0, 2), np.float32))}
    report = converter.write(
        Checkpoint(tensors=tensors, metadata={"by": "hand"}), tmp_path / "x.onnx", weights_only=True
    )
    assert report.warnings == ("weights only: the file holds no graph",)
    onnx.checker.check_model(str(tmp_path / "x.onnx"), full_check=True)
    found = opened(tmp_path / "x.onnx")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype.numpy, tensor.shape), name
        np.testing.assert_array_equal(found[name], tensor.numpy())
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert metadata["by"] == "hand"
    assert json.loads(metadata["ckconv"])["provenance"]["ledger"]["mapped"] == len(tensors)


@pytest.mark.parametrize("dtype", TYPE_NUMBERS)
def test_the_checker_takes_every_type(dtype: DType, tmp_path: Path) -> None:
    tensor = ArrayTensor.of(np.array([1, 0], dtype.numpy))
    converter.write(Checkpoint(tensors={"w": tensor}), tmp_path / "x.onnx", weights_only=True)
    onnx.checker.check_model(str(tmp_path / "x.onnx"), full_check=True)
    (made,) = onnx.load(tmp_path / "x.onnx").graph.initializer
    assert onnx.numpy_helper.to_array(made).tobytes() == tensor.numpy().tobytes()


def test_names_ties_and_dialect_come_back(tmp_path: Path) -> None:
    odd = ["", ".>x", "a", "b/c", "\x1b"]
    tensors = {name: ArrayTensor.of(np.full(2, number)) for number, name in enumerate(odd)}
    checkpoint = Checkpoint(
        tensors=tensors,
        aliases={"tied": "a"},
        buffers=frozenset({"b/c"}),
        frozen=frozenset({""}),
        dialect="generic",
        metadata={"ckconv": "another's"},
    )
    report = converter.write(checkpoint, tmp_path / "x.onnx", weights_only=True)
    assert report.counts == {"mapped": len(odd), "tied": 1, "dropped": 0, "defaulted": 0}
    again = converter.read(tmp_path / "x.onnx")
    assert {name: int(t.numpy()[0]) for name, t in again.tensors.items()} == dict(zip(odd, range(5), strict=True))
    assert (again.aliases, again.buffers, again.frozen) == ({"tied": "a"}, {"b/c"}, {""})
    assert (again.dialect, again.metadata) == ("generic", {})


def test_past_two_gibibytes_the_tensors_are_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.encoding.onnx_file.LIMIT_BYTES", 4000)
    tensors = {str(number): ArrayTensor.of(np.full(500, number, np.float32)) for number in range(3)}
    with pytest.raises(UsageError, match="several files"):
        converter.write(Checkpoint(tensors=tensors), tmp_path / "x.onnx", weights_only=True)
    converter.write(Checkpoint(tensors=tensors), f"{tmp_path}/out/", to="onnx", weights_only=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    for name, value in opened(tmp_path / "out" / "model.onnx").items():
        np.testing.assert_array_equal(value, tensors[name].numpy())
    assert set(converter.read(tmp_path / "out").tensors) == set(tensors)


def test_without_an_architecture_three_things_help(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"w": ArrayTensor.of(KERNEL)})
    converter.write(checkpoint, tmp_path / "weights.onnx", weights_only=True)
    with pytest.raises(ArchitectureError) as caught:
        converter.write(checkpoint, tmp_path / "x.onnx")
    assert caught.value.exit_code == 2
    assert all(option in str(caught.value) for option in ("--config", "--model", "--weights-only"))


def test_folders(tmp_path: Path) -> None:
    onnx.save(matmul(), tmp_path / "x.onnx")
    assert converter.read(tmp_path).names == ("fc.weight",)
    onnx.save(matmul(), tmp_path / "y.onnx")
    with pytest.raises(ReadError, match=r"several models: x\.onnx, y\.onnx"):
        converter.read(tmp_path)


def test_a_description_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    made = matmul()
    made.metadata_props.add(key="ckconv", value='{"dialect": "generic"}')
    onnx.save(made, tmp_path / "x.onnx")
    assert converter.read(tmp_path / "x.onnx").dialect == "generic"
    made.metadata_props[0].value = '{"dialect": "klingon"}'
    onnx.save(made, tmp_path / "x.onnx")
    with pytest.raises(ReadError, match=r"x\.onnx.*dialect"):
        converter.read(tmp_path / "x.onnx")


def test_sniff(tmp_path: Path) -> None:
    def is_model(data: bytes) -> bool:
        (tmp_path / "x").write_bytes(data)
        return sniff(Probe(tmp_path / "x"))

    whole = matmul().SerializeToString()
    assert is_model(whole)
    assert is_model(onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString() + whole[2:])
    assert is_model(whole[:-20])
    for version, is_known in ((2, False), (3, True), (13, True), (99, True), (100, False)):
        assert is_model(protobuf.number_field(1, version) + whole[2:]) is is_known
    for other in (b"", b"PK\x03\x04", b"\x08\x01\x12\x20" + bytes(32), b"\x80\x02}q\x00.", b"\x08\x0a\x4d", bytes(64)):
        assert not is_model(other)


def test_a_large_sparse_file_beside_opens_in_no_time(tmp_path: Path) -> None:
    size = 256 << 30
    tensor = onnx.TensorProto(name="w", dims=[size], data_type=2, data_location=1)
    tensor.external_data.add(key="location", value="data")
    graph = protobuf.content_field(7, protobuf.content_field(5, tensor.SerializeToString()))
    (tmp_path / "x.onnx").write_bytes(protobuf.number_field(1, 10) + graph)
    (tmp_path / "data").touch()
    os.truncate(tmp_path / "data", size)
    began = time.process_time()
    assert converter.read(tmp_path / "x.onnx").tensors["w"].nbytes == size
    assert time.process_time() - began < 1


def test_no_framework_is_imported(tmp_path: Path) -> None:
    converter.write(Checkpoint(tensors={"w": ArrayTensor.of(KERNEL)}), tmp_path / "x.onnx", weights_only=True)
    program = (
        "import sys, converter\n"
        "converter.convert(sys.argv[1], sys.argv[2], verify='weights', weights_only=True)\n"
        "print(sorted({'onnx', 'onnx_ir', 'onnxruntime', 'torch', 'google.protobuf'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.onnx"), str(tmp_path / "y.onnx")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
