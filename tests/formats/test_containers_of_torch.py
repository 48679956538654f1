"""Files of torch.save inside archives of NeMo and of stable-baselines3: read as files of torch, and safely."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3

import converter
from converter.encoding import gzip as gzip_files
from converter.errors import CkconvError
from converter.formats import registry
from converter.model.tensor import FileTensor
from tests.conftest import Ckconv

STATE = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "encoder.bias": torch.ones(2, dtype=torch.float16)}


def saved(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


# NeMo


def nemo(path: Path, files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT, mode: Any = "w:") -> Path:
    """Pack a folder as `_make_nemo_file_from_folder` of NeMo does."""
    folder = path.with_suffix(".folder")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with tarfile.open(path, mode, format=kind) as archive:
        archive.add(folder, arcname=".")
    return path


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_weights_of_nemo(kind: int, tmp_path: Path, ckconv: Ckconv) -> None:
    long = f"{'a' * (90 if kind != tarfile.USTAR_FORMAT else 60)}_tokenizer.model"
    files = {"model_config.yaml": b"target: x\n", "model_weights.ckpt": saved(STATE), long: b"x" * 700}
    path = nemo(tmp_path / "x.nemo", files, kind)
    done = ckconv(path, tmp_path / "x.safetensors", without_frameworks=True)
    assert done.returncode == 0, done.stderr
    assert f"note: {long}, model_config.yaml not carried: files beside the weights" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("ok: 2 mapped")
    found = converter.read(path)
    assert found.tensors.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
        assert isinstance(found.tensors[name], FileTensor)


def test_a_copy_of_nemo_is_a_file_of_torch(tmp_path: Path) -> None:
    path = nemo(tmp_path / "x.nemo", {"model_config.yaml": b"", "model_weights.ckpt": saved(STATE)})
    converter.convert(path, tmp_path / "x.ckpt")
    found = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())
    converter.convert(path, tmp_path / "x.safetensors")
    source = registry()["safetensors"].provenance(tmp_path / "x.safetensors")["source_hash"]
    assert source["hex"] == blake3(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"mp_rank_00/model_weights.ckpt": b"", "mp_rank_01/model_weights.ckpt": b""}, "holds a model in 2 parts"),
        ({"model_weights/.metadata": b"", "model_config.yaml": b""}, "holds a model that several processes saved"),
        ({"model_weights.ckpt": b"nothing"}, "is no file that torch.save wrote"),
    ],
)
def test_nemo_without_one_model_is_refused(files: dict[str, bytes], what: str, tmp_path: Path) -> None:
    with pytest.raises(CkconvError, match=what):
        converter.read(nemo(tmp_path / "x.nemo", files))


def test_a_nemo_with_gzip_is_read_as_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_files, "_FIRST_STEP_BYTES", 1 << 16)
    monkeypatch.setattr(gzip_files, "_PLACES", 4)
    monkeypatch.setattr(gzip_files, "CHUNK_BYTES", 1 << 15)
    torch.manual_seed(0)
    state = {f"{number}.weight": torch.rand(100, 1000).round() for number in range(8)}
    path = nemo(tmp_path / "x.nemo", {"a.yaml": b"x", "model_weights.ckpt": saved(state)}, mode="w:gz")
    found = converter.read(path)
    for name in reversed(state):
        assert found.tensors[name].numpy().tobytes() == state[name].numpy().tobytes()
    converter.convert(path, tmp_path / "x.safetensors", jobs=3)
    source = registry()["safetensors"].provenance(tmp_path / "x.safetensors")["source_hash"]
    assert source["hex"] == blake3(path.read_bytes()).hexdigest()
    assert converter.verify(path, tmp_path / "x.safetensors").verification.weights


def test_a_damaged_gzip_is_noticed(tmp_path: Path) -> None:
    path = nemo(tmp_path / "x.nemo", {"model_weights.ckpt": saved(STATE)}, mode="w:gz")
    content = path.read_bytes()
    assert len(converter.read(path).tensors) == 2
    flipped = content[:-6] + bytes([content[-6] ^ 1]) + content[-5:]
    cases = (content[:-1], content[: len(content) // 2], content + b"x", content + content, flipped)
    for damaged in (*cases, gzip.compress(bytes(1 << 25))[:-9]):
        path.write_bytes(damaged)
        with pytest.raises(CkconvError) as caught:
            converter.read(path, from_format="pytorch")
        assert caught.value.exit_code == 1


def test_what_grows_too_much_is_no_nemo(tmp_path: Path) -> None:
    path = nemo(tmp_path / "x.nemo", {"model_weights.ckpt": bytes(20 << 20)}, mode="w:gz")
    with pytest.raises(CkconvError, match="it grows too much"):
        converter.read(path)


def test_other_tars_and_files_with_gzip_are_no_nemo(tmp_path: Path) -> None:
    path = nemo(tmp_path / "x.tgz", {"a.txt": b"x"}, mode="w:gz")
    with pytest.raises(CkconvError, match="is a tar without a model of NeMo"):
        converter.read(path)
    path.write_bytes(gzip.compress(saved(STATE)))
    with pytest.raises(CkconvError, match=r"is compressed with gzip.*gunzip"):
        converter.read(path)


def info(name: str, content: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in values.items():
        setattr(member, key, value)
    return member, content


WEIGHTS = ("model_weights.ckpt", saved(STATE))
HOSTILE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "up": lambda: [info(*WEIGHTS), info("../x", b"x")],
    "absolute": lambda: [info(*WEIGHTS), info("/etc/x", b"x")],
    "backslash": lambda: [info(*WEIGHTS), info("a\\..\\x", b"x")],
    "link": lambda: [info("model_weights.ckpt", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "hard link": lambda: [info("model_weights.ckpt", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "device": lambda: [info(*WEIGHTS), info("x", type=tarfile.CHRTYPE)],
    "twice": lambda: [info(*WEIGHTS), info("./model_weights.ckpt", saved({}))],
    "nearly twice": lambda: [info(*WEIGHTS), info("MODEL_weights.ckpt", saved({}))],
    "pax name": lambda: [info("model_weights.ckpt", WEIGHTS[1], pax_headers={"path": "../model_weights.ckpt"})],
    "pax size": lambda: [info("model_weights.ckpt", WEIGHTS[1], pax_headers={"size": "99999999999999"})],
    "sparse": lambda: [info("model_weights.ckpt", WEIGHTS[1], pax_headers={"GNU.sparse.map": "0,1"})],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tar_is_refused(case: str, tmp_path: Path) -> None:
    def written(members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
        with tarfile.open(tmp_path / "x.nemo", "w:") as archive:
            for member, content in members:
                archive.addfile(member, io.BytesIO(content))
        return tmp_path / "x.nemo"

    assert len(converter.read(written([info(*WEIGHTS), info("x", b"x")])).tensors) == 2
    with pytest.raises(CkconvError) as caught:
        converter.read(written(HOSTILE[case]()), from_format="pytorch")
    assert caught.value.exit_code in (1, 5)
    assert "tar" in caught.value.message


def test_every_damaged_header_of_a_tar_is_noticed(tmp_path: Path) -> None:
    path = nemo(tmp_path / "x.nemo", {"model_config.yaml": b"a" * 600, "model_weights.ckpt": saved(STATE)})
    content = path.read_bytes()
    noticed = 0
    for position in [*range(0, 1536, 7), len(content) - 1]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            found = converter.read(path, from_format="pytorch")
        except CkconvError:
            noticed += 1
            continue
        values = {name: tensor.numpy().tobytes() for name, tensor in found.tensors.items()}
        assert values == {name: tensor.numpy().tobytes() for name, tensor in STATE.items()}
    assert noticed > 50
    for length in range(0, len(content.rstrip(b"\0")), 997):
        path.write_bytes(content[:length])
        with pytest.raises(CkconvError):
            converter.read(path, from_format="pytorch")


# stable-baselines3


class Policy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor = torch.nn.Linear(3, 2)
        self.critic = torch.nn.Linear(3, 1)


def trained() -> tuple[Policy, torch.optim.Adam]:
    torch.manual_seed(0)
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4, eps=1e-5)
    (policy.actor(torch.ones(1, 3)).sum() + policy.critic(torch.ones(1, 3)).sum()).backward()
    optimizer.step()
    return policy, optimizer


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/ckconv-was-here",)


DATA = {
    "policy_class": {
        ":type:": "<class 'abc.ABCMeta'>",
        ":serialized:": base64.b64encode(pickle.dumps(Bomb())).decode(),
    },
    "num_timesteps": 2048,
    "gamma": 0.99,
    "seed": None,
}


def baselines(path: Path, files: dict[str, Any], data: str | None = None) -> Path:
    """Pack what `save_to_zip_file` of stable-baselines3 does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps(DATA) if data is None else data)
        for name, value in files.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(value if isinstance(value, bytes) else saved(value))
        archive.writestr("_stable_baselines3_version", "2.3.2")
        archive.writestr("system_info.txt", "OS: Linux\n")
    return path


def test_weights_and_optimizer_of_stable_baselines(tmp_path: Path, ckconv: Ckconv) -> None:
    policy, optimizer = trained()
    files = {
        "pytorch_variables.pth": {},
        "policy.pth": policy.state_dict(),
        "policy.optimizer.pth": optimizer.state_dict(),
    }
    path = baselines(tmp_path / "ppo.zip", files)
    found = converter.read(path)
    assert found.tensors.keys() == policy.state_dict().keys()
    for name, tensor in policy.state_dict().items():
        assert found.tensors[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert found.optimizer is not None
    assert (found.optimizer.algorithm, found.optimizer.step) == ("adam", 1)
    assert found.extras["data"] == {"num_timesteps": 2048, "gamma": 0.99, "seed": None}
    assert any("data.policy_class not carried: pickled objects" in warning for warning in found.warnings)
    done = ckconv(path, tmp_path / "x.pth", without_frameworks=True)
    assert done.returncode == 0, done.stderr
    copy = torch.load(tmp_path / "x.pth", weights_only=True)
    policy.load_state_dict(copy["policy"])
    optimizer.load_state_dict(copy["policy.optimizer"])


def test_several_optimizers_and_variables_of_stable_baselines(tmp_path: Path) -> None:
    policy, optimizer = trained()
    files = {
        "pytorch_variables.pth": {"log_ent_coef": torch.full((2, 3), 7.0)},
        "policy.pth": policy.state_dict(),
        "actor.optimizer.pth": optimizer.state_dict(),
        "ent_coef_optimizer.pth": torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]).state_dict(),
    }
    found = converter.read(baselines(tmp_path / "sac.zip", files))
    values = {name.rpartition("policy.")[2]: tensor.numpy().tobytes() for name, tensor in found.tensors.items()}
    for name, tensor in policy.state_dict().items():
        assert values[name] == tensor.numpy().tobytes()
    (name,) = (name for name in found.tensors if name.endswith("log_ent_coef"))
    assert found.tensors[name].numpy().tolist() == [[7.0] * 3] * 2
    assert not found.aliases


@pytest.mark.parametrize("data", ["{", '{"gamma": NaN}', "[]", "[" * 5000])
def test_unreadable_settings_are_no_veto(data: str, tmp_path: Path) -> None:
    found = converter.read(baselines(tmp_path / "x.zip", {"policy.pth": STATE}, data))
    assert found.tensors.keys() == STATE.keys()
    assert any(warning.startswith("data not carried: ") for warning in found.warnings)


def test_what_would_run_code_in_a_part_is_refused(tmp_path: Path) -> None:
    assert len(converter.read(baselines(tmp_path / "x.zip", {"policy.pth": STATE})).tensors) == 2
    with pytest.raises(CkconvError) as caught:
        converter.read(baselines(tmp_path / "y.zip", {"policy.pth": {**STATE, "x": Bomb()}}))
    assert caught.value.exit_code == 5
    with pytest.raises(CkconvError) as caught:
        converter.read(baselines(tmp_path / "z.zip", {"policy.pth": STATE, "../a.pth": STATE}))
    assert caught.value.exit_code == 5
