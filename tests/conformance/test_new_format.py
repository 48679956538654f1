"""Formats and dialects of other packages, by their entry points: the whole suite is about them too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT

_TOY = '''
"""Toy: a line of JSON that says what is where, then the tensors."""

import json
from pathlib import Path

from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import FileTensor

MAGIC = b"#toy "
LENGTH = 12


def sniff(probe: Probe) -> bool:
    return probe.head.startswith(MAGIC)


def read(path: Path, options: NoOptions) -> Checkpoint:
    file = LocalFile(path)
    try:
        length = int(file.read(len(MAGIC), LENGTH))
        header = json.loads(file.read(len(MAGIC) + LENGTH, length))
    except ValueError as error:
        raise ReadError(f"is no toy: {error}", path=path) from error
    start = len(MAGIC) + LENGTH + length
    tensors = {}
    for name, (dtype, shape, offset) in header["tensors"].items():
        tensors[name] = FileTensor(dtype=DType(dtype), shape=tuple(shape), file=file, offset=start + offset)
    return Checkpoint(tensors=tensors, aliases=header["aliases"])


def write(checkpoint: Checkpoint, options: NoOptions, provenance: Provenance) -> Output:
    entries, offset = {}, 0
    for name, tensor in checkpoint.tensors.items():
        entries[name] = (tensor.dtype.value, tensor.shape, offset)
        offset += tensor.nbytes
    header = json.dumps({"tensors": entries, "aliases": dict(checkpoint.aliases)}).encode()
    pieces = (MAGIC + b"%12d" % len(header) + header, *checkpoint.tensors.values())
    return Output(files=(OutputFile(name="model.toy", pieces=pieces),), names={name: name for name in checkpoint.names})


FORMAT = Format(
    name="toy",
    description="a toy",
    suffixes=(".toy",),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset(DType),
    sniff=sniff,
    read=read,
    write=write,
    file_name="model.toy",
)
'''


_DIALECT = """
from dataclasses import replace


def renamed(checkpoint):
    tensors = {f"mine.{name}": each for name, each in checkpoint.tensors.items()}
    return replace(checkpoint, tensors=tensors, origins={new: new[5:] for new in tensors}, dialect="pytorch")
"""


def install(folder: Path, **points: str) -> dict[str, str]:
    """Lay out an installed package with entry points, and return the environment in which Python finds it."""
    about = folder / "toys-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"[ckconv.{group}]\ntoy = {value}\n" for group, value in points.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return {**os.environ, "PYTHONPATH": os.pathsep.join((os.fspath(folder), os.fspath(ROOT)))}


def test_the_suite_is_about_a_format_of_another_package_too(tmp_path: Path) -> None:
    (tmp_path / "toys.py").write_text(_TOY)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance/test_formats.py"]
    result = subprocess.run(
        [*command, "-k", "toy"],
        cwd=ROOT,
        env=install(tmp_path, formats="toys:FORMAT"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= 16
    assert "skipped" not in result.stdout


def ckconv(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "converter", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_dialect_of_another_package(tmp_path: Path) -> None:
    """A format whose names are of a dialect that this program does not know brings the function that does."""
    said = 'aliases=header["aliases"], dialect="toy")'
    (tmp_path / "toys.py").write_text(_TOY.replace('aliases=header["aliases"])', said) + _DIALECT)
    environment = install(tmp_path, formats="toys:FORMAT", dialects="toys:renamed")
    source, made, back = (f"{tmp_path}/{name}" for name in ("a.safetensors", "b.toy", "c.safetensors"))
    converter.write(Checkpoint(tensors={"w": ArrayTensor.of(np.ones(3, np.float32))}), source)
    for arguments in ((source, made), (made, back)):
        result = ckconv(*arguments, environment=environment)
        assert result.returncode == 0, result.stderr
    assert list(converter.read(back).tensors) == ["mine.w"]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({"formats": "nowhere:FORMAT"}, "entry point toy of ckconv.formats, nowhere:FORMAT, cannot be loaded"),
        ({"formats": "json:loads"}, "is no converter.formats.Format but function"),
        ({"formats": "converter.formats.safetensors:FORMAT"}, "two formats are called 'safetensors'"),
    ],
)
def test_an_entry_point_that_is_none_is_said(points: dict[str, str], said: str, tmp_path: Path) -> None:
    result = ckconv("formats", environment=install(tmp_path, **points))
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
