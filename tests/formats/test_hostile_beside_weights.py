"""What stands beside clean weights and cannot be read, or would run code, is no veto where nothing is taken of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import CkconvError
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch ckconv-was-here",)


def bomb() -> bytes:
    return pickle.dumps({"state": {}, "param_groups": [Bomb()]}, 2)


def zipped(pickled: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def deep() -> bytes:
    return b"\x80\x02" + b"(" * 100_000 + b"."


PICKLES: dict[str, Callable[[], bytes]] = {
    "code": lambda: zipped(bomb()),
    "code in a bare pickle": bomb,
    "empty": bytes,
    "text": lambda: b"version https://git-lfs.github.com/spec/v1\n",
    "cut short": lambda: zipped(bomb())[:-30],
    "nested": deep,
    "no optimizer": lambda: zipped(pickle.dumps({"a": 1}, 2)),
    "a number": lambda: zipped(pickle.dumps(1, 2)),
}
CASES = {
    **{f"optimizer.pt: {name}": ("optimizer.pt", content) for name, content in PICKLES.items()},
    **{f"scheduler.pt: {name}": ("scheduler.pt", PICKLES[name]) for name in ("code", "empty", "nested")},
    **{f"training_args.bin: {name}": ("training_args.bin", content) for name, content in PICKLES.items()},
    **{f"rng_state.pth: {name}": ("rng_state.pth", PICKLES[name]) for name in ("code", "empty", "nested")},
    "trainer_state.json: no JSON": ("trainer_state.json", lambda: b"{"),
    "trainer_state.json: nested": ("trainer_state.json", lambda: b"[" * 100_000),
    "trainer_state.json: a list": ("trainer_state.json", lambda: b"[]"),
}
NEVER_READ = ("training_args.bin", "rng_state.pth")
"""What is left behind with a line, whatever the target."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a model of transformers that no table knows."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "config.json").write_text(json.dumps({"model_type": "of-no-table"}))
    weights = {"fc.weight": ArrayTensor.of(ARRAY), "fc.bias": ArrayTensor.of(ARRAY[0])}
    converter.write(Checkpoint(tensors=weights), tmp_path / "in" / "model.safetensors")
    return tmp_path / "in"


@pytest.mark.parametrize("case", CASES)
def test_a_target_of_weights_goes_without(case: str, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    name, content = CASES[case]
    clean = converter.convert(folder, tmp_path / "clean.safetensors")
    (folder / name).write_bytes(content())
    for target in ("x.safetensors", "x.npz", "x.msgpack"):
        report = converter.convert(folder, tmp_path / target)
        assert report.counts == clean.counts
    assert (tmp_path / "x.safetensors").stat().st_size == (tmp_path / "clean.safetensors").stat().st_size
    report = converter.verify(folder, tmp_path / "x.safetensors")
    assert any(name in warning and "not carried" in warning for warning in report.warnings)
    assert not (tmp_path / "ckconv-was-here").exists()


@pytest.mark.parametrize("case", CASES)
def test_a_target_that_takes_it_is_refused(case: str, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    name, content = CASES[case]
    assert converter.convert(folder, tmp_path / "clean", to="pretrained").counts["mapped"] == 2
    (folder / name).write_bytes(content())
    if name in NEVER_READ:
        report = converter.convert(folder, tmp_path / "out", to="pretrained")
        assert any(name in warning for warning in report.warnings)
        return
    with pytest.raises(CkconvError) as caught:
        converter.convert(folder, tmp_path / "out", to="pretrained")
    assert caught.value.exit_code == (5 if ": code" in case else 1)
    assert str(caught.value.path).endswith(name)
    assert "the file of the weights by itself is converted without it" in str(caught.value)
    assert converter.convert(folder / "model.safetensors", tmp_path / "out", to="pretrained").counts["mapped"] == 2
    if name == "optimizer.pt":
        report = converter.convert(folder, tmp_path / "out", to="pretrained", optimizer="drop", overwrite=True)
        assert (report.optimizer.status, report.optimizer.reason) == ("dropped", "as asked")
        with pytest.raises(CkconvError) as caught:
            converter.convert(folder, tmp_path / "y.safetensors", optimizer="keep")
        assert str(caught.value.path).endswith(name)
    assert not (tmp_path / "ckconv-was-here").exists()


def test_a_link_out_of_the_folder_is_no_veto(folder: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "elsewhere.pt").write_bytes(zipped(pickle.dumps({"state": {}, "param_groups": []}, 2)))
    (folder / "optimizer.pt").symlink_to(tmp_path / "elsewhere.pt")
    done = ckconv(folder, tmp_path / "x.safetensors", without_frameworks=True)
    assert done.returncode == 0, done.stderr
    assert "optimizer.pt (is a link that leaves its folder) not carried" in done.stdout
    assert "dropped: optimizer state: safetensors does not hold it" in done.stdout
    assert ckconv(folder, tmp_path / "out", "--to", "pretrained").returncode == 5


def test_who_takes_all_of_a_source_is_told(folder: Path, ckconv: Ckconv) -> None:
    assert ckconv("inspect", folder).returncode == 0
    (folder / "optimizer.pt").write_bytes(zipped(bomb()))
    assert ckconv("inspect", folder).returncode == 5
    assert ckconv("diff", folder, folder).returncode == 2
    with pytest.raises(CkconvError, match="can run code"):
        converter.read(folder)
