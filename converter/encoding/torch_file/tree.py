"""A pickled value taken apart: tensors under names, plain data, and what can be neither."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from converter.encoding.pickle import FileBytes, Global, OrderedItems, Placeholder
from converter.encoding.torch_file.loops import without_loops
from converter.encoding.torch_file.numpy_values import NumpyArray, NumpyDType
from converter.encoding.torch_file.storages import DTYPES, Storage, View
from converter.errors import ReadError, of_tensor
from converter.model.ledger import Kind, LedgerLine, dropped, no_weight, unheld
from converter.model.structure import OrderedMapping, Slot, TorchDType
from converter.model.tensor import Tensor

_DEPTH_LIMIT = 64
_BYTES_LIMIT = 1 << 20
_FREE_WORK, _STORED_BYTES_PER_WORK, _WORK_LIMIT = 1 << 18, 1 << 10, 1 << 22
_REVISIT_WORK, _DEEP_WORK, _DROP_WORK, _ALIAS_WORK = 16, 8, 8, 8
_EMPTY: tuple[Any, ...] = ()
_DEEP = 8
_SCALARS = (str, int, float, complex, bool, bytes, type(None))
_LEAVES = frozenset(_SCALARS)
_NESTED = (dict, list, tuple)
_SIZED = (*_NESTED, set, frozenset)
_HOLDERS = (*_SIZED, Placeholder)
_TENSORS = (View, Tensor, Slot)
_TEXT = frozenset((str, bytes))
_NAMES = (str, int, bytes)
_OF_MODULES = ("_parameters", "_buffers", "_modules")
_GRAPH_MODULE = "torch.fx.graph_module"
NO_NAME = "has a key that is no name"
_KEY_CHARACTERS = 100
_VERSIONS = "_metadata"
"""What Module.state_dict() calls the versions of its modules."""
NOTHING = object()
"""What stands for a value that is not carried."""
_COMPILED = Global(module="torch._dynamo.eval_frame", name="OptimizedModule")


@dataclass(slots=True, kw_only=True)
class Weights:
    """Tensors by name as they are found, ties and kinds of tensors with them; of slots what they are called there."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    buffers: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    slots: dict[str, str] = field(default_factory=dict)
    has_modules: bool = False


class Walk:
    """Walks a pickled value, in bounded depth and work; `lines` says what of it is not carried.

    A file that stores much may make more work: `stored_bytes` is the size of those that the values come from. To look
    for tensors, and to take apart what stands beside the weights, as much more as its pickles have `operations`.
    """

    def __init__(self, *, stored_bytes: int = 0, operations: int = 0) -> None:
        self._limit = min(_WORK_LIMIT, _FREE_WORK + stored_bytes // _STORED_BYTES_PER_WORK)
        self._operations = operations
        self.weights = Weights()
        self.lines: list[LedgerLine] = []
        self._owners: dict[Any, str] = {}
        self._visited: set[int] = set()
        self._has_tensors: dict[int, bool] = {}
        self._work = self._searched = 0

    def unlooped(self, root: Any) -> Any:
        """Return a value without what stands inside itself, and a line for each; the value is changed."""

        def tell(keys: list[Any]) -> None:
            self._charge(_DROP_WORK)
            self.lines.append(dropped(".".join(map(text_of, keys)), "is what it stands inside of"))

        return without_loops(root, tell)

    # weights

    def flatten(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """Add every tensor under `value` to the weights, keys joined by dots; return how they are nested.

        That is plain data with a `Slot` for each, `NOTHING` for what is not carried. Raises ReadError with the name.
        """
        self._step(value, name, depth)
        match value:
            case View() | NumpyArray() | Tensor() | Slot() if is_tensor(value):
                return self._add(name, value)
            case Placeholder() if is_module(value):
                items = OrderedMapping()
                self._flatten_module(value, name, "", items, depth)
                return items
            case Placeholder() if self.has_tensors(value):
                return self._flatten_object(value, name, depth)
            case dict():
                return self._flatten_dict(value, name, depth)
            case list() | tuple() if value and all(isinstance(item, _SCALARS) for item in value):
                return self._value(name, value)
            case list() | tuple():
                members = [
                    self.flatten(item, _joined(name, str(position)), depth + 1) for position, item in enumerate(value)
                ]
                return type(value)(None if member is NOTHING else member for member in members)
            case None:
                return None
            case Global() if is_dtype(value):
                return self._value(name, TorchDType(value))
            case _ if isinstance(value, _SCALARS):
                return self._value(name, value)
        self.lines.append(dropped(name, f"is no tensor but {_kind(value)}"))
        return NOTHING

    def _value(self, name: str, value: Any) -> Any:
        """Say that a number, a text or a list of them is no weight; return it."""
        self.lines.append(no_weight(name, Kind.VALUE, f"is no tensor but {_kind(value)}"))
        return value

    def _add(self, name: str, value: Any) -> Any:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise ReadError("has a name that is no Unicode text", tensor=name)
        if name in self.weights.tensors or name in self.weights.aliases:
            hint = "keys are joined by dots: save it again with others"
            raise ReadError("is the name of two tensors", tensor=name, hint=hint)
        if isinstance(value, Slot):
            self.weights.slots[name] = value.name
            return value
        if isinstance(value, View) and value.problem is not None:
            self.lines.append(unheld(name, value.problem))
            return NOTHING
        tensor = _tensor(value, name)
        identity = _identity(value)
        owner = None if identity is None else self._owners.setdefault(identity, name)
        if isinstance(value, View):
            if value.is_parameter and not value.requires_grad:
                self.weights.frozen.add(name)
            if value.is_buffer:
                self.weights.buffers.add(name)
        if owner not in (None, name):
            self._charge(_ALIAS_WORK)
            self.weights.aliases[name] = str(owner)
        else:
            self.weights.tensors[name] = tensor
        return Slot(name, tensor.dtype, tensor.shape)

    def _flatten_dict(self, value: dict[Any, Any], name: str, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, item in value.items():
            if is_name(key):
                inner = self.flatten(item, _joined(name, text_of(key)), depth + 1)
                if inner is not NOTHING:
                    found[key] = inner
            else:
                self.leave_nameless(_joined(name, text_of(key)), item)
        return self.alike(value, found)

    def _flatten_object(self, value: Placeholder, name: str, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for part in (dict(value.items), value.state, dict(enumerate(value.values))):
            if isinstance(part, dict):
                found |= self.flatten(part, name, depth + 1)
        for part in (value.arguments, value.state):
            if not isinstance(part, dict) and self.has_tensors(part):
                self.drop(name or str(value.of), part, f"is what {value.of} was made of, and has no name")
        return found

    def _flatten_module(self, module: Placeholder, name: str, inside: str, items: dict[Any, Any], depth: int) -> None:
        """Add what Module.state_dict() would: parameters, persistent buffers, then the modules inside.

        `inside` is what the module is called in the one whose state dict `items` become.
        """
        self.weights.has_modules = True
        state = _module_state(module)
        assert state is not None
        for kind in _OF_MODULES:
            for key, value in state[kind].items():
                where, own = _joined(name, text_of(key)), _joined(inside, text_of(key))
                if value is None or (kind == "_buffers" and key in (state.get("_non_persistent_buffers_set") or ())):
                    continue
                if kind == "_buffers":
                    self.weights.buffers.add(where)
                if kind == "_modules" and is_module(value):
                    self._step(value, where, depth + 1)
                    self._flatten_module(value, where, own, items, depth + 1)
                    continue
                found = self.flatten(value, where, depth + 1)
                items |= {} if found is NOTHING else {own: found}
        reason = f"is an attribute of {module.of}, not part of its state_dict()"
        for key, value in state.items():
            if key not in _OF_MODULES and self.has_tensors(value):
                self.drop(_joined(name, text_of(key)), value, reason, are_weights=True)

    # everything else

    def go_on_beside_weights(self) -> None:
        """Allow as much more work as what stands beside the weights may make."""
        self._limit += self._operations

    def beside(self, value: Any, name: str) -> Any:
        """Return what stands beside the weights as plain data; `NOTHING`, and a line, where that cannot be."""
        lines = len(self.lines)
        if not is_carried(value):
            self.drop(name, value, f"{_kind(value)} is not carried")
            return NOTHING
        try:
            return self.plain(value, name)
        except ReadError as error:
            where = "" if error.tensor in (None, name) else f" at {error.tensor}"
            self.lines[lines:] = [dropped(name, f"{error.message}{where}")]
            return NOTHING

    def plain(self, value: Any, name: str, depth: int = 0) -> Any:
        """Return `value` as plain Python data with Tensor leaves; what cannot be plain becomes None and a line."""
        self._step(value, name, depth)
        match value:
            case View() | NumpyArray() | Tensor() if is_tensor(value):
                return _tensor(value, name)
            case dict():
                return self._plain_items(value, name, depth)
            case Placeholder() if value.items and value.state is None and not (value.arguments or value.values):
                return self._plain_items(dict(value.items), name, depth)
            case list() | tuple() if _LEAVES.issuperset(map(type, value)):
                self._charge_leaves(value)
                return value
            case list():
                return [self.plain(item, _joined(name, str(index)), depth + 1) for index, item in enumerate(value)]
            case tuple():
                return type(value)(
                    self.plain(item, _joined(name, str(index)), depth + 1) for index, item in enumerate(value)
                )
            case set() | frozenset() if all(isinstance(item, _SCALARS) for item in value):
                self._charge(len(value))
                return set(value)
            case Global() if is_dtype(value):
                return TorchDType(value)
            case FileBytes() if value.length <= _BYTES_LIMIT:
                return value.file.read(value.offset, value.length)
            case _ if isinstance(value, _SCALARS):
                self._charge_leaves((value,))
                return value
        self.drop(name, value, f"{_kind(value)} is not carried")
        return None

    def _plain_items(self, items: dict[Any, Any], name: str, depth: int) -> dict[Any, Any]:
        if _LEAVES.issuperset(map(type, items)) and _LEAVES.issuperset(map(type, items.values())):
            self._charge_leaves((*items, *items.values()))
            return self.alike(items, dict(items))
        kept = {}
        for key, item in items.items():
            where = _joined(name, text_of(key))
            if is_key(key):
                if is_carried(item):
                    kept[key] = self.plain(item, where, depth + 1)
                else:
                    self.drop(where, item, f"{_kind(item)} is not carried")
            else:
                self.drop(where, item, "has a key that is not carried")
        return self.alike(items, kept)

    def alike(self, value: Any, items: dict[Any, Any]) -> dict[Any, Any]:
        """Return `items` in a dict of the same kind as `value`, with the versions of modules that it has."""
        if isinstance(value, OrderedMapping):
            return OrderedMapping(items, value.attributes)
        if not (isinstance(value, OrderedItems) and value.is_ordered):
            return items
        attributes = value.attributes
        if not (isinstance(attributes, dict) and _VERSIONS in attributes and is_carried(attributes[_VERSIONS])):
            return OrderedMapping(items)
        lines = len(self.lines)
        versions = self.plain({_VERSIONS: attributes[_VERSIONS]}, _VERSIONS)
        return OrderedMapping(items, None if len(self.lines) > lines else versions)

    def drop(self, name: str, value: Any, reason: str, *, are_weights: bool = False) -> None:
        """Write down that `value` is not carried, and every tensor inside it.

        Those that nothing can hold are for the user to leave out where they `are_weights`, as what a quantised layer
        computes with is, which is none of its parameters.
        """
        self._charge(_DROP_WORK)
        self.lines.append(dropped(name, reason))
        if isinstance(value, Placeholder) and value.is_bare:
            return
        for inner, tensor in self._tensors_inside(value, name):
            problem = tensor.problem if are_weights and isinstance(tensor, View) else None
            if problem is not None:
                self.lines.append(unheld(inner, problem))
            elif inner != name:
                self.lines.append(dropped(inner, f"is inside {name}, which is not carried"))

    def leave_nameless(self, name: str, value: Any) -> None:
        """Write down that `value` has a key that is no part of a name: a weight there is for the user to leave out."""
        if axes_of(value):
            self.lines.append(unheld(name, NO_NAME))
        else:
            self.drop(name, value, NO_NAME)

    def has_tensors(self, value: Any) -> bool:
        """Whether there is a tensor anywhere inside. However often it is asked, each object is looked into once."""
        if not isinstance(value, _HOLDERS):
            return is_tensor(value)
        known = self._has_tensors
        if id(value) in known:
            return known[id(value)]
        above, seen = [(id(value), self._inner(value))], {id(value)}
        while above:
            inside, inner = above[-1]
            item = next(inner, NOTHING)
            if item is NOTHING:
                known[inside] = False
                above.pop()
            elif is_tensor(item) or known.get(id(item), False):
                known.update((each, True) for each, _ in above)
                return True
            elif isinstance(item, _HOLDERS) and id(item) not in seen and id(item) not in known:
                seen.add(id(item))
                above.append((id(item), self._inner(item)))
        return False

    def _inner(self, value: Any) -> Iterator[Any]:
        """Return what may have tensors inside, or be one."""
        self.search(1 + _length(value) // 16)
        for inner in _values(value):
            if inner is _EMPTY or isinstance(inner, _SCALARS):
                continue
            if not (isinstance(inner, Placeholder) and inner.is_bare):
                self.search(1)
                yield inner

    def _tensors_inside(self, value: Any, name: str) -> Iterator[tuple[str, Any]]:
        """Yield the tensors inside `value`, and where, each object visited once; cycles and depth do no harm."""
        pending, seen = [(value, name)], set()
        while pending:
            item, where = pending.pop()
            if is_tensor(item):
                self.search(1)
                yield where, item
            elif id(item) not in seen:
                seen.add(id(item))
                self.search(1 + _length(item) // 16)
                children = []
                for key, inner in _children(item):
                    if not isinstance(inner, _SCALARS) and not (isinstance(inner, Placeholder) and inner.is_bare):
                        self.search(1)
                        children.append((inner, _joined(where, key)[-500:]))
                pending.extend(reversed(children))

    def _step(self, value: Any, name: str, depth: int) -> None:
        """Count a visit. Long names, depth and coming back to a value make it dear: small files do that."""
        amount = 1 + (len(name) >> 8)
        if isinstance(value, _HOLDERS):
            if id(value) in self._visited:
                amount += _REVISIT_WORK
            self._visited.add(id(value))
        self._charge(amount * _DEEP_WORK if depth > _DEEP else amount)
        if depth > _DEPTH_LIMIT:
            raise ReadError(f"is nested more than {_DEPTH_LIMIT} deep at {name[:100]!r}")

    def _charge_leaves(self, values: Collection[Any]) -> None:
        """Count numbers and text, which are looked at and kept as they are."""
        nbytes = sum([len(value) for value in values if type(value) in _TEXT])
        self._charge((len(values) >> 4) + (nbytes >> 6))

    def search(self, amount: int) -> None:
        """Count work of looking for tensors. Raises ReadError when it is too much for such a file."""
        self._searched += amount
        if self._searched > self._limit + 2 * self._operations:
            raise ReadError(f"takes more than {self._searched - amount} steps to search for tensors")

    def _charge(self, amount: int) -> None:
        """Count work: values that share their parts can be small in the file and endless to walk."""
        self._work += amount
        if self._work > self._limit:
            raise ReadError(f"takes more than {self._limit} steps to walk through")


def is_module(value: Any) -> bool:
    """Whether a placeholder is an nn.Module."""
    return _module_state(value) is not None


def _module_state(value: Any) -> dict[Any, Any] | None:
    """Return the attributes of an nn.Module, None for others.

    A torch.fx.GraphModule is pickled as a call with them, and what torch.compile returns as one with the module inside.
    """
    if not isinstance(value, Placeholder):
        return None
    state = value.state
    match value.of, value.arguments:
        case Global(module=module, name=name), (first, *_) if module == _GRAPH_MODULE and name.startswith("reduce_"):
            state = first
        case of, (Placeholder() as inside, *_) if of == _COMPILED:
            state = {"_parameters": {}, "_buffers": {}, "_modules": {"_orig_mod": inside}}
    is_one = isinstance(state, dict) and all(isinstance(state.get(key), dict) for key in _OF_MODULES)
    return state if is_one else None


def is_tensor(value: Any) -> bool:
    """Whether a value is one tensor: as a pickle declares it, or as it was read or is to be written."""
    return isinstance(value, _TENSORS) or (isinstance(value, NumpyArray) and value.holds_numbers)


def axes_of(value: Any) -> int | None:
    """Return how many axes a tensor has, None for what is none. One that cannot be read is taken for a matrix."""
    if not is_tensor(value):
        return None
    if isinstance(value, View) and value.problem is not None:
        return 2
    return len(value.shape) if isinstance(value.shape, tuple) else 1


def is_carried(value: Any) -> bool:
    """Whether a value has a plain form; containers do, whatever is inside."""
    if isinstance(value, Placeholder):
        return bool(value.items) and value.state is None and not (value.arguments or value.values)
    if isinstance(value, Global):
        return is_dtype(value)
    return not isinstance(value, Storage | NumpyDType) and (not isinstance(value, NumpyArray) or value.holds_numbers)


def is_dtype(value: Global) -> bool:
    """Whether a name is that of a torch.dtype."""
    return value.module == "torch" and value.name in DTYPES


def is_name(key: Any) -> bool:
    """Whether a key can be a part of a name."""
    return isinstance(key, _NAMES)


def is_key(key: Any) -> bool:
    """Whether a key has a plain form."""
    return isinstance(key, _SCALARS) or (isinstance(key, tuple) and all(isinstance(part, _SCALARS) for part in key))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, _SIZED) else 0


def _values(value: Any) -> Iterable[Any]:
    """Return what `_children` names."""
    if isinstance(value, Placeholder):
        parts = (value.state, value.items, value.values, value.arguments)
        return itertools.chain.from_iterable(_values(part) for part in parts if isinstance(part, _NESTED))
    return value.values() if isinstance(value, dict) else value


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            yield from ((text_of(key), item) for key, item in value.items())
        case list() | tuple() | set() | frozenset():
            yield from ((str(position), item) for position, item in enumerate(value))
        case Placeholder():
            for part in (value.state, value.items, value.values, value.arguments):
                yield from _children(part) if isinstance(part, _NESTED) else ()


def _identity(value: View | NumpyArray | Tensor) -> Any:
    """Return what two names share when they are tied, None for what cannot be."""
    if isinstance(value, View):
        return value.identity
    return id(value) if isinstance(value, Tensor) and value.size else None


def _tensor(value: View | NumpyArray | Tensor, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    with of_tensor(name):
        return value.tensor()


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def text_of(key: Any) -> str:
    """Return a key as a part of a name."""
    if isinstance(key, bytes):  # of a file that torch.load(encoding="bytes") read
        return key.decode("utf-8", "backslashreplace")
    if isinstance(key, tuple) and is_key(key):
        return str(key)[:_KEY_CHARACTERS]
    return str(key) if isinstance(key, str | int | float | Global) else _kind(key)


def _kind(value: Any) -> str:
    if isinstance(value, NumpyArray):
        return "a numpy array of something else than numbers"
    if isinstance(value, FileBytes):
        return "bytes"
    if isinstance(value, NumpyDType):
        return "numpy.dtype"
    if isinstance(value, View):
        return "tensor"
    return str(
        value.of if isinstance(value, Placeholder) else value if isinstance(value, Global) else type(value).__name__
    )
