"""Tools that make faults: strace to fail or kill at a chosen system call, namespaces for mounts of our own.

A fault that is not injected proves nothing: where a tool is missing, a test is skipped on a user's machine and fails in
CI, and says what to install.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest

from tests.faults.conversions import run

_CALL = re.compile(r"^\d+ +(\w+)\(", re.MULTILINE)


def strace(command: list[str], *, inject: str, log: Path) -> list[str]:
    """Return `command` under strace, with a fault, the argument of its option `inject`; `has_fired` reads `log`."""
    calls = inject.partition(":")[0]
    traced = [tool("strace"), "-f", "-qq", "-o", os.fspath(log), "-e", f"trace={calls}"]
    return [*traced, "-e", f"inject={inject}", *command]


def has_fired(log: Path) -> bool:
    """Whether the fault of a run under strace was injected at least once."""
    return "(INJECTED)" in log.read_text(errors="replace")


def ordinal_of(command: list[str], call: str, argument: str, log: Path) -> int:
    """Return the how-many-th `call` of its thread it is, in a whole run of `command`, that first mentions `argument`.

    strace names the files behind descriptors. Its option `inject` counts in each thread by itself, too.
    """
    traced = [tool("strace"), "-f", "-y", "-qq", "-o", os.fspath(log), "-e", f"trace={call}"]
    result = run([*traced, *command])
    assert result.returncode == 0, result.stderr
    counts: Counter[str] = Counter()
    for thread, line in (each.split(None, 1) for each in log.read_text(errors="replace").splitlines()):
        counts[thread] += line.startswith(f"{call}(")
        if line.startswith(f"{call}(") and argument in line:
            return counts[thread]
    raise AssertionError(f"no {call} of {argument}")


def calls_of(command: list[str], calls: str, log: Path) -> list[str]:
    """Return the names of those of `calls` that a whole run of `command` makes, in their order."""
    traced = [tool("strace"), "-f", "--seccomp-bpf", "-qq", "-o", os.fspath(log), "-e", f"trace={calls}"]
    result = run([*traced, *command])
    if "PTRACE" in result.stderr:
        _lacking(f"strace may not trace here (a container needs the capability SYS_PTRACE): {result.stderr}")
    assert result.returncode == 0, result.stderr
    return _CALL.findall(log.read_text())


def in_mounts(*steps: list[str]) -> list[str]:
    """Return the command that takes `steps`, mounts first, in a mount namespace of its own."""
    script = " && ".join(shlex.join(step) for step in steps)
    as_root = [] if os.geteuid() == 0 else ["--map-root-user", "--user"]
    probe = run([tool("unshare"), *as_root, "--mount", "mount", "-t", "tmpfs", "none", "/mnt"])
    if probe.returncode != 0:
        _lacking(f"mounts in a namespace of one's own are not allowed here: {probe.stderr}")
    return [tool("unshare"), *as_root, "--mount", "sh", "-c", script]


def _lacking(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def tool(name: str) -> str:
    """Return the path of a program; where it is not installed, end the test."""
    found = shutil.which(name)
    if found is None:
        _lacking(f"{name} is not installed: apt-get install {'strace' if name == 'strace' else 'util-linux mount'}")
    return found
