"""Strings, which TensorFlow holds as bytes: UTF-8 in, UTF-8 out."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


def cast_text(x: Any, target: Any) -> Any:
    """Cast from or to strings: numbers as they are written."""
    if target == tf.string:
        return tf.strings.as_string(x)
    if target in (tf.float32, tf.float64, tf.int32, tf.int64):
        return tf.strings.to_number(x, target)
    return tf.cast(tf.strings.to_number(x, tf.float64), target)


@lowers("StringConcat", since=20)
def string_concat(x: Any, y: Any) -> Any:
    """Element by element."""
    return tf.strings.join([x, y])


@lowers("RegexFullMatch", since=20)
def regex_full_match(x: Any, *, pattern: str) -> Any:
    """RE2 in both."""
    return tf.strings.regex_full_match(x, pattern)


@lowers("StringNormalizer", since=10)
def string_normalizer(
    x: Any,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "en_US",
    stopwords: Any = (),
) -> Any:
    """Drop the stop words of a row, then change the case of what is left; an empty string when nothing is."""
    refuse(case_change_action not in ("NONE", "LOWER", "UPPER"), f"case change {case_change_action!r}")
    words = tf.reshape(x, [-1])
    if stopwords:
        compared, stops = words, [str(word) for word in stopwords]
        if not is_case_sensitive:
            compared, stops = tf.strings.lower(words, "utf-8"), [word.lower() for word in stops]
        is_kept = tf.reduce_all(tf.not_equal(compared[:, None], tf.constant(stops)[None, :]), axis=1)
        words = tf.boolean_mask(words, is_kept)
    words = tf.cond(tf.equal(tf.size(words), 0), lambda: tf.constant([""]), lambda: words)
    if case_change_action != "NONE":
        words = (tf.strings.lower if case_change_action == "LOWER" else tf.strings.upper)(words, "utf-8")
    return words if len(x.shape) == 1 else words[None]


@lowers("StringSplit", since=20)
def string_split(x: Any, *, delimiter: str | None = None, maxsplit: int | None = None) -> Any:
    """Parts along a new last axis, empty strings where there are fewer, and how many there are."""
    flat = tf.reshape(x, [-1])
    parts = tf.strings.split(flat, delimiter or None, -1 if maxsplit is None else maxsplit)
    counts = tf.reshape(tf.cast(parts.row_lengths(), tf.int64), tf.shape(x))
    table = parts.to_tensor("")
    return tf.reshape(table, tf.concat([tf.shape(x), tf.shape(table)[1:]], 0)), counts
