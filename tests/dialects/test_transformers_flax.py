"""Flax models of transformers: names and layouts both ways, against what the PyTorch classes save (fixtures/flax)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import converter
from converter.dialects.tables import document, flax_table
from converter.dialects.transformers import flax
from converter.dialects.transformers.flax_names import Names
from converter.dialects.transformers.sinusoids import sinusoids
from converter.encoding import flax_file, safetensors
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.ledger import Status
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor, is_equal

FIXTURES = Path(__file__).parents[2] / "fixtures" / "flax" / "transformers"
CASES = ("llama", "resnet", "roformer")


def config_of(**values: Any) -> Config:
    return Config(values=values, raw=json.dumps(values).encode())


def flax_checkpoint(config: Config | None, **leaves: np.ndarray) -> Checkpoint:
    tensors: dict[str, Tensor] = {name.replace("__", "/"): ArrayTensor.of(array) for name, array in leaves.items()}
    return Checkpoint(tensors=tensors, dialect="flax", config=config)


def torch_checkpoint(config: Config, arrays: dict[str, np.ndarray]) -> Checkpoint:
    return Checkpoint(tensors={name: ArrayTensor.of(array) for name, array in arrays.items()}, config=config)


def saved(path: Path) -> dict[str, Tensor]:
    return dict(safetensors.read(LocalFile(path))[0])


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    return [name for name in ours.keys() | theirs.keys() if not (
        name in ours and name in theirs and is_equal(ours[name], theirs[name])
    )]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_becomes_what_the_pytorch_class_saves(case: str, tmp_path: Path) -> None:
    converter.convert(FIXTURES / case, tmp_path / "out", to="pretrained")
    expected = saved(FIXTURES / case / "expected.safetensors")
    assert differing(saved(tmp_path / "out" / "model.safetensors"), expected) == []


@pytest.mark.parametrize("case", CASES)
def test_a_file_with_a_config_elsewhere_becomes_the_same(case: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / case / "flax_model.msgpack", tmp_path / "model.msgpack")
    config = FIXTURES / case / "config.json"
    converter.convert(tmp_path / "model.msgpack", tmp_path / "out.safetensors", config=config)
    assert differing(saved(tmp_path / "out.safetensors"), saved(FIXTURES / case / "expected.safetensors")) == []


@pytest.mark.parametrize("max_shard_size", ["0", "4KB"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_written_has_the_leaves_of_flax_and_no_other(case: str, max_shard_size: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(FIXTURES / case / "expected.safetensors", source / "model.safetensors")
    shutil.copy(FIXTURES / case / "config.json", source)
    written = tmp_path / "out"
    converter.convert(source, written, to="pretrained", flavor="flax", max_shard_size=max_shard_size)
    files = sorted(written.glob("*.msgpack"))
    assert (len(files) > 1) == (max_shard_size != "0")
    leaves: dict[str, Tensor] = {}
    for path in files:
        file = LocalFile(path)
        tree = flax_file.read_tree(file)
        tree.pop("__ckconv__")
        leaves |= flax_file.tensors_of(file, tree)[0]
    file = LocalFile(FIXTURES / case / "flax_model.msgpack")
    assert differing(leaves, flax_file.tensors_of(file, flax_file.read_tree(file))[0]) == []
    if max_shard_size != "0":
        index = json.loads((written / "flax_model.msgpack.index.json").read_text())
        assert index["weight_map"].keys() == leaves.keys()
    converter.convert(written, tmp_path / "back", to="pretrained")
    expected = saved(FIXTURES / case / "expected.safetensors")
    assert differing(saved(tmp_path / "back" / "model.safetensors"), expected) == []


def test_the_flax_target_has_flax_names_when_the_type_is_known(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    shutil.copy(FIXTURES / "llama" / "expected.safetensors", source)
    converter.convert(source, tmp_path / "known.msgpack", config=FIXTURES / "llama" / "config.json")
    assert "model/embed_tokens/embedding" in converter.read(tmp_path / "known.msgpack").names
    converter.convert(source, tmp_path / "unknown.msgpack")
    assert "model.embed_tokens.weight" in converter.read(tmp_path / "unknown.msgpack").names


def test_no_array_says_where_a_file_is_from(tmp_path: Path) -> None:
    converter.convert(FIXTURES / "llama", tmp_path / "out", to="pretrained", flavor="flax")
    file = LocalFile(tmp_path / "out" / "flax_model.msgpack")
    (said,) = flax_file.read_tree(file)["__ckconv__"].items()
    assert json.loads(said[0])["source"]["name"] == "llama"
    assert said[1] == {}


def test_bfloat16_leaves_stay() -> None:
    config = config_of(model_type="bert", architectures=["BertModel"])
    kernel = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    made = flax.to_canonical(flax_checkpoint(config, pooler__dense__kernel=kernel))
    assert made.tensors["pooler.dense.weight"].dtype.value == "bfloat16"
    assert made.tensors["pooler.dense.weight"].numpy().tobytes() == kernel.T.tobytes()


def test_a_leaf_of_no_row_is_refused_by_name() -> None:
    config = config_of(model_type="bert", architectures=["BertModel"])
    known = {"pooler__dense__bias": np.ones(3, np.float32)}
    assert flax.to_canonical(flax_checkpoint(config, **known)).names == ("pooler.dense.bias",)
    with pytest.raises(LossError, match="my/head"):
        flax.to_canonical(flax_checkpoint(config, **known, my__head=np.ones(3, np.float32)))


def test_a_tensor_without_a_leaf_is_refused_unless_it_is_tied_or_computed() -> None:
    config = config_of(model_type="bert", architectures=["BertForMaskedLM"])
    bias = np.arange(5, dtype=np.float32)
    arrays: dict[str, np.ndarray] = {
        "cls.predictions.bias": bias,
        "cls.predictions.decoder.bias": bias,
        "bert.embeddings.position_ids": np.arange(4)[None],
    }
    made = flax.from_canonical(torch_checkpoint(config, arrays))
    assert made.names == ("cls/predictions/bias",)
    assert not any(line.is_refused_by_default for line in made.lines)
    assert {line.name: line.status for line in made.lines} == {
        "cls.predictions.decoder.bias": Status.TIED,
        "bert.embeddings.position_ids": Status.DROPPED,
    }
    other = flax.from_canonical(torch_checkpoint(config, {**arrays, "cls.predictions.decoder.bias": bias + 1}))
    refused = [line.name for line in other.lines if line.is_refused_by_default]
    assert refused == ["cls.predictions.decoder.bias"]


def test_what_flax_stores_twice_is_one_tensor_or_unties_the_config() -> None:
    config = config_of(model_type="llama", architectures=["LlamaForCausalLM"], tie_word_embeddings=True)
    words = np.arange(6, dtype=np.float32).reshape(3, 2)
    tied = flax.to_canonical(flax_checkpoint(config, model__embed_tokens__embedding=words, lm_head__kernel=words.T))
    assert tied.names == ("model.embed_tokens.weight",)
    other = flax_checkpoint(config, model__embed_tokens__embedding=words, lm_head__kernel=words.T + 1)
    untied = flax.to_canonical(other)
    assert set(untied.names) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert untied.config is not None
    assert untied.config.values["tie_word_embeddings"] is False


def test_marian_with_separate_embeddings_shares_what_flax_shares() -> None:
    config = config_of(
        model_type="marian", architectures=["MarianMTModel"], share_encoder_decoder_embeddings=False,
        d_model=2, max_position_embeddings=4,
    )  # fmt: skip
    words = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = flax.to_canonical(flax_checkpoint(config, model__shared__embedding=words))
    assert set(made.names) == {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
    back = flax.from_canonical(made)
    assert back.names == ("model/shared/embedding",)
    tied = torch_checkpoint(config, dict.fromkeys(made.names, words))
    once = flax.from_canonical(tied)
    assert once.names == ("model/shared/embedding",)
    assert [(line.status, line.target, line.reason) for line in once.lines] == [
        (Status.TIED, "model/shared/embedding", "stored once")
    ]
    differs = {"model.encoder.embed_tokens.weight": words, "model.decoder.embed_tokens.weight": words + 1}
    lost = flax.from_canonical(torch_checkpoint(config, differs)).lines
    assert [line.name for line in lost if line.is_refused_by_default] == ["model.decoder.embed_tokens.weight"]


def test_models_of_two_models_are_named_by_the_tables_of_both() -> None:
    config = {
        "model_type": "vision-encoder-decoder",
        "encoder": {"model_type": "vit"},
        "decoder": {"model_type": "gpt2"},
    }
    names = Names.of(config)
    assert names is not None
    for leaf, name in (
        ("encoder/layernorm/scale", "encoder.layernorm.weight"),
        ("decoder/transformer/h/11/attn/c_attn/kernel", "decoder.transformer.h.11.attn.c_attn.weight"),
        ("enc_to_dec_proj/kernel", "enc_to_dec_proj.weight"),
    ):
        there, back = names.to_canonical(leaf), names.from_canonical(name)
        assert there is not None and back is not None  # noqa: PT018
        assert (there[0], back[0]) == (name, leaf)
    assert Names.of({**config, "decoder": {"model_type": "klingon"}}) is None


def test_a_type_that_no_table_knows_is_tried_by_rule_and_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "llama", tmp_path / "in")
    config = json.loads((tmp_path / "in" / "config.json").read_text())
    (tmp_path / "in" / "config.json").write_text(json.dumps({**config, "model_type": "klingon"}))
    with pytest.raises(LossError, match="klingon"):
        converter.convert(tmp_path / "in", tmp_path / "out", to="safetensors")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArchitectureError, match="klingon"):
        flax.from_canonical(torch_checkpoint(config_of(model_type="klingon"), {"w": np.ones(1, np.float32)}))


def test_without_a_config_names_stay(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "llama" / "flax_model.msgpack", tmp_path)
    report = converter.convert(tmp_path / "flax_model.msgpack", tmp_path / "out.safetensors")
    assert "lm_head/kernel" in saved(tmp_path / "out.safetensors")
    assert any("layout as stored" in warning for warning in report.warnings)


@pytest.mark.parametrize("named", [{}, {"architectures": ["BigBirdForTokenClassification"]}])
def test_a_pooler_that_nothing_uses_is_made_where_the_class_is_told(named: dict[str, Any]) -> None:
    """By the config, or by the tensors: a classifier of tokens has one in PyTorch alone."""
    config = config_of(model_type="big_bird", hidden_size=4, **named)
    weights = {
        "bert__embeddings__position_embeddings__embedding": np.ones((6, 4), np.float32),
        "classifier__kernel": np.ones((4, 3), np.float32),
        "classifier__bias": np.ones(3, np.float32),
    }
    made = flax.to_canonical(flax_checkpoint(config, **weights))
    assert made.tensors["bert.pooler.weight"].shape == (4, 4)
    assert [line.target for line in made.lines] == ["bert.pooler.bias", "bert.pooler.weight"]


@pytest.mark.parametrize("positions", [None, 0, True, 1 << 40])
def test_a_config_that_asks_for_an_impossible_position_table_is_refused(positions: Any) -> None:
    values = {"model_type": "roformer", "hidden_size": 24, "num_attention_heads": 3, "max_position_embeddings": 8}
    leaf = {"embeddings__word_embeddings__embedding": np.ones((3, 24), np.float32)}
    assert len(flax.to_canonical(flax_checkpoint(config_of(**values), **leaf)).names) == 2
    with pytest.raises(ReadError, match="position"):
        flax.to_canonical(flax_checkpoint(config_of(**{**values, "max_position_embeddings": positions}), **leaf))


@pytest.mark.parametrize("model_type", sorted(document("flax")["models"]))
def test_rows_of_every_type_invert(model_type: str) -> None:
    table = flax_table(model_type)
    assert table is not None
    for row in table.rows.all:
        indices = {name: str(position) for position, name in enumerate(row.theirs.placeholders, 3)}
        theirs, canonical = row.theirs.filled(indices), row.canonical.filled(indices)
        there, back = table.to_canonical(theirs), table.from_canonical(canonical)
        assert there is not None
        assert there.name == canonical
        assert back is not None
        assert back.name == theirs


@pytest.mark.parametrize("width", [None, 0, -4, True, "4", (1 << 16) + 1])
def test_a_config_that_asks_for_an_impossible_pooler_is_refused(width: Any) -> None:
    values = {"model_type": "big_bird", "architectures": ["BigBirdForTokenClassification"]}
    leaf = {"classifier__bias": np.ones(3, np.float32)}
    made = flax.to_canonical(flax_checkpoint(config_of(**values, hidden_size=4), **leaf))
    assert {name: tensor.shape for name, tensor in made.tensors.items() if "pooler" in name} == {
        "bert.pooler.weight": (4, 4),
        "bert.pooler.bias": (4,),
    }
    assert not any(made.tensors[name].numpy().any() for name in ("bert.pooler.weight", "bert.pooler.bias"))
    with pytest.raises(ReadError, match=f"says that hidden_size is {width!r}") as caught:
        flax.to_canonical(flax_checkpoint(config_of(**values, hidden_size=width), **leaf))
    assert str(caught.value.tensor).startswith("bert.pooler.")


def by_rules(**leaves: np.ndarray) -> Checkpoint:
    return flax.to_canonical(flax_checkpoint(config_of(model_type="klingon"), **leaves))


def test_rules_for_a_type_that_no_table_knows() -> None:
    arrays = {
        "a__kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b__kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "c__kernel": np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5),
        "d__kernel": np.arange(2, dtype=np.float32),
        "n__scale": np.ones(2, np.float32),
        "e__embedding": np.ones((3, 2), np.float32),
        "params__p__bias": np.ones(4, np.float32),
        "batch_stats__p__mean": np.ones(4, np.float32),
        "batch_stats__p__var": np.ones(4, np.float32),
        "params": np.ones(1, np.float32),
        "x__odd": np.ones(1, np.float32),
    }
    made = by_rules(**arrays)
    assert set(made.names) == {
        *("a.weight", "b.weight", "c.weight", "d.kernel", "n.weight", "e.weight", "p.bias"),
        *("p.running_mean", "p.running_var", "params", "x.odd"),
    }
    np.testing.assert_array_equal(made.tensors["a.weight"].numpy(), arrays["a__kernel"].T)
    np.testing.assert_array_equal(made.tensors["b.weight"].numpy(), arrays["b__kernel"].transpose(2, 1, 0))
    np.testing.assert_array_equal(made.tensors["c.weight"].numpy(), arrays["c__kernel"].transpose(3, 2, 0, 1))
    assert made.buffers == {"p.running_mean", "p.running_var"}
    (line,) = made.lines
    assert (line.name, line.is_refused_by_default) == ("model-type", True)
    assert "11 names follow what Flax calls leaves; undecided: d/kernel, params, x/odd, and what" in line.reason
    (line,) = by_rules(a__bias=np.ones(1, np.float32)).lines
    assert "undecided: none, and what" in line.reason
    (line,) = by_rules(**{f"x__odd{number:02}": np.ones(1, np.float32) for number in range(23)}).lines
    assert "x/odd19 and 3 more, and what" in line.reason


def test_statistics_are_a_collection_of_their_own() -> None:
    config = config_of(model_type="resnet", architectures=["ResNetModel"])
    norm = "embedder.embedder.normalization"
    leaves = {
        "params__embedder__embedder__normalization__scale": np.ones(2, np.float32),
        "batch_stats__embedder__embedder__normalization__mean": np.ones(2, np.float32),
        "batch_stats__embedder__embedder__normalization__var": np.ones(2, np.float32),
    }
    made = flax.to_canonical(flax_checkpoint(config, **leaves))
    assert made.buffers == {f"{norm}.{leaf}" for leaf in ("running_mean", "running_var", "num_batches_tracked")}
    (line,) = made.lines
    assert (line.target, line.status) == (f"{norm}.num_batches_tracked", Status.DEFAULTED)
    back = flax.from_canonical(made)
    assert set(back.names) == {name.replace("__", "/") for name in leaves}
    assert back.lines == ()
    assert back.buffers == {name.replace("__", "/") for name in leaves if name.startswith("batch_stats")}


def test_what_flax_has_alone_for_two_and_what_it_has_not_is_refused() -> None:
    config = config_of(model_type="bert", architectures=["BertModel"])
    plain = {"pooler.dense.bias": np.ones(3, np.float32)}
    lost = flax.from_canonical(torch_checkpoint(config, {**plain, "own.weight": np.ones(1, np.float32)}))
    assert [(line.name, line.is_refused_by_default) for line in lost.lines] == [("own.weight", True)]
    assert lost.lines[0].reason == "the Flax model has no leaf for it"
    group = ParameterGroup(parameters=tuple(plain), hyperparameters={})
    trained = replace(
        torch_checkpoint(config, plain), optimizer=OptimizerState(algorithm="sgd", step=1, groups=(group,))
    )
    made = flax.from_canonical(trained)
    assert made.optimizer is None
    assert made.warnings == ("optimizer state not carried: Flax's models have none",)


def test_untying_is_said_and_what_is_tied_is_stored_twice_again() -> None:
    values = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    words = np.arange(6, dtype=np.float32).reshape(3, 2)
    leaves = {"model__embed_tokens__embedding": words, "lm_head__kernel": words.T}
    tied = flax.to_canonical(flax_checkpoint(config_of(**values), **leaves))
    assert tied.warnings == ()
    back = flax.from_canonical(tied)
    assert set(back.names) == {"model/embed_tokens/embedding", "lm_head/kernel"}
    np.testing.assert_array_equal(back.tensors["lm_head/kernel"].numpy(), words.T)
    untied = flax.to_canonical(flax_checkpoint(config_of(**values), **{**leaves, "lm_head__kernel": words.T + 1}))
    (said,) = untied.warnings
    assert said == (
        "config.json: tie_word_embeddings is now false: lm_head/kernel is not model/embed_tokens/embedding, and the "
        "Flax class uses both"
    )
    alone = {**values, "tie_word_embeddings": False}
    assert set(
        flax.from_canonical(torch_checkpoint(config_of(**alone), {"model.embed_tokens.weight": words})).names
    ) == {"model/embed_tokens/embedding"}


ROFORMER = {"hidden_size": 24, "num_attention_heads": 3, "max_position_embeddings": 8}
MARIAN = {"d_model": 4, "max_position_embeddings": 8}


@pytest.mark.parametrize(
    ("model_type", "named", "kind", "sizes", "name"),
    [
        ("roformer", "RoFormerModel", "rotary", ROFORMER, "encoder.embed_positions.weight"),
        ("roformer", "RoFormerForMaskedLM", "rotary", ROFORMER, "roformer.encoder.embed_positions.weight"),
        ("marian", "MarianModel", "halves", MARIAN, "encoder.embed_positions.weight"),
        ("marian", "MarianMTModel", "halves", MARIAN, "model.encoder.embed_positions.weight"),
    ],
)
def test_positions_that_flax_computes_are_dropped_where_they_are_those(
    model_type: str, named: str, kind: str, sizes: dict[str, int], name: str
) -> None:
    """Whether or not the class is one that saves them: some release may have."""
    config = config_of(model_type=model_type, architectures=[named], **sizes)
    table = sinusoids(kind, sizes, DType.FLOAT32).numpy()
    (line,) = flax.from_canonical(torch_checkpoint(config, {name: table})).lines
    assert (line.name, line.is_refused_by_default) == (name, False)
    assert line.reason == "a table of positions, which Flax computes"
    (line,) = flax.from_canonical(torch_checkpoint(config, {name: table + 1})).lines
    assert (line.reason, line.is_refused_by_default) == ("Flax computes other positions", True)
