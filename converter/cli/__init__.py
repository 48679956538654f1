"""The command `ckconv`: parse, call the library, print, exit. One file per command; no logic.

`ckconv SRC DST` is `ckconv convert SRC DST`: the first word that is no command is the source.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from converter.errors import CkconvError, Interrupted, WriteError, escape
from converter.version import __version__

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOG = logging.getLogger(__name__)


class _Commands(click.Group):
    """Commands by name, imported when they are called; any other first word starts `convert`."""

    _NAMES = ("convert", "diff", "formats", "inspect", "verify")

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._NAMES:
            return None
        module = __import__(f"converter.cli.{cmd_name}", fromlist=["command"])
        command: click.Command = module.command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self._NAMES, "-h", "--help", "--version"):
            args.insert(0, "convert")
        return super().parse_args(ctx, args)


_HELP = """Convert model checkpoints between formats, whole and verified.

\b
ckconv model.pth out/ --to savedmodel        a SavedModel that runs and trains, config.json beside model.pth
ckconv model.pth model.safetensors           the weights alone, bit for bit
ckconv checkpoint.pth folder/ --to pretrained --dry-run    what would become of every tensor
ckconv diff a.pth b.safetensors              whether they hold the same; exit 0, 1, or 2 when one cannot be read
ckconv verify a.pth b.safetensors            proof that the second is what the first converts to

`ckconv SRC DST` is short for `ckconv convert SRC DST`; `ckconv convert --help` lists its options.

\b
Exit codes: 0 done; 1 unreadable, malformed or I/O;
2 usage (also: unknown format, missing architecture, config or extra);
3 tensors or optimizer state would be lost; 4 verification failed, or proves nothing under --verify outputs;
5 refused for safety, or a sandbox with a layer missing under --require-sandbox;
6 the destination or the report exists;
7 an operator has no lowering, the export failed, or a limit of time or memory was reached;
129, 130, 143 interrupted.
"""


@click.group(cls=_Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ckconv", message="%(prog)s %(version)s")
def commands() -> None:
    """Hold the commands."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `ckconv` and exit with its code; whatever fails is one line on stderr."""
    _occupy_standard_streams()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    code = _run(list(sys.argv[1:] if arguments is None else arguments))
    _abandon_output()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = commands.main(args=arguments, prog_name="ckconv", standalone_mode=False)
    except CkconvError as error:
        _LOG.debug("failed", exc_info=True)
        return _failed(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _failed(escape(error.format_message().replace("\n", " "), 600), 2)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except MemoryError:
        _LOG.debug("failed", exc_info=True)
        return _failed("out of memory", _code_of_failing(arguments))
    except Exception as error:
        _LOG.debug("failed", exc_info=True)
        if isinstance(error, OSError) and _is_of_printing(error):  # help or the version, which click prints
            return _failed(str(_not_printed(error)), 1)
        what = f"internal error: {type(error).__name__}: {escape(str(error))}; -v shows where"
        return _failed(what, _code_of_failing(arguments))
    return code if isinstance(code, int) else 0


def _code_of_failing(arguments: Sequence[str]) -> int:
    """Return the exit code for what is no error of the library; of `ckconv diff` 1 would say that something differs."""
    return 2 if arguments[:1] == ["diff"] else 1


def _failed(message: str, code: int) -> int:
    with suppress(OSError):
        click.echo(f"ckconv: {message}", err=True)
    return code


def _occupy_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed: a file opened later would be taken for it.

    Who closed stdout wants nothing printed, and gets the exit code of what was done.
    """
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)


def _is_of_printing(error: OSError) -> bool:
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _abandon_output() -> None:
    """Let go of what stdout did not take, which was reported already: Python would exit with 120 over it."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


@contextmanager
def printing(done: str | None = None, *, exit_code: int = WriteError.exit_code) -> Iterator[None]:
    """Let a failure of stdout end the command with `exit_code` and one line, which says what was `done`.

    A command that only prints has done nothing, and ends in silence when its reader has gone: `ckconv inspect | head`.
    """
    try:
        yield
    except OSError as error:
        if done is None and isinstance(error, BrokenPipeError):
            raise click.exceptions.Exit(exit_code) from error
        lost = _not_printed(error, done)
        lost.exit_code = exit_code
        raise lost from error


def _not_printed(error: OSError, done: str | None = None) -> WriteError:
    return WriteError(os.strerror(error.errno or 0), path="standard output", hint=done)


def _interrupt(number: int, frame: object) -> None:
    ignore_signals()
    raise Interrupted(number)


def is_given(value: object) -> bool:
    """Whether an option is on the command line, as its value says: a zero is, what click has for none is not."""
    return value is not None and value != ()


def ignore_signals() -> None:
    """From now on, interrupting does nothing: the rest is either cleaning up or already decided."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def print_json(value: object) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(value, indent=2))


def failed(error: CkconvError) -> dict[str, object]:
    """Return the JSON object of a command that failed and has no report."""
    details = {"code": error.exit_code, "file": error.path, "tensor": error.tensor, "message": error.message}
    return {"status": "failed", "exit_code": error.exit_code, "error": {**details, "hint": error.hint}}


def print_failure(value: object) -> None:
    """Print the object of a failure, if stdout takes it: stderr says it again."""
    with suppress(OSError):
        print_json(value)
