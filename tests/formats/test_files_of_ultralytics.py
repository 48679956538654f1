"""What a trainer of ultralytics saves: whole modules of a package that the reader lacks, in half precision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import converter
from tests.oracle.opened_by_torch import opened
from tests.oracle.real_files import MADE, ROOT, difference, not_told, read_back, weights_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    package, folder = (tmp_path_factory.mktemp(name) for name in ("package", "made"))
    subprocess.run([sys.executable, "-m", "tests.oracle.make_ultralytics", package, folder], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("name", MADE)
def test_every_weight_is_what_torch_reads_and_all_else_is_told(name: str, made: Path, tmp_path: Path) -> None:
    found = {path: tensor.numpy() for path, tensor in opened(made / name).items()}
    expected, outside = weights_of(found, MADE[name])
    assert len(expected) == 29 * len(MADE[name])
    report = converter.convert(made / name, tmp_path / "x.safetensors")
    assert difference(expected, read_back(tmp_path / "x.safetensors")) == ""
    assert not_told(report, outside) == []


def test_an_average_by_its_key(made: Path, tmp_path: Path) -> None:
    converter.convert(made / "last.pt", tmp_path / "x.safetensors", select="ema")
    expected, _ = weights_of({name: each.numpy() for name, each in opened(made / "last.pt").items()}, ("ema",))
    assert difference(expected, read_back(tmp_path / "x.safetensors")) == ""


def test_what_is_wrong_is_seen() -> None:
    one = {"a": np.float32([1, 2]), "b": np.float32([0])}
    assert difference(one, one) == ""
    assert "missing ['b']" in difference(one, {"a": one["a"]})
    assert "differ: ['b']" in difference(one, {**one, "b": np.float32([-0.0])})
    assert "differ: ['a']" in difference(one, {**one, "a": one["a"].astype(np.float64)})
    assert weights_of({"m.w": one["a"], "m.<x>": one["b"], "o.w": one["b"]}, ("m",)) == ({"w": one["a"]}, {"m", "o"})
