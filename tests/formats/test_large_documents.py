"""Documents beside tensors are read whole, and so none is read that is larger than any makes sense: sparse files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.encoding.torch_file import StateDict, torch_file
from converter.errors import ReadError, UsageError
from converter.execution.streaming import stream
from converter.model.checkpoint import Checkpoint, Config
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor

MIB = 1 << 20
TENSORS = {name: ArrayTensor.of(np.full(2, number, np.float32)) for number, name in enumerate(("a.weight", "b.weight"))}
SOURCE = Checkpoint(
    tensors=TENSORS,
    config=Config(values={"model_type": "none"}, raw=b'{"model_type": "none"}'),
    extras={"epoch": 1},
)
GROUP = {"params": [0, 1], "lr": 0.1, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False}
NUMBERED = {"model": StateDict(tensors=TENSORS), "optimizer": {"state": {}, "param_groups": [GROUP]}}
SIDES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("pretrained", "config.json", {}, 16 * MIB, "is a config of"),
    ("pretrained", "model.safetensors.index.json", {"max_shard_size": "8B"}, 256 * MIB, "is an index of"),
    ("pretrained", "trainer_state.json", {}, 256 * MIB, "is a state of"),
    ("dcp", ".metadata", {}, 256 * MIB, "is metadata of"),
    ("dcp", "ckconv.json", {}, 64 * MIB, "is a document of"),
    ("tf-checkpoint", "checkpoint", {}, 1 * MIB, "is a list of checkpoints of"),
    ("tf-checkpoint", "ckpt.index", {}, 256 * MIB, "which no checkpoint index has"),
    ("savedmodel", "assets.extra/ckconv.json", {"weights_only": True}, 64 * MIB, "is a document of"),
    ("safetensors", "x.safetensors", {}, 100_000_000, "declares a header of"),
]


@pytest.mark.parametrize(
    ("name", "side", "options", "limit", "why"), SIDES, ids=[f"{row[0]}: {row[1]}" for row in SIDES]
)
def test_no_document_of_any_size_is_read(
    name: str, side: str, options: dict[str, Any], limit: int, why: str, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    converter.write(SOURCE, f"{folder}/" if name != "safetensors" else folder / side, to=name, **options)
    assert converter.read(folder).tensors.keys() == SOURCE.tensors.keys()
    size = limit + 1
    os.truncate(folder / side, size)
    if name == "safetensors":
        os.truncate(folder / side, 2 * limit)
        with open(folder / side, "r+b") as file:
            file.write(size.to_bytes(8, "little"))
    with pytest.raises(ReadError, match=why) as caught:
        converter.read(folder)
    assert str(size) in caught.value.message
    assert caught.value.path is not None
    assert Path(caught.value.path).name == Path(side).name


@pytest.mark.parametrize(("option", "why"), [("mapping", "is a mapping of"), ("param_order", "is a list of")])
def test_nor_one_that_an_option_names(option: str, why: str, tmp_path: Path) -> None:
    stream(OutputFile(name="x.pth", pieces=torch_file(NUMBERED)), tmp_path)
    given = tmp_path / "given"
    given.write_text('{"rules": [{"from": "a.weight", "to": "c"}]}' if option == "mapping" else "a.weight\nb.weight")
    converter.convert(tmp_path / "x.pth", tmp_path / "y.pth", **{option: given})
    os.truncate(given, 64 * MIB + 1)
    with pytest.raises(UsageError, match=f"{why} {64 * MIB + 1} bytes") as caught:
        converter.convert(tmp_path / "x.pth", tmp_path / "z.pth", **{option: given})
    assert caught.value.path == str(given)
