"""What recurrent layers of Keras do in training or from one call to the next alone: a graph is of one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells")
_LAYERS = ("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "CuDNNLSTM", "CuDNNGRU")
_RECURRENT = frozenset((*_CELLS, *_LAYERS))
_ONE_CALL: Mapping[str, Any] = {"dropout": 0.0, "recurrent_dropout": 0.0, "stateful": False}
"""Keras 3 draws the masks of a dropout even where it uses none."""


def of_one_call(config: Any) -> Any:
    """Return a config whose recurrent layers neither drop anything nor go on where the last call ended."""
    if isinstance(config, list):
        return [of_one_call(each) for each in config]
    if not isinstance(config, Mapping):
        return config
    made = {key: of_one_call(each) for key, each in config.items()}
    if _is_recurrent(config):
        made["config"] |= {key: value for key, value in _ONE_CALL.items() if key in made["config"]}
    return made


def note_of(config: Mapping[str, Any]) -> str:
    """Return the note on layers that go on where the last call ended, "" where there are none."""
    names = _stateful(config)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"layer {names[0]}{more} is stateful: in the graph each call begins anew" if names else ""


def _is_recurrent(value: Mapping[str, Any]) -> bool:
    class_name = value.get("class_name")
    return isinstance(class_name, str) and class_name in _RECURRENT and isinstance(value.get("config"), Mapping)


def _stateful(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for each in value for name in _stateful(each)]
    if not isinstance(value, Mapping):
        return []
    is_own = _is_recurrent(value) and value["config"].get("stateful") is True
    own = [str(value["config"].get("name"))] if is_own else []
    return [*own, *(name for each in value.values() for name in _stateful(each))]
