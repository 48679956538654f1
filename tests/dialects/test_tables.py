"""Every entry of every table is built, and a slip in one is an error that says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from converter.dialects import tables
from converter.dialects.identity import classes, parameters, settings
from converter.dialects.transformers import attributes, in_process_rows, tensorflow_classes

LOADERS: dict[str, Callable[[str], tables.ModelTable | None]] = {
    tables.TENSORFLOW: tables.tensorflow_table,
    tables.FLAX: tables.flax_table,
    tables.TENSORFLOW_1: tables.tensorflow_1_table,
}


@pytest.mark.parametrize("framework", sorted(LOADERS))
def test_every_entry_is_built(framework: str) -> None:
    for model_type in tables.document(framework)["models"]:
        built = LOADERS[framework](model_type)
        assert built is not None
        assert built.rows.all


@pytest.mark.parametrize("framework", sorted(LOADERS))
def test_no_table_knows_everything(framework: str) -> None:
    assert LOADERS[framework]("no such model") is None


def _with_unknown_key(entry: dict[str, Any]) -> None:
    entry["prevales"] = []


def _without_prefix(entry: dict[str, Any]) -> None:
    del entry["prefix"]


def _with_a_slip_in_a_class(entry: dict[str, Any]) -> None:
    next(iter(entry["classes"].values()))["lack"] = []


def _with_a_row_of_two(entry: dict[str, Any]) -> None:
    entry["rows"].append(["a", "b"])


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (_with_unknown_key, "prevales"),
        (_without_prefix, "prefix"),
        (_with_a_slip_in_a_class, "lack"),
        (_with_a_row_of_two, "is no row"),
    ],
)
def test_a_slip_is_an_error(slip: Callable[[dict[str, Any]], None], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {
        "prefix": "bert",
        "rows": [["a/kernel", "bert.a.weight", "i o -> o i"]],
        "classes": {
            "BertModel": {
                "layer": "tf_bert_model",
                "is_base": True,
                "lacks": [],
                "optional": [],
                "ties": {},
                "ties_when_untied": {},
            }
        },
        "tied_by_default": True,
        "outside": [],
    }
    monkeypatch.setattr(tables, "document", lambda framework: {"models": {"toy": entry}})
    build = tables.tensorflow_table.__wrapped__
    assert build("toy").classes["BertModel"].layer == "tf_bert_model"
    slip(entry)
    with pytest.raises(ValueError, match=rf"tensorflow\.json, toy: .*{said}"):
        build("toy")


def test_an_exception_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person writes into exceptions.json counts at once, both ways, without a table that is made anew."""
    build = tables.tensorflow_table.__wrapped__
    old, odd = "bert/pooler/odd/kernel", "bert/encoder/odd/gamma"
    own = {
        "aliases": [[old, "bert.pooler.dense.weight", "i o -> o i"]],
        "rows": [[odd, "bert.odd.weight", None]],
        "not_trained": ["odd/beta"],
    }
    before = build("bert")
    assert (before.to_canonical(old), before.from_canonical("bert.odd.weight"), before.not_trained) == (None, None, ())
    monkeypatch.setattr(tables, "exceptions", lambda kind: {"bert": own} if kind == tables.TENSORFLOW else {})
    table = build("bert")
    assert table.to_canonical(old).name == "bert.pooler.dense.weight"
    assert table.from_canonical("bert.pooler.dense.weight").name == "bert/pooler/dense/kernel"
    assert (table.to_canonical(odd).name, table.from_canonical("bert.odd.weight").name) == ("bert.odd.weight", odd)
    assert table.not_trained == ("odd/beta",)


@pytest.mark.parametrize("slip", [{"outside": []}, {"prevales": []}, {"rows": [["a", "b"]]}])
def test_a_slip_in_an_exception_is_an_error(slip: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "exceptions", lambda kind: {"bert": slip})
    with pytest.raises(ValueError, match=r"tensorflow\.json, bert: "):
        tables.tensorflow_table.__wrapped__("bert")


def test_exceptions_are_of_types_that_are_known() -> None:
    assert tables.exceptions(tables.TENSORFLOW).keys() <= tables.document(tables.TENSORFLOW)["models"].keys()


def _parameters_of(model_type: str) -> object:
    (variant, *_) = parameters.document("parameters")["models"][model_type]
    return parameters.class_parameters.__wrapped__(model_type, next(iter(variant["classes"])))


OTHERS: dict[str, tuple[Any, Callable[[str], object]]] = {
    "classes": (classes, lambda model_type: classes.known_type.__wrapped__(model_type)),
    "parameters": (parameters, _parameters_of),
    "configs": (settings, lambda model_type: settings._settings.__wrapped__(model_type)),
    "in_process": (in_process_rows, lambda model_type: in_process_rows.variants.__wrapped__(model_type)),
    "keras_attributes": (attributes, lambda model_type: attributes.layouts.__wrapped__()),
    "tensorflow_classes": (tensorflow_classes, lambda name: tensorflow_classes._entries.__wrapped__()),
}
"""Table -> the module that reads it, and what builds an entry."""


@pytest.mark.parametrize("table", sorted(OTHERS))
def test_a_key_that_no_table_has_is_an_error(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, build = OTHERS[table]
    whole = tables.document(table)
    key, entry = next(iter(whole["models"].items()))
    made = {**whole, "models": {key: entry}}
    monkeypatch.setattr(module, "document", lambda name: made)
    assert build(key)
    inner = entry[0] if isinstance(entry, list) else entry
    for place in (inner, inner.get("variants", [{}])[0]):
        monkeypatch.setitem(place, "prevales", [])
        with pytest.raises(ValueError, match=rf"{table}\.json, {key}: .*prevales"):
            build(key)
        monkeypatch.delitem(place, "prevales")
        if "variants" not in inner:
            break
