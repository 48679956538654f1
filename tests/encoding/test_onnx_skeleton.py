"""What of an ONNX file is not an initializer, as pieces that are copied. No framework."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.encoding.onnx_file import read_skeleton
from converter.encoding.protobuf import content_field, number_field
from converter.errors import ReadError
from converter.model.file import LocalFile, SourceFile
from converter.model.tensor import Tensor

NODE, INITIALIZER, OUTPUT = 1, 5, 12
FIRST, SECOND = content_field(NODE, b"first"), content_field(NODE, b"second")
LAST = content_field(OUTPUT, b"last")
WEIGHT = content_field(INITIALIZER, b"weights")
OPSET = content_field(8, number_field(2, 18))


def written(path: Path, *parts: bytes, version: bytes = number_field(1, 9)) -> SourceFile:
    path.write_bytes(version + b"".join(parts))
    return LocalFile(path)


@pytest.mark.parametrize(
    ("fields", "pieces"),
    [
        ([FIRST, SECOND, LAST], [FIRST + SECOND + LAST]),
        ([WEIGHT, FIRST, WEIGHT, WEIGHT, SECOND, LAST, WEIGHT], [FIRST, SECOND + LAST]),
        ([FIRST, WEIGHT], [FIRST]),
        ([WEIGHT, WEIGHT], []),
        ([], []),
    ],
    ids=["none", "between", "after", "alone", "nothing"],
)
def test_all_but_the_initializers_is_there_in_its_order(
    fields: list[bytes], pieces: list[bytes], tmp_path: Path
) -> None:
    skeleton = read_skeleton(written(tmp_path / "x", content_field(7, b"".join(fields)), OPSET))
    assert (skeleton.ir_version, skeleton.opsets) == (9, (number_field(2, 18),))
    assert [each.numpy().tobytes() for each in skeleton.graph if isinstance(each, Tensor)] == pieces
    assert len(skeleton.graph) == len(pieces)


def test_what_is_no_model_of_one_graph_is_refused(tmp_path: Path) -> None:
    graph = content_field(7, FIRST)
    assert read_skeleton(written(tmp_path / "x", graph, OPSET)).graph
    for parts in ((), (graph, graph)):
        with pytest.raises(ReadError, match="is no model with one graph"):
            read_skeleton(written(tmp_path / "x", *parts))
    with pytest.raises(ReadError, match="is no model with one graph"):
        read_skeleton(written(tmp_path / "x", graph, version=b""))
    with pytest.raises(ReadError, match="has a number where a graph has none"):
        read_skeleton(written(tmp_path / "x", content_field(7, number_field(1, 3))))
