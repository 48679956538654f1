"""What is written is opened by ``torch.load(weights_only=True, mmap=True)``, is whole, and is always the same bytes."""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter.errors import LossError
from converter.execution.streaming import stream
from converter.formats import NoOptions
from converter.formats.pytorch import FORMAT
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.output import Output, Provenance
from converter.model.tensor import ArrayTensor, Tensor


def write(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Output]:
    provenance = Provenance(tool="ckconv 0", source_name="x.h5", source_hash=lambda: "0" * 64, counts={"mapped": 1})
    assert FORMAT.write is not None
    output = FORMAT.write(checkpoint, NoOptions(), provenance)
    (file,) = output.files
    folder.mkdir(exist_ok=True)
    stream(file, folder)
    path = folder / file.name
    assert path.stat().st_size == file.nbytes
    return path, output


def load(path: Path) -> Any:
    mapped = torch.load(path, weights_only=True, mmap=True)
    torch.load(path, weights_only=True)
    return mapped


def of(array: Any) -> ArrayTensor:
    return ArrayTensor.of(np.asarray(array))


def filled(dtype: DType, shape: tuple[int, ...]) -> ArrayTensor:
    count = int(np.prod(shape))
    bits = np.random.default_rng(0).integers(0, 2 if dtype is DType.BOOL else 256, count * dtype.itemsize, np.uint8)
    return ArrayTensor(dtype=dtype, shape=shape, array=bits.view(dtype.numpy).reshape(shape))


def check(found: torch.Tensor, expected: Tensor) -> None:
    assert (str(found.dtype), tuple(found.shape)) == (f"torch.{expected.dtype.value}", expected.shape)
    assert found.is_contiguous()
    raw = found.reshape(-1).view(torch.uint8).numpy().tobytes() if found.numel() else b""
    assert raw == expected.numpy().tobytes()


@pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.value)
def test_element_types(tmp_path: Path, dtype: DType) -> None:
    tensors = {"x": filled(dtype, (3, 5)), "scalar": filled(dtype, ()), "empty": filled(dtype, (0, 4))}
    path, output = write(Checkpoint(tensors=tensors), tmp_path)
    found = load(path)
    assert type(found) is OrderedDict
    assert output.names == {name: name for name in tensors}
    for name, tensor in tensors.items():
        check(found[name], tensor)


def test_ties_share_one_storage(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"a": of(np.ones(1000, "f4"))}, aliases={"b": "a", "c": "a"})
    path, output = write(checkpoint, tmp_path)
    found = load(path)
    assert list(found) == ["a", "b", "c"]
    assert len({tensor.data_ptr() for tensor in found.values()}) == 1
    assert output.names == {"a": "a", "b": "b", "c": "c"}
    assert path.stat().st_size < 8000
    assert FORMAT.read is not None
    assert FORMAT.read(path, FORMAT.read_options()).aliases == checkpoint.aliases


def test_lazy_tensors_are_written(tmp_path: Path) -> None:
    array = np.arange(12, dtype="f8").reshape(3, 4)
    tensors = {"t": of(array).transpose((1, 0)), "h": of(array).cast(DType.BFLOAT16)}
    path, _ = write(Checkpoint(tensors=tensors), tmp_path)
    for name, tensor in load(path).items():
        check(tensor, tensors[name])


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"a": of(np.ones(3))}, extras={"s": {"b", "a", "c", "d"}, "epoch": 1})
    first, _ = write(checkpoint, tmp_path / "1")
    second, _ = write(checkpoint, tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()


def test_provenance_is_a_record_of_its_own(tmp_path: Path) -> None:
    path, _ = write(Checkpoint(tensors={"a": of([1.0])}), tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        document = json.loads(archive.read("archive/ckconv.json"))
    assert document["generator"] == "ckconv 0"
    assert document["source_hash"]["hex"] == "0" * 64


def test_extras(tmp_path: Path) -> None:
    extras = {
        "epoch": 3,
        "global_step": 1 << 40,
        "scheduler_state_dict": {"last_epoch": 3, "_last_lr": [0.1], "base": None},
        "rng": of(np.arange(5, dtype=np.uint8)),
        "other": {"t": (1, -2.5, True), "s": {1, 2}, "b": b"\x00\xff", "c": 1 + 2j, 7: "é", "n": np.float32(1.5)},
    }
    path, _ = write(Checkpoint(tensors={"a": of([1.0])}, extras=extras), tmp_path)
    found = load(path)
    assert list(found) == ["model_state_dict", "scheduler_state_dict", "epoch", "global_step", "extras"]
    assert found["scheduler_state_dict"] == extras["scheduler_state_dict"]
    assert (found["epoch"], found["global_step"]) == (3, 1 << 40)
    check(found["extras"]["rng"], extras["rng"])  # type: ignore[arg-type]
    assert found["extras"]["other"] == extras["other"]
    assert FORMAT.read is not None
    again = FORMAT.read(path, FORMAT.read_options())
    assert again.extras.keys() == extras.keys()
    assert again.extras["other"] == extras["other"]


def adamw(at: int | None = 7, **slots: Any) -> OptimizerState:
    hyperparameters = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}
    return OptimizerState(
        algorithm="adamw",
        step=at,
        groups=(
            ParameterGroup(parameters=("w",), hyperparameters=hyperparameters),
            ParameterGroup(parameters=("b",), hyperparameters={**hyperparameters, "weight_decay": 0.0}),
        ),
        slots={
            "exp_avg": {"w": of(np.ones((2, 2), "f4")), "b": of(np.zeros(2, "f4"))},
            "exp_avg_sq": {"w": of(np.ones((2, 2), "f4")), "b": of(np.zeros(2, "f4"))},
            **slots,
        },
    )


WEIGHTS = {"w": of(np.ones((2, 2), "f4")), "b": of(np.ones(2, "f4"))}


def test_optimizers_load_the_state(tmp_path: Path) -> None:
    path, _ = write(Checkpoint(tensors=WEIGHTS, optimizer=adamw()), tmp_path)
    found = load(path)
    assert list(found) == ["model_state_dict", "optimizer_state_dict"]
    state = found["optimizer_state_dict"]
    assert [group["param_names"] for group in state["param_groups"]] == [["w"], ["b"]]
    assert state["state"][0]["step"].dtype is torch.float32
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in found["model_state_dict"].items()}
    optimizer = torch.optim.AdamW([{"params": [pair]} for pair in parameters.items()], lr=1.0)
    optimizer.load_state_dict(state)
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.state_dict()["state"][1]["step"] == 8


@pytest.mark.parametrize(
    "state",
    [adamw(), adamw(None, step={"w": of(np.float32(3)), "b": of(np.float32(4))}), adamw(0)],
    ids=["one step", "a step each", "step 0"],
)
def test_the_state_is_read_back_as_it_was(tmp_path: Path, state: OptimizerState) -> None:
    path, _ = write(Checkpoint(tensors=WEIGHTS, optimizer=state), tmp_path)
    assert FORMAT.read is not None
    again = FORMAT.read(path, FORMAT.read_options()).optimizer
    assert again is not None
    assert (again.algorithm, again.step, again.groups, again.basis) == ("adamw", state.step, state.groups, "named")
    assert again.slots.keys() == state.slots.keys()
    for slot, tensors in state.slots.items():
        for name, tensor in tensors.items():
            assert np.array_equal(again.slots[slot][name].numpy(), tensor.numpy())


def test_state_without_slots_keeps_its_step(tmp_path: Path) -> None:
    groups = (ParameterGroup(parameters=("w", "b"), hyperparameters={"lr": 0.1, "momentum": 0.0}),)
    state = OptimizerState(algorithm="sgd", step=5, groups=groups)
    path, _ = write(Checkpoint(tensors=WEIGHTS, optimizer=state), tmp_path)
    assert FORMAT.read is not None
    again = FORMAT.read(path, FORMAT.read_options()).optimizer
    assert again is not None
    assert (again.algorithm, again.step, again.groups) == ("sgd", 5, groups)


def test_slots_of_no_group_are_refused(tmp_path: Path) -> None:
    state = adamw(exp_avg_x={"elsewhere": of([1.0])})
    with pytest.raises(LossError, match="tensor elsewhere: has optimizer state"):
        write(Checkpoint(tensors=WEIGHTS, optimizer=state), tmp_path)
