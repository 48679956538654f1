"""An optimizer of Keras as a graph of objects: what hangs where, read as it was written. No framework."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from converter.dialects.optimizer.flavors import CLASSES, KerasFlavor
from converter.dialects.optimizer.keras_layouts import config_of
from converter.dialects.optimizer.keras_names import optimizer_nodes, state_of_graph
from converter.dialects.optimizer.objects import add_optimizer
from converter.dialects.optimizer.semantics import to_keras
from converter.dialects.optimizer.settings import Settings
from converter.encoding.object_graph import Node, ObjectTree, object_graph
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle
from converter.errors import LossError
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import ArrayTensor, Tensor
from tests.dialects.test_optimizer_semantics import CASES, SHAPES, checkpoint_of

KERAS = {"fc.weight": "fc/kernel", "fc.bias": "fc/bias"}
BOTH = [(kind, flavor) for kind in CASES for flavor in KerasFlavor if (kind, flavor) != ("adamw", KerasFlavor.LEGACY)]


@dataclass
class Saved:
    """A graph with two weights and an optimizer, as it is read: its nodes, tensors by key, key -> weight."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def optimizer(self) -> Node:
        return self.nodes[self.nodes[0].children["optimizer"]]

    def listed(self, attribute: str) -> dict[str, str]:
        """Position -> full name, of a list of the optimizer."""
        return {
            position: self.nodes[index].full_name
            for position, index in self.nodes[self.optimizer.children[attribute]].children.items()
        }


def state_in_keras(kind: str, flavor: KerasFlavor, **config: Any) -> OptimizerState:
    state = to_keras(checkpoint_of(kind), flavor).optimizer
    assert state is not None
    groups = tuple(replace(group, hyperparameters={**group.hyperparameters, **config}) for group in state.groups)
    return replace(state, groups=groups).with_names(KERAS)


def saved(state: OptimizerState, flavor: KerasFlavor) -> Saved:
    tree = ObjectTree()
    nodes = {name: tree.child(0, name) for name in KERAS.values()}
    weights = {tree.set_variable(node, f"model/{name}", name): name for name, node in nodes.items()}
    shapes = {KERAS[name]: shape for name, shape in SHAPES.items()}
    tensors: dict[str, Tensor] = {key: ArrayTensor.of(np.zeros(shapes[name])) for key, name in weights.items()}
    tensors |= add_optimizer(tree, tree.child(0, "optimizer"), state, flavor, nodes)
    bundle = SimpleNamespace(entries={OBJECT_GRAPH_KEY}, text=lambda key: (tree.serialized(),), path=Path("saved"))
    return Saved(object_graph(cast(Bundle, bundle)), tensors, weights)


@pytest.mark.parametrize(("kind", "flavor"), BOTH)
def test_an_optimizer_is_read_as_it_is_written(kind: str, flavor: KerasFlavor) -> None:
    state = state_in_keras(kind, flavor)
    written = saved(state, flavor)
    class_name, config = config_of(state)
    settings = Settings(class_name=class_name, config=config)
    found = state_of_graph(written.nodes, written.tensors, written.weights, settings)
    assert found is not None
    assert (found.algorithm, found.step, found.convention) == (state.algorithm, 7, state.convention)
    held = {slot: {name: id(each) for name, each in its.items()} for slot, its in found.slots.items()}
    assert held == {slot: {name: id(each) for name, each in its.items()} for slot, its in state.slots.items() if its}
    rate = state.groups[0].hyperparameters["learning_rate"]
    assert found.groups[0].hyperparameters["learning_rate"] == np.float32(rate)


LISTS = {
    "adam": {"_momentums", "_velocities"},
    "amsgrad": {"_momentums", "_velocities", "_velocity_hats"},
    "sgd": {"momentums"},
    "centered": {"_velocities", "_momentums", "_average_gradients"},
    "adagrad": {"_accumulators"},
}


@pytest.mark.parametrize("flavor", [KerasFlavor.KERAS_3, KerasFlavor.TF_KERAS])
@pytest.mark.parametrize("kind", LISTS)
def test_slots_are_in_the_lists_that_the_classes_of_keras_keep(kind: str, flavor: KerasFlavor) -> None:
    """tf.train.Checkpoint restores by the names of attributes: a list of another name is not restored."""
    written = saved(state_in_keras(kind, flavor), flavor)
    algorithm = CASES[kind][0]
    for attribute in LISTS[kind]:
        held = written.listed(attribute)
        assert list(held) == ["0", "1"]
        assert ["kernel" in name for name in held.values()] == [True, False]
    lists = {name for name in written.optimizer.children if name.endswith("s") and name != "_variables"}
    assert lists - {"_iterations", "_trainable_variables"} == LISTS[kind]
    source = importlib.util.find_spec("keras")
    if flavor is KerasFlavor.KERAS_3 and source is not None and source.origin is not None:
        text = (Path(source.origin).parent / f"src/optimizers/{algorithm}.py").read_text(encoding="utf-8")
        assert CLASSES[algorithm] in text
        assert all(f"self.{attribute}" in text for attribute in LISTS[kind])


def test_keras_3_lists_its_weights_and_tf_keras_does_not() -> None:
    newest = saved(state_in_keras("adam", KerasFlavor.KERAS_3), KerasFlavor.KERAS_3)
    assert newest.listed("_trainable_variables") == {"0": "fc/kernel", "1": "fc/bias"}
    for flavor in (KerasFlavor.TF_KERAS, KerasFlavor.LEGACY):
        assert "_trainable_variables" not in saved(state_in_keras("adam", flavor), flavor).optimizer.children


@pytest.mark.parametrize("kind", LISTS)
def test_whose_a_slot_is_is_told_by_lists_where_names_do_not_tell(kind: str) -> None:
    """A class of a user's own calls the slots of every layer alike."""
    state = state_in_keras(kind, KerasFlavor.KERAS_3)
    title = state.groups[0].hyperparameters["name"]
    written = saved(state, KerasFlavor.KERAS_3)
    numbers = iter(range(len(written.nodes)))
    nodes = tuple(
        replace(node, full_name=f"{title}/model_kernel_{next(numbers)}")
        if node.key in written.tensors and node.full_name.startswith(f"{title}/fc_")
        else node
        for node in written.nodes
    )
    found = state_of_graph(nodes, written.tensors, written.weights, Settings(class_name=CLASSES[CASES[kind][0]]))
    assert found is not None
    held = {slot: {name: id(each) for name, each in its.items()} for slot, its in found.slots.items()}
    assert held == {slot: {name: id(each) for name, each in its.items()} for slot, its in state.slots.items()}


SCHEDULE = {
    "class_name": "PiecewiseConstantDecay",
    "config": {"boundaries": [3, 8], "values": [0.5, 0.25, 0.125]},
}


@pytest.mark.parametrize("flavor", KerasFlavor)
def test_which_variable_has_the_rate(flavor: KerasFlavor) -> None:
    """In tf_keras it stands beside the numbered ones, under another name where it is a schedule's; at step 7 here."""
    constant = saved(state_in_keras("sgd", flavor, learning_rate=0.75), flavor)
    scheduled = saved(state_in_keras("sgd", flavor, learning_rate=SCHEDULE), flavor)
    rates = [
        {
            node.full_name: written.tensors[node.key].numpy().item()
            for node in written.nodes
            if node.key is not None and node.full_name.endswith("learning_rate")
        }
        for written in (constant, scheduled)
    ]
    assert (
        rates
        == {
            KerasFlavor.KERAS_3: [{"sgd/learning_rate": 0.75}, {}],
            KerasFlavor.TF_KERAS: [{"learning_rate": 0.75}, {"current_learning_rate": 0.25}],
            KerasFlavor.LEGACY: [{"SGD/learning_rate": 0.75}, {}],
        }[flavor]
    )
    children = {
        KerasFlavor.KERAS_3: ("_learning_rate", None),
        KerasFlavor.TF_KERAS: ("_learning_rate", "_current_learning_rate"),
        KerasFlavor.LEGACY: ("learning_rate", None),
    }[flavor]
    for written, child in zip((constant, scheduled), children, strict=True):
        assert [name for name in written.optimizer.children if name.endswith("learning_rate")] == [child] * bool(child)


@pytest.mark.parametrize("flavor", KerasFlavor)
def test_which_variable_has_the_steps(flavor: KerasFlavor) -> None:
    for step, expected in ((7, 7), (None, 0)):
        state = replace(state_in_keras("sgd", flavor), step=step)
        written = saved(state, flavor)
        name = "iter" if flavor is KerasFlavor.LEGACY else "_iterations"
        key = written.nodes[written.optimizer.children[name]].key
        assert key is not None
        assert written.tensors[key].numpy() == expected
        assert written.tensors[key].dtype.value == "int64"


def node(children: dict[str, int] | None = None, **more: Any) -> Node:
    return Node(**{"children": children or {}, "key": None, "full_name": "", "slots": (), **more})


def test_one_optimizer_can_be_carried_and_what_only_counts_is_none() -> None:
    state = state_in_keras("sgd", KerasFlavor.KERAS_3)
    written = saved(state, KerasFlavor.KERAS_3)
    settings = Settings(class_name="SGD")
    whole = written.nodes
    counting = (*whole, node({"iter": 1}), node({"iter": 1, "other": 1}))
    assert len(optimizer_nodes(counting)) == 1
    found = state_of_graph(counting, written.tensors, written.weights, settings)
    assert found is not None
    assert found.step == 7
    for second in (node({"_iterations": 1}), node({"iter": 1, "decay": 1}), node({"iter": 1, "learning_rate": 1})):
        with pytest.raises(LossError, match="there are 2 optimizers, one can be carried"):
            state_of_graph((*whole, second), written.tensors, written.weights, settings)
    assert state_of_graph((node(), node(), *counting[-2:]), {}, {}, settings) is None


def test_a_legacy_optimizer_keeps_numbers_in_scalars_and_slots_of_weights() -> None:
    state = state_in_keras("adam", KerasFlavor.LEGACY)
    written = saved(state, KerasFlavor.LEGACY)
    place = written.nodes.index(written.optimizer)
    table = node(key="table", full_name="Adam/table")
    nodes = [*written.nodes, table]
    nodes[place] = replace(written.optimizer, children={**written.optimizer.children, "table": len(written.nodes)})
    tensors = {**written.tensors, "table": ArrayTensor.of(np.ones((2, 2)))}
    found = state_of_graph(tuple(nodes), tensors, written.weights, Settings())
    assert found is not None
    assert (found.algorithm, found.step, found.convention) == ("adam", 7, Convention.KERAS_LEGACY)
    strange = {key: name for key, name in written.weights.items() if name != "fc/bias"}
    with pytest.raises(LossError, match=r"its m 'Adam/fc/bias/m' belongs to no weight"):
        state_of_graph(written.nodes, written.tensors, strange, Settings())
