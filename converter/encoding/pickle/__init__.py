"""Pickles without pickle: a machine that reads them as plain data, and a writer of those that torch.load accepts."""

from converter.encoding.pickle.globals import Global, runs_code
from converter.encoding.pickle.machine import Constructor, Machine, MemoryBytes
from converter.encoding.pickle.plain import PLAIN
from converter.encoding.pickle.sniffing import looks_like_pickle
from converter.encoding.pickle.values import Bytes, Constructed, FileBytes, OrderedItems, Placeholder

__all__ = [
    "PLAIN",
    "Bytes",
    "Constructed",
    "Constructor",
    "FileBytes",
    "Global",
    "Machine",
    "MemoryBytes",
    "OrderedItems",
    "Placeholder",
    "looks_like_pickle",
    "runs_code",
]
