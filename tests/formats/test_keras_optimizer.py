"""Optimizers of Keras 3 in every layout that it saves, against their variables in memory; then torch goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

LAYOUTS = (".keras", ".h5", ".weights.h5", "-checkpoint")
LISTS = {
    "momentum": ("_momentums", "momentums"),
    "velocity": ("_velocities",),
    "velocity_hat": ("_velocity_hats",),
    "accumulator": ("_accumulators",),
    "average_gradient": ("_average_gradients",),
}
"""Slot -> the attributes of Keras's optimizers that list its variables."""
TORCH_SLOTS = {
    "adam": {"momentum": "exp_avg", "velocity": "exp_avg_sq", "velocity_hat": "max_exp_avg_sq"},
    "sgd": {"momentum": "momentum_buffer"},
    "rmsprop": {"velocity": "square_avg", "momentum": "momentum_buffer", "average_gradient": "grad_avg"},
    "adagrad": {"accumulator": "sum"},
}
TORCH_LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


def mlp(**first: Any) -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((8,), name="x")
    here = keras.layers.Dense(16, activation="tanh", name="fc1", **first)(image)
    here = keras.layers.LayerNormalization(name="norm", epsilon=1e-5)(here)
    here = keras.layers.Dense(16, activation="tanh", name="fc2")(here)
    return keras.Model(image, keras.layers.Dense(4, name="out")(here), name="mlp")


def batches(count: int, seed: int = 0) -> Iterator[tuple[Any, Any]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield generator.normal(size=(16, 8)).astype("f4"), generator.integers(0, 4, 16)


def trained(model: Any, optimizer: Any, steps: int = 5) -> Any:
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for inputs, labels in batches(steps):
        model.train_on_batch(inputs, labels)
    return model


def saved(model: Any, layout: str, folder: Path) -> Path:
    path = folder / f"model{layout}"
    if layout == "-checkpoint":
        import tensorflow as tf

        tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(path))
        return path.with_name(path.name + ".index")
    model.save_weights(path) if layout == ".weights.h5" else model.save(path)
    return path


def as_torch(name: str, array: Any) -> tuple[str, Any]:
    path, _, leaf = name.rpartition("/")
    return f"{path.replace('/', '.')}.{TORCH_LEAVES[leaf]}", array.T


def expected_slots(model: Any) -> dict[tuple[str, str], Any]:
    """Slot and PyTorch name -> values, from the optimizer in memory."""
    found = {}
    for slot, attributes in LISTS.items():
        variables = next((held for name in attributes if (held := getattr(model.optimizer, name, None))), [])
        for weight, variable in zip(model.trainable_variables, variables, strict=bool(variables)):
            name, array = as_torch(weight.path, np.asarray(variable))
            found[slot, name] = array
    return found


OPTIMIZERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "adam": ("adam", lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    "adamw": ("adam", lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    "sgd": ("sgd", lambda: keras.optimizers.SGD(0.05, momentum=0.9)),
    "rmsprop": ("rmsprop", lambda: keras.optimizers.RMSprop(0.003, momentum=0.9, centered=True)),
    "adagrad": ("adagrad", lambda: keras.optimizers.Adagrad(0.05)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_slot_is_with_its_weight(kind: str, layout: str, tmp_path: Path) -> None:
    family, make = OPTIMIZERS[kind]
    model = trained(mlp(), make())
    # `.weights.h5` and object graphs hold no momentum coefficient, which is never assumed
    needed = {"hyperparameter": ("momentum=0.9",)} if family in ("sgd", "rmsprop") else {}
    report = converter.convert(saved(model, layout, tmp_path), tmp_path / "out.pth", **needed)
    assert (report.optimizer.status, report.optimizer.step) == ("carried", 5)
    state = converter.read(tmp_path / "out.pth").optimizer
    assert state is not None
    rate = state.groups[0].hyperparameters["lr"]
    assert rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-6)
    expected = expected_slots(model)
    assert len(expected) == sum(map(len, state.slots.values()))
    for (slot, name), array in expected.items():
        found = state.slots[TORCH_SLOTS[family][slot]][name].numpy()
        if slot == "momentum" and family != "adam":
            scaled = array / np.float32(rate if family == "rmsprop" else -rate)
            np.testing.assert_array_max_ulp(found, scaled, maxulp=1)
        else:
            assert np.array_equal(found, array), (slot, name)


@pytest.mark.parametrize("layout", [".keras", ".h5", ".weights.h5"])
def test_an_optimizer_inside_one_that_scales_losses(layout: str, tmp_path: Path) -> None:
    """What compile() makes of any optimizer under the policy mixed_float16."""
    model = trained(mlp(), keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=64.0))
    report = converter.convert(saved(model, layout, tmp_path), tmp_path / "out.pth")
    assert (report.optimizer.status, report.optimizer.algorithm, report.optimizer.step) == ("carried", "adam", 5)
    assert any("scaled by 64" in warning for warning in report.warnings)
    state = converter.read(tmp_path / "out.pth").optimizer
    assert state is not None
    inner = model.optimizer.inner_optimizer
    for slot, variables in (("exp_avg", inner._momentums), ("exp_avg_sq", inner._velocities)):
        for weight, variable in zip(model.trainable_variables, variables, strict=True):
            name, array = as_torch(weight.path, np.asarray(variable))
            assert np.array_equal(state.slots[slot][name].numpy(), array), (slot, name)


@pytest.mark.parametrize("layout", [".keras", ".h5", "-checkpoint"])
def test_weights_that_are_not_trained_have_no_state(layout: str, tmp_path: Path) -> None:
    model = trained(mlp(trainable=False), keras.optimizers.Adam(0.01))
    checkpoint = canonical(converter.read(saved(model, layout, tmp_path)))
    assert checkpoint.optimizer is not None
    names = {as_torch(variable.path, np.zeros(1))[0] for variable in model.trainable_variables}
    assert set(checkpoint.optimizer.groups[0].parameters) == names
    assert len(names) == 6


@pytest.mark.parametrize("layout", [".keras", ".weights.h5"])
def test_an_optimizer_before_its_first_step_has_no_slots(layout: str, tmp_path: Path) -> None:
    model = mlp()
    model.compile(keras.optimizers.Adam(0.03), "mse")
    report = converter.convert(saved(model, layout, tmp_path), tmp_path / "out.pth")
    assert (report.optimizer.status, report.optimizer.step) == ("carried", 0)
    optimizer = torch.optim.Adam(Network().parameters())
    optimizer.load_state_dict(torch.load(tmp_path / "out.pth")["optimizer_state_dict"])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03)


@pytest.mark.parametrize("layout", [".keras", ".weights.h5"])
def test_statistics_of_the_data_are_not_trained(layout: str, tmp_path: Path) -> None:
    normalization = keras.layers.Normalization()
    normalization.adapt(np.arange(24, dtype="f4").reshape(3, 8))
    model = keras.Sequential([keras.Input((8,)), normalization, keras.layers.Dense(4, name="dense")])
    source = saved(trained(model, keras.optimizers.Adam(0.01)), layout, tmp_path)
    checkpoint = canonical(converter.read(source))
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer.groups[0].parameters == ("dense.weight", "dense.bias")
    leaves = {re.split("[./]", name)[-1] for name in checkpoint.names}
    assert leaves == {"weight", "bias", "mean", "variance", "count"}


def test_slots_are_rearranged_as_their_weights_are(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(5, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4, name="dense"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.train_on_batch(np.ones((2, 6, 6, 3), "f4"), np.ones((2, 4), "f4"))
    for slots in (model.optimizer._momentums, model.optimizer._velocities):
        for variable, slot in zip(model.trainable_variables, slots, strict=True):
            slot.assign(variable)
    model.save(tmp_path / "model.keras")
    checkpoint = canonical(converter.read(tmp_path / "model.keras"))
    assert checkpoint.optimizer is not None
    for by_name in checkpoint.optimizer.slots.values():
        assert len(by_name) == 6
        for name, tensor in by_name.items():
            assert np.array_equal(tensor.numpy(), checkpoint.tensors[name].numpy()), name
    dense = checkpoint.tensors["dense.weight"].numpy()
    assert not np.array_equal(dense, np.asarray(model.layers[-1].kernel).T)  # else nothing was permuted


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: keras.optimizers.Nadam(0.01), "no other framework has the optimizer 'Nadam'"),
        (lambda: keras.optimizers.Adam(0.01, use_ema=True), "use_ema"),
        (lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2), "gradient_accumulation_steps"),
        (lambda: keras.optimizers.SGD(0.01, weight_decay=0.1), "decoupled"),
    ],
)
def test_what_has_no_equivalent_is_refused(make: Callable[[], Any], why: str, tmp_path: Path) -> None:
    plain = saved(trained(mlp(), keras.optimizers.Adam(0.01)), ".keras", tmp_path)
    assert converter.convert(plain, tmp_path / "plain.pth").optimizer.status == "carried"
    source = saved(trained(mlp(), make()), ".keras", tmp_path)
    with pytest.raises(LossError, match=why):
        converter.convert(source, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    assert converter.convert(source, tmp_path / "out.pth", optimizer="drop").optimizer.status == "dropped"


def test_what_a_file_lacks_is_said_and_can_be_given(tmp_path: Path) -> None:
    model = trained(mlp(), keras.optimizers.Adam(0.01, beta_1=0.8))
    source = saved(model, "-checkpoint", tmp_path)
    report = converter.convert(source, tmp_path / "out.pth")
    assumed = {line.target for line in report.lines if line.status.value == "defaulted"}
    assert assumed == {"optimizer.beta_1", "optimizer.beta_2", "optimizer.epsilon"}
    report = converter.convert(source, tmp_path / "given.pth", hyperparameter=("beta_1=0.8", "eps=1e-7"))
    assert {line.target for line in report.lines if line.status.value == "defaulted"} == {"optimizer.beta_2"}
    state = converter.read(tmp_path / "given.pth").optimizer
    assert state is not None
    assert state.groups[0].hyperparameters["betas"] == (0.8, 0.999)


def test_momentum_is_never_assumed(tmp_path: Path) -> None:
    source = saved(trained(mlp(), keras.optimizers.SGD(0.01, momentum=0.9)), ".weights.h5", tmp_path)
    with pytest.raises(LossError, match="--hyperparameter momentum"):
        converter.convert(source, tmp_path / "out.pth")


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm = torch.nn.Linear(8, 16), torch.nn.LayerNorm(16)
        self.fc2, self.out = torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)

    def forward(self, inputs: Any) -> Any:
        return self.out(torch.tanh(self.fc2(self.norm(torch.tanh(self.fc1(inputs))))))


RESUMED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], float]] = {
    "adamw": (lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), torch.optim.AdamW, 2e-5),
    "sgd": (lambda: keras.optimizers.SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, momentum=0.9), 2e-6),
    "rmsprop": (lambda: keras.optimizers.RMSprop(0.003, momentum=0.5), torch.optim.RMSprop, 2e-5),
}


def resumed(checkpoint: Any, optimizer_class: Callable[[Any], Any], *, is_reset: bool) -> list[float]:
    network = Network()
    network.load_state_dict(checkpoint["model_state_dict"])
    optimizer = optimizer_class(network.parameters())
    state = checkpoint["optimizer_state_dict"]
    optimizer.load_state_dict({**state, "state": {}} if is_reset else state)
    losses = []
    for inputs, labels in batches(20, seed=1):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(torch.tensor(inputs)), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", RESUMED)
def test_torch_goes_on_where_keras_stopped(kind: str, tmp_path: Path) -> None:
    make, optimizer_class, limit = RESUMED[kind]
    model = trained(mlp(), make(), steps=20)
    model.save(tmp_path / "model.keras")
    converter.convert(tmp_path / "model.keras", tmp_path / "out.pth")
    losses = []
    for inputs, labels in batches(20, seed=1):
        model.reset_metrics()  # else what is reported is a mean
        losses.append(float(model.train_on_batch(inputs, labels)))
    checkpoint = torch.load(tmp_path / "out.pth", weights_only=True)

    def worst(ours: list[float]) -> float:
        return float(max(abs(a - b) / b for a, b in zip(ours, losses, strict=True)))

    assert worst(resumed(checkpoint, optimizer_class, is_reset=False)) <= limit
    assert worst(resumed(checkpoint, optimizer_class, is_reset=True)) >= 5e-3


def test_the_rate_of_a_schedule_is_that_of_the_next_step(tmp_path: Path) -> None:
    schedules = keras.optimizers.schedules
    for schedule in (
        schedules.ExponentialDecay(0.1, 3, 0.5, staircase=True),
        schedules.InverseTimeDecay(0.1, 3, 0.5),
        schedules.PiecewiseConstantDecay([4, 5, 9], [0.4, 0.3, 0.2, 0.1]),
        schedules.PolynomialDecay(0.1, 4, 0.01, power=2.0, cycle=True),
        schedules.CosineDecay(0.1, 20, alpha=0.1, warmup_target=0.3, warmup_steps=2),
        schedules.CosineDecay(0.1, 20, warmup_target=0.3, warmup_steps=9),
        schedules.CosineDecayRestarts(0.1, 2, t_mul=1.5, m_mul=0.7, alpha=0.1),
        schedules.CosineDecayRestarts(0.1, 2, t_mul=1.0, m_mul=0.9),
    ):
        path = saved(trained(mlp(), keras.optimizers.Adam(schedule)), ".keras", tmp_path)
        checkpoint: Checkpoint = canonical(converter.read(path))
        assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
        rate = checkpoint.optimizer.groups[0].hyperparameters["lr"]
        assert rate == pytest.approx(float(schedule(5)), rel=1e-6), schedule


class OfOnesOwn(keras.Model):  # type: ignore[misc]
    """A class whose weights are all called `of_ones_own/kernel` in an object graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = keras.layers.Dense(8), keras.layers.Dense(8)

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))


def test_slots_of_a_users_class_go_by_the_lists_of_its_optimizer(tmp_path: Path) -> None:
    model = OfOnesOwn()
    model(np.zeros((1, 8)))
    trained(model, keras.optimizers.Adam(0.01))
    state = converter.read(saved(model, "-checkpoint", tmp_path)).optimizer
    assert state is not None
    for name, layer in (("model/first/_kernel", 0), ("model/second/_kernel", 2)):
        expected = np.asarray(model.optimizer._momentums[layer])
        np.testing.assert_array_equal(state.slots["momentum"][name].numpy(), expected)
