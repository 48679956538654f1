"""Frameworks run in a child: offline, caches in scratch, errors carried over."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ArchitectureError, GraphError, MissingExtraError, WriteError
from converter.execution import child, processes
from converter.execution.inside import _is_for_memory
from converter.model.child_function import ChildFunction, child_function

WAYS = {"started anew": (), "forked": ("csv",)}
imports: tuple[str, ...] = ()


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys(), autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have every test done in both ways in which a child process starts."""
    monkeypatch.setattr(sys.modules[__name__], "imports", request.param)
    yield
    processes.end_servers()


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = tmp_path / "modules" / "child_tasks.py"
    module.parent.mkdir()
    module.write_text(
        "import os\n"
        "from converter.errors import ArchitectureError, MissingExtraError\n"
        "def add(*, left, right): return left + right\n"
        "def environment(): return dict(os.environ)\n"
        "def refuse(): raise ArchitectureError('what is it', path='/x', tensor='t', hint='say')\n"
        "def lack(): raise MissingExtraError('torch', 'tracing')\n"
        "class Closer(ArchitectureError): pass\n"
        "def refuse_closely(): raise Closer('its own kind')\n"
        "def crash(): raise ValueError('a bug')\n"
        "def die(): os.abort()\n"
        "def say(*, lines):\n"
        "    os.write(2, '\\n'.join(lines).encode())\n"
        "    os._exit(3)\n"
        "def chatter(*, count):\n"
        "    for number in range(count): os.write(2, b'%1023d\\n' % number)\n"
    )
    monkeypatch.syspath_prepend(os.fspath(module.parent))
    monkeypatch.delitem(sys.modules, "child_tasks", raising=False)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


def task(name: str) -> ChildFunction[..., Any]:
    return child_function("a task", imports=imports)(getattr(importlib.import_module("child_tasks"), name))


def test_values_go_and_come_as_json(tasks: Path) -> None:
    assert child.call(task("add"), tasks, left=[1], right=["a", None]) == [1, "a", None]


def test_a_child_is_offline_and_keeps_to_its_scratch(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = ("HOME", "HF_HOME", "KERAS_HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR")
    for name in folders:
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    environment = child.call(task("environment"), tasks)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        assert environment[name] == "1", name
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    for name in folders:
        assert Path(environment[name]).is_relative_to(tasks), name


def test_errors_come_back_as_they_were(tasks: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        child.call(task("refuse"), tasks)
    assert str(caught.value) == "/x: tensor t: what is it; say"
    with pytest.raises(ArchitectureError, match="its own kind"):
        child.call(task("refuse_closely"), tasks)
    with pytest.raises(MissingExtraError, match=r"tracing needs the extra 'torch'; pip install 'ckconv\[torch\]'"):
        child.call(task("lack"), tasks)


@pytest.mark.parametrize(("function", "message"), [("crash", "a bug"), ("die", "failed")])
def test_other_failures_are_one_line(tasks: Path, function: str, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        child.call(task(function), tasks)
    assert "\n" not in str(caught.value)


LOGGED = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795944894.602234   27870 port.cc:153] oneDNN custom operations are on.",
    "W0000 00:00:1795944894.602234   27870 port.cc:153] something is odd",
    "2026-11-29 09:55:38.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary",
    "2026-11-29 09:55:38.123456: W tensorflow/core/framework/op_kernel.cc:1855] OP_REQUIRES failed",
    "WARNING:tensorflow:something is old",
    "INFO:absl:something is done",
]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["ValueError: the cause", *LOGGED, ""], "failed: ValueError: the cause"),
        (
            [*LOGGED, "F0000 00:00:1795944894.602234 27870 a.cc:1] Check failed: true"],
            "failed: F0000 .*Check failed: true",
        ),
        ([*LOGGED, "Weights of another kind"], "failed: Weights of another kind"),
        (LOGGED, "failed: exit status 3"),
    ],
)
def test_a_log_is_no_cause(lines: list[str], cause: str, tasks: Path) -> None:
    with pytest.raises(GraphError, match=f"{cause}$"):
        child.call(task("say"), tasks, lines=lines)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_said_to_where_it_is(number: int, tasks: Path) -> None:
    with pytest.raises(WriteError, match=os.strerror(number)) as caught:
        child.call(task("say"), tasks, lines=[f"torch.SomeError: {os.strerror(number)}", "and more of it"])
    assert caught.value.path == os.fspath(tasks)


def test_of_much_that_a_child_says_the_end_is_kept(tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    child.call(task("chatter"), tasks, count=1000)
    said = next(record.getMessage() for record in caplog.records if "child_tasks:chatter" in record.getMessage())
    assert said.rstrip().endswith(" 999")
    assert len(said) < 200_000


def chained(inner: Exception, outer: Exception, *, is_said: bool) -> Exception:
    """Return `outer` as it is when it was raised while `inner` was handled, or because of it."""
    try:
        try:
            raise inner
        except Exception as error:
            if is_said:
                raise outer from error
            raise outer  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize("is_said", [True, False], ids=["because of it", "while it was handled"])
def test_what_was_raised_for_want_of_memory_is_known_by_what_came_before(is_said: bool) -> None:
    assert _is_for_memory(MemoryError())
    assert _is_for_memory(chained(MemoryError(), ValueError("a bug"), is_said=is_said))
    assert _is_for_memory(chained(chained(MemoryError(), KeyError(), is_said=is_said), ValueError(), is_said=is_said))
    assert not _is_for_memory(chained(KeyError(), ValueError("a bug"), is_said=is_said))
    assert not _is_for_memory(None)
    endless = ValueError("of itself")
    endless.__cause__ = endless
    assert not _is_for_memory(endless)
