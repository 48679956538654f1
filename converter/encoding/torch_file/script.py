"""TorchScript archives: modules pickled as objects, beside the code of their classes, which is read as text.

The first lines of a class say which attributes are parameters and which are buffers; nothing else of the code is looked
at, and nothing is run (torch/csrc/jit/serialization/python_print.cpp, torch 2.13).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.encoding.pickle import Constructor, Global, Placeholder
from converter.encoding.pickle.globals import TORCHSCRIPT
from converter.encoding.torch_file.storages import View
from converter.errors import ReadError

_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[([^\n]*)\]\n(?:  __buffers__ = \[([^\n]*)\]\n)?", re.MULTILINE
)
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DEPTH_LIMIT = 64


def is_script(names: Collection[str]) -> bool:
    """Whether a zip archive with these members is of TorchScript: a module beside its code."""
    return any(name.endswith("/constants.pkl") and name.count("/") == 1 for name in names)


@dataclass(slots=True, kw_only=True)
class Script:
    """Makes modules of torch.nn of the objects of an archive; what is no module stays as it is.

    `code` returns a file of the archive, "" for one that is not there.
    """

    code: Callable[[str], str]
    _classes: dict[str, Mapping[str, tuple[frozenset[str], frozenset[str] | None]]] = field(default_factory=dict)
    _made: dict[int, Any] = field(default_factory=dict)

    def module(self, value: Any, depth: int = 0) -> Any:
        """Return an object as an nn.Module with the same parameters, buffers and modules inside."""
        if id(value) in self._made:
            return self._made[id(value)]
        known = self._class(value.of) if isinstance(value, Placeholder) and isinstance(value.state, dict) else None
        if known is None:
            return value
        if depth > _DEPTH_LIMIT:
            raise ReadError(f"has modules that are nested more than {_DEPTH_LIMIT} deep")
        parameters, buffers = known
        made = self._made[id(value)] = Placeholder(value.of)
        state: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
        for name, attribute in value.state.items():
            inner = self.module(attribute, depth + 1)
            is_buffer = name in buffers if buffers is not None else isinstance(attribute, View)
            if name in parameters:
                view = attribute.as_parameter(attribute.requires_grad) if isinstance(attribute, View) else attribute
                state["_parameters"][name] = view
            elif is_buffer:
                state["_buffers"][name] = attribute
            elif inner is not attribute:
                state["_modules"][name] = inner
            else:
                state[str(name)] = attribute
        made.state = state
        return made

    def _class(self, of: Global) -> tuple[frozenset[str], frozenset[str] | None] | None:
        """Return the names of a class's parameters and buffers, None for what is no class of modules."""
        if of.module.partition(".")[0] != TORCHSCRIPT:
            return None
        if of.module not in self._classes:
            found = (match.groups() for match in _CLASS.finditer(self.code(_file(of))))
            self._classes[of.module] = {
                name: (_names(parameters), None if buffers is None else _names(buffers))
                for name, parameters, buffers in found
            }
        return self._classes[of.module].get(of.name)


def _names(listed: str) -> frozenset[str]:
    return frozenset(_NAME.findall(listed))


def _file(of: Global) -> str:
    return f"code/{of.module.replace('.', '/')}.py"


def _list(arguments: tuple[Any, ...]) -> list[Any]:
    match arguments:
        case (list() | tuple() as values,):
            return list(values)
    raise ReadError("the pickle has a list of TorchScript that is malformed")


def _tagged(arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (value, str()):
            return value
    raise ReadError("the pickle has a value of TorchScript that is malformed")


SCRIPT: dict[tuple[str, str], Constructor] = {
    **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _tagged,
}
"""What TorchScript pickles lists through (torch/jit/_pickle.py)."""
