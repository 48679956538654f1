"""Training in transformers.Trainer, on the same batches in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.training import torch_side
from tests.training.batches import STEPS, batches


class Items(torch.utils.data.Dataset):  # type: ignore[misc]
    """The examples of all batches, in their order."""

    def __init__(self) -> None:
        both = [*batches("bert", is_resumed=False), *batches("bert", is_resumed=True)]
        self.items = [
            {**{name: torch.tensor(array[row]) for name, array in inputs.items()}, "labels": int(labels[row])}
            for inputs, labels in both
            for row in range(len(labels))
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


class InOrder(transformers.Trainer):  # type: ignore[misc]
    """A Trainer that does not shuffle, and tells the losses of its last steps."""

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *arguments: Any) -> Any:
        loss = super().training_step(*arguments)
        self.recorded = [*getattr(self, "recorded", []), loss.item()]
        return loss

    def losses(self) -> list[float]:
        return self.recorded[-STEPS:]


def trainer_of(out: str | Path, *, rate: float) -> InOrder:
    """Return a Trainer of a BERT that knows nothing yet."""
    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=16,
        max_steps=2 * STEPS,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=0.05,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    torch.manual_seed(5)  # nothing of these weights may be left
    model = transformers.BertForSequenceClassification(torch_side.bert_config())
    return InOrder(model=model, args=arguments, train_dataset=Items())
