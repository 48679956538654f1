"""save_pretrained folders, read and written without transformers; transformers is the judge."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, LossError, ReadError
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor

transformers = pytest.importorskip("transformers")


def tiny(**changes: Any) -> Any:
    return transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32, **changes
    )


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertForMaskedLM as transformers saves it: two ties, stored once."""
    folder = tmp_path_factory.mktemp("masked")
    transformers.BertForMaskedLM(tiny()).save_pretrained(folder)
    return folder


def loaded(model: Any, folder: Path) -> Any:
    """Load a folder in transformers and hold it to having every key and no other."""
    loaded_model, information = model.from_pretrained(folder, output_loading_info=True)
    assert not any(information[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded_model


def test_a_folder_becomes_the_same_folder(masked: Path, tmp_path: Path) -> None:
    report = converter.convert(masked, tmp_path / "out", to="pretrained")
    assert report.counts["dropped"] == 0
    for name in ("config.json", "generation_config.json"):
        if (masked / name).exists():
            assert (tmp_path / "out" / name).read_bytes() == (masked / name).read_bytes()
    ours, theirs = (
        loaded(transformers.AutoModelForMaskedLM, tmp_path / "out"),
        loaded(transformers.AutoModelForMaskedLM, masked),
    )
    for (name, left), (_, right) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert bool((left == right).all()), name


def test_ties_of_any_model_type_are_stored_once(tmp_path: Path) -> None:
    """Where the config asks for them, and only while both names have the same values."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.Qwen2Config(vocab_size=32, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    model = transformers.Qwen2ForCausalLM(config)
    tensors = {name: ArrayTensor.of(value.detach().numpy()) for name, value in model.state_dict().items()}
    values = json.loads(config.to_json_string())
    given = Config(values=values, raw=json.dumps(values).encode())
    converter.write(Checkpoint(tensors=tensors, config=given), tmp_path / "once", to="pretrained")
    assert "lm_head.weight" not in converter.read(tmp_path / "once").names
    loaded(transformers.AutoModelForCausalLM, tmp_path / "once")
    tensors["lm_head.weight"] = ArrayTensor.of(tensors["lm_head.weight"].numpy() + np.float32(1))
    converter.write(Checkpoint(tensors=tensors, config=given), tmp_path / "twice", to="pretrained")
    assert "lm_head.weight" in converter.read(tmp_path / "twice").names


@pytest.mark.parametrize(
    ("tower", "flavor"), [("CLIPText", "safetensors"), ("CLIPText", "tf"), ("SiglipText", "safetensors")]
)
def test_a_tower_keeps_the_names_of_its_release(tower: str, flavor: str, tmp_path: Path) -> None:
    """Releases before 5 have ``text_model.`` before all of them, and transformers 5 reads either."""
    config = getattr(transformers, f"{tower}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=32
    )
    class_ = getattr(transformers, f"{tower}Model")
    model = class_(config)
    model.config.architectures = [class_.__name__]
    values = json.loads(model.config.to_json_string())
    given = Config(values=values, raw=json.dumps(values).encode())
    tensors = {f"text_model.{key}": ArrayTensor.of(each.detach().numpy()) for key, each in model.state_dict().items()}
    report = converter.write(
        Checkpoint(tensors=tensors, config=given), tmp_path / "out", to="pretrained", flavor=flavor
    )
    assert report.counts["dropped"] == 0
    if flavor == "safetensors":
        assert set(converter.read(tmp_path / "out").names) == set(tensors)
        loaded(class_, tmp_path / "out")


def test_ties_are_stored_once_under_the_name_transformers_keeps(tmp_path: Path) -> None:
    model = transformers.BertForMaskedLM(tiny())
    tensors = {name: ArrayTensor.of(value.detach().numpy()) for name, value in model.state_dict().items()}
    config = model.config.to_json_string().encode()
    (tmp_path / "config.json").write_bytes(config)
    converter.write(Checkpoint(tensors=tensors), tmp_path / "copies.safetensors")
    report = converter.convert(tmp_path / "copies.safetensors", f"{tmp_path}/out", to="pretrained")
    assert report.counts["tied"] == 2
    written = converter.read(tmp_path / "out").names
    assert "bert.embeddings.word_embeddings.weight" in written
    assert "cls.predictions.decoder.weight" not in written
    loaded(transformers.BertForMaskedLM, tmp_path / "out")


def test_untied_values_are_both_kept(tmp_path: Path) -> None:
    model = transformers.BertForMaskedLM(tiny())
    tensors = {name: ArrayTensor.of(value.detach().numpy()) for name, value in model.state_dict().items()}
    decoder = "cls.predictions.decoder.weight"
    tensors[decoder] = ArrayTensor.of(tensors[decoder].numpy() + np.float32(1))
    (tmp_path / "config.json").write_bytes(model.config.to_json_string().encode())
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.safetensors")
    report = converter.convert(tmp_path / "x.safetensors", f"{tmp_path}/out", to="pretrained")
    assert decoder in converter.read(tmp_path / "out").names
    assert report.counts == {"mapped": len(tensors) - 1, "tied": 1, "dropped": 0, "defaulted": 0}


def test_wrong_architectures_are_corrected_and_said(masked: Path, tmp_path: Path) -> None:
    config = json.loads((masked / "config.json").read_text())
    config["architectures"] = ["BertForQuestionAnswering"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = converter.convert(masked, f"{tmp_path}/out", to="pretrained", config=tmp_path / "config.json")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == {**config, "architectures": ["BertForMaskedLM"]}
    assert any("BertForMaskedLM" in warning for warning in report.warnings)


def test_a_cast_changes_weights_and_the_dtype_of_the_config(masked: Path, tmp_path: Path) -> None:
    converter.convert(masked, f"{tmp_path}/out", to="pretrained", dtype="bf16")
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (masked, tmp_path / "out"))
    assert {**before, "dtype": "bfloat16"} == after
    assert {tensor.dtype.value for tensor in converter.read(tmp_path / "out").tensors.values()} == {"bfloat16"}
    loaded(transformers.AutoModelForMaskedLM, tmp_path / "out")


def test_shards(masked: Path, tmp_path: Path) -> None:
    converter.convert(masked, f"{tmp_path}/out", to="pretrained", max_shard_size="5KB")
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    loaded(transformers.AutoModelForMaskedLM, tmp_path / "out")
    again = converter.convert(tmp_path / "out", f"{tmp_path}/again", to="pretrained")
    assert again.counts["dropped"] == 0
    assert (tmp_path / "again" / "model.safetensors").stat().st_size > 0


def test_without_a_config_it_says_what_would_help(masked: Path, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((masked / "model.safetensors").read_bytes())
    with pytest.raises(ArchitectureError, match=r"config\.json.*--config"):
        converter.convert(tmp_path / "x.safetensors", f"{tmp_path}/out", to="pretrained")
    assert not (tmp_path / "out").exists()


def test_a_config_that_says_no_model_type_is_refused(tmp_path: Path) -> None:
    config = Config(values={"labels": 7}, raw=b'{"labels": 7}')
    checkpoint = Checkpoint(tensors={"a.weight": ArrayTensor.of(np.ones((2, 2), np.float32))}, config=config)
    with pytest.raises(ArchitectureError, match=r"config\.json has no model_type") as caught:
        converter.write(checkpoint, tmp_path / "out", to="pretrained")
    assert "--config-value model_type=bert" in str(caught.value.hint)
    remote = Config(values={"auto_map": {}}, raw=b'{"auto_map": {}}')  # AutoConfig asks the code that it names
    converter.write(replace(checkpoint, config=remote), tmp_path / "out", to="pretrained")


@pytest.mark.parametrize("flavor", ["safetensors", "tf", "flax"])
def test_two_encoders_of_a_keras_model_are_no_folder(flavor: str, tmp_path: Path) -> None:
    inside = {"model_type": "bert", "transformers_version": "4.57.6"}
    layers = [{"class_name": "TFBertModel", "config": {"name": name, **inside}} for name in ("query", "document")]
    around = {"class_name": "Functional", "config": {"layers": layers}}
    checkpoint = Checkpoint(
        tensors={"pooler.dense.weight": ArrayTensor.of(np.ones((2, 2), np.float32))},
        config=Config(values={"model_type": "bert"}, raw=b'{"model_type": "bert"}'),
        keras_config=Config(values=around, raw=json.dumps(around).encode()),
    )
    with pytest.raises(ArchitectureError, match=r"has 2 models of transformers as layers \(query, document\)"):
        converter.write(checkpoint, tmp_path / "out", to="pretrained", flavor=flavor)


def test_two_models_in_one_folder_are_refused(masked: Path, tmp_path: Path) -> None:
    converter.convert(masked, f"{tmp_path}/out", to="pretrained", max_shard_size="5KB")
    converter.read(tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").write_bytes((masked / "model.safetensors").read_bytes())
    with pytest.raises(ReadError, match="another model"):
        converter.read(tmp_path / "out")


def test_training_state_goes_along_and_comes_back(squad_bert: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    assert converter.convert(squad_bert, f"{tmp_path}/out", to="pretrained").optimizer.status == "carried"
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state == {"epoch": 3.0, "global_step": 180, "train_batch_size": 8}
    original = torch.load(squad_bert, weights_only=True)["optimizer_state_dict"]
    written = torch.load(tmp_path / "out" / "optimizer.pt", weights_only=True)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out")
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    numbers = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    for group, is_decayed in zip(written["param_groups"], (True, False), strict=True):
        assert group["param_names"] == [name for name in numbers if (name in decayed) == is_decayed]
        for number, name in zip(group["params"], group["param_names"], strict=True):
            for slot, tensor in original["state"][numbers[name]].items():
                assert torch.equal(written["state"][number][slot], tensor)
    back = converter.convert(tmp_path / "out", tmp_path / "back.pth")
    assert (back.optimizer.status, back.optimizer.step, back.optimizer.basis) == ("carried", 180, "named")


def test_numbered_state_without_an_architecture_is_refused(squad_bert: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    converter.convert(squad_bert, f"{tmp_path}/out", to="pretrained")
    state = torch.load(tmp_path / "out" / "optimizer.pt", weights_only=True)
    for group in state["param_groups"]:
        del group["param_names"]
    torch.save(state, tmp_path / "out" / "optimizer.pt")
    assert converter.convert(tmp_path / "out", tmp_path / "y.pth").optimizer.status == "carried"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    unknown = {**config, "model_type": "unheard-of", "architectures": ["UnheardOfModel"]}
    (tmp_path / "out" / "config.json").write_text(json.dumps(unknown))
    with pytest.raises(LossError, match="--optimizer drop"):
        converter.convert(tmp_path / "out", tmp_path / "x.pth")
    report = converter.convert(tmp_path / "out", tmp_path / "x.pth", optimizer="drop")
    assert report.optimizer.status == "dropped"


@pytest.mark.parametrize("size", ["0", "5KB"])
def test_bin_files_are_written_and_read_as_transformers_does(masked: Path, tmp_path: Path, size: str) -> None:
    torch = pytest.importorskip("torch")
    converter.convert(masked, f"{tmp_path}/out", to="pretrained", flavor="bin", max_shard_size=size)
    files = sorted((tmp_path / "out").glob("pytorch_model*.bin"))
    assert (len(files) == 1) == (size == "0")
    ours = {name: tensor for file in files for name, tensor in torch.load(file, weights_only=True, mmap=True).items()}
    theirs = transformers.BertForMaskedLM.from_pretrained(masked).state_dict()
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    back = converter.convert(tmp_path / "out", f"{tmp_path}/back", to="pretrained")
    assert back.counts["dropped"] == 0
    loaded(transformers.AutoModelForMaskedLM, tmp_path / "back")


def test_of_several_flavours_the_first_is_read_and_said(masked: Path, tmp_path: Path) -> None:
    converter.convert(masked, f"{tmp_path}/out", to="pretrained")
    converter.convert(masked, f"{tmp_path}/bin", to="pretrained", flavor="bin", dtype="fp16")
    (tmp_path / "out" / "pytorch_model.bin").write_bytes((tmp_path / "bin" / "pytorch_model.bin").read_bytes())
    first = converter.read(tmp_path / "out")
    assert first.warnings == ("model.safetensors is read, not pytorch_model.bin; --from chooses",)
    assert {tensor.dtype.value for tensor in first.tensors.values()} == {"float32"}
    chosen = converter.read(tmp_path / "out", from_format="pytorch")
    assert {tensor.dtype.value for tensor in chosen.tensors.values()} == {"float16"}


def test_files_of_every_tokenizer_go_along(masked: Path, tmp_path: Path) -> None:
    """Those of all slow tokenizers of transformers but TransfoXL's, a pickle."""
    names = {"vocab.txt", "vocab.json", "merges.txt", "spiece.model", "source.spm", "target_vocab.json"}
    names |= {"normalizer.json", "bpe.codes", "preprocessor_config.json"}
    source = tmp_path / "source"
    shutil.copytree(masked, source)
    for name in names:
        (source / name).write_bytes(name.encode())
    (source / "stranger.txt").write_bytes(b"stays")
    converter.convert(source, tmp_path / "out", to="pretrained", flavor="tf")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == {name: name.encode() for name in names}
    assert not (tmp_path / "out" / "stranger.txt").exists()
