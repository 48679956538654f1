"""README's "Migrations": every line of its recipes is run on a model that is saved so, and the refusals are listed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Ckconv, python
from tests.migrations.rules import RULES

FIXTURES = ROOT / "fixtures"
SECTION = (ROOT / "README.md").read_text().partition("## Migrations")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^\$ ckconv (.*)$", SECTION, re.MULTILINE)
_NEED_FRAMEWORKS = re.compile(r"\.onnx\b|savedmodel|\bown\.")
_OWN = """
import json, os
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras, numpy
from my_layers import SimilarityLayer

left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
dense = keras.layers.Dense(3, name="dense")
model = keras.Model([left, right], SimilarityLayer(name="similarity")([dense(left), dense(right)]))
model.compile("adam", "mse")
model.fit([numpy.ones((2, 4)), numpy.zeros((2, 4))], numpy.ones(2), verbose=0)
model.save("own.keras")
model.save("own.h5")
model.save_weights("own.weights.h5")
open("own.json", "w").write(model.to_json())
"""
_LAYERS = """
import keras

@keras.saving.register_keras_serializable("my_layers")
class SimilarityLayer(keras.layers.Layer):
    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.projection = keras.layers.Dense(5)
        self.after = keras.layers.Dense(3)

    def build(self, shapes):
        self.projection.build(shapes[0])
        self.after.build((None, 5))
        self.scale = self.add_weight(name="scale", shape=(3,), initializer="ones")

    def call(self, towers):
        left, right = (self.after(self.projection(tower)) for tower in towers)
        return keras.ops.sum(left * right * self.scale, -1)
"""


def xlmr(folder: Path) -> None:
    """Weights of a class of transformers, config and tokenizer in folders of their own."""
    shutil.copy(FIXTURES / "keras-transformers" / "xlm-roberta-classifier.h5", folder / "xlmr.h5")
    for name in ("hf_config", "hf_tokenizer"):
        (folder / name).mkdir()
    shutil.copy(FIXTURES / "keras-transformers" / "xlm-roberta-classifier.json", folder / "hf_config" / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FIXTURES / "xlm-roberta-classifier" / name, folder / "hf_tokenizer")


def squad(folder: Path) -> None:
    shutil.copytree(FIXTURES / "squad-bert", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    three = {key: config[key] for key in ("model_type", "architectures", "hidden_act") if key in config}
    (folder / "three_keys.json").write_text(json.dumps(three))


def encoders(folder: Path) -> None:
    for name, called in (("numbers", "features"), ("pooling", "pooling"), ("siamese", "siamese")):
        for suffix in (".h5", ".keras"):
            shutil.copy(FIXTURES / "keras-encoders" / f"{name}{suffix}", folder / f"{called}{suffix}")


def own(folder: Path) -> None:
    (folder / "my_layers.py").write_text(_LAYERS)
    done = python(_OWN, cwd=folder)
    assert done.returncode == 0, done.stderr


MAKERS: dict[str, Callable[[Path], None]] = {
    "xlmr": xlmr,
    "features": encoders,
    "pooling": encoders,
    "siamese": encoders,
    "checkpoint": squad,
    "own": own,
}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(each, marks=[pytest.mark.framework] if _NEED_FRAMEWORKS.search(each) else [], id=each)
        for each in COMMANDS
    ],
)
def test_a_line_of_a_recipe_runs(command: str, tmp_path: Path, ckconv: Ckconv) -> None:
    source, target, *_ = command.split()
    MAKERS[source.partition(".")[0]](tmp_path)
    done = ckconv(*command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ok: "), done.stdout
    assert (tmp_path / target).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_recipe_says_how_what_it_converts_was_saved(command: str) -> None:
    """The text before a command has the calls that write its files, under their names."""
    text = SECTION.partition(f"$ ckconv {command}")[0].rpartition("\n**")[2]
    source, *rest = command.split()
    files = [source, *(rest[rest.index(each) + 1] for each in ("--config", "--tokenizer") if each in rest)]
    assert [name for name in files if f'"{name}"' not in text] == []


def test_there_is_a_recipe_for_each_word_that_people_search() -> None:
    words = ("siamese", "numerical features", "globalaveragepooling", "tokenizer", "squad", "custom_objects")
    assert [word for word in words if word not in SECTION.lower()] == []
    assert len(COMMANDS) >= len(words)


def test_the_refusals_are_those_of_the_table_of_migrations() -> None:
    listed = SECTION.partition("<!-- refusals:")[2].partition("<!-- end of refusals -->")[0]
    assert [row[1] for row in re.finditer(r"^\| (.*?) \|", listed, re.MULTILINE)] == ["rule", *RULES]
