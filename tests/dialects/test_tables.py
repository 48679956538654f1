"""Every entry of every table is built, and a slip in one is an error that says where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from converter.dialects import tables

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
        "not_trained": [],
    }
    monkeypatch.setattr(tables, "document", lambda framework: {"models": {"toy": entry}})
    build = tables.tensorflow_table.__wrapped__
    assert build("toy").classes["BertModel"].layer == "tf_bert_model"
    slip(entry)
    with pytest.raises(ValueError, match=rf"tensorflow\.json, toy: .*{said}"):
        build("toy")
