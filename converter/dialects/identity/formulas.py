"""Formulas of `tables/shapes.json`: arithmetic and conditions over the settings of a config, in Python's notation.

What is in a config is anyone's: a setting of another kind than a formula expects makes its value unknown, as one that
nothing tells does.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from functools import cache
from typing import Any

_LARGEST = 1 << 62

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda left, right: type(left) is type(right) and left == right,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.In: lambda left, right: left in _list(right),
}


class UnknownError(Exception):
    """The value of a formula is not known."""


def value_of(formula: str, setting: Callable[[str], Any]) -> Any:
    """Return what a formula says, `setting` being what a config says of a name. Raises UnknownError."""
    try:
        return _value(_parsed(formula), setting)
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise UnknownError(formula) from error


def names_of(formula: str) -> frozenset[str]:
    """Return the settings that a formula depends on, and the numbers in names."""
    nodes = list(ast.walk(_parsed(formula)))
    inside = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    inside |= {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    names = [node for node in nodes if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inside]
    return frozenset(map(_dotted, names))


@cache
def _parsed(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


def _value(node: ast.expr, setting: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() | ast.Attribute():
            return setting(_dotted(node))
        case ast.BinOp():
            return _combined(node, setting)
        case ast.UnaryOp() | ast.BoolOp() | ast.Compare() | ast.IfExp():
            return _decided(node, setting)
        case ast.Subscript():
            return _list(_value(node.value, setting))[_value(node.slice, setting)]
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTIONS[name](_value(node.args[0], setting))
    raise ValueError(f"a formula has no {type(node).__name__}")


def _decided(node: ast.UnaryOp | ast.BoolOp | ast.Compare | ast.IfExp, setting: Callable[[str], Any]) -> Any:
    match node:
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, setting)
        case ast.UnaryOp():
            return -_number(_value(node.operand, setting))
        case ast.BoolOp(op=ast.And()):
            return all(_value(each, setting) for each in node.values)
        case ast.BoolOp():
            return any(_value(each, setting) for each in node.values)
        case ast.Compare():
            compare = _COMPARISONS[type(node.ops[0])]
            return compare(_value(node.left, setting), _value(node.comparators[0], setting))
        case ast.IfExp():
            return _value(node.body if _value(node.test, setting) else node.orelse, setting)


def _combined(node: ast.BinOp, setting: Callable[[str], Any]) -> Any:
    left, right = _number(_value(node.left, setting)), _number(_value(node.right, setting))
    if isinstance(node.op, ast.Pow):
        if not 0 <= right <= 62:
            raise ValueError("a power that is too high")
        return left**right
    return _number(_ARITHMETIC[type(node.op)](left, right))


def _number(value: Any) -> Any:
    if not isinstance(value, int | float) or abs(value) > _LARGEST:
        raise ValueError("no number, or one that is too large")
    return value


def _list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError("no list")
    return value


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int(_number(value)),
    "len": lambda value: len(_list(value)),
    "sum": lambda value: _number(sum(map(_number, _list(value)))),
}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("no name")
