"""Strict JSON: what lenient parsers would read differently is refused."""

from __future__ import annotations

import pytest

from converter.encoding import json
from converter.errors import ReadError


def load(text: bytes) -> object:
    return json.loads(text, path="config.json", what="the config")


def test_values_are_read() -> None:
    text = '{"a": [1, -2.5e3, true, null, "é [[[\\"{{"], "b": {"c": "\\u00e9\\ud83d\\ude00"}}'
    expected = {"a": [1, -2500.0, True, None, 'é [[["{{'], "b": {"c": "é😀"}}
    assert load(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"x": {"b": 1, "b": 2}}', "'b' twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "beyond a double"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'"\xff"', "not UTF-8"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udc00x": 1}', "surrogate"),
        (b"[1] x", "not JSON"),
        (b"", "not JSON"),
        (b'["\t"]', "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
        (b"[}", "brackets"),
    ],
)
def test_refused(text: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message) as caught:
        load(text)
    assert str(caught.value).startswith("config.json: the config ")


def test_depth() -> None:
    assert load(b"[" * 50 + b"]" * 50) is not None
    for bomb in (b"[" * 200_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[{" * 9999):
        with pytest.raises(ReadError, match="nested"):
            load(bomb)


def test_brackets_inside_strings_do_not_count() -> None:
    assert load(b'"' + b"[{" * 10_000 + b'"') == "[{" * 10_000
    assert load(b'["\\"[", "\\\\"]') == ['"[', "\\"]


def test_unterminated_strings_take_linear_time() -> None:
    with pytest.raises(ReadError):
        load(b'"' + b'\\"' * 1_000_000)
