"""Proof of an output before it is published: its tensors bit for bit, and what its graph computes."""

from converter.verification.comparing import compare_outputs
from converter.verification.outputs import verify_foreign_outputs, verify_outputs
from converter.verification.weights import verify_optimizer, verify_weights

__all__ = ["compare_outputs", "verify_foreign_outputs", "verify_optimizer", "verify_outputs", "verify_weights"]
