"""Variables that only the TensorFlow classes have, by what a config says of their shapes."""

from __future__ import annotations

import numpy as np
import pytest

from converter.dialects.transformers.extents import variables_made
from converter.errors import UsageError

RELATIVE = ("layers_._{n}/attn/rel_pos_h", "relative positions", "vision_config")
VISION = {
    "use_rel_pos": False,
    "num_hidden_layers": 2,
    "image_size": 32,
    "patch_size": 8,
    "window_size": 2,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "global_attn_indexes": [1],
}


def test_relative_positions_that_are_turned_off_are_zeros_of_the_shape_that_is_built() -> None:
    made = list(variables_made(RELATIVE, {"vision_config": VISION}))
    assert [(name, values.shape) for name, _, values in made] == [
        ("layers_._0/attn/rel_pos_h", (3, 4)),
        ("layers_._1/attn/rel_pos_h", (7, 4)),
    ]
    assert not any(np.any(values) for _, _, values in made)
    assert list(variables_made(RELATIVE, {"vision_config": {**VISION, "use_rel_pos": True}})) == []


@pytest.mark.parametrize("wrong", [{"patch_size": 0}, {"num_hidden_layers": 1 << 20}, {"hidden_size": "12"}])
def test_sizes_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no usable"):
        list(variables_made(RELATIVE, {"vision_config": {**VISION, **wrong}}))


def test_sinusoids_are_those_of_marian() -> None:
    ((_, _, table),) = variables_made(("p", "sinusoids", "rows", "width"), {"rows": 3, "width": 4})
    np.testing.assert_allclose(table[1], [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)], rtol=1e-6)
