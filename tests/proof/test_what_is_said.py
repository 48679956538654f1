"""What a report says to a person, in a terminal, as text and as a page: all of it, safe to show, and no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.errors import CkconvError, LossError, WriteError
from converter.model.ledger import LedgerLine, Setting, SettingKind, Status, defaulted, dropped
from converter.report import Canary, OptimizerReport, OptimizerStatus, OutputComparison, Report, Verification
from converter.report.ledger import listed
from converter.report.page import is_ledger, opened
from tests.proof.from_json import verification_of

REPORT = Report(source="a", target="b", source_format="pytorch", target_format="onnx")
MAPPED = LedgerLine(status=Status.MAPPED, name="x", target="y")
TIED = LedgerLine(status=Status.TIED, name="z", target="y", reason="shares y")


def output(number: int, reason: str | None = None) -> OutputComparison:
    return OutputComparison(name=f"o{number}", dtype="float32", share=0.5, reason=reason)


def test_names_of_many_are_counted() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "\x1b"], 2) == "a, b and 2 more"
    assert listed(["\x1b"], 2) == "\\x1b"


def test_losses_are_said_by_reason() -> None:
    lines = (
        MAPPED,
        TIED,
        *(dropped(name, "no place") for name in "abcd"),
        defaulted("slot", "no place"),
        dropped("e", "as \x1b asked"),
    )
    report = replace(
        REPORT,
        lines=lines,
        optimizer=OptimizerReport(status=OptimizerStatus.DROPPED, reason="as asked"),
        warnings=("mind \n the gap",),
        verification=Verification(left_out=("one set",)),
    )
    assert report.counts == {"mapped": 1, "tied": 1, "dropped": 5, "defaulted": 1}
    assert report.losses() == [
        "dropped: a, b, c and 1 more: no place",
        "defaulted: slot: no place",
        "dropped: e: as \\x1b asked",
        "dropped: optimizer state: as asked",
        "note: mind \\n the gap",
        "note: one set",
    ]
    for status in (OptimizerStatus.CARRIED, OptimizerStatus.ABSENT):
        assert not any(
            "optimizer" in each for each in replace(report, optimizer=OptimizerReport(status=status)).losses()
        )


def test_of_many_outputs_those_are_shown_that_prove_nothing() -> None:
    canary = Canary(tried=4, noticed=2, not_tried=3, unnoticed=("a", "b"))
    verification = Verification(per_output=tuple(map(output, range(8))), canary=canary)
    shown = verification.shown(3)
    assert [each.split(":")[0] for each in shown] == [
        "output 'o0'", "output 'o1'", "output 'o2'", "5 more outputs", "canary",
    ]  # fmt: skip
    assert shown[-1] == "canary: 2 of 4 groups of weights noticed when changed, 3 not tried"
    powerless = replace(verification, per_output=(*map(output, range(7)), output(7, "constant")))
    assert powerless.shown(1)[0] == (
        "output 'o7': float32, max|d| 0.00e+00, relative 0.00e+00, tolerance 0.00e+00, 50.0% of the elements could "
        "have failed, not proven: constant"
    )
    assert len(verification.shown(8)) == len(verification.details) == 9


def test_weights_that_no_output_shows_are_noted() -> None:
    assert str(Canary(tried=5, noticed=5)) == "canary: 5 of 5 groups of weights noticed when changed"
    canary = Canary(tried=5, noticed=1, unnoticed=("a", "b", "c", "d"))
    notes = Verification(left_out=("one set",), canary=canary).notes
    assert notes == ("one set", "the outputs do not change with 4 of 5 groups of weights: a, b, c and 1 more")
    assert Verification(left_out=("one set",), canary=Canary(tried=5, noticed=5)).notes == ("one set",)
    assert Verification().notes == ()


def test_a_line_says_in_which_type_an_output_is_computed() -> None:
    assert "float32 computed in bfloat16, max|d|" in str(replace(output(1), computed_in="bfloat16"))
    same = OutputComparison(name="y", dtype="float16", computed_in="float16")
    assert "computed in" not in str(same)


def test_a_verification_survives_json() -> None:
    whole = Verification(
        weights=True,
        outputs=True,
        max_abs=0.5,
        tolerance=0.25,
        beyond="9 tokens",
        data="x.npz",
        left_out=("one set",),
        per_output=(replace(output(1, "constant"), computed_in="float16"),),
        canary=Canary(tried=2, noticed=1, not_tried=1, unnoticed=("a",), reason="memory"),
    )
    told = whole.as_dict()
    assert verification_of(told) == whole
    assert told["canary"]["unnoticed"] == ["a"]
    for name in ("weights", "outputs", "max_abs", "tolerance", "beyond", "data", "left_out"):
        assert told[name] == (list(getattr(whole, name)) if name == "left_out" else getattr(whole, name))
    assert str(whole.canary).endswith("1 not tried (memory)")


def page(folder: Path, suffix: str, outcome: Report | CkconvError) -> str:
    path = folder / f"report{suffix}"
    (folder / "a").write_text("")
    with opened(str(path), source=str(folder / "a"), target=str(folder / "b"), overwrite=True) as file:
        assert file is not None
        file.write(outcome)
    return path.read_text()


SETTING = Setting(
    layer="dense", class_name="Dense", name="activation", value="relu", kind=SettingKind.BESIDE, note="add it"
)
SAID = replace(
    REPORT,
    lines=(replace(MAPPED, target="x"), replace(MAPPED, name="<b>"), dropped("gone", "no & place")),
    settings=(SETTING,),
    warnings=("mind <the> gap",),
    verification=Verification(weights=True, per_output=(output(1),), left_out=("one set",)),
)


def test_a_text_has_all_of_it(tmp_path: Path) -> None:
    lines = page(tmp_path, ".txt", SAID).splitlines()
    assert lines == [
        "a -> b",
        "report of ckconv",
        "mapped     x",
        "mapped     <b> -> y",
        "dropped    gone: no & place",
        "setting    dense: Dense, beside: add it",
        "note: mind <the> gap",
        "note: one set",
        str(output(1)),
        SAID.verdict,
    ]


@pytest.mark.parametrize("suffix", [".html", ".htm", ".HTML"])
def test_a_page_has_all_of_it_and_nothing_that_runs(suffix: str, tmp_path: Path) -> None:
    text = page(tmp_path, suffix, SAID)
    said = (
        "&lt;b&gt;",
        "no &amp; place",
        "mind &lt;the&gt; gap",
        "one set",
        "Dense, beside: add it",
        "output &#x27;o1",
    )
    for each in said:
        assert each in text
    assert SAID.verdict in text
    assert "<b>" not in text
    assert "<the>" not in text
    assert is_ledger(text.encode())


def test_a_setting_that_needs_nothing_is_its_layer_and_kind(tmp_path: Path) -> None:
    bare = replace(SAID, settings=(replace(SETTING, kind="unwritten", note=""),))
    assert "setting    dense: Dense, unwritten" in page(tmp_path, ".txt", bare).splitlines()


def test_a_failure_has_what_was_known(tmp_path: Path) -> None:
    error = LossError("would be lost", path="x.pth", tensor="gone")
    assert page(tmp_path, ".txt", error).splitlines()[-1] == "failed: x.pth: tensor gone: would be lost"
    error.report = SAID
    lines = page(tmp_path, ".txt", error).splitlines()
    assert lines[2] == "mapped     x"
    assert lines[-1] == "failed: x.pth: tensor gone: would be lost"
    assert '"exit_code": 3' in page(tmp_path, ".json", error)


def test_a_report_that_cannot_be_written_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise WriteError("no space", path="report.txt")

    monkeypatch.setattr("converter.execution.guarded.GuardedFile.write", fails)
    error = LossError("would be lost", hint="this accepts it")
    page_of_nothing = tmp_path / "report.txt"
    page_of_nothing.write_text("")
    with pytest.raises(WriteError, match="no space") as caught:
        page(tmp_path, ".text", SAID)
    assert caught.value.hint == f"{tmp_path / 'b'} is in place"
    with pytest.raises(WriteError) as caught:
        page(tmp_path, ".text2", replace(SAID, is_dry_run=True))
    assert caught.value.hint is None
    proof = str(tmp_path / "proof.txt")
    with opened(proof, source="a", target="b", overwrite=False, done="is what the source says") as file:
        assert file is not None
        with pytest.raises(WriteError) as caught:
            file.write(SAID)
    assert caught.value.hint == "b is what the source says"
    with opened(
        str(tmp_path / "new.txt"), source=str(tmp_path / "a"), target=str(tmp_path / "b"), overwrite=False
    ) as file:
        assert file is not None
        file.write(error)
    assert error.hint == "this accepts it; no report: report.txt: no space"


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (b"", False),
        (b"a -> b\nreport of ckconv\nok", True),
        (b"a -> b\nreport of ckconv", True),
        (b"a -> b\nreport of ckconvert\n", False),
        (b"report of ckconv\n", False),
        (b"a\nb\nreport of ckconv\n", False),
        (b"<!doctype html>\n<html><title>mine</title>", False),
        (b'{"status": "ok"}', False),
        (b"{", False),
        (b"[" * 100_000, False),
        (b'{"a":' * 100_000, False),
    ],
)
def test_what_an_earlier_report_looks_like(content: bytes, is_one: bool, tmp_path: Path) -> None:
    assert is_ledger(page(tmp_path, ".json", SAID).encode())
    assert is_ledger(content) is is_one
