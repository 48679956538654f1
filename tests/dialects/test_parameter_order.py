"""Numbered optimizer state, one row a condition: which orders are tried, what must fit, what is ambiguous, refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.keras_names import state_by_positions
from converter.dialects.optimizer.numbering_conventions import ModuleOrder, trainer_exempts, without_frozen_modules
from converter.dialects.optimizer.settings import Settings
from converter.dialects.optimizer.torch_layouts import as_state_dict, merged
from converter.dialects.optimizer.torch_state import (
    inferred_algorithm,
    is_buffer,
    is_numbered,
    is_optimizer_state,
    named_state,
    state_dict,
)
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor

Shape = tuple[int, ...]


def tensor(shape: Shape, value: float = 1) -> Tensor:
    return ArrayTensor.of(np.full(shape, value, np.float32))


def model(shapes: Mapping[str, Shape], **more: Any) -> Checkpoint:
    return Checkpoint(tensors={name: tensor(shape) for name, shape in shapes.items()}, **more)


def numbered(*groups: Sequence[Shape], slot: str = "exp_avg", step: Any = 3.0, **more: Any) -> dict[str, Any]:
    """A state whose slots have these shapes, numbered through the groups; the value of each slot is its number."""
    entries: dict[int, dict[str, Any]] = {}
    listed = []
    for shapes in groups:
        start = len(entries)
        entries |= {start + at: {"step": step, slot: tensor(shape, start + at)} for at, shape in enumerate(shapes)}
        listed.append({"lr": 0.1, "params": list(range(start, len(entries))), **more})
    return {"state": entries, "param_groups": listed}


ENCODER: dict[str, Shape] = {
    "embed.weight": (7, 4),
    "layer.0.dense.weight": (4, 4),
    "layer.0.dense.bias": (4,),
    "layer.0.LayerNorm.weight": (4,),
    "layer.0.LayerNorm.bias": (4,),
    "final_norm.weight": (4,),
    "gate": (4,),
    "out.weight": (3, 4),
    "out.bias": (3,),
}
SPLITS = {
    "Trainer groups": lambda name: "bias" in name or "norm" in name.lower(),
    "bias and LayerNorm.weight apart": lambda name: "bias" in name or "LayerNorm.weight" in name,
    "vectors apart": lambda name: len(ENCODER[name]) < 2,
    "biases apart": lambda name: name.endswith("bias"),
}


@pytest.mark.parametrize("is_swapped", [False, True])
@pytest.mark.parametrize("convention", SPLITS)
def test_the_usual_ways_to_split(convention: str, is_swapped: bool) -> None:
    apart = SPLITS[convention]
    groups = [[name for name in ENCODER if apart(name) == is_apart] for is_apart in (is_swapped, not is_swapped)]
    source = model(ENCODER)
    state = numbered(*([ENCODER[name] for name in names] for names in groups))
    found = named_state(state, source)
    assert [list(group.parameters) for group in found.groups] == groups
    assert found.basis == f"verified ({convention}{', swapped' if is_swapped else ''})"
    flat = [name for names in groups for name in names]
    assert {name: held.numpy().flat[0] for name, held in found.slots["exp_avg"].items()} == dict(
        zip(flat, range(9), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "is_exempt"),
    [
        ("a.bias", True), ("a.layernorm.weight", True), ("a.LayerNorm.weight", True), ("norm.weight", True),
        ("a.norm.weight", True), ("a.input_norm.weight", True), ("a.RMSNorm.weight", True), ("a.normal.weight", False),
        ("a.norms.weight", False), ("a.renorm.weight", False), ("a.weight", False), ("bias_table", True),
    ],
)  # fmt: skip
def test_what_trainer_does_not_decay_by_name(name: str, is_exempt: bool) -> None:
    order = ModuleOrder(names=(name,), layer_norms=frozenset())
    assert trainer_exempts(model({name: (4, 4)}), order)(name) is is_exempt
    assert trainer_exempts(model({name: (4, 4)}), None)(name) is is_exempt
    known = ModuleOrder(names=(name,), layer_norms=frozenset({name}))
    assert trainer_exempts(model({name: (4, 4)}), known)(name)


def test_a_layer_norm_is_told_by_its_pair_of_vectors() -> None:
    shapes: dict[str, Shape] = {
        "a.weight": (4,), "a.bias": (4,), "b.weight": (4,), "b.bias": (4,), "b.running_mean": (4,), "c.weight": (4,),
        "d.weight": (4, 4), "d.bias": (4,), "e.weight": (4,), "e.bias": (5,),
    }  # fmt: skip
    exempts = trainer_exempts(model(shapes), None)
    assert {name for name in shapes if name.endswith("weight") and exempts(name)} == {"a.weight"}


PAIR: dict[str, Shape] = {"a": (2, 3), "b": (3,)}
WHOLE = numbered([(2, 3), (3,)])


def with_group(**more: Any) -> dict[str, Any]:
    return {**WHOLE, "param_groups": [{**WHOLE["param_groups"][0], **more}]}


def with_entry(number: Any, **more: Any) -> dict[str, Any]:
    return {**WHOLE, "state": {**WHOLE["state"], number: {**WHOLE["state"].get(number, {}), **more}}}


STATES: list[tuple[str, dict[str, Any], str]] = [
    ("more parameters than there are", numbered([(2, 3), (3,), (3,)]), "3 parameters, which have no names, fit no"),
    ("the other way about", numbered([(3,), (2, 3)]), "fit no known order"),
    ("another shape of as many elements", numbered([(3, 2), (3,)]), "fit no known order"),
    ("ids that are no numbers", with_group(params=[0.0, 1]), "does not list its parameters"),
    ("no ids", with_group(params=None), "does not list its parameters"),
    ("one number twice", with_group(params=[0, 1, 1]), "about different parameters"),
    ("an entry of no group", with_entry(7), "about different parameters"),
    ("an entry that is none", {**WHOLE, "state": {**WHOLE["state"], 0: [1]}}, "entry for parameter 0 is no dict"),
    ("a step that is none", with_entry(0, step="3"), "its state has a value that is not a number"),
    ("a step of several numbers", with_entry(0, step=tensor((2,))), "its state has a value that is not a number"),
    ("a slot that is none", with_entry(0, history=[1]), "'history' per parameter"),
    ("names of another model", with_group(param_names=["a", "x"]), "'x', which is not among the weights"),
    ("a name twice", with_group(param_names=["a", "a"]), "names one parameter twice"),
    ("names in another order", with_group(param_names=["b", "a"]), "has shape \\[2, 3\\], the weight \\[3\\]"),
]


@pytest.mark.parametrize(("state", "why"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_states_that_are_refused(state: dict[str, Any], why: str) -> None:
    assert named_state(WHOLE, model(PAIR)).basis == "verified (order)"
    assert named_state(with_group(param_names=["a", "b"]), model(PAIR)).basis == "named"
    with pytest.raises(LossError, match=why):
        named_state(state, model(PAIR))


def test_names_that_do_not_count_as_such() -> None:
    """Too few, or no text: the numbers are all there is."""
    for names in (["a"], ["a", 1], "ab", None):
        assert named_state(with_group(param_names=names), model(PAIR)).basis == "verified (order)"


def test_an_order_is_given_in_whole_or_not() -> None:
    same = model({"a": (3,), "b": (3,), "c": (3,)})
    state = numbered([(3,), (3,)])
    found = named_state(state, same, user_order=["c", "a"])
    assert (found.groups[0].parameters, found.basis) == (("c", "a"), "given")
    for given, why in ((["a"], "has 2 parameters, the order given 1"), (["a", "b", "c"], "the order given 3")):
        with pytest.raises(LossError, match=why):
            named_state(state, same, user_order=given)
    with pytest.raises(LossError, match="one parameter twice"):
        named_state(state, same, user_order=["a", "a"])


def test_a_file_that_is_not_in_the_model_s_order_tells_none() -> None:
    with pytest.raises(LossError, match="numbered in an order that the file of the weights does not keep"):
        named_state(WHOLE, model(PAIR), is_in_module_order=False)
    order = ModuleOrder(names=("b", "a"), layer_norms=frozenset())
    found = named_state(numbered([(3,), (2, 3)]), model(PAIR), is_in_module_order=False, order=order)
    assert found.groups[0].parameters == ("b", "a")
    assert named_state(with_group(param_names=["a", "b"]), model(PAIR), is_in_module_order=False).basis == "named"


def test_buffers_frozen_parameters_and_ties_are_not_numbered() -> None:
    source = model({"a": (2,), "stat": (2,), "b": (3,), "c": (4,)}, buffers=frozenset({"stat"}))
    assert named_state(numbered([(2,), (3,), (4,)]), source).groups[0].parameters == ("a", "b", "c")
    frozen = model({"a": (2,), "b": (3,), "c": (4,)}, frozen=frozenset({"b"}), aliases={"d": "a"})
    assert named_state(numbered([(2,), (4,)]), frozen).groups[0].parameters == ("a", "c")
    assert named_state(numbered([(2,), (3,), (4,)]), frozen).groups[0].parameters == ("a", "b", "c")
    order = ModuleOrder(names=("d", "a", "b", "c"), layer_norms=frozenset())
    assert named_state(numbered([(2,), (3,), (4,)]), frozen, order=order).groups[0].parameters == ("a", "b", "c")
    assert named_state(with_group(param_names=["d", "b"]), model(PAIR, aliases={"d": "a"})).groups[0].parameters == (
        *("a", "b"),
    )


def test_modules_left_out_and_which_is_not_certain() -> None:
    shapes: dict[str, Shape] = {"a.w": (2,), "a.b": (1,), "b.w": (3,), "b.b": (1,), "c.w": (4,), "c.b": (1,)}
    found = named_state(numbered([(2,), (1,), (4,), (1,)]), model(shapes))
    assert (found.groups[0].parameters, found.basis) == (("a.w", "a.b", "c.w", "c.b"), "inferred (order, b frozen)")
    found = named_state(numbered([(4,), (1,)]), model(shapes))
    assert found.basis == "inferred (order, a and 1 other modules frozen)"
    for left_over in ([(2,), (4,), (1,)], [(3,)], [(4,), (1,), (2,), (1,)]):
        with pytest.raises(LossError, match="fit no known order"):
            named_state(numbered(left_over), model(shapes))
    alike = model({"a.w": (2,), "b.w": (2,), "c.w": (3,)})
    assert named_state(numbered([(2,), (2,)]), alike).groups[0].parameters == ("a.w", "b.w")
    with pytest.raises(LossError, match=r"ambiguous: order, [ab] frozen"):
        named_state(numbered([(2,), (3,)]), alike)


STEPS: list[tuple[list[Any], int | None, bool]] = [
    ([3.0, 3.0], 3, False),
    ([0, 0], 0, False),
    ([3.0, 4.0], None, True),
    ([3.5, 3.5], None, True),
    ([-1.0, -1.0], None, True),
    ([math.nan, math.nan], None, True),
    ([math.inf, math.inf], None, True),
    ([None, None], None, False),
    ([3.0, None], None, True),
]


@pytest.mark.parametrize(("steps", "expected", "is_slot"), STEPS)
def test_steps(steps: list[Any], expected: int | None, is_slot: bool) -> None:
    state = numbered([(2, 3), (3,)])
    for number, step in enumerate(steps):
        del state["state"][number]["step"]
        if step is not None:
            state["state"][number]["step"] = step if step in (0, 3.5) else ArrayTensor.of(np.float32(step).reshape(()))
    found = named_state(state, model(PAIR))
    assert found.step == expected
    assert ("step" in found.slots) is is_slot
    if is_slot:
        kept = [step for step in steps if step is not None]
        np.testing.assert_array_equal([held.numpy() for held in found.slots["step"].values()], np.float32(kept))


FACTORS = {
    "exp_avg_sq_row": (5, 2),
    "exp_avg_sq_col": (5, 3),
    "row_var": (5, 2, 1),
    "col_var": (5, 1, 3),
    "exp_avg": (5, 2, 3),
    "any": (),
}


@pytest.mark.parametrize("name", FACTORS)
def test_slots_that_are_smaller_than_their_weights(name: str) -> None:
    weight = model({"w": (5, 2, 3)})
    assert named_state(numbered([FACTORS[name]], slot=name), weight).slots[name]["w"].shape == FACTORS[name]
    for other in {*FACTORS.values(), (2, 3), (6,)} - {FACTORS[name], (), (5, 2, 3) if name == "any" else ()}:
        with pytest.raises(LossError, match="fit no known order"):
            named_state(numbered([other], slot=name), weight)


KEYS = {"betas": (0.9, 0.99), "amsgrad": False, "weight_decay": 0}
KINDS: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
    ([{**KEYS, "decoupled_weight_decay": True}], {}, "adamw"),
    ([{**KEYS, "decoupled_weight_decay": False, "weight_decay": 0.1}], {}, "adam"),
    ([KEYS], {}, "adam"),
    ([{**KEYS, "weight_decay": 0.1}], {}, "unknown"),
    ([KEYS, {**KEYS, "weight_decay": 0.1}], {}, "unknown"),
    ([{"betas": (0.9, 0.99)}], {}, "unknown"),
    ([{"amsgrad": False}], {}, "unknown"),
    ([{**KEYS, "momentum_decay": 0.1}], {}, "nadam"),
    ([{"betas": (0.9, 0.99), "weight_decay": 0}], {"exp_inf": {}}, "adamax"),
    ([{"momentum": 0.9, "dampening": 0, "nesterov": False}], {}, "sgd"),
    ([{"momentum": 0.9, "nesterov": False}], {}, "unknown"),
    ([{"lr_decay": 0, "initial_accumulator_value": 0}], {}, "adagrad"),
    ([{"alpha": 0.9, "centered": False, "momentum": 0}], {}, "rmsprop"),
    ([{"alpha": 0.9, "t0": 1}], {}, "unknown"),
    ([{"rho": 0.9, "eps": 1e-6}], {}, "adadelta"),
    ([{"clip_threshold": 1.0, "decay_rate": -0.8}], {}, "adafactor"),
    ([{"beta2_decay": -0.8}], {}, "adafactor"),
    ([{"betas": (0.9, 0.99), "correct_bias": True}], {}, "adamw"),
    ([], {}, "unknown"),
]


@pytest.mark.parametrize(("groups", "slots", "algorithm"), KINDS)
def test_which_algorithm_has_these_hyperparameters(
    groups: list[dict[str, Any]], slots: dict[str, Any], algorithm: str
) -> None:
    assert inferred_algorithm(groups, slots) == algorithm


def test_what_is_no_parameter() -> None:
    names = ("running_mean", "a.running_var", "num_batches_tracked", "position_ids", "rotary.inv_freq")
    assert all(is_buffer(name, tensor((2,))) for name in names)
    assert not is_buffer("weight", tensor((2,)))
    assert not is_buffer("running_mean.weight", tensor((2,)))
    assert is_buffer("weight", ArrayTensor.of(np.zeros(2, np.int64)))
    assert not is_buffer("weight", ArrayTensor.of(np.zeros(2, np.complex64)))


def test_what_looks_like_a_state() -> None:
    assert is_optimizer_state(WHOLE)
    for key, value in (("state", []), ("param_groups", {}), ("state", None), ("param_groups", None)):
        assert not is_optimizer_state({**WHOLE, key: value})
    assert is_numbered(WHOLE)
    assert not is_numbered(with_group(param_names=["a", "b"]))
    assert not is_numbered({**WHOLE, "state": {"a": {}}})


def test_a_state_is_written_as_torch_reads_it() -> None:
    slots = {"exp_avg": {"b": tensor((3,)), "a": tensor((2,))}}
    groups = (
        ParameterGroup(parameters=("b",), hyperparameters={**KEYS, "lr": 1.0}),
        ParameterGroup(parameters=("c", "a"), hyperparameters={**KEYS, "lr": 2.0}),
    )
    made = state_dict(OptimizerState(algorithm="adam", step=5, groups=groups, slots=slots))
    assert [(group["params"], group["param_names"], group["lr"]) for group in made["param_groups"]] == [
        ([0], ["b"], 1.0),
        ([1, 2], ["c", "a"], 2.0),
    ]
    assert {number: list(entry) for number, entry in made["state"].items()} == {
        0: ["step", "exp_avg"],
        2: ["step", "exp_avg"],
    }
    assert made["state"][2]["exp_avg"] is slots["exp_avg"]["a"]
    assert "algorithm" not in made
    adamw = state_dict(OptimizerState(algorithm="adamw", step=5, groups=groups, slots=slots))
    assert adamw["algorithm"] == "adamw"
    with pytest.raises(LossError, match="is in no parameter group") as caught:
        state_dict(OptimizerState(algorithm="adam", step=5, groups=groups[:1], slots=slots))
    assert caught.value.tensor == "a"


def test_several_optimizers_are_numbered_one_after_the_other() -> None:
    one, two = numbered([(2,), (3,)], **KEYS), numbered([(4,)], [(5,)], **KEYS)
    both = merged([one, two])
    assert [group["params"] for group in both["param_groups"]] == [[0, 1], [2], [3]]
    assert [both["state"][number]["exp_avg"].shape for number in range(4)] == [(2,), (3,), (4,), (5,)]
    for other in (numbered([(4,)], **{**KEYS, "momentum_decay": 1}), numbered([(4,)], **KEYS, foreach=None)):
        with pytest.raises(LossError, match="there are 2 optimizers"):
            merged([one, other])


def test_numbers_that_became_text_are_numbers_again() -> None:
    text = {**WHOLE, "state": {str(number): entry for number, entry in WHOLE["state"].items()}}
    listed = {**WHOLE, "state": list(WHOLE["state"].values())}
    for state in (text, listed, WHOLE):
        found = as_state_dict(state)
        assert found is not None
        assert list(found["state"]) == [0, 1]
    for odd in ({"x": {}}, {"1" * 12: {}}, {"-1": {}}):
        found = as_state_dict({**WHOLE, "state": odd})
        assert found is not None
        assert list(found["state"]) == list(odd)
    flat = {"state.a.exp_avg": 1, "param_groups.a.lr": 0.1, "param_groups.b.lr": 0.2, "param_groups.c.lr": 0.1}
    found = as_state_dict(flat)
    assert found is not None
    assert [(group["params"], group["lr"]) for group in found["param_groups"]] == [(["a", "c"], 0.1), (["b"], 0.2)]
    assert as_state_dict({**flat, "other": 1}) is None
    for odd in (7, "x", None, ({},)):
        assert as_state_dict({"state": odd, "param_groups": [{"params": []}]}) is None
    assert as_state_dict({}) is None


def positions(*shapes: Shape, algorithm: str = "Adam", **config: Any) -> OptimizerState:
    """Variables of Keras that are only numbered, of a model with weights a and b; each holds its number."""
    held = [ArrayTensor.of(np.asarray(4)), tensor((), 0.5), *(tensor(each, at) for at, each in enumerate(shapes))]
    weights = {"a": tensor((2, 3)), "b": tensor((3,)), "c": tensor((3,))}
    known = [("a", "b")] if config.pop("orders", "") else [("a", "b"), ("b", "a"), ("a", "c")]
    return state_by_positions(held, weights, lambda _: known, Settings(class_name=algorithm, config=config))


A, B = (2, 3), (3,)
ARRANGED: list[tuple[tuple[Shape, ...], dict[str, Any], dict[str, list[int]]]] = [
    ((A, A, B, B), {}, {"momentum": [0, 2], "velocity": [1, 3]}),
    ((A, A, B, B, A, B), {}, {"momentum": [0, 2], "velocity": [1, 3], "velocity_hat": [4, 5]}),
    ((A, A, A, B, B, B), {}, {"momentum": [0, 3], "velocity": [1, 4], "velocity_hat": [2, 5]}),
    ((A, B), {"algorithm": "SGD"}, {"momentum": [0, 1]}),
    ((A, B, A, B), {"algorithm": "RMSprop", "momentum": 0.9}, {"velocity": [0, 1], "momentum": [2, 3]}),
    ((A, B, A, B), {"algorithm": "RMSprop", "centered": True}, {"velocity": [0, 1], "average_gradient": [2, 3]}),
]


@pytest.mark.parametrize(("shapes", "config", "slots"), ARRANGED)
def test_variables_that_are_only_numbered(
    shapes: tuple[Shape, ...], config: dict[str, Any], slots: dict[str, list[int]]
) -> None:
    if config.get("algorithm") == "RMSprop":
        config = {"momentum": 0.0, "centered": False, **config}
    found = positions(*shapes, orders="a, b", **config)
    numbers = {slot: [int(held[name].numpy().flat[0]) for name in "ab"] for slot, held in found.slots.items()}
    assert numbers == slots
    assert (found.step, found.groups[0].hyperparameters["learning_rate"]) == (4, 0.5)


@pytest.mark.parametrize(
    ("shapes", "config", "why"),
    [
        ((A, A, B, B), {}, "fit several orders"),
        ((A, B, A, B), {"algorithm": "RMSprop", "orders": "a, b"}, "fit several orders"),
        ((A, B, B, A), {"orders": "a, b"}, "fit no order"),
        ((A, A, B), {"orders": "a, b"}, "fit no order"),
        ((A, A, B, B), {"orders": "a, b", "amsgrad": True}, "fit no order"),
        ((A, A, B, B, A, B), {"orders": "a, b", "amsgrad": False}, "fit no order"),
        ((A, B), {"orders": "a, b", "algorithm": ""}, "does not say which optimizer"),
        ((A, B), {"orders": "a, b", "algorithm": "SGD", "use_ema": True}, "it uses use_ema"),
    ],
)
def test_positions_that_are_not_certain(shapes: tuple[Shape, ...], config: dict[str, Any], why: str) -> None:
    with pytest.raises(LossError, match=why):
        positions(*shapes, **config)


@pytest.mark.parametrize(("count", "found"), [(20, 2), (120, 0)])
def test_of_very_many_ways_to_freeze_modules_none_is_looked_for(count: int, found: int) -> None:
    """All modules are alike: two ways already say that it is not certain, and thousands are not gone through for it."""
    one = ArrayTensor.of(np.zeros(1, np.float32))
    checkpoint = Checkpoint(tensors={f"layer{number}.weight": one for number in range(count)})
    ways = list(without_frozen_modules([count // 2], checkpoint, None, lambda *_: True))
    assert len(ways) == found


def test_optimizers_that_are_none_are_not_made_one() -> None:
    for groups in ([{"lr": 0.1}], [7], [{"params": 3}]):
        broken = {"state": {}, "param_groups": groups}
        with pytest.raises(LossError, match="there are 2 optimizers, one can be carried"):
            merged([broken, broken])


@pytest.mark.parametrize("sizes", [[], [0], [4], [5], [1, 2, 0]])
def test_modules_are_left_out_where_the_optimizer_has_fewer_parameters_and_some(sizes: list[int]) -> None:
    source = model({"a.w": (2,), "b.w": (2,), "c.x.w": (2,), "c.y.w": (2,)})
    assert list(without_frozen_modules(sizes, source, None, lambda *_: True)) == []


def test_modules_nearest_to_the_root_are_left_out_first() -> None:
    """What is deeper is looked at where nothing fits: there c.x and c.y could be it, too."""
    source = model({"a.w": (2,), "b.w": (2,), "c.x.w": (2,), "c.y.w": (2,)})

    def ways(*wrong_at_first: str) -> set[str]:
        def fits(group: int, place: int, name: str) -> bool:
            return place > 0 or name not in wrong_at_first

        return {convention for _, convention in without_frozen_modules([3], source, None, fits)}

    assert ways() == {"order, a frozen", "order, b frozen"}
    assert ways("a.w") == {"order, a frozen"}
    inner = model({"c.x.w": (2,), "c.y.w": (2,), "d.w": (2,)})
    found = without_frozen_modules([2], inner, None, lambda group, place, name: name != "c.x.w")
    assert [convention for _, convention in found] == ["order, c.x frozen"]


def test_fewer_parameters_than_the_model_has_are_no_proof_of_their_order() -> None:
    """The last module may be the one that was frozen; that the first parameters fit does not say that it is certain."""
    source = model({"a.w": (2,), "b.w": (3,), "c.w": (4,)})
    assert named_state(numbered([(2,), (3,), (4,)]), source).basis == "verified (order)"
    assert named_state(numbered([(2,), (3,)]), source).basis == "inferred (order, c frozen)"
    alike = model({"a.w": (2,), "b.w": (2,), "c.w": (2,)})
    with pytest.raises(LossError, match="ambiguous"):
        named_state(numbered([(2,), (2,)]), alike)
    with pytest.raises(LossError, match="fit no known order"):
        named_state(numbered([(2,), (3,), (4,), (5,)]), source)


def test_parameters_are_numbers_alone_where_not_every_group_names_them() -> None:
    whole = numbered([(2,)], [(3,)])
    first, second = whole["param_groups"]
    named = {**first, "param_names": ["a"]}
    for groups, is_alone in (
        ([first, second], True),
        ([named, second], True),
        ([first, {**second, "param_names": ["b"]}], True),
        ([named, {**second, "param_names": ["b"]}], False),
    ):
        assert is_numbered({**whole, "param_groups": groups}) is is_alone
    assert not is_numbered({**whole, "state": {"a": {}}})
    assert is_numbered({"state": {}, "param_groups": []})


@pytest.mark.parametrize("before", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_may_have_wrappers_in_them_on_either_side(before: str) -> None:
    plain, wrapped = ({"net.a": (2,), "net.b": (2,)}, {f"{before}net.a": (2,), f"net.{before}b": (2,)})
    for weights, names in ((plain, wrapped), (wrapped, plain)):
        state = numbered([(2,), (2,)])
        state["param_groups"][0]["param_names"] = list(names)
        found = named_state(state, model(weights))  # type: ignore[arg-type]
        assert (found.groups[0].parameters, found.basis) == (tuple(weights), "named")
