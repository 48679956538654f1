"""A function that a child process runs, as an object: whoever has it called is held to its parameters.

The functions of this program are in converter.graphs.calls; a format of another package declares its own with
`child_function`. Arguments and what a function returns go between processes as JSON, so they are JSON values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFunction(Generic[P, R]):
    """A function at the top of a module, which a child process imports; calling this object calls it in this process.

    `function`   takes keywords, imports frameworks when it is called, not when its module is imported
    `what`       what it does, in a few words, for errors: "comparing outputs: onnxruntime"
    `imports`    the modules that it imports and that take long; a process that has them already is forked for it
    `arguments`  the keywords that were given already
    """

    function: Callable[P, R]
    what: str
    imports: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __call__(self, *args: P.args, **arguments: P.kwargs) -> R:
        """Call the function in this process."""
        return self.function(*args, **{**self.arguments, **arguments})

    @property
    def address(self) -> str:
        """``package.module:function``."""
        return f"{self.function.__module__}:{self.function.__name__}"

    def takes(self, name: str) -> bool:
        """Whether it has a parameter of this name."""
        return name in inspect.signature(self.function).parameters

    def with_arguments(self, **arguments: Any) -> ChildFunction[..., R]:
        """Return the same with more keywords given. Raises TypeError for one that the function does not take."""
        inspect.signature(self.function).bind_partial(**arguments)
        return replace(self, arguments={**self.arguments, **arguments})

    def call(self, *args: P.args, **arguments: P.kwargs) -> Call[R]:
        """Return the call with these keywords. Raises TypeError when one is missing, or is none of the function's."""
        keywords = {**self.arguments, **arguments}
        inspect.signature(self.function).bind(*args, **keywords)
        return Call(address=self.address, what=self.what, imports=self.imports, arguments=keywords)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[R]):
    """One call: ``package.module:function`` with keywords that are JSON values; `what` it does, what it `imports`."""

    address: str
    what: str
    imports: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def child_function(what: str, *, imports: tuple[str, ...] = ()) -> Callable[[Callable[P, R]], ChildFunction[P, R]]:
    """Make the function below a ChildFunction, with `what` and `imports` as it has them."""

    def declared(function: Callable[P, R]) -> ChildFunction[P, R]:
        return ChildFunction(function=function, what=what, imports=imports)

    return declared
