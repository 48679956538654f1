"""What a comparison of outputs lets pass, and what not: wrong graphs, wrong arrays, and right ones that look it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter.errors import UnprovenError, VerificationError
from converter.proof.comparing import Comparison, compare_outputs
from tests.graphs.wrong_graphs import WRONG, Graph, run

_RANDOM = np.random.default_rng(3)


def _compare(expected: Mapping[str, Any], found: Mapping[str, Any], **more: Any) -> Comparison:
    return compare_outputs(expected, found, path=Path("x"), **{"atol": None, "rtol": None, **more})


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    return run(Graph())


def test_the_right_graph_passes_with_power(right: dict[str, Any]) -> None:
    found = _compare(right, run(Graph(scale=1.0 + 1e-7)))
    assert [each.name for each in found.per_output] == ["logits", "probabilities", "label"]
    assert not found.unproven
    assert all(each.share > 0.3 for each in found.per_output)
    assert 0 < found.max_abs < 1e-5


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_graph_is_caught(fault: str, right: dict[str, Any]) -> None:
    with pytest.raises(VerificationError) as caught:
        _compare(right, run(WRONG[fault]))
    assert not isinstance(caught.value, UnprovenError)


def _masked(low: float, count: int) -> Any:
    logits = _RANDOM.standard_normal((4, 50)).astype(np.float32)
    logits[:, :count] = low
    return logits


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)


_FEW, _MANY = _masked(-1e9, 1), _masked(np.finfo(np.float32).min, 45)
_OFFSET = _masked(-1e4, 48)
_CLASSES = _RANDOM.standard_normal((2, 100_000))
_TIES = np.array([[0.5, 2.0, 2.0], [3.0, 1.0, 3.0]])
_NAN_ROW = np.where(np.arange(12)[:, None] == 3, np.nan, _RANDOM.standard_normal((12, 5)))
_PHASES = np.exp(1j * _RANDOM.standard_normal(9)).astype(np.complex64)
WRONG_ARRAYS: dict[str, tuple[Any, Any]] = {
    "noise beside a masked logit": (_FEW, _FEW + np.where(_FEW > -1e8, 1e-3, 0).astype(np.float32)),
    "noise beside many": (_MANY, _MANY + np.where(_MANY > -1e8, 1e-3, 0).astype(np.float32)),
    "noise beside masks of -10000": (_OFFSET, _OFFSET + np.where(_OFFSET > -1e3, 1e-3, 0).astype(np.float32)),
    "noise of 300 on a masked logit": (_FEW, _FEW + np.where(_FEW < -1e8, 300, 0).astype(np.float32)),
    "another value for masks": (_FEW, np.where(_FEW < -1e8, np.finfo(np.float32).min, _FEW).astype(np.float32)),
    "another element masked": (_FEW, _FEW[:, ::-1]),
    "infinite for masked": (_MANY, np.where(_MANY < -1e8, -np.inf, _MANY).astype(np.float32)),
    "infinity of the other sign": (np.array([1, np.inf, 2], "f4"), np.array([1, -np.inf, 2], "f4")),
    "softmax over 100,000 classes, reversed": (_softmax(_CLASSES), _softmax(_CLASSES)[:, ::-1]),
    "softmax over 100,000 classes, of others": (_softmax(_CLASSES), _softmax(_CLASSES * 1.001)),
    "probabilities below 1e-5": (np.linspace(0, 8e-6, 99, dtype="f4"), np.linspace(8e-6, 0, 99, dtype="f4")),
    "a constant for an output": (_FEW, np.full_like(_FEW, 0.5)),
    "zeros for an output": (_CLASSES, np.zeros_like(_CLASSES)),
    "the other of two ties": (_TIES.argmax(-1), 2 - _TIES[:, ::-1].argmax(-1)),
    "an integer that is one more": (np.arange(9), np.arange(9) + (np.arange(9) == 8)),
    "int64 beyond 2**53": (np.array([2**53, 1]), np.array([2**53 + 1, 1])),
    "uint64 beyond 2**63": (np.array([2**64 - 1, 1], "u8"), np.array([2**64 - 2, 1], "u8")),
    "a bool": (np.array([True, False]), np.array([True, True])),
    "a text": (np.array(["cat", "dog"]), np.array(["cat", "dot"])),
    "NaN in another row": (_NAN_ROW, _NAN_ROW[::-1]),
    "NaN on one side": (_FEW, np.where(np.arange(50) == 7, np.nan, _FEW).astype(np.float32)),
    "a complex number conjugated": (_PHASES, _PHASES.conj()),
    "a phase turned by 1e-3": (_PHASES, _PHASES * np.complex64(np.exp(1e-3j))),
    "another type": (np.array([1, 2], "f4"), np.array([1, 2], "f8")),
    "another integer type": (np.array([1, 2], "i4"), np.array([1, 2], "i8")),
    "a shape turned": (np.arange(6, dtype="f4").reshape(2, 3), np.arange(6, dtype="f4").reshape(3, 2)),
    "a dimension more": (np.array([1, 2], "f4"), np.array([[1, 2]], "f4")),
    "float16 off by more than it rounds": (np.array([1, 2], "f2"), np.array([1.1, 2], "f2")),
    "bfloat16 off by more than it rounds": (
        np.array([1, 2]).astype(ml_dtypes.bfloat16),
        np.array([1.5, 2]).astype(ml_dtypes.bfloat16),
    ),
}


@pytest.mark.parametrize("fault", WRONG_ARRAYS)
def test_wrong_arrays_are_caught(fault: str) -> None:
    expected, found = WRONG_ARRAYS[fault]
    _compare({"0/y": expected}, {"0/y": expected.copy()})
    with pytest.raises(VerificationError) as caught:
        _compare({"0/y": expected}, {"0/y": found})
    assert not isinstance(caught.value, UnprovenError)


_SOME_ROWS = np.arange(20)[:, None] % 10 == 3
UNPROVEN: dict[str, tuple[Any, str]] = {
    "NaN everywhere": (np.full(3, np.nan), "all NaN"),
    "zero everywhere": (np.zeros(3, "f4"), "constant"),
    "one number everywhere": (np.full((3, 2), 7.5, "f4"), "constant"),
    "one integer everywhere": (np.full(3, 7), "constant"),
    "masked everywhere": (np.full((2, 3), -1e9, "f4"), "constant"),
    "NaN but for a tenth": (np.where(_SOME_ROWS, _FEW.repeat(5, 0), np.nan), "90.0% of it is NaN or infinite"),
    "infinite but for a tenth": (np.where(_SOME_ROWS, _FEW.repeat(5, 0), -np.inf), "90.0% of it is NaN or infinite"),
    "too large but for a few": (np.where(_CLASSES > 2.5, _CLASSES, np.inf), "99.4% of it is NaN or infinite"),
    "no element": (np.zeros((0, 3)), "empty"),
    "no integer": (np.zeros((0, 3), int), "empty"),
    "an offset that drowns what varies": (100 + np.linspace(0, 1e-5, 9).astype("f4"), "varies less than the tolerance"),
}


@pytest.mark.parametrize("case", UNPROVEN)
def test_what_proves_nothing_is_said_to(case: str) -> None:
    array, why = UNPROVEN[case]
    with pytest.raises(UnprovenError, match=rf"outputs not proven: 'y' \({why}\)"):
        _compare({"0/y": array}, {"0/y": array.copy()})
    good = np.arange(9.0)
    found = _compare({"0/y": array, "0/z": good}, {"0/y": array, "0/z": good})
    assert [(each.name, each.reason) for each in found.unproven] == [("y", why)]


_SHOWN: dict[str, Any] = {
    "a masked row in three": np.where(np.arange(20)[:, None] % 3 == 0, np.nan, _FEW.repeat(5, 0)),
    "columns that stand for nothing": np.where(np.arange(50) < 48, -np.inf, _RANDOM.standard_normal((20, 50))),
    "an infinite number in two": np.where(np.arange(50) % 2 == 0, np.inf, _RANDOM.standard_normal((20, 50))),
}


@pytest.mark.parametrize("case", _SHOWN)
def test_what_is_masked_beside_numbers_is_proven(case: str) -> None:
    array = _SHOWN[case]
    assert not _compare({"0/y": array}, {"0/y": array.copy()}).unproven


def test_what_is_not_a_number_could_not_have_failed() -> None:
    array = _NAN_ROW
    (found,) = _compare({"0/y": array}, {"0/y": array.copy()}).per_output
    assert found.share == pytest.approx(11 / 12)


def test_no_output_proves_nothing() -> None:
    with pytest.raises(UnprovenError, match="there are none"):
        _compare({}, {})


def test_an_output_has_power_when_a_case_gives_it() -> None:
    constant, varied = np.zeros((1, 4), "f4"), np.arange(8, dtype="f4").reshape(2, 4)
    found = _compare({"0/y": constant, "1/y": varied}, {"0/y": constant, "1/y": varied})
    assert not found.unproven
    with pytest.raises(VerificationError, match=r"'y' differs by 1 at \[0, 2\]"):
        _compare({"0/y": constant, "1/y": varied}, {"0/y": constant + (np.arange(4) == 2).astype("f4"), "1/y": varied})


def test_every_case_has_every_output() -> None:
    array = np.arange(4.0)
    both = {"0/y": array, "1/y": array}
    _compare(both, dict(both))
    with pytest.raises(VerificationError, match="has no output 'y'"):
        _compare(both, {"0/y": array})
    with pytest.raises(VerificationError, match="an output 'y' that the source does not have"):
        _compare({"0/y": array}, both)


ROUNDED: dict[str, tuple[Any, Any]] = {
    "float32": (_CLASSES.astype("f4"), (_CLASSES * (1 + 1e-7)).astype("f4")),
    "small numbers": ((_CLASSES * 1e-20).astype("f4"), (_CLASSES * (1 + 1e-7) * 1e-20).astype("f4")),
    "masks in the last place": (_FEW, np.where(_FEW < -1e8, np.float32(-1e9) + 64, _FEW).astype("f4")),
    "one activation of 30,000": (np.append(_FEW, 3e4).astype("f4"), np.append(_FEW, 3e4 * (1 + 2e-6)).astype("f4")),
    "sums that cancel": (np.append(_CLASSES, 1e-9).astype("f4"), np.append(_CLASSES, -1e-9).astype("f4")),
    "what a processor flushes": (np.array([1e-39, 0, 2e-39], "f4"), np.zeros(3, "f4")),
    "infinities and NaN": (np.array([np.inf, np.nan, 1, 2], "f4"), np.array([np.inf, np.nan, 1, 2], "f4")),
}


@pytest.mark.parametrize("case", ROUNDED)
def test_rounding_is_no_difference(case: str) -> None:
    expected, found = ROUNDED[case]
    try:
        _compare({"0/y": expected}, {"0/y": found})
    except UnprovenError:
        assert case == "what a processor flushes"


def test_tolerances_that_are_given() -> None:
    expected, found = {"0/y": np.array([1.0, 2, 3])}, {"0/y": np.array([1.0, 2, 3.05])}
    for refused in ({}, {"atol": 0.04}, {"rtol": 0.01}, {"atol": 0.01, "rtol": 0.01}):
        with pytest.raises(VerificationError, match=r"differs by 0\.05 at \[2\]"):
            _compare(expected, found, **refused)
    for accepted in ({"atol": 0.06}, {"rtol": 0.02}, {"atol": 0.03, "rtol": 0.01}):
        assert _compare(expected, found, **accepted).max_abs == pytest.approx(0.05)
    with pytest.raises(UnprovenError, match="varies less than the tolerance"):
        _compare(expected, found, atol=10.0)


def test_what_rounding_moves_is_tolerated_and_said() -> None:
    expected, found = {"0/y": np.arange(9, dtype="f4")}, {"0/y": np.arange(9, dtype="f4") + 0.01}
    with pytest.raises(VerificationError, match="differs"):
        _compare(expected, found)
    assert not _compare(expected, found, rounding={"y": 0.004}).unproven
    with pytest.raises(VerificationError, match="differs"):
        _compare(expected, found, rounding={"y": 0.002})
    with pytest.raises(UnprovenError, match="rounding alone changes it by"):
        _compare(expected, found, rounding={"y": 0.5})


def test_a_cast_that_was_asked_for_may_change_the_type() -> None:
    expected = {"0/y": np.array([1, 2], "f4")}
    with pytest.raises(VerificationError, match="is float16, not float32"):
        _compare(expected, {"0/y": np.array([1, 2], "f2")})
    _compare(expected, {"0/y": np.array([1, 2], "f2")}, is_cast=True)
    with pytest.raises(VerificationError, match="is int32, not float32"):
        _compare(expected, {"0/y": np.array([1, 2], "i4")}, is_cast=True)
