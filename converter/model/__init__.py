"""The neutral checkpoint: element types, tensors, the checkpoint itself, optimizer state, ledger lines, outputs."""
