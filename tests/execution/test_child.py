"""Frameworks run in a child: offline, caches in scratch, errors carried over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.errors import ArchitectureError, GraphError, MissingExtraError
from converter.execution import child


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
    )
    monkeypatch.syspath_prepend(os.fspath(module.parent))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


def test_values_go_and_come_as_json(tasks: Path) -> None:
    assert child.call("child_tasks:add", tasks, left=[1], right=["a", None]) == [1, "a", None]


def test_a_child_is_offline_and_keeps_to_its_scratch(tasks: Path) -> None:
    environment = child.call("child_tasks:environment", tasks)
    assert environment["HF_HUB_OFFLINE"] == "1"
    for name in ("HF_HOME", "KERAS_HOME", "TMPDIR"):
        assert Path(environment[name]).is_relative_to(tasks)


def test_errors_come_back_as_they_were(tasks: Path) -> None:
    with pytest.raises(ArchitectureError) as caught:
        child.call("child_tasks:refuse", tasks)
    assert str(caught.value) == "/x: tensor t: what is it; say"
    with pytest.raises(ArchitectureError, match="its own kind"):
        child.call("child_tasks:refuse_closely", tasks)
    with pytest.raises(MissingExtraError, match=r"ckconv\[torch\]"):
        child.call("child_tasks:lack", tasks)


@pytest.mark.parametrize(("function", "message"), [("crash", "a bug"), ("die", "failed")])
def test_other_failures_are_one_line(tasks: Path, function: str, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        child.call(f"child_tasks:{function}", tasks)
    assert "\n" not in str(caught.value)
