"""What the config of a Keras model may name: classes and functions by their modules, and words that stand for them.

`keras_names.json` lists what Keras 3.15 and tf_keras 2.21 export, and where they define it;
`tests/oracle/generate/keras_names.py` makes it of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_FRAMEWORKS = ("keras", "tf_keras")


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasNames:
    """What is known of Keras 3 and tf_keras. Modules are without framework and `src`: ``layers.core.dense``.

    `classes`     module -> layers, models, and the objects that configure layers
    `functions`   module -> functions of tensors that call no other and touch nothing else
    `words`       kind (layer, initializer, activation ...) -> names that mean one where no module is named
    `classes_alone`    all of these that are classes
    `of_applications`  layers that the models which come with Keras define for themselves
    `operations`  functions of TensorFlow that a layer of Keras 2 may call
    `programs`    classes whose config is code, names a file, or says what is to be called
    `others`      functions that Keras exports for other ends
    """

    classes: Mapping[str, frozenset[str]]
    functions: Mapping[str, frozenset[str]]
    words: Mapping[str, frozenset[str]]
    classes_alone: frozenset[str]
    of_applications: frozenset[str]
    operations: frozenset[str]
    programs: frozenset[str]
    others: frozenset[str]

    def is_class(self, module: str, name: str) -> bool:
        """Whether `module` of Keras has a class of that name of which models are made."""
        return is_of_keras(module) and name in self.classes.get(_inner(module), ())

    def is_function(self, module: str, name: str) -> bool:
        """Whether `module` of Keras has a function of that name that takes tensors."""
        return is_of_keras(module) and name in self.functions.get(_inner(module), ())


def is_of_keras(module: str) -> bool:
    """Whether the name of a module begins as those of Keras and tf_keras do; the module need not exist."""
    return module.partition(".")[0] in _FRAMEWORKS


def _inner(module: str) -> str:
    """Return a module of Keras as the table has it, "" for Keras itself."""
    parts = module.split(".")[1:]
    return ".".join(parts[1:] if parts[:1] == ["src"] else parts)


@cache
def known() -> KerasNames:
    """Return the table. Nothing of Keras is imported for it."""
    text = resources.files("converter.graphs.trace.tensorflow").joinpath("keras_names.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    both: list[Mapping[str, Any]] = [table[framework] for framework in _FRAMEWORKS]

    def merged(what: str) -> dict[str, frozenset[str]]:
        keys = {key for each in both for key in each[what]}
        return {key: frozenset(name for each in both for name in each[what].get(key, ())) for key in sorted(keys)}

    classes, words = merged("classes"), merged("words")
    own = [held for module, held in classes.items() if module.startswith("applications.")]
    return KerasNames(
        classes=classes,
        functions=merged("functions"),
        words=words,
        classes_alone=frozenset().union(*(held for kind, held in words.items() if kind != "activation")),
        of_applications=frozenset().union(*own),
        operations=frozenset(table["tf_keras"]["operations"]),
        programs=frozenset(table["programs"]),
        others=frozenset(name for each in both for name in each["others"]),
    )
