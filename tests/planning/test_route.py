"""The way of a checkpoint with optimizer state through the house: planning is visited, not lived in."""

from __future__ import annotations

from pathlib import Path

from tests.planning.route import counted

CLIMBS = {
    ("converter.execution.parallel", "converter.proof.weights"),  # the work that threads are given
    ("converter.model.file", "converter.encoding.crc32c"),  # the sum that is made while bytes stream
    ("converter.formats.savedmodel", "converter.execution.workshop"),  # the place where a graph is built
}


def test_a_checkpoint_takes_few_turns(squad_bert: Path, tmp_path: Path) -> None:
    route = counted(squad_bert, tmp_path / "out", to="savedmodel", weights_only=True)
    assert 0 < route.of("converter.planning") <= 30
    assert set(route.climbs) <= CLIMBS
