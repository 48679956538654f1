"""`ckconv formats`: what is read and written, with which options."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from converter.cli import print_json, printing
from converter.declaring import flag_of
from converter.formats import Format, by_name, registry, written


@click.command(name="formats")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str | None, as_json: bool) -> None:
    """Say what is read and written; with NAME, one format and its options."""
    chosen = registry().values() if name is None else [by_name(name)]
    described = [describe(format_) for format_ in chosen]
    with printing():
        if as_json:
            print_json({"formats": described} if name is None else described[0])
        elif name is None:
            click.echo(markdown_table())
        else:
            for key, value in described[0].items():
                click.echo(f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")


def describe(format_: Format) -> dict[str, Any]:
    """Return what is known of a format as JSON values; what the name of DST decides is no option."""
    decided = {name for values in format_.by_suffix.values() for name in values}
    return {
        "name": format_.name,
        "description": format_.description,
        "suffixes": list(format_.suffixes),
        "written": format_.name in written(),
        "runs": format_.runner is not None,
        "holds": sorted(part.value for part in format_.holds),
        "dtypes": sorted(dtype.value for dtype in format_.dtypes),
        "extra": format_.extra,
        "read_options": [flag_of(field) for field in fields(format_.read_options)],
        "write_options": [flag_of(field) for field in fields(format_.write_options) if field.name not in decided],
    }


def markdown_table() -> str:
    """Return the table of formats that README.md holds."""
    rows = ["| format | what | files | runs | holds |", "|---|---|---|---|---|"]
    for format_ in registry().values():
        suffixes = " ".join(f"`{suffix}`" for suffix in format_.suffixes) or "a folder"
        runs = "no" if format_.runner is None else "yes"
        holds = ", ".join(sorted(part.value for part in format_.holds))
        rows.append(f"| `{format_.name}` | {format_.description} | {suffixes} | {runs} | {holds} |")
    return "\n".join(rows)
