"""A hundred thousand mutants of pickles: none is answered otherwise than torch and Python do. By default a slice."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import pickle_oracle
from tests.slices import IS_FULL, SEED

MUTANTS = 100_000
SLICE = 4_000
STRICTER = (
    "calls with arguments that are no tuple",
    "has an impossible",
    "has bytes after the end of its pickle",
    "has the key N twice",
    "of another type or size elsewhere",
    "is of a protocol beyond N",
    "leaves values behind",
    "malformed storage",
    "names its protocol in the middle",
    "storage of the type",
    "needs N bytes, zip member N has N",
    "makes bytes from values that cannot be one",
    "needs N bytes at N, the file has N",
    "that it would not have",
    "views elements N to N of a storage that has N",
)
"""What is refused where torch reads: nobody writes it, and other readers take it otherwise or not at all."""


@pytest.mark.filterwarnings("ignore")
def test_no_mutant_of_a_pickle_is_answered_wrongly(tell: Callable[[str], None]) -> None:
    first, count = (0, MUTANTS) if IS_FULL else (SEED * SLICE % MUTANTS, SLICE)
    answers, wrongs = pickle_oracle.run(count, first=first)
    tell(f"{count} of {MUTANTS} mutants of pickles: {dict(answers.most_common(4))}")
    assert not wrongs
    assert min(answers[answer] for answer in ("refused", "read as torch does", "read as Python does")) > count // 100
    alone = [answer for answer in answers if answer.startswith("refused here alone")]
    assert [answer for answer in alone if not any(reason in answer for reason in STRICTER)] == []
    assert sum(answers[answer] for answer in alone) < count // 50


@pytest.mark.parametrize(
    ("content", "ours", "what"),
    [
        (b"K\x01.", 2, "torch reads something else: 2 and 1"),
        (b"K\x01.", KeyError("a bug"), "KeyError: 'a bug'"),
        (pickle.dumps({"a": [1.5]}, 2), {"a": [2.5]}, "torch reads something else: 2.5 and 1.5"),
        (pickle.dumps({"a": 1}, 0), {"a": 2}, "Python reads something else: 2 and 1"),
        (b"K.", 46, "Python refuses it: EOFError: Ran out of input"),
    ],
)
def test_what_is_wrong_is_noticed(content: bytes, ours: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(archived: bytes) -> Any:
        if isinstance(ours, Exception):
            raise ours
        return ours

    records = {"archive/version": b"3\n"}
    monkeypatch.setattr(pickle_oracle, "mutated", lambda content, chance: content)
    assert pickle_oracle.judge(pickle_oracle.Seed("x", pickle.dumps(1, 2), records), 0)[1] is None
    monkeypatch.setattr(pickle_oracle, "_ours", answer)
    found = pickle_oracle.judge(pickle_oracle.Seed("x", content, records), 0)[1]
    assert found is not None
    assert what.partition(":")[0] in found
