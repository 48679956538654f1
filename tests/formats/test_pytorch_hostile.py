"""Files made to hurt: each is refused with an error that names the file, and nothing in it is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.encoding import zip as zip_archive
from converter.encoding.pickle import Global
from converter.encoding.pickle.writer import Call, Ordered, Persistent, dumps
from converter.encoding.torch_file.storages import EXPANSION_FREE_BYTES
from converter.encoding.zip import Record
from converter.errors import CkconvError, ReadError, SafetyError
from converter.execution.streaming import stream
from converter.formats import Probe
from converter.formats.pytorch import FORMAT
from converter.model.checkpoint import Checkpoint
from converter.model.output import OutputFile

FLOATS = struct.pack("<6f", *range(6))


def read(path: Path) -> Checkpoint:
    assert FORMAT.read is not None
    checkpoint = FORMAT.read(path, FORMAT.read_options())
    for tensor in checkpoint.tensors.values():
        tensor.numpy()
    return checkpoint


@pytest.fixture
def pth(tmp_path: Path) -> Callable[..., Path]:
    """Build a zip checkpoint around a pickled value and its records."""

    def pth(value: Any, *, pickled: bytes | None = None, **records: bytes) -> Path:
        path = tmp_path / "model.pth"
        path.unlink(missing_ok=True)
        contents = {"data.pkl": dumps(value) if pickled is None else pickled, "data/0": FLOATS, "version": b"3\n"}
        members = [Record(name=f"archive/{name}", content=content) for name, content in (contents | records).items()]
        stream(OutputFile(name=path.name, pieces=zip_archive.archive(members)), tmp_path)
        return path

    return pth


def named(name: str, module: str = "torch") -> Global:
    return Global(module=module, name=name)


def tensor(
    shape: Any = (2, 3),
    strides: Any = (3, 1),
    offset: Any = 0,
    *,
    of: str = "FloatStorage",
    key: Any = "0",
    numel: Any = 6,
) -> Call:
    identity = ("storage", named(of), key, "cpu", numel)
    arguments = (Persistent(identity=identity), offset, shape, strides, False, Ordered(items={}))
    return Call(function=named("_rebuild_tensor_v2", "torch._utils"), arguments=arguments)


def test_the_unharmed_file_is_read(pth: Callable[..., Path]) -> None:
    checkpoint = read(pth({"w": tensor()}))
    assert checkpoint.tensors["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read(pth({"w": tensor((3, 2), (1, 3)), "v": tensor((2,), (2,), 3)})).tensors["v"].numpy().tolist() == [3, 5]
    assert read(pth({"w": tensor((1000, 2), (0, 1))})).tensors["w"].shape == (1000, 2)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (tensor((7,), (1,)), "views elements 0 to 7"),
        (tensor((2, 3), (3, 1), 1), "views elements 1 to 7"),
        (tensor((2, 3), (4, 1)), "views elements"),
        (tensor((1,), (1,), 1 << 61), "views elements"),
        (tensor((1 << 33, 1 << 31), (1, 1)), "views elements"),
        (tensor((2, 2), (1 << 61, 1)), "views elements"),
        (tensor((-2, 3)), "impossible shape"),
        (tensor((2.0, 3)), "impossible shape"),
        (tensor((True, 3)), "impossible shape"),
        (tensor([2, 3]), "impossible shape"),
        (tensor((1 << 70, 3)), "impossible shape"),
        (tensor(strides=(3, -1)), "impossible strides"),
        (tensor(strides=(3, "1")), "impossible strides"),
        (tensor(strides=(1,)), "2 axes and 1 strides"),
        (tensor((1,) * 65, (1,) * 65), "65 axes"),
        (tensor(offset=-1), "impossible offset"),
        (tensor(offset=0.0), "impossible offset"),
        (tensor((1 << 40,), (0,)), "expands 24 stored bytes"),
        (tensor((1 << 20, 1 << 20), (0, 0)), "expands 24 stored bytes"),
        (tensor(numel=2), "storage that has 2"),
        (tensor(numel=1 << 20), "needs 4194304 bytes"),
        (tensor(of="DoubleStorage"), "needs 48 bytes"),
        (tensor(of="IntStorage"), "of another type or size elsewhere"),
        (tensor((1,), (1,), numel=3), "of another type or size elsewhere"),
        (tensor(key="1"), "no record 'data/1'"),
        (tensor(key="../data.pkl"), "no record"),
        (tensor(key="/etc/passwd"), "no record"),
        (tensor(key=""), "no record"),
    ],
)
def test_tensors_beyond_their_storage(pth: Callable[..., Path], view: Call, message: str) -> None:
    with pytest.raises(ReadError, match=message) as caught:
        read(pth({"fine": tensor(), "odd": view}))
    assert caught.value.tensor == "odd"
    assert str(caught.value).startswith(str(caught.value.path))


def test_what_is_tied_is_one_view_of_one_storage(pth: Callable[..., Path]) -> None:
    views = {
        "w": tensor(),
        "same": tensor(),
        "flat": tensor((6,), (1,)),
        "turned": tensor((3, 2), (1, 3)),
        "narrow": tensor((3, 2), (2, 1)),
        "half": tensor((3,), (1,)),
        "other half": tensor((3,), (1,), 3),
        "row": tensor((1, 6), (6, 1)),
        "the same row": tensor((1, 6), (99, 1)),
        "empty": tensor((0, 3), (3, 1)),
        "empty too": tensor((0, 3), (3, 1)),
        "elsewhere": tensor(key="1"),
    }
    checkpoint = read(pth(views, **{"data/1": FLOATS}))
    assert checkpoint.aliases == {"same": "w", "the same row": "row"}
    assert checkpoint.tensors["narrow"].numpy().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_the_last_element_that_a_storage_has(pth: Callable[..., Path]) -> None:
    for view in (tensor((1,), (1,), 5), tensor((2,), (5,)), tensor((0, 3), (3, 1), 6)):
        read(pth({"w": view}))
    for view in (tensor((1,), (1,), 6), tensor((2,), (6,)), tensor((0, 3), (3, 1), 7)):
        with pytest.raises(ReadError, match="views elements"):
            read(pth({"w": view}))


def test_how_far_a_storage_may_be_expanded(pth: Callable[..., Path]) -> None:
    most = EXPANSION_FREE_BYTES // 4
    assert read(pth({"w": tensor((most,), (0,))})).tensors["w"].size == most
    with pytest.raises(ReadError, match="expands 24 stored bytes"):
        read(pth({"w": tensor((most + 1,), (0,))}))


def test_bytes_after_the_pickle_are_refused(pth: Callable[..., Path]) -> None:
    whole = dumps({"w": tensor()})
    assert read(pth(None, pickled=whole)).tensors
    with pytest.raises(ReadError, match="after the end of its pickle"):
        read(pth(None, pickled=whole + b"\0"))


@pytest.mark.parametrize(
    "value",
    [
        tensor(numel=-1),
        tensor(numel=1 << 63),
        tensor(numel=True),
        tensor(numel="6"),
        tensor(key=0),
        tensor(of="QuantumStorage"),
        tensor(of="UntypedStorage"),
        Persistent(identity=("storage",)),
        Persistent(identity=("module", named("Linear"), "file", "source")),
        Call(function=named("_rebuild_tensor_v2", "torch._utils"), arguments=()),
        Call(function=named("_rebuild_tensor_v2", "torch._utils"), arguments=("x", 0, (1,), (1,), False, None)),
        Call(function=named("_rebuild_parameter", "torch._utils"), arguments=(1, True, None)),
        Call(function=named("Size"), arguments=(5,)),
        Call(function=named("dtype", "numpy"), arguments=()),
    ],
)
def test_values_that_cannot_be(pth: Callable[..., Path], value: Any) -> None:
    with pytest.raises(ReadError) as caught:
        read(pth({"fine": tensor(), "odd": value}))
    assert caught.value.path


class Runs:
    """Pickles as a call that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("layout", ["zip", "legacy", "bare", "legacy magic", "legacy keys", "zip after stop"])
def test_nothing_is_run(tmp_path: Path, pth: Callable[..., Path], layout: str, protocol: int) -> None:
    trap = tmp_path / "trap"
    payload = pickle.dumps({"w": 1, "x": Runs(trap)}, protocol)
    path = tmp_path / "model.pth"
    match layout:
        case "zip":
            path = pth(None, pickled=payload)
        case "zip after stop":
            path = pth(None, pickled=dumps({"w": tensor()}) + payload)
        case "legacy":
            value = {"w": torch.ones(2), "x": Runs(trap)}
            torch.save(value, path, _use_new_zipfile_serialization=False, pickle_protocol=max(protocol, 2))
        case "bare":
            path.write_bytes(payload)
        case "legacy magic":
            buffer = io.BytesIO()
            torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
            path.write_bytes(payload + buffer.getvalue()[15:])
        case "legacy keys":
            buffer = io.BytesIO()
            torch.save({}, buffer, _use_new_zipfile_serialization=False)
            path.write_bytes(buffer.getvalue()[: -len(pickle.dumps([], 2))] + payload)
    assert FORMAT.sniff(Probe(path))
    with pytest.raises(ReadError if layout == "zip after stop" else SafetyError, match=str(path)):
        read(path)
    assert not trap.exists()


def test_bare_pickles_end_with_their_value(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    whole = pickle.dumps({"w": torch.ones(300)})
    path.write_bytes(whole)
    assert FORMAT.sniff(Probe(path))
    assert read(path).tensors["w"].shape == (300,)
    for damaged in (whole + b"x", whole + whole, whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ReadError, match=r"has bytes after its last pickle|is no file"):
            read(path)
    path.write_bytes(pickle.dumps({"w": [1.0, 2.0]}))
    with pytest.raises(ReadError, match="holds no tensor"):
        read(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_storages_of_bare_pickles_run_nothing(tmp_path: Path, protocol: int) -> None:
    """What stands in the place of a file of torch.save is read by the same machine."""
    path, trap = tmp_path / "model.pt", tmp_path / "trap"
    whole = pickle.dumps({"w": torch.ones(300)}, protocol)
    path.write_bytes(whole)
    assert read(path).tensors
    for inner in (pickle.dumps(Runs(trap)), pickle.dumps([1] * 200), b"", b"PK" + bytes(300)):
        path.write_bytes(pickle.dumps({"w": _Loads(inner)}, protocol))
        with pytest.raises(SafetyError if b"mkdir" in inner else ReadError, match=str(path)):
            read(path)
    assert not trap.exists()


class _Loads:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return torch.storage._load_from_bytes, (self.data,)


def test_a_storage_type_that_is_a_function(pth: Callable[..., Path]) -> None:
    identity = ("storage", named("system", "posix"), "0", "cpu", 6)
    with pytest.raises(SafetyError, match=r"posix\.system"):
        read(pth({"w": Persistent(identity=identity)}))
    identity = ("storage", named("Gadget", "package"), "0", "cpu", 6)
    with pytest.raises(ReadError, match="which torch does not have"):
        read(pth({"w": Persistent(identity=identity)}))


def nested(depth: int) -> bytes:
    return b")" + b"\x85" * depth


def shared(levels: int) -> bytes:
    """Lists of two references to the next: small to write down, endless to walk."""
    lists = (b"](h%ch%ceq%c0" % (level, level, level + 1) for level in range(levels))
    return b"]q\x000" + b"".join(lists) + b"h%c" % levels


@pytest.mark.parametrize("value", [b"N", nested(20), nested(50_000), shared(5), shared(40)])
@pytest.mark.parametrize("root", [b"w", b"state_dict"])
def test_deep_and_endless_values(pth: Callable[..., Path], value: bytes, root: bytes) -> None:
    weights = dumps(tensor() if root == b"w" else {"w": tensor()})[2:-1]
    path = pth(None, pickled=b"\x80\x02}(X%c\x00\x00\x00%s%sX\x01\x00\x00\x00v%su." % (len(root), root, weights, value))
    checkpoint = read(path)
    assert list(checkpoint.tensors) == ["w"]
    is_dear = len(value) >= 1000 or b"h\x28" in value
    reasons = [line.reason for line in checkpoint.lines if line.name == "v"]
    assert ("nested" in str(reasons) or "steps" in str(reasons)) == is_dear


def test_a_value_that_holds_itself(pth: Callable[..., Path]) -> None:
    for cycle in (b"}q\x00X\x01\x00\x00\x00ah\x00s.", b"]q\x00h\x00a.", b"]q\x00h\x00\x85a."):
        with pytest.raises(ReadError, match=r"nested|no tensor"):
            read(pth(None, pickled=b"\x80\x02" + cycle))


def members(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, dumps({"w": tensor()}) if name.endswith(".pkl") else FLOATS)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/data.pkl", "a/data/0", "b/data.pkl"), "2 roots"),
        (("a/data.pkl", "a/data/0", "b/x"), "beside its root"),
        (("a/x.pkl", "a/data/0"), "no data.pkl"),
        (("a/data.pkl",), "no record"),
        (("a/data.pkl", "a/data/0", "a/byteorder"), r"byte order|are read"),
    ],
)
def test_archives_of_another_kind(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(members("a/data.pkl", "a/data/0"))
    assert read(path).tensors
    path.write_bytes(members(*names))
    with pytest.raises(ReadError, match=message):
        read(path)


def small(layout: str) -> bytes:
    buffer = io.BytesIO()
    value = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int8), "epoch": 1}
    torch.save(value, buffer, _use_new_zipfile_serialization=layout == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_every_cut_is_refused(tmp_path: Path, layout: str) -> None:
    data, path = small(layout), tmp_path / "model.pth"
    path.write_bytes(data)
    assert read(path).tensors
    for end in range(0, len(data), 1 if layout == "legacy" else 7):
        path.write_bytes(data[:end])
        with pytest.raises(CkconvError):
            read(path)
    path.write_bytes(data + b"x")
    with pytest.raises(CkconvError):
        read(path)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_every_flip_is_refused_or_harmless(tmp_path: Path, layout: str) -> None:
    """The zip layout has checksums: what is read after all is what was written. The other has none."""
    data, path = small(layout), tmp_path / "model.pth"
    path.write_bytes(data)
    expected = {name: tensor.numpy().tobytes() for name, tensor in read(path).tensors.items()}
    survived = 0
    for position in range(0, len(data), 3):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x11]) + data[position + 1 :])
        try:
            found = {name: tensor.numpy().tobytes() for name, tensor in read(path).tensors.items()}
        except CkconvError:
            continue
        survived += 1
        assert layout == "legacy" or found == expected, position
    assert survived > 0


@pytest.mark.parametrize("change", ["count", "negative count", "key", "extra key", "two sizes"])
def test_legacy_storages_must_agree(tmp_path: Path, change: str) -> None:
    data, path = small("legacy"), tmp_path / "model.pth"
    path.write_bytes(data)
    assert read(path).tensors
    count = struct.pack("<q", 6)
    keys = data[data.rindex(b"\x80\x02]") : data.index(count)]
    changed = {
        "count": data.replace(count, struct.pack("<q", 1 << 40)),
        "negative count": data.replace(count, struct.pack("<q", -6)),
        "key": data.replace(keys, pickle.dumps(["0", "1"], 2)),
        "extra key": data.replace(keys, pickle.dumps([*pickle.loads(keys), "9"], 2)),  # noqa: S301
        "two sizes": data.replace(b"K\x06N", b"K\x05N", 1),
    }[change]
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(ReadError):
        read(path)


def test_a_sparse_file_of_256_gib_is_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for head in (b"PK\x03\x04", b"\x80\x02X\x00\x00\x00\x40", b"\x80\x02]", small("legacy")):
        path.write_bytes(head)
        with open(path, "r+b") as file:
            file.truncate(256 << 30)
        FORMAT.sniff(Probe(path))
        with pytest.raises(CkconvError):
            read(path)
