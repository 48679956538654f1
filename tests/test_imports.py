"""What an import brings in, and what runs where no framework is installed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter
from tests.conftest import FRAMEWORKS, ROOT, Ckconv, python

_UNWANTED = (*FRAMEWORKS, "h5py", "ray")
_SAY = f"print([name for name in {_UNWANTED!r} if name in sys.modules])"


@pytest.mark.parametrize(
    "program",
    [
        "import converter",
        "import converter; converter.convert, converter.read, converter.write, converter.Checkpoint",
        "from converter.cli import _run; _run(['--version']); _run(['formats'])",
    ],
)
def test_no_framework_is_imported(program: str) -> None:
    loaded = python(f"import sys\n{program}\n{_SAY}")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines()[-1] == "[]"
    control = python(f"import sys, h5py\n{_SAY}")
    assert control.stdout.strip() == "['h5py']"


@pytest.mark.parametrize("target", ["safetensors", "pretrained", "pytorch"])
def test_weights_need_no_framework(
    target: str, squad_bert: Path, tmp_path: Path, ckconv: Ckconv, expected: Callable[[Path], dict[str, Any]]
) -> None:
    result = ckconv(squad_bert, f"{tmp_path}/out/", "--to", target, "--json", without_frameworks=True)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["counts"]["mapped"] == len(expected(squad_bert)["tensors"])
    assert answer["verification"]["weights"]


def test_a_missing_extra_is_one_line(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(squad_bert, tmp_path / "out", "--to", "savedmodel", without_frameworks=True)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines() == [
        "ckconv: writing a savedmodel that runs needs the extra 'tensorflow'; pip install 'ckconv[tensorflow]'"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model", "tf1.ckpt"])
def test_frameworks_files_become_safetensors_without_them(name: str, tmp_path: Path, ckconv: Ckconv) -> None:
    """What Keras 2 and 3 and TensorFlow wrote, bit for bit the framework's own values in PyTorch's layout."""
    folder = ROOT / "fixtures" / "keras"
    described = json.loads((folder / "expected.json").read_text())[name]["tensors"]
    result = ckconv(folder / name, tmp_path / "x.safetensors", "--json", without_frameworks=True)
    assert result.returncode == 0, result.stderr
    found = converter.read(tmp_path / "x.safetensors").tensors
    assert {
        key: {
            "dtype": tensor.dtype.value,
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(tensor.numpy().tobytes()).hexdigest(),
        }
        for key, tensor in found.items()
    } == described


def test_flax_files_become_safetensors_without_flax(tmp_path: Path, ckconv: Ckconv) -> None:
    folder = ROOT / "fixtures" / "flax"
    restored = json.loads((folder / "restored.json").read_text())["arrays"]
    result = ckconv(folder / "arrays.msgpack", tmp_path / "x.safetensors", without_frameworks=True)
    assert result.returncode == 0, result.stderr
    found = converter.read(tmp_path / "x.safetensors").tensors
    for name, (dtype, shape, raw) in restored.items():
        assert (found[name].dtype.value, list(found[name].shape)) == (dtype, shape)
        assert found[name].numpy().tobytes().hex() == raw, name
