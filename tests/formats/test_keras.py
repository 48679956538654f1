"""The keras format: archives and weights files of Keras 3 read in place, and written so that Keras opens them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter.dialects import canonical
from converter.dialects.keras import adapted
from converter.errors import LossError, ReadError, SafetyError, UsageError
from converter.execution import streaming
from converter.formats import NoOptions, Probe, by_name, detect
from converter.formats.keras import WriteOptions
from converter.model.checkpoint import Checkpoint
from converter.model.output import Output, Provenance
from converter.model.tensor import ArrayTensor, FileTensor
from converter.proof import verify_weights
from tests.dialects.keras_zoo import randomised

KERAS = by_name("keras")
IMAGE = (8, 8, 3)


def read(path: Path) -> Checkpoint:
    assert detect(Probe(path)) is KERAS
    return KERAS.read(path, NoOptions())


def written(checkpoint: Checkpoint, folder: Path, container: str = "auto") -> tuple[Path, Output]:
    provenance = Provenance(tool="ckconv test", source_name="x", source_hash=lambda: "0" * 64)
    output = KERAS.write(checkpoint, WriteOptions(container=container), provenance)
    (file,) = output.files
    folder.mkdir(exist_ok=True)
    streaming.stream(file, folder)
    assert (folder / file.name).stat().st_size == file.nbytes
    return folder / file.name, output


@pytest.fixture(scope="module")
def zoo() -> Any:
    """A model of many layers, nested, with wrappers, and its optimizer."""
    keras = pytest.importorskip("keras")
    k = keras.layers
    image, tokens = keras.Input(IMAGE), keras.Input((5,), dtype="int32")
    here = k.BatchNormalization(name="norm")(k.Conv2D(4, 3, name="conv")(image))
    here = k.PReLU(shared_axes=[1, 2])(k.SeparableConv2D(6, 3)(k.DepthwiseConv2D(3, name="deep")(here)))
    left = k.Dense(7, name="head")(k.Flatten()(k.Conv2DTranspose(5, 2)(here)))
    here = k.Embedding(11, 6)(tokens)
    here = k.TimeDistributed(k.Dense(6, name="inner"))(k.MultiHeadAttention(2, 4, value_dim=3)(here, here))
    here = k.LSTM(4)(k.GRU(4, return_sequences=True)(k.Bidirectional(k.LSTM(3, return_sequences=True))(here)))
    nested = keras.Sequential([keras.Input((4,)), k.Dense(3), keras.Sequential([k.Dense(2)])], name="nested")
    model = keras.Model([image, tokens], [left, nested(here)])
    model.compile("adam", ["mse", "mse"])
    model.fit([np.ones((2, *IMAGE)), np.ones((2, 5))], [np.ones((2, 7)), np.ones((2, 2))], verbose=0)
    return randomised(model)


def outputs(model: Any) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(2, *IMAGE)).astype("f4"), generator.integers(0, 10, (2, 5))]
    return [np.asarray(output) for output in model(inputs)]


def test_reads_an_archive_in_place(zoo: Any, tmp_path: Path) -> None:
    zoo.save(tmp_path / "model.keras")
    checkpoint = read(tmp_path / "model.keras")
    weights = {weight.path: np.asarray(weight) for weight in zoo.weights}
    assert set(checkpoint.tensors) == set(weights)
    for name, tensor in checkpoint.tensors.items():
        assert np.array_equal(tensor.numpy(), weights[name])
        assert isinstance(tensor, FileTensor)
    assert checkpoint.keras_config is not None
    assert checkpoint.keras_config.raw == zipfile.ZipFile(tmp_path / "model.keras").read("config.json")
    assert not checkpoint.lines
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    trained = {variable.path for variable in zoo.trainable_variables}
    assert set(checkpoint.optimizer.groups[0].parameters) == trained


def test_reads_weights_files_by_what_groups_say(zoo: Any, tmp_path: Path) -> None:
    zoo.save_weights(tmp_path / "model.weights.h5")
    checkpoint = read(tmp_path / "model.weights.h5")
    weights = {weight.path: np.asarray(weight) for weight in zoo.weights}
    known = {name: tensor for name, tensor in checkpoint.tensors.items() if "/vars/" not in name}
    assert len(known) == len(weights) - 2  # what TimeDistributed wraps is not said
    for name, tensor in known.items():
        assert np.array_equal(tensor.numpy(), weights[name.replace("deep/depthwise_", "deep/")])


def test_reads_models_with_layers_as_attributes(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.layers.Dense(3)
            self.blocks = [keras.layers.Dense(4), keras.layers.Dense(5)]
            self.scale = self.add_weight(shape=(2,), name="scale")

        def call(self, inputs: Any) -> Any:
            here = self.encoder(inputs)
            for block in self.blocks:
                here = block(here)
            return here

    model = Model()
    model(np.ones((1, 2), "f4"))
    model.save_weights(tmp_path / "model.weights.h5")
    checkpoint = canonical(read(tmp_path / "model.weights.h5"))
    names = [
        f"{module}.{leaf}" for module in ("blocks.dense", "blocks.dense_1", "encoder") for leaf in ("weight", "bias")
    ]
    assert set(checkpoint.tensors) == {*names, "vars/0"}
    assert any("vars/0" in line for line in checkpoint.warnings if line.startswith("layout as stored"))


def test_damage_is_noticed_by_the_archive_s_crc(zoo: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    zoo.save(path)
    tensor = read(path).tensors["head/kernel"]
    assert isinstance(tensor, FileTensor)
    tensor.numpy()
    with path.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(b"\xff\xff")
    with pytest.raises(ReadError, match="CRC"):
        read(path).tensors["head/kernel"].numpy()


def test_bad_archives_are_errors(zoo: Any, tmp_path: Path) -> None:
    zoo.save(tmp_path / "good.keras")
    members = {}
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def spoiled(changes: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "bad.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in {**members, **changes}.items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    assert len(read(spoiled({})).tensors) == len(zoo.weights)
    for changes in ({"config.json": b"{"}, {"config.json": b"[]"}, {"config.json": b"[" * 20_000}):
        with pytest.raises(ReadError, match=r"config\.json"):
            read(spoiled(dict(changes)))
    with pytest.raises(ReadError, match="is damaged"):
        read(spoiled({"model.weights.h5": members["model.weights.h5"][:-1000]}))
    with pytest.raises(ReadError, match="compressed"):
        read(spoiled({}, zipfile.ZIP_DEFLATED))
    with pytest.raises(SafetyError):
        KERAS.read(spoiled({"../../escape": b""}), NoOptions())


@pytest.mark.parametrize("container", ["archive", "weights"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras_opens_what_is_written(zoo: Any, container: str, suffix: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    zoo.save(tmp_path / f"model{suffix}")
    source = canonical(by_name("keras" if suffix == ".keras" else "h5").read(tmp_path / f"model{suffix}", NoOptions()))
    planned = adapted(source)
    path, output = written(planned, tmp_path / "out", container)
    verify_weights(planned, read(path), output.names, path=path)
    assert written(planned, tmp_path / "again", container)[0].read_bytes() == path.read_bytes()
    if container == "archive":
        opened = keras.saving.load_model(path, compile=False)
    else:
        opened = keras.models.clone_model(zoo)
        opened.load_weights(os.fspath(path))
    for ours, theirs in zip(outputs(opened), outputs(zoo), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_config_with_a_layer_that_nobody_knows(zoo: Any, tmp_path: Path) -> None:
    zoo.save(tmp_path / "model.keras")
    source = canonical(read(tmp_path / "model.keras"))
    assert adapted(source).dialect == "keras"
    assert source.keras_config is not None
    layers = [dict(layer) for layer in source.keras_config.values["config"]["layers"]]
    strange = {"class_name": "Strange", "config": {"name": "strange"}}
    inner = {**source.keras_config.values["config"], "layers": [*layers, strange]}
    values = {**source.keras_config.values, "config": inner}
    config = type(source.keras_config)(values=values, raw=source.keras_config.raw)
    with pytest.raises(UsageError, match="Strange"):
        adapted(Checkpoint(tensors=source.tensors, keras_config=config))
    fewer = {name: tensor for name, tensor in source.tensors.items() if name != "head.bias"}
    with pytest.raises(LossError, match=r"head\.bias"):
        adapted(Checkpoint(tensors=fewer, keras_config=source.keras_config))


def test_without_a_config_there_are_only_weights(tmp_path: Path) -> None:
    names = ["a.weight", "b", "a/b.c", "vars.x", "%.y", "a.b.c"]
    tensors = {name: ArrayTensor.of(np.full((2, n), n, "f4")) for n, name in enumerate(names)}
    checkpoint = Checkpoint(tensors=tensors, aliases={"tied.weight": "a.weight"})
    with pytest.raises(UsageError, match="config") as caught:
        written(checkpoint, tmp_path / "out", "archive")
    assert ".weights.h5 needs none" in str(caught.value)
    path, output = written(checkpoint, tmp_path / "out")
    back = read(path)
    verify_weights(checkpoint, back, output.names, path=path)
    assert (back.dialect, dict(back.aliases)) == ("pytorch", {"tied.weight": "a.weight"})
    with h5py.File(path) as file:
        assert list(file["a/vars"].attrs["weight_names"]) == [b"weight"]
