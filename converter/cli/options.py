"""Options of commands, made of the declarations of `converter.Options` and of the formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any, get_origin

import click

from converter.declaring import Declaration, Use, flag_of, options_of, types_of
from converter.formats import Format, registry
from converter.options import Options

_Command = Callable[..., Any]
_EVERYWHERE = "any"


def with_options(*uses: Use) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command every declared option of these uses; none given is no value."""

    def decorate(command: _Command) -> _Command:
        for kind, item, declared, _ in reversed(list(declarations())):
            if declared.use in uses:
                command = click_option(kind, item, declared)(command)
        return command

    return decorate


def with_option(name: str) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command the one general option called `name`."""
    item, declared = next(each for each in options_of(Options) if each[0].name == name)
    return click_option(Options, item, declared)


def declarations() -> Iterator[tuple[type, Field[Any], Declaration, str]]:
    """Yield every option once, with the formats that take it; what the name of DST decides is no option."""
    for item, declared in options_of(Options):
        yield Options, item, declared, _EVERYWHERE
    of_formats: dict[str, tuple[type, Field[Any], Declaration]] = {}
    takers: dict[str, list[str]] = {}
    for format_ in registry().values():
        for kind, item, declared in _of_format(format_):
            of_formats.setdefault(item.name, (kind, item, declared))
            takers.setdefault(item.name, []).append(format_.name)
    for name, (kind, item, declared) in of_formats.items():
        yield kind, item, declared, ", ".join(takers[name])


def _of_format(format_: Format) -> Iterator[tuple[type, Field[Any], Declaration]]:
    decided = {name for values in format_.by_suffix.values() for name in values}
    for kind in (format_.read_options, format_.write_options):
        for item, declared in options_of(kind):
            if item.name not in decided:
                yield kind, item, declared


def click_option(kind: type, item: Field[Any], declared: Declaration) -> Callable[[_Command], _Command]:
    """Return the option of the command line that sets the field `item` of `kind`."""
    types_ = types_of(kind, item)
    settings: dict[str, Any] = {"help": declared.help, "default": None, "metavar": metavar(declared)}
    if bool in types_:
        settings = {"help": declared.help, "flag_value": not item.default, "type": bool, "default": None}
    elif any(get_origin(each) is tuple for each in types_):
        settings |= {"multiple": True, "help": f"{declared.help} May be repeated."}
        del settings["default"]
    elif Path in types_:
        settings["type"] = click.Path(path_type=Path, readable=False)
    elif str not in types_ and not declared.choices:
        settings["type"] = next(each for each in (int, float) if each in types_)
    return click.option(flag_of(item), item.name, **settings)


def metavar(declared: Declaration) -> str | None:
    """Return how a value is written, the choices where there are some."""
    return "|".join(declared.choices) if declared.choices else declared.metavar


def markdown_table() -> str:
    """Return the table of options that README.md holds."""
    rows = ["| option | what it does | formats |", "|---|---|---|"]
    for _, item, declared, takers in declarations():
        value = metavar(declared)
        shown = flag_of(item) if value is None else f"{flag_of(item)} {value}"
        needs = "" if declared.extra is None else f" Needs the extra `{declared.extra}`."
        text = f"{declared.help}{needs}".replace("|", "\\|")
        rows.append(f"| `{shown}` | {text} | {takers} |".replace(f"`{shown}`", "`" + shown.replace("|", "\\|") + "`"))
    return "\n".join(rows)
