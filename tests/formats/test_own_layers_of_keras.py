"""Layers of the user's own in an `.h5`: an archive has what is inside them where the attributes of their code say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects.transformers.listings import relisted
from converter.errors import LossError, UsageError

OWN = "tests.graphs.own_layers:Tower,Gain"
Inside = Sequence[tuple[str, str]]
LAYERS = [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}, "name": "x"},
    {"class_name": "Tower", "config": {"name": "tower", "units": 4}, "name": "tower"},
]
WEIGHTS = ("dense_7/kernel:0", "dense_7/bias:0", "dense_8/kernel:0", "dense_8/bias:0", "scale:0")
CODE: Inside = [("first", "dense"), ("last", "dense_1"), ("drop", "dropout")]


def saved(folder: Path) -> Path:
    """A whole-model `.h5` of Keras 2 with one layer of the user's, whose weights are numbered in their order."""
    path = folder / "model.h5"
    with h5py.File(path, "w") as file:
        config = {"class_name": "Functional", "config": {"name": "m", "layers": LAYERS}}
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["x", "tower"]
        group.create_group("x").attrs["weight_names"] = np.zeros(0, "S1")
        group.create_group("tower").attrs["weight_names"] = [f"tower/{name}" for name in WEIGHTS]
        for number, name in enumerate(WEIGHTS):
            group[f"tower/tower/{name}"] = np.full((3, 4) if "kernel" in name else (4,), number, np.float32)
    return path


def placed(path: Path, code: Inside, *, is_older: bool = True) -> Mapping[str, float]:
    checkpoint = converter.read(path)
    assert checkpoint.listing is not None
    questions: list[Any] = []

    def asked(**question: Any) -> Mapping[str, Sequence[Sequence[str]]]:
        questions.append(question)
        return {"tower": [(place, name, place, "") for place, name in code]}

    listing = replace(checkpoint.listing, asked=asked)
    found = relisted(replace(checkpoint, listing=listing), "keras", is_older=is_older)
    entry = {"class_name": "Tower", "config": LAYERS[1]["config"]}
    assert questions == [{"layers": {"tower": entry}, "is_older": is_older}]
    assert found.listing is not None
    return {
        f"{place}/{number}": float(found.tensor(name).numpy().flat[0])
        for place, pairs in found.listing.layers.items()
        for number, name in pairs
    }


def test_what_is_inside_lies_where_the_code_has_it(tmp_path: Path) -> None:
    first = {"layers/tower/first/0": 0.0, "layers/tower/first/1": 1.0}
    last = {"layers/tower/last/0": 2.0, "layers/tower/last/1": 3.0}
    assert placed(saved(tmp_path), CODE) == {**first, **last, "layers/tower/0": 4.0}
    assert placed(saved(tmp_path), CODE, is_older=False) == {**first, **last, "layers/tower/0": 4.0}


def test_layers_without_names_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    numbered: Inside = [("a", "dense_10"), ("b", "dense_9")]
    found = placed(saved(tmp_path), numbered)
    assert (found["layers/tower/b/0"], found["layers/tower/a/0"]) == (0.0, 2.0)


@pytest.mark.parametrize(
    "code", [[], CODE[:1], [*CODE, ("more", "dense_2")], [("first", "dense"), ("last", "other")]], ids=len
)
def test_code_that_has_other_layers_says_nothing(code: Inside, tmp_path: Path) -> None:
    with pytest.raises(LossError, match="has layers inside, and nothing says under which attributes") as caught:
        placed(saved(tmp_path), code)
    assert str(caught.value.hint).startswith("the code of --custom-objects makes others, or makes them in its build()")
    assert "--to pretrained" not in str(caught.value.hint), "no model of transformers is there"


def test_without_code_the_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(LossError, match="nothing says under which") as caught:
        converter.convert(saved(tmp_path), tmp_path / "x.keras")
    assert "--custom-objects package.module:Tower names its code" in str(caught.value)


def test_keras_opens_what_is_written_by_the_code(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from tests.graphs.own_layers import Gain, Tower

    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(Tower(name="tower")(x)))
    random = np.random.default_rng(0)
    model.set_weights([random.random(each.shape).astype(np.float32) + 0.5 for each in model.get_weights()])
    model.save(tmp_path / "model.h5")
    report = converter.convert(tmp_path / "model.h5", tmp_path / "x.keras", custom_objects=(OWN,))
    assert (report.counts["mapped"], report.counts["dropped"]) == (13, 0)
    again = keras.models.load_model(tmp_path / "x.keras", custom_objects={"Tower": Tower, "Gain": Gain})
    inputs = random.random((5, 3)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    copied = converter.convert(tmp_path / "x.keras", tmp_path / "copy.keras", custom_objects=(OWN,))
    assert not any("makes no layer" in each for each in copied.warnings)
    other = "tests.formats.own_layer_that_changed:Tower"
    changed = converter.convert(tmp_path / "x.keras", tmp_path / "changed.keras", custom_objects=(other,))
    said = "the code of --custom-objects makes no layer at layers/tower/blocks/gain, unless its build() does"
    assert said in changed.warnings
    with pytest.raises(UsageError, match="--custom-objects decides nothing of a target that has no graph"):
        converter.convert(tmp_path / "x.keras", tmp_path / "x.pth", custom_objects=(OWN,))
    back = converter.convert(tmp_path / "x.keras", tmp_path / "back.h5", custom_objects=(OWN,))
    assert (back.counts["mapped"], back.counts["dropped"]) == (13, 0)
    again = keras.models.load_model(tmp_path / "back.h5", custom_objects={"Tower": Tower, "Gain": Gain})
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    with pytest.raises(converter.errors.ArchitectureError, match="layer 'tower' cannot be made of its config"):
        converter.convert(
            tmp_path / "model.h5", tmp_path / "y.keras", custom_objects=("tests.formats.own_layer_that_fails:Tower",)
        )


def test_the_order_in_which_its_code_makes_layers_is_that_of_their_moments(tmp_path: Path) -> None:
    """Two layers of one shape, the later of which has the earlier attribute; `.h5` and PyTorch get the same moments."""
    keras = pytest.importorskip("keras")
    from tests.graphs.own_layers import Gain, Tower

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2)(Tower(units=4)(x)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    random = np.random.default_rng(0)
    model.fit(random.random((8, 4)), random.random((8, 2)), verbose=0)
    source = tmp_path / "model.keras"
    model.save(source)
    moments = [np.asarray(each) for each in model.optimizer.variables[2::2]]
    told = dict(zip([np.asarray(each).tobytes() for each in model.trainable_variables], moments, strict=True))
    with pytest.raises(LossError, match="fit several orders of the model's weights") as caught:
        converter.convert(source, tmp_path / "x.pth")
    hint = "--custom-objects package.module:Tower names code that says the order of what is inside"
    assert hint in str(caught.value)
    assert converter.convert(source, tmp_path / "x.pth", custom_objects=(OWN,)).optimizer.status == "carried"
    assert converter.convert(source, tmp_path / "x.h5", custom_objects=(OWN,)).optimizer.status == "carried"
    for written, slot in (("x.pth", "exp_avg"), ("x.h5", "momentum")):
        found = converter.read(tmp_path / written)
        assert found.optimizer is not None
        for name, tensor in found.optimizer.slots[slot].items():
            weight, moment = found.tensor(name).numpy(), tensor.numpy()
            is_turned = weight.tobytes() not in told
            expected = told[(weight.T if is_turned else weight).tobytes()]
            np.testing.assert_array_equal(moment.T if is_turned else moment, expected)
    again = keras.models.load_model(tmp_path / "x.h5", custom_objects={"Tower": Tower, "Gain": Gain})
    inputs = random.random((5, 4)).astype(np.float32)
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_layer_of_nobody_named_is_not_made() -> None:
    """A model of transformers beside one of the user's: its class is not among those that were given."""
    pytest.importorskip("keras")
    from converter.graphs.trace.tensorflow import attributes

    layers = {"tower": LAYERS[1], "encoder": {"class_name": "TFBertModel", "config": {"name": "encoder"}}}
    found = attributes.run(layers=layers, custom_objects=[OWN], folder="", is_older=False)
    assert found.keys() == {"tower"}
    assert [place for place, *_ in found["tower"]] == ["last", "first", "blocks/gain", "blocks/gain_1", "norm"]
    assert [class_name for *_, class_name in found["tower"]] == ["Dense", "Dense", "", "", "BatchNormalization"]
