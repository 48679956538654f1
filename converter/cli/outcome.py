"""What commands with a verdict have in common: how they are told to speak, the ledger they keep, and how they fail."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from converter import report
from converter.cli import ignore_signals, print_failure, print_json, printing
from converter.cli.progress import progress
from converter.errors import CkconvError
from converter.observer import Observer
from converter.report import Report, page


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a command is asked to say what it does; `with_manner` makes it of the command line."""

    ledger_path: str | None
    as_json: bool
    no_progress: bool
    quiet: bool
    verbose: bool

    def run(
        self, work: Callable[[Observer], Report], *, source: str, destination: str, overwrite: bool, done: str
    ) -> Report:
        """Return what `work` reports, after it is in the ledger; so is an error, which is printed when it is asked for.

        `done` is reported of the destination where all went well and the ledger alone cannot be written.
        """
        if self.verbose:
            logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
        is_shown = not (self.no_progress or self.quiet or self.as_json)
        try:
            with page.opened(
                self.ledger_path, source=source, target=destination, overwrite=overwrite, done=done
            ) as ledger:
                try:
                    with progress(is_shown=is_shown, committing=ignore_signals) as observer:
                        result = work(observer)
                except CkconvError as error:
                    if ledger is not None:
                        ledger.write(error)
                    raise
                if ledger is not None:
                    ledger.write(result)
        except CkconvError as error:
            if self.as_json:
                print_failure(report.failure(error, source=source, target=destination))
            raise
        return result

    def say(self, result: Report, lines: Iterable[str], *, done: str) -> None:
        """Print `result` as one object or as `lines`; `done` is reported where stdout does not take them."""
        with printing(done):
            if self.as_json:
                print_json(result.as_dict())
            elif not self.quiet:
                for line in lines:
                    click.echo(line)


def with_manner(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how it speaks, as its argument `manner`."""

    @wraps(command)
    def with_its_manner(**arguments: Any) -> None:
        command(manner=Manner(**{each.name: arguments.pop(each.name) for each in fields(Manner)}), **arguments)

    options = (
        click.option(
            "--report", "ledger_path", default=None, metavar="FILE", help="Write the ledger: .txt, .json or .html."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--no-progress", is_flag=True, help="Show no progress bar."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option("-v", "--verbose", is_flag=True, help="Log to stderr."),
    )
    for option in reversed(options):
        with_its_manner = option(with_its_manner)
    return with_its_manner
