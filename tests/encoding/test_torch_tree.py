"""How a pickled value becomes tensors under names and plain data: limits, ties and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects.training import checkpoint_of
from converter.encoding import zip as zip_archive
from converter.encoding.pickle import Global, Placeholder, writer
from converter.encoding.torch_file import archive_of
from converter.encoding.torch_file.storages import Storage, View, storage_dtype
from converter.encoding.torch_file.tree import NOTHING, Walk, is_carried, is_module
from converter.encoding.zip import Record
from converter.errors import ReadError, SafetyError
from converter.execution.streaming import stream
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor, Tensor

OTHER = Global(module="package", name="Thing")


class Archive:
    """The bytes 0, 1, 2 ..., whatever storage is asked for."""

    def flat(self, storage: Storage, dtype: DType, numel: int) -> Tensor:
        return ArrayTensor.of(np.arange(numel * dtype.itemsize, dtype=np.uint8).view(dtype.numpy))


def storage(
    key: str = "0", *, dtype: DType | None = DType.UINT8, numel: int = 12, start: int = 0, root: int | None = None
) -> Storage:
    return Storage(archive=Archive(), key=key, dtype=dtype, numel=numel, start=start, root_numel=root or numel)


def view(*shape: int, of: Storage | None = None, strides: Any = None, dtype: DType = DType.UINT8, **more: Any) -> View:
    dense = tuple(int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape)))
    return View(
        storage=of or storage(), dtype=dtype, shape=shape, strides=dense if strides is None else strides, **more
    )


def flattened(value: Any) -> Walk:
    walk = Walk()
    walk.flatten(value)
    return walk


def thing(state: Any = None, *, items: Any = None, values: Any = None, arguments: tuple[Any, ...] = ()) -> Placeholder:
    made = Placeholder(OTHER, arguments, items or {})
    made.state = state
    made.extend(values or [])
    return made


# views


def test_a_view_is_of_its_part_of_a_storage() -> None:
    assert view(2, 3, offset=2).tensor().numpy().tolist() == [[2, 3, 4], [5, 6, 7]]
    assert view(3, 2, strides=(1, 3)).tensor().numpy().tolist() == [[0, 3], [1, 4], [2, 5]]
    part = storage(dtype=DType.UINT8, numel=6, start=4, root=12)
    assert view(2, of=part, offset=1).tensor().numpy().tolist() == [5, 6]
    wide = storage(dtype=None, numel=4, start=4, root=12)
    assert view(2, of=wide, dtype=DType.UINT16).tensor().numpy().tolist() == [0x0504, 0x0706]
    assert view(0, 3, offset=99, strides=(1, 1), of=storage(numel=99)).tensor().shape == (0, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (view(13), "views elements 0 to 13 of a storage that has 12"),
        (view(2, offset=11), "views elements 11 to 13"),
        (view(2, 2, strides=(11, 1)), "views elements 0 to 13"),
        (view(0, offset=13), "views elements 13 to"),
        (view(2, of=storage(numel=6, start=4, root=12), offset=5), "of a storage that has 6"),
        (view(1, of=storage(dtype=None, numel=11), dtype=DType.UINT16), "views a storage of 11 bytes as uint16"),
        (view(1, of=storage(dtype=None, numel=4, start=1, root=12), dtype=DType.UINT16), "views a storage of 12 bytes"),
        (view(2, strides=()), "has 1 axes and 0 strides"),
        (view(*[1] * 65), "has 65 axes"),
        (view(2, strides=(-1,)), "has an impossible strides"),
        (view(2, strides=(True,)), "has an impossible strides"),
        (view(2, offset=-1), "has an impossible offset"),
        (view(2, offset=0.0), "has an impossible offset"),
        (View(storage=storage(), dtype=DType.UINT8, shape=[2], strides=(1,)), "has an impossible shape"),
        (View(storage=storage(), dtype=DType.UINT8, shape=(1 << 62,), strides=(0,)), "has an impossible shape|expands"),
        (view(2, problem="is sparse"), "is sparse"),
        (View(dtype=DType.UINT8), "has no storage"),
    ],
)
def test_views_that_cannot_be(given: View, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        given.tensor()


def test_what_is_tied_views_the_same_elements_in_the_same_way() -> None:
    same = view(2, 3)
    assert same.identity == view(2, 3).identity is not None
    assert view(1, 3, strides=(3, 1)).identity == view(1, 3, strides=(99, 1)).identity
    others = [
        view(2, 3, offset=1),
        view(2, 3, of=storage("1")),
        view(2, 3, strides=(1, 2)),
        view(3, 2),
        view(2, 3, dtype=DType.INT8),
    ]
    assert len({each.identity for each in (same, *others)}) == 6
    assert view(0, 3).identity is None
    assert View().identity is None
    shifted = storage(numel=8, start=4, root=12)
    assert view(2, of=shifted).identity == view(2, offset=4).identity


def test_classes_of_storages() -> None:
    assert storage_dtype(Global(module="torch", name="FloatStorage")) is DType.FLOAT32
    assert storage_dtype(Global(module="torch.storage", name="UntypedStorage")) is None
    for of, message in (
        (Global(module="torch", name="MineStorage"), "are not supported"),
        (Global(module="package", name="FloatStorage"), "which torch does not have"),
        ("FloatStorage", "which torch does not have"),
    ):
        with pytest.raises(ReadError, match=message):
            storage_dtype(of)
    with pytest.raises(SafetyError, match="can run code"):
        storage_dtype(Global(module="os", name="FloatStorage"))


# weights


def test_names_are_the_keys_on_the_way() -> None:
    walk = flattened(
        {"a": {"b": view(1), 3: [view(1, offset=1), {"c": view(1, offset=2)}]}, "": {"d": view(1, offset=4)}}
    )
    assert list(walk.weights.tensors) == ["a.b", "a.3.0", "a.3.1.c", "d"]
    assert walk.lines == []


def test_ties_are_told_by_what_is_viewed() -> None:
    walk = flattened({"a": view(2), "b": view(2), "c": view(0), "d": view(0), "e": view(2, dtype=DType.INT8)})
    assert (list(walk.weights.tensors), walk.weights.aliases) == (["a", "c", "d", "e"], {"b": "a"})


def test_what_is_a_buffer_and_what_is_frozen() -> None:
    parameter = view(1, offset=1).as_parameter(True)
    fixed = view(1, offset=2).as_parameter(False)
    tensors = {
        "parameter": parameter,
        "fixed": fixed,
        "plain": view(1, offset=3),
        "buffer": view(1, offset=4, is_buffer=True),
    }
    walk = flattened(tensors)
    assert (walk.weights.frozen, walk.weights.buffers) == ({"fixed"}, {"buffer"})


def test_what_is_no_tensor_is_said() -> None:
    value = {
        "number": 3,
        "numbers": [1, 2],
        "empty": [],
        "nothing": None,
        "mixed": [1, view(1)],
        None: {"inner": view(1, offset=5)},
        ("a", "b"): 4,
    }
    walk = flattened(value)
    assert list(walk.weights.tensors) == ["mixed.1"]
    assert [(line.name, line.reason) for line in walk.lines] == [
        ("number", "is no tensor but int"),
        ("numbers", "is no tensor but list"),
        ("mixed.0", "is no tensor but int"),
        ("NoneType", "has a key that is no name"),
        ("NoneType.inner", "is inside NoneType, which is not carried"),
        ("('a', 'b')", "has a key that is no name"),
    ]


@pytest.mark.parametrize(
    ("value", "message", "tensor"),
    [
        ({"a.b": view(1), "a": {"b": view(1, offset=1)}}, "is the name of two tensors", "a.b"),
        ({"a": view(1), "b": view(1), "": {"b": view(1, offset=2)}}, "is the name of two tensors", "b"),
        ({"\ud800": view(1)}, "has a name that is no Unicode text", "\ud800"),
        ({"a": view(13)}, "views elements", "a"),
    ],
)
def test_names_that_cannot_be(value: Any, message: str, tensor: str | None) -> None:
    with pytest.raises(ReadError, match=message) as caught:
        flattened(value)
    assert caught.value.tensor == tensor


def module(parameters: Any = None, buffers: Any = None, modules: Any = None, **more: Any) -> Placeholder:
    own = {"_parameters": parameters or {}, "_buffers": buffers or {}, "_modules": modules or {}}
    return thing({**own, **more})


def test_a_module_is_its_state_dict() -> None:
    inner = module({"weight": view(2)}, {"mean": view(1, offset=3), "none": None}, {"gone": None})
    whole = module(
        {"bias": view(1, offset=5), "absent": None},
        {"kept": view(1, offset=6), "brief": view(1, offset=7)},
        {"inner": inner},
        _non_persistent_buffers_set={"brief"},
        cache={"of": view(1, offset=8)},
        training=True,
    )
    walk = flattened({"net": whole})
    assert list(walk.weights.tensors) == ["net.bias", "net.kept", "net.inner.weight", "net.inner.mean"]
    assert walk.weights.buffers == {"net.kept", "net.inner.mean"}
    assert walk.weights.has_modules
    assert [line.name for line in walk.lines] == ["net.cache", "net.cache.of"]
    assert walk.lines[0].reason == "is an attribute of package.Thing, not part of its state_dict()"
    assert not flattened({"a": view(1)}).weights.has_modules
    assert is_module(whole)
    assert not is_module(thing({"_parameters": {}, "_buffers": {}}))
    assert not is_module({"_parameters": {}, "_buffers": {}, "_modules": {}})


def test_a_module_says_what_its_buffers_are_and_names_tell_it_of_other_weights() -> None:
    learnt, counted = view(2), view(1, offset=3)
    of_module = checkpoint_of({"model": module({"running_mean": learnt}, {"counter": counted})}, Walk())
    assert (set(of_module.tensors), of_module.buffers) == ({"running_mean", "counter"}, {"counter"})
    by_name = checkpoint_of({"model": {"running_mean": learnt, "counter": counted}}, Walk())
    assert by_name.buffers == {"running_mean", "counter"}


def test_tensors_inside_what_is_not_known_are_found() -> None:
    walk = flattened({"x": thing({"state": view(1)}, items={"item": view(1, offset=1)}, values=[view(1, offset=2)])})
    assert set(walk.weights.tensors) == {"x.state", "x.item", "x.0"}


# plain data


def test_plain_data_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, True, None, "x", b"y", 1j], 3: ("t", ({"k": 1},)), (1, "two"): {1, 2}, None: []}
    walk = Walk()
    assert walk.plain(value, "") == value
    assert walk.plain(thing(items={"a": 1}), "") == {"a": 1}
    assert walk.plain([view(2)], "x")[0].numpy().tolist() == [0, 1]
    assert walk.lines == []


def test_what_cannot_be_plain_is_none_and_said() -> None:
    walk = Walk()
    value = {
        "thing": thing({"a": view(1)}),
        "called": thing(items={"a": 1}, arguments=(1,)),
        "listed": [OTHER, 1],
        OTHER: 1,
        (OTHER,): 2,
        "kept": 3,
        "set": {(1, 2)},
    }
    assert walk.plain(value, "top") == {"listed": [None, 1], "kept": 3, "set": None}
    assert [(line.name, line.reason) for line in walk.lines] == [
        ("top.thing", "package.Thing is not carried"),
        ("top.thing.a", "is inside top.thing, which is not carried"),
        ("top.called", "package.Thing is not carried"),
        ("top.listed.0", "package.Thing is not carried"),
        ("top.package.Thing", "has a key that is not carried"),
        ("top.tuple", "has a key that is not carried"),
        ("top.set", "set is not carried"),
    ]


def test_what_has_a_plain_form() -> None:
    assert all(map(is_carried, (1, "x", None, [], {}, {1}, view(1), thing(items={"a": 1}))))
    others = (thing(), thing({"a": 1}), thing({"a": 1}, items={"a": 1}), thing(items={"a": 1}, values=[1]))
    assert not any(map(is_carried, (OTHER, storage(), *others)))


# depth and work


def nested(depth: int, inside: Any) -> Any:
    value = inside
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded() -> None:
    assert list(flattened({"a": nested(62, view(1))}).weights.tensors) == ["a" + ".0" * 62]
    for walked in (lambda value: flattened({"a": value}), lambda value: Walk().plain({"a": value}, "")):
        with pytest.raises(ReadError, match="is nested more than 64 deep"):
            walked(nested(64, {"b": view(1), "c": {}}))
    assert not Walk().has_tensors(nested(10_000, 1))
    assert Walk().has_tensors(nested(10_000, view(1)))


def test_a_value_that_holds_itself_has_an_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert not Walk().has_tensors(endless)
    with pytest.raises(ReadError, match=r"is nested more than|takes more than"):
        Walk().plain(endless, "")


@pytest.mark.parametrize(
    ("value", "is_too_much"),
    [
        ([{} for _ in range(200_000)], False),
        ([{} for _ in range(270_000)], True),
        (nested(9, [{} for _ in range(30_000)]), False),
        (nested(9, [{} for _ in range(33_000)]), True),
        ([{}] * 14_000, False),
        ([{}] * 17_000, True),
        ({"n" * 1000: [{} for _ in range(50_000)]}, False),
        ({"n" * 1000: [{} for _ in range(66_000)]}, True),
    ],
    ids=["many", "too many", "deep", "too deep", "shared", "too shared", "long names", "too long names"],
)
def test_work_is_bounded(value: Any, is_too_much: bool) -> None:
    """What is deep, has a long name, or is come back to costs more: small files do that."""
    if is_too_much:
        with pytest.raises(ReadError, match="takes more than 262144 steps to walk through"):
            Walk().plain(value, "")
        stored = Walk(stored_bytes=2 << 30)
        stored.plain(value, "")
    else:
        Walk().plain(value, "")


# storages of a file


def saved(folder: Path, numel: Any, *, of: str = "FloatStorage", data: bytes = bytes(16)) -> LocalFile:
    """A file of torch.save with one tensor of four numbers, whose storage says that it has `numel` elements."""
    owner = writer.Persistent(identity=("storage", Global(module="torch", name=of), "0", "cpu", numel))
    rebuild = Global(module="torch._utils", name="_rebuild_tensor_v2")
    tensor = writer.Call(function=rebuild, arguments=(owner, 0, (4,), (1,), False, writer.ordered_dict()))
    records = {"data.pkl": writer.dumps({"w": tensor}), "byteorder": b"little", "data/0": data, "version": b"3\n"}
    archive = zip_archive.archive([Record(name=f"archive/{name}", content=value) for name, value in records.items()])
    stream(OutputFile(name="x.pth", pieces=tuple(archive)), folder)
    file = LocalFile(folder / "x.pth")
    (folder / "x.pth").unlink()
    return file


@pytest.mark.parametrize("numel", [-1, True, 4.0, "4", None, 1 << 63, (4,)], ids=repr)
def test_a_storage_has_a_number_of_elements(numel: Any, tmp_path: Path) -> None:
    walk = flattened(archive_of(saved(tmp_path, 4)).load())
    assert walk.weights.tensors["w"].numpy().tolist() == [0, 0, 0, 0]
    with pytest.raises(ReadError, match=r"the pickle has a storage of .* elements|malformed storage"):
        flattened(archive_of(saved(tmp_path, numel)).load())


@pytest.mark.parametrize(("numel", "data"), [(5, bytes(16)), (4, bytes(15)), (3, bytes(16))])
def test_a_storage_is_as_large_as_its_record(numel: int, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        flattened(archive_of(saved(tmp_path, numel, data=data)).load())


# modules that are pickled as calls, and what stands beside the weights


def module_state(**parameters: Any) -> dict[str, Any]:
    return {"_parameters": parameters, "_buffers": {}, "_modules": {}}


def test_modules_that_are_pickled_as_calls() -> None:
    fx = Placeholder(
        Global(module="torch.fx.graph_module", name="reduce_graph_module"), (module_state(w=view(2)), "code")
    )
    assert list(flattened(fx).weights.tensors) == ["w"]
    inside = thing(module_state(w=view(2)))
    compiled = Placeholder(Global(module="torch._dynamo.eval_frame", name="OptimizedModule"), (inside, None))
    assert list(flattened(compiled).weights.tensors) == ["_orig_mod.w"]


def test_a_tensor_that_an_object_was_made_of_has_a_line() -> None:
    walk = flattened({"w": view(2), "made": thing({"part": view(2)}, arguments=(view(2),))})
    assert set(walk.weights.tensors) | set(walk.weights.aliases) == {"w", "made.part"}
    assert [line.name for line in walk.lines] == ["made", "made.0"]
    assert "and has no name" in walk.lines[0].reason


def test_keys_of_bytes_are_text() -> None:
    assert list(flattened({b"layer": {b"w": view(2)}}).weights.tensors) == ["layer.w"]


def test_what_cannot_be_taken_apart_is_one_line() -> None:
    deep: Any = {"first": Global(module="a", name="b"), "w": 1}
    for _ in range(80):
        deep = {"other": Global(module="a", name="b"), "next": deep}
    walk = Walk()
    beside = {name: walk.beside(value, name) for name, value in {"fine": [1, 2], "deep": deep, "n": {"a": 1}}.items()}
    assert beside == {"fine": [1, 2], "deep": NOTHING, "n": {"a": 1}}
    assert [line.name for line in walk.lines] == ["deep"]
    assert "nested more than 64 deep" in walk.lines[0].reason
