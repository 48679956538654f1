"""Targets as torch and Keras 3 go on training them: tasks on standard input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.migrations.judge_here import of_keras3, transformers_config
from tests.migrations.judging import Arrays, Case, Judge, WrongError, answer
from tests.migrations.steps import of_tensorflow, of_torch

Compute = Callable[[], dict[str, Any]]


def pytorch(case: Case) -> Arrays:
    """Load as a script does: the model's state strictly, and the optimizer's by the names that it says."""
    import torch

    read = torch.load(case.path, weights_only=True)
    parameters, compute = _of_keras_layers(case, read) if case.source.maker == "keras3" else _of_a_class(case, read)
    saved = read["optimizer_state_dict"]
    named = [group.get("param_names", list(parameters)) for group in saved["param_groups"]]
    groups = [{"params": [parameters[name] for name in names]} for names in named]
    optimizer = getattr(torch.optim, case.source.optimizer)(groups)
    optimizer.load_state_dict(saved)
    epsilon = None if case.source.maker == "torch" else 1e-7
    found = of_torch(optimizer, compute, epsilon_of_keras=epsilon)
    return {name: value.numpy() for name, value in found.items()}


def _of_keras_layers(case: Case, read: Any) -> tuple[dict[str, Any], Compute]:
    import torch

    state = {name: torch.nn.Parameter(value) for name, value in read["model_state_dict"].items()}
    return state, lambda: of_keras3(case, state)


def _of_a_class(case: Case, read: Any) -> tuple[dict[str, Any], Compute]:
    import torch
    import transformers

    model = getattr(transformers, case.source.model)(transformers_config(case)).eval()
    if case.source.maker == "tensorflow":
        _train_padding_rows(model)
    names = set(model.state_dict())
    state = read["model_state_dict"]
    model.load_state_dict({name: value for name, value in state.items() if name in names}, strict=True)
    heads = {name: torch.nn.Parameter(value) for name, value in state.items() if name not in names}
    inputs = {name: torch.tensor(value) for name, value in case.inputs.items()}

    def states(ids: str, mask: str) -> Any:
        return model(input_ids=inputs[ids].long(), attention_mask=inputs[mask].long()).last_hidden_state

    def compute() -> dict[str, Any]:
        if case.source.head:
            return {"": _headed(case, states, heads, inputs)}
        outputs = model(**{name: value.long() for name, value in inputs.items()})
        return {name: outputs[name] for name in case.outputs}

    return {**dict(model.named_parameters()), **heads}, compute


def _train_padding_rows(model: Any) -> None:
    """As TensorFlow's classes do; README says so."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None


def _headed(case: Case, states: Any, heads: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """What judging.outputs_with_heads computes, with gradients."""
    import torch
    from torch.nn import functional

    def dense(x: Any) -> Any:
        weight, bias = (next(each for each in heads.values() if each.ndim == ndim) for ndim in (2, 1))
        return functional.linear(x, weight, bias)

    if case.source.head.startswith("siamese"):
        a, b = (states(f"input_{each}", f"mask_{each}")[:, 0] for each in "ab")
        if case.source.head == "siamese_similarity":
            a, b = dense(a).relu(), dense(b).relu()
        return -functional.cosine_similarity(a, b, eps=1e-12)
    found = states("input_ids", "attention_mask")
    state = found.mean(1) if case.source.head == "mean" else found[:, 0]
    if "numerical_features" in inputs:
        state = torch.cat([state, inputs["numerical_features"]], 1)
    values = dense(state)
    return values.sigmoid() if values.shape[1] == 1 else values.softmax(-1)


def keras(case: Case) -> Arrays:
    """Open what is whole; build and compile what is weights as its author would."""
    import keras

    from tests.migrations import keras3_models

    if case.target == "keras":
        model = keras.models.load_model(case.path, custom_objects=keras3_models.OWN, safe_mode=False)
        if model.optimizer is None:
            raise WrongError("it has no optimizer")
    else:
        model = getattr(keras3_models, case.source.group)()
        model.compile(optimizer=getattr(keras.optimizers, case.source.optimizer)(1e-3), loss="mse")
        model.optimizer.build(model.trainable_variables)
        model.load_weights(case.path)
    inputs = dict(case.inputs)
    found = of_tensorflow(model, model.optimizer, lambda: {"": model(inputs)})
    return {name: np.asarray(value) for name, value in found.items()}


JUDGES: dict[str, Judge] = {"pytorch": pytorch, "keras": keras, "h5": keras}

if __name__ == "__main__":
    answer(JUDGES)
