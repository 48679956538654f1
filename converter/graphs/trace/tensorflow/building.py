"""A Keras model from its config, which was found harmless: by Keras 3 or, where that cannot, by tf_keras."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from converter.errors import ArchitectureError, CkconvError, GraphError, MissingExtraError, UsageError
from converter.graphs.failures import summary_of
from converter.graphs.trace.patches import replaced
from converter.graphs.trace.tensorflow import cudnn, encoder_config, encoders, keras_config
from converter.graphs.trace.tensorflow.keras_2 import as_keras_3, has_shapes_of_keras_2, mixed_policy
from converter.graphs.trace.tensorflow.own_code import OwnCode
from converter.graphs.trace.tensorflow.recurrence import of_one_call

_UNKNOWN = ("Unknown layer", "Could not locate", "Could not deserialize", "is not registered", "Unknown object")
_OLDEST, _OLDEST_312 = (3, 13, 2), (3, 12, 4)
"""The least version of Keras, as in pyproject.toml: 3.12 is the last for Python 3.10 and gets fixes of its own."""
LAYER_OF = {"keras": "keras.src.layers.layer", "tf_keras": "tf_keras.src.engine.base_layer"}
_SPARE_ELEMENTS = 1 << 20
"""How many elements a model may have that its file has not: states of random generators and of recurrence."""


def build(
    config: Mapping[str, Any],
    custom_objects: Sequence[str],
    folder: str,
    *,
    is_archive: bool,
    elements: int | None = None,
    encoder: Mapping[str, Any] | None = None,
) -> Any:
    """Return the model of a config that was found harmless, with weights as its initializers make them.

    Archives and HDF5 files say what a model is made of in two ways.

    Raises as `trace` does, UsageError for custom objects that cannot be imported.
    """
    custom = keras_config.names_of_users(custom_objects)
    config, custom = encoder_config.checked(config, custom, encoder)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    code = OwnCode(custom_objects, is_older=has_shapes_of_keras_2(config))
    own = code.imported(folder)
    failures: dict[str, Exception] = {}
    config_text = json.dumps(keras_config.for_keras(config, custom))
    for framework in code.frameworks(has_encoder=encoder is not None):
        try:
            module = importlib.import_module(framework)
        except ImportError:
            continue
        if framework == "keras":
            _check_version(str(module.__version__))
        objects = own if encoder is None else {**own, **encoders.classes(encoder, module)}
        try:
            with redirect_stdout(io.StringIO()):
                own_config = _with_names(of_one_call(json.loads(config_text)), objects)
                if framework == "keras":
                    own_config = as_keras_3(own_config)
                policy = mixed_policy(config)
                with (
                    _weights_counted(module, elements),
                    cudnn.known(module),
                    _under_policy(module, policy),
                    _older_activations(module, config),
                ):
                    return _built(module, own_config, objects, is_archive=is_archive)
        except Exception as error:  # what from_config of any layer raises
            if (refusal := _refusal_in(error)) is not None:
                raise ArchitectureError(refusal.message, hint=refusal.hint) from error  # no cause of its own cause
            failures[framework] = error
    if not failures:
        raise MissingExtraError("tensorflow", "building a Keras model")
    raise _why_not_built(failures, config, code) from next(iter(failures.values()))


def _with_names(config: Any, classes: Mapping[str, Any]) -> Any:
    """Return a config in which layers of the user's have their names, which files list their variables by.

    Keras 2 writes no arguments, the name among them, for a class without `get_config`, and then goes by position.
    """
    if isinstance(config, list):
        return [_with_names(each, classes) for each in config]
    if not isinstance(config, dict):
        return config
    found = {key: _with_names(each, classes) for key, each in config.items()}
    owner = classes.get(str(config.get("class_name")))
    if owner is not None and config.get("config") == {} and isinstance(config.get("name"), str):
        taken = inspect.signature(owner.__init__).parameters
        if "name" in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            found["config"] = {"name": config["name"]}
    return found


def _why_not_built(failures: Mapping[str, Exception], config: Mapping[str, Any], code: OwnCode) -> CkconvError:
    """Return what to say of a model that no framework could build, of what each raised."""
    if len(failures) == 1 and keras_config.has_operations(config):
        return ArchitectureError(
            "is a model of Keras 2 that calls operators of TensorFlow, which only tf_keras can build",
            hint="pip install tf-keras",
        )
    first = next(iter(failures.values()))
    message = summary_of(first)
    if any(word in str(first) for word in _UNKNOWN):
        return ArchitectureError(
            f"has a Keras config with a class that Keras does not have: {message}",
            hint="--custom-objects package.module:Name names the code to use",
        )
    return code.refusal(failures) or GraphError(f"Keras cannot build the model of the config: {message}")


def _check_version(version: str) -> None:
    """Refuse a Keras without the mends of CVE-2026-1462, CVE-2026-1669 and what came before them."""
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", version)[:3])
    if not _OLDEST_312 <= numbers < (3, 13) and numbers < _OLDEST:
        raise UsageError(
            f"Keras {version} does not build foreign models safely, {_dotted(_OLDEST)} and {_dotted(_OLDEST_312)} do",
            hint=f"pip install -U 'keras>={_dotted(_OLDEST)}'",
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _refusal_in(error: BaseException | None) -> ArchitectureError | None:
    """Return the refusal that Keras made an error of its own of, if there is one."""
    while error is not None and not isinstance(error, ArchitectureError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def _weights_counted(keras: Any, elements: int | None) -> Iterator[None]:
    """Stop a model that is being built before its weights are larger than those of its file, and some."""
    owner = importlib.import_module(LAYER_OF[keras.__name__]).Layer
    original = owner.add_weight
    asked = 0

    def counted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal asked
        position = 0 if keras.__name__ == "keras" else 1
        shape = keywords.get("shape", arguments[position] if len(arguments) > position else None)
        sizes = [shape] if shape is None or isinstance(shape, int) else list(shape)
        asked += math.prod(size for size in sizes if isinstance(size, int))
        if elements is not None and asked > elements + _SPARE_ELEMENTS:
            raise ArchitectureError(
                f"has a Keras config whose layer {self.name!r} makes it {asked:,} weights, the file holds {elements:,}"
            )
        return original(self, *arguments, **keywords)

    with replaced(owner, "add_weight", counted):
        yield


@contextmanager
def _under_policy(keras: Any, name: str | None) -> Iterator[None]:
    """Make layers under the policy that a config's were made under: layers inside the user's own have it, too."""
    before = keras.mixed_precision.global_policy()
    if name is not None:
        keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextmanager
def _older_activations(keras: Any, config: Mapping[str, Any]) -> Iterator[None]:
    """Let Keras 3 take `hard_sigmoid` in configs of Keras 2 for what it was: 0.2 x + 0.5, cut at 0 and 1."""
    if keras.__name__ != "keras" or not has_shapes_of_keras_2(config):
        yield
        return
    known = importlib.import_module("keras.src.activations").ALL_OBJECTS_DICT
    before = known["hard_sigmoid"]

    def hard_sigmoid(x: Any) -> Any:  # by its own name, with which it is looked up again where layers are copied
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    known["hard_sigmoid"] = hard_sigmoid
    try:
        yield
    finally:
        known["hard_sigmoid"] = before


def _built(keras: Any, config: Mapping[str, Any], objects: Mapping[str, Any], *, is_archive: bool) -> Any:
    if is_archive and "module" in config:  # get_config says no class of the model, and to_json of Keras 2 no modules
        model = keras.saving.deserialize_keras_object(config, custom_objects=dict(objects))
    elif keras.__name__ == "keras":
        legacy = importlib.import_module("keras.src.legacy.saving.saving_utils")
        options = importlib.import_module("keras.src.legacy.saving.saving_options")
        with options.keras_option_scope(use_legacy_config=True):
            model = legacy.model_from_config(config, custom_objects=dict(objects))
    else:
        model = keras.models.model_from_config(config, custom_objects=dict(objects))
    if not model.built or not getattr(model, "inputs", None):
        raise GraphError("a Keras model whose config says no input shape has no graph")
    return model
