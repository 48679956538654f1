"""The h5 format: files of Keras and of other programs read, files that Keras opens written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.dialects.keras import adapted
from converter.errors import LossError, ReadError, UsageError
from converter.execution import streaming
from converter.formats import NoOptions, Probe, by_name, detect
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Status
from converter.model.output import Output, Provenance
from converter.model.tensor import ArrayTensor, FileTensor
from converter.proof import verify_weights

H5 = by_name("h5")


def read(path: Path) -> Checkpoint:
    assert detect(Probe(path)) is H5
    return H5.read(path, NoOptions())


def written(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Output]:
    provenance = Provenance(tool="ckconv test", source_name="x", source_hash=lambda: "0" * 64)
    output = H5.write(checkpoint, NoOptions(), provenance)
    (file,) = output.files
    folder.mkdir(exist_ok=True)
    streaming.stream(file, folder)
    assert (folder / file.name).stat().st_size == file.nbytes
    return folder / file.name, output


def keras_2_weights(path: Path, layers: dict[str, dict[str, Any]]) -> Path:
    """Write weights as Keras 2 does (tf_keras/src/saving/legacy/hdf5_format.py, save_weights_to_hdf5_group)."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, value in weights.items():
                group.create_dataset(name, data=value)
    return path


def test_reads_weights_of_keras_2(tmp_path: Path) -> None:
    kernel, bias = np.arange(6.0, dtype="f4").reshape(2, 3), np.ones(3, "f4")
    path = keras_2_weights(tmp_path / "w.h5", {"drop": {}, "fc": {"fc/kernel:0": kernel, "fc/bias:0": bias}})
    checkpoint = read(path)
    assert list(checkpoint.tensors) == ["fc/kernel:0", "fc/bias:0"]
    assert checkpoint.dialect == "keras"
    assert all(isinstance(tensor, FileTensor) for tensor in checkpoint.tensors.values())
    torch_side = canonical(checkpoint)
    assert np.array_equal(torch_side.tensors["fc.weight"].numpy(), kernel.T)
    assert torch_side.origin("fc.weight") == "fc/kernel:0"


def test_names_split_over_attributes(tmp_path: Path) -> None:
    layers = {f"layer_{n}_{'x' * 80}": {f"layer_{n}/kernel:0": np.full((1, 1), n, "f4")} for n in range(1500)}
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        names = np.array_split(np.array([name.encode() for name in layers]), 3)
        for number, part in enumerate(names):
            file.attrs[f"layer_names{number}"] = part
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, value in weights.items():
                group.create_dataset(name, data=value)
    assert len(read(path).tensors) == 1500


def test_one_weight_in_several_layers(tmp_path: Path) -> None:
    shared, other = np.arange(6.0).reshape(2, 3), np.zeros((2, 3))
    weights = {"shared/embeddings:0": shared}
    path = keras_2_weights(tmp_path / "same.h5", {"encoder": weights, "decoder": weights})
    checkpoint = read(path)
    assert list(checkpoint.tensors) == ["shared/embeddings:0"]
    assert [(line.status, line.name) for line in checkpoint.lines] == [(Status.TIED, "decoder/shared/embeddings:0")]
    path = keras_2_weights(tmp_path / "other.h5", {"a": weights, "b": {"shared/embeddings:0": other}})
    assert list(read(path).tensors) == ["shared/embeddings:0", "b/shared/embeddings:0"]


def test_what_is_listed_and_missing_is_an_error(tmp_path: Path) -> None:
    path = keras_2_weights(tmp_path / "w.h5", {"fc": {"fc/kernel:0": np.zeros((2, 2))}})
    assert len(read(path).tensors) == 1
    with h5py.File(path, "a") as file:
        file["fc"].attrs["weight_names"] = [b"fc/kernel:0", b"../../secret"]
    with pytest.raises(ReadError, match="not in the file"):
        read(path)
    with h5py.File(path, "a") as file:
        file["fc"].attrs["weight_names"] = [b"fc/kernel:0"]
        file.attrs["layer_names"] = [b"fc", b"gone"]
    with pytest.raises(ReadError, match="not in the file"):
        read(path)


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    path = keras_2_weights(tmp_path / "w.h5", {"fc": {"fc/kernel:0": np.zeros((2, 2))}})
    with h5py.File(path, "a") as file:
        file["optimizer_weights/Adam/m:0"] = np.zeros(3)
        file["stray"] = np.zeros(3)
        file["note"] = "text"
    told = {line.name: line.is_refused_by_default for line in read(path).lines}
    assert told == {"optimizer_weights/Adam/m:0": False, "stray": True, "note": True}


def test_plain_files_keep_their_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"], file["a.b"] = np.zeros(2), np.ones(1)
        file["tied"] = file["a/b"]
    checkpoint = canonical(read(tmp_path / "x.h5"))
    assert (set(checkpoint.tensors), dict(checkpoint.aliases)) == ({"a/b", "a.b"}, {"tied": "a/b"})
    assert any("layout as stored" in line for line in checkpoint.warnings)


WILD = [
    "plain.weight",
    "no_module",
    "a.b.c",
    "a/b.c/d",
    "top_level_model_weights.x",
    "vars.weight",
    "%2F.%",
    "vars",
    "a..b",
    ".",
]


def test_names_of_torch_come_back_exactly(tmp_path: Path) -> None:
    tensors = {name: ArrayTensor.of(np.full((2, n), n, "f4")) for n, name in enumerate(WILD)}
    checkpoint = Checkpoint(tensors=tensors, aliases={"tied.weight": "plain.weight"})
    path, output = written(checkpoint, tmp_path / "out")
    back = read(path)
    assert (back.dialect, dict(back.aliases)) == ("pytorch", {"tied.weight": "plain.weight"})
    verify_weights(checkpoint, back, output.names, path=path)
    again, _ = written(checkpoint, tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()
    with h5py.File(path) as file:
        assert file.attrs["ckconv_dialect"] == "pytorch"
        assert json.loads(file.attrs["ckconv"])["source_hash"]["hex"] == "0" * 64
        assert b"a.b" in file.attrs["layer_names"]
        assert file["a.b/c"].shape == (2, 2)


def small_model() -> Any:
    keras = pytest.importorskip("keras")
    k = keras.layers
    frozen = k.Dense(3, name="frozen", trainable=False)
    layers = [k.Dense(3, name="a"), k.BatchNormalization(name="b"), frozen, k.BatchNormalization(name="c")]
    inner = keras.Sequential([keras.Input((4,)), *layers], name="inner")
    image = keras.Input((5, 4))
    here = k.LSTM(4)(k.Bidirectional(k.GRU(2, return_sequences=True))(image))
    model = keras.Model(image, k.Dense(2, name="last")(inner(here)))
    model.compile("adam", "mse")
    model.fit(np.ones((2, 5, 4)), np.ones((2, 2)), verbose=0)
    return model


def test_keras_opens_what_is_written(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = small_model()
    model.save(tmp_path / "model.h5")
    source = read(tmp_path / "model.h5")
    assert not source.lines
    assert source.optimizer is not None
    assert len(source.optimizer.groups[0].parameters) == len(model.trainable_variables)
    planned = adapted(canonical(source))
    path, output = written(planned, tmp_path / "out")
    verify_weights(planned, read(path), output.names, path=path)
    inputs = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("f4")
    expected = np.asarray(model(inputs))
    assert np.array_equal(np.asarray(keras.models.load_model(path, compile=False)(inputs)), expected)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    model.load_weights(os.fspath(path))
    assert np.array_equal(np.asarray(model(inputs)), expected)


def test_a_torch_state_dict_and_a_config_make_a_keras_file(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = small_model()
    model.save(tmp_path / "model.keras")
    source = canonical(by_name("keras").read(tmp_path / "model.keras", NoOptions()))
    extra = {"forgotten.weight": ArrayTensor.of(np.zeros(3, "f4"))}
    planned = adapted(Checkpoint(tensors={**source.tensors, **extra}, keras_config=source.keras_config))
    assert [line.name for line in planned.lines if line.is_refused_by_default] == ["forgotten.weight"]
    path, _ = written(planned, tmp_path / "out")
    inputs = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("f4")
    assert np.array_equal(np.asarray(keras.models.load_model(path, compile=False)(inputs)), np.asarray(model(inputs)))


def test_the_dialect_of_others_is_refused(tmp_path: Path) -> None:
    path, _ = written(Checkpoint(tensors={"a.b": ArrayTensor.of(np.zeros(3))}), tmp_path)
    assert len(read(path).tensors) == 1
    with h5py.File(path, "a") as file:
        file.attrs["ckconv_dialect"] = "klingon"
    with pytest.raises(ReadError, match="klingon"):
        read(path)


def test_generic_names_stay_generic(tmp_path: Path) -> None:
    checkpoint = replace(Checkpoint(tensors={"a/kernel": ArrayTensor.of(np.zeros((2, 3)))}), dialect="generic")
    back = read(written(checkpoint, tmp_path)[0])
    assert (back.dialect, list(back.tensors)) == ("generic", ["a/kernel"])


def test_the_weights_file_of_a_class_holds_the_optimizer_beside_them(squad_bert: Path, tmp_path: Path) -> None:
    report = converter.convert(squad_bert, f"{tmp_path}/out/", to="h5")
    assert report.optimizer.status == "carried"
    with h5py.File(tmp_path / "out" / "tf_model.h5") as file:
        assert list(file.attrs["layer_names"]) == [b"bert", b"qa_outputs"]
    back = converter.convert(tmp_path / "out" / "tf_model.h5", tmp_path / "back.pth")
    assert (back.optimizer.status, back.optimizer.step) == ("carried", report.optimizer.step)
    assert converter.diff(squad_bert, tmp_path / "back.pth").is_same


def test_state_of_other_weights_is_refused(squad_bert: Path, tmp_path: Path) -> None:
    converter.convert(squad_bert, f"{tmp_path}/out/", to="h5")
    source = tmp_path / "out" / "tf_model.h5"
    assert converter.convert(source, tmp_path / "back.pth").optimizer.status == "carried"
    with h5py.File(source, "r+") as file:
        for name in ("ckconv_group_0", "weight_names"):
            attributes = file["optimizer_weights"].attrs
            attributes[name] = np.array([each.replace(b"query.weight", b"query.other") for each in attributes[name]])
    with pytest.raises(LossError, match="not among the weights"):
        converter.convert(source, tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5"])
def test_what_keras_loads_by_no_means_is_written_only_as_arrays_alone(name: str, tmp_path: Path) -> None:
    source = Checkpoint(tensors={"fc.weight": ArrayTensor.of(np.ones((3, 2), np.float32))})
    with pytest.raises(UsageError, match=r"and nothing says which layers these are; --config .*; --weights-only"):
        converter.write(source, tmp_path / name)
    assert not list(tmp_path.iterdir())
    report = converter.write(source, tmp_path / name, weights_only=True)
    said = f"arrays alone: Keras loads no {name[1:]} file of PyTorch's names, and nothing says which layers these are"
    assert said in report.warnings
    assert converter.read(tmp_path / name).tensors.keys() == {"fc.weight"}
