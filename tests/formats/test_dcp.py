"""torch.distributed.checkpoint: folders that torch wrote (two ranks: fixtures/dcp), and torch on ours."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import converter
from converter.encoding.dcp import Chunk, FileRange, Item, TensorItem, ValueItem, metadata_pickle
from converter.encoding.torch_file import torch_file
from converter.errors import CkconvError, LossError, ReadError, SafetyError
from converter.formats import Probe
from converter.formats.dcp import ReadOptions, read, sniff
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.output import Late, Watched
from converter.model.tensor import ArrayTensor, FileTensor, Tensor

torch = pytest.importorskip("torch")

import torch.distributed.checkpoint as dcp  # noqa: E402
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save  # noqa: E402
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "dcp"


def test_chunks_of_two_ranks() -> None:
    checkpoint = converter.read(FIXTURE / "two-ranks")
    restored = json.loads((FIXTURE / "restored.json").read_text())
    found = {
        name: [tensor.dtype.value, list(tensor.shape), tensor.numpy().astype(float).tolist()]
        for name, tensor in checkpoint.tensors.items()
    }
    assert found == restored
    assert isinstance(checkpoint.tensors["whole"], FileTensor)
    assert checkpoint.extras == {"epoch": 3}


def test_chunks_of_four_ranks_in_rows_columns_and_grids() -> None:
    checkpoint = converter.read(FIXTURE / "four-ranks")
    restored = json.loads((FIXTURE / "four-ranks.json").read_text())
    found = {
        name: [tensor.dtype.value, list(tensor.shape), tensor.numpy().astype(float).tolist()]
        for name, tensor in checkpoint.tensors.items()
    }
    assert found == restored
    for name, tensor in checkpoint.tensors.items():
        assert b"".join(map(bytes, tensor.chunks())) == tensor.numpy().tobytes(), name


def trained(optimizer: Callable[[Any], Any]) -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    made = optimizer(net.parameters())
    for _ in range(2):
        net(torch.randn(5, 4)).square().sum().backward()
        made.step()
    return net, made


def saved(folder: Path, value: dict[str, Any]) -> Path:
    dcp.save(value, checkpoint_id=folder, no_dist=True)
    return folder


def restored(folder: Path) -> Any:
    """What torch reads from a folder."""
    dcp_to_torch_save(folder, folder.parent / "whole.pt")
    return torch.load(folder.parent / "whole.pt", weights_only=False)


def test_a_state_dict_that_torch_wrote(tmp_path: Path) -> None:
    net, _ = trained(torch.optim.SGD)
    checkpoint = converter.read(saved(tmp_path / "x", net.state_dict()))
    assert (checkpoint.dialect, checkpoint.optimizer, checkpoint.extras) == ("pytorch", None, {})
    assert checkpoint.buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, value in net.state_dict().items():
        assert isinstance(checkpoint.tensors[name], FileTensor)
        np.testing.assert_array_equal(checkpoint.tensors[name].numpy(), value.numpy())


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            assert_same(mine, yours)
    else:
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


@pytest.mark.parametrize("name", ["AdamW", "SGD", "momentum"])
def test_training_there_and_back(name: str, tmp_path: Path) -> None:
    make = {
        "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
        "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    }[name]
    net, optimizer = trained(make)
    weights, state = get_state_dict(net, optimizer)
    saved(tmp_path / "x", {"model": weights, "optimizer": state, "epoch": 3, "notes": ["hi", 2]})
    checkpoint = converter.read(tmp_path / "x")
    assert checkpoint.optimizer is not None
    assert (checkpoint.optimizer.basis, checkpoint.extras) == ("named", {"epoch": 3, "notes": ["hi", 2]})
    if name != "SGD":
        slot = "exp_avg_sq" if name == "AdamW" else "momentum_buffer"
        found = checkpoint.optimizer.slots[slot]["0.weight"].numpy()
        np.testing.assert_array_equal(found, state["state"]["0.weight"][slot].numpy())
    report = converter.convert(tmp_path / "x", tmp_path / "y", to="dcp", optimizer="keep")
    assert report.optimizer.status == "carried"
    assert_same(restored(tmp_path / "y"), restored(tmp_path / "x"))
    another, other_optimizer = trained(make)
    weights, state = get_state_dict(another, other_optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "y", no_dist=True)
    set_state_dict(another, other_optimizer, model_state_dict=weights, optim_state_dict=state)
    assert_same(other_optimizer.state_dict(), optimizer.state_dict())


def test_everything_under_one_key_of_the_user(tmp_path: Path) -> None:
    net, optimizer = trained(lambda parameters: torch.optim.AdamW(parameters, lr=0.1))
    weights, state = get_state_dict(net, optimizer)
    checkpoint = converter.read(saved(tmp_path / "x", {"app": {"model": weights, "optim": state}}))
    assert set(checkpoint.tensors) == set(weights)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.step == 2


def in_two_groups(parameters: Any) -> Any:
    listed = list(parameters)
    vectors = [parameter for parameter in listed if parameter.ndim < 2]
    matrices = [parameter for parameter in listed if parameter.ndim > 1]
    return torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=0.1)


@pytest.mark.parametrize("is_flat", [True, False])
def test_flattened_and_numbered_state(tmp_path: Path, is_flat: bool) -> None:
    """Flattened it names its parameters; numbered they are as `state_dict()` has them, and the numbers became text."""
    net, optimizer = trained(in_two_groups)
    weights, state = get_state_dict(net, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
    saved(tmp_path / "x", {"model": weights, "optimizer": state if is_flat else optimizer.state_dict()})
    found = converter.read(tmp_path / "x").optimizer
    assert found is not None
    assert found.basis == ("named" if is_flat else "verified (order)")
    assert [group.parameters for group in found.groups] == [("0.weight",), ("0.bias", "1.weight", "1.bias")]
    assert [group.hyperparameters["weight_decay"] for group in found.groups] == [0.01, 0.0]
    for name, parameter in net.named_parameters():
        for slot in ("exp_avg", "exp_avg_sq"):
            assert np.array_equal(found.slots[slot][name].numpy(), optimizer.state[parameter][slot].numpy())


def test_an_order_can_be_given(tmp_path: Path) -> None:
    net, optimizer = trained(lambda parameters: torch.optim.AdamW(list(parameters)[::-1], lr=0.1))
    saved(tmp_path / "x", {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    with pytest.raises(LossError, match="--param-order"):
        converter.convert(tmp_path / "x", tmp_path / "x.pth")
    (tmp_path / "order").write_text("\n".join([name for name, _ in net.named_parameters()][::-1]))
    report = converter.convert(tmp_path / "x", tmp_path / "x.pth", param_order=tmp_path / "order")
    assert report.optimizer.basis == "given"
    state = torch.load(tmp_path / "x.pth", weights_only=True)["optimizer_state_dict"]
    assert_same(state["state"], optimizer.state_dict()["state"])


def test_flattened_state_without_groups_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x", {"model": {"w": torch.ones(2)}, "optimizer": {"state.w.exp_avg": torch.ones(2)}})
    with pytest.raises(LossError, match="its groups and its entries"):
        converter.convert(tmp_path / "x", tmp_path / "x.pth")
    assert converter.convert(tmp_path / "x", tmp_path / "x.pth", optimizer="drop").counts["mapped"] == 1


def test_what_is_no_tensor_is_a_ledger_line(tmp_path: Path) -> None:
    saved(tmp_path / "x", {"model": {"w": torch.ones(2), "version": 3}})
    (line,) = converter.read(tmp_path / "x").lines
    assert (line.name, line.reason) == ("version", "is no tensor but int")


def test_torch_opens_what_we_write(tmp_path: Path) -> None:
    tensors = {dtype.value: ArrayTensor.of(np.array([[0, 1]], dtype.numpy)) for dtype in DType}
    tensors |= {"scalar": ArrayTensor.of(np.array(3)), "empty": ArrayTensor.of(np.zeros((0, 2), np.float16))}
    tensors |= {"": ArrayTensor.of(np.ones(1)), "a.b/ c\u202e": ArrayTensor.of(np.ones(1, ml_dtypes.bfloat16))}
    checkpoint = Checkpoint(tensors=tensors, aliases={"tied": "float32"}, frozen=frozenset({"float64"}))
    report = converter.write(checkpoint, tmp_path / "x", to="dcp")
    assert report.counts["tied"] == 1
    assert sorted(os.listdir(tmp_path / "x")) == [".metadata", "__0_0.distcp", "ckconv.json"]
    found = restored(tmp_path / "x")
    assert list(found) == list(checkpoint.names)
    for name in checkpoint.names:
        value, tensor = found[name], checkpoint.tensor(name)
        assert (str(value.dtype), tuple(value.shape)) == (f"torch.{tensor.dtype.value}", tensor.shape)
        assert bytes(value.contiguous().flatten().view(torch.uint8).tolist()) == tensor.numpy().tobytes()
    again = converter.read(tmp_path / "x")
    assert (dict(again.aliases), again.frozen) == ({"tied": "float32"}, {"float64"})


def test_extras_whose_keys_mean_something_else(tmp_path: Path) -> None:
    extras = {"model": 1, "optimizer_name": "x", "epoch": 2, "ema": {"w": ArrayTensor.of(np.ones(2))}}
    checkpoint = Checkpoint(tensors={"w": ArrayTensor.of(np.zeros(2))}, extras=extras)
    converter.write(checkpoint, tmp_path / "x", to="dcp")
    again = converter.read(tmp_path / "x").extras
    assert isinstance(again["ema"]["w"], Tensor)
    assert {**again, "ema": None} == {**extras, "ema": None}


def test_config_and_optimizer_of_a_real_one(squad_bert: Path, tmp_path: Path) -> None:
    converter.convert(squad_bert, tmp_path / "x", to="dcp", optimizer="keep")
    assert (tmp_path / "x" / "config.json").read_bytes() == (squad_bert.parent / "config.json").read_bytes()
    value = restored(tmp_path / "x")
    golden = torch.load(squad_bert, weights_only=True)
    assert_same(value["model"], dict(golden["model_state_dict"]))
    names = [name for group in value["optimizer"]["param_groups"] for name in group["params"]]
    assert set(value["optimizer"]["state"]) <= set(names)


# malformed folders


def rendered(value: Any) -> bytes:
    parts = []
    for piece in torch_file(value):
        inner = piece.piece if isinstance(piece, Watched) else piece
        data = (
            inner.render()
            if isinstance(inner, Late)
            else inner
            if isinstance(inner, bytes)
            else inner.numpy().tobytes()
        )
        if isinstance(piece, Watched):
            piece.sum.update(data)
        parts.append((inner, data))
    return b"".join(inner.render() if isinstance(inner, Late) else data for inner, data in parts)


LEFT, RIGHT = np.arange(4, dtype=np.float32).reshape(2, 2), np.arange(2, dtype=np.float32).reshape(2, 1)


def folder_of(path: Path, change: Callable[[TensorItem], Item] = lambda item: item, **more: Item) -> Path:
    """A folder with one tensor in two chunks, as `change` describes it, and a number."""
    path.mkdir(exist_ok=True)
    stored = [rendered(ArrayTensor.of(LEFT)), rendered(ArrayTensor.of(RIGHT)), rendered(5)]
    (path / "data").write_bytes(b"".join(stored))
    first, second, third = (
        FileRange(file_name="data", offset=sum(map(len, stored[:position])), length=len(stored[position]))
        for position in range(3)
    )
    chunks = (Chunk(starts=(0, 0), shape=(2, 2), place=first), Chunk(starts=(0, 2), shape=(2, 1), place=second))
    item = TensorItem(path=("w",), dtype=DType.FLOAT32, shape=(2, 3), chunks=chunks)
    items: dict[str, Item] = {"w": change(item), "n": ValueItem(path=("n",), place=third), **more}
    (path / ".metadata").write_bytes(metadata_pickle(items))
    return path


def assert_good(path: Path) -> None:
    checkpoint = read(path, ReadOptions())
    np.testing.assert_array_equal(checkpoint.tensors["w"].numpy(), np.hstack([LEFT, RIGHT]))
    assert (checkpoint.extras, checkpoint.lines) == ({"n": 5}, ())


def assert_refused(path: Path, what: str, error: type[CkconvError] = ReadError) -> None:
    with pytest.raises(error, match=what) as caught:
        converter.read(path)
    assert str(caught.value.path).startswith(str(path))


def chunk(item: TensorItem, number: int, **changes: Any) -> TensorItem:
    chunks = list(item.chunks)
    place = {key: changes.pop(key) for key in ("file_name", "offset", "length") if key in changes}
    chunks[number] = replace(chunks[number], **changes)
    chunks[number] = replace(chunks[number], place=replace(chunks[number].place, **place))
    return replace(item, chunks=tuple(chunks))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda item: replace(item, dtype=DType.INT32), "declared as .'int32'"),
        (lambda item: replace(item, shape=(2, 4)), "leave gaps"),
        (lambda item: replace(item, shape=(2, 2)), "leave gaps"),
        (lambda item: replace(item, shape=(6,)), "other axes than its own"),
        (lambda item: replace(item, shape=(2, -3)), "is not a list of whole numbers|is not a tuple of whole numbers"),
        (lambda item: replace(item, shape=(2, "3")), "is not a (list|tuple) of whole numbers"),
        (lambda item: replace(item, chunks=item.chunks[:1]), "leave gaps"),
        (lambda item: replace(item, chunks=()), "no chunks"),
        (lambda item: replace(item, chunks=item.chunks[:1] * 2), "declared and not stored|has a key|twice"),
        (lambda item: chunk(item, 1, starts=(0, 1)), "overlap"),
        (lambda item: chunk(item, 1, shape=(1, 1)), "declared as"),
        (lambda item: chunk(item, 0, length=10), "zip|cut short|archive"),
        (lambda item: chunk(item, 0, offset=1), "overlaps what is stored beside it"),
        (
            lambda item: chunk(item, 1, offset=0, length=item.chunks[0].place.length - 8),
            "overlaps what is stored beside it",
        ),
        (lambda item: chunk(item, 0, length=1 << 40), "the file has"),
        (lambda item: chunk(item, 0, offset=-1), "not stored as a range of bytes"),
        (lambda item: chunk(item, 0, file_name="absent"), "No such file"),
        (lambda item: replace(item, path=("n",)), "in the file twice"),
        (lambda item: replace(item, path=("n", "w")), "in the file twice"),
        (lambda item: replace(item, path=()), "without its place in the state dict"),
        (lambda item: replace(item, path=(None,)), "without its place in the state dict"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    change: Callable[[TensorItem], TensorItem], what: str, tmp_path: Path
) -> None:
    assert_good(folder_of(tmp_path / "good"))
    assert_refused(folder_of(tmp_path / "bad", change), what)


def test_values_that_are_no_tensors_and_the_reverse(tmp_path: Path) -> None:
    assert_good(folder_of(tmp_path / "x"))
    data = rendered(5)
    end = FileRange(file_name="data", offset=(tmp_path / "x" / "data").stat().st_size - len(data), length=len(data))
    folder_of(tmp_path / "x", lambda item: replace(item, shape=(), chunks=(Chunk(starts=(), shape=(), place=end),)))
    assert_refused(tmp_path / "x", "something else than a tensor")
    folder_of(tmp_path / "x", m=ValueItem(path=("n", "x"), place=end))
    assert_refused(tmp_path / "x", "inside something that is no dict")


def test_files_outside_the_folder_are_refused(tmp_path: Path) -> None:
    assert_good(folder_of(tmp_path / "x"))
    for name in ("../x/data", str(tmp_path / "x" / "data"), "a/../../y"):
        folder_of(tmp_path / "x", lambda item, name=name: chunk(item, 0, file_name=name))
        assert_refused(tmp_path / "x", "outside its folder", SafetyError)
    folder_of(tmp_path / "x")
    (tmp_path / "x" / "data").rename(tmp_path / "data")
    (tmp_path / "x" / "data").symlink_to(tmp_path / "data")
    assert_refused(tmp_path / "x", "link that leaves", SafetyError)


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("echo executed",)


@pytest.mark.parametrize("is_in_metadata", [True, False])
def test_pickles_that_would_run_code_are_refused(is_in_metadata: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", {"w": torch.ones(1), "n": 3})
    assert read(folder, ReadOptions()).names == ("w",)
    if is_in_metadata:
        metadata = dcp.FileSystemReader(folder).read_metadata()
        metadata.planner_data = Runs()
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    else:
        folder = saved(tmp_path / "y", {"w": torch.ones(1), "n": Runs()})
    assert_refused(folder, "can run code", SafetyError)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.storage_data.update({dcp.metadata.MetadataIndex("x"): next(iter(m.storage_data.values()))}),
         "stored and not declared"),
        (lambda m: m.state_dict_metadata.update(x=dcp.metadata.BytesStorageMetadata()), "declared and not stored"),
        (lambda m: setattr(next(iter(m.storage_data.values())), "transform_descriptors", ["zstd"]), "compressed"),
        (lambda m: setattr(m, "storage_data", []), "does not say what it holds"),
        (lambda m: setattr(m, "state_dict_metadata", None), "does not say what it holds"),
        (lambda m: m.state_dict_metadata.update(x=3), "something else where TensorStorageMetadata"),
        (lambda m: setattr(m.state_dict_metadata["w"].properties, "dtype", torch.qint8), "element type torch.qint8"),
    ],
)  # fmt: skip
def test_metadata_that_torch_could_write_and_does_not(change: Any, what: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "x", {"w": torch.ones(1)})
    metadata = dcp.FileSystemReader(folder).read_metadata()
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert read(folder, ReadOptions()).names == ("w",)
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert_refused(folder, what)


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "x")
    assert_good(folder)
    for name in (".metadata", "data"):
        whole = (folder / name).read_bytes()
        for length in {*range(0, len(whole), 97), len(whole) - 1}:
            (folder / name).write_bytes(whole[:length])
            assert_refused(folder, ".")
        (folder / name).write_bytes(whole)
    (folder / ".metadata").write_bytes((folder / ".metadata").read_bytes() + b"x")
    assert_refused(folder, "after the end of its pickle")


def test_a_flipped_bit_is_found_when_it_is_read(tmp_path: Path) -> None:
    assert_good(folder_of(tmp_path / "x"))
    data = bytearray((tmp_path / "x" / "data").read_bytes())
    position = data.index(LEFT.tobytes())
    data[position + 4] ^= 1
    (tmp_path / "x" / "data").write_bytes(data)
    with pytest.raises(ReadError, match="CRC"):
        read(tmp_path / "x", ReadOptions()).tensors["w"].numpy()


def test_tensors_of_no_element_are_not_tied(tmp_path: Path) -> None:
    """They are in one place, and nothing of one is seen in the other."""
    tensors = {"empty": ArrayTensor.of(np.zeros((0, 2), np.float32)), "w": ArrayTensor.of(np.ones(2, np.float32))}
    tied = Checkpoint(tensors=tensors, aliases={"empty.too": "empty", "v": "w"})
    converter.write(tied, tmp_path / "x", to="dcp")
    (tmp_path / "x" / "ckconv.json").unlink()
    found = converter.read(tmp_path / "x")
    assert (set(found.tensors), found.aliases) == ({"empty", "empty.too", "w"}, {"v": "w"})


def test_sniff(tmp_path: Path) -> None:
    assert sniff(Probe(FIXTURE / "two-ranks"))
    assert not sniff(Probe(FIXTURE))
    assert not sniff(Probe(FIXTURE / "two-ranks" / ".metadata"))
    shutil.copytree(FIXTURE / "two-ranks", tmp_path / "x")
    (tmp_path / "x" / ".metadata").unlink()
    assert not sniff(Probe(tmp_path / "x"))


def test_no_framework_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, converter\n"
        "converter.convert(sys.argv[1], sys.argv[2], to='dcp')\n"
        "print(sorted({'torch', 'tensorflow', 'onnx'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(FIXTURE / "two-ranks"), str(tmp_path / "x")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
