"""What holds tensors of torch and is no file of torch.save: bare pickles, and archives of TorchScript."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import converter
from converter.errors import LossError, ReadError
from converter.model.tensor import FileTensor
from tests.conftest import Ckconv


def raw(tensor: Any) -> bytes:
    return np.ascontiguousarray(tensor.detach().numpy() if isinstance(tensor, torch.Tensor) else tensor).tobytes()


def dumped(folder: Path, value: Any, protocol: int = 4, name: str = "x.pkl") -> Path:
    (folder / name).write_bytes(pickle.dumps(value, protocol))
    return folder / name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickled_state_dict(protocol: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.BatchNorm1d(40))
    shared = torch.randn(20, 10)
    state = {**model.state_dict(), "tied": shared, "same": shared, "turned": shared.t(), "part": shared[3:5]}
    value = {"model": state, "epoch": 3, "note": b"x" * 1000, "more": bytearray(1000)}
    path = dumped(tmp_path, value, protocol)
    found = converter.read(path)
    assert set(found.names) == set(state)
    assert found.aliases == {"same": "tied"}
    for name, tensor in state.items():
        assert found.tensor(name).numpy().tobytes() == raw(tensor), name
    assert (found.extras["epoch"], found.extras["note"]) == (3, b"x" * 1000)
    report = converter.convert(path, tmp_path / "x.safetensors")
    assert report.counts["dropped"] == 0
    loaded = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    converter.convert(path, tmp_path / "copy.pt")
    copy = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert set(copy) == set(value)
    assert torch.equal(copy["model"]["turned"], state["turned"])


def test_storages_that_are_called_alike(tmp_path: Path) -> None:
    """Keys are addresses of memory, which another process may have given twice."""
    path = dumped(tmp_path, {"a": torch.zeros(4), "b": torch.ones(4)})
    whole = path.read_bytes()
    keys = re.findall(rb"X[^X]{4}(\d{6,})q", whole)
    first, second = dict.fromkeys(keys)
    assert len(first) == len(second)
    path.write_bytes(whole.replace(second, first))
    found = converter.read(path)
    assert not found.aliases
    assert [found.tensors[name].numpy().tolist() for name in "ab"] == [[0] * 4, [1] * 4]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_arrays(protocol: int, tmp_path: Path) -> None:
    """As detectron2's model zoo has them: arrays of numpy under "model"."""
    state = {
        "backbone.w": np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32),
        "fortran": np.asfortranarray(np.arange(600, dtype=np.int64).reshape(30, 20)),
        "big": np.arange(300, dtype=">f4"),
        "half": np.arange(300, dtype=np.float16),
        "small": np.arange(3.0),
        "empty": np.zeros((0, 3)),
    }
    found = converter.read(dumped(tmp_path, {"model": state, "__author__": "X", "matching_heuristics": True}, protocol))
    assert set(found.names) == set(state)
    for name, array in state.items():
        assert found.tensors[name].numpy().tobytes() == raw(array.astype(array.dtype.newbyteorder("<"))), name
    assert found.extras == {"__author__": "X", "matching_heuristics": True}


def test_long_bytes_stay_in_the_file(tmp_path: Path) -> None:
    found = converter.read(dumped(tmp_path, {"array": np.ones(70_000), "tensor": torch.ones(70_000)}))
    assert all(isinstance(tensor, FileTensor) for tensor in found.tensors.values())


def test_arrays_that_python_2_pickled(tmp_path: Path) -> None:
    """Bytes are strings there, and may look like text: zeros do."""
    zeros, others = np.zeros((2, 3), np.float32), np.full((2, 3), -1.5, np.float32)

    def array(values: Any) -> bytes:
        data = values.tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nI3\ntcnumpy\ndtype\n"
            b"(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nT" + struct.pack("<i", len(data)) + data + b"tb"
        )

    content = b"(dS'a'\n" + array(zeros) + b"sS'b'\n" + array(others) + b"s."
    assert np.array_equal(pickle.loads(content, encoding="latin1")["a"], zeros)  # noqa: S301 (it is made above)
    (tmp_path / "x.pkl").write_bytes(content)
    found = converter.read(tmp_path / "x.pkl")
    assert np.array_equal(found.tensors["a"].numpy(), zeros)
    assert np.array_equal(found.tensors["b"].numpy(), others)


# TorchScript


class Layer(torch.nn.Module):
    """A module with parameters, buffers of both kinds, other attributes, and one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("gone", torch.ones(1), persistent=False)
        self.loose = torch.ones(2)
        self.sizes = [1, 2]
        self.factors = [0.5]
        self.parts = [torch.ones(1), torch.ones(2)]
        self.again = self.fc
        self.several = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.again(x)) * self.loose.sum() * self.sizes[0] * self.factors[0] + self.scale + self.gone
        for each in self.several:
            x = each(x) + self.parts[0]
        return x


@pytest.fixture(params=["script", "trace"])
def program(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Layer().eval()
        return torch.jit.script(model) if request.param == "script" else torch.jit.trace(model, torch.ones(4, 2))


@pytest.mark.parametrize("name", ["x.pt", "x.jit"])
@pytest.mark.filterwarnings("ignore")
def test_weights_of_a_torchscript_archive(program: Any, name: str, tmp_path: Path) -> None:
    program.save(tmp_path / name)
    expected = torch.jit.load(tmp_path / name).state_dict()
    report = converter.convert(tmp_path / name, tmp_path / "x.safetensors")
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert report.source_format == "torchscript"
    checkpoint = converter.read(tmp_path / name)
    assert converter.read(tmp_path / name, from_format="pytorch").tensors.keys() == checkpoint.tensors.keys()
    assert checkpoint.aliases == {"again.weight": "fc.weight", "again.bias": "fc.bias"}
    assert {"norm.running_mean", "scale"} <= checkpoint.buffers
    assert report.counts["tied"] == 2
    dropped = {line.name for line in report.lines if line.target is None}
    assert dropped == ({"loose", "parts", "parts.0", "parts.1"} if "loose" in dropped else set())


@pytest.mark.filterwarnings("ignore")
def test_weights_of_a_torchscript_archive_as_a_file_of_torch(program: Any, tmp_path: Path) -> None:
    program.save(tmp_path / "x.pt")
    converter.convert(tmp_path / "x.pt", tmp_path / "out.pt", dtype="float16")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert set(found) == set(torch.jit.load(tmp_path / "x.pt").state_dict())
    assert found["fc.weight"].dtype is torch.float16


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_a_format_that_is_read_alone(program: Any, tmp_path: Path, ckconv: Ckconv) -> None:
    program.save(tmp_path / "x.pt")
    told = json.loads(ckconv("inspect", tmp_path / "x.pt", "--json", without_frameworks=True).stdout)
    assert told["format"] == "torchscript"
    assert "fc.weight" in {tensor["name"] for tensor in told["tensors"]}
    done = ckconv(tmp_path / "x.pt", tmp_path / "y.pth", "--from", "torchscript", without_frameworks=True)
    assert done.stdout.splitlines()[-2].startswith("torchscript -> pytorch")
    for arguments in (("z.jit",), ("z", "--to", "torchscript")):
        refused = ckconv(tmp_path / "y.pth", *arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert "torchscript is read, not written; --to one of dcp, " in refused.stderr
        assert "torchscript," not in refused.stderr
    refused = ckconv(tmp_path / "y.pth", tmp_path / "z.safetensors", "--from", "torchscript")
    assert refused.returncode == 1
    assert "is no TorchScript archive: it has no code; --from pytorch reads it" in refused.stderr
    refused = ckconv("verify", tmp_path / "y.pth", tmp_path / "x.pt")
    assert refused.returncode == 2
    assert "torchscript is read, not written" in refused.stderr


@pytest.mark.filterwarnings("ignore")
def test_a_frozen_program_has_weights_without_names(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.script(torch.nn.Linear(2, 2).eval())).save(tmp_path / "x.pt")
    assert not torch.jit.load(tmp_path / "x.pt").state_dict()
    with pytest.raises(ReadError, match=r"those of a program that was frozen are its constants; save it before"):
        converter.read(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_script", [True, False])
def test_what_a_quantised_layer_computes_with_is_not_lost(is_script: bool, tmp_path: Path) -> None:
    """It is no parameter, and in no state dict of a program."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if is_script:
        torch.jit.script(quantised).save(tmp_path / "x.pt")
    else:
        torch.save(quantised, tmp_path / "x.pt")
    with pytest.raises(LossError, match=r"tensor 0\._packed_params\S+: is a quantized tensor, .*; --exclude"):
        converter.convert(tmp_path / "x.pt", tmp_path / "out.safetensors")
    converter.convert(tmp_path / "x.pt", tmp_path / "out.safetensors", exclude=("*._packed_params*",))
    assert "1.running_mean" in converter.read(tmp_path / "out.safetensors").tensors
