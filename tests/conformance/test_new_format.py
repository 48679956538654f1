"""A format is one new file: put where the registry looks, the whole suite is about it too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

_TOY = '''
"""Toy: a line of JSON that says what is where, then the tensors."""

import json
from pathlib import Path

from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe
from converter.model.checkpoint import Checkpoint, Part
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.output import Output, OutputFile, Provenance
from converter.model.tensor import FileTensor

MAGIC = b"#toy "
LENGTH = 12


def sniff(probe: Probe) -> bool:
    return probe.head.startswith(MAGIC)


def read(path: Path, options: NoOptions) -> Checkpoint:
    file = SourceFile(path)
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


def test_the_suite_picks_a_new_format_up(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(_TOY)
    suites = ["tests/conformance/test_formats.py", "tests/conformance/test_damage.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites]
    result = subprocess.run(
        [*command, "-k", "toy"],
        cwd=ROOT,
        env={**os.environ, "CKCONV_TEST_FORMATS": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= 16
    assert "skipped" not in result.stdout
