"""What stands beside the weights of strangers: data is left out with a line, what would run code refuses the file."""

from __future__ import annotations

import argparse
import array
import collections
import configparser
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import io
import ipaddress
import itertools
import logging
import operator
import pathlib
import pickle
import random
import re
import string
import time
import traceback
import types
import typing
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import SafetyError
from tests.faults.test_hostile import beside, pth, text

__all__ = ["pth"]


class Outer:
    """A class of the user's own project."""

    class Inner:
        """One in another."""

        def method(self) -> None:
            """Be bound."""


@dataclasses.dataclass
class Settings:
    """A dataclass of the user's."""

    rate: float = 0.1
    parts: list[int] = dataclasses.field(default_factory=list)


class Colour(enum.Enum):
    """An enumeration of the user's."""

    RED = 1


Point = collections.namedtuple("Point", "x y")


class Words(dict[str, int]):
    """A dict of the user's."""


BENIGN: dict[str, Any] = {
    "namespace": argparse.Namespace(a=1),
    "simple namespace": types.SimpleNamespace(a=1),
    "instance": Outer(),
    "nested class": Outer.Inner,
    "nested instance": Outer.Inner(),
    "bound method": Outer.Inner().method,
    "function": beside,
    "dataclass": Settings(),
    "member": Colour.RED,
    "named tuple": Point(1, 2),
    "dict of one's own": Words(a=1),
    "partial": functools.partial(beside, b""),
    "partial of a class": functools.partial(Outer),
    "partial of a partial": functools.partial(functools.partial(max, 1), 2),
    "item getter": operator.itemgetter(0),
    "attribute getter": operator.attrgetter("a.b"),
    "method caller": operator.methodcaller("strip", "x"),
    "built-in function": max,
    "built-in method": [].append,
    "class": dict,
    "Any": typing.Any,
    "Optional": typing.Optional[int],  # noqa: UP045
    "List": typing.List[int],  # noqa: UP006
    "generic alias": list[int],
    "None's type": type(None),
    "Ellipsis": Ellipsis,
    "NotImplemented": NotImplemented,
    "range": range(5),
    "slice": slice(1, 2),
    "complex": 1j,
    "bytearray": bytearray(b"ab"),
    "frozen set": frozenset({1}),
    "exception": ValueError("x"),
    "exception class": KeyError,
    "os error": FileNotFoundError(2, "x"),
    "date": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    "span": datetime.timedelta(1),
    "zone": zoneinfo.ZoneInfo("UTC"),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=1),
    "path": pathlib.PurePosixPath("/a"),
    "address": ipaddress.ip_address("127.0.0.1"),
    "time": time.gmtime(0),
    "array": array.array("d", [1.0]),
    "deque": collections.deque([1]),
    "counter": collections.Counter("ab"),
    "chain map": collections.ChainMap({"a": 1}),
    "default dict": collections.defaultdict(list, a=[1]),
    "ordered": collections.OrderedDict(a=1),
    "iterator": iter([1, 2]),
    "zip": zip([1], [2], strict=False),
    "map": map(len, ["a"]),
    "chain": itertools.count(3),
    "buffer": io.BytesIO(b"x"),
    "text buffer": io.StringIO("x"),
    "pattern": re.compile("a+"),
    "template": string.Template("$x"),
    "logger": logging.getLogger("training"),
    "log record": logging.makeLogRecord({"msg": "x"}),
    "random": random.Random(0),
    "signature": inspect.signature(beside),
    "stack": traceback.extract_stack(limit=1),
    "config": configparser.ConfigParser(),
    "numpy state": np.random.RandomState(0),
    "numpy generator": np.random.default_rng(0),
    "numpy function": np.sum,
    "numpy class": np.float32,
    "numpy text": np.array(["a"]),
    "numpy dates": np.array(["2020"], "datetime64[Y]"),
    "numpy date": np.datetime64("2020"),
    "numpy records": np.zeros(1, [("x", "f4")]),
    "numpy matrix": np.ma.masked_array([1], [True]),
}
RAW = {
    "data frame": b"cpandas.core.frame\nDataFrame\n)\x81}"
    + text("_mgr")
    + b"cpandas._libs.internals\n_unpickle_block\n)Rsb",
    "index": b"cpandas.core.indexes.base\n_new_Index\ncpandas.core.indexes.base\nIndex\n}\x86R",
    "sparse matrix": b"cscipy.sparse._csr\ncsr_matrix\n)\x81}b",
    "omegaconf": b"comegaconf.dictconfig\nDictConfig\n)\x81}" + text("_metadata") + b"ctyping\nAny\nsb",
    "attribute of torch": b"cbuiltins\ngetattr\nctorch._C\n_VariableFunctions\n" + text("relu") + b"\x86R",
    "pickled by cython": b"csklearn.tree._tree\n__pyx_unpickle_Tree\n)R",
    "old class": b"(" + text("x") + b"iyours\nThing\n",
    "scheduler": b"ctorch.optim.lr_scheduler\nLambdaLR\n)\x81}b",
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", BENIGN)
def test_data_beside_the_weights_is_left_out(name: str, protocol: int, pth: Any) -> None:
    value = pickle.dumps(BENIGN[name], protocol)[2:-1]
    assert list(converter.read(pth(beside(value))).tensors)[:1] == ["w"]


@pytest.mark.parametrize("name", RAW)
def test_data_of_packages_that_are_not_here_is_left_out(name: str, pth: Any) -> None:
    checkpoint = converter.read(pth(beside(RAW[name])))
    assert list(checkpoint.tensors) == ["w"]
    assert [line.name for line in checkpoint.lines] == ["other"]


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


SYSTEM, ECHO = b"cposix\nsystem\n", text("true")
HOSTILE = {
    "system": call("posix", "system", ECHO),
    "nt": call("nt", "system", ECHO),
    "popen": call("os", "popen", ECHO),
    "Popen": call("subprocess", "Popen", ECHO),
    "check_output": call("subprocess", "check_output", ECHO),
    "commands": call("commands", "getoutput", ECHO),
    "eval": call("builtins", "eval", ECHO),
    "exec": call("__builtin__", "exec", ECHO),
    "execfile": call("__builtin__", "execfile", ECHO),
    "compile": call("builtins", "compile", ECHO),
    "open": call("builtins", "open", ECHO),
    "import": call("builtins", "__import__", ECHO),
    "import_module": call("importlib", "import_module", ECHO),
    "runpy": call("runpy", "run_path", ECHO),
    "pty": call("pty", "spawn", ECHO),
    "code": call("code", "interact"),
    "pdb": call("pdb", "run", ECHO),
    "timeit": call("timeit", "timeit", ECHO),
    "cProfile": call("cProfile", "run", ECHO),
    "ctypes": call("ctypes", "CDLL", ECHO),
    "socket": call("socket", "create_connection", ECHO),
    "urlopen": call("urllib.request", "urlopen", ECHO),
    "webbrowser": call("webbrowser", "open", ECHO),
    "smtp": call("smtplib", "SMTP", ECHO),
    "rmtree": call("shutil", "rmtree", ECHO),
    "unlink": call("os", "unlink", ECHO),
    "chmod": call("os", "chmod", ECHO),
    "temporary file": call("tempfile", "NamedTemporaryFile"),
    "thread": call("threading", "Thread"),
    "process": call("multiprocessing.process", "Process"),
    "signal": call("signal", "signal"),
    "exit": call("sys", "exit"),
    "trace": call("sys", "settrace"),
    "marshal": call("marshal", "loads", ECHO),
    "pickle": call("pickle", "loads", ECHO),
    "shelve": call("shelve", "open", ECHO),
    "code object": call("types", "CodeType"),
    "function type": call("types", "FunctionType"),
    "log file": call("logging", "FileHandler", ECHO),
    "log config": call("logging.config", "dictConfig"),
    "atexit": call("atexit", "register"),
    "pip": call("pip", "main"),
    "torch.load": call("torch", "load", ECHO),
    "torch.hub": call("torch.hub", "load", ECHO),
    "torch.jit": call("torch.jit", "load", ECHO),
    "numpy.load": call("numpy", "load", ECHO),
    "runstring": call("numpy.testing._private.utils", "runstring", ECHO),
    "cloudpickle": call("cloudpickle.cloudpickle", "_make_function"),
    "dill": call("dill._dill", "_create_function"),
    "joblib": call("joblib", "load", ECHO),
    "pandas": call("pandas", "read_pickle", ECHO),
    "requests": call("requests", "get", ECHO),
    "through a module": call("torch.serialization", "os.system", ECHO),
    "partial": call("functools", "partial", SYSTEM, ECHO),
    "partial of a partial": call("functools", "partial", call("functools", "partial", SYSTEM), ECHO),
    "getattr of a module": call("builtins", "getattr", call("builtins", "__import__", ECHO), text("system")),
    "getattr that is called": call("builtins", "getattr", b"cyours\nmodule\n", text("x")) + b")R",
    "what a call gave": call("yours", "Thing") + b")R",
    "attrgetter that is called": call("operator", "attrgetter", text("system")) + b")R",
    "methodcaller that is called": call("operator", "methodcaller", text("system")) + b")R",
    "reduce": call("functools", "reduce", SYSTEM, b"]"),
    "map": call("builtins", "map", SYSTEM, b"]"),
    "default factory": call("collections", "defaultdict", SYSTEM),
    "iterator of calls": call("builtins", "iter", SYSTEM, ECHO),
    "state": call("yours", "Thing") + b"}" + text("__setstate__") + SYSTEM + b"sb",
    "reconstructed": call("copyreg", "_reconstructor", b"csubprocess\nPopen\nc__builtin__\nobject\nN"),
    "new object": call("copyreg", "__newobj__", b"csubprocess\nPopen\n"),
    "a class of three": call("builtins", "type", text("A"), b")", b"}"),
    "extension": b"\x82\x01",
    "old class": b"(" + ECHO + b"iposix\nsystem\n",
    "old class of a value": b"(" + SYSTEM + ECHO + b"o",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_code_refuses_the_file(name: str, pth: Any) -> None:
    with pytest.raises(SafetyError):
        converter.read(pth(beside(HOSTILE[name])))


def test_the_tables_are_large() -> None:
    assert len(BENIGN) + len(RAW) >= 60 <= len(HOSTILE)


def test_what_is_only_named_runs_nothing(pth: Any) -> None:
    for named in (b"cposix\nsystem\n", b"cbuiltins\neval\n", b"ctorch.hub\nload\n"):
        checkpoint = converter.read(pth(beside(named)))
        assert list(checkpoint.tensors) == ["w"]
        assert [line.name for line in checkpoint.lines] == ["other"]


def test_nothing_is_imported(pth: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sprung.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for value in (b"csprung\nThing\n", call("sprung", "Thing"), call("sprung", "thing")):
        assert converter.read(pth(beside(value))).tensors
