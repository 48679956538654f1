"""Files of torch.save without torch: read as a plain value whose tensors are declared, written from such a value."""

from converter.encoding.torch_file.archives import MAGIC, LegacyArchive, ZipArchive, archive_of
from converter.encoding.torch_file.numpy_values import NumpyArray
from converter.encoding.torch_file.storages import Storage, View
from converter.encoding.torch_file.tree import Walk, is_module
from converter.encoding.torch_file.writing import PROVENANCE_RECORD, StateDict, torch_file

__all__ = [
    "MAGIC",
    "PROVENANCE_RECORD",
    "LegacyArchive",
    "NumpyArray",
    "StateDict",
    "Storage",
    "View",
    "Walk",
    "ZipArchive",
    "archive_of",
    "is_module",
    "torch_file",
]
