from __future__ import annotations

import pytest

from converter.encoding import protobuf
from converter.encoding.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, Message
from converter.errors import ReadError

descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
wrappers_pb2 = pytest.importorskip("google.protobuf.wrappers_pb2")

KNOWN = {1: VARINT, 2: LENGTH_DELIMITED}


def as_list(data: bytes) -> list[tuple[int, int, object]]:
    return [(n, t, bytes(v) if isinstance(v, memoryview) else v) for n, t, v in protobuf.fields(data)]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**31), -(2**63)])
def test_int64_as_the_official_library_has_it(value: int) -> None:
    official = wrappers_pb2.Int64Value(value=value).SerializeToString()
    assert protobuf.number_field(1, value) == official
    assert Message.parse(official, KNOWN).signed(1) == value


def test_reads_what_the_official_library_writes() -> None:
    written = descriptor_pb2.FileDescriptorProto(
        name="a/é.proto", dependency=["x", "", "yy"], public_dependency=[7, 300]
    ).SerializeToString()
    assert as_list(written) == [
        (1, LENGTH_DELIMITED, "a/é.proto".encode()),
        (3, LENGTH_DELIMITED, b"x"),
        (3, LENGTH_DELIMITED, b""),
        (3, LENGTH_DELIMITED, b"yy"),
        (10, VARINT, 7),
        (10, VARINT, 300),
    ]
    assert as_list(wrappers_pb2.FloatValue(value=1.0).SerializeToString()) == [(1, FIXED32, 0x3F800000)]
    assert as_list(wrappers_pb2.DoubleValue(value=1.0).SerializeToString()) == [(1, FIXED64, 0x3FF0000000000000)]


def test_the_official_library_reads_what_is_written() -> None:
    data = protobuf.content_field(1, "a/é.proto") + protobuf.content_fields(3, ["x", "", b"yy"])
    message = descriptor_pb2.FileDescriptorProto.FromString(data)
    assert (message.name, list(message.dependency)) == ("a/é.proto", ["x", "", "yy"])
    assert wrappers_pb2.FloatValue.FromString(protobuf.fixed32_field(1, 0x3F800000)).value == 1.0


GOOD = protobuf.number_field(1, 300) + protobuf.content_field(2, b"abc")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (GOOD[:-1], "past its end"),
        (GOOD[:2], "inside a number"),
        (protobuf.tag(2, LENGTH_DELIMITED) + protobuf.varint(2**63), "past its end"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "more than 64 bits"),
        (protobuf.tag(3, FIXED32) + b"abc", "past its end"),
        (protobuf.tag(3, FIXED64) + b"abcdefg", "past its end"),
        (protobuf.tag(3, 3), "wire type 3"),
        (protobuf.tag(3, 4), "wire type 4"),
        (protobuf.tag(3, 6), "wire type 6"),
        (protobuf.tag(0, VARINT) + b"\0", "field number 0"),
        (protobuf.tag(1 << 29, VARINT) + b"\0", "field number 536870912"),
    ],
)
def test_malformed_messages_are_refused(data: bytes, what: str) -> None:
    assert as_list(GOOD) == [(1, VARINT, 300), (2, LENGTH_DELIMITED, b"abc")]
    with pytest.raises(ReadError, match=what):
        as_list(data)


def test_known_fields_are_sorted_and_others_passed_over() -> None:
    message = Message.parse(GOOD + protobuf.fixed32_field(9, 5), KNOWN)
    assert (message.unsigned(1), message.text(2), message.has(9)) == (300, "abc", False)
    empty = Message.parse(b"", KNOWN)
    assert (empty.unsigned(1), bytes(empty.content(2)), empty.repeated(2), empty.has(1)) == (0, b"", [], False)


def test_what_two_parsers_could_read_differently_is_refused() -> None:
    assert Message.parse(GOOD, KNOWN).unsigned(1) == 300
    twice = Message.parse(GOOD + GOOD, KNOWN)
    with pytest.raises(ReadError, match="2 times"):
        twice.unsigned(1)
    with pytest.raises(ReadError, match="2 times"):
        twice.content(2)
    with pytest.raises(ReadError, match="wire type"):
        Message.parse(protobuf.content_field(1, b"x"), KNOWN)
    with pytest.raises(ReadError, match="not UTF-8"):
        Message.parse(protobuf.content_field(2, b"\xff"), KNOWN).text(2)
