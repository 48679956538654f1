"""Python, with the lists of operators and of Keras's names switched off: only the box is left. Put it on PYTHONPATH."""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TENSORFLOW = "converter.graphs.trace.tensorflow"


class _All(frozenset[str]):
    """Every operator. A `_` inside a name tells functions, which are not to be taken for operators of the same name."""

    def __contains__(self, name: object) -> bool:
        return "_" not in str(name)[1:]


def _nothing(*_: Any, **__: Any) -> None:
    return None


SWITCHED_OFF = {
    f"{TENSORFLOW}.operators": {"COMPUTE": _All(), "check": _nothing},
    f"{TENSORFLOW}.keras_config": {"check": _nothing},
}


class _Loader(Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        there = SWITCHED_OFF[module.__name__].keys() & vars(module).keys()
        assert there, f"{module.__name__} has no list that is known here"
        vars(module).update({name: SWITCHED_OFF[module.__name__][name] for name in there})


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in SWITCHED_OFF:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
