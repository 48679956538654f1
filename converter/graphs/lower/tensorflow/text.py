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
    shape = tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(y))
    return tf.strings.join([tf.broadcast_to(x, shape), tf.broadcast_to(y, shape)])


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
    if not delimiter:
        # Split at most so often at white space, TensorFlow adds an empty part at the end.
        parts = tf.ragged.boolean_mask(parts, tf.not_equal(parts, ""))
    counts = tf.reshape(tf.cast(parts.row_lengths(), tf.int64), tf.shape(x))
    table = parts.to_tensor("")
    return tf.reshape(table, tf.concat([tf.shape(x), tf.shape(table)[1:]], 0)), counts


@lowers("TfIdfVectorizer", since=9)
def tf_idf_vectorizer(
    x: Any,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Any,
    ngram_indexes: Any,
    pool_int64s: Any = None,
    pool_strings: Any = None,
    weights: Any = None,
) -> Any:
    """How often each n-gram of a pool comes in a row, its elements up to so many others apart."""
    refuse(mode not in ("TF", "IDF", "TFIDF"), f"TfIdfVectorizer mode {mode!r}")
    pool = list(pool_int64s if pool_strings is None else pool_strings)
    x = tf.convert_to_tensor(x)
    rows = tf.reshape(x, [1, -1]) if x.shape.rank == 1 else x
    rows = rows if pool_strings is not None else tf.cast(rows, tf.int64)
    total = tf.zeros([tf.shape(rows)[0], max(ngram_indexes) + 1], tf.float32)
    number = 0
    for length, first in enumerate(ngram_counts, start=1):
        last = [*ngram_counts, len(pool)][length]
        grams = [pool[at : at + length] for at in range(first, last, length)]
        slots, number = ngram_indexes[number : number + len(grams)], number + len(grams)
        if grams and min_gram_length <= length <= max_gram_length:
            found = _occurrences(rows, grams, length, max_skip_count)
            total += tf.matmul(found, tf.one_hot(list(slots), max(ngram_indexes) + 1))
    scale = 1.0 if weights is None or mode == "TF" else _by_slot(weights, ngram_indexes)
    counts = tf.cast(total > 0, tf.float32) if mode == "IDF" else total
    return tf.reshape(counts * scale, [-1]) if x.shape.rank == 1 else counts * scale


def _occurrences(rows: Any, grams: list[Any], length: int, max_skip_count: int) -> Any:
    """Return [rows, grams] counts. Elements of one n-gram lie evenly apart; alone, they have no distance."""
    wanted = tf.constant(grams, rows.dtype)
    count = tf.zeros([tf.shape(rows)[0], len(grams)], tf.float32)
    for distance in range(1, max_skip_count + 2 if length > 1 else 2):
        windows = tf.maximum(tf.shape(rows)[1] - distance * (length - 1), 0)
        places = tf.range(windows)[:, None] + tf.range(length)[None, :] * distance
        is_same = tf.equal(tf.gather(rows, places, axis=1)[:, :, None], wanted)
        count += tf.reduce_sum(tf.cast(tf.reduce_all(is_same, -1), tf.float32), 1)
    return count


def _by_slot(weights: Any, slots: Any) -> Any:
    import numpy as np

    placed = np.zeros(max(slots) + 1, np.float32)
    placed[list(slots)] = weights
    return placed


@lowers("ImageDecoder", since=20)
def image_decoder(stream: Any, *, pixel_format: str = "RGB") -> Any:
    """The bytes of a JPEG, PNG, BMP or GIF file, which TensorFlow tells apart; it decodes no others."""
    refuse(pixel_format not in ("RGB", "BGR", "Grayscale"), f"pixel format {pixel_format!r}")
    characters = tf.constant([bytes([value]) for value in range(256)])
    text = tf.strings.reduce_join(tf.gather(characters, tf.cast(stream, tf.int32)))
    pixels = tf.io.decode_image(text, channels=1 if pixel_format == "Grayscale" else 3, expand_animations=False)
    pixels.set_shape([None, None, 1 if pixel_format == "Grayscale" else 3])
    return tf.reverse(pixels, [-1]) if pixel_format == "BGR" else pixels
