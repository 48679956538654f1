"""A file of Keras whose layers no table knows is written to its own kind as it lists its variables, and as it was."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, LossError
from tests.conftest import ROOT

FIXTURES = ROOT / "fixtures" / "keras-transformers"
LAYERS = [
    {"class_name": "InputLayer", "config": {"name": "ids"}, "inbound_nodes": []},
    {"class_name": "Mine", "config": {"name": "mine"}, "inbound_nodes": [[["ids", 0, 0, {}]]]},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2}, "inbound_nodes": [[["mine", 0, 0, {}]]]},
]
FUNCTIONAL = {"class_name": "Functional", "config": {"name": "m", "layers": LAYERS, "output_layers": [["dense", 0, 0]]}}
ADAM = {
    "class_name": "Adam",
    "config": {"name": "Adam", "learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
}
WEIGHTS = {"mine": {"mine/deep/kernel:0": (3, 4)}, "dense": {"dense/kernel:0": (4, 2), "dense/bias:0": (2,)}, "ids": {}}


def listed(group: Any, name: str) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else each for each in group.attrs[name]]


def everything(file: Any) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 file, by its place."""
    found: dict[str, np.ndarray] = {}
    file.visititems(lambda name, each: found.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None)
    return found


def model_h5(path: Path, *, is_whole: bool, is_trained: bool = False) -> Path:
    generator = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        top = file.create_group("model_weights") if is_whole else file
        if is_whole:
            file.attrs["model_config"] = json.dumps(FUNCTIONAL)
        top.attrs["layer_names"] = list(WEIGHTS)
        trained = {}
        for layer, shapes in WEIGHTS.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = list(shapes)
            for name, shape in shapes.items():
                group[name] = generator.normal(size=shape).astype(np.float32)
                trained[name] = shape
        if is_trained:
            file.attrs["training_config"] = json.dumps({"optimizer_config": ADAM, "loss": "mse"})
            state = {"iteration:0": np.int64(3)}
            for name, shape in trained.items():
                for slot in "mv":
                    state[f"Adam/{slot}/{name}"] = generator.random(shape).astype(np.float32)
            group = file.create_group("optimizer_weights")
            group.attrs["weight_names"] = list(state)
            for name, array in state.items():
                group[name] = array
    return path


@pytest.mark.parametrize("is_whole", [True, False], ids=["a whole model", "weights"])
def test_an_h5_keeps_layers_names_layouts_and_config(is_whole: bool, tmp_path: Path) -> None:
    source = model_h5(tmp_path / "in.h5", is_whole=is_whole, is_trained=is_whole)
    report = converter.convert(source, tmp_path / "out.h5")
    assert report.optimizer.status.value == ("carried" if is_whole else "absent")
    with h5py.File(source) as ours, h5py.File(tmp_path / "out.h5") as theirs:
        before, after = everything(ours), everything(theirs)
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)
        for name in ("model_config", "keras_version", "backend"):
            assert theirs.attrs.get(name) == ours.attrs.get(name)
        tops = [each["model_weights"] if is_whole else each for each in (ours, theirs)]
        assert listed(tops[1], "layer_names") == listed(tops[0], "layer_names")
        for layer in WEIGHTS:
            assert listed(tops[1][layer], "weight_names") == listed(tops[0][layer], "weight_names")
        if is_whole:
            names = [listed(each["optimizer_weights"], "weight_names") for each in (ours, theirs)]
            assert names[1] == names[0]
            assert json.loads(theirs.attrs["training_config"])["optimizer_config"]["class_name"] == "Adam"
    converter.verify(source, tmp_path / "out.h5")


def test_another_kind_of_file_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    """Where `mine` keeps its `deep` is in no .h5; a file that has no listing at all says less."""
    source = model_h5(tmp_path / "in.h5", is_whole=True)
    with pytest.raises(LossError, match="'mine', a Mine, has layers inside, and nothing says under which") as caught:
        converter.convert(source, tmp_path / "out.keras")
    assert "SavedModel" in str(caught.value.hint)
    assert converter.convert(source, tmp_path / "out.pth").counts["dropped"] == 0
    config = tmp_path / "config.json"
    config.write_text(json.dumps(FUNCTIONAL))
    with pytest.raises(ArchitectureError, match="'mine' is a Mine, whose variables cannot be named") as unnamed:
        converter.convert(tmp_path / "out.pth", tmp_path / "out.keras", config=config)
    assert "own kind" in str(unnamed.value.hint)


def test_what_is_left_out_or_cast_is_so_in_a_copy(tmp_path: Path) -> None:
    source = model_h5(tmp_path / "in.h5", is_whole=False)
    converter.convert(source, tmp_path / "out.h5", exclude=("dense/*",), dtype="float16")
    with h5py.File(tmp_path / "out.h5") as file:
        assert {name: each.dtype.name for name, each in everything(file).items()} == {
            "mine/mine/deep/kernel:0": "float16"
        }
        assert listed(file["dense"], "weight_names") == []


def weights_of(path: Path) -> BytesIO:
    return BytesIO(zipfile.ZipFile(path).read("model.weights.h5") if path.suffix == ".keras" else path.read_bytes())


@pytest.mark.parametrize("name", ["bert-intent.keras", "bert-intent.weights.h5", "t5.weights.h5"])
def test_archives_and_weights_files_keep_places_and_config(name: str, tmp_path: Path) -> None:
    converter.convert(FIXTURES / name, tmp_path / name)
    with h5py.File(weights_of(FIXTURES / name)) as ours, h5py.File(weights_of(tmp_path / name)) as theirs:
        before, after = everything(ours), everything(theirs)
        assert before.keys() == after.keys()
        for place, array in before.items():
            np.testing.assert_array_equal(after[place], array, err_msg=place)
        ours.visititems(
            lambda place, each: None if "name" not in each.attrs else named(theirs[place], each.attrs["name"])
        )
    if name.endswith(".keras"):
        configs = [json.loads(zipfile.ZipFile(each / name).read("config.json")) for each in (FIXTURES, tmp_path)]
        assert configs[0] == configs[1]


def named(group: Any, name: str) -> None:
    assert group.attrs["name"] == name


def test_from_an_archive_a_weights_file_has_the_same_places(tmp_path: Path) -> None:
    converter.convert(FIXTURES / "bert-intent.keras", tmp_path / "out.weights.h5")
    with h5py.File(FIXTURES / "bert-intent.weights.h5") as wanted, h5py.File(tmp_path / "out.weights.h5") as file:
        assert everything(file).keys() == everything(wanted).keys()


def test_names_that_changed_are_laid_out_anew(tmp_path: Path) -> None:
    """A list of variables is of the source's names, and goes with them."""
    checkpoint = converter.read(model_h5(tmp_path / "in.h5", is_whole=False))
    assert checkpoint.listing is not None
    assert checkpoint.with_names(str.upper).listing is None


def test_a_model_with_heads_is_an_archive_only_by_the_config_of_the_whole(tmp_path: Path) -> None:
    """Asking for the config of a Keras model led nowhere."""
    converter.convert(FIXTURES / "bert-intent.keras", tmp_path / "out", to="pretrained")
    with pytest.raises(LossError, match="only by the config of the whole model") as caught:
        converter.convert(tmp_path / "out", tmp_path / "out.keras")
    assert "--config" not in str(caught.value.hint)


def test_heads_of_another_kind_of_source_are_no_h5(tmp_path: Path) -> None:
    """It was written with PyTorch's names, said to be verified, and nothing opened it."""
    source = FIXTURES / "bert-intent.keras"
    converter.convert(source, tmp_path / "out", to="pretrained")
    converter.convert(source, tmp_path / "out.pth")
    with pytest.raises(LossError, match=r"only as an \.h5 of its own lists its layers") as caught:
        converter.convert(tmp_path / "out.pth", tmp_path / "out.h5", config=tmp_path / "out")
    assert caught.value.exit_code == 3
    assert "--to pretrained" in str(caught.value.hint)


def test_heads_in_a_file_of_weights_are_an_h5_by_the_config_of_the_whole_model(tmp_path: Path) -> None:
    """The line named --to pretrained alone, which asks for a config, too."""
    source = FIXTURES / "bert-intent.keras"
    converter.convert(source, tmp_path / "x.weights.h5", optimizer="drop")
    with pytest.raises(LossError, match=r"only as an \.h5 of its own lists its layers") as caught:
        converter.convert(tmp_path / "x.weights.h5", tmp_path / "out.h5")
    assert "of a file of Keras, --config FILE, what to_json()" in str(caught.value.hint)
    with zipfile.ZipFile(source) as archive:
        (tmp_path / "model.json").write_bytes(archive.read("config.json"))
    report = converter.convert(tmp_path / "x.weights.h5", tmp_path / "out.h5", config=tmp_path / "model.json")
    assert report.verdict.startswith("ok")
    with h5py.File(tmp_path / "out.h5") as file:
        assert "model_config" in file.attrs


DENSE, NORM = ("kernel", "bias"), ("gamma", "beta")
BERT_IN_ORDER = [
    *(f"embeddings/{each}" for each in ("word_embeddings/weight", "token_type_embeddings/embeddings")),
    "embeddings/position_embeddings/embeddings",
    *(f"embeddings/LayerNorm/{each}" for each in NORM),
    *(
        f"encoder/layer_._{number}/{part}/{leaf}"
        for number in range(2)
        for part, leaves in (
            ("attention/self/query", DENSE),
            ("attention/self/key", DENSE),
            ("attention/self/value", DENSE),
            ("attention/output/dense", DENSE),
            ("attention/output/LayerNorm", NORM),
            ("intermediate/dense", DENSE),
            ("output/dense", DENSE),
            ("output/LayerNorm", NORM),
        )
        for leaf in leaves
    ),
    *(f"pooler/dense/{each}" for each in DENSE),
]
"""As `model.trainable_variables` of tf_keras lists them."""
HEADS_IN_ORDER = [f"{head}/{each}" for head in ("intent", "slots") for each in DENSE]


def trained_archive(path: Path, order: list[str], optimizer: Any = ADAM) -> Path:
    """Write an archive of a BERT and two heads with the state of an Adam whose variables have no names."""
    shapes = {name: each.shape for name, each in converter.read(FIXTURES / "bert-intent.keras").tensors.items()}
    content = weights_of(FIXTURES / "bert-intent.keras")
    with h5py.File(content, "r+") as file:
        group = file.create_group("optimizer/vars")
        state = [np.int64(3), np.float32(0.01)]
        for number, name in enumerate(order):
            state += [np.full(shapes[name], number + half, np.float32) for half in (0, 0.5)]
        for number, array in enumerate(state):
            group[str(number)] = array
    with zipfile.ZipFile(FIXTURES / "bert-intent.keras") as source, zipfile.ZipFile(path, "w") as target:
        config = json.loads(source.read("config.json"))
        target.writestr("config.json", json.dumps({**config, "compile_config": {"optimizer": optimizer}}))
        target.writestr("metadata.json", source.read("metadata.json"))
        target.writestr("model.weights.h5", content.getvalue())
    return path


def test_state_without_names_beside_an_encoder_is_in_the_order_that_keras_builds_it(tmp_path: Path) -> None:
    order = [*(f"tf_bert_model/bert/{name}" for name in BERT_IN_ORDER), *HEADS_IN_ORDER]
    source = trained_archive(tmp_path / "in.keras", order)
    state = converter.read(source).optimizer
    assert state is not None
    assert state.step == 3
    for number, name in enumerate(order):
        assert np.all(state.slots["momentum"][name].numpy() == number)
        assert np.all(state.slots["velocity"][name].numpy() == number + 0.5)
    assert converter.convert(source, tmp_path / "out.keras").optimizer.status.value == "carried"
    with h5py.File(weights_of(source)) as ours, h5py.File(weights_of(tmp_path / "out.keras")) as theirs:
        before, after = (everything(each["optimizer/vars"]) for each in (ours, theirs))
        moments = [str(number) for number in range(2, 2 + 2 * len(order))]
        assert set(moments) <= before.keys()
        tail = sorted(after, key=int)[-len(moments) :]
        assert [after[name].tobytes() for name in tail] == [before[name].tobytes() for name in moments]
    refused = converter.read(trained_archive(tmp_path / "other.keras", order[::-1]))
    assert refused.optimizer is None
    assert "fit no order" in str(refused.optimizer_refused)


def test_state_beside_an_encoder_that_is_not_trained_is_that_of_the_heads(tmp_path: Path) -> None:
    """The config of a model of transformers does not say whether it is trained."""
    state = converter.read(trained_archive(tmp_path / "in.keras", list(HEADS_IN_ORDER))).optimizer
    assert state is not None
    for number, name in enumerate(HEADS_IN_ORDER):
        assert np.all(state.slots["momentum"][name].numpy() == number)
    assert list(state.slots["momentum"]) == list(HEADS_IN_ORDER)


@pytest.mark.parametrize(("name", "class_name", "rate"), [("adam", "Adam", 0.001), ("rmsprop", "RMSprop", 0.001)])
def test_an_optimizer_that_is_compiled_by_its_name_has_the_rate_that_keras_gives_it(
    name: str, class_name: str, rate: float, tmp_path: Path
) -> None:
    order = [*(f"tf_bert_model/bert/{each}" for each in BERT_IN_ORDER), *HEADS_IN_ORDER]
    source = trained_archive(tmp_path / "in.keras", order, optimizer=name)
    with zipfile.ZipFile(source) as archive, h5py.File(BytesIO(archive.read("model.weights.h5"))) as file:
        held = {place: array for place, array in everything(file).items() if place != "optimizer/vars/1"}
    content = BytesIO()
    moments = [held[f"optimizer/vars/{number}"] for number in range(2, 2 + 2 * len(order))]
    moments = moments if name == "adam" else moments[::2]
    with h5py.File(content, "w") as file:
        for place, array in held.items():
            if not place.startswith("optimizer"):
                file[place] = array
        for number, array in enumerate([np.int64(3), *moments]):
            file[f"optimizer/vars/{number}"] = array
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(tmp_path / "named.keras", "w") as target:
        for member in ("config.json", "metadata.json"):
            target.writestr(member, archive.read(member))
        target.writestr("model.weights.h5", content.getvalue())
    state = converter.read(tmp_path / "named.keras").optimizer
    assert state is not None
    assert state.groups[0].hyperparameters["learning_rate"] == rate
    converter.convert(tmp_path / "named.keras", tmp_path / "out.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "out.keras").read("config.json"))["compile_config"]["optimizer"]
    assert (config["class_name"], config["config"]) == (class_name, {"name": class_name, "learning_rate": rate})
    again = converter.read(tmp_path / "out.keras").optimizer
    assert again is not None
    assert all(
        np.array_equal(each.numpy(), state.slots["velocity"][key].numpy())
        for key, each in again.slots["velocity"].items()
    )


def test_an_archive_of_a_class_of_its_authors_own_is_copied(tmp_path: Path) -> None:
    config = {"module": "mine", "class_name": "Mine", "config": {"name": "m"}, "registered_name": "Mine"}
    with zipfile.ZipFile(tmp_path / "in.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        archive.writestr("model.weights.h5", weights_of(FIXTURES / "bert-intent.weights.h5").getvalue())
    converter.convert(tmp_path / "in.keras", tmp_path / "out.keras")
    assert json.loads(zipfile.ZipFile(tmp_path / "out.keras").read("config.json")) == config
    with h5py.File(weights_of(tmp_path / "in.keras")) as ours, h5py.File(weights_of(tmp_path / "out.keras")) as theirs:
        assert everything(theirs).keys() == everything(ours).keys()


def test_layers_that_call_a_weight_the_same_keep_their_own(tmp_path: Path) -> None:
    source = tmp_path / "in.h5"
    with h5py.File(source, "w") as file:
        file.attrs["layer_names"] = ["first", "second"]
        for number, layer in enumerate(listed(file, "layer_names")):
            group = file.create_group(layer)
            group.attrs["weight_names"] = ["mine/kernel:0"]
            group["mine/kernel:0"] = np.full((2, 3), number, np.float32)
    converter.convert(source, tmp_path / "out.h5")
    with h5py.File(source) as before, h5py.File(tmp_path / "out.h5") as after:
        values = everything(after)
        assert values.keys() == everything(before).keys()
        for place, value in everything(before).items():
            np.testing.assert_array_equal(values[place], value)
