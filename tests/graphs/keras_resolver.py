"""What Keras's own deserializers would resolve of configs that the check let pass: an oracle that knows no list.

    python -m tests.graphs.keras_resolver keras|tf_keras < configs, one a line

walks each config, asks every resolver that there is of every object and word in it, and prints what is neither part of
a model nor a function of tensors, one a line as JSON; the last line is how many answers there were. Nothing is built.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

_CODE = """
Lambda TFSMLayer TorchModuleWrapper JaxLayer FlaxLayer TensorFlowOpLayer ResidualWrapper DropoutWrapper InstanceMethod
ClassMethod InstanceProperty DenseFeatures SequenceFeatures
"""
_WANTED = ("activation", "initializer", "regularizer", "constraint")


class Keras:
    """The resolvers of one framework, and what each may find."""

    def __init__(self, framework: str) -> None:
        self.library = importlib.import_module(f"{framework}.src.saving.serialization_lib")
        source = importlib.import_module(f"{framework}.src")
        keras = importlib.import_module(framework)
        self.kinds = (keras.layers.Layer, keras.initializers.Initializer, keras.regularizers.Regularizer)
        if framework == "keras":
            self.kinds += (keras.Operation, keras.constraints.Constraint, keras.DTypePolicy, keras.Quantizer)
            self.kinds += (keras.quantizers.QuantizationConfig, keras.random.SeedGenerator)
            self.by_kind = [
                getattr(source, kind).ALL_OBJECTS_DICT
                for kind in (
                    "activations",
                    "initializers",
                    "regularizers",
                    "constraints",
                    "dtype_policies",
                    "quantizers",
                )
            ]
            self.layers = vars(source.layers)
            names = importlib.import_module("keras.src.api_export").REGISTERED_NAMES_TO_OBJS
            pure = [held for name, held in names.items() if name.startswith(("keras.ops.", "keras.activations."))]
        else:
            self.kinds += (source.constraints.Constraint, source.mixed_precision.policy.Policy)
            layers = importlib.import_module("tf_keras.src.layers.serialization")
            layers.populate_deserializable_objects()
            self.layers = layers.LOCAL.ALL_OBJECTS
            source.initializers.populate_deserializable_objects()
            self.by_kind = [
                vars(source.activations),
                source.initializers.LOCAL.ALL_OBJECTS,
                vars(source.regularizers),
                vars(source.constraints),
            ]
            pure = [
                held
                for name, held in vars(source.activations).items()
                if name not in ("get", "serialize", "deserialize", "keras_export")
            ]
        callers = ("cond", "while_loop", "fori_loop", "map", "scan", "vectorized_map", "vectorize", "custom_gradient")
        self.pure = {id(held) for held in pure if getattr(held, "__name__", "") not in callers}

    def resolved(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield how, and what is found, for every object and word in a config."""
        if isinstance(value, Mapping):
            if "class_name" in value:
                yield from self._of_object(value)
            for key, each in value.items():
                if isinstance(each, str):
                    yield from self._of_word(key, each)
                yield from self.resolved(each)
        elif isinstance(value, list):
            for each in value:
                yield from self.resolved(each)

    def _of_object(self, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        name, registered = value["class_name"], value.get("registered_name", value["class_name"])
        is_function = name == "function"
        own = value.get("config") if is_function else name
        try:
            kind = "function" if is_function else "class"
            found = self.library._retrieve_class_or_fn(own, registered, value.get("module"), kind, dict(value), {})
            yield "module", found
        except Exception:  # Keras refuses, which is well
            pass
        for table in self.by_kind if is_function else (*self.by_kind, self.layers):
            for each in (own, registered) if is_function else (name,):
                if isinstance(each, str) and each in table:
                    yield "table", table[each]

    def _of_word(self, key: str, word: str) -> Iterator[tuple[str, Any]]:
        for number, wanted in enumerate(_WANTED):
            if (key == wanted or key.endswith(f"_{wanted}")) and word in self.by_kind[number]:
                yield "word", self.by_kind[number][word]

    def is_harmless(self, found: Any) -> bool:
        """Whether it is a class that a model is made of, or a function of tensors."""
        if inspect.isclass(found):
            return issubclass(found, self.kinds) and not any(each.__name__ in _CODE.split() for each in found.__mro__)
        return id(found) in self.pure or getattr(found, "__name__", "") in ("l1_l2",)


def main() -> None:
    keras = Keras(sys.argv[1])
    count = 0
    for line in sys.stdin:
        for how, found in keras.resolved(json.loads(line)):
            count += 1
            if not keras.is_harmless(found):
                print(
                    json.dumps(
                        [
                            how,
                            f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', found)}",
                            line[:2000],
                        ]
                    )
                )
    print(json.dumps(count))


if __name__ == "__main__":
    main()
