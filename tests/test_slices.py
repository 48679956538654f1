"""What a slice leaves out: another part with every seed, together all, and never all of anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.slices import left_out


@dataclass(eq=False)
class Node:
    """A test, or the file that it is in, with its own marks."""

    nodeid: str
    marks: dict[str, pytest.Mark] = field(default_factory=dict)
    file: Any = None
    user_properties: list[tuple[str, object]] = field(default_factory=list)

    def iter_markers_with_node(self, name: str) -> Iterator[tuple[Any, pytest.Mark]]:
        for node in (self, self.file):
            if node is not None and name in node.marks:
                yield node, node.marks[name]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for _, mark in self.iter_markers_with_node(name)), None)


def kept(seed: int, *, is_file_marked: bool = False, has_tier_run: bool = False, part: int = 1) -> list[Node]:
    """Of a file: seven tests of a function of which one in three runs, four of another, and one with a framework."""
    two, three = pytest.mark.one_in(2).mark, pytest.mark.one_in(3).mark
    file = Node("test_x.py", {"one_in": two} if is_file_marked else {})
    many = [Node(f"test_x.py::test_many[{number}]", {"one_in": three}, file) for number in range(7)]
    few = [Node(f"test_x.py::test_few[{number}]", {}, file) for number in range(4)]
    items: Any = [*many, *few, Node("test_x.py::test_other", {"framework": pytest.mark.framework.mark}, file)]
    others = left_out(items, seed, has_tier_run=has_tier_run, part=part)
    return [item for item in items if item not in others]


def counts(items: list[Node]) -> tuple[int, int, int]:
    many, few, other = (sum(name in item.nodeid for item in items) for name in ("many", "few", "other"))
    return many, few, other


@pytest.mark.parametrize(("is_file_marked", "others"), [(False, {5}), (True, {2, 3})])
def test_a_function_or_a_file_is_marked(is_file_marked: bool, others: set[int]) -> None:
    for seed in range(6):
        many, few, other = counts(kept(seed, is_file_marked=is_file_marked))
        assert many in (2, 3)
        assert few + other in others


@pytest.mark.parametrize("is_file_marked", [False, True])
def test_seeds_in_a_row_have_all_of_it(is_file_marked: bool) -> None:
    assert len({item.nodeid for seed in range(3) for item in kept(seed, is_file_marked=is_file_marked)}) == 7 + 4 + 1


def test_what_is_left_out_is_told() -> None:
    items = kept(0)
    told = [text for item in items for key, text in item.user_properties if key == "told"]
    assert told == [f"test_x.py::test_many: {7 - counts(items)[0]} of 7 tests left out"]


def test_of_the_tier_that_has_run_a_quarter_runs_again() -> None:
    runs = [kept(seed, has_tier_run=True) for seed in range(4)]
    assert [counts(items)[1:] for items in runs] == [(1, 1)] * 4
    assert len({item.nodeid for items in runs for item in items if "few" in item.nodeid}) == 4


def test_a_run_of_parts_has_one_in_so_many_times_more() -> None:
    runs = [kept(seed, part=2) for seed in range(6)]
    assert {counts(items)[0] for items in runs} == {1, 2}
    assert len({item.nodeid for items in runs for item in items}) == 7 + 4 + 1


def test_a_run_of_parts_has_every_second_test_of_a_folder_that_needs_a_framework() -> None:
    needs_one = {"framework": pytest.mark.framework.mark}
    items: Any = [Node(f"tests/graphs/test_{name}.py::test_it", needs_one) for name in "abcdef"]
    others = [[item.nodeid for item in left_out(items, seed, part=2)] for seed in range(2)]
    assert [len(each) for each in others] == [3, 3]
    assert set(others[0]) | set(others[1]) == {item.nodeid for item in items}
    assert not left_out(items, 0, part=1)
