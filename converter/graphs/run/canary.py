"""Weights changed on purpose in a model that is loaded already, a group at a time: its outputs have to show it.

A group is all tensors of one name, numbers of layers folded: ``encoder.layer.*.attention.self.query.weight``. What the
outputs are then is left to whoever compares; here nothing is judged.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from converter.graphs.run.answers import TriedGroups
from converter.graphs.run.arrays import Writer, reason_of

SHARE = 0.3
"""Of the time that a verification takes, the most that its canary takes."""
_PLAIN = 2
_GROUP_BYTES = 256 << 20
_NUMBER = re.compile(r"(?<![^./_>:])\d+(?![^./_>:])")
_UNUSUAL = 1e8
_NUDGED = 0.125
_FLOATS = tuple(map(np.dtype, (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)))


class Weights(Protocol):
    """The weights of a loaded model, by name."""

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each floating-point weight."""

    def read(self, name: str) -> Any:
        """Return the values of a weight, an array that stays as it is when the weight is written."""

    def write(self, name: str, values: Any) -> None:
        """Give a weight other values, of the same shape and element type."""


def is_floating(dtype: Any) -> bool:
    """Whether weights of this numpy type are changed; integers never are."""
    return np.dtype(dtype) in _FLOATS


def groups_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Return group -> its names, in an order that the names alone decide."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(_NUMBER.sub("*", name), []).append(name)
    digest = hashlib.sha256("\n".join(groups).encode("utf-8", "surrogateescape")).digest()
    order = np.random.default_rng(int.from_bytes(digest[:8], "little")).permutation(len(groups))
    listed = list(groups)
    return {listed[index]: groups[listed[index]] for index in order}


def untried(weights: Weights, reason: str) -> TriedGroups:
    """Return what `try_groups` does, where no group can be tried."""
    groups = groups_of(list(weights.sizes()))
    return {"case": "", "tried": [], "failed": [], "not_tried": len(groups), "reason": reason[:200]}


def available_bytes() -> int:
    """Return the memory that is left on this machine, a lot where that cannot be told."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 1 << 62


def try_groups(
    weights: Weights,
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    inputs: Mapping[str, Mapping[str, Any]],
    *,
    path: str,
    since: float,
) -> TriedGroups:
    """Change one group after the other, run the smallest of the cases `inputs`, and write its outputs to an .npz.

    Every weight has its own values again afterwards. At least one group is tried, then as many as fit into SHARE of
    the time since `since` (time.monotonic). Of a group, layers are changed that fit into 256 MiB, the first in any
    case.
    """
    sizes = weights.sizes()
    groups = groups_of(list(sizes))
    # Of the first ones, the plainest: a text of one token has no use for queries and keys.
    case = min([*inputs][:_PLAIN], key=lambda number: sum(np.asarray(array).size for array in inputs[number].values()))
    began = time.monotonic()
    try:
        run(inputs[case])
    except Exception as error:  # each framework has its own
        return untried(weights, reason_of(error))
    seconds = (began - since) * SHARE / (1 - SHARE)
    tried: list[str] = []
    failed: list[int] = []
    with Writer(path) as writer:
        for group, names in groups.items():
            if tried and time.monotonic() - began > seconds:
                break
            originals = {name: weights.read(name) for name in _fitting(names, sizes)}
            try:
                for name, values in originals.items():
                    weights.write(name, perturbed(values, name))
                outputs = run(inputs[case])
            except Exception:  # each framework has its own, and what does not run any more has been noticed
                outputs = {}
                failed.append(len(tried))
            finally:
                for name, values in originals.items():
                    weights.write(name, values)
            for name, array in outputs.items():
                writer.add(f"{len(tried)}/{name}", array)
            tried.append(group)
    return {"case": case, "tried": tried, "failed": failed, "not_tried": len(groups) - len(tried), "reason": None}


def _fitting(names: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    chosen, nbytes = [names[0]], sizes[names[0]]
    for name in names[1:]:
        if nbytes + sizes[name] > _GROUP_BYTES:
            break
        chosen.append(name)
        nbytes += sizes[name]
    return chosen


def perturbed(values: Any, name: str) -> Any:
    """Return other values for a weight: turned round end to end, negated, and each with a noise of its own.

    So a weight that is constant changes, one whose scale a normalisation takes away, and one of zeros. What is nowhere
    negative stays so (variances, scales); what is not finite, or 1e8 and more (masks), stays as it is.
    """
    values = np.asarray(values)
    wide = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
    usual = np.isfinite(wide) & (np.abs(wide) < _UNUSUAL)
    plain = np.where(usual, wide, 0).astype(wide.dtype)
    scale = float(np.sqrt(np.mean(np.square(plain, dtype=np.float64)))) if plain.size else 0.0
    random = _random(name)
    noise = (0.25 + 0.75 * random.random(plain.shape, dtype=np.float32)) * wide.dtype.type(scale or 1.0)
    turned = plain.reshape(-1)[::-1].reshape(plain.shape)
    is_one_sided = bool((plain >= 0).all())
    other = turned + noise if is_one_sided else _signs(random, plain.shape) * noise - turned
    most = float(_finfo(values.dtype).max) / 2
    return np.where(usual, np.clip(other, -most, most), wide).astype(values.dtype)


OWN_TYPE = "float64"
"""For `nudged`: no weight is more precise."""


def nudged(values: Any, name: str, dtype: str = OWN_TYPE) -> Any:
    """Return the values of a weight as if they had been rounded elsewhere: one in eight moves by the last place.

    That is about as far, in the mean square, as rounding moves all of them. It is the last place of `dtype`, which is
    computed in, or of the weight's own type where that is less precise.
    """
    values = np.asarray(values)
    random, wide = _random(name), values.astype(np.float64 if values.dtype == np.float64 else np.float32)
    signs = _signs(random, wide.shape) * (random.random(wide.shape, dtype=np.float32) < _NUDGED)
    step = wide.dtype.type(max(_finfo(each).eps for each in (values.dtype, dtype)))
    return np.asarray(wide + wide * signs * step).astype(values.dtype)


def _random(name: str) -> np.random.Generator:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _signs(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return random.integers(0, 2, shape, dtype=np.int8) * np.int8(2) - np.int8(1)


def _finfo(dtype: Any) -> Any:
    finfo: Any = ml_dtypes.finfo
    return finfo(dtype)
