"""Archives of torch.export as they are read, laid out and compared without torch; hostile ones refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.encoding import pt2
from converter.encoding.pt2 import TYPE_CODES, tensor_meta
from converter.errors import CkconvError, LossError, ReadError
from converter.formats import Probe
from converter.formats.pt2 import is_same_program, sniff
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.tensor import ArrayTensor

Members = dict[str, bytes]
_CONFIG = "model/data/weights/model_weights_config.json"
_CONSTANTS = "model/data/constants/model_constants_config.json"
_NETWORK = Checkpoint(
    tensors={
        "fc.weight": ArrayTensor.of(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "fc.bias": ArrayTensor.of(np.ones(2, np.float32)),
        "running": ArrayTensor.of(np.ones(2, np.float64)),
        "count": ArrayTensor.of(np.array(7)),
        "fixed": ArrayTensor.of(np.ones(2, np.float32)),
        "wave": ArrayTensor.of(np.array([1 + 2j], np.complex64)),
        "empty": ArrayTensor.of(np.ones((0, 3), np.float32)),
    },
    aliases={"tied.weight": "fc.weight"},
    buffers=frozenset({"running", "count"}),
    frozen=frozenset({"fixed"}),
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt2"
    converter.write(_NETWORK, path, weights_only=True)
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(path: Path, change: Callable[[Members], object], name: str = "changed.pt2") -> Path:
    found = members(path)
    change(found)
    with zipfile.ZipFile(path.with_name(name), "w") as archive:
        for member, data in found.items():
            archive.writestr(member, data)
    return path.with_name(name)


def with_config(edit: Callable[[dict[str, Any]], object], name: str = _CONFIG) -> Callable[[Members], None]:
    def change(found: Members) -> None:
        config = json.loads(found[name])
        edit(config["config"])
        found[name] = json.dumps(config).encode()

    return change


def entry(**values: Any) -> Callable[[Members], None]:
    """A weight whose description says something else."""

    def edit(config: dict[str, Any]) -> None:
        of = config["fc.bias"]
        for key, value in values.items():
            (of if key in of else of["tensor_meta"])[key] = value

    return with_config(edit)


def test_what_is_written_says_what_each_weight_is(archive: Path) -> None:
    found = members(archive)
    assert (found["model/archive_format"], found["model/archive_version"], found["model/byteorder"]) == (
        b"pt2",
        b"0",
        b"little",
    )
    config = json.loads(found[_CONFIG])["config"]
    assert list(config) == [*_NETWORK.tensors, "tied.weight"]
    trained = {"fc.weight", "fc.bias", "wave", "empty", "tied.weight"}
    assert {name for name, each in config.items() if each["is_param"]} == trained
    assert {name for name, each in config.items() if each["tensor_meta"]["requires_grad"]} == trained
    assert config["tied.weight"]["path_name"] == config["fc.weight"]["path_name"]
    assert len({each["path_name"] for each in config.values()}) == len(_NETWORK.tensors)
    assert not any(each["use_pickle"] for each in config.values())
    for name, tensor in _NETWORK.tensors.items():
        assert found[f"model/data/weights/{config[name]['path_name']}"] == tensor.numpy().tobytes()
    program = json.loads(found["model/models/model.json"])
    specifications = program["graph_module"]["signature"]["input_specs"]
    assert [next(iter(each)) for each in specifications] == [
        "parameter" if name in trained else "buffer" for name in config
    ]
    assert set(program["graph_module"]["graph"]["tensor_values"]) == {f"p_{number}" for number in range(len(config))}


def test_how_a_tensor_is_described() -> None:
    described = tensor_meta(ArrayTensor.of(np.ones((2, 0, 3, 4), np.float16)), requires_grad=True)
    assert described["strides"] == [{"as_int": stride} for stride in (12, 12, 4, 1)]
    assert described["sizes"] == [{"as_int": extent} for extent in (2, 0, 3, 4)]
    assert (described["dtype"], described["layout"], described["requires_grad"]) == (6, 7, True)
    assert described["storage_offset"] == {"as_int": 0}
    assert not tensor_meta(ArrayTensor.of(np.ones(1)))["requires_grad"]


def test_numbers_of_types_are_those_of_torch() -> None:
    """torch/_export/serde/schema.py, ScalarType (2.13)."""
    numbers = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float16": 6, "float32": 7, "float64": 8}
    numbers |= {"complex64": 10, "complex128": 11, "bool": 12, "bfloat16": 13, "uint16": 28, "uint32": 34, "uint64": 35}
    numbers |= {
        "float8_e4m3fn": 29,
        "float8_e5m2": 30,
        "float8_e4m3fnuz": 31,
        "float8_e5m2fnuz": 32,
        "float8_e8m0fnu": 33,
    }
    assert {dtype.value: code for dtype, code in TYPE_CODES.items()} == numbers
    assert set(TYPE_CODES) == set(DType)


def test_what_is_read_back(archive: Path) -> None:
    found = converter.read(archive)
    assert list(found.tensors) == list(_NETWORK.tensors)
    assert found.aliases == _NETWORK.aliases
    assert (found.buffers, found.frozen) == (_NETWORK.buffers, _NETWORK.frozen)
    for name, tensor in _NETWORK.tensors.items():
        assert (found.tensors[name].dtype, found.tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert found.lines == ()


def test_without_a_document_the_archive_says_what_is_trained(archive: Path) -> None:
    found = converter.read(changed(archive, lambda found: found.pop("model/extra/ckconv.json")))
    assert found.buffers == {"running", "count", "fixed"}
    assert found.frozen == frozenset()
    assert found.aliases == {"tied.weight": "fc.weight"}

    def of_a_buffer(config: dict[str, Any]) -> None:
        config["fc.weight"]["is_param"] = config["tied.weight"]["is_param"] = False

    def bare(found: Members) -> None:
        del found["model/extra/ckconv.json"]
        with_config(of_a_buffer)(found)

    assert converter.read(changed(archive, bare, "bare.pt2")).buffers == {"running", "count", "fixed", "fc.weight"}


def test_constants_are_told_but_for_those_of_ours(archive: Path) -> None:
    def told(config: dict[str, Any]) -> None:
        config.update({"kept_back": {}, "_constants.0": {}})

    found = converter.read(changed(archive, with_config(told, _CONSTANTS)))
    assert [(line.name, line.reason) for line in found.lines] == [
        ("kept_back", "a constant of the program, not of its state")
    ]
    assert not converter.read(changed(archive, lambda found: found.pop(_CONSTANTS), "none.pt2")).lines


def test_views_of_a_storage_are_read_as_torch_sees_them(archive: Path) -> None:
    turned = {"sizes": [{"as_int": 3}, {"as_int": 2}], "strides": [{"as_int": 1}, {"as_int": 3}]}

    def edit(config: dict[str, Any]) -> None:
        config["fc.weight"]["tensor_meta"] |= turned
        config["fc.bias"]["path_name"] = config["fc.weight"]["path_name"]
        config["fc.bias"]["tensor_meta"]["storage_offset"] = {"as_int": 4}
        del config["tied.weight"]

    def change(found: Members) -> None:
        del found["model/extra/ckconv.json"]
        with_config(edit)(found)

    found = converter.read(changed(archive, change))
    assert found.tensors["fc.weight"].numpy().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found.tensors["fc.bias"].numpy().tolist() == [4, 5]
    assert not found.aliases


def without(name: str) -> Callable[[Members], None]:
    return lambda found: found.pop(name) and None


def added(name: str, data: bytes) -> Callable[[Members], None]:
    return lambda found: found.update({name: data})


_HOSTILE: dict[str, tuple[Callable[[Members], None], str]] = {
    "too large": (entry(sizes=[{"as_int": 1000}], strides=[{"as_int": 1}]), "views elements"),
    "negative": (entry(sizes=[{"as_int": -1}]), "impossible shape"),
    "symbolic": (entry(sizes=[{"as_expr": {"expr_str": "s0"}}]), "impossible shape"),
    "a truth value": (entry(sizes=[{"as_int": True}]), "impossible shape"),
    "no sizes": (entry(sizes="2"), "impossible shape"),
    "offset": (entry(storage_offset={"as_int": 1}), "views elements"),
    "no offset": (entry(storage_offset=0), "impossible"),
    "expanded": (entry(sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 0}]), "expands"),
    "no type": (entry(dtype=99), "element type 99"),
    "no number": (entry(dtype="7"), "element type '7'"),
    "sparse": (entry(layout=1), "is sparse"),
    "elsewhere": (entry(path_name="../../../etc/passwd"), "has no record"),
    "no path": (entry(path_name=None), "no description of its type, or no path"),
    "no description": (entry(tensor_meta=None), "no description of its type, or no path"),
    "no weights": (without(_CONFIG), "has no record"),
    "no list": (added(_CONFIG, b"[]"), "no list of weights"),
    "no entries": (added(_CONFIG, b'{"config": {"x": 1}}'), "no list of weights"),
    "no JSON": (added(_CONFIG, b"{"), "list of weights"),
    "deep": (added(_CONFIG, b"[" * 100_000), "list of weights"),
    "big-endian": (added("model/byteorder", b"big"), "big-endian"),
    "no byte order": (without("model/byteorder"), "big-endian"),
    "a later version": (added("model/archive_version", b"1"), "version 0"),
    "another format": (added("model/archive_format", b"pt3"), "version 0"),
    "two programs": (added("model/models/other.json", b"{}"), "several programs: model, other"),
    "no program": (without("model/models/model.json"), "no program"),
    "two roots": (added("other/x", b""), "one root"),
    "pickled weights": (added("model/data/weights/model.pt", b"\x80"), "in a pickle"),
    "outside": (added("../x", b""), "points elsewhere"),
    "of old": (added("serialized_exported_program.json", b"{}"), r"torch before 2\.8"),
}


@pytest.mark.parametrize("what", _HOSTILE)
def test_hostile(what: str, archive: Path) -> None:
    change, message = _HOSTILE[what]
    assert converter.read(changed(archive, lambda found: None, "same.pt2")).names == _NETWORK.names
    hostile = changed(archive, change)
    with pytest.raises(CkconvError, match=message) as raised:
        converter.read(hostile, from_format="pt2")
    assert raised.value.path == str(hostile)


def test_a_pickled_weight_is_a_loss_that_must_be_allowed(archive: Path, tmp_path: Path) -> None:
    def change(found: Members) -> None:
        del found["model/extra/ckconv.json"]
        entry(use_pickle=True)(found)

    hostile = changed(archive, change)
    assert "fc.bias" not in converter.read(hostile).names
    options: dict[str, Any] = {"exclude": ["wave", "empty"]}
    with pytest.raises(LossError, match=r"fc\.bias"):
        converter.convert(hostile, tmp_path / "x.safetensors", **options)
    report = converter.convert(hostile, tmp_path / "x.safetensors", allow_dropped=["fc.bias"], **options)
    (line,) = (line for line in report.lines if line.name == "fc.bias")
    assert line.reason == "stored as a pickle, which is not opened"


def test_a_damaged_weight_is_noticed_when_it_is_read(archive: Path) -> None:
    data = archive.read_bytes()
    stored = np.ones(2, np.float64).tobytes()
    assert data.count(stored) == 1
    archive.write_bytes(data.replace(stored, np.full(2, 3.0).tobytes()))
    found = converter.read(archive)
    assert found.tensors["fc.bias"].numpy().tolist() == [1, 1]
    with pytest.raises(ReadError, match="CRC"):
        found.tensors["running"].numpy()


# folders, sniffing


def test_a_folder_has_one_program(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert not sniff(Probe(folder))
    with pytest.raises(ReadError, match="holds no exported program"):
        converter.read(folder, from_format="pt2")
    archive.rename(folder / "b.pt2")
    assert sniff(Probe(folder))
    assert converter.read(folder).names == _NETWORK.names
    (folder / "a.pt2").write_bytes((folder / "b.pt2").read_bytes())
    with pytest.raises(ReadError, match=r"holds several programs: a\.pt2, b\.pt2"):
        converter.read(folder)


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        ({"net/archive_format", "net/x"}, True),
        ({"archive_format"}, False),
        ({"a/b/archive_format"}, False),
        ({"serialized_exported_program.json"}, True),
        ({"net/data.pkl"}, False),
        (set(), False),
    ],
)
def test_what_looks_like_one(names: set[str], is_one: bool) -> None:
    assert pt2.looks_like(frozenset(names)) is is_one


@pytest.mark.parametrize("state_dict", [True, False])
def test_a_folder_gets_the_state_dict_unless_it_is_not_wanted(state_dict: bool, tmp_path: Path) -> None:
    converter.write(_NETWORK, f"{tmp_path}/out/", to="pt2", weights_only=True, state_dict=state_dict)
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"model.pt2", *(["model.pth"] if state_dict else [])}
    if state_dict:
        assert set(converter.read(tmp_path / "out" / "model.pth").names) == set(_NETWORK.names)


# whether two archives hold one program


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (lambda found: None, True),
        (lambda found: found.update({"model/data/weights/weight_1": bytes(8)}), True),
        (lambda found: found.pop("model/extra/ckconv.json"), True),
        (added("model/extra/more.json", b"{}"), False),
        (added("model/models/more.so", b"code"), False),
        (without("model/data/sample_inputs/model.pt"), False),
        (lambda found: found.update({"model/models/model.json": found["model/models/model.json"] + b" "}), False),
        (entry(is_param=False), False),
        (added("model/data/weights/weight_9", bytes(8)), False),
    ],
    ids=range(9),
)
def test_two_archives_are_one_program(change: Callable[[Members], object], is_same: bool, archive: Path) -> None:
    other = changed(archive, change)
    assert is_same_program(other, archive) is is_same
    assert is_same_program(archive, other) is is_same


def test_what_is_written_again_of_a_program(archive: Path) -> None:
    parts = pt2.Archive(LocalFile(archive)).parts()
    assert {part.name for part in parts} == {
        "model/models/model.json",
        _CONSTANTS,
        "model/data/sample_inputs/model.pt",
    }
