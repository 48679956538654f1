"""A Keras model with layers that no table knows goes from one kind of file to another, as Keras writes that kind."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects.keras import with_registered_classes
from converter.dialects.transformers.listings import relisted
from converter.errors import LossError, UsageError
from converter.model.checkpoint import Checkpoint, Config, Dialect, Listing
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from tests.conftest import ROOT
from tests.formats.test_copies_of_keras import ADAM, everything, listed, weights_of

FIXTURES = ROOT / "fixtures" / "keras-encoders"
CASES = ("deberta", "deberta-v2", "main-layer", "numbers", "pooling", "siamese")


def layers_of(path: Path) -> dict[str, tuple[Any, ...]]:
    """What an archive's config says that each layer's class is."""
    config = json.loads(zipfile.ZipFile(path).read("config.json"))
    entries = [config, *config["config"]["layers"]]
    keys = ("module", "class_name", "registered_name")
    return {each.get("name", ""): tuple(each[key] for key in keys) for each in entries}


@pytest.mark.parametrize("case", CASES)
def test_an_archive_becomes_the_h5_that_keras_writes(case: str, tmp_path: Path) -> None:
    assert converter.convert(FIXTURES / f"{case}.keras", tmp_path / "x.h5").counts["dropped"] == 0
    with h5py.File(FIXTURES / f"{case}.h5") as theirs, h5py.File(tmp_path / "x.h5") as ours:
        assert json.loads(ours.attrs["model_config"])["class_name"] == "Functional"
        assert ours.attrs["keras_version"] == theirs.attrs["keras_version"]
        tops = [each["model_weights"] for each in (theirs, ours)]
        names = listed(tops[0], "layer_names")
        assert listed(tops[1], "layer_names") == names
        for name in names:
            assert listed(tops[1][name], "weight_names") == listed(tops[0][name], "weight_names")
        before, after = (everything(each) for each in tops)
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)
    converter.verify(FIXTURES / f"{case}.keras", tmp_path / "x.h5")


@pytest.mark.parametrize("case", CASES)
def test_an_h5_becomes_the_archive_that_keras_writes(case: str, tmp_path: Path) -> None:
    source = FIXTURES / f"{case}.h5"
    assert converter.convert(source, tmp_path / "x.keras").counts["dropped"] == 0
    with (
        h5py.File(weights_of(FIXTURES / f"{case}.keras")) as theirs,
        h5py.File(weights_of(tmp_path / "x.keras")) as ours,
    ):
        before, after = everything(theirs), everything(ours)
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert layers_of(tmp_path / "x.keras") == layers_of(FIXTURES / f"{case}.keras")
    assert converter.diff(source, tmp_path / "x.keras").is_same
    converter.convert(tmp_path / "x.keras", tmp_path / "back.h5")
    with h5py.File(source) as theirs, h5py.File(tmp_path / "back.h5") as ours:
        assert everything(theirs).keys() == everything(ours).keys()


def with_moments(
    path: Path, optimizer: dict[str, Any], moments: Callable[[dict[str, tuple[int, ...]]], dict[str, Any]]
) -> Path:
    """The model of numbers, compiled with an optimizer; `moments` makes its variables of the shapes of the weights."""
    shutil.copy(FIXTURES / "numbers.h5", path)
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps({"optimizer_config": optimizer, "loss": "mse"})
        top = file["model_weights"]
        held = [top[layer] for layer in listed(top, "layer_names")]
        state = moments({name: layer[name].shape for layer in held for name in listed(layer, "weight_names")})
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = list(state)
        for name, array in state.items():
            group[name] = array
    return path


def trained(folder: Path) -> Path:
    """The model of numbers with moments that say which weight they are of."""

    def moments(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        state: dict[str, Any] = {"iteration:0": np.int64(3)}
        for number, (name, shape) in enumerate(shapes.items()):
            for slot in "mv":
                state[f"Adam/{slot}/{name}"] = np.full(shape, number, np.float32)
        return state

    return with_moments(folder / "trained.h5", ADAM, moments)


def test_moments_are_numbered_in_the_order_of_the_model_and_not_of_the_places(tmp_path: Path) -> None:
    source = trained(tmp_path)
    assert converter.convert(source, tmp_path / "x.keras").optimizer.status == "carried"
    with h5py.File(weights_of(tmp_path / "x.keras")) as file:
        held = file["optimizer/vars"]
        assert held["0"][()] == 3
        marks = [int(held[str(number)][()].ravel()[0]) for number in range(1, len(held))]
    assert marks == [number for number in range(41) for _ in "mv"]
    compiled = json.loads(zipfile.ZipFile(tmp_path / "x.keras").read("config.json"))["compile_config"]["optimizer"]
    assert compiled["config"] == ADAM["config"]
    assert converter.convert(tmp_path / "x.keras", tmp_path / "back.h5").optimizer.status == "carried"
    with h5py.File(source) as theirs, h5py.File(tmp_path / "back.h5") as ours:
        for name, array in everything(theirs["optimizer_weights"]).items():
            np.testing.assert_array_equal(ours["optimizer_weights"][name][()], array, err_msg=name)
        said = json.loads(ours.attrs["training_config"])["optimizer_config"]
        assert (said["class_name"], said["config"]["is_legacy_optimizer"]) == ("Adam", False)


def of_legacy(folder: Path, **settings: Any) -> Path:
    """The model of numbers with an optimizer of before TensorFlow 2.11, which has all of one slot after another."""
    config = {**ADAM["config"], "decay": 0.0, **settings}

    def moments(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        state: dict[str, Any] = {"Adam/iter:0": np.int64(3)}
        for slot, more in (("m", 0), ("v", 100)):
            for number, (name, shape) in enumerate(shapes.items()):
                state[f"Adam/{name.removesuffix(':0')}/{slot}:0"] = np.full(shape, number + more, np.float32)
        return state

    return with_moments(folder / "legacy.h5", {"class_name": "Adam", "config": config}, moments)


def test_a_legacy_optimizer_stays_one_in_an_h5_and_is_renewed_in_an_archive(tmp_path: Path) -> None:
    source = of_legacy(tmp_path)
    converter.convert(source, tmp_path / "copy.h5")
    with h5py.File(source) as theirs, h5py.File(tmp_path / "copy.h5") as ours:
        groups = [each["optimizer_weights"] for each in (theirs, ours)]
        assert listed(groups[1], "weight_names") == listed(groups[0], "weight_names")
        said = json.loads(ours.attrs["training_config"])["optimizer_config"]["config"]
        assert (said["decay"], said.get("is_legacy_optimizer", True)) == (0.0, True)
    assert converter.convert(source, tmp_path / "x.keras").optimizer.status == "carried"
    compiled = json.loads(zipfile.ZipFile(tmp_path / "x.keras").read("config.json"))["compile_config"]["optimizer"]
    assert (compiled["module"], compiled["config"]) == ("keras.optimizers", ADAM["config"])
    with h5py.File(weights_of(tmp_path / "x.keras")) as file:
        marks = [int(file[f"optimizer/vars/{number}"][()].ravel()[0]) for number in range(1, 83)]
    assert marks == [number + more for number in range(41) for more in (0, 100)]


def test_a_rate_that_decays_by_itself_is_in_no_archive(tmp_path: Path) -> None:
    report = converter.convert(of_legacy(tmp_path, decay=0.5), tmp_path / "x.keras")
    assert report.optimizer.status == "dropped"
    assert any("no archive holds that of a legacy optimizer whose rate decays" in each for each in report.warnings)


def mine(names: tuple[str, ...], kind: str = "h5", **layers: Any) -> Checkpoint:
    """A model of a layer of one's own and a Dense, as a file of another kind lists it."""
    entries = [
        {"class_name": "InputLayer", "config": {"name": "ids"}, "inbound_nodes": []},
        {"class_name": "Mine", "config": {"name": "mine_1"}, "inbound_nodes": [[["ids", 0, 0, {}]]]},
        {"class_name": "Dense", "config": {"name": "dense", "units": 2}, "inbound_nodes": [[["mine_1", 0, 0, {}]]]},
    ]
    values = {"class_name": "Functional", "config": {"name": "m", "layers": entries}}
    every = (*names, "dense/kernel", "dense/bias")
    held = layers or {"mine_1": names, "dense": every[-2:]}
    return Checkpoint(
        tensors={name: ArrayTensor.of(np.full(2, number, np.float32)) for number, name in enumerate(every)},
        dialect=Dialect.KERAS,
        keras_config=Config(values=values, raw=b"{}"),
        listing=Listing(format=kind, layers={key: tuple((name, name) for name in its) for key, its in held.items()}),
    )


def test_own_variables_of_a_layer_lie_at_its_place() -> None:
    found = relisted(mine(("mine_1/a", "mine_1/b")), "keras", is_older=True).listing
    assert found is not None
    assert {place: [name for _, name in pairs] for place, pairs in found.layers.items()} == {
        "layers/mine": ["mine_1/a", "mine_1/b"],
        "layers/dense": ["dense/kernel", "dense/bias"],
    }


def test_what_is_inside_a_layer_of_ones_own_is_refused_where_no_attribute_is_said() -> None:
    with pytest.raises(LossError, match="'mine_1', a Mine, has layers inside, and nothing says under which attributes"):
        relisted(mine(("mine_1/inner/kernel",)), "keras", is_older=True)


def test_objects_say_the_attributes() -> None:
    layers = {
        "layer-0": (),
        "layer-1": ("inner/kernel", "deep/er/bias", "own"),
        "layer-2": ("dense/kernel", "dense/bias"),
    }
    source = mine(("inner/kernel", "deep/er/bias", "own"), "savedmodel", **layers)
    found = relisted(source, "keras", is_older=True).listing
    assert found is not None
    assert {place: pairs[0][0] for place, pairs in found.layers.items()} == {
        "layers/mine/inner": "0",
        "layers/mine/deep/er": "0",
        "layers/mine": "0",
        "layers/dense": "0",
    }
    as_h5 = relisted(source, "h5", is_older=True).listing
    assert as_h5 is not None
    assert list(as_h5.layers) == ["ids", "mine_1", "dense"]
    assert [name for _, name in as_h5.layers["mine_1"]] == ["inner/kernel:0", "deep/er/bias:0", "own:0"]


IN_CONTAINERS = ["blocks/[0]/kernel", "parts/[first]/kernel", "tail/[layer-0]/kernel"]


@pytest.mark.parametrize("path", IN_CONTAINERS)
def test_what_is_no_attribute_is_refused_with_what_may_say_its_place(path: str) -> None:
    layers = {"layer-0": (), "layer-1": (path, "own"), "layer-2": ("dense/kernel", "dense/bias")}
    with pytest.raises(LossError, match="'mine_1', a Mine, has layers inside, and nothing says under which") as caught:
        relisted(mine((path, "own"), "savedmodel", **layers), "keras", is_older=True)
    assert str(caught.value.hint) == "--custom-objects package.module:Mine names its code, which does"


@pytest.mark.parametrize("path", [*IN_CONTAINERS, "parts/first/kernel", "att/query/kernel"])
def test_the_code_says_the_place_of_what_is_in_a_container(path: str) -> None:
    """A checkpoint does not tell whether `parts` is a dict or a layer."""
    layers = {"layer-0": (), "layer-1": (path,), "layer-2": ("dense/kernel", "dense/bias")}
    source = mine((path,), "tf-checkpoint", **layers)
    assert source.listing is not None
    with pytest.raises(LossError, match="'mine_1', a Mine, has layers inside, and nothing says under which"):
        relisted(source, "keras", is_older=True)
    inside = [
        *(("blocks/dense", "d", "blocks/0", ""), ("parts/dense", "d", "parts/first", "")),
        *(("tail", "t", "tail", ""), ("tail/layers/dense", "t/d", "tail/layers/0", ""), ("att", "a", "att", "")),
    ]
    asked = replace(source.listing, asked=lambda **_: {"mine_1": inside})
    found = relisted(replace(source, listing=asked), "keras", is_older=True).listing
    assert found is not None
    place = {"b": "blocks/dense", "p": "parts/dense", "t": "tail/layers/dense", "a": "att/query"}[path[0]]
    assert list(found.layers) == [f"layers/mine/{place}", "layers/dense"]


def test_an_archive_does_not_tell_the_order_of_several_layers_inside_one() -> None:
    layers = {
        "layers/mine/a": ("mine/a/kernel",),
        "layers/mine/b": ("mine/b/kernel",),
        "layers/dense": ("dense/kernel", "dense/bias"),
    }
    source = mine(("mine/a/kernel", "mine/b/kernel"), "keras", **layers)
    with pytest.raises(
        LossError, match="'mine_1', a Mine, has layers inside whose order an archive does not"
    ) as caught:
        relisted(source, "h5", is_older=True)
    assert "--custom-objects package.module:Mine names its code, which does" in str(caught.value)
    assert source.listing is not None
    for places, expected in (("ba", ["b/kernel:0", "a/kernel:0"]), ("ab", ["a/kernel:0", "b/kernel:0"])):
        inside = [(place, place, place, "Dense") for place in places]
        listing = replace(source.listing, asked=lambda inside=inside, **_: {"mine_1": inside})
        told = relisted(replace(source, listing=listing), "h5", is_older=True).listing
        assert told is not None
        assert [name for _, name in told.layers["mine_1"]] == [f"mine_1/{name}" for name in expected]
    without = replace(source.listing, asked=lambda **_: {"mine_1": [("a", "a", "a", "Dense")]})
    with pytest.raises(LossError, match="has layers inside whose order an archive does not tell"):
        relisted(replace(source, listing=without), "h5", is_older=True)
    layers = {"layers/mine/a": ("mine/a/kernel", "mine/a/bias"), "layers/dense": layers["layers/dense"]}
    found = relisted(mine(("mine/a/kernel", "mine/a/bias"), "keras", **layers), "h5", is_older=True).listing
    assert found is not None
    assert [name for _, name in found.layers["mine_1"]] == ["mine_1/a/kernel:0", "mine_1/a/bias:0"]


def test_a_variable_of_no_layer_and_a_model_of_other_layers_are_refused() -> None:
    source = mine(("mine_1/a",))
    more = {**source.tensors, "stray": ArrayTensor.of(np.zeros(1, np.float32))}
    with pytest.raises(LossError, match="is of no layer of the Keras model"):
        relisted(replace(source, tensors=more), "keras", is_older=True)
    few = mine(("mine_1/a",), "savedmodel", **{"layer-0": ("mine_1/a",), "layer-1": ("dense/kernel", "dense/bias")})
    with pytest.raises(LossError, match="other layers than the objects beside it"):
        relisted(few, "h5", is_older=True)


def checkpoint_of(names: tuple[str, ...], paths: tuple[str, ...]) -> Checkpoint:
    """Weights of one layer as a TensorFlow checkpoint has them, without a config."""
    return Checkpoint(
        tensors={name: ArrayTensor.of(np.full((2, 2), number, np.float32)) for number, name in enumerate(names)},
        dialect=Dialect.TENSORFLOW,
        listing=Listing(format="tf-checkpoint", layers={"layer-0": tuple(zip(paths, names, strict=True))}),
    )


def test_the_objects_of_a_checkpoint_say_the_layers_of_an_h5() -> None:
    names = ("n_1/moving_mean", "n_1/beta", "n_1/gamma")
    found = relisted(checkpoint_of(names, ("moving_mean", "beta", "gamma")), "h5", is_older=True).listing
    assert found is not None
    assert {layer: [name for _, name in pairs] for layer, pairs in found.layers.items()} == {
        "n_1": ["n_1/gamma:0", "n_1/beta:0", "n_1/moving_mean:0"]
    }


def test_layers_whose_variables_begin_alike_are_called_by_their_number() -> None:
    source = checkpoint_of(("same/a", "same/b", "other/c"), ("a", "b", "c"))
    layers = {f"layer-{number}": (pair,) for number, pair in enumerate(zip("abc", source.names, strict=True))}
    found = relisted(replace(source, listing=Listing(format="tf-checkpoint", layers=layers)), "h5", is_older=True)
    assert found.listing is not None
    assert list(found.listing.layers) == ["layer-0", "layer-1", "other"]
    assert found.names == ("same/a:0", "same/b:0", "other/c:0")


def test_an_encoder_in_a_checkpoint_has_the_order_of_its_class() -> None:
    source = converter.read(FIXTURES / "numbers.h5")
    assert source.listing is not None
    names = [name for _, name in source.listing.layers["tf_bert_model"]]
    shuffled = sorted(names, key=lambda name: name[::-1])
    pairs = tuple((name, name) for name in shuffled)
    listing = Listing(format="tf-checkpoint", layers={"layer-0": pairs})
    tensors = {name: source.tensors[name] for name in shuffled}
    found = relisted(Checkpoint(tensors=tensors, dialect=Dialect.TENSORFLOW, listing=listing), "h5", is_older=True)
    assert found.listing is not None
    assert [name for _, name in found.listing.layers["tf_bert_model"]] == names


def test_an_order_that_nothing_says_is_refused() -> None:
    with pytest.raises(LossError, match="neither optimizer nor names say in which order"):
        relisted(checkpoint_of(("m/a", "m/b"), ("a", "b")), "h5", is_older=True)


OF_CLASSES = ROOT / "fixtures" / "keras-transformers"


@pytest.mark.parametrize("name", ["roberta-classifier", "t5", "vit"])
def test_a_class_of_transformers_lies_where_keras_has_it(name: str, tmp_path: Path) -> None:
    source, config = OF_CLASSES / f"{name}.safetensors", tmp_path / "config.json"
    named = {"architectures": ["T5ForConditionalGeneration"]} if name == "t5" else {}
    config.write_text(json.dumps({**json.loads((OF_CLASSES / f"{name}.json").read_text()), **named}))
    converter.convert(source, tmp_path / "x.weights.h5", config=config)
    converter.convert(source, tmp_path / "x.keras", config=config)
    for made in ("x.weights.h5", "x.keras"):
        with h5py.File(OF_CLASSES / f"{name}.weights.h5") as theirs, h5py.File(weights_of(tmp_path / made)) as ours:
            before, after = everything(theirs), everything(ours)
            assert before.keys() == after.keys()
            for place, array in before.items():
                np.testing.assert_array_equal(after[place], array, err_msg=place)
    said = json.loads(zipfile.ZipFile(tmp_path / "x.keras").read("config.json"))
    model = json.loads(config.read_text())
    assert said["class_name"] == said["registered_name"] == f"TF{said['config']['architectures'][0]}"
    assert said["module"].startswith(f"transformers.models.{model['model_type']}.modeling_tf_")
    assert said["config"]["model_type"] == model["model_type"]


def test_moments_of_torch_lie_where_keras_has_those_of_the_class(tmp_path: Path) -> None:
    config = OF_CLASSES / "roberta-classifier.json"
    weights = converter.read(OF_CLASSES / "roberta-classifier.safetensors")
    order = [name for name in weights.names if "position_ids" not in name]
    slots = {
        slot: {name: ArrayTensor.of(weights.tensor(name).numpy() + more) for name in order}
        for slot, more in (("exp_avg", 1), ("exp_avg_sq", 100))
    }
    settings = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-7, "weight_decay": 0.0, "amsgrad": False}
    group = ParameterGroup(parameters=tuple(order), hyperparameters=settings)
    state = OptimizerState(algorithm="adam", step=3, groups=(group,), slots=slots, convention=Convention.TORCH)
    values = json.loads(config.read_text())
    source = replace(weights, optimizer=state, config=Config(values=values, raw=config.read_bytes()))
    assert converter.write(source, tmp_path / "x.keras").optimizer.status == "carried"
    found = converter.read(tmp_path / "x.keras")
    assert found.optimizer is not None
    for name, momentum in found.optimizer.slots["momentum"].items():
        np.testing.assert_allclose(momentum.numpy(), found.tensor(name).numpy() + 1, err_msg=name)
    assert len(found.optimizer.slots["momentum"]) == len(order)


def test_heads_without_the_config_of_their_model_are_no_archive(tmp_path: Path) -> None:
    converter.convert(OF_CLASSES / "bert-intent.keras", tmp_path / "out", to="pretrained")
    converter.convert(OF_CLASSES / "bert-intent.keras", tmp_path / "out.pth")
    with pytest.raises(LossError, match="opens a model with heads only by the config of the whole model"):
        converter.convert(tmp_path / "out.pth", tmp_path / "out.keras", config=tmp_path / "out")


@pytest.mark.parametrize("is_trained", [True, False], ids=["trained", "frozen"])
def test_a_model_inside_lists_what_it_trains_before_the_rest(is_trained: bool) -> None:
    """As `layer.weights` does; of a frozen one it has the variables layer by layer."""
    inner = [
        {"class_name": "BatchNormalization", "config": {"name": "norm"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 2}},
    ]
    entries = [
        {"class_name": "Mine", "config": {"name": "mine"}},
        {"class_name": "Functional", "config": {"name": "inner", "trainable": is_trained, "layers": inner}},
    ]
    leaves = ("norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance", "dense/kernel", "dense/bias")
    names = [f"inner/{leaf}" for leaf in leaves]
    places = {
        "layers/mine": ["mine/a"],
        "layers/functional/layers/batch_normalization": names[:4],
        "layers/functional/layers/dense": names[4:],
    }
    numbered = {place: tuple((str(number), name) for number, name in enumerate(held)) for place, held in places.items()}
    source = Checkpoint(
        tensors={name: ArrayTensor.of(np.zeros(2, np.float32)) for name in ("mine/a", *names)},
        dialect=Dialect.KERAS,
        keras_config=Config(values={"class_name": "Functional", "config": {"name": "m", "layers": entries}}, raw=b"{}"),
        listing=Listing(format="keras", layers=numbered),
    )
    found = relisted(source, "h5", is_older=True)
    assert found.listing is not None
    listed_names = [name.removesuffix(":0") for _, name in found.listing.layers["inner"]]
    assert listed_names == (names[:2] + names[4:] + names[2:4] if is_trained else names)
    back = relisted(replace(found, keras_config=source.keras_config), "keras", is_older=True).listing
    assert back is not None
    assert {place: [name for _, name in held] for place, held in back.layers.items()} == places


def test_a_file_of_weights_has_them_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    converter.convert(OF_CLASSES / "bert-intent.keras", tmp_path / "out", to="pretrained")
    with pytest.raises(UsageError, match=r"Keras loads no \.weights\.h5 file of PyTorch's names"):
        converter.convert(tmp_path / "out", tmp_path / "x.weights.h5")
    converter.convert(tmp_path / "out", tmp_path / "x.weights.h5", weights_only=True)
    assert converter.diff(tmp_path / "out", tmp_path / "x.weights.h5").is_same


@pytest.mark.parametrize("target", ["x.h5", "x.keras"])
def test_a_report_lists_variables_in_the_order_of_the_model(target: str, tmp_path: Path) -> None:
    """Whatever the process: names are no set."""
    source = FIXTURES / ("numbers.keras" if target == "x.h5" else "numbers.h5")
    lines = converter.convert(source, tmp_path / target, optimizer="drop").lines
    places = {name: place for place, name in enumerate(converter.read(source).names)}
    listed = [places[line.name] for line in lines if line.target is not None and line.name in places]
    assert listed == sorted(listed)
    assert len(listed) == len(places)


def test_a_layer_called_as_archives_call_their_groups_makes_no_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}, "name": "x"},
        {"class_name": "Dense", "config": {"name": "vars", "units": 2, "use_bias": False}, "name": "vars"},
    ]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["vars"]
        group.create_group("vars").attrs["weight_names"] = ["vars/kernel:0"]
        group["vars/vars/kernel:0"] = np.ones((3, 2), np.float32)
    assert list(converter.read(path).tensors) == ["vars/kernel:0"]


def test_an_h5_calls_registered_classes_as_its_reader_looks_for_them() -> None:
    entry = {"class_name": "Own", "registered_name": "mine>Own", "config": {"name": "own"}}
    plain = Config(values={"class_name": "Own", "registered_name": "Own"}, raw=b"as it is")
    assert with_registered_classes(plain) is plain
    config = Config(values={"class_name": "Functional", "config": {"layers": [entry]}}, raw=b"{}")
    found = with_registered_classes(config)
    assert found.values["config"]["layers"] == [{**entry, "class_name": "mine>Own"}]
    assert json.loads(found.raw) == found.values
