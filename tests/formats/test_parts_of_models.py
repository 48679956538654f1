"""One part of a model is no model: it is refused, and what helps is said. The index of shards is their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import converter
from converter.errors import ReadError

WEIGHTS = {f"layer.{number}.weight": torch.full((4, 3), float(number)) for number in range(4)}
DEEPSPEED = "zero_pp_rank_0_mp_rank_00_model_states.pt"


def sharded(folder: Path, to: str = "safetensors", **options: Any) -> Path:
    torch.save(WEIGHTS, folder / "x.pt")
    (folder / "config.json").write_text('{"model_type": "none"}')
    converter.convert(folder / "x.pt", f"{folder}/shards/", to=to, max_shard_size="60", **options)
    return folder / "shards"


@pytest.mark.parametrize("flavor", [None, "safetensors", "bin"])
def test_a_shard_alone(flavor: str | None, tmp_path: Path) -> None:
    folder = sharded(tmp_path) if flavor is None else sharded(tmp_path, "pretrained", flavor=flavor)
    shards = sorted(path for path in folder.iterdir() if "-of-" in path.name)
    assert len(shards) == 4
    for allowed in ((), ("*",)):
        with pytest.raises(ReadError, match=r"is shard 2 of 4; give the folder, or its index") as caught:
            converter.convert(shards[1], tmp_path / "out.safetensors", allow_dropped=allowed)
        assert caught.value.exit_code == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    shards[1].rename(alone / shards[1].name)
    with pytest.raises(ReadError, match="is shard 2 of 4"):
        converter.read(alone / shards[1].name)
    whole = (alone / shards[1].name).rename(alone / shards[1].name.replace("00002-of-00004", "00001-of-00001"))
    assert len(converter.read(whole).names) == 1


@pytest.mark.parametrize("flavor", [None, "safetensors", "bin"])
def test_an_index_is_the_folder(flavor: str | None, tmp_path: Path) -> None:
    folder = sharded(tmp_path) if flavor is None else sharded(tmp_path, "pretrained", flavor=flavor)
    (index,) = folder.glob("*.index.json")
    converter.convert(index, tmp_path / "out.safetensors")
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())
    assert set(found) == set(WEIGHTS)
    assert converter.verify(index, tmp_path / "out.safetensors").verification.weights
    assert converter.diff(index, folder).is_same


def llama(folder: Path, *numbers: int) -> None:
    for number in numbers:
        torch.save({"tok_embeddings.weight": torch.ones(8, 2)}, folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text("{}")


def test_parts_of_llama(tmp_path: Path) -> None:
    llama(tmp_path, 0)
    assert converter.read(tmp_path / "consolidated.00.pth").names == ("tok_embeddings.weight",)
    with pytest.raises(ReadError, match=r"holds consolidated.00.pth, .*; give that file"):
        converter.read(tmp_path)
    llama(tmp_path, 1)
    for number, other in ((0, 1), (1, 0)):
        with pytest.raises(ReadError, match=rf"is one part of a model, of which consolidated.0{other}.pth is another"):
            converter.read(tmp_path / f"consolidated.0{number}.pth")
    with pytest.raises(ReadError, match=r"holds parts of a model, consolidated.00.pth and 1 more"):
        converter.read(tmp_path)


def zero(shapes: Any, **tensors: torch.Tensor) -> dict[str, Any]:
    return {"module": tensors, "param_shapes": shapes, "global_steps": 5, "ds_version": "0.14.4"}


def test_places_of_zero_without_values(tmp_path: Path) -> None:
    """ZeRO-3 leaves the values with the optimizers of all processes; the other stages do not."""
    shapes = [{"embed.weight": torch.Size([8, 4])}, {"gone": torch.Size([0])}]
    path = tmp_path / DEEPSPEED
    torch.save(zero(shapes, **{"embed.weight": torch.ones(8, 4), "gone": torch.ones(0)}), path)
    assert set(converter.read(path).names) == {"embed.weight", "gone"}
    torch.save(zero(shapes, **{"embed.weight": torch.ones(0), "gone": torch.ones(0)}), path)
    with pytest.raises(ReadError, match=r"tensor embed.weight: has no values here: .*; zero_to_fp32.py"):
        converter.read(path)


def test_folders_of_deepspeed(tmp_path: Path) -> None:
    step = tmp_path / "global_step5"
    step.mkdir()
    (tmp_path / "latest").write_text("global_step5")
    torch.save({}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    for folder in (tmp_path, step):
        with pytest.raises(ReadError, match=r"the parts that DeepSpeed's processes wrote; zero_to_fp32.py"):
            converter.read(folder)


def test_the_optimizer_of_a_process_of_deepspeed_is_no_model(tmp_path: Path) -> None:
    state = {"fp32_flat_groups": [torch.ones(8)], "zero_stage": 3, "partition_count": 2}
    for name in ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "renamed.pt"):
        torch.save({"optimizer_state_dict": state, "ds_config": {}, "ds_version": "0.14"}, tmp_path / name)
        with pytest.raises(
            ReadError, match=r"the part of an optimizer that one process of DeepSpeed had; zero_to_fp32"
        ):
            converter.read(tmp_path / name)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ("mp_rank_00/model_optim_rng.pt", "mp_rank_01/model_optim_rng.pt"),
        ("mp_rank_00_000/model_optim_rng.pt", "mp_rank_00_001/model_optim_rng.pt"),
        ("checkpoint_last-shard0.pt", "checkpoint_last-shard1.pt"),
        ("reshard-model_part-0.pt", "reshard-model_part-1.pt"),
        ("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"),
    ],
)
def test_what_one_process_had_is_a_part(first: str, other: str, tmp_path: Path) -> None:
    for name in (first, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"model": dict(WEIGHTS), "iteration": 1}, tmp_path / name)
        if name == first:
            assert converter.read(tmp_path / first).tensors.keys() == WEIGHTS.keys()
    for name, beside in ((first, other), (other, first)):
        with pytest.raises(ReadError, match=f"is one part of a model, of which {Path(beside).parts[0]} is another"):
            converter.read(tmp_path / name)
    (tmp_path / first).unlink()
    if (tmp_path / first).parent != tmp_path:
        (tmp_path / first).parent.rmdir()
    with pytest.raises(ReadError, match="is one part of a model, not the first"):
        converter.read(tmp_path / other)


@pytest.mark.parametrize("flavor", ["safetensors", "bin"])
@pytest.mark.parametrize("kept", [1, 3, 4])
def test_shards_without_their_index(flavor: str, kept: int, tmp_path: Path) -> None:
    """One is no model, and of several nobody knows whether they are all."""
    folder = sharded(tmp_path, "pretrained", flavor=flavor)
    next(folder.glob("*.index.json")).unlink()
    for path in sorted(path for path in folder.iterdir() if "-of-" in path.name)[kept:]:
        path.unlink()
    for has_config in (True, False):
        with pytest.raises(ReadError, match=rf"holds {kept} of 4 shards, and no index; the index \(\*\.index\.json\)"):
            converter.read(folder)
        if has_config:
            (folder / "config.json").unlink()
