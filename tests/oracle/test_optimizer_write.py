"""Optimizers of torch.optim written for tf_keras, new and legacy: it loads them, holds what was meant, and goes on.

Needs the second environment (tests/oracle/environment.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from tests.oracle import environment

if not environment.PYTHON:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

torch = pytest.importorskip("torch")
pytest.importorskip("keras")

from tests.formats.test_keras_optimizer_write import Network, batches, losses, saved, two_groups  # noqa: E402

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda network: torch.optim.Adam(network.parameters(), 0.01, amsgrad=True),
    "adamw": lambda network: torch.optim.AdamW(two_groups(network), 0.01),
    "sgd": lambda network: torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True),
    "plain": lambda network: torch.optim.SGD(network.parameters(), 0.05),
    "rmsprop": lambda network: torch.optim.RMSprop(network.parameters(), 0.001, momentum=0.5, centered=True),
    "root": lambda network: torch.optim.RMSprop(network.parameters(), 0.003),
    "adagrad": lambda network: torch.optim.Adagrad(network.parameters(), 0.05),
}
LIMITS = {"sgd": 2e-6, "plain": 2e-6}
NAMES = {
    "m": "exp_avg",
    "v": "exp_avg_sq",
    "vhat": "max_exp_avg_sq",
    "velocity": "square_avg",
    "rms": "square_avg",
    "momentum": "momentum_buffer",
    "average_gradient": "grad_avg",
    "mg": "grad_avg",
    "accumulator": "sum",
}
"""What tf_keras calls a slot, new or legacy, and what torch.optim does."""
SLOTS = frozenset(NAMES.values())
LAYERS = ("fc1", "norm", "fc2", "out")
STEPS = 20


def config(version: str) -> dict[str, Any]:
    """The config of the network's twin, as model.to_json() of a version of Keras 2 has it."""

    def dense(name: str, units: int, activation: str) -> dict[str, Any]:
        return {"class_name": "Dense", "config": {"name": name, "units": units, "activation": activation}}

    inputs = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8], "dtype": "float32", "name": "x"}}
    layers = [
        dense("fc1", 16, "tanh"),
        {"class_name": "LayerNormalization", "config": {"name": "norm", "axis": [1], "epsilon": 1e-5}},
        dense("fc2", 16, "tanh"),
        dense("out", 4, "linear"),
    ]
    before = ("x", *LAYERS)
    for layer, name, earlier in zip(layers, LAYERS, before, strict=False):
        layer |= {"name": name, "inbound_nodes": [[[earlier, 0, 0, {}]]]}
    held = [{**inputs, "name": "x", "inbound_nodes": []}, *layers]
    places = {"input_layers": [["x", 0, 0]], "output_layers": [["out", 0, 0]]}
    functional = {"class_name": "Functional", "config": {"name": "mlp", "trainable": True, "layers": held, **places}}
    return {**functional, "keras_version": version, "backend": "tensorflow"}


CASES = {
    f"{kind}-{layout}-{version}-{epsilon}": (kind, layout, version, epsilon)
    for kind in OPTIMIZERS
    for layout, version, epsilon in (
        ("h5", "2.21.0", "stock"),
        ("h5", "2.21.0", "exact"),
        ("keras", "2.21.0", "stock"),
        ("tf-checkpoint", "2.21.0", "stock"),
        ("h5", "2.9.0", "stock"),
        ("tf-checkpoint", "2.9.0", "stock"),
    )
    if not (kind == "adamw" and version == "2.9.0")  # which has none
    and not (epsilon == "exact" and not kind.startswith("adam"))
    and not (layout == "keras" and kind not in ("adam", "sgd"))
    and not (layout == "tf-checkpoint" and kind in ("plain", "root"))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case, written, loaded by tf_keras and trained on."""
    base = tmp_path_factory.mktemp("optimizers")
    inputs, labels = map(np.stack, zip(*batches(STEPS, seed=1), strict=True))
    for case, (kind, layout, version, epsilon) in CASES.items():
        torch.manual_seed(0)
        network = Network()
        optimizer = OPTIMIZERS[kind](network)
        losses(network, optimizer, STEPS, seed=0)
        here = base / case
        here.mkdir()
        (base / f"{case}.json").write_text(json.dumps(config(version)))
        source = saved(network, optimizer, base)
        target = here if layout == "tf-checkpoint" else here / f"model.{layout}"
        more = {} if layout == "tf-checkpoint" else {"epsilon": epsilon}
        report = converter.convert(source, target, to=layout, config=base / f"{case}.json", **more)
        assert report.optimizer.status == "carried"
        (here / "config.json").write_text(json.dumps(config(version)))
        apart = ["fc1/bias", "norm/gamma", "norm/beta", "fc2/bias", "out/bias"] if kind == "adamw" else []
        np.savez(here / "batches.npz", inputs=inputs, labels=labels, without_decay=np.array(apart, dtype=str))
        np.savez(base / f"{case}.npz", **dict(held(network, optimizer)))
        np.savez(here / "expected.npz", losses=np.array(losses(network, optimizer, STEPS, seed=1)))
    environment.run("tests.oracle.optimizer_loading", str(base), timeout_seconds=600)
    return base


def held(network: Any, optimizer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the state of an optimizer of torch.optim as tf_keras is to have it: slot and variable -> values."""
    norm = {"norm.weight": "norm/gamma", "norm.bias": "norm/beta"}
    for name, parameter in network.named_parameters():
        variable = norm.get(name, name.replace(".weight", "/kernel").replace(".bias", "/bias"))
        for slot, value in optimizer.state[parameter].items():
            if slot in SLOTS and value is not None:
                rate = optimizer.param_groups[0]["lr"] if slot == "momentum_buffer" else 1
                sign = -1 if isinstance(optimizer, torch.optim.SGD) and slot == "momentum_buffer" else 1
                yield f"{slot}|{variable}", value.numpy().T * np.float32(sign * rate)


def slot_of(name: str, kind: str) -> str:
    """Return which slot of torch.optim a variable of tf_keras is, and which weight's, as `held` calls it."""
    parts = name.removesuffix(":0").split("/")
    layer = next(at for at, part in enumerate(parts) if part in LAYERS)
    token = (parts[layer + 2 :] or [parts[layer - 1]])[0]  # legacy optimizers have it last
    slot = "momentum_buffer" if kind in ("sgd", "plain") else NAMES[token]
    return f"{slot}|{parts[layer]}/{parts[layer + 1]}"


@pytest.mark.parametrize("case", CASES)
def test_tf_keras_holds_what_was_written_and_goes_on(case: str, folder: Path) -> None:
    kind, *_ = CASES[case]
    error = folder / case / "error.txt"
    assert not error.exists(), error.read_text()
    found, expected = np.load(folder / case / "found.npz"), np.load(folder / case / "expected.npz")["losses"]
    variables = {name.partition("/")[2]: found[name] for name in found.files if name != "losses"}
    (step,) = (array for array in variables.values() if array.shape == () and array.dtype == np.int64)
    assert int(step) == (0 if kind in LIMITS else STEPS)
    slots = {slot_of(name, kind): array for name, array in variables.items() if array.shape != ()}
    meant = np.load(folder / f"{case}.npz")
    if kind == "plain":
        assert not any(array.any() for array in slots.values())
    else:
        assert slots.keys() == set(meant.files)
    for name in meant.files:
        np.testing.assert_array_max_ulp(slots[name], meant[name], maxulp=1 if name.startswith("momentum") else 0)
    worst = float(np.max(np.abs(found["losses"] - expected) / expected))
    assert worst <= LIMITS.get(kind, 2e-5), worst
