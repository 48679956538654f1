"""Graphs from strangers: what does more than compute is refused where the signature reaches it, before TensorFlow sees
it, and gone where it does not; the weights convert either way.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.encoding import protobuf
from converter.encoding.protobuf import content_field
from converter.errors import ArchitectureError, GraphError, ReadError, SafetyError
from converter.graphs.trace.tensorflow import operators
from converter.graphs.trace.tensorflow.cutting import cut
from tests.conftest import ROOT, Ckconv
from tests.graphs.hostile_graph_defs import CASES, WAYS, Case, plant
from tests.graphs.hostile_saved_models import KINDS, REACHED, UNREACHED
from tests.slices import IS_FULL, SEED

pytestmark = pytest.mark.one_in(2)

FIXTURES = ROOT / "fixtures"

OF_TENSORFLOWS_SAVER = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})
"""Every SavedModel has them, those that this program writes too."""
TO_RUN = CASES if IS_FULL else CASES[SEED % 16 :: 16]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.graphs.hostile_saved_models", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def graph_of(model: Path) -> bytes:
    return (model / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("kind", REACHED)
def test_an_operator_that_does_more_than_compute_is_named(models: Path, kind: str) -> None:
    cut(graph_of(models / "harmless/model"))
    with pytest.raises(SafetyError, match=rf"operator {KINDS[kind]} \(node '") as caught:
        cut(graph_of(models / kind / "model"))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("kind", ["write-file", "table-from-file"])
def test_nothing_of_it_is_run_and_its_weights_convert(models: Path, kind: str, tmp_path: Path) -> None:
    source = models / kind / "model"
    converter.convert(source, tmp_path / "w.safetensors")
    converter.convert(source, tmp_path / "weights", to="savedmodel", weights_only=True)
    assert converter.read(source).graph is not None
    assert converter.read(tmp_path / "weights").graph is None
    with pytest.raises(SafetyError, match=f"operator {KINDS[kind]}"):
        converter.convert(source, tmp_path / "out", to="savedmodel")
    config = FIXTURES / "squad-bert/config.json"
    with pytest.raises(SafetyError, match=f"operator {KINDS[kind]}"):  # whatever else could be made of it
        converter.convert(source, tmp_path / "out", to="savedmodel", config=config)
    assert not (tmp_path / "out").exists()
    assert not (models / kind / "mark").exists()


@pytest.mark.parametrize("kind", UNREACHED)
def test_what_only_a_loader_would_run_is_gone(models: Path, kind: str) -> None:
    graph = graph_of(models / kind / "model")
    assert KINDS[kind].encode() in graph
    assert KINDS[kind].encode() not in cut(graph).graph


@pytest.mark.parametrize("kind", ["saver", "table-saver"])
def test_a_model_whose_saver_writes_converts_and_nothing_is_written(models: Path, kind: str, tmp_path: Path) -> None:
    report = converter.convert(models / kind / "model", tmp_path / "out.onnx")
    assert report.verification.outputs
    assert KINDS[kind].encode() not in (tmp_path / "out.onnx").read_bytes()
    assert not list(models.glob("*/mark*"))


@pytest.mark.parametrize(
    "model", ["keras/saved_model", "names/bert_func_savedmodel/saved_model", "optimizer/adam-savedmodel"]
)
def test_what_frameworks_save_is_taken(model: str) -> None:
    cut(graph_of(FIXTURES / model))


def meta_graph_of(model: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(graph_of(model))


@pytest.mark.parametrize("base", ["harmless", "tensorflow-1"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator}-{case.way}")
def test_a_signature_does_not_reach_it(models: Path, base: str, case: Case) -> None:
    """Reached, it is refused whichever way leads there; out of reach, nothing of it is left."""
    saved = meta_graph_of(models / base / "model")
    cut(saved.SerializeToString())
    plant(saved.meta_graphs[0], case, is_reached=True)
    with pytest.raises(SafetyError) as caught:
        cut(saved.SerializeToString())
    assert case.operator in str(caught.value) or case.way == "default_attribute"
    saved = meta_graph_of(models / base / "model")
    plant(saved.meta_graphs[0], case, is_reached=False)
    assert case.operator.encode() in saved.SerializeToString()
    assert case.operator.encode() not in cut(saved.SerializeToString()).graph


def test_every_way_is_tried_and_no_operator_twice() -> None:
    assert len(CASES) >= 40
    assert {case.way for case in CASES} == {*WAYS, "input"}
    assert len({case.operator for case in CASES}) == len(CASES)
    assert operators.COMPUTE.isdisjoint(case.operator for case in CASES)


def copied(model: Path, folder: Path, saved: Any) -> Path:
    shutil.copytree(model, folder)
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


@pytest.mark.parametrize("case", TO_RUN, ids=lambda case: f"{case.operator}-{case.way}")
def test_a_command_ends_with_5_and_no_output(models: Path, case: Case, ckconv: Ckconv, tmp_path: Path) -> None:
    saved = meta_graph_of(models / "harmless/model")
    plant(saved.meta_graphs[0], case, is_reached=True)
    refused = ckconv(copied(models / "harmless/model", tmp_path / "model", saved), tmp_path / "out.onnx")
    assert refused.returncode == 5, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("target", ["onnx", "savedmodel"])
def test_all_of_them_out_of_reach_leave_nothing(models: Path, target: str, ckconv: Ckconv, tmp_path: Path) -> None:
    saved = meta_graph_of(models / "tensorflow-1/model")
    for case in CASES:
        plant(saved.meta_graphs[0], case, is_reached=False)
    source = copied(models / "tensorflow-1/model", tmp_path / "model", saved)
    done = ckconv(source, tmp_path / "out", "--to", target, "--verify", "outputs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()] or [tmp_path / "out"]
    written = b"".join(path.read_bytes() for path in files)
    assert [case.operator for case in CASES if f"planted_{case.operator}".encode() in written] == []
    own = OF_TENSORFLOWS_SAVER if target == "savedmodel" else frozenset()
    names = {case.operator for case in CASES if not any(case.operator in name for name in own)}
    assert [name for name in names if len(name) > len("Print") and name.encode() in written] == []


@pytest.mark.parametrize("kind", ["write-file", "table-saver"])
def test_a_target_from_elsewhere_is_not_loaded_to_verify_it(
    models: Path, kind: str, ckconv: Ckconv, tmp_path: Path
) -> None:
    source = models / "harmless/model"
    honest = ckconv("verify", source, source)
    assert honest.returncode == 0, honest.stderr
    assert "verified outputs" in honest.stdout
    planted = ckconv("verify", source, models / kind / "model", cwd=tmp_path)
    assert planted.returncode in ((5,) if kind in REACHED else (0, 4)), planted.stderr
    assert not list(models.glob("*/mark*"))


def attribute(key: str, value: bytes) -> bytes:
    return content_field(1, key) + content_field(2, value)


def node(name: str, operator: str, *inputs: str, calls: str = "", more: bytes = b"") -> bytes:
    parts = [content_field(1, name), content_field(2, operator), *(content_field(3, each) for each in inputs)]
    called = attribute("f", content_field(10, content_field(1, calls)))
    return b"".join(parts) + (content_field(5, called) if calls else b"") + more


def function(name: str, *nodes: bytes) -> bytes:
    signature = content_field(1, name) + content_field(3, content_field(1, "z"))
    return content_field(1, content_field(1, signature) + b"".join(content_field(3, each) for each in nodes))


def saved_model(
    *nodes: bytes, functions: bytes = b"", saver: str = "", output: str = "", place: str = ":0", taken: str = ""
) -> bytes:
    graph = b"".join(content_field(1, each) for each in nodes) + content_field(2, functions)
    names = content_field(1, f"{saver}:0") + content_field(2, f"{saver}:0") + content_field(3, saver)
    given, pair = (
        content_field(1, name) + content_field(2, content_field(1, tensor))
        for name, tensor in (("x", taken), ("y", f"{output}{place}"))
    )
    ports = (content_field(1, given) if taken else b"") + content_field(2, pair)
    signature = content_field(1, "serving_default") + content_field(2, ports)
    tags = content_field(1, content_field(4, "serve"))
    fields = tags + content_field(2, graph) + content_field(3, names) + content_field(5, signature)
    return protobuf.number_field(1, 1) + content_field(2, fields)


SAVING = function("save", node("write", "SaveV2"))


def test_a_saver_is_not_there() -> None:
    call, plain = node("call", "StatefulPartitionedCall", calls="save"), node("y", "Identity", "x:0")
    part = cut(saved_model(call, plain, node("x", "Placeholder"), functions=SAVING, saver="call", output="y"))
    assert list(part.nodes) == ["y", "x"]
    assert b"save" not in part.graph
    for graph in (
        saved_model(call, functions=SAVING, saver="call", output="call"),
        saved_model(call, node("y", "Identity", "call:0"), functions=SAVING, saver="call", output="y"),
        saved_model(call, node("y", "NoOp", "^call"), functions=SAVING, output="y"),
        saved_model(
            node("y", "PartitionedCall", calls="f"),
            functions=SAVING + function("f", node("n", "PartitionedCall", calls="save")),
            output="y",
        ),
    ):
        with pytest.raises(SafetyError, match="SaveV2"):
            cut(graph)


def test_a_function_does_not_hide_an_operator_of_its_name() -> None:
    cut(saved_model(node("call", "swish_f32"), functions=function("swish_f32", node("n", "Mul")), output="call"))
    hiding = function("WriteFile", node("n", "Mul"))
    with pytest.raises(SafetyError, match="WriteFile"):
        cut(saved_model(node("call", "WriteFile"), functions=hiding, output="call"))
    with pytest.raises(SafetyError, match="NoSuchOperator"):
        cut(saved_model(node("call", "NoSuchOperator"), output="call"))


@pytest.mark.parametrize("name", ["MatMul", "StatefulPartitionedCall", "Identity", "VarHandleOp"])
def test_a_function_is_not_called_as_an_operator_is(name: str) -> None:
    def made(called: str) -> bytes:
        functions = function(called, node("n", "Mul")) + function("f", node("n", "PartitionedCall", calls=called))
        return saved_model(node("y", "PartitionedCall", calls="f"), functions=functions, output="y")

    cut(made("mat_mul"))
    with pytest.raises(ReadError, match=f"a function called '{name}'"):
        cut(made(name))


PLACES = ("", ":", ":100000", ":999999999999", ":a", ":-1", ":+1", ":\u0663", ":0:0", ": 0", ":0 ")


@pytest.mark.parametrize("place", PLACES)
def test_what_a_signature_names_is_an_output_of_a_node(place: str) -> None:
    nodes = node("x", "Placeholder"), node("y", "Split", "x:0")
    cut(saved_model(*nodes, output="y", place=":7", taken="x:0"))
    for graph in (saved_model(*nodes, output="y", place=place), saved_model(*nodes, output="y", taken=f"x{place}")):
        with pytest.raises(ReadError, match="which no node has for an output"):
            cut(graph)


def test_a_signature_names_no_output_that_is_known_not_to_be_there() -> None:
    results = [content_field(3, content_field(1, name)) for name in ("a", "b")]
    functions = content_field(1, content_field(1, content_field(1, "f") + b"".join(results)))
    nodes = node("x", "Placeholder"), node("y", "PartitionedCall", "x:0", calls="f")
    for tensor, place, is_there in (("x:0", ":1", True), ("x:0", ":2", False), ("x:1", ":0", False)):
        graph = saved_model(*nodes, functions=functions, output="y", place=place, taken=tensor)
        if is_there:
            cut(graph)
            continue
        with pytest.raises(ReadError, match="which no node has for an output"):
            cut(graph)


@pytest.mark.parametrize("reference", ["", ":0", "x:", "x:100000", "x:999999999999", "x:a:", "^x:0", "^", "x:0:a"])
def test_what_nodes_and_functions_take_is_written_as_tensorflow_writes_it(reference: str) -> None:
    def in_main(taken: str) -> bytes:
        return saved_model(node("y", "Neg", taken), node("x", "Placeholder"), output="y")

    def in_function(taken: str, returned: str) -> bytes:
        body = content_field(1, content_field(1, "f")) + content_field(3, node("n", "Neg", taken))
        body += content_field(4, content_field(1, "z") + content_field(2, returned))
        return saved_model(node("y", "If", calls="f"), functions=content_field(1, body), output="y")

    for taken in ("x", "x:0", "x:12", "^x"):
        cut(in_main(taken))
    for taken in ("x", "x:output:0", "^x", "x:output"):
        cut(in_function(taken, "n:y:0"))
    for graph in (in_main(reference), in_function(reference, "n:y:0"), in_function("x", reference)):
        with pytest.raises(ReadError, match="which is no output of a node"):
            cut(graph)


def test_functions_in_functions_end_somewhere() -> None:
    def made(count: int, last: str) -> bytes:
        names = [f"f_{number}" for number in range(count)]
        bodies = [node("n", "PartitionedCall", calls=name) for name in names[1:]]
        functions = b"".join(map(function, names, [*bodies, node("n", last, calls=names[0] if last != "Neg" else "")]))
        return saved_model(node("y", "If", calls=names[0]), functions=functions, output="y")

    cut(made(64, "Neg"))
    for graph in (made(65, "Neg"), made(3000, "Neg"), made(1, "PartitionedCall"), made(3, "While")):
        with pytest.raises(GraphError, match="more than 64 deep, or without end"):
            cut(graph)


def test_a_call_of_what_is_not_there_is_refused() -> None:
    call = node("call", "PartitionedCall", calls="f")
    cut(saved_model(call, functions=function("f", node("n", "Mul")), output="call"))
    for name in ("f", "WriteFile", "SymbolicGradient"):
        with pytest.raises(SafetyError, match=f"call of '{name}'"):
            cut(saved_model(node("call", "PartitionedCall", calls=name), output="call"))


HANDLE = content_field(8, protobuf.number_field(1, 20) + content_field(14, content_field(1, "/device:CPU:0")))
OBJECT = content_field(8, protobuf.number_field(1, 21) + content_field(15, content_field(1, "tensorflow::TensorList")))
NUMBERS = content_field(8, protobuf.number_field(1, 1) + content_field(4, b"\0\0\0\0"))
REFUSED = {
    "a handle": (HANDLE, SafetyError),
    "an object": (OBJECT, SafetyError),
    "a list of handles": (content_field(1, HANDLE), SafetyError),
    "a value of its caller": (content_field(9, "T"), SafetyError),
    "two values at once": (NUMBERS + content_field(10, content_field(1, "f")), ReadError),
    "a field of another type": (protobuf.number_field(10, 1), ReadError),
    "a field that is not known": (content_field(11, content_field(1, "f")), ReadError),
}


@pytest.mark.parametrize("what", REFUSED)
def test_attributes_that_could_be_read_otherwise(what: str) -> None:
    value, error = REFUSED[what]
    cut(saved_model(node("y", "Const", more=content_field(5, attribute("value", NUMBERS))), output="y"))
    with pytest.raises(error):
        cut(saved_model(node("y", "Const", more=content_field(5, attribute("value", value))), output="y"))


def test_names_said_twice_are_refused() -> None:
    twice = content_field(5, attribute("value", NUMBERS))
    for graph in (
        saved_model(node("y", "Const"), node("y", "WriteFile"), output="y"),
        saved_model(
            node("y", "PartitionedCall", calls="f"),
            functions=function("f", node("n", "Mul")) + function("f", node("n", "WriteFile")),
            output="y",
        ),
        saved_model(node("y", "Const", more=twice + twice), output="y"),
    ):
        with pytest.raises(ReadError, match="two"):
            cut(graph)


def test_without_a_signature_there_is_nothing_to_run() -> None:
    cut(saved_model(node("y", "Mul"), output="y"))
    with pytest.raises(ReadError, match="no node"):
        cut(saved_model(node("y", "Mul"), output="other"))
    with pytest.raises(ArchitectureError):
        cut(content_field(2, content_field(1, content_field(4, "train"))))


def test_what_is_said_of_places_is_not_handed_on() -> None:
    """Devices, compilers, other threads: all that a node may say besides what it computes."""
    noted = [
        content_field(4, "/job:worker/task:1"),
        content_field(5, attribute("_XlaMustCompile", protobuf.number_field(5, 1))),
        content_field(5, attribute("config_proto", content_field(2, "settings"))),
        content_field(5, attribute("executor_type", content_field(2, "another"))),
        content_field(6, content_field(1, "debug")),
    ]
    calling = node("y", "PartitionedCall", calls="f", more=b"".join(noted))
    part = cut(saved_model(calling, functions=function("f", node("n", "Mul")), output="y"))
    for word in (b"worker", b"_Xla", b"config_proto", b"settings", b"executor", b"debug"):
        assert word in calling
        assert word not in part.graph


def test_the_list_has_no_operator_that_is_known_to_do_more() -> None:
    words = (
        "File",
        "Print",
        "PyFunc",
        "Dataset",
        "Iterator",
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
    assert operators.COMPUTE.isdisjoint({"ImmutableConst", "DecodeProtoV2", "EncodeProto", "GenerateVocabRemapping"})
