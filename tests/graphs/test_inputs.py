"""Sample inputs: what is known of them is kept, and of any graph something can be made."""

from __future__ import annotations

import numpy as np
import pytest

from converter.errors import GraphError
from converter.graphs.description.sample_inputs import sample_inputs, sample_sizes
from converter.graphs.description.signature import GraphInput, Role, Sampling, Signature
from converter.model.dtype import DType

IDS = Sampling(role=Role.IDS, high=7, padding=1, leading=(5, 6), excluded=(2,))
SHAPE = ("batch", "sequence")


def _text(*shape: int | str) -> tuple[GraphInput, ...]:
    return (
        GraphInput(name="input_ids", dtype=DType.INT64, shape=shape, sampling=IDS),
        GraphInput(name="attention_mask", dtype=DType.INT64, shape=shape, sampling=Sampling(role=Role.MASK)),
        GraphInput(name="token_type_ids", dtype=DType.INT64, shape=shape),
        GraphInput(name="decoder_ids", dtype=DType.INT32, shape=("batch", "decoder"), sampling=IDS),
    )


def test_ids_are_padded_where_their_mask_says_so() -> None:
    sizes = {"batch": 50, "sequence": 12, "decoder": 4}
    arrays = sample_inputs(_text(*SHAPE), seed=3, sizes=sizes)
    again = sample_inputs(_text(*SHAPE), seed=3, sizes=sizes)
    other = sample_inputs(_text(*SHAPE), seed=4, sizes=sizes)
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])
    assert (ids != other["input_ids"]).any()
    assert (ids.shape, ids.dtype) == ((50, 12), np.int64)
    assert set(np.unique(ids)) == {0, 1, 3, 4, 5, 6}
    np.testing.assert_array_equal(ids == 1, mask == 0)
    np.testing.assert_array_equal(ids[0, :2], [5, 6])
    assert (np.diff(mask, axis=1) <= 0).all()
    assert mask[0].all()
    assert mask[:, 0].all()
    assert not mask.all()
    assert set(np.unique(arrays["token_type_ids"])) == {0, 1}
    decoder = arrays["decoder_ids"]
    assert (decoder.shape, decoder.dtype) == ((50, 4), np.int32)
    assert 1 not in decoder


def test_dimensions_that_are_sums() -> None:
    mask = GraphInput(
        name="m", dtype=DType.INT64, shape=("batch", "past + sequence"), sampling=Sampling(role=Role.MASK)
    )
    past = GraphInput(name="past.0.key", dtype=DType.FLOAT32, shape=("batch", 2, "past", 4))
    arrays = sample_inputs((mask, past), seed=0, sizes={"batch": 2, "past": 3, "sequence": 5})
    assert arrays["m"].shape == (2, 8)
    assert arrays["past.0.key"].shape == (2, 2, 3, 4)


@pytest.mark.parametrize("dtype", list(DType))
def test_inputs_of_which_only_the_type_is_known(dtype: DType) -> None:
    known = GraphInput(name="x", dtype=dtype, shape=("N", 5, "unk__1"))
    scalar = GraphInput(name="s", dtype=dtype, shape=())
    architecture = Signature(title="", parameters={}, inputs=(known, scalar))
    first, second = sample_sizes(architecture)[:2]
    assert set(first) == {"N", "unk__1"}
    assert all(first[name] != second[name] for name in first)
    arrays = sample_inputs(architecture.inputs, seed=0, sizes=first)
    assert arrays["x"].shape == (first["N"], 5, first["unk__1"])
    assert arrays["s"].shape == ()
    assert arrays["x"].dtype == dtype.numpy
    if np.dtype(dtype.numpy).kind in "iub":
        assert set(np.unique(arrays["x"])) == {0, 1}


def test_one_dimension_with_two_names() -> None:
    inputs = (
        GraphInput(name="a", dtype=DType.INT64, shape=("unk__1", "unk__2")),
        GraphInput(name="b", dtype=DType.INT64, shape=("unk__3", "unk__4")),
    )
    for sizes in sample_sizes(Signature(title="", parameters={}, inputs=inputs)):
        assert (sizes["unk__1"], sizes["unk__2"]) == (sizes["unk__3"], sizes["unk__4"])


def test_boxes_have_their_corners_in_order() -> None:
    boxes = GraphInput(
        name="bbox", dtype=DType.INT64, shape=("batch", "sequence", 4), sampling=Sampling(role=Role.BOXES, high=1000)
    )
    found = sample_inputs((boxes,), seed=0, sizes={"batch": 3, "sequence": 9})["bbox"]
    assert (found[..., 2:] >= found[..., :2]).all()
    assert found.max() > 1


@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), ("n", "h", "w", 3)])
def test_images_are_large_enough_for_deep_networks(shape: tuple[int | str, ...]) -> None:
    image = GraphInput(name="image", dtype=DType.FLOAT32, shape=shape)
    cases = sample_sizes(Signature(title="", parameters={}, inputs=(image,)))
    assert [(case["h"], case["w"]) for case in cases[:2]] == [(64, 96), (96, 64)]


def test_sounds_are_long_and_so_are_their_masks() -> None:
    sound = GraphInput(name="input_values", dtype=DType.FLOAT32, shape=("n", "samples"))
    mask = GraphInput(name="attention_mask", dtype=DType.INT64, shape=("n", "sequence"))
    ids = GraphInput(name="decoder_ids", dtype=DType.INT64, shape=("n", "decoder"))
    for case in sample_sizes(Signature(title="", parameters={}, inputs=(mask, ids, sound))):
        assert case["samples"] == case["sequence"] > 2000
        assert case["decoder"] < 20


def test_an_input_that_is_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.graphs.description.sample_inputs._ELEMENTS_LIMIT", 100)
    one = GraphInput(name="x", dtype=DType.INT64, shape=("n", 2, 10))
    assert sample_inputs((one,), seed=0, sizes={"n": 5})["x"].size == 100
    with pytest.raises(GraphError, match=r"an input 'x' of \[6, 2, 10\] is too large"):
        sample_inputs((one,), seed=0, sizes={"n": 6})
