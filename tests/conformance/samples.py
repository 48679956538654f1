"""Checkpoints that every format is held to, and ways to compare what comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from converter import formats as formats_package
from converter.formats import Format, registry
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor, Tensor

if "CKCONV_TEST_FORMATS" in os.environ:  # a folder of formats that are not of this project, held to the suite too
    formats_package.__path__.append(os.environ["CKCONV_TEST_FORMATS"])


def _random(dtype: DType, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """A tensor of random bits: NaN payloads and denormals included."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if dtype is DType.BOOL:
        return ArrayTensor.of(generator.integers(0, 2, shape).astype(np.bool_))
    raw = generator.integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    return ArrayTensor.of(raw.view(dtype.numpy).reshape(shape))


def plain() -> Checkpoint:
    """A small network as torch names it."""
    return Checkpoint(
        tensors={
            "encoder.dense.weight": _random(DType.FLOAT32, (5, 3)),
            "encoder.dense.bias": _random(DType.FLOAT32, (5,), 1),
            "head.weight": _random(DType.FLOAT32, (2, 5), 2),
        }
    )


def shapes() -> Checkpoint:
    """Scalars, empty tensors, many axes."""
    return Checkpoint(
        tensors={
            "scalar": _random(DType.FLOAT32, ()),
            "empty": _random(DType.FLOAT32, (0, 4)),
            "deep": _random(DType.FLOAT32, (1, 2, 1, 3, 1, 2)),
            "long": _random(DType.FLOAT32, (100_003,)),
        }
    )


def names() -> Checkpoint:
    """Names that somebody somewhere uses, and that some format has trouble with."""
    wild = [
        "plain",
        "with.dots.weight",
        "with space",
        "with/slash/kernel:0",
        "_underscore",
        "0digit",
        "UPPER",
        "upper",
        "\u00fcml\u00e4ut.\u6a21\u578b",
        "percent%20",
        "back\\slash",
        "at@sign#hash",
        "emoji\U0001f600",
        "x" * 200,
    ]
    return Checkpoint(tensors={name: _random(DType.FLOAT32, (2,), seed) for seed, name in enumerate(wild)})


def ties() -> Checkpoint:
    """Two names for one tensor."""
    tensors = {"embedding.weight": _random(DType.FLOAT32, (4, 3)), "other": _random(DType.FLOAT32, (3,), 1)}
    return Checkpoint(tensors=tensors, aliases={"decoder.weight": "embedding.weight"})


def many() -> Checkpoint:
    """Ten thousand tensors."""
    array = np.arange(10_000, dtype=np.float32)
    return Checkpoint(tensors={f"layer.{n}.bias": ArrayTensor.of(array[n : n + 1]) for n in range(10_000)})


def dtypes_of(format_: Format) -> Checkpoint:
    """One tensor of every element type that `format_` says it holds."""
    held = sorted(format_.dtypes, key=lambda dtype: dtype.value)
    return Checkpoint(tensors={dtype.value: _random(dtype, (3, 7), seed) for seed, dtype in enumerate(held)})


SAMPLES: dict[str, Callable[[Format], Checkpoint]] = {
    "plain": lambda format_: plain(),
    "shapes": lambda format_: shapes(),
    "names": lambda format_: names(),
    "ties": lambda format_: ties(),
    "dtypes": dtypes_of,
}


def options_of(format_: Format) -> dict[str, Any]:
    """What a checkpoint without an architecture needs to be written."""
    return {} if format_.runner is None else {"weights_only": True}


def formats() -> Iterable[Format]:
    """Every format there is."""
    return registry().values()


def destination_of(format_: Format, folder: str) -> str:
    """A path in `folder` for the format: a file where it has files, else a folder."""
    return f"{folder}/x{format_.suffixes[0]}" if format_.suffixes else f"{folder}/x"


def assert_same(expected: Checkpoint, found: Checkpoint) -> None:
    """Hold two checkpoints to the same names, element types, shapes and bits; collect every difference first."""
    wrong = [f"missing {name!r}" for name in expected.names if name not in found.names]
    wrong += [f"unexpected {name!r}" for name in found.names if name not in expected.names]
    for name in expected.names:
        if name in found.names:
            ours, theirs = expected.tensor(name), found.tensor(name)
            if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
                wrong.append(f"{name!r}: {theirs.dtype}{theirs.shape}, not {ours.dtype}{ours.shape}")
            elif ours.numpy().tobytes() != theirs.numpy().tobytes():
                wrong.append(f"{name!r}: other bits")
    assert not wrong, wrong
