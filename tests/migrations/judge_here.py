"""Targets as torch, transformers 5, onnxruntime, TensorFlow and Keras 3 load them: tasks on standard input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.migrations.judging import Arrays, Case, Judge, WrongError, answer, outputs_with_heads
from tests.migrations.texts import BERT, TEXTS, XLM_ROBERTA


def transformers_config(case: Case) -> Any:
    import transformers

    if case.source.model.startswith("XLM"):
        return transformers.XLMRobertaConfig(**XLM_ROBERTA, num_labels=2)
    return transformers.BertConfig(**BERT)


def _computed(case: Case, model: Any, heads: Arrays) -> Arrays:
    import torch

    model.eval()

    def states(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
        return found.last_hidden_state.numpy()

    if case.source.head:
        return outputs_with_heads(case, states, heads)
    with torch.no_grad():
        found = model(**{name: torch.tensor(value).long() for name, value in case.inputs.items()})
    return {name: found[name].numpy() for name in case.outputs}


def pretrained(case: Case) -> Arrays:
    import transformers
    from safetensors.numpy import load_file

    config = transformers.AutoConfig.from_pretrained(case.path)
    named = (config.architectures or [case.source.model])[0].removeprefix("TF")
    if named != case.source.model:
        raise WrongError(f"config.json names {named}, not {case.source.model}")
    loaded, info = getattr(transformers, named).from_pretrained(case.path, output_loading_info=True)
    amiss = {kind: sorted(info[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind]}
    if amiss:
        raise WrongError(f"from_pretrained: {amiss}")
    if (case.path / "tokenizer_config.json").exists():
        _check_tokenizer(case)
    heads = case.path / "heads.safetensors"
    return _computed(case, loaded, load_file(heads) if heads.exists() else {})


def _check_tokenizer(case: Case) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(case.path)
    ids, mask = case.text
    if case.source.group != "squad" and tokenizer(TEXTS[0])["input_ids"] != ids[0][mask[0] == 1].tolist():
        raise WrongError("the tokenizer gives other ids")


def _of_state_dict(case: Case, state: Mapping[str, Any]) -> Arrays:
    """Load the model's part of a state dict strictly; what is left are the heads."""
    import torch
    import transformers

    if case.source.maker == "keras3":
        found = of_keras3(case, {name: value.float() for name, value in state.items()})
        return {name: value.numpy() for name, value in found.items()}
    model = getattr(transformers, case.source.model)(transformers_config(case))
    names = set(model.state_dict())
    prefix = next((name.partition(".")[0] + "." for name in state if name.partition(".")[2] in names), "")
    prefix = "" if names & set(state) else prefix
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.removeprefix(prefix) in names}
    heads = {name: value.numpy() for name, value in state.items() if name.removeprefix(prefix) not in names}
    if not own:
        raise WrongError(f"no name is PyTorch's: {next(iter(state))}")
    if heads and not case.source.head:
        raise WrongError(f"no slot for {', '.join(heads)}")
    model.load_state_dict({name: torch.as_tensor(value) for name, value in own.items()}, strict=True)
    return _computed(case, model, heads)


def of_keras3(case: Case, state: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a model of Keras 3 from its weights as tensors of PyTorch."""
    import torch
    from torch.nn import functional

    prefix = "encoder." if any(name.startswith("encoder.") for name in state) else ""

    def linear(name: str, x: Any) -> Any:
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Any) -> Any:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def attention(name: str, x: Any, mask: Any) -> Any:
        query, key, value = (linear(f"{name}.{part}", x).unflatten(-1, (8, 8)) for part in ("query", "key", "value"))
        seen = mask.bool()[:, None, None, :]
        found = functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (query, key, value)), seen)
        return linear(f"{name}.attention_output", found.transpose(1, 2).flatten(2))

    def encoder(ids: Any, mask: Any) -> Any:
        x = state[f"{prefix}embed.weight"][torch.tensor(ids).long()]
        for number in range(2):
            x = norm(f"{prefix}norm_{number}a", x + attention(f"{prefix}attention_{number}", x, torch.tensor(mask)))
            wide = functional.gelu(linear(f"{prefix}in_{number}", x))
            x = norm(f"{prefix}norm_{number}b", x + linear(f"{prefix}out_{number}", wide))
        return x

    inputs = case.inputs
    if case.source.group == "numbers":
        pooled = encoder(inputs["input_ids"], inputs["attention_mask"]).mean(1)
        features = torch.cat([pooled, torch.tensor(inputs["numerical_features"])], 1)
        return {"": linear("head", features).softmax(-1)}
    head = next(name for name in state if name.endswith("dense.weight")).removesuffix(".weight")
    a, b = (encoder(inputs[f"input_{each}"], inputs[f"mask_{each}"])[:, 0] for each in "ab")
    return {"": -functional.cosine_similarity(linear(head, a).relu(), linear(head, b).relu())}


def pytorch(case: Case) -> Arrays:
    import torch

    read = torch.load(case.path, weights_only=True)
    return _of_state_dict(case, read.get("model_state_dict", read))


def safetensors(case: Case) -> Arrays:
    from safetensors.torch import load_file

    return _of_state_dict(case, load_file(case.path))


def _fed(case: Case, names: list[str]) -> dict[str, np.ndarray]:
    """The source's inputs by name; positions and types that a class of transformers takes besides."""
    ids, mask = case.text
    given = {"input_ids": ids, "attention_mask": mask} if case.source.head == "encoder" else case.inputs
    zeros = np.zeros_like(ids)
    more = {"token_type_ids": zeros, "position_ids": zeros + np.arange(zeros.shape[1])}
    lacking = [name for name in names if name not in given and name not in more]
    if lacking:
        raise WrongError(f"takes {', '.join(lacking)}, which the source does not")
    return {name: given[name] if name in given else more[name] for name in names}


def savedmodel(case: Case) -> Arrays:
    import tensorflow as tf

    serve = tf.saved_model.load(str(case.path)).signatures["serving_default"]
    specs = serve.structured_input_signature[1]
    fed = _fed(case, list(specs))
    for name, spec in specs.items():
        if spec.dtype.is_integer and (case.folder / case.source.path / "saved_model.pb").exists():
            kept = case.inputs[name].dtype if name in case.inputs else spec.dtype
            if spec.dtype != kept:
                raise WrongError(f"input {name} is {spec.dtype.name}, and the source's {kept}")
    found = serve(**{name: tf.constant(value, specs[name].dtype) for name, value in fed.items()})
    return {name: value.numpy() for name, value in found.items()}


def onnx(case: Case) -> Arrays:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(case.path))
    types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}
    fed = _fed(case, [each.name for each in session.get_inputs()])
    found = session.run(None, {each.name: fed[each.name].astype(types[each.type]) for each in session.get_inputs()})
    return dict(zip([each.name for each in session.get_outputs()], found, strict=True))


def pt2(case: Case) -> Arrays:
    import torch

    program = torch.export.load(str(case.path))
    wanted = {node.name: node.meta["val"].dtype for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    fed = {name: torch.tensor(value).to(wanted[name]) for name, value in _fed(case, inputs).items()}
    with torch.no_grad():
        return {name: value.numpy() for name, value in program.module()(**fed).items()}


def _of_keras(case: Case) -> Arrays:
    import keras

    from tests.migrations import keras3_models

    if case.source.is_whole:
        model = keras.models.load_model(case.path, custom_objects=keras3_models.OWN, safe_mode=False)
    else:
        model = getattr(keras3_models, case.source.group)()
        model.load_weights(case.path)
    return {"": np.asarray(model(dict(case.inputs)))}


JUDGES: dict[str, Judge] = {
    "pretrained": pretrained,
    "pytorch": pytorch,
    "safetensors": safetensors,
    "savedmodel": savedmodel,
    "onnx": onnx,
    "pt2": pt2,
    "h5": _of_keras,
    "keras": _of_keras,
}

if __name__ == "__main__":
    answer(JUDGES)
