"""Tensors that a model makes of numbers in its forward: on the meta device they would lose them."""

from __future__ import annotations

from typing import Any

_Numbers = (bool, int, float)


def constants_as_operations() -> Any:
    """Return a context in which `torch.tensor` of numbers on the meta device is traced as the operations that fill it.

    torch.export lifts the result of `torch.tensor` out of the graph, and on the meta device that has no values.
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
            return function(*args, **kwargs)

    return Filling()


def _is_of_numbers(data: Any) -> bool:
    return type(data) in _Numbers or (isinstance(data, (list, tuple)) and bool(data) and all(map(_is_of_numbers, data)))


def _filled(data: Any, dtype: Any) -> Any:
    import torch

    if dtype is None:
        dtype = torch.tensor(data, device="cpu").dtype
    if isinstance(data, (list, tuple)):
        return torch.stack([_filled(each, dtype) for each in data])
    return torch.full((), data, dtype=dtype, device="meta")
