"""The sets of inputs that two sides are compared on: what they reach, what they cost, and what is said of the rest."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from converter.graphs.description.cases import Budget, Cases, sample_cases, unreached
from converter.graphs.description.signature import Dimension, GraphInput, Role, Sampling, Signature, Threshold
from converter.model.dtype import DType

_SHAPE = ("batch", "sequence")


def text(
    *thresholds: Threshold,
    vocabulary: int = 300,
    high: int | None = None,
    leading: tuple[int, ...] = (),
    weights: int = 16,
) -> Signature:
    """A model of text with a mask."""
    ids = Sampling(role=Role.IDS, high=vocabulary, padding=1, leading=leading, excluded=leading)
    return Signature(
        title="",
        parameters={"layer.weight": (DType.FLOAT32, (weights, weights))},
        inputs=(
            GraphInput(name="input_ids", dtype=DType.INT64, shape=_SHAPE, sampling=ids),
            GraphInput(
                name="attention_mask",
                dtype=DType.INT64,
                shape=_SHAPE,
                sampling=Sampling(role=Role.MASK, low=len(leading)),
            ),
        ),
        dimensions=(
            Dimension(name="batch", checked=(3, 1, 4, 2, 2)),
            Dimension(name="sequence", low=len(leading), high=high),
        ),
        thresholds=thresholds,
        heads=2,
    )


def of(name: str, count: int) -> Threshold:
    return Threshold(name=f"{name} {count}", dimension="sequence", count=count)


def masks(found: Cases, name: str) -> np.ndarray:
    (case,) = [case for case in found.cases if case.name.startswith(name)]
    mask: np.ndarray = case.arrays["attention_mask"]
    return mask


def test_masks_of_every_kind() -> None:
    found = sample_cases(text())
    assert (np.diff(masks(found, "right padding"), axis=1) <= 0).all()
    assert not masks(found, "right padding").all()
    assert masks(found, "no padding").all()
    mixed = masks(found, "left padding and holes")
    assert (mixed[0, 0], mixed[0, -1]) == (0, 1)
    assert (np.diff(mixed[0]) >= 0).all()
    assert (mixed[1, 0], mixed[1, -1]) == (1, 1)
    assert not mixed[1].all()
    assert mixed.any(axis=1).all()
    row = masks(found, "a row all masked")
    assert row[0].all()
    assert not row[-1].any()
    assert masks(found, "the shortest").shape == (2, 1)
    assert len({case.arrays["input_ids"].shape[0] for case in found.cases}) >= 4
    for case in found.cases:
        padded = case.arrays["attention_mask"] == 0
        assert (case.arrays["input_ids"][padded] == 1).all()


def test_what_stands_for_an_image_is_never_masked() -> None:
    found = sample_cases(text(leading=(7, 7, 7)))
    for case in found.cases:
        assert (case.arrays["input_ids"][:, :3] == 7).all()
        assert case.arrays["attention_mask"][:, :3].all()
    assert not masks(found, "left padding and holes").all()


@pytest.mark.parametrize("vocabulary", [3, 50, 3000])
def test_every_id_of_the_vocabulary_occurs(vocabulary: int) -> None:
    found = sample_cases(text(vocabulary=vocabulary))
    seen = np.unique(np.concatenate([case.arrays["input_ids"].reshape(-1) for case in found.cases]))
    np.testing.assert_array_equal(seen, np.arange(vocabulary))
    assert found.notes == ()


@pytest.mark.parametrize("vocabulary", [100_000, 1 << 40])
def test_a_vocabulary_without_room_is_cut_and_said_to_be(vocabulary: int) -> None:
    tracemalloc.start()
    found = sample_cases(text(vocabulary=vocabulary))
    assert tracemalloc.get_traced_memory()[1] < 1 << 30
    tracemalloc.stop()
    seen = np.unique(np.concatenate([case.arrays["input_ids"].reshape(-1) for case in found.cases]))
    (note,) = found.notes
    assert note.endswith(f"of {vocabulary} ids of input_ids are among the inputs compared")
    if vocabulary < 1 << 20:
        assert note.startswith(f"{len(seen)} of ")


def lengths(found: Cases) -> list[int]:
    return [case.sizes["sequence"] for case in found.cases if case.name.startswith("past")]


def test_there_is_a_length_in_each_range_between_thresholds() -> None:
    assert lengths(sample_cases(text())) == []
    assert lengths(sample_cases(text(of("sliding_window", 8)))) == []
    assert lengths(sample_cases(text(of("sliding_window", 20)))) == [23]
    assert lengths(sample_cases(text(of("sliding_window", 80)))) == [90]
    assert lengths(sample_cases(text(of("sliding_window", 17)))) == [20]  # there is one of 17, which is not past it
    assert lengths(sample_cases(text(of("sliding_window", 16)))) == []
    found = sample_cases(text(of("block_size", 20), of("max_distance", 30), of("max_positions", 39), high=40))
    assert lengths(found) == [40, 33, 23]
    assert any(case.name.startswith("past block_size 20, 1 x 23") for case in found.cases)


def test_a_threshold_that_no_valid_input_is_past_is_none() -> None:
    architecture = text(of("original_max", 4096), high=40)
    assert lengths(sample_cases(architecture)) == []
    assert unreached(architecture, [case.sizes for case in sample_cases(architecture).cases]) is None


def test_a_length_that_is_a_threshold_is_not_past_it() -> None:
    architecture = text(of("sliding_window", 17))
    said = "outputs not compared beyond 17 tokens (sliding_window 17)"
    assert unreached(architecture, [{"batch": 1, "sequence": 17}, {"batch": 9, "sequence": 2}]) == said
    assert unreached(architecture, [{"batch": 1, "sequence": 2}, {"batch": 1, "sequence": 18}]) is None


def test_lengths_without_room_are_said_to_be_unreached() -> None:
    architecture = text(of("sliding_window", 64), of("original_max", 4096), weights=40_000)
    found = sample_cases(architecture, Budget(seconds=20.0))
    assert lengths(found) == [72]
    said = unreached(architecture, [case.sizes for case in found.cases])
    assert said == "outputs not compared beyond 72 tokens (original_max 4096)"
    nothing = sample_cases(architecture, Budget(seconds=0.01))
    said = unreached(architecture, [case.sizes for case in nothing.cases])
    assert said == "outputs not compared beyond 17 tokens (sliding_window 64, original_max 4096)"
    small = replace(architecture, parameters={})
    assert lengths(sample_cases(small, Budget(nbytes=1 << 34))) == [4608, 72]


def unknown(dtype: DType, *shape: int | str, sampling: Sampling = Sampling()) -> Signature:  # noqa: B008
    each = GraphInput(name="x", dtype=dtype, shape=shape, sampling=sampling)
    return Signature(title="", parameters={}, inputs=(each,))


@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT32, DType.INT64, DType.UINT8])
def test_integers_of_unknown_meaning_are_negative_and_large(dtype: DType) -> None:
    cases = sample_cases(unknown(dtype, "n", "m")).cases
    (wide,) = [case for case in cases if "large" in case.name]
    values = wide.arrays["x"]
    assert values.dtype == dtype.numpy
    assert values.max() >= 100
    assert (values.min() < 0) is np.bool_(dtype is not DType.UINT8)
    plain = [case for case in cases if case.is_plain]
    assert len(plain) == 2
    assert all(set(np.unique(case.arrays["x"])) <= {0, 1} for case in plain)


@pytest.mark.parametrize(
    "dtype", [DType.INT8, DType.INT16, DType.INT32, DType.INT64, DType.UINT8, DType.UINT32, DType.UINT64]
)
def test_integers_of_which_any_will_do_are_those_of_the_whole_type(dtype: DType) -> None:
    numbers = Sampling(role=Role.NUMBERS)
    cases = sample_cases(unknown(dtype, "n", "m", sampling=numbers)).cases
    assert [case.name.partition(",")[0] for case in cases[-2:]] == [
        "negative and large integers",
        "integers of the whole type",
    ]
    large, whole = (case.arrays["x"] for case in cases[-2:])
    limits = np.iinfo(dtype.numpy)
    assert whole.dtype == dtype.numpy
    assert (whole.min(), whole.max()) == (limits.min, limits.max)
    assert len(np.unique(whole)) > 15
    assert int(np.abs(large.astype(object)).max()) <= 1 << 24
    if limits.bits == 64:
        sizes = [abs(int(each)) for each in whole.ravel()]
        assert any(each > 1 << 32 for each in sizes)
        assert not any(1 << 31 <= each < 1 << 32 for each in sizes)
    both = (
        GraphInput(name="x", dtype=dtype, shape=("n",), sampling=numbers),
        GraphInput(name="y", dtype=dtype, shape=()),
    )
    *_, last = sample_cases(Signature(title="", parameters={}, inputs=both)).cases
    assert last.arrays["x"].max() == limits.max
    assert abs(int(last.arrays["y"])) <= 1 << 24


@pytest.mark.parametrize(
    ("dtype", "sampling"),
    [
        (DType.BOOL, Sampling()),
        (DType.FLOAT32, Sampling()),
        (DType.INT64, Sampling(role=Role.TYPES)),
        (DType.INT64, Sampling(role=Role.IDS, high=9)),
    ],
)
def test_other_inputs_stay_within_what_they_mean(dtype: DType, sampling: Sampling) -> None:
    cases = sample_cases(unknown(dtype, "n", "m", sampling=sampling)).cases
    assert not [case for case in cases if "large" in case.name]


def test_keys_of_a_table_are_all_there_and_so_is_what_is_beside_them() -> None:
    looked_up = Sampling(role=Role.KEYS, keys=tuple(range(0, 200, 2)), beside=tuple(range(1, 151, 2)))
    asked = GraphInput(name="key", dtype=DType.INT64, shape=("batch", 4), sampling=looked_up)
    found = sample_cases(Signature(title="", parameters={}, inputs=(asked,)))
    drawn = {case.name: set(case.arrays["key"].flat) for case in found.cases}
    assert all(each <= set(looked_up.keys) for name, each in drawn.items() if "lacks" not in name)
    (keys,) = [each for name, each in drawn.items() if name.startswith("keys of a table")]
    (mixed,) = [each for name, each in drawn.items() if name.startswith("keys that a table lacks")]
    assert keys == set(looked_up.keys)
    assert mixed == {*looked_up.keys, *looked_up.beside}
    alone = GraphInput(name="key", dtype=DType.INT64, shape=(), sampling=looked_up)
    found = sample_cases(Signature(title="", parameters={}, inputs=(alone,)))
    assert {int(case.arrays["key"]) in looked_up.keys for case in found.cases} == {True, False}


def test_a_graph_of_fixed_shapes_has_one_set() -> None:
    assert [case.name for case in sample_cases(unknown(DType.FLOAT32, 2, 3)).cases] == ["2 x 3"]
    assert [case.name for case in sample_cases(unknown(DType.FLOAT32)).cases] == ["a number"]


def test_what_no_text_is_as_long_as_cannot_be_missed() -> None:
    """A threshold at the greatest length that there may be is one that nothing is past."""
    for count, missed in ((31, True), (32, False), (33, False)):
        model = text(Threshold(name="window", dimension="sequence", count=count), high=32)
        said = unreached(model, [{"batch": 1, "sequence": 17}])
        assert (said is not None) is missed


def test_ids_that_have_a_meaning_of_their_own_are_no_words() -> None:
    """Of the rest of the vocabulary none is drawn that a model would take for something else than text."""
    model = text(vocabulary=2000)
    ids, mask = model.inputs
    with_end = replace(ids, sampling=replace(ids.sampling, excluded=(7, 1999)))
    cases = sample_cases(replace(model, inputs=(with_end, mask)))
    (rest,) = (case for case in cases.cases if case.name.startswith("the rest of the vocabulary"))
    assert {8, 1998} <= set(rest.arrays["input_ids"].reshape(-1).tolist())
    assert not any(np.isin(case.arrays["input_ids"], (7, 1999)).any() for case in cases.cases)
    assert cases.notes == ()
