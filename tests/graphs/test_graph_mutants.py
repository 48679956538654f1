"""Mutants of SavedModels: whatever the check lets pass computes and nothing else, as TensorFlow itself reads it.

CKCONV_ORACLE_FULL=1 tries 50,000 and runs 150 of those that pass; otherwise a slice, another with every
CKCONV_ORACLE_SEED.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.graphs.trace.tensorflow.cutting import cut
from tests.conftest import ROOT
from tests.graphs.graph_mutants import faults, ran, tried
from tests.slices import IS_FULL, SEED

pytest.importorskip("tensorflow")

MODELS = [ROOT / "fixtures/keras/saved_model", ROOT / "fixtures/optimizer/adam-savedmodel"]
COUNT, RUN = (50_000, 150) if IS_FULL else (1_000, 3)


def saved_in(model: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())


def test_whatever_passes_computes_alone(tell: Callable[[str], None], tmp_path: Path) -> None:
    outcomes, passed = Counter[str](), []
    for model in MODELS:
        saved = saved_in(model)
        cut(saved.SerializeToString())
        for outcome, data in tried(saved, COUNT // len(MODELS), SEED):
            outcomes[outcome] += 1
            if outcome == "passed":
                passed.append((model, data))
    assert {"passed", "SafetyError", "ReadError"} <= outcomes.keys()
    assert [outcome for outcome in outcomes if outcome.startswith("wrong")] == []
    drawn = random.Random(SEED).sample(passed, RUN)
    ends = Counter(ran(data, model, tmp_path / str(number)) for number, (model, data) in enumerate(drawn))
    assert [end for end in ends if end.startswith("wrong")] == []
    assert ran(saved_in(MODELS[0]).SerializeToString(), MODELS[0], tmp_path / "valid") == "ran"
    left_out = "" if IS_FULL else f"; {50_000 - COUNT} left out (CKCONV_ORACLE_FULL=1 takes all)"
    tell(f"{COUNT} mutants of graphs: {dict(outcomes)}; {RUN} of those that pass run: {dict(ends)}{left_out}")


def test_what_is_wrong_with_a_cut_graph_is_found() -> None:
    """The judge of mutants would notice an operator, a call or a note that ought not to be there."""
    saved = saved_in(MODELS[0])
    data = saved.SerializeToString()
    part = cut(data)
    assert list(faults(data, part)) == []
    graph = saved.meta_graphs[0].graph_def
    output = saved.meta_graphs[0].signature_def["serving_default"].outputs
    reached = next(iter(output.values())).name.partition(":")[0]
    node = next(each for each in graph.node if each.name == reached)
    node.input.append("^planted")
    graph.node.add(name="planted", op="WriteFile")
    assert list(faults(saved.SerializeToString(), part)) == ["operator WriteFile, reached"]
