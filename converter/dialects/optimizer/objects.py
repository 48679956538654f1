"""An optimizer of Keras as an object that tf.train.Checkpoint restores: its variables, and the lists that hold them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_layouts import config_of, slot_of_legacy, variables
from converter.dialects.optimizer.schedules import learning_rate_at
from converter.encoding.object_graph import ObjectTree
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor

_LISTS = {
    "momentum": "_momentums",
    "velocity": "_velocities",
    "velocity_hat": "_velocity_hats",
    "accumulator": "_accumulators",
    "average_gradient": "_average_gradients",
}
_HYPERPARAMETERS = ("learning_rate", "decay", "beta_1", "beta_2", "momentum", "rho")
"""Those that legacy optimizers keep in variables."""


def add_optimizer(
    tree: ObjectTree, node: int, state: OptimizerState, flavor: KerasFlavor, weights: Mapping[str, int]
) -> dict[str, Tensor]:
    """Hang an optimizer, `state` in Keras's conventions, at `node`; return key -> tensor. `weights` are their nodes."""
    if flavor is KerasFlavor.LEGACY:
        return _add_legacy(tree, node, state, weights)
    _, config = config_of(state)
    held = variables(state, flavor)
    keys: dict[str, Tensor] = {}
    if flavor is KerasFlavor.TF_KERAS:  # which keeps it beside the numbered ones, not in them
        rate = config["learning_rate"]
        title = "current_learning_rate" if isinstance(rate, Mapping) else "learning_rate"
        key = tree.set_variable(tree.child(node, f"_{title}"), f"optimizer/_{title}", title)
        keys[key] = ArrayTensor.of(np.asarray(learning_rate_at(rate, state.step or 0), np.float32))
    else:
        listed = tree.child(node, "_trainable_variables")
        for number, name in enumerate(next(iter(state.slots.values()), weights)):
            tree.link(listed, str(number), weights[name])
    numbered = tree.child(node, "_variables")
    lists: dict[str, int] = {}
    places = _places(state)
    for number, (name, tensor) in enumerate(held.items()):
        variable = tree.child(numbered, str(number))
        keys[tree.set_variable(variable, f"optimizer/_variables/{number}", name)] = tensor
        leaf = name.rpartition("/")[2]
        if tensor.shape == () and leaf in ("iteration", "learning_rate"):
            tree.link(node, "_iterations" if leaf == "iteration" else "_learning_rate", variable)
            continue
        slot, position = places[id(tensor)]
        attribute = "momentums" if state.algorithm == "sgd" else _LISTS[slot]
        tree.link(lists.setdefault(slot, tree.child(node, attribute)), str(position), variable)
    return keys


def _places(state: OptimizerState) -> dict[int, tuple[str, int]]:
    return {
        id(tensor): (slot, position)
        for slot, tensors in state.slots.items()
        for position, tensor in enumerate(tensors.values())
    }


def _add_legacy(tree: ObjectTree, node: int, state: OptimizerState, weights: Mapping[str, int]) -> dict[str, Tensor]:
    _, config = config_of(state)
    title = config["name"]
    scalars: dict[str, Tensor] = {"iter": ArrayTensor.of(np.asarray(state.step or 0, np.int64))}
    scalars |= {
        name: ArrayTensor.of(np.asarray(config[name], np.float32))
        for name in _HYPERPARAMETERS
        if name in config and not isinstance(config[name], Mapping)
    }
    keys = {
        tree.set_variable(tree.child(node, name), f"optimizer/{name}", f"{title}/{name}"): tensor
        for name, tensor in scalars.items()
    }
    for slot, tensors in state.slots.items():
        own = slot_of_legacy(slot, state.algorithm)
        for name, tensor in tensors.items():
            keys[tree.add_slot(node, weights[name], own, f"{title}/{name}/{own}")] = tensor
    return keys
