"""Optimizers of torch.optim written for Keras 3, which loads them and goes on; and the way back."""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import LossError, UsageError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

KERAS_SLOTS = {
    "exp_avg": "_momentums",
    "exp_avg_sq": "_velocities",
    "max_exp_avg_sq": "_velocity_hats",
    "momentum_buffer": ("momentums", "_momentums"),
    "square_avg": "_velocities",
    "grad_avg": "_average_gradients",
    "sum": "_accumulators",
}
LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm = torch.nn.Linear(8, 16), torch.nn.LayerNorm(16)
        self.fc2, self.out = torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)

    def forward(self, inputs: Any) -> Any:
        return self.out(torch.tanh(self.fc2(self.norm(torch.tanh(self.fc1(inputs))))))


def model() -> Any:
    image = keras.Input((8,), name="x")
    here = keras.layers.Dense(16, activation="tanh", name="fc1")(image)
    here = keras.layers.LayerNormalization(name="norm", epsilon=1e-5)(here)
    here = keras.layers.Dense(16, activation="tanh", name="fc2")(here)
    return keras.Model(image, keras.layers.Dense(4, name="out")(here), name="mlp")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(model().to_json())
    return path


def batches(count: int, seed: int = 0) -> Iterator[tuple[Any, Any]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield generator.normal(size=(16, 8)).astype("f4"), generator.integers(0, 4, 16)


def two_groups(network: Any) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() < 2]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda network: torch.optim.Adam(network.parameters(), 0.01, betas=(0.8, 0.99), eps=1e-6, amsgrad=True),
    "adamw": lambda network: torch.optim.AdamW(network.parameters(), 0.01, weight_decay=0.1),
    "two groups": lambda network: torch.optim.AdamW(two_groups(network), 0.01),
    "sgd": lambda network: torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True),
    "sgd without momentum": lambda network: torch.optim.SGD(network.parameters(), 0.05),
    "rmsprop": lambda network: torch.optim.RMSprop(network.parameters(), 0.003),
    "centered": lambda network: torch.optim.RMSprop(network.parameters(), 0.001, momentum=0.5, centered=True),
    "adagrad": lambda network: torch.optim.Adagrad(network.parameters(), 0.05),
}
SCALED = {"sgd": -1, "centered": 1}


def losses(network: Any, optimizer: Any, steps: int, seed: int) -> list[float]:
    found = []
    for inputs, labels in batches(steps, seed):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(torch.tensor(inputs)), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def load_own_optimizers() -> None:
    importlib.import_module("converter.keras_optimizers")


def trained(kind: str, steps: int = 5) -> tuple[Any, Any]:
    torch.manual_seed(0)
    network = Network()
    optimizer = OPTIMIZERS[kind](network)
    losses(network, optimizer, steps, seed=0)
    return network, optimizer


def saved(network: Any, optimizer: Any, folder: Path) -> Path:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    state = copy.deepcopy(optimizer.state_dict())
    for group, held in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group["param_names"] = [names[id(parameter)] for parameter in held["params"]]
    path = folder / "source.pth"
    torch.save({"model_state_dict": network.state_dict(), "optimizer_state_dict": state}, path)
    return path


def written(source: Path, target: str, config: Path, folder: Path, **options: Any) -> tuple[Path, Any]:
    path = folder / f"model{target}"
    to = {"-checkpoint": "tf-checkpoint", "-savedmodel": "savedmodel"}.get(target)
    return path, converter.convert(source, path, to=to, config=config, **{"overwrite": True, **options})


def loaded(path: Path, make: Callable[[], Any] = lambda: None) -> Any:
    """What Keras makes of a file: the model, compiled with the optimizer in it.

    A checkpoint has no classes: the model is what `make` makes, and its optimizer what the record says. Of its HDF5
    files Keras restores no moments, since it builds the optimizer for no variables; here it is built for all.
    """
    if path.suffix == ".h5":
        going = keras.models.load_model(path)
        optimizer = type(going.optimizer).from_config(going.optimizer.get_config())
        optimizer.build(going.trainable_variables)
        with h5py.File(path) as file:
            held = file["optimizer_weights"]
            optimizer.set_weights([held[name][()] for name in held.attrs["weight_names"]])
        going.compile(optimizer=optimizer)
        return going
    if not path.is_dir():
        return keras.models.load_model(path)
    import tensorflow as tf

    going = make()
    recorded = json.loads((path / "ckconv.json").read_text())["optimizer"]
    optimizer = getattr(keras.optimizers, recorded["class_name"]).from_config(recorded["config"])
    optimizer.build(going.trainable_variables)
    tf.train.Checkpoint(model=going, optimizer=optimizer).restore(str(path / "ckpt")).assert_consumed()
    going.compile(optimizer=optimizer)
    return going


def torch_name(variable: Any) -> str:
    path, _, leaf = variable.path.rpartition("/")
    return f"{path.replace('/', '.')}.{LEAVES[leaf]}"


def check_slots(found: Any, kind: str, network: Any, optimizer: Any) -> None:
    """Compare the variables of a Keras optimizer with the state of one of torch.optim."""
    names = dict(network.named_parameters())
    rate = optimizer.param_groups[0]["lr"]
    compared = 0
    for position, variable in enumerate(found._trainable_variables):
        state = optimizer.state[names[torch_name(variable)]]
        for slot, attributes in KERAS_SLOTS.items():
            if state.get(slot) is None:
                continue
            listed = (attributes,) if isinstance(attributes, str) else attributes
            held = next(own for name in listed if (own := getattr(found, name, None)))
            array, expected = np.asarray(held[position]), state[slot].numpy().T
            if slot == "momentum_buffer":
                np.testing.assert_array_max_ulp(array, expected * np.float32(SCALED[kind] * rate), maxulp=1)
            else:
                assert np.array_equal(array, expected), (slot, variable.path)
            compared += 1
    held = [value for state in optimizer.state.values() for slot, value in state.items() if slot != "step"]
    assert compared == len([value for value in held if value is not None])


def decaying(found: Any) -> set[str]:
    return {torch_name(variable) for variable in found._trainable_variables if found._use_weight_decay(variable)}


@pytest.mark.parametrize("target", [".keras", ".h5", "-checkpoint"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_keras_loads_the_optimizer(kind: str, target: str, config: Path, tmp_path: Path) -> None:
    network, optimizer = trained(kind)
    path, report = written(saved(network, optimizer, tmp_path), target, config, tmp_path)
    assert report.optimizer.status == "carried"
    found = loaded(path, model).optimizer
    is_counted = not kind.startswith("sgd")
    assert int(found.iterations) == (5 if is_counted else 0)
    assert float(found.learning_rate) == np.float32(optimizer.param_groups[0]["lr"])
    check_slots(found, kind, network, optimizer)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("target", [".keras", ".weights.h5", ".h5", "-checkpoint"])
def test_there_and_back(kind: str, target: str, config: Path, tmp_path: Path) -> None:
    network, optimizer = trained(kind)
    path, _ = written(saved(network, optimizer, tmp_path), target, config, tmp_path)
    converter.convert(path, tmp_path / "back.pth")
    check_back(tmp_path / "back.pth", kind, network, optimizer)


def check_back(path: Path, kind: str, network: Any, optimizer: Any) -> None:
    """Compare a checkpoint of torch with what it once was: slots, step, and what both frameworks have."""
    state = converter.read(path).optimizer
    assert state is not None
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        named = {names[id(parameter)] for parameter in group["params"]}
        (back,) = [own for own in state.groups if set(own.parameters) == named]
        for name in {*back.hyperparameters} - {"params", "foreach", "fused", "decoupled_weight_decay"}:
            ours, theirs = back.hyperparameters[name], group[name]
            assert ours == theirs or np.allclose(ours, theirs, rtol=1e-6 if name == "eps" else 6e-8, atol=0), name
    for parameter, held in optimizer.state.items():
        for slot, value in held.items():
            if slot == "step":
                assert state.step == int(value)
            elif value is not None:
                found = state.slots[slot][names[id(parameter)]].numpy()
                np.testing.assert_array_max_ulp(found, value.numpy(), maxulp=1 if slot == "momentum_buffer" else 0)


RESUMED = {"adam": 2e-5, "two groups": 2e-5, "sgd": 2e-6, "rmsprop": 2e-5, "centered": 2e-5, "adagrad": 2e-5}


@pytest.mark.parametrize("epsilon", ["stock", "exact"])
@pytest.mark.parametrize("kind", RESUMED)
def test_keras_goes_on_where_torch_stopped(kind: str, epsilon: str, config: Path, tmp_path: Path) -> None:
    """`compile` with a loss keeps the optimizer that the file has; its state is what makes the losses agree."""
    network, optimizer = trained(kind, steps=20)
    path, _ = written(saved(network, optimizer, tmp_path), ".keras", config, tmp_path, epsilon=epsilon)
    if epsilon == "exact":
        load_own_optimizers()
    expected = losses(network, optimizer, 20, seed=1)
    apart = [name for name, parameter in network.named_parameters() if parameter.dim() < 2]

    def resumed(*, is_reset: bool) -> float:
        going = loaded(path)
        if is_reset:
            for variable in going.optimizer.variables[2:]:
                variable.assign(np.zeros(variable.shape, "f4"))
        if kind == "two groups" and epsilon == "stock":
            going.optimizer.exclude_from_weight_decay(
                var_list=[variable for variable in going.trainable_variables if torch_name(variable) in apart]
            )
        return difference(going, expected)

    assert resumed(is_reset=False) <= RESUMED[kind]
    assert resumed(is_reset=True) >= 5e-3


def difference(going: Any, expected: list[float]) -> float:
    """Train a loaded model, and return how far its losses are from the expected ones, relative to them."""
    going.compile(optimizer=going.optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = []
    for inputs, labels in batches(len(expected), seed=1):
        going.reset_metrics()  # else what is reported is a mean
        found.append(float(going.train_on_batch(inputs, labels)))
    return max(abs(ours - theirs) / theirs for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "adagrad"])
def test_an_exact_epsilon_is_exact_however_large(kind: str, config: Path, tmp_path: Path) -> None:
    load_own_optimizers()
    network, optimizer = trained(kind, steps=20)
    for group in optimizer.param_groups:
        group["eps"] = 1e-2
    source = saved(network, optimizer, tmp_path)
    expected = losses(network, optimizer, 20, seed=1)
    found = {}
    for epsilon in ("stock", "exact"):
        path, _ = written(source, ".keras", config, tmp_path, epsilon=epsilon)
        found[epsilon] = difference(loaded(path), expected)
    assert found["exact"] <= 2e-5
    assert found["stock"] >= 1e-4  # else the two would not differ


def test_weights_that_do_not_decay(config: Path, tmp_path: Path) -> None:
    """Keras's own optimizers do not save them; the report says so, and the optimizers of this project do."""
    network, optimizer = trained("two groups")
    source = saved(network, optimizer, tmp_path)
    names = {name for name, _ in network.named_parameters()}
    path, report = written(source, ".keras", config, tmp_path)
    assert decaying(loaded(path).optimizer) == names
    assert any("exclude_from_weight_decay" in warning for warning in report.warnings)
    path, report = written(source, ".keras", config, tmp_path, epsilon="exact")
    assert not any("exclude_from_weight_decay" in warning for warning in report.warnings)
    load_own_optimizers()
    going = loaded(path)
    assert decaying(going.optimizer) == {name for name in names if network.get_parameter(name).dim() > 1}
    going.save(tmp_path / "again.keras")
    converter.convert(tmp_path / "again.keras", tmp_path / "back.pth")
    check_back(tmp_path / "back.pth", "two groups", network, optimizer)


def test_weights_file_goes_into_a_compiled_model(config: Path, tmp_path: Path) -> None:
    network, optimizer = trained("adamw")
    path, _ = written(saved(network, optimizer, tmp_path), ".weights.h5", config, tmp_path)
    going = model()
    going.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    going.optimizer.build(going.trainable_variables)
    going.load_weights(path)
    check_slots(going.optimizer, "adamw", network, optimizer)
    assert int(going.optimizer.iterations) == 5


@pytest.mark.parametrize("target", ["-savedmodel", "-checkpoint", ".h5", ".weights.h5"])
def test_files_with_names_of_torch_keep_the_state_as_it_is(target: str, tmp_path: Path) -> None:
    network, optimizer = trained("two groups")
    source, path = saved(network, optimizer, tmp_path), tmp_path / f"model{target}"
    to = {"-checkpoint": "tf-checkpoint", "-savedmodel": "savedmodel"}.get(target)
    report = converter.convert(source, path, to=to, weights_only=True)
    assert report.optimizer.status == "carried"
    converter.convert(path, tmp_path / "back.pth")
    assert converter.diff(source, tmp_path / "back.pth").is_same
    if target == "-savedmodel":
        check_slots_of_saved_model(path, network, optimizer)


def check_slots_of_saved_model(path: Path, network: Any, optimizer: Any) -> None:
    import tensorflow as tf

    going = tf.saved_model.load(str(path))
    slots = {variable.name.removesuffix(":0"): variable for variable in going.optimizer.variables}
    assert not any(variable.trainable for variable in slots.values())
    assert not {variable.name for variable in going.variables} & slots.keys()
    for name, parameter in network.named_parameters():
        for slot in ("exp_avg", "exp_avg_sq"):
            assert np.array_equal(slots[f"adamw/{slot}/{name}"].numpy(), optimizer.state[parameter][slot].numpy())
    assert len(slots) == 2 * len(list(network.parameters()))


def cnn() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D(3, name="deep"),
            layers.SeparableConv2D(4, 2, name="apart"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="dense"),
        ],
        name="cnn",
    )


def encoder() -> Any:
    layers = keras.layers
    ids = keras.Input((5,), dtype="int32", name="ids")
    here = layers.Embedding(11, 8, name="embedding")(ids)
    here = layers.MultiHeadAttention(2, 4, name="attention")(here, here)
    here = layers.LayerNormalization(name="norm")(here)
    here = layers.Bidirectional(layers.GRU(3, name="gru"), name="both")(here)
    inner = keras.Model(ids, layers.Dense(4, name="inner_dense")(here), name="inner")
    outer = keras.Input((5,), dtype="int32", name="words")
    return keras.Model(outer, layers.Dense(2, name="dense")(inner(outer)), name="outer")


@pytest.mark.parametrize("target", [".keras", ".h5", "-checkpoint"])
@pytest.mark.parametrize("make", [cnn, encoder])
def test_slots_go_where_their_weights_go(make: Callable[[], Any], target: str, tmp_path: Path) -> None:
    """A slot that equals its weight in Keras is rearranged on the way to PyTorch, and must equal it on the way back."""
    going = make()
    going.compile(optimizer=keras.optimizers.Adam(0.01))
    going.optimizer.build(going.trainable_variables)
    for slots in (going.optimizer._momentums, going.optimizer._velocities):
        for variable, slot in zip(going.trainable_variables, slots, strict=True):
            slot.assign(variable)
    going.save(tmp_path / "source.keras")
    converter.convert(tmp_path / "source.keras", tmp_path / "there.pth")
    state = converter.read(tmp_path / "there.pth")
    assert state.optimizer is not None
    turned = [name for name, tensor in state.optimizer.slots["exp_avg"].items() if len(tensor.shape) > 1]
    assert turned
    (tmp_path / "config.json").write_text(make().to_json())
    path, _ = written(tmp_path / "there.pth", target, tmp_path / "config.json", tmp_path)
    again = loaded(path, make)
    for slots in (again.optimizer._momentums, again.optimizer._velocities):
        for variable, slot, first in zip(again.trainable_variables, slots, going.trainable_variables, strict=True):
            assert np.array_equal(np.asarray(variable), np.asarray(first)), variable.path
            assert np.array_equal(np.asarray(slot), np.asarray(variable)), variable.path


def test_a_bias_that_torch_has_twice_has_no_state_in_keras(tmp_path: Path) -> None:
    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4)

    network = Recurrent()
    optimizer = torch.optim.Adam(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    inputs = keras.Input((2, 3))
    config = tmp_path / "config.json"
    config.write_text(keras.Model(inputs, keras.layers.LSTM(4, name="lstm")(inputs)).to_json())
    source = saved(network, optimizer, tmp_path)
    with pytest.raises(LossError, match="one bias where PyTorch has"):
        written(source, ".keras", config, tmp_path)
    assert written(source, ".keras", config, tmp_path, optimizer="drop")[1].optimizer.status == "dropped"


def test_of_one_keras_to_the_other_and_into_a_saved_model(config: Path, tmp_path: Path) -> None:
    network, optimizer = trained("centered")
    first, _ = written(saved(network, optimizer, tmp_path), ".keras", config, tmp_path)
    older = json.loads(config.read_text())
    older_config = tmp_path / "older.json"
    older_config.write_text(json.dumps({**older, "keras_version": "2.15.0", "backend": "tensorflow"}))
    second, report = written(first, ".h5", older_config, tmp_path)
    assert report.optimizer.status == "carried"
    with h5py.File(second) as file:
        assert b"RMSprop/velocity/fc1/kernel:0" in file["optimizer_weights"].attrs["weight_names"]
    third = tmp_path / "model-savedmodel"
    converter.convert(second, third, to="savedmodel", weights_only=True)
    fourth, _ = written(third, ".keras", config, tmp_path, overwrite=True)
    going = loaded(fourth).optimizer
    names = dict(network.named_parameters())
    for position, variable in enumerate(going._trainable_variables):
        state = optimizer.state[names[torch_name(variable)]]
        assert np.array_equal(np.asarray(going._velocities[position]), state["square_avg"].numpy().T)
        assert np.array_equal(np.asarray(going._average_gradients[position]), state["grad_avg"].numpy().T)
        momentum = state["momentum_buffer"].numpy().T * np.float32(0.001)
        np.testing.assert_array_max_ulp(np.asarray(going._momentums[position]), momentum, maxulp=4)


def unlike(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint["optimizer_state_dict"])
        torch.save(checkpoint, path)

    return changed


def regrouped(state: dict[str, Any], **last: Any) -> None:
    (group,) = state["param_groups"]
    cut = {key: group[key][-2:] for key in ("params", "param_names")}
    rest = {key: group[key][:-2] for key in ("params", "param_names")}
    state["param_groups"] = [{**group, **rest}, {**group, **cut, **last}]


REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "l2": ("adam", lambda state: state["param_groups"][0].update(weight_decay=0.1), "added to the gradient"),
    "l2 of sgd": ("sgd", lambda state: state["param_groups"][0].update(weight_decay=0.1), "added to the gradient"),
    "two rates": ("adamw", lambda state: regrouped(state, lr=0.5), "differ in lr"),
    "three decays": ("adamw", lambda state: regrouped(state, weight_decay=0.5), "decay by"),
    "maximize": ("adam", lambda state: state["param_groups"][0].update(maximize=True), "maximizes"),
    "dampened": ("sgd", lambda state: state["param_groups"][0].update(dampening=0.1), "dampened"),
    "lr_decay": ("adagrad", lambda state: state["param_groups"][0].update(lr_decay=0.1), "decays by itself"),
    "steps": ("adam", lambda state: state["state"][0].update(step=torch.tensor(3.0)), "different numbers of steps"),
    "no state": ("adam", lambda state: state["state"].pop(7), "has no state for it"),
    "no slot": ("adam", lambda state: state["state"][7].pop("exp_avg"), "it has no exp_avg"),
    "rate 0": ("sgd", lambda state: state["param_groups"][0].update(lr=0.0), "learning rate is 0"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_keras_has_no_equivalent_for_is_refused(why: str, config: Path, tmp_path: Path) -> None:
    kind, change, message = REFUSED[why]
    source = saved(*trained(kind), tmp_path)
    path, report = written(source, ".keras", config, tmp_path)
    assert report.optimizer.status == "carried"
    path.unlink()
    unlike(change)(source)
    with pytest.raises(LossError, match=message) as caught:
        written(source, ".keras", config, tmp_path)
    assert caught.value.exit_code == 3
    assert "--optimizer drop" in str(caught.value)
    assert not path.exists()
    assert written(source, ".keras", config, tmp_path, optimizer="drop")[1].optimizer.status == "dropped"


def test_dampening_without_nesterov_goes_into_the_rate(config: Path, tmp_path: Path) -> None:
    network = trained("sgd")[0]
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, dampening=0.5)
    losses(network, optimizer, 5, seed=0)
    path, report = written(saved(network, optimizer, tmp_path), ".keras", config, tmp_path)
    assert any("dampening" in warning for warning in report.warnings)
    going = loaded(path)
    going.compile(optimizer=going.optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = losses(network, optimizer, 5, seed=1)
    for (inputs, labels), loss in zip(batches(5, seed=1), expected, strict=True):
        going.reset_metrics()
        assert float(going.train_on_batch(inputs, labels)) == pytest.approx(loss, rel=2e-6)


def test_the_commands_of_the_readme(config: Path, tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    command, code = re.findall(r"```(?:py)?\n(.*?)```", readme.partition("## Training goes on")[2], re.DOTALL)[:2]
    network, optimizer = trained("adamw")
    saved(network, optimizer, tmp_path).rename(tmp_path / "checkpoint.pth")
    (tmp_path / "model.json").write_text(config.read_text())
    assert command.startswith("ckconv ")
    python = [sys.executable, "-P", "-m", "converter", *shlex.split(command)[1:]]
    subprocess.run(python, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    inputs, labels = next(batches(1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {"keras": keras, "loss": loss, "inputs": inputs, "labels": labels}
    here = code.replace('"model.keras"', repr(str(tmp_path / "model.keras")))
    exec(here.replace("fit(...)", "fit(inputs, labels, verbose=0)"), names)  # noqa: S102
    assert int(names["model"].optimizer.iterations) == 6


def test_an_epsilon_is_one_of_two(config: Path, tmp_path: Path) -> None:
    source = saved(*trained("adam"), tmp_path)
    with pytest.raises(UsageError, match="--epsilon"):
        written(source, ".keras", config, tmp_path, epsilon="other")


def test_the_config_of_a_model_keeps_how_it_was_compiled(tmp_path: Path) -> None:
    going = model()
    going.compile(keras.optimizers.Adam(0.5), loss="mse", metrics=["mae"])
    going.save(tmp_path / "known.keras")
    known = tmp_path / "known.json"
    known.write_bytes(zipfile.ZipFile(tmp_path / "known.keras").read("config.json"))
    path, _ = written(saved(*trained("sgd"), tmp_path), ".keras", known, tmp_path)
    compiled = json.loads(zipfile.ZipFile(path).read("config.json"))["compile_config"]
    assert (compiled["optimizer"]["class_name"], compiled["loss"]) == ("SGD", "mse")
    assert loaded(path).loss == "mse"


@pytest.mark.parametrize("kind", ["adamw", "sgd", "rmsprop"])
def test_what_keras_rounds_is_no_difference(kind: str, config: Path, tmp_path: Path) -> None:
    source = saved(*trained(kind), tmp_path)
    path, _ = written(source, ".keras", config, tmp_path)
    found = converter.diff(source, path)
    assert found.is_same, found.lines()
    assert "the same but for rounding" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("lr is 0.05 and 0.0500001", lambda state: state["param_groups"][0].update(lr=0.0500001)),
        ("nesterov is True and False", lambda state: state["param_groups"][0].update(nesterov=False)),
        ("momentum_buffer", lambda state: state["state"][0]["momentum_buffer"].view(-1)[0].mul_(1.000001)),
    ],
)
def test_what_differs_of_an_optimizer_is_said(what: str, change: Callable[[Any], Any], tmp_path: Path) -> None:
    source = saved(*trained("sgd"), tmp_path)
    other = tmp_path / "other.pth"
    other.write_bytes(source.read_bytes())
    assert converter.diff(source, other).is_same
    unlike(change)(other)
    found = converter.diff(source, other)
    assert not found.is_same
    assert found.optimizer is not None
    assert what in found.optimizer
