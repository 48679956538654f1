"""Names that transformers 5 has in memory, against what its save_pretrained writes (fixtures/in-process)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects.tables import document
from converter.dialects.transformers import in_process_names
from converter.dialects.transformers.in_process_rows import variants
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import Status
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "in-process"
CASES = sorted(path.stem for path in FIXTURES.glob("*.pth"))
LAYER = "vit.layers.0.attention.q_proj.weight"
LAYER_ON_HUB = "vit.encoder.layer.0.attention.attention.query.weight"


def in_memory(case: str) -> Checkpoint:
    return converter.read(FIXTURES / f"{case}.pth", config=FIXTURES / case / "config.json")


def on_hub(case: str) -> Checkpoint:
    return converter.read(FIXTURES / case)


def assert_same(ours: Checkpoint, theirs: Checkpoint) -> None:
    for name in theirs.names:
        np.testing.assert_array_equal(ours.tensor(name).numpy(), theirs.tensor(name).numpy(), err_msg=name)


def weights(path: Path) -> bytes:
    """The bytes of a safetensors file behind its header, and what the header says of tensors."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    del header["__metadata__"]
    return json.dumps(header, sort_keys=True).encode() + raw[8 + size :]


def test_the_fixtures_are_there() -> None:
    assert len(CASES) == 7


@pytest.mark.parametrize("case", CASES)
def test_both_become_the_same_names_and_values(case: str) -> None:
    translated, stored = in_process_names.to_hub(in_memory(case)), on_hub(case)
    tied = set(translated.names) - set(stored.names)
    assert set(stored.names) <= set(translated.names)
    assert all(name in translated.aliases or name in translated.aliases.values() for name in tied)
    assert_same(translated, stored)
    assert in_process_names.to_hub(stored) is stored


@pytest.mark.parametrize("case", ["vit", "mixtral", "nomic-bert"])
def test_a_state_dict_and_a_folder_become_the_same_file(case: str, tmp_path: Path) -> None:
    config = FIXTURES / case / "config.json"
    report = converter.convert(FIXTURES / f"{case}.pth", tmp_path / "memory.safetensors", config=config)
    converter.convert(FIXTURES / case, tmp_path / "hub.safetensors")
    assert weights(tmp_path / "memory.safetensors") == weights(tmp_path / "hub.safetensors")
    assert {line.name for line in report.lines} == set(in_memory(case).names)
    assert {line.status for line in report.lines} == {Status.MAPPED}


@pytest.mark.parametrize("case", [case for case in CASES if case != "nomic-bert"])
def test_the_way_back_gives_the_names_in_memory(case: str) -> None:
    back = in_process_names.to_in_process(on_hub(case))
    source = in_memory(case)
    assert set(back.names) <= set(source.names)
    assert set(source.names) - set(back.names) <= {*source.aliases, *source.aliases.values()}
    for name in back.names:
        np.testing.assert_array_equal(back.tensor(name).numpy(), source.tensor(name).numpy(), err_msg=name)


def test_joined_projections_are_divided_again() -> None:
    back = in_process_names.to_in_process(on_hub("nomic-bert"))
    source = in_memory("nomic-bert")
    assert set(back.names) == set(source.names)
    assert_same(back, source)


def test_projections_of_unequal_size_are_not_divided_by_guess() -> None:
    hub = on_hub("nomic-bert")
    assert in_process_names.to_in_process(hub).names != hub.names
    assert hub.config is not None
    config = replace(hub.config, values={**hub.config.values, "num_key_value_heads": 1})
    with pytest.raises(LossError, match="does not say how many"):
        in_process_names.to_in_process(replace(hub, config=config))


@pytest.mark.parametrize("target", ["out.pth", "out-dcp"])
def test_pytorch_keeps_the_names_of_the_source(target: str, tmp_path: Path) -> None:
    config = FIXTURES / "vit" / "config.json"
    to = "dcp" if target.endswith("dcp") else None
    converter.convert(FIXTURES / "vit.pth", tmp_path / target, config=config, to=to)
    assert set(converter.read(tmp_path / target).names) == set(in_memory("vit").names)


def test_no_framework_is_needed(tmp_path: Path) -> None:
    script = (
        "import sys, converter; converter.convert(*sys.argv[1:3], config=sys.argv[3]);"
        "assert not {'torch', 'transformers', 'tensorflow'} & set(sys.modules)"
    )
    paths = [FIXTURES / "vit.pth", tmp_path / "out.safetensors", FIXTURES / "vit" / "config.json"]
    subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=True, timeout=120)
    assert LAYER_ON_HUB in converter.read(tmp_path / "out.safetensors").names


def test_without_a_config_names_stay(tmp_path: Path) -> None:
    source = converter.read(FIXTURES / "vit.pth")
    assert in_process_names.to_hub(source) is source


def test_lightnings_prefix_stays_before_the_name() -> None:
    source = in_memory("vit").with_names(lambda name: f"model.{name}")
    assert f"model.{LAYER_ON_HUB}" in in_process_names.to_hub(source).names


def test_the_base_model_has_no_prefix() -> None:
    source = in_memory("vit")
    base = {name.removeprefix("vit."): tensor for name, tensor in source.tensors.items() if name.startswith("vit.")}
    assert LAYER_ON_HUB.removeprefix("vit.") in in_process_names.to_hub(replace(source, tensors=base)).names


def test_a_mix_is_kept_and_said() -> None:
    source, stored = in_memory("vit"), on_hub("vit")
    part = "vit.encoder.layer.1.intermediate.dense.weight"
    assert in_process_names.to_hub(source).warnings
    mixed = in_process_names.to_hub(replace(source, tensors={**source.tensors, part: stored.tensor(part)}))
    assert set(mixed.names) == {*source.names, part}
    assert "names kept" in mixed.warnings[-1]


def test_ties_stay_ties() -> None:
    source = in_memory("vit")
    other = LAYER.replace(".0.", ".1.")
    tied = replace(without(other)(source), aliases={other: LAYER})
    assert in_process_names.to_hub(tied).aliases == {LAYER_ON_HUB.replace(".0.", ".1."): LAYER_ON_HUB}


def with_moments(source: Checkpoint) -> Checkpoint:
    moments = {name: ArrayTensor.of(np.zeros(tensor.shape, np.float32)) for name, tensor in source.tensors.items()}
    group = ParameterGroup(parameters=tuple(source.tensors), hyperparameters={"lr": 0.1})
    return replace(
        source, optimizer=OptimizerState(algorithm="Adam", step=1, groups=(group,), slots={"exp_avg": moments})
    )


def test_moments_are_renamed_with_their_weights() -> None:
    state = in_process_names.to_hub(with_moments(in_memory("vit"))).optimizer
    assert state is not None
    assert set(state.slots["exp_avg"]) == set(state.groups[0].parameters) == set(on_hub("vit").names)


@pytest.mark.parametrize("name", ["mixtral", "nomic-bert"])
def test_moments_are_repacked_as_their_weights_are(name: str) -> None:
    source = in_memory(name)
    group = ParameterGroup(parameters=tuple(source.tensors), hyperparameters={"lr": 0.1})
    state = OptimizerState(algorithm="Adam", step=1, groups=(group,), slots={"exp_avg": dict(source.tensors)})
    saved = in_process_names.to_hub(replace(source, optimizer=state))
    assert saved.optimizer is not None
    assert set(saved.optimizer.groups[0].parameters) == set(saved.tensors) != set(source.tensors)
    for each, moment in saved.optimizer.slots["exp_avg"].items():
        np.testing.assert_array_equal(moment.numpy(), saved.tensors[each].numpy())
    again = in_process_names.to_in_process(saved)
    assert again.optimizer is not None
    assert sorted(again.optimizer.groups[0].parameters) == sorted(group.parameters)
    for each, tensor in source.tensors.items():
        np.testing.assert_array_equal(again.optimizer.slots["exp_avg"][each].numpy(), tensor.numpy())


def test_moments_of_experts_in_two_groups_are_refused() -> None:
    saved = in_process_names.to_hub(in_memory("mixtral"))
    names = tuple(saved.tensors)
    groups = tuple(ParameterGroup(parameters=part, hyperparameters={"lr": 0.1}) for part in (names[::2], names[1::2]))
    state = OptimizerState(algorithm="Adam", step=1, groups=groups, slots={"exp_avg": dict(saved.tensors)})
    found = in_process_names.to_in_process(replace(saved, optimizer=state))
    assert found.optimizer is None
    assert "become one, and are not in one parameter group" in (found.optimizer_refused or "")


def without(name: str) -> Callable[[Checkpoint], Checkpoint]:
    return lambda source: replace(source, tensors={key: t for key, t in source.tensors.items() if key != name})


def test_a_part_that_is_missing_is_named() -> None:
    source = in_memory("nomic-bert")
    name = "layers.1.self_attn.k_proj.weight"
    assert name in source.names
    assert in_process_names.to_hub(source)
    with pytest.raises(LossError) as caught:
        in_process_names.to_hub(without(name)(source))
    assert caught.value.tensor == name


def test_experts_that_do_not_divide_are_named() -> None:
    source = in_memory("mixtral")
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert name in source.names
    assert in_process_names.to_hub(source)
    odd = ArrayTensor.of(np.zeros((3, 7, 8), np.float32))
    with pytest.raises(ReadError) as caught:
        in_process_names.to_hub(replace(source, tensors={**source.tensors, name: odd}))
    assert caught.value.tensor == name


def test_every_model_type_is_without_contradiction() -> None:
    model_types = document("in_process")["models"]
    assert len(model_types) > 150
    for model_type in model_types:
        for variant in variants(model_type):
            assert variant.classes
            assert variant.rows.all or variant.packed or variant.moved or variant.left_out
