"""What the inputs of a graph are called where they are parameters of a function: ONNX's names may be any text.

TensorFlow takes nearly every name where it is passed by keyword, and turns it into one that Python has
(`sanitize_arg_name` in tensorflow/core/function/polymorphism/function_type.py). PyTorch writes programs as Python
source, in which parameters are identifiers.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

_SELF = "self"
"""The first parameter of what is called."""


def tensorflow_parameters(names: Sequence[str]) -> dict[str, str]:
    """Return input -> its parameter in a function of TensorFlow, each another."""
    return _each_another(names, lambda name: _plain(_as_tensorflow_does(name)))


def torch_parameters(names: Sequence[str]) -> dict[str, str]:
    """Return input -> its parameter in a program of torch.export, each another; its name, where that is one."""
    return _each_another(names, _identifier)


def not_taken_by_tensorflow(names: Sequence[str]) -> dict[str, str]:
    """Return input -> parameter for those that TensorFlow does not take by their own names."""
    return {
        name: parameter
        for name, parameter in tensorflow_parameters(names).items()
        if parameter != _as_tensorflow_does(name) or name == _SELF
    }


def made_up(names: Sequence[str]) -> dict[str, str]:
    """Return parameter -> input where more was made of it than `_` of what no identifier has."""
    called = tensorflow_parameters(names)
    return {parameter: name for name, parameter in called.items() if parameter != re.sub(r"\W", "_", name)}


def notes(called: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note for each input that is called otherwise."""
    return tuple(f"the input {name!r} is called {other!r}" for name, other in called.items() if other != name)


def _as_tensorflow_does(name: str) -> str:
    plain = "".join(character if character.isalnum() else "_" for character in name)
    return plain if plain[:1].isalpha() else f"arg_{plain}"


def _plain(name: str) -> str:
    """Return a name that Python has for a parameter, and TensorFlow for a placeholder: of ASCII, and no keyword."""
    plain = "".join(each if each.isascii() else f"u{ord(each):x}" for each in name)
    return f"{plain}_" if keyword.iskeyword(plain) or plain == _SELF else plain


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name)
    if not plain.isidentifier() or keyword.iskeyword(plain) or plain == _SELF:
        plain = f"input_{re.sub(r'[^0-9A-Za-z_]', '_', plain)}"
    is_normal = plain == unicodedata.normalize("NFKC", plain)  # to which Python brings every identifier
    return plain if is_normal else re.sub(r"[^0-9A-Za-z_]", "_", plain)


def _each_another(names: Sequence[str], called: Callable[[str], str]) -> dict[str, str]:
    """Return name -> what it is called; of several that would be called the same, what is called so itself is."""
    found: dict[str, str] = {}
    taken = {name for name in names if called(name) == name}
    for name in sorted(names):
        plain = called(name)
        while plain in taken and plain != name:
            plain += "_"
        taken.add(plain)
        found[name] = plain
    return {name: found[name] for name in names}
