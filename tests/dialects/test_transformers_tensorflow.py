"""TensorFlow models of transformers to PyTorch's names, layouts and ties, from files that transformers wrote."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.dialects.tables import tensorflow_table
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.ledger import Status
from converter.model.tensor import ArrayTensor

NAMES = Path(__file__).parents[2] / "fixtures" / "names"
RNG = np.random.default_rng(7)


def tensor(*shape: int) -> ArrayTensor:
    return ArrayTensor.of(RNG.standard_normal(shape).astype(np.float32))


def config(model_type: str, *architectures: str, **more: Any) -> Config:
    values = {"model_type": model_type, "architectures": list(architectures), **more}
    return Config(values=values, raw=json.dumps(values).encode())


def checkpoint(shapes: dict[str, tuple[int, ...]], given: Config | None = None) -> Checkpoint:
    return Checkpoint(tensors={name: tensor(*shape) for name, shape in shapes.items()}, dialect="keras", config=given)


@pytest.mark.parametrize("case", ["gpt2_lm_h5", "resnet_imgcls_h5", "bert_func_savedmodel"])
def test_a_file_becomes_what_save_pretrained_writes(case: str, tmp_path: Path) -> None:
    source = NAMES / case / ("saved_model" if case.endswith("savedmodel") else "tf_model.h5")
    converter.convert(source, tmp_path / "out", to="pretrained", config=NAMES / case / "config.json")
    expected = converter.read(NAMES / case / "expected.safetensors").tensors
    found = converter.read(tmp_path / "out" / "model.safetensors").tensors
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name].dtype, found[name].shape) == (expected[name].dtype, expected[name].shape)
        assert found[name].numpy().tobytes() == expected[name].numpy().tobytes(), name


def test_layers_around_the_model_are_stored_apart(tmp_path: Path) -> None:
    case = NAMES / "bert_func_savedmodel"
    report = converter.convert(case / "saved_model", tmp_path / "out", to="pretrained")
    kernels = np.load(case / "expected_heads.npz").items()
    expected = {
        name.removesuffix(":0").replace("|", ".").replace(".kernel", ".weight"): array.T for name, array in kernels
    }
    heads = converter.read(tmp_path / "out" / "heads.safetensors").tensors
    assert heads.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(heads[name].numpy(), array)
    mapped = {line.target for line in report.lines}
    assert {f"heads.{name}" for name in expected} <= mapped
    again = converter.read(tmp_path / "out")
    assert {f"heads.{name}" for name in expected} <= again.tensors.keys()


def test_statistics_of_a_normalisation_around_the_model_are_stored_apart_too(tmp_path: Path) -> None:
    leaves = ("gamma", "beta", "moving_mean", "moving_variance")
    around = checkpoint(
        {**BERT, **{f"bn/{leaf}:0": (4,) for leaf in leaves}}, config("bert", "BertForTokenClassification")
    )
    converter.write(around, tmp_path / "out", to="pretrained", allow_missing=("*",), allow_dropped=("*",))
    heads = converter.read(tmp_path / "out" / "heads.safetensors").tensors
    statistics = {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert heads.keys() == {"bn.weight", "bn.bias"} | statistics
    np.testing.assert_array_equal(heads["bn.running_var"].numpy(), around.tensors["bn/moving_variance:0"].numpy())


def test_a_model_type_without_a_table_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    shutil.copy(NAMES / "gpt2_lm_h5" / "tf_model.h5", tmp_path / "tf_model.h5")
    values = json.loads((NAMES / "gpt2_lm_h5" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert converter.convert(tmp_path / "tf_model.h5", tmp_path / "known", to="pretrained").counts["dropped"] == 0
    (tmp_path / "config.json").write_text(json.dumps({**values, "model_type": "nobody"}))
    with pytest.raises(LossError, match="c_attn/weight") as caught:
        converter.convert(tmp_path / "tf_model.h5", tmp_path / "unknown", to="pretrained")
    assert caught.value.exit_code == 3
    (tmp_path / "config.json").unlink()
    assert converter.convert(tmp_path / "tf_model.h5", tmp_path / "generic.safetensors").counts["dropped"] == 0


@pytest.mark.parametrize(
    ("others", "called"),
    [
        (
            ["model.shared/model.shared/embeddings:0", "final_logits_bias:0"],
            ["model.shared.weight", "final_logits_bias"],
        ),
        (["tf_new_model_1/model.shared/embeddings:0"], ["model.shared.weight"]),
        (["intent/kernel:0", "intent/bias:0"], ["heads.intent.weight", "heads.intent.bias"]),
    ],
)
def test_a_model_type_without_a_table_is_refused_whatever_is_beside_its_layers(
    others: list[str], called: list[str]
) -> None:
    names = ["tf_new_model/model/encoder/layers.0/fc1/kernel:0", "tf_new_model/model/encoder/layers.0/fc1/bias:0"]
    known = dict.fromkeys([*names, *others], (4, 4))
    found = canonical(checkpoint(known, config("new", "NewModel")))
    assert list(found.tensors) == ["model.encoder.layers.0.fc1.weight", "model.encoder.layers.0.fc1.bias", *called]
    assert [line.status for line in found.lines if line.is_refused_by_default] == [Status.DROPPED]


BERT = {
    "tf_bert_for_token_classification/bert/embeddings/word_embeddings/weight:0": (7, 4),
    "tf_bert_for_token_classification/bert/embeddings/LayerNorm/gamma:0": (4,),
    "tf_bert_for_token_classification/bert/encoder/layer_._11/output/dense/kernel:0": (6, 4),
    "tf_bert_for_token_classification/classifier/kernel:0": (4, 3),
    "tf_bert_for_token_classification/classifier/bias:0": (3,),
}


def test_a_variable_that_no_row_has_is_refused() -> None:
    given = config("bert", "BertForTokenClassification")
    assert "bert.encoder.layer.11.output.dense.weight" in canonical(checkpoint(BERT, given)).tensors
    strange = {**BERT, "tf_bert_for_token_classification/bert/encoder/strange/kernel:0": (4, 4)}
    with pytest.raises(LossError, match="strange"):
        canonical(checkpoint(strange, given))


def test_names_of_old_releases_and_of_shards() -> None:
    given = config("bert", "BertForTokenClassification")
    old = {name.replace("LayerNorm", "layer_normalization_3"): shape for name, shape in BERT.items()}
    shard = {name.partition("/")[2].removesuffix(":0"): shape for name, shape in BERT.items()}
    second = {name.replace("classification/", "classification_1/"): shape for name, shape in BERT.items()}
    wanted = canonical(checkpoint(BERT, given)).tensors.keys()
    assert canonical(checkpoint(old, given)).tensors.keys() == wanted
    assert canonical(checkpoint(shard, given)).tensors.keys() == wanted
    assert canonical(replace(checkpoint(second, given), dialect="tensorflow")).tensors.keys() == wanted


def test_names_say_the_model_type_where_no_config_does() -> None:
    """As `model.save_weights` leaves them: they are PyTorch's afterwards, and no config is made up."""
    names = {**BERT, "head/kernel:0": (4, 2)}
    with_config = canonical(checkpoint(names, config("bert", "BertForTokenClassification")))
    without = canonical(checkpoint(names))
    assert list(without.tensors) == list(with_config.tensors)
    assert {name: each.shape for name, each in without.tensors.items()}["heads.head.weight"] == (2, 4)
    assert without.tensors["classifier.weight"].shape == (3, 4)
    assert (without.config, without.dialect) == (None, "pytorch")
    assert any("transformers for bert, as the names tell" in said for said in without.warnings)
    two = {**BERT, **{name.replace("tf_bert", "tfxlm_roberta"): shape for name, shape in BERT.items()}}
    assert "classifier.weight" not in canonical(checkpoint(two)).tensors, "of two types none is told"
    called = {name.replace("tf_bert_for_token_classification", "mine"): shape for name, shape in BERT.items()}
    assert "classifier.weight" not in canonical(checkpoint(called)).tensors, "bert is called so by anybody"


def test_a_whole_model_is_told_by_its_main_layer_whatever_its_user_called_it() -> None:
    """As `name="encoder"` leaves it, and `model.bert(ids)` in a functional model, whose layer is the main layer."""
    table = tensorflow_table("bert")
    base = table.classes["BertModel"]
    needed = [row.theirs.text.format(n=0) for row in table.rows.all if base.needs(row.canonical.text)]
    assert any("word_embeddings" in leaf for leaf in needed)
    names = {leaf: (4,) if leaf.endswith(("bias", "gamma", "beta")) else (4, 4) for leaf in needed}
    with_config = canonical(
        checkpoint({f"tf_bert_model/{leaf}:0": shape for leaf, shape in names.items()}, config("bert"))
    )
    for start in ("encoder/", "a/b/", ""):
        called = {f"{start}{leaf}:0": shape for leaf, shape in names.items()}
        found = canonical(checkpoint({**called, "head/kernel:0": (4, 2)}))
        assert found.tensors.keys() == {*with_config.tensors, "heads.head.weight"}
        assert any("transformers for bert, as the names tell" in said for said in found.warnings)
        for more in ({"other/bert/pooler/dense/kernel:0": (4, 4)}, {f"{start}bert/strange/kernel:0": (4, 4)}):
            assert "heads.head.weight" not in canonical(checkpoint({**called, "head/kernel:0": (4, 2), **more})).tensors


def test_architectures_are_corrected_by_what_is_there() -> None:
    found = canonical(checkpoint(BERT, config("bert", "BertForMaskedLM")))
    assert found.config is not None
    assert found.config.values["architectures"] == ["BertForTokenClassification"]
    base = {name: shape for name, shape in BERT.items() if "classifier" not in name}
    found = canonical(checkpoint(base, config("bert", "BertForMaskedLM")))
    assert found.config is not None
    assert found.config.values["architectures"] == ["BertModel"]
    assert "embeddings.word_embeddings.weight" in found.tensors


def test_what_every_model_of_a_class_has_and_a_file_lacks_is_said() -> None:
    case = NAMES / "gpt2_lm_h5"
    source = converter.read(case / "tf_model.h5", config=case / "config.json")
    assert not [said for said in canonical(source).warnings if "has more" in said]
    fewer = {name: each for name, each in source.tensors.items() if "/mlp/c_fc/" not in name}
    found = canonical(replace(source, tensors=fewer))
    (said,) = [said for said in found.warnings if "has more" in said]
    assert "transformer.h.{n}.mlp.c_fc.weight, transformer.h.{n}.mlp.c_fc.bias: transformers fills" in said


def test_without_a_config_that_says_it_the_name_that_keras_chose_says_the_class() -> None:
    """MPNet's classes have a pooler in TensorFlow, also those that have none in PyTorch."""
    for name, start in (
        ("MPNetForTokenClassification", "tfmp_net_for_token_classification"),
        ("MPNetForMultipleChoice", "tfmp_net_for_multiple_choice"),
    ):
        leaves = {"mpnet/pooler/dense/kernel": (4, 4), "mpnet/pooler/dense/bias": (4,), "classifier/bias": (1,)}
        names = {f"{start}/{leaf}:0": shape for leaf, shape in {**leaves, "classifier/kernel": (4, 1)}.items()}
        found = canonical(checkpoint(names, config("mpnet")))
        assert found.config is not None
        assert found.config.values["architectures"] == [name]


def test_gpt2_has_its_weights_untransposed_and_biases_of_two_axes() -> None:
    names = {
        "tfgpt2_model/transformer/h_._0/attn/c_attn/weight:0": (4, 12),
        "tfgpt2_model/transformer/h_._0/attn/c_attn/bias:0": (1, 12),
    }
    source = checkpoint(names, config("gpt2", "GPT2Model"))
    found = canonical(source).tensors
    np.testing.assert_array_equal(found["h.0.attn.c_attn.weight"].numpy(), source.tensors[next(iter(names))].numpy())
    assert found["h.0.attn.c_attn.bias"].shape == (12,)


def test_the_bias_that_tensorflows_albert_uses_is_the_one_that_pytorch_gets() -> None:
    start = "tf_albert_for_masked_lm"
    names = {
        f"{start}/albert/embeddings/word_embeddings/weight:0": (7, 4),
        f"{start}/predictions/bias:0": (7,),
        f"{start}/predictions/decoder/bias:0": (7,),
        f"{start}/predictions/dense/kernel:0": (4, 4),
        f"{start}/predictions/LayerNorm/gamma:0": (4,),
        f"{start}/predictions/LayerNorm/beta:0": (4,),
        f"{start}/predictions/dense/bias:0": (4,),
    }
    source = checkpoint(names, config("albert", "AlbertForMaskedLM"))
    found = canonical(source)
    used = source.tensors[f"{start}/predictions/decoder/bias:0"].numpy()
    np.testing.assert_array_equal(found.tensors["predictions.bias"].numpy(), used)
    assert [line.name for line in found.lines] == [f"{start}/predictions/bias:0"]


def test_ties_that_do_not_hold_are_kept_and_said() -> None:
    names = {
        "tfxglm_for_causal_lm/model/embed_tokens/weight:0": (7, 4),
        "tfxglm_for_causal_lm/lm_head/kernel:0": (4, 7),
    }
    source = checkpoint(names, config("xglm", "XGLMForCausalLM"))
    found = canonical(source)
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= found.tensors.keys()
    assert found.config is not None
    assert found.config.values["tie_word_embeddings"] is False
    embeddings = source.tensors["tfxglm_for_causal_lm/model/embed_tokens/weight:0"]
    same = {**source.tensors, "tfxglm_for_causal_lm/lm_head/kernel:0": embeddings.transpose((1, 0))}
    tied = canonical(replace(source, tensors=same))
    assert tied.aliases == {"lm_head.weight": "model.embed_tokens.weight"}
    assert tied.config is source.config


@pytest.mark.parametrize(
    ("model_type", "architecture", "theirs", "shape", "ours", "expected"),
    [
        ("clip", "CLIPModel", "tfclip_model/clip/logit_scale:0", (1,), "logit_scale", ()),
        (
            "wav2vec2",
            "Wav2Vec2Model",
            "tf_wav2_vec2_model/wav2vec2/encoder/pos_conv_embed/conv/weight_g:0",
            (8, 1, 1),
            "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
            (1, 1, 8),
        ),
        (
            "convbert",
            "ConvBertModel",
            "tf_conv_bert_model/convbert/encoder/layer_._0/attention/self/key_conv_attn_layer/bias:0",
            (8,),
            "encoder.layer.0.attention.self.key_conv_attn_layer.bias",
            (8, 1),
        ),
        (
            "deberta-v2",
            "DebertaV2Model",
            "tf_deberta_v2_model/deberta/encoder/layer_._3/attention/self/pos_q_proj/kernel:0",
            (4, 6),
            "encoder.layer.3.attention.self.pos_query_proj.weight",
            (6, 4),
        ),
        ("ctrl", "CTRLLMHeadModel", "tfctrllm_head_model/lm_head/bias:0", (1, 9), "lm_head.bias", (9,)),
        ("bart", "BartForConditionalGeneration", "final_logits_bias:0", (1, 9), "final_logits_bias", (1, 9)),
        ("t5", "T5Model", "shared/shared/embeddings:0", (9, 4), "shared.weight", (9, 4)),
    ],
)
def test_awkward_layouts(
    model_type: str, architecture: str, theirs: str, shape: tuple[int, ...], ours: str, expected: tuple[int, ...]
) -> None:
    found = canonical(checkpoint({theirs: shape}, config(model_type, architecture)))
    assert found.tensors[ours].shape == expected
