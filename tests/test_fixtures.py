"""The checkpoints in fixtures/ are what their expected.json says, to torch and to us."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import formats
from converter.dialects.identity.inference import infer_architecture
from converter.encoding.folder import read_assets, read_config
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import Tensor

_FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "fixtures").glob("*/checkpoint.pth"))
_TOTAL_BYTES = 3_000_000

every_fixture = pytest.mark.parametrize("folder", _FOLDERS, ids=lambda folder: folder.name)


@cache
def _expected(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@cache
def _read(folder: Path) -> Checkpoint:
    pytorch = formats.by_name("pytorch")
    assert pytorch.read is not None
    return pytorch.read(folder / "checkpoint.pth", pytorch.read_options())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tensor_sha256(tensor: Tensor) -> str:
    running = hashlib.sha256()
    for chunk in tensor.chunks():
        running.update(chunk)
    return running.hexdigest()


def _described(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        name: {"dtype": tensor.dtype.value, "shape": list(tensor.shape), "sha256": _tensor_sha256(tensor)}
        for name, tensor in tensors.items()
    }


def test_both_are_there_and_small() -> None:
    assert [folder.name for folder in _FOLDERS] == ["squad-bert", "xlm-roberta-classifier"]
    assert sum(path.stat().st_size for folder in _FOLDERS for path in folder.iterdir() if path.is_file()) < _TOTAL_BYTES


@every_fixture
def test_files_are_those_that_were_made(folder: Path) -> None:
    files = _expected(folder)["files"]
    assert {name: _sha256((folder / name).read_bytes()) for name in files} == files


@every_fixture
def test_training_helped(folder: Path) -> None:
    training = _expected(folder)["training"]
    assert training["last_loss"] < training["first_loss"] / 2


@every_fixture
def test_tensors_are_read_as_expected(folder: Path) -> None:
    checkpoint = _read(folder)
    assert list(checkpoint.tensors) == list(_expected(folder)["tensors"])
    assert _described(checkpoint.tensors) == _expected(folder)["tensors"]
    assert checkpoint.aliases == _expected(folder)["ties"]


@every_fixture
def test_config_and_assets_are_read_as_expected(folder: Path) -> None:
    config, assets, expected = read_config(folder), read_assets(folder), _expected(folder)
    assert config is not None
    assert _sha256(config.raw) == expected["files"]["config.json"]
    assert config.values["architectures"] == [expected["architecture"]]
    assert sorted(assets) == sorted(expected["assets"])
    for name, file in assets.items():
        assert _sha256(file.read(0, file.size)) == expected["files"][name]


@every_fixture
def test_training_state_is_read_as_expected(folder: Path) -> None:
    checkpoint, expected = _read(folder), _expected(folder)
    assert checkpoint.extras == expected["extras"]
    if expected["optimizer"] is None:
        assert checkpoint.optimizer is None
        return
    optimizer = checkpoint.optimizer
    assert optimizer is not None
    assert (optimizer.algorithm, optimizer.step) == (expected["optimizer"]["algorithm"], expected["optimizer"]["step"])
    groups = [
        {"parameters": group.parameters, "hyperparameters": dict(group.hyperparameters)} for group in optimizer.groups
    ]
    assert json.loads(json.dumps(groups)) == expected["optimizer"]["groups"]
    slots = {
        slot: {name: _tensor_sha256(tensor) for name, tensor in by_parameter.items()}
        for slot, by_parameter in optimizer.slots.items()
    }
    assert slots == expected["optimizer"]["slots"]


@every_fixture
def test_the_class_is_told_from_the_tensors(folder: Path) -> None:
    config = read_config(folder)
    assert config is not None
    less = {key: value for key, value in config.values.items() if key != "architectures"}
    assert infer_architecture(_read(folder).tensors, less).architecture == _expected(folder)["architecture"]


def _loaded(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What torch.load returns: everything, and the weights in it."""
    torch = pytest.importorskip("torch")
    loaded = torch.load(folder / "checkpoint.pth", weights_only=True)
    return loaded, loaded.get("model_state_dict", loaded)


@every_fixture
def test_torch_agrees_on_tensors(folder: Path) -> None:
    _, weights = _loaded(folder)
    described = {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "sha256": _sha256(tensor.numpy().tobytes()),
        }
        for name, tensor in weights.items()
    }
    assert described == _expected(folder)["tensors"]
    storages = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    assert len(storages) == len(weights) - len(_expected(folder)["ties"])


@every_fixture
def test_torch_agrees_on_training_state(folder: Path) -> None:
    loaded, weights = _loaded(folder)
    expected = _expected(folder)
    if expected["optimizer"] is None:
        assert loaded is weights
        return
    assert {key: value for key, value in loaded.items() if not key.endswith("_state_dict")} == expected["extras"]
    (group,) = loaded["optimizer_state_dict"]["param_groups"]
    (described,) = expected["optimizer"]["groups"]
    hyperparameters = {key: value for key, value in group.items() if key != "params"}
    assert json.loads(json.dumps(hyperparameters)) == described["hyperparameters"]
    state = {described["parameters"][index]: entry for index, entry in loaded["optimizer_state_dict"]["state"].items()}
    assert {int(entry["step"]) for entry in state.values()} == {expected["optimizer"]["step"]}
    for slot, by_parameter in expected["optimizer"]["slots"].items():
        assert {name: _sha256(entry[slot].numpy().tobytes()) for name, entry in state.items()} == by_parameter
        assert all(entry[slot].shape == weights[name].shape for name, entry in state.items())


@every_fixture
def test_transformers_computes_the_reference_outputs(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    expected = _expected(folder)
    model = getattr(transformers, expected["architecture"])(transformers.AutoConfig.from_pretrained(folder)).eval()
    model.load_state_dict(_loaded(folder)[1], strict=True)
    if expected["optimizer"] is not None:
        names = [name for name, _ in model.named_parameters()]
        assert names == expected["optimizer"]["groups"][0]["parameters"]
    for reference in expected["reference"]:
        with torch.no_grad():
            outputs = model(**{name: torch.tensor(rows) for name, rows in reference["inputs"].items()})
        for name, values in reference["outputs"].items():
            np.testing.assert_allclose(outputs[name].numpy(), np.array(values, np.float32), rtol=1e-5, atol=1e-5)


@every_fixture
def test_transformers_opens_the_tokenizer(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert type(tokenizer).__name__.removesuffix("Tokenizer") in _expected(folder)["architecture"]
    assert len(tokenizer) == config.vocab_size
    numbers = tokenizer("the coffee is a baker")["input_ids"]
    assert tokenizer.unk_token_id not in numbers
    assert tokenizer.decode(numbers, skip_special_tokens=True) == "the coffee is a baker"
