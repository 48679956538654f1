"""Which tests need what only extras install, told from what they import: the marker `framework`.

A test needs a framework when it, a fixture or a helper of tests/ that it uses imports one or calls importorskip for it.
What starts a process that needs one says so itself: `@pytest.mark.framework`. Tests of folders in `_APART` have the
marker, too: they ask the second environment, or start hundreds of processes, most of which need frameworks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("torch", "tensorflow", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "keras", "jax")
OF_EXTRAS = (*FRAMEWORKS, "safetensors", "google", "tf2onnx", "accelerate")

_APART = ("oracle", "faults", "training")

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class _Names:
    """What a piece of code mentions: modules it imports, and names that it uses, with where each is from."""

    modules: frozenset[str]
    used: frozenset[str]
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def is_of_extras(self) -> bool:
        return any(module.partition(".")[0] in OF_EXTRAS for module in self.modules)


@dataclass(frozen=True)
class _Module:
    """A file of tests/: what it mentions outside of functions, and its functions."""

    top: _Names
    functions: dict[str, _Function]


def _walk(node: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        is_for_types = (
            isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
        )
        if is_for_types or (not into_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        yield child
        yield from _walk(child, into_functions=into_functions)


def _names(node: ast.AST, *, into_functions: bool) -> _Names:
    modules: set[str] = set()
    used: set[str] = set()
    imported: dict[str, tuple[str, str]] = {}
    for each in _walk(node, into_functions=into_functions):
        match each:
            case ast.Import(names=names):
                modules.update(name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                modules.add(module)
                imported |= {name.asname or name.name: (module, name.name) for name in names}
            case ast.Call(func=ast.Attribute(attr="importorskip"), args=[ast.Constant(value=str(module)), *_]):
                modules.add(module)
            case ast.Name(id=name):
                used.add(name)
    return _Names(frozenset(modules), frozenset(used), imported)


@cache
def _module(path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {each.name: each for each in tree.body if isinstance(each, _Function)}
    return _Module(top=_names(tree, into_functions=False), functions=functions)


def _path(module: str) -> Path | None:
    """The file of a module of tests/, None for any other."""
    path = ROOT.joinpath(*module.split("."))
    found = [each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()]
    return found[0] if module.partition(".")[0] == "tests" and found else None


@cache
def file_needs_one(path: Path) -> bool:
    """Whether a file cannot be imported without a framework, or is one of tests that are run with them."""
    if path.parent.parent == ROOT / "tests" and path.parent.name in _APART and path.name.startswith("test_"):
        return True
    top = _module(path).top
    others = {*top.modules, *(f"{module}.{name}" for module, name in top.imported.values())}
    found = (_path(module) for module in others)
    return top.is_of_extras or any(file_needs_one(each) for each in found if each is not None and each != path)


@cache
def function_needs_one(path: Path, name: str) -> bool:
    """Whether a function of a file of tests/, or what it calls there, imports a framework."""
    return _needs(path, name, set())


def _needs(path: Path, name: str, seen: set[tuple[Path, str]]) -> bool:
    module = _module(path)
    if (path, name) in seen or name not in module.functions:
        return False
    seen.add((path, name))
    names = _names(module.functions[name], into_functions=True)
    if names.is_of_extras:
        return True
    imported = module.top.imported | names.imported
    for used in names.used | names.imported.keys():
        if _needs(path, used, seen):
            return True
        if used in imported and _imported_needs(*imported[used], seen):
            return True
    return any((found := _path(each)) is not None and file_needs_one(found) for each in names.modules)


def _imported_needs(module: str, name: str, seen: set[tuple[Path, str]]) -> bool:
    """Whether `name`, imported from `module`, needs a framework: a function of it, or a module in a package."""
    whole, part = _path(module), _path(f"{module}.{name}")
    return (part is not None and file_needs_one(part)) or (whole is not None and _needs(whole, name, seen))
