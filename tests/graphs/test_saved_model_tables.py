"""SavedModels that look integers up in tables: what a table holds is read as data, and searched in every graph."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.encoding.object_graph import object_graph
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, bundle_files, read_bundle_inside
from converter.errors import CkconvError, GraphError, ReadError, SafetyError
from converter.graphs.trace.tensorflow import lifting, tables
from converter.graphs.trace.tensorflow.conversion import Source, convert
from converter.graphs.trace.tensorflow.serving import serve
from converter.graphs.trace.tensorflow.tables import Table
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT, Ckconv

tf = pytest.importorskip("tensorflow")
onnx_ir = pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")
keras = pytest.importorskip("keras")

from tests.graphs.hostile_saved_models import add_save, let_table_save, read  # noqa: E402
from tests.graphs.lookup_sources import INT64, SOURCES, ids, mutable, saved, static  # noqa: E402

pytestmark = pytest.mark.one_in(2)

KERAS = tuple(kind for kind in SOURCES if kind.startswith("keras"))
SMALL = 1e-6

Answer = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """Every kind of source, and what a process of its own found of them."""
    folder = tmp_path_factory.mktemp("tables")
    command = [sys.executable, "-m", "tests.graphs.lookup_side", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder, json.loads((folder / "answer.json").read_text())


def model_of(made: tuple[Path, Answer], kind: str) -> Path:
    return made[0] / kind.replace(" ", "-") / "model"


@pytest.mark.parametrize("kind", SOURCES)
def test_the_graph_finds_what_the_tables_of_tensorflow_do(made: tuple[Path, Answer], kind: str) -> None:
    found = made[1][kind]
    assert found.get("error") is None
    assert found["worst"] <= (SMALL if kind in KERAS else 0)
    # A key that is unknown fails an assertion of this layer, whose model is compared on the keys alone.
    assert list(found["failed"]) == (["3"] if kind == "keras without others" else [])
    assert any("lookup table" in note for note in found["notes"])


def test_keys_and_what_is_beside_them_are_asked_for(made: tuple[Path, Answer]) -> None:
    asked = {kind: set(each["asked"]) for kind, each in made[1].items()}
    assert asked["static"] > {2, 3, 4, 5, 6, 8, 9, 10, -1, -(1 << 63), (1 << 63) - 1, 1 << 24}
    assert asked["types"] > {-7, -6, -5, 3, 8, 9, -(1 << 31)}
    assert len(asked["many"]) == 512
    assert not asked["dense"] & {-1, -2}  # these it cannot be asked for
    assert asked["dense"] > {1 << 40, (1 << 40) + 1, 0, 1}
    assert not asked["static"] & {-1 - (1 << 63)}


def test_what_becomes_of_tables_is_said(made: tuple[Path, Answer]) -> None:
    assert made[1]["static"]["notes"] == ["a lookup table of 3 keys is a constant of the graph"]
    assert made[1]["types"]["notes"] == ["3 lookup tables (2, 3 and 2 keys) are constants of the graph"]
    assert len(made[1]["called"]["notes"]) == 2


@pytest.mark.parametrize("target", ["onnx", "savedmodel", "pt2"])
def test_every_target_has_them(made: tuple[Path, Answer], target: str, tmp_path: Path) -> None:
    report = converter.convert(model_of(made, "one after the other"), tmp_path / "out", to=target)
    assert report.verification.outputs
    assert "2 lookup tables (2 and 3 keys) are constants of the graph" in report.warnings
    assert report.counts["mapped"] == 3  # what TensorFlow saved with the variables stays beside the graph
    if target == "onnx":
        session = onnxruntime.InferenceSession(str(tmp_path / "out"), providers=["CPUExecutionProvider"])
        (found,) = session.run(["found"], {"key": np.array([3, 5, 7, 4, -1], np.int64)})
    elif target == "savedmodel":
        serving = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
        found = serving(key=ids(3, 5, 7, 4, -1))["found"].numpy()
    else:
        return
    np.testing.assert_array_equal(found, [0.5, 1.5, -0.5, -0.5, -0.5])


def test_another_value_in_a_table_is_noticed(made: tuple[Path, Answer]) -> None:
    """What proves the search is the source's own table: a graph with another one computes otherwise."""
    served = serve(model_of(made, "static"))
    (node, table), *_ = served.tables.items()
    wrong = Table(keys=table.keys, values=table.values + 1)
    graphs = []
    for each in (table, wrong):
        source = Source(
            title="tables",
            graph=served.graph_def(),
            inputs=served.inputs,
            outputs=served.outputs[:1],
            variables={},
            tables={node: each},
        )
        graphs.append(onnx_ir.to_proto(convert(source).graph).SerializeToString())
    ours, other = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(
            None, {"key": np.array([3, 4], np.int64)}
        )[0]
        for each in graphs
    )
    np.testing.assert_array_equal(ours, [1.5, -7.0])
    np.testing.assert_array_equal(other, [2.5, -7.0])


def test_a_keras_file_has_the_tables_of_its_config(tmp_path: Path, ckconv: Ckconv) -> None:
    def model(layer: Any, dtype: str = "int64") -> Any:
        key = keras.Input((3,), dtype=dtype, name="key")
        return keras.Model(key, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Embedding(9, 4)(layer(key)))))

    model(keras.layers.IntegerLookup(vocabulary=[10, 12, -7, 52])).save(tmp_path / "plain.keras")
    report = converter.convert(tmp_path / "plain.keras", tmp_path / "out.onnx")
    assert report.verification.outputs
    assert "a lookup table of 4 keys is a constant of the graph" in report.warnings
    adapted = keras.layers.IntegerLookup()
    adapted.adapt(np.array([5, 5, 7]))
    model(adapted).save(tmp_path / "adapted.keras")
    model(keras.layers.StringLookup(vocabulary=["a", "b"]), "string").save(tmp_path / "text.keras")
    for name, said in {"adapted": "keys the config does not have", "text": "in a table of text"}.items():
        refused = ckconv(tmp_path / f"{name}.keras", tmp_path / f"{name}.onnx")
        assert refused.returncode == 7, refused.stderr
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_weights_alone_keep_what_is_saved_with_them(made: tuple[Path, Answer], tmp_path: Path) -> None:
    converter.convert(model_of(made, "mutable"), tmp_path / "w.safetensors")
    held = converter.read(tmp_path / "w.safetensors")
    found = dict(
        zip(
            held.tensor("tables/0/.ATTRIBUTES/table-keys").numpy().tolist(),
            held.tensor("tables/0/.ATTRIBUTES/table-values").numpy().tolist(),
            strict=True,
        )
    )
    assert found == {3: 10, 5: 11, -4: 12}


def test_inspect_shows_them(made: tuple[Path, Answer], ckconv: Ckconv) -> None:
    shown = ckconv("inspect", model_of(made, "mutable"))
    assert shown.returncode == 0, shown.stderr
    assert "table-keys" in shown.stdout


# What is no table, or fills one otherwise than with constants.


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    saved(folder, [static(ids(3, 5, 9), ids(1, 2, 3), -1)], lambda key, table: table.lookup(key))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "model"
    saved(folder, [mutable(ids(3, 5, 9), ids(1, 2, 3), -1)], lambda key, table: table.lookup(key))
    return folder


def changed(model: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a SavedModel with its MetaGraphDef changed."""
    shutil.copytree(model, folder)
    found = read(folder)
    change(found.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(found.SerializeToString())
    return folder


def filler(graph: Any) -> tuple[Any, Any]:
    """The call that fills the table, and the function that it calls."""
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    for node in graph.graph_def.node:
        called = functions.get(node.attr["f"].func.name)
        fills = called is not None and any(each.op == "LookupTableImportV2" for each in called.node_def)
        if fills and len(node.input) == 3:
            return node, called
    raise AssertionError("nothing fills the table")


def constant(graph: Any, place: int) -> Any:
    """The tensor that the call takes there."""
    node, _ = filler(graph)
    return next(each for each in graph.graph_def.node if each.name == node.input[place]).attr["value"].tensor


def keys(*numbers: int, dtype: Any = np.int64) -> Callable[[Any], object]:
    def change(graph: Any) -> None:
        constant(graph, 1).CopyFrom(tf.make_tensor_proto(np.array(numbers, dtype)))

    return change


def endless_keys(graph: Any) -> None:
    for place in (1, 2):
        tensor = constant(graph, place)
        tensor.tensor_content = b""
        tensor.int64_val.append(7)
        tensor.tensor_shape.dim[0].size = 1 << 40


def computed_keys(graph: Any) -> None:
    call, _ = filler(graph)
    node = graph.graph_def.node.add(name="computed", op="Neg", input=[call.input[1]])
    node.attr["T"].type = INT64.as_datatype_enum
    call.input[1] = "computed"


def ring(graph: Any) -> None:
    call, _ = filler(graph)
    for name, other in (("one", "two"), ("two", "one")):
        node = graph.graph_def.node.add(name=name, op="Identity", input=[other])
        node.attr["T"].type = INT64.as_datatype_enum
    call.input[1] = "one"


def twice(graph: Any) -> None:
    call, _ = filler(graph)
    graph.graph_def.node.add().CopyFrom(call)
    graph.graph_def.node[-1].name = "again"
    first = next(each for each in graph.graph_def.node if each.op == "NoOp" and f"^{call.name}" in each.input)
    first.input.append("^again")


def never(graph: Any) -> None:
    del graph.signature_def["__saved_model_init_op"]
    graph.collection_def.clear()


def of_extents(*extents: int) -> Callable[[Any], object]:
    """Keys and values of a shape, all of them 7."""

    def change(graph: Any) -> None:
        for place in (1, 2):
            tensor = constant(graph, place)
            tensor.tensor_content = b""
            tensor.int64_val.extend([7] if all(extents) else [])
            del tensor.tensor_shape.dim[:]
            for extent in extents:
                tensor.tensor_shape.dim.add(size=extent)

    return change


def never_by_signature(graph: Any) -> None:
    """The nodes of the collection are run by no loader that finds the signature."""
    graph.graph_def.node.add(name="nothing", op="NoOp")
    graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "nothing"


def of_one_name(graph: Any) -> None:
    """Another node makes the same table, and something else fills that."""
    graph.graph_def.node.add().CopyFrom(next(each for each in graph.graph_def.node if each.op == "HashTableV2"))
    graph.graph_def.node[-1].name = "twin"
    twice(graph)
    next(each for each in graph.graph_def.node if each.name == "again").input[0] = "twin"


def of_one_name_in_the_filler(graph: Any) -> None:
    _, function = filler(graph)
    function.node_def.add().CopyFrom(next(each for each in graph.graph_def.node if each.op == "HashTableV2"))


def on_one_side(graph: Any) -> None:
    call, _ = filler(graph)
    no = graph.graph_def.node.add(name="no", op="Const")
    no.attr["dtype"].type = tf.bool.as_datatype_enum
    no.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(False))
    switch = graph.graph_def.node.add(name="switch", op="Switch", input=["no", "no"])
    taken = graph.graph_def.node.add(name="taken", op="Identity", input=["switch:1"])
    for node in (switch, taken):
        node.attr["T"].type = tf.bool.as_datatype_enum
    call.input.append("^taken")


def removes(graph: Any) -> None:
    _, function = filler(graph)
    found = next(each for each in function.node_def if each.op == "LookupTableImportV2")
    node = function.node_def.add(name="removed", op="LookupTableRemoveV2", input=list(found.input)[:2])
    node.attr["Tin"].type = INT64.as_datatype_enum


def writes(graph: Any) -> None:
    _, function = filler(graph)
    add_save(function.node_def, "/nowhere/mark", "{}:output:0".format)


def many_calls(graph: Any) -> None:
    """Functions that each call the next one several times: a node in each, and 8 ** 20 visits."""
    _, function = filler(graph)
    library = graph.graph_def.library
    for level in range(20):
        more = library.function.add()
        more.signature.name = f"level_{level}"
        for number in range(8 if level else 0):
            node = more.node_def.add(name=f"call_{number}", op="StatefulPartitionedCall")
            node.attr["f"].func.name = f"level_{level - 1}"
    node = function.node_def.add(name="deep", op="StatefulPartitionedCall")
    node.attr["f"].func.name = "level_19"


def of_text(graph: Any) -> None:
    node = next(each for each in graph.graph_def.node if each.op == "HashTableV2")
    node.attr["value_dtype"].type = tf.string.as_datatype_enum


def of_half(graph: Any) -> None:
    node = next(each for each in graph.graph_def.node if each.op == "HashTableV2")
    node.attr["value_dtype"].type = tf.float16.as_datatype_enum


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (keys(3, 5), ReadError, r"keys and values of shapes \[2\] and \[3\]"),
        (keys(3, 5, 3), ReadError, "two values for the key 3"),
        (keys(3, 5, 9, dtype=np.int32), ReadError, "filled with another type"),
        (keys(3, 5, 9, dtype=np.complex64), ReadError, "filled with another type"),
        (endless_keys, GraphError, "of which a graph holds at most 64 as constants"),
        (of_extents(5 << 20), GraphError, "of 80 MiB, of which a graph holds at most 64"),
        (of_extents(3, *[1] * 70), ReadError, "of a shape that no array has"),
        (of_extents(0, 1 << 40, 1 << 40), ReadError, "of a shape that no array has"),
        (computed_keys, GraphError, "that no constants fill"),
        (ring, GraphError, "that no constants fill"),
        (twice, GraphError, "filled in several ways"),
        (never, GraphError, "filled by nothing in its file"),
        (never_by_signature, GraphError, "filled by nothing in its file"),
        (of_one_name, GraphError, "has two nodes, '[^']*' and '[^']*', that make the table"),
        (of_one_name_in_the_filler, GraphError, "that make the table"),
        (on_one_side, GraphError, "fills its tables only where node 'switch' says so"),
        (removes, GraphError, "filled in several ways"),
        (writes, SafetyError, "operator SaveV2 .*may do more than compute"),
        (many_calls, GraphError, "too many steps"),
        (of_text, GraphError, "looks values up in a table of text"),
        (of_half, GraphError, "of a type that no converted graph has"),
    ],
)
def test_what_fills_no_table_of_numbers_is_refused(
    plain: Path, change: Callable[[Any], object], error: type[CkconvError], match: str, tmp_path: Path
) -> None:
    assert len(serve(changed(plain, tmp_path / "same", lambda graph: None)).tables) == 1
    with pytest.raises(error, match=match) as caught:
        serve(changed(plain, tmp_path / "changed", change))
    assert "\n" not in str(caught.value)


def test_a_node_called_as_one_of_a_table_is_refused(made: tuple[Path, Answer], tmp_path: Path) -> None:
    """What makes a table in a function stands in the main graph afterwards, under names that are to be free."""
    model = model_of(made, "dense saved again")
    ((name, table),) = serve(model).tables.items()
    assert table.reserved == (-1, -2)

    def planted(graph: Any) -> None:
        node = graph.graph_def.node.add(name=f"{name}/empty_key", op="Const")
        tensor = tf.make_tensor_proto(3, INT64)
        node.attr["dtype"].type = tensor.dtype
        node.attr["value"].tensor.CopyFrom(tensor)

    with pytest.raises(ReadError, match=f"'{name}/empty_key', which is the name of a table's own node"):
        serve(changed(model, tmp_path / "changed", planted))


def with_saved(model: Path, folder: Path, **arrays: Any) -> Path:
    """A copy of a SavedModel whose bundle has other tensors of its table; None takes one away."""
    shutil.copytree(model, folder)
    prefix = folder / "variables" / "variables"
    bundle = read_bundle_inside(folder, "variables/variables")
    (graph,) = bundle.text(OBJECT_GRAPH_KEY)
    assert any(each.table for each in object_graph(bundle))
    held = {name: ArrayTensor.of(each.numpy()) for name, each in bundle.tensors.items()}
    for name, array in arrays.items():
        key = next(each for each in held if each.endswith(f"table-{name}"))
        if array is None:
            del held[key]
        else:
            held[key] = ArrayTensor.of(np.array(array))
    for each in prefix.parent.iterdir():
        each.unlink()
    for file in bundle_files("variables", held, graph):
        with (prefix.parent / file.name).open("wb") as out:
            for piece in file.pieces:
                file_bytes(piece, out)
    return folder


def file_bytes(piece: Any, out: Any) -> None:
    if isinstance(piece, bytes):
        out.write(piece)
    elif hasattr(piece, "render"):
        out.write(piece.render())
    else:
        for chunk in piece.piece.chunks():
            piece.sum.update(chunk)
            out.write(chunk)


@pytest.mark.parametrize(
    ("arrays", "error", "match"),
    [
        ({"keys": [3, 5]}, ReadError, r"keys and values of shapes \[2\] and \[3\]"),
        ({"keys": [3, 5, 3]}, ReadError, "two values for the key 3"),
        ({"keys": np.array([3, 5, 9], np.int32)}, ReadError, "filled with another type"),
        ({"keys": np.zeros((3, 2), np.int64)}, ReadError, r"shapes \[3, 2\]"),
        ({"keys": np.int64(3)}, ReadError, r"shapes \[\]"),
        ({"values": [[1, 2], [3, 4], [5, 6]]}, ReadError, r"and \[3, 2\]"),
        ({"values": None}, ReadError, "was saved"),
        ({"keys": None, "values": None}, GraphError, "filled by nothing"),
    ],
)
def test_what_is_saved_of_no_table_is_refused(
    kept: Path, arrays: dict[str, Any], error: type[CkconvError], match: str, tmp_path: Path
) -> None:
    (table,) = serve(with_saved(kept, tmp_path / "same", keys=[9, 3, 5])).tables.values()
    assert table.keys.tolist() == [3, 5, 9]
    with pytest.raises(error, match=match):
        serve(with_saved(kept, tmp_path / "changed", **arrays))


def _inserting(key: Any, table: Any) -> Any:
    table.insert(key, key)
    return table.lookup(key)


def _exporting(key: Any, table: Any) -> Any:
    return table.export()[0]


def _of_two(key: Any, first: Any, second: Any) -> Any:
    handle = tf.cond(tf.size(key) > 1, lambda: first.resource_handle, lambda: second.resource_handle)
    return tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=key, default_value=tf.constant(-1, INT64))


def _turned(key: Any, first: Any, second: Any) -> Any:
    handles = first.resource_handle, second.resource_handle
    for _ in tf.range(tf.size(key)):
        handles = handles[1], handles[0]
    return tf.raw_ops.LookupTableFindV2(table_handle=handles[0], keys=key, default_value=tf.constant(-1, INT64))


@pytest.mark.parametrize(
    ("look_up", "count", "match"),
    [
        (_inserting, 1, "LookupTableInsertV2 .* does more with a table than look values up"),
        (_exporting, 1, "LookupTableExportV2 .* does more with a table than look values up"),
        (_of_two, 2, "chooses between tables"),
        (_turned, 2, "chooses between tables"),
    ],
)
def test_what_no_search_is_in_the_place_of_is_refused(
    look_up: Callable[..., Any], count: int, match: str, tmp_path: Path, ckconv: Ckconv
) -> None:
    saved(tmp_path / "model", [mutable(ids(3, 5), ids(place, 7), -1) for place in range(count)], look_up)
    refused = ckconv(tmp_path / "model", tmp_path / "out.onnx")
    assert refused.returncode == 7, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert re.search(match, refused.stderr)


def test_many_searches_in_a_large_table_are_refused(monkeypatch: pytest.MonkeyPatch, plain: Path) -> None:
    """Each search has the table as constants of its own while the graph is made."""
    served = serve(plain)
    monkeypatch.setattr(lifting, "LIMIT_BYTES", 47)
    with pytest.raises(GraphError, match="counted at each use"):
        lifting.lift(served.graph_def(), {}, served.tables, ["StatefulPartitionedCall"])
    monkeypatch.setattr(lifting, "LIMIT_BYTES", 48)
    lifting.lift(served.graph_def(), {}, served.tables, ["StatefulPartitionedCall"])
    monkeypatch.setattr(tables, "LIMIT_BYTES", 47)
    with pytest.raises(GraphError, match="of which a graph holds at most"):
        serve(plain)


def test_a_saver_that_writes_is_gone(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "model")
    let_table_save(tmp_path / "model", str(tmp_path / "mark"))
    report = converter.convert(tmp_path / "model", tmp_path / "out.onnx")
    assert report.verification.outputs
    assert list(tmp_path.glob("mark*")) == []


def test_a_table_from_a_file_is_refused_and_the_file_left_alone(tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "vocabulary").write_text("3\n5\n")
    source = tf.lookup.TextFileInitializer(
        str(tmp_path / "vocabulary"),
        INT64,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        INT64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    saved(tmp_path / "model", [tf.lookup.StaticHashTable(source, -1)], lambda key, table: table.lookup(key))
    refused = ckconv(tmp_path / "model", tmp_path / "out.onnx")
    assert refused.returncode == 5, refused.stderr
    assert "InitializeTableFromTextFileV2" in refused.stderr
