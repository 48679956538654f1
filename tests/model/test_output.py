"""A plan says how many bytes it takes and in which order files appear; provenance fits what was laid out for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converter.model.file import LocalFile
from converter.model.ledger import Status
from converter.model.output import Late, Output, OutputFile, Provenance, Watched
from converter.model.tensor import ArrayTensor


def test_bytes_and_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "asset").write_bytes(bytes(70))
    tensor = ArrayTensor.of(np.zeros((2, 3), np.float32))
    pieces = [b"head", tensor, Watched(piece=tensor, sum=None), Watched(piece=b"12", sum=None)]  # type: ignore[arg-type]
    late = Late(nbytes=5, render=lambda: b"12345")
    files = (
        OutputFile(name="data", pieces=[*pieces, late]),
        OutputFile(name="asset", pieces=[LocalFile(tmp_path / "asset")]),
    )
    assert [file.nbytes for file in files] == [4 + 24 + 24 + 2 + 5, 70]
    output = Output(files=files, names={}, built=("graph",), build_bytes=1000, scratch_bytes=300)
    assert output.nbytes == 59 + 70 + 1000
    assert output.space_bytes == 59 + 70 + 1000 + 300
    assert output.file_names == ("data", "asset", "graph")


@pytest.mark.parametrize("count", [0, 7, 123_456_789, 10**9])
@pytest.mark.parametrize("digits", ["", "f" * 64])
def test_provenance_has_the_bytes_that_were_laid_out(count: int, digits: str) -> None:
    counts = dict.fromkeys((status.value for status in Status), count)
    options = {"exclude": ["ü"]}
    provenance = Provenance(tool="ckconv 1", source_name="ü.pth", source_hash=lambda: digits, options=options)
    laid_out = provenance.nbytes
    provenance.counts = counts
    rendered = provenance.render()
    assert len(rendered) == laid_out
    assert json.loads(rendered) == {
        "generator": "ckconv 1",
        "options": options,
        "source": {"name": "ü.pth"},
        "source_hash": {"algorithm": "blake3", "hex": digits},
        "ledger": counts,
    }
