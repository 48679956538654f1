"""Optimizer state in a `.weights.h5`, whose variables have numbers and no names: whose they are, and when nobody's.

The files are made with h5py, as Keras lays them out; no framework.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects.transformers.listings import copied
from converter.errors import LossError, UsageError, VerificationError
from converter.model.checkpoint import Checkpoint, Config, Listing

Shape = tuple[int, ...]
DENSE: Mapping[str, Sequence[Shape]] = {"layers/dense": [(2, 3), (3,)]}


def read(
    folder: Path,
    slots: Sequence[Shape],
    layers: Mapping[str, Sequence[Shape]] = DENSE,
    *,
    without: str | None = None,
    also: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """What is read of layers' weights beside an SGD with one slot for each of some weights."""
    path = folder / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for place, shapes in layers.items():
            for number, shape in enumerate(shapes):
                file[f"{place}/vars/{number}"] = np.full(shape, number, "f4")
        group = file.create_group("optimizer/vars")
        group.attrs["name"] = "sgd"
        held: list[Any] = [np.int64(3), np.float32(0.1), *(np.full(shape, 7, "f4") for shape in slots)]
        for number, value in enumerate(held):
            group[str(number)] = value
        if without is not None:
            del group[without]
        for name, value in (also or {}).items():
            group[name] = value
    return converter.read(path)


def owners(checkpoint: Checkpoint) -> set[str]:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return {name for held in checkpoint.optimizer.slots.values() for name in held}


def test_slots_are_of_the_weights_in_their_order(tmp_path: Path) -> None:
    assert owners(read(tmp_path, [(2, 3), (3,)])) == {"dense/kernel", "dense/bias"}


@pytest.mark.parametrize("without", ["1", "2", "3"])
def test_variables_that_are_not_numbered_in_a_row_are_refused(without: str, tmp_path: Path) -> None:
    for also in ({}, {"9": np.zeros(3, "f4")}):
        found = read(tmp_path, [(2, 3), (3,)], without=without, also=also)
        if without == "3" and not also:  # one fewer, and in a row: no slot for a weight
            assert found.optimizer is None
        else:
            assert "not numbered in a row" in (found.optimizer_refused or "")


def test_statistics_of_the_data_have_no_slots(tmp_path: Path) -> None:
    both = {"dense/kernel", "dense/bias"}
    statistics: list[tuple[dict[str, Sequence[Shape]], list[Shape], set[str]]] = [
        (
            {"layers/batch_normalization": [(3,)] * 4},
            [(3,)] * 2,
            {"batch_normalization/gamma", "batch_normalization/beta"},
        ),
        ({"layers/normalization": [(2,), (2,), ()]}, [], set()),
    ]
    for more, slots, trained in statistics:
        assert owners(read(tmp_path, [(2, 3), (3,), *slots], {**DENSE, **more})) == both | trained


def test_an_order_that_two_models_could_have_is_refused(tmp_path: Path) -> None:
    alike: Mapping[str, Sequence[Shape]] = {"layers/dense": [(3, 3), (3,)], "layers/einsum_dense": [(3, 3), (3,)]}
    found = read(tmp_path, [(3, 3), (3,), (3, 3), (3,)], alike)
    assert found.optimizer is None
    assert found.optimizer_refused is not None
    unlike: Mapping[str, Sequence[Shape]] = {"layers/dense": [(3, 3), (3,)], "layers/einsum_dense": [(3, 4), (4,)]}
    assert len(owners(read(tmp_path, [(3, 4), (4,), (3, 3), (3,)], unlike))) == 4


MIXED = [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 3]}, "inbound_nodes": []},
    {"class_name": "EinsumDense", "config": {"name": "einsum", "equation": "ab,bc->ac", "output_shape": [3]}},
    {"class_name": "Dense", "config": {"name": "plain", "units": 3, "use_bias": False}},
]


def weights_alone(folder: Path, title: str | None) -> tuple[Path, Path]:
    """Two layers whose order the shapes do not tell, the later of which has the earlier place; and their config."""
    config = folder / "model.json"
    config.write_text(json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": MIXED}}))
    path = folder / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.full((3, 3), 1, np.float32)
        file["layers/einsum_dense/vars/0"] = np.full((3, 3), 2, np.float32)
        state = [np.int64(4), np.float32(0.25), *(np.full((3, 3), number, np.float32) for number in (20, 200, 10, 100))]
        for number, value in enumerate(state):
            file[f"optimizer/vars/{number}"] = value
        if title is not None:
            file["optimizer/vars"].attrs["name"] = title
    return path, config


def test_the_config_of_a_model_says_the_order_of_what_its_weights_file_numbers(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, "adam_w")
    with pytest.raises(LossError, match="fit several orders") as caught:
        converter.convert(path, tmp_path / "x.pth")
    assert "--config FILE with what to_json()" in str(caught.value)
    assert converter.convert(path, tmp_path / "x.pth", config=config).optimizer.status == "carried"
    state = converter.read(path, config=config).optimizer
    assert state is not None
    assert (state.algorithm, state.step, state.groups[0].hyperparameters["learning_rate"]) == ("adamw", 4, 0.25)
    marks = {name: int(tensor.numpy()[0, 0]) for name, tensor in state.slots["momentum"].items()}
    assert marks == {"einsum/kernel": 20, "plain/kernel": 10}


def test_weights_are_converted_where_nothing_says_which_optimizer_there_was(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, None)
    report = converter.convert(path, tmp_path / "x.pth", config=config)
    assert (report.optimizer.status, report.optimizer.reason) == (
        "dropped",
        "the file does not say which optimizer it has",
    )
    named = (
        "--hyperparameter class_name=AdamW, or what it is, carries it, with another --hyperparameter "
        "learning_rate=VALUE where the file has no rate"
    )
    assert f"optimizer state not carried: the file does not say which optimizer it has; {named}" in report.warnings
    with pytest.raises(LossError, match="where the file has no rate, --optimizer auto converts the weights"):
        converter.convert(path, tmp_path / "kept.pth", config=config, optimizer="keep")
    asked = converter.convert(path, tmp_path / "y.pth", config=config, optimizer="drop")
    assert (asked.optimizer.status, asked.optimizer.reason) == ("dropped", "as asked")
    assert not any("not carried: the file" in each for each in asked.warnings)
    beside = converter.convert(path, tmp_path / "x.safetensors", config=config)
    assert beside.optimizer.reason == "safetensors does not hold it"


def test_a_file_that_does_not_say_its_optimizer_is_told_the_class(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, None)
    told = ("class_name=AdamW", "weight_decay=0.004", "beta_1=0.9", "beta_2=0.999", "epsilon=1e-7")
    report = converter.convert(path, tmp_path / "x.pth", config=config, hyperparameter=told)
    assert (report.optimizer.status, report.optimizer.algorithm) == ("carried", "adamw")
    with pytest.raises(LossError, match="fit no order of the model's weights"):
        converter.convert(path, tmp_path / "y.pth", config=config, hyperparameter=("class_name=SGD",))
    with pytest.raises(LossError, match="no other framework has the optimizer 'Lamb' of Keras as it is"):
        converter.convert(path, tmp_path / "y.pth", config=config, hyperparameter=("class_name=Lamb",))


def test_other_hyperparameters_do_not_do_without_the_class(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, None)
    with pytest.raises(UsageError, match="the file does not say which optimizer it has") as raised:
        converter.convert(path, tmp_path / "x.pth", config=config, hyperparameter=("learning_rate=0.1",))
    assert "class_name=AdamW" in str(raised.value.hint)


def test_a_class_is_for_files_that_say_none(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, "adamw")
    with pytest.raises(UsageError, match="class_name is for files that do not say which optimizer"):
        converter.convert(path, tmp_path / "x.pth", config=config, hyperparameter=("class_name=AdamW",))


def slots_by_place(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        group = file["optimizer"]
        found: dict[str, Any] = {}
        group.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return {**found, "title": dict(file["optimizer/vars"].attrs)}


@pytest.mark.parametrize("title", ["adam_w", None])
def test_a_copy_has_the_variables_of_the_optimizer_where_they_are(title: str | None, tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, title)
    copy = tmp_path / "copy.weights.h5"
    report = converter.convert(path, copy)
    assert (report.optimizer.status, report.optimizer.algorithm) == ("carried", None)
    assert (report.optimizer.basis or "").startswith("copied as it is: ")
    here, there = slots_by_place(path), slots_by_place(copy)
    assert here.keys() == there.keys()
    for name, value in here.items():
        np.testing.assert_equal(there[name], value)
    assert converter.verify(path, copy).verification.weights
    told = ("class_name=AdamW",) if title is None else ()
    state = converter.read(copy, config=config).optimizer
    assert (state is not None) == (title is not None)  # no order is recorded that nobody has told
    assert converter.convert(copy, tmp_path / "x.pth", config=config, hyperparameter=told).counts["mapped"] == 2


@pytest.mark.parametrize("changed", ["optimizer/vars/3", "title"])
def test_a_copy_with_another_optimizer_is_told_from_it(changed: str, tmp_path: Path) -> None:
    path, _ = weights_alone(tmp_path, "adam_w")
    copy = tmp_path / "copy.weights.h5"
    converter.convert(path, copy)
    with h5py.File(copy, "r+") as file:
        if changed == "title":
            file["optimizer/vars"].attrs["name"] = "nadam"
        else:
            file[changed][...] = 5
    with pytest.raises(VerificationError):
        converter.verify(path, copy)


def test_state_in_an_unknown_order_is_not_taken_apart(tmp_path: Path) -> None:
    path, _ = weights_alone(tmp_path, "adam_w")
    copy = tmp_path / "copy.weights.h5"
    with pytest.raises(LossError, match="fit several orders") as caught:
        converter.convert(path, copy, exclude=("dense/*",))
    assert "--param-order FILE or --trainable REGEX says which" in str(caught.value)
    with pytest.raises(LossError, match="fit several orders"):
        converter.convert(path, copy, hyperparameter=("learning_rate=1",))
    assert not copy.exists()
    assert converter.convert(path, copy, exclude=("dense/*",), optimizer="drop").optimizer.status == "dropped"
    assert "optimizer" not in h5py.File(copy)


def test_an_archive_holds_no_state_of_an_optimizer_that_nothing_names(tmp_path: Path) -> None:
    path, config = weights_alone(tmp_path, None)
    stored = converter.read(path, config=config).optimizer_stored
    listing = Listing(format="keras", layers={})
    keras_config = Config(values={"class_name": "Functional", "config": {"layers": []}}, raw=b"")
    checkpoint = Checkpoint(tensors={}, keras_config=keras_config, listing=listing, optimizer_stored=stored)
    said = "optimizer state not carried: an archive says which optimizer it is of, and the source does not"
    found = copied(checkpoint, is_older=False, is_archive=True)
    assert (found.optimizer_stored, found.warnings) == (None, (said,))
    assert copied(checkpoint, is_older=False, is_archive=False).optimizer_stored is stored
    compiled = replace(keras_config, values={**keras_config.values, "compile_config": {"optimizer": "adam"}})
    assert (
        copied(replace(checkpoint, keras_config=compiled), is_older=False, is_archive=True).optimizer_stored is stored
    )


def test_the_order_of_the_weights_may_be_given(tmp_path: Path) -> None:
    path, _ = weights_alone(tmp_path, "adam_w")
    order = tmp_path / "order.txt"
    order.write_text("einsum_dense/kernel\ndense/kernel\n")
    report = converter.convert(path, tmp_path / "x.pth", param_order=order)
    assert (report.optimizer.status, report.optimizer.basis) == ("carried", "given")
    given = converter.read(tmp_path / "x.pth").optimizer
    assert given is not None
    means = {name: tensor.numpy()[0, 0] for name, tensor in given.slots["exp_avg"].items()}
    assert means == {"einsum_dense.weight": 20, "dense.weight": 10}
    order.write_text("dense/kernel\nother/kernel\n")
    with pytest.raises(LossError, match="the order given has 'other/kernel', which is no weight of the source"):
        converter.convert(path, tmp_path / "y.pth", param_order=order)


def test_weights_that_are_not_trained_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    read(tmp_path, [(3, 3), (3,)], {"layers/dense": [(3, 3), (3,)], "layers/dense_1": [(3, 3), (3,)]})
    with pytest.raises(LossError, match="fit no order"):
        converter.convert(path, tmp_path / "x.pth")
    given = ("momentum=0.9",)
    converter.convert(path, tmp_path / "x.pth", trainable="^dense_1/", hyperparameter=given)
    state = converter.read(tmp_path / "x.pth").optimizer
    assert state is not None
    assert {name for held in state.slots.values() for name in held} == {"dense_1.weight", "dense_1.bias"}
    with pytest.raises(UsageError, match="matches no tensor"):
        converter.convert(path, tmp_path / "y.pth", trainable="nothing")


def test_a_copy_has_the_state_of_metrics_and_of_random_generators_too(tmp_path: Path) -> None:
    """A compiled model asks its file for them: Keras does not load one without."""
    path, _ = weights_alone(tmp_path, "adam_w")
    beside = {
        "metrics/mean/vars/0": np.float32(7),
        "_compile_metrics/vars/0": np.float32(8),
        "layers/dropout/seed_generator/vars/0": np.arange(2, dtype=np.uint32),
    }
    with h5py.File(path, "r+") as file:
        for place, value in beside.items():
            file[place] = value
    report = converter.convert(path, tmp_path / "copy.weights.h5")
    assert report.counts["dropped"] == 0
    with h5py.File(tmp_path / "copy.weights.h5") as file:
        for place, value in beside.items():
            np.testing.assert_equal(file[place][()], value)
    elsewhere = converter.convert(path, tmp_path / "x.pth", optimizer="drop")
    assert {line.name for line in elsewhere.lines if line.name in beside} == {*beside}


def of_kind(folder: Path, title: str, slots: int) -> tuple[Path, Path]:
    """A layer of the user's and another, with `slots` for each weight, and a config that says of no optimizer."""
    path, config = folder / "model.weights.h5", folder / "model.json"
    own = {"class_name": "Own", "registered_name": "mine>Own", "module": None, "config": {"name": "own"}}
    config.write_text(json.dumps({"class_name": "Sequential", "config": {"layers": [MIXED[0], own, MIXED[2]]}}))
    shapes = {"own": (3, 4), "dense": (4, 3)}
    with h5py.File(path, "w") as file:
        for layer, shape in shapes.items():
            file[f"layers/{layer}/vars/0"] = np.ones(shape, np.float32)
        held = [np.ones(shape, np.float32) for shape in shapes.values()]
        state = held * slots if title != "adam" else [*(each for each in held for _ in range(2)), *held]
        for number, value in enumerate([np.int64(4), np.float32(0.25), *state]):
            file[f"optimizer/vars/{number}"] = value
        file["optimizer/vars"].attrs["name"] = title
    return path, config


def settings_in(path: Path) -> dict[str, Any]:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            stated = json.loads(archive.read("config.json"))["compile_config"]["optimizer"]
    else:
        with h5py.File(path) as file:
            stated = json.loads(file.attrs["training_config"])["optimizer_config"]
    return dict(stated["config"])


@pytest.mark.parametrize("name", ["x.keras", "x.h5"])
@pytest.mark.parametrize(("title", "slots"), [("sgd", 1), ("rmsprop", 3)], ids=["sgd", "rmsprop"])
def test_a_file_with_a_config_says_the_momentum_that_its_optimizer_has(
    title: str, slots: int, name: str, tmp_path: Path
) -> None:
    """Keras makes an optimizer without momentum of a config that says none, and leaves the state in the file."""
    path, config = of_kind(tmp_path, title, slots)
    with pytest.raises(LossError, match="momentum, and the file does not say how much"):
        converter.convert(path, tmp_path / name, config=config)
    report = converter.convert(path, tmp_path / name, config=config, hyperparameter=("momentum=0.5",))
    assert report.optimizer.status == "carried"
    assert settings_in(tmp_path / name)["momentum"] == 0.5
    assert settings_in(tmp_path / name).get("centered") is (True if title == "rmsprop" else None)
    assert converter.convert(path, tmp_path / "x.weights.h5", config=config).optimizer.status == "carried"


@pytest.mark.parametrize("name", ["x.keras", "x.h5"])
def test_a_file_with_a_config_says_what_its_optimizer_keeps_slots_for(name: str, tmp_path: Path) -> None:
    path, config = of_kind(tmp_path, "adam", 3)
    assert converter.convert(path, tmp_path / name, config=config).optimizer.status == "carried"
    assert settings_in(tmp_path / name)["amsgrad"] is True
