"""Training in torch: the models and optimizers, and the files that scripts save and load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.training.batches import HEADS, LABELS, LAYERS, LENGTH, VOCABULARY, WIDTH, Batch, batches


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm = torch.nn.Linear(8, 16), torch.nn.LayerNorm(16)
        self.fc2, self.out = torch.nn.Linear(16, 16), torch.nn.Linear(16, LABELS)

    def forward(self, x: Any) -> Any:
        return self.out(torch.tanh(self.fc2(self.norm(torch.tanh(self.fc1(x))))))


class Cnn(torch.nn.Module):
    """Without biases before batch normalisation, as in ResNet: their gradient is zero but for rounding.

    Adam and RMSprop divide that by itself: with such biases they, and nothing else, ended up to 8e-2 apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
        self.conv2, self.bn2 = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False), torch.nn.BatchNorm2d(6)
        self.out = torch.nn.Linear(6 * 4 * 4, LABELS)

    def forward(self, x: Any) -> Any:
        here = torch.tanh(self.bn1(self.conv1(x.movedim(-1, 1))))
        return self.out(torch.tanh(self.bn2(self.conv2(here))).flatten(1))


class Attention(torch.nn.Module):
    """Named as the variables of keras.layers.MultiHeadAttention are."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.value, self.attention_output = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, here: Any) -> Any:
        query, key, value = (
            layer(here).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return self.attention_output(attended.transpose(1, 2).flatten(2))


class Encoder(torch.nn.Module):
    """The encoder of BERT, without a pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = torch.nn.Linear(VOCABULARY, WIDTH, bias=False)
        self.places = torch.nn.Linear(LENGTH, WIDTH, bias=False)
        self.norm = torch.nn.LayerNorm(WIDTH)
        for index in range(LAYERS):
            self.add_module(f"attention{index}", Attention())
            self.add_module(f"norm{index}a", torch.nn.LayerNorm(WIDTH))
            self.add_module(f"up{index}", torch.nn.Linear(WIDTH, 2 * WIDTH))
            self.add_module(f"down{index}", torch.nn.Linear(2 * WIDTH, WIDTH))
            self.add_module(f"norm{index}b", torch.nn.LayerNorm(WIDTH))
        self.out = torch.nn.Linear(WIDTH, LABELS)
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=0.02)  # as BERT's

    def forward(self, ids: Any, places: Any) -> Any:
        here = self.norm(self.tokens(ids) + self.places(places))
        for index in range(LAYERS):
            layer: Callable[[str], Any] = lambda name, index=index: getattr(self, name.format(index))  # noqa: E731
            here = layer("norm{}a")(here + layer("attention{}")(here))
            here = layer("norm{}b")(here + layer("down{}")(torch.nn.functional.gelu(layer("up{}")(here))))
        return self.out(here.mean(1))


def bert_config() -> Any:
    import transformers

    return transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=LENGTH,
        num_labels=LABELS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )


class Bert(torch.nn.Module):
    """transformers' class, with logits for an answer."""

    def __new__(cls) -> Any:
        import transformers

        model = transformers.BertForSequenceClassification(bert_config())
        forward = model.forward
        model.forward = lambda **inputs: forward(**inputs).logits
        return model


MODELS: dict[str, Callable[[], Any]] = {"mlp": Mlp, "cnn": Cnn, "encoder": Encoder, "bert": Bert}
OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    # AdamW's rate is the default of all three. At ten times that the biases of keys, whose gradient is nothing but
    # rounding, end 1e-5 apart in PyTorch alone, when it only sums the rows of each batch the other way round.
    # RMSprop's is a quarter of Keras's default: no constant of PyTorch does what Keras's epsilon does below a root,
    # and what is left grows with the rate: at 0.001 2.9e-5 of a loss on the encoder and 2.4e-5 on BERT.
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.001, weight_decay=0.05),
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.00025, momentum=0.5),
}


def steps(model: Any, optimizer: Any, over: list[Batch]) -> list[float]:
    """Train on batches; return the loss of each."""
    losses = []
    for inputs, labels in over:
        optimizer.zero_grad()
        outputs = model(**{name: torch.tensor(array) for name, array in inputs.items()})
        loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def ended(model: Any, losses: list[float]) -> dict[str, Any]:
    """What is compared: losses, and the trained weights under `weight/<name>`."""
    weights = {f"weight/{name}": parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    return {"losses": np.array(losses), **weights}


def train(
    kind: str, algorithm: str, folder: Path, *, groups: Callable[[Any], Any] = lambda model: model.parameters()
) -> dict[str, Any]:
    """Train, save `checkpoint.pth` (and config.json beside it), and go on; return where that ended."""
    torch.manual_seed(0)
    model = MODELS[kind]()
    optimizer = OPTIMIZERS[algorithm](groups(model))
    steps(model, optimizer, batches(kind, is_resumed=False))
    state = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "checkpoint.pth")
    if kind == "bert":
        model.config.architectures = ["BertForSequenceClassification"]
        model.config.save_pretrained(folder)
    return ended(model, steps(model, optimizer, batches(kind, is_resumed=True)))


def resume(kind: str, algorithm: str, file: Path, *, is_reset: bool) -> dict[str, Any]:
    """Load what was converted, as a script does, and train on; `is_reset` forgets the moments."""
    model = MODELS[kind]()
    optimizer = OPTIMIZERS[algorithm](model.parameters())
    checkpoint: Mapping[str, Any] = torch.load(file, weights_only=True)
    model.load_state_dict(checkpoint["model_state_dict"])
    state = checkpoint["optimizer_state_dict"]
    optimizer.load_state_dict({**state, "state": {}} if is_reset else state)
    return ended(model, steps(model, optimizer, batches(kind, is_resumed=True)))
