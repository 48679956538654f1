"""Which weight a variable of a Keras optimizer belongs to, told from names or numbers: one row for what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_layouts import config_of, variables
from converter.dialects.optimizer.keras_names import state_by_names, state_by_positions
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.settings import Settings, algorithm_of, settings_of
from converter.errors import LossError
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor
from tests.dialects.test_optimizer_semantics import CASES, checkpoint_of


def tensor(*shape: int, value: float = 0, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.full(shape, value, dtype))


def count(value: float, dtype: str = "int64") -> Tensor:
    return tensor(value=value, dtype=dtype)


KERNEL, BIAS = tensor(3, 2), tensor(2)
WEIGHTS = {"fc/kernel": KERNEL, "fc/bias": BIAS}
NAMED: dict[str, Tensor] = {
    "adam/iteration": count(3),
    "adam/learning_rate": count(0.5, "float32"),
    "adam/fc_kernel_momentum": KERNEL,
    "adam/fc_kernel_velocity": KERNEL,
    "adam/fc_bias_momentum": BIAS,
    "adam/fc_bias_velocity": BIAS,
}
ADAM = Settings(class_name="Adam", config={"learning_rate": 0.1, "beta_1": 0.9})
BY_NAME: list[tuple[str, Mapping[str, Tensor | None], str]] = [
    ("a step below zero", {"adam/iteration": count(-1)}, "its step count -1 is not a whole number"),
    ("a step and a half", {"adam/iteration": count(1.5, "float32")}, "its step count 1.5 is not a whole number"),
    ("more steps than a double counts", {"adam/iteration": count(1 << 53)}, "its step count .* is not a whole number"),
    ("two step counts", {"adam/iter": count(3)}, "it has two step counts, .* and 3"),
    ("no step count", {"adam/iteration": None}, "it has no step count"),
    ("another shape", {"adam/fc_kernel_momentum": tensor(3, 3)}, r"has shape \[3, 3\], the weight \[3, 2\]"),
    ("turned", {"adam/fc_kernel_momentum": tensor(2, 3)}, r"has shape \[2, 3\], the weight \[3, 2\]"),
    ("two of a slot", {"Adam/m/fc/kernel": KERNEL}, "it has two m for 'fc/kernel'"),
    ("a slot that one lacks", {"adam/fc_bias_velocity": None}, "it has no velocity for 'fc/bias', which has other"),
    ("a slot of nobody's", {"adam/out_kernel_momentum": KERNEL}, "'adam/out_kernel_momentum' belongs to no weight"),
    ("a slot of no kind", {"adam/fc_kernel_odd": KERNEL}, "'adam/fc_kernel_odd' belongs to no weight"),
]


def by_names(variables: Mapping[str, Tensor], settings: Settings = ADAM) -> OptimizerState:
    return state_by_names(variables, WEIGHTS, settings, None)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        *(("Adam", "adam"), ("adam", "adam"), ("adam_1", "adam"), ("Custom>AdamW", "adamw"), ("adam_w_12", "adamw")),
        *(("RMSprop", "rmsprop"), ("rmsprop_3", "rmsprop"), ("SGD", "sgd"), ("a>b>sgd_2", "sgd")),
        *(("adam_x", None), ("1_adam", None), ("Own", None), ("", None)),
    ],
)
def test_the_algorithm_of_a_class_or_of_a_name(name: str, algorithm: str | None) -> None:
    assert algorithm_of(name) == algorithm


def test_settings_are_those_of_the_optimizer_inside_one_that_scales_losses() -> None:
    inner = {"class_name": "Custom>AdamW", "config": {"beta_1": 0.8}}
    for entry in (
        inner,
        {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": inner, "initial_scale": 2.0}},
        {"class_name": "LossScaleOptimizerV3", "config": {"inner_optimizer": inner, "dynamic": True}},
        {"class_name": "LossScaleOptimizer", "config": {"optimizer": inner, "loss_scale": {}}},  # of TensorFlow 2.3
    ):
        for compiled in ({"optimizer": entry}, {"optimizer_config": entry}):
            found = settings_of(compiled)
            assert (found.algorithm, found.config.get("beta_1")) == ("adamw", 0.8)


def test_variables_by_name() -> None:
    state = by_names(NAMED)
    assert (state.algorithm, state.step, state.basis) == ("adam", 3, "named")
    assert {slot: set(held) for slot, held in state.slots.items()} == {
        "momentum": set(WEIGHTS),
        "velocity": set(WEIGHTS),
    }
    assert state.groups[0].hyperparameters == {"learning_rate": 0.5, "beta_1": 0.9, "class_name": "Adam"}


@pytest.mark.parametrize(("change", "why"), [row[1:] for row in BY_NAME], ids=[row[0] for row in BY_NAME])
def test_variables_that_are_of_no_weight_as_they_are(change: Mapping[str, Tensor | None], why: str) -> None:
    changed = {name: tensor for name, tensor in {**NAMED, **change}.items() if tensor is not None}
    with pytest.raises(LossError, match=why):
        by_names(changed)


@pytest.mark.parametrize("name", ["adam/learning_rate", "learning_rate", "current_learning_rate", "Adam/learning_rate"])
def test_the_rate_is_what_it_is_now_whatever_its_variable_is_called(name: str) -> None:
    """tf_keras calls that of a schedule `current_learning_rate`."""
    held = {key: each for key, each in NAMED.items() if not key.endswith("learning_rate")}
    state = by_names({**held, name: count(0.25, "float32")})
    assert state.groups[0].hyperparameters == {"learning_rate": 0.25, "beta_1": 0.9, "class_name": "Adam"}


def test_the_factor_of_a_scaled_loss_is_kept_and_its_steps_are_not() -> None:
    """A LossScaleOptimizer counts the steps that it tried, too: those with gradients of infinity."""
    scaling = {
        "loss_scale_optimizer/iteration": count(99),
        "loss_scale_optimizer/learning_rate": count(7, "float32"),
        "loss_scale_optimizer/step_counter": count(5),
        "loss_scale_optimizer/dynamic_scale": count(1024, "float32"),
    }
    for state in (by_names({**scaling, **NAMED}), by_positions([*scaling.values(), *NUMBERED])):
        assert state.step == 3
        held = state.groups[0].hyperparameters
        assert (held["dynamic_scale"], held["learning_rate"]) == (1024, 0.5)
        assert "step_counter" not in held
        assert state.slots.keys() == {"momentum", "velocity"}


def test_one_inside_a_loss_scale_optimizer_of_keras_2_has_no_name() -> None:
    held = {f"{slot}/{name}:0": each for slot in "mv" for name, each in WEIGHTS.items()}
    state = by_names({"iteration:0": count(3), **held})
    assert (state.algorithm, state.step, state.slots) == ("adam", 3, {"momentum": WEIGHTS, "velocity": WEIGHTS})


def test_a_name_of_two_weights_is_ambiguous() -> None:
    weights = {"a/b_c": BIAS, "a_b/c": BIAS}
    variables = {"adam/iteration": count(3), "adam/a_b_c_momentum": BIAS}
    with pytest.raises(LossError, match="could belong to 2 weights"):
        state_by_names(variables, weights, ADAM, None)


def test_a_rate_that_a_schedule_gives_stays_one() -> None:
    schedule = {"class_name": "CosineDecay", "config": {}}
    state = by_names(NAMED, Settings(class_name="Adam", config={"learning_rate": schedule}))
    assert state.groups[0].hyperparameters["learning_rate"] == schedule


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (Settings(class_name="Adafactor"), "no other framework has the optimizer 'Adafactor'"),
        (Settings(class_name="Adam", config={"use_ema": True}), "it uses use_ema"),
        (Settings(class_name="Adam", config={"gradient_accumulation_steps": 4}), "uses gradient_accumulation_steps"),
    ],
)
def test_an_optimizer_that_no_other_framework_has(settings: Settings, why: str) -> None:
    with pytest.raises(LossError, match=why):
        by_names(NAMED, settings)
    with pytest.raises(LossError, match=why):
        by_positions(NUMBERED, settings)


HEAD = [count(3), count(0.5, "float32")]
NUMBERED = [*HEAD, KERNEL, KERNEL, BIAS, BIAS]
WITH_MAXIMA = [*NUMBERED, KERNEL, BIAS]


def by_positions(
    variables: Sequence[Tensor],
    settings: Settings = ADAM,
    weights: Mapping[str, Tensor] = WEIGHTS,
    orders: Callable[[Any], list[tuple[str, ...]]] = lambda shapes: [("fc/kernel", "fc/bias")],
) -> OptimizerState:
    return state_by_positions(variables, weights, orders, settings)


def amsgrad(is_on: bool) -> Settings:
    return Settings(class_name="Adam", config={"amsgrad": is_on})


def test_variables_by_number() -> None:
    state = by_positions(NUMBERED)
    assert (state.algorithm, state.step, state.basis) == ("adam", 3, "verified (shapes)")
    assert state.groups[0].parameters == ("fc/kernel", "fc/bias")
    assert by_positions(NUMBERED, amsgrad(False)).slots.keys() == {"momentum", "velocity"}
    assert by_positions(WITH_MAXIMA, amsgrad(True)).slots.keys() == {"momentum", "velocity", "velocity_hat"}
    alike = {"a": BIAS, "b": BIAS}
    assert by_positions([*HEAD, *[BIAS] * 4], weights=alike, orders=lambda _: [("a", "b")]).basis == "verified (order)"


@pytest.mark.parametrize(
    ("variables", "settings", "why"),
    [
        ([], ADAM, "its first variable is no step count"),
        (NUMBERED[1:], ADAM, "its first variable is no step count"),
        ([tensor(1, dtype="int64"), *NUMBERED[1:]], ADAM, "its first variable is no step count"),
        (NUMBERED[:-1], ADAM, "its 3 variables, which have no names, fit no order"),
        ([*HEAD, KERNEL, BIAS, KERNEL, BIAS], ADAM, "fit no order"),
        (NUMBERED, amsgrad(True), "fit no order"),
        (WITH_MAXIMA, amsgrad(False), "fit no order"),
        (NUMBERED, Settings(), "does not say which optimizer"),
    ],
)
def test_numbers_that_fit_nothing(variables: list[Tensor], settings: Settings, why: str) -> None:
    with pytest.raises(LossError, match=why):
        by_positions(variables, settings)


@pytest.mark.parametrize(
    ("step", "class_name", "is_taken"), [(0, "Adam", True), (0, "SGD", True), (3, "Adam", False), (3, "SGD", True)]
)
def test_slots_may_lack_before_the_first_step_and_where_there_are_none(
    step: int, class_name: str, is_taken: bool
) -> None:
    head = [count(step), count(0.5, "float32")]
    if is_taken:
        state = by_positions(head, Settings(class_name=class_name))
        assert (state.step, dict(state.slots)) == (step, {})
        return
    with pytest.raises(LossError, match="its 0 variables, which have no names, fit no order"):
        by_positions(head, Settings(class_name=class_name))


def test_numbers_that_fit_two_orders() -> None:
    alike = {"a": BIAS, "b": BIAS}
    with pytest.raises(LossError, match="fit several orders"):
        by_positions([*HEAD, *[BIAS] * 4], weights=alike, orders=lambda _: [("a", "b"), ("b", "a")])


@pytest.mark.parametrize("kind", CASES)
def test_names_and_numbers_are_read_as_they_are_written(kind: str) -> None:
    source = checkpoint_of(kind)
    state = to_keras(source, KerasFlavor.KERAS_3).optimizer
    assert state is not None
    written = variables(state, KerasFlavor.KERAS_3)
    settings = Settings(class_name=config_of(state)[0], config=config_of(state)[1])
    order = state.groups[0].parameters
    for found in (
        state_by_names(written, source.tensors, settings, None),
        state_by_positions([*written.values()], source.tensors, lambda _: [order], settings),
    ):
        assert (found.algorithm, found.step) == (state.algorithm, state.step)
        assert {slot: {name: id(each) for name, each in held.items()} for slot, held in found.slots.items()} == {
            slot: {name: id(each) for name, each in held.items()} for slot, held in state.slots.items()
        }


@pytest.mark.parametrize("flavor", KerasFlavor)
def test_a_rate_has_a_variable_in_keras_3_and_a_schedule_has_none(flavor: KerasFlavor) -> None:
    state = to_keras(checkpoint_of("sgd"), flavor).optimizer
    assert state is not None
    (group,) = state.groups
    for rate, has_variable in (
        (0.5, flavor is KerasFlavor.KERAS_3),
        ({"class_name": "CosineDecay", "config": {}}, False),
    ):
        changed = replace(group, hyperparameters={**group.hyperparameters, "learning_rate": rate})
        held = variables(replace(state, groups=(changed,)), flavor)
        assert any(name.endswith("/learning_rate") for name in held) == has_variable


OWN_NAMES: list[tuple[str, KerasFlavor, str]] = [
    (
        "amsgrad",
        KerasFlavor.KERAS_3,
        "adam/iteration adam/learning_rate adam/a_kernel_{momentum,velocity} adam/a_bias_{momentum,velocity} "
        "adam/a_kernel_velocity_hat adam/a_bias_velocity_hat",
    ),
    (
        "amsgrad",
        KerasFlavor.TF_KERAS,
        "iteration Adam/{m,v}/a/kernel Adam/{m,v}/a/bias Adam/vhat/a/kernel Adam/vhat/a/bias",
    ),
    (
        "amsgrad",
        KerasFlavor.LEGACY,
        "Adam/iter Adam/a/{kernel,bias}/m Adam/a/{kernel,bias}/v Adam/a/{kernel,bias}/vhat",
    ),
    (
        "adamw",
        KerasFlavor.KERAS_3,
        "adam_w/iteration adam_w/learning_rate adam_w/a_kernel_{momentum,velocity} adam_w/a_bias_{momentum,velocity}",
    ),
    ("adamw", KerasFlavor.TF_KERAS, "iteration AdamW/{m,v}/a/kernel AdamW/{m,v}/a/bias"),
    ("sgd", KerasFlavor.KERAS_3, "sgd/iteration sgd/learning_rate sgd/a_{kernel,bias}_momentum"),
    ("sgd", KerasFlavor.TF_KERAS, "iteration SGD/m/a/{kernel,bias}"),
    ("sgd", KerasFlavor.LEGACY, "SGD/iter SGD/a/{kernel,bias}/momentum"),
    ("sgd without momentum", KerasFlavor.KERAS_3, "sgd/iteration sgd/learning_rate"),
    ("sgd without momentum", KerasFlavor.TF_KERAS, "iteration SGD/m/a/{kernel,bias}"),
    ("sgd without momentum", KerasFlavor.LEGACY, "SGD/iter"),
    (
        "centered",
        KerasFlavor.KERAS_3,
        "rmsprop/iteration rmsprop/learning_rate rmsprop/a_{kernel,bias}_velocity "
        "rmsprop/a_{kernel,bias}_momentum rmsprop/a_{kernel,bias}_average_gradient",
    ),
    (
        "centered",
        KerasFlavor.TF_KERAS,
        "iteration RMSprop/velocity/a/{kernel,bias} RMSprop/momentum/a/{kernel,bias} "
        "RMSprop/average_gradient/a/{kernel,bias}",
    ),
    (
        "centered",
        KerasFlavor.LEGACY,
        "RMSprop/iter RMSprop/a/{kernel,bias}/rms RMSprop/a/{kernel,bias}/momentum RMSprop/a/{kernel,bias}/mg",
    ),
    ("adagrad", KerasFlavor.KERAS_3, "adagrad/iteration adagrad/learning_rate adagrad/a_{kernel,bias}_accumulator"),
    ("adagrad", KerasFlavor.TF_KERAS, "iteration Adagrad/accumulator/a/{kernel,bias}"),
    ("adagrad", KerasFlavor.LEGACY, "Adagrad/iter Adagrad/a/{kernel,bias}/accumulator"),
]
"""As the files of Keras 3.15, tf_keras 2.21 and its legacy optimizers have them, in their order."""


def spelt_out(names: str) -> list[str]:
    """`a/{b,c}` is two names, as in a shell."""
    return [
        f"{before}{each}{after}"
        for name in names.split()
        for before, _, rest in [name.partition("{")]
        for inside, _, after in [rest.partition("}")]
        for each in inside.split(",")
    ]


@pytest.mark.parametrize(("kind", "flavor", "names"), OWN_NAMES)
def test_variables_are_called_as_each_kind_of_keras_calls_them(kind: str, flavor: KerasFlavor, names: str) -> None:
    state = to_keras(checkpoint_of(kind), flavor).optimizer
    assert state is not None
    held = variables(state.with_names({"fc.weight": "a/kernel", "fc.bias": "a/bias"}), flavor)
    assert list(held) == spelt_out(names)
    if flavor is KerasFlavor.TF_KERAS and kind == "sgd without momentum":
        assert not any(tensor.numpy().any() for name, tensor in held.items() if "/m/" in name)
