"""Hostile Keras configs end with exit code 5 before Keras is imported; those of all that Keras has are let pass.

Mutants are a slice of CKCONV_ORACLE_SEED; CKCONV_ORACLE_FULL=1 takes 50,000, and 150 of those that pass through the
command. With CKCONV_ORACLE_PYTHON tf_keras is asked as well as Keras 3.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.box import landlock
from converter.errors import ArchitectureError, CkconvError, SafetyError, UsageError
from converter.formats import NoOptions, h5, keras
from converter.graphs.trace.tensorflow import keras_config
from converter.graphs.trace.tensorflow.building import build
from tests.faults.several import treated
from tests.graphs.hostile_keras_configs import FIXTURE, GRAPHS, HOSTILE, config_of, layer, write
from tests.graphs.keras_mutants import mutants
from tests.slices import IS_FULL, SEED

ORACLE = os.environ.get("CKCONV_ORACLE_PYTHON", "")
PYTHONS = {"keras": sys.executable, **({"tf_keras": ORACLE} if ORACLE else {})}
MUTANTS, MUTANTS_RUN = (50_000, 150) if IS_FULL else (4_000, 2)
COMMANDS = sorted(HOSTILE) if IS_FULL else random.Random(SEED).sample(sorted(HOSTILE), 3)
APPLICATIONS = () if IS_FULL else ("MobileNet", "ConvNeXtTiny")
TABLE = Path(converter.__file__).parent / "graphs/trace/tensorflow/keras_names.json"


def told(framework: str, module: str, *arguments: str, **keywords: Any) -> str:
    """What a program of the tests prints in the environment that has the framework."""
    done = subprocess.run(
        [PYTHONS[framework], "-m", f"tests.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[2])},
        **keywords,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module", params=PYTHONS)
def layers(request: pytest.FixtureRequest) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(told(request.param, "graphs.keras_layers", request.param, "layers"))
    return made


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_config_is_refused_before_keras_is_imported(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FIXTURE.with_suffix(suffix)
    values = config_of(source)
    keras_config.check(values, ())
    HOSTILE[kind].change(values)
    read = h5.read if suffix == ".h5" else keras.read
    graph = read(write(tmp_path / f"model{suffix}", values, source), NoOptions()).graph
    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    with pytest.raises(SafetyError) as caught:
        build(graph.trace.arguments["config"], (), "", is_archive=suffix == ".keras")
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert not imported


@pytest.mark.framework
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_command_refuses_in_one_line_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    values = config_of(FIXTURE)
    HOSTILE[kind].change(values)
    source = write(tmp_path / "model.keras", values)
    done = subprocess.run(
        [sys.executable, "-m", "converter", source, tmp_path / "out.onnx"], capture_output=True, text=True
    )
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("ckconv: ")
    assert len(done.stderr.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.framework
def test_a_dotted_name_does_not_fetch_a_file(tmp_path: Path) -> None:
    """Keras 3.10 takes "layers.Lambda" in the module "keras" for a Lambda, which calls what it is given."""
    origin, folder = tmp_path / "origin.txt", tmp_path / "fetched"
    origin.write_text("fetched")
    values = config_of(FIXTURE)
    converter.convert(write(tmp_path / "harmless.keras", values), tmp_path / "harmless.onnx", verify="weights")
    arguments = {"origin": origin.as_uri(), "cache_dir": os.fspath(folder), "cache_subdir": ""}
    function = {"module": "keras", "class_name": "function", "config": "utils.get_file"}
    values["config"]["layers"].append(
        {
            "module": "keras",
            "class_name": "layers.Lambda",
            "registered_name": None,
            "name": "l",
            "config": {"name": "l", "function": function, "arguments": arguments},
            "inbound_nodes": [{"args": [], "kwargs": {"inputs": ""}}],
        }
    )
    with pytest.raises(SafetyError, match=r"layers\.Lambda|utils\.get_file"):
        converter.convert(write(tmp_path / "hostile.keras", values), tmp_path / "hostile.onnx")
    assert not folder.exists()
    assert not (tmp_path / "hostile.onnx").exists()


@pytest.mark.framework
@pytest.mark.parametrize("framework", PYTHONS)
def test_the_list_is_what_keras_exports(framework: str) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    found = json.loads(told(framework, "oracle.generate.keras_names", framework))
    if found.pop("version") != table["versions"][framework]:
        pytest.skip(f"the list is of {framework} {table['versions'][framework]}")
    assert found == table[framework]


@pytest.mark.one_in(2)
@pytest.mark.framework
def test_every_layer_of_keras_is_let_pass(layers: dict[str, Any]) -> None:
    for name, config in layers["configs"].items():
        try:
            keras_config.check(config, ())
        except CkconvError as error:
            pytest.fail(f"{name}: {error}")
    programs = json.loads(TABLE.read_text(encoding="utf-8"))["programs"]
    assert set(layers["unbuilt"]) <= {*programs, "STFTSpectrogram"}, "layers that this test should build"
    assert len({name.partition("-")[0] for name in layers["configs"]}) > 110


@pytest.mark.one_in(2)
@pytest.mark.framework
@pytest.mark.parametrize("framework", PYTHONS)
def test_the_models_that_come_with_keras_are_let_pass(framework: str) -> None:
    made = json.loads(told(framework, "graphs.keras_layers", framework, "applications", *APPLICATIONS))
    print(f"{len(made['configs'])} models of {framework}.applications; CKCONV_ORACLE_FULL=1 takes all")
    assert len(made["configs"]) >= (35 if IS_FULL else len(APPLICATIONS))
    for config in made["configs"].values():
        keras_config.check(config, ())


@pytest.mark.one_in(2)
@pytest.mark.framework
def test_what_a_mutant_lets_keras_resolve_is_on_the_list(layers: dict[str, Any], tmp_path: Path) -> None:
    configs = [config_of(path) for path in sorted(GRAPHS.iterdir()) if path.suffix in (".keras", ".h5")]
    configs += layers["configs"].values()
    ends: Counter[str] = Counter()
    passed = []
    for config in configs:
        keras_config.check(config, ())
    for mutant in mutants(configs, MUTANTS, SEED):
        try:
            keras_config.check(mutant, ())
            ends["pass"] += 1
            passed.append(json.dumps(keras_config.for_keras(mutant, ())))
        except CkconvError as error:  # anything else is a fault of the check
            ends[type(error).__name__] += 1
    print(dict(ends), f"of {MUTANTS} mutants; CKCONV_ORACLE_FULL=1 takes 50,000")
    assert min(ends["pass"], ends["SafetyError"], ends["ArchitectureError"]) > MUTANTS // 200
    for framework in PYTHONS:
        *wrong, count = told(framework, "graphs.keras_resolver", framework, input="\n".join(passed)).splitlines()
        assert not wrong, wrong[:3]
        assert int(count) > len(passed)


@pytest.mark.framework
def test_mutants_that_pass_write_nothing_and_end_in_one_line(tmp_path: Path, tell: Callable[[str], None]) -> None:
    """strace sees to it: nothing is written, nobody talked to, and nothing tried that the valid models do not try."""
    if landlock.version() < 3:
        pytest.skip("this kernel has no Landlock 3: there is less of a box")
    valid = [GRAPHS / f"{name}.keras" for name in ("siamese", "cnn", "lstm")]
    passed: list[Path] = []
    of_each = [mutants([config_of(model)], 100 * MUTANTS_RUN, SEED) for model in valid]
    for number, configs in enumerate(zip(*of_each, strict=True)):
        for model, config in zip(valid, configs, strict=True):
            with contextlib.suppress(CkconvError):
                keras_config.check(config, ())
                passed.append(write(tmp_path / f"{model.stem}-{number}.keras", config, model))
        if len(passed) >= MUTANTS_RUN:
            break
    usual, ended = treated("onnx", valid, tmp_path / "usual", verify="weights")
    assert [each.code for each in ended] == [0] * len(valid)
    account, ended = treated("onnx", passed, tmp_path / "passed", verify="weights")
    assert account.refused <= usual.refused
    codes = Counter(each.code for each in ended)
    assert codes.keys() <= {0, 1, 2, 3, 7}, [each for each in ended if each.code not in (0, 1, 2, 3, 7)]
    limits = [each.said for each in ended if "reached its limit" in each.said]
    tell(
        f"{len(passed)} mutants of Keras configs that pass, exit codes {dict(codes)}, {account.closed} boxes closed, "
        f"{len(limits)} at a limit {limits}; CKCONV_ORACLE_FULL=1 runs 150"
    )
    assert len(ended) >= MUTANTS_RUN


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [("3.10.0", False), ("3.12.3", False), ("3.12.4", True), ("3.13.1", False), ("3.13.2", True), ("4.0.0rc1", True)],
)
def test_an_older_keras_builds_nothing(version: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReachedError(Exception):
        """Keras was asked to build."""

    def reached(*_: Any) -> None:
        raise ReachedError

    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(__version__=version, __name__="keras"))
    monkeypatch.setattr("converter.graphs.trace.tensorflow.building._weights_counted", reached)
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(CkconvError) as caught:
        build(config_of(FIXTURE), (), "", is_archive=True)
    assert isinstance(caught.value, UsageError) is not is_taken
    assert is_taken or f"Keras {version}" in str(caught.value)


def test_the_extra_asks_for_the_keras_that_is_accepted() -> None:
    text = (Path(converter.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"keras>=3.12.4,!=3.13.0,!=3.13.1"' in text


@pytest.mark.parametrize(
    "named",
    [
        {"module": "my_package.layers", "class_name": "Gain", "registered_name": "Gain"},
        {"module": "my_package.layers", "class_name": "Gain", "registered_name": "my_package>Gain"},
        {"module": None, "class_name": "my_package>Gain"},
        {"module": "builtins", "class_name": "function", "config": "Gain", "registered_name": "function"},
        {"module": "keras_hub.src.layers", "class_name": "Gain", "registered_name": "keras_hub>Gain"},
    ],
)
def test_a_class_of_the_users_is_known_to_keras_by_the_users_name(named: dict[str, Any]) -> None:
    values = config_of(FIXTURE)
    layer(values, "Dense")["config"]["value"] = {"config": {"activation": "own_words"}, **named}
    with pytest.raises(ArchitectureError, match=r"Gain.*--custom-objects .*:Gain"):
        keras_config.check(values, ())
    keras_config.check(values, ("Gain",))
    seen = layer(keras_config.for_keras(values, ("Gain",)), "Dense")["config"]["value"]
    assert seen.get("module") is None
    assert "Gain" in (seen["class_name"], seen["config"])
    assert seen.get("registered_name", "Gain") == "Gain"


@pytest.mark.parametrize(
    "named",
    [
        {"module": "keras.utils", "class_name": "get_file", "registered_name": "Gain"},
        {"module": "keras.utils", "class_name": "Gain"},
        {"module": "os", "class_name": "system", "registered_name": "Gain"},
        {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "Gain"},
    ],
)
def test_the_users_name_opens_nothing_else(named: dict[str, Any]) -> None:
    values = config_of(FIXTURE)
    layer(values, "Dense")["config"]["value"] = {"config": {}, **named}
    with pytest.raises(SafetyError):
        keras_config.check(values, ("Gain",))


def test_keras_does_not_see_what_it_would_train_with() -> None:
    values = config_of(FIXTURE)
    values["compile_config"] = {
        "optimizer": {"module": "converter.keras_optimizers", "class_name": "Adam", "config": {}},
        "loss": {"module": "my_package.losses", "class_name": "function", "config": "own_loss"},
        "metrics": [{"module": "keras.metrics", "class_name": "AUC", "config": {}, "registered_name": None}],
    }
    keras_config.check(values, ())
    assert "compile_config" not in keras_config.for_keras(values, ())
    assert layer(keras_config.for_keras(values, ()), "Dense") == layer(values, "Dense")
