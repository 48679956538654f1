"""A box around this process, for what comes from strangers: closed once, never opened, in layers of the kernel's.

- no_new_privs, and no capability but to read files of others: nothing that is run has more rights
- a network of its own (a namespace), where it can be had, and limits of memory, processor time and file size
- Landlock: reads what the box names and the Python installation, writes its scratch folder and /dev/null, alone
- seccomp: no program is started, no process but threads, no socket, no other process signalled or looked into

Layers do not depend on each other, and each may be missing: on macOS all are but the limits. Nothing here needs more
than the standard library, and nothing of what is put into the box is imported before it is closed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.box import installation, landlock, privileges, seccomp
from converter.box.limits import Limits

_NULL = Path("/dev/null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What is in reach from inside.

    `reads`   files, and folders with all that is in them, that may be read
    `folders`  folders of the user's own code: what is in them may be read, but for what is hidden; names may be listed
    `writes`  folders in which files may be made, changed and removed
    `home`    the user's home folder, of which nothing is in reach that is not named
    """

    reads: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    home: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **{name: list(map(os.fspath, getattr(self, name))) for name in ("reads", "folders", "writes")},
            "home": None if self.home is None else os.fspath(self.home),
            "limits": self.limits.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Box:
        """Return the box that `to_json` described."""
        return cls(
            **{name: tuple(map(Path, values[name])) for name in ("reads", "folders", "writes")},
            home=None if values["home"] is None else Path(values["home"]),
            limits=Limits(**values["limits"]),
        )


def close(box: Box) -> list[str]:
    """Close `box` around this process, which has one thread. Returns the layers that are missing, in plain words."""
    readable = [*installation.paths(box.home), *box.reads]
    for folder in box.folders:
        readable += installation.visible(folder)
    missing = [privileges.give_up_new_ones()]
    is_apart = privileges.leave_networks()
    box.limits.apply()
    lists = (*box.folders, *installation.shared_with(box.home))  # imports look for names in them
    missing += landlock.close(reads=readable, lists=lists, writes=(*box.writes, _NULL))
    privileges.give_up_capabilities()
    filtered = seccomp.close()
    missing.append(filtered)
    if filtered is not None and not is_apart:
        missing.append("a network of its own (a namespace)")
    return [layer for layer in missing if layer is not None]


def close_around_imports() -> None:
    """Close a box around a process that imports frameworks and then forks; each fork closes its own in it.

    Some ask for something in the network when they are imported. Files are in reach: it has been given none.
    """
    privileges.give_up_new_ones()
    privileges.leave_networks()
    privileges.give_up_capabilities()
    seccomp.close(can_fork=True)


def close_around_server() -> list[str]:
    """Close a box around a process that needs no file any more, and forks. Each fork closes `seccomp` once more."""
    missing = [privileges.give_up_new_ones(), *landlock.close(reads=(), writes=())]
    privileges.give_up_capabilities()
    missing.append(seccomp.close(can_fork=True))
    return [layer for layer in missing if layer is not None]
