"""TensorProtos that onnx made, and what is done to them afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.encoding import onnx_tensors, protobuf
from converter.encoding.onnx_file import Model, model_files, read_model
from converter.encoding.onnx_tensors import TYPE_NUMBERS
from converter.errors import CkconvError, ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor, FileTensor

onnx = pytest.importorskip("onnx")

SHAPE = (2, 3)


def bits(dtype: DType) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(0)
    limit = 2 if dtype is DType.BOOL else 256
    raw = generator.integers(0, limit, (*SHAPE, dtype.itemsize), dtype=np.uint8)
    return raw.view(dtype.numpy).reshape(SHAPE)


def proto(array: np.ndarray[Any, Any], name: str = "w", **more: Any) -> Any:
    made = onnx.TensorProto(name=name, dims=array.shape, data_type=TYPE_NUMBERS[DType.of(array.dtype)], **more)
    if not more:
        made.raw_data = array.tobytes()
    return made


def typed(dtype: DType) -> Any:
    """A tensor in the typed field that onnx.proto gives its type."""
    array = bits(dtype)
    made = proto(array, raw_data=b"")
    made.ClearField("raw_data")
    if dtype.value.startswith("complex"):
        wide = array.view(np.float32 if dtype is DType.COMPLEX64 else np.float64).reshape(-1)
        (made.float_data if dtype is DType.COMPLEX64 else made.double_data).extend(wide.tolist())
    elif dtype in (DType.FLOAT32, DType.FLOAT64):
        (made.float_data if dtype is DType.FLOAT32 else made.double_data).extend(array.reshape(-1).tolist())
    else:
        stored = array if "int" in dtype.value else array.view(f"u{dtype.itemsize}")
        field = {"int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data"}.get(dtype.value, "int32_data")
        getattr(made, field).extend(stored.reshape(-1).tolist())
    return made


def model(*initializers: Any, **more: Any) -> Any:
    return onnx.ModelProto(ir_version=10, graph=onnx.GraphProto(name="g", initializer=initializers, **more))


def read(folder: Path, made: Any) -> Model:
    path = folder / "x.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return read_model(LocalFile(path))


def assert_refused(folder: Path, made: Any, what: str, error: type[CkconvError] = ReadError) -> None:
    with pytest.raises(error, match=what) as caught:
        read_all(folder, made)
    assert caught.value.path is None or caught.value.path.startswith(str(folder))


def read_all(folder: Path, made: Any) -> None:
    for tensor in read(folder, made).tensors.values():
        tensor.numpy()


def assert_holds(found: Model, dtype: DType) -> None:
    (value,) = (tensor.numpy() for tensor in found.tensors.values())
    assert (value.dtype, value.shape, value.tobytes()) == (dtype.numpy, SHAPE, bits(dtype).tobytes())


@pytest.mark.parametrize("dtype", TYPE_NUMBERS)
def test_every_type_in_every_way(dtype: DType, tmp_path: Path) -> None:
    raw = read(tmp_path, model(proto(bits(dtype))))
    assert_holds(raw, dtype)
    assert isinstance(raw.tensors["w"], FileTensor)
    is_nan_kept = dtype.value not in ("float32", "complex64")  # Python doubles quiet the NaNs of floats
    made = typed(dtype)
    golden = onnx.numpy_helper.to_array(made)
    found = read(tmp_path, model(made)).tensors["w"].numpy()
    assert (found.shape, found.tobytes()) == (golden.shape, golden.astype(found.dtype).tobytes())
    assert not is_nan_kept or found.tobytes() == bits(dtype).tobytes()


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64, DType.INT8, DType.UINT64, DType.BFLOAT16])
def test_numbers_that_are_not_packed(dtype: DType, tmp_path: Path) -> None:
    made = typed(dtype)
    (descriptor,) = (field for field, _ in made.ListFields() if field.name.endswith("_data"))
    values = list(getattr(made, descriptor.name))
    golden = read(tmp_path, model(made)).tensors["w"].numpy()
    head = onnx.TensorProto(name="w", dims=SHAPE, data_type=made.data_type).SerializeToString()
    singles = b"".join(single(descriptor.number, value, dtype) for value in values[:2])
    packed = onnx.TensorProto(**{descriptor.name: values[2:]}).SerializeToString()
    graph = protobuf.content_field(7, protobuf.content_field(5, head + singles + packed))
    found = read(tmp_path, protobuf.number_field(1, 10) + graph).tensors["w"].numpy()
    assert found.tobytes() == golden.tobytes()


def single(number: int, value: Any, dtype: DType) -> bytes:
    if dtype.value in ("float32", "float64"):
        wire_type = protobuf.FIXED32 if dtype.itemsize == 4 else protobuf.FIXED64
        return protobuf.tag(number, wire_type) + np.array(value, dtype.numpy).tobytes()
    return protobuf.tag(number, protobuf.VARINT) + protobuf.varint(value)


def test_odd_shapes(tmp_path: Path) -> None:
    arrays = {"scalar": np.array(1.5, np.float32), "empty": np.zeros((0, 3), np.int8), "é/../x": np.ones((1,) * 9)}
    found = read(
        tmp_path,
        model(*(proto(array, name) for name, array in arrays.items()), proto(np.zeros(0), "none", raw_data=b"")),
    )
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name].numpy(), array)
    bare = onnx.TensorProto(name="bare", dims=[0], data_type=7)
    assert read(tmp_path, model(bare)).tensors["bare"].shape == (0,)


def changed(**more: Any) -> Any:
    made = proto(bits(DType.FLOAT32))
    for name, value in more.items():
        made.ClearField(name)
        if isinstance(value, list):
            getattr(made, name).extend(value)
        elif value is not None:
            setattr(made, name, value)
    return made


def entries(**values: str) -> list[Any]:
    return [onnx.StringStringEntryProto(key=key, value=value) for key, value in values.items()]


INT8 = {"data_type": 3, "raw_data": None}
BAD_TENSORS = {
    r"impossible shape \[-2": changed(dims=[-2, -3]),
    "needs 73786976294838206464": changed(dims=[1 << 32, 1 << 32]),
    "23 bytes, float32": changed(raw_data=bytes(23)),
    "type number 22": changed(data_type=22),
    "type number 8": changed(data_type=8),
    "type number None": changed(data_type=None),
    "0 names": changed(name=None),
    "empty one": changed(name=""),
    "has no values": changed(raw_data=None),
    "its values twice": changed(float_data=[1.0]),
    "or not where it says": changed(external_data=entries(location="x")),
    "unknown location 2": changed(data_location=None),
    "has 5 values": changed(raw_data=None, float_data=[1.0] * 5),
    "bytes of numbers, its shape": changed(**INT8, int32_data=[1] * 5),
    "holds 5 numbers": changed(data_type=6, raw_data=None, int32_data=[300] * 5),
    "no int8": changed(**INT8, int32_data=[1] * 5 + [128]),
    "no bool": changed(data_type=9, raw_data=None, int32_data=[1] * 5 + [2]),
    "no float16": changed(data_type=10, raw_data=None, int32_data=[1] * 5 + [65536]),
    "no uint32": changed(data_type=12, raw_data=None, uint64_data=[1] * 5 + [1 << 32]),
    "has no values ?": changed(data_type=7, raw_data=None, int32_data=[1] * 6),
    "stored in segments": changed(segment=None),
}


@pytest.mark.parametrize("problem", BAD_TENSORS)
def test_malformed_tensors_are_refused(problem: str, tmp_path: Path) -> None:
    made = BAD_TENSORS[problem]
    assert_holds(read(tmp_path, model(changed())), DType.FLOAT32)
    data = made.SerializeToString()
    if problem == "stored in segments":
        data += protobuf.content_field(3, b"\x08\x00")
    if problem == "unknown location 2":
        data += protobuf.number_field(14, 2)
    graph = protobuf.content_field(7, protobuf.content_field(5, data))
    assert_refused(tmp_path, protobuf.number_field(1, 10) + graph, problem)


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (protobuf.number_field(2, 1), "field 2 twice"),
        (protobuf.content_field(9, b""), "field 9 twice"),
        (protobuf.content_field(8, "w"), "2 names"),
        (protobuf.number_field(9, 1), "another wire type"),
        (protobuf.content_field(2, b""), "another wire type"),
        (protobuf.fixed32_field(1, 1), "another wire type"),
        (protobuf.number_field(10, 1), "another wire type"),
        (protobuf.tag(99, 3), "wire type 3"),
        (b"\x00", "field number 0"),
        (b"\x0a", "ends inside"),
        (protobuf.tag(9, 2) + protobuf.varint(1 << 40), "runs past its end"),
    ],
)
def test_malformed_messages_are_refused(extra: bytes, what: str, tmp_path: Path) -> None:
    good = proto(bits(DType.FLOAT32)).SerializeToString()

    def encoded(tensor: bytes) -> bytes:
        return protobuf.number_field(1, 10) + protobuf.content_field(7, protobuf.content_field(5, tensor))

    assert_holds(read(tmp_path, encoded(good + protobuf.content_field(12, "a doc string"))), DType.FLOAT32)
    assert_refused(tmp_path, encoded(good + extra), what)


def test_numbers_longer_than_64_bits_are_refused(tmp_path: Path) -> None:
    def encoded(numbers: bytes) -> bytes:
        head = onnx.TensorProto(name="w", dims=[1], data_type=7).SerializeToString()
        tensor = head + protobuf.content_field(7, numbers)
        return protobuf.number_field(1, 10) + protobuf.content_field(7, protobuf.content_field(5, tensor))

    assert read(tmp_path, encoded(b"\xff" * 9 + b"\x01")).tensors["w"].numpy().tolist() == [-1]
    assert_refused(tmp_path, encoded(b"\xff" * 9 + b"\x02"), "more than 64 bits")
    assert_refused(tmp_path, encoded(b"\xff" * 10), "more than 64 bits")
    assert_refused(tmp_path, encoded(b"\xff" * 9), "holds 0 numbers")


def test_models_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = proto(bits(DType.FLOAT32)), proto(bits(DType.FLOAT32), "v")
    good = model(one, two)
    assert list(read(tmp_path, good).tensors) == ["w", "v"]
    assert_refused(tmp_path, model(one, one), "name of two initializers")
    assert_refused(tmp_path, good.SerializeToString() * 2, "2 graphs")
    assert_refused(tmp_path, onnx.ModelProto(ir_version=10), "0 graphs")
    assert_refused(tmp_path, model(one, sparse_initializer=[onnx.SparseTensorProto()]), "0 names")
    good.metadata_props.extend(entries(a="b"))
    assert read(tmp_path, good).metadata == {"a": "b"}
    good.metadata_props.extend(entries(a="c"))
    assert_refused(tmp_path, good, "'a' twice")
    monkeypatch.setattr("converter.encoding.onnx_file.LIMIT_BYTES", 10)
    assert_refused(tmp_path, model(one), "ends at 2 GiB")


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    small = typed(DType.INT8)
    small.name = "v"
    whole = model(proto(bits(DType.FLOAT32)), small).SerializeToString()
    read(tmp_path, whole)
    for length in range(len(whole)):
        with pytest.raises(ReadError):
            read(tmp_path, whole[:length])


def test_strings_and_inner_graphs_are_told_apart(tmp_path: Path) -> None:
    text = onnx.helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"hello"])
    inner = onnx.GraphProto(name="inner", initializer=[proto(bits(DType.INT8), "inside")])
    outer = onnx.GraphProto(name="outer", node=[onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner)])
    loop = onnx.helper.make_node("Loop", ["c"], ["x"], body=outer)
    constant = onnx.helper.make_node("Constant", [], ["k"], value=proto(bits(DType.INT8), "constant"))
    made = model(proto(bits(DType.FLOAT32)), text, node=[constant, loop])
    made.functions.append(onnx.FunctionProto(name="f", node=[loop]))
    made.training_info.append(onnx.TrainingInfoProto(initialization=inner))
    found = read(tmp_path, made)
    assert (list(found.tensors), found.texts, found.training) == (["w"], ("t",), ("inside",))
    inside = {f"{path}/If_0/then_branch/inside": 6 for path in ("Loop_1/body", "f/Loop_0/body")}
    assert {name: held.numbers for name, held in found.constants.items()} == {"k": 6, **inside}
    assert found.has_training


def nested(levels: int) -> Any:
    graph = onnx.GraphProto(name="g", initializer=[proto(bits(DType.INT8), "inside")])
    for _ in range(levels):
        graph = onnx.GraphProto(node=[onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph)])
    return onnx.ModelProto(ir_version=10, graph=graph)


def test_depth_is_bounded(tmp_path: Path) -> None:
    assert list(read(tmp_path, nested(32)).constants) == ["inside"]
    assert_refused(tmp_path, nested(33), "graphs inside graphs")


ODD = "odd_name"
PLACES: dict[str, Callable[[Any], Any]] = {
    "input of a node": lambda made: made.graph.node[0].input.append(ODD),
    "output of a node": lambda made: made.graph.node[0].output.append(ODD),
    "node": lambda made: setattr(made.graph.node[0], "name", ODD),
    "operator": lambda made: setattr(made.graph.node[0], "op_type", ODD),
    "domain": lambda made: setattr(made.graph.node[0], "domain", ODD),
    "attribute": lambda made: made.graph.node[0].attribute.add(name=ODD),
    "constant": lambda made: setattr(made.graph.node[0].attribute[0].t, "name", ODD),
    "node of a branch": lambda made: setattr(made.graph.node[1].attribute[0].g.node[0], "name", ODD),
    "output of a branch": lambda made: made.graph.node[1].attribute[0].g.output.add(name=ODD),
    "graph": lambda made: setattr(made.graph, "name", ODD),
    "input": lambda made: made.graph.input.add(name=ODD),
    "output": lambda made: made.graph.output.add(name=ODD),
    "value": lambda made: made.graph.value_info.add(name=ODD),
    "dimension": lambda made: made.graph.input.add(name="x").type.tensor_type.shape.dim.add(dim_param=ODD),
    "initializer": lambda made: setattr(made.graph.initializer[0], "name", ODD),
    "function": lambda made: setattr(made.functions[0], "name", ODD),
    "input of a function": lambda made: made.functions[0].input.append(ODD),
    "node of a function": lambda made: setattr(made.functions[0].node[0], "name", ODD),
    "operator set": lambda made: made.opset_import.add(domain=ODD),
}


def computing() -> Any:
    """A model with a constant, a branch and a function."""
    constant = onnx.helper.make_node("Constant", [], ["k"], value=proto(bits(DType.INT8), "constant"))
    branch = onnx.GraphProto(name="branch", node=[onnx.helper.make_node("Neg", ["k"], ["n"])])
    made = model(
        proto(bits(DType.FLOAT32)), node=[constant, onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch)]
    )
    made.functions.append(onnx.FunctionProto(name="f", node=[constant]))
    return made


@pytest.mark.parametrize("place", PLACES)
def test_names_are_text(place: str, tmp_path: Path) -> None:
    made = computing()
    PLACES[place](made)
    encoded = made.SerializeToString()
    assert encoded.count(ODD.encode()) == 1
    read(tmp_path, encoded)
    with pytest.raises(ReadError, match="is not UTF-8"):
        read(tmp_path, encoded.replace(ODD.encode(), b"odd\xff\xfeame"))


@pytest.mark.parametrize("kind", ["constant", "listed", "sparse", "in a branch", "in a function", "of a branch"])
def test_tensors_of_nodes_stay_in_the_folder(kind: str, tmp_path: Path) -> None:
    def made(location: str, **more: Any) -> Any:
        found = computing()
        attribute = found.graph.node[0].attribute[0]
        branch = found.graph.node[1].attribute[0].g
        tensor = changed(raw_data=None, data_location=1, **more)
        tensor.external_data.extend(entries(location=location))
        if kind == "constant":
            attribute.t.CopyFrom(tensor)
        elif kind == "listed":
            attribute.tensors.append(tensor)
        elif kind == "sparse":
            tensor.dims[:], places = [6], onnx.helper.make_tensor("", onnx.TensorProto.INT64, [6], range(6))
            attribute.sparse_tensor.CopyFrom(onnx.SparseTensorProto(values=tensor, indices=places, dims=[6]))
        elif kind == "in a branch":
            branch.node[0].attribute.add(name="value").t.CopyFrom(tensor)
        elif kind == "in a function":
            found.functions[0].node[0].attribute[0].t.CopyFrom(tensor)
        else:
            branch.initializer.append(tensor)
        return found

    if kind != "sparse":  # what is no weight is not looked for
        read(tmp_path, made("absent.bin", data_type=3))
    (tmp_path / "data.bin").write_bytes(bytes(24))
    read(tmp_path, made("data.bin"))
    if kind not in ("listed", "in a branch"):
        assert_refused(tmp_path, made("absent.bin"), "No such file")
    assert_refused(tmp_path, made("../absent.bin"), "outside its folder", SafetyError)
    assert_refused(tmp_path, made("/etc/passwd"), "outside its folder", SafetyError)


Outside = Callable[..., Any]


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    (tmp_path / "data.bin").write_bytes(bytes(8) + bits(DType.FLOAT32).tobytes())

    def make(**more: str | None) -> Any:
        keys = {"location": "data.bin", "offset": "8", "length": "24", **more}
        made = changed(raw_data=None, data_location=1)
        made.external_data.extend(entries(**{key: value for key, value in keys.items() if value is not None}))
        return model(made)

    return make


def test_external_data(outside: Outside, tmp_path: Path) -> None:
    found = read(tmp_path, outside())
    assert_holds(found, DType.FLOAT32)
    assert isinstance(found.tensors["w"], FileTensor)
    assert_holds(read(tmp_path, outside(length=None)), DType.FLOAT32)
    assert_holds(read(tmp_path, outside(checksum="00")), DType.FLOAT32)
    assert read(tmp_path, outside(offset=None)).tensors["w"].numpy().reshape(-1)[0] == 0


@pytest.mark.parametrize(
    ("more", "error", "what"),
    [
        ({"location": "absent"}, ReadError, "No such file"),
        ({"location": "../x"}, SafetyError, "outside its folder"),
        ({"location": "a/../../x"}, SafetyError, "outside its folder"),
        ({"location": "/dev/zero"}, SafetyError, "outside its folder"),
        ({"location": "file:///x"}, SafetyError, "no checkpoint does"),
        ({"location": None}, SafetyError, "no checkpoint does"),
        ({"location": "."}, SafetyError, "outside its folder"),
        ({"offset": "9"}, ReadError, "needs 24 bytes at 9"),
        ({"offset": "-8"}, ReadError, "offset '-8'"),
        ({"offset": "٨"}, ReadError, "offset"),
        ({"offset": "8 "}, ReadError, "offset"),
        ({"offset": "9" * 30}, ReadError, "offset"),
        ({"length": "25"}, ReadError, "has 25 bytes outside"),
        ({"length": "4611686018427387904"}, ReadError, "bytes outside"),
        ({"__class__": "x"}, ReadError, "key '__class__'"),
    ],
)
def test_external_data_that_is_refused(
    more: dict[str, Any], error: type[CkconvError], what: str, outside: Outside, tmp_path: Path
) -> None:
    assert_holds(read(tmp_path, outside()), DType.FLOAT32)
    assert_refused(tmp_path, outside(**more), what, error)


def test_a_key_twice_is_refused(outside: Outside, tmp_path: Path) -> None:
    made = outside()
    made.graph.initializer[0].external_data.extend(entries(location="data.bin"))
    assert_refused(tmp_path, made, "'location', unknown or there twice")


def test_links_are_refused(outside: Outside, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "data.bin").rename(folder / "data.bin")
    assert_holds(read(folder, outside()), DType.FLOAT32)
    (folder / "data.bin").rename(folder / "other.bin")
    (folder / "data.bin").symlink_to("other.bin")
    assert_refused(folder, outside(), "symbolic link", SafetyError)
    (folder / "data.bin").unlink()
    os.link(folder / "other.bin", folder / "data.bin")
    assert_refused(folder, outside(), "hard links", SafetyError)
    (folder / "data.bin").unlink()
    os.mkfifo(folder / "data.bin")
    assert_refused(folder, outside(), "not a regular file")
    (folder / "data.bin").unlink()
    (folder / "sub").symlink_to(tmp_path)
    (folder / "other.bin").rename(tmp_path / "data.bin")
    assert_refused(folder, outside(location="sub/data.bin"), "link that leaves", SafetyError)


def test_the_cache_of_hugging_face_is_links(outside: Outside, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "1"
    (tmp_path / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    (tmp_path / "data.bin").rename(tmp_path / "blobs" / "abc")
    (snapshot / "data.bin").symlink_to("../../blobs/abc")
    assert_holds(read(snapshot, outside()), DType.FLOAT32)


def test_external_files_are_opened_once(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(4))
    made = []
    for number in range(2000):
        tensor = onnx.TensorProto(name=str(number), dims=[4], data_type=2, data_location=1)
        tensor.external_data.extend(entries(location="data.bin"))
        made.append(tensor)
    found = read(tmp_path, model(*made))
    assert len({id(tensor.file) for tensor in found.tensors.values() if isinstance(tensor, FileTensor)}) == 1


def test_single_numbers_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = onnx.TensorProto(name="w", dims=[9], data_type=7).SerializeToString()
    numbers = b"".join(protobuf.tag(7, protobuf.VARINT) + b"\x05" for _ in range(9))
    encoded = protobuf.content_field(7, protobuf.content_field(5, head + numbers))
    assert read(tmp_path, encoded).tensors["w"].numpy().tolist() == [5] * 9
    monkeypatch.setattr(onnx_tensors, "_SINGLES_LIMIT_BYTES", 8)
    assert_refused(tmp_path, encoded, "not packed")


def written(folder: Path, files: tuple[OutputFile, ...]) -> Any:
    for file in files:
        data = b"".join(piece if isinstance(piece, bytes) else piece.numpy().tobytes() for piece in file.pieces)  # type: ignore[union-attr]
        assert len(data) == file.nbytes
        (folder / file.name).write_bytes(data)
    onnx.checker.check_model(str(folder / "m.onnx"), full_check=True)
    return onnx.load(folder / "m.onnx")


@pytest.mark.parametrize("is_split", [False, True])
def test_onnx_loads_what_we_lay_out(is_split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_split:
        monkeypatch.setattr("converter.encoding.onnx_file.LIMIT_BYTES", 100)
    tensors = {dtype.value: ArrayTensor.of(bits(dtype)) for dtype in TYPE_NUMBERS}
    tensors["scalar"] = ArrayTensor.of(np.array(4, np.int64))
    tensors["empty"] = ArrayTensor.of(np.zeros((2, 0), np.float32))
    files = model_files("m.onnx", tensors, {"key": "é".encode()}, producer="test")
    assert [file.name for file in files] == (["m.onnx.data", "m.onnx"] if is_split else ["m.onnx"])
    loaded = written(tmp_path, files)
    assert {entry.key: entry.value for entry in loaded.metadata_props} == {"key": "é"}
    assert [value.name for value in loaded.graph.output] == list(tensors)
    for made, (name, tensor) in zip(loaded.graph.initializer, tensors.items(), strict=True):
        value = onnx.numpy_helper.to_array(made)
        assert (made.name, value.shape, value.tobytes()) == (name, tensor.shape, tensor.numpy().tobytes())


def test_numbers_that_reach_from_one_piece_into_the_next(tmp_path: Path) -> None:
    """Varints of two and of three bytes, so that none of the places where pieces end is the end of a number for all."""
    values = np.resize(np.array([5, 300, 70_000], np.int32), 200_001)
    made = onnx.TensorProto(name="w", dims=[len(values)], data_type=6, int32_data=values.tolist())
    tensor = read(tmp_path, model(made)).tensors["w"]
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert b"".join(map(bytes, tensor.chunks())) == values.tobytes()


def test_what_is_outside_is_aligned_and_small_tensors_are_not(tmp_path: Path) -> None:
    sizes = {"a": 1023, "b": 1025, "c": 1024, "d": 0, "e": 2000}
    tensors = {name: ArrayTensor.of(np.full(size, 7, np.uint8)) for name, size in sizes.items()}
    written(tmp_path, model_files("m.onnx", tensors, {}, producer="test", is_external=True))
    made = {
        tensor.name: tensor for tensor in onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    }
    outside = {name: {e.key: e.value for e in tensor.external_data} for name, tensor in made.items()}
    assert {name for name, found in outside.items() if found} == {"b", "c", "e"}
    assert [int(outside[name]["offset"]) for name in "bce"] == [0, 1088, 2112]
    assert [int(outside[name]["length"]) for name in "bce"] == [1025, 1024, 2000]
    assert len(made["a"].raw_data) == 1023
