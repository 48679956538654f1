"""The config of a Keras model from a stranger: what it may name, looked at before Keras is imported.

Keras 3.15 refuses most of it by itself (safe_mode); CVE-2024-3660 and CVE-2025-1550 are why that is not relied upon.
Classes come from Keras's own modules, or from those that the user named.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from converter.errors import ArchitectureError, ReadError, SafetyError

_DEPTH_LIMIT = 64
_PROGRAMS = frozenset(
    {"Lambda", "__lambda__", "__typespec__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
)
"""Classes whose config is code, or says where a program is."""
_FRAMEWORKS = ("keras", "tf_keras")
_PARTS = """
layers initializers activations regularizers constraints models ops optimizers losses metrics dtype_policies random
quantizers engine mixed_precision
"""
_OPERATION_LAYERS = frozenset({"TFOpLambda", "SlicingOpLambda"})
_OPERATIONS = """
math nn linalg __operators__ reshape transpose concat cast expand_dims squeeze shape tile stack split gather identity
ones_like zeros_like one_hot where broadcast_to reverse slice strided_slice unstack convert_to_tensor
"""
"""Functions of TensorFlow, by their module or name, that tf_keras may make layers of."""
_NAMES_OF_FILES = ("vocabulary", "idf_weights", "filepath")


def check(config: Mapping[str, Any], custom: Collection[str]) -> None:
    """Raise when building a model from `config` could run more than Keras's layers and the user's `custom` classes.

    SafetyError for code, files, and modules of Python; ArchitectureError for a class that only the user can name;
    ReadError when it is nested too deep.
    """
    waiting: list[tuple[Any, int]] = [(config, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEPTH_LIMIT:
            raise ReadError(f"is a Keras config nested more than {_DEPTH_LIMIT} deep")
        if isinstance(value, Mapping):
            _check_object(value, custom)
            waiting += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]


def has_operations(value: Any) -> bool:
    """Whether a config that `check` found harmless calls functions of TensorFlow as layers, as only Keras 2 does."""
    if isinstance(value, Mapping):
        return value.get("class_name") in _OPERATION_LAYERS or any(map(has_operations, value.values()))
    return isinstance(value, list) and any(map(has_operations, value))


def _check_object(value: Mapping[str, Any], custom: Collection[str]) -> None:
    for key in _NAMES_OF_FILES:
        if isinstance(value.get(key), str):
            raise SafetyError(f"has a Keras config that names a file as {key}")
    class_name, module = value.get("class_name"), value.get("module")
    if class_name is None:
        return
    if not isinstance(class_name, str) or not isinstance(module, str | None):
        raise ReadError("is a Keras config with a class that is no name")
    registered = value.get("registered_name")
    names = {class_name, class_name.rpartition(">")[2], registered}
    if class_name == "function":
        names = {value.get("config")}
    if not _PROGRAMS.isdisjoint(names):
        raise SafetyError(f"has a Keras config with a {class_name}, which is code")
    if class_name in _OPERATION_LAYERS:
        _check_operation(value.get("config"))
    if not names.isdisjoint(custom):
        return
    place = "" if module is None else module
    if place.partition(".")[0] in sys.stdlib_module_names and (place, class_name) != ("builtins", "function"):
        raise SafetyError(f"has a Keras config that names {place}.{class_name}, which is no layer")
    is_custom = ">" in class_name or (isinstance(registered, str) and ">" in registered)
    if is_custom or (module is not None and not _is_of_keras(place) and place != "builtins"):
        what = value.get("config") if class_name == "function" else class_name
        raise ArchitectureError(
            f"has a Keras config with {what!r}, which is not Keras's own",
            hint=f"--custom-objects {place or 'package.module'}:{str(what).rpartition('>')[2]} names the code to use",
        )


def _is_of_keras(module: str) -> bool:
    """Whether a module is one of those where layers and their parts are; raises SafetyError for the rest of Keras."""
    framework, *parts = module.split(".")
    if framework not in _FRAMEWORKS:
        return False
    inner = [part for part in parts if part != "src"]
    if inner and inner[0] not in _PARTS.split():
        raise SafetyError(f"has a Keras config that names the module {module}, where no layers are")
    return True


def _check_operation(config: Any) -> None:
    function = config.get("function") if isinstance(config, Mapping) else None
    if function is not None and str(function).partition(".")[0] not in _OPERATIONS.split():
        raise SafetyError(f"has a Keras config that calls tf.{function}")
