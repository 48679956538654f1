"""The box around a child process: what is in reach, what is not, and the limits."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import converter
from converter.box import landlock, seccomp, system_calls
from converter.box.environment import kept
from converter.box.limits import Limits
from converter.errors import LimitError, SafetyError
from converter.execution import processes
from converter.execution.child import NO_TERMS, Terms, call_all
from converter.model.child_function import child_function
from converter.planning import sandbox
from tests.faults import attempts
from tests.faults.conversions import run

pytestmark = pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock 3: there is less of a box")
HERE = attempts.__name__


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home" / "secret").write_text("secret")
    return tmp_path / "home" / "secret"


WAYS = {"started anew": (), "forked": ("csv",)}
imports: tuple[str, ...] = ()


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a test done in a way in which a child process starts."""
    monkeypatch.setattr(sys.modules[__name__], "imports", WAYS[request.param])
    yield
    processes.end_servers()


in_both_ways = pytest.mark.parametrize("way", WAYS, indirect=True)


def called(function: str, folder: Path, terms: Terms = NO_TERMS, /, **arguments: Any) -> Any:
    tried = child_function("a child process: attempts", imports=imports)(getattr(attempts, function))
    return call_all([tried.call(**arguments)], folder, terms=terms)[0]


@in_both_ways
@pytest.mark.usefixtures("way")
def test_what_is_out_of_reach(secret: Path) -> None:
    scratch = secret.parents[1] / "scratch"
    command = [sys.executable, "-m", HERE, str(secret), str(scratch)]
    unboxed = json.loads(run(command).stdout)
    assert {name for name, outcome in unboxed.items() if outcome != "done"} == set()
    secret.write_text("secret")
    boxed = called("tried", scratch, secret=str(secret), scratch=str(scratch))
    assert {name for name, outcome in boxed.items() if outcome not in ("EPERM", "EACCES", "EXDEV")} == set()
    assert secret.read_text() == "secret"


@in_both_ways
@pytest.mark.usefixtures("way")
def test_what_is_in_reach(secret: Path) -> None:
    scratch = secret.parents[1] / "scratch"
    terms = Terms(reads=(secret,))
    assert called("ordinary", scratch, terms, source=str(secret), scratch=str(scratch)) == ["secret", "moved"]
    outcomes = called("tried", scratch, terms, secret=str(secret), scratch=str(scratch))
    assert {name for name, outcome in outcomes.items() if outcome == "done"} == {"read a file"}
    folder = called("tried", scratch, Terms(writes=(secret.parent,)), secret=str(secret), scratch=str(scratch))
    assert {"write beside it", "append to it", "make a folder beside it"} <= {
        name for name, outcome in folder.items() if outcome == "done"
    }


@in_both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("function", "terms", "said"),
    [
        ("wait", Terms(timeout_seconds=2), "time, 2 s; --timeout"),
        ("spin", Terms(limits=Limits(processor_seconds=1)), "processor time, 1 s; --timeout"),
        ("grow", Terms(limits=Limits(memory_bytes=1 << 30)), r"memory, 1\.07 GB"),
        ("write", Terms(limits=Limits(file_bytes=1 << 22)), r"the size of a file, 0\.00419 GB"),
    ],
)
def test_a_limit_is_one_line_and_exit_7(function: str, terms: Terms, said: str, secret: Path) -> None:
    scratch = secret.parents[1] / "scratch"
    arguments = {"scratch": str(scratch)} if function == "write" else {}
    began = time.monotonic()
    with pytest.raises(LimitError, match=f"^a child process: attempts reached its limit of {said}") as caught:
        called(function, scratch, terms, **arguments)
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 30


@in_both_ways
@pytest.mark.usefixtures("way")
def test_no_secret_is_in_the_environment(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = secret.parents[1] / "scratch"
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "TF_API_KEY", "OMP_NUM_THREADS", "MY_OWN", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "1")
    found = called("environment", scratch)
    assert {"OMP_NUM_THREADS", "PATH", "PYTHONPATH"} <= found.keys()
    assert found.keys().isdisjoint({"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "TF_API_KEY", "MY_OWN", "SSH_AUTH_SOCK"})
    assert Path(found["HOME"]).is_relative_to(scratch)
    own = kept(os.environ, is_for_own_code=True)
    assert "MY_OWN" in own
    assert own.keys().isdisjoint({"AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "TF_API_KEY", "SSH_AUTH_SOCK"})


def test_own_code_reads_its_folder_but_for_what_is_hidden(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, scratch = secret.parent, tmp_path / "scratch"
    (home / "package").mkdir()
    (home / ".ssh").mkdir()
    (home / ".ssh" / "key").write_text("key")
    (home / "package" / "data").write_text("data")
    program = (
        "import pathlib\nHOME = pathlib.Path(__file__).parent\nREADABLE = []\n"
        "for name in ('secret', 'package/data', '.ssh/key'):\n"
        "    try:\n        READABLE.append((HOME / name).read_text())\n    except OSError:\n        pass\n"
    )
    (home / "own_module.py").write_text(program)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.syspath_prepend(str(home))
    assert called("imported", scratch, module="own_module") == []  # from the path: what can be imported, and no more
    found = called("imported", scratch, Terms(own_code=(home,)), module="own_module")
    assert found == ["secret", "data"]


WITHOUT_LANDLOCK = """
import errno, struct, sys
from converter.box import privileges, seccomp
privileges.give_up_new_ones()
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
assert seccomp.install(b"".join(struct.pack("=HBBI", *line) for line in lines)) is None
from converter.cli import main
main()
"""


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    """Where the kernel has no Landlock: seccomp makes it such a kernel."""
    pytest.importorskip("onnxruntime")
    from tests.graphs import onnx_models

    onnx_models.save(onnx_models.dense(), tmp_path / "in.onnx")
    command = [os.fspath(tmp_path / "in.onnx"), os.fspath(tmp_path / "out.onnx")]
    before = run([sys.executable, "-c", WITHOUT_LANDLOCK, *command, "--require-sandbox"])
    assert before.returncode == 5
    assert len(before.stderr.splitlines()) == 1
    assert "scratch folder alone (Landlock 2, Linux 5.19)" in before.stderr
    assert not (tmp_path / "out.onnx").exists()
    after = run([sys.executable, "-c", WITHOUT_LANDLOCK, *command, "-v"])
    assert after.returncode == 0, after.stderr
    assert after.stderr.count("child processes do without") == 1
    (tmp_path / "out.onnx").unlink()
    whole = run([sys.executable, "-m", "converter", *command, "--require-sandbox", "--quiet"])
    assert (whole.returncode, whole.stderr) == (0, "")


def test_a_sandbox_that_is_required_is_required_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SafetyError("no")

    monkeypatch.setattr(sandbox, "call_all", refuse)
    with pytest.raises(SafetyError):
        converter.convert(tmp_path / "no-such-file", tmp_path / "out.safetensors", require_sandbox=True)


@pytest.mark.parametrize(("processor", "header"), [(0, "asm/unistd_64.h"), (1, "asm-generic/unistd.h")])
def test_numbers_are_those_of_the_kernels_headers(processor: int, header: str) -> None:
    places = [Path("/usr/include", header), *Path("/usr/include").glob(f"*/{header}")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        pytest.skip("linux-libc-dev is not installed")
    known = {}
    for line in found.read_text().splitlines():
        words = line.replace("__NR3264_", "__NR_").split()
        if len(words) == 3 and words[0] == "#define" and words[2].isdigit():
            known[words[1].removeprefix("__NR_")] = int(words[2])
    others = {"clone3": system_calls.CLONE3, "clone": system_calls.CLONE, "kill": system_calls.KILL}
    others |= {"tgkill": system_calls.TGKILL, "prlimit64": system_calls.PRLIMIT64, "capset": system_calls.CAPSET}
    others |= {"socketpair": system_calls.SOCKETPAIR, "seccomp": system_calls.SECCOMP}
    table = {**system_calls.REFUSED, **others}
    wrong = {
        name: numbers[processor]
        for name, numbers in table.items()
        if known.get(name, numbers[processor]) != numbers[processor]
    }
    assert wrong == {}
    assert len(known.keys() & table.keys()) > 70


def test_a_filter_fits_into_the_kernel() -> None:
    assert len(seccomp.program(own_process=1)) // 8 < 4096


STRICTER = """
import json, resource, signal
from converter.box.limits import Limits
most = 1 << 30
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
Limits(file_bytes=2 * most, processor_seconds=7).apply()
kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
print(json.dumps([*map(resource.getrlimit, kinds), signal.getsignal(signal.SIGXFSZ) is signal.SIG_DFL]))
"""


def test_what_is_stricter_stays_and_no_core_is_dumped() -> None:
    told = json.loads(run([sys.executable, "-c", STRICTER]).stdout)
    assert told == [[1 << 30, 1 << 30], [7, 8], [0, 0], True]


def test_limits_grow_with_the_model() -> None:
    small, large = (Limits.of(model_bytes=size, timeout_seconds=60) for size in (1 << 10, 1 << 34))
    for name in ("memory_bytes", "file_bytes"):
        assert getattr(large, name) - getattr(small, name) > 4 * (1 << 34)
    assert replace(large, processor_seconds=1) != large
