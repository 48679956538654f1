"""Models of transformers in `.keras` and `.weights.h5` files, against what PyTorch's class saves (see the fixtures)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects.transformers import attributes
from converter.model.checkpoint import Checkpoint

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-transformers"
ALONE = {
    "roberta-classifier": "RobertaForSequenceClassification",
    "t5": "T5ForConditionalGeneration",
    "vit": "ViTModel",
}
LAYER = "tf_bert_model/layers/tf_bert_main_layer/encoder/layer"


def in_pytorch(theirs: Checkpoint) -> dict[str, np.ndarray]:
    """Return the tensors of a fixture, whose heads, all of them Dense, are as Keras has them."""
    found = {}
    for name in theirs.names:
        array = theirs.tensor(name).numpy()
        is_kernel = name.startswith("heads.") and name.endswith("/kernel")
        found[name.replace("/kernel", ".weight").replace("/bias", ".bias")] = array.T if is_kernel else array
    return found


def assert_same(ours: Checkpoint, theirs: Checkpoint) -> None:
    expected = in_pytorch(theirs)
    assert set(ours.names) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(ours.tensor(name).numpy(), array, err_msg=name)


@pytest.mark.parametrize("name", ALONE)
def test_weights_of_a_model_on_its_own(name: str, tmp_path: Path) -> None:
    config = json.loads((FIXTURES / f"{name}.json").read_text())
    config["architectures"] = [ALONE[name]]
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = FIXTURES / f"{name}.weights.h5"
    converter.convert(source, tmp_path / "out", to="pretrained", config=tmp_path / "config.json")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [ALONE[name]]
    assert_same(converter.read(tmp_path / "out"), converter.read(FIXTURES / f"{name}.safetensors"))


def test_an_archive_holds_encoder_heads_and_config(tmp_path: Path) -> None:
    converter.convert(FIXTURES / "bert-intent.keras", tmp_path / "out.safetensors")
    assert_same(converter.read(tmp_path / "out.safetensors"), converter.read(FIXTURES / "bert-intent.safetensors"))


def test_an_archive_gives_a_folder_with_the_encoder_alone(tmp_path: Path) -> None:
    converter.convert(FIXTURES / "bert-intent.keras", tmp_path / "out", to="pretrained")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("bert", ["BertModel"])
    expected = converter.read(FIXTURES / "bert-intent.safetensors")
    encoder = converter.read(tmp_path / "out" / "model.safetensors")
    assert set(encoder.names) == {name for name in expected.names if not name.startswith("heads.")}


def test_weights_without_the_models_config_have_the_same_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    source = FIXTURES / "bert-intent.weights.h5"
    converter.convert(source, tmp_path / "out.safetensors", config=tmp_path / "config.json")
    ours, theirs = (
        converter.read(path) for path in (tmp_path / "out.safetensors", FIXTURES / "bert-intent.safetensors")
    )
    heads = {"intent": "dense", "slots": "dense_1"}  # what the class of a layer is called, without its own name
    for name, array in in_pytorch(theirs).items():
        own = name
        for title, layer in heads.items():
            own = own.replace(f"heads.{title}.", f"heads.{layer}.")
        np.testing.assert_array_equal(ours.tensor(own).numpy(), array)


def test_the_first_item_of_a_list_has_no_number() -> None:
    places = [f"{LAYER}/tf_bert_layer{end}/intermediate/dense/vars/0" for end in ("", "_1", "_11")]
    names = attributes.names_from_places(places)
    assert [names[place] for place in places] == [
        f"tf_bert_model/bert/encoder/layer_._{number}/intermediate/dense/kernel" for number in (0, 1, 11)
    ]


@pytest.mark.parametrize("around", ["", "layers/siamese/encoder", "layers/outer/layers/inner"])
def test_whatever_is_around_a_model_is_no_part_of_it(around: str) -> None:
    rest = "layers/tf_bert_main_layer/encoder/layer/tf_bert_layer/attention/self_attention/key/vars/1"
    place = f"{around}/{rest}".lstrip("/")
    (name,) = attributes.names_from_places([place]).values()
    assert name.endswith("/bert/encoder/layer_._0/attention/self/key/bias")


def test_two_models_keep_apart() -> None:
    rest = "layers/tf_bert_main_layer/pooler/dense/vars/0"
    places = [f"layers/{model}/{rest}" for model in ("tf_bert_model", "tf_bert_model_1")]
    assert attributes.names_from_places(places) == {
        place: f"{place.split('/')[1]}/bert/pooler/dense/kernel" for place in places
    }


def test_a_place_of_a_model_that_no_row_has_stays_with_the_model() -> None:
    known = f"layers/{LAYER}/tf_bert_layer/intermediate/dense/vars/0"
    unknown = f"layers/{LAYER}/tf_bert_layer/adapter/vars/0"
    names = attributes.names_from_places([known, unknown])
    assert names[known] == "tf_bert_model/bert/encoder/layer_._0/intermediate/dense/kernel"
    assert names[unknown] == "tf_bert_model/" + unknown.removeprefix("layers/tf_bert_model/")


@pytest.mark.parametrize(
    ("settings", "count", "names"),
    [
        (None, 3, ["word", "token_type", "position"]),
        (None, 2, ["word", "position"]),
        (None, 1, ["word"]),
        ({"type_vocab_size": 0, "position_biased_input": True}, 2, ["word", "position"]),
        ({"type_vocab_size": 2, "position_biased_input": False}, 2, ["word", "token_type"]),
    ],
)
def test_variables_that_a_setting_leaves_out_count_no_number(
    settings: dict[str, object] | None, count: int, names: list[str]
) -> None:
    places = [f"layers/tf_deberta_main_layer/embeddings/vars/{number}" for number in range(count)]
    found = attributes.names_from_places(places, config=settings)
    assert [found[place].split("/")[-2].removesuffix("_embeddings") for place in places] == names
    back = {name: attributes.place_of("TFDebertaModel", name.partition("/")[2]) or "" for name in found.values()}
    assert list(attributes.without_gaps(back).values()) == places


def test_variables_outside_all_scopes_are_called_by_their_own_name() -> None:
    start = "layers/tf_bart_for_conditional_generation"
    places = [f"{start}/layers/bias_layer/vars/0", f"{start}/model/encoder/layers/tf_bart_encoder_layer/fc1/vars/0"]
    names = attributes.names_from_places(places)
    assert names[places[0]] == "final_logits_bias"


def test_layers_of_other_models_have_no_names_here() -> None:
    head = "layers/dense/vars/0"
    inside = f"layers/{LAYER}/tf_bert_layer/intermediate/dense/vars/0"
    assert attributes.names_from_places([head, inside]).keys() == {inside}
    assert attributes.names_from_places([head, "layers/functional/layers/dense/vars/0"]) == {}


def test_a_dense_beside_a_main_layer_is_of_a_class_only_where_the_root_may_be_one() -> None:
    """A functional model around `model.bert(ids)` has it where TFBertForSequenceClassification has its classifier."""
    head = ["layers/dense/vars/0", "layers/dense/vars/1"]
    inside = "layers/tf_bert_main_layer/encoder/layer/tf_bert_layer/intermediate/dense/vars/0"
    pooler = "layers/tf_bert_main_layer/pooler/dense/vars/0"
    of_class = attributes.names_from_places([*head, inside, pooler])
    assert of_class.keys() == {*head, inside, pooler}
    around = attributes.names_from_places([*head, inside, pooler], is_around=True)
    assert around == {
        inside: "tf_bert_model/bert/encoder/layer_._0/intermediate/dense/kernel",
        pooler: "tf_bert_model/bert/pooler/dense/kernel",
    }


@pytest.mark.parametrize(
    ("layer", "attribute"), [("tf_roberta_main_layer", "roberta"), ("tf_camembert_main_layer", "roberta")]
)
def test_a_main_layer_alone_has_the_names_that_its_model_gives_it(layer: str, attribute: str) -> None:
    """`model.roberta(ids)` in a functional model: the archive has the layer by its class, the model by an attribute."""
    kind = layer.removesuffix("_main_layer")
    ends = ("embeddings/vars/0", f"encoder/layer/{kind}_layer_1/intermediate/dense/vars/0", "pooler/dense/vars/1")
    own = attributes.names_from_places([f"{attribute}/{end}" for end in ends])
    head = "layers/dense/vars/0"
    for start in ("layers", "_layer_checkpoint_dependencies"):
        places = {f"{start}/{layer}/{end}": f"{attribute}/{end}" for end in ends}
        found = attributes.names_from_places([head, *places], is_around=True)
        assert found == {place: own[there] for place, there in places.items()}
    both = [f"layers/{layer}{number}/{end}" for number in ("", "_1") for end in ends]
    found = attributes.names_from_places([head, *both], is_around=True)
    assert [found[place] for place in both[: len(ends)]] == [*own.values()]
    assert len({*found.values()}) == len(found)


def test_every_row_gives_a_name_and_classes_agree_with_themselves() -> None:
    assert len(attributes.layouts()) > 200
    for layout in attributes.layouts():
        assert layout.rows
        for rows in layout.rows.values():
            assert len({row.place.pattern for row in rows}) == len(rows), layout.class_name


def test_every_place_of_the_table_is_found_again_by_its_name() -> None:
    """Both ways, for the first of a list, which has no number in a place, and for a later one."""
    checked = 0
    for layout in attributes.layouts():
        for rows in layout.rows.values():
            for row in rows:
                for number in ("", "_3"):
                    place = re.sub(r"_\{[a-z]+\}", number, row.text)
                    name = layout.name_at(place)
                    assert name is not None
                    found = attributes.place_of(layout.class_name, name)
                    assert found is not None, (layout.class_name, place, name)
                    assert layout.name_at(found) == name
                    checked += found == place
    assert checked > 10_000
