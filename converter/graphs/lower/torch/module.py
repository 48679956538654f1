"""An ONNX graph as an nn.Module: parameters and buffers called as the tensors, a forward that walks the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.lower.steps import Shape, Step, check_shape, initializers_of, steps_of
from converter.graphs.lower.torch.bodies import is_small, run_step, walk
from converter.graphs.lower.torch.framework import (
    Known,
    as_tensor,
    is_host,
    number_of,
    to_array,
    to_tensor,
    torch,
    typed,
)
from converter.graphs.lower.torch.names import module_names
from converter.graphs.lower.torch.normalisation import with_fixed_statistics
from converter.graphs.lower.torch.registry import registry

_CONSTANTS = "_constants"
"""Where constants of the graph are: buffers that are in no state_dict. `names` keeps tensors away from it."""
_RANDOM = ("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform")
_FOLDED_ELEMENTS = 1 << 20
_POSITIONS = 16


def lower(
    model: Any,
    tensors: Mapping[str, Any],
    *,
    trainable: Iterable[str] = (),
    ties: Mapping[str, str] | None = None,
) -> Any:
    """Return an nn.Module that computes an onnx_ir.Model, called with the graph's inputs by name or in their order.

    `tensors` are torch tensors by name, those that external initializers name and any others; all of them become
    parameters (the `trainable` ones) or buffers, and `ties` further names of them. What depends on no input and no
    tensor is computed now, once. The module returns a dict of the graph's outputs.

    Integer buffers of at most 16 elements also decide shapes, by the values they have now.

    Raises GraphError naming all operators without a lowering and all tensors without values.
    """
    trainable = frozenset(trainable)
    steps = steps_of(model, registry(), "PyTorch")
    held = initializers_of(model)
    for name, (_, shape) in held.references.items():
        if name not in tensors:
            raise GraphError("is used by the graph, and there is neither a tensor nor a constant for it", tensor=name)
        check_shape(name, tensors[name].shape, shape)
    steps, constants = _folded(steps, held.constants)
    steps = with_fixed_statistics(steps, {*constants, *held.references}.difference(trainable))
    module = _module_class()()
    keys = module_names([*tensors, *(ties or {})])
    _add_tensors(module, tensors, trainable, ties or {}, keys)
    outputs = tuple(value.name for value in model.graph.outputs)
    arrays, texts = _add_constants(module, constants, {*_read(steps), *outputs})
    module._graph = _Graph(
        steps=steps,
        inputs={value.name: (_dtype_of(value), _shape_of(value)) for value in model.graph.inputs},
        outputs=outputs,
        references={name: (keys[name], _torch_type(dtype)) for name, (dtype, _) in held.references.items()},
        positions={name: to_array(tensors[name]) for name in held.references if _decides_shapes(tensors[name])},
        arrays=arrays,
        texts=texts,
    )
    return module.eval()


def _decides_shapes(tensor: Any) -> bool:
    return tensor.dtype in (torch.int32, torch.int64, torch.bool) and tensor.numel() <= _POSITIONS


def _torch_type(dtype: Any) -> Any:
    return to_tensor(np.empty(0, dtype)).dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """A graph as its module runs it.

    `inputs`      name -> declared type and shape, where the graph declares them
    `references`  value -> the key of the tensor it is, and the type it is computed in
    `positions`   the values of tensors that decide shapes
    `arrays`      constant -> its buffer, and its array where it decides shapes; `texts` are constants without a buffer
    """

    steps: tuple[Step, ...]
    inputs: Mapping[str, tuple[int | None, Shape | None]]
    outputs: tuple[str, ...]
    references: Mapping[str, tuple[str, Any]]
    positions: Mapping[str, Any]
    arrays: Mapping[str, tuple[str, Any]]
    texts: Mapping[str, Any]

    def bound(self, tensors: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs by name. Raises GraphError for those that the graph does not take."""
        by_name = {**dict(zip(self.inputs, tensors, strict=False)), **named}
        if set(by_name) != set(self.inputs) or len(tensors) + len(named) != len(self.inputs):
            raise GraphError(f"the graph takes {', '.join(self.inputs)}, not {', '.join(by_name) or 'nothing'}")
        for name, value in by_name.items():
            number, shape = self.inputs[name]
            if not isinstance(value, torch.Tensor) or number is None:
                continue
            if number_of(value.dtype, number) != number:
                raise GraphError(f"input {name} is {value.dtype}, the graph declares {_name_of_type(number)}")
            if shape is not None and len(shape) != value.ndim:
                raise GraphError(f"input {name} has {value.ndim} dimensions, the graph declares {len(shape)}")
        return by_name


@cache
def _module_class() -> type:
    class GraphModule(torch.nn.Module):  # type: ignore[misc]
        """A graph, its tensors, and the walk through it."""

        def forward(self, /, *tensors: Any, **named: Any) -> dict[str, Any]:
            """Return the graph's outputs by name. Raises GraphError for inputs that it does not take."""
            graph: _Graph = self._graph
            values: dict[Any, Any] = graph.bound(tensors, named)
            for name, (key, dtype) in graph.references.items():
                tensor = typed(_tensor(self, key), dtype)
                array = graph.positions.get(name)
                values[name] = tensor if array is None else Known(array=array, tensor=tensor)
            constants = self._modules[_CONSTANTS]._buffers
            for name, (slot, array) in graph.arrays.items():
                values[name] = constants[slot] if array is None else Known(array=array, tensor=constants[slot])
            values.update(graph.texts)
            walk(graph.steps, values)
            return {name: as_tensor(values[name]) for name in graph.outputs}

    return GraphModule


def _add_tensors(
    module: Any, tensors: Mapping[str, Any], trainable: frozenset[str], ties: Mapping[str, str], keys: Mapping[str, str]
) -> None:
    for name, tensor in tensors.items():
        owner, leaf = _place(module, keys[name])
        if name in trainable:
            owner.register_parameter(leaf, torch.nn.Parameter(tensor))
        else:
            owner.register_buffer(leaf, tensor)
    for alias, name in ties.items():
        owner, leaf = _place(module, keys[alias])
        tied = _tensor(module, keys[name])
        register = owner.register_parameter if isinstance(tied, torch.nn.Parameter) else owner.register_buffer
        register(leaf, tied)


def _place(module: Any, key: str) -> tuple[Any, str]:
    *path, leaf = key.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        module = module._modules[part]
    return module, leaf


def _tensor(module: Any, key: str) -> Any:
    *path, leaf = key.split(".")
    owner = reduce(lambda each, part: each._modules[part], path, module)
    return owner._parameters[leaf] if leaf in owner._parameters else owner._buffers[leaf]


def _add_constants(
    module: Any, constants: Mapping[str, Any], wanted: set[str | None]
) -> tuple[dict[str, tuple[str, Any]], dict[str, Any]]:
    holder = torch.nn.Module()
    arrays: dict[str, tuple[str, Any]] = {}
    texts: dict[str, Any] = {}
    for name in filter(wanted.__contains__, constants):
        value = constants[name]
        if is_host(value):
            texts[name] = value
            continue
        array, tensor = (value.array, value.tensor) if isinstance(value, Known) else (None, value)
        arrays[name] = str(len(arrays)), array
        holder.register_buffer(arrays[name][0], tensor, persistent=False)
    module.add_module(_CONSTANTS, holder)
    return arrays, texts


def _dtype_of(value: Any) -> int | None:
    return None if value.dtype is None else int(value.dtype)


def _shape_of(value: Any) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(extent if isinstance(extent, int) else None for extent in value.shape)


def _folded(steps: tuple[Step, ...], constants: Mapping[str, Any]) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """Compute what depends on nothing else. Returns the steps that remain, and the constants that those read."""
    values: dict[Any, Any] = {None: None, **{name: _value(array) for name, array in constants.items()}}
    rest = []
    with torch.no_grad():
        for step in steps:
            can_fold = all(name in values for name in step.inputs) and not step.bodies
            results = run_step(step, values) if can_fold and step.operator.op_type not in _RANDOM else None
            if results is None or not all(map(_is_foldable, results)):
                rest.append(step)
                continue
            arrays = [result if is_host(result) else to_array(result) for result in results]
            values.update((name, _value(array)) for (name, _), array in zip(step.outputs, arrays, strict=False))
    del values[None]
    return tuple(rest), values


def _is_foldable(result: Any) -> bool:
    return is_host(result) or (isinstance(result, torch.Tensor) and result.numel() <= _FOLDED_ELEMENTS)


def _value(array: Any) -> Any:
    """A constant as the walk has it, text too, which no tensor holds."""
    if array.dtype.kind in "OSU":
        return array
    tensor = to_tensor(array)
    return Known(array=array, tensor=tensor) if is_small(array) else tensor


def _read(steps: Iterable[Step]) -> set[str | None]:
    found: set[str | None] = set()
    for step in steps:
        found.update(step.inputs)
        for body in step.bodies.values():
            found.update(body.captured)
    return found


def _name_of_type(number: int) -> str:
    import onnx_ir

    return str(onnx_ir.DataType(number).name)
