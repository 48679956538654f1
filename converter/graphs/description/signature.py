"""What a traced model is made of, in words that need no framework: the driver reads it, the tracer writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from converter.errors import GraphError
from converter.model.dtype import DType

Declaration = tuple[DType, tuple[int, ...]]


class Role(str, Enum):
    """What the values of an input stand for."""

    IDS = "ids"
    """of a vocabulary"""
    MASK = "mask"
    """1 where something is"""
    TYPES = "types"
    """of tokens"""
    BOXES = "boxes"
    """the second corner is not before the first"""
    NUMBERS = "numbers"
    """integers with which the graph computes, in a way that takes any"""
    KEYS = "keys"
    """of a lookup table"""
    UNKNOWN = ""
    """no more is known than the type"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which values make sense in an input, for whoever needs some.

    `role`       what they stand for
    `low`        the least integer, of a mask the least number of ones; `high` the first integer that is too large
    `padding`    what stands where a mask of the same shape is 0
    `leading`    what every row starts with
    `excluded`   integers that have a meaning of their own, and are not drawn
    `keys`, `beside`   some keys of a table, and some integers that are none
    """

    role: Role = Role.UNKNOWN
    low: int = 0
    high: int = 2
    padding: int | None = None
    leading: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """One input of a graph. A dimension that may vary is a name (`batch`, `sequence`), or a sum of names."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]
    sampling: Sampling = Sampling()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GraphInput:
        """Return what `to_json` wrote. Raises KeyError, TypeError or ValueError when it did not."""
        sampling = dict(values.get("sampling", {}))
        listed = ("leading", "excluded", "keys", "beside")
        sampling["role"] = Role(sampling.get("role", Role.UNKNOWN))
        sampling.update({key: tuple(sampling[key]) for key in listed if key in sampling})
        return cls(
            name=values["name"],
            dtype=DType(values["dtype"]),
            shape=tuple(values["shape"]),
            sampling=Sampling(**sampling),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "name": self.name,
            "dtype": self.dtype.value,
            "shape": list(self.shape),
            "sampling": asdict(self.sampling),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """A dimension that may be `low + n * step`, at most `high`. `checked` are the n to check a graph at, in turn.

    `reach` is the most where other dimensions are at their least, if that is more than `high`.
    """

    name: str
    low: int = 0
    step: int = 1
    high: int | None = None
    reach: int | None = None
    checked: tuple[int, ...] = (17, 9, 12, 6, 1)

    def extent(self, count: int) -> int:
        """Return the extent of `count` steps, the largest there may be if that is too large."""
        wanted = self.low + count * self.step
        return max(wanted if self.high is None else min(wanted, self.high), 1)

    def has(self, extent: int) -> bool:
        """Whether it may have this extent."""
        return extent > 0 and (self.high is None or extent <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A value of a config past which a model computes in another way: `count` steps of a dimension are not past it.

    `name` says which value, such as ``sliding_window 4096``.
    """

    name: str
    dimension: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The tensors, inputs and outputs of a graph, and what is known of them. Names are those of the checkpoint.

    `title`         what errors call the model, such as the class that config.json's `architectures` names
    `parameters`    name -> dtype and shape of what is trained, each tied group once, under its owner
    `buffers`       name -> dtype and shape of what is stored but not trained
    `ties`          tied name -> the name whose values it shares, which is the one save_pretrained writes
    `computed`      buffers that no checkpoint stores and the graph holds as constants
    `ignored`       regular expressions, searched for in names: tensors that transformers itself skips when loading
    `inputs`, `outputs`   of the graph, in order; outputs are the field names of the class's ModelOutput
    `dimensions`    what is known of those that may vary; nothing where they mean nothing in particular
    `notes`         a note for the user on each choice that was made among graphs
    `heads`         of attention: how many tables of scores, each as large as the square of the length, are held at once
    `thresholds`    what the config says of lengths from which on a model computes in another way
    """

    title: str
    parameters: Mapping[str, Declaration]
    buffers: Mapping[str, Declaration] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    inputs: tuple[GraphInput, ...] = ()
    outputs: tuple[str, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    notes: tuple[str, ...] = ()
    heads: int = 16

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return {
            "title": self.title,
            "parameters": {name: [dtype.value, list(shape)] for name, (dtype, shape) in self.parameters.items()},
            "buffers": {name: [dtype.value, list(shape)] for name, (dtype, shape) in self.buffers.items()},
            "ties": dict(self.ties),
            "computed": list(self.computed),
            "ignored": list(self.ignored),
            "inputs": [each.to_json() for each in self.inputs],
            "outputs": list(self.outputs),
            "dimensions": [asdict(each) for each in self.dimensions],
            "thresholds": [asdict(each) for each in self.thresholds],
            "notes": list(self.notes),
            "heads": self.heads,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Signature:
        """Return what `to_json` wrote. Raises GraphError when a key is missing or an element type unknown."""
        try:
            return cls(
                title=values["title"],
                parameters=_declarations(values["parameters"]),
                buffers=_declarations(values["buffers"]),
                ties=dict(values["ties"]),
                computed=tuple(values["computed"]),
                ignored=tuple(values["ignored"]),
                inputs=tuple(map(GraphInput.from_json, values["inputs"])),
                outputs=tuple(values["outputs"]),
                dimensions=tuple(map(_dimension, values["dimensions"])),
                thresholds=tuple(Threshold(**each) for each in values["thresholds"]),
                notes=tuple(values["notes"]),
                heads=values["heads"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GraphError(f"the description of the traced model is not usable: {error}") from error


def _declarations(values: Mapping[str, Any]) -> dict[str, Declaration]:
    return {name: (DType(dtype), tuple(shape)) for name, (dtype, shape) in values.items()}


def _dimension(values: Mapping[str, Any]) -> Dimension:
    return Dimension(**{**values, "checked": tuple(values["checked"])})
