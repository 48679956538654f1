"""`--report FILE`: the ledger as text, JSON or a page, of runs that succeed and runs that fail."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

import converter
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from tests.conftest import Ckconv


class Page(HTMLParser):
    """Collects the cells of a page, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_three_kinds_say_the_same(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    for suffix in ("txt", "json", "html"):
        result = ckconv(squad_bert, tmp_path / f"{suffix}.safetensors", "--report", tmp_path / f"report.{suffix}")
        assert result.returncode == 0, result.stderr
        verdict = result.stdout.splitlines()[-1]
    said = json.loads((tmp_path / "report.json").read_text())
    names = [line["name"] for line in said["tensors"]]
    assert (len(names), said["status"]) == (39, "ok")
    text = (tmp_path / "report.txt").read_text().splitlines()
    assert text[0] == f"{squad_bert} -> {tmp_path}/txt.safetensors"
    assert text[-1] == verdict
    assert [f"mapped     {name}" for name in names] == [line for line in text if line.startswith("mapped")]
    page = (tmp_path / "report.html").read_text()
    assert Page(page).cells[1::4] == names
    assert verdict in page


def test_failures_are_reported_too(tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "wrong.pth").write_text("this is not a checkpoint")
    result = ckconv(tmp_path / "wrong.pth", tmp_path / "x.safetensors", "--report", tmp_path / "report.txt")
    assert result.returncode == 1
    assert (tmp_path / "report.txt").read_text().splitlines()[
        -1
    ] == f"failed: {result.stderr.removeprefix('ckconv: ')}".strip()


def test_names_cannot_write_in_the_page(tmp_path: Path, ckconv: Ckconv) -> None:
    name = "<script>alert(1)</script>\x1b[31m"
    tensors = {name: ArrayTensor.of(np.ones(2, np.float32))}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.safetensors")
    result = ckconv(tmp_path / "x.safetensors", tmp_path / "y.safetensors", "--report", tmp_path / "report.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text()
    assert "\x1b" not in page
    assert "script" not in Page(page).tags
    assert Page(page).cells[1] == "<script>alert(1)</script>\\x1b[31m"


def test_a_report_that_has_no_place(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    for path in (tmp_path / "no" / "report.txt", tmp_path):
        result = ckconv(squad_bert, tmp_path / "x.safetensors", "--report", path)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "x.safetensors").exists()
