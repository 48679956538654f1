"""A rule for the source of the package: nothing in it may run, or unpickle, what a file says.

``python -m tests.faults.forbidden FILE ...`` prints what breaks it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ANYWHERE = frozenset({"eval", "exec", "compile", "execfile"})
"""Built-in functions that run text, under their own names."""

_LISTED = """
pickle.load pickle.loads pickle.Unpickler _pickle.load _pickle.loads _pickle.Unpickler cPickle.load cPickle.loads
dill.load dill.loads cloudpickle.load cloudpickle.loads joblib.load jsonpickle.decode pandas.read_pickle
marshal.load marshal.loads shelve.open yaml.load yaml.full_load yaml.unsafe_load yaml.load_all
torch.load torch.jit.load torch.package.PackageImporter torch.hub.load torch.export.load torch.serialization.load
runpy.run_path runpy.run_module os.system os.popen
tensorflow.saved_model.load tensorflow.compat.v1.saved_model.load tensorflow.keras.models.load_model
tensorflow.compat.v1.saved_model.loader.load tensorflow.compat.v2.saved_model.load tensorflow.saved_model.load_v2
tensorflow.keras.saving.load_model tensorflow.train.load_checkpoint tensorflow.train.load_variable
tensorflow.load_library tensorflow.load_op_library tensorflow.experimental.register_filesystem_plugin
tensorflow.keras.utils.get_file keras.utils.get_file tensorflow_hub.load
keras.models.load_model keras.saving.load_model tf_keras.models.load_model
importlib.util.spec_from_file_location importlib.machinery.SourceFileLoader
"""
FUNCTIONS = frozenset(_LISTED.split())
MODULES = frozenset({"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"})
"""Modules that may not be imported at all: what cannot be named cannot be called."""

METHODS = frozenset(
    {
        "load_model",
        "load_weights",
        "unsafe_load",
        "enable_unsafe_deserialization",
        "get_file",
        "import_meta_graph",
        "load_op_library",
        "load_file_system_library",
        "TFSMLayer",
    }
)
"""Refused whatever they are called on."""
LOADERS = ("saved_model", "loader", "load_v1_in_v2", "export")
"""Modules, whatever they are reached by, whose `load` runs what it loads."""

_ABBREVIATIONS = {"np": "numpy", "tf": "tensorflow", "torch": "torch", "pd": "pandas", "pkl": "pickle"}
_FRAMEWORKS = frozenset({"tensorflow", "torch", "keras", "tf_keras"})
_NUMPY_LOAD = frozenset({"numpy.load", "numpy.lib.npyio.load"})
_BUILTINS = frozenset(f"builtins.{name}" for name in ANYWHERE)
_NAMES = ANYWHERE | METHODS | {"load", "loads", "Unpickler"}

ALLOWED = frozenset(
    {
        ("converter/graphs/run/saved_model.py", "tensorflow.saved_model.load"),
        ("converter/graphs/run/torch_export.py", "torch.export.load"),
        ("converter/graphs/run/keras.py", ".load_weights"),
    }
)
"""(file, function): the first two run our own output, made of a graph whose operators were lowered one by one, to
compare it, and are given no file that was there before; the third fills a model that was built of a config whose every
layer was checked, with arrays."""


def violations(source: str, name: str) -> Iterator[str]:
    """Yield what of the Python text `source`, called `name`, breaks the rule, as ``name:line: what``."""
    tree = ast.parse(source, name)
    imported = _imported(tree)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if id(node) not in called and _dotted(node, imported) in _NUMPY_LOAD:
            yield f"{name}:{node.lineno}: numpy.load, handed on"
        for what in _said_by(node, imported):
            if (name, what) not in ALLOWED:
                yield f"{name}:{getattr(node, 'lineno', 0)}: {what}"


def _imported(tree: ast.AST) -> dict[str, str]:
    """Return what local names stand for."""
    names = dict(_ABBREVIATIONS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = _ABBREVIATIONS.get(alias.name, f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = full
    return names


def _said_by(node: ast.AST, imported: dict[str, str]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"import of {alias.name}" for alias in names if alias.name.partition(".")[0] in MODULES)
        case ast.ImportFrom(module=str() as module, names=names):
            if module.partition(".")[0] in MODULES and not node.level:
                yield f"import of {module}"
            imports = (f"{module}.{alias.name}" for alias in names)
            yield from (name for name in imports if name in FUNCTIONS | _NUMPY_LOAD)
            yield from (f"import of {alias.name}" for alias in names if alias.name in METHODS)
            if module.partition(".")[0] in _FRAMEWORKS:
                yield from (f"import of {alias.name}" for alias in names if alias.name in LOADERS)
        case ast.Name(id=name) if name in ANYWHERE and name not in imported:
            yield name
        case ast.Name(id=name) if imported.get(name) in FUNCTIONS:
            yield imported[name]
        case ast.Call() if _dotted(node.func, imported) in _NUMPY_LOAD and not _forbids_pickles(node):
            yield "numpy.load without allow_pickle=False"
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str() as name), *_]) if name in _NAMES:
            yield f"getattr of {name!r}"
        case ast.Attribute(attr=attribute):
            dotted = _dotted(node, imported) or ""
            if dotted in FUNCTIONS or dotted in _BUILTINS:
                yield dotted
            elif attribute == "load" and _last_name(node.value) in LOADERS:
                yield f".{_last_name(node.value)}.load"
            elif attribute in METHODS:
                yield f".{attribute}"
        case ast.keyword(arg="allow_pickle" | "trust_remote_code", value=value) if not _is_false(value):
            yield f"{node.arg} that is not False"
        case ast.keyword(arg="weights_only" | "safe_mode", value=ast.Constant(value=False)):
            yield f"{node.arg}=False"


def _dotted(node: ast.AST, imported: dict[str, str]) -> str | None:
    match node:
        case ast.Name(id=name):
            return imported.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            before = _dotted(value, imported)
            return None if before is None else f"{before}.{attribute}"
    return None


def _last_name(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def _forbids_pickles(call: ast.Call) -> bool:
    return any(keyword.arg == "allow_pickle" and _is_false(keyword.value) for keyword in call.keywords)


def _is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def main() -> int:
    """Judge the files named on the command line."""
    found = [line for path in sys.argv[1:] for line in violations(Path(path).read_text(), path)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
