"""Tensors without names, under odd ones, and padding behind a file."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import converter
from converter.errors import LossError, ReadError, UsageError

LAYOUTS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


@pytest.fixture(params=LAYOUTS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def save(value: Any, name: str = "latents.pt") -> Path:
        torch.save(value, tmp_path / name, **LAYOUTS[request.param])
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", ["latents.pt", "latents.pth.tar", "latents.PT", "latents"])
def test_a_bare_tensor_is_called_as_its_file_is(save: Any, name: str, tmp_path: Path) -> None:
    values = torch.randn(3, 2)
    report = converter.convert(save(values, name), tmp_path / "x.safetensors")
    assert torch.equal(safetensors.torch.load_file(tmp_path / "x.safetensors")["latents"], values)
    (warning,) = report.warnings
    assert warning.startswith("the tensor has no name of its own: it is called latents")


def test_a_bare_tensor_is_called_as_the_user_says(save: Any, tmp_path: Path) -> None:
    values = torch.nn.Parameter(torch.randn(3, 2))
    report = converter.convert(save(values), tmp_path / "x.safetensors", name="emb.weight")
    assert list(safetensors.torch.load_file(tmp_path / "x.safetensors")) == ["emb.weight"]
    assert report.warnings == ()
    assert converter.verify(tmp_path / "latents.pt", tmp_path / "x.safetensors", name="emb.weight")
    converter.convert(tmp_path / "latents.pt", tmp_path / "empty.safetensors", name="")
    assert list(safetensors.torch.load_file(tmp_path / "empty.safetensors")) == [""]
    with pytest.raises(UsageError, match="--name is for files with one tensor that has no name"):
        converter.convert(save({"a": values}), tmp_path / "y.safetensors", name="emb.weight")


def test_a_copy_of_a_bare_tensor_is_one(save: Any, tmp_path: Path) -> None:
    values = torch.randn(3, 2)
    path = save(values)
    converter.convert(path, tmp_path / "x.bin", dtype="float16")
    assert torch.equal(torch.load(tmp_path / "x.bin", weights_only=True), values.half())
    assert converter.verify(path, tmp_path / "x.bin", dtype="float16").verification.weights


def test_an_empty_key_is_a_name(save: Any, tmp_path: Path) -> None:
    path = save({"": torch.ones(2), "a.b": torch.zeros(2)})
    for to in ("x.safetensors", "x.pt"):
        converter.convert(path, tmp_path / to)
        assert set(converter.read(tmp_path / to).names) == {"", "a.b"}


@pytest.mark.parametrize("to", ["x.pt", "x.msgpack", "x.h5"])
def test_a_tensor_may_be_called_as_a_header_of_safetensors(save: Any, to: str, tmp_path: Path) -> None:
    path = save({"__metadata__": torch.ones(2), "w": torch.ones(2)})
    converter.convert(path, tmp_path / to, weights_only=True)
    assert set(converter.read(tmp_path / to).names) == {"__metadata__", "w"}
    with pytest.raises(LossError, match="tensor __metadata__: is a name that safetensors has for itself; --exclude"):
        converter.convert(path, tmp_path / "x.safetensors")
    converter.convert(path, tmp_path / "x.safetensors", exclude=("__metadata__",))


@pytest.mark.parametrize("count", [1, 100, 60_000])
def test_zeros_behind_a_file_are_padding(save: Any, count: int) -> None:
    path = save({"w": torch.ones(2)})
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(count))
    assert torch.load(path, weights_only=True)["w"].tolist() == [1, 1]
    assert list(converter.read(path).names) == ["w"]
    for behind in (bytes(count) + b"\1", bytes(65_536)):
        path.write_bytes(whole + behind)
        with pytest.raises(ReadError):
            converter.read(path)


@pytest.mark.parametrize("behind", [b"x", b"junk " * 100])
def test_other_bytes_behind_a_file_are_told_and_how_to_cut_them_off(save: Any, behind: bytes) -> None:
    path = save({"w": torch.ones(2)})
    whole = path.read_bytes()
    path.write_bytes(whole + behind)
    cut = rf"no padding; head -c {len(whole)} FILE > OTHER cuts them off"
    with pytest.raises(ReadError, match=cut):
        converter.read(path)


def test_other_archives_are_told_from_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    cases = {"m.pth": "of m.pth, and no", "": "empty zip archive", "m.pth others.txt": "of m.pth and 1 more, and no"}
    for names, what in cases.items():
        with zipfile.ZipFile(path, "w") as archive:
            for name in names.split():
                archive.writestr(name, b"x" * 100)
        with pytest.raises(ReadError, match=what if names else "empty zip archive|no format that is known"):
            converter.read(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ReadError, match="zip archive is cut short: its end record is missing"):
        converter.read(path)
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "m.pth")
    with pytest.raises(ReadError, match=r"is a tar archive, and no \.nemo; unpack it"):
        converter.read(path)
