"""Every TensorFlow class of transformers: what `--flavor tf` writes of PyTorch's weights loads whole, and comes back.

Needs the second environment (tests/oracle/environment.py). Prints which classes were built, which load with nothing
missing, nothing unexpected and equal outputs, and why the others do not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, read_bundle
from converter.errors import CkconvError
from tests.oracle import environment
from tests.oracle.reading import built_in
from tests.slices import IS_FULL

if not environment.PYTHON:
    pytest.skip("CKCONV_ORACLE_PYTHON names no Python", allow_module_level=True)

TOLERANCE = 1e-6
LACKS_VARIABLES = "its TensorFlow class has no place for some tensors of PyTorch's"
IS_BUILT_LATE = "transformers builds some of its layers after it has loaded the weights"
IS_TIED_LATE = "PyTorch ties its decoder when it loads, and not when it saves; the file's values are written"
IS_RENAMED = (
    "transformers 5 renamed the heads of segmentation, reads the former names of BEiT alone, and makes these up"
)
HAS_NO_PLACE = "transformers reads no {} from a tf_model.h5, its own included: it is in no layer"
NOT_LOADED = {
    "TFBlipTextLMHeadModel.0": IS_TIED_LATE,
    "TFBlipTextLMHeadModel.1": IS_TIED_LATE,
    "TFData2VecVisionForSemanticSegmentation.0": IS_RENAMED,
    "TFData2VecVisionForSemanticSegmentation.1": IS_RENAMED,
    "TFEsmForMaskedLM.1": IS_BUILT_LATE,
    "TFEsmModel.1": IS_BUILT_LATE,
    "TFEsmForSequenceClassification.1": LACKS_VARIABLES,
    "TFEsmForTokenClassification.1": LACKS_VARIABLES,
    "TFIdeficsForVisionText2Text.0": IS_BUILT_LATE,
    "TFIdeficsForVisionText2Text.1": IS_BUILT_LATE,
    "TFIdeficsModel.0": IS_BUILT_LATE,
    "TFIdeficsModel.1": IS_BUILT_LATE,
    "TFVisionTextDualEncoderModel.0": HAS_NO_PLACE.format("logit_scale"),
    "TFVisionTextDualEncoderModel.1": HAS_NO_PLACE.format("logit_scale"),
    "TFWav2Vec2ForSequenceClassification.1": HAS_NO_PLACE.format("layer_weights"),
}

NOT_RESTORED = {
    **{name: reason for name, reason in NOT_LOADED.items() if name.startswith(("TFBlip", "TFData", "TFIdefics"))},
    "TFEsmModel.1": IS_BUILT_LATE,
}
"""What is built late is restored, and missing in the model that transformers made for the comparison."""
WITHOUT_OBJECTS = (
    *(
        "TFFlaubert",
        "TFXLM",
        "TFResNet",
        "TFEncoderDecoder",
        "TFVisionEncoderDecoder",
        "TFVisionTextDualEncoder",
        "TFRag",
    ),
    *("TFEsmForMaskedLM", "TFEsmForSequenceClassification", "TFEsmForTokenClassification"),
)
"""Whose checkpoints have PyTorch's names: variables are at no path, at another with another config, or of one name."""


@pytest.fixture(scope="module")
def sources(tensorflow_dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as the PyTorch classes save them."""
    sources = tmp_path_factory.mktemp("sources")
    for model in built_in(tensorflow_dumps):
        (sources / model.name).mkdir()
        shutil.copy(model / "config.json", sources / model.name / "config.json")
        shutil.copy(model / "expected.safetensors", sources / model.name / "model.safetensors")
    return sources


def test_every_class_loads_and_comes_back(sources: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    wrong: dict[str, str] = {}
    written = tmp_path / "written"
    written.mkdir()
    names = sorted(path.name for path in sources.iterdir())
    assert names
    for name in names:
        reason = written_and_back(
            sources / name, written / name, tmp_path / "back" / name, to="pretrained", flavor="tf"
        )
        wrong.update({name: reason} if reason else {})
    report = tmp_path / "report.jsonl"
    environment.run("tests.oracle.tensorflow_loading", str(sources), str(written), str(report), timeout_seconds=3000)
    for line in map(json.loads, report.read_text().splitlines()):
        reason = failing(line)
        wrong.update({f"{line['class']}.{line['variant']}": reason} if reason else {})
    classes = {name.rpartition(".")[0] for name in names}
    whole = classes - {name.rpartition(".")[0] for name in wrong}
    in_one = classes - {each for each in classes if all(name in wrong for name in names if name.startswith(f"{each}."))}
    loaded = f"{len(whole)} load in both variants, {len(in_one)} in one of them"
    tell(f"PyTorch to TensorFlow: {len(classes)} classes built, {loaded}")
    for name, reason in wrong.items():
        tell(f"  {name}: {NOT_LOADED.get(name, reason)}")
    assert {name: reason for name, reason in wrong.items() if name not in NOT_LOADED} == {}
    assert [name for name in NOT_LOADED if name in names and name not in wrong] == []
    assert len(classes) >= (263 if IS_FULL else environment.FAMILIES_OF_A_PART)
    assert not IS_FULL or (len(whole) >= 250 and len(in_one) >= 258)


def test_every_class_restores_from_a_checkpoint(sources: Path, tmp_path: Path, tell: Callable[[str], None]) -> None:
    """With `tf.train.Checkpoint(model).restore(...).assert_consumed()`, or its names are said to be PyTorch's."""
    wrong: dict[str, str] = {}
    alone = []
    written = tmp_path / "written"
    written.mkdir()
    names = sorted(path.name for path in sources.iterdir())
    for name in names:
        reason = written_and_back(sources / name, written / name, tmp_path / "back" / name, to="tf-checkpoint")
        wrong.update({name: reason} if reason else {})
        if OBJECT_GRAPH_KEY not in read_bundle(written / name / "ckpt").entries:
            alone.append(name)
            shutil.rmtree(written / name)
    report = tmp_path / "report.jsonl"
    environment.run("tests.oracle.tensorflow_loading", str(sources), str(written), str(report), timeout_seconds=3000)
    for line in map(json.loads, report.read_text().splitlines()):
        reason = failing(line)
        wrong.update({f"{line['class']}.{line['variant']}": reason} if reason else {})
    tell(f"checkpoints: {len(names) - len(alone)} of {len(names)} models are restored, less {len(wrong)}")
    for name, reason in wrong.items():
        tell(f"  {name}: {NOT_RESTORED.get(name, reason)}")
    assert {name: reason for name, reason in wrong.items() if name not in NOT_RESTORED} == {}
    assert [name for name in NOT_RESTORED if name in names and name not in wrong] == []
    assert [name for name in alone if not name.startswith(WITHOUT_OBJECTS)] == []


def written_and_back(source: Path, target: Path, back: Path, **options: Any) -> str:
    """Convert to TensorFlow and back; return what is wrong, "" when every tensor is bit for bit the same.

    The classes of today tie nothing where a config says so, and those that wrote the source tied some all the same:
    what these share comes back under each name.
    """
    back.parent.mkdir(exist_ok=True)
    try:
        converter.convert(source, target, durable=False, **options)
        converter.convert(target, back, to="pretrained", durable=False)
    except CkconvError as error:
        return f"{type(error).__name__}: {error.message}"
    expected, found = (converter.read(folder).tensors for folder in (source, back))
    config = converter.read(source).config
    is_untied = config is not None and config.values.get("tie_word_embeddings") is False
    shared = {tensor.numpy().tobytes() for tensor in expected.values()} if is_untied else set()
    new = [name for name in set(found) - set(expected) if found[name].numpy().tobytes() not in shared]
    if others := sorted({*set(expected) - set(found), *new}):
        return f"back: {others[:3]}"
    wrong = [name for name in expected if expected[name].numpy().tobytes() != found[name].numpy().tobytes()]
    return f"back: other values in {wrong[:3]}" if wrong else ""


def failing(line: dict[str, Any]) -> str:
    """Return what a line of the report says is wrong, "" when all is right."""
    if "error" in line:
        return str(line["error"])
    keys = [f"{len(line[key])} {key}" for key in ("missing", "unexpected") if line[key]]
    if line["difference"] > TOLERANCE:
        keys.append(f"{line['in']} differ by {line['difference']:.1e}")
    return ", ".join(keys)
