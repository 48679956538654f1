"""Golden sessions: commands, what they print, and their exit codes, in the Markdown files beside this one.

    python -m tests.cli.sessions [--update]

says which no longer print what is written, or writes what they print now: read the diff before it is committed. A
session is a block that begins with ```console. It runs in an empty folder of its own that has the repository's
`fixtures`; `$ ` begins a command, of a shell, whose stdout and stderr follow as they are, and `[exit code N]` unless it
is 0. `...` in what is written stands for anything in a line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

HERE = Path(__file__).parent
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBERS = re.compile(r"(?<=max\|d\|=)[0-9.e+-]+")
_COMMAND = "from converter.cli import main; main()"
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Session:
    """One block: the file it is in, its number there, and its text."""

    file: Path
    number: int
    text: str

    @property
    def name(self) -> str:
        """What a test is called."""
        return f"{self.file.stem}-{self.number}"

    @property
    def commands(self) -> list[str]:
        """The commands, each one line."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]

    def run(self, folder: Path) -> str:
        """Run the commands in `folder`; return the text that the block should have."""
        (folder / "fixtures").symlink_to(ROOT / "fixtures")
        shell = folder / ".ckconv"
        shell.write_text(f'exec "{sys.executable}" -c "{_COMMAND}" "$@"\n')
        lines = []
        for command in self.commands:
            done = subprocess.run(
                ["bash", "-c", f'ckconv() {{ bash "{shell}" "$@"; }}; {command}'],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
            code = f"[exit code {done.returncode}]\n" if done.returncode else ""
            lines.append(f"$ {command}\n{_plain(done.stdout, folder)}{code}")
        return "".join(lines)


def sessions() -> Iterator[Session]:
    """Yield the sessions of all files."""
    for file in sorted(HERE.glob("*.md")):
        for number, match in enumerate(_BLOCK.finditer(file.read_text()), 1):
            yield Session(file=file, number=number, text=match[1])


def _plain(printed: str, folder: Path) -> str:
    text = _NUMBERS.sub("...", printed.replace(os.fspath(folder.resolve()), "").replace(os.fspath(folder), ""))
    return text if text.endswith("\n") or not text else f"{text}\n"


def is_as_written(written: str, found: str) -> bool:
    """Whether a session printed what is written, `...` being anything in a line."""
    pattern = re.escape(written).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, found) is not None


def main() -> int:
    """Compare all sessions, or with --update write what they print."""
    is_update, changed = "--update" in sys.argv, 0
    for session in sessions():
        with tempfile.TemporaryDirectory() as folder:
            found = session.run(Path(folder))
        if is_as_written(session.text, found):
            continue
        changed += 1
        print(f"{session.name}\n{found}")
        if is_update:
            whole = session.file.read_text()
            session.file.write_text(whole.replace(f"```console\n{session.text}```", f"```console\n{found}```", 1))
    return 1 if changed and not is_update else 0


if __name__ == "__main__":
    sys.exit(main())
