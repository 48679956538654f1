"""Files as Keras 1.2.2 writes them, for tests: configs and arrays as its layers have them, without Keras 1 itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]


def layer(class_name: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return a layer of a config."""
    return {"class_name": class_name, "config": {"name": name, "trainable": True, **settings}}


def convolution(
    class_name: str, name: str, dim_ordering: str, window: Sequence[int], **settings: Any
) -> dict[str, Any]:
    """Return a convolution of a config, with the settings that all have."""
    names = ("kernel_dim1", "kernel_dim2", "kernel_dim3") if len(window) == 3 else ("nb_row", "nb_col")
    plain = {"init": "glorot_uniform", "activation": "linear", "border_mode": "valid", "bias": True}
    plain |= {"subsample": [1] * len(window), "b_regularizer": None, "b_constraint": None}
    return layer(
        class_name,
        name,
        **{**plain, "dim_ordering": dim_ordering, **dict(zip(names, window, strict=True)), **settings},
    )


def recurrent(class_name: str, name: str, units: int, **settings: Any) -> dict[str, Any]:
    """Return a recurrent layer of a config."""
    plain = {"output_dim": units, "init": "glorot_uniform", "inner_init": "orthogonal", "activation": "tanh"}
    plain |= {"return_sequences": True, "go_backwards": False, "stateful": False, "unroll": False}
    plain |= {"W_regularizer": None, "U_regularizer": None, "b_regularizer": None, "dropout_W": 0.0, "dropout_U": 0.0}
    if class_name != "SimpleRNN":
        plain["inner_activation"] = "hard_sigmoid"
    return layer(
        class_name, name, **{**plain, "consume_less": "cpu", "input_dim": None, "input_length": None, **settings}
    )


def placed(entry: dict[str, Any], *inputs: str) -> dict[str, Any]:
    """Return a layer as a functional model lists it."""
    calls = [[[each, 0, 0] for each in inputs]] if inputs else []
    return {**entry, "name": entry["config"]["name"], "inbound_nodes": calls}


def source(name: str, shape: Sequence[int | None], dtype: str = "float32") -> dict[str, Any]:
    """Return the input of a functional model."""
    config = {"name": name, "batch_input_shape": [None, *shape], "input_dtype": dtype, "sparse": False}
    return placed({"class_name": "InputLayer", "config": config})


def functional(layers: Sequence[Mapping[str, Any]], output: str) -> dict[str, Any]:
    """Return the config of a functional model."""
    inputs = [[each["name"], 0, 0] for each in layers if each["class_name"] == "InputLayer"]
    own = {"name": "model_1", "layers": [*layers], "input_layers": inputs, "output_layers": [[output, 0, 0]]}
    return {"class_name": "Model", "config": own}


def sequential(*layers: dict[str, Any], shape: Sequence[int | None], dtype: str = "float32") -> dict[str, Any]:
    """Return the config of a Sequential, whose first layer says the input."""
    first = {**layers[0], "config": {**layers[0]["config"], "batch_input_shape": [None, *shape], "input_dtype": dtype}}
    return {"class_name": "Sequential", "config": [first, *layers[1:]]}


def write(path: Path, config: dict[str, Any] | None, weights: Mapping[str, Arrays], *, is_theano: bool = False) -> Path:
    """Write a whole model, or weights where there is no config; only TensorFlow's names end in ``:0``."""
    suffix = "" if is_theano else ":0"
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["keras_version"] = b"1.2.2"
            file.attrs["model_config"] = json.dumps(config).encode()
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = [(called + suffix).encode() for called in arrays]
            for called, array in arrays.items():
                own.create_dataset(called + suffix, data=array)
    return path


def drawn(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return numbers of a shape, the same for a seed."""
    return np.random.default_rng([*shape, seed]).normal(0, 0.5, shape).astype(np.float32)


def gates(name: str, stored: str, inputs: int, units: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a recurrent layer as they are listed, those of each gate together."""
    shapes = {"W": (inputs, units), "U": (units, units), "b": (units,)}
    return {f"{name}_{kind}_{gate}": drawn(*shape, seed=ord(gate)) for gate in stored for kind, shape in shapes.items()}


def convolved(x: Any, kernel: Any, dim_ordering: str, *, is_theano: bool) -> Any:
    """Convolve without padding in two dimensions, as the equations of Keras 1's two backends say."""
    if dim_ordering == "tf":  # kernel [rows, columns, in, out], maps with channels last
        first = convolved(np.moveaxis(x, -1, 1), kernel.transpose(3, 2, 0, 1), "th", is_theano=is_theano)
        return np.moveaxis(first, 1, -1)
    rows, columns = kernel.shape[2:]
    height, width = x.shape[2] - rows + 1, x.shape[3] - columns + 1
    result = np.zeros((len(x), len(kernel), height, width))
    for row in range(rows):
        for column in range(columns):
            part = kernel[:, :, rows - 1 - row, columns - 1 - column] if is_theano else kernel[:, :, row, column]
            result += np.einsum("nihw,oi->nohw", x[:, :, row : row + height, column : column + width], part)
    return result


def hard_sigmoid(x: Any) -> Any:
    """Return the function as it was before Keras 3."""
    return np.clip(0.2 * x + 0.5, 0, 1)


def sigmoid(x: Any) -> Any:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def lstm(x: Any, name: str, arrays: Arrays, gate: Any = hard_sigmoid) -> Any:
    """Return the outputs of an LSTM of Keras 1, one for each step."""
    parts = {each: [arrays[f"{name}_{kind}_{each}"] for kind in "WUb"] for each in "ifco"}
    h = c = np.zeros((len(x), parts["i"][1].shape[0]))
    outputs = []
    for step in range(x.shape[1]):
        z = {each: x[:, step] @ w + h @ u + b for each, (w, u, b) in parts.items()}
        c = gate(z["f"]) * c + gate(z["i"]) * np.tanh(z["c"])
        h = gate(z["o"]) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def gru(x: Any, name: str, arrays: Arrays) -> Any:
    """Return the outputs of a GRU of Keras 1, one for each step."""
    parts = {each: [arrays[f"{name}_{kind}_{each}"] for kind in "WUb"] for each in "zrh"}
    h = np.zeros((len(x), parts["z"][1].shape[0]))
    outputs = []
    for step in range(x.shape[1]):
        z, r = (hard_sigmoid(x[:, step] @ w + h @ u + b) for w, u, b in (parts["z"], parts["r"]))
        w, u, b = parts["h"]
        h = z * h + (1 - z) * np.tanh(x[:, step] @ w + (r * h) @ u + b)
        outputs.append(h)
    return np.stack(outputs, 1)
