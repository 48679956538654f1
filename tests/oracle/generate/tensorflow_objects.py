"""Makes converter/dialects/tables/tensorflow_objects.json: by which attributes a class of transformers has each object.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.generate.tensorflow_objects TABLE [family ...]

tf.train.Checkpoint and `save_weights` keep a graph of objects, `bert/encoder/layer/0/attention/self_attention/query`,
in which variables and layers without any have a path. Every class is built small, and its graph is walked. Left out
are classes some of whose variables are at no path, at another with another config, or have one name.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.oracle.generate import table_file
from tests.oracle.generate import tensorflow_models as models
from tests.oracle.generate.keras_attributes import LETTERS, built, solved
from tests.oracle.generate.tensorflow_configs import COMPOSITES

Paths = Mapping[str, str | None]
"""Path of an object -> the name of the variable that it is, without the model's own name; None for any other."""


def paths(model: Any) -> Paths:
    """Return the first path to each object of a model. Raises ValueError for a variable at none."""
    import tensorflow as tf
    from tensorflow.python.checkpoint.graph_view import ObjectGraphView
    from tensorflow.python.trackable.data_structures import TrackableDataStructure

    view = ObjectGraphView(model)
    found: dict[str, str | None] = {}
    seen, waiting = {id(model): model}, deque([("", model)])
    while waiting:
        path, item = waiting.popleft()
        children = sorted(view.list_children(item), key=_is_named_twice)
        if isinstance(item, tf.Variable):
            found[path] = own_name(item.name)
        elif path and (children or not isinstance(item, TrackableDataStructure)):
            found[path] = None
        for child in children:
            if "/" in child.name and id(child.ref) not in seen:
                raise ValueError(f"{child.name} is one attribute")
            if id(child.ref) not in seen:
                seen[id(child.ref)] = child.ref
                waiting.append((f"{path}/{child.name}".lstrip("/"), child.ref))
    lacking = {own_name(each.name) for each in model.weights} - set(found.values())
    if lacking:
        raise ValueError(f"at no path: {', '.join(sorted(lacking))}")
    return found


def _is_named_twice(child: Any) -> bool:
    """Whether the attribute may be one that add_weight set and that another variable of the same name took since."""
    return f"/{getattr(child.ref, 'name', '')}".removesuffix(":0").endswith(f"/{child.name}")


def own_name(variable: str) -> str:
    """Return the name of a variable without that of its model."""
    name = variable.removesuffix(":0")
    return name.partition("/")[2] or name


def rows_of(variants: Iterable[Paths]) -> dict[str, str | None]:
    """Return template of a path -> template of a name. Raises ValueError where not each is of one other."""
    named: dict[str, dict[tuple[str, str], tuple[dict[str, str], str]]] = defaultdict(dict)
    others: dict[str, None] = {}
    for found in variants:
        for path, name in found.items():
            template, indices = indexed(path)
            if name is None:
                others[template] = None
            else:
                named[template][path, name] = (dict(zip(LETTERS, indices, strict=False)), name)
    rows: dict[str, str | None] = {}
    for template, own in named.items():
        rows.update(solved(list(own.values()), template, _filled))
    twice = [name for name, count in Counter(rows.values()).items() if count > 1]
    if twice:
        raise ValueError(f"two variables are called {twice[0]}")
    return {**rows, **{path: None for path in others if path not in rows}}


def indexed(path: str) -> tuple[str, tuple[str, ...]]:
    """Return a path with {n}, {m} ... for the numbers of items of lists, and these."""
    parts, indices = path.split("/"), []
    for position, part in enumerate(parts):
        if part.isdigit():
            parts[position] = f"{{{LETTERS[len(indices)]}}}"
            indices.append(part)
    return "/".join(parts), tuple(indices)


def _filled(template: str, indices: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w)\}", lambda letter: indices.get(letter[1], letter[0]), template)


def document_of(found: Mapping[str, Mapping[str, Iterable[Paths]]]) -> dict[str, Any]:
    """Return what the table has of each model type, of model type -> class -> its variants."""
    document: dict[str, Any] = {}
    for model_type, classes in sorted(found.items()):
        bearers: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        for name, variants in classes.items():
            try:
                rows = rows_of(variants)
            except ValueError as error:
                print("left out:", name, error, flush=True)
                continue
            for row in rows.items():
                bearers[row].append(name)
        groups: dict[tuple[str, ...], list[list[str | None]]] = defaultdict(list)
        for row, names in bearers.items():
            groups[tuple(names)].append(list(row))
        if groups:
            document[model_type] = [{"classes": list(names), "rows": rows} for names, rows in groups.items()]
    return document


def main(table: Path, families: list[str]) -> None:
    """Write the table; print what is left out."""
    import tensorflow
    import tf_keras
    import transformers

    found: dict[str, dict[str, list[Paths]]] = defaultdict(lambda: defaultdict(list))
    left: set[str] = set()
    for class_name, family, model_class, variant in models.variants():
        if family in COMPOSITES or (families and family not in families):
            continue
        tf_keras.backend.clear_session()
        try:
            model = built(class_name, family, model_class, variant)
            found[model.config.model_type][class_name].append(paths(model))
        except Exception as error:  # what cannot be built is a result, too
            left.add(class_name)
            print("left out:", class_name, variant, type(error).__name__, str(error)[:200], flush=True)
    kept = {
        model_type: {name: variants for name, variants in classes.items() if name not in left}
        for model_type, classes in found.items()
    }
    versions = {
        "transformers": transformers.__version__,
        "tf_keras": tf_keras.__version__,
        "tensorflow": tensorflow.__version__,
    }
    table_file.write(table, {"versions": versions, "models": document_of(kept)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
