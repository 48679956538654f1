"""Mutants of Keras configs: names swapped for others, objects put where none were, values of other types."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from importlib import resources
from typing import Any

from converter.graphs.trace.tensorflow.keras_names import known

_TABLE = json.loads(
    resources.files("converter.graphs.trace.tensorflow").joinpath("keras_names.json").read_text(encoding="utf-8")
)
_MODULES = [
    *(f"{framework}{'.src' * is_inner}.{module}".rstrip(".") for framework in ("keras", "tf_keras")
      for is_inner in (False, True) for module in _TABLE[framework]["classes"]),
    *("keras.utils", "keras.saving", "keras.models", "keras.config", "keras.src.saving.saving_lib", "keras.export"),
    *("builtins", "os", "subprocess", "numpy", "tensorflow", "my_package.layers", "keras_hub.layers", "", None, None),
]  # fmt: skip
_CLASSES = sorted({name for held in known().classes.values() for name in held})
_FUNCTIONS = sorted({name for held in known().functions.values() for name in held} | known().others)
_WORDS = sorted({name for held in known().words.values() for name in held})
_ODD = [
    "layers.Lambda",
    "utils.get_file",
    "keras.utils.get_file",
    "os:system",
    "eval",
    "exec",
    "load_model",
    "my_package>Gain",
    "Custom>CustomScaleLayer",
    "__lambda__",
    "__numpy__",
    "__tensor__",
    "__typespec__",
    "function",
    "Lambda\x00",
    " Dense",
    "",
    7,
    -1.5,
    True,
    None,
    [],
    {},
]
_KEYS = ["class_name", "config", "module", "registered_name", "activation", "kernel_initializer", "layer", "function"]


def mutants(configs: list[Any], count: int, seed: int) -> Iterator[Any]:
    """Yield `count` mutants of `configs`, each with one to four changes; the same for the same seed."""
    choose = random.Random(seed)
    said = [json.dumps(each) for each in configs]
    for _ in range(count):
        value = json.loads(choose.choice(said))
        for _ in range(choose.choice((1, 1, 1, 2, 2, 3, 4))):
            _change(value, choose)
        yield value


def _change(value: Any, choose: random.Random) -> None:
    """Change one container in `value`, more often one that says a class than one that does not."""
    containers = list(_containers(value))
    named = [each for each in containers if isinstance(each, dict) and "class_name" in each]
    held = choose.choice(named if named and choose.random() < 0.7 else containers)
    if isinstance(held, list):
        if held and choose.random() < 0.7:
            held[choose.randrange(len(held))] = _value(choose)
        else:
            held.insert(choose.randrange(len(held) + 1), _value(choose))
        return
    keys = list(held) or ["class_name"]
    key = (
        choose.choice([each for each in _KEYS[:4] if each in held] or keys)
        if choose.random() < 0.5
        else choose.choice(keys)
    )
    what = choose.random()
    if what < 0.5:
        held[key] = _name(key, choose)
    elif what < 0.7:
        held[choose.choice(_KEYS)] = _value(choose)
    elif what < 0.8:
        held.pop(key, None)
    elif what < 0.9:
        held[choose.choice([*_KEYS, key.upper(), key + " "])] = held.pop(key, None)
    else:
        held[key] = copy.deepcopy(choose.choice([each for each in containers if len(json.dumps(each)) < 4000] or [{}]))


def _name(key: str, choose: random.Random) -> Any:
    if key == "module":
        return choose.choice(_MODULES)
    if choose.random() < 0.2:
        return copy.deepcopy(choose.choice(_ODD))
    return choose.choice(choose.choice((_CLASSES, _FUNCTIONS, _WORDS, sorted(known().programs))))


def _value(choose: random.Random) -> Any:
    """Return a name, or an object with names that may fit each other or not."""
    if choose.random() < 0.3:
        return _name("", choose)
    framework = choose.choice(("keras", "tf_keras"))
    if choose.random() < 0.4:
        module = choose.choice(list(_TABLE[framework]["functions"]))
        name = choose.choice([*_TABLE[framework]["functions"][module], _name("", choose)])
        return {"module": f"{framework}.{module}", "class_name": "function", "config": name, "registered_name": name}
    module = choose.choice(list(_TABLE[framework]["classes"]))
    name = choose.choice(_TABLE[framework]["classes"][module])
    return {
        "module": choose.choice((f"{framework}.{module}".rstrip("."), choose.choice(_MODULES))),
        "class_name": name,
        "config": copy.deepcopy(choose.choice(({}, {"name": "x"}, {"layer": {}}, []))),
        "registered_name": choose.choice((None, None, name, _name("", choose))),
    }


def _containers(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict | list):
            yield here
            waiting += here.values() if isinstance(here, dict) else here
