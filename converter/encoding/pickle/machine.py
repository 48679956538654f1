"""A pickle machine that builds plain data and calls nothing (opcodes: Lib/pickletools.py, protocols 0 to 5).

Names become descriptors; only constructors that the caller hands in are applied, pure functions on plain values.
Any other call becomes a `Placeholder` that keeps what it was given, so that tensors inside it can be found, or is
refused (`converter.encoding.pickle.calls`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from converter.encoding.pickle.calls import check, check_state, is_member
from converter.encoding.pickle.globals import Global, resolve
from converter.encoding.pickle.values import Bytes, Constructed, FileBytes, OrderedItems, Placeholder
from converter.errors import CkconvError, ReadError, SafetyError

_FREE_OPERATIONS, _STORED_BYTES_PER_OPERATION, _OPERATION_LIMIT = 3 << 20, 1 << 9, 1 << 23
_CONTAINER_LIMIT = 1 << 20
_PLACEHOLDER_LIMIT = 1 << 20
_NAME_LIMIT = 1 << 14
_CONSTRUCTED_LIMIT_BYTES = 512 << 20
_STRING_LIMIT_BYTES = 256 << 20
_LEFT_BYTES = 256
_LINE_FIRST_BYTES = 64
_LINE_LIMIT_BYTES = 1 << 20
_INTEGER_LIMIT_BYTES = 256
_WINDOW_BYTES = 1 << 18
_KEY_DEPTH_LIMIT = 4
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
"""Without zeros before it: C's unpickler takes 010 for 8, that in Python refuses it."""


class MemoryBytes:
    """Bytes in memory, read by position."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`."""
        return self._data[offset : offset + length]


Constructor = Callable[[tuple[Any, ...]], Any]
"""Makes a value from the arguments that a pickle gives; raises ReadError when they are not the right ones."""


class _Mark:
    __slots__ = ()


_MARK = _Mark()
_WITH_PARTS = (dict, list, Placeholder)


class Machine:
    """Reads one pickle of `source`, starting at `offset`; `end` is where it stopped, after `operations`.

    `constructors` maps (module, name) to a pure function; `persistent` turns a persistent id into a value.
    `stored_bytes` is the size of the file that the pickle describes: one that stores much may take longer to read.
    Long bytes, as a pickle of arrays has them, are not read but are `FileBytes` of `file`, where that is given.
    `may_loop` says afterwards whether a container comes twice, without which none is inside itself.
    """

    def __init__(
        self,
        source: Bytes,
        *,
        offset: int = 0,
        path: object,
        constructors: Mapping[tuple[str, str], Constructor],
        persistent: Callable[[Any], Any] | None = None,
        window_bytes: int = _WINDOW_BYTES,
        stored_bytes: int = 0,
        file: Bytes | None = None,
    ) -> None:
        self._limit = min(_OPERATION_LIMIT, _FREE_OPERATIONS + stored_bytes // _STORED_BYTES_PER_OPERATION)
        self.path = path
        self.end = offset
        self.operations = 0
        self.may_loop = False
        self._window_bytes = window_bytes
        self._source = source
        self._window, self._position = b"", 0
        self._window_end = offset
        self._frame_end = 0
        self._file = file
        self._constructors = constructors
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._names: dict[tuple[str, str], Global] = {}
        self._containers = self._placeholders = 0
        self._constructed_bytes = 0

    def load(self) -> Any:
        """Return the value. Raises ReadError for what is malformed, SafetyError for what would run code."""
        try:
            return self._load()
        except CkconvError as error:
            error.path = error.path or str(self.path)
            raise

    def _load(self) -> Any:
        for self.operations in range(self._limit):  # noqa: B020 (the range is made once, of another attribute)
            position = self._position
            if position == len(self._window):
                self._fill(1)
                position = 0
            self._position = position + 1
            opcode = self._window[position]
            action = _ACTIONS_BY_CODE[opcode]
            if action is not None:
                action(self)
            elif opcode == _STOP:
                value = self._pop()
                self.end = self._offset
                if self._stack:
                    self._refuse("leaves values behind")
                return value
            else:
                self._refuse_opcode(bytes((opcode,)))
        raise self._problem(f"has more than {self._limit} operations")

    # bytes

    @property
    def _offset(self) -> int:
        return self._window_end - len(self._window) + self._position

    def _take(self, length: int) -> bytes:
        start = self._position
        if start + length > len(self._window):
            self._fill(length)
            start = 0
        self._position = start + length
        return self._window[start : start + length]

    def _fill(self, length: int) -> None:
        offset = self._offset
        if offset + length > self._source.size:
            self._refuse("is cut short")
        wanted = min(max(length, self._window_bytes), self._source.size - offset)
        self._window, self._position = self._source.read(offset, wanted), 0
        self._window_end = offset + wanted

    def _string(self, length: int) -> bytes:
        if length > _STRING_LIMIT_BYTES:
            self._refuse(f"declares a string of {length} bytes")
        return self._take(length)

    def _bytes(self, length: int) -> bytes | FileBytes:
        if self._file is None or length < _LEFT_BYTES:
            return self._string(length)
        offset = self._offset
        if offset + length > self._source.size:
            self._refuse("is cut short")
        if self._position + length <= len(self._window):
            self._position += length
        else:
            self._window, self._position, self._window_end = b"", 0, offset + length
        return FileBytes(self._file, offset, length)

    def _line(self) -> bytes:
        end = self._window.find(b"\n", self._position)
        wanted = _LINE_FIRST_BYTES
        while end < 0:
            available = min(_LINE_LIMIT_BYTES, self._source.size - self._offset)
            self._fill(min(wanted, available))
            end = self._window.find(b"\n")
            if end < 0 and wanted >= available:
                self._refuse("has a line without an end")
            wanted *= 8
        return self._take(end + 1 - self._position)[:-1]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    # stack

    def _problem(self, problem: str) -> ReadError:
        return ReadError(f"the pickle {problem} (at byte {self._offset})", path=self.path)

    def _refuse(self, problem: str) -> NoReturn:
        raise self._problem(problem)

    def _refuse_opcode(self, opcode: bytes) -> NoReturn:
        if opcode in _REFUSED:
            raise SafetyError(
                f"the pickle uses the opcode {_REFUSED[opcode]}, which can run code (at byte {self._offset})",
                path=self.path,
            )
        self._refuse(f"has the unknown opcode {opcode!r}")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("takes from an empty stack")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for position in range(len(stack) - 1, -1, -1):
            if stack[position] is _MARK:
                values = stack[position + 1 :]
                del stack[position:]
                return values
        raise self._problem("lacks a mark")

    def _get(self, index: int) -> None:
        if index not in self._memo:
            self._refuse(f"recalls {index}, which it has not stored")
        self._recall(self._memo[index])

    def _recall(self, value: Any) -> None:
        if not self.may_loop and isinstance(value, _WITH_PARTS):
            self.may_loop = True
        self._push(value)

    def _put(self, index: int) -> None:
        if index < 0:
            self._refuse(f"stores under {index}")
        self._memo[index] = self._top()

    # text

    def _integer(self, digits: bytes) -> int:
        if len(digits) > _INTEGER_LIMIT_BYTES or not _INTEGER.fullmatch(digits):
            self._refuse("has an integer that is none")
        return int(digits)

    def _text(self, data: bytes) -> str:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self._refuse("has text that is not UTF-8")

    def _bytes_or_text(self, data: bytes) -> str | bytes:
        """Python 2's str: text where it can be."""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data

    # operations

    def proto(self) -> None:
        """PROTO."""
        if self.operations:
            self._refuse("names its protocol in the middle")
        if self._take(1)[0] > 5:
            self._refuse("is of a protocol beyond 5")

    def frame(self) -> None:
        """FRAME: nothing to do but to see that it fits."""
        length = self._number(_U64)
        if self._offset < self._frame_end or self._offset + length > self._source.size:
            self._refuse(f"has a frame of {length} bytes, which does not fit")
        self._frame_end = self._offset + length

    def pop(self) -> None:
        """POP, which may also take a mark away."""
        if not self._stack:
            self._refuse("takes from an empty stack")
        self._stack.pop()

    def pop_mark(self) -> None:
        """POP_MARK."""
        self._pop_to_mark()

    def int_line(self) -> None:
        """INT, also the booleans of protocols 0 and 1."""
        line = self._line()
        self._push(line == b"01" if line in (b"00", b"01") else self._integer(line))

    def float_line(self) -> None:
        """FLOAT."""
        line = self._line()
        try:
            self._push(float(line))
        except ValueError:
            self._refuse("has a number that is none")

    def string_line(self) -> None:
        """STRING: a quoted line of protocol 0."""
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            self._refuse("has a string without quotes")
        try:
            self._push(self._bytes_or_text(line[1:-1].decode("unicode_escape").encode("latin-1")))
        except UnicodeError:
            self._refuse("has a string with broken escapes")

    def unicode_line(self) -> None:
        """UNICODE: a line of protocol 0 with escapes."""
        try:
            self._push(self._line().decode("raw_unicode_escape"))
        except UnicodeDecodeError:
            self._refuse("has text with broken escapes")

    def short_long(self) -> None:
        """LONG1."""
        self._stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def long(self, length: int) -> None:
        """LONG4."""
        if not 0 <= length <= _INTEGER_LIMIT_BYTES:
            self._refuse(f"has an integer of {length} bytes")
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def named(self, module: Any, name: Any) -> None:
        """GLOBAL, STACK_GLOBAL."""
        if not (isinstance(module, str) and isinstance(name, str)):
            self._refuse("names something with what is no text")
        found = self._names.get((module, name))
        if found is None:
            if len(self._names) == _NAME_LIMIT:
                self._refuse(f"names more than {_NAME_LIMIT} classes and functions")
            found = self._names[module, name] = resolve(module, name)
        self._push(found)

    def reduce(self) -> None:
        """REDUCE."""
        arguments, callee = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            self._refuse("calls with arguments that are no tuple")
        self._push(self._construct(callee, arguments, {}))

    def new_object(self) -> None:
        """NEWOBJ."""
        self._check_new(self._stack[-2:])
        self.reduce()

    def new_object_with_keywords(self) -> None:
        """NEWOBJ_EX."""
        keywords, arguments, callee = self._pop(), self._pop(), self._pop()
        if not (isinstance(arguments, tuple) and isinstance(keywords, dict)):
            self._refuse("makes an object from what are no arguments")
        self._check_new([callee, arguments])
        self._push(self._construct(callee, arguments, keywords))

    def _check_new(self, call: list[Any]) -> None:
        """Refuse a container that is made with values and not initialised: in Python it has none of them."""
        if call[0:1] and isinstance(call[0], Global) and call[-1] and (call[0].module, call[0].name) in _EMPTY_WHEN_NEW:
            self._refuse(f"makes a {call[0]} of values that it would not have")

    def instance(self) -> None:
        """OBJ: the class is the first above the mark."""
        values = self._pop_to_mark()
        if not values:
            self._refuse("makes an object of no class")
        self._push(self._construct(values[0], tuple(values[1:]), {}))

    def named_instance(self) -> None:
        """INST: the class is named in two lines."""
        module, name = self._text(self._line()), self._text(self._line())
        arguments = tuple(self._pop_to_mark())
        self.named(module, name)
        self._push(self._construct(self._pop(), arguments, {}))

    def _construct(self, callee: Any, arguments: tuple[Any, ...], keywords: dict[Any, Any]) -> Any:
        named = callee if isinstance(callee, Global) else None
        constructor = None if named is None else self._constructors.get((named.module, named.name))
        check(callee, arguments, keywords.values(), is_known=constructor is not None)
        if named is None:
            return self._placeholder(callee.of, (callee, *arguments), keywords)
        if constructor is not None:
            if keywords:
                self._refuse(f"makes {callee} with keywords")
            return self._charged(constructor(arguments))
        if is_member(callee, arguments):
            owner, name = arguments
            return self._placeholder(owner, (name,), {})
        return self._placeholder(callee, arguments, keywords)

    def _placeholder(self, of: Global, arguments: tuple[Any, ...], keywords: dict[Any, Any]) -> Placeholder:
        self._placeholders += 1
        if self._placeholders > _PLACEHOLDER_LIMIT:
            self._refuse(f"has more than {_PLACEHOLDER_LIMIT} objects of classes that are not known")
        return Placeholder(of, arguments, keywords)

    def _charged(self, value: Any) -> Any:
        """Constructors copy: the same long list, copied a million times over, must not fill the memory."""
        if isinstance(value, str | bytes | dict | list | tuple | set | frozenset):
            self._constructed_bytes += len(value) * (1 if isinstance(value, str | bytes) else 64)
            if self._constructed_bytes > _CONSTRUCTED_LIMIT_BYTES:
                self._refuse(f"constructs more than {_CONSTRUCTED_LIMIT_BYTES} bytes")
        return value

    def container(self, value: Any) -> None:
        """EMPTY_LIST, EMPTY_DICT, EMPTY_SET, LIST, DICT."""
        self._containers += 1
        if self._containers > _CONTAINER_LIMIT:
            self._refuse(f"has more than {_CONTAINER_LIMIT} lists and dicts")
        self._push(value)

    def build(self) -> None:
        """BUILD: state for the value below; __setstate__ is never called."""
        state, target = self._pop(), self._top()
        match target:
            case Constructed():
                check_state(state)
                target.build(state)
            case OrderedItems():
                target.attributes = state
            case _:
                self._refuse("gives state to what takes none")

    def append(self, values: list[Any]) -> None:
        """APPEND, APPENDS."""
        match self._top():
            case list() as target:
                target.extend(values)
            case Placeholder() as target:
                target.extend(values)
            case _:
                self._refuse("appends to what is no list")

    def set_items(self, values: list[Any]) -> None:
        """SETITEM, SETITEMS. A key that comes twice is refused: readers differ on which one counts."""
        target = self._top()
        items = target.settable() if isinstance(target, Placeholder) else target
        if not isinstance(items, dict):
            self._refuse("sets items of what is no dict")
        if len(values) % 2:
            self._refuse("has a key without a value")
        for position in range(0, len(values), 2):
            key = self._key(values[position])
            if key in items:
                self._refuse(f"has the key {key!r} twice")
            items[key] = values[position + 1]

    def add_items(self) -> None:
        """ADDITEMS."""
        values, target = [self._key(value) for value in self._pop_to_mark()], self._top()
        if not isinstance(target, set):
            self._refuse("adds to what is no set")
        target.update(values)

    def _key(self, value: Any) -> Any:
        return value if is_key(value) else self._refuse("has a key that cannot be one")

    def make_dict(self) -> None:
        """DICT."""
        values = self._pop_to_mark()
        self.container({})
        self.set_items(values)

    def make_tuple(self, count: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3."""
        values = tuple(self._stack[-count:])
        if len(values) < count or any(value is _MARK for value in values):
            self._refuse("takes from an empty stack")
        self._stack[-count:] = [values]

    def persist(self, identity: Any) -> None:
        """PERSID, BINPERSID."""
        if self._persistent is None:
            self._refuse("has a persistent id where none can be")
        self._push(self._persistent(identity))


def is_key(value: Any, depth: int = 0) -> bool:
    """Whether a value can be a key of a dict: hashing it ends, and does not recurse deeply."""
    if isinstance(value, tuple):
        return depth < _KEY_DEPTH_LIMIT and len(value) < 64 and all(is_key(part, depth + 1) for part in value)
    if isinstance(value, int):
        return value.bit_length() <= 64  # beyond, any number of keys can be made to share one hash
    return not isinstance(value, frozenset) and type(value).__hash__ is not None


_U16, _U32, _U64 = (struct.Struct(form) for form in ("<H", "<I", "<Q"))
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")

_REFUSED = {
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}

_ACTIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine.proto,
    b"\x95": Machine.frame,
    b"(": lambda machine: machine._push(_MARK),
    b"0": Machine.pop,
    b"1": Machine.pop_mark,
    b"2": lambda machine: machine._recall(machine._top()),
    # numbers
    b"I": Machine.int_line,
    b"J": lambda machine: machine._push(machine._number(_I32)),
    b"K": lambda machine: machine._stack.append(machine._byte()),
    b"M": lambda machine: machine._push(machine._number(_U16)),
    b"L": lambda machine: machine._push(machine._integer(machine._line().removesuffix(b"L"))),
    b"\x8a": Machine.short_long,
    b"\x8b": lambda machine: machine.long(machine._number(_I32)),
    b"F": Machine.float_line,
    b"G": lambda machine: machine._push(machine._number(_F64)),
    b"N": lambda machine: machine._stack.append(None),
    b"\x88": lambda machine: machine._push(True),
    b"\x89": lambda machine: machine._push(False),
    # text and bytes
    b"S": Machine.string_line,
    b"T": lambda machine: machine._push(machine._bytes_or_text(machine._string(machine._number(_U32)))),
    b"U": lambda machine: machine._push(machine._bytes_or_text(machine._string(machine._byte()))),
    b"V": Machine.unicode_line,
    b"X": lambda machine: machine._push(machine._text(machine._string(machine._number(_U32)))),
    b"\x8c": lambda machine: machine._push(machine._text(machine._string(machine._byte()))),
    b"\x8d": lambda machine: machine._push(machine._text(machine._string(machine._number(_U64)))),
    b"B": lambda machine: machine._push(machine._bytes(machine._number(_U32))),
    b"C": lambda machine: machine._push(machine._string(machine._byte())),
    b"\x8e": lambda machine: machine._push(machine._bytes(machine._number(_U64))),
    b"\x96": lambda machine: machine._push(machine._bytes(machine._number(_U64))),
    # containers
    b"]": lambda machine: machine.container([]),
    b"l": lambda machine: machine.container(machine._pop_to_mark()),
    b"a": lambda machine: machine.append([machine._pop()]),
    b"e": lambda machine: machine.append(machine._pop_to_mark()),
    b")": lambda machine: machine._push(()),
    b"t": lambda machine: machine._push(tuple(machine._pop_to_mark())),
    b"\x85": lambda machine: machine.make_tuple(1),
    b"\x86": lambda machine: machine.make_tuple(2),
    b"\x87": lambda machine: machine.make_tuple(3),
    b"}": lambda machine: machine.container({}),
    b"d": Machine.make_dict,
    b"s": lambda machine: machine.set_items([machine._pop(), machine._pop()][::-1]),
    b"u": lambda machine: machine.set_items(machine._pop_to_mark()),
    b"\x8f": lambda machine: machine.container(set()),
    b"\x90": Machine.add_items,
    b"\x91": lambda machine: machine._push(frozenset(map(machine._key, machine._pop_to_mark()))),
    # memo
    b"g": lambda machine: machine._get(machine._integer(machine._line())),
    b"h": lambda machine: machine._get(machine._byte()),
    b"j": lambda machine: machine._get(machine._number(_U32)),
    b"p": lambda machine: machine._put(machine._integer(machine._line())),
    b"q": lambda machine: machine._put(machine._byte()),
    b"r": lambda machine: machine._put(machine._number(_U32)),
    b"\x94": lambda machine: machine._put(len(machine._memo)),
    # names and objects
    b"c": lambda machine: machine.named(machine._text(machine._line()), machine._text(machine._line())),
    b"\x93": lambda machine: machine.named(*[machine._pop(), machine._pop()][::-1]),
    b"R": Machine.reduce,
    b"\x81": Machine.new_object,
    b"\x92": Machine.new_object_with_keywords,
    b"i": Machine.named_instance,
    b"o": Machine.instance,
    b"b": Machine.build,
    b"P": lambda machine: machine.persist(machine._text(machine._line())),
    b"Q": lambda machine: machine.persist(machine._pop()),
}
_STOP = ord(".")
_EMPTY_WHEN_NEW = frozenset(
    (
        *(("builtins", name) for name in ("bytearray", "dict", "list", "set")),
        *(("collections", name) for name in ("Counter", "OrderedDict", "defaultdict", "deque")),
    )
)
_ACTIONS_BY_CODE = tuple(_ACTIONS.get(bytes((code,))) for code in range(256))
