"""Graphs from strangers: what does more than compute refuses before TensorFlow loads it; the weights still convert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import converter
from converter.encoding import protobuf
from converter.encoding.protobuf import content_field
from converter.errors import SafetyError
from converter.graphs.trace.tensorflow import operators
from tests.graphs.hostile_saved_models import KINDS

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.graphs.hostile_saved_models", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_that_does_more_than_compute_is_named(models: Path, kind: str) -> None:
    operators.check((models / "harmless/model/saved_model.pb").read_bytes())
    with pytest.raises(SafetyError, match=rf"operator {KINDS[kind]} \(node '") as caught:
        operators.check((models / kind / "model/saved_model.pb").read_bytes())
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("kind", ["write-file", "at-load", "in-unused-function"])
def test_nothing_of_it_is_run_and_its_weights_convert(models: Path, kind: str, tmp_path: Path) -> None:
    source = models / kind / "model"
    converter.convert(source, tmp_path / "w.safetensors")
    converter.convert(source, tmp_path / "weights", to="savedmodel", weights_only=True)
    assert converter.read(source).graph is not None
    assert converter.read(tmp_path / "weights").graph is None
    with pytest.raises(SafetyError, match="operator WriteFile"):
        converter.convert(source, tmp_path / "out", to="savedmodel")
    config = FIXTURES / "squad-bert/config.json"
    with pytest.raises(SafetyError, match="operator WriteFile"):  # whatever else could be made of it
        converter.convert(source, tmp_path / "out", to="savedmodel", config=config)
    assert not (tmp_path / "out").exists()
    assert not (models / kind / "mark").exists()


@pytest.mark.parametrize(
    "model", ["keras/saved_model", "names/bert_func_savedmodel/saved_model", "optimizer/adam-savedmodel"]
)
def test_what_frameworks_save_is_taken(model: str) -> None:
    operators.check((FIXTURES / model / "saved_model.pb").read_bytes())


def node(name: str, operator: str, *inputs: str, calls: str = "") -> bytes:
    called = content_field(1, "f") + content_field(2, content_field(10, content_field(1, calls)))
    parts = [content_field(1, name), content_field(2, operator), *(content_field(3, each) for each in inputs)]
    return b"".join(parts) + (content_field(5, called) if calls else b"")


def function(name: str, *nodes: bytes) -> bytes:
    return content_field(1, content_field(1, content_field(1, name)) + b"".join(content_field(3, n) for n in nodes))


def saved(*nodes: bytes, functions: bytes = b"", saver: str = "", output: str = "") -> bytes:
    graph = b"".join(content_field(1, each) for each in nodes) + content_field(2, functions)
    names = content_field(1, f"{saver}:0") + content_field(2, f"{saver}:0") + content_field(3, saver)
    pair = content_field(1, "y") + content_field(2, content_field(1, f"{output}:0"))
    signature = content_field(1, "serving_default") + content_field(2, content_field(2, pair))
    fields = content_field(2, graph) + content_field(3, names) + content_field(5, signature)
    return protobuf.number_field(1, 1) + content_field(2, fields)


SAVING = function("save", node("write", "SaveV2"))


def test_a_saver_may_save_and_nobody_else() -> None:
    call = node("call", "StatefulPartitionedCall", calls="save")
    operators.check(saved(call, functions=SAVING, saver="call", output="none"))
    for graph in (
        saved(call, functions=SAVING, output="none"),
        saved(call, functions=SAVING, saver="call", output="call"),
        saved(call, node("other", "Identity", "call:0"), functions=SAVING, saver="call"),
        saved(call, node("other", "Identity", "^call"), functions=SAVING, saver="call"),
        saved(call, functions=SAVING + function("f", node("n", "PartitionedCall", calls="save")), saver="call"),
        saved(node("call", "WriteFile"), saver="call"),
    ):
        with pytest.raises(SafetyError, match=r"SaveV2|WriteFile"):
            operators.check(graph)


def test_a_function_does_not_hide_an_operator_of_its_name() -> None:
    operators.check(saved(node("call", "swish_f32"), functions=function("swish_f32", node("n", "Mul"))))
    with pytest.raises(SafetyError, match="WriteFile"):
        operators.check(saved(node("call", "WriteFile"), functions=function("WriteFile", node("n", "Mul"))))
    with pytest.raises(SafetyError, match="NoSuchOperator"):
        operators.check(saved(node("call", "NoSuchOperator")))


def test_the_list_has_no_operator_that_is_known_to_do_more() -> None:
    words = (
        "File",
        "Print",
        "PyFunc",
        "Dataset",
        "Summary",
        "Reader",
        "Save",
        "Restore",
        "Debug",
        "Rpc",
        "Send",
        "Recv",
    )
    assert [name for name in operators.COMPUTE if any(word in name for word in words)] == []
    assert operators.COMPUTE.isdisjoint(operators.SAVER)
    assert operators.COMPUTE.isdisjoint({"ImmutableConst", "DecodeProtoV2", "EncodeProto", "GenerateVocabRemapping"})
