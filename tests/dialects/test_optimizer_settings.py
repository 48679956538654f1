"""The settings of Keras's optimizers and torch's against the real ones, and what becomes of each on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects.optimizer import schedules
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_settings import COMMON, OPTIMIZERS, TORCH, beside
from converter.dialects.optimizer.semantics import notes_on_state, to_keras, to_torch
from converter.dialects.optimizer.settings import algorithm_of
from converter.dialects.optimizer.writing import call_of
from converter.errors import CkconvError, LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from tests.dialects import keras_settings_dump

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("tf_keras_settings.json").read_text("utf-8"))
REFUSED = {"Adadelta", "Adamax", "Nadam", "Ftrl", "Lion", "Lamb", "Muon", "Adafactor"}


def check_table(configs: Mapping[str, Mapping[str, Any]]) -> None:
    carried = {}
    for name, config in configs.items():
        algorithm = algorithm_of(name.rpartition(".")[2])
        if algorithm is not None:
            carried[name] = [key for key in config if key not in COMMON and key not in OPTIMIZERS[algorithm]]
            assert beside(config, algorithm) == {}, name
    assert not any(carried.values()), carried
    assert {"Adam", "AdamW", "SGD", "RMSprop", "Adagrad"} <= carried.keys()
    assert configs.keys() - carried.keys() <= REFUSED


def test_every_setting_of_keras_optimizers_is_in_the_table() -> None:
    keras = pytest.importorskip("keras")
    check_table(keras_settings_dump.optimizers(keras))
    check_table(RECORDED["optimizers"])
    with pytest.raises(AssertionError):
        check_table({**RECORDED["optimizers"], "Adam": {"made_up": 1}})


def test_every_schedule_of_keras_is_known() -> None:
    keras = pytest.importorskip("keras")
    for listed in (keras_settings_dump.schedules(keras), RECORDED["schedules"]):
        assert len(listed) == 6
        assert set(listed) <= set(schedules._SCHEDULES)


def test_every_setting_of_torchs_optimizers_is_looked_at() -> None:
    torch = pytest.importorskip("torch")
    weights = [torch.zeros(2, requires_grad=True)]
    for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad"):
        group = getattr(torch.optim, name)(weights, lr=0.1).state_dict()["param_groups"][0]
        assert group.keys() - TORCH == {"params"}, name


def test_a_setting_that_no_table_knows_is_found_whatever_it_says_but_no() -> None:
    for value in (0, 0.0, "", [], True, "x", {}):
        assert beside({"own": value, "clipnorm": value}, "adam") == {"own": value, "clipnorm": value}
    for value in (None, False):
        assert beside({"own": value, "clipnorm": value}, "adam") == {}


def test_an_average_of_weights_and_accumulated_gradients_are_refused() -> None:
    for name in ("use_ema", "gradient_accumulation_steps"):
        beside({name: None, "ema_momentum": 0.5}, "adam")
        with pytest.raises(LossError, match=name):
            beside({name: 2}, "adam")


# states on their way


def state_of(convention: Convention = Convention.KERAS, *, step: int = 10, **config: Any) -> Checkpoint:
    weight = ArrayTensor.of(np.ones((2, 2), np.float32))
    state = OptimizerState(
        algorithm="sgd",
        step=step,
        groups=(ParameterGroup(parameters=("w",), hyperparameters={"class_name": "SGD", "nesterov": False, **config}),),
        convention=convention,
    )
    return Checkpoint(tensors={"w": weight}, optimizer=state)


def optimizer_of(checkpoint: Checkpoint) -> OptimizerState:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return checkpoint.optimizer


COSINE = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 100}}


def test_a_schedule_is_one_rate_in_torch_and_a_note_and_a_schedule_again_in_keras() -> None:
    made = to_torch(state_of(learning_rate=COSINE, momentum=0.0))
    state = optimizer_of(made)
    rate = state.groups[0].hyperparameters["lr"]
    assert rate == pytest.approx(0.1 * 0.5 * (1 + np.cos(np.pi / 10)))
    (said,) = notes_on_state(state)
    assert f"{rate:.6g}, what CosineDecay(initial_learning_rate=0.1, decay_steps=100) gives at step 10" in said
    for flavor in KerasFlavor:
        again = optimizer_of(to_keras(made, flavor))
        assert again.groups[0].hyperparameters["learning_rate"]["class_name"] == "CosineDecay"
        assert notes_on_state(again) == []


def test_a_rate_given_by_the_user_is_no_schedule() -> None:
    assert notes_on_state(optimizer_of(to_torch(state_of(learning_rate=0.1, momentum=0.0)))) == []


def test_a_schedule_of_others_stays_a_number_in_keras_and_is_said() -> None:
    warm_up = {"initial_learning_rate": 0.1, "decay_schedule_fn": 0.1, "warmup_steps": 20}
    made = to_torch(state_of(learning_rate={"class_name": "Custom>WarmUp", "config": warm_up}, momentum=0.0))
    again = optimizer_of(to_keras(made, KerasFlavor.KERAS_3))
    assert again.groups[0].hyperparameters["learning_rate"] == pytest.approx(0.05)
    assert "WarmUp(" in notes_on_state(again)[0]


def test_schedules_of_keras_are_configs_that_every_version_reads() -> None:
    made = schedules.of_keras(COSINE)
    assert made == {"module": "keras.optimizers.schedules", **COSINE, "registered_name": None}
    for other in (
        {"class_name": "WarmUp", "config": {}},
        {"class_name": "Own>CosineDecay", "config": {}},
        {"class_name": "CosineDecay"},
        {"class_name": "CosineDecay", "config": 7},
        {},
        None,
        0.1,
    ):
        assert schedules.of_keras(other) is None


def test_the_decay_of_keras_2_is_a_note_in_torch_and_goes_on_in_keras() -> None:
    made = to_torch(state_of(Convention.KERAS_LEGACY, learning_rate=0.11, decay=0.01, momentum=0.0))
    state = optimizer_of(made)
    assert state.groups[0].hyperparameters["lr"] == pytest.approx(0.1)
    assert "what decay 0.01 gives at step 10" in notes_on_state(state)[0]
    older = optimizer_of(to_keras(made, KerasFlavor.LEGACY)).groups[0].hyperparameters
    assert (older["learning_rate"], older["decay"]) == (pytest.approx(0.11), 0.01)
    assert "decay=0.01" in call_of(optimizer_of(to_keras(made, KerasFlavor.LEGACY)))
    for flavor in KerasFlavor:
        assert notes_on_state(optimizer_of(to_keras(made, flavor))) == []
    for flavor in (KerasFlavor.KERAS_3, KerasFlavor.TF_KERAS):
        schedule = optimizer_of(to_keras(made, flavor)).groups[0].hyperparameters["learning_rate"]
        for step in (10, 50):
            assert schedules.learning_rate_at(schedule, step) == pytest.approx(0.11 / (1 + 0.01 * step))


@pytest.mark.parametrize("flavor", KerasFlavor)
def test_before_the_first_step_nothing_has_decayed(flavor: KerasFlavor) -> None:
    made = to_torch(state_of(Convention.KERAS_LEGACY, step=0, learning_rate=0.1, decay=0.5, momentum=0.0))
    rate = optimizer_of(to_keras(made, flavor)).groups[0].hyperparameters["learning_rate"]
    assert schedules.learning_rate_at(rate, 0) == pytest.approx(0.1)


def test_clipping_is_a_note_in_torch_and_goes_along_to_keras() -> None:
    made = to_torch(state_of(learning_rate=0.1, momentum=0.0, clipnorm=1.0, clipvalue=None, loss_scale_factor=8.0))
    first, second = notes_on_state(optimizer_of(made))
    assert first.startswith("clipnorm 1.0 not carried")
    assert second.startswith("loss_scale_factor 8.0 not carried")
    newest = optimizer_of(to_keras(made, KerasFlavor.KERAS_3))
    assert newest.groups[0].hyperparameters["clipnorm"] == 1.0
    assert newest.groups[0].hyperparameters["loss_scale_factor"] == 8.0
    assert notes_on_state(newest) == []
    older = optimizer_of(to_keras(made, KerasFlavor.TF_KERAS))
    assert older.groups[0].hyperparameters["clipnorm"] == 1.0
    assert len(notes_on_state(older)) == 1


def test_a_setting_that_no_table_knows_is_said_both_ways() -> None:
    made = to_torch(state_of(learning_rate=0.1, momentum=0.0, made_up=3))
    assert notes_on_state(optimizer_of(made)) == ["made_up 3 of the optimizer is not known here, and not carried"]
    state = replace(optimizer_of(made), beside={})
    (group,) = state.groups
    group = replace(group, hyperparameters={**group.hyperparameters, "initial_lr": 0.5, "foreach": True, "fused": None})
    again = to_keras(replace(made, optimizer=replace(state, groups=(group,))), KerasFlavor.KERAS_3)
    assert notes_on_state(optimizer_of(again)) == ["initial_lr 0.5 of the optimizer is not known here, and not carried"]


def test_what_an_optimizer_keeps_is_known_before_its_first_step() -> None:
    adam = replace(state_of(step=0, learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-7, amsgrad=True))
    state = optimizer_of(replace(adam, optimizer=replace(optimizer_of(adam), algorithm="adam")))
    made = to_torch(replace(adam, optimizer=state))
    assert optimizer_of(made).groups[0].hyperparameters["amsgrad"] is True
    moments = {"momentum": {"w": adam.tensors["w"]}, "velocity": {"w": adam.tensors["w"]}}
    refused = to_torch(replace(adam, optimizer=replace(state, slots=moments, step=3)))
    assert refused.optimizer_refused == "it says amsgrad, and has no velocity_hat"


# files


def trained(optimizer: Any, keras: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")])
    model.compile(optimizer, "mse")
    go_on(model)
    return model


def go_on(model: Any) -> None:
    generator = np.random.default_rng(1)
    inputs, labels = generator.normal(size=(24, 4)), generator.normal(size=(24, 2))
    model.fit(inputs, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)


@pytest.mark.parametrize("kind", ["schedule", "clipping"])
def test_keras_goes_on_by_schedule_and_clipping(kind: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    rates = keras.optimizers.schedules
    make = {
        "schedule": lambda: keras.optimizers.SGD(rates.PiecewiseConstantDecay([7, 9], [0.1, 0.3, 0.01]), momentum=0.5),
        "clipping": lambda: keras.optimizers.Adam(0.3, global_clipnorm=1e-8),
    }[kind]
    model = trained(make(), keras)
    model.save(tmp_path / "m.keras")
    torch_report = converter.convert(tmp_path / "m.keras", tmp_path / "m.pth")
    said = {"schedule": "the learning rate is 0.1, what PiecewiseConstantDecay(", "clipping": "global_clipnorm 1e-08"}[
        kind
    ]
    assert sum(said in line for line in torch_report.warnings) == 1
    assert torch_report.optimizer.status == "carried"
    report = converter.convert(tmp_path / "m.keras", tmp_path / "again.keras")
    assert not any(said in line for line in report.warnings)
    again = keras.models.load_model(tmp_path / "again.keras")
    go_on(model)
    go_on(again)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_state_that_is_left_behind_needs_no_notes(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 100)
    trained(keras.optimizers.Adam(schedule), keras).save(tmp_path / "m.keras")
    for target, options in (("m.safetensors", {}), ("m.pth", {"optimizer": "drop"})):
        report = converter.convert(tmp_path / "m.keras", tmp_path / target, **options)
        assert report.optimizer.status == "dropped"
        assert not any("CosineDecay" in line for line in report.warnings)


def test_an_average_of_weights_ends_the_conversion(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    for name, more in (("plain", {}), ("ema", {"use_ema": True}), ("often", {"gradient_accumulation_steps": 2})):
        trained(keras.optimizers.Adam(1e-3, **more), keras).save(tmp_path / f"{name}.keras")
    converter.convert(tmp_path / "plain.keras", tmp_path / "plain.pth")
    for name, said in (("ema", "use_ema"), ("often", "gradient_accumulation_steps")):
        with pytest.raises(CkconvError, match=said) as caught:
            converter.convert(tmp_path / f"{name}.keras", tmp_path / f"{name}.pth")
        assert caught.value.exit_code == 3


def test_a_scheduler_of_torch_is_said_where_keras_gets_the_state(tmp_path: Path) -> None:
    keras, torch = pytest.importorskip("keras"), pytest.importorskip("torch")
    model = torch.nn.Module()
    model.a = torch.nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(2):
        model.a(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    states = {"optimizer_state_dict": optimizer.state_dict(), "scheduler_state_dict": scheduler.state_dict()}
    torch.save({"model_state_dict": model.state_dict(), **states}, tmp_path / "m.pth")
    config = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a")]).to_json()
    (tmp_path / "m.json").write_text(config, encoding="utf-8")
    report = converter.convert(tmp_path / "m.pth", tmp_path / "m.keras", config=tmp_path / "m.json")
    assert any(line.startswith("scheduler_state_dict not carried") for line in report.warnings)
    assert any(line.startswith("initial_lr 0.1 of the optimizer") for line in report.warnings)
    assert float(keras.models.load_model(tmp_path / "m.keras").optimizer.learning_rate) == pytest.approx(0.025)
