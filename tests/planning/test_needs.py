"""Which options have an effect on which pairs, and which are refused for having none, before a framework starts."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import converter
from converter.cli.options import declarations
from converter.declaring import flag_of
from converter.errors import UsageError
from converter.execution import child
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.options import Options
from converter.planning import graph
from converter.proof.difference import canonical_form
from converter.report import OptimizerStatus
from tests.conftest import ROOT

plan = importlib.import_module("converter.planning.plan")  # the package has a function of that name
FIXTURES = ROOT / "fixtures"
WEIGHTS = Checkpoint(tensors={name: ArrayTensor.of(np.ones(2, np.float32)) for name in ("a.weight", "a.bias")})
FLAGS = {item.name: flag_of(item) for _, item, _, _ in declarations()}
ANYWHERE = {
    *("config", "mapping", "dtype", "include", "exclude", "optimizer", "weights_only", "verify", "source_hash"),
    *("allow_dropped", "allow_missing", "overwrite", "dry_run", "durable", "resume"),
    *("jobs", "max_memory", "timeout", "require_sandbox", "from_format"),
}
"""What decides something of any pair, permits something, bounds it, or asks for what is there already."""
NO_STATE, NO_CONFIG = "is for the state of an optimizer, and there is none", "is for the config of a transformers model"
NO_GRAPH, NO_RUN = "decides nothing of a target that has no graph", "needs a target that runs"
NO_SIGNATURE = "is for graphs that are made of a SavedModel's, and none is"
OWN_GRAPH = "does not change the source's own graph"
NO_ORDER = "are for optimizers whose parameters are numbered"
OF_WEIGHTS = {
    **{"tokenizer": "is for a folder, and the output is one file", "config_value": NO_CONFIG, "task": NO_CONFIG},
    **{"hyperparameter": NO_STATE, "param_order": NO_ORDER, "trainable": NO_ORDER},
    **{"custom_objects": NO_GRAPH, "with_cache": NO_GRAPH, "model": NO_GRAPH, "opset": NO_GRAPH, "signature": NO_GRAPH},
    "shape": NO_GRAPH,
    **{"inputs": NO_RUN, "atol": NO_RUN, "rtol": NO_RUN},
}
PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, str], set[str]]] = {
    # a pair: the target, its options, which are refused with what, and which do something here besides those ANYWHERE
    "weights.safetensors": ("out.pth", {}, OF_WEIGHTS, set()),
    "weights.pth": ("out.pth", {}, {**OF_WEIGHTS, "name": "is for files with one tensor that has no name"}, {"select"}),
    "folder": (
        "out",
        {"to": "savedmodel"},
        {
            **{"hyperparameter": NO_STATE, "param_order": NO_ORDER, "trainable": NO_ORDER},
            **{"custom_objects": "none is", "signature": NO_SIGNATURE},
        },
        {
            *("tokenizer", "config_value", "task", "with_cache", "model", "opset", "shape", "inputs", "atol", "rtol"),
            *("input_dtype", "layout"),
        },
    ),
    "graphs/siamese.keras": (
        "out.onnx",
        {},
        {
            **{"tokenizer": "is for a folder", "config_value": NO_CONFIG, "task": NO_CONFIG},
            **{"hyperparameter": NO_STATE, "param_order": NO_STATE, "trainable": NO_STATE},
            "custom_objects": "names Gain, which the Keras config has no use for",
            "signature": NO_SIGNATURE,
        },
        {"with_cache", "model", "opset", "shape", "inputs", "atol", "rtol", "external_data"},
    ),
}


class ReachedError(Exception):
    """Nothing was refused: a graph would be made."""


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A value of each option, another than its default."""
    np.savez(tmp_path / "inputs.npz", x=np.zeros(1))
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    (tmp_path / "vocab.txt").write_text("word\n")
    return {
        **{"config": tmp_path / "config.json", "tokenizer": tmp_path, "config_value": ("hidden_act=relu",)},
        **{"custom_objects": ("own:Gain",), "task": "question-answering", "mapping": tmp_path / "rules.json"},
        **{
            "dtype": "float32",
            "include": ("*",),
            "exclude": ("*bias",),
            "optimizer": "drop",
            "hyperparameter": ("lr=0",),
        },
        **{"param_order": tmp_path / "vocab.txt", "trainable": ".", "weights_only": True, "with_cache": True},
        **{"model": "own:factory", "inputs": tmp_path / "inputs.npz", "opset": 18, "verify": "weights"},
        **{"atol": 0.0, "rtol": 0.0, "allow_dropped": ("none",), "allow_missing": ("none",), "overwrite": True},
        **{"dry_run": True, "durable": False, "resume": True, "jobs": 2, "max_memory": "1GiB", "timeout": 60.0},
        **{"require_sandbox": True, "select": "a", "name": "x", "epsilon": "exact", "external_data": True},
        **{"flavor": "tf", "max_shard_size": "1MB", "train_batch_size": 4, "tied": "once", "input_dtype": "int32"},
        **{
            "layout": "tensorflow",
            "state_dict": False,
            "signature": "raw",
            "shape": ("batch=1",),
            "source_hash": "sha256",
        },
    }


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would start one fails, and so does a graph; what frameworks there are is not asked."""

    def reached(*_: Any, **__: Any) -> NoReturn:
        raise ReachedError

    monkeypatch.setattr(plan, "with_graph", reached)
    for name in ("call_all", "start_ahead"):
        monkeypatch.setattr(child, name, reached)
    for module in (plan, graph):
        monkeypatch.setattr(module, "require", lambda *_: None)


def source(name: str, folder: Path) -> Path:
    if name == "folder":
        converter.convert(FIXTURES / "squad-bert" / "checkpoint.pth", folder / name, to="pretrained", optimizer="drop")
        return folder / name
    if not name.startswith("weights."):
        return FIXTURES / name
    (folder / "alone").mkdir()
    converter.write(WEIGHTS, folder / "alone" / name)
    return folder / "alone" / name


@pytest.mark.parametrize("option", sorted(FLAGS.keys() - {"require_sandbox"}))  # which is of the system
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.usefixtures("no_process")
def test_an_option_has_an_effect_or_is_refused(pair: str, option: str, given: dict[str, Any], tmp_path: Path) -> None:
    target, options, refused, effective = PAIRS[pair]
    read = source(pair, tmp_path)
    options = {**options, option: given.get(option)}
    if option == "from_format":
        options[option] = None
    if option == "mapping":
        name = canonical_form(converter.read(read)).names[0]
        options[option].write_text(json.dumps({"rules": [{"from": name, "to": "new"}]}))
    if option == "model":
        options["inputs"] = "x:float32[n]"
    why = refused.get(option)
    if why is None and option not in ANYWHERE | effective:
        why = f"takes no {FLAGS[option]}"
    if why is None:
        try:
            converter.convert(read, tmp_path / target, **options)
        except ReachedError:
            return
        assert (tmp_path / target).exists() is (option != "dry_run")
        return
    with pytest.raises(UsageError, match="--") as caught:
        converter.convert(read, tmp_path / target, **options)
    assert FLAGS[option] in caught.value.message
    assert why in caught.value.message
    assert caught.value.exit_code == 2
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize(("opset", "is_one"), [(0, False), (-1, False), (6, False), (7, True), (28, True), (29, False)])
def test_an_opset_is_one_that_there_is(opset: int, is_one: bool) -> None:
    if is_one:
        assert Options(opset=opset).opset == opset
        return
    with pytest.raises(UsageError, match=f"--opset is a number from 7 to 28, not {opset}"):
        Options(opset=opset)


def test_the_newest_opset_is_that_of_onnx() -> None:
    import onnx

    assert Options(opset=onnx.defs.onnx_opset_version()).opset
    with pytest.raises(UsageError, match="--opset"):
        Options(opset=onnx.defs.onnx_opset_version() + 1)


@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_a_tolerance_is_a_number_from_zero(name: str) -> None:
    assert getattr(Options(**{name: 0.0}), name) == 0.0
    for value in (-1e-9, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=f"--{name} is a number from 0, not"):
            Options(**{name: value})


@pytest.mark.usefixtures("no_process")
def test_what_is_for_outputs_needs_a_comparison(tmp_path: Path) -> None:
    read = FIXTURES / "graphs/siamese.keras"
    for given in ({"atol": 0.0}, {"rtol": 0.0}):
        flag = f"--{next(iter(given))}"
        with pytest.raises(ReachedError):
            converter.convert(read, tmp_path / "x.onnx", **given)
        for verify in ("weights", "none"):
            with pytest.raises(UsageError, match=f"{flag} is for outputs, which --verify {verify} does not compare"):
                converter.convert(read, tmp_path / "x.onnx", verify=verify, **given)
        with pytest.raises(UsageError, match=f"{flag} needs a target that runs; --weights-only leaves the graph out"):
            converter.convert(read, tmp_path / "x.onnx", weights_only=True, **given)
    with pytest.raises(UsageError, match="--verify outputs needs a target that runs; those that run: onnx, pt2, saved"):
        converter.convert(read, tmp_path / "x.safetensors", verify="outputs")


@pytest.mark.usefixtures("no_process")
def test_one_graph_is_asked_for(tmp_path: Path) -> None:
    given = {"model": "own:factory", "inputs": "x:float32[n]"}
    read = FIXTURES / "graphs/siamese.keras"
    with pytest.raises(ReachedError):
        converter.convert(read, tmp_path / "x.onnx", **given)
    with pytest.raises(UsageError, match="--with-cache does not change the graph of --model; leave one of them out"):
        converter.convert(read, tmp_path / "x.onnx", with_cache=True, **given)
    with pytest.raises(UsageError, match="--custom-objects is for graphs that are made of a Keras config, and none is"):
        converter.convert(read, tmp_path / "x.onnx", custom_objects=("own:Gain",), **given)


def test_tokenizers_are_not_asked_about_when_a_file_in_a_folder_is_verified(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("word\n")
    read = source("weights.pth", tmp_path)
    converter.convert(read, f"{tmp_path}/out/", to="pytorch", tokenizer=tmp_path)
    assert (tmp_path / "out" / "vocab.txt").exists()
    assert converter.verify(read, tmp_path / "out", to="pytorch", tokenizer=tmp_path).verification.weights


def test_options_of_an_optimizer_that_is_of_no_such_kind(tmp_path: Path) -> None:
    read = FIXTURES / "squad-bert" / "checkpoint.pth"
    with pytest.raises(UsageError, match="--epsilon is for Keras's optimizers, which --flavor tf writes"):
        converter.convert(read, tmp_path / "out", to="pretrained", epsilon="exact")
    folder = source("folder", tmp_path)
    converter.convert(folder, tmp_path / "goes-on", to="pretrained", flavor="bin", train_batch_size=8)
    (folder / "trainer_state.json").unlink()
    with pytest.raises(UsageError, match="--train-batch-size is for training that Trainer goes on with, and none"):
        converter.convert(folder, tmp_path / "out", to="pretrained", flavor="bin", train_batch_size=8)
    with pytest.raises(UsageError, match="--epsilon is for the state of an optimizer, and there is none"):
        converter.convert(source("weights.pth", tmp_path), tmp_path / "x.h5", weights_only=True, epsilon="exact")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("read", "target"),
    [
        ("optimizer/adam-new.h5", "out.h5"),
        ("optimizer/adam-new.h5", "out.keras"),
        ("optimizer/rmsprop-legacy.h5", "out.h5"),
        ("optimizer/sgd-new.keras", "out.keras"),
        ("optimizer/sgd-new.keras", "out.weights.h5"),
        ("optimizer/adam-savedmodel", "out.h5"),
        ("keras-mixed/layers-mixed_bfloat16.keras", "out.keras"),
        ("keras-mixed/own.h5", "out.h5"),
        ("keras-mixed/own.keras", "out.keras"),
    ],
)
def test_an_epsilon_of_keras_stays_in_another_file_of_keras(read: str, target: str, tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / read, tmp_path / target)
    assert report.optimizer.status is OptimizerStatus.CARRIED
    said = "--epsilon decides nothing: from Keras to Keras epsilon stays what it is, and where"
    with pytest.raises(UsageError, match=said):
        converter.convert(FIXTURES / read, tmp_path / f"again-{target}", epsilon="exact")
    assert not (tmp_path / f"again-{target}").exists()


def test_an_epsilon_that_pytorchs_state_keeps(tmp_path: Path) -> None:
    read = FIXTURES / "squad-bert" / "checkpoint.pth"
    with pytest.raises(UsageError, match="--epsilon decides nothing: the state stays as PyTorch has it"):
        converter.convert(read, tmp_path / "x.h5", epsilon="exact")
    report = converter.convert(read, tmp_path / "out", to="pretrained", flavor="tf", epsilon="exact")
    assert report.optimizer.status is OptimizerStatus.CARRIED
