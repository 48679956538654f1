"""What the children that work on a source may read, and how much of everything they get. No framework."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.box.limits import Limits
from converter.graphs.calls import run_onnx, trace_onnx
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.graphs.description.traced import Reference, TracedGraph
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning.sandbox import terms_of
from converter.planning.source import Source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = tmp_path / "model.safetensors"
    tensors = {"a": ArrayTensor.of(np.zeros(1000, np.float32))}
    converter.write(Checkpoint(tensors=tensors), path)
    return Source(checkpoint=converter.read(path), path=path, format="safetensors")


def test_a_child_reads_the_source_and_what_it_is_told(source: Source, tmp_path: Path) -> None:
    terms = terms_of(source, Options())
    assert terms.reads == (source.path,)
    assert (terms.own_code, terms.is_box_required, terms.timeout_seconds) == ((), False, 3600)
    other, graph = tmp_path / "out.onnx", tmp_path / "graph"
    assert terms_of(source, Options(), reads=(other,)).reads == (source.path, other)
    with_graph = replace(
        source.checkpoint, graph=GraphSource(model=graph, trace=trace_onnx, extra="onnx", reference=run_onnx)
    )
    assert terms_of(replace(source, checkpoint=with_graph), Options()).reads == (source.path, graph)


def test_a_graph_is_of_the_kind_that_is_asked_for(tmp_path: Path) -> None:
    own = GraphSource(model=tmp_path, trace=trace_onnx, extra="onnx", reference=run_onnx)
    reference = Reference(runner=run_onnx, model=tmp_path, takes_weights=False)
    traced = TracedGraph(file=tmp_path, signature=Signature(title="", parameters={}), reference=reference)
    for graph, kind, other in ((own, GraphSource, TracedGraph), (traced, TracedGraph, GraphSource)):
        checkpoint = Checkpoint(tensors={}, graph=graph)
        assert kind.of(checkpoint) is graph
        with pytest.raises(TypeError, match=f"is a {other.__name__}, not {kind.__name__}"):
            other.of(checkpoint)
        assert other.of(replace(checkpoint, graph=None)) is None


@pytest.mark.parametrize(
    ("options", "is_own"),
    [({}, False), ({"custom_objects": ("a.b:C",)}, True), ({"model": "a:b", "inputs": "x:int64[n]"}, True)],
    ids=["none", "layers", "model"],
)
def test_a_child_reads_the_working_folder_for_code_of_the_user_s_alone(
    options: dict[str, Any], is_own: bool, source: Source
) -> None:
    assert terms_of(source, Options(**options)).own_code == ((Path.cwd(),) if is_own else ())


def test_limits_are_those_asked_for_and_of_the_larger_of_file_and_tensors(source: Source) -> None:
    assert source.path is not None
    terms = terms_of(source, Options(timeout=7, require_sandbox=True))
    assert (terms.timeout_seconds, terms.is_box_required) == (7, True)
    assert terms.limits == Limits.of(model_bytes=source.path.stat().st_size, timeout_seconds=7)
    tensors = {"a": ArrayTensor.of(np.zeros(1 << 20, np.float32))}
    larger = Source(checkpoint=Checkpoint(tensors=tensors), path=None, format="pytorch")
    assert terms_of(larger, Options()).limits == Limits.of(model_bytes=4 << 20, timeout_seconds=3600)
    assert terms_of(larger, Options()).reads == ()
    assert Limits.of(model_bytes=0, timeout_seconds=math.inf).processor_seconds is None


def test_a_child_follows_the_links_of_a_hugging_face_cache(source: Source, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a" / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--a" / "blobs"
    blobs.mkdir()
    assert source.path is not None
    (blobs / "abcd").write_bytes(source.path.read_bytes())
    (snapshot / "model.safetensors").symlink_to("../../blobs/abcd")
    for path in (snapshot, snapshot / "model.safetensors"):
        cached = Source(checkpoint=converter.read(path), path=path, format="safetensors")
        assert blobs in terms_of(cached, Options()).reads
    assert blobs not in terms_of(source, Options()).reads
