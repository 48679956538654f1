"""Keras models in which one encoder of transformers is called twice: it is stored once, what is outside apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import converter
from converter.encoding import safetensors
from converter.errors import LossError
from converter.model.file import LocalFile
from converter.model.tensor import is_equal

NAMES = Path(__file__).parents[2] / "fixtures" / "names"
CASES = {
    "albert_siamese_shared_h5": ("model.h5", {"similarity"}),
    "roberta_siamese_inner_keras": ("model.keras", {"proj", "out"}),
    "electra_siamese_custom_savedmodel": ("saved_model", {"siamese", "proj", "out"}),
    "bert_siamese_subclassed_savedmodel": ("saved_model", {"head"}),
}


def source(case: str, folder: Path) -> Path:
    """Return the case's source alone in a folder, unpacked."""
    name = CASES[case][0]
    if name != "saved_model":
        shutil.copy(NAMES / case / name, folder)
    else:
        shutil.unpack_archive(NAMES / case / "saved_model.tar.xz", folder)
    return folder / name


def test_a_model_inside_another_goes_to_an_h5_and_back(tmp_path: Path) -> None:
    path = source("roberta_siamese_inner_keras", tmp_path)
    converter.convert(path, tmp_path / "model.h5")
    converter.convert(tmp_path / "model.h5", tmp_path / "again.keras")
    here, there = converter.read(path), converter.read(tmp_path / "again.keras")
    assert here.tensors.keys() == there.tensors.keys()
    assert all(is_equal(tensor, there.tensor(name)) for name, tensor in here.tensors.items())
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        group = file["model_weights/tower"]
        names = [name.replace(b"proj/", b"other/") for name in group.attrs["weight_names"]]
        group.attrs["weight_names"] = names
        group.move("tower/proj", "tower/other")
    with pytest.raises(LossError, match="model 'tower' has layers inside, and the names of its variables do not say"):
        converter.convert(tmp_path / "model.h5", tmp_path / "other.keras")


def in_pytorch(name: str) -> str:
    """Return what PyTorch calls a variable of a Dense, whose kernel it has transposed."""
    return name.replace("/kernel", "/weight").replace("/", ".")


def outside(case: str) -> dict[str, np.ndarray]:
    found = {}
    for name, array in np.load(NAMES / case / "expected_heads.npz").items():
        own = name.replace("|", "/").removesuffix(":0")
        is_inner = case == "roberta_siamese_inner_keras" and own.startswith("proj/")
        own = f"tower/{own}" if is_inner else own  # archives have places, which are inside the inner model
        found[in_pytorch(own)] = array.T
    return found


@pytest.mark.parametrize("is_config_beside", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_encoder_and_heads_come_apart(case: str, is_config_beside: bool, tmp_path: Path) -> None:
    path = source(case, tmp_path)
    if is_config_beside:
        shutil.copy(NAMES / case / "config.json", tmp_path)
    converter.convert(path, tmp_path / "out", to="pretrained")
    expected = converter.read(NAMES / case / "expected.safetensors").tensors
    found = converter.read(tmp_path / "out" / "model.safetensors").tensors
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name].numpy(), expected[name].numpy(), err_msg=name)
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", NAMES / case))
    assert [config[key] for key in ("model_type", "architectures")] == [own["model_type"], own["architectures"]]
    heads, metadata = safetensors.read(LocalFile(tmp_path / "out" / "heads.safetensors"))
    assert heads.keys() == outside(case).keys()
    for name, array in outside(case).items():
        np.testing.assert_array_equal(heads[name].numpy(), array, err_msg=name)
    assert json.loads(metadata["heads"]).keys() == CASES[case][1]


@pytest.mark.parametrize("case", CASES)
def test_one_file_holds_both(case: str, tmp_path: Path) -> None:
    report = converter.convert(source(case, tmp_path), tmp_path / "out.safetensors")
    names = converter.read(tmp_path / "out.safetensors").tensors.keys()
    assert {f"heads.{name}" for name in outside(case)} == {name for name in names if name.startswith("heads.")}
    assert {line.target for line in report.lines if line.target} >= names
    converter.convert(tmp_path / CASES[case][0], tmp_path / "out.pth")
    assert converter.read(tmp_path / "out.pth").tensors.keys() == names


@pytest.mark.parametrize("case", CASES)
def test_an_h5_is_of_the_whole_model_or_refused(case: str, tmp_path: Path) -> None:
    """Keras opens no other, and a subclassed model has no config."""
    given = source(case, tmp_path)
    if case == "bert_siamese_subclassed_savedmodel":
        with pytest.raises(LossError, match="the source is none"):
            converter.convert(given, tmp_path / "out.h5")
        return
    converter.convert(given, tmp_path / "out.h5")
    assert converter.diff(given, tmp_path / "out.h5").is_same
    ours, theirs = (converter.read(path) for path in (given, tmp_path / "out.h5"))
    assert len(theirs.tensors) == len(ours.tensors)
    assert theirs.keras_config == ours.keras_config
    if given.suffix == ".h5":
        assert theirs.tensors.keys() == ours.tensors.keys()
