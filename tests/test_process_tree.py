"""Where frameworks are installed and where they are not, weights are converted alike, and no process imports one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, Ckconv, python

FIXTURES = ROOT / "fixtures"
_CONFIG = "--config"
SOURCES: dict[str, tuple[str, ...]] = {
    "squad-bert/checkpoint.pth": (),
    "xlm-roberta-classifier/checkpoint.pth": (),
    "keras-encoders/numbers.h5": (),
    "keras-encoders/pooling.keras": (),
    "keras-encoders/siamese.keras": (),
    "keras-transformers/roberta-classifier.weights.h5": (_CONFIG, "keras-transformers/roberta-classifier.json"),
    "keras-transformers/vit.weights.h5": (_CONFIG, "keras-transformers/vit.json"),
    "names/bert_func_savedmodel/saved_model": (_CONFIG, "names/bert_func_savedmodel/config.json"),
    "names/gpt2_lm_h5": (),
    "names/albert_siamese_shared_h5/model.h5": (),
    "optimizer/adam-savedmodel": (),
    "optimizer/sgd-new.keras": (),
    "optimizer/rmsprop-legacy.h5": (),
    "keras/model.keras": (),
    "keras/saved_model": (),
    "tf1/bert-classifier/model.ckpt.index": (_CONFIG, "tf1/bert-classifier/bert_config.json"),
    "flax/transformers/roformer": (),
    "in-process/vit.pth": (_CONFIG, "in-process/vit/config.json"),
    "dcp/two-ranks": (),
}
TARGETS: dict[str, tuple[str, ...]] = {
    "pretrained": ("out/", "--to", "pretrained"),
    "bin": ("out/", "--to", "pretrained", "--flavor", "bin"),
    "tf": ("out/", "--to", "pretrained", "--flavor", "tf"),
    "flax": ("out/", "--to", "pretrained", "--flavor", "flax"),
    "pytorch": ("out.pth",),
    "safetensors": ("out.safetensors",),
    "dcp": ("out/", "--to", "dcp"),
    "h5": ("out.h5",),
    "keras": ("out.keras",),
    "weights_v3": ("out.weights.h5",),
    "tf-checkpoint": ("out/", "--to", "tf-checkpoint"),
    "savedmodel": ("out/", "--to", "savedmodel", "--weights-only"),
    "onnx": ("out.onnx", "--weights-only"),
}
OF_NO_TRANSFORMERS = ("optimizer/", "keras/", "dcp/")


def refusals(source: str, target: str) -> set[int]:
    """Return the exit codes of what has no place in the target."""
    if target in ("pretrained", "bin", "tf", "flax") and source.startswith(OF_NO_TRANSFORMERS):
        return {2, 3}
    if target == "tf-checkpoint":  # of a Keras model with an encoder, whose objects no table knows
        return {2} if source.startswith(("keras-encoders/", "names/")) else set()
    return {2, 3} if target in ("h5", "keras", "weights_v3") else set()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.one_in(30)
def test_the_same_command_gives_the_same_files(
    source: str, target: str, tmp_path: Path, ckconv: Ckconv, without_frameworks: Path
) -> None:
    """Or the same refusal: nothing is there because a framework is, or said for want of one."""
    place, *options = TARGETS[target]
    given = [str(FIXTURES / each) if "/" in each else each for each in SOURCES[source]]
    asked_for = without_frameworks / "asked-for"
    asked_for.unlink(missing_ok=True)
    answers = []
    for is_hidden in (True, False):
        folder = tmp_path / str(is_hidden)
        folder.mkdir()
        done = ckconv(FIXTURES / source, f"{folder}/{place}", *options, *given, without_frameworks=is_hidden)
        answers.append((done.returncode, done.stdout, done.stderr.replace(str(folder), ""), files(folder)))
    assert not asked_for.exists(), asked_for.read_text()
    assert answers[0] == answers[1]
    code, _, said, written = answers[0]
    assert code in {0, *refusals(source, target)}, said
    assert bool(written) == (code == 0)


def test_imports_are_noticed_in_every_process(squad_bert: Path, ckconv: Ckconv, without_frameworks: Path) -> None:
    asked_for = without_frameworks / "asked-for"
    for program in (
        "import torch",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import jax'])",
    ):
        asked_for.unlink(missing_ok=True)
        python(program, environment={**os.environ, "PYTHONPATH": str(without_frameworks)})
        assert asked_for.exists(), program
    asked_for.unlink()


def test_a_setting_of_the_config_needs_no_framework(
    squad_bert: Path, tmp_path: Path, ckconv: Ckconv, without_frameworks: Path
) -> None:
    """One that no file says, which only the class of the config knows."""
    given = ("--to", "pretrained", "--config-value", "chunk_size_feed_forward=4")
    done = ckconv(squad_bert, tmp_path / "out", *given, without_frameworks=True)
    assert done.returncode == 0, done.stderr
    assert not (without_frameworks / "asked-for").exists()
