"""Every option of the command line reaches the library as it was given, and no other does."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from converter.cli import _run, convert, inspect, verify
from converter.cli.formats import describe
from converter.cli.outcome import Manner
from converter.cli.progress import human_bytes, progress
from converter.errors import ReadError, UsageError
from converter.formats import registry
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.observer import Observer
from converter.options import OptimizerMode, Options, Verify
from converter.report import Canary, OutputComparison, Report, Verification

_PRINTED_ONLY = {"--json", "--no-progress", "-q", "-v", "--report"}
_OF_THE_REPORT = ("verify", "--overwrite")


def given(option: click.Parameter) -> tuple[list[str], Any]:
    """Return the words that give an option a value, and the value that the library is to have."""
    assert isinstance(option, click.Option)
    name = option.opts[0]
    if option.is_flag:
        return [name], name != "--no-fsync"
    text = {"integer": "3", "float": "0.5"}.get(option.type.name, "value")
    value = option.type.convert(text, option, None)
    return [name, text], (value,) if option.multiple else value


@pytest.mark.parametrize(
    ("module", "option"),
    [
        pytest.param(module, option, id=f"{module.command.name} {option.opts[0]}")
        for module in (convert, verify)
        for option in module.command.params
        if isinstance(option, click.Option) and _PRINTED_ONLY.isdisjoint(option.opts)
        if (module.command.name, option.opts[0]) != _OF_THE_REPORT
    ],
)
def test_an_option_reaches_the_library(module: Any, option: click.Option, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def record(source: str, destination: str, **options: Any) -> None:
        seen.update(options, source=source, destination=destination)
        raise ReadError("enough")

    name = module.command.name
    monkeypatch.setattr(module, name, record)
    words, value = given(option)
    assert _run([name, "SRC", "DST", *words]) == 1
    assert seen.pop("observer") is not None
    plain = {"source": "SRC", "destination": "DST", **({"to": None} if name == "convert" else {})}
    assert seen == {**plain, option.name: value}


@pytest.mark.parametrize(("name", "known"), [("optimizer", "auto"), ("verify", "weights")])
def test_a_choice_is_one_of_those_there_are_as_they_are_written(name: str, known: str) -> None:
    chosen = getattr(Options(**{name: known}), name)
    assert chosen == known
    assert getattr(Options(**{name: chosen}), name) is chosen
    other = Verify.NONE if name == "optimizer" else OptimizerMode.KEEP
    for wrong in (known.upper(), known.title(), f" {known}", "", known[:2], None, other):
        with pytest.raises(UsageError, match=f"--{name} is one of"):
            Options(**{name: wrong})


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        *(("fp64", "float64"), ("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")),
        *(("f64", "float64"), ("f32", "float32"), ("f16", "float16"), ("float8_e5m2", "float8_e5m2")),
    ],
)
def test_a_type_has_a_short_name(short: str, whole: str) -> None:
    assert Options(dtype=short).target_dtype() is DType(whole)


@pytest.mark.parametrize("dtype", ["int8", "bool", "complex64", "float", "Float32", "f8"])
def test_only_real_floating_point_types_are_cast_to(dtype: str) -> None:
    with pytest.raises(UsageError, match=f"unknown --dtype '{dtype}'; known: float16, bfloat16, float32"):
        Options(dtype=dtype)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 365 * 86400 + 1])
def test_a_time_is_some_and_has_an_end(seconds: float) -> None:
    assert Options(timeout=0.5).timeout == 0.5
    with pytest.raises(UsageError, match="--timeout is a number of seconds"):
        Options(timeout=seconds)


@pytest.mark.parametrize(
    ("name", "right", "wrong", "said"),
    [
        ("jobs", (1, 2, 256), (0, -1, 257), "--jobs is a number from 1 to 256"),
        ("max_memory", (16 << 20, "16MiB", "1GB"), ((16 << 20) - 1, "15MiB", 0), "--max-memory is at least 16 MiB"),
        ("timeout", (0.001, 365 * 86400), (0, 365 * 86400 + 1), "--timeout is a number of seconds"),
    ],
)
def test_a_number_is_in_its_range_the_ends_of_which_are_in_it(
    name: str, right: tuple[Any, ...], wrong: tuple[Any, ...], said: str
) -> None:
    for value in right:
        assert getattr(Options(**{name: value}), name) == value
    for value in wrong:
        with pytest.raises(UsageError, match=said):
            Options(**{name: value})


def test_memory_is_in_bytes() -> None:
    assert (Options().memory_bytes, Options(max_memory="1GB").memory_bytes) == (256 << 20, 10**9)
    assert Options(max_memory=20_000_000).memory_bytes == 20_000_000


@pytest.mark.parametrize("verify", ["weights", "none"])
def test_arrays_for_outputs_need_outputs_that_are_compared(verify: str) -> None:
    for compared in ("auto", "outputs"):
        assert Options(inputs="a.npz", verify=compared).data == Path("a.npz")
    with pytest.raises(UsageError, match=f"--inputs a.npz is for outputs, which --verify {verify} does not compare"):
        Options(inputs="a.npz", verify=verify)


def test_what_a_model_takes_is_told_from_arrays_by_the_suffix() -> None:
    both = Options(inputs=("ids:int64[1]", Path("a.npz")), model="a:b")
    assert (both.declared_inputs, both.data) == ("ids:int64[1]", Path("a.npz"))
    assert (Options().declared_inputs, Options().data) == (None, None)
    with pytest.raises(UsageError, match="says what --model takes, and there is no --model"):
        Options(inputs="ids:int64[1]")
    assert both.deciding["inputs"] == repr("ids:int64[1]")
    assert Options(inputs="a.npz").deciding == Options().deciding


def test_what_the_name_of_a_target_decides_is_no_option_of_its_format() -> None:
    told = {format_.name: describe(format_) for format_ in registry().values()}
    assert "--container" not in told["keras"]["write_options"]
    assert "--epsilon" in told["keras"]["write_options"]
    assert {name for name, each in told.items() if each["runs"]} == {"onnx", "pt2", "savedmodel"}
    assert {name for name, each in told.items() if each["extra"]} == {"onnx", "pt2", "savedmodel"}


def test_two_files_of_arrays_are_one_too_many() -> None:
    assert Options(inputs=("a.npz",)).data == Path("a.npz")
    with pytest.raises(UsageError, match=r"--inputs is given twice: 'a\.npz' and 'b\.npz'"):
        Options(inputs=("a.npz", "b.npz"))
    with pytest.raises(UsageError, match="--inputs is given twice"):
        Options(inputs=("a:int64[1]", "b:int64[1]"), model="a:b")


@pytest.mark.parametrize("module", [convert, verify], ids=["convert", "verify"])
@pytest.mark.parametrize("is_asked", [True, False])
def test_a_log_goes_to_stderr_where_it_is_asked_for(
    is_asked: bool, module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the one line of an error there is where it came from."""

    def work(*given: Any, **options: Any) -> None:
        logging.getLogger("converter").debug("of use to nobody else")
        raise ReadError("enough")

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]
    monkeypatch.setattr(module, module.command.name, work)
    assert _run([module.command.name, "SRC", "DST", *(["-v"] if is_asked else [])]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert ("of use to nobody else" in said.err) is is_asked
    assert ("Traceback" in said.err) is is_asked
    assert said.err.splitlines()[-1] == "ckconv: enough"


def test_inspect_reads_as_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[dict[str, Any]] = []

    def record(source: str, **options: Any) -> Checkpoint:
        seen.append({"source": source, **options})
        return Checkpoint(tensors={})

    monkeypatch.setattr(inspect, "read", record)
    assert _run(["inspect", "SRC", "--from", "onnx", "--config", "c.json"]) == 0
    assert _run(["inspect", "SRC"]) == 0
    assert seen == [
        {"source": "SRC", "from_format": "onnx", "config": Path("c.json")},
        {"source": "SRC", "from_format": None, "config": None},
    ]
    capsys.readouterr()


def test_formats_are_told_one_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        assert _run(["formats", *words]) == 0
        return capsys.readouterr().out

    one = json.loads(told("onnx", "--json"))
    assert one == describe(registry()["onnx"])
    assert json.loads(told("--json")) == {"formats": [describe(format_) for format_ in registry().values()]}
    assert "write options: --external-data" in told("onnx").splitlines()
    assert told("onnx").splitlines()[0] == "name: onnx"
    assert told().splitlines()[0].startswith("| format |")
    assert len(told().splitlines()) == 2 + len(registry())


@pytest.mark.parametrize("module", [convert, verify], ids=["convert", "verify"])
def test_quiet_prints_nothing_and_json_one_object(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(source="SRC", target="DST", source_format="pytorch", target_format="onnx")
    monkeypatch.setattr(module, module.command.name, lambda *arguments, **options: report)
    command = [module.command.name, "SRC", "DST"]
    assert _run(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == report.verdict
    assert _run([*command, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert _run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"


def test_verify_says_of_the_verification_what_a_conversion_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Verification(
        outputs=True,
        max_abs=0.0,
        left_out=("one set",),
        per_output=(OutputComparison(name="y", dtype="float32", tolerance=2e-5, share=0.5),),
        canary=Canary(tried=2, noticed=1, unnoticed=("bias",)),
    )
    report = Report(source="a", target="b", source_format="pytorch", target_format="onnx", verification=found)
    printed = {}
    for module in (convert, verify):
        monkeypatch.setattr(module, module.command.name, lambda *arguments, **options: report)
        assert _run([module.command.name, "SRC", "DST"]) == 0
        printed[module.command.name] = capsys.readouterr().out.splitlines()
    assert printed["verify"] == [
        "note: one set",
        "note: the outputs do not change with 1 of 2 groups of weights: bias",
        "output 'y': float32, max|d| 0.00e+00, relative 0.00e+00, tolerance 2.00e-05, "
        "50.0% of the elements could have failed",
        "canary: 1 of 2 groups of weights noticed when changed",
        report.verdict,
    ]
    assert [line for line in printed["convert"] if line != "pytorch -> onnx, 0 B"] == printed["verify"]


@pytest.mark.parametrize(
    "option",
    [
        *("--config-value", "--custom-objects", "--include", "--exclude", "--hyperparameter", "--inputs"),
        *("--allow-dropped", "--allow-missing"),
    ],
)
def test_an_option_that_may_be_repeated_is_all_that_was_given(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def record(source: str, destination: str, **options: Any) -> None:
        seen.update(options)
        raise ReadError("enough")

    monkeypatch.setattr(convert, "convert", record)
    assert _run(["convert", "SRC", "DST", option, "a", option, "b"]) == 1
    assert [str(value) for value in seen[option.strip("-").replace("-", "_")]] == ["a", "b"]


@pytest.mark.parametrize("given", [("lr=1", "lr=2"), ("lr=1", "lr=1"), ("=1",), ("lr",), ("lr=",), ("lr=x",), ("",)])
def test_a_hyperparameter_is_a_name_and_a_value_once(given: tuple[str, ...]) -> None:
    assert Options(hyperparameter=("lr=1", "eps=2")).hyperparameters == {"lr": 1, "eps": 2}
    with pytest.raises(UsageError, match="--hyperparameter is NAME=VALUE") as caught:
        Options(hyperparameter=given)
    assert repr(given[-1]) in caught.value.message


@pytest.mark.parametrize(
    ("is_shown", "is_terminal", "variable", "is_drawn"),
    [
        (True, True, None, True),
        (True, True, "", True),
        (True, True, "1", False),
        (True, False, None, False),
        (False, True, None, False),
    ],
)
def test_a_bar_is_drawn_on_a_terminal_that_nobody_forbids(
    is_shown: bool, is_terminal: bool, variable: str | None, is_drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    if variable is not None:
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", variable)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(is_shown=is_shown, committing=lambda: None) as observer:
        observer.stage("copying", 10)
        observer.advance(5)
    assert ("copying" in stream.getvalue()) == is_drawn


def test_a_bar_is_of_the_stage_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    committed: list[bool] = []
    with progress(is_shown=True, committing=lambda: committed.append(True)) as observer:
        observer.advance(5)
        observer.stage("copying", 10)
        observer.advance(5)
        observer.stage("proving", 20_000)
        stream.seek(0)
        stream.truncate()
        observer.advance(10_000)
        observer.committing()
    assert committed == [True]
    assert "proving" in stream.getvalue()
    assert "copying" not in stream.getvalue()
    assert "10.0/20.0 kB" in stream.getvalue()


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1001, "1 kB"), (1234, "1.23 kB"), (999_499, "999 kB")),
        *((999_500, "1 MB"), (440_000_000, "440 MB"), (10**15, "1 PB"), (10**18, "1e+03 PB")),
    ],
)
def test_a_size_has_three_digits(nbytes: int, shown: str) -> None:
    assert human_bytes(nbytes) == shown


@pytest.mark.parametrize("forbidden", [None, "as_json", "no_progress", "quiet"])
def test_a_command_draws_no_bar_where_it_is_asked_not_to(
    forbidden: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    asked = dict.fromkeys(("as_json", "no_progress", "quiet", "verbose"), False)
    manner = Manner(ledger_path=None, **{**asked, **({} if forbidden is None else {forbidden: True})})

    def work(observer: Observer) -> Report:
        observer.stage("copying", 10)
        raise ReadError("enough")

    with pytest.raises(ReadError):
        manner.run(work, source="SRC", destination="DST", overwrite=False, done="")
    assert ("copying" in stream.getvalue()) == (forbidden is None)
