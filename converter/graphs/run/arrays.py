"""Sets of inputs and outputs in files that processes hand to one another; and running a model on each set.

A file is an .npz whose members are numbered; their keys, ``<set>/<name>``, are in a member of JSON beside them. Names
are what a model says: what a zip archive or numpy would cut, refuse or take for another's (``y`` and ``y.npy``, NUL,
70,000 letters) stays apart that way.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from converter.box.limits import is_out_of_memory
from converter.errors import GraphError
from converter.graphs.failures import lines_of

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_KEYS = "keys.json"
"""A list of [key, whether its bits, stored as integers, are of bfloat16, which .npy has not]."""


class Writer:
    """A file of arrays that is being written."""

    def __init__(self, path: str) -> None:
        self._archive = zipfile.ZipFile(path, "w", allowZip64=True)
        self._keys: list[tuple[str, bool]] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.writestr(_KEYS, json.dumps(self._keys))
        self._archive.close()

    def add(self, key: str, array: Any) -> None:
        """Add an array. Strings become an array of text, bfloat16 keeps its type."""
        array = np.asarray(array)
        is_bfloat16 = array.dtype == _BFLOAT16
        if is_bfloat16:
            array = array.view(np.uint16)
        elif array.dtype.kind == "O":
            texts = [
                each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each for each in array.flat
            ]
            array = np.array(texts, dtype=np.str_).reshape(array.shape)
        with self._archive.open(f"{len(self._keys)}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
        self._keys.append((key, is_bfloat16))


def write_sets(path: str, sets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the arrays of each set by name."""
    write_arrays(path, {f"{number}/{name}": array for number, arrays in sets.items() for name, array in arrays.items()})


def write_arrays(path: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays by key, for `read_arrays`."""
    with Writer(path) as writer:
        for key, array in arrays.items():
            writer.add(key, array)


def read_sets(path: str) -> dict[str, dict[str, Any]]:
    """Return the arrays of each set by name. Pickled arrays are refused (ValueError)."""
    sets: dict[str, dict[str, Any]] = {}
    for key, array in read_arrays(path).items():
        number, name = key.split("/", 1)
        sets.setdefault(number, {})[name] = array
    return sets


def read_arrays(path: str, prefix: str = "") -> dict[str, Any]:
    """Return the arrays under keys that start with `prefix`, by key. Pickled arrays are refused (ValueError)."""
    with np.load(path, allow_pickle=False) as archive:
        keys = json.loads(archive.zip.read(_KEYS))
        return {
            key: archive[str(number)].view(_BFLOAT16) if is_bfloat16 else archive[str(number)]
            for number, (key, is_bfloat16) in enumerate(keys)
            if key.startswith(prefix)
        }


def fitting(
    sets: Mapping[str, Mapping[str, Any]], types: Mapping[str, Any]
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return the sets that a model takes whose inputs are of these numpy `types`, and why it does not take the others.

    An integer is in them that a narrower type does not hold. One of the same width is no reason: what wraps there on
    the way in does so on the way back.
    """
    found: dict[str, str] = {}
    for number, arrays in sets.items():
        for name, array in arrays.items():
            dtype = np.dtype(types.get(name, array.dtype))
            is_narrower = array.dtype.kind in "iu" and dtype.kind in "iu" and dtype.itemsize < array.dtype.itemsize
            if is_narrower and (array.astype(dtype) != array).any():
                found[number] = f"the target takes {dtype.name} for {name}"
    return {number: arrays for number, arrays in sets.items() if number not in found}, found


def run_sets(
    sets: Mapping[str, Mapping[str, Any]],
    outputs: str,
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    failures: tuple[type[Exception], ...] = (),
) -> dict[str, str]:
    """Call `run` on the arrays of each set, and write what it returns to the file `outputs`.

    Returns the reasons by set of those on which it raised GraphError or one of `failures`: they have no outputs. That
    no memory was left is no such reason, and is raised.
    """
    results: dict[str, Mapping[str, Any]] = {}
    failed: dict[str, str] = {}
    caught: tuple[type[Exception], ...] = (GraphError, *failures)
    for name, arrays in sets.items():
        try:
            results[name] = run(arrays)
        except caught as error:
            failed[name] = reason_of(error)
    write_sets(outputs, results)
    return failed


def reason_of(error: Exception) -> str:
    """Return in one line why a model did not run. Raises `error` where no memory was left: that is no such reason."""
    if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
        raise error
    reason = error.message if isinstance(error, GraphError) else " ".join(" ".join(lines_of(error)).split())[:300]
    return reason or type(error).__name__
