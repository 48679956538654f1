from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.slices import IS_FULL, SEED

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_WAIT_SECONDS = 900


def _torch_side() -> ModuleType:
    specification = importlib.util.spec_from_file_location("torch_side", HERE / "torch_side.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


TORCH_SIDE = _torch_side()
EVERY_ARCHITECTURE = [family + head for family in TORCH_SIDE.CONFIGS for head in TORCH_SIDE.HEADS]
_MIXED = random.Random(0).sample(EVERY_ARCHITECTURE, len(EVERY_ARCHITECTURE))
ARCHITECTURES = EVERY_ARCHITECTURE if IS_FULL else _MIXED[SEED % 6 :: 6]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES, scope="session")


@pytest.fixture(scope="session")
def child_environment() -> dict[str, str]:
    """What a process that imports the package from the source tree, and asks no hub, runs in."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, child_environment: dict[str, str]
) -> Iterator[Callable[[str], Path]]:
    """A function of a class's name that returns the folder torch_side.py made for it.

    Tracing takes five seconds a class: the classes that this module's tests ask for are traced by a process per core,
    while the tests use those that are ready.
    """
    folder = tmp_path_factory.mktemp("torch")
    process_of: dict[str, subprocess.Popen[bytes]] = {}

    def start(architectures: list[str]) -> None:
        command = [sys.executable, str(HERE / "torch_side.py"), str(folder), *architectures]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=child_environment, stdout=quiet, stderr=quiet)
        process_of.update(dict.fromkeys(architectures, process))

    def get(architecture: str) -> Path:
        if architecture not in process_of:
            start([architecture])
        made, deadline = folder / architecture, time.monotonic() + _WAIT_SECONDS
        while not (made / "ready").exists():
            assert not (made / "failed").exists(), (made / "failed").read_text()
            is_running = process_of[architecture].poll() is None
            assert is_running or (made / "ready").exists(), "the torch process ended early"
            assert time.monotonic() < deadline, "the torch process takes too long"
            time.sleep(0.05)
        return made

    wanted = list(dict.fromkeys(_parametrised(request.session, request.module)))
    workers = min(os.cpu_count() or 1, 4, len(wanted))
    for worker in range(workers):
        start(wanted[worker::workers])
    yield get
    for process in process_of.values():
        process.terminate()
        process.wait()


def _parametrised(session: pytest.Session, module: ModuleType) -> Iterator[str]:
    for item in session.items:
        is_of_module = isinstance(item, pytest.Function) and item.module is module
        if is_of_module and hasattr(item, "callspec") and "architecture" in item.callspec.params:
            yield item.callspec.params["architecture"]
