"""Faults in tensors, the files behind them, and what is made of them."""

from __future__ import annotations

from tests.mutants import Fault

_TENSOR = "tests/model/test_tensor.py"
_CONCAT = "tests/model/test_concat.py"
_FILE = "tests/model/test_file.py"
_CHECKPOINT = "tests/model/test_checkpoint.py"
_GROWTH = "tests/model/test_size_limits.py"
_OUTPUT = "tests/model/test_output.py"
_KERNELS = "tests/model/test_kernels.py"

FAULTS = (
    Fault(
        module="model/tensor.py",
        old="if array.shape != self.shape or array.dtype != self.dtype.numpy:",
        new="if array.shape != self.shape:",
        tests=_TENSOR,
        what="an array of another element type passes for what was declared",
    ),
    Fault(
        module="model/tensor.py",
        old="if any(type(extent) is not int or extent < 0 for extent in self.shape):",
        new="if any(extent < 0 for extent in self.shape):",
        tests=_TENSOR,
        what="a shape of a file may hold numbers that are no integers",
    ),
    Fault(
        module="model/tensor.py",
        old=(
            "        if math.prod(shape) != self.size:\n"
            '            raise ReadError(f"cannot be reshaped from {list(self.shape)} to {list(shape)}", '
            "path=self.file.path)\n"
        ),
        new="",
        tests=_TENSOR,
        what="a stored tensor takes a shape of fewer elements",
    ),
    Fault(
        module="model/tensor.py",
        old="        if math.prod(self.shape) != inputs[0].size:\n",
        new="        if math.prod(self.shape) > inputs[0].size:\n",
        tests=_TENSOR,
        what="a computed tensor takes a shape of fewer elements",
    ),
    Fault(
        module="model/tensor.py",
        old=("if any(extent != 1 for extent in self.shape[:axis]) or not 0 <= start <= stop <= self.shape[axis]:"),
        new="if any(extent != 1 for extent in self.shape[:axis]):",
        tests=_TENSOR,
        what="a range past the last row takes what lies behind the tensor",
    ),
    Fault(
        module="model/tensor.py",
        old="if not 0 <= self.start <= self.stop <= shape[self.axis]:",
        new="if not 0 <= self.start <= self.stop:",
        tests=_TENSOR,
        what="a range past the end of an axis is declared",
    ),
    Fault(
        module="model/tensor.py",
        old="        copied = 0 if isinstance(self.operation, Transpose | Strided | Take) else self.nbytes\n",
        new="        copied = 0\n",
        tests=_TENSOR,
        what="memory of a computed array is not counted",
    ),
    Fault(
        module="model/tensor.py",
        old="copied + sum(tensor.nbytes + tensor.working_bytes for tensor in self.inputs)",
        new="copied + sum(tensor.nbytes for tensor in self.inputs)",
        tests=_TENSOR,
        what="memory that an input takes to be computed is not counted",
    ),
    Fault(
        module="model/tensor.py",
        old="        rest = bytes(data[end:])\n",
        new='        rest = b""\n',
        tests=_TENSOR,
        what="bytes of an element that two chunks share are lost",
    ),
    Fault(
        module="model/tensor.py",
        old="        extent > 1 and stride != expected for",
        new="        stride != expected for",
        tests=_TENSOR,
        what="an axis of one element with an odd stride makes a contiguous tensor be read whole",
    ),
    Fault(
        module="model/tensor.py",
        old="                tensor.dtype is not first.dtype\n                or (",
        new="                (",
        tests=_TENSOR,
        what="parts of different element types are joined",
    ),
    Fault(
        module="model/tensor.py",
        old="    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):",
        new="    if ours.shape != theirs.shape:",
        tests=_TENSOR,
        what="the same bits of another element type are the same tensor",
    ),
    Fault(
        module="model/tensor.py",
        old="        return (id(tensor.file), tensor.offset, tensor.dtype, tensor.shape)",
        new="        return (id(tensor.file), tensor.offset, tensor.nbytes)",
        tests=_TENSOR,
        what="two views of a storage in other shapes become one tied tensor",
    ),
    Fault(
        module="model/tensor.py",
        old="        return (tensor.operation, identity(tensor.inputs[0]))",
        new="        return identity(tensor.inputs[0])",
        tests=_TENSOR,
        what="a tie that is transposed on one side is taken for one that is not",
    ),
    Fault(
        module="model/tensor.py",
        old="    if isinstance(tensor, FileTensor) and tensor.nbytes:",
        new="    if isinstance(tensor, FileTensor):",
        tests=_TENSOR,
        what="empty tensors of one place are tied",
    ),
    Fault(
        module="model/tensor.py",
        old="is_lost = np.isfinite(array) & ~np.isfinite(result)",
        new="is_lost = ~np.isfinite(result)",
        tests=_TENSOR,
        what="an infinity that was one before counts as overflow",
    ),
    Fault(
        module="model/tensor.py",
        old="            for position, item in enumerate(value):\n",
        new="            for position, item in enumerate(value, 1):\n",
        tests=_TENSOR,
        what="tensors within lists are named by the wrong position",
    ),
    Fault(
        module="model/tensor.py",
        old='        if left:\n            raise ReadError(f"declared as',
        new='        if left > 0:\n            raise ReadError(f"declared as',
        tests=_TENSOR,
        what="a computation of more bytes than declared is cut off without a word",
    ),
    Fault(
        module="model/dtype.py",
        old='return "float" in self.value',
        new='return self.value.startswith("float")',
        tests=_TENSOR,
        what="bfloat16 is no floating-point type",
    ),
    Fault(
        module="model/file.py",
        old="os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        new="os.O_RDONLY | os.O_CLOEXEC",
        tests=_FILE,
        what="a pipe is waited for",
    ),
    Fault(
        module="model/file.py",
        old=(
            "        if not stat.S_ISREG(status.st_mode):\n"
            '            raise ReadError("is not a regular file", path=path)\n'
        ),
        new="",
        tests=_FILE,
        what="a device is read",
    ),
    Fault(
        module="model/file.py",
        old="(0 if follow_symlink else os.O_NOFOLLOW)",
        new="0",
        tests=_FILE,
        what="a link that may not be followed is",
    ),
    Fault(
        module="model/file.py",
        old="if offset < 0 or length < 0 or offset + length > self.size:",
        new="if offset + length > self.size:",
        tests=_FILE,
        what="negative positions and lengths are not refused",
    ),
    Fault(
        module="model/file.py",
        old="            if count == 0:\n",
        new="            if count == 0 and not offset:\n",
        tests=_FILE,
        what="a file that shrank is read for ever",
    ),
    Fault(
        module="model/file.py",
        old="            yield chunk\n        if not self._is_verified and value != self.expected:",
        new=(
            "            yield chunk\n"
            "        was_verified, self._is_verified = self._is_verified, True\n"
            "        if not was_verified and value != self.expected:"
        ),
        tests=_FILE,
        what="what was found damaged once counts as checked",
    ),
    Fault(
        module="model/file.py",
        old="return (offset, length) == (self.offset, self.length)",
        new="return offset == self.offset",
        tests=_FILE,
        what="a tensor at the start of a checked range is read as the whole range",
    ),
    Fault(
        module="encoding/folder.py",
        old="CONFIG_NAMES = (CONFIG_NAME, KERAS_CONFIG_NAME)",
        new="CONFIG_NAMES = (CONFIG_NAME, CONFIG_NAME)",
        tests="tests/formats/test_configs_in_folders.py",
        what="config.json of a folder is Keras's",
    ),
    Fault(
        module="model/checkpoint.py",
        old="            Part.CONFIG: self.config is not None or self.keras_config is not None,",
        new="            Part.CONFIG: self.config is not None,",
        tests=_CHECKPOINT,
        what="a Keras config is dropped without a line",
    ),
    Fault(
        module="model/checkpoint.py",
        old="            Part.EXTRAS: bool(self.extras),",
        new="            Part.EXTRAS: self.optimizer is not None and bool(self.extras),",
        tests=_CHECKPOINT,
        what="an epoch without an optimizer is dropped without a line",
    ),
    Fault(
        module="model/checkpoint.py",
        old="buffers=frozenset(renamed[name] for name in self.buffers)",
        new="buffers=self.buffers",
        tests=_CHECKPOINT,
        what="buffers keep their old names",
    ),
    Fault(
        module="model/checkpoint.py",
        old="return self.tensors[self.aliases.get(name, name)]",
        new="return self.tensors[name]",
        tests=_CHECKPOINT,
        what="a tied name has no tensor",
    ),
    Fault(
        module="model/optimizer.py",
        old="                slot: {name: tensor for name, tensor in tensors.items() if name not in names}\n",
        new="                slot: dict(tensors)\n",
        tests=_CHECKPOINT,
        what="moments of a parameter that was left out stay",
    ),
    Fault(
        module="model/size_limits.py",
        old="checkpoint.all_tensors",
        new="tuple(checkpoint.tensors.values())",
        tests=_GROWTH,
        what="moments may declare any size",
    ),
    Fault(
        module="model/size_limits.py",
        old="{file.path: file.size for tensor in tensors for file in files_of(tensor)}",
        new="{id(tensor): file.size for tensor in tensors for file in files_of(tensor)}",
        tests=_GROWTH,
        what="a file counts once for each tensor that it holds",
    ),
    Fault(
        module="model/size_limits.py",
        old="if declared > max(FREE_BYTES, RATIO_LIMIT * stored):",
        new="if declared > FREE_BYTES + RATIO_LIMIT * stored:",
        tests=_GROWTH,
        what="what may grow for free is added to what may grow by what is stored",
    ),
    Fault(
        module="model/kernels.py",
        old="return (rank - 1, rank - 2, *range(rank - 2))",
        new="return (rank - 2, rank - 1, *range(rank - 2))",
        tests=_KERNELS,
        what="a kernel's inputs and outputs are swapped",
    ),
    Fault(
        module="model/kernels.py",
        old="return (*range(2, rank), 1, 0)",
        new="return (*reversed(range(2, rank)), 1, 0)",
        tests=_KERNELS,
        what="height and width of a kernel are swapped",
    ),
    Fault(
        module="model/kernels.py",
        old='return f"{module}{dot}{KERNEL}" if last == WEIGHT else None',
        new='return f"{module}{dot}{KERNEL}" if module and last == WEIGHT else None',
        tests=_KERNELS,
        what="a model that is one layer has no kernel",
    ),
    Fault(
        module="model/output.py",
        old="return sum(file.nbytes for file in self.files) + self.build_bytes",
        new="return sum(file.nbytes for file in self.files)",
        tests=_OUTPUT,
        what="space for what a framework builds is not asked for",
    ),
    Fault(
        module="model/output.py",
        old="return (*(file.name for file in self.files), *self.built)",
        new="return (*self.built, *(file.name for file in self.files))",
        tests=_OUTPUT,
        what="what is built last appears first",
    ),
    Fault(
        module="model/output.py",
        old="return self._json(self.source_hash(), self.counts).ljust(self.nbytes)",
        new="return self._json(self.source_hash(), self.counts)",
        tests=_OUTPUT,
        what="provenance is shorter than was laid out",
    ),
    Fault(
        module="model/output.py",
        old="_COUNT_LIMIT = 10**9",
        new="_COUNT_LIMIT = 99",
        tests=_OUTPUT,
        what="a hundred tensors do not fit into the provenance",
    ),
    Fault(
        module="model/interleaving.py",
        old="        if self._rest or any(len(chunk) for chunk in self._chunks):",
        new="        if self._rest:",
        tests=_CONCAT,
        what="a chunk too many of a part is left out without a word",
    ),
    Fault(
        module="model/interleaving.py",
        old="    for stream in streams:\n        stream.end()\n",
        new="",
        tests=_CONCAT,
        what="checksums at the end of parts are not looked at",
    ),
    Fault(
        module="model/output.py",
        old="return self.nbytes + self.scratch_bytes",
        new="return self.nbytes",
        tests="tests/model/test_output.py",
        what="what a child needs meanwhile is not counted as space that is needed",
    ),
    Fault(
        module="planning/plan.py",
        old="verification=verification, nbytes=nbytes, built_by=None, warnings",
        new="verification=verification, warnings",
        tests="tests/cli/test_main_job.py",
        what="a report has the bytes that were planned, not those that are there",
    ),
    Fault(
        module="model/output.py",
        old="return (*(file.name for file in self.files), *self.built)",
        new="return (*self.built, *(file.name for file in self.files))",
        tests="tests/model/test_output.py",
        what="files appear in another order than they may",
    ),
    Fault(
        module="model/checkpoint.py",
        old='if key in self.values] or ["dtype"]',
        new='if key in self.values][:0] or ["dtype"]',
        tests="tests/model/test_config.py::test_dtype_changes_where_it_is",
        what="a config says two element types",
    ),
    Fault(
        module="model/size_limits.py",
        old="        files[source] = open_file(source).size\n",
        new="        files[source] = 0\n",
        tests=_GROWTH,
        what="a source all of whose tensors are made when it is read counts as empty",
    ),
    Fault(
        module="model/tensor.py",
        old="            overflowed, subnormal = overflowed + counted[0], subnormal + counted[1]\n",
        new="            overflowed, subnormal = counted[0], counted[1]\n",
        tests=_TENSOR,
        what="of a cast in pieces only the last is counted",
    ),
    Fault(
        module="model/tensor.py",
        old="            return len(left) == len(right)\n",
        new="            return True\n",
        tests=_TENSOR,
        what="a stream that is the start of another is the same",
    ),
    Fault(
        module="model/ledger.py",
        old="return LedgerLine(status=Status.DROPPED, name=name, reason=reason or kind.value, kind=kind)",
        new="return LedgerLine(status=Status.DROPPED, name=name, reason=reason or kind.value)",
        tests="tests/formats/test_tensorflow1_optimizer.py",
        what="a line of what is no weight has the kind of one, and stays when its optimizer is carried",
    ),
    Fault(
        module="model/output.py",
        old="return (*(file.name for file in self.files), *self.built)",
        new="return tuple(file.name for file in self.files)",
        tests=_OUTPUT,
        what="what is built has no place in the order of files",
    ),
)
