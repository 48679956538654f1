"""Sources of PyTorch: a SQuAD BERT as people save it. `python -m tests.migrations.make_torch FOLDER GROUP...`"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.migrations.saving import Save, make, save
from tests.migrations.steps import of_torch
from tests.migrations.texts import BERT, CONTEXTS, QUESTION, wordpiece


def squad(folder: Path) -> None:
    tokenizer = transformers.BertTokenizer.from_pretrained(str(wordpiece(folder / "tokenizers" / "bert").parent))
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**BERT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    inputs = tokenizer([QUESTION] * 2, CONTEXTS, padding=True, return_tensors="pt")
    answers = torch.tensor([9, 9])
    for _ in range(8):
        optimizer.zero_grad()
        model(**inputs, start_positions=answers, end_positions=answers).loss.backward()
        optimizer.step()
    model.eval()

    def state(**more: Any) -> dict[str, Any]:
        return {"model_state_dict": model.state_dict(), **more, "optimizer_state_dict": optimizer.state_dict()}

    def of_form(tokenizer_state: Any) -> Save:
        def write(to: Path) -> None:
            torch.save(state(tokenizer_state_dict=tokenizer_state), to / "squad.pth")
            model.config.save_pretrained(to / "hf_config")
            tokenizer.save_pretrained(to / "tokenizer")

        return write

    def beside(to: Path) -> None:
        torch.save(state(tokenizer_state_dict=tokenizer.get_vocab()), to / "squad.pth")
        model.config.save_pretrained(to)
        tokenizer.save_pretrained(to)

    def three_keys(to: Path) -> None:
        config = {"model_type": "bert", "model_name": "bert-base-uncased", "optimizer": "adamw"}
        (to / "config.json").write_text(json.dumps(config))
        torch.save(state(), to / "squad.pth")
        tokenizer.save_pretrained(to)

    saves = {
        "squad_vocab": of_form(tokenizer.get_vocab()),
        "squad_object": of_form(tokenizer),
        "squad_dict": of_form(tokenizer.__dict__),
        "squad_init": of_form({"init_kwargs": tokenizer.init_kwargs}),
        "squad_beside": beside,
        "squad_three_keys": three_keys,
    }

    def compute() -> dict[str, Any]:
        outputs = model(**inputs)
        return {name: outputs[name] for name in ("start_logits", "end_logits")}

    def go_on() -> tuple[dict[str, Any], dict[str, Any]]:
        weights = copy.deepcopy(model.state_dict())
        after = of_torch(optimizer, compute)
        model.load_state_dict(weights)
        return after, of_torch(torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01), compute)

    with torch.no_grad():
        outputs = compute()
    save(folder, saves, inputs, outputs, go_on)


if __name__ == "__main__":
    make(globals(), lambda: torch.manual_seed(3))
