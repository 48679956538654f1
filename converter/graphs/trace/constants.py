"""Tensors that a model makes of numbers in its forward: on the meta device they would lose them."""

from __future__ import annotations

from typing import Any

_Numbers = (bool, int, float)


def constants_as_operations() -> Any:
    """Return a context in which tensors made of numbers on the meta device are traced as the operations that fill them.

    torch.export lifts the result of `torch.tensor`, and a list that indexes a tensor (`x[..., [-1], :]`), out of the
    graph, and on the meta device that has no values.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Filling(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "meta":
                data, *rest = args or (kwargs.get("data"),)
                if not rest and _is_of_numbers(data):
                    return _filled(data, kwargs.get("dtype"))
            if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and args[0].device.type == "meta":
                args = (args[0], _index(args[1]), *args[2:])
            return function(*args, **kwargs)

    return Filling()


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return _filled(index, None) if isinstance(index, list) and _is_of_numbers(index) else index


def _is_of_numbers(data: Any) -> bool:
    return type(data) in _Numbers or (isinstance(data, (list, tuple)) and bool(data) and all(map(_is_of_numbers, data)))


def _filled(data: Any, dtype: Any) -> Any:
    import torch

    if dtype is None:
        dtype = torch.tensor(data, device="cpu").dtype
    if isinstance(data, (list, tuple)):
        return torch.stack([_filled(each, dtype) for each in data])
    return torch.full((), data, dtype=dtype, device="meta")
