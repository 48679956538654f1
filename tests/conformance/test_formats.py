"""What every format in the registry keeps to, without being named here."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.formats import registry
from converter.formats import written as formats_written
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.file import LocalFile, SourceFile
from converter.model.output import Late, OutputFile, Provenance, Watched
from converter.model.tensor import ArrayTensor, FileTensor, Tensor
from converter.testing import FormatTests, destination_of, options_of, with_config
from tests.conftest import ROOT

EVERY = pytest.mark.parametrize("name", list(formats_written()))
for _format in formats_written().values():
    globals()[f"Test_{_format.name}"] = type(f"Test_{_format.name}", (FormatTests,), {"format": _format})

HUGE_BYTES = 256 << 30
LARGE_BYTES = 192 << 20


_WRITE = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from converter.formats import registry
from converter.testing import SAMPLES, written
format_ = registry()[sys.argv[1]]
for name, sample in SAMPLES.items():
    folder = Path(sys.argv[2], name)
    folder.mkdir()
    written(sample(format_), format_, folder)
"""


@pytest.mark.one_in(3)
@EVERY
def test_the_same_bytes_in_any_process(name: str, tmp_path: Path) -> None:
    sums = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        program = _WRITE.format(root=os.fspath(ROOT))
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, name, folder], env=environment, check=True)
        files = sorted(each for each in folder.rglob("*") if each.is_file() and each.name != "fingerprint.pb")
        sums.append({each.relative_to(folder): hashlib.sha256(each.read_bytes()).hexdigest() for each in files})
    assert sums[0] == sums[1]
    assert sums[0]


@EVERY
def test_a_huge_sparse_file_opens_in_no_time(name: str, tmp_path: Path) -> None:
    """256 GiB that nobody wrote: a sniffer or reader that touches data would never end."""
    format_ = registry()[name]
    data = tmp_path / "data"
    data.touch()
    os.truncate(data, HUGE_BYTES)
    tensor = FileTensor(dtype=DType.FLOAT32, shape=(HUGE_BYTES // 4,), file=LocalFile(data), offset=0)
    provenance = Provenance(tool="test", source_name="data", source_hash=lambda: "")
    checkpoint = with_config(Checkpoint(tensors={"huge": tensor}), format_)
    output = format_.write(checkpoint, format_.write_options(), provenance)
    assert output.build is None
    folder = tmp_path / "out"
    folder.mkdir()
    for file in output.files:
        _sparse(file, folder)
    path = folder if format_.file_name is None else folder / output.files[-1].name
    converter.read(path)  # a parser that had ended is waited for here, and what it read in its life is counted then
    before = bytes_read()
    assert converter.read(path).tensors["huge"].nbytes == HUGE_BYTES
    assert bytes_read() - before < 16 << 20


def bytes_read() -> int:
    """How much this process has read so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def _sparse(file: OutputFile, folder: Path) -> None:
    """Lay a planned file out with holes where its tensors would be."""
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        for piece in file.pieces:
            inner = piece.piece if isinstance(piece, Watched) else piece
            match inner:
                case Tensor():
                    out.seek(inner.nbytes, os.SEEK_CUR)
                case Late():
                    out.write(inner.render())
                case SourceFile():
                    out.write(inner.read(0, inner.size))
                case bytes():
                    out.write(inner)
        out.truncate()


@pytest.fixture(scope="module")
def gibibyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of 1 GiB in sixteen tensors, and rules that reverse the axes of each."""
    folder = tmp_path_factory.mktemp("gibibyte")
    path = folder / "x.safetensors"
    _write_zeros(path, {f"layer.{n}.weight": (8192, 2048) for n in range(16)})
    (folder / "config.json").write_text('{"model_type": "none"}')
    _write_transposing(folder / "rules.json")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def one_large_tensor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of 384 MiB in a tensor of 192 MiB and twelve of 16 MiB, and rules that reverse the axes of each."""
    folder = tmp_path_factory.mktemp("large")
    path = folder / "x.safetensors"
    shapes = {f"layer.{n}.weight": (2048, 2048) for n in range(12)}
    _write_zeros(path, {**shapes, "layer.12.weight": (LARGE_BYTES // 8192, 2048)})
    (folder / "config.json").write_text('{"model_type": "none"}')
    _write_transposing(folder / "rules.json")
    yield path
    path.unlink()


def _write_zeros(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    data = path.with_name("data")
    data.touch()
    os.truncate(data, max(4 * rows * columns for rows, columns in shapes.values()))
    file = LocalFile(data)
    tensors = {
        name: FileTensor(dtype=DType.FLOAT32, shape=shape, file=file, offset=0) for name, shape in shapes.items()
    }
    converter.write(Checkpoint(tensors=tensors), path, verify="none", durable=False)
    data.unlink()


def _write_transposing(path: Path) -> None:
    path.write_text('{"rules": [{"from": "layer.{n}.weight", "to": "turned.{n}.weight", "layout": "transpose"}]}')


_PEAK = """
import resource, sys
sys.path.insert(0, {root!r})
import converter, numpy
import converter.testing
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
converter.convert(sys.argv[1], sys.argv[2], to=sys.argv[3], durable=False, max_memory="64MiB", **{options!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024)
"""


def peak_mebibytes(name: str, source: Path, path: str, **options: Any) -> int:
    """Convert in a process of its own, and return by how much its peak is above what it needs idle."""
    asked = {"verify": "weights", **options_of(registry()[name]), **options}
    program = _PEAK.format(root=os.fspath(ROOT), options=asked)
    command = [sys.executable, "-c", program, os.fspath(source), path, name]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


@pytest.mark.one_in(3)
@EVERY
def test_memory_stays_bounded(name: str, gibibyte: Path, tmp_path: Path) -> None:
    path = destination_of(registry()[name], os.fspath(tmp_path))
    assert peak_mebibytes(name, gibibyte, path) <= 64
    with np.errstate(all="ignore"):
        assert converter.read(path).nbytes == 1 << 30


@pytest.mark.one_in(3)
@EVERY
def test_permuting_takes_the_largest_tensor_and_the_budget(name: str, one_large_tensor: Path, tmp_path: Path) -> None:
    path = destination_of(registry()[name], os.fspath(tmp_path))
    rules = os.fspath(one_large_tensor.with_name("rules.json"))
    assert peak_mebibytes(name, one_large_tensor, path, mapping=rules, jobs=4) <= (LARGE_BYTES >> 20) + 64


@pytest.fixture(scope="module")
def deflated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 96 MiB in one tensor, which torch.save does not deflate, and others do."""
    folder = tmp_path_factory.mktemp("deflated")
    source = folder / "x.pth"
    values = np.random.default_rng(0).integers(0, 16, 1 << 20).astype(np.float32)
    converter.write(Checkpoint(tensors={"weight": ArrayTensor.of(np.tile(values, 24))}), source)
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(folder / "deflated.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
    ):
        for member in archive.namelist():
            out.writestr(zipfile.ZipInfo(member), archive.read(member), zipfile.ZIP_DEFLATED)
    return folder / "deflated.pth"


@pytest.mark.parametrize("dtype", ["bfloat16", None], ids=["cast", "as it is"])
def test_a_deflated_archive_takes_no_more(dtype: str | None, deflated: Path, tmp_path: Path) -> None:
    """Neither inflating nor casting needs a tensor whole."""
    assert peak_mebibytes("safetensors", deflated, f"{tmp_path}/x.safetensors", dtype=dtype) <= 64
