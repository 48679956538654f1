"""What many tests need: the fixtures, and `ckconv` in a process of its own."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.slices import IS_FULL, TOLD, left_out
from tests.tiers import FRAMEWORKS, OF_EXTRAS, ROOT, file_needs_one, function_needs_one

_HIDES_FRAMEWORKS = f"""
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path


class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {(*FRAMEWORKS, "flax", "tf2onnx", "tf_keras")!r}:
            with open(Path(__file__).with_name("asked-for"), "a") as asked_for:
                asked_for.write(f"{{name}} by {{sys.orig_argv}}\\n")
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
"""
"""A sitecustomize.py, which every process of a tree runs that is started with its folder in PYTHONPATH."""

Ckconv = Callable[..., "subprocess.CompletedProcess[str]"]

SKIPS_IN_CI: dict[str, str] = {}
"""Which skips are right where everything is installed: a regular expression for the reason, and why. None is."""


def _check_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Let a test or a file that is skipped fail in CI, unless the list above has its reason."""
    if not (os.environ.get("CI") and report.skipped) or hasattr(report, "wasxfail"):
        return
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(re.search(reason, said) for reason in SKIPS_IN_CI):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: in CI nothing is skipped that is not on a list: {said}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that cannot be imported without a framework where no such test is asked for."""
    is_asked_for = config.getoption("markexpr") != "not framework"
    return None if is_asked_for or collection_path.suffix != ".py" or not file_needs_one(collection_path) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need a framework, by what they, their fixtures and their helpers import; leave slices."""
    for item in items:
        if isinstance(item, pytest.Function) and _needs_framework(item):
            item.add_marker(pytest.mark.framework)
    if IS_FULL or config.args != config.getini("testpaths"):
        return
    others = set(left_out(items))
    config.hook.pytest_deselected(items=list(others))
    items[:] = [item for item in items if item not in others]


def _needs_framework(item: pytest.Function) -> bool:
    used = [item.function, *(each.func for found in item._fixtureinfo.name2fixturedefs.values() for each in found)]
    places = [(Path(each.__code__.co_filename), each.__name__) for each in map(inspect.unwrap, used)]
    return file_needs_one(item.path) or any(
        function_needs_one(path, name) for path, name in places if path.is_relative_to(ROOT / "tests")
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _check_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _skip_without_extras(report, collector)
    _check_skip(report)
    return report


def _skip_without_extras(report: pytest.CollectReport, collector: pytest.Collector) -> None:
    """Let a file that cannot be imported for want of a framework be skipped, as importorskip does."""
    call = getattr(report, "call", None)
    error = None if call is None or call.excinfo is None else call.excinfo.value.__cause__
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if report.failed and name in OF_EXTRAS and importlib.util.find_spec(name) is None:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: could not import {name!r}: {error}")


@pytest.fixture(scope="session")
def squad_bert() -> Path:
    """A fine-tuned BertForQuestionAnswering with its optimizer, config and tokenizer."""
    return ROOT / "fixtures" / "squad-bert" / "checkpoint.pth"


@pytest.fixture(scope="session")
def xlm_roberta() -> Path:
    """A fine-tuned XLMRobertaForSequenceClassification: a state dict, config and tokenizer."""
    return ROOT / "fixtures" / "xlm-roberta-classifier" / "checkpoint.pth"


@pytest.fixture(scope="session")
def expected() -> Callable[[Path], dict[str, Any]]:
    """What a fixture must read as."""
    return lambda checkpoint: json.loads((checkpoint.parent / "expected.json").read_text())


@pytest.fixture(scope="session")
def without_frameworks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be first in PYTHONPATH, which hides frameworks; its file `asked-for` has a line for each import."""
    folder = tmp_path_factory.mktemp("without_frameworks")
    (folder / "sitecustomize.py").write_text(_HIDES_FRAMEWORKS)
    return folder


@pytest.fixture(scope="session")
def ckconv(without_frameworks: Path) -> Ckconv:
    """Run `ckconv` with arguments; `without_frameworks` hides every framework from it and from processes it starts."""
    hidden = without_frameworks

    def run(
        *arguments: str | os.PathLike[str], without_frameworks: bool = False, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        places = [hidden, ROOT] if without_frameworks else [ROOT]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.fspath, places))}
        return python("from converter.cli import main\nmain()\n", *arguments, environment=environment, cwd=cwd)

    return run


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say something at the end of the run, in whichever process this test is: figures, and what was left out."""
    return lambda text: record_property(TOLD, text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests told."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    told = [text for report in calls for key, text in report.user_properties if key == TOLD]
    if told:
        terminalreporter.section("told")
        for text in told:
            terminalreporter.write_line(text)


def python(
    program: str,
    *arguments: str | os.PathLike[str],
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program text in a Python of its own."""
    command: Sequence[str] = [sys.executable, "-c", program, *map(os.fspath, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=540)
