"""The neutral checkpoint that every reader makes and every writer takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

from converter.errors import CkconvError, LossError
from converter.model.file import SourceFile
from converter.model.ledger import Kind, LedgerLine, Setting
from converter.model.optimizer import OptimizerState, StoredOptimizer
from converter.model.tensor import Tensor

G = TypeVar("G", bound="Graph")


class Part(Enum):
    """What a checkpoint may have, and a format may hold."""

    WEIGHTS = "weights"
    CONFIG = "config"
    ASSETS = "assets"
    OPTIMIZER = "optimizer"
    EXTRAS = "extras"
    GRAPH = "graph"


NO_MODEL_TYPE = "config.json has no model_type"
ADDS_MODEL_TYPE = "--config-value model_type=bert, or what it is, adds it"
"""What is said, and what helps, where the config of a model of transformers does not say its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A model's config.json: what it says, and the bytes that say it."""

    values: Mapping[str, Any]
    raw: bytes

    @property
    def architecture(self) -> str | None:
        """The class of transformers that it names, None when it names none."""
        return class_named(self.values)

    @property
    def model_type(self) -> str | None:
        """The model type of transformers that it says, None when it says none."""
        return type_named(self.values)

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """Return the config with other values; itself when it says so already.

        A changed one is written as transformers writes it: two spaces, ASCII, a final newline.
        """
        if all(self.values.get(key) == value for key, value in values.items()):
            return self
        changed = {**self.values, **values}
        if list(self.values) == sorted(self.values):
            changed = dict(sorted(changed.items()))
        return Config(values=changed, raw=(json.dumps(changed, indent=2) + "\n").encode("ascii"))

    def with_dtype(self, dtype: str) -> Config:
        """Return the config with another element type.

        It goes where the config has one: "dtype" (transformers 5), "torch_dtype" (transformers 4), or the former when
        neither is there.
        """
        keys = [key for key in ("dtype", "torch_dtype") if key in self.values] or ["dtype"]
        return self.with_values(dict.fromkeys(keys, dtype))


def class_named(values: Mapping[str, Any]) -> str | None:
    """Return the class that a config, or one inside it, names, None when it names none."""
    architectures = values.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return architectures[0]
    return None


def type_named(values: Mapping[str, Any]) -> str | None:
    """Return the model type that a config, or one inside it, says, None when it says none."""
    model_type = values.get("model_type")
    return model_type if isinstance(model_type, str) else None


class Dialect(str, Enum):
    """Whose names and layouts tensors have. Those of other packages are called by names of their own."""

    PYTORCH = "pytorch"
    """what everything is translated to"""
    KERAS = "keras"
    """paths of layers and variables"""
    TENSORFLOW = "tensorflow"
    """names of the variables of a graph, or paths of objects"""
    FLAX = "flax"
    """paths of modules and leaves"""
    GENERIC = "generic"
    """names as they are stored: nothing says whose they are"""

    __str__ = str.__str__


class Graph:
    """What `Checkpoint.graph` is: a `GraphSource` or a `TracedGraph` of converter.graphs.description."""

    __slots__ = ()

    @classmethod
    def of(cls: type[G], checkpoint: Checkpoint) -> G | None:
        """Return the graph of a checkpoint, None when it has none. Raises TypeError for one of the other kind."""
        graph = checkpoint.graph
        if graph is not None and not isinstance(graph, cls):
            raise TypeError(f"the graph here is a {cls.__name__}, not {graph!r}")
        return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How a file of Keras lists its variables: what one of its kind is made of where no table knows every layer.

    `format`  whose file it is
    `layers`  layer -> what each variable is called there, and its name in the checkpoint, in order
    `titles`  layer -> what the file calls it, where its place does not say
    `beside`  what is there and is no weight, as the state of metrics, by its place: a copy has it, too
    `asked`   gives, where the user has given the code of layers, what is inside of them by their names: the place of
              each, its name, its path of attributes, keys and numbers, and its class, in the order in which Keras
              lists their variables. It takes their entries in the model's config, and `is_older`, whether Keras 2 is
              to find the places
    """

    format: str
    layers: Mapping[str, tuple[tuple[str, str], ...]]
    titles: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    asked: Callable[..., Mapping[str, Sequence[Sequence[str]]]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Tensors by name, and what came with them. Immutable; transformations return new ones.

    `tensors`     name -> tensor, in the source's order
    `aliases`     tied name -> the name in `tensors` that holds its values
    `origins`     name -> what the source calls it, where that differs
    `models`      key path -> names, of the models that the source keeps apart; none for one that says nothing of it
    `structure`   how the source nests what it holds (`converter.model.structure`), as long as names are its own
    `buffers`     names in `tensors` known not to be parameters
    `frozen`      names of parameters that the source marks as not trained
    `dialect`     whose names and layouts these are: a Dialect, or the name of one of another package
    `config`      the model's config.json, where there is one
    `keras_config`   how Keras builds the model; beside `config` where a Keras model wraps one of transformers
    `assets`      tokenizer and other files by name, copied as bytes
    `extras`      training state beside the optimizer: `epoch`, `global_step`, `scheduler_state_dict` ...
    `optimizer_refused`   why optimizer state that the source has cannot be used; `optimizer` is None then
    `optimizer_numbered`   the state_dict() of such an optimizer, when only the names of its parameters are not known
    `unread`      errors of the files beside the weights that could not be read, for who takes those parts
    `optimizer_stored`   the state as a Keras file numbers it, as long as its weights have their names
    `graph`       how to get the source's own graph (`GraphSource`), for a target that runs the graph itself
                  (`TracedGraph`); its initializers name tensors, they are not stored twice
    `constants`   numbers that the source's graph has beside its tensors, such as shapes and axes: name -> how many
    `listing`     where the source has its tensors, as long as they have its names
    `by_keras_config`   reads the source by the Keras config of its model, where it has none and tells more by one
    `metadata`    what the source says about itself
    `settings`    what the layers are set to that the target's tensors do not hold
    `unchecked`   what no table knows, where nothing says what the class that loads it asks for
    `lines`       losses that already happened on the way here
    `warnings`    what a user should know, one line each
    """

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    structure: Any = None
    buffers: frozenset[str] = frozenset()
    frozen: frozenset[str] = frozenset()
    dialect: str = Dialect.PYTORCH
    config: Config | None = None
    keras_config: Config | None = None
    optimizer: OptimizerState | None = None
    optimizer_refused: str | None = None
    optimizer_numbered: Mapping[str, Any] | None = None
    optimizer_stored: StoredOptimizer | None = None
    unread: Mapping[Part, CkconvError] = field(default_factory=dict)
    graph: Graph | None = None
    constants: Mapping[str, int] = field(default_factory=dict)
    assets: Mapping[str, SourceFile] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    listing: Listing | None = None
    by_keras_config: Callable[[Config], Checkpoint] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    unchecked: str | None = None
    lines: tuple[LedgerLine, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def parts(self) -> frozenset[Part]:
        """What this checkpoint has."""
        present = {
            Part.WEIGHTS: True,
            Part.CONFIG: self.config is not None or self.keras_config is not None,
            Part.ASSETS: bool(self.assets),
            Part.OPTIMIZER: self.optimizer is not None,
            Part.EXTRAS: bool(self.extras),
            Part.GRAPH: self.graph is not None,
        }
        return frozenset(part for part, is_present in present.items() if is_present)

    @property
    def leaves_optimizer(self) -> bool:
        """Whether the source has variables of an optimizer of which it says too little for a state."""
        is_there = any(line.kind is Kind.OPTIMIZER for line in self.lines)
        return is_there and self.optimizer is None and self.optimizer_unusable is None

    @property
    def optimizer_unusable(self) -> str | None:
        """Why optimizer state that the source has is not in `optimizer`."""
        untold = None if self.optimizer_stored is None else self.optimizer_stored.untold
        return self.optimizer_refused or (untold if self.optimizer is None else None)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a tensor can be asked for by: tensors first, then aliases."""
        return (*self.tensors, *self.aliases)

    @property
    def by_name(self) -> dict[str, Tensor]:
        """Every name, and the tensor that it stands for."""
        return {name: self.tensor(name) for name in self.names}

    def __contains__(self, name: object) -> bool:
        """Whether a tensor can be asked for by this name."""
        return name in self.tensors or name in self.aliases

    @property
    def all_tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, ties counted once, and every slot of the optimizer."""
        slots = () if self.optimizer is None else self.optimizer.slots.values()
        return (*self.tensors.values(), *(tensor for slot in slots for tensor in slot.values()))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, ties counted once."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def tensor(self, name: str) -> Tensor:
        """Return the tensor called `name`, through a tie if need be. Raises KeyError."""
        return self.tensors[self.aliases.get(name, name)]

    def origin(self, name: str) -> str:
        """Return what the source calls `name`."""
        return self.origins.get(name, name)

    def has_state_of(self, names: Collection[str]) -> bool:
        """Whether the optimizer trains one of these parameters."""
        return self.optimizer is not None and any(name in names for name in self.optimizer.parameters)

    def without_state_of(self, names: Collection[str]) -> Checkpoint:
        """Return the checkpoint without the optimizer's state of these parameters."""
        return self if self.optimizer is None else replace(self, optimizer=self.optimizer.without(names))

    def with_state_of(self, names: Collection[str], *, ties: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint with the state of these parameters alone; that of a tie is under its owner's name."""
        if self.optimizer is None:
            return self
        state = self.optimizer.with_names(ties)
        return replace(self, optimizer=state.without({name for name in state.parameters if name not in names}))

    def without_state(self, reason: str) -> Checkpoint:
        """Return the checkpoint without the optimizer's state, and with a warning if there was any."""
        if self.optimizer is None:
            return self
        return replace(self, optimizer=None, warnings=(*self.warnings, f"optimizer state not carried: {reason}"))

    def of_names(self, wanted: Sequence[str]) -> Checkpoint:
        """Return the checkpoint with the tensors of these names alone, and the optimizer's state as it is.

        Of tied names the first that is wanted holds the values.
        """
        owners: dict[str, str] = {}
        for name in wanted:
            owners.setdefault(self.aliases.get(name, name), name)
        kept = frozenset(owners.values())
        return replace(
            self,
            tensors={name: self.tensor(name) for name in wanted if name in kept},
            aliases={name: owners[self.aliases.get(name, name)] for name in wanted if name not in kept},
            buffers=self.buffers.intersection(wanted),
            frozen=self.frozen.intersection(wanted),
        )

    def with_names(self, new_name: Callable[[str], str]) -> Checkpoint:
        """Return the checkpoint with every tensor, alias and optimizer slot renamed together.

        Raises LossError when two names would become one.
        """
        renamed = {name: new_name(name) for name in self.names}
        if len(set(renamed.values())) != len(renamed):
            old_names: dict[str, str] = {}
            for old, new in renamed.items():
                if new in old_names:
                    raise both_named(old, old_names[new], new)
                old_names[new] = old
        return replace(
            self,
            tensors={renamed[name]: tensor for name, tensor in self.tensors.items()},
            aliases={renamed[name]: renamed[owner] for name, owner in self.aliases.items()},
            origins={new: self.origin(old) for old, new in renamed.items() if new != self.origin(old)},
            models={
                model: tuple(renamed[name] for name in names if name in renamed) for model, names in self.models.items()
            },
            structure=None,
            buffers=frozenset(renamed[name] for name in self.buffers),
            frozen=frozenset(renamed[name] for name in self.frozen),
            optimizer=None if self.optimizer is None else self.optimizer.with_names(renamed),
            listing=None,
        )


def both_named(name: str, other: str, new: str) -> LossError:
    """Return the error for two tensors that would get one name: one of them would be lost."""
    return LossError(f"{name!r} and {other!r} would both be named {new!r}", tensor=name)
