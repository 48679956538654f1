"""Faults in attributes that stand in few samples."""

from __future__ import annotations

from tests.mutants import Fault

_TENSORFLOW = "tests/graphs/test_operators.py -k 'running and known'"
_TORCH = "tests/graphs/test_torch_module.py -k running"

FAULTS = (
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="        mean * momentum + new_mean * (1 - momentum),",
        new="        mean * (1 - momentum) + new_mean * momentum,",
        tests=_TORCH,
        what="momentum of a batch norm is that of PyTorch's module",
    ),
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="        variance * momentum + new_variance * (1 - momentum),",
        new="        variance * 0.9 + new_variance * 0.1,",
        tests=_TORCH,
        what="momentum of a batch norm is the default",
    ),
    Fault(
        module="graphs/lower/torch/normalisation.py",
        old="    new_variance, new_mean = torch.var_mean(x, axes, correction=0)",
        new="    new_variance, new_mean = torch.var_mean(x, axes, correction=1)",
        tests=_TORCH,
        what="running variances are corrected, as PyTorch does and ONNX does not",
    ),
    Fault(
        module="graphs/lower/tensorflow/normalisation.py",
        old="        running = tuple(each * kept + new * (1 - kept) for",
        new="        running = tuple(each * (1 - kept) + new * kept for",
        tests=_TENSORFLOW,
        what="momentum of a batch norm is the other way about in TensorFlow",
    ),
)
