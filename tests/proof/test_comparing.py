"""Tolerances of outputs, just inside and just outside, and what has no power to prove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter.errors import UnprovenError, VerificationError
from converter.proof.comparing import RELATIVE_TOLERANCE, Comparison, compare_outputs

CHANCE = np.random.default_rng(5)
VALUES = CHANCE.standard_normal((4, 50)) + 3
"""No element is far from the scale, the median of |x|."""
TOLERANCES = {"float64": 1e-7, "float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}


def compare(ours: Any, theirs: Any, **options: Any) -> Comparison:
    given = {"path": Path("out"), "atol": None, "rtol": None, **options}
    return compare_outputs({"0/y": np.asarray(ours)}, {"0/y": np.asarray(theirs)}, **given)


def moved(values: Any, at: tuple[int, ...], by: float) -> Any:
    changed = values.copy()
    changed[at] = changed[at] + by
    return changed


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_tolerance_of_each_type(dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    values = VALUES.astype(kind)
    wide = values.astype(np.float64)
    scale = float(np.median(np.abs(wide)))
    at = tuple(int(each) for each in np.unravel_index(np.argmin(np.abs(np.abs(wide) - scale)), wide.shape))
    tolerance = TOLERANCES[dtype] * scale
    compare(values, moved(wide, at, 0.5 * tolerance).astype(kind))
    with pytest.raises(VerificationError, match=r"differs by .* more than"):
        compare(values, moved(wide, at, 3 * tolerance).astype(kind))


@pytest.mark.parametrize("rounded", ["float16", "bfloat16"])
def test_the_tolerance_of_the_type_that_is_computed_in(rounded: str) -> None:
    values = VALUES.astype(np.float32)
    at = tuple(int(each) for each in np.unravel_index(np.argmin(values), values.shape))
    tolerance = TOLERANCES[rounded] * float(np.median(np.abs(values)))
    found = compare(values, moved(values, at, 0.9 * tolerance), rounded={"y": rounded})
    assert found.tolerance == pytest.approx(tolerance)
    assert found.per_output[0].computed_in == rounded
    with pytest.raises(VerificationError, match="differs by"):
        compare(values, moved(values, at, 1.2 * tolerance), rounded={"y": rounded})
    with pytest.raises(VerificationError, match="differs by"):
        compare(values, moved(values, at, 0.9 * tolerance), rounded={"other": rounded})
    with pytest.raises(VerificationError, match="differs by"):
        compare(values, moved(values, at, 0.9 * tolerance), rounded={"y": rounded}, rtol=1e-5)
    double = values.astype(np.float64)
    compare(double, moved(double, at, 0.9 * tolerance), rounded={"y": rounded})


def test_rounding_of_the_type_that_is_computed_in_proves_what_its_tolerance_does() -> None:
    values = VALUES.astype(np.float32)
    rounding = {"y": 0.01 * float(np.sqrt(np.mean(np.square(values))))}
    assert compare(values, values.copy(), rounding=rounding, rounded={"y": "bfloat16"}).unproven == ()
    for rounded in ({}, {"y": "float16"}):
        with pytest.raises(UnprovenError, match="rounding alone changes it"):
            compare(values, values.copy(), rounding=rounding, rounded=rounded)


def test_masked_values_are_held_to_the_places_of_the_type_that_is_computed_in() -> None:
    values = VALUES.astype(np.float32)
    values[0, :9] = -1e9
    other = moved(values, (0, 3), -4e6)
    compare(values, other, rounded={"y": "bfloat16"})
    for rounded in ({}, {"y": "float16"}):
        with pytest.raises(VerificationError, match="differs by"):
            compare(values, other, rounded=rounded)


def test_a_tolerance_that_was_asked_for_just_inside_and_just_outside() -> None:
    values = VALUES
    scale = float(np.median(np.abs(values)))
    at = tuple(int(each) for each in np.unravel_index(np.argmin(np.abs(values)), values.shape))
    for options, allowed in (
        ({"atol": 0.01}, 0.01),
        ({"rtol": 0.01}, 0.01 * scale),
        ({"atol": 0.01, "rtol": 0.01}, 0.01 + 0.01 * scale),
    ):
        assert compare(values, moved(values, at, 0.999 * allowed), **options).tolerance == pytest.approx(allowed)
        with pytest.raises(VerificationError, match="differs by"):
            compare(values, moved(values, at, 1.001 * allowed), **options)


def test_what_stands_out_is_held_to_its_own_magnitude() -> None:
    values = VALUES.astype(np.float32)
    values[0, 0] = 1000
    compare(values, moved(values, (0, 0), 0.01))
    with pytest.raises(VerificationError, match=r"at \[0, 0\]"):
        compare(values, moved(values, (0, 0), 0.05))
    with pytest.raises(VerificationError, match=r"at \[1, 1\]"):
        compare(values, moved(values, (1, 1), 0.01))


def test_what_is_large_and_no_mask_is_held_to_its_own_magnitude() -> None:
    """Rounding goes with magnitudes, up to those that only a mask has: two hundred at ten millions, in float32."""
    values = VALUES.astype(np.float32)
    values[0, 0] = 1e7
    compare(values, moved(values, (0, 0), 150))
    with pytest.raises(VerificationError, match=r"at \[0, 0\]"):
        compare(values, moved(values, (0, 0), 300))


@pytest.mark.parametrize("masked", [-1e9, float(np.finfo("f4").min), float("-inf")])
def test_a_masked_value_excuses_nothing_beside_it(masked: float) -> None:
    values = VALUES.astype(np.float32)
    values[:, :10] = masked
    compare(values, values.copy())
    with pytest.raises(VerificationError, match="differs"):
        compare(values, moved(values, (2, 20), 0.01))
    other = values.copy()
    other[0, 0] = -1e8 if masked != -1e8 else 0
    with pytest.raises(VerificationError, match="differs"):
        compare(values, other)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_masked_values_are_the_same_but_for_two_places_of_their_type(dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    values = VALUES.astype(kind)
    values[:, :10] = -1e9
    place = float(2**29 * ml_dtypes.finfo(kind).eps)
    wide = values.astype(np.float64)
    compare(values, moved(wide, (0, 0), 2 * place).astype(kind))
    with pytest.raises(VerificationError, match=r"differs by .* at \[0, 0\]"):
        compare(values, moved(wide, (0, 0), 3 * place).astype(kind))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("is_ours", [True, False])
def test_nan_and_infinity_on_one_side(wrong: float, is_ours: bool) -> None:
    values, changed = VALUES.astype(np.float32), VALUES.astype(np.float32)
    changed[1, 1] = wrong
    compare(changed, changed.copy())
    with pytest.raises(VerificationError, match="differs"):
        compare(changed, values) if is_ours else compare(values, changed)


def test_the_second_of_two_cases_counts() -> None:
    ours = {"0/y": VALUES, "1/y": VALUES + 1}
    options: dict[str, Any] = {"path": Path("out"), "atol": None, "rtol": None}
    compare_outputs(ours, {key: value.copy() for key, value in ours.items()}, **options)
    with pytest.raises(VerificationError, match="'y' differs"):
        compare_outputs(ours, {**ours, "1/y": moved(VALUES + 1, (3, 3), 0.1)}, **options)
    with pytest.raises(VerificationError, match="no output 'y'"):
        compare_outputs(ours, {"0/y": VALUES}, **options)
    with pytest.raises(VerificationError, match="has an output 'z' that the source does not have"):
        compare_outputs(ours, {**ours, "0/z": VALUES}, **options)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (np.array([2**53, 1]), np.array([2**53 + 1, 1]), "differs"),
        (np.array([2**63, 1], "u8"), np.array([2**63 + 1, 1], "u8"), "differs"),
        (np.array([True, False]), np.array([True, True]), "differs"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "differs"),
        (np.array([1 + 2j, 3]), np.array([1 - 2j, 3]), "differs"),
        (VALUES.astype("f4"), VALUES.astype("f8"), "is float64, not float32"),
        (np.array([1, 2]), np.array([1, 2], "i4"), "is int32, not int64"),
        (VALUES, VALUES.T, "has shape"),
        (VALUES, VALUES.ravel(), "has shape"),
    ],
    ids=["int64", "uint64", "bool", "string", "complex", "wider", "narrower", "transposed", "flat"],
)
def test_what_has_no_tolerance(ours: Any, theirs: Any, said: str) -> None:
    compare(ours, ours.copy())
    with pytest.raises(VerificationError, match=said):
        compare(ours, theirs)


def test_a_type_that_a_cast_makes_other() -> None:
    half = VALUES.astype(np.float16)
    compare(VALUES.astype("f4"), half, rtol=RELATIVE_TOLERANCE["float16"], is_cast=True)
    with pytest.raises(VerificationError, match="is float16"):
        compare(VALUES.astype("f4"), half, rtol=RELATIVE_TOLERANCE["float16"])
    with pytest.raises(VerificationError, match="is int64"):
        compare(VALUES.astype("f4"), VALUES.astype("i8"), is_cast=True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((2, 3), np.nan), "all NaN"),
        (np.zeros((2, 3)), "constant"),
        (np.full((2, 3), 7.5), "constant"),
        (np.ones(4, bool), "constant"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((0, 3), "i4"), "empty"),
        (1 + 1e-9 * np.arange(8), "varies less than the tolerance"),
    ],
)
def test_what_could_not_have_failed_is_not_proven(values: Any, reason: str) -> None:
    with pytest.raises(UnprovenError, match=f"outputs not proven: 'y' .{reason}") as caught:
        compare(values, values.copy())
    assert caught.value.exit_code == 4
    options: dict[str, Any] = {"path": Path("out"), "atol": None, "rtol": None}
    both = {"0/x": VALUES, "0/y": values}
    comparison = compare_outputs(both, {key: value.copy() for key, value in both.items()}, **options)
    assert [(each.name, each.reason) for each in comparison.unproven] == [("y", reason)]


@pytest.mark.parametrize("beside", [np.nan, np.inf, -np.inf])
def test_a_quarter_of_numbers_proves_and_less_does_not(beside: float) -> None:
    values = np.full((100, 1), beside)
    values[:25, 0] = VALUES.ravel()[:25]
    assert compare(values, values.copy()).unproven == ()
    values[24] = beside
    with pytest.raises(UnprovenError, match=r"76\.0% of it is NaN or infinite"):
        compare(values, values.copy())


def test_a_mask_beside_a_number_is_one() -> None:
    values = np.full((4, 25), -np.inf)
    values[0, :2] = 1, 2
    assert compare(values, values.copy()).unproven == ()
    values[0, 2:] = np.inf
    with pytest.raises(UnprovenError, match=r"98\.0% of it is NaN or infinite"):
        compare(values, values.copy())


def test_no_output_at_all_is_not_proven() -> None:
    with pytest.raises(UnprovenError, match="there are none"):
        compare_outputs({}, {}, path=Path("out"), atol=None, rtol=None)


def test_small_outputs_are_compared_to_their_own_scale() -> None:
    small = np.linspace(1e-8, 8e-6, 100, dtype="f4")
    assert compare(small, small.copy()).per_output[0].share > 0.9
    with pytest.raises(VerificationError, match="differs"):
        compare(small, small[::-1])


def test_rounding_excuses_as_much_as_it_moves_and_no_more() -> None:
    values = VALUES.astype(np.float32)
    compare(values, moved(values, (0, 0), 3.5e-3), rounding={"y": 1e-3})
    with pytest.raises(VerificationError, match="differs"):
        compare(values, moved(values, (0, 0), 4.5e-3), rounding={"y": 1e-3})
    with pytest.raises(UnprovenError, match="rounding alone changes it"):
        compare(values, values.copy(), rounding={"y": 1.0})


def test_rounding_stands_in_the_place_of_the_least_difference_and_not_beside_it() -> None:
    values = VALUES.astype(np.float32)
    found = compare(values, values.copy(), atol=4e-3, rounding={"y": 1e-3}).per_output[0]
    assert found.tolerance == pytest.approx(4e-3)
    assert compare(values, values.copy(), atol=5e-3, rounding={"y": 1e-3}).tolerance == pytest.approx(5e-3)
    assert compare(values, values.copy(), atol=1e-3, rounding={"y": 1e-3}).tolerance == pytest.approx(4e-3)


def test_the_figures_of_a_report() -> None:
    values = VALUES.astype(np.float32)
    found = compare(values, moved(values, (0, 0), 1e-5)).per_output[0]
    assert found.max_abs == pytest.approx(1e-5, rel=0.05)
    assert found.max_rel == pytest.approx(found.max_abs / max(abs(float(values[0, 0])), np.median(values)), rel=0.05)
    assert found.share > 0.99
    assert found.reason is None


def test_the_largest_difference_is_that_of_all_sets_and_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.proof.comparing._PIECE", 50)
    values = VALUES.astype(np.float32)
    ours = {"0/y": values, "1/y": values}
    for key, at in (("0/y", (0, 0)), ("0/y", (2, 3)), ("1/y", (3, 49))):
        theirs = {**ours, key: moved(values, at, 1e-5)}
        found = compare_outputs(ours, theirs, path=Path("out"), atol=None, rtol=None).per_output[0]
        assert found.max_abs == pytest.approx(1e-5, rel=0.05)
        assert found.max_rel > 1e-6


def test_what_is_nan_could_not_have_failed() -> None:
    values = VALUES.copy()
    values[:2] = np.nan
    assert compare(values, values.copy()).per_output[0].share == 0.5


def test_a_softmax_that_is_sure_of_itself_is_proven() -> None:
    """All but a few of its elements are next to nothing, and rounding moves them by more than their tolerance."""
    values = np.full((20, 5), 1e-12, np.float32) * (1 + np.arange(5, dtype="f4"))
    values[np.arange(20), np.arange(20) % 5] = 1
    found = compare(values, moved(values, (0, 2), 1e-13), rounding={"y": 1e-13})
    assert found.unproven == ()
    with pytest.raises(VerificationError, match="differs"):
        compare(values, moved(values, (0, 2), 1e-12), rounding={"y": 1e-13})
    with pytest.raises(VerificationError, match="differs"):
        compare(values, moved(values, (0, 0), -1e-4), rounding={"y": 1e-13})
    with pytest.raises(UnprovenError, match="rounding alone"):
        compare(values, values.copy(), rounding={"y": 1e-2})


def test_masked_values_are_in_no_figure() -> None:
    """They may differ in the last places of their type, which is thousands beside the others."""
    values = VALUES.astype(np.float32)
    values[0, :5] = np.float32(-1e9)
    theirs = values.copy()
    theirs[0, :5] = np.nextafter(theirs[0, :5], np.float32(0))
    found = compare(values, theirs).per_output[0]
    assert (found.max_abs, found.max_rel) == (0, 0)
    found = compare(values, moved(theirs, (1, 1), 1e-5)).per_output[0]
    assert found.max_abs == pytest.approx(1e-5, rel=0.05)
    assert found.max_rel < 1e-5


def test_the_bounds_of_this_module_are_what_its_words_say() -> None:
    """Measured ones, which no single output shows: a quarter of numbers, four times rounding, a hundredth of it."""
    values = VALUES.astype(np.float32)
    scale = float(np.sqrt(np.mean(np.square(values))))
    for rounding, is_proven in ((0.0024 * scale, True), (0.0026 * scale, False)):
        if is_proven:
            assert compare(values, values.copy(), rounding={"y": rounding}).unproven == ()
        else:
            with pytest.raises(UnprovenError, match="rounding alone changes it"):
                compare(values, values.copy(), rounding={"y": rounding})


def test_a_sigmoid_is_held_to_places_behind_the_point() -> None:
    values = (VALUES * 1e-6).astype(np.float32)
    assert compare(values, moved(values, (1, 2), 2e-7), activations={"y": "sigmoid"}).tolerance > 2.3e-7
    with pytest.raises(VerificationError, match="differs by"):
        compare(values, moved(values, (1, 2), 3e-7), activations={"y": "sigmoid"})
    for others in ({"activations": {"x": "sigmoid"}}, {"activations": {"y": "sigmoid"}, "rtol": 1e-5}):
        with pytest.raises(VerificationError, match="differs by"):
            compare(values, moved(values, (1, 2), 2e-7), **others)
    half = values.astype(np.float64)
    with pytest.raises(VerificationError, match="differs by"):
        compare(half, moved(half, (1, 2), 2e-7), activations={"y": "sigmoid"})


@pytest.mark.parametrize("size", [0.01, 30.0])
def test_a_softmax_is_held_to_what_its_logits_are(size: float) -> None:
    """By so much of itself as they may be off at all: what is 2e-5 of 30 is 6e-4 of its exponential."""
    logits = (VALUES - 3) * size
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    values = (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)
    at = tuple(int(each) for each in np.unravel_index(np.argmax(values), values.shape))
    tolerance = 2e-5 * max(1.0, float(np.max(logits) - np.median(logits))) * float(values[at])
    compare(values, moved(values, at, 0.7 * tolerance), activations={"y": "softmax"})
    for by, others in (
        (1.5, {"activations": {"y": "softmax"}}),
        (0.7, {"activations": {"x": "softmax"}, "rtol": 1e-6}),
        (0.7, {"activations": {"y": "softmax"}, "rtol": 1e-6}),
        *([(0.7, {})] if size > 1 else []),
    ):
        with pytest.raises(VerificationError, match="differs by"):
            compare(values, moved(values, at, by * tolerance), **others)
