"""What torch reads in a file, for comparison: `python -m tests.oracle.opened_by_torch FILE OUT`.

OUT, a file of torch.save, gets a dict of tensors by path, modules spelled as their state_dict() is. An empty class,
which runs nothing, stands in for one that only the author of the file has.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

_TAKEN_FROM = ("torch", "numpy", "collections")
_BUILTINS = ("set", "frozenset", "dict", "list", "tuple", "slice", "complex", "bytearray", "object")


class _StandsIn:
    """An instance of any class, with the state that was pickled."""

    def __new__(cls, *arguments: Any, **named: Any) -> _StandsIn:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __hash__(self) -> int:
        return id(self)

    def append(self, item: Any) -> None:
        self.__dict__.setdefault("items", []).append(item)

    def extend(self, items: Any) -> None:
        self.__dict__.setdefault("items", []).extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__[str(key)] = value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # the bytes of an array in old pickles
            return super().find_class(module, name)
        is_taken = module.split(".")[0] in _TAKEN_FROM or (module in ("builtins", "__builtin__") and name in _BUILTINS)
        return super().find_class(module, name) if is_taken else type(name, (_StandsIn,), {"__module__": module})


def opened(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that torch saved, by path."""
    if _is_torchscript(path):
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        stands_in = SimpleNamespace(Unpickler=_Unpickler, load=pickle.load, __name__="stands_in")
        value = torch.load(path, map_location="cpu", weights_only=False, pickle_module=stands_in)
    return dict(_tensors(value, "", set()))


def _is_torchscript(path: Path) -> bool:
    try:
        names = torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError:  # a file of another kind
        return False
    return "constants.pkl" in names


def _tensors(value: Any, path: str, above: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value.detach()
        return
    if id(value) in above:
        return
    for key, each in _parts(value):
        yield from _tensors(each, f"{path}.{key}" if path else key, above | {id(value)})


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), each) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(number), each) for number, each in enumerate(value)]
    if not isinstance(value, (_StandsIn, torch.nn.Module)):
        return []
    own = dict(vars(value))
    registered: list[tuple[str, Any]] = []
    not_saved = own.pop("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers", "_modules"):
        registered += [(name, each) for name, each in own.pop(kind, {}).items() if name not in not_saved]
    return registered + [(f"<{name}>", each) for name, each in own.items()]


if __name__ == "__main__":
    torch.save(opened(Path(sys.argv[1])), sys.argv[2])
