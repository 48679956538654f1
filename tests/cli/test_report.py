"""`--report FILE`: the ledger as text, JSON or a page, of runs that succeed and runs that fail."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.cli import convert as command
from converter.cli import main
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor
from converter.report import page as page_module
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


def test_a_column_of_the_page_is_one_row(squad_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As README says it; the text has what it had."""
    written = converter.convert(squad_bert, tmp_path / "model.safetensors")
    page, texts = page_module._COLUMNS, []
    kind = page_module._Column(title="kind", of_line=lambda line: line.kind.value)
    for count, columns in ((4, page), (5, (*page, kind))):
        monkeypatch.setattr(page_module, "_COLUMNS", columns)
        for suffix in ("txt", "html"):
            path = tmp_path / f"{count}.{suffix}"
            with page_module.opened(str(path), source="a.pth", target="b.safetensors", overwrite=False) as ledger:
                assert ledger is not None
                ledger.write(written)
            texts.append(path.read_text())
    assert texts[0] == texts[2]
    before, after = ([cell.strip() for cell in Page(text).cells] for text in texts[1::2])
    assert [cell for index, cell in enumerate(after) if index % 5 < 4] == before
    assert after[4::5] == [line.kind.value for line in written.lines]


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


_NOWHERE = (  # where no report can ever be, with or without --overwrite
    ("SRC/model.safetensors", "is the source itself"),
    ("SRC/../SRC/./model.safetensors", "is the source itself"),
    ("hard", "is the source itself"),
    ("soft", "is the source itself"),
    ("linked/model.safetensors", "is the source itself"),
    ("SRC/config.json", "has a name that is read beside the source"),
    ("SRC/tokenizer.json", "has a name that is read beside the source"),
    ("linked/vocab.txt", "has a name that is read beside the source"),
    ("SRC/model.safetensors.index.json", "has a name that is read beside the source"),
    ("linked/pytorch_model.bin.index.json", "has a name that is read beside the source"),
    ("SRC/model-00002-of-00002.safetensors", "has a name that is read beside the source"),
    ("SRC/pytorch_model-00001-of-00002.bin", "has a name that is read beside the source"),
    ("SRC/x.h5", "has a name that is read beside the source"),
    ("SRC/.metadata", "has a name that is read beside the source"),
    ("SRC/checkpoint", "has a name that is read beside the source"),
    ("SRC/trainer_state.json", "has a name that is read beside the source"),
    ("SRC/bert_config.json", "has a name that is read beside the source"),
    ("SRC/1_Pooling/config.json", "has a name that is read beside the source"),
    ("../config.json", "has a name that is read beside the source"),
    ("config.json", "has a name that is read beside the destination"),
    ("model.safetensors.index.json", "has a name that is read beside the destination"),
    ("here/model.ckpt.index", "has a name that is read beside the destination"),
    ("out.pth", "is the destination itself"),
    ("./out.pth", "is the destination itself"),
    ("SRC/../out.pth", "is the destination itself"),
    ("here/out.pth", "is the destination itself"),
    ("out.pth/", "names a file, not"),
    ("SRC", "is a folder"),
    ("SRC/.", "names a file, not"),
    (".", "names a file, not"),
    ("", "names a file, not"),
    ("no/report.txt", "names a file in a folder that exists"),
    (".ckconv-1-beef/report.txt", "is where outputs are staged"),
)
_TAKEN = (  # what stays, with or without --overwrite
    ("SRC/notes.txt", "was not written by an earlier --report"),
    ("thesis.tex", "was not written by an earlier --report"),
    ("other.json", "was not written by an earlier --report"),
    ("empty.html", "was not written by an earlier --report"),
    ("elsewhere", "is a symbolic link"),
    ("dangling", "is a symbolic link"),
    ("pipe", "is a pipe"),
    ("socket", "is a socket"),
    ("/dev/null", "is a device"),
    ("/dev/full", "is a device"),
    ("/dev/stdout", "is a symbolic link"),
    ("/proc/self/mem", "was not written by an earlier --report"),
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a source, and with what may be taken for the place of a report."""
    source = tmp_path / "SRC"
    source.mkdir()
    tensors = {"a.weight": ArrayTensor.of(np.ones((2, 3), np.float32))}
    converter.write(Checkpoint(tensors=tensors), source / "model.safetensors")
    (source / "model-00002-of-00002.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    (source / "notes.txt").write_text("of mine")
    (source / "1_Pooling").mkdir()
    os.link(source / "model.safetensors", tmp_path / "hard")
    for name, to in (
        ("soft", "SRC/model.safetensors"),
        ("linked", "SRC"),
        ("here", "."),
        ("elsewhere", "thesis.tex"),
        ("dangling", "nowhere"),
    ):
        (tmp_path / name).symlink_to(to)
    (tmp_path / "thesis.tex").write_text("years -> of work\nok: many mapped")
    (tmp_path / "other.json").write_text('{"status": "ok", "source": "x", "target": "y"}')
    (tmp_path / "empty.html").write_text("")
    (tmp_path / ".ckconv-1-beef").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        yield tmp_path


def state(folder: Path) -> dict[str, object]:
    """Every entry and what it holds, and where the links lead."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fspath(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


@pytest.mark.parametrize(
    ("given", "exit_code", "why"),
    [(*row[:1], 2, row[1]) for row in _NOWHERE] + [(*row[:1], 6, row[1]) for row in _TAKEN],
)
def test_where_no_report_goes(
    given: str,
    exit_code: int,
    why: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = state(place)
    for more in ((), ("--overwrite",)):
        code = ended("SRC/model.safetensors", "out.pth", "--report", given, *more)
        printed = capfd.readouterr()
        said = "exists" if exit_code == 6 and not more and why.startswith("was not") else why
        assert (code, printed.out, len(printed.err.splitlines())) == (exit_code, "", 1)
        assert said in printed.err
        assert state(place) == before
    assert ended("SRC/model.safetensors", "out.pth", "--report", "report.txt") == 0


@pytest.mark.parametrize("given", ["SRC/report.txt", "linked/report.txt", "SRC/variables/report.txt"])
def test_no_report_inside_a_source_or_a_destination(
    given: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (place / "SRC" / "model-00002-of-00002.safetensors").unlink()
    (place / "SRC" / "variables").mkdir()
    assert ended("SRC", "made", "--to", "pretrained", "--report", given) == 2
    assert "is inside the source" in capfd.readouterr().err
    assert ended("SRC", "made/", "--to", "safetensors", "--report", "beside.txt") == 0
    again = ended("SRC", "made/", "--to", "safetensors", "--overwrite", "--report", "here/made/report.txt")
    assert (again, "is inside the destination" in capfd.readouterr().err) == (2, True)


def test_beside_a_source_goes_what_no_format_reads(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (place / "SRC" / "model-00002-of-00002.safetensors").unlink()
    (place / "SRC" / "config.json").write_text("{}")
    names = ("report.json", "report.txt", "config.html", "index.json")
    for name in names:
        assert ended("SRC/model.safetensors", f"out-{name}.pth", "--report", f"linked/{name}") == 0
        (place / "SRC" / name).rename(place / name)
    assert converter.read(place / "SRC").names == ("a.weight",)
    for source, given in (("soft", "SRC/model.safetensors.index.json"), ("SRC/saved_model/1/x.pth", "SRC/config.json")):
        (place / "SRC" / "saved_model" / "1").mkdir(parents=True, exist_ok=True)
        capfd.readouterr()
        assert ended(source, "reports/out.pth", "--report", given) == 2
        assert "has a name that is read beside the source" in capfd.readouterr().err


def test_verify_writes_a_report_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    verify = ("verify", "SRC/model.safetensors", "out.pth", "--report")
    assert ended("SRC/model.safetensors", "out.pth") == 0
    for given, code in (("SRC/model.safetensors", 2), ("config.json", 2), ("here/out.pth", 2), ("thesis.tex", 6)):
        assert ended(*verify, given, "--overwrite") == code
    assert ended(*verify, "proof.json") == 0
    said = json.loads((place / "proof.json").read_text())
    assert (said["status"], said["verification"]["weights"]) == ("ok", True)
    assert ended(*verify, "proof.json") == 6
    converter.write(
        Checkpoint(tensors={"a.weight": ArrayTensor.of(np.zeros((2, 3), np.float32))}), "out.pth", overwrite=True
    )
    assert ended(*verify, "proof.json", "--overwrite") == 4
    said = json.loads((place / "proof.json").read_text())
    assert (said["status"], said["exit_code"], said["error"]["tensor"]) == ("failed", 4, "a.weight")
    capfd.readouterr()


def test_what_cannot_be_read_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert ended("SRC/model.safetensors", "out.pth", "--report", "report.txt") == 0
    before, opened = (place / "report.txt").read_bytes(), os.open

    def closed(path: str | Path, flags: int, *rest: int, **more: int) -> int:
        if path == "report.txt":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", closed)
    assert ended("SRC/model.safetensors", "out.pth", "--report", "report.txt", "--overwrite") == 6
    assert capfd.readouterr().err.endswith("report.txt: exists, and cannot be read: Permission denied\n")
    assert (place / "report.txt").read_bytes() == before


@pytest.mark.parametrize("suffix", ["txt", "json", "html"])
def test_an_earlier_report_is_replaced_when_asked(
    suffix: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    report = place / f"report.{suffix}"
    assert ended("SRC/nothing", "out.pth", "--report", report.name) == 1
    of_failure = report.read_text()
    assert ended("SRC/model.safetensors", "out.pth", "--report", report.name) == 6
    assert (report.read_text(), (place / "out.pth").exists()) == (of_failure, False)
    os.link(report, place / "kept")
    for _ in range(2):
        assert ended("SRC/model.safetensors", "out.pth", "--report", report.name, "--overwrite") == 0
        assert "a.weight" in report.read_text()
    assert (place / "kept").read_text() == of_failure
    capfd.readouterr()


def test_what_happens_to_the_place_meanwhile(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Something appears there, the folder is exchanged, the disk is full: the output is in place, and nothing lost."""
    monkeypatch.chdir(place)
    there = sorted(os.listdir(place / "SRC"))
    reports = place / "reports"
    reports.mkdir()

    def meanwhile(work: Callable[[], None]) -> int:
        def convert(*arguments: object, **options: object) -> object:
            report = converter.convert(*arguments, **options)  # type: ignore[arg-type]
            work()
            return report

        monkeypatch.setattr(command, "convert", convert)
        return ended("SRC/model.safetensors", "out.pth", "--report", "reports/report.txt", "--overwrite")

    def swap() -> None:
        reports.rename(place / "moved")
        reports.symlink_to("SRC")

    assert meanwhile(lambda: (reports / "report.txt").symlink_to("../thesis.tex")) == 6
    assert "out.pth is in place" in capfd.readouterr().err
    assert (place / "thesis.tex").read_text().startswith("years")
    (reports / "report.txt").unlink()
    assert meanwhile(swap) == 0
    assert sorted(os.listdir(place / "SRC")) == there
    assert os.listdir(place / "moved") == ["report.txt"]
    reports.unlink()
    (place / "moved").rename(reports)
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(os.fspath(reports)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    before = (reports / "report.txt").read_bytes().replace(b"a.weight", b"another.weight")
    (reports / "report.txt").write_bytes(before)
    monkeypatch.setattr(os, "fsync", full)
    assert meanwhile(lambda: None) == 1
    assert capfd.readouterr().err.endswith("No space left on device; out.pth is in place\n")
    assert (os.listdir(reports), (reports / "report.txt").read_bytes()) == (["report.txt"], before)


def test_a_folder_that_takes_no_report(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only disk, or a folder of somebody else's: nothing is converted."""
    monkeypatch.chdir(place)
    opened = os.open

    def read_only(path: str | Path, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_CREAT and more.get("dir_fd") is not None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    assert ended("SRC/model.safetensors", "out.pth", "--report", "report.txt") == 1
    assert not (place / "out.pth").exists()
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert ended("SRC/model.safetensors", "out.pth", "--report", "report.txt") == 0


def ended(*arguments: str) -> int:
    """Return the exit code of `ckconv` in this process, its signals as they were."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(caught.value.code or 0)
