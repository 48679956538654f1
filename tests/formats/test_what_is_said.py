"""What a file has and nothing carries, and what is written otherwise than it was: a note says so. No framework."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import converter
from converter.encoding.torch_file import StateDict, torch_file
from converter.execution.streaming import stream
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import LedgerLine, Status
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor, Tensor


def tensor(*values: float) -> Tensor:
    return ArrayTensor.of(np.array(values, np.float32))


NETWORK = Checkpoint(tensors={"fc.weight": ArrayTensor.of(np.ones((2, 3), np.float32)), "fc.bias": tensor(5, 6)})
CONFIG = Config(values={"model_type": "none"}, raw=b'{"model_type": "none"}')


def torch_written(path: Path, value: Any) -> None:
    stream(OutputFile(name=path.name, pieces=torch_file(value)), path.parent)


def trained(*groups: tuple[float, tuple[str, ...]]) -> OptimizerState:
    """SGD without momentum, with a rate for each group."""
    settings = {"momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False}
    held = [ParameterGroup(parameters=names, hyperparameters={"lr": rate, **settings}) for rate, names in groups]
    return OptimizerState(algorithm="sgd", step=None, groups=tuple(held))


def test_files_beside_the_weights_of_an_archive(tmp_path: Path) -> None:
    converter.write(NETWORK, tmp_path / "in.weights.h5", weights_only=True)
    for extra in ((), ("vocabulary.txt", "assets/more.txt")):
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            archive.writestr("config.json", '{"class_name": "Mine"}')
            archive.writestr("metadata.json", "{}")
            archive.write(tmp_path / "in.weights.h5", "model.weights.h5")
            for name in extra:
                archive.writestr(name, "text")
        said = ("assets/more.txt, vocabulary.txt not carried: files beside the weights",) if extra else ()
        assert converter.read(tmp_path / "x.keras").warnings == said


def test_what_a_model_was_compiled_with(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"fc"]
        file.create_group("fc").attrs["weight_names"] = [b"fc/kernel:0"]
        file["fc/fc/kernel:0"] = np.ones((2, 3), np.float32)
    assert converter.read(tmp_path / "x.h5").warnings == ()
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file.attrs["training_config"] = json.dumps({"loss": "mse"})
    assert converter.read(tmp_path / "x.h5").warnings == ("training_config (loss, metrics) not carried",)


def test_names_that_hdf5_cannot_hold(tmp_path: Path) -> None:
    odd = Checkpoint(tensors={"a/b.weight": tensor(1), "plain.weight": tensor(2), "c/d": tensor(3)})
    for name in ("x.h5", "x.weights.h5"):
        report = converter.write(odd, tmp_path / name, weights_only=True)
        assert "names that HDF5 cannot hold are escaped: a/b.weight, c/d" in report.warnings
        assert converter.read(tmp_path / name).tensors.keys() == odd.tensors.keys()
        plain = converter.write(NETWORK, tmp_path / f"y{name}", weights_only=True)
        assert not any("escaped" in each for each in plain.warnings)


def test_modules_of_layers_that_a_file_of_keras_2_does_not_say(tmp_path: Path) -> None:
    dense = {"class_name": "Dense", "config": {"name": "fc", "units": 3, "batch_input_shape": [None, 2]}}
    config = {"class_name": "Sequential", "config": {"name": "model", "layers": [dense]}}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"fc"]
        weights.create_group("fc").attrs["weight_names"] = [b"fc/kernel:0", b"fc/bias:0"]
        weights["fc/fc/kernel:0"] = np.ones((2, 3), np.float32)
        weights["fc/fc/bias:0"] = np.ones(3, np.float32)
    said = (
        "config.json has the module of each class of layers, which archives say and the source does not; "
        "it is for tf_keras (Keras 2), as the source's config is, and not for Keras 3"
    )
    assert said in converter.convert(tmp_path / "x.h5", tmp_path / "x.keras").warnings
    assert said not in converter.convert(tmp_path / "x.keras", tmp_path / "y.keras").warnings


def test_state_of_a_trainer_that_is_not_carried(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG.raw)
    torch_written(tmp_path / "pytorch_model.bin", StateDict(tensors=NETWORK.tensors))
    torch_written(tmp_path / "rng_state.pth", {"cpu": tensor(1)})
    found = converter.read(tmp_path)
    assert found.warnings == ()
    assert "rng_state" in found.extras
    (tmp_path / "training_args.bin").write_bytes(b"a pickle of a class")
    (tmp_path / "rng_state.pth").write_bytes(b"no pickle")
    found = converter.read(tmp_path)
    assert found.warnings == ("training_args.bin, rng_state.pth not carried",)
    assert found.extras == {}


def test_what_trainer_has_no_place_for(tmp_path: Path) -> None:
    extras = {"epoch": 3, "ema": {"fc.bias": tensor(1, 2), "decay": 0.9}}
    source = Checkpoint(tensors=NETWORK.tensors, config=CONFIG, extras=extras)
    report = converter.write(source, tmp_path / "out", to="pretrained")
    assert "ema not carried: a pretrained folder has no place for it" in report.warnings
    line = LedgerLine(status=Status.DROPPED, name="ema.fc.bias", reason="a pretrained folder has no place for it")
    assert line in report.lines
    assert any(each.startswith("config.json is left as it is: no table knows") for each in report.warnings)


def test_a_scheduler_for_other_groups_than_the_optimizer_has(tmp_path: Path) -> None:
    said = "scheduler.pt is for other groups than the 2 of optimizer.pt"
    state = trained((0.1, ("fc.weight",)), (0.1, ("fc.bias",)))
    for rates, is_said in (([0.1], False), ([0.1, 0.2], False), ([0.1, 0.2, 0.3], True)):
        extras = {"scheduler_state_dict": {"last_epoch": 1, "base_lrs": rates, "_last_lr": rates}}
        source = Checkpoint(tensors=NETWORK.tensors, config=CONFIG, optimizer=state, extras=extras)
        report = converter.write(source, tmp_path / "out", to="pretrained")
        assert (said in report.warnings) is is_said
        shutil.rmtree(tmp_path / "out")


def test_groups_that_trainer_does_not_have(tmp_path: Path) -> None:
    """Its first group is all that decays: here two of these have rates of their own."""
    tensors = {**NETWORK.tensors, "out.weight": tensor(1)}
    state = trained((0.1, ("fc.weight",)), (0.2, ("fc.bias", "out.weight")))
    source = Checkpoint(tensors=tensors, config=CONFIG, optimizer=state)
    report = converter.write(source, tmp_path / "out", to="pretrained")
    (said,) = [
        each for each in report.warnings if each.startswith("the optimizer's parameters keep the source's order")
    ]
    assert "'fc.weight' and 'out.weight', which Trainer has in one group, have different hyperparameters" in said
    assert report.optimizer.status == "carried"
