"""What stands inside itself is taken out: in every kind of container, wherever it comes again."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from converter.encoding.pickle import Machine, MemoryBytes, Placeholder
from converter.encoding.torch_file.loops import without_loops


class Owner:
    """A class of the user's own."""


def in_a_dict() -> tuple[Any, Any, list[str]]:
    value: dict[str, Any] = {"w": 1}
    value["owner"] = value
    return value, {"w": 1}, ["owner"]


def in_a_list() -> tuple[Any, Any, list[str]]:
    value: dict[str, Any] = {"w": 1, "seen": []}
    value["seen"] += [value, 2, [value]]
    return value, {"w": 1, "seen": [None, 2, [None]]}, ["seen.0", "seen.2.0"]


def in_a_tuple_that_comes_twice() -> tuple[Any, Any, list[str]]:
    value: dict[str, Any] = {"w": 1}
    pair = (value, "x", (value,))
    value |= {"a": pair, "b": pair}
    return value, {"w": 1, "a": (None, "x", (None,)), "b": (None, "x", (None,))}, ["a.0", "a.2.0"]


def in_each_other() -> tuple[Any, Any, list[str]]:
    one: dict[str, Any] = {"n": 1}
    other = {"n": 2, "one": one}
    one["other"] = other
    return {"x": one, "y": other}, {"x": {"n": 1, "other": {"n": 2}}, "y": {"n": 2}}, ["x.other.one"]


def shared_and_no_loop() -> tuple[Any, Any, list[str]]:
    inner = {"n": [1]}
    value = {"x": inner, "y": (inner, inner), "z": [inner]}
    return value, value, []


@pytest.mark.parametrize("make", [in_a_dict, in_a_list, in_a_tuple_that_comes_twice, in_each_other, shared_and_no_loop])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_value_inside_itself(make: Any, protocol: int) -> None:
    value, expected, places = make()
    data = pickle.dumps(value, protocol)
    told: list[str] = []
    found = Machine(MemoryBytes(data), path="x", constructors={}).load()
    found = without_loops(found, lambda keys: told.append(".".join(map(str, keys))))
    assert found == expected
    assert told == places


def test_an_object_that_knows_its_owner() -> None:
    owner = Owner()
    owner.__dict__ |= {"parts": [Owner()], "name": "x"}
    owner.__dict__["parts"][0].__dict__ |= {"owner": owner, "pair": (owner, 1)}
    told: list[str] = []
    found = Machine(MemoryBytes(pickle.dumps(owner, 2)), path="x", constructors={}).load()
    found = without_loops(found, lambda keys: told.append(".".join(map(str, keys))))
    assert isinstance(found, Placeholder)
    assert found.state["parts"][0].state == {"pair": (None, 1)}
    assert not told


def test_depth_needs_no_stack_of_python() -> None:
    root: list[Any] = []
    inner = root
    for _ in range(100_000):
        inner.append([])
        inner = inner[0]
    inner.append(root)
    told: list[int] = []
    assert without_loops(root, lambda keys: told.append(len(keys))) is root
    assert inner == [None]
    assert len(told) == 1
    assert told[0] < 100
    while root:  # one after the other: Python takes what is nested apart in depth
        root = root[0] or []
