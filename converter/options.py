"""What a user may ask of a conversion, whatever its formats."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from converter.encoding.shards import parse_size
from converter.errors import UsageError
from converter.model.dtype import DType

_OPTIMIZER = ("auto", "keep", "drop")
_VERIFY = ("auto", "weights", "outputs", "none")
_DATA_SUFFIX = ".npz"
_MOST_JOBS = 256
_LEAST_MEMORY_BYTES = 16 << 20
_MOST_SECONDS = 365 * 86400
DEFAULT_TIMEOUT_SECONDS = 3600.0
_NOT_DECIDING = frozenset(
    (
        "verify",
        "atol",
        "rtol",
        "overwrite",
        "dry_run",
        "durable",
        "resume",
        "jobs",
        "max_memory",
        "timeout",
        "require_sandbox",
    )
)
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
_WORD = re.compile(r"[A-Za-z_][\w.+/-]*")
_FIXED_IN_CONFIG = frozenset(  # by --task, --dtype and --with-cache, or by what a graph returns and may run
    (
        "architectures",
        "attn_implementation",
        "auto_map",
        "dtype",
        "experts_implementation",
        "model_type",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `convert`.

    `from_format`     the source's format, when its content does not say
    `config`          a config.json, instead of the one beside the source
    `config_value`    NAME=VALUE, in the config of a transformers model instead of what it says: VALUE is JSON or a
                      word, NAME has dots where it is of a part ("vision_config.image_size=224")
    `custom_objects`  "package.module:Name,Name": your own layers of a Keras model, imported when its graph is needed
    `task`            which head the model has, when neither config nor tensors say
    `mapping`         a JSON file of name rules (converter.dialects.rules), applied in the direction that matches
    `dtype`           cast floating-point weights and buffers ("float16", "bf16" ...); never integers or moments
    `include`, `exclude`   shell patterns of tensor names to convert and to leave out
    `optimizer`       "auto" carries its state wherever the target can, "keep" fails where it cannot, "drop"
    `hyperparameter`   NAME=VALUE, of the optimizer, instead of what the file says or lacks
    `param_order`     a file that lists an optimizer's parameters in the order of their numbers
    `trainable`       a regular expression for the parameters that a numbered optimizer was given
    `weights_only`    write no graph where the target could have one
    `with_cache`      the graph of a decoder goes on from cached keys and values, and returns them
    `model`           a user's own model, "package.module:factory", whose graph the target gets; it is imported
    `inputs`          what that model takes: "input_ids:int64[batch,seq],pixel_values:float32[batch,3,224,224]"; and a
                      FILE.npz on whose arrays, `<input>` or `<set>/<input>`, outputs are compared instead of samples
    `opset`           the version of ONNX's operators that the graph is in; by default what the exporter gives
    `verify`          "auto" (weights always, outputs where what they need is installed), "weights", "outputs", "none"
    `atol`, `rtol`    of outputs: |d| <= atol + rtol x max(scale, |x|) for each element x, where the scale of an output
                      is the median of its |x| without masked values; by default the rtol of its element type
    `allow_dropped`, `allow_missing`   shell patterns of losses that are accepted
    `overwrite`, `dry_run`
    `durable`         flush the output to the disk before it appears
    `resume`          go on from what an earlier attempt at the same destination finished before it was killed
    `jobs`            threads that write a file; the bytes are the same for any number
    `max_memory`      bytes, or such as "64MiB": what work besides the largest tensor to be permuted may take
    `timeout`         seconds that a child process may take: each that traces, builds or runs a graph
    `require_sandbox`   refuse where a layer of the box around child processes is missing (converter.box)
    """

    from_format: str | None = None
    config: Path | None = None
    config_value: tuple[str, ...] = ()
    custom_objects: tuple[str, ...] = ()
    task: str | None = None
    mapping: Path | None = None
    dtype: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    optimizer: str = "auto"
    hyperparameter: tuple[str, ...] = ()
    param_order: Path | None = None
    trainable: str | None = None
    weights_only: bool = False
    with_cache: bool = False
    model: str | None = None
    inputs: str | Path | tuple[str | Path, ...] | None = None
    opset: int | None = None
    verify: str = "auto"
    atol: float | None = None
    rtol: float | None = None
    allow_dropped: tuple[str, ...] = ()
    allow_missing: tuple[str, ...] = ()
    overwrite: bool = False
    dry_run: bool = False
    durable: bool = True
    resume: bool = False
    jobs: int = 1
    max_memory: int | str = "256MiB"
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    require_sandbox: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("optimizer", self.optimizer, _OPTIMIZER),
            ("verify", self.verify, _VERIFY),
        ):
            if value not in choices:
                raise UsageError(f"--{name} is one of {', '.join(choices)}, not {value!r}")
        if self.data is not None and self.verify in ("weights", "none"):
            raise UsageError(f"--inputs {self.data} is for outputs, which --verify {self.verify} does not compare")
        if self.declared_inputs is not None and self.model is None:
            raise UsageError(
                f"--inputs {self.declared_inputs!r} says what --model takes, and there is no --model",
                hint=f"arrays to compare outputs on are in a file whose name ends in {_DATA_SUFFIX}",
            )
        self.target_dtype()
        _ = self.hyperparameters, self.config_values
        if not 1 <= self.jobs <= _MOST_JOBS:
            raise UsageError(f"--jobs is a number from 1 to {_MOST_JOBS}, not {self.jobs}")
        if not 0 < self.timeout <= _MOST_SECONDS:
            raise UsageError(f"--timeout is a number of seconds, 1 to {_MOST_SECONDS}, not {self.timeout:g}")
        if self.memory_bytes < _LEAST_MEMORY_BYTES:
            raise UsageError(f"--max-memory is at least {_LEAST_MEMORY_BYTES >> 20} MiB, not {self.max_memory}")

    @classmethod
    def split(cls, given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
        """Return the options among those given, and the rest, which are for formats."""
        known = {item.name for item in fields(cls)}
        general = cls(**{name: value for name, value in given.items() if name in known})
        return general, {name: value for name, value in given.items() if name not in known}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those asked for by name, their values read as JSON. Raises UsageError when they are no NAME=VALUE."""
        found = {}
        for given in self.hyperparameter:
            name, _, text = given.partition("=")
            try:
                found[name] = json.loads(text)
            except ValueError as error:
                raise UsageError(f"--hyperparameter is NAME=VALUE with a value such as 0.1, not {given!r}") from error
        return found

    @property
    def config_values(self) -> dict[str, Any]:
        """Those asked for by name. Raises UsageError when they are no NAME=VALUE, or none that a graph could heed."""
        found = {}
        for given in self.config_value:
            name, _, text = given.partition("=")
            if _CONFIG_NAME.fullmatch(name) is None or name in found:
                raise UsageError(f"--config-value is NAME=VALUE, each name once, not {given!r}")
            if name.rpartition(".")[2] in _FIXED_IN_CONFIG:
                raise UsageError(f"--config-value cannot change {name}: other options or the graph decide it")
            found[name] = _json_or_word(text, given)
        return found

    @property
    def memory_bytes(self) -> int:
        """`max_memory` in bytes. Raises UsageError when it is no size."""
        return self.max_memory if isinstance(self.max_memory, int) else parse_size(self.max_memory)

    @property
    def deciding(self) -> dict[str, str]:
        """Those options that decide what the output is, as text."""
        named = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _NOT_DECIDING}
        return {name: repr(value) for name, value in (named | {"inputs": self.declared_inputs}).items()}

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
        given = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        return [os.fspath(each) for each in given if each is not None]

    @staticmethod
    def _one(given: list[str]) -> str | None:
        if len(given) > 1:
            raise UsageError(f"--inputs is given twice: {given[0]!r} and {given[1]!r}")
        return given[0] if given else None

    def target_dtype(self) -> DType | None:
        """Return the type to cast to, None for no cast. Raises UsageError when `dtype` is not floating-point."""
        if self.dtype is None:
            return None
        name = _DTYPE_ALIASES.get(self.dtype, self.dtype)
        known = [dtype.value for dtype in DType if dtype.is_floating]
        if name not in known:
            raise UsageError(f"unknown --dtype {self.dtype!r}", hint=f"known: {', '.join(known)}")
        return DType(name)


def _json_or_word(text: str, given: str) -> Any:
    """Read a value as JSON, or as the word it is: ``original_full`` needs no quotes."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        if _WORD.fullmatch(text) is None:
            raise UsageError(f"--config-value is NAME=VALUE with a value in JSON or a word, not {given!r}") from error
    return text


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")
