"""HDF5 (https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html): objects walked, never followed elsewhere.

libhdf5 writes the structure of a file here, and parses it in a limited child process; the bytes of tensors are read and
written by position here, so that nothing in a file can make it load a plug-in, open another file, inflate more than was
declared, or end this process.
"""

from __future__ import annotations

from converter.encoding.hdf5.reading import Dataset, Group, is_numbered, read
from converter.encoding.hdf5.writing import FileContent, image, pieces, shared

__all__ = ["Dataset", "FileContent", "Group", "image", "is_numbered", "pieces", "read", "shared"]
