"""The parameters and buffers of an nn.Module, as weights that can be changed and be put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converter.graphs.lower.torch.framework import to_array, to_tensor, torch
from converter.graphs.run.canary import nudged


class ModuleWeights:
    """A `converter.graphs.run.canary.Weights`; tensors that several names share are there once, under the first."""

    def __init__(self, module: Any, name_of: Callable[[str], str] = str) -> None:
        types = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        once: dict[int, tuple[str, Any]] = {}
        for key, tensor in module.state_dict(keep_vars=True).items():
            if isinstance(tensor, torch.Tensor) and tensor.dtype in types and tensor.numel():
                once.setdefault(tensor.data_ptr(), (name_of(key), tensor))
        self._tensors = dict(once.values())

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of each floating-point weight."""
        return {name: tensor.numel() * tensor.element_size() for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Any:
        """Return a copy of the values."""
        return to_array(self._tensors[name]).copy()

    def write(self, name: str, values: Any) -> None:
        """Put values in place."""
        with torch.no_grad():
            self._tensors[name].copy_(to_tensor(values))

    def nudge(self, dtype: str) -> None:
        """Change every weight in the last place of a type (`converter.graphs.run.canary.nudged`)."""
        for name in self._tensors:
            self.write(name, nudged(self.read(name), name, dtype))
