"""README.md says what is so: its table, its format in one file, its examples."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import converter
from converter import cli
from converter.cli import convert, formats, options, verify
from converter.declaring import Use, flag_of
from tests.conftest import ROOT, Ckconv, python

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("table", [formats.markdown_table, options.markdown_table], ids=["formats", "options"])
def test_a_table_is_what_the_code_says(table: Callable[[], str]) -> None:
    name = table.__module__.rpartition(".")[2]
    match = re.search(rf"<!-- {name}: .*? -->\n(.*?)<!-- end of {name} -->", README, re.DOTALL)
    assert match is not None
    assert match[1].strip() == table()


def test_what_it_names_of_the_code_is_there() -> None:
    paths = set(re.findall(r"`((?:converter|tests|fixtures)/[\w./-]*)`", README))
    assert len(paths) > 30
    assert [each for each in sorted(paths) if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("text", [README.partition("## A tour of the code")[2], converter.__doc__ or ""])
def test_the_tour_has_every_module(text: str) -> None:
    """What is at the top of the package; below it each package says what it has in its own docstring."""
    entries = {each.stem if each.is_dir() else each.name for each in (ROOT / "converter").iterdir()}
    entries -= {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    named = {name.strip("/").rpartition("/")[2] for name in re.findall(r"`+([\w./]+)`+", text)}
    assert len(entries) > 15
    assert entries - named == set()


def test_the_first_screen_has_the_two_commands() -> None:
    commands = blocks("sh")
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)
    assert README.index(commands[1]) < 1500


def test_the_library_example_runs(squad_bert: Path, tmp_path: Path) -> None:
    (example, _) = blocks("python")
    for name in ("checkpoint.pth", "config.json"):
        (tmp_path / name.replace("checkpoint", "in")).write_bytes((squad_bert.parent / name).read_bytes())
    quick = example.replace('to="savedmodel"', 'to="pretrained"')
    result = python(quick, cwd=tmp_path, environment={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ok: 39 mapped")
    assert (tmp_path / "out.safetensors").exists()


def test_a_format_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, put where the registry looks, is detected, written and verified without another line."""
    from converter import formats

    (_, example) = blocks("python")
    (tmp_path / "lines.py").write_text(example)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    formats.registry.cache_clear()
    try:
        (tmp_path / "x.lines").write_text("#lines\na 1 2 3\nb 4.5\n")
        import converter

        report = converter.convert(tmp_path / "x.lines", tmp_path / "y.safetensors")
        assert (report.source_format, report.counts["mapped"]) == ("lines", 2)
        back = converter.convert(tmp_path / "y.safetensors", tmp_path / "z.lines")
        assert back.verification.weights
        assert (tmp_path / "z.lines").read_text() == "#lines\na 1.0 2.0 3.0\nb 4.5\n"
    finally:
        formats.registry.cache_clear()


def test_names_in_examples_are_there() -> None:
    """What README and the package's docstring import from it or call of it, can be."""
    tour = (converter.__doc__ or "").partition("::")[2].partition("A tour")[0]
    docs = [*blocks("python"), *blocks("py"), textwrap.dedent(tour)]
    found: set[tuple[str, str]] = set()
    for code in docs:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "converter":
                found |= {(node.module or "", alias.name) for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "converter":
                found.add(("converter", node.attr))
    assert {("converter", "convert"), ("converter.testing", "FormatTests")} <= found
    assert [f"{module}.{name}" for module, name in found if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("command", [convert.command, verify.command], ids=["convert", "verify"])
def test_every_option_is_said(command: click.Command) -> None:
    options = {name for each in command.params for name in each.opts if name.startswith("--")}
    assert "--to" in options
    said = set(re.findall(r"--[a-z][a-z-]*", README))
    assert not options - said


def test_verify_takes_all_but_what_places_an_output() -> None:
    made_with, known = (
        {name for each in command.params for name in each.opts} for command in (convert.command, verify.command)
    )
    declared = {flag_of(item): declaration for _, item, declaration, _ in options.declarations()}
    assert made_with - known == {
        flag for flag, declaration in declared.items() if declaration.use is Use.PLACES and flag != "--overwrite"
    }
    assert {"--param-order", "--input-dtype", "--with-cache", "--max-shard-size", "--external-data"} <= known


def test_help_says_of_exit_codes_what_readme_says(ckconv: Ckconv) -> None:
    shown = ckconv("--help").stdout
    (said, told) = (re.search(r"Exit codes: (.*? interrupted\.)", text, re.DOTALL) for text in (README, shown))
    assert said is not None
    assert told is not None
    assert said[1].replace("`", "").split() == told[1].split()


def test_help_has_three_examples(ckconv: Ckconv) -> None:
    shown = ckconv("--help").stdout
    assert len(re.findall(r"^ *ckconv \S+\.pth ", shown, re.MULTILINE)) == 3
    assert cli.__doc__ is not None
