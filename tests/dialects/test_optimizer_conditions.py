"""Optimizer state, one row a condition: what is refused, what is assumed, what is said, and defaults of the frameworks.

Defaults are compared with those in the sources of the frameworks that are installed, which are parsed and not imported.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.conversion import scaled
from converter.dialects.optimizer.epsilon import PlacedEpsilon, Squares, below_root, beside_root
from converter.dialects.optimizer.flavors import KerasFlavor, flavor_of
from converter.dialects.optimizer.schedules import learning_rate_at
from converter.dialects.optimizer.semantics import notes_on_state, to_keras, to_torch
from converter.dialects.optimizer.writing import why_not_exact
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import Status
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor
from tests.dialects.test_optimizer_semantics import CASES, NAMES, SHAPES, checkpoint_of, slot, state_of


def changed(source: Checkpoint, *, group: int | None = None, without: str = "", **values: Any) -> Checkpoint:
    """The checkpoint with other hyperparameters, in one group or in all."""
    state = state_of(source)
    groups = []
    for number, each in enumerate(state.groups):
        held = dict(each.hyperparameters)
        if group in (None, number):
            held |= values
            held.pop(without, None)
        groups.append(replace(each, hyperparameters=held))
    return replace(source, optimizer=replace(state, groups=tuple(groups)))


def without_slots(source: Checkpoint) -> Checkpoint:
    return replace(source, optimizer=replace(state_of(source), slots={}))


def without_one(source: Checkpoint, name: str) -> Checkpoint:
    state = state_of(source)
    slots = {key: dict(held) for key, held in state.slots.items()}
    del slots[name][NAMES[-1]]
    return replace(source, optimizer=replace(state, slots=slots))


def without_all(source: Checkpoint, name: str) -> Checkpoint:
    state = state_of(source)
    return replace(
        source, optimizer=replace(state, slots={key: state.slots[key] for key in state.slots.keys() - {name}})
    )


def two(kind: str) -> Checkpoint:
    return checkpoint_of(kind, decays=(0.0, 0.0))


NO_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, True, "0.1", None)
IMPOSSIBLE_BETAS: tuple[Any, ...] = ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, -0.1))

TO_KERAS: list[tuple[str, Checkpoint, str]] = [
    *((f"lr {value}", changed(checkpoint_of("adam"), lr=value), "its lr is") for value in NO_NUMBERS),
    *((f"eps {value}", changed(checkpoint_of("adam"), eps=value), "its eps is") for value in NO_NUMBERS),
    *((f"momentum {value}", changed(checkpoint_of("sgd"), momentum=value), "its momentum is") for value in NO_NUMBERS),
    *((f"alpha {value}", changed(checkpoint_of("rmsprop"), alpha=value), "its alpha is") for value in NO_NUMBERS),
    *((f"betas {betas}", changed(checkpoint_of("adam"), betas=betas), "betas are") for betas in IMPOSSIBLE_BETAS),
    ("three betas", changed(checkpoint_of("adam"), betas=(0.9, 0.9, 0.9)), "its betas are"),
    ("a beta", changed(checkpoint_of("adam"), betas=0.9), "its betas are"),
    ("nan for a beta", changed(checkpoint_of("adam"), betas=(0.9, math.nan)), "its betas is nan"),
    ("no rate", changed(checkpoint_of("adam"), without="lr"), "does not say its learning rate"),
    ("no rate in one group", changed(two("adam"), group=1, without="lr"), "groups differ in lr"),
    ("another rate in one group", changed(two("adam"), group=1, lr=0.5), "groups differ in lr"),
    ("no betas in one group", changed(two("adam"), group=0, without="betas"), "groups differ in betas"),
    ("other betas in one group", changed(two("adam"), group=0, betas=(0.8, 0.98)), "groups differ in betas"),
    ("no momentum in one group", changed(two("sgd"), group=1, without="momentum"), "groups differ in momentum"),
    ("no dampening in one group", changed(two("sgd"), group=0, without="dampening"), "groups differ in dampening"),
    ("nesterov in one group", changed(two("sgd"), group=0, nesterov=False), "groups differ in nesterov"),
    ("amsgrad in one group", changed(two("adam"), group=1, amsgrad=True), "groups differ in amsgrad"),
    ("no alpha in one group", changed(two("rmsprop"), group=1, without="alpha"), "groups differ in alpha"),
    ("centered in one group", changed(two("rmsprop"), group=1, centered=True), "groups differ in centered"),
    ("no eps in one group", changed(two("adagrad"), group=1, without="eps"), "groups differ in eps"),
    ("maximize", changed(checkpoint_of("adam"), maximize=True), "it maximizes"),
    ("maximize in one group", changed(two("adam"), group=1, maximize=True), "it maximizes"),
    ("AdamW of transformers", changed(checkpoint_of("adamw"), correct_bias=True), "after the step"),
    ("L2 of Adam", checkpoint_of("adam", decays=(0.1,)), "added to the gradient"),
    ("L2 of Adam in one group", checkpoint_of("adam", decays=(0.0, 0.1)), "added to the gradient"),
    *((f"L2 of {kind}", checkpoint_of(kind, decays=(0.1,)), "added to") for kind in ("sgd", "rmsprop", "adagrad")),
    ("decay of the rate", changed(checkpoint_of("adagrad"), lr_decay=0.1), "decays by itself"),
    ("Adagrad before the first step", without_slots(checkpoint_of("adagrad")), "has no sums"),
    ("dampened and nesterov", changed(checkpoint_of("sgd"), dampening=0.1), "dampened"),
    (
        "dampened before the first step",
        without_slots(changed(checkpoint_of("sgd"), dampening=0.1, nesterov=False)),
        "dampened",
    ),
    ("momentum at rate 0", changed(checkpoint_of("sgd"), lr=0.0), "learning rate is 0"),
    ("momentum of RMSprop at rate 0", changed(checkpoint_of("centered"), lr=0.0), "learning rate is 0"),
    *(
        (f"{kind} without {name}", without_one(checkpoint_of(kind), name), f"it has no {name} for 'fc.bias'")
        for kind, (_, _, names) in CASES.items()
        for name in names
        if len(names) > 1
    ),
    *(
        (f"{kind} without any {name}", without_all(checkpoint_of(kind), name), name)
        for kind, (_, _, names) in CASES.items()
        for name in names
        if len(names) > 1
    ),
]


@pytest.mark.parametrize(("source", "why"), [row[1:] for row in TO_KERAS], ids=[row[0] for row in TO_KERAS])
def test_what_keras_does_not_take(source: Checkpoint, why: str) -> None:
    with pytest.raises(LossError, match=why) as caught:
        to_keras(source, KerasFlavor.KERAS_3)
    assert caught.value.message.startswith("optimizer state: ")
    hint = caught.value.hint or ""
    assert hint.endswith("--optimizer drop converts the weights without it")
    assert not hint.startswith("None")


@pytest.mark.parametrize(
    ("source", "flavor", "hint"),
    [
        (
            changed(checkpoint_of("adam"), without="lr"),
            KerasFlavor.KERAS_3,
            "--hyperparameter lr=VALUE; --optimizer drop",
        ),
        (
            checkpoint_of("sgd", decays=(0.1,)),
            KerasFlavor.KERAS_3,
            "regularizers.L2 of half of it in the layers does, in",
        ),
        (checkpoint_of("adamw"), KerasFlavor.LEGACY, "a config of a later version does; --optimizer drop"),
    ],
)
def test_what_can_be_done_about_it(source: Checkpoint, flavor: KerasFlavor, hint: str) -> None:
    with pytest.raises(LossError) as caught:
        to_keras(source, flavor)
    assert str(caught.value.hint).startswith(hint)


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "adamw"])
def test_what_keras_does_take(kind: str) -> None:
    """The sources of the refusals, as they are: in one group, in two alike, and with a value that means nothing."""
    for source in (checkpoint_of(kind), two(kind), changed(two(kind), maximize=False)):
        assert to_keras(source, KerasFlavor.KERAS_3).optimizer is not None
    if kind != "adagrad":
        assert state_of(to_keras(without_slots(checkpoint_of(kind)), KerasFlavor.KERAS_3)).step == 7
    assert state_of(to_keras(changed(checkpoint_of("sgd without momentum"), lr=0.0), KerasFlavor.KERAS_3)).step == 7


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind not in ("adagrad", "adamw")])
def test_what_is_not_trained_has_no_state_before_the_first_step(kind: str) -> None:
    source = without_slots(checkpoint_of(kind))
    counts = ArrayTensor.of(np.zeros(SHAPES["fc.weight"], np.int64))
    for untrained in (
        replace(source, frozen=frozenset({"fc.weight"})),
        replace(source, buffers=frozenset({"fc.weight"})),
        replace(source, tensors={**source.tensors, "fc.weight": counts}),
    ):
        made = state_of(to_keras(untrained, KerasFlavor.KERAS_3))
        assert [group.parameters for group in made.groups] == [("fc.bias",)]
        assert all(held.keys() == {"fc.bias"} for held in made.slots.values())


def test_a_group_that_trains_nothing_says_nothing() -> None:
    source = checkpoint_of("adam")
    state = state_of(source)
    empty = ParameterGroup(parameters=(), hyperparameters={"lr": 0.5, "betas": (0.1, 0.2)})
    for groups in ((*state.groups, empty), (empty, *state.groups)):
        made = state_of(to_keras(replace(source, optimizer=replace(state, groups=groups)), KerasFlavor.KERAS_3))
        assert made.groups[0].hyperparameters["learning_rate"] == float(np.float32(0.01)) != 0.01


def test_dampening_goes_into_the_rate_and_not_into_the_momentum() -> None:
    """PyTorch: b = m b + (1 - d) g, w -= r b. Keras: v = m v - r' g, w += v."""
    rate, momentum, dampening = 0.07, 0.9, 0.25
    source = changed(checkpoint_of("sgd"), dampening=dampening, nesterov=False)
    made = state_of(to_keras(source, KerasFlavor.KERAS_3))
    held = made.groups[0].hyperparameters
    buffer = state_of(source).slots["momentum_buffer"]["fc.weight"].numpy()
    velocity = made.slots["momentum"]["fc.weight"].numpy()
    gradient = np.ones_like(buffer)
    theirs = -rate * (momentum * buffer + (1 - dampening) * gradient)
    ours = held["momentum"] * velocity - held["learning_rate"] * gradient
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=2e-8)  # terms of 0.1, of single precision
    for plain in (changed(source, momentum=0), changed(source, dampening=0)):
        made = state_of(to_keras(plain, KerasFlavor.KERAS_3))
        assert made.groups[0].hyperparameters["learning_rate"] == float(np.float32(rate)) != rate


def keras_state(algorithm: str, *slots: str, legacy: bool = False, **held: Any) -> Checkpoint:
    """A state in Keras's conventions, with a rate and nothing else but what is given."""
    hyperparameters = {"learning_rate": 0.01, "class_name": algorithm, **held}
    state = OptimizerState(
        algorithm=algorithm,
        step=9,
        groups=(ParameterGroup(parameters=NAMES, hyperparameters=hyperparameters),),
        slots={name: {parameter: slot("exp_avg_sq", SHAPES[parameter]) for parameter in NAMES} for name in slots},
        convention=Convention.KERAS_LEGACY if legacy else Convention.KERAS,
    )
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}
    return Checkpoint(tensors=tensors, optimizer=state)


ADAM, SGD, RMSPROP, ADAGRAD = ("momentum", "velocity"), ("momentum",), ("velocity",), ("accumulator",)
TO_TORCH: list[tuple[str, Checkpoint, str]] = [
    *((f"rate {v}", keras_state("adam", *ADAM, learning_rate=v), "learning.rate is") for v in NO_NUMBERS[:4]),
    *((f"epsilon {v}", keras_state("adam", *ADAM, epsilon=v), "its epsilon is") for v in NO_NUMBERS),
    *((f"beta_1 {v}", keras_state("adam", *ADAM, beta_1=v), "its beta_1 is") for v in NO_NUMBERS),
    *((f"beta_1 {v}", keras_state("adam", *ADAM, beta_1=v), "its betas are") for v in (1.0, -0.1)),
    *((f"beta_2 {v}", keras_state("adam", *ADAM, beta_2=v), "its betas are") for v in (1.0, -0.1)),
    *((f"rho {v}", keras_state("rmsprop", *RMSPROP, rho=v), "its rho is") for v in NO_NUMBERS),
    ("no rate", keras_state("adam", *ADAM, learning_rate=None), "does not say its learning rate"),
    ("an unknown schedule", keras_state("adam", *ADAM, learning_rate={"class_name": "Own"}), "is not known: 'Own'"),
    ("a decay of the rate that ends", keras_state("sgd", legacy=True, decay=-1 / 9), "learning.rate"),
    ("momentum that is not told", keras_state("sgd", *SGD), "has momentum, and the file does not say how much"),
    ("momentum of RMSprop", keras_state("rmsprop", "velocity", "momentum"), "does not say how much"),
    ("momentum at rate 0", keras_state("sgd", *SGD, momentum=0.9, learning_rate=0.0), "learning rate is 0"),
    *((name, keras_state("adam", *ADAM, **{name: 2}), f"it uses {name}")
      for name in ("use_ema", "gradient_accumulation_steps")),
    *((f"decay of {name}", keras_state(name, *slots, weight_decay=0.1), "is decoupled from the gradient")
      for name, slots in (("sgd", ()), ("rmsprop", RMSPROP), ("adagrad", ADAGRAD))),
    ("another algorithm", keras_state("ftrl"), "ftrl has no equivalent"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "why"), [row[1:] for row in TO_TORCH], ids=[row[0] for row in TO_TORCH])
def test_what_torch_does_not_take(source: Checkpoint, why: str) -> None:
    made = to_torch(source)
    assert made.optimizer is None
    assert made.optimizer_refused is not None
    assert re.search(why, made.optimizer_refused), made.optimizer_refused


def test_what_torch_does_take() -> None:
    for source in (
        keras_state("adam", *ADAM, use_ema=False, loss_scale_factor=None, gradient_accumulation_steps=None),
        keras_state("sgd", legacy=True, decay=0.1),
        keras_state("sgd", *SGD, momentum=0.9),
        keras_state("sgd", momentum=0.0, learning_rate=0.0, weight_decay=None),
        keras_state("rmsprop", *RMSPROP, weight_decay=0),
        keras_state("adagrad", *ADAGRAD),
    ):
        assert to_torch(source).optimizer is not None


@pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm", "clipvalue", "loss_scale_factor"])
def test_clipping_and_scaling_are_said(name: str) -> None:
    assert not notes_on_state(state_of(to_torch(keras_state("adam", *ADAM, **{name: None}))))
    (said,) = notes_on_state(state_of(to_torch(keras_state("adam", *ADAM, **{name: 1.0}))))
    assert said.startswith(f"{name} 1.0 not carried")


def test_a_decay_of_the_rate_of_old_is_in_the_rate() -> None:
    held = state_of(to_torch(keras_state("sgd", legacy=True, decay=0.5))).groups[0].hyperparameters
    assert held["lr"] == pytest.approx(0.01 / (1 + 0.5 * 9))
    held = state_of(to_torch(keras_state("sgd", decay=0.5))).groups[0].hyperparameters  # which Keras 3 knows nothing of
    assert held["lr"] == 0.01
    (said,) = notes_on_state(state_of(to_torch(keras_state("sgd", decay=0.5))))
    assert "decay 0.5" in said
    assert "gives at step" not in said
    older = to_keras(to_torch(keras_state("sgd", decay=0.5)), KerasFlavor.LEGACY)
    assert not state_of(older).groups[0].hyperparameters.get("decay")


def test_the_epsilon_that_one_was_made_from_counts_while_that_one_stands() -> None:
    for epsilon, expected in ((1e-4, 0.25), (2e-4, None)):
        source = keras_state("adam", *ADAM, epsilon=epsilon, epsilon_of_torch=[1e-4, 0.25])
        held = state_of(to_torch(source)).groups[0].hyperparameters
        computed = state_of(to_torch(keras_state("adam", *ADAM, epsilon=epsilon))).groups[0].hyperparameters
        assert held["eps"] == (computed["eps"] if expected is None else expected)


def test_a_decay_of_all_weights_is_said_where_the_file_does_not_say_of_which() -> None:
    source = keras_state("adamw", *ADAM, weight_decay=0.1)
    assert any("weight decay applies to all" in each for each in to_torch(source).warnings)
    apart = two("adamw")
    apart = to_keras(changed(apart, group=1, weight_decay=0.1), KerasFlavor.KERAS_3)
    assert not any("weight decay applies to all" in each for each in to_torch(replace(apart, warnings=())).warnings)
    none = keras_state("adamw", *ADAM, weight_decay=0.0)
    assert not any("weight decay applies to all" in each for each in to_torch(none).warnings)


def test_a_decay_in_keras_is_decoupled_whatever_the_class() -> None:
    for algorithm, decay, is_decoupled in (
        ("adam", 0.1, True),
        ("adam", 0, False),
        ("adam", None, False),
        ("adamw", 0, True),
    ):
        made = state_of(to_torch(keras_state(algorithm, *ADAM, weight_decay=decay)))
        held = made.groups[0].hyperparameters
        assert (held["weight_decay"], held["decoupled_weight_decay"]) == (decay or 0, is_decoupled)
        assert made.algorithm == ("adamw" if is_decoupled else "adam")


@pytest.mark.parametrize("flavor", [KerasFlavor.KERAS_3, KerasFlavor.TF_KERAS])
def test_weights_that_do_not_decay_are_named_where_the_file_does_not_say_them(flavor: KerasFlavor) -> None:
    source = checkpoint_of("adamw", decays=(0.5, 0.0))
    (said,) = (each for each in to_keras(source, flavor).warnings if "no weight decay" in each)
    assert said.startswith("no weight decay for fc.bias: an optimizer of Keras does not save that")
    assert ("--epsilon exact writes one that does" in said) == (flavor is KerasFlavor.KERAS_3)
    exact = to_keras(source, flavor, is_exact=True).warnings
    assert any("no weight decay" in each for each in exact) == (flavor is KerasFlavor.TF_KERAS)
    assert not any("no weight decay" in each for each in to_keras(checkpoint_of("adamw"), flavor).warnings)


@pytest.mark.parametrize("flavor", [KerasFlavor.KERAS_3, KerasFlavor.TF_KERAS])
def test_an_adam_that_does_not_decay_has_no_decay_and_an_adamw_one_of_zero(flavor: KerasFlavor) -> None:
    decays = {
        kind: state_of(to_keras(checkpoint_of(kind), flavor)).groups[0].hyperparameters["weight_decay"]
        for kind in ("adam", "amsgrad", "adamw")
    }
    assert decays == {"adam": None, "amsgrad": None, "adamw": 0.0}
    assert "weight_decay" not in state_of(to_keras(checkpoint_of("adam"), KerasFlavor.LEGACY)).groups[0].hyperparameters


def test_an_optimizer_that_trains_nothing_yet_has_the_settings_of_its_first_group() -> None:
    source = without_slots(two("adam"))
    made = state_of(to_keras(replace(source, frozen=frozenset(NAMES)), KerasFlavor.KERAS_3))
    assert [group.parameters for group in made.groups] == [()]
    assert made.groups[0].hyperparameters["beta_1"] == 0.8


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_state_before_the_first_step_is_zeros_of_the_type_of_its_weight(dtype: str) -> None:
    source = without_slots(checkpoint_of("adam"))
    tensors = {name: ArrayTensor.of(np.ones(shape, dtype)) for name, shape in SHAPES.items()}
    made = state_of(to_keras(replace(source, tensors=tensors), KerasFlavor.KERAS_3))
    for held in made.slots.values():
        assert {name: (each.dtype.value, each.shape) for name, each in held.items()} == {
            name: (dtype, shape) for name, shape in SHAPES.items()
        }
        assert not any(each.numpy().any() for each in held.values())


@pytest.mark.parametrize("flavor", KerasFlavor)
def test_a_step_that_is_not_told_is_assumed(flavor: KerasFlavor) -> None:
    source = checkpoint_of("sgd")
    told = to_keras(source, flavor)
    made = to_keras(replace(source, optimizer=replace(state_of(source), step=None)), flavor)
    assert (state_of(told).step, state_of(made).step) == (7, 0)
    assert "optimizer.iterations" not in {line.target for line in told.lines}
    (line,) = (line for line in made.lines if line.target == "optimizer.iterations")
    assert line.status is Status.DEFAULTED


def test_what_is_scaled_is_rounded_once() -> None:
    values = np.random.default_rng(3).normal(size=1000).astype(np.float32)
    for factor in (0.1, -1 / 3, 1 / 0.07):
        expected = (values.astype(np.float64) * factor).astype(np.float32)
        np.testing.assert_array_equal(scaled(ArrayTensor.of(values), factor).numpy(), expected)


@pytest.mark.parametrize(("error", "lines"), [(9e-7, 0), (2e-6, 1), (1e-3, 1)])
def test_an_error_of_an_epsilon_is_said_where_single_precision_has_none_such(error: float, lines: int) -> None:
    assert len(PlacedEpsilon(value=0.5, error=0.0, plain_error=error).note(0.1, "Keras")) == lines


ASSUMED: list[tuple[Checkpoint, dict[str, Any], set[str]]] = [
    (
        keras_state("adam", *ADAM),
        {"betas": (0.9, 0.999), "weight_decay": 0, "amsgrad": False, "maximize": False},
        {"beta_1", "beta_2", "epsilon"},
    ),
    (
        keras_state("adamw", *ADAM),
        {"betas": (0.9, 0.999), "weight_decay": 0.004, "decoupled_weight_decay": True},
        {"beta_1", "beta_2", "epsilon", "weight_decay"},
    ),
    (
        keras_state("adamw", *ADAM, class_name="AdamWeightDecay"),
        {"weight_decay": 0.0, "decoupled_weight_decay": True},
        {"beta_1", "beta_2", "epsilon", "weight_decay"},
    ),
    (
        keras_state("adamw", *ADAM, class_name="AdamWeightDecay", weight_decay_rate=0.01),
        {"weight_decay": 0.01},
        {"beta_1", "beta_2", "epsilon"},
    ),
    (keras_state("adam", "velocity_hat", *ADAM), {"amsgrad": True}, {"beta_1", "beta_2", "epsilon"}),
    (keras_state("sgd"), {"momentum": 0, "dampening": 0, "nesterov": False, "weight_decay": 0}, {"nesterov"}),
    (keras_state("rmsprop", *RMSPROP), {"alpha": 0.9, "momentum": 0, "centered": False}, {"rho", "epsilon"}),
    (keras_state("rmsprop", "average_gradient", *RMSPROP), {"centered": True}, {"rho", "epsilon"}),
    (keras_state("rmsprop", *RMSPROP, legacy=True), {"alpha": 0.9, "eps": 1e-7}, {"rho", "epsilon"}),
    (
        keras_state("adagrad", *ADAGRAD),
        {"initial_accumulator_value": 0.1, "lr_decay": 0},
        {"initial_accumulator_value", "epsilon"},
    ),
    (keras_state("adagrad", *ADAGRAD, legacy=True), {"eps": 1e-7}, {"initial_accumulator_value", "epsilon"}),
]


@pytest.mark.parametrize(("source", "expected", "said"), ASSUMED)
def test_what_keras_would_have_done(source: Checkpoint, expected: Mapping[str, Any], said: set[str]) -> None:
    made = to_torch(source)
    held = state_of(made).groups[0].hyperparameters
    assert {name: held[name] for name in expected} == expected
    assert {line.target for line in made.lines} == {f"optimizer.{name}" for name in said}


@pytest.mark.parametrize(
    ("class_name", "said"), [("AdamW", "0.004 is Keras's"), ("AdamWeightDecay", "0.0 is transformers'")]
)
def test_a_decay_that_was_assumed_says_whose_it_is(class_name: str, said: str) -> None:
    made = to_torch(keras_state("adamw", *ADAM, class_name=class_name))
    (line,) = (line for line in made.lines if line.target == "optimizer.weight_decay")
    option = "--hyperparameter weight_decay=VALUE sets another"
    assert line.reason == f"the file does not say; {said} default, {option}"


def defaults_of(package: str, path: str, class_name: str) -> dict[str, Any]:
    """The defaults in the signature of a class, as its source has them."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    tree = ast.parse((Path(found.origin).parent / path).read_text(encoding="utf-8"))
    made = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == class_name)
    start = next(node for node in made.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    arguments = start.args
    positional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    pairs = [*zip(positional, arguments.defaults, strict=True)]
    pairs += [(name, value) for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value]
    return {name.arg: ast.literal_eval(value) for name, value in pairs if not isinstance(value, ast.Name)}


KERAS_NAMES = {"rho": "alpha", "epsilon": "eps"}
KERAS_SOURCES = [
    ("adam", ADAM, "Adam", ("beta_1", "beta_2", "epsilon", "weight_decay", "amsgrad")),
    ("adamw", ADAM, "AdamW", ("beta_1", "beta_2", "epsilon", "weight_decay", "amsgrad")),
    ("sgd", (), "SGD", ("momentum", "nesterov", "weight_decay")),
    ("rmsprop", RMSPROP, "RMSprop", ("rho", "momentum", "epsilon", "centered", "weight_decay")),
    ("adagrad", ADAGRAD, "Adagrad", ("initial_accumulator_value", "epsilon", "weight_decay")),
]


@pytest.mark.parametrize(("algorithm", "slots", "class_name", "names"), KERAS_SOURCES)
def test_defaults_are_those_of_keras(
    algorithm: str, slots: tuple[str, ...], class_name: str, names: tuple[str, ...]
) -> None:
    """What a file does not say is the same as when it says what the installed Keras would do."""
    told = defaults_of("keras", f"src/optimizers/{algorithm}.py", class_name)
    source = keras_state(algorithm, *slots)
    stated = to_torch(changed(source, **{name: told[name] for name in names}))
    assumed = to_torch(source)
    assert state_of(assumed).groups == state_of(stated).groups


TORCH_SOURCES = [
    ("adam", "Adam", ("betas", "eps", "amsgrad", "weight_decay")),
    ("sgd", "SGD", ("momentum", "dampening", "nesterov", "weight_decay")),
    ("sgd without momentum", "SGD", ("momentum", "dampening", "nesterov", "weight_decay")),
    ("rmsprop", "RMSprop", ("alpha", "eps", "momentum", "centered", "weight_decay")),
    ("adagrad", "Adagrad", ("lr_decay", "eps", "initial_accumulator_value", "weight_decay")),
]


@pytest.mark.parametrize(("kind", "class_name", "names"), TORCH_SOURCES)
@pytest.mark.parametrize("flavor", KerasFlavor)
def test_defaults_are_those_of_torch(kind: str, class_name: str, names: tuple[str, ...], flavor: KerasFlavor) -> None:
    source = checkpoint_of(kind)
    told = defaults_of("torch", f"optim/{CASES[kind][0]}.py", class_name)
    stated, assumed = source, source
    for name in names:
        stated, assumed = changed(stated, **{name: told[name]}), changed(assumed, without=name)
    there = to_keras(assumed, flavor)
    assert state_of(there).groups == state_of(to_keras(stated, flavor)).groups
    said = {line.target for line in there.lines}
    assert said <= {f"optimizer.{name}" for name in names} - {"optimizer.weight_decay"}
    assert said, "what was assumed is not said"


@pytest.mark.parametrize("place", [below_root, beside_root])
def test_no_epsilon_is_better_where_averages_are_centered(place: Any) -> None:
    """Against 4,000 others: roots are those of the square averages less the squares of the averages."""
    generator = np.random.default_rng(5)
    averages = generator.normal(0, 1e-2, 500)
    squares = averages**2 + np.exp(generator.normal(-14, 2, 500))
    tensors = {"squares": {"x": ArrayTensor.of(squares)}, "averages": {"x": ArrayTensor.of(averages)}}
    roots = np.sqrt(squares - averages**2)

    def error(other: float) -> float:
        if place is below_root:
            updates = (roots + 1e-4) / np.sqrt(roots**2 + other)
        else:
            updates = np.sqrt(roots**2 + 1e-4) / (roots + other)
        return float(np.sqrt(np.average((updates - 1) ** 2, weights=roots**2)))

    placed = place(1e-4, Squares(**tensors))
    best = min(map(error, np.geomspace(1e-12, 1, 4000)))
    assert error(placed.value) <= best * 1.01
    without = place(1e-4, Squares(squares=tensors["squares"], averages={}))
    assert error(without.value) > best * 1.5, "centering makes a difference here"


@pytest.mark.parametrize("place", [below_root, beside_root])
def test_elements_that_never_had_a_gradient_say_nothing_of_an_epsilon(place: Any) -> None:
    """Rows of an embedding that were never looked up have squares of zero; an average squared may be the larger."""
    roots = np.exp(np.random.default_rng(5).normal(-6, 1, 200))
    plain = place(1e-4, Squares(squares={"x": ArrayTensor.of(roots**2)}, averages={}))
    squares, averages = (np.concatenate([each, [0, 0, 1e-12]]) for each in (roots**2, 0 * roots))
    averages[-1] = 1e-3
    tensors = {"squares": {"x": ArrayTensor.of(squares)}, "averages": {"x": ArrayTensor.of(averages)}}
    assert place(1e-4, Squares(**tensors)) == plain


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum"])
def test_a_slot_of_another_shape_is_refused(name: str) -> None:
    whole = {parameter: ArrayTensor.of(np.ones(shape, np.float32)) for parameter, shape in SHAPES.items()}
    group = ParameterGroup(parameters=NAMES, hyperparameters={"lr": 0.1})
    state = OptimizerState(algorithm="x", step=1, groups=(group,), slots={name: whole})
    source = Checkpoint(tensors=whole, optimizer=state)
    assert to_torch(source).optimizer is not None
    wrong = replace(state, slots={name: {**whole, "fc.weight": ArrayTensor.of(np.ones((3, 4), np.float32))}})
    refused = to_torch(replace(source, optimizer=wrong))
    assert (refused.optimizer, refused.optimizer_refused) == (
        None,
        f"its {name} for 'fc.weight' has shape [3, 4], the weight another",
    )
    strange = replace(state, groups=(replace(group, parameters=(*NAMES, "fc.gone")),))
    assert "'fc.gone', which is not among" in (to_torch(replace(source, optimizer=strange)).optimizer_refused or "")


def rate(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": config}


STEPWISE = {"boundaries": [4, 5, 9], "values": [0.4, 0.3, 0.2, 0.1]}
DECAY = {"initial_learning_rate": 1.0, "decay_steps": 4, "decay_rate": 0.5}
LINEAR = {"initial_learning_rate": 1.0, "decay_steps": 4, "end_learning_rate": 0.2}
COSINE = {"initial_learning_rate": 1.0, "decay_steps": 4, "alpha": 0.5}
WARM = {"initial_learning_rate": 0.0, "warmup_target": 1.0, "warmup_steps": 4, "decay_steps": 4}
RESTARTS = {"initial_learning_rate": 1.0, "first_decay_steps": 4}
RATES = [
    (rate("PiecewiseConstantDecay", **STEPWISE), {0: 0.4, 4: 0.4, 5: 0.3, 6: 0.2, 9: 0.2, 10: 0.1, 999: 0.1}),
    (rate("ExponentialDecay", **DECAY), {0: 1, 2: 0.5**0.5, 4: 0.5, 8: 0.25}),
    (rate("ExponentialDecay", **DECAY, staircase=True), {3: 1, 4: 0.5, 7: 0.5, 8: 0.25}),
    (rate("InverseTimeDecay", **DECAY), {0: 1, 2: 0.8, 4: 1 / 1.5}),
    (rate("InverseTimeDecay", **DECAY, staircase=True), {3: 1, 4: 1 / 1.5, 7: 1 / 1.5}),
    (rate("PolynomialDecay", **LINEAR), {0: 1, 2: 0.6, 4: 0.2, 99: 0.2}),
    (rate("PolynomialDecay", **LINEAR, power=2.0), {2: 0.4}),
    (rate("PolynomialDecay", **LINEAR, cycle=True), {0: 1, 4: 0.2, 6: 0.4, 8: 0.2}),
    (rate("PolynomialDecay", initial_learning_rate=1.0, decay_steps=4), {4: 1e-4}),
    (rate("CosineDecayRestarts", **RESTARTS), {0: 1, 2: 0.5, 4: 1, 8: 0.5, 12: 1, 20: 0.5}),
    (rate("CosineDecayRestarts", **RESTARTS, m_mul=0.5), {0: 1, 2: 0.5, 4: 0.5, 8: 0.25, 12: 0.25}),
    (rate("CosineDecayRestarts", **RESTARTS, t_mul=1.0), {0: 1, 2: 0.5, 4: 1, 6: 0.5, 8: 1}),
    (rate("CosineDecayRestarts", **RESTARTS, t_mul=1.0, m_mul=0.5), {4: 0.5, 6: 0.25, 8: 0.25}),
    (rate("CosineDecayRestarts", **RESTARTS, alpha=0.5), {0: 1, 2: 0.75, 4: 1, 8: 0.75}),
    (rate("CosineDecay", **COSINE), {0: 1, 2: 0.75, 4: 0.5, 99: 0.5}),
    (rate("CosineDecay", **COSINE, warmup_steps=4), {0: 1, 2: 0.75, 4: 0.5}),
    (rate("CosineDecay", **WARM), {0: 0, 1: 0.25, 3: 0.75, 4: 1, 6: 0.5, 8: 0, 99: 0}),
    (
        rate(
            "Custom>WarmUp", initial_learning_rate=1.0, warmup_steps=4, decay_schedule_fn=rate("CosineDecay", **COSINE)
        ),
        {0: 0, 1: 0.25, 4: 1, 6: 0.75, 8: 0.5},
    ),
    (
        rate("WarmUp", initial_learning_rate=1.0, warmup_steps=4, power=2.0, decay_schedule_fn=0.3),
        {2: 0.25, 4: 0.3},
    ),
    (0.3, {0: 0.3, 7: 0.3}),
]


@pytest.mark.parametrize(("schedule", "rates"), RATES)
def test_rates_of_schedules(schedule: Any, rates: Mapping[int, float]) -> None:
    for step, expected in rates.items():
        assert learning_rate_at(schedule, step) == pytest.approx(expected, abs=1e-12), step


@pytest.mark.parametrize(
    "schedule",
    [rate("Own"), rate("ExponentialDecay"), rate("ExponentialDecay", **{**DECAY, "decay_steps": 0}), "x", None],
)
def test_schedules_that_say_no_rate_are_refused(schedule: Any) -> None:
    with pytest.raises(LossError, match=r"learning rate is a schedule|has no valid"):
        learning_rate_at(schedule, 3)


FLAVORS = [
    ("3.0.0", KerasFlavor.KERAS_3),
    ("3.15.1", KerasFlavor.KERAS_3),
    ("2.10.0", KerasFlavor.LEGACY),
    ("2.4.0-tf", KerasFlavor.LEGACY),
    ("1.2", KerasFlavor.LEGACY),
    ("2.11.0", KerasFlavor.TF_KERAS),
    ("2.21.0", KerasFlavor.TF_KERAS),
]


@pytest.mark.parametrize(("version", "flavor"), FLAVORS)
def test_which_keras_a_file_is_for(version: str, flavor: KerasFlavor) -> None:
    source = Checkpoint(tensors={}, metadata={"keras_version": version})
    assert flavor_of(source, default=KerasFlavor.LEGACY) is flavor
    config = Config(values={"keras_version": version}, raw=b"")
    assert flavor_of(Checkpoint(tensors={}, keras_config=config)) is flavor
    assert flavor_of(replace(source, keras_config=Config(values={"keras_version": "2.1"}, raw=b""))) is flavor


def test_a_keras_that_is_not_stated_is_told_by_its_config() -> None:
    bare = Checkpoint(tensors={})
    assert flavor_of(bare) is KerasFlavor.TF_KERAS
    assert flavor_of(bare, default=KerasFlavor.LEGACY) is KerasFlavor.LEGACY
    assert flavor_of(replace(bare, keras_config=Config(values={"module": "keras"}, raw=b""))) is KerasFlavor.KERAS_3
    for key, flavor in (("batch_input_shape", KerasFlavor.TF_KERAS), ("batch_shape", KerasFlavor.KERAS_3)):
        inner = {"class_name": "Sequential", "config": [{"class_name": "InputLayer", "config": {key: [None, 3]}}]}
        model = {"module": "keras", "class_name": "Functional", "config": {"name": "m", "layers": [inner]}}
        source = replace(bare, keras_config=Config(values=model, raw=b""))
        assert flavor_of(source, default=KerasFlavor.KERAS_3) is flavor


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("flavor", KerasFlavor)
def test_a_state_of_no_groups_is_refused_and_no_crash(kind: str, flavor: KerasFlavor) -> None:
    """As a file may have one, with a step or without: nothing says with which rate it would go on."""
    source = checkpoint_of(kind)
    for step in (7, None):
        bare = replace(source, optimizer=replace(state_of(source), groups=(), slots={}, step=step))
        assert notes_on_state(state_of(bare)) == []
        assert state_of(to_torch(bare)).step == step
        with pytest.raises(LossError, match="it has no groups"):
            to_keras(bare, flavor)


HINTS = [
    (keras_state("adam", *ADAM, learning_rate=None), "--hyperparameter learning_rate=VALUE"),
    (keras_state("adam", *ADAM, learning_rate={"class_name": "Own"}), "--hyperparameter learning_rate=VALUE gives"),
    (keras_state("sgd", *SGD), "--hyperparameter momentum=VALUE"),
]


@pytest.mark.parametrize(("source", "hint"), HINTS)
def test_why_a_state_is_refused_says_what_can_be_done(source: Checkpoint, hint: str) -> None:
    assert hint in (to_torch(source).optimizer_refused or "")


ODD: tuple[Any, ...] = (*NO_NUMBERS, 0, -1, [1], [0.9, 0.9], {}, "x")
OF_TORCH = ("correct_bias", "lr_decay", "decoupled_weight_decay", "maximize", "unknown")
OF_KERAS = """
learning_rate beta_1 beta_2 epsilon momentum rho nesterov amsgrad centered weight_decay weight_decay_rate decay clipnorm
use_ema initial_accumulator_value epsilon_of_torch class_name dynamic_scale loss_scale_factor adaptive_epsilon unknown
"""


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("flavor", KerasFlavor)
def test_no_value_that_a_group_may_have_is_a_crash(kind: str, flavor: KerasFlavor) -> None:
    """Files hold anything: a state that comes through is whole, another is refused."""
    taken = 0
    is_slow = kind in ("rmsprop", "centered", "adagrad")  # which look for an epsilon each time
    for name in (*state_of(checkpoint_of(kind)).groups[0].hyperparameters, *OF_TORCH):
        for value in ODD:
            sources = [changed(two(kind), group=1, **{name: value})]
            if not is_slow or flavor is KerasFlavor.KERAS_3:
                sources.append(changed(checkpoint_of(kind), **{name: value}))
            for source in sources:
                try:
                    made = to_keras(source, flavor)
                except LossError:
                    continue
                notes_on_state(state_of(made))
                assert to_torch(made).optimizer is not None
                taken += 1
    assert taken or kind == "adamw", "what is odd where nobody looks is taken"


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "slots"),
    [("adam", ADAM), ("adamw", ADAM), ("sgd", SGD), ("rmsprop", ("velocity", "momentum")), ("adagrad", ADAGRAD)],
)
def test_no_value_that_a_config_of_keras_may_have_is_a_crash(
    algorithm: str, slots: tuple[str, ...], is_legacy: bool
) -> None:
    for name in OF_KERAS.split():
        for value in ODD:
            held = {"momentum": 0.9, name: value}
            made = to_torch(keras_state(algorithm, *slots, legacy=is_legacy, **held))
            assert (made.optimizer is None) != (made.optimizer_refused is None)
            if made.optimizer is not None:
                notes_on_state(made.optimizer)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        *((changed(checkpoint_of(kind), eps=-1e-8), "its eps is -1e-08") for kind in ("adam", "rmsprop", "adagrad")),
        *((changed(checkpoint_of("adam"), weight_decay=value), "its weight_decay is") for value in (math.nan, "0.1")),
        (changed(two("adamw"), group=0, weight_decay=[0.1]), r"its weight_decay is \[0.1\]"),
        (changed(checkpoint_of("sgd"), weight_decay=True), "its weight_decay is True"),
    ],
)
@pytest.mark.parametrize("is_exact", [False, True])
def test_an_epsilon_below_zero_and_a_decay_that_is_none_are_refused(
    source: Checkpoint, what: str, is_exact: bool
) -> None:
    with pytest.raises(LossError, match=what):
        to_keras(source, KerasFlavor.KERAS_3, is_exact=is_exact)


def test_a_decay_of_none_is_none() -> None:
    for kind in ("adam", "adamw", "sgd"):
        assert state_of(to_keras(changed(checkpoint_of(kind), weight_decay=None), KerasFlavor.KERAS_3)) is not None


def test_of_two_groups_of_keras_the_one_that_decays_tells() -> None:
    source = keras_state("adamw", *ADAM, weight_decay=0.5)
    (whole,) = state_of(source).groups
    decayed = replace(whole, parameters=NAMES[:1])
    apart = replace(whole, parameters=NAMES[1:], hyperparameters={**whole.hyperparameters, "weight_decay": 0.0})
    for groups in ((decayed, apart), (apart, decayed)):
        made = to_torch(replace(source, optimizer=replace(state_of(source), groups=groups)))
        decays = {each.parameters: each.hyperparameters["weight_decay"] for each in state_of(made).groups}
        assert decays == {NAMES[:1]: 0.5, NAMES[1:]: 0.0}


def test_the_rate_of_an_early_keras_is_called_lr() -> None:
    early = changed(keras_state("adam", *ADAM, lr=0.25), without="learning_rate")
    assert state_of(to_torch(early)).groups[0].hyperparameters["lr"] == 0.25
    schedule = {"class_name": "InverseTimeDecay", "config": DECAY}
    scheduled = to_torch(changed(keras_state("adam", *ADAM, lr=schedule), without="learning_rate"))
    assert state_of(scheduled).groups[0].hyperparameters["lr"] == pytest.approx(1 / (1 + 0.5 * 9 / 4))
    (said,) = notes_on_state(state_of(scheduled))
    assert "what InverseTimeDecay(" in said


def test_a_state_without_slots_is_of_all_that_is_trained() -> None:
    """A file of Keras without slots does not list its weights."""
    source = keras_state("sgd")
    bare = replace(state_of(source), groups=(replace(state_of(source).groups[0], parameters=()),))
    tensors = {**source.tensors, "ids": ArrayTensor.of(np.zeros(2, np.int64))}
    for more, trained in (({}, NAMES), ({"frozen": NAMES[:1]}, NAMES[1:]), ({"buffers": NAMES[1:]}, NAMES[:1])):
        held = {name: frozenset(names) for name, names in more.items()}
        made = state_of(to_torch(replace(source, tensors=tensors, optimizer=bare, **held)))
        assert [group.parameters for group in made.groups] == [trained]


def test_state_of_pytorch_goes_by_the_name_that_its_weight_is_stored_under() -> None:
    source = checkpoint_of("adam")
    renamed = state_of(source).with_names({"fc.weight": "tied"})
    made = state_of(to_torch(replace(source, optimizer=renamed, aliases={"tied": "fc.weight"})))
    assert made == state_of(source)


@pytest.mark.parametrize("name", ["decay_steps", "decay_rate"])
def test_a_schedule_does_not_run_backwards(name: str) -> None:
    for kind in ("ExponentialDecay", "InverseTimeDecay"):
        assert learning_rate_at(rate(kind, **DECAY), 3)
        with pytest.raises(LossError, match=f"has no valid {name}"):
            learning_rate_at(rate(kind, **{**DECAY, name: -1}), 3)
    with pytest.raises(LossError, match="has no valid first_decay_steps"):
        learning_rate_at(rate("CosineDecayRestarts", **{**RESTARTS, "first_decay_steps": -4}), 3)
    with pytest.raises(LossError, match="has no valid warmup_steps"):
        learning_rate_at(rate("CosineDecay", **{**WARM, "warmup_steps": -4}), 3)
    assert learning_rate_at(rate("CosineDecay", **{**WARM, "initial_learning_rate": -1.0}), 2) == 0


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize(("kind", "slots"), [("rmsprop", RMSPROP), ("adagrad", ADAGRAD), ("adam", ADAM)])
def test_no_epsilon_is_none_on_either_side(kind: str, slots: tuple[str, ...], is_legacy: bool) -> None:
    made = to_torch(keras_state(kind, *slots, legacy=is_legacy, epsilon=0))
    assert state_of(made).groups[0].hyperparameters["eps"] == 0
    assert not any("epsilon" in each for each in made.warnings)
    for flavor in KerasFlavor:
        back = to_keras(made, flavor)
        assert state_of(back).groups[0].hyperparameters["epsilon"] == 0
        assert not any("epsilon" in each for each in back.warnings)


@pytest.mark.parametrize(
    ("algorithm", "flavor", "said"),
    [
        ("adam", KerasFlavor.KERAS_3, None),
        ("adamw", KerasFlavor.KERAS_3, None),
        ("rmsprop", KerasFlavor.KERAS_3, None),
        ("sgd", KerasFlavor.KERAS_3, None),
        ("adam", KerasFlavor.TF_KERAS, None),
        ("rmsprop", KerasFlavor.TF_KERAS, "RMSprop of tf_keras has one way alone"),
    ],
)
def test_what_an_exact_epsilon_changes_nothing_of(algorithm: str, flavor: KerasFlavor, said: str | None) -> None:
    source = checkpoint_of(algorithm)
    assert why_not_exact(source, to_keras(source, flavor, is_exact=True)) == said
    assert why_not_exact(source, source) == "the state stays as PyTorch has it"
