"""What transformers 4, which has the TensorFlow and Flax classes, reads elsewhere in a config than transformers 5 does.

configuration_mistral.py: `rope_theta` (4.57.6) is in `rope_parameters` (5.23). Without it 4.57.6 takes its default.
"""

from __future__ import annotations

from collections.abc import Mapping

from converter.dialects.architecture import config_with
from converter.model.checkpoint import Config

_ROTARY, _BASE = "rope_parameters", "rope_theta"


def with_old_keys(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Return a config that transformers 4 reads as transformers 5 does, and what has changed."""
    rotary = config.values.get(_ROTARY)
    base = rotary.get(_BASE) if isinstance(rotary, Mapping) else None
    if _BASE in config.values or isinstance(base, bool) or not isinstance(base, (int, float)):
        return config, ()
    return config_with(config, rope_theta=base), (f"config.json: {_BASE} is now {base}, which transformers 4 reads",)
