"""What a user may ask of a conversion, whatever its formats."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from converter.declaring import Need, Use, option, options_of, set_choices
from converter.encoding.shards import parse_size
from converter.errors import UsageError
from converter.model.dtype import DType

_DATA_SUFFIX = ".npz"
_MOST_JOBS = 256
_LEAST_MEMORY_BYTES = 16 << 20
_MOST_SECONDS = 365 * 86400
_OPSETS = range(7, 29)
"""Of ONNX's operators, from the oldest that onnxruntime runs to the newest that onnx 1.23 has."""
DEFAULT_TIMEOUT_SECONDS = 3600.0
_DTYPE_ALIASES = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
}
_CONFIG_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
_EXTENT = re.compile(r"[1-9][0-9]{0,8}|\?", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][\w.+/-]*")
MODEL_TYPE = "model_type"
"""What `--config-value` may add where a config does not say it, and never changes."""
_FIXED_IN_CONFIG = frozenset(  # by --task, --dtype and --with-cache, or by what a graph returns and may run
    (
        "architectures",
        "attn_implementation",
        "auto_map",
        "dtype",
        "experts_implementation",
        MODEL_TYPE,
        "output_attentions",
        "output_hidden_states",
        "quantization_config",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "use_mems_eval",
    )
)


class OptimizerMode(str, Enum):
    """What is asked of optimizer state."""

    AUTO = "auto"
    """carried wherever the target can"""
    KEEP = "keep"
    """carried, or the conversion fails"""
    DROP = "drop"
    """left out"""


class SourceHash(str, Enum):
    """By what the source is told from another, in what DST records."""

    BLAKE3 = "blake3"
    SHA256 = "sha256"
    """as the Hub says it"""


class Verify(str, Enum):
    """What is to be proven of a target."""

    AUTO = "auto"
    """its weights, and its outputs where what they need is installed"""
    WEIGHTS = "weights"
    OUTPUTS = "outputs"
    """both, or the conversion fails"""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `convert`, whatever its formats; those of a format are in its module.

    What each does is in its declaration (`converter.declaring`), of which the command line is made, too.
    """

    from_format: str | None = option(
        None, "Format of SRC, when its content does not say.", metavar="FORMAT", flag="--from"
    )
    config: Path | None = option(
        None,
        "A config.json, or the folder that has it, instead of the one beside a source; tokenizer files beside it go "
        "along where that has none.",
        metavar="FILE",
    )
    tokenizer: Path | None = option(
        None,
        "The folder whose tokenizer files go along, instead of those beside SRC.",
        metavar="DIR",
        needs=Need.ASSETS,
    )
    config_value: tuple[str, ...] = option(
        (),
        "Another value in the config of a transformers model than its file says: JSON or a word; NAME has dots where "
        "it is of a part (vision_config.image_size=224).",
        metavar="NAME=VALUE",
        needs=Need.CONFIG,
    )
    custom_objects: tuple[str, ...] = option(
        (),
        "Your own layers of a Keras model, package.module:Name,Name; imported when its graph is needed, or what "
        "is inside them.",
        metavar="MODULE:NAMES",
        needs=Need.OWN_CLASSES,
        is_code=True,
    )
    signature: str | None = option(
        None,
        "Which signature of a SavedModel is converted; serving_default, or the only one, unless it is given.",
        metavar="NAME",
        needs=Need.SIGNATURES,
    )
    task: str | None = option(
        None,
        "Which head the model has, such as question-answering, when neither config nor tensors say.",
        metavar="TASK",
        needs=Need.HEAD,
    )
    mapping: Path | None = option(
        None,
        "Rules of your own for names and layouts, a JSON file, applied in the direction that matches.",
        metavar="FILE",
    )
    dtype: str | None = option(
        None,
        "Cast floating-point weights and buffers (float32, float16, bfloat16 ...), never integers or moments; says how "
        "many values overflowed.",
        metavar="TYPE",
    )
    include: tuple[str, ...] = option((), "Convert only tensors of such names, a shell pattern.", metavar="PATTERN")
    exclude: tuple[str, ...] = option((), "Leave tensors of such names out, a shell pattern.", metavar="PATTERN")
    optimizer: OptimizerMode = option(
        OptimizerMode.AUTO,
        "Carry optimizer state wherever DST can, fail where it cannot, or leave it out.",
        choices=OptimizerMode,
    )
    hyperparameter: tuple[str, ...] = option(
        (),
        "Of the optimizer, instead of what the file says or lacks: learning_rate=1e-3.",
        metavar="NAME=VALUE",
        needs=Need.STATE,
    )
    param_order: Path | None = option(
        None,
        "A file that lists an optimizer's parameters in the order of their numbers.",
        metavar="FILE",
        needs=Need.STATE,
    )
    trainable: str | None = option(
        None,
        "Names of the parameters that an optimizer trains, where it only numbers them.",
        metavar="REGEX",
        needs=Need.STATE,
    )
    weights_only: bool = option(
        False, "Write no graph where DST could have one, and arrays alone where nothing says of which layers they are."
    )
    with_cache: bool = option(
        False,
        "The graph of a decoder takes cached keys and values, and returns them.",
        extra="torch",
        needs=Need.TRACED_CLASS,
    )
    model: str | None = option(
        None,
        "Your own torch model, whose graph DST gets; it is imported and traced.",
        metavar="PACKAGE.MODULE:FACTORY",
        extra="torch",
        needs=Need.GRAPH,
        is_code=True,
    )
    inputs: str | Path | tuple[str | Path, ...] | None = option(
        None,
        "What --model takes, input_ids:int64[batch,seq]; and a file of arrays, <input> or <set>/<input>, on which "
        "outputs are compared instead of samples.",
        metavar="NAME:TYPE[DIM,...],...|FILE.npz",
    )
    shape: tuple[str, ...] = option(
        (),
        "The extent of an axis of the graph's inputs that may vary: sequence=576; or those of an input, ? for what "
        "stays: input=1,?.",
        metavar="NAME=N[,N...]",
        needs=Need.GRAPH,
    )
    opset: int | None = option(
        None,
        "Version of ONNX's operators that the graph is in; by default what the exporter gives.",
        metavar="N",
        needs=Need.GRAPH,
    )
    source_hash: SourceHash = option(
        SourceHash.BLAKE3,
        "The hash of SRC that DST records; of several files it is that of their lines HASH  NAME, by name.",
        choices=SourceHash,
    )
    verify: Verify = option(
        Verify.AUTO,
        "What is proven: weights always, and outputs where what they need is installed; weights; outputs; nothing.",
        choices=Verify,
        use=Use.PROVES,
    )
    atol: float | None = option(
        None,
        "Of outputs: an element x may differ by ATOL + RTOL x max(scale, |x|).",
        metavar="ATOL",
        use=Use.PROVES,
        needs=Need.OUTPUTS,
    )
    rtol: float | None = option(
        None,
        "The scale of an output is the median of its |x| without masked values; by default the RTOL of its type.",
        metavar="RTOL",
        use=Use.PROVES,
        needs=Need.OUTPUTS,
    )
    allow_dropped: tuple[str, ...] = option(
        (), "Accept that tensors of such names are lost, which otherwise is exit 3.", metavar="PATTERN"
    )
    allow_missing: tuple[str, ...] = option(
        (), "Accept that slots of such names are filled with zeros, which otherwise is exit 3.", metavar="PATTERN"
    )
    overwrite: bool = option(False, "Replace an earlier output, and an earlier report.", use=Use.PLACES)
    dry_run: bool = option(
        False, "Say what would become of every tensor, and how large DST would be; write nothing.", use=Use.PLACES
    )
    durable: bool = option(
        True, "Do not wait until the output is on the disk before it appears.", flag="--no-fsync", use=Use.PLACES
    )
    resume: bool = option(False, "Go on from the files that a killed attempt at DST finished.", use=Use.PLACES)
    jobs: int = option(
        1, "Threads that write and verify a file; the bytes are the same for any number.", metavar="N", use=Use.WORKS
    )
    max_memory: int | str = option(
        "256MiB",
        "Memory for buffers and for tensors computed at once, besides the largest tensor to be permuted.",
        metavar="SIZE",
        use=Use.WORKS,
    )
    timeout: float = option(
        DEFAULT_TIMEOUT_SECONDS,
        "Time for each child process: one that traces, builds or runs a graph.",
        metavar="SECONDS",
        use=Use.WORKS,
    )
    require_sandbox: bool = option(
        False, "Refuse where a layer of the box around child processes is missing; -v names them.", use=Use.WORKS
    )

    def __post_init__(self) -> None:
        set_choices(self)
        if self.data is not None and self.verify in (Verify.WEIGHTS, Verify.NONE):
            why = f"which --verify {self.verify.value} does not compare"
            raise UsageError(f"--inputs {self.data} is for outputs, {why}")
        if self.declared_inputs is not None and self.model is None:
            raise UsageError(
                f"--inputs {self.declared_inputs!r} says what --model takes, and there is no --model",
                hint=f"arrays to compare outputs on are in a file whose name ends in {_DATA_SUFFIX}",
            )
        self.target_dtype()
        _ = self.hyperparameters, self.config_values, self.shapes
        if not 1 <= self.jobs <= _MOST_JOBS:
            raise UsageError(f"--jobs is a number from 1 to {_MOST_JOBS}, not {self.jobs}")
        if not 0 < self.timeout <= _MOST_SECONDS:
            raise UsageError(f"--timeout is a number of seconds, 1 to {_MOST_SECONDS}, not {self.timeout:g}")
        if self.opset is not None and self.opset not in _OPSETS:
            raise UsageError(f"--opset is a number from {_OPSETS[0]} to {_OPSETS[-1]}, not {self.opset}")
        for flag, tolerance in (("--atol", self.atol), ("--rtol", self.rtol)):
            if tolerance is not None and not 0 <= tolerance < math.inf:
                raise UsageError(f"{flag} is a number from 0, not {tolerance:g}")
        if self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise UsageError(f"--max-memory is at least {_LEAST_MEMORY_BYTES >> 20} MiB, not {self.max_memory}")

    @classmethod
    def split(cls, values: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
        """Return the options among those given, and the rest, which are for formats."""
        known = {item.name for item in fields(cls)}
        general = cls(**{name: value for name, value in values.items() if name in known})
        return general, {name: value for name, value in values.items() if name not in known}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those asked for by name, their values read as JSON. Raises UsageError when they are no NAME=VALUE."""
        found = {}
        for argument in self.hyperparameter:
            name, _, text = argument.partition("=")
            if not name or name in found:
                raise UsageError(f"--hyperparameter is NAME=VALUE, each name once, not {argument!r}")
            try:
                found[name] = text if name == "class_name" else json.loads(text)
            except ValueError as error:
                raise UsageError(
                    f"--hyperparameter is NAME=VALUE with a value such as 0.1, not {argument!r}"
                ) from error
        return found

    @property
    def config_values(self) -> dict[str, Any]:
        """Those asked for by name. Raises UsageError when they are no NAME=VALUE, or none that a graph could heed."""
        found = {}
        for argument in self.config_value:
            name, _, text = argument.partition("=")
            if _CONFIG_NAME.fullmatch(name) is None or name in found:
                raise UsageError(f"--config-value is NAME=VALUE, each name once, not {argument!r}")
            if name.rpartition(".")[2] in _FIXED_IN_CONFIG and name != MODEL_TYPE:
                raise UsageError(f"--config-value cannot change {name}: other options or the graph decide it")
            found[name] = _json_or_word(text, argument)
        return found

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The extents asked for, by the name of an axis or an input. Raises UsageError when they are no NAME=N."""
        found: dict[str, tuple[int | None, ...]] = {}
        for argument in self.shape:
            name, _, text = argument.rpartition("=")
            extents = [each.strip() for each in text.split(",")]
            if not name or name in found or any(_EXTENT.fullmatch(each) is None for each in extents):
                raise UsageError(f"--shape is NAME=N or NAME=N,N,..., each name once, not {argument!r}")
            found[name] = tuple(None if each == "?" else int(each) for each in extents)
        return found

    @property
    def memory_bytes(self) -> int:
        """`max_memory` in bytes. Raises UsageError when it is no size."""
        return self.max_memory if isinstance(self.max_memory, int) else parse_size(self.max_memory)

    @property
    def deciding(self) -> dict[str, str]:
        """Those options that decide what the output is, as text."""
        named = {
            item.name: getattr(self, item.name) for item, declared in options_of(Options) if declared.use is Use.DECIDES
        }
        named["inputs"] = self.declared_inputs
        return {name: repr(value.value if isinstance(value, Enum) else value) for name, value in named.items()}

    @property
    def declared_inputs(self) -> str | None:
        """What `--inputs` says that a model takes. Raises UsageError when it says so twice."""
        return self._one([text for text in self._inputs if not text.endswith(_DATA_SUFFIX)])

    @property
    def data(self) -> Path | None:
        """The file of arrays that `--inputs` names. Raises UsageError for two."""
        name = self._one([text for text in self._inputs if text.endswith(_DATA_SUFFIX)])
        return None if name is None else Path(name)

    @property
    def _inputs(self) -> list[str]:
        paths = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        return [os.fspath(each) for each in paths if each is not None]

    @staticmethod
    def _one(paths: list[str]) -> str | None:
        if len(paths) > 1:
            raise UsageError(f"--inputs is given twice: {paths[0]!r} and {paths[1]!r}")
        return paths[0] if paths else None

    def target_dtype(self) -> DType | None:
        """Return the type to cast to, None for no cast. Raises UsageError when `dtype` is not floating-point."""
        if self.dtype is None:
            return None
        name = _DTYPE_ALIASES.get(self.dtype, self.dtype)
        known = [dtype.value for dtype in DType if dtype.is_floating]
        if name not in known:
            raise UsageError(f"unknown --dtype {self.dtype!r}", hint=f"known: {', '.join(known)}")
        return DType(name)


def _json_or_word(text: str, argument: str) -> Any:
    """Read a value as JSON, or as the word it is: ``original_full`` needs no quotes."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        if _WORD.fullmatch(text) is None:
            raise UsageError(
                f"--config-value is NAME=VALUE with a value in JSON or a word, not {argument!r}"
            ) from error
    return text


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
