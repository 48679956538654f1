"""The table of thresholds knows every attribute of the installed transformers that is called like one."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from converter.graphs.trace.thresholds import (
    NAMED_SO,
    NONE,
    OF_FRAMES,
    OF_TOKENS,
    has_growing_positions,
    thresholds,
)

_KINDS = ("int", "dict")


class Config:
    """A config of transformers, as far as it is looked at."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return self.values


def attributes() -> dict[str, str]:
    """Every attribute of a configuration class that may be an integer and is called like a threshold -> where."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("transformers is not installed")
    named: dict[str, str] = {}
    for file in Path(found.submodule_search_locations[0], "models").glob("*/configuration_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        name, kind = each.target.id, ast.unparse(each.annotation)
                        if NAMED_SO.search(name) and any(word in kind for word in _KINDS):
                            named[name] = f"{node.name}: {kind}"
    return named


def test_no_attribute_of_that_name_is_unknown() -> None:
    found = attributes()
    assert len(found) > 100
    known = OF_TOKENS | OF_FRAMES | {name for names in NONE.values() for name in names}
    assert not {name: where for name, where in found.items() if name not in known}
    assert not known - set(found), "no class has it any more"


def test_a_name_is_a_threshold_or_not() -> None:
    listed = [name for names in NONE.values() for name in names]
    assert len(listed) == len(set(listed))
    assert not (OF_TOKENS | OF_FRAMES) & set(listed)


def test_what_a_config_says() -> None:
    config = Config(
        sliding_window=8,
        attention_window=[16, 32, 16],
        use_cache=True,
        window_size=None,
        chunk_size=0,
        num_local_experts=4,
        rope_parameters={"full": {"rope_type": "longrope", "original_max_position_embeddings": 24, "factor": 2.0}},
    )
    assert thresholds(config, OF_TOKENS) == {
        "attention_window 16": 16,
        "attention_window 32": 32,
        "original_max_position_embeddings 24": 24,
        "sliding_window 8": 8,
    }
    assert thresholds(Config(block_size=4, num_random_blocks=3), OF_TOKENS) == {"block_size 4": 44}
    assert not has_growing_positions(config)
    assert has_growing_positions(Config(rope_parameters={"rope_type": "dynamic"}))


def test_a_window_counts_where_a_layer_has_it() -> None:
    layers = ["full_attention", "sliding_attention"]
    assert thresholds(Config(sliding_window=8, layer_types=layers), OF_TOKENS) == {"sliding_window 8": 8}
    assert thresholds(Config(sliding_window=8, layer_types=layers[:1]), OF_TOKENS) == {}
