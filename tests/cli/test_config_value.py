"""`--config-value NAME=VALUE`: another value in the config of a transformers model, said, written, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.options import Options
from tests.conftest import Ckconv


def test_values_are_written_and_said(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    before = json.loads((squad_bert.parent / "config.json").read_text())
    assert "hidden_dropout_prob" in before
    given = ("--config-value", "hidden_dropout_prob=0.25", "--config-value", "hidden_act=relu")
    result = ckconv(squad_bert, tmp_path / "out", "--to", "pretrained", *given, without_frameworks=True)
    assert result.returncode == 0, result.stderr
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {**before, "hidden_dropout_prob": 0.25, "hidden_act": "relu"} == {
        **after,
        "architectures": before["architectures"],
    }
    notes = [line for line in result.stdout.splitlines() if "--config-value" in line]
    assert notes == [
        f"note: config.json: {name} is {value} and was {json.dumps(before[name])}, as --config-value says"
        for name, value in (("hidden_dropout_prob", "0.25"), ("hidden_act", '"relu"'))
    ]
    assert ckconv("verify", squad_bert, tmp_path / "out", *given).returncode == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--to", "pretrained", "--config-value", "hidden_act"), "NAME=VALUE"),
        (("--to", "pretrained", "--config-value", "model_type=gpt2"), "cannot change model_type"),
        (("--to", "pretrained", "--config-value", "attn_implementation=eager"), "cannot change attn_implementation"),
        (("--to", "safetensors", "--config-value", "hidden_act=relu"), "decides nothing of a target"),
        (("--to", "onnx", "--weights-only", "--config-value", "hidden_act=relu"), "decides nothing of a target"),
        (("--to", "onnx", "--model", "a:b", "--config-value", "hidden_act=relu"), "or that of --model"),
    ],
)
def test_what_cannot_apply_is_refused(
    more: tuple[str, ...], why: str, squad_bert: Path, tmp_path: Path, ckconv: Ckconv
) -> None:
    result = ckconv(squad_bert, tmp_path / "out/", *more, without_frameworks=True)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert why in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_source_without_config_has_no_values(squad_bert: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    (tmp_path / "alone").mkdir()
    source = tmp_path / "alone" / "model.pth"
    source.write_bytes(squad_bert.read_bytes())
    result = ckconv(source, tmp_path / "out", "--to", "dcp", "--config-value", "hidden_act=relu")
    assert (result.returncode, "there is none" in result.stderr) == (2, True)
    assert ckconv(source, tmp_path / "out", "--to", "dcp").returncode == 0


@pytest.mark.framework
def test_unknown_names_are_refused_and_those_of_the_class_are_not(
    squad_bert: Path, tmp_path: Path, ckconv: Ckconv
) -> None:
    """`chunk_size_feed_forward` is in no file, every class has it."""
    to = ("--to", "pretrained", "--config-value")
    refused = ckconv(squad_bert, tmp_path / "out", *to, "hiden_act=relu")
    assert (refused.returncode, "'hiden_act' is neither in config.json nor known" in refused.stderr) == (2, True)
    assert ckconv(squad_bert, tmp_path / "out", *to, "hidden_act.x=1").returncode == 2
    known = ckconv(squad_bert, tmp_path / "out", *to, "chunk_size_feed_forward=4")
    assert known.returncode == 0, known.stderr
    assert json.loads((tmp_path / "out" / "config.json").read_text())["chunk_size_feed_forward"] == 4


FIXED = """
architectures attn_implementation auto_map dtype experts_implementation output_attentions
output_hidden_states quantization_config return_dict torch_dtype transformers_version use_cache use_mems_eval
"""


@pytest.mark.parametrize("name", FIXED.split())
def test_what_others_decide_is_nobodys_to_change(name: str) -> None:
    for given in (f"{name}=1", f"text_config.{name}=1"):
        with pytest.raises(UsageError, match=f"--config-value cannot change {given.removesuffix('=1')}: other options"):
            Options(config_value=(given,))
    assert Options(config_value=(f"{name}.own=1", f"{name}_more=1")).config_values == {
        f"{name}.own": 1,
        f"{name}_more": 1,
    }


def test_values_are_json_or_words() -> None:
    given = ("a=1", "b=1.5e3", "c=true", "d=null", "e=original_full", 'f="x y"', "g=[1, 2]", 'vision.h={"i": 1}')
    assert Options(config_value=given).config_values == {
        "a": 1,
        "b": 1500.0,
        "c": True,
        "d": None,
        "e": "original_full",
        "f": "x y",
        "g": [1, 2],
        "vision.h": {"i": 1},
    }
    for wrong in (
        "",
        "a",
        "a=",
        "=1",
        "a=[1",
        "a={",
        "a=x y",
        "a=1x",
        "_a=1",
        "a..b=1",
        ".a=1",
        "a b=1",
        "text.dtype=x",
        "a=[NaN]",
        "a=[-Infinity]",
        'a={"b": Infinity}',
    ):
        with pytest.raises(UsageError):
            Options(config_value=(wrong,))
    with pytest.raises(UsageError):
        Options(config_value=("a=1", "a=2"))
