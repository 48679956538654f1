"""SavedModels with tables of text, or that take text, are refused in one line; their weights convert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.errors import GraphError, LossError
from tests.conftest import Ckconv

tf = pytest.importorskip("tensorflow")


def filled(keys: Any) -> Any:
    values = tf.range(len(keys), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), values), -1)


def mutable() -> Any:
    """A table whose values are words, which stay inside the graph: their lengths are returned."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")
    table.insert(tf.constant([3, 5], tf.int64), tf.constant(["a", "bc"]))
    return table


def text_inside() -> Any:
    """Text that stays inside the graph: numbers become words, and these are looked up."""
    return filled(["3", "5"])


def saved(folder: Path, table: Any, dtype: Any, keys: Callable[[Any], Any] = lambda given: given) -> Path:
    root = tf.Module()
    root.w, root.table = tf.Variable([1.0, 2.0], name="w"), table

    @tf.function(input_signature=[tf.TensorSpec([None], dtype, name="key")])  # type: ignore[untyped-decorator]
    def look_up(key: Any) -> dict[str, Any]:
        found = root.table.lookup(keys(key))
        number = tf.strings.length(found) if found.dtype == tf.string else found
        return {"y": tf.cast(number, tf.float32)[:, None] * root.w}

    tf.saved_model.save(root, str(folder), signatures={"serving_default": look_up})
    return folder


CASES: dict[str, tuple[Callable[[], Any], Any, Callable[[Any], Any], str]] = {
    "to text": (mutable, tf.int64, lambda key: key, "looks values up in a table of text"),
    "text inside": (text_inside, tf.int32, tf.strings.as_string, "looks values up in a table of text"),
    "text": (lambda: filled(["a", "b"]), tf.string, lambda key: key, "table|is text"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_table_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    table, dtype, keys, match = CASES[kind]
    model = saved(tmp_path / "model", table(), dtype, keys)
    with pytest.raises(GraphError, match=match) as caught:
        converter.convert(model, tmp_path / "out.onnx")
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    assert "--weights-only" in str(caught.value)
    if kind == "to text":  # keys and values are in the bundle, too
        with pytest.raises(LossError, match="table-values: text, not numbers"):
            converter.convert(model, tmp_path / "w.safetensors")
    report = converter.convert(model, tmp_path / "w.safetensors", allow_dropped=("*table-values",))
    assert report.counts["mapped"] == (2 if kind == "to text" else 1)


def test_text_alone_is_refused(tmp_path: Path, ckconv: Ckconv) -> None:
    root = tf.Module()
    root.w = tf.Variable([1.0, 2.0], name="w")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="said")])  # type: ignore[untyped-decorator]
    def length(said: Any) -> dict[str, Any]:
        return {"y": tf.cast(tf.strings.length(said), tf.float32)[:, None] * root.w}

    tf.saved_model.save(root, str(tmp_path / "model"), signatures={"serving_default": length})
    refused = ckconv(tmp_path / "model", tmp_path / "out", "--to", "savedmodel")
    assert refused.returncode == 7
    assert "tensor said: is text, which no converted graph takes or returns" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
