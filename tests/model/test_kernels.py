"""A weight of PyTorch is [out, in, *extents], a kernel of TensorFlow [*extents, in, out]."""

from __future__ import annotations

import numpy as np
import pytest

from converter.model.kernels import kernel_name, to_kernel, to_weight
from converter.model.tensor import ArrayTensor


@pytest.mark.parametrize("extents", [(), (3,), (3, 5), (3, 5, 7)])
def test_layouts(extents: tuple[int, ...]) -> None:
    weight = np.arange(2 * 4 * np.prod(extents, dtype=int), dtype=np.int32).reshape(2, 4, *extents)
    kernel = to_kernel(ArrayTensor.of(weight))
    assert kernel.shape == (*extents, 4, 2)
    for index in np.ndindex(weight.shape):
        assert kernel.numpy()[(*index[2:], index[1], index[0])] == weight[index]
    again = to_weight(ArrayTensor.of(np.ascontiguousarray(kernel.numpy())))
    np.testing.assert_array_equal(again.numpy(), weight)


def test_names() -> None:
    names = ["a.b.weight", "weight", "a.bias", "weight.a", "a.my_weight"]
    assert [kernel_name(name) for name in names] == ["a.b.kernel", "kernel", None, None, None]
