"""What the Markdown files beside this one say that commands print is what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.sessions import Session, is_as_written, sessions

_SESSIONS = list(sessions())


def test_they_are_many_and_have_every_command_and_exit_code() -> None:
    text = "".join(each.text for each in _SESSIONS)
    assert len(_SESSIONS) >= 40
    assert all(f"$ ckconv {command}" in text for command in ("inspect", "diff", "verify", "formats", "convert"))
    assert all(f"[exit code {code}]" in text for code in range(1, 8))


@pytest.mark.parametrize("session", [pytest.param(each, id=each.name) for each in _SESSIONS])
def test_a_session_prints_what_is_written(session: Session, tmp_path: Path) -> None:
    if session.file.stem == "graphs":
        pytest.importorskip("torch")
    found = session.run(tmp_path)
    assert is_as_written(session.text, found), found
