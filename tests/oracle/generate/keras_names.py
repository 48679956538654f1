"""Makes converter/graphs/trace/tensorflow/keras_names.json: what the config of a Keras model may name.

    python -m tests.oracle.generate.keras_names TABLE

in an environment with Keras 3 and tf_keras; with `keras` or `tf_keras` for TABLE, its part is printed. What is listed
are classes that a model is made of, by the module where Keras exports them and by the one where they are defined,
functions of tensors, and the words that stand for either. A module is told without its framework and without `src`:
``keras.src.layers.core.dense`` is ``layers.core.dense``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.oracle.generate import table_file

_PROGRAMS = """
Lambda TFSMLayer TorchModuleWrapper JaxLayer FlaxLayer DropoutWrapper ResidualWrapper _RNNCellWrapper ModuleWrapper
TensorFlowOpLayer ClassMethod InstanceMethod InstanceProperty DenseFeatures SequenceFeatures LinearModel WideDeepModel
FeatureSpace Function AssociativeScan Cond ForiLoop Map Scan Switch VectorizedMap WhileLoop
"""
"""Classes whose config is code, names a file, a node of a graph or any method there is, or that call what they get.

DropoutWrapper and ResidualWrapper of tf_keras (layers/rnn/cell_wrappers.py) unmarshal functions.
"""
_CALLING = """
associative_scan cond custom_gradient fori_loop jvp map scan switch vectorize vectorized_map while_loop
"""
_NOT_FUNCTIONS = frozenset({"get", "serialize", "deserialize"})
_PUBLIC = """
layers initializers regularizers constraints dtype_policies quantizers models random _legacy.layers
ops ops.image ops.linalg ops.nn ops.numpy
"""
_PLACES_3 = ("layers", "ops", "models", "applications", "legacy", "activations", "quantizers", "initializers")
_MODULES_2 = ("", "layers", "models", "initializers", "constraints", "regularizers", "mixed_precision", "experimental")
_PLACES_2 = ("layers", "engine", "applications", "initializers", "constraints", "regularizers", "mixed_precision")
_TENSORFLOW_MODULES = ("__operators__.", "math.", "nn.", "linalg.")
_TENSORFLOW = """
argsort batch_to_space bitcast boolean_mask broadcast_to cast clip_by_norm clip_by_value concat convert_to_tensor
einsum expand_dims eye fill gather gather_nd identity identity_n image.adjust_contrast image.central_crop
image.crop_to_bounding_box image.flip_left_right image.flip_up_down image.grayscale_to_rgb image.pad_to_bounding_box
image.per_image_standardization image.resize image.resize_with_pad image.rgb_to_grayscale linspace meshgrid norm
one_hot ones ones_like pad range rank realdiv repeat reshape reverse reverse_sequence roll scatter_nd searchsorted
sequence_mask shape size slice sort space_to_batch space_to_batch_nd split squeeze stack stop_gradient strided_slice
tensor_scatter_nd_add tensor_scatter_nd_update tensordot tile transpose truncatediv unstack where zeros zeros_like
"""
_NOT_OPERATIONS = frozenset({"nn.all_candidate_sampler", "nn.fixed_unigram_candidate_sampler"})
"""What reads a file: the vocabulary of its candidates."""


def keras_3() -> dict[str, Any]:
    """Return the names of the installed Keras 3."""
    keras = importlib.import_module("keras")
    source = importlib.import_module("keras.src")
    operation = importlib.import_module("keras.src.ops.operation").Operation
    quantization = importlib.import_module("keras.src.quantizers.quantization_config").QuantizationConfig
    base = importlib.import_module("keras.src.dtype_policies.dtype_policy").DTypePolicy
    kinds = (
        operation,
        keras.Initializer,
        keras.Regularizer,
        keras.constraints.Constraint,
        base,
        keras.Quantizer,
        quantization,
        keras.random.SeedGenerator,
    )
    registered = importlib.import_module("keras.src.api_export").REGISTERED_NAMES_TO_OBJS
    public = {"": vars(keras)}
    public |= {
        module: dict(vars(importlib.import_module(f"keras.{module}")))
        for module in _PUBLIC.split()
        if module != "_legacy.layers"
    }
    for name, held in registered.items():
        module, _, own = name.removeprefix("keras").lstrip(".").rpartition(".")
        public.setdefault(module, {})[own] = held
    classes: dict[str, set[str]] = {}
    for module in ("", *_PUBLIC.split()):
        classes[module] = {name for name, held in public[module].items() if _is_part(held, kinds)}
    own = [each for kind in kinds for each in (kind, *_below(kind))]
    _add_defined(classes, own, "keras.src.", _PLACES_3)
    functions = {
        module: {name for name, held in public[module].items() if inspect.isfunction(held)}
        - _NOT_FUNCTIONS.union(_CALLING.split())
        for module in ("ops", "ops.image", "ops.linalg", "ops.nn", "ops.numpy")
    }
    activations = _words(source.activations.ALL_OBJECTS_DICT)
    functions["activations"] = activations
    layers = {name for name, held in vars(source.layers).items() if _is_part(held, kinds)}
    words = {
        "layer": layers | {"Functional", "Model", "Sequential"},
        "initializer": _words(source.initializers.ALL_OBJECTS_DICT),
        "regularizer": _words(source.regularizers.ALL_OBJECTS_DICT),
        "constraint": _words(source.constraints.ALL_OBJECTS_DICT),
        "policy": _words(source.dtype_policies.ALL_OBJECTS_DICT),
        "quantizer": _words(source.quantizers.ALL_OBJECTS_DICT),
        "activation": activations,
    }
    others = {name.rpartition(".")[2] for name, held in registered.items() if inspect.isfunction(held)}
    return _named(classes, functions, words, others=others)


def keras_2() -> dict[str, Any]:
    """Return the names of the installed tf_keras, and the operations of TensorFlow that it makes layers of."""
    source = importlib.import_module("tf_keras.src")
    layers = importlib.import_module("tf_keras.src.layers.serialization")
    layers.populate_deserializable_objects()
    initializers = importlib.import_module("tf_keras.src.initializers")
    initializers.populate_deserializable_objects()
    base = importlib.import_module("tf_keras.src.engine.base_layer").Layer
    policy = importlib.import_module("tf_keras.src.mixed_precision.policy").Policy
    for _ in pkgutil.iter_modules(importlib.import_module("tf_keras.src.applications").__path__):
        importlib.import_module(f"tf_keras.src.applications.{_.name}")
    kinds = (
        base,
        importlib.import_module("tf_keras.src.initializers.initializers").Initializer,
        source.regularizers.Regularizer,
        source.constraints.Constraint,
        policy,
    )
    symbols = importlib.import_module("tensorflow.python.util.tf_export")._NAME_TO_SYMBOL_MAPPING
    classes: dict[str, set[str]] = {}
    others: set[str] = set()
    for name, held in symbols.items():
        framework, _, rest = name.partition(".")
        module, _, own = rest.rpartition(".")
        if framework == "keras" and module.split(".")[0] in _MODULES_2 and _is_part(held, kinds):
            classes.setdefault(module, set()).add(own)
        elif framework == "keras" and inspect.isfunction(held):
            others.add(own)
    objects = layers.LOCAL.ALL_OBJECTS
    known = [each for each in (*objects.values(), *initializers.LOCAL.ALL_OBJECTS.values()) if inspect.isclass(each)]
    known += [each for kind in kinds for each in (kind, *_below(kind))]
    _add_defined(classes, [each for each in known if _is_part(each, kinds)], "tf_keras.src.", _PLACES_2)
    for unwanted in ("models.experimental", "engine.training_v1"):
        classes.pop(unwanted, None)
    activations = {
        name for name, held in vars(source.activations).items() if inspect.isfunction(held) and name[0] != "_"
    } - _NOT_FUNCTIONS
    words = {
        "layer": {name for name, held in objects.items() if _is_part(held, kinds)},
        "initializer": {
            name
            for name, held in initializers.LOCAL.ALL_OBJECTS.items()
            if inspect.isclass(held) or inspect.isfunction(held)
        },
        "regularizer": _words_of(source.regularizers, kinds) | {"l1", "l2", "l1_l2", "orthogonal_regularizer"},
        "constraint": _words_of(source.constraints, kinds),
        "policy": {"Policy", "PolicyV1"},
        "quantizer": set[str](),
        "activation": activations | {"softmax_v2"},
    }
    named = _named(classes, {"activations": activations}, words, others=others)
    named["operations"] = sorted(
        name
        for name, held in symbols.items()
        if (name.startswith(_TENSORFLOW_MODULES) or name in _TENSORFLOW.split())
        and not inspect.isclass(held)
        and callable(held)
        and not name.startswith("nn.experimental.general")
        and name not in _NOT_OPERATIONS
    )
    return named


_MADE = {"keras": keras_3, "tf_keras": keras_2}


def _named(
    classes: Mapping[str, set[str]],
    functions: Mapping[str, set[str]],
    words: Mapping[str, set[str]],
    *,
    others: set[str],
) -> dict[str, Any]:
    listed = set().union(*classes.values(), *functions.values(), *words.values())
    return {
        "classes": {module: sorted(held) for module, held in sorted(classes.items()) if held},
        "functions": {module: sorted(held) for module, held in sorted(functions.items())},
        "words": {kind: sorted(held) for kind, held in words.items()},
        "others": sorted(each for each in others - listed if each.isidentifier() and not each.startswith("_")),
    }


def _is_part(held: Any, kinds: tuple[Any, ...]) -> bool:
    return inspect.isclass(held) and issubclass(held, kinds) and held.__name__ not in _PROGRAMS.split()


def _below(kind: Any) -> Iterator[Any]:
    for each in type.__subclasses__(kind):
        yield each
        yield from _below(each)


def _add_defined(classes: dict[str, set[str]], found: Iterable[Any], start: str, places: tuple[str, ...]) -> None:
    """Add the classes by the modules that define them."""
    for each in found:
        module = each.__module__.removeprefix(start)
        if module != each.__module__ and module.split(".")[0] in places and each.__name__ not in _PROGRAMS.split():
            classes.setdefault(module, set()).add(each.__name__)


def _words(held: Mapping[Any, Any]) -> set[str]:
    return {name for name in held if isinstance(name, str)}


def _words_of(module: Any, kinds: tuple[Any, ...]) -> set[str]:
    return {name for name, held in vars(module).items() if _is_part(held, kinds)}


def main() -> None:
    if sys.argv[1] in _MADE:
        version = importlib.import_module(sys.argv[1]).__version__
        print(json.dumps({"version": version, **_MADE[sys.argv[1]]()}))
        return
    versions = {
        "keras": importlib.import_module("keras").__version__,
        "tf_keras": importlib.import_module("tf_keras").__version__,
        "tensorflow": importlib.import_module("tensorflow").__version__,
    }
    table = {"versions": versions, "programs": sorted(_PROGRAMS.split()), "keras": keras_3(), "tf_keras": keras_2()}
    table_file.write(Path(sys.argv[1]), table)


if __name__ == "__main__":
    main()
