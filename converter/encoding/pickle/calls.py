"""Calls that a pickle asks for, judged by what would be called in the end. None is made.

`getattr` and `functools.partial` stand for what they return: what a call of that would call is found through them.
What a call is handed it may call, and is judged, too. What only a run could tell is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from converter.encoding.pickle.globals import INERT, Global, is_function_like, runs_code
from converter.encoding.pickle.values import Placeholder
from converter.errors import SafetyError

GETATTR = Global(module="builtins", name="getattr")
_TYPE = Global(module="builtins", name="type")
"""Of one value it tells the class, of three it makes one."""
_PARTIALS = (Global(module="functools", name="partial"), Global(module="functools", name="partialmethod"))
_MEMBER = re.compile(r"[A-Z][A-Z0-9_]*")
_FOLLOWED_LIMIT = 16
_CALLED_OF_INSTANCES = ("__setstate__", "append", "extend", "add")
_ARGUMENTS_LOOKED_AT = 64


def check(callee: Any, arguments: tuple[Any, ...], keywords: Collection[Any] = (), *, is_known: bool = False) -> None:
    """Raise SafetyError for a call that would run code, or that only a run could judge.

    Of a callee that is known only what it is handed is judged.
    """
    root = _root(callee)
    if root is None:
        what = f"what {callee.of} returns" if isinstance(callee, Placeholder) else "something that is no class"
        raise SafetyError(f"the pickle calls {what}, which only a run could tell")
    handed = (*arguments[:_ARGUMENTS_LOOKED_AT], *keywords) if arguments or keywords else ()
    if (not is_known and runs_code(root)) or (root == _TYPE and len(handed) != 1):
        raise SafetyError(f"calls {root}, which can run code")
    for each in handed:
        for value in each[:_ARGUMENTS_LOOKED_AT] if isinstance(each, tuple) else (each,):
            inner = _root(value) if isinstance(value, Global | Placeholder) else None
            if inner is not None and inner != root and runs_code(inner):
                raise SafetyError(f"calls {root} with {inner}, which can run code")


def check_state(state: Any) -> None:
    """Raise SafetyError for attributes that Python's pickle would call of the instance that has them."""
    for part in state if isinstance(state, tuple) else (state,):
        for name in _CALLED_OF_INSTANCES:
            value = part.get(name) if isinstance(part, dict) else None
            if isinstance(value, Global | Placeholder):
                check(value, ())


def is_member(callee: Global, arguments: tuple[Any, ...]) -> bool:
    """Whether a call of `getattr` gives a member of an enumeration, as Python 3.11.2 pickles them."""
    match arguments:
        case (Global() as owner, str() as name) if callee == GETATTR:
            is_class = str(owner) not in INERT and not is_function_like(owner)
            return is_class and _MEMBER.fullmatch(name) is not None
    return False


def _root(value: Any, followed: int = 0) -> Global | None:
    """Return what a call of `value` would call in the end, None for what a run alone could tell."""
    if isinstance(value, Global):
        return value
    if not isinstance(value, Placeholder) or followed > _FOLLOWED_LIMIT:
        return None
    match value.arguments:
        case (owner, str() as name, *_) if value.of == GETATTR:
            of = _owner(owner, followed + 1)
            if of is None:
                return None
            return Global(module=of.module, name=f"{of.name}.{name}")
        case (function, *_) if value.of in _PARTIALS:
            return _root(function, followed + 1)
    return None


def _owner(value: Any, followed: int) -> Global | None:
    """Return that whose attribute is asked for: of an instance its class."""
    if isinstance(value, Placeholder) and value.of not in (GETATTR, *_PARTIALS):
        return None if is_function_like(value.of) else value.of
    return _root(value, followed)
