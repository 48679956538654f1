"""The torch half of the parity tests, run as a script in a process of its own: `torch_side.py FOLDER CLASS...`.

For each class it leaves FOLDER/CLASS with what save_pretrained writes (random weights), the traced graph and its
description, inputs at two shapes that differ from the traced one, and torch's own outputs and gradients for them.
`ready` or `failed` is written last.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

SIZES = ({"batch": 3, "choices": 2, "sequence": 11}, {"batch": 1, "choices": 4, "sequence": 5})
_BASE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
_ROBERTA = {**_BASE, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
CONFIGS = {
    "Bert": {**_BASE, "model_type": "bert"},
    "Roberta": {**_ROBERTA, "model_type": "roberta"},
    "XLMRoberta": {**_ROBERTA, "model_type": "xlm-roberta"},
    "DistilBert": {
        "model_type": "distilbert",
        "vocab_size": 50,
        "dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": 40,
    },
    "Albert": {**_BASE, "model_type": "albert", "embedding_size": 8, "num_hidden_layers": 2},
    "Electra": {**_BASE, "model_type": "electra", "embedding_size": 8},
}
HEADS = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


def config_of(architecture: str) -> dict[str, object]:
    """Return the tiny config of a class, by the family its name starts with."""
    family = next(family for family in CONFIGS if architecture.startswith(family))
    return {**CONFIGS[family], "architectures": [architecture]}


def prepare(architecture: str, folder: Path) -> None:
    """Write everything that one parity test needs into `folder`."""
    import numpy as np
    import torch
    import transformers

    from converter.graphs.description.sample_inputs import sample_inputs
    from converter.graphs.description.signature import Signature
    from converter.graphs.run.arrays import write_arrays
    from converter.graphs.trace.transformers import trace

    config_values = config_of(architecture)
    class_ = getattr(transformers, architecture)
    torch.manual_seed(1)
    model = class_(class_.config_class.from_dict(dict(config_values))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            # Keeps gradients from the padding row, which is no part of the computation that a graph describes.
            module.padding_idx = None
    model.save_pretrained(folder)
    described = trace(config=str(folder / "config.json"), architecture=architecture, graph=str(folder / "graph.onnx"))
    (folder / "architecture.json").write_text(json.dumps(described))

    inputs, results = {}, {}
    for number, sizes in enumerate(SIZES):
        arrays = sample_inputs(Signature.from_json(described).inputs, seed=number, sizes=sizes)
        outputs = model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        if number == 0:
            sum((output**2).sum() for output in outputs.values()).backward()
        inputs.update({f"{number}/{name}": array for name, array in arrays.items()})
        results.update({f"{number}/{name}": output.detach().numpy() for name, output in outputs.items()})
    gradients = {
        described["ties"].get(name, name): parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    write_arrays(str(folder / "inputs.npz"), inputs)
    write_arrays(str(folder / "outputs.npz"), results)
    np.savez(folder / "gradients.npz", **gradients)


def main() -> None:
    """Prepare each class named on the command line; a failure of one does not stop the next."""
    root = Path(sys.argv[1])
    for architecture in sys.argv[2:]:
        folder = root / architecture
        folder.mkdir()
        try:
            prepare(architecture, folder)
            (folder / "ready").write_text("")
        except Exception:
            (folder / "failed").write_text(traceback.format_exc())


if __name__ == "__main__":
    main()
