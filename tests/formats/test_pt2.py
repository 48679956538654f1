"""Programs of torch.export: torch's own archives read, ours opened by torch (inside them: encoding/test_pt2.py)."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import converter
from converter.formats import Probe, detect
from converter.formats.pt2 import sniff
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT, Ckconv


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.tied = torch.nn.Linear(3, 2)
        self.tied.weight = self.fc.weight
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("part", torch.arange(10.0)[2:7:2])
        self.register_buffer("brief", torch.tensor([1.5, 2.5]).to(torch.bfloat16))
        self.register_buffer("tiny", torch.tensor([1.0, 2.0]).to(torch.float8_e5m2))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("wave", torch.tensor([1 + 2j]))
        self.register_buffer("kept_back", torch.ones(2), persistent=False)

    def forward(self, x: Any) -> Any:
        return self.tied(self.fc(x) @ self.turned.t()[:2]) + self.kept_back


@pytest.fixture(scope="module")
def net() -> _Net:
    torch.manual_seed(0)
    return _Net().eval()


@pytest.fixture(scope="module")
def exported(net: _Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.ones(4, 3),)), path)
    return path


def test_what_torch_saved(exported: Path, net: _Net) -> None:
    checkpoint = converter.read(exported)
    assert detect(Probe(exported)).name == "pt2"
    state = net.state_dict()
    assert set(checkpoint.names) == set(state)
    assert checkpoint.aliases == {"tied.weight": "fc.weight"}
    assert checkpoint.buffers == {"turned", "part", "brief", "tiny", "count", "wave"}
    for name, value in state.items():
        tensor = checkpoint.tensor(name)
        assert tensor.dtype.value == str(value.dtype).removeprefix("torch.")
        assert tensor.shape == tuple(value.shape)
        assert (
            tensor.numpy().tobytes()
            == value.contiguous().view(torch.uint8 if value.ndim else value.dtype).numpy().tobytes()
        )
    assert [line.name for line in checkpoint.lines] == ["kept_back"]


def test_a_file_of_torch_save_is_another_format(net: _Net, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "x.pt2")
    assert not sniff(Probe(tmp_path / "x.pt2"))
    assert detect(Probe(tmp_path / "x.pt2")).name == "pytorch"


def test_to_safetensors_and_back(exported: Path, net: _Net, tmp_path: Path) -> None:
    converter.convert(exported, tmp_path / "x.safetensors", exclude=["wave"], allow_dropped=["wave"])
    with safe_open(tmp_path / "x.safetensors", "numpy") as stored:
        np.testing.assert_array_equal(stored.get_tensor("turned"), net.turned)
    converter.convert(tmp_path / "x.safetensors", tmp_path / "y.pt2", weights_only=True)
    module = torch.export.load(tmp_path / "y.pt2").module()
    found = module.state_dict()
    assert module() == {}
    for name, value in net.state_dict().items():
        if name != "wave":
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_weights_of_every_type_under_any_name(tmp_path: Path) -> None:
    names = ["plain.weight", "type", "a..b", "", "ends>", "plain", "sp ace/x:0", "ü"]
    tensors = {
        name: ArrayTensor.of(np.arange(4).astype(dtype.numpy)) for name, dtype in zip(names * 3, DType, strict=False)
    }
    checkpoint = Checkpoint(tensors=tensors, aliases={"forward": "type"})
    converter.write(checkpoint, tmp_path / "x.pt2", weights_only=True)
    back = converter.read(tmp_path / "x.pt2")
    assert list(back.tensors) == list(tensors)
    assert back.aliases == {"forward": "type"}
    state = torch.export.load(tmp_path / "x.pt2").module().state_dict()
    assert len(state) == len(tensors) + 1
    assert "plain.weight" in state
    assert state["type>"].data_ptr() == state["forward>"].data_ptr()


def test_a_folder_has_the_state_dict_too(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"fc.weight": ArrayTensor.of(np.ones((2, 3), np.float32))})
    converter.write(checkpoint, f"{tmp_path}/out/", to="pt2", weights_only=True)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["model.pt2", "model.pth"]
    assert torch.load(tmp_path / "out" / "model.pth")["fc.weight"].tolist() == [[1, 1, 1]] * 2
    assert list(converter.read(tmp_path / "out").tensors) == ["fc.weight"]


@pytest.fixture(scope="module")
def squad(squad_bert: Path, tmp_path_factory: pytest.TempPathFactory, ckconv: Ckconv) -> Path:
    folder = tmp_path_factory.mktemp("squad") / "out"
    result = ckconv(squad_bert, f"{folder}/", "--to", "pt2")
    assert result.returncode == 0, result.stderr
    assert "verified outputs" in result.stdout.splitlines()[-1]
    return folder


def test_a_file_is_the_program_alone_whatever_it_is_called(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"fc.weight": ArrayTensor.of(np.ones((2, 3), np.float32))})
    converter.write(checkpoint, tmp_path / "program", to="pt2", weights_only=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["program"]
    assert set(converter.read(tmp_path / "program").tensors) == {"fc.weight"}


def test_a_checkpoint_becomes_a_program_that_runs(squad: Path, squad_bert: Path) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(squad_bert.parent)
    original = transformers.BertForQuestionAnswering(config).eval()
    saved = torch.load(squad_bert, weights_only=False)
    original.load_state_dict(saved.get("model_state_dict", saved), strict=False)
    program = torch.export.load(squad / "model.pt2").module()
    keys = set(program.state_dict())
    assert keys == set(torch.load(squad / "model.pth"))
    assert {name for name, _ in original.named_parameters()} <= keys
    for shape in ((1, 7), (5, 13)):
        inputs = {
            "input_ids": torch.randint(0, config.vocab_size, shape),
            "attention_mask": torch.ones(shape, dtype=torch.int64),
            "token_type_ids": torch.zeros(shape, dtype=torch.int64),
        }
        with torch.no_grad():
            found, wanted = program(**inputs), original(**inputs)
        torch.testing.assert_close(found["start_logits"], wanted.start_logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["end_logits"], wanted.end_logits, rtol=1e-5, atol=1e-5)


def test_a_program_trains(squad: Path) -> None:
    program = torch.export.load(squad / "model.pt2").module()
    inputs = {name: torch.ones(2, 6, dtype=torch.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    found = program(**inputs)
    sum((value**2).sum() for value in found.values()).backward()
    lacking = [name for name, parameter in program.named_parameters() if parameter.grad is None]
    assert not [name for name in lacking if "pooler" not in name]


def test_no_path_of_this_machine_is_in_it(squad: Path) -> None:
    with zipfile.ZipFile(squad / "model.pt2") as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert str(Path.cwd()).encode() not in data, name
            assert b".py" not in data, name


def test_a_program_read_again_gives_the_weights(squad: Path, squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(squad / "model.pt2", tmp_path / "x.safetensors", without_frameworks=True)
    assert result.returncode == 0, result.stderr
    saved = torch.load(squad_bert, weights_only=False)
    for name, array in load_file(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(array, saved.get("model_state_dict", saved)[name])


# --- graphs of other sources


class _Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.out = torch.nn.Linear(6, 3)

    def forward(self, ids: Any) -> Any:
        x = self.norm(self.embed(ids))
        return self.out(x.mean(1)), torch.arange(ids.shape[1]) * 2


def test_from_onnx_and_back_to_weights(tmp_path: Path, ckconv: Ckconv) -> None:
    original = _Classifier().eval()
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        original,
        (torch.zeros(3, 5, dtype=torch.int64),),
        tmp_path / "x.onnx",
        dynamo=True,
        optimize=False,
        verbose=False,
        dynamic_shapes=(dynamic,),
    )
    result = ckconv(tmp_path / "x.onnx", tmp_path / "x.pt2")
    assert result.returncode == 0, result.stderr
    assert "verified outputs" in result.stdout.splitlines()[-1]
    module = torch.export.load(tmp_path / "x.pt2").module()
    for shape in ((1, 4), (6, 9)):
        ids = torch.randint(0, 20, shape)
        for found, wanted in zip(module(ids=ids).values(), original(ids), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    converter.convert(tmp_path / "x.pt2", tmp_path / "x.safetensors")
    back = load_file(tmp_path / "x.safetensors")
    assert set(back) == set(original.state_dict())
    for name, value in original.state_dict().items():
        np.testing.assert_array_equal(back[name], value)


def _changed(path: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(to, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return to


def test_a_program_is_verified_by_making_it_anew_and_one_from_elsewhere_is_not_run(
    tmp_path: Path, ckconv: Ckconv
) -> None:
    x = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        torch.nn.Linear(3, 2).eval(),
        (torch.ones(4, 3),),
        tmp_path / "x.onnx",
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: x},),
    )
    converter.convert(tmp_path / "x.onnx", tmp_path / "x.pt2", verify="weights")
    proven = ckconv("verify", tmp_path / "x.onnx", tmp_path / "x.pt2")
    assert proven.returncode == 0, proven.stderr
    assert "verified outputs" in proven.stdout

    def change(members: dict[str, bytes]) -> None:
        members["model/models/model.json"] += b" "

    changed = _changed(tmp_path / "x.pt2", tmp_path / "y.pt2", change)
    refused = ckconv("verify", tmp_path / "x.onnx", changed)
    assert refused.returncode == 4
    assert "holds another program" in refused.stderr
    weights = ckconv("verify", tmp_path / "x.onnx", changed, "--verify", "weights")
    assert weights.returncode == 0, weights.stderr


def test_from_a_savedmodel(tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(ROOT / "fixtures" / "keras" / "saved_model", f"{tmp_path}/out/", "--to", "pt2")
    assert result.returncode == 0, result.stderr
    assert "verified outputs" in result.stdout.splitlines()[-1]
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    assert set(program.state_dict()) == set(torch.load(tmp_path / "out" / "model.pth"))
