"""Every Flax class of transformers 4.57.6, built small: read, written, and loaded again by its own class.

Needs a second environment with transformers 4.57.6, flax and torch: CKCONV_ORACLE_PYTHON is its interpreter, and
CKCONV_ORACLE_FLAX, where it is set, a folder with what tests.oracle.generate.flax_dump wrote before.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.encoding import safetensors
from converter.errors import CkconvError
from converter.model.file import LocalFile
from converter.model.tensor import is_equal
from tests.oracle import environment
from tests.oracle.generate.flax_configs import COMPOSITES, CONFIGS
from tests.slices import IS_FULL, SEED

ORACLE = environment.PYTHON
if not ORACLE:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

CLASSES = 133
FAMILIES_OF_A_PART = 4
TOLERANCE = 2e-5
POOLERS = {"bert.pooler.weight", "bert.pooler.bias"}
WITHOUT_POOLER = {"FlaxBigBirdForMaskedLM", "FlaxBigBirdForTokenClassification", "FlaxBigBirdForCausalLM"}
"""Classes whose PyTorch twin saves a pooler that it does not use."""
LOADED_OTHERWISE = {"ResNet", "Whisper"}
"""Models of which transformers' own loader misses tensors: only equal outputs confirm their names."""


def run(*arguments: str) -> str:
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    variables |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [ORACLE, "-m", *arguments], env=variables, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("CKCONV_ORACLE_FLAX")
    if given is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("dumps")
    families = sorted({*CONFIGS, *COMPOSITES})
    if not IS_FULL:
        families = random.Random(SEED).sample(families, FAMILIES_OF_A_PART)
    run("tests.oracle.generate.flax_dump", str(folder), *families)
    return folder


def cases(dumps: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    for path in sorted(dumps.glob("*/dump.json")):
        yield path.parent.name, path.parent, json.loads(path.read_text())


def difference(ours: Path, theirs: Path, allowed: frozenset[str]) -> list[str]:
    left, right = (safetensors.read(LocalFile(path))[0] for path in (ours, theirs))
    return sorted(
        name
        for name in (left.keys() | right.keys()) - allowed
        if name not in left or name not in right or not is_equal(left[name], right[name])
    )


def without_pooler(name: str) -> frozenset[str]:
    return frozenset(POOLERS) if name.partition(".")[0] in WITHOUT_POOLER else frozenset()


def reported(tell: Callable[[str], None], what: str, count: int, total: int, failed: dict[str, Any]) -> None:
    tell(f"{what}: {count} of {total}")
    for name, why in failed.items():
        tell(f"  {name}: {why}")


def test_every_class_is_built_and_its_names_are_confirmed(dumps: Path, tell: Callable[[str], None]) -> None:
    failed_file = dumps / "failed.json"
    failed: dict[str, Any] = json.loads(failed_file.read_text()) if failed_file.exists() else {}
    built = {entry["class"] for _, _, entry in cases(dumps)}
    for name, _, entry in cases(dumps):
        outputs = entry["outputs"]
        if entry["left"]:
            failed[name] = f"leaves without a name: {entry['left']}"
        elif isinstance(outputs, str) or not outputs or max(outputs.values()) > TOLERANCE:
            failed[name] = f"outputs: {outputs}"
        elif entry["loader"] != "same" and not any(part in name for part in LOADED_OTHERWISE):
            failed[name] = f"transformers' own loader: {entry['loader']}"
    reported(tell, "Flax classes built", len(built), CLASSES, failed)
    assert failed == {}
    assert len(built) == CLASSES if IS_FULL else len(built) >= FAMILIES_OF_A_PART


def test_every_class_is_read_as_pytorch_saves_it(dumps: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    failed: dict[str, Any] = {}
    total = 0
    for name, folder, _ in cases(dumps):
        total += 1
        out = tmp_path / f"{name}.safetensors"
        try:
            converter.convert(folder / "flax_model.msgpack", out, durable=False)
        except CkconvError as error:
            failed[name] = str(error)
            continue
        wrong = difference(out, folder / "expected.safetensors", without_pooler(name))
        if wrong:
            failed[name] = wrong[:4]
    reported(tell, "Flax read bit for bit", total - len(failed), total, failed)
    assert failed == {}
    assert total >= (CLASSES if IS_FULL else FAMILIES_OF_A_PART)


def test_every_class_loads_what_is_written_and_it_reads_back(
    dumps: Path, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    failed: dict[str, Any] = {}
    converted = tmp_path / "converted"
    total = 0
    for name, folder, entry in cases(dumps):
        total += 1
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        shutil.copy(folder / "expected.safetensors", source / "model.safetensors")
        shutil.copy(folder / "config.json", source)
        try:
            kind, size = ("whole", "0") if entry["variant"] == 0 else ("sharded", "16KB")
            written = converted / name / kind
            written.parent.mkdir(parents=True, exist_ok=True)
            converter.convert(source, written, to="pretrained", flavor="flax", max_shard_size=size, durable=False)
            back = tmp_path / "back.safetensors"
            converter.convert(written, back, durable=False, overwrite=True)
            wrong = difference(back, folder / "expected.safetensors", without_pooler(name))
            if wrong:
                failed[name] = f"{kind}, read again: {wrong[:4]}"
        except CkconvError as error:
            failed[name] = str(error)
    loaded = json.loads(run("tests.oracle.flax_loading", str(dumps), str(converted)).splitlines()[-1])
    for name, kinds in loaded.items():
        for kind, result in kinds.items():
            is_text = isinstance(result, str)
            if is_text or result["said"] or result["leaves"] or max(result["outputs"].values(), default=1) > 0:
                failed.setdefault(name, f"{kind}: {result}")
    reported(tell, "Flax written, loaded by transformers and read back", total - len(failed), total, failed)
    assert failed == {}
    assert set(loaded) == {name for name, _, _ in cases(dumps)}
