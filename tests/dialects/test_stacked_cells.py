"""Cells that a recurrent layer has several of are modules of their own: one layer of PyTorch would be all of them."""

from __future__ import annotations

import pytest

from converter.dialects.keras.leaves import without_cell


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("rnn/gru_cell", "rnn"),
        ("gru_1/gru_cell_3", "gru_1"),
        ("rnn/stacked_rnn_cells/gru_cell", "rnn/stacked_rnn_cells/gru_cell"),
        ("rnn/stacked_rnn_cells_1/lstm_cell_1", "rnn/stacked_rnn_cells_1/lstm_cell_1"),
        ("rnn", "rnn"),
    ],
)
def test_which_layer_a_cell_is_of(path: str, layer: str) -> None:
    assert without_cell(path) == layer
