"""Makes last.pt and best.pt as a trainer of ultralytics saves them: whole modules, of a package that readers lack.

python -m tests.oracle.make_ultralytics PACKAGE_FOLDER OUT
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

_TASKS = """
import torch
from torch import nn


class Conv(nn.Module):
    default_act = nn.SiLU()

    def __init__(self, c1, c2, k=1, s=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)
        self.act = self.default_act


class Detect(nn.Module):
    def __init__(self, nc, ch):
        super().__init__()
        self.nc, self.nl, self.reg_max, self.no = nc, len(ch), 16, nc + 64
        self.stride = torch.tensor([8.0, 16.0])
        self.anchors = torch.empty(0)
        self.shape = None
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(x, 16, 3), nn.Conv2d(16, 64, 1)) for x in ch)
        self.dfl = nn.Conv2d(16, 1, 1, bias=False).requires_grad_(False)


class DetectionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.yaml = {"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "ch": 3}
        self.model = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 16, 3, 2), Detect(3, (8, 16)))
        for number, layer in enumerate(self.model):
            layer.i, layer.f, layer.type = number, -1, type(layer).__name__
        self.names = {0: "a", 1: "b", 2: "c"}
        self.stride = torch.tensor([8.0, 16.0])
        self.save = [0, 1]
        self.inplace = True
        self.args = IterableSimpleNamespace(imgsz=640, data="coco8.yaml")
        self.criterion = None


class IterableSimpleNamespace:
    def __init__(self, **settings):
        self.__dict__.update(settings)
"""


def saved(made: Any, folder: Path) -> None:
    """Save the two files: one that training goes on from, and one that is stripped of its optimizer."""
    import torch

    torch.manual_seed(0)
    model = made.DetectionModel()
    ema = copy.deepcopy(model)
    for parameter in ema.parameters():
        parameter.data *= 0.5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    checkpoint = {
        "epoch": 2,
        "best_fitness": 0.25,
        "model": copy.deepcopy(model).half(),
        "ema": copy.deepcopy(ema).half(),
        "updates": 24,
        "optimizer": optimizer.state_dict(),
        "train_args": {"task": "detect", "model": "yolov8n.yaml", "epochs": 3, "lr0": 0.01, "amp": True},
        "train_metrics": {"metrics/mAP50(B)": 0.5, "fitness": 0.25},
        "train_results": {"epoch": [1, 2], "time": [3.0, 6.0]},
        "date": "2026-01-31T12:00:00.000000",
        "version": "8.3.0",
        "license": "AGPL-3.0",
        "docs": "",
    }
    torch.save(checkpoint, folder / "last.pt")
    stripped = {**checkpoint, "model": checkpoint["ema"], "epoch": -1}
    stripped |= dict.fromkeys(("optimizer", "best_fitness", "ema", "updates"))
    torch.save(stripped, folder / "best.pt")


def main(package: Path, folder: Path) -> None:
    """Write the package, and what is saved with it."""
    import importlib

    tasks = package / "ultralytics" / "nn" / "tasks.py"
    tasks.parent.mkdir(parents=True)
    tasks.write_text(_TASKS)
    sys.path.insert(0, str(package))
    saved(importlib.import_module("ultralytics.nn.tasks"), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
