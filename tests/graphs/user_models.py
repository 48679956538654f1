"""A user's own modules, as `--model` names them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Tagger(nn.Module):
    """Ids to tags: an embedding tied to the output, a buffer of each kind, a normalisation with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.norm = nn.BatchNorm1d(6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.GELU())
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor([0.5]))
        self.register_buffer("offset", torch.full((6,), 0.25), persistent=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, Any]:
        hidden = self.norm(self.embedding(ids).transpose(1, 2)).transpose(1, 2) * self.scale + self.offset
        if mask is not None:
            hidden = hidden * mask.unsqueeze(-1)
        hidden = self.body(hidden)
        return {"logits": self.head(hidden), "pooled": hidden.mean(1)}


class Convolutions(nn.Module):
    """Convolutions of every kind, and two weights that are not used as weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, padding=1)
        self.groups = nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.transposed = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.flat = nn.Conv1d(6, 5, 2)
        self.scale = nn.Parameter(torch.tensor([[0.5, 0.25, 1.0, 2.0, -1.0]]))
        self.both = nn.Linear(5, 5, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.transposed(self.depthwise(self.groups(self.plain(image))))
        hidden = self.flat(hidden.mean(-1)).transpose(1, 2) * self.scale
        return self.both(hidden) + self.both.weight.sum(0)


class Frozen(nn.Module):
    """A module that looks at the extent of its input, and so keeps the one it was traced with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = int(x.shape[0])
        return self.linear(x) + torch.arange(rows).sum() + torch.zeros(rows, 2)


def tagger() -> nn.Module:
    """A factory, as a function."""
    return Tagger()


def number() -> int:
    """A factory of something else."""
    return 3


def failing() -> nn.Module:
    """A factory that does not work."""
    raise RuntimeError("no weights at hand")


class Attentive(nn.Module):
    """Attention under a mask of truth values, or of numbers, which may leave a query no key."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)

    def forward(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
        hidden = self.embedding(ids).unflatten(-1, (2, 4)).transpose(1, 2)
        mask = attention_mask.bool()[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        numbers = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        attend = nn.functional.scaled_dot_product_attention
        return {"by_truth": attend(hidden, hidden, hidden, mask), "by_numbers": attend(hidden, hidden, hidden, numbers)}
