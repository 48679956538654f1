"""How the tensors that a transformers class computes with come from those that save_pretrained writes.

Most are renamed. Others are put together: experts stacked, queries, keys and values joined, heads permuted.
transformers.conversion_mapping holds what is done, as operations on tensors; here they are run on stand-ins without
data, both ways, and what they do to them is written down, so nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.signature import Declaration
from converter.model.dtype import DType

_OLD = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorOperation:
    """One operation on tensors: `inputs` and `outputs` are numbers, `arguments` what else it was given."""

    operation: str
    inputs: tuple[int, ...]
    arguments: tuple[Any, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What is done to saved tensors to get some that the model computes with.

    `saved` and `built` are name -> the number that the tensor has in `steps`.
    """

    saved: Mapping[str, int]
    steps: tuple[TensorOperation, ...]
    built: Mapping[str, int]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of one of those that are made."""
        shapes = {number: each for step in self.steps for number, each in zip(step.outputs, step.shapes, strict=True)}
        return shapes.get(self.built[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedForm:
    """The state dict of a model, as it is saved.

    `names`       in memory -> saved, for tensors that are at most renamed
    `parts`       in memory -> saved, each of the tensors that one is put together from
    `declared`    saved -> dtype and shape, for those parts
    `assemblies`  how the others are put together
    """

    names: Mapping[str, str]
    parts: Mapping[str, tuple[str, ...]]
    declared: Mapping[str, Declaration]
    assemblies: tuple[Assembly, ...]

    def saved_names(self, name: str) -> tuple[str, ...]:
        """Return the saved names of a tensor in memory."""
        return (self.names[name],) if name in self.names else self.parts[name]


def saved_form(model: Any) -> SavedForm:
    """Return how the state dict of a model on the meta device is saved.

    Raises GraphError naming a weight that transformers saves and does not load again in the same form.
    """
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    origin = {id(tensor): name for name, tensor in stand_ins.items()}
    written = revert_weight_conversion(model, stand_ins)
    names = {origin[id(tensor)]: name for name, tensor in written.items() if id(tensor) in origin}
    names = {own: own if _is_old(name, own) else name for own, name in names.items()}
    if len(names) == len(stand_ins):
        return SavedForm(names=names, parts={}, declared={}, assemblies=())
    others = {name: tensor for name, tensor in written.items() if id(tensor) not in origin}
    assemblies = tuple(_assemblies(model, others))
    parts = {built: tuple(assembly.saved) for assembly in assemblies for built in assembly.built}
    for name, tensor in stand_ins.items():
        if name not in names and name not in parts:
            raise GraphError("is saved in another form, and nothing says how it is loaded", tensor=name)
        shape = next((each.shape(name) for each in assemblies if name in each.built), None)
        if shape not in (None, tuple(tensor.shape)):
            raise GraphError(f"is put together as {list(shape)}, the model has {list(tensor.shape)}", tensor=name)
    declared = {
        name: (DType(str(each.dtype).removeprefix("torch.")), tuple(each.shape)) for name, each in others.items()
    }
    return SavedForm(names=names, parts=parts, declared=declared, assemblies=assemblies)


def _is_old(name: str, own: str) -> bool:
    """Whether a model is saved under a name that its own release calls old where it loads it, as ESM is by 5.23.

    Of a pattern that it loads old names by the star stays.
    """
    return "*" in name or any(name.endswith(old) and own == name.removesuffix(old) + new for old, new in _OLD)


def _assemblies(model: Any, saved: Mapping[str, Any]) -> Iterator[Assembly]:
    """Run the conversions that from_pretrained makes, on what save_pretrained has written."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        PrefixChange,
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = [
        each for each in get_model_conversion_mapping(model, add_legacy=False) if not isinstance(each, PrefixChange)
    ]
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = {
        pattern: each for each in mapping if isinstance(each, WeightConverter) for pattern in each.source_patterns
    }
    gathered: dict[str, Any] = {}
    sources: dict[str, dict[str, Any]] = {}
    for name, tensor in sorted(saved.items(), key=lambda item: dot_natural_key(item[0])):
        target, pattern = rename_source_key(name, renamings, list(dict.fromkeys(converters.values())))
        if pattern is None:
            raise GraphError("is saved in another form, and nothing says how it is loaded", tensor=name)
        if target not in gathered:
            gathered[target] = deepcopy(converters[pattern])
        gathered[target].add_tensor(target, name, pattern, tensor)
        sources.setdefault(target, {})[name] = tensor
    for target, conversion in gathered.items():
        recording = _recorder()
        for tensor in sources[target].values():
            recording.number(tensor)
        with recording:
            converted = conversion.convert(target, model=model, config=model.config)
        results = {name: value[0] if isinstance(value, list) else value for name, value in converted.items()}
        yield Assembly(
            saved={name: recording.number(tensor) for name, tensor in sources[target].items()},
            steps=tuple(recording.steps),
            built={name: recording.number(value) for name, value in results.items()},
        )


def _recorder() -> Any:
    """Return a context that writes down what is done to tensors in `steps`; its `number` numbers them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[TensorOperation] = []
            self._known: list[Any] = []
            self._numbers: dict[int, int] = {}

        def number(self, tensor: Any) -> int:
            if id(tensor) not in self._numbers:
                self._numbers[id(tensor)] = len(self._known)
                self._known.append(tensor)
            return self._numbers[id(tensor)]

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            inputs = args[0] if isinstance(args[0], (list, tuple)) else args[:1]
            outputs = result if isinstance(result, (list, tuple)) else (result,)
            self.steps.append(
                TensorOperation(
                    operation=function.overloadpacket.__name__,
                    inputs=tuple(map(self.number, inputs)),
                    arguments=tuple(args[1:]),
                    outputs=tuple(map(self.number, outputs)),
                    shapes=tuple(tuple(each.shape) for each in outputs),
                )
            )
            return result

    return Recorder()
