"""Sets of inputs and outputs in .npz files: keys are `<set>/<name>`; and running a model on each set."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from converter.box.limits import is_out_of_memory
from converter.errors import GraphError

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_AS_BFLOAT16 = ".bfloat16"
"""Ends the key of an array of that type, which .npy has not: its bits are stored as integers."""


def read_inputs(path: str) -> dict[str, dict[str, Any]]:
    """Return the arrays of each set by name. Pickled arrays are refused (ValueError)."""
    sets: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, name = key.split("/", 1)
            sets.setdefault(number, {})[name] = archive[key]
    return sets


def write_outputs(path: str, sets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the arrays of each set. Strings become arrays of text, bfloat16 keeps its type for `read_array`."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for number, arrays in sets.items():
            for name, array in arrays.items():
                write_array(archive, f"{number}/{name}", array)


def write_array(archive: zipfile.ZipFile, key: str, array: Any) -> None:
    """Add an array to an .npz that is being written."""
    array = np.asarray(array)
    if array.dtype == _BFLOAT16:
        key, array = key + _AS_BFLOAT16, array.view(np.uint16)
    elif array.dtype.kind == "O":
        texts = [each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else each for each in array.flat]
        array = np.array(texts, dtype=np.str_).reshape(array.shape)
    with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def read_outputs(path: str, prefix: str = "") -> dict[str, Any]:
    """Return the arrays that `write_outputs` wrote under keys that start with `prefix`, by key."""
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            if key.startswith(prefix):
                is_bfloat16 = key.endswith(_AS_BFLOAT16) and archive[key].dtype == np.uint16
                arrays[key.removesuffix(_AS_BFLOAT16) if is_bfloat16 else key] = (
                    archive[key].view(_BFLOAT16) if is_bfloat16 else archive[key]
                )
    return arrays


def unfit(sets: Mapping[str, Mapping[str, Any]], types: Mapping[str, Any]) -> dict[str, str]:
    """Return why sets, by name, cannot be given to a model whose inputs are of these numpy `types`.

    An integer is in them that a narrower type does not hold. One of the same width is no reason: what wraps there on
    the way in does so on the way back.
    """
    found = {}
    for number, arrays in sets.items():
        for name, array in arrays.items():
            dtype = np.dtype(types.get(name, array.dtype))
            is_narrower = array.dtype.kind in "iu" and dtype.kind in "iu" and dtype.itemsize < array.dtype.itemsize
            if is_narrower and (array.astype(dtype) != array).any():
                found[number] = f"the target takes {dtype.name} for {name}"
    return found


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
            if isinstance(error, MemoryError) or is_out_of_memory(str(error)):
                raise
            said = error.message if isinstance(error, GraphError) else " ".join(str(error).split())[:300]
            failed[name] = said or type(error).__name__
    write_outputs(outputs, results)
    return failed
