"""Which graph a target gets, and what the processes that make it are asked: these are stood in for here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import (
    WITHOUT_GRAPH,
    ArchitectureError,
    CkconvError,
    GraphError,
    LimitError,
    LossError,
    MissingExtraError,
    UsageError,
)
from converter.execution.workshop import LocalWorkshop
from converter.formats import registry
from converter.graphs import calls
from converter.graphs.description.signature import Signature
from converter.graphs.description.source import GraphSource
from converter.model.checkpoint import Checkpoint, Config
from converter.model.child_function import ChildFunction
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning import graph as planning
from converter.planning.graph import with_graph

NAMES = ("fc.weight", "fc.bias")
SIGNATURE = Signature(
    title="BertModel",
    parameters=dict.fromkeys(NAMES, (DType.FLOAT32, (2,))),
    notes=("how it was chosen",),
)
CONFIG = Config(values={"model_type": "hyper", "architectures": ["BertModel"]}, raw=b"{}")
OWN, OWN_OF_KERAS, OF_CLASS, OF_MODULE, PREPARED = (
    calls.trace_onnx.address,
    calls.trace_keras.address,
    calls.trace_transformers.address,
    calls.trace_user_module.address,
    calls.prepare.address,
)
GRAPH = GraphSource(
    model=Path("/x"), trace=calls.trace_onnx.with_arguments(names={}), reference=calls.run_onnx, extra="onnx"
)
SOURCE = Checkpoint(tensors={name: ArrayTensor.of(np.ones(2, np.float32)) for name in NAMES}, graph=GRAPH)
SAID = "the source's own graph is not used: "


class Asked(dict[str, Mapping[str, Any]]):
    """The calls that were made, by function, in their order; `failing` raises for those that it has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.failing: dict[str, CkconvError] = {}
        self.workshop = LocalWorkshop(folder=folder, scratch=folder)

        def call(_: LocalWorkshop, function: ChildFunction[..., Any], **arguments: Any) -> Any:
            made = function.call(**arguments)
            self[made.address] = made.arguments
            if made.address in self.failing:
                raise self.failing[made.address]
            prepared = {"kernels": [], "rounded": {}, "activations": {}}
            return prepared if made.address == PREPARED else SIGNATURE.to_json()

        monkeypatch.setattr(LocalWorkshop, "call", call)
        monkeypatch.setattr(planning, "require", lambda *_: None)

    def made(
        self, source: Checkpoint, planned: Checkpoint | None = None, to: str = "onnx", **options: Any
    ) -> Checkpoint:
        self.clear()
        return with_graph(planned or source, source, registry()[to], Options(**options), self.workshop)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tmp_path, monkeypatch)


def test_the_sources_own_goes_before_that_of_its_class(asked: Asked) -> None:
    made = asked.made(replace(SOURCE, config=CONFIG))
    assert [*asked] == [OWN, PREPARED]
    assert made.warnings == SIGNATURE.notes
    assert made.graph.reference.takes_weights is False
    assert asked.made(replace(SOURCE, config=CONFIG, graph=None)).graph.reference.takes_weights is True
    assert [*asked] == [OF_CLASS, PREPARED]


def test_a_cache_is_that_of_the_class(asked: Asked) -> None:
    asked.made(replace(SOURCE, config=CONFIG), with_cache=True)
    assert [*asked] == [OF_CLASS, PREPARED]
    assert asked[OF_CLASS]["with_cache"] is True


def test_who_names_a_model_means_it(asked: Asked) -> None:
    named = {"model": "package:factory", "inputs": "x:float32[n]"}
    asked.made(replace(SOURCE, config=CONFIG), **named)
    assert [*asked] == [OF_MODULE, PREPARED]
    assert asked[OF_MODULE]["factory"] == "package:factory"
    with pytest.raises(UsageError, match="--model needs --inputs") as caught:
        asked.made(SOURCE, model="package:factory")
    assert caught.value.hint == 'such as --inputs "input_ids:int64[batch,seq]"'


def test_what_a_graph_needs_is_asked_for_before_a_process_is(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(extra: str, need: str) -> None:
        raise MissingExtraError(extra, need)

    monkeypatch.setattr(planning, "require", missing)
    named = {"model": "package:factory", "inputs": "x:float32[n]"}
    rows: list[tuple[Checkpoint, dict[str, str], str]] = [
        (SOURCE, {}, "reading the graph of the source needs the extra 'onnx'"),
        (replace(SOURCE, config=CONFIG, graph=None), {}, "tracing a model needs the extra 'torch'"),
        (SOURCE, named, "tracing a model needs the extra 'torch'"),
    ]
    for source, options, said in rows:
        with pytest.raises(MissingExtraError, match=said):
            asked.made(source, **options)
        assert [*asked] == []


def test_without_a_graph_and_without_a_config_three_things_help(asked: Asked) -> None:
    with pytest.raises(ArchitectureError, match="says which model this is") as caught:
        asked.made(replace(SOURCE, graph=None))
    assert all(option in str(caught.value.hint) for option in ("--config FILE", "--model pkg", "--weights-only"))
    assert [*asked] == []


def test_what_is_around_a_model_of_transformers_needs_the_config_of_the_whole(asked: Asked) -> None:
    around = {**SOURCE.tensors, "heads.dense.weight": SOURCE.tensors[NAMES[0]]}
    with pytest.raises(ArchitectureError, match="is outside the model of transformers") as caught:
        asked.made(replace(SOURCE, tensors=around, graph=None, config=CONFIG))
    assert "to_json() or get_config() of the whole Keras model" in str(caught.value.hint)


def test_a_graph_that_fails_gives_way_to_that_of_the_class_and_is_said_to(asked: Asked) -> None:
    asked.failing[OWN] = GraphError("it is odd")
    made = asked.made(replace(SOURCE, config=CONFIG))
    assert [*asked] == [OWN, OF_CLASS, PREPARED]
    assert SAID + "it is odd" in made.warnings
    with pytest.raises(GraphError, match="it is odd"):
        asked.made(SOURCE)


def test_a_limit_that_is_reached_is_no_graph_that_fails(asked: Asked) -> None:
    asked.failing[OWN] = LimitError("it took too long")
    with pytest.raises(LimitError, match="it took too long"):
        asked.made(replace(SOURCE, config=CONFIG))
    assert [*asked] == [OWN]


@pytest.mark.parametrize("options", [{"include": ("fc.weight",)}, {"exclude": ("fc.bias",)}])
def test_what_the_graph_uses_is_not_left_out(options: dict[str, Any], asked: Asked) -> None:
    left = replace(SOURCE, tensors={"fc.weight": SOURCE.tensors["fc.weight"]})
    with pytest.raises(LossError, match="was left out, and the graph uses it") as caught:
        asked.made(SOURCE, left, **options)
    assert (caught.value.tensor, caught.value.hint) == ("fc.bias", WITHOUT_GRAPH)
    renamed = SOURCE.with_names(lambda name: f"new.{name}")
    assert asked.made(SOURCE, renamed, **options).graph is not None


def test_nor_is_a_buffer_that_the_graph_uses(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = replace(
        SIGNATURE,
        parameters={"fc.weight": (DType.FLOAT32, (2,))},
        buffers={"fc.bias": (DType.FLOAT32, (2,))},
    )
    monkeypatch.setitem(globals(), "SIGNATURE", signature)
    left = replace(SOURCE, tensors={"fc.weight": SOURCE.tensors["fc.weight"]})
    with pytest.raises(LossError, match="was left out, and the graph uses it") as caught:
        asked.made(SOURCE, left, exclude=("fc.bias",))
    assert caught.value.tensor == "fc.bias"


def test_own_classes_are_for_graphs_that_have_some(asked: Asked) -> None:
    given = ("package:Own",)
    asked.made(SOURCE, custom_objects=given)
    assert "custom_objects" not in asked[OWN]
    graph = replace(
        GRAPH, trace=calls.trace_keras.with_arguments(config={}), reference=calls.run_keras.with_arguments(config={})
    )
    takes = replace(SOURCE, graph=graph)
    made = asked.made(takes, custom_objects=given)
    assert asked[OWN_OF_KERAS]["custom_objects"] == ["package:Own"]
    assert made.graph.reference.runner.arguments["custom_objects"] == ["package:Own"]
    assert "custom_objects" not in asked.made(takes).graph.reference.runner.arguments


@pytest.mark.parametrize(("opset", "exported"), [(None, None), (17, None), (18, 18), (25, 25), (26, None)])
def test_an_opset_is_that_of_the_graph_and_of_the_export_where_torch_has_it(
    opset: int | None, exported: int | None, asked: Asked
) -> None:
    asked.made(replace(SOURCE, config=CONFIG, graph=None), opset=opset)
    assert (asked[OF_CLASS]["opset"], asked[PREPARED]["opset"]) == (exported, opset)
    asked.made(SOURCE, model="package:factory", inputs="x:float32[n]", opset=opset)
    assert (asked[OF_MODULE]["opset"], asked[PREPARED]["opset"]) == (exported, opset)


@pytest.mark.parametrize("to", ["onnx", "savedmodel", "pt2"])
def test_what_a_runtime_computes_inexactly_is_prepared_for_it(to: str, asked: Asked) -> None:
    asked.made(SOURCE, to=to)
    assert asked[PREPARED]["inexact"] == (["DFT", "STFT"] if to == "onnx" else [])
    assert asked[PREPARED]["declared"] == list(NAMES)


def test_a_prefix_before_all_names_is_none_of_the_models(asked: Asked) -> None:
    named = {"model": "package:factory", "inputs": "x:float32[n]"}
    before = SOURCE.with_names(lambda name: f"net.{name}")
    assert asked.made(before, **named).names == NAMES
    more = replace(before, tensors={**before.tensors, "other.fc.weight": SOURCE.tensors["fc.weight"]})
    assert asked.made(more, **named).names == NAMES
    partly = SOURCE.with_names(lambda name: f"net.{name}" if name == "fc.weight" else name)
    made = asked.made(partly, **named)
    assert [line.target for line in made.lines if line.target] == ["fc.weight"]
