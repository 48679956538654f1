"""What a pickle names, and which of it runs code when it is called. Nothing is ever imported.

A name alone runs nothing, and stands for itself. A call is judged by what would be called (`converter.encoding.pickle.
calls`): of the standard library everything but what holds data, of packages what loads or runs code.
"""

from __future__ import annotations

import builtins
import re
import sys
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Global:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RENAMED_SINCE_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins"}

_REMOVED_OR_PYTHON_2 = _words(
    """
    __builtin__ anydbm asynchat asyncore audiodev BaseHTTPServer Bastion binhex bsddb Canvas CGIHTTPServer cgi cgitb
    chunk commands compiler ConfigParser Cookie cookielib copy_reg cPickle crypt cStringIO dbhash Dialog dircache
    distutils dl DocXMLRPCServer dumbdbm dummy_thread dummy_threading exceptions FileDialog formatter fpformat
    future_builtins gdbm gopherlib hotshot htmlentitydefs htmllib HTMLParser httplib ihooks imageop imghdr imp
    imputil lib2to3 linuxaudiodev mailcap md5 mhlib mimetools MimeWriter mimify msilib multifile mutex new nis
    nntplib ossaudiodev parser pipes popen2 posixfile Queue repr rexec rfc822 robotparser rotor ScrolledText sets
    sgmllib sha SimpleHTTPServer SimpleXMLRPCServer smtpd sndhdr SocketServer spwd statvfs StringIO strop sunau
    sunaudio symbol telnetlib thread Tkinter tkFileDialog tkMessageBox toaiff urllib2 urlparse user UserDict
    UserList UserString uu whichdb whrandom xdrlib xmllib xmlrpclib _ast _bootlocale _winreg _winapi winreg msvcrt
    nt ntpath
    """
)
"""Standard modules that the running Python does not have."""

_RUNNERS = _words(
    """
    pip setuptools pkg_resources _distutils_hack ensurepip pytest _pytest IPython ipykernel cloudpickle dill joblib
    jsonpickle numpy.testing numpy.f2py numpy.distutils torch.hub torch.jit torch.package torch.testing
    torch.utils.cpp_extension torch.utils.bottleneck torch.utils.collect_env torch._inductor torch._dynamo
    torch.distributed.rpc torch.distributed.run torch.multiprocessing torch.storage._load_from_bytes torch.load
    torch.serialization.load torch.serialization._legacy_load torch.serialization._load torch.ops torch._ops
    torch.classes torch._classes transformers.dynamic_module_utils torch.fx.graph_module._forward_from_src
    torch.fx.graph_module._exec_with_source numpy.load numpy.lib.npyio.load numpy.lib._npyio_impl.load pandas.eval
    pandas.read_pickle pandas.io.pickle.read_pickle pandas.core.computation sympy.sympify numexpr.evaluate
    """
)
"""Modules and functions of packages that load or run code."""

_ACTING = _words(
    """
    builtins call command compile connect decode delete deserialize download dump eval evaluate exec execfile
    execute execl execle execlp execlpe execv execve execvp execvpe fetch fork forkpty getoutput getstatusoutput
    glob import include install invoke launch listen load loads main open popen popen2 popen3 popen4 read remove
    request run runcode runsource runstring save script send serve shell source spawn spawnl spawnle spawnlp
    spawnlpe spawnv spawnve spawnvp spawnvpe start startfile subprocess system unlink upload urlopen urlretrieve
    write
    """
)
"""Words in the names of functions that do something, in any package. Those that rebuild an object have none."""
_REQUESTS = ("get", "post", "put")
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

_OF_COMPILED_MODULES = _words(
    "torch._dynamo.convert_frame torch._dynamo.decorators torch._dynamo.eval_frame torch._dynamo.hooks "
    "torch._dynamo.repro.after_dynamo"
)
"""Modules of a runner whose classes are in what torch.compile makes of a module, and in tensors with dynamic axes."""

TORCHSCRIPT = "__torch__"
"""Where TorchScript has its classes: code beside a pickle, and no module that anything could import."""

INERT = _words(
    """
    argparse.Namespace builtins.bool builtins.bytearray builtins.bytes builtins.complex builtins.dict builtins.float
    builtins.frozenset builtins.int builtins.list builtins.object builtins.range builtins.set builtins.slice
    builtins.str builtins.tuple builtins.unicode builtins.long _codecs.encode collections.Counter
    collections.OrderedDict collections.defaultdict collections.deque copyreg._reconstructor datetime.date
    datetime.datetime datetime.time datetime.timedelta datetime.timezone decimal.Decimal enum.Enum enum.Flag
    enum.IntEnum enum.IntFlag enum.StrEnum fractions.Fraction pathlib.Path pathlib.PosixPath pathlib.PurePath
    pathlib.PurePosixPath pathlib.PureWindowsPath pathlib.WindowsPath pathlib._local.Path pathlib._local.PosixPath
    pathlib._local.PurePath pathlib._local.PurePosixPath pathlib._local.PureWindowsPath pathlib._local.WindowsPath
    types.SimpleNamespace uuid.UUID
    """
) | _words(
    """
    _io.BytesIO _io.StringIO _random.Random array._array_reconstructor builtins.abs builtins.all builtins.any
    builtins.ascii builtins.bin builtins.callable builtins.chr builtins.classmethod builtins.divmod
    builtins.enumerate builtins.filter builtins.format builtins.getattr builtins.hash builtins.hex
    builtins.isinstance builtins.issubclass builtins.iter builtins.len builtins.map builtins.max builtins.min
    builtins.next builtins.oct builtins.ord builtins.pow builtins.property builtins.repr builtins.reversed
    builtins.round builtins.sorted builtins.staticmethod builtins.sum builtins.type builtins.xrange builtins.zip
    ConfigParser.ConfigParser ConfigParser.RawConfigParser ConfigParser.SafeConfigParser contextlib.nullcontext
    copyreg.__newobj__ copyreg.__newobj_ex__ copyreg.pickle_complex copyreg.pickle_union cStringIO.StringIO
    http.HTTPMethod http.HTTPStatus http.cookies.Morsel http.cookies.SimpleCookie importlib.metadata.PackagePath
    inspect._ParameterKind inspect._empty io.BytesIO io.StringIO logging.Filter logging.Formatter logging.LogRecord
    logging.Logger logging.LoggerAdapter logging.NullHandler logging.PlaceHolder logging.RootLogger
    logging.StreamHandler logging.getLogger os._Environ os.stat_result os.terminal_size os.times_result
    os.uname_result platform.uname_result posix.stat_result posix.times_result posix.uname_result re.RegexFlag
    re._compile re.compile signal.Handlers signal.Signals socket.AddressFamily socket.SocketKind sre_compile.compile
    StringIO.StringIO sys.float_info sys.version_info threading.local time.struct_time traceback.FrameSummary
    traceback.StackSummary traceback.TracebackException types.GenericAlias types.MappingProxyType types.MethodType
    UserDict.UserDict UserList.UserList UserString.UserString weakref.WeakKeyDictionary weakref.WeakSet
    weakref.WeakValueDictionary xml.etree.ElementTree.Element zoneinfo.ZoneInfo._unpickle
    """
)
"""What of modules that are no mere data holds data and nothing else."""

_OF_DATA = _words(
    """
    _collections _decimal _functools _operator _struct ConfigParser abc array bisect calendar cmath collections
    collections.abc colorsys configparser contextvars copy csv dataclasses datetime decimal difflib email.header
    email.message enum fractions functools graphlib heapq inspect ipaddress itertools keyword math numbers operator
    optparse queue random secrets sched sets statistics string struct textwrap types typing unicodedata urllib.parse
    uuid zoneinfo json.decoder json.encoder
    """
)
"""Standard modules whose functions compute and whose classes hold data. What they are given is judged besides."""

_NOT_OF_DATA = _words(
    """
    types.CodeType types.FunctionType types.LambdaType types.ModuleType types.new_class types.DynamicClassAttribute
    types.coroutine types.prepare_class types.resolve_bases inspect.getsource inspect.getfile inspect.getmodule
    inspect.getmembers inspect.getmembers_static inspect.getattr_static inspect.get_annotations inspect.signature
    inspect.unwrap inspect.stack inspect.trace inspect.currentframe inspect.getdoc inspect.getcomments
    inspect.getsourcefile inspect.getsourcelines inspect.findsource inspect.main inspect.importlib
    typing.get_type_hints typing.ForwardRef random.SystemRandom collections.namedtuple dataclasses.make_dataclass
    enum.global_enum zoneinfo.ZoneInfo.from_file csv.reader csv.writer uuid.getnode uuid.uuid1
    """
)
"""What in them makes code, or asks the machine."""

_EXCEPTIONS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
)


def resolve(module: str, name: str) -> Global:
    """Return the descriptor of a name, in the modules of Python 3."""
    return Global(module=_RENAMED_SINCE_PYTHON_2.get(module, module), name=name)


@lru_cache(maxsize=1 << 14)
def runs_code(found: Global) -> bool:
    """Whether a call of this can run code, read or write files, or reach others, as far as its name says."""
    text = str(found)
    if _holds_data(found) or (found.module in _OF_COMPILED_MODULES and _is_class_like(found.name)):
        return False
    top = found.module.partition(".")[0]
    if top == TORCHSCRIPT:
        return False
    if top in sys.stdlib_module_names or top in _REMOVED_OR_PYTHON_2 or _is_runner(text):
        return True
    *path, last = found.name.split(".")
    is_class = _is_class_like(last) and not path
    is_acting = not is_class and (last in _REQUESTS or _acts(last))
    return last == "Popen" or is_acting or any(not _is_class_like(part) for part in path)


def _holds_data(found: Global) -> bool:
    if str(found) in INERT or (found.module == "builtins" and found.name in _EXCEPTIONS):
        return True
    is_public = not any(part.startswith("_") for part in found.name.split("."))
    of, _, method = found.name.rpartition(".")
    is_own = not of or ((_is_class_like(of) or found.module == "datetime") and not _acts(method))
    return found.module in _OF_DATA and is_public and is_own and str(found) not in _NOT_OF_DATA


def _acts(name: str) -> bool:
    return not _ACTING.isdisjoint(word.lower() for word in _WORD.findall(name))


def is_function_like(found: Global) -> bool:
    """Whether the name is written as functions are: not in CapWords."""
    return not _is_class_like(found.name)


def _is_class_like(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def _is_runner(text: str) -> bool:
    parts = text.split(".")
    return any(".".join(parts[:count]) in _RUNNERS for count in range(1, len(parts) + 1))
