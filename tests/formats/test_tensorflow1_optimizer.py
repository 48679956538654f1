"""Optimizers of TensorFlow 1 from checkpoints that tf.compat.v1.train.Saver wrote: slots, and the update after them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import converter
from converter.errors import LossError

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
v1 = tf.compat.v1

GENERATOR = np.random.default_rng(0)
SHAPES = {"dense/kernel": (3, 3), "dense/bias": (3,)}
START = {name: GENERATOR.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
STEPS = 4
GRADIENTS = [
    {name: GENERATOR.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(STEPS + 1)
]
TORCH = {"dense/kernel": "dense.weight", "dense/bias": "dense.bias"}

Arrays = dict[str, Any]


def trained(optimizer: Callable[[], Any], folder: Path) -> tuple[Arrays, Arrays]:
    """Save a checkpoint after some steps; return every variable then, and the weights one step later."""
    with tf.Graph().as_default(), v1.Session() as session:
        weights = {name: v1.get_variable(name, initializer=value) for name, value in START.items()}
        fed = {name: v1.placeholder(tf.float32, value.shape) for name, value in START.items()}
        step = v1.train.get_or_create_global_step()
        update = optimizer().apply_gradients([(fed[name], weights[name]) for name in SHAPES], global_step=step)
        session.run(v1.global_variables_initializer())
        for gradients in GRADIENTS[:STEPS]:
            session.run(update, {fed[name]: gradients[name] for name in SHAPES})
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
        saved = {variable.op.name: session.run(variable) for variable in v1.global_variables()}
        session.run(update, {fed[name]: GRADIENTS[STEPS][name] for name in SHAPES})
        return saved, {name: session.run(weight) for name, weight in weights.items()}


def as_torch(array: Any) -> Any:
    return array.T if array.ndim == 2 else array


def resumed(file: Path, make: Callable[[Any], Any]) -> tuple[Any, Arrays]:
    """Load what was converted into an optimizer of torch, make a step; return its state before, and the weights."""
    checkpoint = torch.load(file, weights_only=True)
    weights = {name: torch.nn.Parameter(checkpoint["model_state_dict"][name]) for name in TORCH.values()}
    state = checkpoint["optimizer_state_dict"]
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    optimizer = make([weights[name] for name in names])
    if len(state["param_groups"]) > 1:
        optimizer = make(
            [{"params": [weights[name] for name in group["param_names"]]} for group in state["param_groups"]]
        )
    optimizer.load_state_dict(copy.deepcopy(state))  # whose tensors it updates
    for theirs, name in TORCH.items():
        weights[name].grad = torch.tensor(as_torch(GRADIENTS[STEPS][theirs]).copy())
    optimizer.step()
    return state, {name: weights[name].detach().numpy() for name in TORCH.values()}


def held(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names = [name for group in state["param_groups"] for name in group["param_names"]]
    return {name: state["state"][number] for number, name in enumerate(names)}


T = v1.train
CASES: dict[str, tuple[Callable[[], Any], Any, tuple[str, ...], dict[str, str]]] = {
    "adam": (
        lambda: T.AdamOptimizer(0.1),
        torch.optim.Adam,
        ("learning_rate=0.1",),
        {"exp_avg": "Adam", "exp_avg_sq": "Adam_1"},
    ),
    "adam-betas": (
        lambda: T.AdamOptimizer(0.1, beta1=0.8, beta2=0.99, epsilon=1e-3),
        torch.optim.Adam,
        ("learning_rate=0.1", "betas=[0.8, 0.99]", "epsilon=1e-3"),
        {"exp_avg": "Adam", "exp_avg_sq": "Adam_1"},
    ),
    "momentum": (
        lambda: T.MomentumOptimizer(0.1, 0.9),
        torch.optim.SGD,
        ("learning_rate=0.1", "momentum=0.9"),
        {"momentum_buffer": "Momentum"},
    ),
    "nesterov": (
        lambda: T.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
        torch.optim.SGD,
        ("lr=0.1", "momentum=0.9", "nesterov=true"),
        {"momentum_buffer": "Momentum"},
    ),
    "rmsprop": (
        lambda: T.RMSPropOptimizer(0.1),
        torch.optim.RMSprop,
        ("learning_rate=0.1",),
        {"square_avg": "RMSProp"},
    ),
    "rmsprop-momentum": (
        lambda: T.RMSPropOptimizer(0.125, momentum=0.5, decay=0.8),
        torch.optim.RMSprop,
        ("learning_rate=0.125", "momentum=0.5", "alpha=0.8"),
        {"square_avg": "RMSProp"},
    ),
    "rmsprop-centered": (
        lambda: T.RMSPropOptimizer(0.1, centered=True),
        torch.optim.RMSprop,
        ("learning_rate=0.1",),
        {"square_avg": "RMSProp", "grad_avg": "RMSProp_1"},
    ),
    "adagrad": (lambda: T.AdagradOptimizer(0.1), torch.optim.Adagrad, ("learning_rate=0.1",), {"sum": "Adagrad"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_next_update_is_tensorflows(name: str, tmp_path: Path) -> None:
    optimizer, make, hyperparameters, slots = CASES[name]
    saved, expected = trained(optimizer, tmp_path)
    report = converter.convert(tmp_path / "model.ckpt", tmp_path / "out.pth", hyperparameter=hyperparameters)
    assert (report.optimizer.status, report.optimizer.step) == ("carried", STEPS)
    assert not [line for line in report.lines if line.reason == "a variable of the optimizer"]
    state, weights = resumed(tmp_path / "out.pth", lambda parameters: make(parameters, lr=1.0))
    for theirs, ours in TORCH.items():
        for slot, end in slots.items():
            np.testing.assert_array_equal(held(state)[ours][slot].numpy(), as_torch(saved[f"{theirs}/{end}"]))
        np.testing.assert_allclose(weights[ours], as_torch(expected[theirs]), rtol=1e-6, atol=1e-6)


def test_moments_that_are_never_corrected(tmp_path: Path) -> None:
    """AdamWeightDecayOptimizer of google-research/bert (optimization.py), which this repeats."""
    rate, decay, epsilon = 0.01, 0.01, 1e-6
    weights, first, second = ({name: np.float64(value) * scale for name, value in START.items()} for scale in (1, 0, 0))

    def update(gradients: Arrays) -> None:
        for name, gradient in gradients.items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * np.square(gradient)
            change = first[name] / (np.sqrt(second[name]) + epsilon)
            weights[name] = weights[name] - rate * (change + (0 if "bias" in name else decay) * weights[name])

    for gradients in GRADIENTS[:STEPS]:
        update(gradients)
    with tf.Graph().as_default(), v1.Session() as session:
        for name in SHAPES:
            for end, values in (("", weights), ("/adam_m", first), ("/adam_v", second)):
                v1.get_variable(name + end, initializer=values[name].astype(np.float32))
        v1.get_variable("global_step", initializer=np.int64(STEPS))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    report = converter.convert(tmp_path / "model.ckpt", tmp_path / "out.pth", hyperparameter=(f"lr={rate}",))
    assert "corrects moments" in " ".join(report.warnings)
    assert {line.target for line in report.lines if line.reason and "0.01" in line.reason} == {"optimizer.weight_decay"}
    moments = {name: first[name].astype(np.float32) for name in SHAPES}
    update(GRADIENTS[STEPS])
    state, found = resumed(tmp_path / "out.pth", lambda parameters: torch.optim.AdamW(parameters, lr=1.0))
    assert [group["param_names"] for group in state["param_groups"]] == [["dense.weight"], ["dense.bias"]]
    for theirs, ours in TORCH.items():
        np.testing.assert_array_equal(held(state)[ours]["exp_avg"].numpy(), as_torch(moments[theirs]))
        np.testing.assert_allclose(found[ours], as_torch(weights[theirs]), rtol=1e-6, atol=1e-6)


def test_weights_come_alone_where_the_rate_is_not_known(tmp_path: Path) -> None:
    trained(CASES["adam"][0], tmp_path)
    report = converter.convert(tmp_path / "model.ckpt", tmp_path / "out.pth")
    assert (report.optimizer.status, report.optimizer.reason) == ("dropped", "the file does not say its learning rate")
    assert "--hyperparameter learning_rate" in " ".join(report.warnings)
    assert "dense/kernel/Adam_1" in {line.name for line in report.lines if line.reason == "a variable of the optimizer"}
    assert set(torch.load(tmp_path / "out.pth", weights_only=True)) == set(TORCH.values())
    with pytest.raises(LossError, match="learning rate"):
        converter.convert(tmp_path / "model.ckpt", tmp_path / "kept.pth", optimizer="keep")


def test_powers_of_other_betas_are_refused(tmp_path: Path) -> None:
    trained(CASES["adam-betas"][0], tmp_path)
    with pytest.raises(LossError, match=r"do not fit the betas 0\.9 and 0\.999"):
        converter.convert(tmp_path / "model.ckpt", tmp_path / "out.pth", hyperparameter=("learning_rate=0.1",))


def test_the_powers_count_where_the_global_step_counts_something_else(tmp_path: Path) -> None:
    def optimizer() -> Any:
        made = T.AdamOptimizer(0.1)
        apply = made.apply_gradients
        made.apply_gradients = lambda pairs, global_step: tf.group(  # as when gradients of ten batches are added up
            apply(pairs), v1.assign_add(global_step, 10)
        )
        return made

    saved, _ = trained(optimizer, tmp_path)
    assert saved["global_step"] == 10 * STEPS
    report = converter.convert(tmp_path / "model.ckpt", tmp_path / "out.pth", hyperparameter=("learning_rate=0.1",))
    assert report.optimizer.step == STEPS
    assert "global_step is 40" in " ".join(report.warnings)


def test_moments_of_bert_have_its_names_and_layouts(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "fixtures" / "tf1" / "bert" / "model.ckpt"
    out = tmp_path / "out"
    report = converter.convert(source, out, to="pretrained", hyperparameter=("learning_rate=1e-4",))
    assert report.optimizer.status == "carried"
    assert json.loads((out / "config.json").read_text())["model_type"] == "bert"
    found = converter.read(out).optimizer
    assert found is not None
    name = "bert.encoder.layer.1.output.dense.weight"
    stored = tf.train.load_checkpoint(str(source)).get_tensor("bert/encoder/layer_1/output/dense/kernel/adam_v")
    np.testing.assert_array_equal(found.slots["exp_avg_sq"][name].numpy(), stored.T)
