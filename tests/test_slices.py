"""What a slice leaves out: another part with every seed, together all, and never all of anything."""

from __future__ import annotations

import pytest

from tests.slices import left_out

pytest_plugins = ["pytester"]

_FILE = """
import pytest
{mark}
@pytest.mark.one_in(3)
@pytest.mark.parametrize("number", range(7))
def test_many(number): pass
@pytest.mark.parametrize("number", range(4))
def test_few(number): pass
@pytest.mark.framework
def test_other(): pass
"""
MARK = "pytestmark = pytest.mark.one_in(2)"


def kept(pytester: pytest.Pytester, seed: int, *, mark: str = "", has_tier_run: bool = False) -> list[pytest.Item]:
    items = pytester.getitems(_FILE.format(mark=mark))
    others = left_out(items, seed, has_tier_run=has_tier_run)
    return [item for item in items if item not in others]


def counts(items: list[pytest.Item]) -> tuple[int, int, int]:
    many, few, other = (sum(name in item.name for item in items) for name in ("many", "few", "other"))
    return many, few, other


@pytest.mark.parametrize(("mark", "others"), [("", {5}), (MARK, {2, 3})])
def test_a_function_or_a_file_is_marked(mark: str, others: set[int], pytester: pytest.Pytester) -> None:
    for seed in range(6):
        many, few, other = counts(kept(pytester, seed, mark=mark))
        assert many in (2, 3)
        assert few + other in others


@pytest.mark.parametrize("mark", ["", MARK])
def test_seeds_in_a_row_have_all_of_it(mark: str, pytester: pytest.Pytester) -> None:
    found = {item.name for seed in range(3) for item in kept(pytester, seed, mark=mark)}
    assert len(found) == 7 + 4 + 1


def test_what_is_left_out_is_told(pytester: pytest.Pytester) -> None:
    items = kept(pytester, 0)
    told = [str(text).partition("::")[2] for item in items for key, text in item.user_properties if key == "told"]
    assert told == [f"test_many: {7 - counts(items)[0]} of 7 tests left out"]


def test_of_the_tier_that_has_run_a_quarter_runs_again(pytester: pytest.Pytester) -> None:
    runs = [kept(pytester, seed, has_tier_run=True) for seed in range(4)]
    assert [counts(items)[1:] for items in runs] == [(1, 1)] * 4
    assert len({item.name for items in runs for item in items if "few" in item.name}) == 4
