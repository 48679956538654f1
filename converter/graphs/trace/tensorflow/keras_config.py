"""The config of a Keras model from a stranger: what it may name, looked at before Keras is imported.

Keras resolves ``module + "." + class_name``, and where that is nothing imports the module; Keras 2 takes whatever it
finds there, and looks words up among all that a module of its own holds. Of all this nothing is relied upon
(CVE-2024-3660, CVE-2025-1550, CVE-2025-8747 and later ones are why): every pair of module and class has to be on the
list of `keras_names`, or the user's own. The rules are those of saving/serialization_lib.py and
legacy/saving/serialization.py of Keras 3.10 to 3.15 and tf_keras 2.21.
"""

from __future__ import annotations

import builtins
import re
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from converter.errors import ArchitectureError, ReadError, SafetyError, UsageError
from converter.graphs.trace.tensorflow.keras_names import is_of_keras, known

_DEPTH_LIMIT = 64
_COMPILED = "compile_config"
"""What Keras would train with: the names in it are looked at, Keras never sees them."""
_TRAINING = re.compile(
    r"(?:keras|tf_keras)\.(?:src\.)?(?:optimizers|losses|metrics|mixed_precision)(?:\.\w+)*", re.ASCII
)
_REGISTERED = re.compile(r"(?:[A-Za-z0-9_ -]+>)?[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_LIBRARIES = """
google h5py jax ml_dtypes numpy onnx onnxruntime pip pkg_resources scipy setuptools tensorflow torch
"""
"""Packages beside Python's own that have no layers for a config to name."""
_OF_REFERENCES = frozenset({"class_name", "module", "name", "registered_name"})
"""Keys that say together what is named, and what it is called in the model."""
_TENSORFLOW_INITIALIZERS = "tensorflow.python.ops.init_ops_v2"
"""The module that tf_keras writes for some initializers of its own models (EfficientNetV2)."""
_FUNCTION = "function"
_CUSTOM = "Custom>"
"""The package under which Keras registers what names none, such as layers of its own applications."""
_LITERALS = """
__keras_tensor__ __tensor__ __numpy__ __bytes__ __ellipsis__ __slice__ __tuple__ TensorShape
"""
"""Values that JSON has no form for. The rest of that kind would call what it names."""
_CODE = frozenset({"__lambda__", "__typespec__", "TypeSpec", "CompositeTensor"})
_WITHOUT_LAMBDA = (
    "model.save(folder) of the same model has a graph that converts, and so has the model with a layer class of your "
    "own in its place, which --custom-objects package.module:Name names"
)
_DTYPE = re.compile(r"(?:u?int|float|bfloat|complex)\d{1,3}(?:_\w{1,12})?|bool|string", re.ASCII)
_OPERATION_LAYERS = frozenset({"TFOpLambda", "SlicingOpLambda"})
_COMPOSITE = "_COMPOSITE_TYPE"
"""The prefix of a string of JSON that tf_keras decodes when it loads a config (engine/node.py)."""
_NAMES_OF_FILES = frozenset({"vocabulary", "idf_weights", "weights", "filepath"})
_LOOKED_UP = re.compile(r"(?:\w+_)?(activation|initializer|regularizer|constraint|quantizer)", re.ASCII)
_ACTIVATIONS = frozenset({"ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"})
"""Layers that tf_keras also finds by name where it wants an activation."""
_NAMING = """
activations backward_layer callable cell dtype dtype_policy fn func function layer loss merge_mode metrics mode
optimizer output_mode split standardize weighted_metrics
"""
"""Keys under which a word may be taken for the name of a function or class, whoever looks it up."""
_OF_TEXT = {
    "standardize": frozenset({"lower_and_strip_punctuation", "lower", "strip_punctuation"}),
    "split": frozenset({"whitespace", "character"}),
}


def names_of_users(custom_objects: Sequence[str]) -> frozenset[str]:
    """Return the names in ``package.module:Name,Name``. Raises UsageError for anything else."""
    names: set[str] = set()
    for text in custom_objects:
        module, colon, listed = text.partition(":")
        if not module or not colon or not listed:
            raise UsageError(f"--custom-objects is package.module:Name,Name, not {text!r}")
        names.update(listed.split(","))
    return frozenset(names)


def in_vain(config: Mapping[str, Any], custom: Collection[str]) -> list[str]:
    """Return which of the user's `custom` names nothing in a config would be looked up by."""
    left = set(custom)
    waiting: list[Any] = [config]
    while waiting and left:
        value = waiting.pop()
        if isinstance(value, Mapping):
            left.discard(_name_of_users(value, left) or "")
            waiting += (each for key, each in value.items() if key not in _OF_REFERENCES)
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            left.discard(_own_name(value))
    return sorted(left)


def check(config: Mapping[str, Any], custom: Collection[str]) -> None:
    """Raise when building a model from `config` could run more than Keras's layers and the user's `custom` classes.

    SafetyError for code, files, modules where no layers are, and names that none has; ArchitectureError for a class or
    function that only the user can name; ReadError when it is nested too deep. What refuses for safety comes first.
    """
    unknown: ArchitectureError | None = None
    waiting = [_Value(value=config)]
    while waiting:
        found = waiting.pop()
        if found.depth > _DEPTH_LIMIT:
            raise ReadError(f"is a Keras config nested more than {_DEPTH_LIMIT} deep")
        if isinstance(found.value, Mapping):
            try:
                _check_object(found, custom)
            except ArchitectureError as error:
                unknown = unknown or (None if found.is_compiled else error)
        elif isinstance(found.value, list) and found.value[:1] == [_COMPOSITE]:
            raise SafetyError("has a Keras config with a composite tensor, which is a program of its own")
        waiting += found.inside(custom)
    if unknown is not None:
        raise unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    """A value of a config: how deep it is, whether only training would use it, whether the user's class reads it."""

    value: Any
    depth: int = 0
    is_compiled: bool = False
    is_users: bool = False

    def inside(self, custom: Collection[str]) -> Iterator[_Value]:
        if isinstance(self.value, list):
            yield from (replace(self, value=each, depth=self.depth + 1) for each in self.value)
        elif isinstance(self.value, Mapping):
            is_users = _name_of_users(self.value, custom) is not None
            for key, each in self.value.items():
                yield _Value(
                    value=each,
                    depth=self.depth + 1,
                    is_compiled=self.is_compiled or (key == _COMPILED and "class_name" in self.value),
                    is_users=is_users and key == "config",
                )


def for_keras(config: Mapping[str, Any], custom: Collection[str]) -> dict[str, Any]:
    """Return a `config` that `check` let pass as Keras is to see it.

    What it would train with is gone, and the user's classes are known by the names that the user gave: Keras finds them
    there, and has no module of the file's choosing to import.
    """
    found = {
        key: _for_keras(each, custom)
        for key, each in config.items()
        if not (key == _COMPILED and "class_name" in config)
    }
    name = _name_of_users(config, custom)
    if name is not None:
        found["config" if config["class_name"] == _FUNCTION else "class_name"] = name
        found |= {key: value for key, value in (("module", None), ("registered_name", name)) if key in config}
    return found


def has_operations(value: Any) -> bool:
    """Whether a config that passed `check` has functions of TensorFlow as layers, which only Keras 2 writes."""
    if isinstance(value, Mapping):
        return value.get("class_name") in _OPERATION_LAYERS or any(map(has_operations, value.values()))
    return isinstance(value, list) and any(map(has_operations, value))


def _for_keras(value: Any, custom: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return for_keras(value, custom)
    return [_for_keras(each, custom) for each in value] if isinstance(value, list) else value


def _check_object(found: _Value, custom: Collection[str]) -> None:
    value: Mapping[str, Any] = found.value
    for key, each in value.items():
        _check_key(key, each)
    if "class_name" in value:
        _check_class(value, custom, is_compiled=found.is_compiled)
    for key, word in value.items():
        if isinstance(word, str) and not found.is_compiled and not found.is_users:
            _check_word(key, word, custom)
        if key in _NAMING.split() and not found.is_users:
            _check_naming(key, word, custom)


def _check_naming(key: str, value: Any, custom: Collection[str]) -> None:
    """Refuse words of two parts, and those that stand for programs; none of Keras's own is so."""
    for word in value if isinstance(value, list) else [value]:
        if not isinstance(word, str) or word in custom or (key == _FUNCTION and word in known().operations):
            continue
        if re.search("[.:]", word) or word in known().programs:
            raise SafetyError(f"has a Keras config whose {key} is {word!r}, which is no name that Keras gives")


def _check_key(key: str, value: Any) -> None:
    alike = re.sub(r"[^a-z_]", "", unicodedata.normalize("NFKC", key).casefold())
    if alike in ("class_name", "registered_name") and key != alike:
        raise SafetyError(f"has a Keras config with a key {key!r} that looks like {alike}")
    if key in _NAMES_OF_FILES and isinstance(value, str):
        raise SafetyError(f"has a Keras config that names a file ({key})")
    if key.endswith("_type") and value == "lambda":
        raise SafetyError(f"has a Keras config whose {key} is lambda, which is code")


def _check_word(key: str, word: str, custom: Collection[str]) -> None:
    """Refuse a word that Keras would look up, unless it stands for what is wanted there."""
    found = _LOOKED_UP.fullmatch(key)
    if found is not None:
        allowed: Collection[str] = known().words[found[1]] | (_ACTIVATIONS if found[1] == "activation" else frozenset())
    elif key in _OF_TEXT:
        allowed = _OF_TEXT[key]
    else:
        return
    if word in allowed or _own_name(word) in custom:
        return
    _check_spelling(word, _REGISTERED, custom)
    _refuse_unknown(word, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """What an object of a config names for Keras to look up: a class, or a function, in a module or registered."""

    name: str
    module: str | None
    registered: str | None
    is_function: bool

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> _Reference:
        """Raises SafetyError for names that are not text."""
        class_name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
        if not (isinstance(class_name, str) and isinstance(module, str | None) and isinstance(registered, str | None)):
            raise SafetyError("has a Keras config with a class whose name is not text")
        is_function = class_name == _FUNCTION
        name = value.get("config") if is_function else class_name
        if not isinstance(name, str):
            raise SafetyError("has a Keras config with a function whose name is not text")
        return cls(name=name, module=module, registered=registered, is_function=is_function)

    @property
    def has_own_registration(self) -> bool:
        """Whether it is registered under its own name, or not at all."""
        return self.registered in (None, "", self.name)


def _check_class(value: Mapping[str, Any], custom: Collection[str], *, is_compiled: bool) -> None:
    named = _Reference.of(value)
    if not named.is_function and named.name in _LITERALS.split():
        _check_literal(value)
        return
    _check_spellings(named, custom)
    if named.name in _OPERATION_LAYERS:
        _check_operation(value.get("config"))
    if _name_of_users(value, custom) is None:
        _check_origin(named, is_compiled=is_compiled)


def _check_spellings(named: _Reference, custom: Collection[str]) -> None:
    if named.module:
        _check_spelling(named.module, _MODULE, ())
    for each in filter(None, (named.name, named.registered)):
        if _own_name(each) in known().programs | _CODE:
            raise SafetyError(
                f"has a Keras config with a {each}, which is code, or calls code",
                hint=_WITHOUT_LAMBDA if _own_name(each) == "Lambda" else None,
            )
        _check_spelling(each, _REGISTERED, custom)


def _check_origin(named: _Reference, *, is_compiled: bool) -> None:
    """Refuse what is not Keras's own where Keras would find it."""
    module, name = named.module, named.name
    if module and is_of_keras(module):
        _check_keras_own(named, module, is_compiled=is_compiled)
    elif module == _TENSORFLOW_INITIALIZERS and name in known().words["initializer"] and named.has_own_registration:
        return
    elif module and (module != "builtins" or not named.is_function):
        _refuse_unknown(name, module)
    elif not is_compiled or hasattr(builtins, name):
        _check_without_module(named)


def _check_keras_own(named: _Reference, module: str, *, is_compiled: bool) -> None:
    names, name = known(), named.name
    if is_compiled and _TRAINING.fullmatch(module) and name not in names.others & {"deserialize", "get", "serialize"}:
        return
    if not (names.is_function if named.is_function else names.is_class)(module, name):
        what = "function of tensors" if named.is_function else "class that models are made of"
        raise SafetyError(f"has a Keras config that names {module}.{name}, which is not a {what}")
    if named.has_own_registration or (named.is_function and named.registered == _FUNCTION):
        return
    if name not in names.of_applications or named.registered != f"{_CUSTOM}{name}":
        raise SafetyError(f"has a Keras config that registers {module}.{name} as {named.registered}")


def _check_without_module(named: _Reference) -> None:
    """Check a name that stands alone, or whose module is `builtins`, as Keras writes functions of its own."""
    names, name = known(), named.name
    if name.removeprefix(_CUSTOM) in names.of_applications and not named.is_function:
        return
    words = names.words["activation"] if named.is_function else names.classes_alone
    if name not in words:
        _refuse_unknown(name, named.module, is_function=named.is_function)
    if named.registered and not named.has_own_registration and named.registered != _FUNCTION:
        _refuse_unknown(named.registered, named.module, is_function=named.is_function)


def _refuse_unknown(name: str, module: str | None, *, is_function: bool = False) -> NoReturn:
    """Refuse what is not Keras's: for safety when Python or a library has it, else it is for the user to name."""
    root, own = (module or "").partition(".")[0], _own_name(name)
    is_python = root in sys.stdlib_module_names.union(_LIBRARIES.split()) and not (root == "builtins" and is_function)
    if is_python or hasattr(builtins, own) or own in known().others | sys.stdlib_module_names:
        raise SafetyError(f"has a Keras config that names {f'{module}.' if module else ''}{name}, which is not a layer")
    place = module if module and root != "builtins" else "package.module"
    raise ArchitectureError(
        f"has a Keras config with {name!r}, which is not Keras's own",
        hint=f"--custom-objects {place}:{own} names the code to use",
    )


def _name_of_users(value: Mapping[str, Any], custom: Collection[str]) -> str | None:
    """Return by which of the user's names an object is known; None when it is not the user's."""
    class_name, module, registered = value.get("class_name"), value.get("module"), value.get("registered_name")
    name = value.get("config") if class_name == _FUNCTION else class_name
    if not isinstance(name, str) or (isinstance(module, str) and is_of_keras(module)):
        return None
    own = _own_name(name)
    is_one = registered in (None, "", _FUNCTION) or (isinstance(registered, str) and _own_name(registered) == own)
    return own if own in custom and is_one else None


def _own_name(name: str) -> str:
    """Return the name of a class that is registered as ``Package>Name``."""
    return name.rpartition(">")[2]


def _check_spelling(name: str, form: re.Pattern[str], custom: Collection[str]) -> None:
    if not form.fullmatch(name) and name not in custom:
        raise SafetyError(f"has a Keras config with the name {name!r}, which neither Python nor Keras gives")


def _check_literal(value: Mapping[str, Any]) -> None:
    """Refuse element types that are no numbers: one of text may be as long as it says."""
    own_config = value.get("config")
    dtype = own_config.get("dtype") if isinstance(own_config, Mapping) else None
    if isinstance(dtype, str) and not _DTYPE.fullmatch(dtype):
        raise SafetyError(f"has a Keras config with a value of type {dtype!r}")


def _check_operation(config: Any) -> None:
    function = config.get("function") if isinstance(config, Mapping) else None
    if not isinstance(function, str) or function not in known().operations:
        raise SafetyError(f"has a Keras config that calls tf.{function}")
