"""ckconv: model checkpoints from any format to any other, whole, safe, streamed and verified.

::

    import converter

    report = converter.convert("in.pth", "out/", to="savedmodel")   # -> Report; raises CkconvError
    checkpoint = converter.read("in.pth")                           # -> Checkpoint; no tensor is read yet
    checkpoint.tensors["bert.pooler.dense.weight"].numpy()          # now this one is
    converter.write(checkpoint, "out.safetensors")

A tour of the code, from the top:

- ``cli/``        the command `ckconv`, one file per command: parse, call the library, print, exit code
- ``program.py``  the program on one screen: read, plan, write, prove, publish
- ``options.py``  what a user may ask, each option declared once (``declaring.py``)
- ``planning/``   what a target is to hold, decided before a byte is written: source and target, what of a checkpoint is
  selected, its optimizer, its graph, and what child processes may read and take for it
- ``proof/``      that what was written is what was planned: weights bit for bit, outputs compared; ``difference.py``
  compares two checkpoints
- ``report/``     the ledger, what was proven, and the file that they are written to
- ``execution/``  streams a plan, runs frameworks in child processes, stages and publishes; ``box/`` is what such a
  process is closed into
- ``formats/``    bytes <-> Checkpoint, one module per format, found by scanning the folder
- ``dialects/``   names, layouts and conventions between frameworks; ``dialects/identity/`` says which class of
  transformers a checkpoint is of
- ``graphs/``     tracing, lowering and running: ``description/`` what a graph is, ``fitting/`` which of its tensors are
  which of a checkpoint's, ``trace/`` into ONNX, ``passes/`` over it, ``lower/`` into TensorFlow and PyTorch, ``run/``;
  ``calls.py`` lists what child processes are called for
- ``storage/``    kinds of storage besides local files, one module per kind, found by scanning the folder
- ``encoding/``   byte encodings that formats share: the pickle machine, zip, safetensors, HDF5, protocol buffers
- ``model/``      the neutral checkpoint; ``errors.py`` everything that can go wrong, ``observer.py`` who is told how
  far the work is, ``version.py`` the version
- ``testing.py``  the tests that every format is held to, those of other packages too (``entry_points.py``)
- ``keras_optimizers.py``  Keras's optimizers with epsilon where PyTorch adds it

Imports run downwards only.

What other packages may rest on: this module, ``converter.errors``, ``converter.formats`` (`Format`, `Probe`),
``converter.storage`` (`Storage`), what ``converter.model`` has without an underscore, ``converter.testing`` and
``converter.keras_optimizers``, which saved Keras models name. Everything else may move.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from converter.version import __version__

if TYPE_CHECKING:
    from converter.errors import CkconvError
    from converter.model.checkpoint import Checkpoint
    from converter.model.tensor import Tensor
    from converter.observer import Observer
    from converter.options import Options
    from converter.program import convert, diff, read, verify, write
    from converter.report import Report

__all__ = [
    "Checkpoint",
    "CkconvError",
    "Observer",
    "Options",
    "Report",
    "Tensor",
    "__version__",
    "convert",
    "diff",
    "read",
    "verify",
    "write",
]

_HOMES = {
    "Checkpoint": "converter.model.checkpoint",
    "CkconvError": "converter.errors",
    "Observer": "converter.observer",
    "Options": "converter.options",
    "Report": "converter.report",
    "Tensor": "converter.model.tensor",
    "convert": "converter.program",
    "diff": "converter.program",
    "read": "converter.program",
    "verify": "converter.program",
    "write": "converter.program",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
