"""Makes converter/dialects/tables/keras_attributes.json: where tf_keras keeps each variable of a model of transformers.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.generate.keras_attributes TABLE [family ...]

`.keras` archives and `.weights.h5` files have attributes and positions, `encoder/layer/tf_bert_layer_1/.../vars/0`, and
no names. Every class is built small, its weights are saved, and values tell which variable is where.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.generate import table_file
from tests.oracle.generate import tensorflow_models as models

LETTERS = "nmkj"

_NUMBERED = re.compile(r"(.+)_(\d+)")


def built(class_name: str, family: str, model_class: Any, variant: int) -> Any:
    """Return the model with values that no two variables share."""
    model = model_class(models.config_of(class_name, family, model_class, variant))
    model.build_in_name_scope()
    with suppress(Exception):  # some parts are built by a call alone, and some variants cannot take the dummy inputs
        model(model.dummy_inputs, training=False)
    generator = np.random.default_rng(variant)
    models.fill(model, generator)
    for variable in model.weights:
        if variable.dtype.is_integer:
            variable.assign(
                generator.integers(1 << 30, size=tuple(variable.shape)).astype(variable.dtype.as_numpy_dtype)
            )
    return model


def places(model: Any) -> dict[str, str]:
    """Return place -> name of the variable that is there, without the model's own name, for all that values tell."""
    import h5py

    names: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for variable in model.weights:
        names[_key(variable.numpy())].append(variable.name)
    found: dict[str, str] = {}

    def visit(place: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            same = names[_key(item[()])]
            if len(same) == 1:
                found[place] = same[0].removesuffix(":0").partition("/")[2] or same[0].removesuffix(":0")
            else:
                print("ambiguous:", type(model).__name__, place, same)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        model.save_weights(path)
        with h5py.File(path) as file:
            file.visititems(visit)
    return found


def _key(array: Any) -> tuple[Any, ...]:
    return (array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest())


def indexed(place: str, all_places: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Return the place with {n}, {m} ... for numbers of items of lists, and these; the first item has no number."""
    parts, indices = place.split("/"), []
    known = {"/".join(other.split("/")[:count]) for other in all_places for count in range(1, other.count("/") + 1)}
    for position, part in enumerate(parts[:-2]):
        before = "/".join(place.split("/")[:position])
        numbered = _NUMBERED.fullmatch(part)
        stem, number = (numbered[1], numbered[2]) if numbered else (part, "0")
        is_list = all(f"{before}/{item}".lstrip("/") in known for item in (stem, f"{stem}_1"))
        if is_list and position:
            parts[position] = f"{stem}_{{{LETTERS[len(indices)]}}}"
            indices.append(number)
    return "/".join(parts), tuple(indices)


def rows_of(variants: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the rows of a class: template of a place -> template of a name."""
    instances: dict[str, dict[tuple[str, str], tuple[dict[str, str], str]]] = defaultdict(dict)
    for found in variants:
        for place, name in found.items():
            template, indices = indexed(place, found)
            instances[template][place, name] = (dict(zip(LETTERS, indices, strict=False)), name)
    rows: dict[str, str] = {}
    for template, own in instances.items():
        try:
            rows.update(solved(list(own.values()), template, _filled))
        except ValueError as error:
            print("left out:", error, sorted({name for _, name in own.values()}), flush=True)
    return rows


def solved(
    instances: list[tuple[dict[str, str], str]], template: str, filled: Callable[[str, dict[str, str]], str]
) -> dict[str, str]:
    """Return rows for the instances of a template; indices that no name shows are literal in them, few if can be.

    `filled` puts indices into a template.
    """
    letters = list(instances[0][0])
    for count in range(len(letters) + 1):
        for fixed in itertools.combinations(letters, count):
            groups: dict[str, list[tuple[dict[str, str], str]]] = defaultdict(list)
            for indices, name in instances:
                free = {letter: value for letter, value in indices.items() if letter not in fixed}
                groups[filled(template, {letter: indices[letter] for letter in fixed})].append((free, name))
            rows = {place: name_template(group) for place, group in groups.items()}
            if None not in rows.values():
                return {place: name for place, name in rows.items() if name is not None}
    raise ValueError(f"two variables are at {template}")


def _filled(template: str, indices: Mapping[str, str]) -> str:
    for letter, value in indices.items():
        template = template.replace(f"_{{{letter}}}", f"_{value}" if value != "0" else "")
    return template


def name_template(instances: list[tuple[dict[str, str], str]]) -> str | None:
    """Return the name with ``{n}`` for an index and ``{n+1}`` for one that is so much more; None when none fits all."""
    if len({re.sub(r"\d+", "#", name) for _, name in instances}) != 1:
        return None
    pieces = re.split(r"(\d+)", instances[0][1])
    unused = dict.fromkeys(instances[0][0])
    for position in range(1, len(pieces), 2):
        values = [int(re.split(r"(\d+)", name)[position]) for _, name in instances]
        for letter in unused:
            offsets = {value - int(own[letter]) for value, (own, _) in zip(values, instances, strict=True)}
            varies = len(set(values)) > 1
            if len(offsets) == 1 and (varies or offsets == {0}) and min(offsets) >= 0:
                offset = offsets.pop()
                pieces[position] = f"{{{letter}+{offset}}}" if offset else f"{{{letter}}}"
                del unused[letter]
                break
        else:
            if len(set(values)) > 1:
                return None
    return None if unused else "".join(pieces)


def main(table: Path, families: list[str]) -> None:
    """Write the table; print what could not be built."""
    import tensorflow
    import tf_keras
    import transformers

    found: dict[str, dict[str, dict[int, dict[str, str]]]] = defaultdict(lambda: defaultdict(dict))
    for class_name, family, model_class, variant in models.variants():
        if families and family not in families:
            continue
        try:
            model = built(class_name, family, model_class, variant)
            found[model.config.model_type][class_name][variant] = places(model)
        except Exception as error:  # what cannot be built is a result, too
            print("not built:", class_name, variant, type(error).__name__, str(error)[:200], flush=True)
    document: dict[str, Any] = {}
    for model_type, classes in sorted(found.items()):
        by_class = {name: rows_of(variants.values()) for name, variants in classes.items()}
        bearers: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, rows in by_class.items():
            for row in rows.items():
                bearers[row].append(name)
        groups: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
        for row, names in bearers.items():
            groups[tuple(names)].append(list(row))
        document[model_type] = [{"classes": list(names), "rows": rows} for names, rows in groups.items()]
    versions = {
        "transformers": transformers.__version__,
        "tf_keras": tf_keras.__version__,
        "tensorflow": tensorflow.__version__,
    }
    table_file.write(table, {"versions": versions, "models": document})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
