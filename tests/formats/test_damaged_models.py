"""A checkpoint that is damaged is refused, or `from_pretrained` finds all that it asks for, and nothing else.

Where the table does not know all of a class, the verdict says so: there a complaint of the loader is no surprise.
A slice of the damages, seeded by CKCONV_ORACLE_SEED; all of them with CKCONV_ORACLE_FULL=1.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import converter
from converter.errors import CkconvError, LossError
from tests.graphs.zoo import ZOO, Model
from tests.slices import IS_FULL, SEED

State = dict[str, torch.Tensor]

NOT_KNOWN_WHOLLY = {
    *("BeitForImageClassification", "DPTForDepthEstimation", "LevitForImageClassification", "MobileBertForMaskedLM"),
    *("MobileNetV2ForImageClassification", "Phi3ForCausalLM", "Qwen2MoeForCausalLM", "ResNetForImageClassification"),
}
"""Classes some of whose tensors no formula fits, or with settings that they were not seen with."""
_TYPES_OF_ALL = 20
_OF_A_PART = 24


def _chosen(state: State, chance: random.Random, *, axes: int = 1) -> str:
    return chance.choice([name for name, tensor in sorted(state.items()) if tensor.dim() >= axes])


def rename(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance)
    return {name.replace(".weight", ".kernel") + "_" if name == wrong else name: each for name, each in state.items()}


def remove(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance)
    return {name: each for name, each in state.items() if name != wrong}


def reshape(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance)
    larger = torch.cat([state[wrong], state[wrong][:1]])
    return {**state, wrong: larger}


def duplicate(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance)
    return {**state, f"{wrong}_copy": state[wrong].clone()}


def retype(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance)
    return {**state, wrong: state[wrong].to(torch.float16)}


def wrap(state: State, chance: random.Random) -> State:
    wrapper = chance.choice(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
    part = _chosen(state, chance).rpartition(".")[0]
    return {name.replace(f"{part}.", f"{part}.{wrapper}."): each for name, each in state.items()}


def prefix(state: State, chance: random.Random) -> State:
    before = chance.choice(["module", "model", "net", "backbone"])
    return {f"{before}.{name}": each for name, each in state.items()}


def swap(state: State, chance: random.Random) -> State:
    one, other = (_chosen(state, chance) for _ in range(2))
    return {**state, one: state[other], other: state[one]}


def untie(state: State, chance: random.Random) -> State:
    return {
        name: each.clone() + number for number, (name, each) in enumerate(state.items()) if each.is_floating_point()
    }


def add(state: State, chance: random.Random) -> State:
    part = _chosen(state, chance).rpartition(".")[0]
    return {**state, f"{part}.extra.weight": torch.ones(2, 2)}


def empty(state: State, chance: random.Random) -> State:
    wrong = _chosen(state, chance, axes=2)
    return {**state, wrong: state[wrong][:0]}


def shard(state: State, chance: random.Random) -> State:
    names = sorted(state)
    kept = set(names[len(names) // 3 :])
    return {name: each for name, each in state.items() if name in kept}


DAMAGES: tuple[Callable[[State, random.Random], State], ...] = (
    *(rename, remove, reshape, duplicate, retype, wrap),
    *(prefix, swap, untie, add, empty, shard),
)


def _models() -> list[Model]:
    by_type = {model.model_type: model for model in ZOO}
    return list(by_type.values())[:: max(1, len(by_type) // _TYPES_OF_ALL)][:_TYPES_OF_ALL]


def _cases() -> list[tuple[Model, Callable[[State, random.Random], State]]]:
    every = [(model, damage) for model in _models() for damage in DAMAGES]
    return every if IS_FULL else random.Random(SEED).sample(every, _OF_A_PART)


@cache
def _made(architecture: str) -> tuple[Any, State]:
    model = next(each for each in ZOO if each.architecture == architecture)
    torch.manual_seed(0)
    made = getattr(transformers, architecture)(transformers.AutoConfig.for_model(**model.config)).eval()
    return made, {name: tensor.clone() for name, tensor in made.state_dict().items()}


def _complaints(made: Any, folder: Path) -> list[str]:
    """Return what `from_pretrained` does not find, or finds and does not know."""
    try:
        told = type(made).from_pretrained(folder, output_loading_info=True)[1]
    except Exception as error:  # whatever a loader raises, it is a complaint
        return [f"{type(error).__name__}: {error}"]
    return [f"{kind}: {found}" for kind, found in told.items() if found]


def _saved(made: Any, state: State, folder: Path) -> Path:
    folder.mkdir()
    made.config.architectures = [type(made).__name__]
    made.config.save_pretrained(folder)
    torch.save(state, folder / "x.pth")
    return folder / "x.pth"


@pytest.mark.parametrize(
    "model", _models() if IS_FULL else _models()[SEED % 5 :: 5], ids=lambda each: each.architecture
)
def test_what_is_whole_is_taken_whole(model: Model, tmp_path: Path) -> None:
    made, state = _made(model.architecture)
    report = converter.convert(_saved(made, state, tmp_path / "in"), tmp_path / "out", to="pretrained")
    assert report.unchecked is None or model.architecture in NOT_KNOWN_WHOLLY
    assert _complaints(made, tmp_path / "out") == []


@pytest.mark.parametrize(
    ("model", "damage"), _cases(), ids=lambda each: getattr(each, "architecture", None) or each.__name__
)
def test_ok_is_said_of_what_the_loader_takes(
    model: Model, damage: Callable[[State, random.Random], State], tmp_path: Path
) -> None:
    made, state = _made(model.architecture)
    chance = random.Random(zlib.crc32(f"{SEED} {model.architecture} {damage.__name__}".encode()))
    source = _saved(made, damage(state, chance), tmp_path / "in")
    try:
        report = converter.convert(source, tmp_path / "out", to="pretrained")
    except LossError:
        return
    assert report.unchecked or _complaints(made, tmp_path / "out") == []


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    made, _ = _made(_models()[0].architecture)
    made.save_pretrained(tmp_path / "in", max_shard_size="5KB")
    converter.convert(tmp_path / "in", tmp_path / "whole", to="pretrained")
    next(iter(sorted((tmp_path / "in").glob("*-00002-of-*")))).unlink()
    with pytest.raises(CkconvError):
        converter.convert(tmp_path / "in", tmp_path / "out", to="pretrained")
