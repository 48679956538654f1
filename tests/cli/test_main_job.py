"""The main job: a fine-tuned SQuAD BERT becomes a SavedModel that TensorFlow alone runs and trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import CkconvError, VerificationError
from converter.model.file import LocalFile, SourceFile
from tests.conftest import Ckconv, python

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Runs in a process that can import TensorFlow and not this package.
_TENSORFLOW_ALONE = """
import json, sys
import numpy as np
import tensorflow as tf

folder, inputs, outputs = sys.argv[1:]
loaded = tf.saved_model.load(folder)
fed = {name: tf.constant(array) for name, array in np.load(inputs).items()}
signature = loaded.signatures["serving_default"]
answers = {name: tensor.numpy() for name, tensor in signature(**fed).items()}
with tf.GradientTape() as tape:
    called = loaded(**fed)
    loss = tf.add_n([tf.reduce_sum(tensor**2) for tensor in called.values()])
gradients = tape.gradient(loss, loaded.trainable_variables)
for name, tensor in called.items():
    np.testing.assert_allclose(tensor.numpy(), answers[name], atol=1e-5)
np.savez(outputs, **answers)
print(json.dumps({
    "inputs": {
        name: [spec.dtype.name, spec.shape.as_list()]
        for name, spec in signature.structured_input_signature[1].items()
    },
    "variables": [variable.name for variable in loaded.variables],
    "values": {variable.name[:-2]: float(tf.reduce_sum(tf.abs(variable))) for variable in loaded.variables},
    "trained": [v.name for v, g in zip(loaded.trainable_variables, gradients) if g is not None],
    "converter": "converter" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def main_job(squad_bert: Path, tmp_path_factory: pytest.TempPathFactory, ckconv: Ckconv) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("main") / "out"
    result = ckconv(squad_bert, f"{folder}/", "--to", "savedmodel")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.fixture(scope="module")
def reference(squad_bert: Path) -> Any:
    model = transformers.BertForQuestionAnswering(
        transformers.BertConfig.from_json_file(squad_bert.parent / "config.json")
    )
    model.load_state_dict(torch.load(squad_bert, weights_only=True)["model_state_dict"])
    return model.eval()


@pytest.fixture(scope="module")
def run(main_job: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any, Any]:
    """What TensorFlow says of the output: facts, inputs with batch 3 and sequence 17, outputs."""
    folder = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(0)
    inputs = {
        "input_ids": random.integers(5, 300, (3, 17)),
        "attention_mask": (np.arange(17)[None] < np.array([[17], [9], [4]])).astype(np.int64),
        "token_type_ids": random.integers(0, 2, (3, 17)),
    }
    np.savez(folder / "inputs.npz", **inputs)
    arguments = (main_job[0], folder / "inputs.npz", folder / "outputs.npz")
    result = python(_TENSORFLOW_ALONE, *arguments, cwd=folder, environment={"TF_CPP_MIN_LOG_LEVEL": "3"})
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), inputs, dict(np.load(folder / "outputs.npz"))


def test_the_bytes_are_those_that_are_there(main_job: tuple[Path, str]) -> None:
    nbytes = sum(path.stat().st_size for path in main_job[0].rglob("*") if path.is_file())
    assert f"pytorch -> savedmodel, {nbytes / 1e6:.2f} MB" in main_job[1].splitlines()


def test_the_verdict_counts(main_job: tuple[Path, str]) -> None:
    verdict = main_job[1].splitlines()[-1]
    assert verdict.startswith(
        "ok: 39 mapped, 0 tied, 0 dropped, 0 defaulted; optimizer carried; verified outputs max|d|="
    )


def test_tensorflow_alone_reproduces_torchs_logits(run: tuple[dict[str, Any], Any, Any], reference: Any) -> None:
    facts, inputs, outputs = run
    assert facts["converter"] is False
    assert facts["inputs"] == {name: ["int64", [None, None]] for name in inputs}
    assert outputs.keys() == {"start_logits", "end_logits"}
    with torch.no_grad():
        expected = reference(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for name, found in outputs.items():
        logits = expected[name].numpy()
        assert np.abs(found - logits).max() <= 1e-5 * max(1.0, np.abs(logits).max())


def test_recorded_outputs_are_reproduced(
    squad_bert: Path, reference: Any, expected: Callable[[Path], dict[str, Any]]
) -> None:
    for case in expected(squad_bert)["reference"]:
        with torch.no_grad():
            outputs = reference(**{name: torch.tensor(values) for name, values in case["inputs"].items()})
        for name, values in case["outputs"].items():
            np.testing.assert_allclose(outputs[name].numpy(), np.array(values, np.float32), atol=2e-5)


def test_variables_carry_canonical_names_and_gradients(run: tuple[dict[str, Any], Any, Any], reference: Any) -> None:
    facts, inputs, _ = run
    state = reference.state_dict()
    assert {name.removesuffix(":0") for name in facts["variables"]} == set(state)
    for name, total in facts["values"].items():
        assert total == pytest.approx(float(state[name].abs().sum()), rel=1e-4)
    outputs = reference(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    (outputs["start_logits"].pow(2).sum() + outputs["end_logits"].pow(2).sum()).backward()
    trained = {name for name, parameter in reference.named_parameters() if parameter.grad is not None}
    assert trained
    assert {name.removesuffix(":0") for name in facts["trained"]} >= trained


def test_config_tokenizer_and_provenance_are_inside(main_job: tuple[Path, str], squad_bert: Path) -> None:
    extra = main_job[0] / "assets.extra"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert (extra / name).read_bytes() == (squad_bert.parent / name).read_bytes()
    document = json.loads((extra / "ckconv.json").read_text())
    assert document["dialect"] == "pytorch"
    assert document["provenance"]["ledger"] == {"mapped": 39, "tied": 0, "dropped": 0, "defaulted": 0}
    assert str(main_job[0].parent) not in (extra / "ckconv.json").read_text()


def test_the_savedmodel_reads_back(main_job: tuple[Path, str], squad_bert: Path, tmp_path: Path) -> None:
    report = converter.convert(main_job[0], tmp_path / "back.pth")
    assert report.counts["mapped"] == 39
    back, original = (torch.load(path, weights_only=True) for path in (tmp_path / "back.pth", squad_bert))
    for name, tensor in original["model_state_dict"].items():
        assert torch.equal(back["model_state_dict"][name], tensor), name
    check_state(back["optimizer_state_dict"]["state"], original["optimizer_state_dict"]["state"])


def check_state(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    for number, entry in theirs.items():
        assert entry.keys() == ours[number].keys()
        assert all(torch.equal(ours[number][slot], tensor) for slot, tensor in entry.items())


@pytest.mark.parametrize("target", ["safetensors", "pretrained", "pytorch"])
def test_other_targets_are_bit_equal(target: str, squad_bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    report = converter.convert(squad_bert, f"{tmp_path}/out/", to=target)
    original = torch.load(squad_bert, weights_only=True)
    if target == "pytorch":
        written = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True, mmap=True)
        found = written["model_state_dict"]
        check_state(written["optimizer_state_dict"]["state"], original["optimizer_state_dict"]["state"])
        assert written["epoch"] == original["epoch"]
    else:
        found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == original["model_state_dict"].keys()
    for name, tensor in original["model_state_dict"].items():
        assert torch.equal(found[name], tensor), name
    assert report.optimizer.status == ("dropped" if target == "safetensors" else "carried")


def test_the_pretrained_folder_loads_with_every_key(squad_bert: Path, tmp_path: Path, reference: Any) -> None:
    converter.convert(squad_bert, f"{tmp_path}/out/", to="pretrained")
    model, information = transformers.AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not information["missing_keys"]
    assert not information["unexpected_keys"]
    assert type(model).__name__ == "BertForQuestionAnswering"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, reference.state_dict()[name])
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("who wrote it?")
    assert len(tokens["input_ids"]) > 3


def test_a_perturbed_tensor_is_caught(squad_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: an output that reads back with one bit changed fails, and nothing appears."""
    path = tmp_path / "model.safetensors"
    converter.convert(squad_bert, path)
    whole = LocalFile.read_into
    state = {"reads": 0}

    def flipped(file: SourceFile, offset: int, buffer: memoryview) -> None:
        whole(file, offset, buffer)
        if file.path != path and len(buffer) == 64 * 64 * 4:
            state["reads"] += 1
            buffer[0] ^= 1

    monkeypatch.setattr(LocalFile, "read_into", flipped)
    with pytest.raises(VerificationError, match="differs from the source"):
        converter.convert(path, tmp_path / "out.safetensors")
    assert state["reads"]
    assert not (tmp_path / "out.safetensors").exists()


def test_an_output_out_of_tolerance_is_caught(squad_bert: Path, tmp_path: Path) -> None:
    """The other control: no tolerance at all, and the few ulps between torch and TensorFlow fail the run."""
    with pytest.raises(CkconvError, match="output 'start_logits' differs by") as caught:
        converter.convert(squad_bert, tmp_path / "out", to="savedmodel", atol=0.0, rtol=0.0)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_weights_only_needs_no_config(squad_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(squad_bert.read_bytes())
    report = converter.convert(tmp_path / "x.pth", tmp_path / "out", to="savedmodel", weights_only=True)
    assert str(report.verification) == "verified weights"
    assert len(converter.read(tmp_path / "out").tensors) == 39


def test_the_same_savedmodel_from_a_fresh_process(
    main_job: tuple[Path, str], squad_bert: Path, tmp_path: Path, ckconv: Ckconv
) -> None:
    result = ckconv(squad_bert, f"{tmp_path}/out/", "--to", "savedmodel", "--verify", "weights")
    assert result.returncode == 0, result.stderr
    names = sorted(file.relative_to(main_job[0]) for file in main_job[0].rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(tmp_path / "out") for file in tmp_path.rglob("*") if file.is_file())
    for name in names:
        if name.name != "fingerprint.pb":
            assert (main_job[0] / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_a_classifier_with_int32_inputs(xlm_roberta: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    result = ckconv(xlm_roberta, f"{tmp_path}/out/", "--to", "savedmodel", "--input-dtype", "int32", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["optimizer"]["status"] == "absent"
    assert answer["verification"]["outputs"]
    assert answer["verification"]["max_abs"] <= 1e-5
    described = python(
        "import sys, tensorflow as tf\n"
        "signature = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "print(sorted((n, spec.dtype.name) for n, spec in signature.structured_input_signature[1].items()))\n",
        tmp_path / "out",
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert described.stdout.strip() == "[('attention_mask', 'int32'), ('input_ids', 'int32')]"
