"""Good checkpoints of transformers, and twelve ways to damage one."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.graphs.zoo import ZOO, Model
from tests.slices import SEED

State = dict[str, torch.Tensor]
Damage = Callable[[State, random.Random], State]
_TYPES = 20


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


DAMAGES: tuple[Damage, ...] = (
    *(rename, remove, reshape, duplicate, retype, wrap),
    *(prefix, swap, untie, add, empty, shard),
)


def models(classes: Collection[str] | None = None) -> list[Model]:
    """Return models of twenty types, of all or of those with one of `classes`."""
    by_type = {model.model_type: model for model in ZOO if classes is None or model.architecture in classes}
    return list(by_type.values())[:: max(1, len(by_type) // _TYPES)][:_TYPES]


@cache
def made(architecture: str) -> tuple[Any, State]:
    """Return a model with random weights, and its state dict."""
    model = next(each for each in ZOO if each.architecture == architecture)
    torch.manual_seed(0)
    built = getattr(transformers, architecture)(transformers.AutoConfig.for_model(**model.config)).eval()
    return built, {name: tensor.clone() for name, tensor in built.state_dict().items()}


def saved(architecture: str, folder: Path, damage: Damage | None = None) -> Path:
    """Save a state dict, whole or damaged, beside its config; return the file."""
    built, state = made(architecture)
    if damage is not None:
        chance = random.Random(zlib.crc32(f"{SEED} {architecture} {damage.__name__}".encode()))
        state = damage(state, chance)
    folder.mkdir(parents=True)
    built.config.architectures = [architecture]
    built.config.save_pretrained(folder)
    torch.save(state, folder / "x.pth")
    return folder / "x.pth"
