"""What a user may ask of a conversion, whatever its formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converter.errors import UsageError
from converter.model.dtype import DType

_OPTIMIZER = ("auto", "keep", "drop")
_VERIFY = ("auto", "weights", "outputs", "none")
_DTYPE_ALIASES = {
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `convert`.

    `from_format`     the source's format, when its content does not say
    `config`          a config.json, instead of the one beside the source
    `task`            which head the model has, when neither config nor tensors say
    `mapping`         a JSON file of name rules (converter.dialects.rules), applied in the direction that matches
    `dtype`           cast floating-point weights and buffers ("float16", "bf16" ...); never integers or moments
    `include`, `exclude`   shell patterns of tensor names to convert and to leave out
    `optimizer`       "auto" carries its state wherever the target can, "keep" fails where it cannot, "drop"
    `weights_only`    write no graph where the target could have one
    `verify`          "auto" (weights always, outputs where what they need is installed), "weights", "outputs", "none"
    `atol`, `rtol`    tolerance of outputs, instead of that of their dtype
    `allow_dropped`, `allow_missing`   shell patterns of losses that are accepted
    `overwrite`, `dry_run`
    `durable`         flush the output to the disk before it appears
    """

    from_format: str | None = None
    config: Path | None = None
    task: str | None = None
    mapping: Path | None = None
    dtype: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    optimizer: str = "auto"
    weights_only: bool = False
    verify: str = "auto"
    atol: float | None = None
    rtol: float | None = None
    allow_dropped: tuple[str, ...] = ()
    allow_missing: tuple[str, ...] = ()
    overwrite: bool = False
    dry_run: bool = False
    durable: bool = True

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("optimizer", self.optimizer, _OPTIMIZER),
            ("verify", self.verify, _VERIFY),
        ):
            if value not in choices:
                raise UsageError(f"--{name} is one of {', '.join(choices)}, not {value!r}")
        self.target_dtype()

    def target_dtype(self) -> DType | None:
        """Return the type to cast to, None for no cast. Raises UsageError when `dtype` is not floating-point."""
        if self.dtype is None:
            return None
        name = _DTYPE_ALIASES.get(self.dtype, self.dtype)
        known = [dtype.value for dtype in DType if dtype.is_floating]
        if name not in known:
            raise UsageError(f"unknown --dtype {self.dtype!r}", hint=f"known: {', '.join(known)}")
        return DType(name)
