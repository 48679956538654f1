"""One declaration of every option, from which the command line, README's table and the key of `--resume` are made.

Options are the fields of frozen dataclasses: `converter.Options`, and the options of each format.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from converter.errors import UsageError

_DECLARATION = "declaration"


class Use(Enum):
    """What an option is for. `ckconv verify` takes all but those that place an output."""

    DECIDES = "it decides what the target is"
    PROVES = "it decides what is proven of the target"
    WORKS = "it decides how the work is done"
    PLACES = "it decides how the output is put in its place"


class Need(Enum):
    """What has to be there for an option to have an effect; one that is given without it is refused, not ignored."""

    GRAPH = "a target with a graph"
    TRACED_CLASS = "a target whose graph is traced from a class of transformers"
    OWN_CLASSES = "a target whose graph is made of a Keras model with classes of the user's own"
    SIGNATURES = "a target whose graph is made of a SavedModel's"
    OUTPUTS = "outputs that are compared"
    CONFIG = "a config of transformers that goes along, or that a graph is made of"
    HEAD = "the same, or an optimizer whose parameters a class puts in order"
    STATE = "state of an optimizer that is carried"
    EPSILON = "the same, of one that becomes Keras's and adds an epsilon"
    ASSETS = "a target that files go along with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """How a user gives an option.

    `help`      what it does, in one sentence or two
    `metavar`   how its value is written; of options with `choices`, these
    `flag`      its name on the command line, where that is not the field's
    `choices`   the values that there are, none where there are many
    `extra`     the pip extra that it needs, None where it needs none
    `needs`     without what it would have no effect, None where it always has one
    `is_code`   whether it names code that is imported
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    choices: tuple[str, ...] = ()
    use: Use = Use.DECIDES
    extra: str | None = None
    needs: Need | None = None
    is_code: bool = False


def option(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    flag: str | None = None,
    choices: tuple[str, ...] | type[Enum] = (),
    use: Use = Use.DECIDES,
    extra: str | None = None,
    needs: Need | None = None,
    is_code: bool = False,
) -> Any:
    """Return a dataclass field that is an option (`Declaration`)."""
    values = choices if isinstance(choices, tuple) else tuple(member.value for member in choices)
    declared = Declaration(
        help=help, metavar=metavar, flag=flag, choices=values, use=use, extra=extra, needs=needs, is_code=is_code
    )
    return field(default=default, metadata={_DECLARATION: declared})


def options_of(options_type: type) -> Iterator[tuple[Field[Any], Declaration]]:
    """Yield the fields of a dataclass that are options, with their declarations."""
    for each in fields(options_type):
        if _DECLARATION in each.metadata:
            yield each, each.metadata[_DECLARATION]


def types_of(options_type: type, item: Field[Any]) -> tuple[Any, ...]:
    """Return the types that the values of an option have, which is a field of `options_type`."""
    hint = get_type_hints(options_type)[item.name]
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def needs_of(options: Any) -> Iterator[tuple[Field[Any], Need]]:
    """Yield what those options need that `options`, an instance of such a dataclass, has other values of than default.

    A zero is a value.
    """
    for item, declared in options_of(type(options)):
        if declared.needs is not None and getattr(options, item.name) != item.default:
            yield item, declared.needs


def flag_of(item: Field[Any]) -> str:
    """Return what an option is called on the command line."""
    declared: Declaration | None = item.metadata.get(_DECLARATION)
    return (None if declared is None else declared.flag) or "--" + item.name.replace("_", "-")


def set_choices(options: Any) -> None:
    """Make members of enumerations of the values that `options`, an instance of such a dataclass, has for them.

    Raises UsageError for a value that is not among the choices of its option.
    """
    for item, declared in options_of(type(options)):
        value = getattr(options, item.name)
        if declared.choices and value not in declared.choices:
            is_pair = len(declared.choices) == 2
            known = " or ".join(declared.choices) if is_pair else f"one of {', '.join(declared.choices)}"
            raise UsageError(f"{flag_of(item)} is {known}, not {value!r}")
        if isinstance(item.default, Enum):
            object.__setattr__(options, item.name, type(item.default)(value))
