"""What each format keeps besides tensors, and what it refuses: one row a condition, and no framework."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.encoding import protobuf
from converter.encoding.dcp import FileRange, metadata_pickle, whole_tensor
from converter.encoding.description import described, parse_document
from converter.encoding.torch_file import StateDict, torch_file
from converter.errors import ReadError, SafetyError, UnknownFormatError, UsageError
from converter.execution.streaming import stream
from converter.formats import Probe, by_name, detect, foreign_entry, of_suffix, options_of, registry
from converter.graphs.calls import run_onnx
from converter.graphs.description.signature import GraphInput, Signature
from converter.graphs.description.traced import Reference, TracedGraph
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.dtype import DType
from converter.model.output import Late, OutputFile, Provenance
from converter.model.tensor import ArrayTensor, Tensor
from converter.testing import assert_same, destination_of
from converter.testing import options_of as needed_of


def tensor(*shape: int, start: float = 0) -> Tensor:
    return ArrayTensor.of(np.arange(start, start + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


NETWORK = Checkpoint(
    tensors={
        "embed.weight": tensor(4, 3),
        "frozen.weight": tensor(3, start=100),
        "norm.running_mean": tensor(3, start=200),
        "head.bias": tensor(3, start=300),
    },
    aliases={"decoder.weight": "embed.weight"},
    frozen=frozenset({"frozen.weight"}),
    buffers=frozenset({"norm.running_mean"}),
)
KEEP_ALL = ["dcp", "onnx", "pt2", "savedmodel", "tf-checkpoint"]


def written(name: str, checkpoint: Checkpoint, folder: Path, **options: Any) -> Path:
    path = Path(destination_of(registry()[name], str(folder)))
    converter.write(checkpoint, path, to=name, **needed_of(registry()[name]), **options)
    return path


@pytest.mark.parametrize("name", KEEP_ALL)
def test_frozen_parameters_buffers_and_ties_come_back(name: str, tmp_path: Path) -> None:
    found = converter.read(written(name, NETWORK, tmp_path))
    assert found.frozen == NETWORK.frozen
    assert found.buffers == NETWORK.buffers
    assert found.aliases == NETWORK.aliases
    assert found.tensor("decoder.weight").shape == (4, 3)


@pytest.mark.parametrize("dialect", [Dialect.PYTORCH, Dialect.FLAX, Dialect.GENERIC])
@pytest.mark.parametrize("name", ["dcp", "h5", "keras", "savedmodel", "tf-checkpoint"])
def test_whose_names_they_are_is_kept(name: str, dialect: Dialect, tmp_path: Path) -> None:
    source = Checkpoint(tensors={"x/y": tensor(2, 3), "z": tensor(3)}, dialect=dialect)
    found = converter.read(written(name, source, tmp_path))
    assert found.dialect == dialect
    assert_same(source, found)


@pytest.mark.parametrize("name", ["h5", "keras", "pytorch", *KEEP_ALL])
def test_a_tie_is_stored_once(name: str, tmp_path: Path) -> None:
    found = converter.read(written(name, NETWORK, tmp_path))
    assert set(found.aliases) | {found.aliases[each] for each in found.aliases} == {"embed.weight", "decoder.weight"}
    assert len(found.tensors) == 4


@pytest.mark.parametrize("name", KEEP_ALL)
def test_what_is_left_out_is_not_said_to_be_frozen(name: str, tmp_path: Path) -> None:
    converter.convert(written("dcp", NETWORK, tmp_path), tmp_path / "y", to=name, **needed_of(registry()[name]),
                      exclude=("embed.*", "decoder.*"))  # fmt: skip
    assert converter.read(tmp_path / "y").frozen == {"frozen.weight"}
    for kept in ("embed.*", "head.*"):
        converter.convert(tmp_path / "x", tmp_path / "y", to=name, **needed_of(registry()[name]),
                          include=(kept, "norm.*"), overwrite=True)  # fmt: skip
        found = converter.read(tmp_path / "y")
        assert (found.frozen, found.buffers) == (frozenset(), {"norm.running_mean"})


def test_what_is_trained_is_a_parameter_of_a_program(tmp_path: Path) -> None:
    path = written("pt2", NETWORK, tmp_path)
    with zipfile.ZipFile(path) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("weights_config.json")]
        config = json.loads(archive.read(name))["config"]
    assert {key for key, entry in config.items() if entry["is_param"]} == {
        *("embed.weight", "head.bias", "decoder.weight")
    }


def test_what_is_trained_is_a_trainable_variable_of_a_saved_model(tmp_path: Path) -> None:
    """saved_object_graph.proto: a SavedVariable has `trainable` for field 3, and its name for field 6."""
    written("savedmodel", NETWORK, tmp_path)
    here = [memoryview((tmp_path / "x" / "saved_model.pb").read_bytes())]
    for number in (2, 7, 1, 7):  # meta graphs, their object graph, its nodes, what is a variable
        here = [value for part in here for field, _, value in protobuf.fields(part) if field == number]
    variables = [{field: value for field, _, value in protobuf.fields(part)} for part in here]
    assert {bytes(each[6]).decode(): each.get(3, 0) for each in variables} == {
        "embed.weight": 1, "head.bias": 1, "frozen.weight": 0, "norm.running_mean": 0,
    }  # fmt: skip


def test_the_optimizer_of_another_prefix_is_not_this_one_s(tmp_path: Path) -> None:
    """`ckconv.json` speaks of one checkpoint of a folder; another beside it keeps its own names."""
    folder = written("tf-checkpoint", NETWORK, tmp_path)
    for path in folder.glob("ckpt.*"):
        path.with_name(path.name.replace("ckpt.", "other.")).write_bytes(path.read_bytes())
    assert converter.read(folder / "ckpt.index").frozen == NETWORK.frozen
    other = converter.read(folder / "other.index")
    assert (other.frozen, other.aliases, other.dialect) == (frozenset(), {}, "tensorflow")


DOCUMENT: dict[str, Any] = {
    "dialect": "pytorch",
    "names": {"stored": "w"},
    "ties": {"tied": "w"},
    "buffers": ["b"],
    "frozen": ["w"],
}
BAD_DOCUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"dialect": "klingon"}, "in which dialect"),
    ({"dialect": None}, "in which dialect"),
    ({"names": {"gone": "w"}}, "is in the table of names, but not in the file"),
    ({"names": {"stored": "b"}}, "would both be named"),
    ({"names": {"stored": 1}}, "does not map names to names"),
    ({"names": ["stored"]}, "does not map names to names"),
    ({"ties": {"tied": "gone"}}, "cannot be tied to 'gone'"),
    ({"ties": {"b": "w"}}, "cannot be tied to 'w'"),
    ({"ties": {"tied": "tied"}}, "cannot be tied"),
    ({"ties": {"tied": None}}, "does not map names to names"),
    ({"buffers": ["stored"]}, "lists names that are not there"),
    ({"buffers": "b"}, "lists names that are not there"),
    ({"frozen": ["gone"]}, "lists names that are not there"),
    ({"frozen": [["w"]]}, "lists names that are not there"),
    ({"frozen": ["tied"]}, "lists names that are not there"),
]


@pytest.mark.parametrize(("change", "why"), BAD_DOCUMENTS)
def test_documents_that_speak_of_something_else(change: dict[str, Any], why: str) -> None:
    source = Checkpoint(tensors={"stored": tensor(2), "b": tensor(3)})

    def made(document: dict[str, Any]) -> Checkpoint:
        path = Path("ckconv.json")
        return described(source, parse_document(json.dumps(document).encode(), path), path)

    found = made(DOCUMENT)
    assert (found.names, found.buffers, found.frozen) == (("w", "b", "tied"), {"b"}, {"w"})
    with pytest.raises(ReadError, match=why):
        made({**DOCUMENT, **change})


SUFFIXES = {
    "a.pth": "pytorch", "a.pth.tar": "pytorch", "A.PT": "pytorch", "a.ckpt": "pytorch", "a.bin": "pytorch",
    "a.weights.h5": "keras", "a.h5": "h5", "a.hdf5": "h5", "weights.h5": "h5", "a.keras": "keras", "a.onnx": "onnx",
    "a.msgpack": "flax", "a.safetensors": "safetensors", "a.pt2": "pt2", "a": None, "a.txt": None, "pth": None,
}  # fmt: skip


@pytest.mark.parametrize("name", SUFFIXES)
def test_what_a_name_says(name: str) -> None:
    found = of_suffix(Path("x.pth", name))
    assert (None if found is None else found.name) == SUFFIXES[name]


ENTRIES: list[tuple[tuple[str, ...], str | None]] = [
    ((), None),
    (("model.safetensors", "config.json", "tokenizer.json"), None),
    (("model.safetensors", "notes.txt"), "notes.txt"),
    (("notes.txt",), "notes.txt"),
    (("MODEL.PTH",), "MODEL.PTH"),
    (("config.json", "vocab.txt"), None),
    ((".metadata", "__0_0.distcp", "ckconv.json"), None),
    ((".metadata", "__0_0.distcp", "ckpt.index"), "ckpt.index"),
    (("bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", "vocab.txt", "bert_config.json"), None),
    (("saved_model.pb", "variables", "assets.extra"), None),
    (("saved_model.pb", "variables", "model.safetensors"), "model.safetensors"),
    (("1_Pooling", "model.safetensors", "config.json", "modules.json"), None),
]


@pytest.mark.parametrize(("entries", "stranger"), ENTRIES)
def test_what_makes_a_folder_somebody_s_own(entries: tuple[str, ...], stranger: str | None) -> None:
    assert foreign_entry(entries) == stranger


def test_what_is_known_of_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "pointer.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "zip.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "text.h5").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_bytes(b"")
    expected = {
        "empty.pth": "is empty", "pointer.onnx": "Git LFS pointer", "zip.pth": "is cut short",
        "text.h5": "in no format", "folder": "is an empty folder", "other": "holds no checkpoint",
    }  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(ReadError, match=message):
            detect(Probe(tmp_path / name))
    (tmp_path / "other" / "model.onnx").write_bytes(b"")
    assert detect(Probe(tmp_path / "other")).name == "onnx"


def test_content_that_two_formats_claim_is_told_apart_by_the_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("safetensors", NETWORK, tmp_path)
    own, other = by_name("safetensors"), replace(by_name("pytorch"), sniff=lambda probe: True)
    monkeypatch.setattr("converter.formats.registry", lambda: {"safetensors": own, "pytorch": other})
    assert detect(Probe(path)) is own
    for suffix, expected in ((".pth", other), (".safetensors", own)):
        path = path.rename(path.with_suffix(suffix))
        assert detect(Probe(path)) is expected
    path = path.rename(path.with_suffix(".x"))
    with pytest.raises(UnknownFormatError, match="could be safetensors, pytorch"):
        detect(Probe(path))


def test_options_that_a_format_does_not_take() -> None:
    format_ = by_name("safetensors")
    assert options_of(format_, format_.write_options, {"tied": "once"}).tied == "once"
    with pytest.raises(UsageError, match="takes no --train-batch-size"):
        options_of(format_, format_.write_options, {"train_batch_size": 8})
    with pytest.raises(UnknownFormatError, match="unknown format 'safetensor'"):
        by_name("safetensor")


def torch_written(path: Path, value: Any) -> Path:
    stream(OutputFile(name=path.name, pieces=torch_file(value)), path.parent)
    return path


STATE = StateDict(tensors={"w": tensor(2), "b": tensor(2, start=9)})
BY_ROOT: list[tuple[str, dict[str, Any], set[str], dict[str, Any]]] = [
    ("a wrapper", {"net": {"model": STATE, "epoch": 3}}, {"w", "b"}, {"epoch": 3}),
    ("two roots", {"net": {"model": STATE}, "ema": {"model": STATE}}, {"net.model.w", "net.model.b"}, {}),
    ("a key of one's own", {"mine": STATE, "epoch": 3}, {"w", "b"}, {"epoch": 3}),
    ("the first key that is known", {"model": STATE, "state_dict": {}}, {"w", "b"}, {"state_dict": {}}),
    ("a key without tensors", {"model": "resnet", "state_dict": STATE}, {"w", "b"}, {"model": "resnet"}),
]


@pytest.mark.parametrize(("root", "names", "extras"), [row[1:] for row in BY_ROOT], ids=[row[0] for row in BY_ROOT])
def test_which_part_of_a_file_of_torch_is_weights(
    root: dict[str, Any], names: set[str], extras: dict[str, Any], tmp_path: Path
) -> None:
    found = converter.read(torch_written(tmp_path / "x.pth", root))
    assert set(found.tensors) == names
    assert found.extras == extras
    if "ema" in root:
        assert found.aliases == {"ema.model.w": "net.model.w", "ema.model.b": "net.model.b"}


EXTRAS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"epoch": 3, "iteration": 7}, {"epoch": 3, "global_step": 7}),
    ({"iter": 5, "global_step": 7}, {"iter": 5, "global_step": 7}),
    ({"step": 5, "iteration": 7}, {"step": 5, "global_step": 7}),
    ({"iter": True, "step": "7"}, {"iter": True, "step": "7"}),
    ({"lr_scheduler": {"a": 1}, "scheduler": {"b": 1}}, {"scheduler_state_dict": {"a": 1}, "scheduler": {"b": 1}}),
    ({"scheduler": 3}, {"scheduler": 3}),
    ({"lr_schedulers": [{"a": 1}]}, {"scheduler_state_dict": {"a": 1}}),
    ({"lr_schedulers": [{"a": 1}, {"b": 1}]}, {"lr_schedulers": [{"a": 1}, {"b": 1}]}),
    ({"extras": {"rng": 1}, "epoch": 3}, {"rng": 1, "epoch": 3}),
    ({"extras": {"epoch": 1}, "epoch": 3}, {"extras": {"epoch": 1}, "epoch": 3}),
    ({"extras": 5}, {"extras": 5}),
]


@pytest.mark.parametrize(("beside", "expected"), EXTRAS)
def test_what_training_code_calls_the_same_things(
    beside: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    found = converter.read(torch_written(tmp_path / "x.pth", {"model": STATE, **beside}))
    assert found.extras == expected
    converter.write(found, tmp_path / "again.pth")
    assert converter.read(tmp_path / "again.pth").extras == expected


def test_dcp_with_two_roots(tmp_path: Path) -> None:
    """One root is a wrapper of the user's, two are two models."""
    state = {"w": tensor(2), "b": tensor(3)}

    def laid(*roots: str) -> Path:
        names = {f"{root}.model.{name}": held for root in roots for name, held in state.items()}
        return nested(names, tmp_path / "-".join(roots))

    one = converter.read(laid("net"))
    assert set(one.names) == {"w", "b"}
    two = converter.read(laid("net", "ema"))
    assert set(two.names) == {"net.model.w", "net.model.b", "ema.model.w", "ema.model.b"}


def nested(tensors: dict[str, Tensor], folder: Path) -> Path:
    """A dcp folder whose items are below the dots of their names."""
    folder.mkdir()
    data, items = b"", {}
    for key, held in tensors.items():
        stored = b"".join(
            piece.render()
            if isinstance(piece, Late)
            else piece
            if isinstance(piece, bytes)
            else piece.numpy().tobytes()
            for piece in (getattr(each, "piece", each) for each in watched(torch_file(held)))
        )
        place = FileRange(file_name="__0_0.distcp", offset=len(data), length=len(stored))
        items[key] = whole_tensor(tuple(key.split(".")), held, place)
        data += stored
    (folder / "__0_0.distcp").write_bytes(data)
    (folder / ".metadata").write_bytes(metadata_pickle(items))
    return folder


def watched(pieces: Any) -> list[Any]:
    """The pieces, after checksums have seen them."""
    for piece in pieces:
        if hasattr(piece, "sum"):
            piece.sum.reset()
            piece.sum.update(piece.piece.numpy().tobytes())
    return list(pieces)


def test_a_bin_index_beside_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    torch_written(tmp_path / "pytorch_model.bin", STATE)
    assert set(converter.read(tmp_path).names) == {"w", "b"}
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"w": "part.bin", "b": "part.bin"}}')
    torch_written(tmp_path / "part.bin", STATE)
    with pytest.raises(ReadError, match=r"is another model than the one pytorch_model\.bin\.index\.json describes"):
        converter.read(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert set(converter.read(tmp_path).names) == {"w", "b"}


def test_training_state_beside_weights_is_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    torch_written(tmp_path / "pytorch_model.bin", STATE)
    (tmp_path / "trainer_state.json").write_text('{"epoch": 1.5, "global_step": 7, "max_steps": 9}')
    torch_written(tmp_path / "scheduler.pt", {"last_epoch": 7})
    found = converter.read(tmp_path)
    assert (found.extras["epoch"], found.extras["global_step"]) == (1.5, 7)
    assert found.extras["scheduler_state_dict"] == {"last_epoch": 7}
    torch_written(tmp_path / "optimizer.pt", {"not": "one"})
    with pytest.raises(ReadError, match="is no optimizer's state_dict"):
        converter.read(tmp_path)
    (tmp_path / "optimizer.pt").unlink()
    (tmp_path / "trainer_state.json").write_text("[1]")
    with pytest.raises(ReadError, match="is not a JSON object"):
        converter.read(tmp_path)
    (tmp_path / "trainer_state.json").unlink()
    assert converter.read(tmp_path).extras == {"scheduler_state_dict": {"last_epoch": 7}}


@pytest.mark.parametrize("count", [1, 2, 10, 11, 12, 25, 101])
@pytest.mark.parametrize("name", ["keras", "h5", "tf-checkpoint", "flax"])
def test_a_layer_of_more_than_ten_variables(name: str, count: int, tmp_path: Path) -> None:
    tensors = {f"cell.w{number}": tensor(2, start=number) for number in range(count)}
    found = converter.read(written(name, Checkpoint(tensors=tensors), tmp_path))
    assert {key: held.numpy()[0] for key, held in found.tensors.items()} == {f"cell.w{n}": n for n in range(count)}


def test_variables_that_keras_numbers_count_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        for number in range(12):
            file[f"layers/mine/vars/{number}"] = np.full(3, number, np.float32)
        file["layers/mine/seed_generator/vars/0"] = np.zeros(2, np.int64)
        file["metrics/0/vars/0"] = np.zeros(2, np.float32)
    found = converter.read(path)
    assert [held.numpy()[0] for held in found.tensors.values()] == list(range(12))
    assert [name.rpartition("/")[2] for name in found.tensors] == [str(number) for number in range(12)]
    assert {(line.name, line.is_refused_by_default) for line in found.lines} == {
        ("layers/mine/seed_generator/vars/0", False),
        ("metrics/0/vars/0", False),
    }
    with h5py.File(path, "a") as file:
        del file["layers/mine/vars/3"]
        file["layers/mine/vars/words"] = "text"
    found = converter.read(path)
    assert {name.rpartition("/")[2] for name in found.tensors} == {str(n) for n in range(12) if n != 3}
    assert "layers/mine/vars/words" in {line.name for line in found.lines if line.is_refused_by_default}


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a.b"), ("a.b", "a.b.c", "a.c"), ("__ckconv__", "a"), ("__ckconv__.a", "__ckconv___.a"),
        ("__msgpack_chunked_array__", "a"), ("a.__msgpack_chunked_array__.b",), ("", "a"), (".", ".."),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name", ["flax", "dcp", "tf-checkpoint", "h5", "keras", "onnx", "pt2", "safetensors", "savedmodel"]
)
def test_names_that_mean_something_to_a_format(name: str, names: tuple[str, ...], tmp_path: Path) -> None:
    tensors = {each: tensor(2, start=number) for number, each in enumerate(names)}
    found = converter.read(written(name, Checkpoint(tensors=tensors), tmp_path))
    assert {key: held.numpy()[0] for key, held in found.tensors.items()} == dict(zip(names, range(9), strict=False))


def state_file(folder: Path, text: str) -> Path:
    (folder / "checkpoint").write_text(text)
    return folder


def test_the_file_that_names_the_latest_of_several(tmp_path: Path) -> None:
    folder = written("tf-checkpoint", NETWORK, tmp_path)
    for path in folder.glob("ckpt.*"):
        path.with_name(path.name.replace("ckpt.", "older.")).write_bytes(path.read_bytes())
    good = 'model_checkpoint_path: "ckpt"\n'
    assert converter.read(state_file(folder, good)).warnings == ()
    whole = f'model_checkpoint_path: "{folder}/ckpt"\n'
    assert converter.read(state_file(folder, whole)).frozen == NETWORK.frozen
    both = (
        good
        + 'all_model_checkpoint_paths: "older"\nall_model_checkpoint_paths: "ckpt"\nlast_preserved_timestamp: 1.5\n'
    )
    assert converter.read(state_file(folder, both)).warnings == ("of 2 checkpoints, ckpt is read, the latest",)
    for text, error, message in (
        ("", ReadError, "names 0 latest"),
        (good * 2, ReadError, "names 2 latest"),
        ("nonsense\n", ReadError, "is no field"),
        ("model_checkpoint_path: 3\n", ReadError, "is no text"),
        ('model_checkpoint_path: "gone"\n', ReadError, "No such file"),
        ('model_checkpoint_path: "../ckpt"\n', SafetyError, "outside its folder"),
        ('model_checkpoint_path: "/tmp/ckpt"\n', SafetyError, "outside its folder"),
        ('model_checkpoint_path: ".."\n', SafetyError, "outside its folder"),
        ('model_checkpoint_path: "sub/ckpt"\n', SafetyError, "outside its folder"),
        ('model_checkpoint_path: ""\n', SafetyError, "outside its folder"),
    ):
        with pytest.raises(error, match=message):
            converter.read(state_file(folder, text))
    (folder / "checkpoint").unlink()
    with pytest.raises(ReadError, match=r"several checkpoints: ckpt\.index, older\.index"):
        converter.read(folder)


@pytest.mark.parametrize("name", ["savedmodel", "onnx", "pt2"])
def test_folders_of_several_or_none(name: str, tmp_path: Path) -> None:
    path = written(name, NETWORK, tmp_path)
    if name == "savedmodel":
        (path / "saved_model.pb").rename(path / "saved_model.pbtxt")
        with pytest.raises(ReadError, match="in text form"):
            converter.read(path)
        (path / "saved_model.pbtxt").rename(path / "saved_model.pb")
        (path / "variables" / "variables.index").unlink()
        with pytest.raises(ReadError, match="without variables"):
            converter.read(path)
        return
    folder = tmp_path / "folder"
    folder.mkdir()
    path = path.rename(folder / path.name)
    assert converter.read(folder, from_format=name).frozen == NETWORK.frozen
    (folder / f"two.{name}").write_bytes(path.read_bytes())
    with pytest.raises(ReadError, match="holds several"):
        converter.read(folder, from_format=name)
    (folder / f"two.{name}").unlink()
    path.unlink()
    with pytest.raises(ReadError, match="holds no"):
        converter.read(folder, from_format=name)


def test_a_tensor_that_is_called_as_an_input(tmp_path: Path) -> None:
    """It would be the default of the input: it is stored under another name, and has its own again when it is read."""
    onnx = pytest.importorskip("onnx")
    helper, elem = onnx.helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", elem, [2])],
        [helper.make_tensor_value_info("y", elem, [2])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    architecture = Signature(
        title="x",
        parameters={"w": (DType.FLOAT32, (2,))},
        buffers={},
        inputs=(GraphInput(name="x", dtype=DType.FLOAT32, shape=(2,)),),
        outputs=("y",),
    )
    reference = Reference(runner=run_onnx, model=tmp_path, takes_weights=False)
    graph = TracedGraph(file=tmp_path / "graph.onnx", signature=architecture, reference=reference)
    tensors = {"w": tensor(2, start=5), "x": tensor(2, start=7), "y": tensor(2, start=9), ".>x": tensor(2, start=11)}
    provenance = Provenance(tool="test", source_name="x", source_hash=lambda: "")
    format_ = by_name("onnx")
    output = format_.write(Checkpoint(tensors=tensors, graph=graph), format_.write_options(), provenance)
    for file in output.files:
        stream(file, tmp_path)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    stored = [each.name for each in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert stored == ["w", ".>x", ".>y", ".>.>x"]
    found = converter.read(tmp_path / "model.onnx")
    assert {name: held.numpy()[0] for name, held in found.tensors.items()} == {"w": 5, "x": 7, "y": 9, ".>x": 11}


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5"])
def test_links_to_data_say_that_their_names_are_utf_8(name: str, tmp_path: Path) -> None:
    """Else a reader is free to take a name of ours for Latin-1: HDF5 has a character set for each link."""
    converter.write(
        Checkpoint(tensors={"\u00fcber.gewicht": tensor(2), "a.weight": tensor(3)}), tmp_path / name, weights_only=True
    )
    with h5py.File(tmp_path / name) as file:
        found = [
            group.id.links.get_info(link.encode()).cset
            for group in (file, *(each for each in _groups(file)))
            for link in group
            if isinstance(group[link], h5py.Dataset)
        ]
    assert found
    assert set(found) == {h5py.h5t.CSET_UTF8}


def _groups(group: Any) -> Any:
    for link in group:
        if isinstance(group[link], h5py.Group):
            yield group[link]
            yield from _groups(group[link])
