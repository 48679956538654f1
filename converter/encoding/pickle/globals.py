"""What a pickle may name. A name is judged and described, never imported.

Three fates: names of the standard library other than inert classes, and names known to run code, are refused where
they are mentioned; functions are refused where they are called; classes nobody knows become placeholders. `getattr`
alone is judged by what it is called with, and refused where it is not called.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from converter.errors import SafetyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Global:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


GETATTR = Global(module="builtins", name="getattr")
"""What Python 3.11.2 pickles the members of enumerations with; nothing else may be asked of it."""
_MEMBER = re.compile(r"[A-Z][A-Z0-9_]*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_RENAMED_SINCE_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_REMOVED_OR_PYTHON_2 = _words(
    """
    __builtin__ anydbm asynchat asyncore audiodev BaseHTTPServer Bastion binhex bsddb Canvas CGIHTTPServer cgi cgitb
    chunk commands compiler ConfigParser Cookie cookielib copy_reg cPickle crypt cStringIO dbhash Dialog dircache
    distutils dl DocXMLRPCServer dumbdbm dummy_thread dummy_threading exceptions FileDialog formatter fpformat
    future_builtins gdbm gopherlib hotshot htmlentitydefs htmllib HTMLParser httplib ihooks imageop imghdr imp imputil
    lib2to3 linuxaudiodev mailcap md5 mhlib mimetools MimeWriter mimify msilib multifile mutex new nis nntplib
    ossaudiodev parser pipes popen2 posixfile Queue repr rexec rfc822 robotparser rotor ScrolledText sets sgmllib sha
    SimpleHTTPServer SimpleXMLRPCServer smtpd sndhdr SocketServer spwd statvfs StringIO strop sunau sunaudio symbol
    telnetlib thread Tkinter tkFileDialog tkMessageBox toaiff urllib2 urlparse user UserDict UserList UserString uu
    whichdb whrandom xdrlib xmllib xmlrpclib _ast _bootlocale _winreg _winapi winreg msvcrt nt ntpath
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
    torch.classes torch._classes torch.fx.graph_module._forward_from_src torch.fx.graph_module._exec_with_source
    numpy.load numpy.lib.npyio.load numpy.lib._npyio_impl.load pandas.eval pandas.read_pickle
    pandas.io.pickle.read_pickle pandas.core.computation sympy.sympify numexpr.evaluate
    """
)
"""Modules and functions of packages that load or run code; refused wherever a pickle mentions them."""

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
)
"""What of the standard library holds data and nothing else."""


def resolve(module: str, name: str, *, path: object) -> Global:
    """Return the descriptor of a name. Raises SafetyError when a checkpoint has no business naming it."""
    found = Global(module=_RENAMED_SINCE_PYTHON_2.get(module, module), name=name)
    if "." in name:
        raise SafetyError(f"reaches through a module for {found}, which is refused", path=path)
    if found == GETATTR:
        return GETATTR
    if str(found) in INERT:
        return found
    top = found.module.partition(".")[0]
    if top in sys.stdlib_module_names or top in _REMOVED_OR_PYTHON_2 or _is_runner(found):
        raise SafetyError(f"asks for {found}, which can run code", path=path)
    return found


def is_member(arguments: tuple[Any, ...]) -> bool:
    """Whether the arguments of `GETATTR` name a member of an enumeration that can be ignored."""
    match arguments:
        case (Global() as owner, str() as name):
            is_class = owner is not GETATTR and str(owner) not in INERT and not is_function_like(owner)
            return is_class and _MEMBER.fullmatch(name) is not None
    return False


def is_function_like(found: Global) -> bool:
    """Whether the name is written as functions are: not in CapWords."""
    return not found.name.lstrip("_")[:1].isupper()


def _is_runner(found: Global) -> bool:
    parts = str(found).split(".")
    return any(".".join(parts[:count]) in _RUNNERS for count in range(1, len(parts) + 1))
