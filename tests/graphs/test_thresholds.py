"""The table of thresholds knows every attribute of the installed transformers that is called like one."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.description.cases import sample_cases
from converter.graphs.description.signature import GraphInput, Signature, Threshold
from converter.graphs.trace.thresholds import (
    NAMED_SO,
    NONE,
    OF_FRAMES,
    OF_TOKENS,
    has_growing_positions,
    of_source,
    thresholds,
)
from converter.model.dtype import DType

_KINDS = ("int", "dict")


class Config:
    """A config of transformers, as far as it is looked at."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return self.values


def attributes() -> dict[str, str]:
    """Every attribute of a configuration class that may be an integer and is called like a threshold -> where."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("transformers is not installed")
    named: dict[str, str] = {}
    for file in Path(found.submodule_search_locations[0], "models").glob("*/configuration_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        name, kind = each.target.id, ast.unparse(each.annotation)
                        if NAMED_SO.search(name) and any(word in kind for word in _KINDS):
                            named[name] = f"{node.name}: {kind}"
    return named


def test_no_attribute_of_that_name_is_unknown() -> None:
    found = attributes()
    assert len(found) > 100
    known = OF_TOKENS | OF_FRAMES | {name for names in NONE.values() for name in names}
    assert not {name: where for name, where in found.items() if name not in known}
    assert not known - set(found), "no class has it any more"


def test_a_name_is_a_threshold_or_not() -> None:
    listed = [name for names in NONE.values() for name in names]
    assert len(listed) == len(set(listed))
    assert not (OF_TOKENS | OF_FRAMES) & set(listed)


def test_what_a_config_says() -> None:
    config = Config(
        sliding_window=8,
        attention_window=[16, 32, 16],
        use_cache=True,
        window_size=None,
        chunk_size=0,
        num_local_experts=4,
        rope_parameters={"full": {"rope_type": "longrope", "original_max_position_embeddings": 24, "factor": 2.0}},
    )
    assert thresholds(config, OF_TOKENS) == {
        "attention_window 16": 16,
        "attention_window 32": 32,
        "original_max_position_embeddings 24": 24,
        "sliding_window 8": 8,
    }
    assert thresholds(Config(block_size=4, num_random_blocks=3), OF_TOKENS) == {"block_size 4": 44}
    assert not has_growing_positions(config)
    assert has_growing_positions(Config(rope_parameters={"rope_type": "dynamic"}))


def test_a_window_counts_where_a_layer_has_it() -> None:
    layers = ["full_attention", "sliding_attention"]
    assert thresholds(Config(sliding_window=8, layer_types=layers), OF_TOKENS) == {"sliding_window 8": 8}
    assert thresholds(Config(sliding_window=8, layer_types=layers[:1]), OF_TOKENS) == {}


def of_text(*inputs: tuple[str, DType, tuple[int | str, ...]]) -> Signature:
    made = tuple(GraphInput(name=name, dtype=dtype, shape=shape) for name, dtype, shape in inputs)
    return Signature(title="the graph", parameters={}, inputs=made)


def test_a_sources_own_graph_has_those_of_the_config_beside_it() -> None:
    ids, mask = ("ids", DType.INT64, ("batch", "ids_1")), ("mask", DType.FLOAT32, ("batch", "mask_1"))
    found = of_source(of_text(ids, mask), {"sliding_window": 40, "text_config": {"attention_window": [8, 64]}})
    assert {each.name for each in found.dimensions} == {"ids_1", "mask_1"}
    assert Threshold(name="attention_window 64", dimension="mask_1", count=64) in found.thresholds
    longer = [case.sizes for case in sample_cases(found).cases if case.name.startswith("past ")]
    assert {(each["ids_1"], each["mask_1"]) for each in longer} >= {(45, 45), (72, 72)}


@pytest.mark.parametrize(
    ("shape", "config"),
    [((3, 8), {"sliding_window": 4}), (("batch", "sequence"), {"hidden_size": 4}), (("batch",), {"block_size": 4})],
)
def test_a_graph_or_a_config_without_lengths_has_none(shape: tuple[int | str, ...], config: dict[str, Any]) -> None:
    assert of_source(of_text(("ids", DType.INT64, shape)), config).thresholds == ()


@pytest.mark.parametrize("odd", [7, "x", None, True, {}, {"a": []}, [None], [[[7]]], -1, 10**400])
@pytest.mark.parametrize("key", ["sliding_window", "layer_types", "rope_scaling", "text_config", "block_size"])
def test_a_config_holds_anything(key: str, odd: Any) -> None:
    found = of_source(of_text(("ids", DType.INT64, ("batch", "sequence"))), {"attention_window": 32, key: odd})
    assert sample_cases(found).cases
    assert Threshold(name="attention_window 32", dimension="sequence", count=32) in found.thresholds


def test_an_image_has_none() -> None:
    image = of_text(("pixels", DType.FLOAT32, ("batch", "channels", "height", "width")))
    assert of_source(image, {"window_size": 7}).thresholds == ()


@pytest.mark.parametrize(
    ("window", "beyond"), [(30, None), (1 << 30, "outputs not compared beyond 17 tokens (sliding_window 1073741824)")]
)
def test_the_verdict_on_a_source_with_a_config_says_lengths(window: int, beyond: str | None, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, table = onnx.helper, np.arange(40, dtype=np.float32).reshape(20, 2) / 40
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "length", 2])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "lookup", "sliding_window": window}))
    report = converter.convert(tmp_path / "m.onnx", tmp_path / "out.onnx", config=config)
    assert report.verification.outputs
    assert report.verification.beyond == beyond
