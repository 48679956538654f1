"""The pickle machine: what pickle.dumps writes is read as plain data, and what would run code is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import struct
import sys
import types
from typing import Any

import pytest

from converter.encoding.pickle import PLAIN, Global, Machine, MemoryBytes, OrderedItems, Placeholder, looks_like_pickle
from converter.encoding.pickle.writer import Call, Ordered, Persistent, dumps
from converter.errors import CkconvError, ReadError, SafetyError


def load(data: bytes, **options: Any) -> Any:
    return Machine(MemoryBytes(data), path="x.pth", constructors=PLAIN, **options).load()


class AttributeDict(dict[str, Any]):
    """A dict subclass that the machine has never heard of."""


class Record:
    """A class whose __setstate__ must not run."""

    def __init__(self) -> None:
        self.value = [1, 2]

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("was run")


SHARED = [1, 2]
PLAIN_VALUES = [
    None,
    True,
    0,
    -1,
    255,
    256,
    65536,
    -(1 << 31),
    1 << 31,
    1 << 100,
    -(1 << 100),
    1.5,
    -0.0,
    float("inf"),
    "",
    "é😀" * 100,
    "with 'quotes' and \\n\n",
    b"",
    b"\x00\xff" * 200,
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    tuple(range(10)),
    [],
    [1, "a", None],
    list(range(3000)),
    {},
    {"a": 1, 2: "b", (1, "x"): None, 2.5: 0, None: 1, b"k": 1},
    {1, 2},
    frozenset({"a"}),
    3 + 4j,
    [SHARED, SHARED],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", PLAIN_VALUES, ids=[repr(value)[:20] for value in PLAIN_VALUES])
def test_plain_values(value: Any, protocol: int) -> None:
    read = load(pickle.dumps(value, protocol))
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_the_standard_library(protocol: int) -> None:
    ordered = collections.OrderedDict([("b", 1), ("a", 2)])
    ordered._metadata = {"version": 1}  # type: ignore[attr-defined]
    read = load(pickle.dumps(ordered, protocol))
    assert isinstance(read, OrderedItems)
    assert list(read.items()) == [("b", 1), ("a", 2)]
    assert read.attributes == {"_metadata": {"version": 1}}
    assert load(pickle.dumps(collections.Counter("aab"), protocol)) == {"a": 2, "b": 1}
    assert load(pickle.dumps(collections.defaultdict(list, {"a": [1]}), protocol)) == {"a": [1]}
    assert load(pickle.dumps(collections.deque([1, 2], maxlen=5), protocol)) == [1, 2]
    assert load(pickle.dumps(bytearray(b"ab"), protocol)) == b"ab"
    assert load(pickle.dumps(pathlib.PurePosixPath("/a/b"), protocol)) == "/a/b"


@pytest.mark.parametrize("protocol", range(6))
def test_unknown_classes_become_placeholders(protocol: int) -> None:
    record = load(pickle.dumps(Record(), protocol))
    assert isinstance(record, Placeholder)
    assert record.of.name == "Record"
    assert record.state == {"value": [1, 2]}
    attributes = load(pickle.dumps(AttributeDict(a=[1]), protocol))
    assert isinstance(attributes, Placeholder)
    assert attributes.items == {"a": [1]}


def test_inert_classes_become_placeholders() -> None:
    for value in (argparse.Namespace(a=1), types.SimpleNamespace(a=1)):
        read = load(pickle.dumps(value))
        assert isinstance(read, Placeholder)
        assert read.state == {"a": 1}
    assert isinstance(load(pickle.dumps(datetime.datetime(2020, 1, 1))), Placeholder)
    assert load(b"ctorch.nn.functional\nrelu\n.") == Global(module="torch.nn.functional", name="relu")


def test_instances_of_python_2() -> None:
    for data in (b"(I1\nI2\niyours\nThing\n.", b"(cyours\nThing\nI1\nI2\no."):
        made = load(data)
        assert (made.of, made.arguments) == (Global(module="yours", name="Thing"), (1, 2))


def test_text_of_python_2() -> None:
    assert load(b"\x80\x02U\x03abc.") == "abc"
    assert load(b"\x80\x02U\x02\xff\x00.") == b"\xff\x00"
    assert load(b"S'a\\x41\\n'\n.") == "aA\n"
    assert load(b"c__builtin__\nset\n((lp0\nI1\natR.") == {1}


def test_recursive_values() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    read = load(pickle.dumps(cycle))
    assert read[0] is read


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


DANGEROUS = [
    os.system,
    eval,
    exec,
    __import__,
    open,
    pickle.loads,
    sys.exit,
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", DANGEROUS)
def test_the_standard_library_is_refused(function: Any, protocol: int) -> None:
    assert load(pickle.dumps([1], protocol)) == [1]
    with pytest.raises(SafetyError, match="can run code"):
        load(pickle.dumps(Calls(function, "x"), protocol))


def test_members_of_enumerations_as_python_3_11_2_pickles_them() -> None:
    getattr_, owner = b"cbuiltins\ngetattr\n", b"cyours.package\n_Format\n"
    (first, second) = load(
        b"(" + getattr_ + b"q\x00" + owner + b"X\x05\x00\x00\x00STEPS\x86Rh\x00" + owner + b"S'NO_1'\n\x86Rl."
    )
    assert (first.of, first.arguments) == (Global(module="yours.package", name="_Format"), ("STEPS",))
    assert second.arguments == ("NO_1",)


def attribute(owner: bytes, name: str) -> bytes:
    return b"cbuiltins\ngetattr\n" + owner + f"S'{name}'\n".encode() + b"\x86R"


def partial(function: bytes) -> bytes:
    return b"cfunctools\npartial\n" + function + b"\x85R"


@pytest.mark.parametrize(
    "value",
    [
        b"cbuiltins\ngetattr\n",
        attribute(b"ctorch._C\n_VariableFunctions\n", "relu"),
        attribute(b"cyours\nmake\n", "part"),
        attribute(b"cyours\nFormat\n)R", "method"),
        attribute(attribute(b"ccollections\nOrderedDict\n", "a"), "b"),
        partial(b"cyours\nactivation\n"),
        partial(partial(b"ccollections\nOrderedDict\n")),
        b"coperator\nattrgetter\nS'a.b'\n\x85R",
        b"coperator\nmethodcaller\nS'system'\nS'true'\n\x86R",
        b"coperator\ngetitem\nctyping\nOptional\n)\x86R",
        b"cbuiltins\ntype\nN\x85R",
        partial(b"cyours\nThing\n") + b")R",
        attribute(b"cconfigparser\nConfigParser\n)R", "has_section") + b")R",
    ],
)
def test_what_nobody_calls_runs_nothing(value: bytes) -> None:
    assert isinstance(load(b"\x80\x02" + value + b"."), Placeholder | Global)


SYSTEM = b"cposix\nsystem\n"


@pytest.mark.parametrize(
    "value",
    [
        attribute(b"cposix\nsystem\n", "__call__"),
        attribute(b"cyours\nmodule\n", "method") + b")R",
        attribute(attribute(b"cyours\nThing\n", "os"), "system") + b")R",
        attribute(b"cyours\nmake\n)R", "method") + b")R",
        attribute(b"cbuiltins\n__import__\nS'os'\n\x85R", "system"),
        b"cimportlib\nimport_module\nS'os'\n\x85R",
        partial(SYSTEM),
        partial(partial(SYSTEM)),
        partial(attribute(SYSTEM, "__call__")),
        b"coperator\nattrgetter\nS'system'\n\x85R)R",
        b"coperator\nmethodcaller\nS'system'\n\x85R)R",
        b"cyours\nThing\n)R)R",
        b"cyours\nthing\n)R)R",
        b"cfunctools\nreduce\n" + SYSTEM + b"]\x86R",
        b"cbuiltins\nmap\n" + SYSTEM + b"]\x86R",
        b"cyours\nThing\n" + SYSTEM + b"\x85\x85R",
        b"cyours\nThing\n)}S'key'\n" + SYSTEM + b"s\x92",
        b"ccollections\ndefaultdict\n" + SYSTEM + b"\x85R",
        b"cyours\nThing\n)R}S'__setstate__'\n" + SYSTEM + b"sb",
        b"cyours\nThing\n)RN}S'extend'\n" + SYSTEM + b"s\x86b",
        b"ccopy_reg\n_reconstructor\ncsubprocess\nPopen\nc__builtin__\nobject\nN\x87R",
        b"cbuiltins\ntype\nS'A'\n)}\x87R",
        b"ctypes\nsys.exit\n)R",
        b"cconfigparser\nos.path.join\n)R",
        attribute(b"cconfigparser\nConfigParser\n)R", "read") + b")R",
    ],
)
@pytest.mark.parametrize("is_called", [False, True])
def test_a_call_is_judged_by_what_it_would_call(value: bytes, is_called: bool) -> None:
    with pytest.raises(SafetyError):
        load(b"\x80\x02" + value + (b")R." if is_called else b"."))


@pytest.mark.parametrize(
    "name",
    [
        *("__builtin__ eval", "commands getoutput", "imp load_source", "distutils.spawn spawn", "nt system"),
        *("lib2to3.pgen2.grammar Grammar", "posix system", "subprocess Popen", "runpy _run_code", "pty spawn"),
        *("torch.hub load", "torch.storage _load_from_bytes", "torch.jit._script unpackage_script_module"),
        *("numpy.testing._private.utils runstring", "numpy.f2py.crackfortran getlincoef", "torch load"),
        *(
            "cloudpickle.cloudpickle loads",
            "dill._dill loads",
            "pip main",
            "numpy load",
            "torch.package PackageImporter",
        ),
        *("_io FileIO", "ctypes CDLL", "code InteractiveInterpreter", "logging.config listen"),
        *(
            "builtins compile",
            "copyreg add_extension",
            "types CodeType",
            "os.path join",
            "asyncio run",
        ),
    ],
)
def test_names_that_are_refused_when_called(name: str) -> None:
    """And are names like others where nobody calls them."""
    module, _, function = name.partition(" ")
    stack_global = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, function)) + b"\x93"
    for named in (f"c{module}\n{function}\n".encode(), b"\x80\x04" + stack_global):
        assert isinstance(load(named + b"."), Global)
        for call in (b")R.", b")\x81.", b")}\x92."):
            with pytest.raises(SafetyError, match="can run code"):
                load(named + call)


@pytest.mark.parametrize("name", ["Thing", "_Thing", "Outer.Inner", "thing", "_unpickle_block", "__bit_generator_ctor"])
def test_what_packages_rebuild_their_objects_with_is_a_placeholder(name: str) -> None:
    for call in (b")R.", b")\x81.", b")}\x92."):
        assert isinstance(load(b"cpackage.module\n" + name.encode() + b"\n" + call), Placeholder)


@pytest.mark.parametrize(
    "name", ["run", "load_config", "write_file", "os.system", "Thing.load", "Popen", "execWrapper"]
)
def test_functions_of_packages_that_do_something_are_refused(name: str) -> None:
    with pytest.raises(SafetyError, match=r"calls package\.module\."):
        load(b"cpackage.module\n" + name.encode() + b"\n)R.")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x13torch.serialization\x8c\tos.system\x93)R.",
        b"ctorch.serialization\nos.system\n)R.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02\x83\x01\x00.",
        b"\x80\x02\x84\x01\x00\x00\x00.",
        b"(S'x'\nios\nsystem\n.",
        b"(S'x'\no.",
        b"\x80\x05\x97.",
        b"\x80\x05N\x98.",
        b"I1\n)R.",
        b"ccopy_reg\n_reconstructor\n(cpackage\nrun\nc__builtin__\nobject\nNtR.",
        b"(cposix\nsystem\no.",
    ],
)
def test_other_ways_to_run_code_are_refused(data: bytes) -> None:
    with pytest.raises(SafetyError):
        load(data)


def bomb(opcode: bytes, form: str, length: int) -> bytes:
    return b"\x80\x04" + opcode + struct.pack(form, length) + b"x."


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"\x80\x06N.",
        b"\x80\xc8N.",
        b"N\x80\x02.",
        b"\xfeN.",
        b"NN.",
        b"(.",
        b"0N.",
        b"]e.",
        b"NNs.",
        b"}(NNNu.",
        b"]]Ns.",
        b"}]Ns.",
        b"h\x00.",
        b"g7\n.",
        b"NNb.",
        b"K\x01K\x02a.",
        b"\x80\x02Q.",
        b"\x80\x02K\x01K\x02\x93.",
        b"}(K\x01NK\x01Nu.",
        b"}(K\x01N\x88Nu.",
        b"Inan\n.",
        b"I" + b"9" * 300 + b"\n.",
        b"Fx\n.",
        b"S'x\n.",
        b"S'\\x'\n.",
        b"X\x01\x00\x00\x00\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"\x8b\x00\x00\x00\x7f.",
        bomb(b"X", "<I", 0xFFFFFFFF),
        bomb(b"\x8d", "<Q", 1 << 62),
        bomb(b"\x8e", "<Q", 1 << 62),
        bomb(b"\x96", "<Q", 1 << 62),
        bomb(b"\x95", "<Q", 1 << 60),
        b"\x80\x04\x95\x03\x00\x00\x00\x00\x00\x00\x00\x95\x00\x00\x00\x00\x00\x00\x00\x00NN.",
        b"c__builtin__\nset\n((]ltR.",
        b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"ccollections\nOrderedDict\n(I1\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\nVx\ntR.",
        b"I--1\n.",
        b"I010\n.",
        b"L-010L\n.",
        b"Np-1\n.",
        b"\x80\x02c__builtin__\nset\n]K\x01a\x85\x81.",
        b"\x80\x04c__builtin__\nlist\n]K\x01a\x85}\x92.",
    ],
)
def test_malformed_pickles_are_read_errors(data: bytes) -> None:
    with pytest.raises(ReadError) as caught:
        load(data)
    assert caught.value.path == "x.pth"


def test_keys_that_would_be_costly_to_hash_are_refused() -> None:
    assert load(pickle.dumps({(1, (2, 3)): 4})) == {(1, (2, 3)): 4}
    deep = b")" + b"\x85" * 100_000
    for data in (b"}" + deep + b"Ns.", b"}" + b"\x8a\x09" + b"\xff" * 8 + b"\x01Ns.", b"}]Ns."):
        with pytest.raises(ReadError, match="key"):
            load(b"\x80\x04" + data)


def test_deep_nesting_is_no_recursion() -> None:
    value = load(b"\x80\x02)" + b"\x85" * 100_000 + b".")
    for _ in range(100_000):
        (value,) = value
    assert value == ()


def test_copies_of_one_list_do_not_fill_the_memory() -> None:
    """A long list in the memo, handed to the constructor of lists again and again."""
    filled = b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x00"
    call = b"c__builtin__\nlist\nh\x00\x85R"
    assert len(load(filled + call + b"\x86.")[1]) == 100_000
    with pytest.raises(ReadError, match="constructs more than"):
        load(filled + (call + b"0") * 1000 + b".")


def test_containers_are_counted() -> None:
    with pytest.raises(ReadError, match="lists and dicts"):
        load(b"\x80\x04" + b"\x8f0" * 2_200_000 + b"N.")


def test_the_end_is_where_the_pickle_stops() -> None:
    data = b"abc" + pickle.dumps([1]) + b"more"
    machine = Machine(MemoryBytes(data), offset=3, path="x", constructors=PLAIN)
    assert machine.load() == [1]
    assert data[machine.end :] == b"more"


def test_every_cut_and_every_flip_is_handled() -> None:
    """Whatever one byte does to a pickle, the answer is a value or a CkconvError."""
    value = {"a": [1, (2.5, None)], "b": collections.OrderedDict(x=b"yz"), "c": {1}, "d": Record(), "e": 1 << 80}
    for protocol in (0, 2, 4):
        data = pickle.dumps(value, protocol)
        assert load(data)["a"] == [1, (2.5, None)]
        for end in range(len(data)):
            with pytest.raises(ReadError):
                load(data[:end])
        refused = 0
        for position in range(len(data)):
            for mask in (0x01, 0x20, 0x80, 0xFF):
                changed = data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
                try:
                    load(changed)
                except CkconvError:
                    refused += 1
        assert len(data) < refused < 4 * len(data)


def test_sniffing() -> None:
    for protocol in range(6):
        for value in ([1, "a"], {"k": 1.0}, Record(), Calls(os.system, "id"), list(range(5000))):
            data = pickle.dumps(value, protocol)
            assert looks_like_pickle(data[:4096], len(data)), (protocol, value)
    assert looks_like_pickle(b"cposix\nsystem\n(S'id'\ntR.", 24)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b'{"a": 1}',
        b"\x80\x02\x00\x00\x00\x00\x00\x00{" + b" " * 700,
        b"\x81\xa6params\x81\xa1a\x01",
        b"\x08\x07\x12\x04test",
        b"GGUF\x03\x00\x00\x00" + bytes(100),
        b"cats and dogs\nare animals\nof the house.\n",
        b"import os\nprint(1)\n",
        b"I am a text\nof two lines.\n",
        b"(see below)\n",
        bytes(1000),
    ],
)
def test_other_files_do_not_look_like_pickles(data: bytes) -> None:
    assert not looks_like_pickle(data, len(data))


# the writer


def test_what_is_written_is_read_by_pickle() -> None:
    values = [value for value in PLAIN_VALUES if not isinstance(value, frozenset)]
    for value in values:
        assert pickle.loads(dumps(value)) == value  # noqa: S301
        assert load(dumps(value)) == value
    ordered = pickle.loads(dumps(Ordered(items={"b": 1, "a": 2})))  # noqa: S301
    assert type(ordered) is collections.OrderedDict
    assert list(ordered.items()) == [("b", 1), ("a", 2)]
    assert dumps({"b", "a", "c"}) == dumps({"c", "a", "b"})


def test_calls_and_persistent_ids() -> None:
    function = Global(module="builtins", name="complex")
    assert pickle.loads(dumps(Call(function=function, arguments=(1.0, 2.0)))) == 1 + 2j  # noqa: S301
    assert load(dumps([Persistent(identity=("storage", 3))]), persistent=lambda identity: identity) == [("storage", 3)]


def test_what_has_no_pickle_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        dumps(object())
