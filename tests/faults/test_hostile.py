"""Files made to hurt, beyond what the tests of each encoding hold: refused in one line that names the file, or read."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.encoding import safetensors
from converter.encoding import zip as zip_archive
from converter.encoding.pickle import Global
from converter.encoding.pickle.writer import Call, Ordered, Persistent, dumps
from converter.encoding.zip import Record
from converter.errors import CkconvError, ReadError, SafetyError
from converter.execution.streaming import stream
from converter.model.output import OutputFile
from converter.model.tensor import ArrayTensor

LIMIT_SECONDS = 5
FLOATS = struct.pack("<6f", *range(6))
STORAGE = Persistent(identity=("storage", Global(module="torch", name="FloatStorage"), "0", "cpu", 6))
VIEW = (STORAGE, 0, (2, 3), (3, 1), False, Ordered(items={}))
TENSOR = Call(function=Global(module="torch._utils", name="_rebuild_tensor_v2"), arguments=VIEW)
TENSOR_PICKLED = dumps(TENSOR)[2:-1]


def read(path: Path) -> converter.Checkpoint:
    """Read a checkpoint and all its tensors; whatever is refused must name the file, in one line."""
    try:
        checkpoint = converter.read(path)
        for tensor in checkpoint.tensors.values():
            tensor.numpy()
    except CkconvError as error:
        said = str(error)
        if str(path) not in said or len(said.splitlines()) != 1:
            pytest.fail(f"names no file in one line: {said!r}")
        raise
    return checkpoint


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def called(module: str, name: str, arguments: bytes = b")") -> bytes:
    """A call, as protocol 2 writes it."""
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def beside(value: bytes) -> bytes:
    """A state dict with one tensor `w`, and `value`."""
    return b"\x80\x02}(" + text("w") + TENSOR_PICKLED + text("other") + value + b"u."


@pytest.fixture
def pth(tmp_path: Path) -> Callable[[bytes], Path]:
    """Build a zip checkpoint around a pickle."""

    def pth(pickled: bytes) -> Path:
        path = tmp_path / "model.pth"
        path.unlink(missing_ok=True)
        contents = {"data.pkl": pickled, "data/0": FLOATS, "version": b"3\n"}
        records = [Record(name=f"archive/{name}", content=content) for name, content in contents.items()]
        stream(OutputFile(name=path.name, pieces=zip_archive.archive(records)), tmp_path)
        return path

    return pth


def test_the_unharmed_file_is_read(pth: Callable[[bytes], Path]) -> None:
    assert read(pth(beside(b"N"))).tensors["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


BYPASSES = [
    "os.system",
    "posix.system",
    "nt.system",
    "subprocess.Popen",
    "subprocess.getoutput",
    "pty.spawn",
    "platform.popen",
    "commands.getoutput",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.__import__",
    "builtins.open",
    "__builtin__.execfile",
    "importlib.import_module",
    "importlib.util.spec_from_file_location",
    "runpy.run_path",
    "runpy._run_code",
    "imp.load_source",
    "types.FunctionType",
    "types.CodeType",
    "timeit.timeit",
    "timeit.Timer",
    "cProfile.run",
    "profile.Profile.runctx",
    "trace.Trace",
    "bdb.Bdb",
    "pdb.run",
    "code.InteractiveInterpreter",
    "pydoc.locate",
    "pydoc.pipepager",
    "doctest.debug_script",
    "unittest.mock._importer",
    "inspect.getattr_static",
    "asyncio.unix_events._UnixSubprocessTransport",
    "concurrent.futures.thread._WorkItem",
    "threading.Thread",
    "signal.signal",
    "webbrowser.open",
    "http.client.HTTPSConnection",
    "smtplib.SMTP",
    "socket.create_connection",
    "urllib.request.urlopen",
    "ssl.get_server_certificate",
    "ftplib.FTP",
    "sqlite3.connect",
    "tarfile.open",
    "zipfile.ZipFile",
    "shutil.rmtree",
    "shutil.copyfileobj",
    "tempfile.mktemp",
    "pathlib.Path.write_text",
    "io.open",
    "io.FileIO",
    "codecs.open",
    "fileinput.input",
    "linecache.getline",
    "logging.config._resolve",
    "logging.config.dictConfig",
    "venv.create",
    "ensurepip._run_pip",
    "lib2to3.pgen2.grammar.Grammar",
    "idlelib.run.Executive",
    "idlelib.pyshell.ModifiedInterpreter",
    "idlelib.autocomplete.AutoComplete",
    "ctypes.CDLL",
    "_ctypes.dlopen",
    "mmap.mmap",
    "resource.setrlimit",
    "gc.get_objects",
    "sys.settrace",
    "weakref.finalize",
    "atexit.register",
    "marshal.loads",
    "pickle.loads",
    "_pickle.loads",
    "pickle.Unpickler",
    "shelve.open",
    "dbm.open",
    "copyreg.add_extension",
    "copyreg._extension_registry",
    "distutils.file_util.write_file",
    "pip.main",
    "pip._internal.main",
    "setuptools.sandbox.run_setup",
    "pkg_resources.run_script",
    "numpy.load",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.myeval",
    "numpy.f2py.capi_maps.load_f2cmap_file",
    "torch.load",
    "torch.storage._load_from_bytes",
    "torch.hub.load",
    "torch.jit.load",
    "torch.jit.unsupported_tensor_ops.execWrapper",
    "torch.utils.bottleneck.__main__.run_cprofile",
    "torch.utils.collect_env.run",
    "torch.utils.cpp_extension.load",
    "torch._dynamo.guards.GuardBuilder",
    "torch._inductor.codecache.compile_file",
    "torch.serialization.load",
    "torch.fx.graph_module._forward_from_src",
    "torch.package.package_importer.PackageImporter",
    "torch.ops.load_library",
    "torch.utils._config_module.load_config",
    "torch.distributed.rpc.rpc_sync",
    "torch.multiprocessing.spawn",
    "cloudpickle.cloudpickle._make_function",
    "dill._dill._create_function",
    "joblib.load",
    "joblib._store_backends.concurrency_safe_write",
    "pandas.eval",
    "pandas.read_pickle",
    "pandas.io.pickle.read_pickle",
    "sympy.sympify",
    "jsonpickle.decode",
    "IPython.get_ipython",
    "tensorflow.io.write_file",
    "tensorflow.python.platform.gfile.glob",
    "keras.src.saving.deserialize_keras_object",
    "transformers.dynamic_module_utils.get_class_in_module",
    "aiohttp.web.run_app",
    "requests.get",
    "torch.__builtins__",
    "torch.os.system",
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", BYPASSES)
def test_names_that_scanners_have_missed(name: str, protocol: int, pth: Callable[[bytes], Path]) -> None:
    """From the advisories of picklescan, fickling, modelscan and torch, and the standard library's own gadgets."""
    module, _, attribute = name.rpartition(".")
    argument = b"(S'true'\ntR" if protocol == 0 else text("true") + b"\x85R"
    if protocol == 4:
        named = b"\x8c%c%s\x94\x8c%c%s\x94\x93" % (len(module), module.encode(), len(attribute), attribute.encode())
    else:
        named = f"c{module}\n{attribute}\n".encode()
    assert read(pth(beside(b"]"))).tensors
    with pytest.raises(SafetyError) as caught:
        read(pth(beside(named + argument)))
    assert caught.value.exit_code == 5


PICKLES = {
    "INST": (b"(S'true'\nios\nsystem\n", SafetyError),
    "OBJ": (b"(cos\nsystem\nS'true'\no", SafetyError),
    "EXT1": (b"\x82\x01", SafetyError),
    "NEXT_BUFFER": (b"\x97", SafetyError),
    "a name inside a name": (text("torch") + text("nn.Module") + b"\x93)R", SafetyError),
    "a name made of numbers": (b"K\x01K\x02\x93", ReadError),
    "a name from the memo": (text("os") + b"q\x01" + b"0" + text("system") + b"q\x020h\x01h\x02\x93)R", SafetyError),
    "a call of text": (text("x") + b")R", SafetyError),
    "a call of what a call gave": (called("foo", "Bar") + b")R", SafetyError),
    "arguments that are a list": (b"cfoo\nBar\n]R", ReadError),
    "NEWOBJ_EX with keywords": (b"ccollections\nOrderedDict\n)}" + text("a") + b"K\x01s\x92", ReadError),
    "a persistent id in text": (b"Pstorage\n", ReadError),
    "a persistent id of another kind": (text("module") + text("x") + b"\x86Q", ReadError),
    "memo recalled before it is stored": (b"h\x63", ReadError),
    "memo with a negative index": (b"Np-1\n", ReadError),  # as of Python, too
    "memo with an enormous index": (b"Nr\xff\xff\xff\xff", None),
    "memo with an index of 300 digits": (b"Np" + b"9" * 300 + b"\n", ReadError),
    "memo of a mark": (b"(q\x01N1N", ReadError),
    "state for a list": (b"]}b", ReadError),
    "state for a number": (b"K\x01}b", ReadError),
    "state in slots": (called("foo", "Bar") + b"N}" + text("__class__") + text("os") + b"s\x86b", None),
    "state for a tensor": (TENSOR_PICKLED + b"}b", ReadError),
    "state that sets __setstate__": (called("foo", "Bar") + b"}" + text("__setstate__") + b"Nsb", None),
    "state for an OrderedDict": (called("collections", "OrderedDict") + b"}" + text("__class__") + b"Nsb", None),
    "OrderedDict of text": (called("collections", "OrderedDict", text("ab") + b"\x85"), ReadError),
    "OrderedDict of numbers": (called("collections", "OrderedDict", b"](K\x01K\x02e\x85"), ReadError),
    "OrderedDict of itself": (b"ccollections\nOrderedDict\n)Rq\x01h\x01h\x01s", ReadError),
    "Counter with an enormous count": (
        called("collections", "Counter", b"}K\x01\x8a\x08" + b"\x7f" * 8 + b"s\x85"),
        None,
    ),
    "bytearray of a size": (called("builtins", "bytearray", b"\x8a\x05\0\0\0\0\x01\x85"), ReadError),
    "bytes of a size": (called("__builtin__", "bytes", b"\x8a\x05\0\0\0\0\x01\x85"), ReadError),
    "range of a size": (called("builtins", "range", b"\x8a\x05\0\0\0\0\x01\x85"), None),
    "list of a range": (called("builtins", "list", called("builtins", "range", b"K\x09\x85") + b"\x85"), ReadError),
    "a codec that is none": (called("_codecs", "encode", text("x") + text("rot13") + b"\x86"), ReadError),
    "int from text": (called("builtins", "int", text("9" * 9000) + b"\x85"), None),
    "set of a list": (called("builtins", "set", b"](]e\x85"), ReadError),
    "set of deep tuples": (b"\x8f(" + b")" + b"\x85" * 9 + b"\x90", ReadError),
    "a dict as a key": (b"}}Ns", ReadError),
    "complex from text": (called("builtins", "complex", text("1j") + b"\x85"), ReadError),
    "a path of numbers": (called("pathlib", "PosixPath", b"K\x01\x85"), ReadError),
    "a path upwards": (called("pathlib", "PosixPath", text("../../etc/passwd") + b"\x85"), None),
    "torch.Size of a number": (called("torch", "Size", b"K\x01\x85"), ReadError),
    "torch.device of a number": (called("torch", "device", b"K\x01\x85"), ReadError),
    "a dtype of 10 ** 9 bytes": (called("numpy", "dtype", text("V999999999") + b"\x89\x88\x87"), None),
    "a dtype of objects": (called("numpy", "dtype", text("O") + b"\x89\x88\x87"), None),
    "_reconstructor of a function": (
        called("copyreg", "_reconstructor", b"cfoo\nbar\nc__builtin__\nobject\nN\x87"),
        None,
    ),
    "_reconstructor of a gadget": (
        called("copyreg", "_reconstructor", b"csubprocess\nPopen\nc__builtin__\nobject\nN\x87"),
        SafetyError,
    ),
    "an integer of 2 ** 31 bytes": (b"\x8b\xff\xff\xff\x7f", ReadError),
    "an integer of -1 bytes": (b"\x8b\xff\xff\xff\xff", ReadError),
    "an integer with underscores": (b"I1_000\n", ReadError),
    "an integer in other digits": ("I\u0661\n".encode(), ReadError),
    "text that is half a pair": (b"V\\ud800\n", None),
    "a string of 2 ** 63 bytes": (b"\x8d" + b"\xff" * 8, ReadError),
    "a frame inside a frame": (b"\x95\x10" + bytes(7) + b"\x95\x10" + bytes(7) + b"N", ReadError),
    "the protocol once more": (b"\x80\x02N", ReadError),
    "STOP in the middle": (b"N.N", ReadError),
    "a mark too many": (b"(N", ReadError),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles(case: str, pth: Callable[[bytes], Path]) -> None:
    """Refused, or read without that part: the tensor beside it is what it is."""
    value, expected = PICKLES[case]
    path = pth(beside(value))
    if expected is None:
        assert read(path).tensors["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    else:
        with pytest.raises(expected):
            read(path)


def shared(levels: int, name: str = "") -> bytes:
    """Containers with two references each to the one before: small to write down, endless to walk."""
    first, second = (f"{name}{which}" for which in "ab")
    inner = (
        b"}(" + text(first) + b"h%c" % level + text(second) + b"h%cuq%c0" % (level, level + 1)
        for level in range(levels)
    )
    return b"}q\x000" + b"".join(inner) + b"h%c" % levels


COSTLY = {
    "shared dicts": shared(60),
    "shared dicts with long names": shared(40, "n" * 5000),
    "many objects": b"](" + b"cfoo\nBar\n)R" * 400_000 + b"e",
    "many names": b"](" + b"".join(b"cfoo\nB%d\n" % number for number in range(400_000)) + b"e",
    "many views": b"(" + TENSOR_PICKLED + b"q\x00" + b"h\x00" * 1_000_000 + b"l",
    "many tuples": b"](" + b")\x85" * 800_000 + b"e",
    "many operations": b"N" + b"20" * 4_000_000,
}
TOO_LONG = ("many names", "many views", "many operations")


@pytest.mark.parametrize("case", COSTLY)
def test_what_would_take_long_is_given_up(case: str, pth: Callable[[bytes], Path]) -> None:
    """Beside the weights it is left out, among them and in the pickle itself refused."""
    path = pth(beside(COSTLY[case]))
    began = time.process_time()
    if case in TOO_LONG:
        with pytest.raises(ReadError, match=r"more than \d+"):
            read(path)
    else:
        checkpoint = read(path)
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.lines or checkpoint.extras
    assert time.process_time() - began < LIMIT_SECONDS


def test_large_and_honest_values_are_read(tmp_path: Path) -> None:
    """Ten thousand parameters with Adam's state, a long history, a vocabulary both ways."""
    torch = pytest.importorskip("torch")
    weights = {f"layer.{number}.weight": torch.full((2,), float(number)) for number in range(10_000)}
    state = {number: {"step": torch.tensor(1.0), "exp_avg": tensor, "exp_avg_sq": tensor * 2}
             for number, tensor in enumerate(weights.values())}  # fmt: skip
    words = [f"word{number}" for number in range(200_000)]
    value = {
        "model_state_dict": weights,
        "optimizer_state_dict": {"state": state, "param_groups": [{"lr": 1e-3, "params": list(range(10_000))}]},
        "losses": [number / 7 for number in range(300_000)],
        "history": [{"loss": 1.0, "rate": 1e-3, "step": number} for number in range(20_000)],
        "itos": words,
        "stoi": {word: number for number, word in enumerate(words)},
    }
    torch.save(value, tmp_path / "x.pth")
    checkpoint = converter.read(tmp_path / "x.pth")
    assert len(checkpoint.tensors) == 10_000
    assert checkpoint.extras["stoi"]["word199999"] == 199_999
    assert len(checkpoint.extras["history"]) == 20_000


def members() -> Iterator[tuple[str, bytes]]:
    yield from (("archive/data.pkl", dumps({"w": TENSOR})), ("archive/data/0", FLOATS))


def zipped(contents: list[tuple[str, bytes]], *, comment: bytes = b"", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, content in contents:
            archive.writestr(name, content)
    return buffer.getvalue()


class Unseekable(io.RawIOBase):
    """What makes zipfile put sizes behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += memoryview(data)  # type: ignore[arg-type]
        return len(memoryview(data))  # type: ignore[arg-type]


def with_descriptors() -> bytes:
    out = Unseekable()
    with zipfile.ZipFile(out, "w") as archive:  # type: ignore[arg-type]
        for name, content in members():
            archive.writestr(name, content)
    return bytes(out.data)


PLAIN = list(members())
OTHER = [("archive/data.pkl", dumps({"w": TENSOR})), ("archive/data/0", bytes(24))]


def shifted(data: bytes, by: int) -> bytes:
    """The archive with its offsets moved, as if `by` bytes were before it."""
    end = data.rindex(b"PK\x05\x06")
    count, _, at = struct.unpack_from("<HII", data, end + 10)
    moved = bytearray(data)
    struct.pack_into("<I", moved, end + 16, at + by)
    position = at
    for _ in range(count):
        name, extra, comment = struct.unpack_from("<3H", data, position + 28)
        (local,) = struct.unpack_from("<I", data, position + 42)
        struct.pack_into("<I", moved, position + 42, local + by)
        position += 46 + name + extra + comment
    return bytes(moved)


def wide(data: bytes, nbytes: int) -> bytes:
    """The last member's size in the directory moved into a zip64 field that says `nbytes`."""
    end, at = data.rindex(b"PK\x05\x06"), data.rindex(b"PK\x01\x02")
    entry, extra = bytearray(data[at:end]), struct.pack("<2H2Q", 1, 16, nbytes, nbytes)
    entry[20:28] = b"\xff" * 8
    entry[30:32] = struct.pack("<H", len(extra))
    changed = bytearray(data[:at] + entry + extra + data[end:])
    (size,) = struct.unpack_from("<I", data, end + 12)
    struct.pack_into("<I", changed, len(changed) - 22 + 12, size + len(extra))
    return bytes(changed)


ARCHIVES: dict[str, tuple[Callable[[], bytes], type[CkconvError] | None]] = {
    "plain": (lambda: zipped(PLAIN), None),
    "deflated": (lambda: zipped(PLAIN, method=zipfile.ZIP_DEFLATED), None),
    "sizes behind the data": (with_descriptors, None),
    "a comment": (lambda: zipped(PLAIN, comment=b"hello"), None),
    "a zip64 field that says the same": (lambda: wide(zipped(PLAIN), 24), None),
    "a zip64 field that says less": (lambda: wide(zipped(PLAIN), 20), ReadError),
    "a zip64 field that says 2 ** 62": (lambda: wide(zipped(PLAIN), 1 << 62), ReadError),
    "a script before it": (lambda: b"#!/bin/sh\n" + shifted(zipped(PLAIN), 10), ReadError),
    "a program before it, offsets as they were": (lambda: b"MZ" + zipped(PLAIN), ReadError),
    "a pickle before it": (lambda: b"\x80\x02N." + shifted(zipped(PLAIN), 4), ReadError),
    "another archive before it": (lambda: zipped(OTHER) + shifted(zipped(PLAIN), len(zipped(OTHER))), ReadError),
    "another archive in its comment": (
        lambda: zipped(OTHER, comment=shifted(zipped(PLAIN), len(zipped(OTHER)))),
        ReadError,
    ),
    "bytes between directory and end": (
        lambda: zipped(PLAIN).replace(b"PK\x05\x06", b"????PK\x05\x06"),
        ReadError,
    ),
    "bytes that no member owns": (lambda: gap(zipped(PLAIN)), ReadError),
    "bytes behind it": (lambda: zipped(PLAIN) + b"x", ReadError),
    "names that differ in case": (lambda: zipped([*PLAIN, ("archive/DATA/0", bytes(24))]), ReadError),
    "names that differ in normalisation": (
        lambda: zipped([*PLAIN, *((f"archive/{unicodedata.normalize(form, 'é')}", b"") for form in ("NFC", "NFD"))]),
        ReadError,
    ),
    "a name twice": (lambda: zipped([*PLAIN, ("archive/data/1", b"")]).replace(b"data/1", b"data/0"), ReadError),
    "a name upwards": (lambda: zipped([*PLAIN, ("archive/../x", b"")]), SafetyError),
    "a name of a drive": (lambda: zipped([*PLAIN, ("archive\\..\\x", b"")]), CkconvError),
    "an absolute name": (lambda: zipped([*PLAIN, ("/etc/x", b"")]), CkconvError),
    "a folder where the pickle is": (lambda: zipped([*PLAIN, ("archive/data.pkl/", b"")]), ReadError),
}


def gap(data: bytes) -> bytes:
    """Bytes between the last member and the directory."""
    at = data.index(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    changed = bytearray(data[:at] + b"stowaway" + data[at:])
    struct.pack_into("<I", changed, end + 8 + 16, at + 8)
    return bytes(changed)


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case: str, tmp_path: Path) -> None:
    make, expected = ARCHIVES[case]
    path = tmp_path / "model.pth"
    path.write_bytes(make())
    if expected is None:
        assert read(path).tensors["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    else:
        with pytest.raises(expected):
            read(path)


SHARD = "model-00001-of-00001.safetensors"


def no_change(folder: Path) -> str:
    return SHARD


def in_a_folder(folder: Path) -> str:
    (folder / "sub").mkdir()
    (folder / SHARD).rename(folder / "sub" / SHARD)
    return f"sub/{SHARD}"


def behind_a_link(folder: Path) -> str:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / SHARD).rename(outside / SHARD)
    (folder / "sub").symlink_to(outside)
    return f"sub/{SHARD}"


def a_link_out(folder: Path) -> str:
    (folder / SHARD).rename(folder.parent / SHARD)
    (folder / SHARD).symlink_to(folder.parent / SHARD)
    return SHARD


def a_link_inside(folder: Path) -> str:
    (folder / SHARD).rename(folder / "stored.safetensors")
    (folder / SHARD).symlink_to("stored.safetensors")
    (folder / "stored.safetensors").rename(folder / "blob")
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to("blob")
    return SHARD


def a_pipe(folder: Path) -> str:
    (folder / SHARD).unlink()
    os.mkfifo(folder / SHARD)
    return SHARD


def a_device(folder: Path) -> str:
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to("/dev/zero")
    return SHARD


def a_folder(folder: Path) -> str:
    (folder / SHARD).unlink()
    (folder / SHARD).mkdir()
    return SHARD


def sparse(folder: Path) -> str:
    os.truncate(folder / SHARD, 1 << 40)
    return SHARD


def loop(folder: Path) -> str:
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(SHARD)
    return SHARD


def composed(folder: Path) -> str:
    (folder / SHARD).rename(folder / unicodedata.normalize("NFD", "modèle.safetensors"))
    return unicodedata.normalize("NFC", "modèle.safetensors")


def named(name: str) -> Callable[[Path], str]:
    return lambda folder: name


INDEXES: dict[str, tuple[Callable[[Path], str], type[CkconvError] | None]] = {
    "as it was": (no_change, None),
    "in a folder of its own": (in_a_folder, None),
    "a link inside the folder": (a_link_inside, None),
    "behind a link out of the folder": (behind_a_link, SafetyError),
    "a link out of the folder": (a_link_out, SafetyError),
    "a pipe": (a_pipe, ReadError),
    "a device": (a_device, SafetyError),
    "a folder": (a_folder, ReadError),
    "a link to itself": (loop, CkconvError),
    "a tebibyte of nothing": (sparse, ReadError),
    "in other case": (named(SHARD.upper()), ReadError),
    "composed otherwise": (composed, ReadError),
    "with a slash behind it": (named(f"{SHARD}/"), SafetyError),
    "with a dot before it": (named(f"./{SHARD}"), SafetyError),
    "with two slashes": (named(f"sub//{SHARD}"), SafetyError),
    "up and down again": (named(f"../model/{SHARD}"), SafetyError),
    "through itself": (named(f"x/../{SHARD}"), SafetyError),
    "absolute": (named(f"/etc/{SHARD}"), SafetyError),
    "with a backslash": (named(f"..\\{SHARD}"), SafetyError),
    "with a zero byte": (named(f"{SHARD}\0"), SafetyError),
    "an address": (named(f"https://example.org/{SHARD}"), SafetyError),
    "of 5000 characters": (named("x" * 5000), ReadError),
    "with a space behind it": (named(f"{SHARD} "), ReadError),
    "half a surrogate pair": (named("\ud800.safetensors"), CkconvError),
    "a terminal's escape": (named("\x1b[2J.safetensors"), ReadError),
    "a percent sign": (named(SHARD.replace("-", "%2d")), ReadError),
    "a home": (named(f"~/{SHARD}"), ReadError),
    "a variable": (named(f"$HOME/{SHARD}"), ReadError),
}


@pytest.mark.parametrize("case", INDEXES)
def test_indexes(case: str, tmp_path: Path) -> None:
    change, expected = INDEXES[case]
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = {"w": ArrayTensor.of(np.arange(6, dtype=np.float32))}
    (file,) = safetensors.files(tensors, {}, None)
    stream(OutputFile(name=SHARD, pieces=file.pieces), folder)
    name = change(folder)
    index = {"metadata": {"total_size": 24}, "weight_map": {"w": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if expected is None:
        assert read(folder).tensors["w"].numpy().tolist() == list(range(6))
    else:
        with pytest.raises(expected) as caught:
            read(folder)
        assert "\x1b" not in str(caught.value)
